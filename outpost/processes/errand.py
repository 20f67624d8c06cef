"""One order for a process of its own, and its one answer.

Whatever happens to the process, there is an answer or an error, and in the end there is no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from outpost.errors import BackendError
from outpost.processes import child
from outpost.processes.channel import Channel
from outpost.processes.message import Message


async def answer_of(module: str, order: bytes, descriptors: tuple[int, ...], *, longest_s: float) -> Message:
    """What `module`, started for this, says to the order. Raises BackendError when it says nothing in time."""
    try:
        started = await child.start(module)
    except OSError as error:
        raise BackendError(f"no process for it: {os.strerror(error.errno or 0)}") from None
    try:
        async with asyncio.timeout(longest_s):
            return await _answer(started, order, descriptors)
    except TimeoutError:
        raise BackendError(f"not done within {longest_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.process.kill()
        await started.process.wait()


def failed(why: str) -> BackendError:
    """For an answer that is none."""
    return BackendError(f"the process for it failed: {why}")


async def _answer(started: child.Child, order: bytes, descriptors: tuple[int, ...]) -> Message:
    answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def received(message: Message) -> None:
        if answered.done():
            message.close()
        else:
            answered.set_result(message)

    def closed(why: str) -> None:
        if not answered.done():
            answered.set_exception(failed(why or "it ended before it was done"))

    channel = Channel(started.socket, received, closed)
    try:
        channel.post(order, descriptors)
        return await answered
    except asyncio.CancelledError:
        if answered.done() and not answered.cancelled() and answered.exception() is None:
            answered.result().close()  # it came in the same moment
        raise
    finally:
        channel.close()
