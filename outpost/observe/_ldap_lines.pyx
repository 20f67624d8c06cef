# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Lines about LDAP requests, rendered from the octets of the request."""
# Keys, order and texts are those of `outpost.observe.ldap`, which makes the lines that are not made here. What is
# rendered here is ASCII, so that one octet is one character; values of filters are such as nothing has to be done about.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from outpost._fastber cimport (
    FILTER_AND, FILTER_APPROX, FILTER_EQUALITY, FILTER_GREATER_OR_EQUAL, FILTER_LESS_OR_EQUAL, FILTER_NOT, FILTER_OR,
    FILTER_PRESENT, FILTER_SUBSTRINGS, SUBSTRING_FINAL, SUBSTRING_INITIAL, SearchRequest, Span,
)
from outpost.observe._lines cimport Lines

from outpost.ldap.filter import SECRETS

__all__ = ("LdapLines",)

cdef extern from "strings.h" nogil:
    int strncasecmp(const char *a, const char *b, size_t n)

cdef enum:
    LONGEST = 1024          # octets of a name that are shown
    LONGEST_FILTER = 1000   # octets of a filter whose text surely is not cut

    OF_VALUE = 1            # may stand in a value as it is
    OF_NAME = 2             # may stand in an attribute description

cdef uint8_t[256] CLASSES
cdef tuple NAMES_OF_SECRETS = tuple(SECRETS)


cdef void classify():
    cdef int c
    for c in range(256):
        CLASSES[c] = 0
        if 0x30 <= c <= 0x39 or 0x41 <= c <= 0x5A or 0x61 <= c <= 0x7A or c in (0x2E, 0x5F, 0x2D):
            CLASSES[c] = OF_VALUE | OF_NAME
        elif c in (0x40, 0x20, 0x2C, 0x3D, 0x3A, 0x2F, 0x2B):       # @ space , = : / +
            CLASSES[c] = OF_VALUE
        elif c == 0x3B:
            CLASSES[c] = OF_NAME


classify()

cdef const char *EVENT_BIND = b',"event":"Bind request","level":"info","logger":"outpost.ldap"'
cdef const char *EVENT_SEARCH = b',"event":"Search request","filter":"'
cdef const char *EVENT_OTHER = b',"event":"Request","level":"info","logger":"outpost.ldap","operation":"'


cdef inline bint all_of(const uint8_t *p, Py_ssize_t size, int kind) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if not CLASSES[p[i]] & kind:
            return False
    return True


cdef inline bint is_ascii(const uint8_t *p, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t all_bits = 0
    for i in range(size):
        all_bits |= p[i]
    return all_bits < 0x80


cdef bint is_secret(const uint8_t *p, Py_ssize_t size) noexcept:
    """An attribute whose values are passwords, whatever options are behind it."""
    cdef Py_ssize_t n = 0
    cdef bytes name
    while n < size and p[n] != 0x3B:
        n += 1
    for name in NAMES_OF_SECRETS:
        if n == PyBytes_GET_SIZE(name) and strncasecmp(<const char *>p, PyBytes_AS_STRING(name), n) == 0:
            return True
    return False


cdef inline int take(Span *s, Span *inner) noexcept nogil:
    """The element at s, which the decoder has validated."""
    cdef int tag = s.pos[0]
    cdef Py_ssize_t n = s.pos[1]
    cdef int octets, i
    inner.pos = s.pos + 2
    if n >= 0x80:
        octets = <int>(n & 0x7F)
        n = 0
        for i in range(octets):
            n = (n << 8) | inner.pos[i]
        inner.pos += octets
    inner.end = inner.pos + n
    s.pos = inner.end
    return tag


cdef bint put_filter(Lines lines, Span *s) noexcept:
    """The filter at s; False if it is not plain."""
    cdef Span body, name, value
    cdef int tag = take(s, &body)
    if tag == FILTER_AND or tag == FILTER_OR or tag == FILTER_NOT:
        lines.raw(b"(&" if tag == FILTER_AND else b"(|" if tag == FILTER_OR else b"(!", 2)
        while body.pos < body.end:
            if not put_filter(lines, &body):
                return False
        lines.raw(b")", 1)
        return True
    if tag == FILTER_PRESENT:
        if not all_of(body.pos, body.end - body.pos, OF_NAME):
            return False
        lines.raw(b"(", 1)
        lines.raw(<const char *>body.pos, body.end - body.pos)
        lines.raw(b"=*)", 3)
        return True
    if not (tag == FILTER_EQUALITY or tag == FILTER_SUBSTRINGS or tag == FILTER_GREATER_OR_EQUAL
            or tag == FILTER_LESS_OR_EQUAL or tag == FILTER_APPROX):
        return False
    take(&body, &name)
    take(&body, &value)
    if not all_of(name.pos, name.end - name.pos, OF_NAME) or is_secret(name.pos, name.end - name.pos):
        return False
    lines.raw(b"(", 1)
    lines.raw(<const char *>name.pos, name.end - name.pos)
    if tag == FILTER_SUBSTRINGS:
        lines.raw(b"=", 1)
        if not put_substrings(lines, &value):
            return False
    else:
        if not all_of(value.pos, value.end - value.pos, OF_VALUE):
            return False
        if tag == FILTER_GREATER_OR_EQUAL:
            lines.raw(b">", 1)
        elif tag == FILTER_LESS_OR_EQUAL:
            lines.raw(b"<", 1)
        elif tag == FILTER_APPROX:
            lines.raw(b"~", 1)
        lines.raw(b"=", 1)
        lines.raw(<const char *>value.pos, value.end - value.pos)
    lines.raw(b")", 1)
    return True


cdef bint put_substrings(Lines lines, Span *pieces) noexcept:
    cdef Span piece
    cdef int tag = 0
    while pieces.pos < pieces.end:
        tag = take(pieces, &piece)
        if piece.pos == piece.end or not all_of(piece.pos, piece.end - piece.pos, OF_VALUE):
            return False
        if tag != SUBSTRING_INITIAL:
            lines.raw(b"*", 1)
        lines.raw(<const char *>piece.pos, piece.end - piece.pos)
    if tag != SUBSTRING_FINAL:
        lines.raw(b"*", 1)
    return True


@cython.final
cdef class LdapLines:
    def __cinit__(self, Lines lines not None, search_apart, other_apart):
        self.lines = lines
        self.search_apart = search_apart
        self.other_apart = other_apart

    def number(self):
        self.requests += 1
        return self.requests

    cdef bint dn_and_client(self, const uint8_t *dn, Py_ssize_t dn_size, str client) noexcept:
        cdef char folded[LONGEST]
        cdef Py_ssize_t i
        cdef uint8_t c, all_bits = 0
        if dn_size > LONGEST:
            dn_size = LONGEST
        for i in range(dn_size):
            c = dn[i]
            all_bits |= c
            folded[i] = <char>(c | 0x20 if 0x41 <= c <= 0x5A else c)
        if all_bits >= 0x80:
            return False
        self.lines.raw(b'"bindDN":"', 10)
        self.lines.escaped(folded, dn_size)
        self.lines.raw(b'","client":"', 12)
        self.lines.text(client)
        self.lines.raw(b'"', 1)
        return True

    cdef void rest(self, double at, int code, str reason) noexcept:
        """From `reason` to `timestamp`, but for `scope`."""
        if reason:
            self.lines.raw(b',"reason":"', 11)
            self.lines.text(reason)
            self.lines.raw(b'"', 1)
        self.lines.raw(b',"requestId":', 13)
        self.lines.number(self.requests)
        self.lines.raw(b',"result":', 10)
        self.lines.number(code)

    cdef bint put_bind(
        self, double at, str client, const uint8_t *dn, Py_ssize_t dn_size, double took, int code, str reason
    ) noexcept:
        cdef Lines lines = self.lines
        self.requests += 1
        if not lines.begin():
            return True
        lines.raw(b"{", 1)
        if not self.dn_and_client(dn, dn_size, client):
            lines.cancel()
            return False
        lines.raw(EVENT_BIND, 62)
        self.rest(at, code, reason)
        lines.raw(b',"timestamp":"', 14)
        lines.stamp(at)
        lines.raw(b'","took-ms":', 12)
        lines.milliseconds(took)
        lines.raw(b"}", 1)
        lines.end()
        return True

    cdef bint put_operation(
        self, double at, str kind, str client, const uint8_t *dn, Py_ssize_t dn_size, double took, int code
    ) noexcept:
        cdef Lines lines = self.lines
        self.requests += 1
        if not lines.begin():
            return True
        lines.raw(b"{", 1)
        if not self.dn_and_client(dn, dn_size, client):
            lines.cancel()
            return False
        lines.raw(EVENT_OTHER, 71)
        lines.text(kind)
        lines.raw(b'"', 1)
        self.rest(at, code, "")
        lines.raw(b',"timestamp":"', 14)
        lines.stamp(at)
        lines.raw(b'","took-ms":', 12)
        lines.milliseconds(took)
        lines.raw(b"}", 1)
        lines.end()
        return True

    cdef bint put_search(
        self, double at, str client, const uint8_t *dn, Py_ssize_t dn_size, const Span *base, int scope,
        const Span *filter, const Span *attributes, double took, int code, str reason, Py_ssize_t entries
    ) noexcept:
        cdef Lines lines = self.lines
        cdef Span s, item
        cdef bint more = False
        cdef Py_ssize_t size = base.end - base.pos
        self.requests += 1
        if not lines.begin():
            return True
        lines.raw(b'{"attributes":[', 15)
        s = attributes[0]
        while s.pos < s.end:
            take(&s, &item)
            if not is_ascii(item.pos, item.end - item.pos):
                lines.cancel()
                return False
            lines.raw(b',"' if more else b'"', 2 if more else 1)
            lines.escaped(<const char *>item.pos, min(item.end - item.pos, LONGEST))
            lines.raw(b'"', 1)
            more = True
        if not is_ascii(base.pos, size):
            lines.cancel()
            return False
        lines.raw(b'],"baseDN":"', 12)
        lines.escaped(<const char *>base.pos, min(size, LONGEST))
        lines.raw(b'",', 2)
        if not self.dn_and_client(dn, dn_size, client):
            lines.cancel()
            return False
        lines.raw(b',"entries":', 11)
        lines.number(entries)
        lines.raw(EVENT_SEARCH, 36)
        s = filter[0]
        if s.end - s.pos > LONGEST_FILTER or not put_filter(lines, &s):
            lines.cancel()
            return False
        lines.raw(b'","level":"info","logger":"outpost.ldap"', 40)
        self.rest(at, code, reason)
        lines.raw(b',"scope":"', 10)
        if scope == 0:
            lines.raw(b"Base Object", 11)
        elif scope == 1:
            lines.raw(b"Single Level", 12)
        else:
            lines.raw(b"Whole Subtree", 13)
        lines.raw(b'","timestamp":"', 15)
        lines.stamp(at)
        lines.raw(b'","took-ms":', 12)
        lines.milliseconds(took)
        lines.raw(b"}", 1)
        lines.end()
        return True

    cpdef bind(self, double at, str client, bytes bind_dn, double took, int code, str reason):
        if not self.put_bind(
            at, client, <const uint8_t *>PyBytes_AS_STRING(bind_dn), PyBytes_GET_SIZE(bind_dn), took, code, reason
        ):
            self.other_apart(self.requests, at, "", client, bind_dn, took, code, reason)

    cpdef operation(self, double at, str kind, str client, bytes bind_dn, double took, int code):
        if not self.put_operation(
            at, kind, client, <const uint8_t *>PyBytes_AS_STRING(bind_dn), PyBytes_GET_SIZE(bind_dn), took, code
        ):
            self.other_apart(self.requests, at, kind, client, bind_dn, took, code, "")

    def search(
        self, double at, str client not None, bytes bind_dn not None, SearchRequest request not None, double took,
        int code, str reason not None, Py_ssize_t entries
    ):
        cdef Span base, filter, attributes
        cdef bytes listed = elements(request.attributes)
        base.pos = <const uint8_t *>PyBytes_AS_STRING(request.base_object)
        base.end = base.pos + PyBytes_GET_SIZE(request.base_object)
        filter.pos = <const uint8_t *>PyBytes_AS_STRING(request.filter)
        filter.end = filter.pos + PyBytes_GET_SIZE(request.filter)
        attributes.pos = <const uint8_t *>PyBytes_AS_STRING(listed)
        attributes.end = attributes.pos + PyBytes_GET_SIZE(listed)
        if not self.put_search(
            at, client, <const uint8_t *>PyBytes_AS_STRING(bind_dn), PyBytes_GET_SIZE(bind_dn), &base, request.scope,
            &filter, &attributes, took, code, reason, entries
        ):
            self.search_apart(self.requests, at, client, bind_dn, request, took, code, reason, entries)


cdef bytes elements(tuple names):
    """Octet strings, encoded one after the other."""
    cdef list found = []
    for name in names:
        found.append(b"\x04\x84" + len(<bytes>name).to_bytes(4, "big"))
        found.append(name)
    return b"".join(found)
