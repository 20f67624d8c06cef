"""One PAP login, packet core and whole server path, beside pyrad and hashlib: `pytest bench/micro_radius.py`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import socket
from typing import Any

from pyrad.dictionary import Dictionary
from pyrad.packet import AuthPacket

from outpost._fastradius import Packet, SharedSecret, decode, encode_request, hide_user_password
from outpost.credentials.gate import Gate
from outpost.identity import Accepted, Decision, Identity, Provider, RadiusProvider, Secret, Source
from outpost.observe.logs import LogWriter
from outpost.observe.radius import RadiusMeter
from outpost.radius._datagrams import Datagrams
from outpost.radius._intake import Replies, Request
from outpost.radius.clients import ClientTable
from outpost.radius.dictionary import shipped
from outpost.radius.exchange import Exchange
from outpost.radius.observer import Silent
from outpost.radius.packet import encode_attribute
from outpost.radius.server import IP_PKTINFO, RadiusServer
from outpost.radius.service import Answer, RadiusService
from tests import oracle_radius as oracle
from tests.radius.testbed import provider

SECRET = b"testing123"
SHARED = SharedSecret(SECRET)
AUTHENTICATOR = bytes(range(16))
BODY = (
    encode_attribute(1, b"alice")
    + encode_attribute(2, hide_user_password(b"wonderland", SHARED, AUTHENTICATOR))
    + encode_attribute(4, bytes((192, 0, 2, 1)))
    + encode_attribute(32, b"switch-1")
)
REQUEST = encode_request(1, 1, AUTHENTICATOR, BODY, SHARED)
WORDS = Dictionary(io.StringIO("ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\n"))
ALICE = Accepted(Identity(1, "alice", can_search=False))
HOME = bytes((127, 0, 0, 1))


class Knows:
    """A gate that has everybody in its cache."""

    def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
        return ALICE

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        raise NotImplementedError

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        raise NotImplementedError


def core() -> bytes:
    """Decode, verify, unhide, sign."""
    packet = decode(REQUEST, SHARED)
    assert isinstance(packet, Packet) and packet.user_password == b"wonderland"
    return packet.reply(2, b"")


def with_pyrad() -> bytes:
    """The same by pyrad."""
    packet = AuthPacket(secret=SECRET, dict=WORDS, packet=REQUEST)
    assert packet.verify_message_authenticator() and packet.PwDecrypt(packet[2][0]) == "wonderland"
    reply = packet.CreateReply()
    reply.code = 2
    reply.add_message_authenticator()
    return bytes(reply.ReplyPacket())


def with_hashlib() -> bytes:
    """The same by hashlib and hmac, without a class in the way."""
    assert oracle.accepts(REQUEST, SECRET)
    found = oracle.attributes(REQUEST)
    assert found and oracle.unhide(found[2][1], SECRET, AUTHENTICATOR) == b"wonderland"
    return oracle.request(2, 1, AUTHENTICATOR, b"", SECRET)


def test_core(benchmark: Any) -> None:
    assert oracle.response_holds(benchmark(core), AUTHENTICATOR, SECRET)


def test_pyrad(benchmark: Any) -> None:
    benchmark(with_pyrad)


def test_hashlib(benchmark: Any) -> None:
    benchmark(with_hashlib)


def test_one_more_reply_beyond_the_limit(benchmark: Any) -> None:
    """As many are kept as may: each new one sends the oldest away."""
    replies = Replies(65536, 64 << 20, 10.0)
    numbers = itertools.count()

    def keep() -> None:
        for number in itertools.islice(numbers, 1000):
            replies.keep(number.to_bytes(13), REQUEST, bytes(50), number / 20000)

    for _ in range(200):
        keep()
    benchmark(keep)


def test_warm_login_without_sockets(benchmark: Any) -> None:
    exchange = Exchange(ClientTable([provider(networks="127.0.0.0/8")]), Silent())
    service = RadiusService(
        Knows(), Silent(), shipped(), is_ready=lambda: True, clock=lambda: 0.0, epoch=lambda: 0.0, random=os.urandom
    )
    requests = [encode_request(1, n, AUTHENTICATOR, BODY, SHARED) for n in range(256)]
    paths = [bytes((0, n)) + bytes(9) for n in range(256)]
    count = 0

    def login() -> None:
        nonlocal count
        count += 1
        found = exchange.receive_datagram(requests[count & 255], HOME, paths[count >> 8 & 255], float(count))
        assert isinstance(found, Request)
        outcome = service.answer(found)
        assert isinstance(outcome, Answer)
        exchange.finish(found, outcome.octets, float(count))

    benchmark(login)


class Directory:
    """Accepts everybody."""

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        return ALICE

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        raise NotImplementedError


def test_batch_of_64_warm_logins_with_sockets_and_lines(benchmark: Any) -> None:
    """recvmmsg to sendmmsg: everything that a warm login costs but the turn of the loop and the writing thread."""
    gate, served = Gate(Directory()), provider(networks="127.0.0.0/8")
    asyncio.run(gate.authenticate(served, "alice", Secret(b"wonderland"), Source("radius", "127.0.0.1")))
    with contextlib.ExitStack() as stack:
        log = LogWriter(stack.enter_context(open(os.devnull, "wb")).fileno(), is_json=True)
        stack.callback(log.stop)
        server = RadiusServer(gate, RadiusMeter(log, lambda: "bench"))
        server.serve([served])
        ours, device = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            for _ in range(2)
        )
        ours.bind(("127.0.0.1", 0))
        ours.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        device.connect(ours.getsockname())
        datagrams = Datagrams(ours.fileno(), 0)
        rounds = itertools.count()

        def send() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    device.recv(4096)
            # Never the same request twice while its reply is kept.
            authenticator = next(rounds).to_bytes(16)
            body = BODY[:7] + encode_attribute(2, hide_user_password(b"wonderland", SHARED, authenticator)) + BODY[25:]
            for n in range(datagrams.batch):
                device.send(encode_request(1, n, authenticator, body, SHARED))

        taken = benchmark.pedantic(server._express.turn, (datagrams,), setup=send, rounds=500)
        assert taken == 64 and gate.counters()["cache_hits"] >= 64 * 500
