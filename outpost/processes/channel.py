"""One end of a pair of message sockets on an event loop.

Nothing here waits for the other end: what it does not take in time is queued up to a bound, and beyond that the
channel is closed, because whoever does not read must not hold up anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, final

from outpost.errors import DecodeError
from outpost.processes import message
from outpost.processes.message import Message

QUEUED: Final = 16_384
"""Messages that wait for the other end to read."""
QUEUED_OCTETS: Final = 64 << 20
GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET})
BATCH: Final = 32
"""Messages taken in one turn of the loop."""


@final
class Channel:
    """Messages to and from another process. Everything runs on one event loop.

    received: called for each message, whose descriptors are the callee's to close; DecodeError from it closes the
    channel. closed: called once, when the other end is gone, or said what nobody understands, or does not listen;
    with the reason (empty: it was closed over there). Not called after `close`.
    """

    def __init__(self, sock: socket.socket, received: Callable[[Message], None], closed: Callable[[str], None]) -> None:
        """sock: of `message.pair`; it belongs to the channel from now on."""
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Message] = deque()
        self._queued = 0
        self._emptied = asyncio.Event()
        """Nothing is queued, or never will be again."""
        self._is_open = True
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        """Messages may still get through."""
        return self._is_open

    def post(self, body: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message, now or as soon as there is room; the descriptors remain the caller's.

        Never blocks. Raises ValueError for what does not fit into one message; on a closed channel it does nothing.
        """
        if not self._is_open:
            return
        if not self._queue:
            try:
                message.send(self._sock, body, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            except OSError as error:
                self._failed("written to", error)
                return
            else:
                return
        if len(self._queue) >= QUEUED or self._queued + len(body) > QUEUED_OCTETS:
            self._end("it does not read what it is sent")
            return
        self._emptied.clear()
        self._queue.append(Message(body, tuple(os.dup(descriptor) for descriptor in descriptors)))
        self._queued += len(body)

    async def flush(self, timeout_s: float) -> None:
        """Wait until the other end has taken everything, but not longer than this."""
        if self._queue and self._is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()

    def close(self) -> None:
        """Close this end; what is queued is lost. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._emptied.set()
        while self._queue:
            self._queue.popleft().close()

    def _readable(self) -> None:
        for _ in range(BATCH):
            if not self._is_open:
                return
            try:
                found = message.receive(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except DecodeError as error:
                self._end(f"it sent {error}")
                return
            except OSError as error:
                self._failed("read from", error)
                continue
            if found is None:
                self._end("")
                return
            try:
                self._received(found)
            except DecodeError as error:
                self._end(f"it sent {error}")

    def _writable(self) -> None:
        while self._queue:
            first = self._queue[0]
            try:
                message.send(self._sock, first.body, first.descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed("written to", error)
                if not self._is_open:
                    return
            # What the other end cannot hear any more goes, too.
            self._queue.popleft()
            self._queued -= len(first.body)
            first.close()
        self._loop.remove_writer(self._sock.fileno())
        self._emptied.set()

    def _failed(self, what: str, error: OSError) -> None:
        """The other end being gone is no news here: what it said before is still to be read, and its end behind it."""
        if error.errno not in GONE:
            self._end(f"it cannot be {what}: {os.strerror(error.errno or 0)}")

    def _end(self, why: str) -> None:
        if self._is_open:
            self.close()
            self._closed(why)
