# What answers requests in C needs of a snapshot; everything else about it is nobody's business, and its layout in
# _arena.pxd. Snapshots, views and searches are the objects of _snapshot.pyi; whoever passes others crashes.
from libc.stdint cimport uint8_t, uint32_t

from outpost._fastber cimport Span


cdef struct Output:
    uint8_t *data               # replaced by a larger block of PyMem when it has to grow, if it is `fixed` not freed
    uint8_t *fixed
    Py_ssize_t size
    Py_ssize_t room


cdef uint8_t *reserve(Output *out, Py_ssize_t more) except NULL                 # room for `more` octets at the end

# The normal form of a DN that has it once it is in lower case (`outpost.ldap.dn.SIMPLE`); False for others. out: as large.
cdef bint put_simple_dn(const uint8_t *dn, Py_ssize_t size, uint8_t *out) noexcept nogil

# resultCode of a Compare, as Snapshot.compare. Raises DecodeError if `dn` is no DN.
cdef int compare_at(object snapshot, object view, const Span *dn, const Span *attribute, const Span *value) except -1

# A search that was never used, or is over, plans another one: False if there is no such base. limit: entries, 0 for all.
# filter and attributes: as the decoder has validated them, the attributes without their SEQUENCE.
cdef object idle_search()
cdef bint plan_search(
    object search, object snapshot, object view, uint32_t message_id, const Span *base, int scope, bint types_only,
    uint32_t limit, const Span *filter, const Span *attributes
) except -1
# Further entries as Search.read gives them; True if there are no more. sent: so far; code: final if there are no more.
cdef bint read_search(
    object search, Output *out, Py_ssize_t size, Py_ssize_t examined, uint32_t *sent, int *code
) except -1
# A search that is over is to hold nothing until it is used again.
cdef void rest_search(object search) noexcept
