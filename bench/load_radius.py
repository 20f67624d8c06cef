"""RADIUS logins that nobody remembers: `python -m bench.load_radius [slow|flood|cold]`.

The appliance runs as a process of its own against the tests' stub of an authentik server, which runs in another one.

slow: some hundred logins take ten seconds each; Status-Server requests and remembered logins are timed meanwhile.
flood: 65,536 different logins are begun and the server decides none; the same figures, and the memory taken.
cold: PAP logins of users of whom each logs in once, from a directory file with the cheapest hash that is allowed
(argon2id, 8 KiB, one pass) and from the stub: CPU time of the appliance for each, and logins a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from bench import generators, population, servers
from outpost._fastradius import SharedSecret, encode_request, hide_user_password
from outpost.radius.packet import encode_attribute
from tests.stub_authentik.server import RADIUS_TOKEN, Stub

SECRET = b"very-secret"
KEY = SharedSecret(SECRET)
LISTENERS = ("ldap", "ldaps", "radius", "metrics")
REQUESTS_PER_LOGIN = 6
"""One after the other at the executor, each delayed."""


def serve(pipe: Connection, users: int, name: str, password: str) -> None:
    """The stub, delayed by as many seconds as the pipe says, until it says None."""

    async def run() -> None:
        stub = Stub()
        stub.add_user("alice", "pw-alice")
        for n in range(users):
            stub.add_user(f"{name}{n}", f"{password}{n}")
        stub.add_provider(stub.add_outpost("radius"), "radius-main", shared_secret=SECRET.decode())
        async with stub:
            pipe.send(stub.url)
            while (delay_s := await asyncio.get_running_loop().run_in_executor(None, pipe.recv)) is not None:
                stub.flow_delay_s = delay_s

    uvloop.run(run())


@contextlib.contextmanager
def stub(users: int, name: str = "slow", password: str = "pw-slow") -> Iterator[tuple[str, Connection]]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, users, name, password), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send(None)
        process.join(5)
        process.kill()


@dataclass
class Running:
    pid: int
    port: int
    identifier: int = 0

    def request(self, code: int, username: str = "", password: str = "") -> bytes:
        self.identifier = (self.identifier + 1) % 256
        authenticator, body = os.urandom(16), b""
        if code == 1:
            body = encode_attribute(1, username.encode())
            body += encode_attribute(2, hide_user_password(password.encode(), KEY, authenticator))
        return encode_request(code, self.identifier, authenticator, body, KEY)

    def rss_mib(self) -> float:
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@contextlib.contextmanager
def outpost(url: str, options: list[str]) -> Iterator[Running]:
    command = [sys.executable, "-m", "outpost", "run", "--set", "log.format=json"]
    for name in LISTENERS:
        command += ["--set", f"listen.{name}=127.0.0.1:0"]
    for option in options:
        command += ["--set", option]
    environment = {**os.environ, "AUTHENTIK_HOST": url, "AUTHENTIK_TOKEN": RADIUS_TOKEN}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stderr is not None
            port = 0
            for line in process.stderr:
                told = json.loads(line)
                if told["event"] == "listening" and told["service"] == "radius":
                    port = int(told["address"].rpartition(":")[2])
                if told["event"] == "started":
                    break
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            yield Running(process.pid, port)
        finally:
            process.terminate()
            process.wait(20)
        drain.wait(5)


@contextlib.contextmanager
def client(port: int, timeout_s: float = 1.0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.settimeout(timeout_s)
        sock.connect(("127.0.0.1", port))
        yield sock


def until_known(running: Running, sock: socket.socket) -> None:
    """Until alice is accepted."""
    for _ in range(100):
        with contextlib.suppress(TimeoutError):
            sock.send(running.request(1, "alice", "pw-alice"))
            if sock.recv(4096)[0] == 2:
                return
        time.sleep(0.1)
    raise RuntimeError("alice was never accepted")


@dataclass
class Timed:
    """Seconds of each answered request, by kind."""

    spent: dict[str, list[float]] = field(default_factory=lambda: {"Status-Server": [], "remembered login": []})
    lost: Counter[str] = field(default_factory=Counter)

    def ask(self, running: Running, sock: socket.socket, kind: str) -> None:
        request = running.request(12) if kind == "Status-Server" else running.request(1, "alice", "pw-alice")
        started = time.perf_counter()
        sock.send(request)
        try:
            reply = sock.recv(4096)
        except TimeoutError:
            self.lost[kind] += 1
            return
        self.spent[kind].append(time.perf_counter() - started)
        assert reply[0] == 2 and reply[1] == request[1]

    def rows(self) -> Iterator[str]:
        for kind, spent in self.spent.items():
            found = sorted(spent)
            at = [found[int(len(found) * share)] * 1000 for share in (0.5, 0.99)] if found else [0.0, 0.0]
            worst = found[-1] * 1000 if found else 0.0
            yield (
                f"{kind}: {len(found)} answered, {self.lost[kind]} lost; "
                f"p50 {at[0]:.2f} ms, p99 {at[1]:.2f} ms, worst {worst:.2f} ms"
            )


def watch(running: Running, seconds: float) -> Timed:
    """Both kinds in turn, about 200 of each per second."""
    timed = Timed()
    with client(running.port) as sock:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for kind in timed.spent:
                timed.ask(running, sock, kind)
                time.sleep(0.0025)
    return timed


def answers(socks: list[socket.socket]) -> Counter[tuple[int, int, int]]:
    """How often each (socket, identifier, code) came back."""
    found: Counter[tuple[int, int, int]] = Counter()
    for number, sock in enumerate(socks):
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                reply = sock.recv(4096)
                found[number, reply[1], reply[0]] += 1
    return found


def slow(logins: int, delay_s: float, options: list[str]) -> None:
    """Slow logins beside quick requests."""
    # Longer than a login is given as a rule: here they are to wait, not to end.
    options = [f"authentik.login_timeout={delay_s + 60:g}s", *options]
    with stub(logins) as (url, pipe), outpost(url, options) as running, client(running.port) as known:
        until_known(running, known)
        print(f"nobody waits: {'; '.join(watch(running, 4.0).rows())}", flush=True)
        pipe.send(delay_s / REQUESTS_PER_LOGIN)
        time.sleep(0.2)
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(client(running.port)) for _ in range(-(-logins // 256))]
            for n in range(logins):
                socks[n // 256].send(running.request(1, f"slow{n}", f"pw-slow{n}"))
            print(f"{logins} logins of {delay_s:g} s wait: {'; '.join(watch(running, delay_s * 0.8).rows())}")
            time.sleep(delay_s * 1.5)
            found = answers(socks)
        codes = Counter(code for _, _, code in found.elements())
        print(
            f"of them: {codes[2]} Accepts, {codes[3]} Rejects; most for one request: {max(found.values(), default=0)}"
        )


def flood(options: list[str]) -> None:
    """65,536 logins begun, none decided."""
    with stub(1) as (url, pipe), outpost(url, options) as running, client(running.port) as known:
        until_known(running, known)
        before = running.rss_mib()
        pipe.send(3600.0)
        time.sleep(0.2)
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(client(running.port)) for _ in range(256)]
            started = time.monotonic()
            for n in range(65536):
                socks[n >> 8].send(running.request(1, f"nobody{n}", "whatever"))
                if n % 64 == 0:
                    time.sleep(0.005)  # no faster than the kernel's buffer is emptied
            took = time.monotonic() - started
            print(f"65536 logins in {took:.1f} s; RSS {before:.1f} to {running.rss_mib():.1f} MiB")
            print("; ".join(watch(running, 5.0).rows()))
            found = answers(socks)
        print(f"replies to them: {sum(found.values())}; most for one request: {max(found.values(), default=0)}")


def cold(logins: int, rounds: int, options: list[str]) -> None:
    """Each login is somebody's first; the processor of the generator is not the appliance's."""
    generators.build()
    people = servers.Population(logins * rounds, 20, population.certificate())
    with tempfile.TemporaryDirectory(prefix="outpost-cold-") as folder, servers.outpost(Path(folder), people) as server:
        print(f"directory file, {first_logins(server.pid, server.radius, population.SECRET, logins, rounds)}")
    with stub(logins * rounds, "user", "pass") as (url, _), outpost(url, options) as running:
        os.sched_setaffinity(running.pid, {servers.SERVER_CPU})
        with client(running.port) as sock:
            until_known(running, sock)
        print(f"server (stub), {first_logins(running.pid, running.port, SECRET.decode(), logins, rounds)}")


def first_logins(pid: int, port: int, secret: str, logins: int, rounds: int) -> str:
    """The figures of `rounds` times `logins` first logins, 16 at a time. Raises RuntimeError for a wrong answer."""
    found = []
    for n in range(rounds):
        command = ["taskset", "-c", str(servers.CLIENT_CPU), str(generators.BIN / "radload"), "-p", str(port)]
        command += ["-U", f"{n * logins}:{(n + 1) * logins - 1}", "-c", "4", "-d", "4", "-S", secret, "--need-ma"]
        command += ["--seq", "-n", str(logins), "-j", "-P", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout[-300:]}{done.stderr[-300:]}")
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    cpu_us = sorted(float(one["server_us_op"]) for one in found)
    rate, p50_us = (statistics.median(float(one[name]) for one in found) for name in ("accept_s", "p50_us"))
    return (
        f"{rounds} times {logins} first logins: CPU {statistics.median(cpu_us):,.0f} us each "
        f"({cpu_us[0]:,.0f} to {cpu_us[-1]:,.0f}), {rate:,.0f} a second, p50 {p50_us / 1000:.1f} ms"
    )


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="bench.load_radius", description=__doc__)
    parser.add_argument("what", choices=("slow", "flood", "cold"))
    parser.add_argument("--logins", type=int, default=200)
    parser.add_argument("--delay", type=float, default=10.0, help="seconds each slow login takes")
    parser.add_argument("--rounds", type=int, default=5, help="of cold logins")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the appliance")
    arguments = parser.parse_args()
    if arguments.what == "slow":
        slow(arguments.logins, arguments.delay, arguments.set)
    elif arguments.what == "cold":
        cold(arguments.logins, arguments.rounds, arguments.set)
    else:
        flood(arguments.set)
    return 0


if __name__ == "__main__":
    sys.exit(main())
