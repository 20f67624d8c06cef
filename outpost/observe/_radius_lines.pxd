# Lines about RADIUS requests, and the counters of the most frequent ones.
cimport cython
from libc.stdint cimport int64_t, uint8_t

from outpost.observe._lines cimport Lines
from outpost.observe._rows cimport Row


@cython.final
cdef class RadiusLines:
    cdef Lines lines
    cdef int64_t requests


@cython.final
cdef class Accepts:
    cdef RadiusLines teller
    cdef Row signed
    cdef Row unsigned
    cdef bytes head         # octets up to the number of the request

    # username: UTF-8; at: seconds since the epoch.
    cdef void tell(self, const uint8_t *username, Py_ssize_t size, bint is_signed, double at) noexcept
