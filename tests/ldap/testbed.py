"""An LDAP server on loopback with a scripted authority, a small organisation and a recording observer."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import ip_network
from typing import Any

from outpost._fastber import SearchRequest
from outpost.credentials.gate import Gate
from outpost.errors import BackendUnavailable
from outpost.identity import (
    Accepted,
    Decision,
    Group,
    Identity,
    LdapOptions,
    LdapProvider,
    Passwords,
    People,
    Provider,
    Rejected,
    RejectReason,
    Secret,
    Served,
    Source,
    User,
    Wanted,
)
from outpost.ldap.directories import Directories, shelved
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import LdapServer, ServerLimits
from outpost.ldap.tls import TlsSettings
from tests.ldap import decode, encode

BASE = "dc=ldap,dc=goauthentik,dc=io"
SERVICE = f"cn=ldapservice,ou=users,{BASE}"
ALICE = f"cn=alice,ou=users,{BASE}"
PASSWORDS = {"alice": "alice-pw", "bob": "bob-pw", "ldapservice": "service-pw"}
GROUP = "11111111-1111-4111-8111-111111111111"


def people(count: int = 3, generation: int = 1) -> People:
    """alice, bob and the service account, then as many as are wanted."""
    names = [*PASSWORDS, *(f"user{n}" for n in range(len(PASSWORDS), count))]
    users = tuple(
        User(
            pk,
            name,
            name=f"{name.capitalize()} Example",
            email=f"{name}@example.com",
            groups=(GROUP,) if name == "alice" else (),
        )
        for pk, name in enumerate(names, 1)
    )
    return People(users, (Group(GROUP, 7, "labstaff"),), generation, 0.0)


def provider(pk: int = 1, base_dn: str = BASE, **changes: Any) -> LdapProvider:
    options = {name: changes.pop(name) for name in tuple(changes) if name in LdapOptions.__slots__}
    options.setdefault("uid", "username")
    return LdapProvider(
        pk, f"ldap-{pk}", base_dn, changes.pop("slug", f"app-{pk}"), options=LdapOptions(**options), **changes
    )


class Authority:
    """Knows three passwords; what it says, and when, can be scripted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.script: dict[str, Decision | BaseException] = {}
        self.hold: asyncio.Event | None = None
        self.vouched: list[tuple[int, str, str]] = []
        self.vouching: dict[str, Decision | BaseException] = {}

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """Knows the same people by name, and alice by her mail address."""
        self.vouched.append((provider.pk, username, source.address))
        if self.hold is not None:
            await self.hold.wait()
        scripted = self.vouching.get(username)
        if isinstance(scripted, BaseException):
            raise scripted
        if scripted is not None:
            return scripted
        name = username.lower().removesuffix("@example.com")
        if name not in PASSWORDS:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "no such user")
        return Accepted(Identity([*PASSWORDS].index(name) + 1, name, name == "ldapservice"))

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        self.asked.append((username, source.address))
        if self.hold is not None:
            await self.hold.wait()
        scripted = self.script.get(username)
        if isinstance(scripted, BaseException):
            raise scripted
        if scripted is not None:
            return scripted
        if PASSWORDS.get(username.lower()) != secret.reveal().decode("utf-8", "replace"):
            return Rejected(RejectReason.INVALID_CREDENTIALS)
        pk = [*PASSWORDS].index(username.lower()) + 1
        return Accepted(Identity(pk, username, username.lower() == "ldapservice", session=f"session-{pk}"))

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        raise AssertionError("LDAP has no second round")


class Roster:
    def __init__(self, people: People | None) -> None:
        self.people = people
        self.fetched: list[Wanted] = []
        self.is_down = False
        self.hold: asyncio.Event | None = None

    def current(self, provider: LdapProvider) -> People | None:
        return self.people

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> People:
        self.fetched.append(wanted)
        if self.hold is not None:
            await self.hold.wait()
        if self.is_down or self.people is None:
            raise BackendUnavailable("down")
        return self.people

    def subscribe(self, on_change: Callable[[], None]) -> None:
        raise AssertionError


class Sessions:
    def __init__(self) -> None:
        self.held: list[str] = []

    def hold(self, handle: str) -> None:
        self.held.append(handle)

    def release(self, handle: str) -> None:
        self.held.remove(handle)


class Recorder:
    """Remembers what was observed."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.ends: list[str] = []
        self.refused: list[str] = []
        self.binds: list[tuple[bytes, int, str]] = []
        self.searches: list[tuple[int, str, int]] = []
        self.operations: list[tuple[str, int]] = []
        self.failures: list[BaseException] = []
        self.clients: list[str] = []
        self.details: list[str] = []

    def connected(self, listener: str) -> None:
        self.taken.append(listener)

    def disconnected(self, listener: str, client: str, why: str) -> None:
        self.ends.append(why)

    def disconnected_early(self, listener: str, client: str, why: str) -> None:
        self.refused.append(why)

    def bound(self, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int, reason: str) -> None:
        assert took_s >= 0 and type(reason) is str
        self.clients.append(client)
        self.binds.append((bind_dn, result_code, reason))

    def searched(
        self,
        app: str,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took_s: float,
        result_code: int,
        reason: str,
        entries: int,
    ) -> None:
        assert took_s >= 0 and type(reason) is str
        self.searches.append((result_code, reason, entries))

    def operated(self, kind: str, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int) -> None:
        self.operations.append((kind, result_code))

    def explained(self, app: str, client: str, bind_dn: bytes, detail: str) -> None:
        self.details.append(detail)

    def failed(self, what: str, error: BaseException) -> str:
        self.failures.append(error)
        return "e1"


@dataclasses.dataclass
class Bed:
    server: LdapServer
    authority: Authority
    roster: Roster
    directories: Directories
    gate: Gate
    seen: Recorder
    sessions: Sessions
    served: Served
    port: int
    tls_port: int
    clients: list["Client"] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    async def serve(self, served: Served) -> tuple[str, ...]:
        self.served = served
        flaws = self.server.serve(served)
        await self.ready()
        return flaws

    async def change(self, people: People) -> None:
        self.roster.people = people
        self.server.serve(self.served)
        while self.directories._builds:
            await asyncio.sleep(0.002)

    async def ready(self) -> None:
        while self.directories.readiness() and self.roster.people is not None:
            await asyncio.sleep(0.002)

    async def client(self, who: str = "", *, tls: ssl.SSLContext | None = None, name: str | None = None) -> "Client":
        port = self.tls_port if tls else self.port
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname=(name or "localhost") if tls else None
        )
        client = Client(reader, writer)
        self.clients.append(client)
        if who:
            assert await client.bind(f"cn={who},ou=users,{BASE}", PASSWORDS[who]) == 0
        return client


class Client:
    """Speaks octets. `ask` sends messages and collects what answers the last of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._next = 0

    @property
    def next_id(self) -> int:
        self._next += 1
        return self._next

    def send(self, *octets: bytes) -> None:
        self.writer.write(b"".join(octets))

    async def message(self) -> decode.Message:
        async with asyncio.timeout(10):
            head = await self.reader.readexactly(2)
            size = head[1]
            if size & 0x80:
                more = await self.reader.readexactly(size & 0x7F)
                head, size = head + more, int.from_bytes(more, "big")
            [found] = decode.messages(head + await self.reader.readexactly(size))
            return found

    async def bind(self, name: str, password: str | bytes, **more: Any) -> int:
        self.send(encode.bind(self.next_id, name, password, **more))
        return decode.result((await self.message()).content)[0]

    async def search(self, base: str, *args: Any, **more: Any) -> tuple[int, list[decode.Entry], decode.Message]:
        self.send(encode.search(self.next_id, base, *args, **more))
        entries = []
        while True:
            found = await self.message()
            if found.tag == 0x64:
                entries.append(decode.entry(found.content))
            elif found.tag == 0x65:
                return decode.result(found.content)[0], entries, found

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


def trusting() -> ssl.SSLContext:
    """A client context that takes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def bed(
    *,
    providers: Iterable[LdapProvider] | None = None,
    directory: People | None = None,
    is_empty: bool = False,
    limits: ServerLimits | None = None,
    search_limits: SearchLimits | None = None,
    trusted: str = "",
    passwords: Passwords | None = None,
    tls: TlsSettings | None = None,
    can_vouch: bool = False,
    clock: Callable[[], float] | None = None,
    epoch: Callable[[], float] | None = None,
) -> AsyncIterator[Bed]:
    authority, seen, sessions = Authority(), Recorder(), Sessions()
    roster = Roster(None if is_empty else directory or people())
    gate = Gate(authority, passwords=passwords, certificates=authority if can_vouch else None)
    gate.set_connected(True)
    directories = Directories(roster, shelved)
    server = LdapServer(
        gate,
        directories,
        seen,
        sessions=sessions,
        passwords=None if passwords is None else gate,
        voucher=gate if can_vouch else None,
        tls=tls,
        limits=limits,
        search_limits=search_limits,
        trusted_proxies=[ip_network(one) for one in trusted.split()],
        **{name: value for name, value in (("clock", clock), ("epoch", epoch)) if value},
    )
    sockets = []
    for _ in range(2):
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        sockets.append(sock)
    await server.start({"ldap": sockets[:1], "ldaps": sockets[1:]})
    served = Served(ldap=tuple(providers) if providers is not None else (provider(),))
    ports = [port for _, port in server.addresses]
    found = Bed(server, authority, roster, directories, gate, seen, sessions, served, *ports)
    try:
        flaws = await found.serve(served)
        assert flaws == () or (tls is not None and not can_vouch), flaws
        yield found
    finally:
        for client in found.clients:
            await client.close()
        await server.stop(0.2)
        await gate.stop()
    assert server.open == 0
    assert sessions.held == []
