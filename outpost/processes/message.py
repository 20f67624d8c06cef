"""Messages between two processes of ours: octets and descriptors, whole or not at all.

They travel over a pair of SOCK_SEQPACKET sockets, so that the kernel keeps them apart and each descriptor with its
message.  The first octet says where the body is: in the message itself, or (when it is large) in sealed memory whose
descriptor comes first.
"""

from __future__ import annotations

import contextlib
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from outpost.errors import DecodeError
from outpost.processes import memory

INLINE: Final = 16_384
"""Octets of a body that travel in the message; the kernel's default buffer has room for several of them."""
LARGEST: Final = 256 << 20
"""Octets of a body in memory."""
MOST_DESCRIPTORS: Final = 200
"""With one message; the kernel allows 253."""
HERE, IN_MEMORY = b"\0", b"\1"
ROOM: Final = socket.CMSG_SPACE((MOST_DESCRIPTORS + 1) * array("i").itemsize)


class Message(NamedTuple):
    """What arrived. The descriptors are the receiver's, who closes them."""

    body: bytes
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for messages, neither of them inherited."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def adopt(descriptor: int) -> socket.socket:
    """The inherited end of a pair. Raises OSError, and ValueError for a descriptor of another kind."""
    sock = socket.socket(fileno=descriptor)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
        sock.detach()
        raise ValueError("no socket for messages")
    sock.set_inheritable(False)
    return sock


def send(sock: socket.socket, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message; the descriptors remain the caller's.

    Raises OSError (BlockingIOError when a non-blocking socket has no room), and ValueError for what does not fit.
    """
    if len(descriptors) > MOST_DESCRIPTORS or len(body) > LARGEST:
        raise ValueError("too much for one message")
    if len(body) <= INLINE:
        _send(sock, HERE + body, descriptors)
        return
    kept = memory.sealed(body)
    try:
        _send(sock, IN_MEMORY, (kept, *descriptors))
    finally:
        os.close(kept)


def _send(sock: socket.socket, octets: bytes, descriptors: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    sock.sendmsg([octets], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the other end is closed.

    Raises DecodeError for what `send` cannot have sent, and OSError (BlockingIOError when a non-blocking socket has
    nothing).
    """
    octets, ancillary, flags, _ = sock.recvmsg(INLINE + 2, ROOM, socket.MSG_CMSG_CLOEXEC)
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    if not octets and not found:
        return None
    with contextlib.ExitStack() as stack:
        for descriptor in found:
            stack.callback(os.close, descriptor)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(octets) > INLINE + 1:
            raise DecodeError("a message longer than any of ours")
        if octets[:1] == HERE:
            message = Message(octets[1:], tuple(found))
        elif octets == IN_MEMORY and found:
            message = Message(_read(found[0]), tuple(found[1:]))
            os.close(found[0])
        else:
            raise DecodeError("a message of an unknown kind")
        stack.pop_all()
        return message


def _read(descriptor: int) -> bytes:
    """Raises DecodeError."""
    try:
        with memory.mapped(descriptor) as octets:
            if len(octets) > LARGEST:
                raise DecodeError("a message longer than any of ours")
            return bytes(octets)
    except (OSError, ValueError):
        raise DecodeError("a message whose memory cannot be read") from None
