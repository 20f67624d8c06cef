# Counted durations: cells that compiled modules add to without a call into Python.
cimport cython

cdef enum:
    BOUNDS = 11


@cython.final
cdef class Row:
    cdef double cells[BOUNDS + 2]       # per bucket, longer ones, and the sum

    cdef void count(self, double seconds) noexcept
