"""What cold binds at a slow or hung server cost everybody else: `python -m bench.load_cold_binds`.

Starts the appliance and a server made for tests, both as processes of their own.  While `--binds` logins of as many
users are pending at a server that takes `--delay` seconds for each request of a login, other connections bind with a
password that is remembered and search.  Then the same with a server that never answers.  Prints what they waited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection

import uvloop

from tests.ldap import encode
from tests.process.running import BASE, LISTENERS, Appliance, environment, user_dn
from tests.stub_authentik.server import LDAP_TOKEN, Stub

FILTER = "(cn=warm)"


def serve(pipe: Connection, users: int) -> None:
    """The stub, told over the pipe how it is to behave: ("slow", seconds), ("hang", 0), ("heal", 0) or None to end."""

    async def run() -> None:
        stub = Stub()
        for name in ["warm", *(f"cold{i}" for i in range(users))]:
            stub.add_user(name, f"pw-{name}", can_search=True, password_change_date="2020-01-01T00:00:00Z")
        stub.add_provider(stub.add_outpost("ldap"), "bench", base_dn=BASE)
        async with stub:
            pipe.send(stub.url)
            while (told := await asyncio.to_thread(pipe.recv)) is not None:
                what, seconds = told
                stub.heal()
                stub.flow_delay_s = seconds if what == "slow" else 0.0
                if what == "hang":
                    stub.fail("/flows/executor/", "hang")
                pipe.send(len(stub.requests))

    uvloop.run(run())


class Connected:
    """One LDAP connection that waits for each answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def _ask(self, request: bytes, done: int) -> int:
        """The result code of the response with the tag `done`."""
        self._writer.write(request)
        while True:
            head = await self._reader.readexactly(2)
            size = head[1]
            if size & 0x80:
                size = int.from_bytes(await self._reader.readexactly(size & 0x7F), "big")
            content = await self._reader.readexactly(size)
            at = 2 + content[1]  # after the message number
            if content[at] == done:
                skip = 2 + (content[at + 1] & 0x7F if content[at + 1] & 0x80 else 0)
                return content[at + skip + 2]

    async def bind(self, user: str, password: str) -> int:
        """The result code."""
        return await self._ask(encode.bind(1, user_dn(user), password), 0x61)

    async def search(self) -> int:
        """The result code."""
        return await self._ask(encode.search(2, BASE, FILTER), 0x65)

    async def close(self) -> None:
        """Over."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(port: int) -> Connected:
    """A connection."""
    return Connected(*await asyncio.open_connection("127.0.0.1", port))


async def cold(port: int, number: int) -> tuple[int, float]:
    """Result code and seconds of one login that nobody remembers."""
    one = await connect(port)
    started = time.perf_counter()
    code = await one.bind(f"cold{number}", f"pw-cold{number}")
    took = time.perf_counter() - started
    await one.close()
    return code, took


async def measure(port: int, binds: int, kind: str) -> None:
    """`binds` cold logins, and what warm binds and searches on other connections wait meanwhile."""
    one = await connect(port)
    assert await one.bind("warm", "pw-warm") == 0
    waited: dict[str, list[float]] = {"warm binds": [], "searches": []}
    pending = [asyncio.create_task(cold(port, i)) for i in range(binds)]
    await asyncio.sleep(0.2)
    while not all(task.done() for task in pending):
        for name, found in waited.items():
            started = time.perf_counter()
            code = await (one.search() if name == "searches" else one.bind("warm", "pw-warm"))
            found.append(time.perf_counter() - started)
            assert code == 0, code
        await asyncio.sleep(0.002)
    outcomes = await asyncio.gather(*pending)
    await one.close()
    codes = dict(Counter(code for code, _ in outcomes))
    took = [seconds for _, seconds in outcomes]
    print(
        f"{kind}: {binds} cold binds: codes {codes}, median {statistics.median(took):.2f} s, longest {max(took):.2f} s"
    )
    for name, found in waited.items():
        found.sort()
        p99 = found[int(len(found) * 0.99)]
        print(f"  {len(found)} {name} meanwhile: median {found[len(found) // 2] * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")


def start(url: str) -> Appliance:
    """The appliance, ready."""
    command = [sys.executable, "-m", "outpost", "run"]
    for name in LISTENERS:
        command += ["--set", f"listen.{name}=127.0.0.1:0"]
    running = Appliance(command, environment(AUTHENTIK_HOST=url, AUTHENTIK_TOKEN=LDAP_TOKEN))
    running.wait_until_listening()
    while running.get("/-/ready")[0] != 200:
        time.sleep(0.05)
    return running


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binds", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.5)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    pipe, far = spawn.Pipe()
    process = spawn.Process(target=serve, args=(far, options.binds), daemon=True)
    process.start()
    url = pipe.recv()
    try:
        for kind, seconds in (("slow", options.delay), ("hang", 0.0)):
            running = start(url)
            try:
                warm(running.ports["ldap"])
                pipe.send((kind, seconds))
                pipe.recv()
                uvloop.run(measure(running.ports["ldap"], options.binds, kind))
            finally:
                running.end()
                pipe.send(("heal", 0.0))
                pipe.recv()
    finally:
        pipe.send(None)
        process.join(5)
        process.kill()
    return 0


def warm(port: int) -> None:
    """The login that is remembered."""

    async def log_in() -> None:
        one = await connect(port)
        assert await one.bind("warm", "pw-warm") == 0
        await one.close()

    uvloop.run(log_in())


if __name__ == "__main__":
    sys.exit(main())
