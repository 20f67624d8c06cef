# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Datagrams to requests in C: authenticators, policy, repetitions (RFC 2865 3, 5080 2.2.2)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from outpost._fastradius cimport (
    ACCESS_REQUEST, STATUS_SERVER, V_FINE, Parts, SharedSecret, authenticity, made_packet, outline,
)

from collections import OrderedDict

__all__ = (
    "AMBIGUOUS",
    "DUPLICATE",
    "EAP_WITHOUT_MESSAGE_AUTHENTICATOR",
    "MISSING_MESSAGE_AUTHENTICATOR",
    "PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR",
    "STATUS_WITHOUT_MESSAGE_AUTHENTICATOR",
    "UNEXPECTED_CODE",
    "Intake",
    "Peer",
    "Replies",
    "Request",
)

cdef extern from *:
    """
    /* Keyed anew in each process, so that nobody can choose keys that meet in one bucket. */
    #if PY_VERSION_HEX >= 0x030E0000
    #define outpost_hash(data, size) ((size_t)Py_HashBuffer((data), (size)))
    #else
    #define outpost_hash(data, size) ((size_t)_Py_HashBytes((data), (size)))
    #endif
    """
    size_t outpost_hash(const void *data, Py_ssize_t size) noexcept nogil

UNEXPECTED_CODE = 8
STATUS_WITHOUT_MESSAGE_AUTHENTICATOR = 9
EAP_WITHOUT_MESSAGE_AUTHENTICATOR = 10
MISSING_MESSAGE_AUTHENTICATOR = 11
PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR = 12
AMBIGUOUS = 13
DUPLICATE = 14

cdef enum:
    FEWEST_BUCKETS = 64


# -- replies --------------------------------------------------------------------------------------


@cython.final
cdef class Replies:
    """Replies given lately, for requests that come again (RFC 5080 2.2.2). The oldest goes first.

    A table of chains; every reply is one piece of memory and in one list from the oldest to the newest.
    """

    def __cinit__(self, Py_ssize_t most, Py_ssize_t most_octets, double lifetime_s):
        if most < 1 or most_octets < 1 or not lifetime_s > 0:
            raise ValueError("limits must be positive")
        self.buckets = <Reply **>calloc(FEWEST_BUCKETS, sizeof(Reply *))
        if self.buckets == NULL:
            raise MemoryError
        self.mask = FEWEST_BUCKETS - 1
        self.most = most
        self.most_octets = most_octets
        self.lifetime_s = lifetime_s

    def __dealloc__(self):
        while self.oldest != NULL:
            self.forget(self.oldest)
        free(self.buckets)

    def __len__(self) -> int:
        return self.count

    cdef Reply **place(self, const uint8_t *key, int key_size, size_t hash) noexcept:
        """Where the pointer to the reply under this key is, or would be put."""
        cdef Reply **at = &self.buckets[hash & self.mask]
        while at[0] != NULL:
            if at[0].hash == hash and at[0].key_size == key_size and memcmp(at[0].octets, key, key_size) == 0:
                break
            at = &at[0].next
        return at

    cdef const Reply *look(self, const uint8_t *key, int key_size, const uint8_t *request, int size, double now) noexcept:
        cdef Reply *found = self.place(key, key_size, outpost_hash(key, key_size))[0]
        if found == NULL:
            return NULL
        # Octets, not the Request Authenticator alone: a device that repeats authenticators must not get
        # the answer to another user's request.
        if (
            now < found.expires_at and found.request_size == size
            and memcmp(found.octets + key_size, request, size) == 0
        ):
            return found
        self.forget(found)
        return NULL

    def find(self, bytes key not None, bytes request not None, double now):
        """The reply that the very same octets got under this key; None if there is none (any more)."""
        cdef const Reply *found
        if PyBytes_GET_SIZE(key) > LONGEST_KEY:
            raise ValueError("no key")
        found = self.look(
            <const uint8_t *>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key),
            <const uint8_t *>PyBytes_AS_STRING(request), <int>PyBytes_GET_SIZE(request), now,
        )
        if found == NULL:
            return None
        return PyBytes_FromStringAndSize(
            <const char *>found.octets + found.key_size + found.request_size, found.reply_size
        )

    def keep(self, bytes key not None, bytes request not None, bytes reply not None, double now) -> None:
        """Keep a reply, and let go of the oldest ones beyond the limits."""
        if PyBytes_GET_SIZE(key) > LONGEST_KEY:
            raise ValueError("no key")
        self.add(
            <const uint8_t *>PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key),
            <const uint8_t *>PyBytes_AS_STRING(request), <int>PyBytes_GET_SIZE(request),
            <const uint8_t *>PyBytes_AS_STRING(reply), <int>PyBytes_GET_SIZE(reply), now,
        )

    cdef int add(
        self, const uint8_t *key, int key_size, const uint8_t *request, int size, const uint8_t *reply, int reply_size,
        double now,
    ) except -1:
        cdef size_t hash = outpost_hash(key, key_size)
        cdef Reply *one = self.place(key, key_size, hash)[0]
        cdef Reply **at
        if one != NULL:
            self.forget(one)
        if self.count >= <Py_ssize_t>self.mask:
            self.grow()
        one = <Reply *>malloc(sizeof(Reply) + key_size + size + reply_size)
        if one == NULL:
            raise MemoryError
        one.hash = hash
        one.expires_at = now + self.lifetime_s
        one.key_size = key_size
        one.request_size = size
        one.reply_size = reply_size
        memcpy(one.octets, key, key_size)
        memcpy(one.octets + key_size, request, size)
        memcpy(one.octets + key_size + size, reply, reply_size)
        at = &self.buckets[hash & self.mask]
        one.next = at[0]
        at[0] = one
        one.newer = NULL
        one.older = self.newest
        if self.newest == NULL:
            self.oldest = one
        else:
            self.newest.newer = one
        self.newest = one
        self.count += 1
        self.octets += size + reply_size
        while self.count > self.most or self.octets > self.most_octets:
            self.forget(self.oldest)
        # Two out for one in: what is over is gone soon, without a long sweep.
        self.expire_some(now, 2)
        return 0

    cdef int grow(self) except -1:
        cdef size_t mask = 2 * self.mask + 1
        cdef Reply **buckets = <Reply **>calloc(mask + 1, sizeof(Reply *))
        cdef Reply *one = self.oldest
        cdef Reply **at
        if buckets == NULL:
            raise MemoryError
        while one != NULL:
            at = &buckets[one.hash & mask]
            one.next = at[0]
            at[0] = one
            one = one.newer
        free(self.buckets)
        self.buckets = buckets
        self.mask = mask
        return 0

    def next_deadline(self):
        """When the oldest reply is over; None without any."""
        return None if self.oldest == NULL else self.oldest.expires_at

    def expire(self, double now) -> None:
        """Let go of the replies nobody asks for any more; of very many only some at a time."""
        self.expire_some(now, 8192)

    cdef void expire_some(self, double now, int most) noexcept:
        while most > 0 and self.oldest != NULL and now >= self.oldest.expires_at:
            self.forget(self.oldest)
            most -= 1

    cdef void forget(self, Reply *gone) noexcept:
        cdef Reply **at = &self.buckets[gone.hash & self.mask]
        while at[0] != gone:
            at = &at[0].next
        at[0] = gone.next
        if gone.older == NULL:
            self.oldest = gone.newer
        else:
            gone.older.newer = gone.newer
        if gone.newer == NULL:
            self.newest = gone.older
        else:
            gone.newer.older = gone.older
        self.count -= 1
        self.octets -= gone.request_size + gone.reply_size
        free(gone)


# -- requests in work -----------------------------------------------------------------------------


@cython.final
cdef class Peer:
    """One address that sends, and who serves it."""

    def __init__(
        self,
        client not None,
        source not None,
        SharedSecret secret not None,
        *,
        bint is_signature_required,
        bint is_proxy_state_free,
    ):
        self.client = client
        self.source = source
        self.secret = secret
        self.is_signature_required = is_signature_required
        self.is_proxy_state_free = is_proxy_state_free


@cython.final
@cython.freelist(64)
cdef class Request:
    """One request to be answered once."""


cdef int objection(const Parts *parts, Peer peer) noexcept:
    """Why a packet whose authenticators hold gets no answer from here; V_FINE for no reason."""
    if parts.code != ACCESS_REQUEST and parts.code != STATUS_SERVER:
        return V_UNEXPECTED_CODE
    if not parts.message_authenticator_at:
        if parts.code == STATUS_SERVER:
            return V_STATUS_WITHOUT_MESSAGE_AUTHENTICATOR  # RFC 5997 3
        if parts.has_eap:
            return V_EAP_WITHOUT_MESSAGE_AUTHENTICATOR  # RFC 3579 3.1
        if peer.is_signature_required:
            return V_MISSING_MESSAGE_AUTHENTICATOR
        if parts.proxy_state_octets and not peer.is_proxy_state_free:
            return V_PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR
    if parts.is_ambiguous:
        return V_AMBIGUOUS
    return V_FINE


cdef int put_key(uint8_t *out, const uint8_t *path, int path_size, const uint8_t *raw, bint is_signed) noexcept nogil:
    """What tells requests apart as long as their content is the same; its size.

    Path, code, identifier, and whether it is signed.  Anybody who can forge a sender's address can send what is not
    signed: it must not end a request, or make a reply forgotten, that the device itself has signed for.
    """
    memcpy(out, path, path_size)
    memcpy(out + path_size, raw, 2)
    out[path_size + 2] = is_signed
    return path_size + KEY_TAIL


cdef Request made_request(
    const uint8_t *raw, const Parts *parts, Peer peer, const uint8_t *key, int key_size, double now
):
    """A request of octets that were found fine."""
    cdef Request request = Request.__new__(Request)
    request.packet = made_packet(raw, parts, peer.secret)
    request.client = peer.client
    request.source = peer.source
    request.path = PyBytes_FromStringAndSize(<const char *>key, key_size - KEY_TAIL)
    request.key = PyBytes_FromStringAndSize(<const char *>key, key_size)
    request.received_at = now
    request.is_live = True
    return request


@cython.final
cdef class Intake:
    """Datagrams to requests: authenticators, policy, duplicates, in this order."""

    def __cinit__(self, Replies replies not None):
        self.replies = replies
        self.pending = OrderedDict()

    def receive(self, bytes data not None, Peer peer not None, bytes path not None, double now):
        """A new request, the octets of a reply to send once more, or the number of why there is no answer."""
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef uint8_t key[LONGEST_KEY]
        cdef Parts parts
        cdef const Reply *reply
        cdef Request request
        cdef Request older
        cdef int key_size
        cdef int verdict = outline(raw, PyBytes_GET_SIZE(data), &parts)
        if verdict == V_FINE:
            verdict = authenticity(raw, PyBytes_GET_SIZE(data), &parts, peer.secret)
        if verdict == V_FINE:
            verdict = objection(&parts, peer)
        if verdict != V_FINE:
            return verdict
        if PyBytes_GET_SIZE(path) > LONGEST_KEY - KEY_TAIL:
            raise ValueError("no path")
        key_size = put_key(
            key, <const uint8_t *>PyBytes_AS_STRING(path), <int>PyBytes_GET_SIZE(path), raw,
            parts.message_authenticator_at != 0,
        )
        reply = self.replies.look(key, key_size, raw, parts.size, now)
        if reply != NULL:
            return PyBytes_FromStringAndSize(
                <const char *>reply.octets + reply.key_size + reply.request_size, reply.reply_size
            )
        request = made_request(raw, &parts, peer, key, key_size, now)
        if self.pending:
            older = <Request>self.pending.get(request.key)
            if older is not None:
                if older.packet.octets == request.packet.octets:
                    return V_DUPLICATE
                self.let_go(older)
                request.is_superseding = True
        return request

    def hold(self, Request request not None) -> None:
        """Remember a request that is not answered at once."""
        self.pending[request.key] = request

    def finish(self, Request request not None, bytes reply not None, double now) -> bool:
        """Keep the reply for retransmissions; False if the request was answered or given up before."""
        cdef bytes octets
        if not request.is_live:
            return False
        self.let_go(request)
        octets = request.packet.octets
        self.replies.add(
            <const uint8_t *>PyBytes_AS_STRING(request.key), <int>PyBytes_GET_SIZE(request.key),
            <const uint8_t *>PyBytes_AS_STRING(octets), <int>PyBytes_GET_SIZE(octets),
            <const uint8_t *>PyBytes_AS_STRING(reply), <int>PyBytes_GET_SIZE(reply), now,
        )
        return True

    def end(self, Request request not None) -> bool:
        """Nobody will answer this request any more; False if that was so before."""
        if not request.is_live:
            return False
        self.let_go(request)
        return True

    cdef int let_go(self, Request request) except -1:
        request.is_live = False
        if self.pending and self.pending.get(request.key) is request:
            del self.pending[request.key]
        return 0
