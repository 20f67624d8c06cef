# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""BER as LDAP restricts it (RFC 4511 5.1), LDAPMessage framing and the protocol operations.

Owns octets and their structure; knows nothing of meaning: versions, DNs, OIDs and attribute types are the
callers' to judge.  Every element is read through a Span that cannot leave its parent, every count and size
has a limit with a name, and nothing is allocated by an announced length.

RFC 4511 (LDAP), X.690 (BER), RFC 4515 (text of filters), RFC 4526 (empty and/or).
"""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy, memmove, strchr

from outpost.errors import DecodeError, LimitExceeded

__all__ = (
    "AbandonRequest",
    "BindRequest",
    "CompareRequest",
    "Control",
    "ExtendedRequest",
    "Inbox",
    "Limits",
    "OtherRequest",
    "Request",
    "SearchRequest",
    "UnbindRequest",
    "check_filter",
    "decode_message",
    "encode_bind_result",
    "encode_extended_result",
    "encode_intermediate",
    "encode_result",
    "encode_search_entry",
    "frame_size",
)

cdef extern from "string.h" nogil:
    void explicit_bzero(void *s, size_t n)

cdef enum:
    BLOCK_SMALL = 4096          # what an idle connection keeps: four fifths of all requests are below 200 octets
    BLOCK_LARGE = 65536         # what one read may take from a busy one; libuv suggests the same
    BLOCK_ROOM = 1024           # hand out at least this much


# -- faults ------------------------------------------------------------------------------------------

cdef int fail(const char *why) except -1 nogil:
    with gil:
        raise DecodeError((<bytes>why).decode("ascii"))


cdef int fail_limit(const char *limit, Py_ssize_t value) except -1 nogil:
    with gil:
        raise LimitExceeded(f"over the limit {(<bytes>limit).decode('ascii')} of {value}")


# -- spans -------------------------------------------------------------------------------------------

cdef int span_tag(Span *s) except -1 nogil:
    cdef int tag
    if s.pos >= s.end:
        return fail(b"truncated: no tag")
    tag = s.pos[0]
    # LDAP assigns no tag number above 30, and universal 0 ends indefinite forms, which 5.1 rules out.
    if (tag & 0x1F) == 0x1F:
        return fail(b"high tag number form")
    if tag == 0:
        return fail(b"end-of-contents octets")
    s.pos += 1
    return tag


cdef Py_ssize_t span_length(Span *s) except -1 nogil:
    cdef Py_ssize_t n
    cdef int octets
    if s.pos >= s.end:
        return fail(b"truncated: no length")
    n = s.pos[0]
    s.pos += 1
    if n >= 0x80:
        octets = <int>(n & 0x7F)
        # RFC 4511 5.1: "Only the definite form of length encoding is used."
        if octets == 0:
            return fail(b"indefinite length")
        if octets > 4:
            return fail(b"more than 4 length octets")
        if octets > s.end - s.pos:
            return fail(b"truncated length")
        n = 0
        while octets > 0:
            n = (n << 8) | s.pos[0]
            s.pos += 1
            octets -= 1
    if n > s.end - s.pos:                    # never pos + n > end: that may overflow
        return fail(b"length past the end")
    return n


cdef int span_any(Span *s, Span *inner) except -1 nogil:
    cdef int tag = span_tag(s)
    cdef Py_ssize_t n = span_length(s)
    inner.pos = s.pos
    inner.end = s.pos + n
    s.pos += n
    return tag


cdef int span_enter(Span *s, int tag, Span *inner) except -1 nogil:
    cdef Py_ssize_t n
    if span_tag(s) != tag:
        return fail(b"unexpected tag")
    n = span_length(s)
    inner.pos = s.pos
    inner.end = s.pos + n
    s.pos += n
    return 0


cdef int span_uint31(Span *s, int tag, uint32_t *out) except -1 nogil:
    cdef Span body
    span_enter(s, tag, &body)
    return span_uint31_body(&body, out)


cdef int span_uint31_body(Span *body, uint32_t *out) except -1 nogil:
    cdef Py_ssize_t n = body.end - body.pos
    cdef uint32_t v = 0
    if n == 0:
        return fail(b"empty integer")
    # X.690 8.3.2: the first nine bits are neither all zero nor all one.
    if n > 1 and ((body.pos[0] == 0 and body.pos[1] < 0x80) or (body.pos[0] == 0xFF and body.pos[1] >= 0x80)):
        return fail(b"integer in more octets than it needs")
    if n > 4 or (body.pos[0] & 0x80):
        return fail(b"integer out of range")
    while body.pos < body.end:
        v = (v << 8) | body.pos[0]
        body.pos += 1
    out[0] = v
    return 0


cdef int span_bool(Span *s, int tag) except -1 nogil:
    cdef Span body
    span_enter(s, tag, &body)
    if span_left(&body) != 1:
        return fail(b"boolean is not one octet")
    # RFC 4511 5.1 wants FF, X.690 8.2.2 allows all but 0, and a widespread Go encoder sends 01.
    return body.pos[0] != 0


cdef int span_extensions(Span *s, const char *known) except -1 nogil:
    """Skip what RFC 4511 section 4 says to ignore: trailing components whose tags are not recognised.

    known: the tags of the SEQUENCE's own components; one of them here is repeated or out of order.
    """
    cdef Span inner
    cdef int tag
    while s.pos < s.end:
        tag = span_any(s, &inner)
        if (tag & 0xC0) == 0x40 or strchr(known, tag) != NULL:
            return fail(b"component repeated or out of place")
    return 0


cdef bytes span_bytes(const Span *s):
    return PyBytes_FromStringAndSize(<const char *>s.pos, s.end - s.pos)


cdef inline bytes span_octets(Span *s, int tag):
    cdef Span inner
    span_enter(s, tag, &inner)
    return PyBytes_FromStringAndSize(<const char *>inner.pos, inner.end - inner.pos)


cdef inline int span_skip(Span *s, int tag) except -1 nogil:
    cdef Span inner
    return span_enter(s, tag, &inner)


# -- limits and requests -----------------------------------------------------------------------------

@cython.final
cdef class Limits:
    def __init__(
        self,
        Py_ssize_t message=262_144,
        Py_ssize_t controls=32,
        Py_ssize_t filter_depth=64,
        Py_ssize_t filter_terms=4_096,
        Py_ssize_t substrings=256,
        Py_ssize_t attributes=1_024,
    ):
        if not 16 <= message <= 0x7FFFFFFF:
            raise ValueError("limit message is not in 16..2147483647")
        if not 1 <= filter_depth <= MAX_FILTER_DEPTH:
            raise ValueError(f"limit filter_depth is not in 1..{MAX_FILTER_DEPTH}")
        if controls < 0 or filter_terms < 1 or substrings < 1 or attributes < 0:
            raise ValueError("a limit is negative, or 0 where at least 1 is needed")
        self.message = message
        self.controls = controls
        self.filter_depth = filter_depth
        self.filter_terms = filter_terms
        self.substrings = substrings
        self.attributes = attributes

    def __repr__(self):
        return (
            f"Limits(message={self.message}, controls={self.controls}, filter_depth={self.filter_depth}, "
            f"filter_terms={self.filter_terms}, substrings={self.substrings}, attributes={self.attributes})"
        )


@cython.final
@cython.freelist(16)
cdef class Control:
    def __repr__(self):
        # The value may be somebody's authorization identity or a cookie: its size says enough.
        size = None if self.value is None else len(self.value)
        return f"Control(oid={self.oid!r}, critical={bool(self.critical)}, value_size={size})"


# No freelist: Cython manages them for base classes only.
# no_gc: a request holds octets, numbers, and tuples of octets or Controls, all read-only; no cycle can start here.
@cython.no_gc
cdef class Request:
    def result(
        self,
        uint32_t result_code,
        bytes matched_dn not None=b"",
        bytes diagnostic not None=b"",
        tuple controls not None=(),
    ):
        cdef int op = response_op(self.op)
        if op == 0:
            raise ValueError(f"operation 0x{self.op:02x} has no response")
        return encode_message(self.message_id, op, result_code, matched_dn, diagnostic, 0, None, 0, None, controls)

    def __repr__(self):
        return f"{type(self).__name__}(message_id={self.message_id}, op=0x{self.op:02x}, controls={self.controls!r})"


@cython.final
@cython.no_gc
cdef class BindRequest(Request):
    def __repr__(self):
        return (
            f"BindRequest(message_id={self.message_id}, version={self.version}, name={self.name!r}, "
            f"mechanism={self.mechanism!r}, controls={self.controls!r})"
        )


@cython.final
@cython.no_gc
cdef class UnbindRequest(Request):
    pass


@cython.final
@cython.no_gc
cdef class SearchRequest(Request):
    def __repr__(self):
        # A filter may assert userPassword; `outpost.ldap.filter` knows how to show one.
        filter_size = None if self.filter is None else len(self.filter)
        return (
            f"SearchRequest(message_id={self.message_id}, base_object={self.base_object!r}, scope={self.scope}, "
            f"deref_aliases={self.deref_aliases}, size_limit={self.size_limit}, time_limit={self.time_limit}, "
            f"types_only={bool(self.types_only)}, filter_size={filter_size}, attributes={self.attributes!r}, "
            f"controls={self.controls!r})"
        )


@cython.final
@cython.no_gc
cdef class CompareRequest(Request):
    def __repr__(self):
        # Comparing userPassword is a login by another name, so the value stays out of logs.
        return (
            f"CompareRequest(message_id={self.message_id}, entry={self.entry!r}, attribute={self.attribute!r}, "
            f"controls={self.controls!r})"
        )


@cython.final
@cython.no_gc
cdef class AbandonRequest(Request):
    def __repr__(self):
        return f"AbandonRequest(message_id={self.message_id}, abandoned_id={self.abandoned_id})"


@cython.final
@cython.no_gc
cdef class ExtendedRequest(Request):
    def __repr__(self):
        # Password Modify (RFC 3062) carries passwords in its value.
        size = None if self.value is None else len(self.value)
        return (
            f"ExtendedRequest(message_id={self.message_id}, name={self.name!r}, value_size={size}, "
            f"controls={self.controls!r})"
        )


@cython.final
@cython.no_gc
cdef class OtherRequest(Request):
    pass


cdef inline int response_op(int op) noexcept nogil:
    """The response's tag octet, or 0 for what is never answered with an LDAPResult."""
    if op == OP_SEARCH_REQUEST:
        return OP_SEARCH_DONE
    if op == OP_BIND_REQUEST:
        return OP_BIND_RESPONSE
    if op == OP_COMPARE_REQUEST:
        return OP_COMPARE_RESPONSE
    if op == OP_EXTENDED_REQUEST:
        return OP_EXTENDED_RESPONSE
    if op == OP_MODIFY_REQUEST:
        return OP_MODIFY_RESPONSE
    if op == OP_ADD_REQUEST:
        return OP_ADD_RESPONSE
    if op == OP_DELETE_REQUEST:
        return OP_DELETE_RESPONSE
    if op == OP_MODIFY_DN_REQUEST:
        return OP_MODIFY_DN_RESPONSE
    return 0


# -- filters -----------------------------------------------------------------------------------------

cdef struct FilterBudget:
    Py_ssize_t depth
    Py_ssize_t terms
    Py_ssize_t substrings


cdef int filter_check(Span *s, Py_ssize_t depth_left, Py_ssize_t *terms_left, const FilterBudget *limit) except -1 nogil:
    """Read one Filter (RFC 4511 4.5.1.7). The recursion is bounded by MAX_FILTER_DEPTH."""
    cdef Span body, inner
    cdef int tag
    if depth_left == 0:
        return fail_limit(b"filter_depth", limit.depth)
    if terms_left[0] == 0:
        return fail_limit(b"filter_terms", limit.terms)
    terms_left[0] -= 1
    tag = span_any(s, &body)
    if tag == FILTER_EQUALITY or tag == FILTER_GREATER_OR_EQUAL or tag == FILTER_LESS_OR_EQUAL or tag == FILTER_APPROX:
        span_skip(&body, TAG_OCTET_STRING)
        span_skip(&body, TAG_OCTET_STRING)
        return span_extensions(&body, b"\x04")
    if tag == FILTER_AND or tag == FILTER_OR:
        # RFC 4526 makes the empty ones True and False.
        while body.pos < body.end:
            filter_check(&body, depth_left - 1, terms_left, limit)
        return 0
    if tag == FILTER_PRESENT:
        return 0
    if tag == FILTER_NOT:
        filter_check(&body, depth_left - 1, terms_left, limit)
        if body.pos < body.end:
            return fail(b"not-filter with more than one filter")
        return 0
    if tag == FILTER_SUBSTRINGS:
        span_skip(&body, TAG_OCTET_STRING)
        span_enter(&body, TAG_SEQUENCE, &inner)
        substrings_check(&inner, limit.substrings)
        return span_extensions(&body, b"\x04\x30")
    if tag == FILTER_EXTENSIBLE:
        return extensible_check(&body)
    return fail(b"unknown filter choice")


cdef int substrings_check(Span *s, Py_ssize_t limit) except -1 nogil:
    """initial at most once and first, final at most once and last, at least one piece."""
    cdef Py_ssize_t count = 0
    cdef Span piece
    cdef int tag, last = 0
    if s.pos >= s.end:
        return fail(b"substring filter without a substring")
    while s.pos < s.end:
        if count == limit:
            return fail_limit(b"substrings", limit)
        tag = span_any(s, &piece)
        if tag != SUBSTRING_INITIAL and tag != SUBSTRING_ANY and tag != SUBSTRING_FINAL:
            return fail(b"unknown substring choice")
        if last == SUBSTRING_FINAL or (tag == SUBSTRING_INITIAL and count > 0):
            return fail(b"substrings out of order")
        last = tag
        count += 1
    return 0


cdef int extensible_check(Span *s) except -1 nogil:
    """MatchingRuleAssertion: "If the matchingRule field is absent, the type field MUST be present"."""
    cdef bint named = False
    if span_peek(s) == MATCHING_RULE:
        span_skip(s, MATCHING_RULE)
        named = True
    if span_peek(s) == MATCHING_TYPE:
        span_skip(s, MATCHING_TYPE)
        named = True
    if not named:
        return fail(b"extensible match without matchingRule and type")
    span_skip(s, MATCHING_VALUE)
    if span_peek(s) == MATCHING_DN_ATTRIBUTES:
        span_bool(s, MATCHING_DN_ATTRIBUTES)
    return span_extensions(s, b"\x81\x82\x83\x84")


cdef int filter_walk(Span *s, Limits limits) except -1:
    cdef FilterBudget budget
    cdef Py_ssize_t terms = limits.filter_terms
    budget.depth = limits.filter_depth
    budget.terms = limits.filter_terms
    budget.substrings = limits.substrings
    return filter_check(s, limits.filter_depth, &terms, &budget)


def check_filter(bytes data not None, Limits limits not None):
    cdef Span s
    s.pos = <const uint8_t *>PyBytes_AS_STRING(data)
    s.end = s.pos + PyBytes_GET_SIZE(data)
    filter_walk(&s, limits)
    if s.pos < s.end:
        fail(b"octets after the filter")


# -- decoding ----------------------------------------------------------------------------------------

cdef tuple decode_controls(Span *s, Limits limits):
    """Controls ::= SEQUENCE OF control Control (RFC 4511 4.1.11)."""
    cdef Span body
    cdef Control control
    cdef list found = []
    while s.pos < s.end:
        if len(found) == limits.controls:
            fail_limit(b"controls", limits.controls)
        span_enter(s, TAG_SEQUENCE, &body)
        control = Control.__new__(Control)
        control.oid = span_octets(&body, TAG_OCTET_STRING)
        if span_peek(&body) == TAG_BOOLEAN:
            control.critical = span_bool(&body, TAG_BOOLEAN)
        if span_peek(&body) == TAG_OCTET_STRING:
            control.value = span_octets(&body, TAG_OCTET_STRING)
        span_extensions(&body, b"\x01\x04")
        found.append(control)
    return tuple(found)


cdef BindRequest decode_bind(Span *s):
    cdef BindRequest request = BindRequest.__new__(BindRequest)
    cdef Span body
    cdef uint32_t version = 0
    span_uint31(s, TAG_INTEGER, &version)
    if version < 1 or version > 127:
        fail(b"bind version is not in 1..127")
    request.version = <int>version
    request.name = span_octets(s, TAG_OCTET_STRING)
    request.authentication = span_any(s, &body)
    if request.authentication == 0x80:
        request.credentials = span_bytes(&body)
    elif request.authentication == 0xA3:
        request.mechanism = span_octets(&body, TAG_OCTET_STRING)
        if span_peek(&body) == TAG_OCTET_STRING:
            request.credentials = span_octets(&body, TAG_OCTET_STRING)
        span_extensions(&body, b"\x04")
    elif (request.authentication & 0xC0) == 0x80:
        # AuthenticationChoice is extensible, and the two Kerberos choices of LDAPv2 are still met in the wild.
        request.mechanism = b""
    else:
        fail(b"unknown authentication choice")
    span_extensions(s, b"\x02\x04\x80\xA3")
    return request


cdef SearchRequest decode_search(Span *s, Limits limits):
    cdef SearchRequest request = SearchRequest.__new__(SearchRequest)
    cdef Span body
    cdef uint32_t number = 0
    cdef list names
    request.base_object = span_octets(s, TAG_OCTET_STRING)
    span_uint31(s, TAG_ENUMERATED, &number)
    if number > 2:
        fail(b"unknown scope")
    request.scope = <int>number
    span_uint31(s, TAG_ENUMERATED, &number)
    if number > 3:
        fail(b"unknown derefAliases")
    request.deref_aliases = <int>number
    span_uint31(s, TAG_INTEGER, &request.size_limit)
    span_uint31(s, TAG_INTEGER, &request.time_limit)
    request.types_only = span_bool(s, TAG_BOOLEAN)
    body.pos = s.pos
    filter_walk(s, limits)
    body.end = s.pos
    request.filter = span_bytes(&body)
    span_enter(s, TAG_SEQUENCE, &body)
    if body.pos < body.end:
        names = []
        while body.pos < body.end:
            if len(names) == limits.attributes:
                fail_limit(b"attributes", limits.attributes)
            names.append(span_octets(&body, TAG_OCTET_STRING))
        request.attributes = tuple(names)
    else:
        request.attributes = ()
    span_extensions(s, b"\x01\x02\x04\x0A\x30\x87\xA0\xA1\xA2\xA3\xA4\xA5\xA6\xA8\xA9")
    return request


cdef CompareRequest decode_compare(Span *s):
    cdef CompareRequest request = CompareRequest.__new__(CompareRequest)
    cdef Span body
    request.entry = span_octets(s, TAG_OCTET_STRING)
    span_enter(s, TAG_SEQUENCE, &body)
    request.attribute = span_octets(&body, TAG_OCTET_STRING)
    request.assertion_value = span_octets(&body, TAG_OCTET_STRING)
    span_extensions(&body, b"\x04")
    span_extensions(s, b"\x04\x30")
    return request


cdef ExtendedRequest decode_extended(Span *s):
    cdef ExtendedRequest request = ExtendedRequest.__new__(ExtendedRequest)
    request.name = span_octets(s, 0x80)
    if span_peek(s) == 0x81:
        request.value = span_octets(s, 0x81)
    span_extensions(s, b"\x80\x81")
    return request


cdef Request decode_one(Span *s, Limits limits):
    """The LDAPMessage that fills `s` (RFC 4511 4.1.1)."""
    cdef Span message, body
    cdef uint32_t message_id = 0
    cdef int op
    cdef Request request
    cdef AbandonRequest abandon
    span_enter(s, TAG_SEQUENCE, &message)
    if s.pos < s.end:
        fail(b"octets after the message")
    span_uint31(&message, TAG_INTEGER, &message_id)
    if message_id == 0:
        # 4.1.1.1: "The zero value is reserved for the unsolicited notification message."
        fail(b"messageID of a request is 0")
    op = span_any(&message, &body)
    if op == OP_SEARCH_REQUEST:
        request = decode_search(&body, limits)
    elif op == OP_BIND_REQUEST:
        request = decode_bind(&body)
    elif op == OP_UNBIND_REQUEST:
        if body.pos < body.end:
            fail(b"unbind is not NULL")
        request = UnbindRequest.__new__(UnbindRequest)
    elif op == OP_COMPARE_REQUEST:
        request = decode_compare(&body)
    elif op == OP_EXTENDED_REQUEST:
        request = decode_extended(&body)
    elif op == OP_ABANDON_REQUEST:
        abandon = AbandonRequest.__new__(AbandonRequest)
        span_uint31_body(&body, &abandon.abandoned_id)
        request = abandon
    elif (op & 0xC0) == 0x40:
        request = OtherRequest.__new__(OtherRequest)
    else:
        fail(b"protocolOp is not of the APPLICATION class")
    request.message_id = message_id
    request.op = op
    if span_peek(&message) == TAG_CONTROLS:
        span_enter(&message, TAG_CONTROLS, &body)
        request.controls = decode_controls(&body, limits)
    else:
        request.controls = ()
    span_extensions(&message, b"\x02\xA0")
    return request


cdef Py_ssize_t frame_header(const uint8_t *p, Py_ssize_t have, Py_ssize_t limit) except -1 nogil:
    """Octets of the message at p, or 0 while its header is incomplete. Judges from the header's 2 to 6 octets."""
    cdef Py_ssize_t n
    cdef int octets = 0, i
    if have < 1:
        return 0
    if p[0] != TAG_SEQUENCE:
        return fail(b"an LDAPMessage is a SEQUENCE")
    if have < 2:
        return 0
    n = p[1]
    if n >= 0x80:
        octets = <int>(n & 0x7F)
        if octets == 0:
            return fail(b"indefinite length")
        if octets > 4:
            return fail(b"more than 4 length octets")
        if have < 2 + octets:
            return 0
        n = 0
        for i in range(octets):
            n = (n << 8) | p[2 + i]
    if n > limit - 2 - octets:
        return fail_limit(b"message", limit)
    return n + 2 + octets


def frame_size(bytes data not None, Py_ssize_t limit):
    return frame_header(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), limit)


def decode_message(bytes data not None, Limits limits not None):
    cdef Span s
    s.pos = <const uint8_t *>PyBytes_AS_STRING(data)
    s.end = s.pos + PyBytes_GET_SIZE(data)
    if span_left(&s) > limits.message:
        fail_limit(b"message", limits.message)
    return decode_one(&s, limits)


# -- receiving ---------------------------------------------------------------------------------------

@cython.final
cdef class Block:
    def __cinit__(self, Py_ssize_t size):
        self.data = <uint8_t *>PyMem_Malloc(size)
        if self.data == NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        if self.data != NULL:
            explicit_bzero(self.data, self.size)        # binds passed through here
            PyMem_Free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data + self.offset, self.size - self.offset, 0, flags)


@cython.final
cdef class Inbox:
    def __cinit__(self, Limits limits not None):
        self._limits = limits
        self.replace(BLOCK_SMALL)

    @property
    def limits(self):
        return self._limits

    @limits.setter
    def limits(self, Limits limits not None):
        self._limits = limits

    cdef int replace(self, Py_ssize_t size) except -1:
        """Take another block, which is empty."""
        self.block = Block.__new__(Block, size)
        self.view = None
        return 0

    cdef int reserve(self, Py_ssize_t room) except -1:
        """Make `room` octets free behind the pending ones, by moving them or into a larger block.

        A block grows with what has been received, never with what a header announces.
        """
        cdef Py_ssize_t pending = self.end - self.start
        cdef Py_ssize_t size = self.block.size
        cdef Py_ssize_t vacated
        cdef Block before = self.block
        if size - self.end >= room:
            return 0
        if pending + room > size or pending > size >> 1:
            self.replace(max(size * 2, pending + room))
            memcpy(self.block.data, before.data + self.start, pending)
        else:
            memmove(self.block.data, self.block.data + self.start, pending)
            # Half a bind may have lain there; what next() wipes is the moved one.
            vacated = max(pending, self.start)
            explicit_bzero(self.block.data + vacated, self.end - vacated)
        self.start = 0
        self.end = pending
        return 0

    def buffer(self, Py_ssize_t size_hint=-1):
        cdef Py_ssize_t size = self.block.size
        if self.start == self.end:
            # Empty: the next block is as large as the last read suggests.
            if self.end == size and size < BLOCK_LARGE:
                self.replace(size * 2)
            elif size > BLOCK_LARGE or (size > BLOCK_SMALL and self.end < BLOCK_ROOM):
                self.replace(BLOCK_SMALL)
            self.start = self.end = 0
            if self.view is None:
                self.block.offset = 0
                self.view = PyMemoryView_FromObject(self.block)
            return self.view
        elif self.end - self.start > self._limits.message + BLOCK_LARGE:
            self.broken = True
            fail_limit(b"message", self._limits.message)
        else:
            self.reserve(BLOCK_ROOM)
        self.block.offset = self.end
        return PyMemoryView_FromObject(self.block)

    cpdef received(self, Py_ssize_t count):
        if count < 0 or count > self.block.size - self.end:
            raise ValueError("more octets received than there was room for")
        self.end += count

    def feed(self, bytes data not None):
        cdef Py_ssize_t count = PyBytes_GET_SIZE(data)
        if self.start == self.end:
            self.start = self.end = 0
        self.reserve(count)
        memcpy(self.block.data + self.end, PyBytes_AS_STRING(data), count)
        self.end += count

    def next(self):
        cdef Span s
        cdef Py_ssize_t size
        cdef Request request
        if self.start == self.end and not self.broken:
            return None
        if self.broken:
            raise DecodeError("the octets before were undecodable")
        s.pos = self.block.data + self.start
        self.broken = True
        size = frame_header(s.pos, self.end - self.start, self._limits.message)
        if size == 0 or size > self.end - self.start:
            self.broken = False
            return None
        s.end = s.pos + size
        request = decode_one(&s, self._limits)
        self.broken = False
        if request.op == OP_BIND_REQUEST or request.op == OP_EXTENDED_REQUEST:
            explicit_bzero(self.block.data + self.start, size)
        self.start += size
        return request

    def pending(self):
        return self.end - self.start

    def discard(self):
        cdef Py_ssize_t count = self.end - self.start
        explicit_bzero(self.block.data + self.start, count)
        self.start = self.end
        return count


# -- encoding ----------------------------------------------------------------------------------------

cdef Py_ssize_t control_size(tuple control) except -1:
    """Content octets of one Control SEQUENCE; checks the types once for both passes."""
    cdef Py_ssize_t size
    if len(control) != 3 or type(control[0]) is not bytes or not (control[2] is None or type(control[2]) is bytes):
        raise TypeError("a control is (oid, critical, value)")
    size = ber_size(PyBytes_GET_SIZE(control[0]))
    if control[1]:
        size += 3
    if control[2] is not None:
        size += ber_size(PyBytes_GET_SIZE(control[2]))
    return size


cdef Py_ssize_t controls_size(tuple controls) except -1:
    """Content octets of the controls element."""
    cdef Py_ssize_t size = 0
    for control in controls:
        size += ber_size(control_size(control))
    return size


cdef uint8_t *put_bytes(uint8_t *p, int tag, bytes value) noexcept:
    return put_octets(p, tag, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef uint8_t *put_controls(uint8_t *p, tuple controls, Py_ssize_t size) except NULL:
    p = put_header(p, TAG_CONTROLS, size)
    for control in controls:
        p = put_header(p, TAG_SEQUENCE, control_size(control))
        p = put_bytes(p, TAG_OCTET_STRING, <bytes>control[0])
        if control[1]:
            p[0] = TAG_BOOLEAN
            p[1] = 1
            p[2] = 0xFF
            p += 3
        if control[2] is not None:
            p = put_bytes(p, TAG_OCTET_STRING, <bytes>control[2])
    return p


cdef int check_numbers(uint32_t message_id, uint32_t result_code) except -1:
    if message_id > 0x7FFFFFFF or result_code > 0x7FFFFFFF:
        raise ValueError("messageID or resultCode is over maxInt")
    return 0


cdef bytes encode_message(
    uint32_t message_id,
    int op,
    uint32_t result_code,
    bytes matched_dn,
    bytes diagnostic,
    int tag1,
    bytes extra1,
    int tag2,
    bytes extra2,
    tuple controls,
):
    """An LDAPResult (RFC 4511 4.1.9) and up to two octet strings that COMPONENTS OF it precede."""
    cdef Py_ssize_t id_size, op_size, tail = 0, inner = 0, total
    cdef bytes message
    cdef uint8_t *p
    check_numbers(message_id, result_code)
    id_size = 2 + ber_uint_size(message_id)
    op_size = 2 + ber_uint_size(result_code)
    op_size += ber_size(PyBytes_GET_SIZE(matched_dn)) + ber_size(PyBytes_GET_SIZE(diagnostic))
    if extra1 is not None:
        op_size += ber_size(PyBytes_GET_SIZE(extra1))
    if extra2 is not None:
        op_size += ber_size(PyBytes_GET_SIZE(extra2))
    if controls:
        inner = controls_size(controls)
        tail = ber_size(inner)
    total = id_size + ber_size(op_size) + tail
    message = PyBytes_FromStringAndSize(NULL, ber_size(total))
    p = <uint8_t *>PyBytes_AS_STRING(message)
    p = put_header(p, TAG_SEQUENCE, total)
    p = put_uint(p, TAG_INTEGER, message_id)
    p = put_header(p, op, op_size)
    p = put_uint(p, TAG_ENUMERATED, result_code)
    p = put_bytes(p, TAG_OCTET_STRING, matched_dn)
    p = put_bytes(p, TAG_OCTET_STRING, diagnostic)
    if extra1 is not None:
        p = put_bytes(p, tag1, extra1)
    if extra2 is not None:
        p = put_bytes(p, tag2, extra2)
    if controls:
        put_controls(p, controls, inner)
    return message


def encode_result(
    uint32_t message_id,
    int op,
    uint32_t result_code,
    bytes matched_dn not None=b"",
    bytes diagnostic not None=b"",
    tuple controls not None=(),
):
    if op not in (
        OP_BIND_RESPONSE, OP_SEARCH_DONE, OP_MODIFY_RESPONSE, OP_ADD_RESPONSE, OP_DELETE_RESPONSE,
        OP_MODIFY_DN_RESPONSE, OP_COMPARE_RESPONSE, OP_EXTENDED_RESPONSE,
    ):
        raise ValueError("op is not the tag octet of a response")
    return encode_message(message_id, op, result_code, matched_dn, diagnostic, 0, None, 0, None, controls)


def encode_bind_result(
    uint32_t message_id,
    uint32_t result_code,
    bytes matched_dn not None=b"",
    bytes diagnostic not None=b"",
    bytes server_credentials=None,
    tuple controls not None=(),
):
    return encode_message(
        message_id, OP_BIND_RESPONSE, result_code, matched_dn, diagnostic, 0x87, server_credentials, 0, None, controls
    )


def encode_extended_result(
    uint32_t message_id,
    uint32_t result_code,
    bytes matched_dn not None=b"",
    bytes diagnostic not None=b"",
    bytes name=None,
    bytes value=None,
    tuple controls not None=(),
):
    return encode_message(
        message_id, OP_EXTENDED_RESPONSE, result_code, matched_dn, diagnostic, 0x8A, name, 0x8B, value, controls
    )


def encode_intermediate(uint32_t message_id, bytes name=None, bytes value=None):
    cdef Py_ssize_t op_size = 0, total
    cdef bytes message
    cdef uint8_t *p
    check_numbers(message_id, 0)
    if name is not None:
        op_size += ber_size(PyBytes_GET_SIZE(name))
    if value is not None:
        op_size += ber_size(PyBytes_GET_SIZE(value))
    total = 2 + ber_uint_size(message_id) + ber_size(op_size)
    message = PyBytes_FromStringAndSize(NULL, ber_size(total))
    p = <uint8_t *>PyBytes_AS_STRING(message)
    p = put_header(p, TAG_SEQUENCE, total)
    p = put_uint(p, TAG_INTEGER, message_id)
    p = put_header(p, OP_INTERMEDIATE_RESPONSE, op_size)
    if name is not None:
        p = put_bytes(p, 0x80, name)
    if value is not None:
        put_bytes(p, 0x81, value)
    return message


def encode_search_entry(uint32_t message_id, bytes object_name not None, list attributes not None):
    cdef Py_ssize_t set_size, attribute_size, list_size = 0, op_size, total
    cdef bytes message, name
    cdef list values
    cdef uint8_t *p
    check_numbers(message_id, 0)
    for name, values in attributes:
        if name is None or values is None:
            raise TypeError("an attribute is (name, values)")
        list_size += ber_size(ber_size(PyBytes_GET_SIZE(name)) + ber_size(values_size(values)))
    op_size = ber_size(PyBytes_GET_SIZE(object_name)) + ber_size(list_size)
    total = 2 + ber_uint_size(message_id) + ber_size(op_size)
    message = PyBytes_FromStringAndSize(NULL, ber_size(total))
    p = <uint8_t *>PyBytes_AS_STRING(message)
    p = put_header(p, TAG_SEQUENCE, total)
    p = put_uint(p, TAG_INTEGER, message_id)
    p = put_header(p, OP_SEARCH_ENTRY, op_size)
    p = put_bytes(p, TAG_OCTET_STRING, object_name)
    p = put_header(p, TAG_SEQUENCE, list_size)
    for name, values in attributes:
        set_size = values_size(values)
        attribute_size = ber_size(PyBytes_GET_SIZE(name)) + ber_size(set_size)
        p = put_header(p, TAG_SEQUENCE, attribute_size)
        p = put_bytes(p, TAG_OCTET_STRING, name)
        p = put_header(p, TAG_SET, set_size)
        for value in values:
            p = put_bytes(p, TAG_OCTET_STRING, <bytes>value)
    return message


cdef Py_ssize_t values_size(list values) except -1:
    """Content octets of the SET OF values; checks their type."""
    cdef Py_ssize_t size = 0
    for value in values:
        if type(value) is not bytes:
            raise TypeError("an attribute value is bytes")
        size += ber_size(PyBytes_GET_SIZE(value))
    return size
