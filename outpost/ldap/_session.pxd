# The session of a connection: fields that compiled modules read without a call into Python.
cimport cython


@cython.final
cdef class Session:
    cdef readonly str address
    cdef public bint is_secure
    cdef public object certificate
    cdef public bytes bind_dn
    cdef public object provider
    cdef public object identity
    cdef public bint is_changing_password
    cdef readonly dict pages
