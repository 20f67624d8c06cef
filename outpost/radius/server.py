"""RADIUS over UDP: sockets, timers and tasks around the exchange and the service (RFC 2865 3, 5080)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import final

from outpost.identity import Accepted, RadiusProvider
from outpost.radius._datagrams import Datagrams
from outpost.radius._express import Express
from outpost.radius._intake import Request
from outpost.radius.clients import ClientTable, Flaw
from outpost.radius.conversations import Prompts
from outpost.radius.dictionary import Dictionary, shipped
from outpost.radius.exchange import DEFAULTS, Exchange, Limits
from outpost.radius.observer import DropReason, RadiusObserver
from outpost.radius.service import Answer, Gate, Login, Outcome, RadiusService

RECEIVE_BUFFER = 4 << 20
"""Octets of datagrams the kernel keeps while the loop is busy.

It allows no more than net.core.rmem_max, unless the process has CAP_NET_ADMIN.
"""

BATCHES = 4
"""Batches taken in one turn of the loop; then the others have theirs."""

STARTS = 4
"""Logins started in one turn of the loop: a flood of them must not delay the replies that are known already."""

SWEEP_S = 1.0

SO_RCVBUFFORCE = getattr(socket, "SO_RCVBUFFORCE", 33)
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
"""Linux's numbers; Python names the latter from 3.14 on."""


@final
class _Listener:
    """One socket, and the octet its paths begin with."""

    __slots__ = ("datagrams", "sock")

    def __init__(self, sock: socket.socket, tag: int) -> None:
        self.sock = sock
        self.datagrams = Datagrams(sock.fileno(), tag)


@final
class RadiusServer:
    """Serves RADIUS on bound UDP sockets.

    How the composition uses it, all on one event loop:

        server = RadiusServer(gate, observer, is_ready=lambda: not backend.readiness().get("radius"))
        for flaw in server.serve(catalog.served().radius): log.warning(str(flaw))   # and again at every change
        await server.start(open_all("radius", endpoints, socket.SOCK_DGRAM))        # takes the sockets over
        ...
        await server.stop(drain_s)                                                  # idempotent

    gate: `outpost.credentials.gate.Gate` fits; observer: counters and log lines; is_ready: whether logins can work
    now, for Status-Server; dictionary: `outpost.radius.dictionary.load(files)` for files of the operator's, by
    default what is shipped; conversations, class_key: who keeps the prompts, and the key of Class, by
    default this process and its own; clock: monotonic seconds.
    """

    def __init__(
        self,
        gate: Gate,
        observer: RadiusObserver,
        *,
        is_ready: Callable[[], bool] = lambda: True,
        dictionary: Dictionary | None = None,
        limits: Limits = DEFAULTS,
        conversations: Prompts | None = None,
        class_key: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        self._observer = observer
        self._limits = limits
        self._clock = clock
        self._exchange = Exchange(ClientTable(()), observer, limits)
        self._service = RadiusService(
            gate,
            observer,
            shipped() if dictionary is None else dictionary,
            is_ready=is_ready,
            clock=clock,
            epoch=epoch,
            random=os.urandom,
            conversations=conversations,
            class_key=class_key,
        )
        self._express = Express(
            self._exchange,
            self._exchange.intake,
            observer,
            gate=gate,
            lasting=self._service.lasting,
            general=self._receive,
            unknown=self._unknown,
            accepted=self._accepted,
            clock=clock,
            epoch=epoch,
        )
        self._listeners: list[_Listener] = []
        self._waiting: deque[Login] = deque()
        self._tasks: dict[asyncio.Task[None], Request] = {}
        self._delayed: dict[Request, asyncio.TimerHandle] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    @property
    def pending(self) -> int:
        """Requests in work."""
        return self._exchange.pending

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket."""
        return [listener.sock.getsockname()[:2] for listener in self._listeners]

    def serve(self, providers: Iterable[RadiusProvider]) -> Sequence[Flaw]:
        """Serve these providers from now on; what an operator has to mend about them.

        A login under way for a provider that is gone, or whose secret changed, is not answered.
        """
        table = ClientTable(providers)
        self._exchange.table = table
        return [*table.flaws, *self._service.flaws(table.clients.values())]

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on bound, non-blocking UDP sockets; they are closed by `stop`. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            listener = _Listener(sock, len(self._listeners))
            self._listeners.append(listener)
            self._loop.add_reader(sock.fileno(), self._readable, listener)
        self._sweep = self._loop.call_later(SWEEP_S, self._swept)

    def close(self) -> None:
        """Take no more requests; what is in work goes on. Idempotent."""
        if self._loop is not None:
            for listener in self._listeners:
                self._loop.remove_reader(listener.sock.fileno())

    async def stop(self, drain_s: float = 0.0) -> None:
        """Take no more requests, give those in work `drain_s` seconds, close the sockets; idempotent."""
        self._is_stopping = True
        self.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        waiting = [login.request for login in self._waiting] if drain_s <= 0 else []
        if waiting:
            self._waiting.clear()
        self._start_some()
        if self._tasks and drain_s > 0:
            await asyncio.wait(tuple(self._tasks), timeout=drain_s)
        tasks = dict(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        delayed, self._delayed = self._delayed, {}
        for timer in delayed.values():
            timer.cancel()
        for request in (*tasks.values(), *waiting, *delayed):
            self._exchange.give_up(request, DropReason.STOPPING, self._clock())
        for listener in self._listeners:
            listener.sock.close()
        self._listeners.clear()

    # -- inside -----------------------------------------------------------------------------------

    def _readable(self, listener: _Listener) -> None:
        for _ in range(BATCHES):
            try:
                count = self._express.turn(listener.datagrams)
            except OSError:
                return  # an error of the network, reported late; the socket is as good as before
            if count < listener.datagrams.batch:
                return

    def _receive(self, data: bytes, address: bytes, path: bytes, now: float) -> bytes | None:
        """The octets to send at once, if any."""
        found = self._exchange.receive_datagram(data, address, path, now)
        if not isinstance(found, Request):
            return found
        return self._answered(found, self._service.answer(found), now)

    def _unknown(self, request: Request, username: str, password: bytes, now: float) -> bytes | None:
        """The same for a plain login that the gate does not know."""
        return self._answered(request, self._service.unknown(request, username, password), now)

    def _accepted(self, request: Request, username: str, accepted: Accepted, now: float) -> bytes | None:
        """The same for one that it knows."""
        return self._answered(request, self._service.accepted(request, username, accepted), now)

    def _answered(self, request: Request, outcome: Outcome | Login, now: float) -> bytes | None:
        if isinstance(outcome, Login):
            self._ask(outcome, now)
            return None
        return self._settle(request, outcome, now)

    def _ask(self, login: Login, now: float) -> None:
        if len(self._tasks) + len(self._waiting) >= self._limits.logins:
            self._exchange.give_up(login.request, DropReason.OVERLOADED, now)
            return
        if not self._exchange.hold(login.request):
            return
        assert self._loop is not None
        if not self._waiting:
            self._loop.call_soon(self._start_some)
        self._waiting.append(login)

    def _start_some(self) -> None:
        started = 0
        while self._waiting and (started < STARTS or self._is_stopping):
            assert self._loop is not None
            login = self._waiting.popleft()
            if login.request.is_live:  # nobody is asked for an answer that must not be sent
                task = self._loop.create_task(self._log_in(login))
                self._tasks[task] = login.request
                task.add_done_callback(self._tasks.pop)
                started += 1
        if self._waiting:
            assert self._loop is not None
            self._loop.call_soon(self._start_some)

    async def _log_in(self, login: Login) -> None:
        request = login.request
        outcome = await self._service.decide(login)
        now = self._clock()
        if not self._exchange.table.serves(request.client):
            outcome = DropReason.PROVIDER_GONE
        octets = self._settle(request, outcome, now)
        if octets is not None:
            self._send(request, octets)

    def _settle(self, request: Request, outcome: Outcome, now: float) -> bytes | None:
        """The octets to send now; None when there are none, or not yet."""
        if isinstance(outcome, DropReason):
            self._exchange.give_up(request, outcome, now)
            return None
        if not request.is_live:
            return None
        due = request.received_at + outcome.delay_s
        if due > now and len(self._delayed) < self._limits.delayed and not self._is_stopping:
            assert self._loop is not None
            if not self._exchange.hold(request):
                return None
            self._delayed[request] = self._loop.call_later(due - now, self._due, request, outcome, now)
            return None
        return self._finish(request, outcome, now, now)

    def _due(self, request: Request, answer: Answer, decided_at: float) -> None:
        self._delayed.pop(request, None)
        octets = self._finish(request, answer, decided_at, self._clock())
        if octets is not None:
            self._send(request, octets)

    def _finish(self, request: Request, answer: Answer, decided_at: float, now: float) -> bytes | None:
        if not self._exchange.finish(request, answer.octets, now):
            return None
        packet = request.packet
        self._observer.answered(
            packet.code,
            answer.code,
            request.client.app,
            request.source.address,
            answer.username,
            answer.reason,
            decided_at - request.received_at,
            packet.is_signed,
        )
        return answer.octets

    def _send(self, request: Request, octets: bytes) -> None:
        if request.path[0] < len(self._listeners):
            self._listeners[request.path[0]].datagrams.send(request.path, octets)

    def _swept(self) -> None:
        assert self._loop is not None
        self._sweep = self._loop.call_later(SWEEP_S, self._swept)
        now = self._clock()
        self._exchange.handle_deadline(now)
        self._service.handle_deadline(now)
