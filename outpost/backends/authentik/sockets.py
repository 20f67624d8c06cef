"""Sockets that notice soon when nobody is at the other end any more.

A server that moves to another address leaves connections behind whose packets nobody answers, not even with a reset.
Left to themselves they would be believed in for a quarter of an hour, and a new one sought for two minutes.
"""

from __future__ import annotations

import math
import socket

from aiohttp import AddrInfoType

SILENT_S = 3.0
"""A connection ends when the other host acknowledged nothing for this long, though it was asked. That concerns its
kernel; how long the server takes for an answer is another matter."""
ASK_AFTER_S = 1
ASK_EVERY_S = 1


class SocketFactory:
    """Makes sockets for connections that may take `connect_timeout_s` to come about."""

    def __init__(self, connect_timeout_s: float) -> None:
        # The kernel asks again after 1, 2, 4, ... seconds; the bound on silence holds for these questions, too.
        self._repetitions = max(1, int(math.log2(connect_timeout_s + 1)) - 1)
        self._silent_ms = int(max(SILENT_S, connect_timeout_s - 2) * 1000)

    def __call__(self, info: AddrInfoType) -> socket.socket:
        """A socket of the family, type and protocol in `info`."""
        found = socket.socket(*info[:3])
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_SYNCNT, self._repetitions),
            (socket.TCP_USER_TIMEOUT, self._silent_ms),
            (socket.TCP_KEEPIDLE, ASK_AFTER_S),
            (socket.TCP_KEEPINTVL, ASK_EVERY_S),
        ):
            found.setsockopt(socket.IPPROTO_TCP, option, value)
        return found
