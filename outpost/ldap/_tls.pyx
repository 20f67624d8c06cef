# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""TLS between a plain transport and a channel: octets through the ssl module's memory, in the turn they come in."""
# One read, one write: what a handshake's end, its ticket and the first answers have to say goes out together.
cimport cython
from cpython.object cimport PyObject_Size

from asyncio import get_running_loop
from ssl import MemoryBIO, SSLError, SSLWantReadError, SSLZeroReturnError

__all__ = ("TlsEnd",)

cdef extern from "netinet/in.h" nogil:
    enum: IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    enum: TCP_QUICKACK

cdef extern from "sys/socket.h" nogil:
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)

cdef enum:
    PIECE = 65536           # octets encrypted at a time: the ssl module's memory never shrinks

cdef enum:
    SHAKING
    OPEN
    CLOSED


cdef class TlsEnd:
    cdef object wire
    cdef object raw
    cdef object tls
    cdef object incoming
    cdef object outgoing
    cdef object scratch
    cdef int state
    cdef bint is_paused
    cdef bint has_written       # since it was last asked

    def __init__(self, wire not None, context not None, memoryview scratch not None):
        self.wire = wire
        self.scratch = scratch
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    # -- the plain transport's side -----------------------------------------------------------------

    def connection_made(self, transport):
        self.raw = transport

    def get_buffer(self, sizehint):
        return self.scratch

    def buffer_updated(self, Py_ssize_t nbytes):
        if self.state == CLOSED:
            return
        self.incoming.write(self.scratch[:nbytes])
        if self.state == OPEN:
            self.deliver()
            return
        self.has_written = False
        if self.shake():
            self.deliver()
        if not self.has_written and self.state != CLOSED:
            self.acknowledge()

    def eof_received(self):
        # Without close_notify somebody else may have cut it off (RFC 8446 6.1): nothing that came last is believed.
        return False

    def connection_lost(self, exc):
        wire, self.wire = self.wire, None
        self.state = CLOSED
        self.raw = None
        if wire is not None:
            wire.connection_lost(exc)

    def pause_writing(self):
        if self.wire is not None:
            self.wire.pause_writing()

    def resume_writing(self):
        if self.wire is not None:
            self.wire.resume_writing()

    # -- the channel's side -------------------------------------------------------------------------

    def write(self, bytes data not None):
        cdef Py_ssize_t at = 0, size = len(data)
        if size <= PIECE:
            self.encrypt(data)
            return
        octets = memoryview(data)
        while at < size:
            self.encrypt(octets[at:at + PIECE])
            at += PIECE

    def close(self):
        if self.state == CLOSED:
            return
        if self.state == OPEN:
            self.state = CLOSED
            try:
                self.tls.unwrap()
            except SSLError:
                # Sent; what the client still has to say is not waited for.
                pass
            self.flush()
        self.state = CLOSED
        self.raw.close()

    def abort(self):
        self.state = CLOSED
        if self.raw is not None:
            self.raw.abort()

    def is_closing(self):
        return self.state == CLOSED or self.raw.is_closing()

    def pause_reading(self):
        if self.state != CLOSED:
            self.is_paused = True
            self.raw.pause_reading()

    def resume_reading(self):
        if self.state == CLOSED:
            return
        self.is_paused = False
        self.raw.resume_reading()
        if self.incoming.pending or self.tls.pending():
            get_running_loop().call_soon(self.go_on)

    def set_write_buffer_limits(self, high=None, low=None):
        self.raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name, default=None):
        if name == "ssl_object":
            return self.tls
        return default if self.raw is None else self.raw.get_extra_info(name, default)

    def go_on(self):
        """Decrypt what came before reading was paused."""
        if self.state != OPEN:
            return
        try:
            self.deliver()
        except BaseException:
            # In the transport's own callbacks it does the same.
            self.abort()
            raise

    # -- inside -------------------------------------------------------------------------------------

    cdef bint shake(self) except -1:
        """Go on with the handshake; whether it is done."""
        try:
            self.tls.do_handshake()
        except SSLWantReadError:
            self.flush()
            return False
        except SSLError:
            self.fail()
            return False
        self.state = OPEN
        self.wire.encrypted(self)
        return True

    cdef int deliver(self) except -1:
        """Give the channel what can be decrypted while it wants it."""
        cdef Py_ssize_t waiting, size
        while self.state == OPEN and not self.is_paused:
            waiting = self.incoming.pending
            if waiting == 0:
                waiting = self.tls.pending()
                if waiting == 0:
                    break
            room = self.wire.get_buffer(waiting)
            if self.state != OPEN:
                return 0
            try:
                size = self.tls.read(PyObject_Size(room), room)
            except SSLWantReadError:
                break
            except SSLZeroReturnError:
                size = 0
            except SSLError:
                self.fail()
                return 0
            if size == 0:
                self.wire.eof_received()
                self.close()
                return 0
            self.wire.buffer_updated(size)
        if self.state == OPEN:
            self.flush()
        return 0

    cdef int encrypt(self, octets) except -1:
        if self.state != OPEN:
            return 0
        try:
            self.tls.write(octets)
        except SSLError:
            self.fail()
            return 0
        self.flush()
        return 0

    cdef int flush(self) except -1:
        if self.outgoing.pending:
            self.has_written = True
            self.raw.write(self.outgoing.read())
        return 0

    cdef int acknowledge(self) except -1:
        """Let the client know at once that its piece of the handshake has come, where nothing that is sent does.

        Until then a client that gathers small pieces (RFC 9293 3.7.4) holds back what follows: Java its Finished, which
        it sends apart from ChangeCipherSpec, others their first request where no ticket comes. Linux would wait 40 ms
        for something to send along (3.8.6.3).
        """
        cdef int fd, on = 1
        there = self.raw.get_extra_info("socket")
        if there is not None:
            fd = there.fileno()
            setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on))
        return 0

    cdef int fail(self) except -1:
        """Tell the client what was wrong (RFC 8446 6.2), which lies there already, and close."""
        self.state = CLOSED
        self.flush()
        self.raw.close()
        return 0
