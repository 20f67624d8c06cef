"""Connections whose other end is gone without a word end within seconds; those that are only slow do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from aiohttp import AddrInfoType, web

from outpost.backends.authentik.client import Client, Pool
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.sockets import SILENT_S, SocketFactory
from outpost.errors import BackendUnavailable
from outpost.identity import Secret
from tests.backends.authentik.script import Script, reply
from tests.stub_authentik.network import swallow

LOOPBACK: AddrInfoType = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))
PATIENCE_S = 3 * SILENT_S


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = SocketFactory(5.0)(LOOPBACK)
        ours.connect(listener.getsockname())
        return ours, listener.accept()[0]


@pytest.mark.parametrize("speaks", [False, True])
async def test_an_end_that_says_nothing_at_all_is_given_up(speaks: bool) -> None:
    ours, theirs = connected()
    with ours, theirs:
        swallow(theirs)
        if speaks:
            ours.send(b"hello?")
        ours.settimeout(PATIENCE_S)
        with pytest.raises(TimeoutError, match="Connection timed out"):
            await asyncio.to_thread(ours.recv, 1)


async def test_an_end_that_only_takes_its_time_is_waited_for() -> None:
    ours, theirs = connected()
    with ours, theirs:
        ours.send(b"hello?")
        ours.settimeout(SILENT_S + 2)
        waiting = asyncio.create_task(asyncio.to_thread(ours.recv, 1))
        done, _ = await asyncio.wait([waiting], timeout=SILENT_S + 1)
        assert not done
        theirs.send(b"!")
        assert await waiting == b"!"


@pytest.mark.parametrize(("timeout_s", "repetitions"), [(0.5, 1), (5.0, 1), (8.0, 2), (20.0, 3)])
def test_whoever_may_take_longer_to_connect_is_asked_more_often(timeout_s: float, repetitions: int) -> None:
    with SocketFactory(timeout_s)(LOOPBACK) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT) == repetitions
        silent_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert silent_ms >= 1000 * SILENT_S
        assert 2 ** (repetitions + 1) - 1 <= max(timeout_s, SILENT_S)


async def answering(_: web.Request) -> web.StreamResponse:
    return reply({})


async def failing(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return reply({})


def client(script: Script) -> tuple[Pool, Client]:
    settings = AuthentikSettings(script.url, {"ldap": Secret("t")}, attempts=1)
    pool = Pool(settings, limit=10)
    return pool, Client(pool, Secret("t"), settings, "1")


async def test_after_a_failure_nothing_is_asked_on_a_connection_that_lay_idle() -> None:
    peers: list[object] = []
    handler: list[Callable] = [answering]

    async def noting(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return await handler[0](request)

    async with Script(other=noting) as script:
        pool, one = client(script)
        await asyncio.gather(*(one.get("/x/") for _ in range(3)))
        assert len(set(peers)) == 3
        await one.get("/x/")
        assert len(set(peers)) == 3, "kept"
        handler[0] = failing
        with pytest.raises(BackendUnavailable):
            await one.get("/x/")
        handler[0] = answering
        before = set(peers)
        await one.get("/x/")
        assert peers[-1] not in before
        await pool.close()


async def test_what_is_under_way_goes_on_when_the_rest_begins_anew() -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        entered.set()
        await released.wait()
        return reply({"answer": 1})

    async with Script(other=slow) as script:
        pool, one = client(script)
        waiting = asyncio.create_task(one.get("/x/"))
        await entered.wait()
        old = pool.session()
        pool.doubt()
        assert pool.session() is not old
        released.set()
        assert await waiting == {"answer": 1}
        assert old.closed
        await pool.close()
        assert not pool._under_way and not pool._closing


async def test_connecting_to_nowhere_ends_before_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        swallow(listener)
        settings = AuthentikSettings(f"http://127.0.0.1:{listener.getsockname()[1]}", {"ldap": Secret("t")}, attempts=1)
        pool = Pool(settings, limit=10)
        with pytest.raises(BackendUnavailable, match="Connection timed out"):
            await Client(pool, Secret("t"), settings, "1").get("/x/")
        await pool.close()
