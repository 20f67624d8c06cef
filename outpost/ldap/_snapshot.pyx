# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The compiled directory: checks an arena once, then plans, tests and encodes searches in C."""
# Reads the arena of _arena.pxd: checks it once, then searches it under the interpreter lock without a Python
# object per entry, attribute or value. Three-valued logic throughout: TRUE 1, FALSE 0, UNDEFINED -1.
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from outpost._fastber cimport (
    FILTER_AND, FILTER_APPROX, FILTER_EQUALITY, FILTER_EXTENSIBLE, FILTER_GREATER_OR_EQUAL, FILTER_LESS_OR_EQUAL,
    FILTER_NOT, FILTER_OR, FILTER_PRESENT, FILTER_SUBSTRINGS, MATCHING_DN_ATTRIBUTES, MATCHING_RULE, MATCHING_TYPE,
    MATCHING_VALUE, SUBSTRING_FINAL, SUBSTRING_INITIAL, SearchRequest, Span, ber_size, ber_uint_size, put_header,
    put_uint, span_any, span_bytes, span_enter, span_left,
)
from outpost.ldap._arena cimport (
    FLAG_INDEXED, FLAG_MEMBERSHIP, FLAG_OPERATIONAL, FLAG_PRIVATE, FORM_DNS, FORM_ENCODED, FORM_LIST, FORM_LOGINS, FORM_NODE,
    IN_RECORD, IN_SHAPE, IS_DN, KIND_BASE, KIND_CONTAINER, KIND_GROUP, KIND_MASK, KIND_USER, KIND_VIRTUAL_GROUP, NODE_HEADER,
    NORMAL, NO_KEY, POSTING_MASK, POSTING_ONE, POSTING_RANGE, POSTING_TWINS, VERSION, Attribute, Entry, Header, Item, List,
    Name, Node, Posting, Shape, end_of, hash_octets, kind_of, node_size, norm_at, parent_of, slot_of, tlv_content, tlv_header,
)

import hashlib

from outpost.errors import DecodeError
from outpost.ldap.dn import escape, normalise, normalise_rdn, parse
from outpost.ldap.matching import normalise_substring, normalise_value
from outpost.ldap.schema import MATCHING_RULES, normal_form

__all__ = ("Search", "Snapshot", "View")

from libc.stdlib cimport calloc, free

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize_ "PyBytes_FromStringAndSize"(const char *octets, Py_ssize_t size)
    int _PyBytes_Resize(PyObject **octets, Py_ssize_t size) except -1

cdef extern from "string.h" nogil:
    void *memmem(const void *haystack, size_t haystacklen, const void *needle, size_t needlelen)

cdef enum:
    TRUE = 1
    FALSE = 0
    UNDEFINED = -1

    CHECKSUM_FROM = 24
    DN_CACHE = 4096
    PARTS = 64                  # attributes of an entry that is written without a second look at each
    COPIED = 32                 # octets that are copied at once
    LONGEST_SLICE = 1048576
    ALL_USER = 1
    ALL_OPERATIONAL = 2
    LONGEST_SIMPLE = 256        # octets of a DN that is worth a look whether it is in normal form
    K_CASE_IGNORE = 0
    K_CASE_EXACT = 1
    K_INTEGER = 2
    K_TIME = 3
    K_DN = 4
    K_TELEPHONE = 5

    # Node_.op beyond the filter tags
    OP_CONSTANT = 1
    OP_ANY_ATTRIBUTE = 2        # extensible match without a type
    OP_BIT_AND = 3
    OP_BIT_OR = 4
    OP_IN_SET = 5               # values of one attribute against a set of normal nodes
    OP_ENTRIES = 6              # the entry itself against a set of entries
    OP_EXACT = 7                # caseExactMatch on an attribute that ignores case
    OP_FOLDED = 8               # caseIgnoreMatch on an attribute that does not
    OP_DN_ATTRIBUTE = 9         # a naming attribute of the entry's DN (:dn:)
    OP_TEXT = 10                # caseIgnoreMatch or caseExactMatch on telephone numbers

_RULES = {
    **{name.lower().encode(): (name, kind) for name, (oid, syntax, kind) in MATCHING_RULES.items() if kind is not None},
    **{oid.encode(): (name, kind) for name, (oid, syntax, kind) in MATCHING_RULES.items() if kind is not None},
}


cdef struct Piece:
    const uint8_t *data
    Py_ssize_t size
    int tag


cdef struct Filter:
    int op
    int attribute
    int first, next             # children and siblings, -1 for none
    int constant
    uint32_t norm               # equality: the node that holds the normal form, 0 if no entry has it
    uint32_t entry              # equality with a DN or a login name: the entry that it names, or NO_KEY
    int kind
    Py_ssize_t piece, pieces    # into the array of pieces; for sets: offset and count in `sets`
    int64_t bits
    uint32_t memo_ref
    int memo_form
    int memo
    bint is_counted             # of planning: `candidates` and, of an And, the part that they come from
    Py_ssize_t candidates
    int smallest


# An attribute on its way out: type and values as they are sent, or NULL where the values lie scattered.
cdef struct Part:
    const Item *item
    const uint8_t *type
    Py_ssize_t type_size
    const uint8_t *value
    Py_ssize_t octets


cdef inline uint8_t *put_copy(uint8_t *p, const uint8_t *from_, Py_ssize_t size, const uint8_t *last) noexcept nogil:
    """`size` octets; COPIED may be written in any case, and are read where they lie before `last`."""
    if size <= COPIED and from_ <= last:
        memcpy(p, from_, COPIED)
    else:
        memcpy(p, from_, size)
    return p + size


cdef struct Values:
    const uint32_t *refs
    uint32_t count
    uint32_t one
    int form                    # FORM_NODE: refs are nodes; FORM_DNS, FORM_LOGINS: entries


# Entries, ascending and each once: those of an array, or `count` from `first` on if there is none; and others.
cdef struct Candidates:
    uint32_t count
    uint32_t first
    const uint32_t *refs
    uint32_t more_count
    const uint32_t *more


cdef inline Node *node_at(const uint8_t *base, uint32_t at) noexcept nogil:
    return <Node *>(base + at)


cdef inline const uint8_t *content(const Node *n, Py_ssize_t *size) noexcept nogil:
    cdef const uint8_t *tlv = &n.tlv[0]
    size[0] = tlv_content(tlv)
    return tlv + tlv_header(tlv)


cdef inline Entry *entry_at(Snapshot s, uint32_t index) noexcept:
    return <Entry *>(s.base + s.header.entries) + index


cdef inline Attribute *attribute_at(Snapshot s, uint32_t index) noexcept:
    return <Attribute *>(s.base + s.header.attributes) + index


cdef inline const Shape *shape_of(Snapshot s, const Entry *e) noexcept:
    return <const Shape *>(s.base + s.header.shapes) + (e.form >> 8)


cdef inline const Item *items_of(Snapshot s, const Entry *e, int *count) noexcept:
    """The attributes of the entry, in the order in which they are sent."""
    cdef const Shape *shape = shape_of(s, e)
    count[0] = shape.count
    return <const Item *>(s.base + s.header.items) + shape.items


cdef inline uint32_t ref_of(Snapshot s, const Entry *e, const Item *item) noexcept:
    """What the item refers to in this entry."""
    if item.where == IN_RECORD:
        return (<const uint32_t *>(s.base + e.record))[item.ref]
    return e.dn if item.where == IS_DN else item.ref


cdef inline List *list_at(Snapshot s, uint32_t ref) noexcept:
    return <List *>(s.base + s.header.lists + ref)


cdef inline uint32_t login_of(Snapshot s, uint32_t entry) noexcept:
    """The node of a user's login name."""
    return (<const uint32_t *>(s.base + s.header.logins))[entry - s.header.logins_from]


cdef inline uint32_t value_at(Snapshot s, const Values *values, uint32_t i) noexcept:
    """The node of a value."""
    if values.form == FORM_NODE:
        return values.refs[i]
    return entry_at(s, values.refs[i]).dn if values.form == FORM_DNS else login_of(s, values.refs[i])


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if 0x41 <= c <= 0x5A else c


cdef inline bint is_simple(uint8_t c) noexcept nogil:
    return 0x61 <= c <= 0x7A or 0x30 <= c <= 0x39 or c == 0x2E or c == 0x5F or c == 0x40 or c == 0x2D


cdef bint put_simple_dn(const uint8_t *dn, Py_ssize_t size, uint8_t *out) noexcept nogil:
    """The normal form of a DN that has it once it is in lower case (`outpost.ldap.dn.SIMPLE`); False for others."""
    cdef Py_ssize_t i = 0, start
    cdef int rdns = 0
    while i < size:
        out[i] = lower(dn[i])
        i += 1
    i = 0
    while True:
        rdns += 1
        if rdns > 64 or size - i < 3:
            return False
        if out[i + 1] == 0x3D:
            if out[i] != 0x6F:                                                  # o
                return False
            i += 2
        elif out[i + 2] == 0x3D:
            if not ((out[i] == 0x63 and out[i + 1] == 0x6E) or (out[i] == 0x6F and out[i + 1] == 0x75)
                    or (out[i] == 0x64 and out[i + 1] == 0x63)):                # cn, ou, dc
                return False
            i += 3
        elif size - i > 4 and out[i] == 0x75 and out[i + 1] == 0x69 and out[i + 2] == 0x64 and out[i + 3] == 0x3D:
            i += 4
        else:
            return False
        start = i
        while i < size and out[i] != 0x2C:
            if not is_simple(out[i]):
                # Single spaces inside.
                if out[i] != 0x20 or i == start or out[i - 1] == 0x20 or i + 1 == size or out[i + 1] == 0x2C:
                    return False
            i += 1
        if i == start:
            return False
        if i == size:
            return True
        i += 1


cdef Py_ssize_t put_folded(const uint8_t *p, Py_ssize_t size, uint8_t *out) noexcept nogil:
    """The normal form of a value that ignores case and is printable ASCII with single spaces inside; -1 for others."""
    cdef Py_ssize_t i
    cdef uint8_t c
    cdef uint8_t last = 0x20
    for i in range(size):
        c = p[i]
        if c < 0x20 or c > 0x7E or (c == 0x20 and last == 0x20):
            return -1
        out[i] = lower(c)
        last = c
    return -1 if last == 0x20 else size


cdef class _Buffer:
    """Holds a Py_buffer for as long as the arena is in use."""

    cdef Py_buffer view

    def __cinit__(self, arena):
        PyObject_GetBuffer(arena, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef struct Checked:
    const uint8_t *base
    const Header *h
    uint8_t *nodes
    uint8_t *lists
    uint8_t *links
    uint8_t *postings


cdef inline bint has_bit(const uint8_t *bits, uint32_t at) noexcept nogil:
    return bits[at >> 5] & (1 << (at >> 2 & 7))


cdef inline void set_bit(uint8_t *bits, uint32_t at) noexcept nogil:
    bits[at >> 5] |= 1 << (at >> 2 & 7)


cdef bint is_section(const Header *h, uint64_t at, uint64_t size) noexcept nogil:
    return not at & 3 and sizeof(Header) <= at <= h.size and size <= h.size - at


cdef inline bint is_node(const Checked *c, uint32_t at) noexcept nogil:
    return not at & 3 and c.h.nodes <= at < c.h.nodes_end and has_bit(c.nodes, at)


cdef const char *check_nodes(Checked *c) noexcept nogil:
    """Walk over the values, one behind the other; from then on an offset is a value's or it is none."""
    cdef const Header *h = c.h
    cdef uint32_t at = h.nodes, room
    cdef const uint8_t *tlv
    while at < h.nodes_end:
        room = h.nodes_end - at
        if room < NODE_HEADER + 2:
            return b"a value lies outside"
        tlv = c.base + at + NODE_HEADER
        if tlv[1] > 0x84 or tlv[1] == 0x80 or room < <uint32_t>(NODE_HEADER + tlv_header(tlv)):
            return b"a value has no length"
        room -= NODE_HEADER + tlv_header(tlv)
        # Values are padded to four octets, the last one too.
        if tlv_content(tlv) > room or node_size(<const Node *>(c.base + at)) > h.nodes_end - at:
            return b"a value is too long"
        set_bit(c.nodes, at)
        at += node_size(<const Node *>(c.base + at))
    return NULL


cdef const char *check_norms(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef uint32_t at = h.nodes, form
    cdef const Node *n
    cdef const char *wrong
    while at < h.nodes_end:
        n = <const Node *>(c.base + at)
        form = n.kind & POSTING_MASK
        if n.kind & KIND_MASK > 8 or n.kind & ~(KIND_MASK | POSTING_MASK | NORMAL):
            return b"a value of no kind"
        if not n.kind & NORMAL:
            if form:
                return b"postings of a value that is not normal"
            if n.link and (not is_node(c, n.link) or not (<const Node *>(c.base + n.link)).kind & NORMAL):
                return b"a normal form that is not normal"
        elif form == POSTING_ONE:
            if n.link >= h.entry_count:
                return b"postings name no entry"
        elif form == POSTING_TWINS:
            if not h.twin or n.link >= h.entry_count or h.twin >= h.entry_count - n.link:
                return b"postings name no entry"
        elif n.link or form:
            wrong = check_posting(c, n.link, form)
            if wrong != NULL:
                return wrong
        at += node_size(n)
    return NULL


cdef const char *check_posting(Checked *c, uint32_t at, uint32_t form) noexcept nogil:
    cdef const Header *h = c.h
    cdef const Posting *posting
    cdef uint32_t i
    if at & 3 or at < h.postings or at > h.postings_end or h.postings_end - at < 8:
        return b"postings lie outside"
    posting = <const Posting *>(c.base + at)
    if form == POSTING_RANGE:
        if posting.refs[0] >= h.entry_count or posting.count > h.entry_count - posting.refs[0]:
            return b"postings name no entry"
        return NULL
    if has_bit(c.postings, at):
        return NULL
    set_bit(c.postings, at)
    if posting.count > (h.postings_end - at - 4) // 4:
        return b"postings are too long"
    for i in range(posting.count):
        if posting.refs[i] >= h.entry_count or (i and posting.refs[i] <= posting.refs[i - 1]):
            return b"postings name no entry"
    return NULL


cdef const char *check_ref(Checked *c, int form, uint32_t ref) noexcept nogil:
    """What an item refers to."""
    cdef const Header *h = c.h
    cdef const List *lst
    cdef const Entry *e
    cdef const Entry *entries = <const Entry *>(c.base + h.entries)
    cdef const uint8_t *tlv
    cdef uint32_t at, k
    cdef uint64_t need
    if form == FORM_NODE:
        if is_node(c, ref):
            return NULL
        return b"a value lies outside"
    at = h.lists + ref
    if ref & 3 or ref > h.lists_end - h.lists or h.lists_end - at < 8:
        return b"a list lies outside"
    if (form == FORM_LIST and has_bit(c.lists, at)) or (form >= FORM_DNS and has_bit(c.links, at)):
        return NULL
    lst = <const List *>(c.base + at)
    need = 8 + 4 * <uint64_t>lst.count + (lst.octets if form == FORM_ENCODED else 0)
    if lst.count == 0 or need > h.lists_end - at:
        return b"a list is too long"
    need = 0
    if form >= FORM_DNS:
        for k in range(lst.count):
            if lst.refs[k] >= h.entry_count or (k and lst.refs[k] <= lst.refs[k - 1]):
                return b"a list of no entries"
            e = entries + lst.refs[k]
            if kind_of(e) == KIND_USER:
                if not h.logins_from <= lst.refs[k] < h.logins_end:
                    return b"a user without login name"
            elif kind_of(e) != KIND_GROUP or h.logins_from <= lst.refs[k] < h.logins_end:
                return b"a list of no members"
            tlv = &(<const Node *>(c.base + e.dn)).tlv[0]
            need += tlv_header(tlv) + tlv_content(tlv)
        if need != lst.octets:
            return b"a list of another size"
        set_bit(c.links, at)
        return NULL
    for k in range(lst.count):
        if not is_node(c, lst.refs[k]):
            return b"a value lies outside"
        tlv = &(<const Node *>(c.base + lst.refs[k])).tlv[0]
        need += tlv_header(tlv) + tlv_content(tlv)
    if form == FORM_LIST:
        if need != lst.octets:
            return b"a list of another size"
        set_bit(c.lists, at)
    return NULL


cdef const char *check_shapes(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef const Shape *shapes = <const Shape *>(c.base + h.shapes)
    cdef const Item *items = <const Item *>(c.base + h.items)
    cdef const Item *item
    cdef uint32_t i, j
    cdef const char *wrong
    for i in range(h.shape_count):
        if shapes[i].items > h.item_count or shapes[i].count > h.item_count - shapes[i].items:
            return b"a shape lies outside"
        for j in range(shapes[i].count):
            item = items + shapes[i].items + j
            if item.attribute >= h.attribute_count or item.form > FORM_LOGINS or item.where > IS_DN:
                return b"an attribute of no type"
            if item.where == IN_RECORD:
                if item.ref >= shapes[i].columns:
                    return b"a value in no column"
            elif item.where == IS_DN:
                if item.form != FORM_NODE:
                    return b"a list in place of a name"
            else:
                wrong = check_ref(c, item.form, item.ref)
                if wrong != NULL:
                    return wrong
    return NULL


cdef const char *check_entries(Checked *c) noexcept nogil:
    """The tree and the names, without which nothing else can be told."""
    cdef const Header *h = c.h
    cdef const Entry *entries = <const Entry *>(c.base + h.entries)
    cdef const Entry *e
    cdef uint32_t i
    for i in range(h.entry_count):
        e = entries + i
        if (kind_of(e) == KIND_BASE) != (i == 0) or end_of(e, i) <= i or end_of(e, i) > h.entry_count:
            return b"an entry out of order"
        if parent_of(e) > i or (i and kind_of(entries + parent_of(e)) > KIND_CONTAINER):
            return b"an entry out of order"
        if not is_node(c, e.dn) or norm_at(c.base, e.dn) == 0:
            return b"an entry without name"
        if kind_of(e) > KIND_VIRTUAL_GROUP or e.form >> 8 >= h.shape_count:
            return b"an entry of no shape"
    return NULL


cdef const char *check_records(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef const Entry *entries = <const Entry *>(c.base + h.entries)
    cdef const Shape *shape
    cdef const Item *item
    cdef const Entry *e
    cdef const uint32_t *record
    cdef uint32_t i, j
    cdef const char *wrong
    for i in range(h.entry_count):
        e = entries + i
        shape = <const Shape *>(c.base + h.shapes) + (e.form >> 8)
        if e.record & 3 or e.record < h.records or e.record > h.records_end or shape.columns > (h.records_end - e.record) // 4:
            return b"a record lies outside"
        item = <const Item *>(c.base + h.items) + shape.items
        record = <const uint32_t *>(c.base + e.record)
        for j in range(shape.count):
            if item[j].where == IN_RECORD:
                wrong = check_ref(c, item[j].form, record[item[j].ref])
                if wrong != NULL:
                    return wrong
        if kind_of(e) == KIND_GROUP and e.key != NO_KEY:
            wrong = check_ref(c, FORM_DNS, e.key)
            if wrong != NULL:
                return wrong
    return NULL


cdef const char *check_users(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef const uint32_t *users = <const uint32_t *>(c.base + h.users)
    cdef const Entry *entries = <const Entry *>(c.base + h.entries)
    cdef const uint32_t *logins = <const uint32_t *>(c.base + h.logins)
    cdef const Entry *e
    cdef uint32_t i
    for i in range(h.user_count):
        if users[i] >= h.entry_count:
            return b"a user without entry"
        e = entries + users[i]
        if kind_of(e) != KIND_USER or e.key == NO_KEY or (i and e.key <= entries[users[i - 1]].key):
            return b"a user without entry"
    if h.twin > h.entry_count - h.logins_end and h.logins_end > h.logins_from:
        return b"a user without group"
    for i in range(h.logins_from, h.logins_end):
        if not is_node(c, logins[i - h.logins_from]):
            return b"a value lies outside"
        if kind_of(entries + i) != KIND_USER:
            return b"a login name of no user"
        if h.twin and (kind_of(entries + i + h.twin) != KIND_VIRTUAL_GROUP or entries[i + h.twin].key != entries[i].key):
            return b"a user without group"
    return NULL


cdef const char *check_attributes(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef const Attribute *attributes = <const Attribute *>(c.base + h.attributes)
    cdef const Name *names = <const Name *>(c.base + h.names)
    cdef const uint8_t *tlv
    cdef uint32_t i, j
    if h.custom_from > h.attribute_count:
        return b"more custom attributes than there are"
    for i in range(h.attribute_count):
        if not is_node(c, attributes[i].type):
            return b"a value lies outside"
        tlv = c.base + attributes[i].type + NODE_HEADER
        for j in range(tlv_content(tlv)):
            if tlv[tlv_header(tlv) + j] < 0x20 or tlv[tlv_header(tlv) + j] > 0x7E:
                return b"an attribute of no name"
        if attributes[i].kind > 8:
            return b"an attribute of no kind"
    for i in range(h.name_count):
        if not is_node(c, names[i].text):
            return b"a value lies outside"
        if names[i].attribute >= h.attribute_count:
            return b"a name of no attribute"
    return NULL


cdef const char *check_tables(Checked *c) noexcept nogil:
    cdef const Header *h = c.h
    cdef const uint32_t *table = <const uint32_t *>(c.base + h.values)
    cdef uint32_t i, at, used = 0
    for i in range(h.value_slots):
        if table[i]:
            used += 1
            at = table[i] << 2
            if not is_node(c, at) or not (<const Node *>(c.base + at)).kind & NORMAL:
                return b"a value that is not normal"
    if used >= h.value_slots:
        return b"a table without end"
    table = <const uint32_t *>(c.base + h.dns)
    used = 0
    for i in range(h.dn_slots):
        if table[i]:
            used += 1
            if table[i] > h.entry_count:
                return b"a name of no entry"
    if used >= h.dn_slots:
        return b"a table without end"
    return NULL


cdef const char *check_arena(Checked *c, uint64_t size) noexcept nogil:
    """NULL, or what is wrong; nothing of the arena is read before its place was looked at."""
    cdef const Header *h = c.h
    cdef const char *wrong
    if h.version != VERSION:
        return b"of another version"
    if h.size != size or h.entry_count == 0:
        return b"size does not match"
    if not (sizeof(Header) <= h.nodes <= h.nodes_end and h.lists <= h.lists_end and h.records <= h.records_end
            and h.postings <= h.postings_end):
        return b"sections out of order"
    if not (
        is_section(h, h.nodes, h.nodes_end - h.nodes) and is_section(h, h.lists, h.lists_end - h.lists)
        and is_section(h, h.records, h.records_end - h.records) and is_section(h, h.postings, h.postings_end - h.postings)
        and is_section(h, h.shapes, <uint64_t>h.shape_count * sizeof(Shape))
        and is_section(h, h.items, <uint64_t>h.item_count * sizeof(Item))
        and is_section(h, h.entries, <uint64_t>h.entry_count * sizeof(Entry))
        and is_section(h, h.attributes, <uint64_t>h.attribute_count * sizeof(Attribute))
        and is_section(h, h.names, <uint64_t>h.name_count * sizeof(Name))
        and is_section(h, h.users, <uint64_t>h.user_count * 4)
        and is_section(h, h.values, <uint64_t>h.value_slots * 4) and is_section(h, h.dns, <uint64_t>h.dn_slots * 4)
    ):
        return b"a section lies outside"
    if h.logins_from > h.logins_end or h.logins_end > h.entry_count:
        return b"login names of no entries"
    if not is_section(h, h.logins, <uint64_t>(h.logins_end - h.logins_from) * 4):
        return b"a section lies outside"
    wrong = check_nodes(c)
    if wrong == NULL and (not is_node(c, h.base_dn)):
        wrong = b"a value lies outside"
    if wrong == NULL:
        wrong = check_norms(c)
    if wrong == NULL:
        wrong = check_attributes(c)
    if wrong == NULL:
        wrong = check_entries(c)
    if wrong == NULL:
        wrong = check_shapes(c)
    if wrong == NULL:
        wrong = check_records(c)
    if wrong == NULL:
        wrong = check_users(c)
    if wrong == NULL:
        wrong = check_tables(c)
    return wrong


@cython.final
cdef class Snapshot:
    cdef object keep                # the arena's owner
    cdef const uint8_t *base
    cdef Header *header
    cdef uint32_t *names            # hash table: Name index + 1
    cdef uint32_t name_slots
    cdef dict dn_cache              # octets of a DN as asked -> entry index, or -1
    cdef int member_of, member_uid  # attributes, -1 where there are none

    def __cinit__(self):
        self.names = NULL
        self.header = NULL

    def __dealloc__(self):
        PyMem_Free(self.names)

    def __init__(self, arena):
        cdef _Buffer held = _Buffer(arena)
        if self.header != NULL:
            raise TypeError("a snapshot is loaded once")
        if held.view.len < <Py_ssize_t>sizeof(Header):
            raise DecodeError("arena: shorter than its header")
        self.keep = held
        self.base = <const uint8_t *>held.view.buf
        digest = hashlib.blake2b(memoryview(arena)[CHECKSUM_FROM:], digest_size=16).digest()
        if memcmp(self.base, b"outpost\0", 8) != 0:
            raise DecodeError("arena: not one of ours")
        if digest != PyBytes_FromStringAndSize(<const char *>self.base + 8, 16):
            raise DecodeError("arena: checksum does not match")
        self.header = <Header *>self.base
        self.dn_cache = {}
        try:
            self.check(held.view.len)
        except BaseException:
            self.header = NULL
            raise
        self.index_names()
        self.member_of = self.attribute_of(b"memberOf", 8)
        self.member_uid = self.attribute_of(b"memberUid", 9)

    # -- checking ---------------------------------------------------------------------------------

    cdef int check(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t octets = size // 32 + 1
        cdef Checked c
        cdef const char *wrong
        # A bit for each place where a node, and a list of nodes or of entries that was found good, may begin.
        memset(&c, 0, sizeof(c))
        c.base = self.base
        c.h = self.header
        c.nodes = <uint8_t *>calloc(octets, 1)
        c.lists = <uint8_t *>calloc(octets, 1)
        c.links = <uint8_t *>calloc(octets, 1)
        c.postings = <uint8_t *>calloc(octets, 1)
        try:
            if c.nodes == NULL or c.lists == NULL or c.links == NULL or c.postings == NULL:
                raise MemoryError()
            with nogil:
                wrong = check_arena(&c, size)
        finally:
            free(c.nodes)
            free(c.lists)
            free(c.links)
            free(c.postings)
        if wrong != NULL:
            raise DecodeError("arena: %s" % wrong.decode())
        return 0

    cdef int index_names(self) except -1:
        cdef Header *h = self.header
        cdef uint32_t slots = 64, i, slot
        cdef Py_ssize_t size
        cdef const uint8_t *text
        cdef Name *rows = <Name *>(self.base + h.names)
        while slots < 3 * h.name_count:
            slots *= 2
        self.names = <uint32_t *>PyMem_Malloc(slots * 4)
        if self.names == NULL:
            raise MemoryError()
        memset(self.names, 0, slots * 4)
        self.name_slots = slots
        for i in range(h.name_count):
            text = content(node_at(self.base, rows[i].text), &size)
            slot = hash_octets(99, text, size) & (slots - 1)
            while self.names[slot]:
                slot = (slot + 1) & (slots - 1)
            self.names[slot] = i + 1
        return 0

    # -- looking up -------------------------------------------------------------------------------

    cdef int attribute_of(self, const uint8_t *text, Py_ssize_t size) noexcept:
        """Index of an attribute by description in any case, or -1."""
        cdef uint8_t small[512]
        cdef uint32_t slot
        cdef Py_ssize_t i, other
        cdef const uint8_t *name
        cdef Name *row
        if size > 512 or size == 0:
            return -1
        for i in range(size):
            small[i] = lower(text[i])
        slot = hash_octets(99, small, size) & (self.name_slots - 1)
        while self.names[slot]:
            row = <Name *>(self.base + self.header.names) + (self.names[slot] - 1)
            name = content(node_at(self.base, row.text), &other)
            if other == size and memcmp(name, small, size) == 0:
                return <int>row.attribute
            slot = (slot + 1) & (self.name_slots - 1)
        return -1

    cdef uint32_t find_value(self, int kind, const uint8_t *data, Py_ssize_t size) noexcept:
        """The node that holds this normal form, or 0 if no entry has it."""
        cdef uint32_t *table = <uint32_t *>(self.base + self.header.values)
        cdef uint32_t slots = self.header.value_slots
        cdef uint32_t hash = hash_octets(kind, data, size)
        cdef uint32_t slot = slot_of(hash, slots), at
        cdef Py_ssize_t other
        cdef const uint8_t *text
        if kind == K_DN:
            other = self.find_normal_dn(data, size)
            if other >= 0:
                return norm_at(self.base, entry_at(self, <uint32_t>other).dn)
        while table[slot]:
            if (table[slot] ^ hash << 30) >> 30 == 0:
                at = table[slot] << 2
                if (node_at(self.base, at).kind & KIND_MASK) == kind:
                    text = content(node_at(self.base, at), &other)
                    if other == size and memcmp(text, data, size) == 0:
                        return at
            slot = slot + 1 if slot + 1 < slots else 0
        return 0

    cdef Py_ssize_t find_normal_dn(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef uint32_t *table = <uint32_t *>(self.base + self.header.dns)
        cdef uint32_t slots = self.header.dn_slots
        cdef uint32_t slot = slot_of(hash_octets(K_DN, data, size), slots)
        cdef Py_ssize_t other
        cdef const uint8_t *text
        while table[slot]:
            text = content(node_at(self.base, norm_at(self.base, entry_at(self, table[slot] - 1).dn)), &other)
            if other == size and memcmp(text, data, size) == 0:
                return table[slot] - 1
            slot = slot + 1 if slot + 1 < slots else 0
        return -1

    cdef Py_ssize_t find_dn_at(self, const uint8_t *dn, Py_ssize_t size) except -2:
        """The same of octets."""
        cdef uint8_t[LONGEST_SIMPLE] normal
        if size <= LONGEST_SIMPLE and put_simple_dn(dn, size, normal):
            return self.find_normal_dn(normal, size)
        return self.find_dn(dn[:size])

    cdef Py_ssize_t find_dn(self, bytes dn) except -2:
        """Index of the entry with this DN, or -1. Raises DecodeError if it is no DN."""
        cdef object found
        cdef bytes normal
        cdef Py_ssize_t index
        cdef uint8_t[LONGEST_SIMPLE] simple
        index = PyBytes_GET_SIZE(dn)
        if index <= LONGEST_SIMPLE and put_simple_dn(<const uint8_t *>PyBytes_AS_STRING(dn), index, simple):
            return self.find_normal_dn(simple, index)
        found = self.dn_cache.get(dn)
        if found is not None:
            return <Py_ssize_t>found
        normal = normalise(dn)
        index = self.find_normal_dn(<const uint8_t *>PyBytes_AS_STRING(normal), PyBytes_GET_SIZE(normal))
        if PyBytes_GET_SIZE(dn) <= 256:
            if len(self.dn_cache) >= DN_CACHE:
                self.dn_cache.clear()
            self.dn_cache[dn] = index
        return index

    cdef Py_ssize_t find_user(self, object user_pk) except -2:
        cdef const uint32_t *rows = <const uint32_t *>(self.base + self.header.users)
        cdef Py_ssize_t lo = 0, hi = self.header.user_count, mid
        cdef uint32_t pk
        if user_pk < 0 or user_pk > 0xFFFFFFFE:
            return -1
        pk = user_pk
        while lo < hi:
            mid = (lo + hi) // 2
            if entry_at(self, rows[mid]).key < pk:
                lo = mid + 1
            else:
                hi = mid
        if lo < self.header.user_count and entry_at(self, rows[lo]).key == pk:
            return rows[lo]
        return -1

    cdef const Item *item_of(self, const Entry *e, int attribute) noexcept:
        cdef int i, count
        cdef const Item *item = items_of(self, e, &count)
        for i in range(count):
            if item[i].attribute == attribute:
                return item + i
        return NULL

    cdef bytes dn_bytes(self, uint32_t entry):
        cdef Py_ssize_t size
        cdef const uint8_t *text = content(node_at(self.base, entry_at(self, entry).dn), &size)
        return PyBytes_FromStringAndSize(<const char *>text, size)

    # -- public -----------------------------------------------------------------------------------

    @property
    def arena(self):
        return memoryview(PyBytes_FromStringAndSize(<const char *>self.base, self.header.size))

    @property
    def generation(self):
        return self.header.generation

    @property
    def base_dn(self):
        return self.dn_bytes(0)

    @property
    def entry_count(self):
        return self.header.entry_count

    @property
    def custom_attributes(self):
        cdef Py_ssize_t size
        cdef const uint8_t *text
        names = set()
        for i in range(self.header.custom_from, self.header.attribute_count):
            text = content(node_at(self.base, attribute_at(self, i).type), &size)
            names.add(text[:size].decode())
        return frozenset(names)

    def full_view(self):
        cdef View view = View.__new__(View)
        view.snapshot = self
        view.entries = NULL
        return view

    def own_view(self, user_pk):
        cdef View view
        cdef Py_ssize_t me = self.find_user(user_pk)
        cdef Py_ssize_t i
        cdef Entry *e
        cdef const Item *item
        cdef Values values
        cdef set mine
        if me < 0:
            return None
        mine = {me}
        # The base and the containers below it say nothing about anybody.
        mine.add(0)
        i = 1
        while i < self.header.entry_count:
            e = entry_at(self, i)
            if kind_of(e) < KIND_USER:
                mine.add(i)
            i = end_of(e, i)
        view = View.__new__(View)
        view.snapshot = self
        view.own_entry = <uint32_t>me
        view.own_dn = norm_at(self.base, entry_at(self, me).dn)
        item = self.item_of(entry_at(self, me), self.member_of)
        if item != NULL:
            self.all_values(entry_at(self, me), item, &values)
            for i in range(values.count):
                if values.form == FORM_DNS and kind_of(entry_at(self, values.refs[i])) == KIND_GROUP:
                    mine.add(values.refs[i])
        if self.header.logins_from <= me < self.header.logins_end:
            # Nobody can set this one. memberUid compares exactly, so its node is another than that of cn.
            view.own_name = norm_at(self.base, login_of(self, <uint32_t>me))
            if self.header.twin:
                mine.add(me + self.header.twin)
        ordered = sorted(mine)
        view.entries = <uint32_t *>PyMem_Malloc(4 * len(ordered))
        if view.entries == NULL:
            raise MemoryError()
        for index in ordered:
            view.entries[view.count] = index
            view.count += 1
        return view

    cdef void postings(self, uint32_t norm, Candidates *out) noexcept:
        """Who holds a value of this normal form in any indexed attribute, but for membership."""
        cdef const Node *n = node_at(self.base, norm)
        cdef Posting *posting
        cdef uint32_t form = n.kind & POSTING_MASK
        out.more_count = 0
        out.more = NULL
        if form == POSTING_ONE:
            out.count = 1
            out.refs = &n.link
        elif form == POSTING_TWINS:
            out.count = 2
            out.refs = NULL
            out.first = n.link
        elif n.link == 0:
            out.count = 0
            out.refs = &n.link
        else:
            posting = <Posting *>(self.base + n.link)
            out.count = posting.count
            out.first = posting.refs[0]
            out.refs = &posting.refs[0]
            if form == POSTING_RANGE:
                out.refs = NULL

    cdef uint32_t fill(self, uint32_t norm, const Candidates *c, uint32_t *out) noexcept:
        """All of them, in order."""
        cdef uint32_t i, j = 0, n = 0, one
        for i in range(c.count):
            if c.refs != NULL:
                one = c.refs[i]
            elif node_at(self.base, norm).kind & POSTING_MASK == POSTING_TWINS:
                one = c.first + (self.header.twin if i else 0)
            else:
                one = c.first + i
            while j < c.more_count and c.more[j] < one:
                out[n] = c.more[j]
                n += 1
                j += 1
            if j < c.more_count and c.more[j] == one:
                j += 1
            out[n] = one
            n += 1
        while j < c.more_count:
            out[n] = c.more[j]
            n += 1
            j += 1
        return n

    cdef list postings_of(self, uint32_t norm):
        cdef Candidates c
        cdef uint32_t *all
        if norm == 0:
            return []
        self.postings(norm, &c)
        all = <uint32_t *>PyMem_Malloc(4 * (<Py_ssize_t>c.count + 1))
        if all == NULL:
            raise MemoryError()
        try:
            return [all[i] for i in range(self.fill(norm, &c, all))]
        finally:
            PyMem_Free(all)

    cdef void linked(self, const Entry *e, int attribute, Candidates *out) noexcept:
        """Add whoever holds this entry in an attribute of membership."""
        cdef const Item *item
        cdef const List *lst
        if attribute == self.member_of:
            if kind_of(e) != KIND_GROUP or e.key == NO_KEY:
                return
            lst = list_at(self, e.key)
        else:
            # Of the groups above a group, which may be further away than its parents, each is tested all the same.
            item = self.item_of(e, self.member_of)
            if item == NULL or item.form != FORM_DNS:
                return
            lst = list_at(self, ref_of(self, e, item))
        out.more_count = lst.count
        out.more = &lst.refs[0]

    cdef void holders_of(self, int attribute, uint32_t norm, uint32_t named, Candidates *out) noexcept:
        """Whoever may hold a value of this normal form in this attribute, which names that entry or NO_KEY."""
        self.postings(norm, out)
        if named != NO_KEY and (attribute == self.member_of or attribute_at(self, attribute).flags & FLAG_MEMBERSHIP):
            self.linked(entry_at(self, named), attribute, out)

    cdef uint32_t named_by(self, int attribute, uint32_t norm) noexcept:
        """The entry that a normal value of an attribute of membership names, or NO_KEY."""
        cdef Py_ssize_t size, found
        cdef const uint8_t *text
        cdef Candidates c
        cdef const Posting *posting
        cdef uint32_t i, one
        if norm == 0 or (attribute != self.member_of and not attribute_at(self, attribute).flags & FLAG_MEMBERSHIP):
            return NO_KEY
        if attribute != self.member_uid:
            text = content(node_at(self.base, norm), &size)
            found = self.find_normal_dn(text, size)
            return NO_KEY if found < 0 else <uint32_t>found
        # Virtual groups hold login names, each its own user's; what else compares exactly may be anybody's.
        self.postings(norm, &c)
        for i in range(c.count):
            one = c.refs[i] if c.refs != NULL else c.first + i
            if self.header.twin and kind_of(entry_at(self, one)) == KIND_VIRTUAL_GROUP and one >= self.header.twin:
                one -= self.header.twin
                if self.header.logins_from <= one < self.header.logins_end:
                    if norm_at(self.base, login_of(self, one)) == norm:
                        return one
        return NO_KEY

    cdef void all_values(self, const Entry *e, const Item *item, Values *out) noexcept:
        cdef List *lst
        cdef uint32_t ref = ref_of(self, e, item)
        out.form = FORM_NODE
        if item.form == FORM_NODE:
            out.one = ref
            out.refs = &out.one
            out.count = 1
            return
        lst = list_at(self, ref)
        out.refs = &lst.refs[0]
        out.count = lst.count
        if item.form >= FORM_DNS:
            out.form = item.form
            if item.form == FORM_LOGINS:
                # Users come before groups.
                out.count = <uint32_t>lower_bound(out.refs, out.count, self.header.logins_end)

    def search(self, SearchRequest request not None, View view not None, size_limit=0, tuple attributes=None, whole=False):
        cdef Search search
        if view.snapshot is not self:
            raise ValueError("a view of another snapshot")
        search = Search.__new__(Search)
        search.prepare(self, view, request, size_limit, request.attributes if attributes is None else attributes, whole)
        if attributes is not None:
            # The server itself wants these, and it wants the values.
            search.types_only = False
        return search

    def matches(self, View view not None, bytes dn not None, bytes filter not None):
        """Whether the entry exists in the view and the filter is TRUE for it; None if there is no such entry."""
        cdef Search search
        cdef Span octets
        cdef Py_ssize_t index = self.find_dn(dn)
        if view.snapshot is not self:
            raise ValueError("a view of another snapshot")
        if index < 0 or not view.holds(<uint32_t>index):
            return None
        search = Search.__new__(Search)
        search.snapshot = self
        search.view = view
        octets.pos = <const uint8_t *>PyBytes_AS_STRING(filter)
        octets.end = octets.pos + PyBytes_GET_SIZE(filter)
        search.compile(&octets)
        return search.test(entry_at(self, <uint32_t>index), search.root) == TRUE

    def matched_dn(self, View view not None, bytes dn not None):
        cdef Search search
        if view.snapshot is not self:
            raise ValueError("a view of another snapshot")
        search = Search.__new__(Search)
        search.snapshot = self
        search.view = view
        return search.match_dn(dn)

    def compare(self, View view not None, bytes dn not None, bytes attribute not None, bytes assertion_value not None):
        cdef Span type, value
        type.pos = <const uint8_t *>PyBytes_AS_STRING(attribute)
        type.end = type.pos + PyBytes_GET_SIZE(attribute)
        value.pos = <const uint8_t *>PyBytes_AS_STRING(assertion_value)
        value.end = value.pos + PyBytes_GET_SIZE(assertion_value)
        return self.compare_entry(view, self.find_dn(dn), &type, &value)

    cdef int compare_entry(self, View view, Py_ssize_t index, const Span *attribute, const Span *value) except -1:
        cdef int a, kind
        cdef Entry *e
        cdef const Item *item
        cdef Values values
        cdef uint32_t norm = 0
        cdef uint8_t[LONGEST_SIMPLE] folded
        cdef Py_ssize_t size = value.end - value.pos
        cdef bytes normal
        if view.snapshot is not self:
            raise ValueError("a view of another snapshot")
        if index < 0 or not view.holds(<uint32_t>index):
            return 32
        a = self.attribute_of(attribute.pos, attribute.end - attribute.pos)
        if a < 0:
            return 17
        e = entry_at(self, <uint32_t>index)
        item = self.item_of(e, a)
        if item == NULL:
            return 16
        view.values_of(e, item, &values)
        if values.count == 0:
            return 16
        kind = attribute_at(self, a).kind
        if kind == K_CASE_IGNORE and size <= LONGEST_SIMPLE and put_folded(value.pos, size, folded) >= 0:
            norm = self.find_value(kind, folded, size)
        else:
            normal = normal_form(kind, value.pos[:size])
            if normal is None:
                return 21
            norm = self.find_value(kind, <const uint8_t *>PyBytes_AS_STRING(normal), PyBytes_GET_SIZE(normal))
        if norm and self.holds_norm(&values, norm, self.named_by(a, norm)):
            return 6
        return 5

    cdef bint holds_norm(self, const Values *values, uint32_t norm, uint32_t named) noexcept:
        """Whether a value of this normal form, which names that entry or NO_KEY, is among them."""
        cdef uint32_t i
        cdef Py_ssize_t at
        if values.form == FORM_NODE:
            for i in range(values.count):
                if norm_at(self.base, values.refs[i]) == norm:
                    return True
            return False
        if named == NO_KEY:
            return False
        at = lower_bound(values.refs, values.count, named)
        return at < values.count and values.refs[at] == named

    def user_pk(self, bytes dn not None):
        cdef Py_ssize_t index = self.find_dn(dn)
        if index < 0 or kind_of(entry_at(self, <uint32_t>index)) != KIND_USER:
            return -1
        return entry_at(self, <uint32_t>index).key

    def dn_of_user(self, user_pk):
        cdef Py_ssize_t index = self.find_user(user_pk)
        return None if index < 0 else self.dn_bytes(<uint32_t>index)


@cython.final
cdef class View:
    cdef Snapshot snapshot
    cdef uint32_t *entries          # NULL: everything
    cdef uint32_t count
    cdef uint32_t own_entry         # what may be seen in member lists, and its normal nodes
    cdef uint32_t own_dn
    cdef uint32_t own_name

    def __cinit__(self):
        self.entries = NULL
        self.count = 0
        self.own_entry = NO_KEY
        self.own_dn = 0
        self.own_name = 0

    def __dealloc__(self):
        PyMem_Free(self.entries)

    cdef bint holds(self, uint32_t index) noexcept:
        cdef uint32_t i
        if self.entries == NULL:
            return True
        for i in range(self.count):
            if self.entries[i] == index:
                return True
        return False

    cdef void values_of(self, const Entry *e, const Item *item, Values *out) noexcept:
        """What of an attribute may be seen; count 0 means that the attribute is not there."""
        cdef uint32_t i, norm
        cdef Py_ssize_t at
        cdef int flags
        self.snapshot.all_values(e, item, out)
        if self.entries == NULL or kind_of(e) == KIND_USER:
            return
        flags = attribute_at(self.snapshot, item.attribute).flags
        if flags & FLAG_PRIVATE:
            out.count = 0
        elif flags & FLAG_MEMBERSHIP:
            if out.form != FORM_NODE:
                at = lower_bound(out.refs, out.count, self.own_entry)
                out.refs += at
                out.count = 1 if at < out.count and out.refs[0] == self.own_entry else 0
                return
            for i in range(out.count):
                norm = norm_at(self.snapshot.base, out.refs[i])
                if norm and (norm == self.own_dn or norm == self.own_name):
                    out.one = out.refs[i]
                    out.refs = &out.one
                    out.count = 1
                    return
            out.count = 0


@cython.final
cdef class Search:
    cdef Snapshot snapshot
    cdef View view
    cdef Filter *filters
    cdef int filter_count, filter_room
    cdef Piece *pieces
    cdef Py_ssize_t piece_count, piece_room
    cdef uint8_t *scratch               # normal forms made here
    cdef Py_ssize_t scratch_used, scratch_room
    cdef list kept                      # normal forms made elsewhere, and sets
    cdef int root
    cdef uint32_t *owned                # candidates that this search made
    cdef const uint32_t *candidates     # NULL: every entry from `at` to `stop`
    cdef uint32_t at, stop              # index into candidates, or entries
    cdef uint32_t lo, hi, parent
    cdef bint one_level
    cdef uint8_t *selected              # per attribute
    cdef Py_ssize_t selected_room
    cdef bint types_only
    cdef uint32_t message_id
    cdef uint32_t limit
    cdef readonly uint32_t sent
    cdef readonly int result_code
    cdef readonly bytes matched_dn
    cdef readonly bint finished

    def __cinit__(self):
        self.root = -1
        self.matched_dn = b""

    def __dealloc__(self):
        PyMem_Free(self.filters)
        PyMem_Free(self.pieces)
        PyMem_Free(self.scratch)
        PyMem_Free(self.owned)
        PyMem_Free(self.selected)

    def continue_as(self, uint32_t message_id):
        self.message_id = message_id

    # -- preparing --------------------------------------------------------------------------------

    cdef int prepare(
        self, Snapshot snapshot, View view, SearchRequest request, object size_limit, tuple attributes, bint whole
    ) except -1:
        cdef Py_ssize_t base
        cdef uint32_t server = size_limit
        cdef Span filter
        self.snapshot = snapshot
        self.view = view
        self.message_id = request.message_id
        self.types_only = request.types_only
        self.limit = 0 if whole else request.size_limit
        if server and (self.limit == 0 or server < self.limit):
            self.limit = server
        base = snapshot.find_dn(request.base_object)
        if base < 0 or not view.holds(<uint32_t>base):
            self.finished = True
            self.result_code = 32
            self.matched_dn = self.match_dn(request.base_object)
            return 0
        self.select(attributes)
        filter.pos = <const uint8_t *>PyBytes_AS_STRING(request.filter)
        filter.end = filter.pos + PyBytes_GET_SIZE(request.filter)
        self.compile(&filter)
        self.enter(<uint32_t>base, request.scope)
        return 0

    cdef int enter(self, uint32_t base, int scope) except -1:
        """The candidates from `base` on."""
        self.lo = base
        self.hi = end_of(entry_at(self.snapshot, base), base)
        self.parent = base
        self.one_level = scope == 1
        if scope == 0:
            self.hi = self.lo + 1
        elif self.one_level:
            # RFC 4511 4.5.1.2: the base itself is not part of singleLevel.
            self.lo += 1
        return self.choose()

    cdef bint plan_again(
        self, Snapshot snapshot, View view, uint32_t message_id, const Span *base, int scope, bint types_only, uint32_t limit,
        const Span *filter, const Span *attributes
    ) except -1:
        cdef Py_ssize_t index = snapshot.find_dn_at(base.pos, base.end - base.pos)
        if view.snapshot is not snapshot:
            raise ValueError("a view of another snapshot")
        if index < 0 or not view.holds(<uint32_t>index):
            return False
        self.filter_count = 0
        self.piece_count = self.scratch_used = 0
        self.kept = None
        self.result_code = 0
        self.sent = 0
        self.finished = False
        PyMem_Free(self.owned)
        self.owned = NULL
        self.snapshot = snapshot
        self.view = view
        self.message_id = message_id
        self.types_only = types_only
        self.limit = limit
        self.select_at(attributes)
        self.compile(filter)
        self.enter(<uint32_t>index, scope)
        return True

    cdef void rest(self) noexcept:
        """Hold nothing of a search that is over; it may be used again."""
        self.snapshot = None
        self.view = None
        self.kept = None

    cdef bytes match_dn(self, bytes dn):
        """The nearest existing ancestor (RFC 4511 4.1.9), as far as the view shows it."""
        cdef bytes normal = normalise(dn)
        cdef Py_ssize_t i = 0, index, n = PyBytes_GET_SIZE(normal)
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(normal)
        while i < n:
            if p[i] == 0x5C:
                i += 2
                continue
            if p[i] == 0x2C:
                index = self.snapshot.find_normal_dn(p + i + 1, n - i - 1)
                if index >= 0 and self.view.holds(<uint32_t>index):
                    return self.snapshot.dn_bytes(<uint32_t>index)
            i += 1
        return b""

    cdef int nothing_selected(self) except -1:
        cdef Py_ssize_t n = self.snapshot.header.attribute_count
        cdef void *p
        if n > self.selected_room:
            p = PyMem_Realloc(self.selected, n)
            if p == NULL:
                raise MemoryError()
            self.selected = <uint8_t *>p
            self.selected_room = n
        memset(self.selected, 0, n)
        return 0

    cdef int select(self, tuple attributes) except -1:
        """RFC 4511 4.5.1.8 and RFC 3673: names, `*`, `+`, `1.1`."""
        cdef int all = 0 if attributes else ALL_USER
        self.nothing_selected()
        for wanted in attributes:
            if not <bytes>wanted and len(attributes) == 1:
                all |= ALL_USER
            all |= self.select_name(<const uint8_t *>PyBytes_AS_STRING(<bytes>wanted), PyBytes_GET_SIZE(<bytes>wanted))
        return self.select_all(all)

    cdef int select_at(self, const Span *attributes) except -1:
        """The same of encoded names."""
        cdef Span s = attributes[0], name
        cdef int all = ALL_USER if s.pos == s.end else 0
        cdef bint is_first = True
        self.nothing_selected()
        while s.pos < s.end:
            span_enter(&s, 0x04, &name)
            if is_first and s.pos == s.end and name.pos == name.end:
                all |= ALL_USER
            is_first = False
            all |= self.select_name(name.pos, name.end - name.pos)
        return self.select_all(all)

    cdef int select_name(self, const uint8_t *p, Py_ssize_t octets) noexcept:
        """One attribute description; which of the wholes it means."""
        cdef const uint8_t *end = p + octets
        cdef const uint8_t *comma
        cdef Py_ssize_t size
        cdef int a, all = 0
        # Some clients put a whole list into one name.
        while p < end:
            comma = p
            while comma < end and comma[0] != 0x2C:
                comma += 1
            while p < comma and p[0] == 0x20:
                p += 1
            size = comma - p
            while size and p[size - 1] == 0x20:
                size -= 1
            if size == 1 and p[0] == 0x2A:
                all |= ALL_USER
            elif size == 1 and p[0] == 0x2B:
                all |= ALL_OPERATIONAL
            else:
                a = self.snapshot.attribute_of(p, size)
                if a >= 0:
                    self.selected[a] = 1
            p = comma + 1
        return all

    cdef int select_all(self, int all) noexcept:
        cdef uint32_t i
        if all:
            for i in range(self.snapshot.header.attribute_count):
                if attribute_at(self.snapshot, i).flags & FLAG_OPERATIONAL:
                    self.selected[i] |= (all & ALL_OPERATIONAL) != 0
                else:
                    self.selected[i] |= (all & ALL_USER) != 0
        return 0

    # -- compiling the filter ---------------------------------------------------------------------

    cdef int compile(self, const Span *filter) except -1:
        """Nothing of the filter's octets is needed behind this."""
        cdef Span s = filter[0]
        cdef Py_ssize_t room = filter.end - filter.pos
        cdef void *p
        self.kept = []
        if room > self.scratch_room:
            p = PyMem_Realloc(self.scratch, room + 64)
            if p == NULL:
                raise MemoryError()
            self.scratch = <uint8_t *>p
            self.scratch_room = room + 64
        self.root = self.compile_one(&s)
        return 0

    cdef int new_filter(self, int op) except -1:
        cdef void *p
        cdef Filter *f
        if self.filter_count == self.filter_room:
            self.filter_room = self.filter_room * 2 if self.filter_room else 4
            p = PyMem_Realloc(self.filters, self.filter_room * sizeof(Filter))
            if p == NULL:
                raise MemoryError()
            self.filters = <Filter *>p
        f = self.filters + self.filter_count
        memset(f, 0, sizeof(Filter))
        f.op = op
        f.attribute = -1
        f.entry = NO_KEY
        f.first = -1
        f.next = -1
        self.filter_count += 1
        return self.filter_count - 1

    cdef int constant(self, int value) except -1:
        cdef int index = self.new_filter(OP_CONSTANT)
        self.filters[index].constant = value
        return index

    cdef int new_piece(self, const uint8_t *data, Py_ssize_t size, int tag) except -1:
        cdef void *p
        if self.piece_count == self.piece_room:
            self.piece_room = self.piece_room * 2 if self.piece_room else 4
            p = PyMem_Realloc(self.pieces, self.piece_room * sizeof(Piece))
            if p == NULL:
                raise MemoryError()
            self.pieces = <Piece *>p
        self.pieces[self.piece_count].data = data
        self.pieces[self.piece_count].size = size
        self.pieces[self.piece_count].tag = tag
        self.piece_count += 1
        return 0

    cdef int compile_one(self, Span *s) except -1:
        cdef Span inner
        cdef int tag = span_any(s, &inner)
        cdef int index, child, last = -1
        if tag == FILTER_AND or tag == FILTER_OR or tag == FILTER_NOT:
            index = self.new_filter(tag)
            while span_left(&inner):
                child = self.compile_one(&inner)
                if last < 0:
                    self.filters[index].first = child
                else:
                    self.filters[last].next = child
                last = child
            return index
        if tag == FILTER_PRESENT:
            child = self.snapshot.attribute_of(inner.pos, span_left(&inner))
            if child < 0:
                return self.constant(UNDEFINED)
            index = self.new_filter(tag)
            self.filters[index].attribute = child
            return index
        if tag == FILTER_SUBSTRINGS:
            return self.compile_substrings(&inner)
        if tag == FILTER_EXTENSIBLE:
            return self.compile_extensible(&inner)
        return self.compile_assertion(&inner, FILTER_EQUALITY if tag == FILTER_APPROX else tag)

    cdef int compile_assertion(self, Span *s, int tag) except -1:
        cdef Span name, value
        cdef int a, kind
        span_enter(s, 0x04, &name)
        span_enter(s, 0x04, &value)
        a = self.snapshot.attribute_of(name.pos, span_left(&name))
        if a < 0:
            return self.constant(UNDEFINED)
        kind = attribute_at(self.snapshot, a).kind
        if tag != FILTER_EQUALITY and kind > K_TIME:
            return self.constant(UNDEFINED)
        return self.assertion(tag, a, kind, &value)

    cdef int assertion(self, int op, int attribute, int kind, const Span *value) except -1:
        """A node for one attribute value assertion; its normal form becomes the node's only piece."""
        cdef int index
        cdef const uint8_t *p = value.pos
        cdef Py_ssize_t size = value.end - value.pos
        cdef uint8_t *out = self.scratch + self.scratch_used
        if kind == K_CASE_IGNORE and put_folded(p, size, out) >= 0:
            self.scratch_used += size
            p = out
        else:
            normal = normal_form(kind, p[:size])
            if normal is None:
                return self.constant(UNDEFINED)
            self.kept.append(normal)
            p = <const uint8_t *>PyBytes_AS_STRING(<bytes>normal)
            size = PyBytes_GET_SIZE(<bytes>normal)
        index = self.new_filter(op)
        self.filters[index].attribute = attribute
        self.filters[index].kind = kind
        self.filters[index].piece = self.piece_count
        self.filters[index].pieces = 1
        self.filters[index].norm = self.snapshot.find_value(kind, p, size)
        if op == FILTER_EQUALITY:
            self.filters[index].entry = self.snapshot.named_by(attribute, self.filters[index].norm)
        self.new_piece(p, size, 0)
        return index

    cdef int compile_substrings(self, Span *s) except -1:
        cdef Span name, sequence, value
        cdef int a, kind, tag, index
        cdef Py_ssize_t first = self.piece_count
        span_enter(s, 0x04, &name)
        span_enter(s, 0x30, &sequence)
        a = self.snapshot.attribute_of(name.pos, span_left(&name))
        if a < 0:
            return self.constant(UNDEFINED)
        kind = attribute_at(self.snapshot, a).kind
        while span_left(&sequence):
            tag = span_any(&sequence, &value)
            normal = normalise_substring(
                kind, value.pos[:value.end - value.pos], initial=tag == SUBSTRING_INITIAL, final=tag == SUBSTRING_FINAL
            )
            if normal is None:
                self.piece_count = first
                return self.constant(UNDEFINED)
            self.kept.append(normal)
            self.new_piece(<const uint8_t *>PyBytes_AS_STRING(<bytes>normal), PyBytes_GET_SIZE(<bytes>normal), tag)
        index = self.new_filter(FILTER_SUBSTRINGS)
        self.filters[index].attribute = a
        self.filters[index].kind = kind
        self.filters[index].piece = first
        self.filters[index].pieces = self.piece_count - first
        return index

    cdef int compile_extensible(self, Span *s) except -1:
        """RFC 4511 4.5.1.7.7."""
        cdef Span part, value
        cdef int tag, a = -1, kind, index, child, rule_kind = -1
        cdef bint dn_attributes = False, has_value = False
        cdef bytes rule = None, wanted = None
        cdef object name = None, found
        while span_left(s):
            tag = span_any(s, &part)
            if tag == MATCHING_RULE:
                rule = span_bytes(&part).lower()
            elif tag == MATCHING_TYPE:
                wanted = span_bytes(&part)
            elif tag == MATCHING_VALUE:
                value = part
                has_value = True
            elif tag == MATCHING_DN_ATTRIBUTES:
                dn_attributes = span_left(&part) == 1 and part.pos[0] != 0
        if not has_value:
            return self.constant(UNDEFINED)
        if rule is not None:
            found = _RULES.get(rule)
            if found is None:
                return self.constant(UNDEFINED)
            name = (<tuple>found)[0]
            rule_kind = (<tuple>found)[1]
        if wanted is not None:
            a = self.snapshot.attribute_of(<const uint8_t *>PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted))
            if a < 0:
                return self.constant(UNDEFINED)
            kind = attribute_at(self.snapshot, a).kind
            if rule_kind < 0 or rule_kind == kind:
                if name == "integerBitAndMatch" or name == "integerBitOrMatch":
                    return self.bits(a, OP_BIT_AND if name == "integerBitAndMatch" else OP_BIT_OR, &value)
                if name == "dnInChainMatch":
                    return self.in_chain(a, &value)
                index = self.assertion(FILTER_EQUALITY, a, kind, &value)
            elif rule_kind == K_CASE_EXACT and kind == K_CASE_IGNORE:
                index = self.assertion(OP_EXACT, a, K_CASE_EXACT, &value)
                kind = K_CASE_EXACT
                self.filters[index].norm = self.folded_norm(&value)
            elif rule_kind == K_CASE_IGNORE and kind == K_CASE_EXACT:
                index = self.assertion(OP_FOLDED, a, K_CASE_IGNORE, &value)
                kind = K_CASE_IGNORE
            elif kind == K_TELEPHONE and (rule_kind == K_CASE_IGNORE or rule_kind == K_CASE_EXACT):
                index = self.assertion(OP_TEXT, a, rule_kind, &value)
                kind = rule_kind
            else:
                return self.constant(UNDEFINED)
        else:
            if rule_kind < 0 or name in ("integerBitAndMatch", "integerBitOrMatch", "dnInChainMatch"):
                return self.constant(UNDEFINED)
            index = self.any_attribute(rule_kind, &value)
            kind = rule_kind
        # What names entries are strings.
        if not dn_attributes or not (kind == K_CASE_IGNORE or kind == K_CASE_EXACT):
            return index
        child = self.dn_attribute(wanted, kind, &value)
        if child < 0:
            return index
        tag = self.new_filter(FILTER_OR)
        self.filters[tag].first = index
        self.filters[index].next = child
        return tag

    cdef uint32_t folded_norm(self, const Span *value) except? 0:
        """What is equal when case counts is equal when it does not: the node of that, so that few values are looked at
        twice; 0 if no entry has it."""
        cdef object found = normalise_value(K_CASE_IGNORE, value.pos[:value.end - value.pos])
        if found is None:
            return 0
        return self.snapshot.find_value(
            K_CASE_IGNORE, <const uint8_t *>PyBytes_AS_STRING(<bytes>found), PyBytes_GET_SIZE(<bytes>found)
        )

    cdef int any_attribute(self, int rule_kind, const Span *value) except -1:
        """Every attribute that supports the rule: those of its kind, and for strings (RFC 4517 4.2.4, 4.2.11) every
        string.  `constant` of each node is the kind of the attributes that it looks at."""
        cdef int index = self.assertion(OP_ANY_ATTRIBUTE, -1, rule_kind, value), other, last, either, kind
        if self.filters[index].op == OP_CONSTANT:
            return index
        self.filters[index].constant = rule_kind
        if rule_kind != K_CASE_IGNORE and rule_kind != K_CASE_EXACT:
            return index
        last = index
        for kind in (K_CASE_EXACT if rule_kind == K_CASE_IGNORE else K_CASE_IGNORE, K_TELEPHONE):
            other = self.new_filter(OP_ANY_ATTRIBUTE)
            self.filters[other].attribute = -1
            self.filters[other].kind = rule_kind
            self.filters[other].constant = kind
            self.filters[other].piece = self.filters[index].piece
            self.filters[other].pieces = 1
            self.filters[other].norm = self.folded_norm(value) if kind == K_CASE_IGNORE else 0
            self.filters[last].next = other
            last = other
        either = self.new_filter(FILTER_OR)
        self.filters[either].first = index
        return either

    cdef int dn_attribute(self, bytes wanted, int kind, const Span *value) except -2:
        """A node that compares the RDNs of the entry's DN, or -1 if the value cannot be part of a DN."""
        cdef int index
        cdef object exact
        cdef bytes normal, text = value.pos[:value.end - value.pos]
        try:
            normal = normalise(b"%s=%s" % (wanted or b"cn", escape(text.decode()).encode()))
        except (DecodeError, UnicodeDecodeError):
            return -1
        if wanted is None:
            normal = normal[normal.index(b"=") + 1:]
        self.kept.append(normal)
        index = self.new_filter(OP_DN_ATTRIBUTE)
        self.filters[index].constant = wanted is None
        self.filters[index].piece = self.piece_count
        self.filters[index].pieces = 1
        self.new_piece(<const uint8_t *>PyBytes_AS_STRING(normal), PyBytes_GET_SIZE(normal), 0)
        if kind == K_CASE_EXACT:
            exact = normalise_value(K_CASE_EXACT, text)
            self.kept.append(exact)
            self.filters[index].kind = kind
            self.filters[index].pieces = 2
            self.new_piece(<const uint8_t *>PyBytes_AS_STRING(<bytes>exact), PyBytes_GET_SIZE(<bytes>exact), 0)
        return index

    cdef int bits(self, int attribute, int op, const Span *value) except -1:
        cdef int index
        normal = normalise_value(K_INTEGER, value.pos[:value.end - value.pos])
        if normal is None or len(<bytes>normal) > 18:
            return self.constant(UNDEFINED)
        index = self.new_filter(op)
        self.filters[index].attribute = attribute
        self.filters[index].bits = int(normal)
        return index

    cdef int in_chain(self, int attribute, const Span *value) except -1:
        """1.2.840.113556.1.4.1941: the DN is among the values of the attribute, or of the entries these name, and so on.

        So those match that hold one of a set of DNs: the asserted one, and those of all entries that reach it.
        """
        cdef Snapshot s = self.snapshot
        cdef uint32_t norm
        cdef int index
        cdef bint full = self.view.entries == NULL, upwards
        cdef set found
        cdef list todo
        normal = normalise_value(K_DN, value.pos[:value.end - value.pos])
        if normal is None:
            return self.constant(UNDEFINED)
        norm = s.find_value(K_DN, <const uint8_t *>PyBytes_AS_STRING(<bytes>normal), PyBytes_GET_SIZE(<bytes>normal))
        if norm == 0:
            return self.constant(FALSE)
        # Membership is told from both sides: a group's memberOf is shorter than the member lists that it is in.
        upwards = full and attribute_at(s, attribute).flags & FLAG_MEMBERSHIP
        found = set() if upwards else {norm}
        todo = [norm]
        while todo:
            for other in self.holders(todo.pop(), attribute):
                if other not in found:
                    found.add(other)
                    todo.append(other)
        if not upwards:
            return self.set_filter(OP_IN_SET, attribute, found)
        # In a damaged arena an entry's name may lead nowhere.
        found = {index for index in [self.entry_named(other) for other in found] if index >= 0}
        for posting in self.candidates_of(attribute, norm):
            if kind_of(entry_at(s, posting)) != KIND_GROUP and self.holds(posting, attribute, norm):
                found.add(posting)
        return self.set_filter(OP_ENTRIES, attribute, found)

    cdef int set_filter(self, int op, int attribute, set found) except -1:
        cdef int index = self.new_filter(op)
        cdef bytes packed = b"".join([(<object>n).to_bytes(4, "little") for n in sorted(found)])
        self.kept.append(packed)
        self.filters[index].attribute = attribute
        self.filters[index].piece = self.piece_count
        self.filters[index].pieces = 1
        self.new_piece(<const uint8_t *>PyBytes_AS_STRING(packed), len(found), 0)
        return index

    cdef list candidates_of(self, int attribute, uint32_t norm):
        """Whoever may hold a value of this normal form in this attribute."""
        cdef Snapshot s = self.snapshot
        cdef Candidates c
        cdef uint32_t *all
        s.holders_of(attribute, norm, s.named_by(attribute, norm), &c)
        all = <uint32_t *>PyMem_Malloc(4 * (<Py_ssize_t>c.count + c.more_count + 1))
        if all == NULL:
            raise MemoryError()
        try:
            return [all[i] for i in range(s.fill(norm, &c, all))]
        finally:
            PyMem_Free(all)

    cdef Py_ssize_t entry_named(self, uint32_t norm) except -2:
        """Index of the entry with this normal DN, or -1."""
        cdef Py_ssize_t size
        cdef const uint8_t *text = content(node_at(self.snapshot.base, norm), &size)
        return self.snapshot.find_normal_dn(text, size)

    cdef list holders(self, uint32_t norm, int attribute):
        """Normal DNs of the visible entries that hold this one in the attribute; of members: of the groups."""
        cdef Snapshot s = self.snapshot
        cdef Py_ssize_t index
        cdef uint32_t i
        cdef int member_of
        cdef const Item *item
        cdef Values values
        cdef list out = []
        if self.view.entries != NULL:
            for i in range(self.view.count):
                if self.holds(self.view.entries[i], attribute, norm):
                    out.append(norm_at(s.base, entry_at(s, self.view.entries[i]).dn))
            return out
        member_of = s.attribute_of(b"memberOf", 8)
        if not attribute_at(s, attribute).flags & FLAG_MEMBERSHIP and attribute != member_of:
            for posting in s.postings_of(norm):
                if self.holds(posting, attribute, norm):
                    out.append(norm_at(s.base, entry_at(s, posting).dn))
            return out
        attribute = member_of if attribute != member_of else s.attribute_of(b"member", 6)
        index = self.entry_named(norm)
        item = s.item_of(entry_at(s, <uint32_t>index), attribute) if index >= 0 and attribute >= 0 else NULL
        if item == NULL:
            return out
        s.all_values(entry_at(s, <uint32_t>index), item, &values)
        for i in range(values.count):
            norm = norm_at(s.base, value_at(s, &values, i))
            index = values.refs[i] if values.form == FORM_DNS else self.entry_named(norm) if norm else -1
            if index >= 0 and kind_of(entry_at(s, <uint32_t>index)) == KIND_GROUP:
                out.append(norm)
        return out

    cdef bint holds(self, uint32_t index, int attribute, uint32_t norm) noexcept:
        """Whether the entry visibly holds a value of this normal form."""
        cdef Entry *e = entry_at(self.snapshot, index)
        cdef const Item *item = self.snapshot.item_of(e, attribute)
        cdef Values values
        if item == NULL:
            return False
        self.view.values_of(e, item, &values)
        return self.snapshot.holds_norm(&values, norm, self.snapshot.named_by(attribute, norm))

    # -- testing one entry ------------------------------------------------------------------------

    cdef int test(self, const Entry *e, int index) noexcept:
        cdef Filter *f = self.filters + index
        cdef const Item *item
        cdef Values values
        cdef int child, result, one
        cdef uint32_t i, norm, raw, ref
        cdef Snapshot s = self.snapshot
        if f.op == FILTER_AND or f.op == FILTER_OR:
            # RFC 4511 4.5.1.7: And is FALSE if any is FALSE; Or is TRUE if any is TRUE; else Undefined if any is.
            result = TRUE if f.op == FILTER_AND else FALSE
            child = f.first
            while child >= 0:
                one = self.test(e, child)
                if f.op == FILTER_AND:
                    if one == FALSE:
                        return FALSE
                    if one == UNDEFINED:
                        result = UNDEFINED
                else:
                    if one == TRUE:
                        return TRUE
                    if one == UNDEFINED:
                        result = UNDEFINED
                child = self.filters[child].next
            return result
        if f.op == FILTER_NOT:
            one = self.test(e, f.first)
            return UNDEFINED if one == UNDEFINED else 1 - one
        if f.op == OP_CONSTANT:
            return f.constant
        if f.op == OP_ANY_ATTRIBUTE:
            return self.test_any(e, f)
        if f.op == OP_DN_ATTRIBUTE:
            return self.test_dn(e, f) == TRUE and (f.pieces == 1 or self.test_exact_dn(e, f))
        if f.op == OP_ENTRIES:
            return in_set(self.pieces + f.piece, <uint32_t>(e - entry_at(s, 0)))
        item = s.item_of(e, f.attribute)
        if item == NULL:
            return FALSE
        if f.op == FILTER_EQUALITY:
            if f.norm == 0:
                return FALSE
            if self.view.entries == NULL:
                ref = ref_of(s, e, item)
                if item.form == FORM_NODE:
                    return norm_at(s.base, ref) == f.norm
                # Many entries share their lists.
                if ref == f.memo_ref and item.form == f.memo_form:
                    return f.memo
        self.view.values_of(e, item, &values)
        if f.op == FILTER_PRESENT:
            return values.count > 0
        if f.op == FILTER_EQUALITY:
            result = s.holds_norm(&values, f.norm, f.entry)
            if self.view.entries == NULL:
                f.memo_ref = ref_of(s, e, item)
                f.memo_form = item.form
                f.memo = result
            return result
        for i in range(values.count):
            raw = value_at(s, &values, i)
            norm = norm_at(s.base, raw)
            if norm == 0 and f.op != OP_TEXT:
                continue
            if self.test_value(f, raw, norm):
                return TRUE
        return FALSE

    cdef bint test_value(self, const Filter *f, uint32_t raw, uint32_t norm) noexcept:
        cdef Snapshot s = self.snapshot
        cdef Py_ssize_t size, at, i
        cdef const uint8_t *text = content(node_at(s.base, norm), &size)
        cdef Piece *piece = self.pieces + f.piece
        cdef int order
        cdef int64_t number
        cdef const uint8_t *hit
        if f.op == FILTER_SUBSTRINGS:
            at = 0
            for i in range(f.pieces):
                piece = self.pieces + f.piece + i
                if size - at < piece.size:
                    return False
                if piece.tag == SUBSTRING_INITIAL:
                    if memcmp(text, piece.data, piece.size) != 0:
                        return False
                    at = piece.size
                elif piece.tag == SUBSTRING_FINAL:
                    return memcmp(text + size - piece.size, piece.data, piece.size) == 0
                elif piece.size:
                    hit = <const uint8_t *>memmem(text + at, size - at, piece.data, piece.size)
                    if hit == NULL:
                        return False
                    at = hit - text + piece.size
            return True
        if f.op == FILTER_GREATER_OR_EQUAL or f.op == FILTER_LESS_OR_EQUAL:
            if f.kind == K_INTEGER:
                order = compare_integers(text, size, piece.data, piece.size)
            elif f.kind == K_TIME:
                # Without the Z, which sorts behind the point of a fraction.
                order = compare_octets(text, max(size, 1) - 1, piece.data, piece.size - 1)
            else:
                order = compare_octets(text, size, piece.data, piece.size)
            return order >= 0 if f.op == FILTER_GREATER_OR_EQUAL else order <= 0
        if f.op == OP_BIT_AND or f.op == OP_BIT_OR:
            if size > 18:
                return False
            number = parse_integer(text, size)
            return (number & f.bits) == f.bits if f.op == OP_BIT_AND else (number & f.bits) != 0
        if f.op == OP_IN_SET:
            return in_set(piece, norm)
        if f.op == OP_EXACT:
            return self.is_exactly(f, raw, norm)
        if f.op == OP_FOLDED:
            return self.is_folded(f, norm)
        if f.op == OP_TEXT:
            return self.is_text(f, raw)
        return False

    cdef bint is_exactly(self, const Filter *f, uint32_t raw, uint32_t norm) noexcept:
        """caseExactMatch with a value of an attribute that ignores case."""
        cdef Py_ssize_t size
        cdef const uint8_t *text
        if norm == 0 or norm != f.norm:
            return False
        text = content(node_at(self.snapshot.base, raw), &size)
        return same_form(K_CASE_EXACT, text, size, self.pieces + f.piece)

    cdef bint is_folded(self, const Filter *f, uint32_t norm) noexcept:
        """caseIgnoreMatch with a value, in its normal form, of an attribute that does not ignore case."""
        cdef Py_ssize_t size, i
        cdef const uint8_t *text
        cdef Piece *piece = self.pieces + f.piece
        if norm == 0:
            return False
        text = content(node_at(self.snapshot.base, norm), &size)
        for i in range(size):
            if text[i] >= 0x80:
                return same_form(K_CASE_IGNORE, text, size, piece)
            if i >= piece.size or lower(text[i]) != piece.data[i]:
                return False
        return size == piece.size

    cdef bint is_text(self, const Filter *f, uint32_t raw) noexcept:
        """Either of them with a telephone number, whose own normal form lacks what counts here."""
        cdef Py_ssize_t size
        cdef const uint8_t *text = content(node_at(self.snapshot.base, raw), &size)
        cdef Piece *piece = self.pieces + f.piece
        if size and piece.size and 0x20 < text[0] < 0x80 and lower(text[0]) != lower(piece.data[0]):
            return False
        return same_form(f.kind, text, size, piece)

    cdef int test_any(self, const Entry *e, const Filter *f) noexcept:
        cdef Snapshot s = self.snapshot
        cdef int i, count
        cdef const Item *item = items_of(s, e, &count)
        cdef Values values
        cdef uint32_t j, norm, raw
        cdef bint found
        if f.norm == 0 and (f.constant == f.kind or f.constant == K_CASE_IGNORE):
            return FALSE
        for i in range(count):
            if attribute_at(s, item[i].attribute).kind != f.constant:
                continue
            self.view.values_of(e, item + i, &values)
            for j in range(values.count):
                raw = value_at(s, &values, j)
                norm = norm_at(s.base, raw)
                if f.constant == f.kind:
                    found = norm == f.norm
                elif f.constant == K_TELEPHONE:
                    found = self.is_text(f, raw)
                elif f.constant == K_CASE_IGNORE:
                    found = self.is_exactly(f, raw, norm)
                else:
                    found = self.is_folded(f, norm)
                if found:
                    return TRUE
        return FALSE

    cdef int test_dn(self, const Entry *e, const Filter *f) noexcept:
        """Walk `type=value` pieces of the normal DN; `,`, `+` and `\\` inside values are escaped."""
        cdef Py_ssize_t size, at = 0, end, start
        cdef const uint8_t *text = content(node_at(self.snapshot.base, norm_at(self.snapshot.base, e.dn)), &size)
        cdef Piece *piece = self.pieces + f.piece
        while at < size:
            end = at
            while end < size and text[end] != 0x2C and text[end] != 0x2B:
                end += 2 if text[end] == 0x5C else 1
            if end > size:
                end = size
            start = at
            if f.constant:
                while start < end and text[start] != 0x3D:
                    start += 1
                start += 1
            if end - start == piece.size and memcmp(text + start, piece.data, piece.size) == 0:
                return TRUE
            at = end + 1
        return FALSE

    cdef bint test_exact_dn(self, const Entry *e, const Filter *f) noexcept:
        """The same again for one of the few entries that `test_dn` holds for, by a rule that tells case apart."""
        cdef Py_ssize_t size
        cdef const uint8_t *text = content(node_at(self.snapshot.base, e.dn), &size)
        cdef bytes asserted = self.pieces[f.piece].data[:self.pieces[f.piece].size]
        cdef bytes exact = self.pieces[f.piece + 1].data[:self.pieces[f.piece + 1].size]
        try:
            for rdn in parse(text[:size].decode()):
                for pair in rdn:
                    normal = normalise_rdn((pair,))
                    if f.constant:
                        normal = normal.partition(b"=")[2]
                    if isinstance(pair[1], str) and normal == asserted:
                        if normalise_value(K_CASE_EXACT, pair[1].encode()) == exact:
                            return True
        except (DecodeError, UnicodeDecodeError):
            # Only in a damaged arena.
            pass
        return False

    # -- planning ---------------------------------------------------------------------------------

    cdef int choose(self) except -1:
        """Take the smallest set of candidates that surely holds every match; each is tested all the same."""
        cdef const uint32_t *found
        cdef Py_ssize_t count
        self.candidates = NULL
        self.at = self.lo
        self.stop = self.hi
        if self.view.entries != NULL:
            self.candidates = self.view.entries
            self.at = 0
            self.stop = self.view.count
            return 0
        if self.hi - self.lo <= 8:
            return 0
        count = self.count(self.root)
        if count < 0 or count >= self.hi - self.lo:
            return 0
        found = self.borrow(self.root)
        if found == NULL:
            self.owned = <uint32_t *>PyMem_Malloc(4 * (count + 1))
            if self.owned == NULL:
                raise MemoryError()
            count = self.take(self.root, self.owned)
            found = self.owned
        self.candidates = found
        self.at = lower_bound(found, count, self.lo)
        self.stop = lower_bound(found, count, self.hi)
        return 0

    cdef bint is_indexed(self, const Filter *f) noexcept:
        return attribute_at(self.snapshot, f.attribute).flags & FLAG_INDEXED

    cdef Py_ssize_t count(self, int index) noexcept:
        """Candidates at most; -1 where only a scan will do."""
        cdef Filter *f = self.filters + index
        if not f.is_counted:
            f.candidates = self.counted(f)
            f.is_counted = True
        return f.candidates

    cdef Py_ssize_t counted(self, Filter *f) noexcept:
        cdef Candidates c
        cdef Py_ssize_t n, total = 0, i
        cdef int child
        if f.op == OP_CONSTANT and f.constant != TRUE:
            return 0
        if f.op == FILTER_EQUALITY:
            if f.norm == 0:
                return 0
            if not self.is_indexed(f):
                return -1
            self.snapshot.holders_of(f.attribute, f.norm, f.entry, &c)
            return <Py_ssize_t>c.count + c.more_count
        if f.op == OP_ENTRIES:
            return self.pieces[f.piece].size
        if f.op == FILTER_AND:
            f.smallest = -1
            child = f.first
            while child >= 0:
                n = self.count(child)
                if n >= 0 and (f.smallest < 0 or n < total):
                    total = n
                    f.smallest = child
                    if n == 0:
                        break
                child = self.filters[child].next
            return -1 if f.smallest < 0 else total
        if f.op == OP_IN_SET:
            if not self.is_indexed(f):
                return -1
            for i in range(self.pieces[f.piece].size):
                self.set_candidates(f, i, &c)
                total += <Py_ssize_t>c.count + c.more_count
        elif f.op == FILTER_OR:
            child = f.first
            while child >= 0:
                n = self.count(child)
                if n < 0:
                    return -1
                total += n
                child = self.filters[child].next
        else:
            return -1
        return -1 if total > (self.hi - self.lo) // 4 else total

    cdef void set_candidates(self, const Filter *f, Py_ssize_t i, Candidates *out) noexcept:
        """Whoever holds the i-th of a set of values."""
        cdef uint32_t norm = (<const uint32_t *>self.pieces[f.piece].data)[i]
        self.snapshot.holders_of(f.attribute, norm, self.snapshot.named_by(f.attribute, norm), out)

    cdef const uint32_t *borrow(self, int index) noexcept:
        """The candidates where they lie, ascending, as many as `count` says; NULL if they have to be made."""
        cdef Filter *f = self.filters + index
        cdef Candidates c
        if f.op == FILTER_EQUALITY and f.norm:
            self.snapshot.holders_of(f.attribute, f.norm, f.entry, &c)
            if c.more_count == 0:
                return c.refs
            return c.more if c.count == 0 else NULL
        if f.op == OP_ENTRIES:
            return <const uint32_t *>self.pieces[f.piece].data
        return self.borrow(f.smallest) if f.op == FILTER_AND and f.smallest >= 0 else NULL

    cdef Py_ssize_t take(self, int index, uint32_t *out) noexcept:
        """Write the candidates, ascending and each once, `count` of them at most; how many there are."""
        cdef Filter *f = self.filters + index
        cdef Candidates c
        cdef Py_ssize_t n = 0, i
        cdef int child
        if f.op == FILTER_EQUALITY:
            if f.norm == 0:
                return 0
            self.snapshot.holders_of(f.attribute, f.norm, f.entry, &c)
            return self.snapshot.fill(f.norm, &c, out)
        if f.op == OP_ENTRIES:
            memcpy(out, self.pieces[f.piece].data, self.pieces[f.piece].size * 4)
            return self.pieces[f.piece].size
        if f.op == FILTER_AND:
            return 0 if f.smallest < 0 else self.take(f.smallest, out)
        if f.op == OP_IN_SET:
            for i in range(self.pieces[f.piece].size):
                self.set_candidates(f, i, &c)
                n += self.snapshot.fill((<const uint32_t *>self.pieces[f.piece].data)[i], &c, out + n)
        elif f.op == FILTER_OR:
            child = f.first
            while child >= 0:
                n += self.take(child, out + n)
                child = self.filters[child].next
        return sort_distinct(out, n)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, Py_ssize_t size, Py_ssize_t examined=0, Py_ssize_t entries=0):
        cdef uint8_t[4096] room
        cdef Output out
        cdef PyObject *octets
        if self.finished:
            return b""
        out.data = out.fixed = room
        out.size = 0
        out.room = sizeof(room)
        octets = NULL
        try:
            if self.sent and 0 < size <= LONGEST_SLICE:
                # A listing goes on: most likely as much as is wanted, so it is written where it is to lie.
                octets = PyBytes_FromStringAndSize_(NULL, size + size // 8)
                if octets == NULL:
                    raise MemoryError()
                out.data = out.fixed = <uint8_t *>PyBytes_AS_STRING(<bytes>octets)
                out.room = size + size // 8
            self.put_entries(&out, size, examined, entries)
            if octets != NULL and out.data == out.fixed:
                _PyBytes_Resize(&octets, out.size)
                return <bytes>octets
            return PyBytes_FromStringAndSize(<char *>out.data, out.size)
        finally:
            if out.data != out.fixed:
                PyMem_Free(out.data)
            Py_XDECREF(octets)

    cdef int put_entries(self, Output *out, Py_ssize_t size, Py_ssize_t examined, Py_ssize_t entries) except -1:
        """What `read` returns, behind what `out` holds already."""
        cdef uint32_t index
        cdef Entry *e
        cdef Py_ssize_t tested = 0, written = 0, end = out.size + size
        while True:
            if self.at >= self.stop:
                self.finished = True
                break
            if out.size >= end or (examined and tested >= examined) or (entries and written >= entries):
                break
            index = self.at if self.candidates == NULL else self.candidates[self.at]
            self.at += 1
            if index < self.lo or index >= self.hi:
                continue
            e = entry_at(self.snapshot, index)
            if self.one_level and parent_of(e) != self.parent:
                if self.candidates == NULL and end_of(e, index) > index:
                    self.at = end_of(e, index)
                continue
            tested += 1
            if self.test(e, self.root) != TRUE:
                continue
            if self.limit and self.sent >= self.limit:
                self.result_code = 4
                self.finished = True
                break
            self.put_entry(e, out)
            self.sent += 1
            written += 1
        return 0

    cdef int put_entry(self, const Entry *e, Output *out) except -1:
        """One SearchResultEntry message (RFC 4511 4.5.2)."""
        cdef Snapshot s = self.snapshot
        cdef int count
        cdef const Item *item = items_of(s, e, &count)
        cdef const uint8_t *dn = &node_at(s.base, e.dn).tlv[0]
        cdef Py_ssize_t dn_size = tlv_header(dn) + tlv_content(dn)
        cdef Py_ssize_t attributes = 0, operation, message
        cdef uint8_t *p
        cdef int i, parts = 0
        cdef Part[PARTS] part
        cdef bint is_whole = self.view.entries == NULL and not self.types_only and count <= PARTS
        if is_whole:
            parts = self.take_apart(e, item, count, part, &attributes)
        else:
            for i in range(count):
                if self.selected[item[i].attribute]:
                    attributes += self.item_size(e, item + i)
        operation = dn_size + ber_size(attributes)
        message = 2 + ber_uint_size(self.message_id) + ber_size(operation)
        p = reserve(out, ber_size(message) + COPIED)
        p = put_header(p, 0x30, message)
        p = put_uint(p, 0x02, self.message_id)
        p = put_header(p, 0x64, operation)
        memcpy(p, dn, dn_size)
        p += dn_size
        p = put_header(p, 0x30, attributes)
        if is_whole:
            p = self.put_parts(e, part, parts, p)
        else:
            for i in range(count):
                if self.selected[item[i].attribute]:
                    p = self.put_item(e, item + i, p)
        out.size = p - out.data
        return 0

    cdef int take_apart(
        self, const Entry *e, const Item *item, int count, Part *part, Py_ssize_t *attributes
    ) noexcept:
        """What of an entry is sent to who may see everything, and its octets in all; how many parts."""
        cdef Snapshot s = self.snapshot
        cdef const uint32_t *record = <const uint32_t *>(s.base + e.record)
        cdef const List *lst
        cdef Values values
        cdef uint32_t ref
        cdef Py_ssize_t total = 0
        cdef int i, n = 0
        for i in range(count):
            if not self.selected[item[i].attribute]:
                continue
            ref = record[item[i].ref] if item[i].where == IN_RECORD else ref_of(s, e, item + i)
            part.item = item + i
            part.type = &node_at(s.base, attribute_at(s, item[i].attribute).type).tlv[0]
            if item[i].form == FORM_NODE:
                part.value = &node_at(s.base, ref).tlv[0]
                part.octets = tlv_header(part.value) + tlv_content(part.value)
            else:
                lst = list_at(s, ref)
                if item[i].form == FORM_ENCODED:
                    part.value = <const uint8_t *>&lst.refs[0] + 4 * <Py_ssize_t>lst.count
                    part.octets = lst.octets
                    total += lst.octets
                    part += 1
                    n += 1
                    continue
                part.value = NULL
                part.octets = lst.octets
                if item[i].form == FORM_LOGINS:
                    part.octets = self.octets_of(e, item + i, &values)
                    if values.count == 0:
                        continue
            part.type_size = tlv_header(part.type) + tlv_content(part.type)
            total += ber_size(part.type_size + ber_size(part.octets))
            part += 1
            n += 1
        attributes[0] = total
        return n

    cdef uint8_t *put_parts(self, const Entry *e, const Part *part, int parts, uint8_t *p) noexcept:
        cdef Snapshot s = self.snapshot
        # What is short is copied with what lies behind it, where something does.
        cdef const uint8_t *last = s.base + s.header.size - COPIED
        cdef const uint8_t *tlv
        cdef const Part *end = part + parts
        cdef Values values
        cdef uint32_t i
        cdef Py_ssize_t n
        while part < end:
            if part.item.form != FORM_ENCODED:
                p = put_header(p, 0x30, part.type_size + ber_size(part.octets))
                p = put_copy(p, part.type, part.type_size, last)
                p = put_header(p, 0x31, part.octets)
            if part.value != NULL:
                p = put_copy(p, part.value, part.octets, last)
            else:
                s.all_values(e, part.item, &values)
                for i in range(values.count):
                    tlv = &node_at(s.base, value_at(s, &values, i)).tlv[0]
                    n = tlv_header(tlv) + tlv_content(tlv)
                    p = put_copy(p, tlv, n, last)
            part += 1
        return p

    cdef Py_ssize_t octets_of(self, const Entry *e, const Item *item, Values *values) noexcept:
        """Octets of all visible values."""
        cdef uint32_t i
        cdef Py_ssize_t octets = 0
        cdef const uint8_t *tlv
        self.view.values_of(e, item, values)
        if self.types_only and values.count:
            return 0
        for i in range(values.count):
            tlv = &node_at(self.snapshot.base, value_at(self.snapshot, values, i)).tlv[0]
            octets += tlv_header(tlv) + tlv_content(tlv)
        return octets

    cdef Py_ssize_t item_size(self, const Entry *e, const Item *item) noexcept:
        """Octets of the PartialAttribute; 0 if nothing of it may be seen."""
        cdef Snapshot s = self.snapshot
        cdef const uint8_t *tlv = &node_at(s.base, attribute_at(s, item.attribute).type).tlv[0]
        cdef Py_ssize_t type_size = tlv_header(tlv) + tlv_content(tlv)
        cdef Values values
        cdef Py_ssize_t octets
        if self.view.entries == NULL and not self.types_only and item.form != FORM_LOGINS:
            if item.form == FORM_ENCODED:
                return list_at(s, ref_of(s, e, item)).octets
            if item.form != FORM_NODE:
                octets = list_at(s, ref_of(s, e, item)).octets
            else:
                tlv = &node_at(s.base, ref_of(s, e, item)).tlv[0]
                octets = tlv_header(tlv) + tlv_content(tlv)
        else:
            octets = self.octets_of(e, item, &values)
            if values.count == 0:
                return 0
        return ber_size(type_size + ber_size(octets))

    cdef uint8_t *put_item(self, const Entry *e, const Item *item, uint8_t *p) noexcept:
        cdef Snapshot s = self.snapshot
        cdef const uint8_t *name = &node_at(s.base, attribute_at(s, item.attribute).type).tlv[0]
        cdef const uint8_t *tlv
        cdef Py_ssize_t type_size = tlv_header(name) + tlv_content(name)
        cdef Py_ssize_t octets, n
        cdef Values values
        cdef List *lst
        cdef uint32_t i
        if self.view.entries == NULL and not self.types_only and item.form != FORM_LOGINS:
            if item.form == FORM_ENCODED:
                lst = list_at(s, ref_of(s, e, item))
                memcpy(p, <uint8_t *>&lst.refs[0] + 4 * <Py_ssize_t>lst.count, lst.octets)
                return p + lst.octets
            s.all_values(e, item, &values)
            if item.form != FORM_NODE:
                octets = list_at(s, ref_of(s, e, item)).octets
            else:
                tlv = &node_at(s.base, values.one).tlv[0]
                octets = tlv_header(tlv) + tlv_content(tlv)
        else:
            octets = self.octets_of(e, item, &values)
            if values.count == 0:
                return p
        p = put_header(p, 0x30, type_size + ber_size(octets))
        memcpy(p, name, type_size)
        p += type_size
        p = put_header(p, 0x31, octets)
        if self.types_only:
            return p
        for i in range(values.count):
            tlv = &node_at(s.base, value_at(s, &values, i)).tlv[0]
            n = tlv_header(tlv) + tlv_content(tlv)
            memcpy(p, tlv, n)
            p += n
        return p


# -- for those who answer requests in C --------------------------------------------------------------

cdef int compare_at(object snapshot, object view, const Span *dn, const Span *attribute, const Span *value) except -1:
    cdef Snapshot s = <Snapshot>snapshot
    return s.compare_entry(<View>view, s.find_dn_at(dn.pos, dn.end - dn.pos), attribute, value)


cdef object idle_search():
    return Search.__new__(Search)


cdef bint plan_search(
    object search, object snapshot, object view, uint32_t message_id, const Span *base, int scope, bint types_only,
    uint32_t limit, const Span *filter, const Span *attributes
) except -1:
    return (<Search>search).plan_again(
        <Snapshot>snapshot, <View>view, message_id, base, scope, types_only, limit, filter, attributes
    )


cdef bint read_search(
    object search, Output *out, Py_ssize_t size, Py_ssize_t examined, uint32_t *sent, int *code
) except -1:
    cdef Search s = <Search>search
    s.put_entries(out, size, examined, 0)
    sent[0] = s.sent
    code[0] = s.result_code
    return s.finished


cdef void rest_search(object search) noexcept:
    (<Search>search).rest()


cdef uint8_t *reserve(Output *out, Py_ssize_t more) except NULL:
    """Room for `more` octets at the end."""
    cdef Py_ssize_t room
    cdef uint8_t *p
    if out.size + more > out.room:
        room = out.room * 2
        while room < out.size + more:
            room *= 2
        p = <uint8_t *>PyMem_Malloc(room)
        if p == NULL:
            raise MemoryError()
        memcpy(p, out.data, out.size)
        if out.data != out.fixed:
            PyMem_Free(out.data)
        out.data = p
        out.room = room
    return out.data + out.size


cdef bint same_form(int kind, const uint8_t *text, Py_ssize_t size, const Piece *piece) noexcept:
    """Whether the value has this normal form; a call into Python, for the values that need one."""
    cdef bytes asserted = piece.data[:piece.size]
    return normalise_value(kind, text[:size]) == asserted


cdef bint in_set(const Piece *piece, uint32_t norm) noexcept nogil:
    cdef const uint32_t *set_ = <const uint32_t *>piece.data
    cdef Py_ssize_t at = lower_bound(set_, piece.size, norm)
    return at < piece.size and set_[at] == norm


cdef Py_ssize_t lower_bound(const uint32_t *values, Py_ssize_t count, uint32_t wanted) noexcept nogil:
    cdef Py_ssize_t lo = 0, hi = count, mid
    while lo < hi:
        mid = (lo + hi) // 2
        if values[mid] < wanted:
            lo = mid + 1
        else:
            hi = mid
    return lo


cdef extern from "stdlib.h" nogil:
    void qsort(void *base, size_t count, size_t size, int (*order)(const void *, const void *) noexcept nogil)


cdef int order_entries(const void *a, const void *b) noexcept nogil:
    cdef uint32_t x = (<const uint32_t *>a)[0], y = (<const uint32_t *>b)[0]
    return (x > y) - (x < y)


cdef Py_ssize_t sort_distinct(uint32_t *values, Py_ssize_t count) noexcept nogil:
    """Sort in place, each value once; how many are left."""
    cdef Py_ssize_t i, n = 0
    qsort(values, count, 4, &order_entries)
    for i in range(count):
        if n == 0 or values[n - 1] != values[i]:
            values[n] = values[i]
            n += 1
    return n


cdef int compare_octets(const uint8_t *a, Py_ssize_t n, const uint8_t *b, Py_ssize_t m) noexcept nogil:
    cdef int order = memcmp(a, b, n if n < m else m)
    if order:
        return order
    return (n > m) - (n < m)


cdef int compare_integers(const uint8_t *a, Py_ssize_t n, const uint8_t *b, Py_ssize_t m) noexcept nogil:
    """Two decimal numbers without leading zeros."""
    cdef bint negative = n > 0 and a[0] == 0x2D
    cdef int order
    if negative != (m > 0 and b[0] == 0x2D):
        return -1 if negative else 1
    if n != m:
        order = (n > m) - (n < m)
    else:
        order = memcmp(a, b, n)
    return -order if negative else order


cdef int64_t parse_integer(const uint8_t *p, Py_ssize_t n) noexcept nogil:
    cdef int64_t value = 0
    cdef Py_ssize_t i
    cdef bint negative = n > 0 and p[0] == 0x2D
    for i in range(negative, n):
        value = value * 10 + (p[i] - 0x30)
    return -value if negative else value
