"""LDAP over TCP and TLS: listeners, limits, deadlines and revocations around the channels."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from outpost._fastber import Limits
from outpost.errors import DecodeError
from outpost.identity import CertificateKeyPair, LdapProvider, Publish, Revoked, Served
from outpost.ldap import results
from outpost.ldap._hotpath import HotPath
from outpost.ldap.certificates import ClientCertificate
from outpost.ldap.channel import Channel
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations.bind import Gate, Sessions
from outpost.ldap.operations.external import Voucher
from outpost.ldap.operations.outcome import is_revoked
from outpost.ldap.operations.password_modify import Changer
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.proxy import header
from outpost.ldap.service import LdapService
from outpost.ldap.shelf import Library
from outpost.ldap.tls import Certificates, TlsSettings

ACCEPTS = 64
"""Connections taken in one turn of the loop."""
SWEEP_S = 1.0
ENCRYPTED = 65_536
"""Octets read at a time from a connection with TLS."""
RETRY_ACCEPT_S = 0.5

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RevocableGate(Gate, Protocol):
    """A gate that tells what is believed no more."""

    def subscribe(self, on_revoked: Publish) -> Callable[[], None]:
        """Call `on_revoked` at each revocation; calling the result ends that."""
        ...


class ServedLibrary(Library, Protocol):
    """A library that is told what is served."""

    def serve(self, providers: Iterable[LdapProvider]) -> None:
        """Providers or people changed; returns at once."""
        ...

    async def stop(self) -> None:
        """End what is under way; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What clients may take. Sizes are octets."""

    connections: int = 16_384
    """Open at a time; further ones are closed at once."""
    connections_of_address: int = 4_096
    """Open at a time from one address, those behind a trusted proxy by their own."""
    message: int = 262_144
    """One request of a client that has bound."""
    message_anonymous: int = 16_384
    """One request before that."""
    filter_depth: int = 64
    filter_terms: int = 4_096
    outstanding: int = 64
    """Requests of one connection in work at a time; further ones wait."""
    handshake_s: float = 10.0
    """For the TLS handshake, and for the PROXY header."""
    idle_s: float = 900.0
    """A connection that has bound is closed after this long without a request; 0: never."""
    idle_anonymous_s: float = 60.0
    """The same for one that has not bound."""
    stalled_s: float = 60.0
    """A client that takes nothing of what waits for it is cut off after this."""


@final
class LdapServer:
    """Serves LDAP on listening sockets.

    How the composition uses it, all on one event loop:

        server = LdapServer(gate, directories, observer, sessions=backend.sessions)
        for flaw in server.serve(catalog.served()): log.warning(flaw)     # and again at every change
        await server.start({"ldap": [...], "ldaps": [...]})                # takes the listening sockets over
        ...
        await server.stop(drain_s)                                         # idempotent
    """

    def __init__(
        self,
        gate: RevocableGate,
        directories: ServedLibrary,
        observer: LdapObserver,
        *,
        sessions: Sessions | None = None,
        passwords: Changer | None = None,
        voucher: Voucher | None = None,
        tls: TlsSettings | None = None,
        default_certificate: CertificateKeyPair | None = None,
        limits: ServerLimits | None = None,
        search_limits: SearchLimits | None = None,
        trusted_proxies: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError for settings of TLS that cannot be used."""
        bounds = self._bounds = limits or ServerLimits()
        self.limits = _decoding(bounds, bounds.message_anonymous)
        self.bound_limits = _decoding(bounds, bounds.message)
        self.outstanding = bounds.outstanding
        self.scratch = memoryview(bytearray(ENCRYPTED))
        self.observer = observer
        self.clock = clock
        self.service = LdapService(
            gate,
            directories,
            observer,
            limits=search_limits or SearchLimits(),
            decoding=self.bound_limits,
            sessions=sessions,
            passwords=passwords,
            voucher=voucher,
            clock=clock,
            epoch=epoch,
        )
        self.hotpath = HotPath(
            gate,
            directories,
            observer,
            sessions,
            self.service.release,
            self.bound_limits,
            (search_limits or SearchLimits()).size_limit,
            clock,
        )
        self.hotpath.serve(self.service.providers)
        self._directories = directories
        self._certificates = Certificates(
            tls or TlsSettings(), can_vouch=voucher is not None, default=default_certificate
        )
        self._trusted = tuple(trusted_proxies)
        self._unsubscribe = gate.subscribe(self._revoked)
        self._sockets: list[tuple[socket.socket, str]] = []
        self._channels: set[Channel] = set()
        self._of_address: Counter[str] = Counter()
        self._arriving: set[asyncio.Task[None]] = set()
        """Connections without a channel yet."""
        self._connecting: set[asyncio.Task[None]] = set()
        """Those with one, which is not connected yet."""
        self._sweep: asyncio.TimerHandle | None = None
        self._retries: set[asyncio.TimerHandle] = set()
        self._emptied: asyncio.Event | None = None
        self._is_stopping = False

    def context(self, address: str) -> ssl.SSLContext:
        """For a client's handshake; the certificate is chosen by name."""
        return self._certificates.context(address)

    def finished(self, there: ssl.SSLObject, address: str) -> ClientCertificate | None:
        """A handshake is done: the verified certificate of the client, if it has shown one."""
        return self._certificates.finished(there, address)

    @property
    def open(self) -> int:
        """Connections open now, or about to be."""
        return len(self._channels) + len(self._arriving)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listening socket."""
        return [sock.getsockname()[:2] for sock, _ in self._sockets]

    def serve(self, served: Served) -> tuple[str, ...]:
        """Serve these providers and certificates from now on; what an operator has to mend about them.

        Connections that were bound to a provider that is gone are closed.
        """
        flaws = self.service.serve(served.ldap)
        self.hotpath.serve(self.service.providers)
        self._directories.serve(self.service.providers)
        for channel in tuple(self._channels):
            provider = channel.session.provider
            if provider is not None and self.service.providers.current(provider) is None:
                channel.end("session_end", results.UNAVAILABLE, "this directory is served no more")
        return flaws + self._certificates.serve(served)

    async def start(self, sockets: dict[str, Sequence[socket.socket]]) -> None:
        """Accept on listening, non-blocking sockets by listener (`ldap`, `ldaps`); they are closed by `stop`."""
        loop = asyncio.get_running_loop()
        for listener, listening in sockets.items():
            for sock in listening:
                self._sockets.append((sock, listener))
                loop.add_reader(sock.fileno(), self._accept, sock, listener)
        self._sweep = loop.call_later(SWEEP_S, self._swept)

    def close(self) -> None:
        """Accept no more; who is connected stays so. Idempotent."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        sockets, self._sockets = self._sockets, []
        for sock, _ in sockets:
            loop.remove_reader(sock.fileno())
            sock.close()
        for handle in self._retries:
            handle.cancel()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Accept no more, give what is in work `drain_s` seconds, close everything; idempotent."""
        self.close()
        self._unsubscribe()
        if self._sweep is not None:
            self._sweep.cancel()
        unfinished = (*self._arriving, *self._connecting)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._emptied = asyncio.Event()
        for channel in tuple(self._channels):
            channel.drain()
        if self._channels:
            try:
                async with asyncio.timeout(max(drain_s, 0.05)):
                    await self._emptied.wait()
            except TimeoutError:
                for channel in tuple(self._channels):
                    channel.abort("shutdown")
                await asyncio.sleep(0)
        await self._directories.stop()

    def gone(self, channel: Channel) -> None:
        """The connection of `channel` is over."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._forget_address(channel.session.address)
        if self._emptied is not None and not self._channels:
            self._emptied.set()

    # -- arriving ---------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket, listener: str) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS):
            try:
                there, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors: the one that waits would wake us for ever.
                loop.remove_reader(sock.fileno())
                self._retries.add(loop.call_later(RETRY_ACCEPT_S, self._listen_again, sock, listener))
                return
            address = _address(peer[0])
            if len(self._channels) + len(self._arriving) >= self._bounds.connections:
                self.observer.disconnected_early(listener, address, "too_many")
                there.close()
                continue
            task = loop.create_task(self._arrive(there, address, listener))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._connecting.discard(task)

    def _listen_again(self, sock: socket.socket, listener: str) -> None:
        self._retries = {one for one in self._retries if one.when() > asyncio.get_running_loop().time()}
        if not self._is_stopping:
            asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock, listener)

    async def _arrive(self, there: socket.socket, address: str, listener: str) -> None:
        """PROXY header, limits; then the channel is on its own."""
        counted = ""
        try:
            if self._is_trusted(address):
                address = await self._proxied(there, listener, address)
            if self._of_address[address] >= self._bounds.connections_of_address:
                self._forget_address(address, 0)
                self.observer.disconnected_early(listener, address, "too_many_of_address")
                there.close()
                return
            self._of_address[address] += 1
            counted = address
            channel = Channel(self, address, listener)
            self._channels.add(channel)
            counted = ""
            task = asyncio.current_task()
            assert task is not None
            self._arriving.discard(task)
            self._connecting.add(task)
            try:
                receiver = channel.receiver()
                await asyncio.get_running_loop().connect_accepted_socket(lambda: receiver, there)
            except BaseException:
                self.gone(channel)
                raise
        except (DecodeError, TimeoutError):
            self.observer.disconnected_early(listener, address, "proxy")
            there.close()
        except (OSError, ssl.SSLError, EOFError):
            self.observer.disconnected_early(listener, address, "handshake" if listener == "ldaps" else "lost")
            there.close()
        except asyncio.CancelledError:
            there.close()
            raise
        except Exception as exc:  # a bug with one connection is not to be the listener's
            self.observer.failed("a connection could not be taken", exc)
            there.close()
        finally:
            if counted:
                self._forget_address(counted)

    async def _proxied(self, there: socket.socket, listener: str, address: str) -> str:
        """The address in the PROXY header. Raises DecodeError, TimeoutError, EOFError."""
        loop = asyncio.get_running_loop()
        there.setblocking(False)
        reading = header()
        wanted = next(reading)
        async with asyncio.timeout(self._bounds.handshake_s):
            while True:
                octets = b""
                while len(octets) < wanted:
                    more = await loop.sock_recv(there, wanted - len(octets))
                    if not more:
                        raise EOFError
                    octets += more
                try:
                    wanted = reading.send(octets)
                except StopIteration as stop:
                    return stop.value or address

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        there = ipaddress.ip_address(address.partition("%")[0])
        return any(there in network for network in self._trusted if network.version == there.version)

    def _forget_address(self, address: str, by: int = 1) -> None:
        self._of_address[address] -= by
        if self._of_address[address] <= 0:
            del self._of_address[address]

    # -- watching ---------------------------------------------------------------------------------

    def _swept(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)
        now, bounds = self.clock(), self._bounds
        for channel in tuple(self._channels):
            if channel.shaking_since is not None:
                if now - channel.shaking_since > bounds.handshake_s:
                    channel.abort("handshake")
                continue
            channel.session.drop_pages(now)
            if channel.stalled_at is not None:
                if now - channel.stalled_at > bounds.stalled_s:
                    channel.abort("stalled")
                continue
            if channel.is_closing and now - channel.active_at > bounds.stalled_s:
                # What it was told last is too little to count as stalled, and still not taken.
                channel.abort("stalled")
                continue
            allowed = bounds.idle_s if channel.session.identity is not None else bounds.idle_anonymous_s
            if allowed and now - channel.active_at > allowed and channel.is_idle:
                channel.end("idle", results.UNAVAILABLE, "closed for being idle")

    def _revoked(self, revoked: Revoked) -> None:
        for channel in tuple(self._channels):
            if not is_revoked(channel.session, revoked):
                continue
            if channel.session.is_changing_password:
                self.service.release(channel.session)
            else:
                channel.end("session_end", results.STRONGER_AUTH_REQUIRED, "your session ended; bind again")


def _decoding(bounds: ServerLimits, message: int) -> Limits:
    return Limits(message=message, filter_depth=bounds.filter_depth, filter_terms=bounds.filter_terms)


def _address(peer: str) -> str:
    """Bare address; IPv4 inside IPv6 as IPv4."""
    return peer.removeprefix("::ffff:") if peer.startswith("::ffff:") and "." in peer else peer
