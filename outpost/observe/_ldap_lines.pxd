# Lines about LDAP requests, rendered from the octets of the request.
cimport cython
from libc.stdint cimport int64_t, uint8_t

from outpost._fastber cimport Span
from outpost.observe._lines cimport Lines


@cython.final
cdef class LdapLines:
    cdef readonly Lines lines
    cdef int64_t requests           # the number of the last one
    cdef object search_apart
    cdef object other_apart

    cpdef bind(self, double at, str client, bytes bind_dn, double took, int code, str reason)
    cpdef operation(self, double at, str kind, str client, bytes bind_dn, double took, int code)

    # As the methods of _ldap_lines.pyi; False where the line has to be made in Python.
    cdef bint put_bind(
        self, double at, str client, const uint8_t *dn, Py_ssize_t dn_size, double took, int code, str reason
    ) noexcept
    cdef bint put_search(
        self, double at, str client, const uint8_t *dn, Py_ssize_t dn_size, const Span *base, int scope,
        const Span *filter, const Span *attributes, double took, int code, str reason, Py_ssize_t entries
    ) noexcept
    cdef bint put_operation(
        self, double at, str kind, str client, const uint8_t *dn, Py_ssize_t dn_size, double took, int code
    ) noexcept
    cdef bint dn_and_client(self, const uint8_t *dn, Py_ssize_t dn_size, str client) noexcept
    cdef void rest(self, double at, int code, str reason) noexcept
