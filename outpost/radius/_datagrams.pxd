from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<sys/socket.h>" nogil:
    ctypedef uint32_t socklen_t
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cdef struct sockaddr_storage:
        uint16_t ss_family

cdef enum:
    BATCH = 64
    # RFC 2865 3: longer packets are cut, as "octets outside the range of the Length field MUST be treated as padding".
    LONGEST_DATAGRAM = 4096
    # tag, port, address, local address
    PATH4 = 1 + 2 + 4 + 4
    # tag, port, address, scope, local address, interface
    PATH6 = 1 + 2 + 16 + 4 + 16 + 4
    ADDRESS_AT = 3


cdef struct Slots:
    # As many messages, and all that they point to.
    mmsghdr *headers
    iovec *vectors
    sockaddr_storage *names
    size_t *controls        # size_t: cmsg(3) wants its alignment
    uint8_t *buffers


cdef class Datagrams:
    cdef readonly int fileno
    cdef readonly int batch
    cdef uint8_t tag
    cdef Slots received
    cdef int count
    cdef Slots leaving
    cdef int queued
    cdef int lost
    # Take what waits: the number of datagrams, which stay until the next call. Raises OSError.
    cdef int fill(self) except -1
    # Where an answer to datagram `i` goes, in `path`; its size, 0 for no address that a path is made of.
    cdef int path(self, int i, uint8_t *path) noexcept
    # Room for 4096 octets of the next reply to queue.
    cdef uint8_t *room(self) noexcept
    # Send `size` octets of `room` soon.
    cdef void queue(self, const uint8_t *path, int path_size, size_t size) noexcept
    # Send what is queued; never waits. What the system does not take is lost, and counted.
    cdef void flush(self) noexcept
