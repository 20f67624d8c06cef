"""One cold bind through the flow, beside the same requests by hand: `pytest bench/micro_flow.py`.

The server is the tests' stub in a process of its own, so that what it costs falls on both sides alike; what a cold bind
costs on top of the server's own time is the difference.  `python -m bench.micro_flow` prints it, and what 200 pending
cold binds do to the event loop.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import orjson
import pytest
import uvloop

from outpost.backends.authentik.authority import FlowAuthority
from outpost.backends.authentik.client import Pools
from outpost.backends.authentik.observer import Silence
from outpost.backends.authentik.sessions import Sessions
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.identity import Accepted, LdapProvider, Secret, Source, Unavailable
from tests.stub_authentik.server import LDAP_TOKEN, Stub

PROVIDER = LdapProvider(1, "bench", "dc=x", "bench", "default-authentication-flow")
SOURCE = Source("ldap", "192.0.2.1")
FLOW = "/api/v3/flows/executor/default-authentication-flow/?query=goauthentik.io%252Foutpost%252Fldap%3Dtrue"
IDENTIFICATION = {"component": "ak-stage-identification", "uid_field": "alice", "password": "pw"}
PASSWORD = {"component": "ak-stage-password", "password": "pw"}
CHAIN: list[tuple[str, str, object]] = [
    ("GET", FLOW, None),
    ("POST", FLOW, IDENTIFICATION),
    ("GET", FLOW, None),
    ("POST", FLOW, PASSWORD),
    ("GET", FLOW, None),
    ("GET", FLOW, None),
    ("GET", "/api/v3/outposts/ldap/1/check_access/?app_slug=bench", None),
]
"""What follows one another; `users/me` runs beside the last one."""
ME = "/api/v3/core/users/me/"


def serve(pipe: Connection, flow_delay_s: float) -> None:
    """The stub, until the other end of the pipe says something."""

    async def run() -> None:
        stub = Stub()
        stub.flow_delay_s = flow_delay_s
        stub.add_user("alice", "pw")
        stub.add_provider(stub.add_outpost("ldap"), "bench")
        async with stub:
            pipe.send(stub.url)
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    uvloop.run(run())


class Server:
    """The stub's process."""

    def __init__(self, flow_delay_s: float = 0.0) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, far = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(far, flow_delay_s), daemon=True)
        self._process.start()
        self.url: str = self._pipe.recv()

    def stop(self) -> None:
        self._pipe.send(None)
        self._process.join(5)
        self._process.kill()


class ByHand:
    """The requests of one bind over two kept connections, with as little work as asyncio allows."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        for _ in range(2):
            self._streams.append(await asyncio.open_connection(self._host, self._port))

    async def bind(self) -> None:
        cookies: dict[bytes, bytes] = {}
        for method, path, content in CHAIN[:-1]:
            await self._ask(0, method, path, content, cookies)
        _, last, _ = CHAIN[-1]
        answers = await asyncio.gather(self._ask(0, "GET", last, None, cookies), self._ask(1, "GET", ME, None, cookies))
        assert b'"passing":true' in answers[0] and b"alice" in answers[1]

    async def _ask(self, n: int, method: str, path: str, content: object, cookies: dict[bytes, bytes]) -> bytes:
        reader, writer = self._streams[n]
        body = b"" if content is None else orjson.dumps(content)
        cookie = b"; ".join(name + b"=" + value for name, value in cookies.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nX-authentik-outpost-token: {LDAP_TOKEN}\r\n"
        head += f"X-authentik-remote-ip: 192.0.2.1\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Cookie: " + cookie + b"\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        for name, value in re.findall(rb"Set-Cookie: ([^=]+)=([^;\r]+)", answer):
            cookies[name] = value
        found = re.search(rb"Content-Length: (\d+)", answer)
        return await reader.readexactly(int(found[1])) if found and int(found[1]) else b""

    async def close(self) -> None:
        for _, writer in self._streams:
            writer.close()
            await writer.wait_closed()


class Ours:
    """The authority as the appliance has it."""

    def __init__(self, url: str, **options: Any) -> None:
        settings = AuthentikSettings(url, {"ldap": Secret(LDAP_TOKEN)}, end_sessions=False, **options)
        self._pools = Pools(settings)
        self.authority = FlowAuthority(
            service="ldap",
            token=Secret(LDAP_TOKEN),
            pool=self._pools.logins,
            settings=settings,
            sessions=Sessions(Silence(), self._slug, is_ending=False),
            observer=Silence(),
            wall_clock=time.time,
        )

    async def _slug(self, _: str) -> str:
        return ""

    async def open(self) -> None:
        """Nothing: connections are made when they are needed."""

    async def bind(self) -> None:
        decision = await self.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Accepted), decision

    async def close(self) -> None:
        await self._pools.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


@pytest.mark.parametrize("kind", [ByHand, Ours])
def test_cold_bind(benchmark: Any, server: Server, kind: type[ByHand] | type[Ours]) -> None:
    loop = uvloop.new_event_loop()
    client = kind(server.url)
    loop.run_until_complete(client.open())
    benchmark.pedantic(lambda: loop.run_until_complete(client.bind()), rounds=200, warmup_rounds=30)
    loop.run_until_complete(client.close())
    loop.close()


async def compare(url: str, rounds: int) -> tuple[list[float], list[float], float]:
    """Seconds per bind by hand and by us, taken in turn; CPU seconds of ours per bind."""
    hand, ours = ByHand(url), Ours(url)
    await hand.open()
    spent: tuple[list[float], list[float]] = ([], [])
    cpu = 0.0
    for i in range(rounds + 30):
        both: tuple[tuple[ByHand | Ours, list[float]], ...] = ((hand, spent[0]), (ours, spent[1]))
        for client, found in both:
            started, busy = time.perf_counter(), time.process_time()
            await client.bind()
            if i >= 30:
                found.append(time.perf_counter() - started)
                cpu += time.process_time() - busy if client is ours else 0.0
    await hand.close()
    await ours.close()
    return spent[0], spent[1], cpu / rounds


async def pending(url: str, binds: int) -> tuple[float, float, int, int]:
    """The loop's delay (median, 99th percentile) with `binds` pending; binds accepted and not decided."""
    ours = Ours(url, login_concurrency=256, login_timeout_s=30.0)
    lags: list[float] = []
    running = True

    async def probe() -> None:
        while running:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - due)

    watching = asyncio.create_task(probe())
    decisions = await asyncio.gather(
        *(ours.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE) for _ in range(binds))
    )
    running = False
    await watching
    await ours.close()
    lags.sort()
    accepted = sum(isinstance(one, Accepted) for one in decisions)
    undecided = sum(isinstance(one, Unavailable) for one in decisions)
    return statistics.median(lags), lags[int(len(lags) * 0.99)], accepted, undecided


def main() -> int:
    """Print the figures."""
    server = Server()
    hand, ours, cpu = uvloop.run(compare(server.url, 300))
    server.stop()
    extra = statistics.median(ours) - statistics.median(hand)
    print(f"cold bind, 8 requests: by hand {statistics.median(hand) * 1e3:.2f} ms, ours", end=" ")
    print(f"{statistics.median(ours) * 1e3:.2f} ms: {extra * 1e3:.2f} ms on top; CPU of ours {cpu * 1e3:.2f} ms")
    slow = Server(flow_delay_s=0.5)
    median, worst, accepted, undecided = uvloop.run(pending(slow.url, 200))
    slow.stop()
    print(f"200 pending at a slow server: {accepted} accepted, {undecided} undecided,", end=" ")
    print(f"loop delay median {median * 1e3:.2f} ms, p99 {worst * 1e3:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
