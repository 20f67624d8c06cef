# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""Datagrams in batches, answered from the address they were sent to (recvmmsg(2), sendmmsg(2), RFC 3542 6)."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

__all__ = ("Datagrams",)

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
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cdef struct sockaddr_storage:
        uint16_t ss_family
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
    BATCH = 64
    # RFC 2865 3: longer packets are cut, as "octets outside the range of the Length field MUST be treated as padding".
    LONGEST = 4096
    CONTROL = 64
    # tag, port, address, local address
    PATH4 = 1 + 2 + 4 + 4
    # tag, port, address, scope, local address, interface
    PATH6 = 1 + 2 + 16 + 4 + 16 + 4


@cython.final
cdef class Datagrams:
    """One bound, non-blocking UDP socket with IP_PKTINFO or IPV6_RECVPKTINFO set; borrowed, never closed.

    tag: first octet of every path, 0 to 255, so that paths of several sockets differ.
    """

    cdef readonly int fileno
    cdef readonly int batch
    cdef uint8_t tag
    cdef mmsghdr *headers
    cdef iovec *vectors
    cdef sockaddr_storage *names
    cdef size_t *controls
    cdef uint8_t *buffers

    def __cinit__(self, int fileno, int tag):
        if not 0 <= tag < 256:
            raise ValueError("a tag is one octet")
        self.fileno = fileno
        self.batch = BATCH
        self.tag = <uint8_t>tag
        self.headers = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
        self.vectors = <iovec *>calloc(BATCH, sizeof(iovec))
        self.names = <sockaddr_storage *>calloc(BATCH, sizeof(sockaddr_storage))
        # size_t: cmsg(3) wants its alignment
        self.controls = <size_t *>calloc(BATCH, CONTROL)
        self.buffers = <uint8_t *>calloc(BATCH, LONGEST)
        if not (self.headers and self.vectors and self.names and self.controls and self.buffers):
            raise MemoryError

    def __dealloc__(self):
        free(self.headers)
        free(self.vectors)
        free(self.names)
        free(self.controls)
        free(self.buffers)

    cdef void prepare(self, int i, void *data, size_t size) noexcept:
        self.vectors[i].iov_base = data
        self.vectors[i].iov_len = size
        self.headers[i].msg_hdr.msg_name = &self.names[i]
        self.headers[i].msg_hdr.msg_namelen = sizeof(sockaddr_storage)
        self.headers[i].msg_hdr.msg_iov = &self.vectors[i]
        self.headers[i].msg_hdr.msg_iovlen = 1
        self.headers[i].msg_hdr.msg_control = &self.controls[i * (CONTROL // 8)]
        self.headers[i].msg_hdr.msg_controllen = CONTROL
        self.headers[i].msg_hdr.msg_flags = 0

    def receive(self) -> list:
        """Up to `batch` waiting datagrams as (data, address of 4 or 16 octets, path). Raises OSError."""
        cdef int i
        cdef int count
        cdef list found = []
        for i in range(BATCH):
            self.prepare(i, self.buffers + i * LONGEST, LONGEST)
        while True:
            count = recvmmsg(self.fileno, self.headers, BATCH, MSG_DONTWAIT, NULL)
            if count >= 0:
                break
            if errno == EAGAIN:
                return found
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
        for i in range(count):
            self.append(found, i)
        return found

    cdef int append(self, list found, int i) except -1:
        cdef uint8_t path[PATH6]
        cdef msghdr *message = &self.headers[i].msg_hdr
        cdef cmsghdr *control = CMSG_FIRSTHDR(message)
        cdef sockaddr_in *name4
        cdef sockaddr_in6 *name6
        cdef int size
        cdef int address_size
        memset(path, 0, PATH6)
        path[0] = self.tag
        if self.names[i].ss_family == AF_INET:
            name4 = <sockaddr_in *>&self.names[i]
            memcpy(&path[1], &name4.sin_port, 2)
            memcpy(&path[3], &name4.sin_addr, 4)
            size = PATH4
            address_size = 4
        elif self.names[i].ss_family == AF_INET6:
            name6 = <sockaddr_in6 *>&self.names[i]
            memcpy(&path[1], &name6.sin6_port, 2)
            memcpy(&path[3], &name6.sin6_addr, 16)
            memcpy(&path[19], &name6.sin6_scope_id, 4)
            size = PATH6
            address_size = 16
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
        found.append((
            PyBytes_FromStringAndSize(<char *>(self.buffers + i * LONGEST), self.headers[i].msg_len),
            PyBytes_FromStringAndSize(<char *>&path[3], address_size),
            PyBytes_FromStringAndSize(<char *>path, size),
        ))
        return 0

    cdef int address(self, int i, bytes path) except -1:
        """Fill name and control data of slot `i` from a path."""
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(path)
        cdef msghdr *message = &self.headers[i].msg_hdr
        cdef cmsghdr *control
        cdef sockaddr_in *name4
        cdef sockaddr_in6 *name6
        cdef in_pktinfo *info4
        cdef in6_pktinfo *info6
        memset(&self.names[i], 0, sizeof(sockaddr_storage))
        memset(message.msg_control, 0, CONTROL)
        control = <cmsghdr *>message.msg_control
        if PyBytes_GET_SIZE(path) == PATH4:
            name4 = <sockaddr_in *>&self.names[i]
            name4.sin_family = <uint16_t>AF_INET
            memcpy(&name4.sin_port, raw + 1, 2)
            memcpy(&name4.sin_addr, raw + 3, 4)
            message.msg_namelen = sizeof(sockaddr_in)
            control.cmsg_level = IPPROTO_IP
            control.cmsg_type = IP_PKTINFO
            control.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
            message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo))
            info4 = <in_pktinfo *>CMSG_DATA(control)
            memcpy(&info4.ipi_spec_dst, raw + 7, 4)
        elif PyBytes_GET_SIZE(path) == PATH6:
            name6 = <sockaddr_in6 *>&self.names[i]
            name6.sin6_family = <uint16_t>AF_INET6
            memcpy(&name6.sin6_port, raw + 1, 2)
            memcpy(&name6.sin6_addr, raw + 3, 16)
            memcpy(&name6.sin6_scope_id, raw + 19, 4)
            message.msg_namelen = sizeof(sockaddr_in6)
            control.cmsg_level = IPPROTO_IPV6
            control.cmsg_type = IPV6_PKTINFO
            control.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
            message.msg_controllen = CMSG_SPACE(sizeof(in6_pktinfo))
            info6 = <in6_pktinfo *>CMSG_DATA(control)
            memcpy(&info6.ipi6_addr, raw + 23, 16)
            # An interface only where the address means nothing without one: routing may be asymmetric.
            if raw[23] == 0xFE and raw[24] & 0xC0 == 0x80:
                memcpy(&info6.ipi6_ifindex, raw + 39, 4)
        else:
            raise ValueError("no path of this socket")
        return 0

    def send(self, list replies not None) -> int:
        """Send (path, octets) each; how many the system did not take. Never waits, raises no OSError."""
        cdef Py_ssize_t total = len(replies)
        cdef Py_ssize_t at = 0
        cdef int count
        cdef int i
        cdef int sent
        cdef int lost = 0
        cdef tuple reply
        cdef bytes octets
        while at < total:
            count = <int>min(total - at, <Py_ssize_t>BATCH)
            for i in range(count):
                reply = replies[at + i]
                octets = reply[1]
                self.prepare(i, PyBytes_AS_STRING(octets), <size_t>PyBytes_GET_SIZE(octets))
                self.address(i, reply[0])
            sent = sendmmsg(self.fileno, self.headers, <unsigned int>count, MSG_DONTWAIT)
            if sent > 0:
                at += sent
            elif sent < 0 and errno == EINTR:
                continue
            elif sent < 0 and errno == EAGAIN:
                return lost + <int>(total - at)
            else:
                # The first one cannot be sent (no route, port 0, ...); the others may.
                lost += 1
                at += 1
        return lost
