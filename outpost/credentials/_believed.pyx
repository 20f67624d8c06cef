# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Accepted logins by keyed hash, in the order in which they were used, looked up without a call into Python."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

__all__ = ("DIGEST_SIZE", "Believed", "Entry", "Who")

cdef extern from "string.h" nogil:
    void explicit_bzero(void *s, size_t n)

DIGEST_SIZE = 16

cdef enum:
    SIZE = 16
    BLOCK = 128
    FRAME = 13              # kind, number, octets of the name


# -- BLAKE2b (RFC 7693) --------------------------------------------------------------------------------
# hashlib has it, too, and costs three calls and an object for each. This one is checked against it.

cdef extern from *:
    """
    static const uint64_t blake2b_iv[8] = {
        0x6A09E667F3BCC908ULL, 0xBB67AE8584CAA73BULL, 0x3C6EF372FE94F82BULL, 0xA54FF53A5F1D36F1ULL,
        0x510E527FADE682D1ULL, 0x9B05688C2B3E6C1FULL, 0x1F83D9ABFB41BD6BULL, 0x5BE0CD19137E2179ULL,
    };
    static const uint8_t blake2b_sigma[12][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
        {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
        {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
        {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
        {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
        {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
        {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    };
    #define BLAKE2B_ROTATED(x, by) (((x) >> (by)) | ((x) << (64 - (by))))
    #define BLAKE2B_MIX(a, b, c, d, x, y) \
        a += b + (x); d = BLAKE2B_ROTATED(d ^ a, 32); c += d; b = BLAKE2B_ROTATED(b ^ c, 24); \
        a += b + (y); d = BLAKE2B_ROTATED(d ^ a, 16); c += d; b = BLAKE2B_ROTATED(b ^ c, 63);

    /* One block. On a big endian machine the words, and so the hashes, are others than RFC 7693's, and as good. */
    static void blake2b_compress(uint64_t *h, const uint8_t *block, uint64_t counted, int is_last)
    {
        uint64_t m[16], v[16];
        memcpy(m, block, sizeof m);
        memcpy(v, h, 64);
        memcpy(v + 8, blake2b_iv, 64);
        v[12] ^= counted;
        if (is_last)
            v[14] = ~v[14];
    #pragma GCC unroll 12
        for (int i = 0; i < 12; i++) {
            const uint8_t *s = blake2b_sigma[i];
            BLAKE2B_MIX(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]])
            BLAKE2B_MIX(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]])
            BLAKE2B_MIX(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]])
            BLAKE2B_MIX(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]])
            BLAKE2B_MIX(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]])
            BLAKE2B_MIX(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]])
            BLAKE2B_MIX(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]])
            BLAKE2B_MIX(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]])
        }
        for (int i = 0; i < 8; i++)
            h[i] ^= v[i] ^ v[i + 8];
        explicit_bzero(m, sizeof m);
    }
    """
    const uint64_t blake2b_iv[8]
    void blake2b_compress(uint64_t *h, const uint8_t *block, uint64_t counted, bint is_last) noexcept nogil


cdef struct Feed:
    uint8_t block[BLOCK]
    Py_ssize_t used
    uint64_t counted


cdef void feed(uint64_t *h, Feed *f, const uint8_t *p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t n
    while size:
        if f.used == BLOCK:
            # Only now it is known that it is not the last.
            f.counted += BLOCK
            blake2b_compress(h, f.block, f.counted, False)
            f.used = 0
        n = min(size, BLOCK - f.used)
        memcpy(f.block + f.used, p, n)
        f.used += n
        p += n
        size -= n


# -- logins --------------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Entry:
    pass


@cython.final
cdef class Who:
    def __cinit__(self, str service not None, int64_t provider_pk, str username not None):
        if service == "ldap":
            self.service = b"L"
        elif service == "radius":
            self.service = b"R"
        else:
            raise ValueError("no such service")
        self.provider_pk = provider_pk
        self.name = username.strip().encode("utf-8", "surrogatepass").lower()


@cython.final
cdef class Believed:
    def __cinit__(self, bytes hash_key not None):
        cdef uint8_t[BLOCK] block
        cdef Py_ssize_t size = PyBytes_GET_SIZE(hash_key)
        cdef int i
        if not 16 <= size <= 64:
            raise ValueError("the hash key has 16 to 64 octets")
        self.entries = {}
        self.trusted_since = float("inf")
        for i in range(8):
            self.keyed[i] = blake2b_iv[i]
        self.keyed[0] ^= 0x01010000 ^ <uint64_t>(size << 8) ^ SIZE
        memset(block, 0, BLOCK)
        memcpy(block, PyBytes_AS_STRING(hash_key), size)
        blake2b_compress(self.keyed, block, BLOCK, False)
        explicit_bzero(block, BLOCK)

    cdef bytes hashed(
        self, uint8_t kind, int64_t number, const uint8_t *name, Py_ssize_t name_size, const uint8_t *secret, Py_ssize_t size
    ):
        """Fixed size, then the name whose length it states, then the rest: no two logins have one encoding."""
        cdef uint64_t[8] h
        cdef Feed f
        cdef uint8_t[FRAME] frame
        cdef uint32_t announced = <uint32_t>name_size
        if name_size > 0xFFFFFFFF:
            raise OverflowError("the name is too long")
        frame[0] = kind
        memcpy(frame + 1, &number, 8)
        memcpy(frame + 9, &announced, 4)
        memcpy(h, self.keyed, sizeof(h))
        f.used = 0
        f.counted = BLOCK
        feed(h, &f, frame, FRAME)
        feed(h, &f, name, name_size)
        feed(h, &f, secret, size)
        memset(f.block + f.used, 0, BLOCK - f.used)
        blake2b_compress(h, f.block, f.counted + f.used, True)
        explicit_bzero(f.block, BLOCK)
        return PyBytes_FromStringAndSize(<const char *>h, SIZE)

    def key(self, Who who not None, bytes secret not None):
        return self.hashed(
            who.service, who.provider_pk, <const uint8_t *>PyBytes_AS_STRING(who.name), PyBytes_GET_SIZE(who.name),
            <const uint8_t *>PyBytes_AS_STRING(secret), PyBytes_GET_SIZE(secret),
        )

    def mark(self, int64_t user_pk, bytes secret not None):
        return self.hashed(
            b"M", user_pk, NULL, 0, <const uint8_t *>PyBytes_AS_STRING(secret), PyBytes_GET_SIZE(secret)
        )

    # -- reuse --------------------------------------------------------------------------------------

    cdef bint holds(self, Entry entry, double now, str address):
        """The entry may be believed, at this time, of this client."""
        if now >= entry.ends_at:
            return False
        if entry.verified_at < self.trusted_since and now - entry.verified_at >= self.max_age_disconnected:
            return False
        return entry.address is None or entry.address == address

    cdef object known(
        self, Who who, const uint8_t *name, Py_ssize_t name_size, const uint8_t *secret, Py_ssize_t size, double now,
        str address
    ):
        cdef bytes key = self.hashed(who.service, who.provider_pk, name, name_size, secret, size)
        cdef PyObject *found = PyDict_GetItemWithError(self.entries, key)
        cdef Entry entry
        if found == NULL:
            return None
        entry = <Entry>found
        if now >= entry.refresh_at or not self.holds(entry, now, address):
            return None
        self.hits += 1
        if self.newest != <void *>entry:
            self.unlink(entry)
            self.link(entry)
        return entry.accepted

    def believed(self, bytes key not None, double now, str address not None):
        cdef Entry entry = self.entries.get(key)
        if entry is None or not self.holds(entry, now, address):
            self.misses += 1
            return None
        self.hits += 1
        self.unlink(entry)
        self.link(entry)
        return entry

    # -- the table ----------------------------------------------------------------------------------

    cdef void link(self, Entry entry) noexcept:
        """As the newest."""
        entry.older = self.newest
        entry.newer = NULL
        if self.newest == NULL:
            self.oldest = <void *>entry
        else:
            (<Entry>self.newest).newer = <void *>entry
        self.newest = <void *>entry

    cdef void unlink(self, Entry entry) noexcept:
        if entry.older == NULL:
            self.oldest = entry.newer
        else:
            (<Entry>entry.older).newer = entry.newer
        if entry.newer == NULL:
            self.newest = entry.older
        else:
            (<Entry>entry.newer).older = entry.older

    def get(self, bytes key not None):
        return self.entries.get(key)

    def put(self, bytes key not None, Entry entry not None):
        if entry.key is not None:
            raise ValueError("an entry is in one table, once")
        if key in self.entries:
            self.remove(key)
        self.entries[key] = entry
        entry.key = key
        self.link(entry)

    def remove(self, bytes key not None):
        cdef Entry entry = self.entries[key]
        self.unlink(entry)
        entry.key = None
        del self.entries[key]

    def first(self):
        return None if self.oldest == NULL else <Entry>self.oldest

    def __len__(self):
        return len(self.entries)

    def __iter__(self):
        cdef list found = []
        cdef void *at = self.oldest
        while at != NULL:
            found.append(<Entry>at)
            at = (<Entry>at).newer
        return iter(found)
