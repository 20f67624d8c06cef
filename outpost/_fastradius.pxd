from libc.stdint cimport uint32_t


cdef class SharedSecret:
    cdef readonly bytes octets
    cdef uint32_t inner[4]
    cdef uint32_t outer[4]


cdef class Packet:
    cdef readonly bytes octets
    cdef readonly int code
    cdef readonly int identifier
    cdef readonly int service_type
    cdef readonly bint is_ambiguous
    cdef readonly bint has_eap
    cdef readonly bint has_ms_chap
    cdef SharedSecret secret
    cdef int user_name_at
    cdef int user_password_at
    cdef int chap_password_at
    cdef int chap_challenge_at
    cdef int state_at
    cdef int calling_station_id_at
    cdef int nas_identifier_at
    cdef int message_authenticator_at
    cdef int proxy_state_octets
    cdef bytes value_at(self, int offset)


cdef class Replies:
    cdef object kept
    cdef Py_ssize_t most
    cdef Py_ssize_t most_octets
    cdef Py_ssize_t octets
    cdef double lifetime_s
    cdef int forget(self, bytes key) except -1
