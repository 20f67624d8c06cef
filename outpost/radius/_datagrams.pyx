# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Datagrams in batches, answered from the address they were sent to (recvmmsg(2), sendmmsg(2), RFC 3542 6)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

__all__ = ("Datagrams",)

cdef extern from "<sys/socket.h>" nogil:
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    int AF_INET, AF_INET6, MSG_DONTWAIT
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *header)
    uint8_t *CMSG_DATA(cmsghdr *header)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    cdef struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    cdef struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex
    int IPPROTO_IP, IPPROTO_IPV6, IP_PKTINFO, IPV6_PKTINFO

cdef enum:
    CONTROL = 64


cdef int allocate(Slots *slots) except -1:
    cdef int i
    slots.headers = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
    slots.vectors = <iovec *>calloc(BATCH, sizeof(iovec))
    slots.names = <sockaddr_storage *>calloc(BATCH, sizeof(sockaddr_storage))
    slots.controls = <size_t *>calloc(BATCH, CONTROL)
    slots.buffers = <uint8_t *>calloc(BATCH, LONGEST_DATAGRAM)
    if not (slots.headers and slots.vectors and slots.names and slots.controls and slots.buffers):
        raise MemoryError
    for i in range(BATCH):
        slots.vectors[i].iov_base = slots.buffers + i * LONGEST_DATAGRAM
        slots.vectors[i].iov_len = LONGEST_DATAGRAM
        slots.headers[i].msg_hdr.msg_name = &slots.names[i]
        slots.headers[i].msg_hdr.msg_iov = &slots.vectors[i]
        slots.headers[i].msg_hdr.msg_iovlen = 1
        slots.headers[i].msg_hdr.msg_control = &slots.controls[i * (CONTROL // 8)]
    return 0


cdef void release(Slots *slots) noexcept:
    free(slots.headers)
    free(slots.vectors)
    free(slots.names)
    free(slots.controls)
    free(slots.buffers)


@cython.final
cdef class Datagrams:
    """One bound, non-blocking UDP socket with IP_PKTINFO or IPV6_RECVPKTINFO set; borrowed, never closed.

    tag: first octet of every path, 0 to 255, so that paths of several sockets differ.
    """

    def __cinit__(self, int fileno, int tag):
        if not 0 <= tag < 256:
            raise ValueError("a tag is one octet")
        self.fileno = fileno
        self.batch = BATCH
        self.tag = <uint8_t>tag
        self.count = BATCH
        allocate(&self.received)
        allocate(&self.leaving)

    def __dealloc__(self):
        release(&self.received)
        release(&self.leaving)

    cdef int fill(self) except -1:
        cdef int i
        cdef int count
        # What the system wrote over the last time, an error's included.
        for i in range(min(self.count + 1, <int>BATCH)):
            self.received.headers[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
            self.received.headers[i].msg_hdr.msg_controllen = CONTROL
        self.count = 0
        while True:
            count = recvmmsg(self.fileno, self.received.headers, BATCH, MSG_DONTWAIT, NULL)
            if count >= 0:
                self.count = count
                return count
            if errno == EAGAIN:
                return 0
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)

    cdef int path(self, int i, uint8_t *path) noexcept:
        cdef msghdr *message = &self.received.headers[i].msg_hdr
        cdef cmsghdr *control = CMSG_FIRSTHDR(message)
        cdef sockaddr_storage *name = &self.received.names[i]
        cdef sockaddr_in *name4
        cdef sockaddr_in6 *name6
        cdef int size
        memset(path, 0, PATH6)
        path[0] = self.tag
        if name.ss_family == AF_INET:
            name4 = <sockaddr_in *>name
            memcpy(&path[1], &name4.sin_port, 2)
            memcpy(&path[3], &name4.sin_addr, 4)
            size = PATH4
        elif name.ss_family == AF_INET6:
            name6 = <sockaddr_in6 *>name
            memcpy(&path[1], &name6.sin6_port, 2)
            memcpy(&path[3], &name6.sin6_addr, 16)
            memcpy(&path[19], &name6.sin6_scope_id, 4)
            size = PATH6
        else:
            return 0
        while control != NULL:
            if control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_PKTINFO and size == PATH4:
                # ipi_spec_dst: our own address even if the datagram was a broadcast.
                memcpy(&path[7], &(<in_pktinfo *>CMSG_DATA(control)).ipi_spec_dst, 4)
            elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_PKTINFO and size == PATH6:
                memcpy(&path[23], &(<in6_pktinfo *>CMSG_DATA(control)).ipi6_addr, 16)
                memcpy(&path[39], &(<in6_pktinfo *>CMSG_DATA(control)).ipi6_ifindex, 4)
            control = CMSG_NXTHDR(message, control)
        return size

    cdef uint8_t *room(self) noexcept:
        if self.queued == BATCH:
            self.flush()
        return self.leaving.buffers + self.queued * LONGEST_DATAGRAM

    cdef void queue(self, const uint8_t *path, int path_size, size_t size) noexcept:
        cdef int i = self.queued
        cdef msghdr *message = &self.leaving.headers[i].msg_hdr
        cdef cmsghdr *control = <cmsghdr *>message.msg_control
        cdef sockaddr_in *name4
        cdef sockaddr_in6 *name6
        cdef in_pktinfo *info4
        cdef in6_pktinfo *info6
        self.queued += 1
        self.leaving.vectors[i].iov_len = size
        memset(message.msg_control, 0, CONTROL)
        if path_size == PATH4:
            name4 = <sockaddr_in *>&self.leaving.names[i]
            memset(name4, 0, sizeof(sockaddr_in))
            name4.sin_family = <uint16_t>AF_INET
            memcpy(&name4.sin_port, path + 1, 2)
            memcpy(&name4.sin_addr, path + 3, 4)
            message.msg_namelen = sizeof(sockaddr_in)
            control.cmsg_level = IPPROTO_IP
            control.cmsg_type = IP_PKTINFO
            control.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
            message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo))
            info4 = <in_pktinfo *>CMSG_DATA(control)
            memcpy(&info4.ipi_spec_dst, path + 7, 4)
        else:
            name6 = <sockaddr_in6 *>&self.leaving.names[i]
            memset(name6, 0, sizeof(sockaddr_in6))
            name6.sin6_family = <uint16_t>AF_INET6
            memcpy(&name6.sin6_port, path + 1, 2)
            memcpy(&name6.sin6_addr, path + 3, 16)
            memcpy(&name6.sin6_scope_id, path + 19, 4)
            message.msg_namelen = sizeof(sockaddr_in6)
            control.cmsg_level = IPPROTO_IPV6
            control.cmsg_type = IPV6_PKTINFO
            control.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
            message.msg_controllen = CMSG_SPACE(sizeof(in6_pktinfo))
            info6 = <in6_pktinfo *>CMSG_DATA(control)
            memcpy(&info6.ipi6_addr, path + 23, 16)
            # An interface only where the address means nothing without one: routing may be asymmetric.
            if path[23] == 0xFE and path[24] & 0xC0 == 0x80:
                memcpy(&info6.ipi6_ifindex, path + 39, 4)

    cdef void flush(self) noexcept:
        cdef int at = 0
        cdef int sent
        while at < self.queued:
            sent = sendmmsg(self.fileno, self.leaving.headers + at, <unsigned int>(self.queued - at), MSG_DONTWAIT)
            if sent > 0:
                at += sent
            elif sent < 0 and errno == EINTR:
                continue
            elif sent < 0 and errno == EAGAIN:
                self.lost += self.queued - at
                break
            else:
                # The first one cannot be sent (no route, port 0, ...); the others may.
                self.lost += 1
                at += 1
        self.queued = 0

    def send(self, bytes path not None, bytes octets not None) -> bool:
        """Send one reply; False if the system did not take it. Never waits, raises no OSError.

        octets: 4096 at most.
        """
        cdef uint8_t *room
        if PyBytes_GET_SIZE(path) != PATH4 and PyBytes_GET_SIZE(path) != PATH6:
            raise ValueError("no path of this socket")
        if PyBytes_GET_SIZE(octets) > LONGEST_DATAGRAM:
            raise ValueError("a reply has 4096 octets at most")
        room = self.room()
        memcpy(room, PyBytes_AS_STRING(octets), <size_t>PyBytes_GET_SIZE(octets))
        self.queue(
            <const uint8_t *>PyBytes_AS_STRING(path), <int>PyBytes_GET_SIZE(path), <size_t>PyBytes_GET_SIZE(octets)
        )
        self.lost = 0
        self.flush()
        return self.lost == 0
