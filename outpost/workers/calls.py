"""Questions to the parent that wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from outpost.errors import BackendTimeout, BackendUnavailable, DecodeError, LimitExceeded
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.words import ToParent

T = TypeVar("T")
R = TypeVar("R")

MARGIN_S: Final = 5.0
"""How much longer than the parent's own deadlines an answer is waited for."""

_Landing = tuple[type, asyncio.Future[Any], Callable[[Any, Message], Any]]


@final
class Calls:
    """Open questions. post: sends a message; most: open at a time."""

    def __init__(self, post: Callable[[ToParent], None], most: int, timeout_s: float) -> None:
        self._post = post
        self._most = most
        self._timeout_s = timeout_s
        self._open: dict[int, _Landing] = {}
        self._last = 0
        self._is_lost = False

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, make: Callable[[int], ToParent], kind: type[R], land: Callable[[R, Message], T]) -> T:
        """What `land` makes of the answer of type `kind`. It is called as soon as the answer is there, before any later
        message is looked at; the descriptors are its to close.

        Raises LimitExceeded, BackendTimeout, BackendUnavailable, and whatever `land` raises.
        """
        if self._is_lost:
            raise BackendUnavailable("the parent process is gone")
        if len(self._open) >= self._most:
            raise LimitExceeded("too many questions are open")
        self._last += 1
        identifier = self._last
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._open[identifier] = (kind, future, land)
        try:
            self._post(make(identifier))
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            raise BackendTimeout("the parent process did not answer in time") from None
        finally:
            if self._open.pop(identifier, None) is not None and not self._is_lost:
                self._post(words.Cancel(identifier))

    def answer(self, identifier: int, reply: object, message: Message) -> None:
        """An answer has come. Raises DecodeError for one of another kind than was asked for."""
        found = self._open.pop(identifier, None)
        if found is None or found[1].done():
            message.close()
            return
        kind, future, land = found
        if not isinstance(reply, kind):
            message.close()
            future.set_exception(BackendUnavailable("the parent process answered something else"))
            raise DecodeError("an answer to another question")
        try:
            future.set_result(land(reply, message))
        except Exception as exc:  # it belongs to whoever asked
            future.set_exception(exc)

    def lose(self) -> None:
        """The parent is gone: nothing will be answered any more."""
        self._is_lost = True
        waiting, self._open = self._open, {}
        for _, future, _ in waiting.values():
            if not future.done():
                future.set_exception(BackendUnavailable("the parent process is gone"))
