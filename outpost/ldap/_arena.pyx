# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Writes the arena that outpost.ldap._snapshot reads; the layout is in _arena.pxd."""
# Writes the arena that outpost.ldap._snapshot reads; the layout is in _arena.pxd.
# Every distinct value is stored once per kind, found again by hashing the octets where they lie: no Python object
# outlives the call that brought it. Offsets are final as soon as they are given out, for nodes, lists and records lie in
# growing blocks of their own: the offsets of the latter are rebased when the arena is put together.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from outpost._fastber cimport ber_size, put_octets, put_header

import hashlib

__all__ = ("BASE", "CONTAINER", "GROUP", "USER", "VIRTUAL_GROUP", "Builder", "Links", "memberships")

BASE = KIND_BASE
CONTAINER = KIND_CONTAINER
USER = KIND_USER
GROUP = KIND_GROUP
VIRTUAL_GROUP = KIND_VIRTUAL_GROUP

cdef enum:
    # outpost.ldap.matching.Kind
    K_CASE_IGNORE = 0
    K_CASE_EXACT = 1
    K_INTEGER = 2
    K_TIME = 3
    K_DN = 4
    K_BOOLEAN = 7
    K_OCTET_STRING = 8
    KINDS = 9

    CHECKSUM_FROM = 24
    MAX_ARENA = 0xFFFF0000
    LONG = 64                       # values of an attribute, from which on they are not encoded once more
    SHARED = 16                     # entries of a list that is compared with others
    SMALL = 512                     # octets of a value that is folded here
    TAKEN = 0x80                    # Node.kind, until it is put together: the normal DN of an entry


cdef extern from *:
    void __builtin_prefetch(const void *at) noexcept nogil


cdef struct Block:
    uint8_t *data
    Py_ssize_t size
    Py_ssize_t room


cdef struct Slot:
    uint32_t hash
    uint32_t node               # 0: free


cdef int block_reserve(Block *b, Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    cdef void *p
    if b.size + more <= b.room:
        return 0
    # Large blocks grow by a quarter: what is copied is soon half of what there is.
    room = b.room + (b.room if b.room < 1 << 24 else b.room // 4) if b.room else 65536
    while room < b.size + more:
        room += room // 4
    if room > MAX_ARENA:
        if b.size + more > MAX_ARENA:
            raise ValueError("the directory does not fit into 4 GiB")
        room = MAX_ARENA
    p = PyMem_RawRealloc(b.data, room)
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


cdef int block_append(Block *out, Block *b) except -1:
    """Move a block behind another; offset of where it lies there, in `b.room`."""
    cdef Py_ssize_t at = block_take(out, b.size)
    if b.size:
        memcpy(out.data + at, b.data, b.size)
    PyMem_RawFree(b.data)
    b.data = NULL
    b.room = at
    return 0


@cython.final
cdef class Links:
    """Values that are entries: the sequence of their names, for everybody but the builder."""

    cdef readonly bytes entries
    cdef readonly object names
    cdef readonly bint logins
    cdef Py_ssize_t count

    def __init__(self, bytes entries not None, names, logins=False, count=None):
        self.entries = entries
        self.names = names
        self.logins = logins
        self.count = PyBytes_GET_SIZE(entries) // 4
        if count is not None:
            if not 0 <= count <= self.count:
                raise ValueError("more than there are")
            self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t i):
        if not 0 <= i < self.count:
            raise IndexError(i)
        return self.names[(<const uint32_t *>PyBytes_AS_STRING(self.entries))[i]]


def memberships(groups_of, dict reach not None, uint32_t first_user, uint32_t first_group, Py_ssize_t group_count):
    cdef Block found, counts
    cdef list by_user = [], by_group = []
    cdef object groups, pk, places, place
    cdef bytes packed
    cdef uint32_t *refs
    cdef uint32_t user = first_user, at
    cdef Py_ssize_t i, k, n
    memset(&found, 0, sizeof(Block))
    memset(&counts, 0, sizeof(Block))
    try:
        block_take(&counts, 4 * group_count)
        for groups in groups_of:
            found.size = 0
            for pk in groups:
                places = reach.get(pk)
                if places is not None:
                    for place in places:
                        at = place
                        if not 0 <= <int64_t>at - first_group < group_count:
                            raise ValueError("no place of a group")
                        block_reserve(&found, 4)
                        (<uint32_t *>(found.data + found.size))[0] = at
                        found.size += 4
            refs = <uint32_t *>found.data
            n = sort_once(refs, found.size // 4)
            for i in range(n):
                (<uint32_t *>counts.data)[refs[i] - first_group] += 1
            by_user.append(PyBytes_FromStringAndSize(<char *>refs, 4 * n))
        for k in range(group_count):
            n = (<uint32_t *>counts.data)[k]
            by_group.append(PyBytes_FromStringAndSize(NULL, 4 * n))
            (<uint32_t *>counts.data)[k] = 0
        for packed in by_user:
            refs = <uint32_t *>PyBytes_AS_STRING(packed)
            for i in range(PyBytes_GET_SIZE(packed) // 4):
                k = refs[i] - first_group
                # Not shared yet.
                (<uint32_t *>PyBytes_AS_STRING(<bytes>by_group[k]))[(<uint32_t *>counts.data)[k]] = user
                (<uint32_t *>counts.data)[k] += 1
            user += 1
    finally:
        PyMem_RawFree(found.data)
        PyMem_RawFree(counts.data)
    return by_user, by_group


@cython.final
cdef class Builder:
    cdef Block nodes, lists, records, shapes, items, entries, marks
    cdef Block links            # offsets of the lists of entries
    cdef Block logins           # a node for each user
    cdef Slot *interned         # open addressing: (kind, octets) -> node
    cdef uint32_t slots
    cdef uint32_t node_count
    cdef uint32_t normal_count
    cdef dict sets              # (attribute or -1, refs) -> offset of the list
    cdef dict linked            # entries -> offset of the list
    cdef dict shape_numbers     # items -> number
    cdef list attribute_rows    # (node offset, kind, flags)
    cdef list name_rows         # (node offset, attribute index)
    cdef dict indices           # description -> attribute index
    cdef dict layouts           # descriptions -> attribute indices, uint16s
    cdef tuple last_names
    cdef bytes last_layout
    cdef uint8_t *kinds         # by attribute
    cdef uint8_t *flags
    cdef uint8_t *is_common     # the values belong into shapes
    cdef list same              # by attribute: the last value, and where it is; many entries hold the same object
    cdef Item *same_items
    cdef uint32_t *hashes       # of the values of the entry in work
    cdef Item *row              # of the entry in work
    cdef uint32_t *columns
    cdef uint8_t *is_list       # by column
    cdef object normalise
    cdef list last_values       # by kind
    cdef uint32_t[16] last_nodes
    cdef object last_links
    cdef uint32_t last_list
    cdef uint32_t custom_from, entry_count, base_dn
    cdef uint32_t logins_from, user_count, twins_from, twin_count
    cdef bint has_twins
    cdef list users
    cdef bint finished

    def __cinit__(self):
        memset(&self.nodes, 0, sizeof(Block))
        memset(&self.lists, 0, sizeof(Block))
        memset(&self.records, 0, sizeof(Block))
        memset(&self.shapes, 0, sizeof(Block))
        memset(&self.items, 0, sizeof(Block))
        memset(&self.entries, 0, sizeof(Block))
        memset(&self.marks, 0, sizeof(Block))
        memset(&self.links, 0, sizeof(Block))
        memset(&self.logins, 0, sizeof(Block))

    def __dealloc__(self):
        PyMem_RawFree(self.nodes.data)
        PyMem_RawFree(self.lists.data)
        PyMem_RawFree(self.records.data)
        PyMem_RawFree(self.shapes.data)
        PyMem_RawFree(self.items.data)
        PyMem_RawFree(self.entries.data)
        PyMem_RawFree(self.marks.data)
        PyMem_RawFree(self.links.data)
        PyMem_RawFree(self.logins.data)
        PyMem_RawFree(self.interned)
        PyMem_RawFree(self.kinds)
        PyMem_RawFree(self.flags)
        PyMem_RawFree(self.is_common)
        PyMem_RawFree(self.same_items)
        PyMem_RawFree(self.hashes)
        PyMem_RawFree(self.row)
        PyMem_RawFree(self.columns)
        PyMem_RawFree(self.is_list)

    def __init__(self, attributes, custom_from, normalise, common=()):
        cdef Py_ssize_t count, index
        rows = list(attributes)
        count = len(rows)
        if count > 0xFFFF:
            raise ValueError("more than 65535 attributes")
        self.sets = {}
        self.linked = {}
        self.shape_numbers = {}
        self.layouts = {}
        self.same = [None] * count
        self.attribute_rows = []
        self.name_rows = []
        self.indices = {}
        self.users = []
        self.normalise = normalise
        self.last_values = [None] * KINDS
        self.custom_from = custom_from
        self.has_twins = True
        self.slots = 1 << 12
        self.interned = <Slot *>zeroed(self.slots * sizeof(Slot))
        self.kinds = <uint8_t *>zeroed(count)
        self.flags = <uint8_t *>zeroed(count)
        self.is_common = <uint8_t *>zeroed(count)
        self.same_items = <Item *>zeroed(count * sizeof(Item))
        self.hashes = <uint32_t *>zeroed(count * 4)
        self.row = <Item *>zeroed((count + 1) * sizeof(Item))
        self.columns = <uint32_t *>zeroed((count + 1) * 4)
        self.is_list = <uint8_t *>zeroed(count + 1)
        # Nodes start right behind the header, so that their offsets never change.
        block_take(&self.nodes, sizeof(Header))
        for index in range(count):
            description, kind, flags, names = rows[index]
            self.kinds[index] = kind
            self.flags[index] = flags
            self.is_common[index] = index in common
            self.indices[(<bytes>description).decode()] = index
            self.attribute_rows.append((self.node(K_OCTET_STRING, description), kind, flags))
            for name in names:
                self.name_rows.append((self.node(K_OCTET_STRING, name), index))
                self.indices.setdefault((<bytes>name).decode(), index)

    # -- values -----------------------------------------------------------------------------------

    cdef uint32_t find(self, uint32_t hash, int kind, const uint8_t *data, Py_ssize_t size, uint32_t *slot) noexcept nogil:
        """The node of these octets, or 0; `slot` is where it is, or belongs."""
        cdef uint32_t at = slot_of(hash, self.slots)
        cdef const Node *n
        while self.interned[at].node:
            if self.interned[at].hash == hash:
                n = <const Node *>(self.nodes.data + self.interned[at].node)
                if (n.kind & KIND_MASK) == kind and tlv_content(&n.tlv[0]) == <uint32_t>size:
                    if memcmp(&n.tlv[0] + tlv_header(&n.tlv[0]), data, size) == 0:
                        break
            at = at + 1 if at + 1 < self.slots else 0
        slot[0] = at
        return self.interned[at].node

    cdef uint32_t intern(self, uint32_t hash, int kind, const uint8_t *data, Py_ssize_t size, bint *is_new) except 0:
        cdef uint32_t slot, found = self.find(hash, kind, data, size, &slot)
        cdef Py_ssize_t at
        cdef Node *n
        is_new[0] = False
        if found:
            return found
        if size > MAX_ARENA // 2:
            raise ValueError("the directory does not fit into 4 GiB")
        at = block_take(&self.nodes, NODE_HEADER + ber_size(size))
        n = <Node *>(self.nodes.data + at)
        n.kind = kind
        put_octets(<uint8_t *>n + NODE_HEADER, 0x04, data, size)
        self.interned[slot].hash = hash
        self.interned[slot].node = <uint32_t>at
        self.node_count += 1
        if self.node_count > self.slots // 8 * 5:
            self.grow()
        is_new[0] = True
        return <uint32_t>at

    cdef int grow(self) except -1:
        cdef Slot *old = self.interned
        cdef uint32_t slots = self.slots, i, slot
        cdef void *p
        if slots > 1 << 30:
            raise ValueError("the directory does not fit into 4 GiB")
        p = zeroed(<Py_ssize_t>slots * 2 * sizeof(Slot))
        self.interned = <Slot *>p
        self.slots = slots * 2
        for i in range(slots):
            if old[i].node:
                slot = slot_of(old[i].hash, self.slots)
                while self.interned[slot].node:
                    slot = slot + 1 if slot + 1 < self.slots else 0
                self.interned[slot] = old[i]
        PyMem_RawFree(old)
        return 0

    cdef uint32_t node(self, int kind, bytes value, bytes known=None) except 0:
        """The node of a value; `known` is its normal form where somebody knows it."""
        return self.hashed(
            hash_octets(kind, <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)), kind, value, known
        )

    cdef uint32_t hashed(self, uint32_t hash, int kind, bytes value, bytes known) except 0:
        """The same, where the hash of the value is known, too."""
        cdef bint is_new = False
        cdef uint32_t at, norm
        cdef Node *n
        cdef bytes normal
        cdef uint8_t[SMALL] folded
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(value)
        cdef int form
        # Attributes with the same value come one after the other.
        if self.last_values[kind] is value:
            return self.last_nodes[kind]
        at = self.intern(hash, kind, data, size, &is_new)
        if is_new:
            form = own_form(kind, data, size, folded) if known is None else NO_FORM
            if form == IS_NORMAL or (known is not None and known is value):
                norm = at
            elif form == IS_FOLDED:
                norm = self.intern(hash_octets(kind, folded, size), kind, folded, size, &is_new)
            else:
                normal = self.normalise(kind, value) if known is None else known
                norm = 0
                if normal is not None:
                    data, size = <const uint8_t *>PyBytes_AS_STRING(normal), PyBytes_GET_SIZE(normal)
                    norm = self.intern(hash_octets(kind, data, size), kind, data, size, &is_new)
            if norm:
                # The normal form of a normal form is itself, or the rule is broken and nothing would ever match.
                n = <Node *>(self.nodes.data + norm)
                if not n.kind & NORMAL and n.link == 0:
                    n.kind |= NORMAL
                    self.normal_count += 1
                    n.link = self.normal_count
                if norm != at:
                    (<Node *>(self.nodes.data + at)).link = norm
        self.last_values[kind] = value
        self.last_nodes[kind] = at
        return at

    cdef int mark(self, uint32_t node, uint32_t entry) except -1:
        """Remember that `entry` holds this value, for the postings."""
        cdef uint32_t norm = norm_at(self.nodes.data, node)
        cdef uint32_t *pair
        if norm:
            block_reserve(&self.marks, 8)
            pair = <uint32_t *>(self.marks.data + self.marks.size)
            pair[0] = (<Node *>(self.nodes.data + norm)).link
            pair[1] = entry
            self.marks.size += 8
        return 0

    # -- entries ----------------------------------------------------------------------------------

    def add(
        self, bytes dn not None, Py_ssize_t parent, int kind, object user_pk, tuple names not None, list values not None,
        bytes normal=None, bytes login=None, Links holders=None,
    ):
        cdef uint32_t index = self.entry_count
        cdef uint32_t dn_node, norm, dn_hash
        cdef Py_ssize_t at, count = 0, columns = 0, i, k
        cdef Entry *e
        cdef Item *item
        cdef const uint16_t *layout
        cdef uint16_t attribute
        cdef object value
        if self.finished or parent >= index or (parent < 0) != (index == 0) or (kind == KIND_BASE) != (index == 0):
            raise ValueError("an entry out of order")
        if parent > 0 and (kind == KIND_CONTAINER or kind_of(<Entry *>self.entries.data + parent) != KIND_CONTAINER):
            raise ValueError("an entry out of order")
        if len(names) != len(values):
            raise ValueError("as many values as names")
        layout = self.layout_of(names)
        dn_hash = self.ahead(K_DN, dn)
        for k in range(len(values)):
            value = values[k]
            if type(value) is bytes:
                self.hashes[k] = self.ahead(self.kinds[layout[k]], <bytes>value)
        dn_node = self.hashed(dn_hash, K_DN, dn, normal)
        norm = norm_at(self.nodes.data, dn_node)
        if norm == 0:
            raise ValueError("no DN: %r" % dn)
        if (<Node *>(self.nodes.data + norm)).kind & TAKEN:
            raise ValueError("two entries with the DN %r" % dn)
        (<Node *>(self.nodes.data + norm)).kind |= TAKEN
        if index == 0:
            self.base_dn = dn_node
        if kind == KIND_USER:
            self.note_user(user_pk, index, dn_node if login is None else self.node(K_CASE_EXACT, login))
        elif kind == KIND_VIRTUAL_GROUP:
            self.note_twin(user_pk, index)
        for k in range(len(values)):
            attribute = layout[k]
            value = values[k]
            if not value:
                continue
            item = self.row + count
            if value is self.same[attribute]:
                item[0] = self.same_items[attribute]
                if self.flags[attribute] & FLAG_INDEXED:
                    self.mark_all(item, index)
            else:
                self.put_value(attribute, value, self.hashes[k], index, item)
                self.same[attribute] = value
                self.same_items[attribute] = item[0]
            count += 1
            if item.form == FORM_NODE and item.ref == dn_node and self.kinds[attribute] == K_DN:
                item.where = IS_DN
                item.ref = 0
            elif self.is_common[attribute]:
                item.where = IN_SHAPE
            else:
                item.where = IN_RECORD
                # What is the same is kept once; of many custom attributes not each is compared with each.
                i = columns - 1
                while i >= 0 and i > columns - 16 and (
                    self.columns[i] != item.ref or self.is_list[i] != (item.form != FORM_NODE)
                ):
                    i -= 1
                if i < 0 or i <= columns - 16:
                    i = columns
                    columns += 1
                    self.columns[i] = item.ref
                    self.is_list[i] = item.form != FORM_NODE
                item.ref = <uint32_t>i
        at = block_take(&self.entries, sizeof(Entry))
        e = <Entry *>(self.entries.data + at)
        e.dn = dn_node
        e.record = <uint32_t>self.records.size
        e.span = index + 1 if kind <= KIND_CONTAINER else <uint32_t>parent
        e.key = NO_KEY
        if kind == KIND_USER or kind == KIND_VIRTUAL_GROUP:
            e.key = NO_KEY if user_pk < 0 else <uint32_t>user_pk
        elif kind == KIND_GROUP and holders is not None and len(holders):
            e.key = self.put_links(holders.entries)
        e = <Entry *>(self.entries.data + at)
        e.form = kind | self.shape(count, columns) << 8
        at = block_take(&self.records, 4 * columns)
        memcpy(self.records.data + at, self.columns, 4 * columns)
        self.entry_count += 1
        # What is above it reaches to here.
        e = <Entry *>self.entries.data
        e.span = index + 1
        if parent > 0:
            (e + parent).span = index + 1
        return index

    cdef const uint16_t *layout_of(self, tuple names) except NULL:
        """The attributes of these names; most entries of a kind have the same, and the same object."""
        cdef bytes layout
        cdef uint16_t *p
        cdef Py_ssize_t i, at
        if names is not self.last_names:
            layout = self.layouts.get(names)
            if layout is None:
                if len(names) > len(self.attribute_rows):
                    raise ValueError("more names than attributes")
                layout = PyBytes_FromStringAndSize(NULL, len(names) * sizeof(uint16_t))
                p = <uint16_t *>PyBytes_AS_STRING(layout)
                for i in range(len(names)):
                    at = self.index_of(names[i])
                    if not 0 <= at < len(self.attribute_rows):
                        raise IndexError("no such attribute")
                    p[i] = <uint16_t>at
                self.layouts[names] = layout
            self.last_names = names
            self.last_layout = layout
        return <const uint16_t *>PyBytes_AS_STRING(self.last_layout)

    cdef uint32_t ahead(self, int kind, bytes value) noexcept:
        """The hash of a value, and what will be read of the table is on its way: it fits into no cache."""
        cdef uint32_t hash = hash_octets(kind, <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        __builtin_prefetch(self.interned + slot_of(hash, self.slots))
        return hash

    cdef int put_value(self, uint16_t attribute, object value, uint32_t hash, uint32_t entry, Item *item) except -1:
        """Form and reference of a value that is not empty."""
        cdef uint32_t ref
        item.attribute = attribute
        item.where = IN_SHAPE
        if type(value) is bytes:
            item.ref = self.hashed(hash, self.kinds[attribute], <bytes>value, None)
            item.form = FORM_NODE
            if self.flags[attribute] & FLAG_INDEXED:
                self.mark(item.ref, entry)
        elif isinstance(value, Links):
            item.ref = self.put_links((<Links>value).entries)
            item.form = FORM_LOGINS if (<Links>value).logins else FORM_DNS
        else:
            item.form = self.put_many(attribute, value, entry, &ref)
            item.ref = ref
        return 0

    cdef int mark_all(self, const Item *item, uint32_t entry) except -1:
        """Remember that `entry` holds these values, which another one holds, too."""
        cdef Py_ssize_t i
        cdef const List *lst
        if item.form == FORM_NODE:
            self.mark(item.ref, entry)
        elif item.form == FORM_ENCODED or item.form == FORM_LIST:
            lst = <const List *>(self.lists.data + item.ref)
            for i in range(lst.count):
                self.mark(lst.refs[i], entry)
        return 0

    cdef Py_ssize_t index_of(self, object description) except? -1:
        cdef object found
        if isinstance(description, int):
            return description
        found = self.indices.get(description)
        if found is None:
            found = self.indices[(<str>description).lower()]
        return found

    cdef int note_user(self, object pk, uint32_t index, uint32_t login) except -1:
        cdef Py_ssize_t at
        if self.user_count == 0:
            self.logins_from = index
        elif index != self.logins_from + self.user_count:
            raise ValueError("users apart from each other")
        at = block_take(&self.logins, 4)
        (<uint32_t *>(self.logins.data + at))[0] = login
        self.user_count += 1
        if pk >= 0:
            self.users.append((pk, index))
        return 0

    cdef int note_twin(self, object pk, uint32_t index) except -1:
        """The virtual groups come in the order of their users, or nobody relies on it."""
        cdef uint32_t user
        cdef Entry *e
        if self.twin_count == 0:
            self.twins_from = index
        user = self.logins_from + self.twin_count
        self.twin_count += 1
        if self.twin_count > self.user_count or index - self.twins_from != user - self.logins_from or pk < 0:
            self.has_twins = False
        else:
            e = <Entry *>(self.entries.data) + user
            self.has_twins &= e.key == <uint32_t>pk
        return 0

    cdef uint32_t shape(self, Py_ssize_t count, Py_ssize_t columns) except 0xFFFFFFFF:
        """Number of the shape in `row`."""
        cdef object key = PyBytes_FromStringAndSize(<char *>self.row, count * sizeof(Item))
        cdef object found = self.shape_numbers.get(key)
        cdef Py_ssize_t at
        cdef Shape *shape
        if found is not None:
            return found
        if len(self.shape_numbers) >= 1 << 24:
            raise ValueError("more than 16777216 kinds of entries")
        at = block_take(&self.shapes, sizeof(Shape))
        shape = <Shape *>(self.shapes.data + at)
        shape.items = <uint32_t>(self.items.size // <Py_ssize_t>sizeof(Item))
        shape.count = <uint16_t>count
        shape.columns = <uint16_t>columns
        at = block_take(&self.items, count * sizeof(Item))
        memcpy(self.items.data + at, self.row, count * sizeof(Item))
        self.shape_numbers[key] = found = len(self.shape_numbers)
        return found

    cdef int put_many(self, int attribute, object values, uint32_t entry, uint32_t *ref) except -1:
        """Form of the item."""
        cdef int kind = self.kinds[attribute]
        cdef bint indexed = self.flags[attribute] & FLAG_INDEXED
        cdef Py_ssize_t count = 0, i
        cdef Py_ssize_t room = len(values)
        cdef uint32_t *refs = <uint32_t *>zeroed(room * 4)
        cdef uint32_t node, norm
        cdef object found, key
        cdef int form
        cdef set seen = set() if room > LONG else None
        try:
            for value in values:
                node = self.node(kind, value)
                norm = norm_at(self.nodes.data, node) or node
                # RFC 4512 2.2: no two values of one attribute are equivalent.
                if seen is not None:
                    if norm in seen:
                        continue
                    seen.add(norm)
                else:
                    i = 0
                    while i < count and (norm_at(self.nodes.data, refs[i]) or refs[i]) != norm:
                        i += 1
                    if i < count:
                        continue
                refs[count] = node
                count += 1
                if indexed:
                    self.mark(node, entry)
            if count == 1:
                ref[0] = refs[0]
                return FORM_NODE
            form = FORM_LIST if kind == K_DN or count > LONG else FORM_ENCODED
            key = (attribute if form == FORM_ENCODED else -1, PyBytes_FromStringAndSize(<char *>refs, count * 4))
            found = self.sets.get(key)
            if found is None:
                found = self.sets[key] = self.put_list(attribute, form, refs, count)
            ref[0] = found
            return form
        finally:
            PyMem_RawFree(refs)

    cdef uint32_t put_list(self, int attribute, int form, const uint32_t *refs, Py_ssize_t count) except? 0:
        """Offset inside the section of lists."""
        cdef Py_ssize_t i, octets = 0, at, inner
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

    cdef uint32_t put_links(self, bytes entries) except? 0:
        """Offset of a list of entries, some of which may be yet to come."""
        cdef Py_ssize_t count = PyBytes_GET_SIZE(entries) // 4, at
        cdef List *lst
        cdef object found
        if self.last_links is entries:
            return self.last_list
        found = self.linked.get(entries)
        if found is None:
            at = block_take(&self.lists, 8 + 4 * count)
            lst = <List *>(self.lists.data + at)
            lst.count = <uint32_t>count
            memcpy(&lst.refs[0], PyBytes_AS_STRING(entries), count * 4)
            found = self.linked[entries] = at
            at = block_take(&self.links, 4)
            (<uint32_t *>(self.links.data + at))[0] = <uint32_t>found
        self.last_links = entries
        self.last_list = found
        return self.last_list

    # -- putting together -------------------------------------------------------------------------

    def finish(self, generation):
        cdef Block out
        cdef Header *h
        cdef Py_ssize_t i
        cdef uint32_t lists_size = <uint32_t>self.lists.size, records_size = <uint32_t>self.records.size
        cdef uint32_t shape_count, item_count
        cdef Entry *e
        cdef bytes arena
        if self.finished or self.entry_count == 0:
            raise ValueError("nothing to finish")
        self.finished = True
        self.sets = self.linked = self.shape_numbers = None
        self.measure_links()
        shape_count = <uint32_t>(self.shapes.size // <Py_ssize_t>sizeof(Shape))
        item_count = <uint32_t>(self.items.size // <Py_ssize_t>sizeof(Item))
        PyMem_RawFree(self.interned)
        self.interned = NULL
        out = self.nodes
        memset(&self.nodes, 0, sizeof(Block))
        try:
            h = <Header *>out.data
            h.nodes = sizeof(Header)
            h.nodes_end = <uint32_t>out.size
            block_append(&out, &self.lists)
            block_append(&out, &self.records)
            block_append(&out, &self.shapes)
            block_append(&out, &self.items)
            block_append(&out, &self.entries)
            block_append(&out, &self.logins)
            h = <Header *>out.data
            h.lists = <uint32_t>self.lists.room
            h.lists_end = h.lists + lists_size
            h.records = <uint32_t>self.records.room
            h.records_end = h.records + records_size
            h.shapes = <uint32_t>self.shapes.room
            h.shape_count = shape_count
            h.items = <uint32_t>self.items.room
            h.item_count = item_count
            h.entries = <uint32_t>self.entries.room
            h.entry_count = self.entry_count
            h.logins = <uint32_t>self.logins.room
            h.logins_from = self.logins_from
            h.logins_end = self.logins_from + self.user_count
            if self.has_twins and self.twin_count == self.user_count:
                h.twin = self.twins_from - self.logins_from
            for i in range(self.entry_count):
                e = <Entry *>(out.data + h.entries) + i
                e.record += h.records
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
            PyMem_RawFree(out.data)
        digest = hashlib.blake2b(memoryview(arena)[CHECKSUM_FROM:], digest_size=16).digest()
        # The object is not shared yet.
        memcpy(PyBytes_AS_STRING(arena) + 8, PyBytes_AS_STRING(digest), 16)
        return arena

    cdef int measure_links(self) except -1:
        """Now that every entry is there: how long the lists of their DNs are."""
        cdef Py_ssize_t i
        cdef uint32_t k
        cdef uint64_t octets
        cdef List *lst
        cdef const Entry *e
        cdef const uint8_t *tlv
        for i in range(self.links.size // 4):
            lst = <List *>(self.lists.data + (<uint32_t *>self.links.data)[i])
            octets = 0
            for k in range(lst.count):
                if lst.refs[k] >= self.entry_count or (k and lst.refs[k] <= lst.refs[k - 1]):
                    raise ValueError("a list of entries out of order")
                e = <const Entry *>self.entries.data + lst.refs[k]
                if kind_of(e) != KIND_USER and kind_of(e) != KIND_GROUP:
                    raise ValueError("a member that is no user and no group")
                tlv = self.nodes.data + e.dn + NODE_HEADER
                octets += tlv_header(tlv) + tlv_content(tlv)
            if octets > MAX_ARENA:
                raise ValueError("the directory does not fit into 4 GiB")
            lst.octets = <uint32_t>octets
        return 0

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
        cdef Py_ssize_t at = block_take(out, len(self.users) * 4)
        cdef uint32_t *row = <uint32_t *>(out.data + at)
        (<Header *>out.data).users = <uint32_t>at
        (<Header *>out.data).user_count = <uint32_t>len(self.users)
        self.users.sort()
        for _, index in self.users:
            row[0] = index
            row += 1
        return 0

    cdef int put_postings(self, Block *out) except -1:
        """A counting sort of the marks by value; entries come out ascending because they were added so."""
        cdef Py_ssize_t n = self.marks.size // 8, i
        cdef uint32_t *marks = <uint32_t *>self.marks.data
        cdef uint32_t *counts
        cdef uint32_t *firsts
        cdef uint32_t *lasts        # and then: where
        cdef uint32_t k, twin = (<Header *>out.data).twin
        cdef Posting *posting
        (<Header *>out.data).postings = <uint32_t>out.size
        counts = <uint32_t *>zeroed((self.normal_count + 1) * 4)
        firsts = <uint32_t *>PyMem_RawMalloc((self.normal_count + 1) * 4)
        lasts = <uint32_t *>PyMem_RawMalloc((self.normal_count + 1) * 4)
        try:
            if firsts == NULL or lasts == NULL:
                raise MemoryError()
            for i in range(n):
                k = marks[2 * i]
                if counts[k] == 0:
                    firsts[k] = marks[2 * i + 1]
                elif lasts[k] == marks[2 * i + 1]:
                    marks[2 * i] = 0
                    continue
                lasts[k] = marks[2 * i + 1]
                counts[k] += 1
            for k in range(1, self.normal_count + 1):
                if counts[k] < 2 or (counts[k] == 2 and twin and lasts[k] - firsts[k] == twin):
                    continue
                if lasts[k] - firsts[k] + 1 == counts[k]:
                    lasts[k] = <uint32_t>block_take(out, 8)
                    posting = <Posting *>(out.data + lasts[k])
                    posting.count = counts[k]
                    posting.refs[0] = firsts[k]
                else:
                    lasts[k] = <uint32_t>block_take(out, 4 + 4 * <Py_ssize_t>counts[k])
                    firsts[k] = NO_KEY
            for i in range(n):
                k = marks[2 * i]
                if k and counts[k] >= 2 and firsts[k] == NO_KEY:
                    posting = <Posting *>(out.data + lasts[k])
                    posting.refs[posting.count] = marks[2 * i + 1]
                    posting.count += 1
            self.share(out, counts, firsts, lasts, twin)
            (<Header *>out.data).postings_end = <uint32_t>out.size
            self.point(out, counts, firsts, lasts, twin)
        finally:
            PyMem_RawFree(counts)
            PyMem_RawFree(firsts)
            PyMem_RawFree(lasts)
        PyMem_RawFree(self.marks.data)
        self.marks.data = NULL
        return 0

    cdef int share(
        self, Block *out, const uint32_t *counts, const uint32_t *firsts, uint32_t *lasts, uint32_t twin
    ) except -1:
        """Keep equal lists of entries once: those of the classes of groups are long, and all the same."""
        cdef dict known = {}
        cdef Py_ssize_t to = (<Header *>out.data).postings, size
        cdef uint32_t k
        cdef object key, found
        for k in range(1, self.normal_count + 1):
            if counts[k] < 2 or (counts[k] == 2 and twin and lasts[k] - firsts[k] == twin):
                continue
            size = 8
            if firsts[k] == NO_KEY:
                size = 4 + 4 * <Py_ssize_t>counts[k]
                if counts[k] >= SHARED:
                    key = PyBytes_FromStringAndSize(<char *>out.data + lasts[k], size)
                    found = known.get(key)
                    if found is not None:
                        lasts[k] = found
                        continue
                    known[key] = to
            memmove(out.data + to, out.data + lasts[k], size)
            lasts[k] = <uint32_t>to
            to += size
        out.size = to
        return 0

    cdef void point(
        self, Block *out, const uint32_t *counts, const uint32_t *firsts, const uint32_t *lasts, uint32_t twin
    ) noexcept:
        """Replace the running numbers in the normal nodes by what they stand for."""
        cdef uint32_t at = (<Header *>out.data).nodes, end = (<Header *>out.data).nodes_end, k
        cdef Node *n
        while at < end:
            n = <Node *>(out.data + at)
            if n.kind & NORMAL:
                k = n.link
                if counts[k] == 0:
                    n.link = 0
                elif counts[k] == 1:
                    n.link = firsts[k]
                    n.kind |= POSTING_ONE
                elif firsts[k] == NO_KEY:
                    n.link = lasts[k]
                elif counts[k] == 2 and twin and lasts[k] - firsts[k] == twin:
                    n.link = firsts[k]
                    n.kind |= POSTING_TWINS
                else:
                    n.link = lasts[k]
                    n.kind |= POSTING_RANGE
            at += node_size(n)

    cdef int put_values(self, Block *out) except -1:
        """Open addressing: normal form -> node, three quarters full.  The two bits that an offset leaves tell most others
        apart without a look at them."""
        cdef uint32_t count = self.normal_count - self.entry_count
        cdef uint32_t slots = count + count // 3 + 16, slot, hash
        cdef Py_ssize_t table = block_take(out, <Py_ssize_t>slots * 4)
        cdef uint32_t *t = <uint32_t *>(out.data + table)
        cdef uint32_t at = (<Header *>out.data).nodes, end = (<Header *>out.data).nodes_end
        cdef Node *n
        while at < end:
            n = <Node *>(out.data + at)
            if n.kind & TAKEN:
                n.kind &= ~TAKEN
            elif n.kind & NORMAL:
                hash = hash_octets(n.kind & KIND_MASK, &n.tlv[0] + tlv_header(&n.tlv[0]), tlv_content(&n.tlv[0]))
                slot = slot_of(hash, slots)
                while t[slot]:
                    slot = slot + 1 if slot + 1 < slots else 0
                t[slot] = at >> 2 | hash << 30
            at += node_size(n)
        (<Header *>out.data).values = <uint32_t>table
        (<Header *>out.data).value_slots = slots
        return 0

    cdef int put_dns(self, Block *out) except -1:
        """Open addressing: normal DN -> entry index + 1, three quarters full."""
        cdef uint32_t slots = self.entry_count + self.entry_count // 3 + 16, slot, i
        cdef Py_ssize_t table = block_take(out, <Py_ssize_t>slots * 4)
        cdef uint32_t *t = <uint32_t *>(out.data + table)
        cdef const Entry *entries = <const Entry *>(out.data + (<Header *>out.data).entries)
        cdef Node *n
        for i in range(self.entry_count):
            n = <Node *>(out.data + norm_at(out.data, entries[i].dn))
            slot = slot_of(hash_octets(K_DN, &n.tlv[0] + tlv_header(&n.tlv[0]), tlv_content(&n.tlv[0])), slots)
            while t[slot]:
                slot = slot + 1 if slot + 1 < slots else 0
            t[slot] = i + 1
        (<Header *>out.data).dns = <uint32_t>table
        (<Header *>out.data).dn_slots = slots
        return 0


cdef extern from "stdlib.h" nogil:
    void qsort(void *base, size_t count, size_t size, int (*order)(const void *, const void *) noexcept nogil)


cdef int order_refs(const void *a, const void *b) noexcept nogil:
    cdef uint32_t x = (<const uint32_t *>a)[0], y = (<const uint32_t *>b)[0]
    return (x > y) - (x < y)


cdef Py_ssize_t sort_once(uint32_t *refs, Py_ssize_t count) noexcept nogil:
    """Sort, each once; how many there are then."""
    cdef Py_ssize_t i, k, n = 0
    cdef uint32_t one
    if count > 64:
        qsort(refs, count, 4, &order_refs)
    else:
        for i in range(1, count):
            one = refs[i]
            k = i
            while k > 0 and refs[k - 1] > one:
                refs[k] = refs[k - 1]
                k -= 1
            refs[k] = one
    for i in range(count):
        if n == 0 or refs[n - 1] != refs[i]:
            refs[n] = refs[i]
            n += 1
    return n


cdef void *zeroed(Py_ssize_t size) except NULL:
    cdef void *p = PyMem_RawMalloc(size if size else 1)
    if p == NULL:
        raise MemoryError()
    memset(p, 0, size)
    return p


cdef enum:
    NO_FORM = 0
    IS_NORMAL = 1
    IS_FOLDED = 2


cdef int own_form(int kind, const uint8_t *p, Py_ssize_t n, uint8_t *folded) noexcept nogil:
    """What outpost.ldap.matching says of the plainest values, told without a call: octets that are their own normal form,
    or are it in lower case (`folded`); NO_FORM where only that rule can tell."""
    cdef Py_ssize_t i
    cdef uint8_t c, last = 0x20
    cdef bint has_capitals = False
    if n == 0 or kind == K_OCTET_STRING:
        return IS_NORMAL if n else NO_FORM
    if kind == K_CASE_IGNORE or kind == K_CASE_EXACT:
        for i in range(n):
            c = p[i]
            if c < 0x20 or c > 0x7E or (c == 0x20 and last == 0x20):
                return NO_FORM
            has_capitals |= 0x41 <= c <= 0x5A
            last = c
        if last == 0x20:
            return NO_FORM
        if kind == K_CASE_EXACT or not has_capitals:
            return IS_NORMAL
        if n > SMALL:
            return NO_FORM
        for i in range(n):
            folded[i] = p[i] | 0x20 if 0x41 <= p[i] <= 0x5A else p[i]
        return IS_FOLDED
    if kind == K_INTEGER:
        if p[0] == 0x30 and n > 1:
            return NO_FORM
        for i in range(n):
            if not 0x30 <= p[i] <= 0x39:
                return NO_FORM
        return IS_NORMAL
    if kind == K_TIME:
        if n != 15 or p[14] != 0x5A:
            return NO_FORM
        for i in range(14):
            if not 0x30 <= p[i] <= 0x39:
                return NO_FORM
        # Later days than the 28th are those of some months only, and the 29th of February of some years.
        if (
            two(p) + two(p + 2) == 0 or not 1 <= two(p + 4) <= 12 or not 1 <= two(p + 6) <= 31
            or two(p + 6) > 28 and (two(p + 4) == 2 or two(p + 6) > 30 + (two(p + 4) not in (4, 6, 9, 11)))
            or two(p + 8) > 23 or two(p + 10) > 59 or two(p + 12) > 59
        ):
            return NO_FORM
        return IS_NORMAL
    return NO_FORM


cdef inline int two(const uint8_t *p) noexcept nogil:
    return (p[0] - 0x30) * 10 + p[1] - 0x30
