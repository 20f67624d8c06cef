# Layout of the compiled directory: one contiguous arena, offsets of 32 bits from its start, host byte order.
#
#   header | nodes | lists | records | entries | attributes | names | users | postings | value table | DN table
#
# Node: a value, once per (kind, octets).  `norm` is the offset of the node that holds its normal form, its own if it is
# normal, 0 if it has none (then nothing equals it).  `postings` of a normal node: offset of a List of entries.
# Octets of the node's TLV follow at NODE_HEADER.  Nodes and lists are aligned to 4.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    VERSION = 1
    NODE_HEADER = 9
    NO_USER = 0xFFFFFFFF

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
    uint32_t entries
    uint32_t attributes, attribute_count
    uint32_t names, name_count
    uint32_t users, user_count
    uint32_t postings, postings_end
    uint32_t values, value_slots        # slots: a power of two
    uint32_t dns, dn_slots
    uint32_t base_dn                    # Node
    uint32_t custom_from                # attributes from here on are custom

cdef struct Node:
    uint32_t norm
    uint32_t postings
    uint8_t kind
    uint8_t tlv[2]

cdef struct List:
    uint32_t count
    uint32_t octets         # of all TLVs; FORM_ENCODED: of the PartialAttribute behind refs
    uint32_t refs[1]

cdef struct Item:
    uint16_t attribute
    uint16_t form
    uint32_t ref

cdef struct Entry:
    uint32_t dn             # Node
    uint32_t record         # `items` Items
    uint32_t parent         # index; its own for the base
    uint32_t end            # index behind the last entry below this one
    uint32_t pk             # primary key of the user, or NO_USER
    uint16_t items
    uint16_t kind

cdef struct Attribute:
    uint32_t type           # Node whose TLV is the attribute description
    uint16_t kind
    uint16_t flags

cdef struct Name:
    uint32_t text           # Node, lower case
    uint32_t attribute

cdef struct UserRow:
    uint32_t pk
    uint32_t entry


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
