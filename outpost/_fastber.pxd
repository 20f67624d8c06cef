# Cursor over octets the caller keeps alive, the writer's counterpart, and the layouts of the requests.
# Plain structs and inlines live here so that other .pyx files can cimport them at no cost.
#
# Reading: every element is read through a Span.  A span_ function either advances `pos` past what it read
# and narrows the result, or raises DecodeError; it never reads at or past `end`.
# Writing: compute sizes with the _size functions, allocate once, then let the put_ functions advance a
# pointer.  The put_ functions check nothing: the size computation is the contract.
cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy


cdef enum:
    TAG_BOOLEAN = 0x01
    TAG_INTEGER = 0x02
    TAG_OCTET_STRING = 0x04
    TAG_NULL = 0x05
    TAG_ENUMERATED = 0x0A
    TAG_SEQUENCE = 0x30
    TAG_SET = 0x31
    TAG_CONTROLS = 0xA0

    # protocolOp (RFC 4511 4.2 to 4.13)
    OP_BIND_REQUEST = 0x60
    OP_BIND_RESPONSE = 0x61
    OP_UNBIND_REQUEST = 0x42
    OP_SEARCH_REQUEST = 0x63
    OP_SEARCH_ENTRY = 0x64
    OP_SEARCH_DONE = 0x65
    OP_SEARCH_REFERENCE = 0x73
    OP_MODIFY_REQUEST = 0x66
    OP_MODIFY_RESPONSE = 0x67
    OP_ADD_REQUEST = 0x68
    OP_ADD_RESPONSE = 0x69
    OP_DELETE_REQUEST = 0x4A
    OP_DELETE_RESPONSE = 0x6B
    OP_MODIFY_DN_REQUEST = 0x6C
    OP_MODIFY_DN_RESPONSE = 0x6D
    OP_COMPARE_REQUEST = 0x6E
    OP_COMPARE_RESPONSE = 0x6F
    OP_ABANDON_REQUEST = 0x50
    OP_EXTENDED_REQUEST = 0x77
    OP_EXTENDED_RESPONSE = 0x78
    OP_INTERMEDIATE_RESPONSE = 0x79

    # Filter (RFC 4511 4.5.1.7)
    FILTER_AND = 0xA0
    FILTER_OR = 0xA1
    FILTER_NOT = 0xA2
    FILTER_EQUALITY = 0xA3
    FILTER_SUBSTRINGS = 0xA4
    FILTER_GREATER_OR_EQUAL = 0xA5
    FILTER_LESS_OR_EQUAL = 0xA6
    FILTER_PRESENT = 0x87
    FILTER_APPROX = 0xA8
    FILTER_EXTENSIBLE = 0xA9

    SUBSTRING_INITIAL = 0x80
    SUBSTRING_ANY = 0x81
    SUBSTRING_FINAL = 0x82

    MATCHING_RULE = 0x81
    MATCHING_TYPE = 0x82
    MATCHING_VALUE = 0x83
    MATCHING_DN_ATTRIBUTES = 0x84

    # The deepest Limits.filter_depth that may be set: filters are walked recursively, and this bounds the C stack.
    MAX_FILTER_DEPTH = 512


# -- reading -----------------------------------------------------------------------------------------

cdef struct Span:
    const uint8_t *pos
    const uint8_t *end


cdef inline Py_ssize_t span_left(const Span *s) noexcept nogil:
    return s.end - s.pos


cdef inline int span_peek(const Span *s) noexcept nogil:
    """The next tag octet, or -1 at the end."""
    if s.pos >= s.end:
        return -1
    return s.pos[0]


cdef int fail(const char *why) except -1 nogil                                  # cold; raises DecodeError
cdef int fail_limit(const char *limit, Py_ssize_t value) except -1 nogil        # cold; raises LimitExceeded
cdef int span_tag(Span *s) except -1 nogil
cdef Py_ssize_t span_length(Span *s) except -1 nogil
cdef int span_any(Span *s, Span *inner) except -1 nogil                         # returns the tag octet
cdef int span_enter(Span *s, int tag, Span *inner) except -1 nogil
cdef int span_uint31(Span *s, int tag, uint32_t *out) except -1 nogil           # 0..maxInt
cdef int span_bool(Span *s, int tag) except -1 nogil                            # 0 or 1
cdef int span_extensions(Span *s, const char *known) except -1 nogil            # RFC 4511 section 4
cdef bytes span_bytes(const Span *s)                                            # a copy of what is left
cdef int filter_walk(Span *s, Limits limits) except -1                          # past one well-formed Filter
cdef Request decode_one(Span *s, Limits limits)                                 # the LDAPMessage that fills s
cdef Py_ssize_t frame_header(const uint8_t *p, Py_ssize_t have, Py_ssize_t limit) except -1 nogil


# -- writing -----------------------------------------------------------------------------------------

cdef inline int ber_length_size(Py_ssize_t n) noexcept nogil:
    """Octets of the length field that announces n octets; n is below 2**32."""
    if n < 0x80:
        return 1
    if n < 0x100:
        return 2
    if n < 0x10000:
        return 3
    if n < 0x1000000:
        return 4
    return 5


cdef inline Py_ssize_t ber_size(Py_ssize_t n) noexcept nogil:
    """Octets of a whole element with n content octets."""
    return 1 + ber_length_size(n) + n


cdef inline int ber_uint_size(uint32_t v) noexcept nogil:
    """Content octets of a non-negative INTEGER or ENUMERATED."""
    if v < 0x80:
        return 1
    if v < 0x8000:
        return 2
    if v < 0x800000:
        return 3
    if v < <uint32_t>0x80000000:
        return 4
    return 5


cdef inline uint8_t *put_length(uint8_t *p, Py_ssize_t n) noexcept nogil:
    if n < 0x80:
        p[0] = <uint8_t>n
        return p + 1
    if n < 0x100:
        p[0] = 0x81
        p[1] = <uint8_t>n
        return p + 2
    if n < 0x10000:
        p[0] = 0x82
        p[1] = <uint8_t>(n >> 8)
        p[2] = <uint8_t>(n & 0xFF)
        return p + 3
    if n < 0x1000000:
        p[0] = 0x83
        p[1] = <uint8_t>(n >> 16)
        p[2] = <uint8_t>((n >> 8) & 0xFF)
        p[3] = <uint8_t>(n & 0xFF)
        return p + 4
    p[0] = 0x84
    p[1] = <uint8_t>((n >> 24) & 0xFF)
    p[2] = <uint8_t>((n >> 16) & 0xFF)
    p[3] = <uint8_t>((n >> 8) & 0xFF)
    p[4] = <uint8_t>(n & 0xFF)
    return p + 5


cdef inline uint8_t *put_header(uint8_t *p, int tag, Py_ssize_t n) noexcept nogil:
    p[0] = <uint8_t>tag
    return put_length(p + 1, n)


cdef inline uint8_t *put_octets(uint8_t *p, int tag, const void *src, Py_ssize_t n) noexcept nogil:
    p = put_header(p, tag, n)
    memcpy(p, src, n)
    return p + n


cdef inline uint8_t *put_uint(uint8_t *p, int tag, uint32_t v) noexcept nogil:
    cdef int n = ber_uint_size(v)
    p[0] = <uint8_t>tag
    p[1] = <uint8_t>n
    p += 2
    if n == 5:
        p[0] = 0
        p += 1
        n = 4
    while n > 0:
        n -= 1
        p[0] = <uint8_t>((v >> (8 * n)) & 0xFF)
        p += 1
    return p


# -- what crosses into Python ------------------------------------------------------------------------

@cython.final
cdef class Limits:
    cdef readonly Py_ssize_t message
    cdef readonly Py_ssize_t controls
    cdef readonly Py_ssize_t filter_depth
    cdef readonly Py_ssize_t filter_terms
    cdef readonly Py_ssize_t substrings
    cdef readonly Py_ssize_t attributes


@cython.final
cdef class Control:
    cdef readonly bytes oid
    cdef readonly bint critical
    cdef readonly bytes value


cdef class Request:
    cdef readonly uint32_t message_id
    cdef readonly int op
    cdef readonly tuple controls


@cython.final
cdef class BindRequest(Request):
    cdef readonly int version
    cdef readonly int authentication
    cdef readonly bytes name
    cdef readonly bytes mechanism
    cdef readonly bytes credentials


@cython.final
cdef class UnbindRequest(Request):
    pass


@cython.final
cdef class SearchRequest(Request):
    cdef readonly bytes base_object
    cdef readonly int scope
    cdef readonly int deref_aliases
    cdef readonly uint32_t size_limit
    cdef readonly uint32_t time_limit
    cdef readonly bint types_only
    cdef readonly bytes filter
    cdef readonly tuple attributes


@cython.final
cdef class CompareRequest(Request):
    cdef readonly bytes entry
    cdef readonly bytes attribute
    cdef readonly bytes assertion_value


@cython.final
cdef class AbandonRequest(Request):
    cdef readonly uint32_t abandoned_id


@cython.final
cdef class ExtendedRequest(Request):
    cdef readonly bytes name
    cdef readonly bytes value


@cython.final
cdef class OtherRequest(Request):
    pass


# -- receiving ---------------------------------------------------------------------------------------

@cython.final
cdef class Block:
    """Memory that a memoryview may outlive its Inbox with: whoever holds a view holds the block."""

    cdef uint8_t *data
    cdef Py_ssize_t size
    cdef Py_ssize_t offset


@cython.final
cdef class Inbox:
    cdef Limits _limits
    cdef Block block
    cdef object view                # of the whole block
    cdef Py_ssize_t start           # what is there and not taken yet: start to end
    cdef Py_ssize_t end
    cdef bint broken

    cdef int reserve(self, Py_ssize_t room) except -1
    cdef int replace(self, Py_ssize_t size) except -1
    cpdef received(self, Py_ssize_t count)
