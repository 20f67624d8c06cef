# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Log lines of requests, one JSON object each, rendered in C where the request was answered."""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport llrint
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memmove

from collections import deque

__all__ = ("Lines",)

cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year
    tm *gmtime_r(const time_t *at, tm *out)

cdef enum:
    KEPT = 262144           # octets of an empty buffer that are not given back
    STAMP = 24              # octets of a timestamp


cdef char *put_digits(char *p, int value, int count) noexcept nogil:
    cdef int i
    for i in range(count - 1, -1, -1):
        p[i] = <char>(0x30 + value % 10)
        value //= 10
    return p + count


cdef inline bint is_plain(uint8_t c) noexcept nogil:
    return c >= 0x20 and c != 0x22 and c != 0x5C


@cython.final
cdef class Lines:
    def __cinit__(self, Py_ssize_t pending, wake, int threshold=20):
        self.pending = pending
        self.wake = wake
        self.threshold = threshold
        self.queue = deque()
        self.second = self.millisecond = -1
        memcpy(self.clock, b"0000-00-00T00:00:00.000Z", STAMP)

    def __dealloc__(self):
        PyMem_Free(self.data)

    # -- writing a line -----------------------------------------------------------------------------

    cdef bint begin(self) noexcept:
        if self.waiting >= self.pending or self.writing:
            self.dropped += 1
            return False
        self.line = self.size
        self.broken = False
        self.writing = True
        return True

    cdef bint reserve(self, Py_ssize_t more) noexcept:
        cdef Py_ssize_t room = self.room
        cdef void *p
        if room - self.size >= more:
            return True
        room = room * 2 if room else 4096
        while room - self.size < more:
            room *= 2
        p = PyMem_Realloc(self.data, room)
        if p == NULL:
            self.broken = True
            return False
        self.data = <char *>p
        self.room = room
        return True

    cdef void raw(self, const char *p, Py_ssize_t size) noexcept:
        if self.reserve(size):
            memcpy(self.data + self.size, p, size)
            self.size += size

    cdef void text(self, str value) noexcept:
        cdef Py_ssize_t size = 0
        cdef const char *p = NULL
        try:
            p = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            # A lone surrogate stands for an octet that was none of a text.
            value = value.encode("utf-8", "backslashreplace").decode()
            p = PyUnicode_AsUTF8AndSize(value, &size)
        self.escaped(p, size)

    cdef void escaped(self, const char *text, Py_ssize_t size) noexcept:
        cdef const uint8_t *p = <const uint8_t *>text
        cdef Py_ssize_t i
        cdef uint8_t c
        cdef char *out
        # No octet becomes more than six.
        if not self.reserve(6 * size):
            return
        out = self.data + self.size
        for i in range(size):
            c = p[i]
            if is_plain(c):
                out[0] = <char>c
                out += 1
                continue
            out[0] = 0x5C
            if c == 0x22 or c == 0x5C:
                out[1] = <char>c
            elif c == 0x0A:
                out[1] = b"n"
            elif c == 0x0D:
                out[1] = b"r"
            elif c == 0x09:
                out[1] = b"t"
            elif c == 0x08:
                out[1] = b"b"
            elif c == 0x0C:
                out[1] = b"f"
            else:
                memcpy(out + 1, b"u00", 3)
                out[4] = <char>(0x30 + (c >> 4))
                out[5] = b"0123456789abcdef"[c & 15]
                out += 4
            out += 2
        self.size = out - self.data

    cdef void number(self, int64_t value) noexcept:
        cdef char digits[24]
        cdef int at = 24
        cdef bint negative = value < 0
        cdef uint8_t digit
        if value == 0:
            self.raw(b"0", 1)
            return
        while value:
            digit = <uint8_t>(-(value % 10) if negative else value % 10)
            at -= 1
            digits[at] = <char>(0x30 + digit)
            value //= 10
        if negative:
            at -= 1
            digits[at] = b"-"
        self.raw(digits + at, 24 - at)

    cdef void milliseconds(self, double seconds) noexcept:
        cdef int64_t micros = llrint(seconds * 1e6) if -1e12 < seconds < 1e12 else 0
        cdef char digits[4]
        cdef int fraction, count = 3
        if micros < 0:
            self.raw(b"-", 1)
            micros = -micros
        self.number(micros // 1000)
        fraction = <int>(micros % 1000)
        digits[0] = b"."
        put_digits(digits + 1, fraction, 3)
        while count > 1 and digits[count] == 0x30:
            count -= 1
        self.raw(digits, 1 + count)

    cdef void stamp(self, double at) noexcept:
        cdef int64_t millisecond = <int64_t>(at * 1000)
        cdef time_t second = <time_t>(millisecond // 1000)
        cdef tm parts
        if millisecond != self.millisecond:
            self.millisecond = millisecond
            if second != self.second:
                self.second = second
                if gmtime_r(&second, &parts) != NULL:
                    put_digits(self.clock, parts.tm_year + 1900, 4)
                    put_digits(self.clock + 5, parts.tm_mon + 1, 2)
                    put_digits(self.clock + 8, parts.tm_mday, 2)
                    put_digits(self.clock + 11, parts.tm_hour, 2)
                    put_digits(self.clock + 14, parts.tm_min, 2)
                    put_digits(self.clock + 17, parts.tm_sec, 2)
            put_digits(self.clock + 20, <int>(millisecond % 1000), 3)
        self.raw(self.clock, STAMP)

    cdef void end(self) noexcept:
        self.raw(b"\n", 1)
        self.writing = False
        if self.broken:
            self.size = self.line
            self.dropped += 1
            return
        self.open_lines += 1
        self.waiting += 1
        if not self.awake:
            self.awake = True
            self.wake()

    cdef void cancel(self) noexcept:
        self.writing = False
        self.size = self.line

    # -- the queue ----------------------------------------------------------------------------------

    cdef int seal(self) except -1:
        """Rendered lines become an element of the queue."""
        cdef Py_ssize_t count = self.open_lines
        cdef Py_ssize_t whole = self.line if self.writing else self.size
        cdef bytes octets
        if count == 0:
            return 0
        octets = PyBytes_FromStringAndSize(self.data, whole)
        # Settled before anything else is made, which may run whatever the interpreter has to clean up.
        self.open_lines = 0
        self.size -= whole
        self.line = 0
        if self.size:
            memmove(self.data, self.data + whole, self.size)
        elif self.room > KEPT:
            PyMem_Free(self.data)
            self.data = NULL
            self.room = 0
        self.queue.append((octets, count))
        return 0

    def drop(self, Py_ssize_t count):
        self.dropped += count

    def put(self, line):
        if self.waiting >= self.pending:
            self.dropped += 1
            return
        self.seal()
        self.queue.append((line, 1))
        self.waiting += 1
        if not self.awake:
            self.awake = True
            self.wake()

    def take(self):
        cdef tuple found
        self.seal()
        if not self.queue:
            self.awake = False
            return None
        found = self.queue.popleft()
        self.waiting -= <Py_ssize_t>found[1]
        return found

    def write(self, tuple fields, double at):
        cdef str key
        cdef Py_ssize_t count = 0
        cdef int64_t fits
        for key, value in fields:
            if type(value) is int:
                fits = value
            elif type(value) is not str and type(value) is not float:
                raise TypeError("a field is a text or a number")
        if not self.begin():
            return
        for key, value in fields:
            self.raw(b',"' if count else b'{"', 2)
            count += 1
            self.text(key)
            self.raw(b'":', 2)
            if key == "timestamp":
                self.raw(b'"', 1)
                self.stamp(at)
                self.raw(b'"', 1)
            elif type(value) is str:
                self.raw(b'"', 1)
                self.text(value)
                self.raw(b'"', 1)
            elif type(value) is int:
                self.number(value)
            else:
                self.milliseconds(value)
        self.raw(b"}", 1)
        self.end()
