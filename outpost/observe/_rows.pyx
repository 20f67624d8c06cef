# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Counted durations: cells that compiled modules add to without a call into Python."""
cimport cython

__all__ = ("BUCKETS", "Row")

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

cdef double[BOUNDS] bounds
for _i in range(BOUNDS):
    bounds[_i] = BUCKETS[_i]


@cython.final
cdef class Row:
    cdef void count(self, double seconds) noexcept:
        cdef int i = 0
        # Nearly all are in the first bucket.
        while i < BOUNDS and seconds > bounds[i]:
            i += 1
        self.cells[i] += 1
        self.cells[BOUNDS + 1] += seconds

    def observe(self, double seconds):
        self.count(seconds)

    def listed(self):
        return [self.cells[i] for i in range(BOUNDS + 2)]
