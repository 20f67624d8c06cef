from libc.stdint cimport uint8_t

from outpost.credentials._believed cimport Believed, Who
from outpost.observe._radius_lines cimport Accepts
from outpost.radius._datagrams cimport Datagrams
from outpost.radius._intake cimport Intake, Peer


cdef class Lane:
    # What is always the same for one peer.
    cdef object provider
    cdef object source
    cdef str app
    cdef str client
    cdef bytes probe_user
    cdef bint strips_realm
    cdef Accepts accepts        # None where the observer wants to be called
    cdef Who who                # None where the gate has to be called


cdef class Express:
    cdef object exchange
    cdef Intake intake
    cdef object observer
    cdef object gate
    cdef Believed believed      # None where the gate has to be called
    cdef dict lasting
    cdef object general
    cdef object unknown
    cdef object accepted
    cdef object clock
    cdef object epoch
    # During one turn.
    cdef double now
    cdef double at
    cdef object table
    cdef dict peers
    cdef int take(self, Datagrams socket, int i) except -1
    cdef int queue(self, Datagrams socket, const uint8_t *path, int path_size, octets) except -1
    cdef Peer peer(self, bytes address)
    cdef bint pass_through(
        self, Datagrams socket, const uint8_t *raw, Py_ssize_t received, bytes address, uint8_t *key, int path_size
    ) except -1
    cdef object known(self, Lane lane, const uint8_t *name, int name_size, const uint8_t *secret, int secret_size)
    cdef bytes attributes(self, accepted, client)
