"""Hostile datagrams against exchange and service: nothing crashes, nothing is wrongly accepted, memory is bounded."""

import asyncio
import contextlib
import itertools
import os
import random
import socket
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost._fastradius import Packet, SharedSecret, decode, encode_request
from outpost.errors import DecodeError
from outpost.identity import (
    Accepted,
    Decision,
    RadiusProvider,
    ReplyAttributes,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.radius._intake import Request
from outpost.radius.attributes import Flawed, Renderer
from outpost.radius.clients import ClientTable
from outpost.radius.describe import describe_packet
from outpost.radius.dictionary import shipped
from outpost.radius.exchange import DEFAULTS, Exchange
from outpost.radius.packet import Code, decode_attributes
from outpost.radius.server import RadiusServer
from outpost.radius.service import Answer, Login, RadiusService
from tests import oracle_radius as oracle
from tests.radius.testbed import ALICE, SECRET, Recorder, login, provider

SHARED = SharedSecret(SECRET)


class Strict:
    """Knows one user and is sure about him."""

    def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
        return ALICE if (username, secret) == ("alice", b"wonderland") else None

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        raise AssertionError

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        raise AssertionError


def mutations(chance: random.Random, count: int) -> Iterator[bytes]:
    authenticator = bytes(range(16))
    seeds = [
        login(),
        login(sign=False),
        login(extra=oracle.attribute(33, b"proxy") + oracle.attribute(24, bytes(16))),
        login(extra=oracle.attribute(79, b"\2\1\0\4")),
        encode_request(12, 1, authenticator, b"", SHARED),
        encode_request(4, 1, authenticator, oracle.attribute(40, bytes([0, 0, 0, 1])), SHARED),
    ]
    yield from seeds
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        kind = chance.random()
        if kind < 0.1:
            data = bytearray(chance.randbytes(chance.randrange(64)))
        elif kind < 0.3:
            body = b"".join(
                oracle.attribute(
                    chance.choice((1, 2, 3, 6, 24, 26, 33, 79, 80, 200)), chance.randbytes(chance.randrange(40))
                )
                for _ in range(chance.randrange(8))
            )
            code = chance.choice((1, 1, 1, 12, 4))
            data = bytearray(encode_request(code, 5, authenticator, body, SHARED, sign=chance.random() < 0.5))
        else:
            for _ in range(chance.randrange(1, 5)):
                at = chance.randrange(len(data))
                data[at] = chance.choice((0, 1, 2, 255, data[at] ^ 1 << chance.randrange(8)))
        if chance.random() < 0.1:
            del data[chance.randrange(len(data) + 1) :]
        yield bytes(data)


def run(count: int, seed: int) -> None:
    observer = Recorder()
    exchange = Exchange(ClientTable([provider()]), observer, DEFAULTS)
    service = RadiusService(
        Strict(), observer, shipped(), is_ready=lambda: True, clock=lambda: 0.0, epoch=lambda: 0.0, random=os.urandom
    )
    accepted = 0
    for number, data in enumerate(mutations(random.Random(seed), count)):
        found = exchange.receive_datagram(data, bytes([127, 0, 0, 1]), bytes([number & 0xFF]), float(number))
        observer.notices.clear()
        if number % 97 == 0:
            assert isinstance(decode(data, SHARED), Packet) is oracle.accepts(data, SECRET)
        if not isinstance(found, Request):
            continue
        outcome = service.answer(found)
        if isinstance(outcome, Answer):
            if outcome.code == Code.ACCESS_ACCEPT and found.packet.code == 1:
                accepted += 1
                assert (found.packet.user_name, found.packet.user_password) == (b"alice", b"wonderland")
            assert exchange.finish(found, outcome.octets, float(number))
        elif not isinstance(outcome, Login):
            exchange.give_up(found, outcome, float(number))
        if number % 64 == 0:
            exchange.handle_deadline(float(number))
    assert observer.failures == [] and accepted > 0
    assert exchange.pending <= 256 and exchange.replies <= 256


def test_hostile_datagrams() -> None:
    run(100_000, 1)


@pytest.mark.slow
def test_a_million_hostile_datagrams() -> None:
    tracemalloc.start()
    run(100_000, 2)
    before = tracemalloc.get_traced_memory()[0]
    for seed in range(3, 12):
        run(100_000, seed)
    assert tracemalloc.get_traced_memory()[0] < before + (4 << 20)
    tracemalloc.stop()


class Unsure(Strict):
    """Knows the one user, and nothing about others."""

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        return Unavailable(UnavailableReason.BACKEND_DOWN)

    resume = authenticate  # type: ignore[assignment]


def is_right(reply: bytes, sent: list[bytes]) -> bool:
    """Somebody asked for this reply with the right credentials, or for Status-Server."""
    for data in sent:
        if len(data) >= 20 and data[1] == reply[1] and oracle.response_holds(reply, data[4:20], SECRET):
            packet = decode(data, SHARED)
            if isinstance(packet, Packet) and (
                packet.code == 12 or (packet.user_name, packet.user_password) == (b"alice", b"wonderland")
            ):
                return True
    return False


async def run_through_sockets(count: int, seed: int) -> None:
    now = 0.0
    observer = Recorder()
    server = RadiusServer(Unsure(), observer, clock=lambda: now, epoch=lambda: 0.0)
    server.serve([provider()])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    await server.start([sock])
    loop, accepted = asyncio.get_running_loop(), 0
    loop.remove_reader(sock.fileno())
    (listener,) = server._listeners
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as device:
        device.connect(sock.getsockname())
        datagrams = mutations(random.Random(seed), count)
        while batch := list(itertools.islice(datagrams, listener.datagrams.batch)):
            for data in batch:
                device.send(data)
            assert server._express.turn(listener.datagrams) == len(batch)
            for _ in range(5):
                await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    reply = device.recv(5000)
                    if reply[0] == Code.ACCESS_ACCEPT:
                        accepted += 1
                        assert is_right(reply, batch)
            observer.notices.clear()
            observer.answers.clear()
            # Beyond the life of replies, and of requests in work.
            now += 70.0
            server._exchange.handle_deadline(now)
    assert observer.failures == [] and accepted > count // 1000
    await server.stop()
    assert server.pending == 0


async def test_hostile_datagrams_through_sockets() -> None:
    await run_through_sockets(20_000, 1)


@pytest.mark.slow
async def test_a_million_hostile_datagrams_through_sockets() -> None:
    await run_through_sockets(1_000_000, 2)


@given(st.binary(max_size=300), st.booleans())
def test_describing_any_octets_raises_nothing_but_decode_errors(body: bytes, is_reply: bool) -> None:
    packet = bytes((2 if is_reply else 1, 1)) + (20 + len(body)).to_bytes(2, "big") + bytes(16) + body
    for data in (body, packet):
        with contextlib.suppress(DecodeError):
            describe_packet(data, Secret(SECRET), login())


@given(st.binary(max_size=300), st.lists(st.tuples(st.sampled_from((26, 64, 69, 81, 11)), st.binary(max_size=60))))
def test_rendering_any_packet_raises_nothing_but_flaws(body: bytes, attributes: list[tuple[int, bytes]]) -> None:
    well_formed = b"".join(oracle.attribute(*one) for one in attributes)
    renderer = Renderer(shipped(), os.urandom)
    for octets in (body, well_formed):
        packet = b"\1\1" + (20 + len(octets)).to_bytes(2, "big") + bytes(16) + octets
        with contextlib.suppress(Flawed):
            encoded = renderer.render(ReplyAttributes(packet=packet), 2, SECRET, bytes(16))
            assert all(number not in {24, 33, 79, 80} for number, _ in decode_attributes(encoded))
