# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Writes the arena that outpost.ldap._snapshot reads; the layout is in _arena.pxd."""
# Writes the arena that outpost.ldap._snapshot reads; the layout is in _arena.pxd.
# Every distinct value is stored once per kind. Offsets are final as soon as they are given out, for nodes
# and lists both lie in growing blocks of their own: list offsets are rebased when the arena is put together.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcpy, memset

from outpost._fastber cimport ber_size, put_octets, put_header

import hashlib

__all__ = ("BASE", "CONTAINER", "GROUP", "USER", "VIRTUAL_GROUP", "Builder")

BASE = KIND_BASE
CONTAINER = KIND_CONTAINER
USER = KIND_USER
GROUP = KIND_GROUP
VIRTUAL_GROUP = KIND_VIRTUAL_GROUP

cdef enum:
    DN_KIND = 4             # outpost.ldap.matching.Kind.DN
    CASE_IGNORE_KIND = 0
    CHECKSUM_FROM = 24
    MAX_ARENA = 0xFFFF0000


cdef struct Block:
    uint8_t *data
    Py_ssize_t size
    Py_ssize_t room


cdef int block_reserve(Block *b, Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    cdef void *p
    if b.size + more <= b.room:
        return 0
    room = b.room * 2 if b.room else 65536
    while room < b.size + more:
        room *= 2
    if room > MAX_ARENA:
        if b.size + more > MAX_ARENA:
            raise ValueError("the directory does not fit into 4 GiB")
        room = MAX_ARENA
    p = PyMem_Realloc(b.data, room)
    if p == NULL:
        raise MemoryError()
    b.data = <uint8_t *>p
    b.room = room
    return 0


cdef Py_ssize_t block_take(Block *b, Py_ssize_t size) except -1:
    """Offset of `size` further octets, aligned to 4 and zeroed."""
    cdef Py_ssize_t at = b.size
    cdef Py_ssize_t padded = (size + 3) & ~<Py_ssize_t>3
    block_reserve(b, padded)
    memset(b.data + at, 0, padded)
    b.size += padded
    return at


@cython.final
cdef class Builder:
    cdef Block nodes, lists, records, entries, marks
    cdef list by_kind           # per kind: octets -> offset of the node
    cdef dict taught            # DN -> normal form
    cdef dict sets              # (attribute or -1, refs) -> offset of the list
    cdef dict dns               # normal DN node -> entry index
    cdef list attribute_rows    # (node offset, kind, flags)
    cdef list name_rows         # (node offset, attribute index)
    cdef object normalise
    cdef uint32_t custom_from
    cdef uint32_t normal_count
    cdef uint32_t entry_count
    cdef uint32_t base_dn
    cdef list users
    cdef bint finished

    def __cinit__(self):
        memset(&self.nodes, 0, sizeof(Block))
        memset(&self.lists, 0, sizeof(Block))
        memset(&self.records, 0, sizeof(Block))
        memset(&self.entries, 0, sizeof(Block))
        memset(&self.marks, 0, sizeof(Block))

    def __dealloc__(self):
        PyMem_Free(self.nodes.data)
        PyMem_Free(self.lists.data)
        PyMem_Free(self.records.data)
        PyMem_Free(self.entries.data)
        PyMem_Free(self.marks.data)

    def __init__(self, attributes, custom_from, normalise):
        cdef uint32_t index = 0
        self.by_kind = [{} for _ in range(9)]
        self.taught = {}
        self.sets = {}
        self.dns = {}
        self.attribute_rows = []
        self.name_rows = []
        self.users = []
        self.normalise = normalise
        self.custom_from = custom_from
        self.normal_count = 0
        self.entry_count = 0
        self.base_dn = 0
        self.finished = False
        # Nodes start right behind the header, so that their offsets never change.
        block_take(&self.nodes, sizeof(Header))
        for description, kind, flags, names in attributes:
            self.attribute_rows.append((self.node(8, description), kind, flags))
            for name in names:
                self.name_rows.append((self.node(8, name), index))
            index += 1
        if index > 0xFFFF:
            raise ValueError("more than 65535 attributes")

    def teach(self, bytes dn not None, bytes normal not None):
        self.taught[dn] = normal

    cdef uint32_t node(self, int kind, bytes value) except 0:
        cdef dict known = <dict>self.by_kind[kind]
        cdef object found = known.get(value)
        cdef bytes normal
        cdef uint32_t at, norm
        cdef Node *n
        if found is not None:
            return <uint32_t>found
        at = self.put_node(kind, value)
        known[value] = at
        if kind == CASE_IGNORE_KIND and is_plain(value):
            normal = value
        elif kind == DN_KIND:
            normal = self.taught.get(value)
            if normal is None:
                normal = self.normalise(kind, value)
        else:
            normal = self.normalise(kind, value)
        if normal is None:
            return at
        if normal == value:
            norm = at
        else:
            # The normal form of a normal form is itself, or the rule is broken and nothing would ever match.
            found = known.get(normal)
            if found is None:
                norm = self.put_node(kind, normal)
                known[normal] = norm
            else:
                norm = <uint32_t>found
        n = <Node *>(self.nodes.data + norm)
        if n.norm == 0:
            n.norm = norm
            self.normal_count += 1
            n.postings = self.normal_count
        n = <Node *>(self.nodes.data + at)
        n.norm = norm
        return at

    cdef uint32_t put_node(self, int kind, bytes value) except 0:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        cdef Py_ssize_t at = block_take(&self.nodes, NODE_HEADER + ber_size(size))
        cdef Node *n = <Node *>(self.nodes.data + at)
        n.kind = kind
        put_octets(<uint8_t *>n + NODE_HEADER, 0x04, PyBytes_AS_STRING(value), size)
        return <uint32_t>at

    cdef int mark(self, uint32_t node, uint32_t entry) except -1:
        """Remember that `entry` holds this value, for the postings."""
        cdef uint32_t norm = (<Node *>(self.nodes.data + node)).norm
        cdef Py_ssize_t at
        cdef uint32_t *pair
        if norm:
            at = block_take(&self.marks, 8)
            pair = <uint32_t *>(self.marks.data + at)
            pair[0] = (<Node *>(self.nodes.data + norm)).postings
            pair[1] = entry
        return 0

    def add(self, bytes dn not None, Py_ssize_t parent, int kind, object user_pk, items):
        cdef uint32_t index = self.entry_count
        cdef uint32_t dn_node, norm
        cdef Py_ssize_t at, count = 0, up
        cdef Entry *e
        cdef Item *item
        cdef int attribute
        cdef object value
        if self.finished or parent >= index or (parent < 0) != (index == 0):
            raise ValueError("an entry out of order")
        dn_node = self.node(DN_KIND, dn)
        norm = (<Node *>(self.nodes.data + dn_node)).norm
        if norm == 0:
            raise ValueError("no DN: %r" % dn)
        if norm in self.dns:
            raise ValueError("two entries with the DN %r" % dn)
        self.dns[norm] = index
        if index == 0:
            self.base_dn = dn_node
        at = block_take(&self.entries, sizeof(Entry))
        e = <Entry *>(self.entries.data + at)
        e.dn = dn_node
        e.record = <uint32_t>self.records.size
        e.parent = 0 if parent < 0 else <uint32_t>parent
        e.pk = NO_USER if user_pk < 0 else <uint32_t>user_pk
        e.kind = kind
        self.entry_count += 1
        for attribute, value in items:
            if isinstance(value, bytes):
                self.put_one(attribute, <bytes>value, index)
                count += 1
            elif value:
                self.put_many(attribute, value, index)
                count += 1
        e = <Entry *>(self.entries.data + at)
        e.items = <uint16_t>count
        if kind == KIND_USER and user_pk >= 0:
            self.users.append((user_pk, index))
        # The subtree of every ancestor reaches to here.
        up = index
        while True:
            e = <Entry *>(self.entries.data + up * sizeof(Entry))
            e.end = index + 1
            if up == 0:
                return index
            up = e.parent

    cdef Item *put_item(self, int attribute, int form) except NULL:
        cdef Py_ssize_t at = block_take(&self.records, sizeof(Item))
        cdef Item *item = <Item *>(self.records.data + at)
        item.attribute = attribute
        item.form = form
        return item

    cdef int put_one(self, int attribute, bytes value, uint32_t entry) except -1:
        cdef tuple row = <tuple>self.attribute_rows[attribute]
        cdef uint32_t node = self.node(row[1], value)
        cdef Item *item
        if <int>row[2] & FLAG_INDEXED:
            self.mark(node, entry)
        item = self.put_item(attribute, FORM_NODE)
        item.ref = node
        return 0

    cdef int put_many(self, int attribute, object values, uint32_t entry) except -1:
        cdef tuple row = <tuple>self.attribute_rows[attribute]
        cdef int kind = row[1]
        cdef bint indexed = <int>row[2] & FLAG_INDEXED
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t room = len(values)
        cdef uint32_t *refs = <uint32_t *>PyMem_Malloc(room * 4)
        cdef uint32_t node, norm
        cdef Py_ssize_t i
        cdef bint twice
        cdef Item *item
        cdef object found, key
        cdef int form
        cdef set seen = set()
        if refs == NULL:
            raise MemoryError()
        try:
            for value in values:
                node = self.node(kind, value)
                norm = (<Node *>(self.nodes.data + node)).norm or node
                # RFC 4512 2.2: no two values of one attribute are equivalent.
                if norm in seen:
                    continue
                seen.add(norm)
                refs[count] = node
                count += 1
                if indexed:
                    self.mark(node, entry)
            if count == 1:
                item = self.put_item(attribute, FORM_NODE)
                item.ref = refs[0]
                return 0
            form = FORM_LIST if kind == DN_KIND or count > 64 else FORM_ENCODED
            key = (attribute if form == FORM_ENCODED else -1, PyBytes_FromStringAndSize(<char *>refs, count * 4))
            found = self.sets.get(key)
            if found is None:
                found = self.put_list(attribute, form, refs, count)
                self.sets[key] = found
            item = self.put_item(attribute, form)
            item.ref = <uint32_t>found
            return 0
        finally:
            PyMem_Free(refs)

    cdef uint32_t put_list(self, int attribute, int form, const uint32_t *refs, Py_ssize_t count) except? 0:
        """Offset inside the block of lists."""
        cdef Py_ssize_t i, octets = 0, at, inner, head
        cdef const uint8_t *tlv
        cdef const uint8_t *type_tlv
        cdef Py_ssize_t type_size
        cdef List *lst
        cdef uint8_t *p
        for i in range(count):
            tlv = self.nodes.data + refs[i] + NODE_HEADER
            octets += tlv_header(tlv) + tlv_content(tlv)
        if form == FORM_LIST:
            at = block_take(&self.lists, 8 + 4 * count)
            lst = <List *>(self.lists.data + at)
            lst.count = <uint32_t>count
            lst.octets = <uint32_t>octets
            memcpy(&lst.refs[0], refs, count * 4)
            return <uint32_t>at
        type_tlv = self.nodes.data + <uint32_t>(<tuple>self.attribute_rows[attribute])[0] + NODE_HEADER
        type_size = tlv_header(type_tlv) + tlv_content(type_tlv)
        inner = type_size + ber_size(octets)
        at = block_take(&self.lists, 8 + 4 * count + ber_size(inner))
        lst = <List *>(self.lists.data + at)
        lst.count = <uint32_t>count
        lst.octets = <uint32_t>ber_size(inner)
        memcpy(&lst.refs[0], refs, count * 4)
        p = <uint8_t *>&lst.refs[0] + count * 4
        p = put_header(p, 0x30, inner)
        memcpy(p, type_tlv, type_size)
        p += type_size
        p = put_header(p, 0x31, octets)
        for i in range(count):
            tlv = self.nodes.data + refs[i] + NODE_HEADER
            memcpy(p, tlv, tlv_header(tlv) + tlv_content(tlv))
            p += tlv_header(tlv) + tlv_content(tlv)
        return <uint32_t>at

    def finish(self, generation):
        cdef Block out
        cdef Header *h
        cdef Py_ssize_t at, i, lists_at, records_at, entries_at, postings_at, total
        cdef Entry *e
        cdef Item *item
        cdef bytes arena
        if self.finished or self.entry_count == 0:
            raise ValueError("nothing to finish")
        self.finished = True
        out = self.nodes
        memset(&self.nodes, 0, sizeof(Block))
        try:
            lists_at = out.size
            at = block_take(&out, self.lists.size)
            memcpy(out.data + at, self.lists.data, self.lists.size)
            records_at = block_take(&out, self.records.size)
            memcpy(out.data + records_at, self.records.data, self.records.size)
            for i in range(self.records.size // <Py_ssize_t>sizeof(Item)):
                item = <Item *>(out.data + records_at) + i
                if item.form != FORM_NODE:
                    item.ref += <uint32_t>lists_at
            entries_at = block_take(&out, self.entries.size)
            memcpy(out.data + entries_at, self.entries.data, self.entries.size)
            for i in range(self.entry_count):
                e = <Entry *>(out.data + entries_at) + i
                e.record += <uint32_t>records_at
            h = <Header *>out.data
            h.nodes = sizeof(Header)
            h.nodes_end = <uint32_t>lists_at
            h.lists = <uint32_t>lists_at
            h.lists_end = <uint32_t>records_at
            h.records = <uint32_t>records_at
            h.records_end = <uint32_t>entries_at
            h.entries = <uint32_t>entries_at
            h.entry_count = self.entry_count
            self.put_attributes(&out)
            self.put_users(&out)
            self.put_postings(&out)
            self.put_values(&out)
            self.put_dns(&out)
            h = <Header *>out.data
            memcpy(h.magic, b"outpost\0", 8)
            h.version = VERSION
            h.size = out.size
            h.generation = generation
            h.base_dn = self.base_dn
            h.custom_from = self.custom_from
            arena = PyBytes_FromStringAndSize(<char *>out.data, out.size)
        finally:
            PyMem_Free(out.data)
        digest = hashlib.blake2b(memoryview(arena)[CHECKSUM_FROM:], digest_size=16).digest()
        # The object is not shared yet.
        memcpy(PyBytes_AS_STRING(arena) + 8, PyBytes_AS_STRING(digest), 16)
        return arena

    cdef int put_attributes(self, Block *out) except -1:
        cdef Py_ssize_t at = block_take(out, len(self.attribute_rows) * sizeof(Attribute))
        cdef Attribute *row = <Attribute *>(out.data + at)
        cdef Name *name
        (<Header *>out.data).attributes = <uint32_t>at
        (<Header *>out.data).attribute_count = <uint32_t>len(self.attribute_rows)
        for node, kind, flags in self.attribute_rows:
            row.type = node
            row.kind = kind
            row.flags = flags
            row += 1
        at = block_take(out, len(self.name_rows) * sizeof(Name))
        (<Header *>out.data).names = <uint32_t>at
        (<Header *>out.data).name_count = <uint32_t>len(self.name_rows)
        name = <Name *>(out.data + at)
        for node, attribute in self.name_rows:
            name.text = node
            name.attribute = attribute
            name += 1
        return 0

    cdef int put_users(self, Block *out) except -1:
        cdef Py_ssize_t at = block_take(out, len(self.users) * sizeof(UserRow))
        cdef UserRow *row = <UserRow *>(out.data + at)
        (<Header *>out.data).users = <uint32_t>at
        (<Header *>out.data).user_count = <uint32_t>len(self.users)
        self.users.sort()
        for pk, index in self.users:
            row.pk = pk
            row.entry = index
            row += 1
        return 0

    cdef int put_postings(self, Block *out) except -1:
        """A counting sort of the marks by value; entries come out ascending because they were added so."""
        cdef Py_ssize_t n = self.marks.size // 8
        cdef uint32_t *marks = <uint32_t *>self.marks.data
        cdef uint32_t *counts
        cdef Py_ssize_t i, used = 0, at, left
        cdef uint32_t k
        cdef List *lst
        cdef uint32_t *where
        (<Header *>out.data).postings = <uint32_t>out.size
        counts = <uint32_t *>PyMem_Malloc((self.normal_count + 1) * 4)
        where = <uint32_t *>PyMem_Malloc((self.normal_count + 1) * 4)
        if counts == NULL or where == NULL:
            PyMem_Free(counts)
            PyMem_Free(where)
            raise MemoryError()
        try:
            memset(counts, 0, (self.normal_count + 1) * 4)
            memset(where, 0, (self.normal_count + 1) * 4)
            for i in range(n):
                counts[marks[2 * i]] += 1
            for i in range(1, self.normal_count + 1):
                if counts[i]:
                    where[i] = <uint32_t>block_take(out, 8 + 4 * <Py_ssize_t>counts[i])
            for i in range(n):
                k = marks[2 * i]
                lst = <List *>(out.data + where[k])
                if lst.count and lst.refs[lst.count - 1] == marks[2 * i + 1]:
                    continue
                lst.refs[lst.count] = marks[2 * i + 1]
                lst.count += 1
            (<Header *>out.data).postings_end = <uint32_t>out.size
            self.point(out, where)
        finally:
            PyMem_Free(counts)
            PyMem_Free(where)
        return 0

    cdef int point(self, Block *out, const uint32_t *where) except -1:
        """Replace the running numbers in the normal nodes by offsets of postings."""
        cdef uint32_t at
        cdef Node *node
        for known in self.by_kind:
            for offset in (<dict>known).values():
                at = offset
                node = <Node *>(out.data + at)
                if node.norm == at:
                    node.postings = where[node.postings]
                else:
                    node.postings = 0
        return 0

    cdef int put_values(self, Block *out) except -1:
        """Open addressing: normal form -> node, half full at most."""
        cdef uint32_t slots = 16, slot, at
        cdef Py_ssize_t table
        cdef uint32_t *t
        cdef Node *node
        while slots < 2 * self.normal_count:
            slots *= 2
        table = block_take(out, <Py_ssize_t>slots * 4)
        t = <uint32_t *>(out.data + table)
        for known in self.by_kind:
            for offset in (<dict>known).values():
                at = offset
                node = <Node *>(out.data + at)
                if node.norm == at:
                    slot = hash_octets(node.kind, &node.tlv[0] + tlv_header(&node.tlv[0]), tlv_content(&node.tlv[0])) & (slots - 1)
                    while t[slot]:
                        slot = (slot + 1) & (slots - 1)
                    t[slot] = at
        (<Header *>out.data).values = <uint32_t>table
        (<Header *>out.data).value_slots = slots
        return 0

    cdef int put_dns(self, Block *out) except -1:
        """Open addressing: normal DN -> entry index + 1."""
        cdef uint32_t slots = 16, slot, at
        cdef Py_ssize_t table
        cdef uint32_t *t
        cdef Node *node
        while slots < 2 * self.entry_count:
            slots *= 2
        table = block_take(out, <Py_ssize_t>slots * 4)
        t = <uint32_t *>(out.data + table)
        for norm, index in self.dns.items():
            at = norm
            node = <Node *>(out.data + at)
            slot = hash_octets(DN_KIND, &node.tlv[0] + tlv_header(&node.tlv[0]), tlv_content(&node.tlv[0])) & (slots - 1)
            while t[slot]:
                slot = (slot + 1) & (slots - 1)
            t[slot] = <uint32_t>index + 1
        (<Header *>out.data).dns = <uint32_t>table
        (<Header *>out.data).dn_slots = slots
        return 0


cdef bint is_plain(bytes value) noexcept:
    """Octets that are their own normal form under caseIgnoreMatch, told without a call."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t i
    cdef uint8_t c, last = 0x20
    for i in range(n):
        c = p[i]
        if c < 0x20 or c > 0x7E or 0x41 <= c <= 0x5A or (c == 0x20 and last == 0x20):
            return False
        last = c
    return n > 0 and last != 0x20
