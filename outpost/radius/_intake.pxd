from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from outpost._fastradius cimport Packet, Parts, SharedSecret

cdef enum:
    # What `Replies` takes as a key at most: a path of UDP over IPv6 and its tail.
    LONGEST_KEY = 64
    # Code, identifier, signed or not.
    KEY_TAIL = 3

# Beyond the verdicts on octets.
cdef enum Objection:
    V_UNEXPECTED_CODE = 8
    V_STATUS_WITHOUT_MESSAGE_AUTHENTICATOR = 9
    V_EAP_WITHOUT_MESSAGE_AUTHENTICATOR = 10
    V_MISSING_MESSAGE_AUTHENTICATOR = 11
    V_PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR = 12
    V_AMBIGUOUS = 13
    V_DUPLICATE = 14


cdef struct Reply:
    Reply *next             # in its bucket
    Reply *older
    Reply *newer
    size_t hash
    double expires_at
    int key_size
    int request_size
    int reply_size
    uint8_t octets[0]       # key, request, reply


cdef class Replies:
    cdef Reply **buckets
    cdef size_t mask
    cdef Reply *oldest
    cdef Reply *newest
    cdef Py_ssize_t count
    cdef Py_ssize_t most
    cdef Py_ssize_t most_octets
    cdef Py_ssize_t octets
    cdef double lifetime_s
    # Valid until the next call; NULL if there is none (any more).
    cdef const Reply *look(self, const uint8_t *key, int key_size, const uint8_t *request, int size, double now) noexcept
    cdef int add(
        self, const uint8_t *key, int key_size, const uint8_t *request, int size, const uint8_t *reply, int reply_size,
        double now,
    ) except -1
    cdef Reply **place(self, const uint8_t *key, int key_size, size_t hash) noexcept
    cdef int grow(self) except -1
    cdef void forget(self, Reply *gone) noexcept
    cdef void expire_some(self, double now, int most) noexcept


cdef class Peer:
    cdef readonly object client
    cdef readonly object source
    cdef readonly SharedSecret secret
    cdef bint is_signature_required
    cdef bint is_proxy_state_free
    cdef object lane            # what `_express` keeps with it


cdef class Request:
    cdef readonly Packet packet
    cdef readonly object client
    cdef readonly object source
    cdef readonly bytes path
    cdef readonly bytes key
    cdef readonly double received_at
    cdef readonly bint is_live
    cdef readonly bint is_superseding


cdef int objection(const Parts *parts, Peer peer) noexcept
cdef int put_key(uint8_t *out, const uint8_t *path, int path_size, const uint8_t *raw, bint is_signed) noexcept nogil
cdef Request made_request(
    const uint8_t *raw, const Parts *parts, Peer peer, const uint8_t *key, int key_size, double now
)


cdef class Intake:
    cdef readonly Replies replies
    cdef readonly object pending
    cdef int let_go(self, Request request) except -1
