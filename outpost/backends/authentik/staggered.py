"""One question asked several times over, for when the one who was asked may never answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 4
"""Questions without an answer at a time."""


async def staggered(ask: Callable[[], Coroutine[Any, Any, T]], every_s: float) -> T:
    """The first outcome of a question that is asked again every so often while there is none; a failure is one.

    The others are given up then.
    """
    pending: set[asyncio.Task[T]] = set()
    try:
        while True:
            is_last = len(pending) == MOST - 1
            pending.add(asyncio.create_task(ask()))
            wait_s = None if is_last else every_s
            done, _ = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                pending -= done
                answers = [one for one in done if one.exception() is None]
                return (answers or list(done))[0].result()
    finally:
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
