"""The slowest logins on a bad day: `make tail`.

One processor serves 1,000 idle and 200 busy connections (warm binds and equality searches at a fixed rate), one new
LDAPS connection for every hundred requests, and somebody who takes 10,000 entries at 1 kB/s, while the directory
changes and is read again every ten seconds, all of it. Wanted: no answer wrong or lost, warm bind p99 of 5 ms, memory
flat. The directory is that of a server (the tests' stub, in a process of its own), or a file with `--file`.

Latency counts from when a request was due, so that a server that makes its clients wait cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import generators, population, servers
from bench.population import BASE_DN
from tests.ldap import encode
from tests.stub_authentik.server import LDAP_TOKEN, Stub

P99_US, GROWTH = 5000.0, 4 << 20
"""Wanted: microseconds, and octets between the second and the last fifth of the run."""
BUSY, IDLE, BINDING = 200, 1000, 150
REFRESH_S = 10.0
SLOW_OCTETS_S = 1000
UPDATE = 2
"""The instruction to read everything again."""
Change = Callable[[int], None]
SERVICE = (f"cn=ldapservice,ou=users,{BASE_DN}", "service-pw")


@dataclass
class Day:
    """What happened so far."""

    server: servers.Server
    change: Change
    """Somebody gets his n-th name, and the appliance hears of it."""
    people: servers.Population
    seconds: float
    met: Counter[str] = field(default_factory=Counter)
    handshakes_s: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refresh_s: float = REFRESH_S

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.busy_users = min(BUSY, self.people.users)
        """Who logs in: as many as there are busy connections."""

    @contextlib.contextmanager
    def doing(self, *works: tuple[str, float]) -> Iterator[None]:
        """Methods by name, each in a thread, again and again with so many seconds between two beginnings."""
        threads = [threading.Thread(target=self._repeat, args=work) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, name: str, pause_s: float) -> None:
        due = time.monotonic()
        while not self.over.wait(max(0.0, due - time.monotonic())):
            due = max(due + pause_s, time.monotonic() - 1.0)
            try:
                getattr(self, name)()
                self.met[name] += 1
            except (OSError, AssertionError, RuntimeError) as error:
                self.failed.append(f"{name}: {error!r}")
                if len(self.failed) > 100:
                    return

    def refresh(self) -> None:
        """Another name for one of them."""
        self.change(self.met["refresh"])

    def secure_login(self) -> None:
        """A new TLS connection, a bind, and good-bye."""
        context = ssl.create_default_context(cadata=self.people.pair[0])
        started = time.perf_counter()
        with (
            socket.create_connection(("127.0.0.1", self.server.ldaps), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as there,
        ):
            n = self.met["secure_login"] % self.busy_users
            assert bind(there, f"cn=user{n},ou=users,{BASE_DN}", f"pass{n}") == 0
            there.sendall(encode.unbind(2))
        self.handshakes_s.append(time.perf_counter() - started)

    def slow_reader(self) -> None:
        """Everybody with everything, a kilobyte each second, until the server has had enough or all is there."""
        with socket.socket() as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            there.settimeout(30)
            there.connect(("127.0.0.1", self.server.ldap))
            assert bind(there, *SERVICE) == 0
            there.sendall(encode.search(2, f"ou=users,{BASE_DN}", "(uidNumber=*)"))
            while not self.over.wait(1.0):
                found = there.recv(SLOW_OCTETS_S)
                self.met["slow octets"] += len(found)
                if not found:
                    self.met["slow reader cut off"] += 1
                    return

    def measure(self) -> None:
        """Resident octets of the server, what its processes share counted for each of them."""
        pages = 0
        for pid in family(self.server.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a compiler that is done
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def bind(there: socket.socket, dn: str, password: str) -> int:
    """The result code."""
    there.sendall(encode.bind(1, dn, password))
    answer = there.recv(4096)
    # LDAPMessage, messageID, BindResponse, resultCode: all short.
    assert len(answer) >= 10 and answer[5] == 0x61, answer
    return answer[9]


def is_alive(there: socket.socket) -> bool:
    """An idle connection still answers: a search of its own entry."""
    there.sendall(encode.search(3, "", "(objectClass=*)", ["1.1"], scope=0))
    return bool(there.recv(4096))


def load(server: servers.Server, seconds: float, connections: int, rate: float, *more: str) -> subprocess.Popen[str]:
    """A generator at a fixed rate."""
    command = ["taskset", "-c", str(servers.CLIENT_CPU), str(generators.BIN / "ldapload"), "-p", str(server.ldap)]
    command += ["-c", str(connections), "-R", str(rate), "-s", str(seconds), "-W", "2", "-j", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def figures(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the generator found."""
    said, _ = process.communicate()
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def fifths(samples: list[int]) -> list[float]:
    """Medians of each fifth of the run."""
    size = max(1, len(samples) // 5)
    return [statistics.median(samples[n * size : (n + 1) * size] or samples[-1:]) for n in range(5)]


def run(day: Day, rate: float) -> bool:
    """Everything at once; whether it went as wanted."""
    server, users = day.server, ("-U", f"0:{day.people.users - 1}")
    busy = ("-U", f"0:{day.busy_users - 1}")
    who = ("-o", "bind", "--dn", f"cn=user%u,ou=users,{BASE_DN}", "--pw", "pass%u", *busy)
    what = ("-o", "sub", "-E", "1", "--base", BASE_DN, "--filter", "(mail=user%u@example.org)", *users)
    subprocess.run(
        [generators.BIN / "ldapload", "-p", str(server.ldap), "-c", "8", "-n", str(day.busy_users), "--seq", *who],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", server.ldap), 10)) for _ in range(IDLE)]
        assert all(bind(there, *SERVICE) == 0 for there in idle)
        with day.doing(
            ("refresh", day.refresh_s),
            ("secure_login", 100 / rate),
            ("slow_reader", 0.0),
            ("measure", day.seconds / 600),
        ):
            binds = load(server, day.seconds, BINDING, rate * BINDING / BUSY, *who)
            searches = load(
                server,
                day.seconds,
                BUSY - BINDING,
                rate * (1 - BINDING / BUSY),
                *what,
                "-D",
                SERVICE[0],
                "-w",
                SERVICE[1],
            )
            stack.callback(binds.kill)
            stack.callback(searches.kill)
            found = {"warm binds": figures(binds), "searches": figures(searches)}
        dead = sum(not is_alive(there) for there in idle)
    for name, of in found.items():
        lost = sum(int(of[k]) for k in of if k.startswith("bad_")) + sum(
            int(of[k]) for k in ("dropped", "conn_err", "tls_err", "timeouts")
        )
        print(
            f"{name}: {of['ops']:,} at {of['ops_s']:,.0f}/s, {lost} wrong or lost; p50 {of['p50_us'] / 1e3:.2f} ms, "
            f"p99 {of['p99_us'] / 1e3:.2f} ms, p99.9 {of['p999_us'] / 1e3:.2f} ms, most {of['max_us'] / 1e3:.1f} ms"
        )
        if lost or not of["ops"]:
            day.failed.append(f"{lost} {name} lost")
    if len(day.handshakes_s) > 1:
        cuts = statistics.quantiles(day.handshakes_s, n=100)
        print(
            f"new LDAPS connections: {len(day.handshakes_s):,}; "
            f"p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms"
        )
    grown = fifths(day.resident)[4] - fifths(day.resident)[1]
    print(
        f"{day.met['refresh']} refreshes; slow reader: {day.met['slow octets']:,} octets, cut off "
        f"{day.met['slow reader cut off']} times; {dead} of {IDLE} idle connections lost"
    )
    print(f"RSS by fifths, MiB: {', '.join(f'{n / 2**20:.1f}' for n in fifths(day.resident))}")
    p99_us = float(found["warm binds"]["p99_us"])
    for what_failed in day.failed[:10]:
        print(f"failed: {what_failed}")
    is_good = not day.failed and not dead and p99_us <= P99_US and grown <= GROWTH
    print(
        f"warm bind p99 {p99_us / 1e3:.2f} ms (wanted {P99_US / 1e3:g}): {'as wanted' if is_good else 'NOT as wanted'}"
    )
    return is_good


def serve(pipe: Connection, people: servers.Population) -> None:
    """A server with these people, until the pipe says None; each number that it says is somebody's new name."""
    # Whatever it costs is not what is measured, and the generators share its processor.
    os.nice(19)

    async def run() -> None:
        stub = Stub()
        groups = [stub.add_group(f"group{n}") for n in range(people.groups)]
        for n, of in enumerate(population.memberships(people.users, people.groups)):
            fields = {"email": f"user{n}@example.org", "password_change_date": "2020-01-01T00:00:00Z"}
            stub.add_user(f"user{n}", f"pass{n}", *(groups[g] for g in of), name=f"User Number {n}", **fields)
        stub.add_user("ldapservice", "service-pw", can_search=True, password_change_date="2020-01-01T00:00:00Z")
        stub.crowd = [stub.users[pk] for pk in sorted(stub.users)]
        pair = stub.add_key_pair("pair", *people.pair, "tail")
        stub.add_provider(stub.add_outpost("ldap"), "bench", base_dn=BASE_DN, certificate=pair.pk)
        seventh = stub.user_named("user7")
        async with stub:
            pipe.send(stub.url)
            while (number := await asyncio.to_thread(pipe.recv)) is not None:
                seventh.name = f"User Number 7 of {number}"
                stub.touched(seventh)
                await stub.tell(UPDATE)

    asyncio.run(run())


@contextlib.contextmanager
def with_server(folder: Path, people: servers.Population, *options: str) -> Iterator[tuple[servers.Server, Change]]:
    """The appliance of a server."""
    spawn = multiprocessing.get_context("spawn")
    pipe, far = spawn.Pipe()
    process = spawn.Process(target=serve, args=(far, people), daemon=True)
    process.start()
    try:
        url = pipe.recv()
        with servers.appliance(folder, *options, AUTHENTIK_HOST=url, AUTHENTIK_TOKEN=LDAP_TOKEN) as server:
            yield server, pipe.send
    finally:
        pipe.send(None)
        process.join(5)
        process.kill()


@contextlib.contextmanager
def with_file(folder: Path, people: servers.Population, *options: str) -> Iterator[tuple[servers.Server, Change]]:
    """The appliance of a directory file."""
    directory = folder / "directory.yaml"
    with servers.outpost(folder, people, *options) as server:
        text = directory.read_text()

        def change(number: int) -> None:
            new = directory.with_suffix(".new")
            new.write_text(text.replace("name: User Number 7\n", f"name: User Number 7 of {number}\n"))
            new.replace(directory)
            os.kill(server.pid, signal.SIGHUP)

        yield server, change


def main() -> int:
    """0 if everything is as wanted."""
    parser = argparse.ArgumentParser(
        prog="bench.load_tail", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="requests of the busy connections per second")
    parser.add_argument("--refresh", type=float, default=REFRESH_S, help="seconds from one refresh to the next")
    parser.add_argument("--file", action="store_true", help="serve a directory file")
    parser.add_argument("--workers", type=int, default=0, help="serve with so many worker processes")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--keep-log", type=Path, help="copy the appliance's log to this file")
    options = parser.parse_args()
    generators.build()
    people = servers.Population(options.users, options.groups, population.certificate())
    more = ("--workers", str(options.workers)) if options.workers else ()
    with (
        tempfile.TemporaryDirectory(prefix="outpost-tail-") as folder,
        (with_file if options.file else with_server)(Path(folder), people, *more) as (server, change),
    ):
        day = Day(server, change, people, options.seconds, refresh_s=options.refresh)
        is_good = run(day, options.rate)
        if options.keep_log:
            options.keep_log.write_bytes((Path(folder) / "outpost.log").read_bytes())
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
