# A compiled directory and its views, for those who ask in C.
cimport cython


@cython.final
cdef class Shelf:
    cdef readonly object snapshot
    cdef object full
    cdef object own

    cdef object view_of(self, object identity)
