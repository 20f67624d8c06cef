"""One worker as the parent sees it: its process, its channel, and what it has in hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from outpost.identity import Unavailable, UnavailableReason
from outpost.processes.channel import Channel
from outpost.processes.child import Child
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.desk import Desk, Question
from outpost.workers.words import TO_PARENT, TO_WORKER, Numbers, ToWorker

END_S: Final = 2.0
"""From the end of the channel to the end of the process."""
BUSY: Final = Unavailable(UnavailableReason.BUSY, "too many questions are open")


class Sessions(Protocol):
    """The backend's sessions that connections rest on."""

    def hold(self, handle: str) -> None:
        """One more connection rests on the session."""
        ...

    def release(self, handle: str) -> None:
        """One less."""
        ...


@final
class Member:
    """A running worker. Everything runs on one event loop.

    number: of its slot, from 1; most: questions it may have open; counted: called with its numbers; flawed: called
    when it has something new to say about what is served.
    """

    def __init__(
        self,
        number: int,
        child: Child,
        desk: Desk,
        sessions: Sessions | None,
        most: int,
        *,
        counted: Callable[[Member, Numbers], None],
        flawed: Callable[[], None],
    ) -> None:
        self.number = number
        self.pid = child.process.pid
        self.began_at = time.monotonic()
        self.unanswered = 0
        """States said without an echo."""
        self.adopted: dict[int, int] = {}
        """Edition of each provider's directory that its searches see."""
        self.flaws: tuple[str, ...] = ()
        self.failure = ""
        """What an operator has to mend before it can serve anything."""
        self.why = ""
        """Why its channel had to be closed."""
        self.serving = asyncio.Event()
        """It serves, or never will: see `is_serving`."""
        self.over = asyncio.Event()
        """Its process has ended; `status` tells how."""
        self.status = 0
        self.is_killed = False
        self._is_serving = False
        self._process = child.process
        self._desk = desk
        self._sessions = sessions
        self._most = most
        self._counted = counted
        self._flawed = flawed
        self._held: Counter[str] = Counter()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._counting: dict[int, asyncio.Future[None]] = {}
        self._channel = Channel(child.socket, self._received, self._closed)
        self._burial: asyncio.Task[None] | None = None

    @property
    def is_serving(self) -> bool:
        """Its sockets are served."""
        return self._is_serving and self._channel.is_open

    def tell(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        """Say something; the descriptors remain the caller's. Never blocks."""
        self._channel.post(TO_WORKER.encode(message), descriptors)

    async def count(self, timeout_s: float) -> None:
        """Have it hand over its numbers, if it does in time."""
        if not self.is_serving:
            return
        identifier = len(self._counting) + 1
        while identifier in self._counting:
            identifier += 1
        future = self._counting[identifier] = asyncio.get_running_loop().create_future()
        self.tell(words.Count(identifier))
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self._counting.pop(identifier, None)

    def kill(self) -> None:
        """End it at once."""
        self.is_killed = True
        if self._process.returncode is None:
            # Not by the process object, which would collect the exit status that somebody else waits for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    # -- inside -----------------------------------------------------------------------------------

    def _closed(self, why: str) -> None:
        self.why = why
        if why:
            self.kill()
        self._burial = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        for task in tuple(self._tasks.values()):
            task.cancel()
        if self._sessions is not None:
            for session, count in self._held.items():
                for _ in range(count):
                    self._sessions.release(session)
        self._held.clear()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        self.status = await self._process.wait()
        self.serving.set()
        self.over.set()

    def _received(self, message: Message) -> None:
        message.close()  # no descriptor comes from a worker
        found = TO_PARENT.decode(message.body)
        if isinstance(found, Question):
            self._ask(found)
        elif isinstance(found, words.Hold):
            self._hold(found.session)
        elif isinstance(found, words.Release):
            self._release(found.session)
        elif isinstance(found, words.Cancel):
            task = self._tasks.get(found.id)
            if task is not None:
                task.cancel()
        elif isinstance(found, words.Alive):
            self.unanswered = 0
        elif isinstance(found, words.Adopted):
            self.adopted[found.provider_pk] = found.edition
        elif isinstance(found, Numbers):
            self._counted(self, found)
            waiting = self._counting.get(found.id)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        elif isinstance(found, words.Flawed):
            self.flaws = found.flaws
            self._flawed()
        elif isinstance(found, words.Failed):
            self.failure = found.problem
        else:
            self._is_serving = True
            self.serving.set()

    def _ask(self, question: Question) -> None:
        if len(self._tasks) >= self._most or question.id in self._tasks:
            self.tell(self._desk.refuse(question, BUSY))
            return
        task = asyncio.get_running_loop().create_task(self._answer(question))
        self._tasks[question.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(question.id, None))

    async def _answer(self, question: Question) -> None:
        reply, arena = await self._desk.answer(question)
        self.tell(reply, () if arena is None else (arena.descriptor,))

    def _hold(self, session: str) -> None:
        if self._sessions is not None:
            self._held[session] += 1
            self._sessions.hold(session)

    def _release(self, session: str) -> None:
        if self._sessions is not None and self._held[session] > 0:
            self._held[session] -= 1
            if not self._held[session]:
                del self._held[session]
            self._sessions.release(session)


def told_status(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"
