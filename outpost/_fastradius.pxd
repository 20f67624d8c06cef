from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    LONGEST = 4096
    LONGEST_PASSWORD = 128

cdef enum Verdict:
    V_FINE = 0
    V_TOO_SHORT = 1
    V_BAD_LENGTH = 2
    V_BAD_ATTRIBUTE = 3
    V_TOO_MANY_ATTRIBUTES = 4
    V_MALFORMED_MESSAGE_AUTHENTICATOR = 5
    V_BAD_MESSAGE_AUTHENTICATOR = 6
    V_BAD_REQUEST_AUTHENTICATOR = 7

cdef enum Code:
    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCOUNTING_REQUEST = 4
    STATUS_SERVER = 12
    DISCONNECT_REQUEST = 40
    COA_REQUEST = 43

cdef enum:
    # Service-Type of a MAC authentication bypass (RFC 2865 5.6).
    CALL_CHECK = 10


cdef struct Parts:
    # Header, and where attributes start; 0 for those that are not there.
    int size
    int code
    int identifier
    int service_type
    bint is_ambiguous
    bint has_eap
    bint has_ms_chap
    bint has_chargeable_user_identity
    int user_name_at
    int user_password_at
    int chap_password_at
    int chap_challenge_at
    int state_at
    int calling_station_id_at
    int message_authenticator_at
    int proxy_state_octets


cdef class SharedSecret:
    cdef readonly bytes octets
    cdef uint32_t inner[4]
    cdef uint32_t outer[4]


cdef class Packet:
    cdef readonly bytes octets
    cdef Parts parts
    cdef readonly SharedSecret secret
    cdef bytes value_at(self, int offset)


cdef int outline(const uint8_t *raw, Py_ssize_t received, Parts *parts) noexcept nogil
cdef int authenticity(const uint8_t *raw, Py_ssize_t received, const Parts *parts, SharedSecret secret) noexcept
cdef Packet made_packet(const uint8_t *raw, const Parts *parts, SharedSecret secret)
cdef bint is_plain_login(const uint8_t *raw, const Parts *parts) noexcept nogil
cdef int plain_password(const uint8_t *raw, const Parts *parts, SharedSecret secret, uint8_t *out) noexcept
cdef Py_ssize_t compose_reply(
    const uint8_t *raw,
    const Parts *parts,
    SharedSecret secret,
    int code,
    const uint8_t *added,
    Py_ssize_t extra,
    uint8_t *out,
) noexcept
