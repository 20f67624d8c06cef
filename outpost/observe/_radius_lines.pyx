# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Lines about RADIUS requests, and the counters of the most frequent ones."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from outpost.observe._lines cimport Lines
from outpost.observe._rows cimport Row

import json

__all__ = ("Accepts", "RadiusLines")

cdef enum:
    INFO = 20


@cython.final
cdef class RadiusLines:
    def __cinit__(self, Lines lines not None):
        self.lines = lines

    def number(self):
        self.requests += 1
        return self.requests

    def answered(
        self, double at, str app not None, str client not None, str code not None, str reply not None,
        str reason not None, double took, str username not None
    ):
        cdef Lines lines = self.lines
        self.requests += 1
        if not lines.begin():
            return
        lines.raw(b'{"app":"', 8)
        lines.text(app)
        lines.raw(b'","client":"', 12)
        lines.text(client)
        lines.raw(b'","code":"', 10)
        lines.text(code)
        lines.raw(b'","event":"Radius Request","level":"info","logger":"outpost.radius"', 67)
        if reason:
            lines.raw(b',"reason":"', 11)
            lines.text(reason)
            lines.raw(b'"', 1)
        lines.raw(b',"reply":"', 10)
        lines.text(reply)
        lines.raw(b'","requestId":', 14)
        lines.number(self.requests)
        lines.raw(b',"timestamp":"', 14)
        lines.stamp(at)
        lines.raw(b'","took-ms":', 12)
        lines.milliseconds(took)
        lines.raw(b',"username":"', 13)
        lines.text(username)
        lines.raw(b'"}', 2)
        lines.end()


@cython.final
cdef class Accepts:
    def __cinit__(
        self, RadiusLines lines not None, str app not None, str client not None, Row signed not None,
        Row unsigned not None
    ):
        self.teller = lines
        self.signed = signed
        self.unsigned = unsigned
        self.head = (
            '{"app":%s,"client":%s,"code":"Access-Request","event":"Radius Request","level":"info",'
            '"logger":"outpost.radius","reply":"Access-Accept","requestId":'
            % (json.dumps(app, ensure_ascii=False), json.dumps(client))
        ).encode("utf-8", "backslashreplace")

    cdef void tell(self, const uint8_t *username, Py_ssize_t size, bint is_signed, double at) noexcept:
        cdef Lines lines = self.teller.lines
        if is_signed:
            self.signed.count(0.0)
        else:
            self.unsigned.count(0.0)
        if lines.threshold > INFO:
            return
        self.teller.requests += 1
        if not lines.begin():
            return
        lines.raw(PyBytes_AS_STRING(self.head), PyBytes_GET_SIZE(self.head))
        lines.number(self.teller.requests)
        lines.raw(b',"timestamp":"', 14)
        lines.stamp(at)
        lines.raw(b'","took-ms":0.0,"username":"', 28)
        lines.escaped(<const char *>username, size)
        lines.raw(b'"}', 2)
        lines.end()

    def accepted(self, bytes username not None, bint is_signed, double at):
        self.tell(<const uint8_t *>PyBytes_AS_STRING(username), PyBytes_GET_SIZE(username), is_signed, at)
