"""The real process while many logins are slow, and while a million datagrams are hostile."""

import asyncio
import contextlib
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from outpost._fastradius import SharedSecret, decode
from tests import oracle_radius as oracle
from tests.backends.authentik.appliance import small
from tests.fuzz.test_fuzz_radius import mutations
from tests.process.running import SECRET as TESTING
from tests.process.running import Appliance, arguments, environment
from tests.process.test_authentik import COMMAND, request, server, until_answered
from tests.radius.peers import free_port
from tests.radius.testbed import login

DIRECTORY = """
version: 1
entries:
  - model: authentik_providers_radius.radiusprovider
    id: radius
    identifiers: {name: radius}
    attrs: {shared_secret: testing123, client_networks: "127.0.0.0/8"}
  - model: authentik_core.application
    identifiers: {slug: radius}
    attrs: {name: RADIUS, provider: !KeyOf radius}
  - model: authentik_core.user
    identifiers: {username: alice}
    attrs: {password: wonderland}
"""
SLOW = 200
PROBE = """
import socket, sys, time
from outpost._fastradius import SharedSecret, encode_request
from tests.radius.testbed import login
port, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
secret, number = b"very-secret", 0
took = {"status": [], "login": []}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect(("127.0.0.1", port))
    sock.settimeout(5)
    while time.monotonic() < until:
        number += 1
        authenticator = number.to_bytes(16, "big")
        status = encode_request(12, number & 255, authenticator, b"", SharedSecret(secret))
        cached = login("alice", "pw-alice", identifier=number & 255, authenticator=authenticator, secret=secret)
        for kind, asked in (("status", status), ("login", cached)):
            begun = time.perf_counter()
            sock.send(asked)
            reply = sock.recv(4096)
            took[kind].append(time.perf_counter() - begun)
            assert reply[0] == 2 and reply[1] == asked[1]
        time.sleep(0.004)
for kind, times in took.items():
    print(kind, *(f"{one:.6f}" for one in times))
"""


@pytest.mark.slow
async def test_two_hundred_logins_of_ten_seconds_delay_nobody_and_are_answered_once() -> None:
    stub = small()
    for number in range(SLOW):
        stub.add_user(f"dora{number}", "pw-dora", devices=("duo",))
    async with stub:
        running = Appliance(COMMAND, server(stub.url))
        try:
            await asyncio.to_thread(running.wait_until_listening)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("127.0.0.1", running.ports["radius"]))
                await until_answered(running, sock)
                sock.send(request("alice", "pw-alice", identifier=254))
                assert (await asyncio.to_thread(sock.recv, 4096))[0] == 2
                checks = stub.password_checks
                stub.push_delay_s = 10.0
                pushed = [request(f"dora{number}", "pw-dora", identifier=number) for number in range(SLOW)]
                for one in pushed:
                    sock.send(one)
                await asyncio.sleep(2.5)  # until all of them wait for a person
                probe = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", PROBE, str(running.ports["radius"]), "6"),
                    env=environment(),
                    stdout=asyncio.subprocess.PIPE,
                )
                for one in pushed[::2]:
                    sock.send(one)  # the devices ask again
                told, _ = await probe.communicate()
                assert probe.returncode == 0
                replies = Counter([(await asyncio.to_thread(sock.recv, 4096))[:2] for _ in range(SLOW)])
                assert replies == {bytes((2, number)): 1 for number in range(SLOW)}
                assert stub.password_checks == checks + SLOW
                await asyncio.sleep(0.5)
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(4096)
            for line in told.decode().splitlines():
                kind, *times = line.split()
                milliseconds = sorted(1000 * float(one) for one in times)
                p99 = milliseconds[int(len(milliseconds) * 0.99)]
                print(f"{kind}: n={len(milliseconds)} p50={statistics.median(milliseconds):.2f} ms p99={p99:.2f} ms")
                assert p99 < 250
        finally:
            running.end()


def resident_octets(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def storm(port: int, count: int, seed: int) -> Counter[int]:
    """Send hostile datagrams; codes of the replies. None of them is answered who has not proved anything."""
    secret, codes = TESTING.encode(), Counter[int]()
    shared = SharedSecret(secret)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        asked: deque[bytes] = deque(maxlen=8192)
        for number, data in enumerate(mutations(random.Random(seed), count)):
            asked.append(data)
            sock.send(data)
            if number % 128:
                continue
            # A fence: what was sent before it has been looked at when it is answered.
            fence = login(identifier=0xEE, authenticator=number.to_bytes(16))
            sock.send(fence)
            is_over = False
            while not is_over:
                assert select.select([sock], [], [], 20)[0], "no answer to a login"
                reply = sock.recv(5000)
                is_over = reply[1] == 0xEE and oracle.response_holds(reply, fence[4:20], secret)
                if is_over:
                    continue
                codes[reply[0]] += 1
                if reply[0] == 2:
                    same = (one for one in reversed(asked) if one[1:2] == reply[1:2])
                    owners = (one for one in same if oracle.response_holds(reply, one[4:20], secret))
                    assert any(proves(one, shared) for one in owners), reply.hex()
    return codes


def proves(data: bytes, secret: SharedSecret) -> bool:
    packet = decode(data, secret)
    if isinstance(packet, int):
        return False
    # Names are trimmed and folded, so a flipped bit may leave him who he is.
    name = (packet.user_name or b"").decode(errors="replace").strip().casefold()
    return packet.code == 12 or (name, packet.user_password) == ("alice", b"wonderland")


@contextlib.contextmanager
def silent_appliance(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Serving a directory with alice, without a word; the process and its RADIUS port."""
    (folder / "outpost.toml").write_text('version = 1\n[provider.radius]\nreject_delay = "0s"\n')
    (folder / "directory.yaml").write_text(DIRECTORY)
    port = free_port()
    command = arguments(folder / "directory.yaml", radius=f"127.0.0.1:{port}")
    command += ["--config", str(folder / "outpost.toml"), "--log-level", "error"]
    with open(folder / "said", "wb") as said, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=said)
        try:
            sock.connect(("127.0.0.1", port))
            sock.settimeout(0.2)
            for number in range(100):
                with contextlib.suppress(OSError):
                    sock.send(login(identifier=9, authenticator=number.to_bytes(16)))
                    assert sock.recv(4096)[0] == 2
                    break
                time.sleep(0.1)
            yield process, port
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_million_hostile_datagrams_do_not_wear_the_process_down(tmp_path: Path) -> None:
    with silent_appliance(tmp_path) as (process, port):
        storm(port, 100_000, 1)
        before, codes = resident_octets(process.pid), Counter[int]()
        for seed in range(2, 12):
            codes += storm(port, 100_000, seed)
            print(f"{seed - 1}00,000 datagrams: {resident_octets(process.pid) / (1 << 20):.1f} MiB, {dict(codes)}")
        assert resident_octets(process.pid) < before + (16 << 20)
        assert codes[2] > 0 and codes[3] > 0 and set(codes) == {2, 3}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect(("127.0.0.1", port))
            sock.send(login(identifier=77, authenticator=bytes(16)))
            reply = sock.recv(5000)
            assert reply[0] == 2 and oracle.response_holds(reply, bytes(16), TESTING.encode())
        process.terminate()
        assert process.wait(20) == 0 and (tmp_path / "said").read_bytes() == b""
