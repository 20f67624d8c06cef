"""TLS without sockets: a real client's octets in pieces, between a recorded transport and a recorded channel."""

import asyncio
import gc
import random
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost.ldap import tls
from outpost.ldap._tls import TlsEnd
from outpost.ldap.channel import Tunnel
from tests.ldap import pki
from tests.ldap.testbed import trusting

SERVER = tls.context_of(pki.server("localhost").served(), None)
VERSIONS = {
    version: pki.client_context(minimum_version=version, maximum_version=version)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
}
for _context in VERSIONS.values():
    _context.check_hostname = False
    _context.verify_mode = ssl.CERT_NONE
ROOM = 65_536


class Plain:
    """A plain transport. What is written is the client's to read."""

    def __init__(self, to_client: ssl.MemoryBIO) -> None:
        self.to_client = to_client
        self.writes: list[int] = []
        self.calls: list[object] = []
        self.is_reading = True
        self.socket: socket.socket | None = None

    def write(self, octets: bytes) -> None:
        assert octets and not self.is_closing()
        self.writes.append(len(octets))
        self.to_client.write(octets)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return bool({"close", "abort"}.intersection(self.calls))

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append((high, low))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 5), "socket": self.socket}.get(name, default)


class Wire:
    """A channel that keeps what it is given, and may do something about it."""

    def __init__(self, size: int = 4096) -> None:
        self.room = memoryview(bytearray(size))
        self.got = bytearray()
        self.told: list[object] = []
        self.then: Callable[[bytes], None] = lambda _: None
        self.end: TlsEnd | None = None

    def encrypted(self, end: TlsEnd) -> None:
        self.end = end
        self.told.append("encrypted")

    def get_buffer(self, sizehint: int) -> memoryview:
        assert sizehint > 0
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.room)
        octets = bytes(self.room[:nbytes])
        self.got += octets
        self.then(octets)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc or "lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Pair:
    """A client and our end."""

    def __init__(self, context: ssl.SSLContext | None = None, *, room: int = 4096, server: ssl.SSLContext = SERVER):
        self.to_client, self.from_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = (context or trusting()).wrap_bio(self.to_client, self.from_client)
        self.wire, self.plain = Wire(room), Plain(self.to_client)
        self.end = Tunnel(self.wire, server, memoryview(bytearray(ROOM)))
        self.end.connection_made(self.plain)  # type: ignore[arg-type]

    def give(self, octets: bytes) -> None:
        """To our end, as a transport does it."""
        room = self.end.get_buffer(-1)
        assert len(octets) <= len(room)
        room[: len(octets)] = octets
        self.end.buffer_updated(len(octets))

    def shake(self) -> bool:
        """The client's next step; whether it is done."""
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def connect(self) -> "Pair":
        while not self.shake():
            self.give(self.from_client.read())
        if self.from_client.pending:
            self.give(self.from_client.read())
        assert self.wire.told == ["encrypted"]
        return self

    def said(self, *octets: bytes) -> bytes:
        """What the client sends, encrypted."""
        for one in octets:
            self.client.write(one)
        return self.from_client.read()

    def heard(self) -> bytes:
        """What the client decrypts."""
        got = bytearray()
        while True:
            try:
                more = self.client.read(65_536)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return bytes(got)
            if not more:
                return bytes(got)
            got += more


def cut(octets: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    while octets:
        size = min(chance.choice((1, 2, 5, 6, 50, 1000, 20_000, ROOM)), len(octets))
        pieces.append(octets[:size])
        octets = octets[size:]
    return pieces


@settings(max_examples=150, deadline=None)
@given(
    version=st.sampled_from(sorted(VERSIONS)),
    seed=st.integers(0, 2**32),
    messages=st.lists(st.integers(1, 40_000), max_size=6),
    room=st.sampled_from((1, 7, 300, 4096, 70_000)),
    stops=st.sampled_from((0.0, 0.3)),
)
def test_wherever_the_stream_is_cut(
    version: ssl.TLSVersion, seed: int, messages: list[int], room: int, stops: float
) -> None:
    """Each octet arrives once and in order, each answer too, and close_notify is answered."""
    chance = random.Random(seed)
    if room < 10:
        messages = [size % 500 + 1 for size in messages]

    async def scene() -> None:
        there = Pair(VERSIONS[version], room=room)
        answered = bytearray()

        def answer(octets: bytes) -> None:
            if chance.random() < stops:
                there.end.pause_reading()
                asyncio.get_running_loop().call_soon(there.end.resume_reading)
            reply = octets * chance.choice((0, 1, 3))
            if reply:
                answered.extend(reply)
                there.end.write(reply)

        async def give(octets: bytes) -> None:
            for piece in cut(octets, chance):
                while not there.plain.is_reading:
                    await asyncio.sleep(0)
                there.give(piece)

        there.wire.then = answer
        while not there.shake():
            await give(there.from_client.read())
        sent = b"".join(chance.randbytes(size) for size in messages)
        at = 0
        for size in messages:
            there.client.write(sent[at : at + size])
            at += size
        heard = b""
        await give(there.from_client.read())
        # An octet at a time, and a pause behind every third: some turns of the loop for each.
        async with asyncio.timeout(30):
            while there.wire.got != sent:
                await asyncio.sleep(0)
        heard += there.heard()
        with pytest.raises(ssl.SSLWantReadError):
            there.client.unwrap()
        await give(there.from_client.read())
        async with asyncio.timeout(30):
            while "eof" not in there.wire.told:
                await asyncio.sleep(0)
        assert bytes(there.wire.got) == sent
        assert there.wire.told == ["encrypted", "eof"]
        assert heard + there.heard() == answered
        there.client.unwrap()
        assert there.plain.calls == ["close"]

    asyncio.run(scene())


def test_what_comes_with_the_end_of_the_handshake_is_answered_together_with_it() -> None:
    there = Pair(VERSIONS[ssl.TLSVersion.TLSv1_3])
    there.wire.then = lambda octets: there.end.write(b"answer")
    there.shake()
    there.give(there.from_client.read())
    assert there.shake()
    finished = there.from_client.read()
    there.give(finished + there.said(b"request"))
    assert (bytes(there.wire.got), there.heard()) == (b"request", b"answer")
    assert there.client.session is not None and there.client.session.has_ticket


def test_many_records_of_the_largest_size() -> None:
    there = Pair().connect()
    sent = random.Random(1).randbytes(50 * 16_384)
    octets = there.said(sent)
    for at in range(0, len(octets), ROOM):
        there.give(octets[at : at + ROOM])
    assert there.wire.got == sent
    there.end.write(sent)
    assert max(there.plain.writes) < 70_000, "what is encrypted at a time is bounded"
    assert there.heard() == sent


@pytest.mark.parametrize(
    "junk", [b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0", b"GET / HTTP/1.0\r\n\r\n", bytes(99)]
)
def test_what_is_no_tls_ends_the_connection(junk: bytes) -> None:
    there = Pair()
    there.give(junk)
    assert there.plain.calls == ["close"]
    there.give(b"more")
    there.end.write(b"x")
    there.end.connection_lost(None)
    assert there.wire.told == ["lost"]
    assert bytes(there.wire.got) == b""


def test_an_alert_says_what_was_wrong() -> None:
    there = Pair(server=SERVER)
    there.client = VERSIONS[ssl.TLSVersion.TLSv1_2].wrap_bio(there.to_client, there.from_client)
    old = there.client.context
    old.set_ciphers("DHE-RSA-AES128-SHA")
    try:
        there.client = old.wrap_bio(there.to_client, there.from_client)
        there.shake()
        there.give(there.from_client.read())
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            there.client.do_handshake()
    finally:
        old.set_ciphers("DEFAULT")
    assert there.plain.calls == ["close"]


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_a_changed_record_is_never_decrypted(version: ssl.TLSVersion) -> None:
    for at in range(0, 40, 3):
        there = Pair(VERSIONS[version]).connect()
        good, bad = there.said(b"good"), bytearray(there.said(b"bad"))
        bad[at % len(bad)] ^= 1
        there.give(good + bytes(bad))
        there.end.eof_received()
        assert bytes(there.wire.got) == b"good"
        assert "eof" not in there.wire.told


def test_an_end_without_close_notify_is_no_end_of_what_was_said() -> None:
    there = Pair().connect()
    octets = there.said(b"request")
    there.give(octets[:-1])
    assert there.end.eof_received() is False, "the transport closes"
    there.end.connection_lost(None)
    assert bytes(there.wire.got) == b""
    assert there.wire.told == ["encrypted", "lost"]


def test_closing_says_so_once_and_nothing_after_it() -> None:
    there = Pair().connect()
    there.end.write(b"last")
    there.end.close()
    there.end.write(b"too late")
    there.end.close()
    assert there.end.is_closing()
    assert there.heard() == b"last"
    assert there.client.unwrap() is None
    assert there.plain.calls == ["close"]


def test_what_comes_after_closing_is_not_read() -> None:
    there = Pair().connect()
    there.wire.then = lambda _: there.end.close()
    there.give(there.said(b"unbind") + there.said(b"more"))
    there.give(there.said(b"and more"))
    assert bytes(there.wire.got) == b"unbind"


def test_nothing_is_decrypted_while_reading_is_paused() -> None:
    async def scene() -> None:
        there = Pair(room=100).connect()
        there.wire.then = lambda _: there.end.pause_reading()
        there.give(there.said(bytes(1000), bytes(1000)))
        assert (len(there.wire.got), there.plain.is_reading) == (100, False)
        for count in range(2, 21):
            there.end.resume_reading()
            assert there.plain.is_reading
            await asyncio.sleep(0)
            assert len(there.wire.got) == count * 100
        there.end.abort()
        there.end.pause_reading()
        there.end.resume_reading()
        assert there.plain.calls == ["abort"]

    asyncio.run(scene())


def test_back_pressure_and_what_the_transport_knows_are_passed_on() -> None:
    there = Pair().connect()
    there.end.set_write_buffer_limits(high=10)
    there.end.pause_writing()
    there.end.resume_writing()
    assert there.wire.told == ["encrypted", "pause", "resume"]
    assert there.plain.calls == [(10, None)]
    assert there.end.get_extra_info("peername") == ("192.0.2.1", 5)
    assert there.end.get_extra_info("nothing", 3) == 3
    assert there.end.get_extra_info("ssl_object").version() == "TLSv1.3"


def test_an_exception_of_the_channel_is_the_transports() -> None:
    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    there = Pair().connect()
    there.wire.then = fail
    with pytest.raises(ZeroDivisionError):
        there.give(there.said(b"x"))


def test_an_exception_while_going_on_ends_the_connection() -> None:
    async def scene() -> None:
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what["exception"]))
        there = Pair().connect()
        there.end.pause_reading()
        there.give(there.said(b"x"))
        assert bytes(there.wire.got) == b""

        def fail(_: bytes) -> None:
            raise ZeroDivisionError

        there.wire.then = fail
        there.end.resume_reading()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [type(one) for one in failures] == [ZeroDivisionError]
        assert there.plain.calls == ["abort"]

    asyncio.run(scene())


@pytest.mark.parametrize("ending", ["close", "client", "junk", "abort", "early", "never"])
def test_nothing_stays_of_a_connection(ending: str) -> None:
    """Without the garbage collector's help."""
    gc.collect()
    gc.disable()
    try:
        there = Pair()
        if ending == "never":
            there.end.connection_lost(None)
        elif ending == "early":
            there.shake()
            there.give(there.from_client.read())
            there.end.abort()
        else:
            there.connect()
        if ending == "close":
            there.end.close()
        elif ending == "client":
            with pytest.raises(ssl.SSLWantReadError):
                there.client.unwrap()
            there.give(there.from_client.read())
        elif ending == "junk":
            there.give(bytes(50))
        elif ending == "abort":
            there.end.abort()
        there.end.connection_lost(None)
        traces = [weakref.ref(one) for one in (there.wire, there.plain, there.end.get_extra_info("ssl_object"))]
        del there
        assert [trace() for trace in traces] == [None] * 3
    finally:
        gc.enable()


def acknowledges_at_once(there: socket.socket) -> bool:
    """What comes next is not kept waiting for an answer to travel with."""
    return bool(there.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    """The server's side of a connection on which acknowledgements travel with answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours = listener.accept()[0]
    with client, ours:
        for _ in range(5):
            client.sendall(b"?")
            assert ours.recv(1) == b"?"
            ours.sendall(b"!")
            assert client.recv(1) == b"!"
        assert not acknowledges_at_once(ours)
        yield ours


@pytest.mark.parametrize("tickets", [0, 1])
def test_a_finished_that_nothing_follows_is_acknowledged_at_once(tickets: int, ours: socket.socket) -> None:
    server = tls.context_of(pki.server("localhost").served(), None)
    server.num_tickets = tickets
    there = Pair(VERSIONS[ssl.TLSVersion.TLSv1_3], server=server)
    there.plain.socket = ours
    there.connect()
    assert acknowledges_at_once(ours) is (tickets == 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flight_that_comes_in_pieces_is_acknowledged_at_once(version: ssl.TLSVersion, ours: socket.socket) -> None:
    """Java sends ChangeCipherSpec and Finished apart, and the second only when the first has arrived."""
    there = Pair(VERSIONS[version])
    there.plain.socket = ours
    assert not there.shake()
    there.give(there.from_client.read())
    assert not acknowledges_at_once(ours)
    there.shake()
    flight = there.from_client.read()
    first = 5 + int.from_bytes(flight[3:5])
    there.give(flight[:first])
    assert acknowledges_at_once(ours)
    there.give(flight[first:])
    assert there.wire.told == ["encrypted"]
