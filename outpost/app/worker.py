"""One of several serving processes: `python -m outpost.app.worker DESCRIPTOR`, started by the parent alone.

It knows neither tokens nor directory files: who may log in it asks the parent, over the descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import uvloop

from outpost import __version__
from outpost.app import hardening
from outpost.app.servers import LDAP_LISTENERS, Options, People, Servers, Shared
from outpost.credentials.cache import NEVER
from outpost.errors import ConfigError, DecodeError
from outpost.observe import logs
from outpost.observe.logs import LogWriter
from outpost.processes import child, memory, message
from outpost.processes.channel import Channel
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.calls import MARGIN_S, Calls
from outpost.workers.front import Front
from outpost.workers.prompts import Prompts
from outpost.workers.shelves import Shelves
from outpost.workers.sums import family_of
from outpost.workers.words import TO_PARENT, TO_WORKER, Configure, Numbers, State, ToParent

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOGGER: Final = "outpost.workers"
IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""For the parent, whoever else they reach."""
SILENCE_S: Final = 5.0
"""A parent that has not spoken for this long may be missing a revocation."""
WATCH_S: Final = 1.0
FLUSH_S: Final = 2.0
LINGER_TURN_S: Final = 0.05
LISTENERS: Final = (*LDAP_LISTENERS, "radius")


@final
class Sessions:
    """The backend's sessions that connections rest on; they are the parent's to count."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def hold(self, handle: str) -> None:
        """One more connection rests on the session."""
        self._worker.post(words.Hold(handle))

    def release(self, handle: str) -> None:
        """One less."""
        self._worker.post(words.Release(handle))


@final
class Worker:
    """The composition: both servers, and everything else at the other end of the channel. Lives on one event loop."""

    def __init__(self, configure: Configure, sock: socket.socket, log: LogWriter) -> None:
        self._log = log
        self._drain_s = configure.drain_s
        self._linger_s = 0.0
        self._status = 0
        self._stopping = asyncio.Event()
        self._served = asyncio.Event()
        self._flaws: set[str] = set()
        self._heard_at = float("-inf")
        self._state: State | None = None
        self._channel = Channel(sock, self._received, self._lost)
        gate = configure.gate
        self._calls = Calls(self.post, gate.pending, gate.queue_timeout_s + gate.deadline_s + MARGIN_S)
        self._front = Front(self._calls, gate, configure.hash_key.reveal())
        self._shelves = Shelves(self._calls, self._adopted, lambda level, event: log.put(level, LOGGER, event, {}))
        self._configure = configure
        self._servers: Servers | None = None

    async def run(self, sockets: Mapping[str, Sequence[socket.socket]]) -> int:
        """Serve until the parent says otherwise, or is gone; the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: logs.loop_failed(self._log, context))
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        try:
            self._servers = self._made()
        except ConfigError as error:
            self.post(words.Failed(str(error)))
            await self._channel.flush(FLUSH_S)
            self._channel.close()
            return 2
        watch = loop.create_task(self._watch())
        await self._first(self._served, self._stopping)
        if not self._stopping.is_set():
            await self._servers.start(sockets)
            # What lives from here to the end need not be looked at by every collection.
            gc.collect()
            gc.freeze()
            memory.give_back()
            self.post(words.Serving())
            await self._stopping.wait()
            await self._linger(self._servers)
        await self._servers.stop(self._drain_s)
        watch.cancel()
        await self._front.stop()
        self.post(self._numbers(0))
        await self._channel.flush(FLUSH_S)
        self._channel.close()
        return self._status

    def post(self, said: ToParent) -> None:
        """Say something to the parent. Never blocks."""
        self._channel.post(TO_PARENT.encode(said))

    # -- inside -----------------------------------------------------------------------------------

    def _made(self) -> Servers:
        """Raises ConfigError."""
        configure, front = self._configure, self._front
        return Servers(
            Options(
                configure.tls,
                configure.limits,
                configure.search,
                configure.dictionaries,
                configure.exchange,
                configure.trusted_proxies,
            ),
            front,
            self._shelves,
            self._log,
            outpost_name=lambda service: "" if self._state is None else self._state.outposts.get(service, ""),
            is_ready=self._is_ready,
            people=People(
                Sessions(self) if configure.has_sessions else None,
                front if configure.can_change_passwords else None,
                front if configure.can_vouch else None,
            ),
            shared=Shared(Prompts(), configure.default_certificate, configure.class_key.reveal()),
        )

    async def _linger(self, servers: Servers) -> None:
        """Serve on who is connected, for a while."""
        servers.close()
        for _ in range(int(self._linger_s / LINGER_TURN_S)):
            if servers.is_idle or self._status:
                return
            await asyncio.sleep(LINGER_TURN_S)

    @staticmethod
    async def _first(*events: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    def _is_ready(self) -> bool:
        """RADIUS logins can work now."""
        is_silent = asyncio.get_running_loop().time() - self._heard_at > SILENCE_S
        return self._state is not None and not is_silent and not self._state.readiness.get("radius", "not served")

    def _received(self, message: Message) -> None:
        """Raises DecodeError for what is no message to a worker."""
        try:
            said = TO_WORKER.decode(message.body)
        except DecodeError:
            message.close()
            raise
        if isinstance(said, words.Decided | words.PasswordDecided | words.Found):
            self._calls.answer(said.id, said, message)
        elif isinstance(said, words.Adopt):
            self._adopt(said, message)
        else:
            message.close()
            self._heard(said)

    def _adopt(self, said: words.Adopt, message: Message) -> None:
        if len(message.descriptors) != 1:
            message.close()
            raise DecodeError("a directory without memory")
        self._shelves.adopt(said.provider_pk, said.edition, message.descriptors[0])

    def _heard(self, said: words.ToWorker) -> None:
        if isinstance(said, words.Revoke):
            self._front.publish(said.revoked)
        elif isinstance(said, words.Refused):
            self._front.refused(said.key)
        elif isinstance(said, words.Doubt):
            self._front.doubt(said.user_pk, said.mark)
        elif isinstance(said, State):
            self._heard_state(said)
        elif isinstance(said, words.Serve):
            self._serve(said)
        elif isinstance(said, words.Count):
            self.post(self._numbers(said.id))
        elif isinstance(said, words.Drain):
            self._drain_s, self._linger_s = said.drain_s, said.linger_s
            self._stopping.set()
        else:
            raise DecodeError("a message at the wrong moment")

    def _heard_state(self, state: State) -> None:
        self._state = state
        self._heard_at = asyncio.get_running_loop().time()
        self._log.threshold = state.threshold
        self._front.set_state(trusted_since=state.trusted_since, can_change_passwords=state.can_change_passwords)
        self.post(words.Alive())

    def _serve(self, said: words.Serve) -> None:
        if self._servers is None:
            return  # it is not to be
        flaws = self._servers.serve(said.served)
        if flaws != self._flaws:
            self._flaws = flaws
            self.post(words.Flawed(tuple(sorted(flaws))))
        self._served.set()

    def _adopted(self, provider_pk: int, edition: int) -> None:
        self.post(words.Adopted(provider_pk, edition))

    def _lost(self, why: str) -> None:
        """Without the parent nobody can be logged in, and nothing can be revoked."""
        self._log.put("error", LOGGER, "the parent process is gone", {"why": why} if why else {})
        self._status, self._drain_s, self._linger_s = 1, 0.0, 0.0
        self._calls.lose()
        self._front.set_state(trusted_since=NEVER, can_change_passwords=False)
        self._stopping.set()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_S)
            if loop.time() - self._heard_at > SILENCE_S:
                self._front.set_state(trusted_since=NEVER, can_change_passwords=False)

    def _numbers(self, identifier: int) -> Numbers:
        servers = () if self._servers is None else self._servers.families()
        return Numbers(
            identifier,
            tuple(family_of(metric) for metric in (*servers, *_usage())),
            {**self._front.counters(), "log_dropped": self._log.dropped},
            self._front.gauges(),
        )


def _usage() -> Iterator[Metric]:
    # Nobody asks before the first scrape.
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    yield CounterMetricFamily("outpost_workers_cpu_seconds", "Processor time of the workers.", value=seconds)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    octets = float(pages * os.sysconf("SC_PAGE_SIZE"))
    yield GaugeMetricFamily("outpost_workers_resident_bytes", "Memory of the workers, shared included.", value=octets)


def main(argument: str) -> int:
    """The exit status. argument: the descriptor of the channel."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    sock = child.inherited(argument)
    first = message.receive(sock)
    if first is None:
        return 0
    configure = _configuration(first)
    if configure is None:
        problem = f"version {__version__} is installed, and the running process is of another one; restart it"
        message.send(sock, TO_PARENT.encode(words.Failed(problem)))
        return 2
    if not configure.core_dumps:
        hardening.forbid_core_dumps()
    hardening.return_memory()
    hardening.raise_file_limit()
    lock, *descriptors = first.descriptors
    log = LogWriter(sys.stderr.fileno(), is_json=configure.is_json)
    log.threshold = configure.level
    log.share(lock)
    logs.configure(log)
    try:
        with contextlib.ExitStack() as stack:
            sockets: dict[str, list[socket.socket]] = {name: [] for name in LISTENERS}
            for name, descriptor in zip(configure.listeners, descriptors, strict=True):
                opened = stack.enter_context(socket.socket(fileno=descriptor))
                opened.setblocking(False)
                sockets[name].append(opened)
            return uvloop.run(_run(configure, sock, log, sockets))
    finally:
        log.stop()


async def _run(
    configure: Configure, sock: socket.socket, log: LogWriter, sockets: Mapping[str, Sequence[socket.socket]]
) -> int:
    return await Worker(configure, sock, log).run(sockets)


def _configuration(first: Message) -> Configure | None:
    """None for what a parent of this version cannot have said."""
    try:
        found = TO_WORKER.decode(first.body)
    except DecodeError:
        return None
    return found if isinstance(found, Configure) and found.version == __version__ else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
