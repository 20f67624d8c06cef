"""One LDAP connection on the event loop: transport, tasks and back pressure around the machine and the service."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast, final

from outpost._fastber import AbandonRequest, BindRequest, Limits, Request, UnbindRequest
from outpost.errors import LimitExceeded, ProtocolError, SequenceError
from outpost.ldap import results
from outpost.ldap._hotpath import HotPath, Wire
from outpost.ldap._session import Session
from outpost.ldap._tls import TlsEnd
from outpost.ldap.certificates import ClientCertificate
from outpost.ldap.connection import Connection, notice, notice_of
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations.listing import EXAMINED, SLICE
from outpost.ldap.operations.outcome import Cancel, Later, Listing, Outcome, StartTls
from outpost.ldap.service import LdapService

HIGH_WATER = 256 * 1024
"""Octets waiting for a slow reader before nothing more is made for him."""
UNREAD = 64 * 1024
"""Octets taken from a client whose requests must wait."""


class Host(Protocol):
    """What a channel needs of its server."""

    service: LdapService
    observer: LdapObserver
    hotpath: HotPath
    clock: Callable[[], float]
    limits: Limits
    """Of what an anonymous client may send."""
    bound_limits: Limits
    outstanding: int

    scratch: memoryview
    """Where encrypted octets are read into."""

    def context(self, address: str) -> ssl.SSLContext:
        """For the handshake of a client."""
        ...

    def finished(self, there: ssl.SSLObject, address: str) -> ClientCertificate | None:
        """A handshake is done: the verified certificate of the client, if it has shown one."""
        ...

    def gone(self, channel: Channel) -> None:
        """The connection is over."""
        ...


@final
class Tunnel(TlsEnd, asyncio.BufferedProtocol):
    """TLS as every loop takes it."""

    __slots__ = ()


@final
class Channel(Wire, asyncio.BufferedProtocol):
    """Serves one client. Nothing that happens here reaches another connection."""

    def __init__(self, host: Host, address: str, listener: str) -> None:
        self._host = host
        self._service = host.service
        self._observer = host.observer
        self._clock = host.clock
        self._loop = asyncio.get_running_loop()
        self._connection = connection = Connection(host.limits, host.outstanding)
        session = Session(address, is_secure=listener == "ldaps")
        super().__init__(host.hotpath, session, connection.inbox, connection.running)
        self._listener = listener
        self._tasks: dict[int, tuple[Request, asyncio.Task[None]]] = {}
        self._listings: deque[tuple[Request, Listing]] = deque()
        self._pump_handle: asyncio.Handle | None = None
        self._shaking: Tunnel | None = None
        """The transport to be, while its handshake is not done."""
        self.shaking_since: float | None = None
        self._upgrade: Request | None = None
        """The StartTLS that is in work."""
        self._is_deaf = False
        """The client sent its last octet."""
        self._why = "lost"
        self.active_at = self._clock()

    # -- the transport's side ---------------------------------------------------------------------

    def receiver(self) -> asyncio.BufferedProtocol:
        """What is to be put behind the plain transport: TLS for ldaps, the channel itself for ldap."""
        return self._shake() if self._listener == "ldaps" else self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The plain transport is ready."""
        self._taken(cast(asyncio.Transport, transport))

    def encrypted(self, end: TlsEnd) -> None:
        """The TLS handshake is done."""
        self._shaking = self.shaking_since = None
        there = end.get_extra_info("ssl_object")
        self.session.certificate = self._host.finished(there, self.session.address)
        upgrade, self._upgrade = self._upgrade, None
        if upgrade is None:
            self._taken(end)
        else:
            self._transport = end
            self.session.is_secure = True
            self._connection.finish(upgrade.message_id)
            self._turn()

    def _taken(self, transport: asyncio.Transport | TlsEnd) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._observer.connected(self._listener)

    def _make_room(self, sizehint: int) -> memoryview:
        try:
            return self._inbox.buffer(sizehint)
        except LimitExceeded as error:
            # Reading is paused long before; a transport that does not care is told to stop.
            self._break(error)
            return memoryview(bytearray(4096))

    def eof_received(self) -> bool:
        """The client half-closed: answer what it asked, then close."""
        self._is_deaf = True
        self._why = "eof"
        if self._connection.is_idle or self._is_closing:
            return False
        return not self.session.is_secure

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything ends that was done for this client."""
        self._is_closing = True
        self._drop_tasks()
        shaking, self._shaking = self._shaking, None
        self.shaking_since = self._upgrade = None
        if shaking is not None and self._why == "lost":
            self._why = "handshake"
        self._drop_listings()
        if self._pump_handle is not None:
            self._pump_handle.cancel()
        self._service.release(self.session)
        if self._transport is not None:
            self._transport = None
            self._observer.disconnected(self._listener, self.session.address, self._why)
        elif self._why != "shutdown":
            self._observer.disconnected_early(self._listener, self.session.address, "handshake")
        self._host.gone(self)

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self.stalled_at = self._clock()

    def resume_writing(self) -> None:
        """The client took what was waiting."""
        self.stalled_at = None
        self.active_at = self._clock()
        if not self._is_closing:
            self._schedule_pump()
            self._turn()

    # -- the server's side ------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Nothing is in work."""
        return self._connection.is_idle and self._shaking is None

    @property
    def is_closing(self) -> bool:
        """Nothing more is answered."""
        return self._is_closing

    def end(self, why: str, code: int, diagnostic: str) -> None:
        """Tell the client and close."""
        if self._shaking is not None:
            # Neither plain nor encrypted octets would be understood now.
            self.abort(why)
        elif not self._is_closing:
            self._write([notice(code, diagnostic)])
            self._close(why)

    def drain(self) -> None:
        """Take no further requests; end as soon as what is in work is answered."""
        self._is_draining = True
        if self._transport is None:
            self.abort("shutdown")
        else:
            self._drained()

    def abort(self, why: str) -> None:
        """Drop the connection with whatever waits to be sent."""
        self._why = why
        self._is_closing = True
        transport = self._shaking or self._transport
        if transport is not None:
            transport.abort()

    # -- requests ---------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Answer what can be answered now."""
        out: list[bytes] = []
        try:
            while not (self._is_closing or self._is_draining) and self.stalled_at is None:
                request = self._connection.next()
                if request is None:
                    break
                if isinstance(request, UnbindRequest):
                    self._write(out)
                    self._close("unbind")
                    return
                self._serve(request, out)
        except ProtocolError as error:
            self._write(out)
            self._break(error)
            return
        self._write(out)
        if self._is_closing:
            return
        if self._is_draining:
            self._drained()
        elif self._is_deaf and self.is_idle:
            self._close(self._why)
        if not self._is_closing:
            self._balance()

    def _drained(self) -> None:
        """Say goodbye unless something is in work; what has not begun never will."""
        if not self._connection.has_begun and self._shaking is None:
            self.end("shutdown", results.UNAVAILABLE, "the server is shutting down")

    def _serve(self, request: Request, out: list[bytes]) -> None:
        if isinstance(request, AbandonRequest):
            self._stop(request.abandoned_id)
            return
        try:
            outcome = self._service.answer(self.session, request, self.active_at)
        except ProtocolError:
            raise
        except Exception as exc:  # a bug costs this request its answer and nobody anything else
            outcome = self._failed(request, exc)
        self._deliver(request, outcome, out)

    def _deliver(self, request: Request, outcome: Outcome, out: list[bytes]) -> None:
        if isinstance(outcome, bytes):
            out.append(outcome)
            if isinstance(request, BindRequest):
                # Whoever proved himself may say more at a time.
                is_known = self.session.identity is not None
                self._inbox.limits = self._host.bound_limits if is_known else self._host.limits
        elif isinstance(outcome, Later):
            self._connection.begin(request)
            task = self._loop.create_task(self._wait_for(request, outcome))
            self._tasks[request.message_id] = (request, task)
        elif isinstance(outcome, StartTls):
            self._connection.begin(request)
            self._start_tls(request, outcome, out)
        elif isinstance(outcome, Cancel):
            self._cancel(outcome, out)
        else:
            self._list(request, outcome, out)

    def _failed(self, request: Request, exc: Exception) -> bytes:
        identifier = self._observer.failed(f"operation {request.op:#04x} failed", exc)
        if isinstance(request, BindRequest):
            self.session.forget()
        return request.result(results.OTHER, diagnostic=f"internal error {identifier}".encode())

    async def _wait_for(self, request: Request, later: Later) -> None:
        try:
            outcome: bytes | Listing = await later.work()
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # as above
            outcome = self._failed(request, exc)
        self._tasks.pop(request.message_id, None)
        if self._is_closing or not self._connection.finish(request.message_id):
            return
        out: list[bytes] = []
        self._deliver(request, outcome, out)
        self._write(out)
        self._turn()

    def _stop(self, message_id: int) -> bool:
        """Abandon (RFC 4511 4.11); whether there was such an operation and it could be stopped."""
        _, task = self._tasks.pop(message_id, (None, None))
        if task is not None:
            task.cancel()
        for entry in self._listings:
            if entry[0].message_id == message_id:
                entry[1].give_up(self._clock())
                self._listings.remove(entry)
                break
        return self._connection.finish(message_id)

    def _cancel(self, cancel: Cancel, out: list[bytes]) -> None:
        """RFC 3909: both operations are answered."""
        target, request = cancel.message_id, cancel.request
        waiting = [one for one, _ in (*self._listings, *self._tasks.values()) if one.message_id == target]
        if waiting and self._stop(target):
            out.append(waiting[0].result(results.CANCELED))
            out.append(request.result(results.SUCCESS))
        else:
            out.append(request.result(results.NO_SUCH_OPERATION, diagnostic=b"no such operation is in work"))

    # -- listings ---------------------------------------------------------------------------------

    def _list(self, request: Request, listing: Listing, out: list[bytes]) -> None:
        """Begin to send; what does not fit now goes out in later turns."""
        if not self._listings:
            out.append(self._more(request, listing))
            if listing.is_finished:
                return
        self._connection.begin(request)
        self._listings.append((request, listing))
        self._schedule_pump()

    def _more(self, request: Request, listing: Listing) -> bytes:
        try:
            return listing.more(SLICE, EXAMINED, self._clock())
        except Exception as exc:  # as above
            listing.give_up(self._clock())
            return self._failed(request, exc)

    def _schedule_pump(self) -> None:
        if self._listings and self._pump_handle is None and self.stalled_at is None and not self._is_closing:
            self._pump_handle = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """One slice of the oldest listing, then the other connections have their turn."""
        self._pump_handle = None
        if self._is_closing or not self._listings or self.stalled_at is not None:
            return
        request, listing = self._listings[0]
        self._write([self._more(request, listing)])
        if listing.is_finished:
            if self._listings and self._listings[0][1] is listing:
                self._listings.popleft()
            self._connection.finish(request.message_id)
            self._turn()
        self._schedule_pump()

    def _drop_tasks(self) -> None:
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _drop_listings(self) -> None:
        for _, listing in self._listings:
            listing.give_up(self._clock())
        self._listings.clear()

    # -- TLS --------------------------------------------------------------------------------------

    def _shake(self) -> Tunnel:
        """TLS whose handshake begins now. Raises ssl.SSLError."""
        self._shaking = Tunnel(self, self._host.context(self.session.address), self._host.scratch)
        self.shaking_since = self._clock()
        return self._shaking

    def _start_tls(self, request: Request, outcome: StartTls, out: list[bytes]) -> None:
        """RFC 4511 4.14.1: what was sent behind the request is not believed to be protected, so it is dropped."""
        plain = cast(asyncio.Transport, self._transport)
        self._inbox.discard()
        try:
            tunnel = self._shake()
        except Exception as exc:  # a bug: the client is not to wait for ever
            self._observer.failed("StartTLS failed", exc)
            self._write(out)
            out.clear()
            self.abort("handshake")
            return
        out.append(outcome.octets)
        self._write(out)
        out.clear()
        self._upgrade = request
        plain.set_protocol(tunnel)
        tunnel.connection_made(plain)
        if not self._is_reading:
            self._is_reading = True
            plain.resume_reading()

    # -- inside -----------------------------------------------------------------------------------

    def _balance(self) -> None:
        """Read no more than can be worked on."""
        must_wait = self._connection.is_blocked or self.stalled_at is not None or self._is_draining
        wants = not must_wait or self._inbox.pending() < UNREAD
        if self._shaking is not None or wants is self._is_reading or self._transport is None:
            return
        self._is_reading = wants
        if wants:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _write(self, out: list[bytes]) -> None:
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _break(self, error: ProtocolError) -> None:
        """The client broke the protocol."""
        why = "limit" if isinstance(error, LimitExceeded) else "sequence"
        if not isinstance(error, LimitExceeded | SequenceError):
            why = "decode"
        if not self._is_closing:
            self._write([notice_of(error)])
            self._close(why)

    def _close(self, why: str) -> None:
        self._why = why
        self._is_closing = True
        self.active_at = self._clock()
        self._drop_tasks()
        self._drop_listings()
        if self._transport is not None:
            self._transport.close()
