"""What a network may do to packets."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any

SO_ATTACH_FILTER = 26


def swallow(sock: Any) -> None:
    """From now on the kernel drops every packet for this socket, a request to connect among them."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF_RET | BPF_K, 0 octets
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
