# Layout of the compiled directory: one contiguous arena, offsets of 32 bits from its start, host byte order.
#
#   header | nodes | lists | records | shapes | items | entries | attributes | names | users | logins | postings |
#   value table | DN table
#
# Node: a value, once per (kind, octets).  `link` of one that is its own normal form: who holds it in an indexed attribute,
# in the form that its `kind` says.  Of others: the offset of the node that holds the normal form, 0 if there is none (then
# nothing equals it).  Octets of the node's TLV follow at NODE_HEADER.  Nodes and lists are aligned to 4.
#
# A normal value is found in the value table, but for the DNs of entries, which are in the DN table.
#
# Shape: which attributes an entry has, and where each finds its value.  What all entries of a shape say alike lies in
# the shape, what differs in the entry's record, one uint32 a column; equal values share a column.
#
# Below the base are containers, and below them are entries without any.
#
# Membership is a relation between entries: a group's `member` and `memberUid` and a user's `memberOf` are lists of entry
# indices, ascending, and each is the other's index.  No postings are kept for it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    VERSION = 3
    NODE_HEADER = 5
    NO_KEY = 0xFFFFFFFF

    # Node.kind: a matching kind, whether it is its own normal form, and what the `link` of one that is means
    KIND_MASK = 0x0F
    POSTING_ONE = 0x10      # an entry
    POSTING_TWINS = 0x20    # an entry, and the one `Header.twin` behind it
    POSTING_RANGE = 0x30    # offset of a Posting: `count` entries from refs[0] on
    POSTING_MASK = 0x30     # none of them: 0, or offset of a Posting, which many nodes may share
    NORMAL = 0x40

    # Entry.kind
    KIND_BASE = 0
    KIND_CONTAINER = 1
    KIND_USER = 2
    KIND_GROUP = 3
    KIND_VIRTUAL_GROUP = 4

    # Item.form
    FORM_NODE = 0           # ref is a Node: the only value
    FORM_ENCODED = 1        # ref is a List of nodes, the whole PartialAttribute encoded behind it
    FORM_LIST = 2           # ref is a List of nodes
    FORM_DNS = 3            # ref is a List of entries: their DNs
    FORM_LOGINS = 4         # the same: the login names of the users among them, who come first

    # Item.where
    IN_RECORD = 0           # ref is a column of the entry's record
    IN_SHAPE = 1            # ref itself
    IS_DN = 2               # the entry's DN

    # Attribute.flags, as in outpost.ldap.schema
    FLAG_OPERATIONAL = 1
    FLAG_INDEXED = 2
    FLAG_MEMBERSHIP = 4
    FLAG_PRIVATE = 8

cdef struct Header:
    uint8_t magic[8]
    uint8_t checksum[16]    # BLAKE2b of everything behind it
    uint32_t version
    uint32_t entry_count
    uint64_t size
    uint64_t generation
    uint32_t nodes, nodes_end
    uint32_t lists, lists_end
    uint32_t records, records_end
    uint32_t shapes, shape_count
    uint32_t items, item_count
    uint32_t entries
    uint32_t attributes, attribute_count
    uint32_t names, name_count
    uint32_t users, user_count                  # uint32s: entries, by primary key of the user
    uint32_t logins, logins_from, logins_end    # a Node for each entry from logins_from on
    uint32_t twin                               # from a user to his virtual group
    uint32_t postings, postings_end
    uint32_t values, value_slots
    uint32_t dns, dn_slots
    uint32_t base_dn                    # Node
    uint32_t custom_from                # attributes from here on are custom

cdef struct Node:
    uint32_t link
    uint8_t kind
    uint8_t tlv[2]

cdef struct List:
    uint32_t count
    uint32_t octets         # of all TLVs, for FORM_DNS and FORM_LOGINS of the DNs'; FORM_ENCODED: of the PartialAttribute behind refs
    uint32_t refs[1]

cdef struct Posting:
    uint32_t count
    uint32_t refs[1]        # entries, ascending

cdef struct Shape:
    uint32_t items          # index of the first one
    uint16_t count
    uint16_t columns

cdef struct Item:
    uint16_t attribute
    uint8_t form
    uint8_t where
    uint32_t ref

cdef struct Entry:
    uint32_t dn             # Node
    uint32_t record         # uint32s, as many as the shape has columns
    uint32_t span           # base, container: index behind the last entry below it; others: index of the parent
    uint32_t key            # user, virtual group: primary key of the user; group: List of those whose memberOf names it
    uint32_t form           # kind in the low octet, shape above

cdef struct Attribute:
    uint32_t type           # Node whose TLV is the attribute description
    uint16_t kind
    uint16_t flags

cdef struct Name:
    uint32_t text           # Node, lower case
    uint32_t attribute


cdef inline uint32_t norm_at(const uint8_t *base, uint32_t at) noexcept nogil:
    """The node that holds the normal form of the node at `at`, or 0."""
    cdef const Node *n = <const Node *>(base + at)
    return at if n.kind & NORMAL else n.link


cdef inline uint32_t kind_of(const Entry *e) noexcept nogil:
    return e.form & 0xFF


cdef inline uint32_t parent_of(const Entry *e) noexcept nogil:
    """Index of the entry above; its own for the base."""
    return 0 if kind_of(e) <= KIND_CONTAINER else e.span


cdef inline uint32_t end_of(const Entry *e, uint32_t index) noexcept nogil:
    """Index behind the last entry below this one."""
    return e.span if kind_of(e) <= KIND_CONTAINER else index + 1


cdef inline uint32_t slot_of(uint32_t hash, uint32_t slots) noexcept nogil:
    """Where a search of an open-addressed table of any size begins."""
    return <uint32_t>((<uint64_t>hash * slots) >> 32)


cdef inline uint32_t hash_octets(uint32_t seed, const uint8_t *data, Py_ssize_t size) noexcept nogil:
    """FNV-1a; a table of our own data needs no protection against chosen keys."""
    cdef uint32_t h = <uint32_t>2166136261 ^ (seed * <uint32_t>0x9E3779B1)
    cdef Py_ssize_t i
    for i in range(size):
        h = (h ^ data[i]) * <uint32_t>16777619
    h ^= h >> 15
    return h * <uint32_t>0x85EBCA6B


cdef inline int tlv_header(const uint8_t *tlv) noexcept nogil:
    """Octets before the content of a TLV that we encoded."""
    if tlv[1] < 0x80:
        return 2
    return 2 + (tlv[1] & 0x7F)


cdef inline uint32_t tlv_content(const uint8_t *tlv) noexcept nogil:
    """Octets of the content of a TLV that we encoded."""
    cdef uint32_t n = tlv[1]
    cdef int i, count
    if n < 0x80:
        return n
    count = n & 0x7F
    n = 0
    for i in range(count):
        n = (n << 8) | tlv[2 + i]
    return n


cdef inline uint32_t node_size(const Node *n) noexcept nogil:
    """Octets from a node to the next."""
    return (NODE_HEADER + tlv_header(&n.tlv[0]) + tlv_content(&n.tlv[0]) + 3) & ~<uint32_t>3
