"""The pass over a batch against the general way: the same datagrams, the same replies, counters, lines and memory."""

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outpost._fastradius import SharedSecret, encode_request
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    RadiusProvider,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Revoked,
    Secret,
    Source,
)
from outpost.observe.logs import LogWriter
from outpost.observe.radius import RadiusMeter
from outpost.radius.packet import encode_attribute
from outpost.radius.server import RadiusServer
from tests import oracle_radius as oracle
from tests.radius.testbed import SECRET, Recorder, login, provider

PLAIN = ReplyAttributes((("Filter-Id", "staff"), ("Tunnel-Private-Group-Id:1", "42")))
HIDDEN = ReplyAttributes((("Tunnel-Password:1", "for your eyes only"),))
PEOPLE = {
    "alice": Accepted(Identity(1, "alice", can_search=False)),
    "bob": Accepted(Identity(2, "bob", can_search=False), attributes=PLAIN),
    "carol": Accepted(Identity(3, "carol", can_search=False, session="s3"), attributes=PLAIN),
    "dave": Accepted(Identity(4, "dave", can_search=False, session="s4"), attributes=HIDDEN),
    "jörg": Accepted(Identity(5, "jörg", can_search=False)),
    "flawed": Accepted(Identity(6, "flawed", can_search=False), attributes=ReplyAttributes((("No-Such", "x"),))),
    "huge": Accepted(
        Identity(7, "huge", can_search=False), attributes=ReplyAttributes((("Filter-Id", "x" * 250),) * 16)
    ),
    "aabbccddeeff": Accepted(Identity(8, "aabbccddeeff", can_search=False)),
    "with code": Accepted(Identity(9, "with code", can_search=False), used_code=True),
}
COLD = {"late": Accepted(Identity(10, "late", can_search=False))}
NAMES = [*PEOPLE, *COLD, "ALICE", " alice", "alice@example.org", "asks", "probe", 'q"\\\n', "nobody", "\u00a0alice"]
EXTRAS = {
    "none": b"",
    "device": encode_attribute(32, b"switch") + encode_attribute(31, b"00-11-22-33-44-55"),
    "proxied": encode_attribute(33, b"proxy-1") + encode_attribute(33, b"proxy-2"),
    "long proxied": encode_attribute(33, bytes(250)) * 12,
    "answer": encode_attribute(24, b"state"),
    "identity": encode_attribute(89, b"\0"),
    "call check": encode_attribute(6, bytes((0, 0, 0, 10))),
    "chap": encode_attribute(3, bytes(17)),
    "mschap": encode_attribute(26, b"\0\0\1\x37\x19\2"),
    "eap": encode_attribute(79, b"\2\1\0\4"),
    "twice": encode_attribute(1, b"bob"),
}


class Directory:
    """An authority that answers at once."""

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        if username == "asks":
            return Challenge("Code?", username)
        found = (PEOPLE | COLD).get(username.strip().lower())
        if found is None or secret.reveal() != b"pw":
            return Rejected(RejectReason.INVALID_CREDENTIALS, "no")
        return found

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        return Rejected(RejectReason.CODE_INVALID)


class Side:
    """A whole RADIUS room, taking its datagrams one way or the other."""

    def __init__(self, *, is_express: bool, is_json: bool, options: dict[str, Any]) -> None:
        self.is_express = is_express
        self.now = 1000.0
        self.file = tempfile.TemporaryFile()
        self.log = LogWriter(self.file.fileno(), is_json=is_json)
        self.meter = RadiusMeter(self.log, lambda: "hub")
        self.gate = Gate(
            Directory(),
            GateSettings(CacheSettings(refresh_after_s=50.0)),
            clock=self.clock,
            random=lambda size: bytes(size),
        )
        self.server = RadiusServer(self.gate, self.meter, clock=self.clock, epoch=lambda: 0.0)
        self.provider = provider(networks="127.0.0.0/8", **options)
        self.server.serve([self.provider])
        # What is random for good reasons must be the same on both sides.
        self.server._service._class_key = bytes(32)
        self.server._service._renderer._random = lambda size: bytes(size)
        self.server._service._conversations._random = lambda size: bytes(size)

    def clock(self) -> float:
        return self.now

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Side"]:
        with contextlib.ExitStack() as stack:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            await self.server.start([sock])
            asyncio.get_running_loop().remove_reader(sock.fileno())
            self.sock, self.devices = sock, []
            for _ in range(2):
                device = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                device.setblocking(False)
                device.connect(sock.getsockname())
                self.devices.append(device)
            for name in PEOPLE:
                await self.gate.authenticate(self.provider, name, Secret(b"pw"), Source("radius", "127.0.0.1"))
            yield self
            await self.server.stop()
            await self.gate.stop()
            self.log.stop()
            self.file.close()

    def take(self) -> None:
        """Everything that waits at the socket."""
        (listener,) = self.server._listeners
        if self.is_express:
            while self.server._express.turn(listener.datagrams):
                pass
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                data, _, _, (host, port) = self.sock.recvmsg(4096, 64)
                address = socket.inet_aton(host)
                path = bytes(1) + port.to_bytes(2) + address + address
                octets = self.server._receive(data, address, path, self.now)
                if octets is not None:
                    assert listener.datagrams.send(path, octets)

    async def replies(self) -> list[list[bytes]]:
        """What each device got."""
        for _ in range(20):
            await asyncio.sleep(0)
        found: list[list[bytes]] = []
        for device in self.devices:
            found.append([])
            with contextlib.suppress(BlockingIOError):
                while True:
                    found[-1].append(device.recv(5000))
        return found

    def told(self) -> list[Any]:
        """Counters that are not nought, and lines."""
        self.log.stop()
        families = list(self.meter.families())
        counted = sorted(
            (sample.name, sorted(sample.labels.items()), sample.value)
            for family in families
            for sample in family.samples
            if sample.value
        )
        self.file.seek(0)
        lines = self.file.read().decode().splitlines()
        if self.log.is_json:
            shown: list[Any] = [json.loads(line) | {"timestamp": ""} for line in lines]
        else:
            shown = [line.partition(" ")[2] for line in lines]
        intake = self.server._exchange.intake
        sizes = [len(intake.replies), len(intake.pending), intake.replies.next_deadline()]
        believed = [entry.key for entry in self.gate.believed]
        return [counted, shown, self.gate.counters(), self.gate.gauges(), sizes, believed]


@dataclass(frozen=True)
class Sent:
    """One datagram."""

    device: int
    name: str
    password: str
    extra: str
    is_signed: bool
    identifier: int
    authenticator: int
    flaw: tuple[int, int] | None
    """Offset and bits of an octet that is damaged."""
    padding: int
    code: int

    def octets(self) -> bytes:
        authenticator = bytes((self.authenticator,)) * 16
        if self.code == 1:
            data = login(
                self.name, self.password, extra=EXTRAS[self.extra], sign=self.is_signed, identifier=self.identifier,
                authenticator=authenticator,
            )  # fmt: skip
        else:
            data = encode_request(
                self.code, self.identifier, authenticator, b"", SharedSecret(SECRET), sign=self.is_signed
            )
        if self.flaw is not None:
            at = self.flaw[0] % len(data)
            data = data[:at] + bytes((data[at] ^ self.flaw[1],)) + data[at + 1 :]
        return data + bytes(self.padding)


SENT = st.builds(
    Sent,
    device=st.integers(0, 1),
    name=st.sampled_from(NAMES) | st.sampled_from(["alice", "bob", "carol"]),
    password=st.sampled_from(["pw", "pw", "pw", "wrong", "", "aabbccddeeff", "x" * 100]),
    extra=st.sampled_from(["none", "none", *EXTRAS]),
    is_signed=st.sampled_from([True, True, False]),
    identifier=st.integers(0, 2),
    authenticator=st.integers(0, 1),
    flaw=st.none() | st.none() | st.tuples(st.integers(0, 200), st.integers(1, 255)),
    padding=st.sampled_from([0, 0, 0, 3]),
    code=st.sampled_from([1, 1, 1, 1, 1, 12, 4]),
)
STEPS = st.lists(
    st.lists(SENT, min_size=1, max_size=12)
    | st.sampled_from([1.0, 4.0, 11.0, 45.0, 400.0])
    | st.sampled_from(["revoke"]),
    min_size=1,
    max_size=6,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "message_authenticator": st.sampled_from(["auto", "require", "optional"]),
        "strip_realm": st.just(True),
        "probe_user": st.sampled_from(["probe", "alice"]),
        "return_user_name": st.just(True),
        "mac_addresses": st.just(("aa:bb:cc:dd:ee:ff",)),
        "challenge": st.just(False),
    },
)


async def both(options: dict[str, Any], is_json: bool, steps: list[Any]) -> None:
    express = Side(is_express=True, is_json=is_json, options=options)
    general = Side(is_express=False, is_json=is_json, options=options)
    async with express.open(), general.open():
        for step in steps:
            if isinstance(step, float):
                for side in (express, general):
                    side.now += step
                    side.server._exchange.handle_deadline(side.now)
                continue
            if step == "revoke":
                for side in (express, general):
                    side.gate.publish(Revoked(user_pk=1))
                continue
            for sent in step:
                for side in (express, general):
                    side.devices[sent.device].send(sent.octets())
            for side in (express, general):
                side.take()
            assert await express.replies() == await general.replies()
        assert express.told() == general.told()


def plain(name: str = "alice", identifier: int = 0, **more: Any) -> Sent:
    usual: dict[str, Any] = {
        "device": 0,
        "password": "pw",
        "extra": "none",
        "is_signed": True,
        "authenticator": 0,
        "flaw": None,
        "padding": 0,
        "code": 1,
    }
    return Sent(name=name, identifier=identifier, **(usual | more))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=OPTIONS, is_json=st.sampled_from([True, True, False]), steps=STEPS)
@example(options={}, is_json=True, steps=[[plain(name, n % 256) for n, name in enumerate(PEOPLE)], 4.0, [plain()]])
@example(options={}, is_json=True, steps=[[plain(), plain(), plain(authenticator=1), plain()]])
@example(
    options={}, is_json=True, steps=[[plain("late"), plain("late"), plain(), plain("late", 1)], [plain("late", 2)]]
)
@example(options={}, is_json=True, steps=[60.0, [plain(), plain("bob", 1)], [plain(identifier=2)]])
@example(options={"strip_realm": True}, is_json=True, steps=[[plain("alice@example.org")], [plain(identifier=1)]])
@example(options={}, is_json=True, steps=[[plain("huge", extra="long proxied"), plain("carol", 1, extra="proxied")]])
@example(options={"probe_user": "alice"}, is_json=True, steps=[[plain()]])
@example(
    options={"mac_addresses": ("aa:bb:cc:dd:ee:ff",)},
    is_json=True,
    steps=[[plain("aabbccddeeff", password="aabbccddeeff"), plain("aabbccddeeff", 1)]],
)
def test_both_ways_are_one(options: dict[str, Any], is_json: bool, steps: list[Any]) -> None:
    asyncio.run(both(options, is_json, steps))


async def test_known_logins_need_no_call_into_the_general_way() -> None:
    side = Side(is_express=True, is_json=True, options={})
    async with side.open():
        called: list[str] = []
        for warm in range(2):
            for n, name in enumerate(("alice", "bob", "carol", "jörg")):
                side.devices[0].send(plain(name, n, authenticator=warm).octets())
            if warm:
                side.server._service.answer = lambda request: called.append("answer")  # type: ignore[method-assign]
                side.server._service.accepted = lambda *args: called.append("accepted")  # type: ignore[method-assign]
            side.take()
        (replies, _) = await side.replies()
        assert called == [] and [reply[0] for reply in replies] == [2] * 8
        for n, reply in enumerate(replies[4:]):
            assert reply[1] == n and oracle.response_holds(reply, bytes((1,)) * 16, SECRET)
        assert side.gate.counters()["cache_hits"] == 8


async def test_more_than_a_batch_is_taken_in_order() -> None:
    side = Side(is_express=True, is_json=True, options={})
    async with side.open():
        side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        for n in range(150):
            side.devices[n % 2].send(plain(["alice", "bob"][n % 3 == 0], n).octets())
        (listener,) = side.server._listeners
        assert [side.server._express.turn(listener.datagrams) for _ in range(4)] == [64, 64, 22, 0]
        found = await side.replies()
        assert [[reply[1] for reply in one] for one in found] == [list(range(0, 150, 2)), list(range(1, 150, 2))]


@pytest.mark.parametrize("where", ["known", "answered", "find"])
async def test_a_bug_costs_one_answer(where: str) -> None:
    recorder = Recorder()

    class Odd:
        def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
            if where == "known" and username == "bug":
                raise RuntimeError("a bug")
            return PEOPLE["alice"]

    server = RadiusServer(Odd(), recorder, epoch=lambda: 0.0)  # type: ignore[arg-type]
    server.serve([provider(networks="127.0.0.0/8")])
    if where == "answered":
        before = recorder.answered

        def answered(*told: Any) -> None:
            if told[4] == "bug":
                raise RuntimeError("a bug")
            before(*told)

        recorder.answered = answered  # type: ignore[method-assign]
    if where == "find":
        table = server._exchange.table
        found = table.find

        def find(address: bytes) -> Any:
            if recorder.answers and not recorder.failures:
                raise RuntimeError("a bug")
            table.peers.clear()
            return found(address)

        class Table:
            peers: dict[bytes, Any] = {}  # noqa: RUF012

        odd: Any = Table()
        odd.find = find
        server._exchange.table = odd
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    await server.start([sock])
    asyncio.get_running_loop().remove_reader(sock.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.connect(sock.getsockname())
        device.settimeout(5)
        for n, name in enumerate(("alice", "bug", "bob")):
            device.send(plain(name, n).octets())
        server._express.turn(server._listeners[0].datagrams)
        assert [device.recv(4096)[1] for _ in range(2)] == [0, 2]
        device.setblocking(False)
        with pytest.raises(BlockingIOError):
            device.recv(4096)
    assert len(recorder.failures) >= 1
    await server.stop()
