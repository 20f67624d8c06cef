"""A RADIUS server on loopback with a scripted gate and a recording observer."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_network
from typing import Any

from outpost._fastradius import SharedSecret, encode_request, hide_user_password
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    RadiusOptions,
    RadiusProvider,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.radius.observer import DropReason
from outpost.radius.packet import encode_attribute
from outpost.radius.server import RadiusServer
from tests import oracle_radius as oracle

SECRET = b"testing123"
ALICE = Accepted(Identity(1, "alice", can_search=False))


def provider(
    pk: int = 1, networks: str = "127.0.0.0/8,::1/128", secret: bytes = SECRET, **options: Any
) -> RadiusProvider:
    options.setdefault("reject_delay_s", 0.0)
    return RadiusProvider(
        pk,
        f"radius-{pk}",
        f"app-{pk}",
        tuple(ip_network(network) for network in networks.split(",") if network),
        Secret(secret),
        options=RadiusOptions(**options),
    )


class Recorder:
    """Remembers what was observed."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, int, str, str, str, str, float, bool]] = []
        self.drops: Counter[DropReason] = Counter()
        self.notices: list[tuple[DropReason, str, str, int]] = []
        self.resends = 0
        self.details: list[str] = []
        self.failures: list[BaseException] = []
        self.conversations = (0, 0, 0)
        self._changed: list[asyncio.Event] = []

    def answered(self, *told: Any) -> None:
        self.answers.append(told)
        self._wake()

    def accepts(self, app: str, client: str) -> None:
        return None

    def dropped(self, reason: DropReason, app: str) -> None:
        self.drops[reason] += 1
        self._wake()

    def noticed(self, reason: DropReason, app: str, client: str, suppressed: int) -> None:
        self.notices.append((reason, app, client, suppressed))

    def resent(self, app: str) -> None:
        self.resends += 1

    def challenges(self, opened: int, expired: int, pending: int) -> None:
        self.conversations = (opened, expired, pending)

    def explained(self, app: str, client: str, username: str, detail: str) -> None:
        self.details.append(detail)

    def failed(self, what: str, error: BaseException) -> str:
        self.failures.append(error)
        return "logged"

    def _wake(self) -> None:
        for event in self._changed:
            event.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something observed; the test's time-out ends a wait in vain."""
        event = asyncio.Event()
        self._changed.append(event)
        while not holds():
            await asyncio.wait_for(event.wait(), 10)
            event.clear()
        self._changed.remove(event)


class ScriptedGate:
    """Accepts the users it has; `down` makes everything Unavailable; `release` holds logins back until set."""

    def __init__(self) -> None:
        self.users = {"alice": b"wonderland"}
        self.cached: set[str] = set()
        self.attributes = ReplyAttributes()
        self.codes: dict[str, bytes] = {}
        self.rounds = 1
        """Codes asked for in one conversation."""
        self.down = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.asked: list[tuple[int, str, Source]] = []
        self.resumed: list[tuple[str, bytes]] = []
        self.session: str | None = None

    def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
        if username in self.cached and self.users.get(username) == secret:
            return Accepted(Identity(1, username, can_search=False, session=self.session), attributes=self.attributes)
        return None

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        self.asked.append((provider.pk, username, source))
        await self.hold.wait()
        if self.down:
            return Unavailable(UnavailableReason.BACKEND_DOWN)
        if username == "bug":
            raise RuntimeError("a bug")
        if self.users.get(username) != secret.reveal():
            return Rejected(RejectReason.INVALID_CREDENTIALS, attributes=self.attributes)
        if username in self.codes:
            return Challenge("Code, please", username, attributes=self.attributes)
        return Accepted(Identity(1, username, can_search=False, session=self.session), attributes=self.attributes)

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        username = str(continuation)
        self.resumed.append((username, secret.reveal()))
        if self.codes.get(username) != secret.reveal():
            return Rejected(RejectReason.CODE_INVALID)
        self.rounds -= 1
        if self.rounds > 0:
            return Challenge("And another one, please", username)
        return Accepted(Identity(1, username, can_search=False), attributes=self.attributes, used_code=True)


class Bed:
    """The server, what it depends on, and clients to ask it with."""

    def __init__(self, server: RadiusServer, gate: ScriptedGate, observer: Recorder, port: int) -> None:
        self.server, self.gate, self.observer, self.port = server, gate, observer, port

    @contextlib.contextmanager
    def client(self, host: str = "127.0.0.1", source: str = "") -> Iterator["Client"]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((source or host, 0))
            yield Client(sock, (host, self.port))


class Client:
    """A network device."""

    def __init__(self, sock: socket.socket, server: tuple[str, int]) -> None:
        self.sock, self.server = sock, server

    def send(self, data: bytes) -> None:
        self.sock.sendto(data, self.server)

    async def receive(self, timeout: float = 10) -> tuple[bytes, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        data, address = await asyncio.wait_for(loop.sock_recvfrom(self.sock, 5000), timeout)
        return data, address[:2]

    async def ask(self, data: bytes, secret: bytes = SECRET) -> bytes:
        """The reply, whose authenticators hold."""
        self.send(data)
        reply, address = await self.receive()
        assert address == self.server
        assert oracle.response_holds(reply, data[4:20], secret) and reply[1] == data[1]
        return reply

    def is_silent(self) -> bool:
        """Nothing is waiting to be read."""
        try:
            self.sock.recvfrom(5000)
        except BlockingIOError:
            return True
        return False


@contextlib.asynccontextmanager
async def serving(*providers: RadiusProvider, host: str = "0.0.0.0", **keywords: Any) -> AsyncIterator[Bed]:
    gate, observer = ScriptedGate(), Recorder()
    server = RadiusServer(gate, observer, **keywords)
    server.serve(providers or (provider(),))
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    await server.start([sock])
    try:
        yield Bed(server, gate, observer, server.addresses[0][1])
    finally:
        await server.stop()
    assert observer.failures == []


def login(
    username: str = "alice",
    password: str = "wonderland",
    *,
    extra: bytes = b"",
    sign: bool = True,
    identifier: int = 1,
    authenticator: bytes = bytes(range(16)),
    secret: bytes = SECRET,
) -> bytes:
    """An Access-Request with User-Name and User-Password."""
    shared = SharedSecret(secret)
    body = encode_attribute(1, username.encode())
    body += encode_attribute(2, hide_user_password(password.encode(), shared, authenticator)) + extra
    return encode_request(1, identifier, authenticator, body, shared, sign=sign)
