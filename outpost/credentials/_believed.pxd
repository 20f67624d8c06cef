# Accepted logins by keyed hash, in the order in which they were used, looked up without a call into Python.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t


@cython.final
cdef class Entry:
    cdef public object accepted
    cdef public tuple owner
    cdef public str address
    cdef public bytes mark
    cdef public double verified_at
    cdef public double refresh_at
    cdef public double ends_at
    cdef public double offline_until
    cdef public Py_ssize_t cost
    cdef readonly bytes key
    # The entries used before and after this one. Not owned: an entry is linked as long as the table holds it.
    cdef void *older
    cdef void *newer


@cython.final
cdef class Who:
    cdef readonly int64_t provider_pk
    cdef readonly bytes name
    cdef uint8_t service


@cython.final
cdef class Believed:
    cdef uint64_t keyed[8]          # BLAKE2b's state behind the block of the key
    cdef dict entries
    cdef void *oldest
    cdef void *newest
    cdef public double trusted_since
    cdef public double max_age_disconnected
    cdef readonly Py_ssize_t hits
    cdef readonly Py_ssize_t misses

    cdef bytes hashed(
        self, uint8_t kind, int64_t number, const uint8_t *name, Py_ssize_t name_size, const uint8_t *secret, Py_ssize_t size
    )
    cdef bint holds(self, Entry entry, double now, str address)
    # The login if it is believed and not due to be verified again; then it counts as a hit. None changes nothing.
    cdef object known(
        self, Who who, const uint8_t *name, Py_ssize_t name_size, const uint8_t *secret, Py_ssize_t size, double now,
        str address
    )
    cdef void link(self, Entry entry) noexcept
    cdef void unlink(self, Entry entry) noexcept
