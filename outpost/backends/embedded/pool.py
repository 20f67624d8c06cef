"""Threads for password verification, which takes tens of milliseconds that the event loop does not have."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, final

T = TypeVar("T")

QUEUE = 256
"""Verifications that wait for a thread; at 50 ms each on two threads the last one waits six seconds."""


class PoolBusy(Exception):
    """Too many verifications wait already."""


class PoolStopped(Exception):
    """The pool ended before the work was done."""


@final
class VerifyPool:
    """A bounded number of threads and of work waiting for them.

    threads: None for one per CPU that this process may use.
    """

    def __init__(self, threads: int | None = None, queue: int = QUEUE) -> None:
        count = threads or len(os.sched_getaffinity(0))
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="verify")
        self._room = threading.BoundedSemaphore(count + queue)
        self._is_stopped = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises in a thread. Raises PoolBusy and PoolStopped."""
        if self._is_stopped:
            raise PoolStopped
        if not self._room.acquire(blocking=False):
            raise PoolBusy
        future = self._executor.submit(work)
        # A cancelled caller does not stop a running thread: the room is free when the work is, not when nobody waits.
        future.add_done_callback(lambda _: self._room.release())
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():
                raise
            raise PoolStopped from None

    def stop(self) -> None:
        """Begin nothing more; idempotent. Work that waits ends with PoolStopped, running work is not waited for."""
        self._is_stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)
