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
    cpdef bytes key(self, bytes path)


cdef class Kept:
    cdef bytes key
    cdef bytes request
    cdef bytes reply
    cdef double expires_at


cdef class Replies:
    cdef dict kept
    cdef object order
    cdef Py_ssize_t most
    cdef Py_ssize_t most_octets
    cdef Py_ssize_t octets
    cdef double lifetime_s
    cdef bytes look(self, bytes key, bytes request, double now)
    cdef int add(self, bytes key, bytes request, bytes reply, double now) except -1
    cdef Kept oldest(self)
    cdef int expire_some(self, double now, int most) except -1
    cdef int forget(self, Kept gone) except -1


cdef class Peer:
    cdef readonly object client
    cdef readonly object source
    cdef readonly SharedSecret secret
    cdef bint is_signature_required
    cdef bint is_proxy_state_free


cdef class Request:
    cdef readonly Packet packet
    cdef readonly object client
    cdef readonly object source
    cdef readonly bytes path
    cdef readonly bytes key
    cdef readonly double received_at
    cdef readonly bint is_live
    cdef readonly bint is_superseding


cdef class Intake:
    cdef readonly Replies replies
    cdef readonly object pending
    cdef int let_go(self, Request request) except -1
