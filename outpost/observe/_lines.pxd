# Log lines of requests, one JSON object each, rendered in C where the request was answered.
#
# One line: `begin`, then the fields, keys in alphabetic order, then `end`:
#
#     if lines.begin():
#         lines.raw(b'{"client":"', 11)
#         lines.text(address)
#         lines.raw(b'","timestamp":"', 15)
#         lines.stamp(at)
#         lines.raw(b'","took-ms":', 12)
#         lines.milliseconds(seconds)
#         lines.raw(b'}', 1)
#         lines.end()
#
# Between `begin` and `end` nothing may run that could yield the interpreter lock to another thread that logs: make
# what must be made in Python before. Nothing here raises; a line there is no memory for is dropped and counted.
cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Lines:
    cdef public int threshold
    cdef readonly Py_ssize_t waiting
    cdef readonly Py_ssize_t dropped
    cdef Py_ssize_t pending
    cdef object queue
    cdef object wake
    cdef char *data
    cdef Py_ssize_t size, room      # of the lines not sealed yet
    cdef Py_ssize_t open_lines
    cdef Py_ssize_t line            # where the line being written begins
    cdef bint writing
    cdef bint broken                # there was no memory for it
    cdef bint awake
    cdef int64_t second, millisecond
    cdef char clock[24]             # 2023-11-14T22:13:20.250Z

    cdef bint begin(self) noexcept                                              # False: dropped, write nothing
    cdef void raw(self, const char *p, Py_ssize_t size) noexcept                # as it is
    cdef void text(self, str value) noexcept                                    # escaped; see `escaped`
    cdef void escaped(self, const char *p, Py_ssize_t size) noexcept            # UTF-8, escaped for a JSON string
    cdef void number(self, int64_t value) noexcept
    cdef void milliseconds(self, double seconds) noexcept                       # "1.5", three digits at most
    cdef void stamp(self, double at) noexcept                                   # RFC 3339, of seconds since the epoch
    cdef void end(self) noexcept                                                # adds the newline
    cdef void cancel(self) noexcept                                             # instead of `end`: as if never begun
    cdef bint reserve(self, Py_ssize_t more) noexcept
    cdef int seal(self) except -1
