"""The workers: started, told everything, replaced when they end, drained at the end.

Each has a slot: sockets of its own over the same ports, between which the system distributes connections and
datagrams.  The sockets are the parent's, so that what waits in them is a replacement's to take.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

from outpost.credentials.gate import Gate
from outpost.errors import ConfigError, OutpostError
from outpost.identity import LdapProvider, Revoked, Roster, Served
from outpost.ldap.directories import Directories
from outpost.ldap.providers import Providers
from outpost.ldap.stored import StoredArenas
from outpost.observe.logs import LogWriter
from outpost.processes import child
from outpost.workers import words
from outpost.workers.desk import LOGGER, Arena, Desk
from outpost.workers.member import Member, Sessions, told_status
from outpost.workers.sums import Sums
from outpost.workers.words import Configure, Numbers, State, ToWorker

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MODULE: Final = "outpost.app.worker"
LISTENERS: Final = ("ldap", "ldaps", "radius")
TICK_S: Final = 1.0
START_S: Final = 60.0
"""For a worker to begin to serve."""
SILENT_TICKS: Final = 20
"""States without an echo after which a worker is taken for stuck."""
STEADY_S: Final = 60.0
"""A worker that lived this long was not ended by its start."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STOP_S: Final = 3.0
"""For a worker to end after its drain time."""
COUNT_S: Final = 1.0


class WorkerFailed(OutpostError):
    """A worker ended before it ever served."""

    metric = "worker"


class _Slot:
    """Sockets, and the worker that serves them."""

    def __init__(self, number: int, sockets: Mapping[str, Sequence[socket.socket]]) -> None:
        self.number = number
        self.sockets = [(name, sock) for name in LISTENERS for sock in sockets[name]]
        self.member: Member | None = None
        self.lock = asyncio.Lock()
        """Of whoever replaces the worker."""


@final
class Team:
    """Implements `outpost.app.appliance.Serving`. Everything runs on one event loop.

    configure: what each worker is told first, by its listeners; state: how things are; most: questions that one may
    have open; drain_s: for a worker that is replaced; flawed: called when workers have something new to say about
    what is served; module: what a worker runs; stored: where compiled directories outlive the process.
    """

    def __init__(
        self,
        gate: Gate,
        roster: Roster,
        log: LogWriter,
        sessions: Sessions | None,
        *,
        configure: Callable[[tuple[str, ...]], Configure],
        state: Callable[[], State],
        most: int,
        drain_s: float,
        flawed: Callable[[], None],
        module: str = MODULE,
        stored: StoredArenas | None = None,
    ) -> None:
        self._log = log
        self._sessions = sessions
        self._configure = configure
        self._state = state
        self._most = most
        self._drain_s = drain_s
        self._flawed = flawed
        self._module = module
        self._directories = Directories(
            roster, Arena, lambda level, event: log.put(level, LOGGER, event, {}), self._built, stored
        )
        self._desk = Desk(gate, self._directories, log, self._tell)
        gate.subscribe(self._revoked)
        gate.subscribe_refusals(lambda key: self._tell(words.Refused(key)))
        self._served = Served()
        self._providers: dict[int, LdapProvider] = {}
        self._editions: dict[int, int] = {}
        self._slots: list[_Slot] = []
        self._members: set[Member] = set()
        self._sums = Sums()
        self._keepers: list[asyncio.Task[None]] = []
        self._replaced = {"ended": 0, "rolled": 0}
        self._is_rolling = False
        self._is_stopping = False
        self._lock = -1

    # -- serving ----------------------------------------------------------------------------------

    def serve(self, served: Served) -> set[str]:
        """Serve these from now on; what an operator has to mend about them, as far as workers have said so."""
        self._served = served
        valid = Providers(served.ldap)
        self._providers = {one.pk: one for one in valid}
        self._editions = {pk: edition for pk, edition in self._editions.items() if pk in self._providers}
        self._desk.serve(served)
        self._tell(words.Serve(served))
        self._tell(self._state())
        self._directories.serve(valid)
        return self.flaws

    @property
    def flaws(self) -> set[str]:
        """What workers have said that an operator has to mend."""
        return {flaw for member in self._members for flaw in member.flaws}

    async def start(self, opened: Sequence[Mapping[str, Sequence[socket.socket]]]) -> None:
        """Start a worker for each of these; they are closed by `stop`.

        Returns when all of them serve. Raises ConfigError for what they cannot be started with, and OutpostError.
        """
        self._slots = [_Slot(number, sockets) for number, sockets in enumerate(opened, 1)]
        self._lock = os.memfd_create("outpost-log", os.MFD_CLOEXEC)
        self._log.share(self._lock)
        for slot in self._slots:
            slot.member = await self._launch(slot)
        self._keepers.append(asyncio.create_task(self._watch()))
        for slot in self._slots:
            assert slot.member is not None
            await self._until_serving(slot.member)
            self._keepers.append(asyncio.create_task(self._keep(slot)))

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds; idempotent."""
        self._is_stopping = True
        keepers, self._keepers = self._keepers, []
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for member in tuple(self._members):
            if member.is_serving:
                member.tell(words.Drain(drain_s))
            else:
                member.kill()
        for slot in self._slots:
            for _, sock in slot.sockets:
                sock.close()
        await self._until_over(tuple(self._members), drain_s + STOP_S)
        await self._directories.stop()

    async def roll(self) -> None:
        """Replace the workers, one after the other, each serving before the one it replaces is drained."""
        if self._is_rolling or self._is_stopping:
            return
        self._is_rolling = True
        try:
            for slot in self._slots:
                async with slot.lock:
                    await self._replace(slot)
            self._log.put("info", LOGGER, "the workers have been replaced", {"workers": len(self._slots)})
        except OutpostError as error:
            self._log.put("error", LOGGER, f"workers are not replaced, the old ones go on: {error}", {})
        finally:
            self._is_rolling = False

    # -- what is told -----------------------------------------------------------------------------

    def readiness(self, service: str) -> str:
        """Empty, or what is still to be done here."""
        if service == "ldap" and (waiting := self._directories.readiness()):
            return waiting
        for slot in self._slots:
            member = slot.member
            if member is None or not member.is_serving:
                return f"worker {slot.number} is not serving yet"
            if service == "ldap" and any(pk not in member.adopted for pk in self._editions):
                return f"worker {slot.number} has not taken over the directory yet"
        return "" if self._slots else "the workers are not started yet"

    async def count(self) -> None:
        """Bring the figures up to date."""
        members = tuple(self._members)
        await asyncio.gather(*(member.count(COUNT_S) for member in members))

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        yield from self._sums.families(self._desk.families())
        serving = sum(slot.member is not None and slot.member.is_serving for slot in self._slots)
        yield GaugeMetricFamily("outpost_workers", "Workers that serve.", value=serving)
        replaced = CounterMetricFamily("outpost_workers_replaced", "Workers that were replaced.", labels=("why",))
        for why, count in self._replaced.items():
            replaced.add_metric((why,), count)
        yield replaced

    def counters(self) -> Mapping[str, int]:
        """Totals to be added to those of the gate and the log."""
        return self._sums.counters()

    def gauges(self) -> Mapping[str, int]:
        """Sizes to be added to those of the gate."""
        return self._sums.gauges()

    # -- inside -----------------------------------------------------------------------------------

    def _tell(self, message: ToWorker) -> None:
        for member in tuple(self._members):
            member.tell(message)

    def _revoked(self, revoked: Revoked) -> None:
        self._tell(words.Revoke(revoked))

    def _built(self, provider: LdapProvider) -> None:
        self._editions[provider.pk] = self._editions.get(provider.pk, 0) + 1
        for member in tuple(self._members):
            self._hand_over(member, provider)

    def _hand_over(self, member: Member, provider: LdapProvider) -> None:
        arena = self._directories.shelf(provider)
        if arena is not None:
            edition = self._editions.setdefault(provider.pk, 1)
            member.tell(words.Adopt(provider.pk, edition), (arena.descriptor,))

    async def _launch(self, slot: _Slot) -> Member:
        """A worker that has been told everything. Raises WorkerFailed."""
        try:
            started = await child.start(self._module)
        except OSError as error:
            raise WorkerFailed(f"a worker cannot be started: {os.strerror(error.errno or 0)}") from None
        member = Member(
            slot.number,
            started,
            self._desk,
            self._sessions,
            self._most,
            counted=self._counted,
            flawed=self._flawed,
        )
        configure = self._configure(tuple(name for name, _ in slot.sockets))
        member.tell(configure, (self._lock, *(sock.fileno() for _, sock in slot.sockets)))
        member.tell(self._state())
        member.tell(words.Serve(self._served))
        for provider in self._providers.values():
            self._hand_over(member, provider)
        self._members.add(member)
        return member

    async def _until_serving(self, member: Member) -> None:
        """Raises ConfigError and WorkerFailed, with the worker ended."""
        try:
            async with asyncio.timeout(START_S):
                await member.serving.wait()
        except TimeoutError:
            member.kill()
            raise WorkerFailed(f"worker {member.number} did not begin to serve in {START_S:g} s") from None
        if member.is_serving:
            return
        await member.over.wait()
        self._bury(member)
        if member.failure:
            raise ConfigError(member.failure)
        raise WorkerFailed(f"worker {member.number} ended before it served: {told_status(member.status)}")

    async def _keep(self, slot: _Slot) -> None:
        """Replace the slot's worker whenever it ends, at once the first time, then after longer and longer pauses."""
        failures = 0
        while True:
            member = slot.member
            if member is not None:
                await member.over.wait()
                self._bury(member)
            if slot.member is not member:
                continue  # it was replaced on purpose
            pause = 0.0
            if member is None or time.monotonic() - member.began_at < STEADY_S:
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1)) if failures else 0.0
                failures += 1
            else:
                failures = 0
            if member is not None:
                self._tell_ended(member, pause)
            await asyncio.sleep(pause)
            async with slot.lock:
                if slot.member is not member:
                    continue
                slot.member = None
                try:
                    slot.member = await self._launch(slot)
                    self._replaced["ended"] += 1
                except WorkerFailed as error:
                    self._log.put("error", LOGGER, str(error), {"worker": slot.number})

    def _tell_ended(self, member: Member, pause: float) -> None:
        fields: dict[str, object] = {"worker": member.number, "pid": member.pid, "status": told_status(member.status)}
        if member.why or member.failure:
            fields["why"] = member.failure or member.why
        if pause:
            fields["pause-s"] = pause
        level = "info" if member.status == 0 and not member.why else "error"
        self._log.put(level, LOGGER, "a worker has ended and is replaced", fields)

    async def _replace(self, slot: _Slot) -> None:
        """Raises ConfigError and WorkerFailed, with the old worker where it was."""
        old, new = slot.member, await self._launch(slot)
        await self._until_serving(new)
        await self._until_adopted(new)
        slot.member = new
        self._replaced["rolled"] += 1
        if old is not None:
            # Nothing presses: who is connected may finish, and who has just connected begin.
            old.tell(words.Drain(self._drain_s, linger_s=self._drain_s))
            await self._until_over((old,), 2 * self._drain_s + STOP_S)

    async def _until_adopted(self, member: Member) -> None:
        """Searches are answered there as well as here; a worker that ends meanwhile is the keeper's."""
        deadline = time.monotonic() + START_S
        while any(pk not in member.adopted for pk in self._editions) and member.is_serving:
            if time.monotonic() > deadline:
                member.kill()
                raise WorkerFailed(f"worker {member.number} did not take over the directory in {START_S:g} s")
            await asyncio.sleep(0.02)

    async def _until_over(self, members: Sequence[Member], timeout_s: float) -> None:
        """Until these have ended; those that have not in time are made to."""
        waiting = [asyncio.ensure_future(member.over.wait()) for member in members]
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=timeout_s)
        if late:
            for member in members:
                if not member.over.is_set():
                    self._log.put("warning", LOGGER, "a worker had to be killed", {"worker": member.number})
                    member.kill()
            await asyncio.wait(late)
        for member in members:
            self._bury(member)

    def _bury(self, member: Member) -> None:
        self._members.discard(member)
        self._sums.retire(member.pid)

    def _counted(self, member: Member, numbers: Numbers) -> None:
        self._sums.take(member.pid, numbers)

    async def _watch(self) -> None:
        """Say every second how things are, and end workers that hear nothing any more."""
        while True:
            await asyncio.sleep(TICK_S)
            self._desk.expire()
            state = self._state()
            for member in tuple(self._members):
                member.tell(state)
                member.unanswered += 1
                allowed = SILENT_TICKS if member.is_serving else SILENT_TICKS + START_S / TICK_S
                if member.unanswered > allowed and not member.is_killed:
                    self._log.put("error", LOGGER, "a worker does not answer", {"worker": member.number})
                    member.kill()
