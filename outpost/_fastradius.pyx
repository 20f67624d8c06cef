# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""RADIUS packets in C: parse, judge, unhide, sign (RFC 2865, 2869, 3579).

Knows no names, no policy and no clock: it says what a datagram is, whether its authenticators hold, and builds
replies.  A bad datagram comes back as a small number, never as an exception: on UDP the attacker picks the rate.
MD5 is here as a block function because the protocol asks for several digests of one or two blocks per packet; the
tests hold it against hashlib.
"""

cimport cython
from cpython.unicode cimport PyUnicode_DecodeUTF8
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from outpost.errors import LimitExceeded

__all__ = (
    "BAD_ATTRIBUTE",
    "BAD_LENGTH",
    "BAD_MESSAGE_AUTHENTICATOR",
    "BAD_REQUEST_AUTHENTICATOR",
    "MALFORMED_MESSAGE_AUTHENTICATOR",
    "TOO_MANY_ATTRIBUTES",
    "TOO_SHORT",
    "Packet",
    "SharedSecret",
    "decode",
    "encode_request",
    "hide_user_password",
    "md5",
    "unhide_user_password",
)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* RFC 1321 3.4, one block. */
    #define OUTPOST_ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
    #define OUTPOST_F(b, c, d) ((d) ^ ((b) & ((c) ^ (d))))
    /* Two halves that never have a bit in common: the one without b can be added before b is known. */
    #define OUTPOST_G(b, c, d) (((c) & ~(d)) + ((b) & (d)))
    #define OUTPOST_H(b, c, d) ((b) ^ (c) ^ (d))
    #define OUTPOST_I(b, c, d) ((c) ^ ((b) | ~(d)))
    #define OUTPOST_STEP(f, a, b, c, d, k, s, t) \\
        (a) += x[k] + (uint32_t)(t); (a) += f((b), (c), (d)); (a) = OUTPOST_ROTATE((a), (s)) + (b);

    /* Compilers make one instruction of each of these where the machine is little-endian. */
    static inline uint32_t outpost_load(const uint8_t *p) {
        return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    static inline void outpost_store(uint8_t *p, uint32_t x) {
        p[0] = (uint8_t)x; p[1] = (uint8_t)(x >> 8); p[2] = (uint8_t)(x >> 16); p[3] = (uint8_t)(x >> 24);
    }

    static void outpost_md5_block(uint32_t *state, const uint8_t *block) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3], x[16];
    #define L(i) x[i] = outpost_load(block + 4 * i);
        L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
    #undef L
    #define S OUTPOST_STEP
        S(OUTPOST_F,a,b,c,d, 0, 7,0xd76aa478) S(OUTPOST_F,d,a,b,c, 1,12,0xe8c7b756)
        S(OUTPOST_F,c,d,a,b, 2,17,0x242070db) S(OUTPOST_F,b,c,d,a, 3,22,0xc1bdceee)
        S(OUTPOST_F,a,b,c,d, 4, 7,0xf57c0faf) S(OUTPOST_F,d,a,b,c, 5,12,0x4787c62a)
        S(OUTPOST_F,c,d,a,b, 6,17,0xa8304613) S(OUTPOST_F,b,c,d,a, 7,22,0xfd469501)
        S(OUTPOST_F,a,b,c,d, 8, 7,0x698098d8) S(OUTPOST_F,d,a,b,c, 9,12,0x8b44f7af)
        S(OUTPOST_F,c,d,a,b,10,17,0xffff5bb1) S(OUTPOST_F,b,c,d,a,11,22,0x895cd7be)
        S(OUTPOST_F,a,b,c,d,12, 7,0x6b901122) S(OUTPOST_F,d,a,b,c,13,12,0xfd987193)
        S(OUTPOST_F,c,d,a,b,14,17,0xa679438e) S(OUTPOST_F,b,c,d,a,15,22,0x49b40821)
        S(OUTPOST_G,a,b,c,d, 1, 5,0xf61e2562) S(OUTPOST_G,d,a,b,c, 6, 9,0xc040b340)
        S(OUTPOST_G,c,d,a,b,11,14,0x265e5a51) S(OUTPOST_G,b,c,d,a, 0,20,0xe9b6c7aa)
        S(OUTPOST_G,a,b,c,d, 5, 5,0xd62f105d) S(OUTPOST_G,d,a,b,c,10, 9,0x02441453)
        S(OUTPOST_G,c,d,a,b,15,14,0xd8a1e681) S(OUTPOST_G,b,c,d,a, 4,20,0xe7d3fbc8)
        S(OUTPOST_G,a,b,c,d, 9, 5,0x21e1cde6) S(OUTPOST_G,d,a,b,c,14, 9,0xc33707d6)
        S(OUTPOST_G,c,d,a,b, 3,14,0xf4d50d87) S(OUTPOST_G,b,c,d,a, 8,20,0x455a14ed)
        S(OUTPOST_G,a,b,c,d,13, 5,0xa9e3e905) S(OUTPOST_G,d,a,b,c, 2, 9,0xfcefa3f8)
        S(OUTPOST_G,c,d,a,b, 7,14,0x676f02d9) S(OUTPOST_G,b,c,d,a,12,20,0x8d2a4c8a)
        S(OUTPOST_H,a,b,c,d, 5, 4,0xfffa3942) S(OUTPOST_H,d,a,b,c, 8,11,0x8771f681)
        S(OUTPOST_H,c,d,a,b,11,16,0x6d9d6122) S(OUTPOST_H,b,c,d,a,14,23,0xfde5380c)
        S(OUTPOST_H,a,b,c,d, 1, 4,0xa4beea44) S(OUTPOST_H,d,a,b,c, 4,11,0x4bdecfa9)
        S(OUTPOST_H,c,d,a,b, 7,16,0xf6bb4b60) S(OUTPOST_H,b,c,d,a,10,23,0xbebfbc70)
        S(OUTPOST_H,a,b,c,d,13, 4,0x289b7ec6) S(OUTPOST_H,d,a,b,c, 0,11,0xeaa127fa)
        S(OUTPOST_H,c,d,a,b, 3,16,0xd4ef3085) S(OUTPOST_H,b,c,d,a, 6,23,0x04881d05)
        S(OUTPOST_H,a,b,c,d, 9, 4,0xd9d4d039) S(OUTPOST_H,d,a,b,c,12,11,0xe6db99e5)
        S(OUTPOST_H,c,d,a,b,15,16,0x1fa27cf8) S(OUTPOST_H,b,c,d,a, 2,23,0xc4ac5665)
        S(OUTPOST_I,a,b,c,d, 0, 6,0xf4292244) S(OUTPOST_I,d,a,b,c, 7,10,0x432aff97)
        S(OUTPOST_I,c,d,a,b,14,15,0xab9423a7) S(OUTPOST_I,b,c,d,a, 5,21,0xfc93a039)
        S(OUTPOST_I,a,b,c,d,12, 6,0x655b59c3) S(OUTPOST_I,d,a,b,c, 3,10,0x8f0ccc92)
        S(OUTPOST_I,c,d,a,b,10,15,0xffeff47d) S(OUTPOST_I,b,c,d,a, 1,21,0x85845dd1)
        S(OUTPOST_I,a,b,c,d, 8, 6,0x6fa87e4f) S(OUTPOST_I,d,a,b,c,15,10,0xfe2ce6e0)
        S(OUTPOST_I,c,d,a,b, 6,15,0xa3014314) S(OUTPOST_I,b,c,d,a,13,21,0x4e0811a1)
        S(OUTPOST_I,a,b,c,d, 4, 6,0xf7537e82) S(OUTPOST_I,d,a,b,c,11,10,0xbd3af235)
        S(OUTPOST_I,c,d,a,b, 2,15,0x2ad7d2bb) S(OUTPOST_I,b,c,d,a, 9,21,0xeb86d391)
    #undef S
        state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    }
    """
    void md5_block "outpost_md5_block" (uint32_t *state, const uint8_t *block) noexcept nogil
    void store "outpost_store" (uint8_t *p, uint32_t x) noexcept nogil


TOO_SHORT = 1
BAD_LENGTH = 2
BAD_ATTRIBUTE = 3
TOO_MANY_ATTRIBUTES = 4
MALFORMED_MESSAGE_AUTHENTICATOR = 5
BAD_MESSAGE_AUTHENTICATOR = 6
BAD_REQUEST_AUTHENTICATOR = 7

cdef enum:
    HEADER = 20
    # What FreeRADIUS ships as max_attributes.
    MOST_ATTRIBUTES = 200
    # Signatures worked out for one unsigned packet, in search of a damaged one.
    MOST_TRIES = 8

cdef enum AttributeType:
    USER_NAME = 1
    USER_PASSWORD = 2
    CHAP_PASSWORD = 3
    SERVICE_TYPE = 6
    STATE = 24
    VENDOR_SPECIFIC = 26
    CALLING_STATION_ID = 31
    PROXY_STATE = 33
    CHAP_CHALLENGE = 60
    EAP_MESSAGE = 79
    MESSAGE_AUTHENTICATOR = 80
    CHARGEABLE_USER_IDENTITY = 89

cdef uint8_t ZEROS[16]  # static storage: all zero, never written


# -- MD5 and HMAC-MD5 -----------------------------------------------------------------------------


cdef struct Md5:
    uint32_t state[4]
    uint64_t length
    uint8_t block[64]


cdef inline void md5_start(Md5 *digest) noexcept nogil:
    digest.state[0] = 0x67452301u
    digest.state[1] = 0xefcdab89u
    digest.state[2] = 0x98badcfeu
    digest.state[3] = 0x10325476u
    digest.length = 0


cdef inline void md5_continue(Md5 *digest, const uint32_t *state) noexcept nogil:
    """Go on after the one block that `state` has digested."""
    memcpy(digest.state, state, 16)
    digest.length = 64


cdef void md5_update(Md5 *digest, const uint8_t *data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t used = <Py_ssize_t>(digest.length & 63)
    cdef Py_ssize_t room = 64 - used
    digest.length += <uint64_t>size
    if used:
        if size < room:
            memcpy(&digest.block[used], data, <size_t>size)
            return
        memcpy(&digest.block[used], data, <size_t>room)
        md5_block(digest.state, digest.block)
        data += room
        size -= room
    while size >= 64:
        md5_block(digest.state, data)
        data += 64
        size -= 64
    if size:
        memcpy(digest.block, data, <size_t>size)


cdef void md5_finish(Md5 *digest, uint8_t *out) noexcept nogil:
    cdef uint64_t bits = digest.length << 3
    cdef Py_ssize_t used = <Py_ssize_t>(digest.length & 63)
    digest.block[used] = 0x80
    used += 1
    if used > 56:
        memset(&digest.block[used], 0, <size_t>(64 - used))
        md5_block(digest.state, digest.block)
        used = 0
    memset(&digest.block[used], 0, <size_t>(56 - used))
    store(&digest.block[56], <uint32_t>bits)
    store(&digest.block[60], <uint32_t>(bits >> 32))
    md5_block(digest.state, digest.block)
    store(&out[0], digest.state[0])
    store(&out[4], digest.state[1])
    store(&out[8], digest.state[2])
    store(&out[12], digest.state[3])


cdef inline bint same_octets(const uint8_t *a, const uint8_t *b, Py_ssize_t size) noexcept nogil:
    """Compare without stopping at the first difference."""
    cdef uint8_t difference = 0
    cdef Py_ssize_t i
    for i in range(size):
        difference |= a[i] ^ b[i]
    return difference == 0


def md5(bytes data not None) -> bytes:
    """The MD5 digest (RFC 1321); for tests."""
    cdef Md5 digest
    cdef uint8_t out[16]
    md5_start(&digest)
    md5_update(&digest, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    md5_finish(&digest, out)
    return PyBytes_FromStringAndSize(<char *>out, 16)


@cython.final
cdef class SharedSecret:
    """A shared secret with its HMAC states worked out once (RFC 2104 4)."""

    def __cinit__(self, bytes secret not None):
        cdef uint8_t key[64]
        cdef uint8_t pad[64]
        cdef Md5 digest
        cdef Py_ssize_t size = PyBytes_GET_SIZE(secret)
        cdef int i
        if size == 0:
            # RFC 2865 3: the secret MUST NOT be empty.
            raise ValueError("the shared secret is empty")
        self.octets = secret
        memset(key, 0, 64)
        if size > 64:
            md5_start(&digest)
            md5_update(&digest, <const uint8_t *>PyBytes_AS_STRING(secret), size)
            md5_finish(&digest, key)
        else:
            memcpy(key, PyBytes_AS_STRING(secret), <size_t>size)
        for i in range(64):
            pad[i] = key[i] ^ 0x36
        md5_start(&digest)
        md5_block(digest.state, pad)
        memcpy(self.inner, digest.state, 16)
        for i in range(64):
            pad[i] = key[i] ^ 0x5c
        md5_start(&digest)
        md5_block(digest.state, pad)
        memcpy(self.outer, digest.state, 16)
        memset(key, 0, 64)
        memset(pad, 0, 64)

    def __repr__(self):
        return "SharedSecret(***)"

    def hmac_md5(self, bytes data not None) -> bytes:
        """HMAC-MD5 of `data` under the secret (RFC 2104)."""
        cdef Md5 digest
        cdef uint8_t out[16]
        md5_continue(&digest, self.inner)
        md5_update(&digest, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        hmac_finish(&digest, self, out)
        return PyBytes_FromStringAndSize(<char *>out, 16)


cdef void hmac_finish(Md5 *digest, SharedSecret secret, uint8_t *out) noexcept:
    cdef uint8_t inner[16]
    md5_finish(digest, inner)
    md5_continue(digest, secret.outer)
    md5_update(digest, inner, 16)
    md5_finish(digest, out)


cdef inline void md5_secret(Md5 *digest, SharedSecret secret) noexcept:
    md5_update(digest, <const uint8_t *>PyBytes_AS_STRING(secret.octets), PyBytes_GET_SIZE(secret.octets))


cdef inline void md5_finish_secret(Md5 *digest, SharedSecret secret, uint8_t *out) noexcept:
    md5_secret(digest, secret)
    md5_finish(digest, out)


# -- User-Password --------------------------------------------------------------------------------


cdef void stream_xor(
    const uint8_t *data, Py_ssize_t size, SharedSecret secret, const uint8_t *authenticator, bint hiding, uint8_t *out
) noexcept:
    """RFC 2865 5.2: b(i) = MD5(secret + c(i-1)), c(i) = p(i) xor b(i); size is a multiple of 16."""
    cdef Md5 digest
    cdef uint8_t pad[16]
    cdef const uint8_t *chain = authenticator
    cdef Py_ssize_t at = 0
    cdef int i
    while at < size:
        md5_start(&digest)
        md5_secret(&digest, secret)
        md5_update(&digest, chain, 16)
        md5_finish(&digest, pad)
        for i in range(16):
            out[at + i] = data[at + i] ^ pad[i]
        if hiding:
            chain = &out[at]
        else:
            chain = &data[at]
        at += 16


cdef bytes unhide(const uint8_t *hidden, Py_ssize_t size, SharedSecret secret, const uint8_t *authenticator):
    cdef uint8_t plain[LONGEST_PASSWORD]
    stream_xor(hidden, size, secret, authenticator, False, plain)
    while size > 0 and plain[size - 1] == 0:
        size -= 1
    return PyBytes_FromStringAndSize(<char *>plain, size)


def unhide_user_password(bytes hidden not None, SharedSecret secret not None, bytes request_authenticator not None):
    """The plaintext of User-Password, or None for a length that is none (RFC 2865 5.2)."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(hidden)
    if size < 16 or size > LONGEST_PASSWORD or size & 15 or PyBytes_GET_SIZE(request_authenticator) != 16:
        return None
    return unhide(
        <const uint8_t *>PyBytes_AS_STRING(hidden), size, secret,
        <const uint8_t *>PyBytes_AS_STRING(request_authenticator),
    )


def hide_user_password(bytes password not None, SharedSecret secret not None, bytes request_authenticator not None) -> bytes:
    """User-Password as it travels (RFC 2865 5.2). Raises LimitExceeded beyond 128 octets."""
    cdef uint8_t plain[LONGEST_PASSWORD]
    cdef uint8_t hidden[LONGEST_PASSWORD]
    cdef Py_ssize_t size = PyBytes_GET_SIZE(password)
    cdef Py_ssize_t padded
    if size > LONGEST_PASSWORD:
        raise LimitExceeded("User-Password holds 128 octets at most")
    if PyBytes_GET_SIZE(request_authenticator) != 16:
        raise ValueError("a Request Authenticator has 16 octets")
    padded = 16 if size == 0 else (size + 15) & ~15
    memset(plain, 0, 128)
    memcpy(plain, PyBytes_AS_STRING(password), <size_t>size)
    stream_xor(
        plain, padded, secret, <const uint8_t *>PyBytes_AS_STRING(request_authenticator), True, hidden
    )
    return PyBytes_FromStringAndSize(<char *>hidden, padded)


# -- packets --------------------------------------------------------------------------------------


@cython.final
@cython.freelist(64)
cdef class Packet:
    """One well-formed packet whose authenticators hold, as far as it carries any."""

    @property
    def code(self) -> int:
        return self.parts.code

    @property
    def identifier(self) -> int:
        return self.parts.identifier

    @property
    def service_type(self) -> int:
        """Service-Type, or -1 when it is absent or no value below 256."""
        return self.parts.service_type

    @property
    def is_ambiguous(self) -> bool:
        """User-Name, User-Password or State occurs more than once (RFC 2865 5.44 allows one)."""
        return self.parts.is_ambiguous

    @property
    def has_eap(self) -> bool:
        """It carries EAP-Message."""
        return self.parts.has_eap

    @property
    def has_ms_chap(self) -> bool:
        """It carries an MS-CHAP attribute (RFC 2548 2)."""
        return self.parts.has_ms_chap

    @property
    def has_chargeable_user_identity(self) -> bool:
        """It asks for Chargeable-User-Identity (RFC 4372 2.1)."""
        return self.parts.has_chargeable_user_identity

    @property
    def authenticator(self) -> bytes:
        """The 16 octets of the Request Authenticator."""
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.octets) + 4, 16)

    cdef bytes value_at(self, int offset):
        """The value of the attribute that starts at `offset`; None at 0."""
        cdef const uint8_t *raw
        if offset == 0:
            return None
        raw = <const uint8_t *>PyBytes_AS_STRING(self.octets)
        return PyBytes_FromStringAndSize(<const char *>raw + offset + 2, raw[offset + 1] - 2)

    @property
    def user_name(self):
        """User-Name, or None."""
        return self.value_at(self.parts.user_name_at)

    @property
    def user_password(self):
        """The plaintext of User-Password, or None when it is absent or no encoding (RFC 2865 5.2)."""
        cdef const uint8_t *raw
        cdef int size
        if self.parts.user_password_at == 0:
            return None
        raw = <const uint8_t *>PyBytes_AS_STRING(self.octets)
        size = raw[self.parts.user_password_at + 1] - 2
        if size < 16 or size > LONGEST_PASSWORD or size & 15:
            return None
        return unhide(raw + self.parts.user_password_at + 2, size, self.secret, raw + 4)

    @property
    def has_user_password(self) -> bool:
        """A User-Password is there, well-formed or not."""
        return self.parts.user_password_at != 0

    @property
    def chap_password(self):
        """CHAP-Password, or None."""
        return self.value_at(self.parts.chap_password_at)

    @property
    def chap_challenge(self):
        """CHAP-Challenge; without one the Request Authenticator is it (RFC 2865 5.40)."""
        return self.value_at(self.parts.chap_challenge_at) if self.parts.chap_challenge_at else self.authenticator

    @property
    def state(self):
        """State, or None."""
        return self.value_at(self.parts.state_at)

    @property
    def calling_station_id(self):
        """Calling-Station-Id, or None."""
        return self.value_at(self.parts.calling_station_id_at)

    @property
    def is_signed(self) -> bool:
        """It carries a Message-Authenticator, and that is right."""
        return self.parts.message_authenticator_at != 0

    @property
    def eap_message(self):
        """All EAP-Message values joined (RFC 3579 3.1), or None without any."""
        cdef list parts
        if not self.parts.has_eap:
            return None
        return b"".join([value for number, value in self.attributes() if number == EAP_MESSAGE])

    def plain_login(self):
        """(User-Name, password) of an Access-Request that carries these and nothing that calls for other treatment.

        None for everything else: other codes and methods, State, Service-Type Call-Check, Chargeable-User-Identity, a
        name that is no text.
        """
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(self.octets)
        cdef uint8_t password[LONGEST_PASSWORD]
        cdef int size
        if not is_plain_login(raw, &self.parts):
            return None
        size = plain_password(raw, &self.parts, self.secret, password)
        if size == 0:
            return None
        try:
            return (
                PyUnicode_DecodeUTF8(
                    <char *>raw + self.parts.user_name_at + 2, raw[self.parts.user_name_at + 1] - 2, NULL
                ),
                PyBytes_FromStringAndSize(<char *>password, size),
            )
        except UnicodeDecodeError:
            return None

    def attributes(self) -> list:
        """All attributes in order as (type, value)."""
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(self.octets)
        cdef Py_ssize_t at = HEADER
        cdef Py_ssize_t end = PyBytes_GET_SIZE(self.octets)
        cdef list found = []
        while at < end:
            found.append((raw[at], PyBytes_FromStringAndSize(<const char *>raw + at + 2, raw[at + 1] - 2)))
            at += raw[at + 1]
        return found

    def reply(self, int code, bytes attributes not None) -> bytes:
        """A signed reply to this request: Message-Authenticator, `attributes`, then its Proxy-States.

        attributes: encoded and well-formed; neither Message-Authenticator nor Proxy-State among them.
        Raises LimitExceeded beyond 4096 octets.
        """
        cdef uint8_t out[LONGEST]
        cdef Py_ssize_t extra = PyBytes_GET_SIZE(attributes)
        cdef const uint8_t *added = <const uint8_t *>PyBytes_AS_STRING(attributes)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size
        if not 0 < code < 256:
            raise ValueError("no RADIUS code")
        while at < extra <= LONGEST:
            if extra - at < 2 or added[at + 1] < 2 or added[at + 1] > extra - at:
                raise ValueError("malformed reply attributes")
            if added[at] == MESSAGE_AUTHENTICATOR or added[at] == PROXY_STATE:
                raise ValueError("an attribute that the reply carries of its own")
            at += added[at + 1]
        size = compose_reply(
            <const uint8_t *>PyBytes_AS_STRING(self.octets), &self.parts, self.secret, code, added, extra, out
        )
        if size == 0:
            raise LimitExceeded("the reply is longer than 4096 octets")
        return PyBytes_FromStringAndSize(<char *>out, size)

    def __repr__(self):
        return f"Packet(code={self.code}, identifier={self.identifier}, octets={PyBytes_GET_SIZE(self.octets)})"


cdef bint is_plain_login(const uint8_t *raw, const Parts *parts) noexcept nogil:
    """An Access-Request with User-Name and User-Password and nothing that calls for other treatment."""
    cdef int size
    if (
        parts.code != ACCESS_REQUEST or parts.user_name_at == 0 or parts.user_password_at == 0 or parts.state_at
        or parts.chap_password_at or parts.has_eap or parts.has_ms_chap or parts.is_ambiguous
        or parts.service_type == CALL_CHECK or parts.has_chargeable_user_identity
    ):
        return False
    size = raw[parts.user_name_at + 1] - 2
    return size != 0 and memchr(raw + parts.user_name_at + 2, 0, <size_t>size) == NULL


cdef int plain_password(const uint8_t *raw, const Parts *parts, SharedSecret secret, uint8_t *out) noexcept:
    """Octets of the plaintext of User-Password, 0 when it is empty, absent or no encoding (RFC 2865 5.2)."""
    cdef int size
    if parts.user_password_at == 0:
        return 0
    size = raw[parts.user_password_at + 1] - 2
    if size < 16 or size > LONGEST_PASSWORD or size & 15:
        return 0
    stream_xor(raw + parts.user_password_at + 2, size, secret, raw + 4, False, out)
    while size > 0 and out[size - 1] == 0:
        size -= 1
    return size


cdef Py_ssize_t compose_reply(
    const uint8_t *raw,
    const Parts *parts,
    SharedSecret secret,
    int code,
    const uint8_t *added,
    Py_ssize_t extra,
    uint8_t *out,
) noexcept:
    """Octets of the signed reply in `out`, which has room for 4096; 0 when they do not suffice.

    added: `extra` octets of well-formed attributes, without Message-Authenticator and Proxy-State.
    """
    cdef Py_ssize_t size = HEADER + 18
    cdef Py_ssize_t at = HEADER
    cdef Md5 digest
    if extra > LONGEST - size or parts.proxy_state_octets > LONGEST - size - extra:
        return 0
    out[0] = <uint8_t>code
    out[1] = raw[1]
    memcpy(&out[4], raw + 4, 16)
    # "Message-Authenticator SHOULD be the first attribute": an attacker then knows no prefix of the packet
    # (draft-ietf-radext-deprecating-radius 5.2).
    out[20] = MESSAGE_AUTHENTICATOR
    out[21] = 18
    memset(&out[22], 0, 16)
    memcpy(&out[size], added, <size_t>extra)
    size += extra
    if parts.proxy_state_octets:
        while at < parts.size:
            if raw[at] == PROXY_STATE:
                memcpy(&out[size], raw + at, raw[at + 1])
                size += raw[at + 1]
            at += raw[at + 1]
    out[2] = <uint8_t>(size >> 8)
    out[3] = <uint8_t>(size & 0xff)
    md5_continue(&digest, secret.inner)
    md5_update(&digest, out, size)
    hmac_finish(&digest, secret, &out[22])
    md5_start(&digest)
    md5_update(&digest, out, size)
    md5_finish_secret(&digest, secret, &out[4])
    return size


cdef int scan(const uint8_t *raw, int end, Parts *parts) noexcept nogil:
    """Walk all attributes once; the Verdict. Fills the offsets."""
    cdef int at = HEADER
    cdef int count = 0
    cdef int size
    while at < end:
        if end - at < 2:
            return V_BAD_ATTRIBUTE
        size = raw[at + 1]
        if size < 2 or size > end - at:
            return V_BAD_ATTRIBUTE
        count += 1
        if count > MOST_ATTRIBUTES:
            return V_TOO_MANY_ATTRIBUTES
        if raw[at] == USER_NAME:
            if parts.user_name_at:
                parts.is_ambiguous = True
            else:
                parts.user_name_at = at
        elif raw[at] == USER_PASSWORD:
            if parts.user_password_at:
                parts.is_ambiguous = True
            parts.user_password_at = at
        elif raw[at] == CHAP_PASSWORD:
            parts.chap_password_at = at
        elif raw[at] == CHAP_CHALLENGE:
            parts.chap_challenge_at = at
        elif raw[at] == SERVICE_TYPE:
            if size == 6 and raw[at + 2] == 0 and raw[at + 3] == 0 and raw[at + 4] == 0:
                parts.service_type = raw[at + 5]
        elif raw[at] == STATE:
            if parts.state_at:
                parts.is_ambiguous = True
            parts.state_at = at
        elif raw[at] == CALLING_STATION_ID:
            parts.calling_station_id_at = at
        elif raw[at] == PROXY_STATE:
            parts.proxy_state_octets += size
        elif raw[at] == EAP_MESSAGE:
            parts.has_eap = True
        elif raw[at] == MESSAGE_AUTHENTICATOR:
            if size != 18 or parts.message_authenticator_at:
                return V_MALFORMED_MESSAGE_AUTHENTICATOR
            parts.message_authenticator_at = at
        elif raw[at] == CHARGEABLE_USER_IDENTITY:
            parts.has_chargeable_user_identity = True
        elif raw[at] == VENDOR_SPECIFIC:
            # Microsoft (311): MS-CHAP-Response, MS-CHAP-Challenge, MS-CHAP2-Response (RFC 2548 2).
            if size >= 8 and raw[at + 2] == 0 and raw[at + 3] == 0 and raw[at + 4] == 1 and raw[at + 5] == 0x37:
                if raw[at + 6] == 1 or raw[at + 6] == 11 or raw[at + 6] == 25:
                    parts.has_ms_chap = True
        at += size
    return V_FINE


cdef bint message_authenticator_holds(
    const uint8_t *raw, int end, int offset, const uint8_t *authenticator, SharedSecret secret
) noexcept:
    """RFC 3579 3.2: HMAC-MD5 over the packet, the value itself taken as sixteen zero octets."""
    cdef Md5 digest
    cdef uint8_t expected[16]
    md5_continue(&digest, secret.inner)
    md5_update(&digest, raw, 4)
    md5_update(&digest, authenticator, 16)
    md5_update(&digest, raw + HEADER, offset + 2 - HEADER)
    md5_update(&digest, ZEROS, 16)
    md5_update(&digest, raw + offset + 18, end - offset - 18)
    hmac_finish(&digest, secret, expected)
    return same_octets(expected, raw + offset + 2, 16)


cdef bint request_authenticator_holds(const uint8_t *raw, int end, SharedSecret secret) noexcept:
    """RFC 2866 3: MD5 over the packet with sixteen zero octets in its place, then the secret."""
    cdef Md5 digest
    cdef uint8_t expected[16]
    md5_start(&digest)
    md5_update(&digest, raw, 4)
    md5_update(&digest, ZEROS, 16)
    md5_update(&digest, raw + HEADER, end - HEADER)
    md5_finish_secret(&digest, secret, expected)
    return same_octets(expected, raw + 4, 16)


cdef int signature_at(const uint8_t *raw, int at, int end) noexcept:
    """The offset of the one Message-Authenticator from `at` on; 0 for none, several, or broken bounds."""
    cdef int found = 0
    cdef int count = 0
    while at < end:
        count += 1
        if end - at < 2 or raw[at + 1] < 2 or raw[at + 1] > end - at or count > MOST_ATTRIBUTES:
            return 0
        if raw[at] == MESSAGE_AUTHENTICATOR:
            if found or raw[at + 1] != 18:
                return 0
            found = at
        at += raw[at + 1]
    return found


cdef bint was_signed(const uint8_t *raw, int size, Py_ssize_t received, SharedSecret secret) noexcept:
    """Whether a packet without a Message-Authenticator has one that holds once a single octet is mended.

    The octet is the signature's type, the packet's Length, or the length of an attribute before it.  Such a packet
    is a damaged one, not an unsigned one.
    """
    cdef uint8_t mended[LONGEST]
    cdef uint8_t kept
    cdef int tries = MOST_TRIES
    cdef int at = HEADER
    cdef int inside
    cdef int found
    cdef int length
    memcpy(mended, raw, <size_t>min(received, <Py_ssize_t>LONGEST))
    while at < size and tries:
        if raw[at + 1] == 18:
            tries -= 1
            mended[at] = MESSAGE_AUTHENTICATOR
            if message_authenticator_holds(mended, size, at, raw + 4, secret):
                return True
            mended[at] = raw[at]
        at += raw[at + 1]
    if size < received <= LONGEST:
        mended[2] = <uint8_t>(received >> 8)
        mended[3] = <uint8_t>(received & 0xff)
        found = signature_at(mended, HEADER, <int>received)
        if found and message_authenticator_holds(mended, <int>received, found, raw + 4, secret):
            return True
        mended[2] = raw[2]
        mended[3] = raw[3]
    at = HEADER
    while at < size:
        kept = raw[at + 1]
        inside = at + 2
        while inside + 1 < at + kept and not (raw[inside] == MESSAGE_AUTHENTICATOR and raw[inside + 1] == 18):
            inside += 1
        if inside + 1 < at + kept:
            # The first attribute that may have swallowed it; looking into all would let an attacker choose our work.
            for length in range(2, inside - at + 1):
                mended[at + 1] = <uint8_t>length
                found = signature_at(mended, at + length, size)
                if found and tries:
                    tries -= 1
                    if message_authenticator_holds(mended, size, found, raw + 4, secret):
                        return True
            return False
        at += kept
    return False


cdef int outline(const uint8_t *raw, Py_ssize_t received, Parts *parts) noexcept nogil:
    """What a datagram consists of; the Verdict. Octets after the announced Length are padding (RFC 2865 3)."""
    if received < HEADER:
        return V_TOO_SHORT
    memset(parts, 0, sizeof(Parts))
    parts.size = raw[2] << 8 | raw[3]
    if parts.size < HEADER or parts.size > LONGEST or parts.size > received:
        return V_BAD_LENGTH
    parts.code = raw[0]
    parts.identifier = raw[1]
    parts.service_type = -1
    return scan(raw, parts.size, parts)


cdef int authenticity(const uint8_t *raw, Py_ssize_t received, const Parts *parts, SharedSecret secret) noexcept:
    """Whether the authenticators hold of what `outline` found fine; the Verdict."""
    cdef const uint8_t *authenticator = raw + 4
    if parts.code == ACCOUNTING_REQUEST or parts.code == DISCONNECT_REQUEST or parts.code == COA_REQUEST:
        if not request_authenticator_holds(raw, parts.size, secret):
            return V_BAD_REQUEST_AUTHENTICATOR
        # RFC 5176 3.4: there the HMAC is taken with the Request Authenticator as zeros.
        authenticator = ZEROS
    if parts.message_authenticator_at:
        if not message_authenticator_holds(raw, parts.size, parts.message_authenticator_at, authenticator, secret):
            return V_BAD_MESSAGE_AUTHENTICATOR
    elif authenticator != ZEROS and was_signed(raw, parts.size, received, secret):
        return V_BAD_MESSAGE_AUTHENTICATOR
    return V_FINE


cdef Packet made_packet(const uint8_t *raw, const Parts *parts, SharedSecret secret):
    """The Packet of octets that were found fine."""
    cdef Packet packet = Packet.__new__(Packet)
    packet.parts = parts[0]
    packet.octets = PyBytes_FromStringAndSize(<const char *>raw, parts.size)
    packet.secret = secret
    return packet


def decode(bytes data not None, SharedSecret secret not None):
    """The request in a datagram, or the number of what is wrong with it (RFC 2865 3).

    Octets after the announced Length are padding.  A Message-Authenticator is verified when present, also when one
    changed octet hides it; the Request Authenticator of Accounting, Disconnect and CoA requests always.  Never
    raises for any octets.
    """
    cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef Parts parts
    cdef int verdict = outline(raw, PyBytes_GET_SIZE(data), &parts)
    if verdict == V_FINE:
        verdict = authenticity(raw, PyBytes_GET_SIZE(data), &parts, secret)
    return made_packet(raw, &parts, secret) if verdict == V_FINE else verdict


def encode_request(
    int code,
    int identifier,
    bytes authenticator not None,
    bytes attributes not None,
    SharedSecret secret not None,
    *,
    bint sign=True,
) -> bytes:
    """A request as a client sends it, Message-Authenticator first if `sign`.

    authenticator: 16 octets; for Accounting, Disconnect and CoA requests it is computed and the argument
    ignored.  attributes: encoded.  Raises LimitExceeded beyond 4096 octets.
    """
    cdef uint8_t out[LONGEST]
    cdef Py_ssize_t extra = PyBytes_GET_SIZE(attributes)
    cdef Py_ssize_t size = HEADER
    cdef bint computed = code == ACCOUNTING_REQUEST or code == DISCONNECT_REQUEST or code == COA_REQUEST
    cdef Md5 digest
    if not 0 < code < 256 or not 0 <= identifier < 256 or PyBytes_GET_SIZE(authenticator) != 16:
        raise ValueError("no RADIUS header")
    if extra > LONGEST - HEADER - 18:
        raise LimitExceeded("the request is longer than 4096 octets")
    out[0] = <uint8_t>code
    out[1] = <uint8_t>identifier
    memset(&out[4], 0, 16)
    if not computed:
        memcpy(&out[4], PyBytes_AS_STRING(authenticator), 16)
    if sign:
        out[20] = MESSAGE_AUTHENTICATOR
        out[21] = 18
        memset(&out[22], 0, 16)
        size += 18
    memcpy(&out[size], PyBytes_AS_STRING(attributes), <size_t>extra)
    size += extra
    out[2] = <uint8_t>(size >> 8)
    out[3] = <uint8_t>(size & 0xff)
    if sign:
        md5_continue(&digest, secret.inner)
        md5_update(&digest, out, size)
        hmac_finish(&digest, secret, &out[22])
    if computed:
        md5_start(&digest)
        md5_update(&digest, out, size)
        md5_finish_secret(&digest, secret, &out[4])
    return PyBytes_FromStringAndSize(<char *>out, size)
