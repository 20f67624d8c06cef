"""The real appliance with several serving processes, asked at each of them."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pyotp
import pytest

from outpost._fastradius import SharedSecret, encode_request
from outpost.radius.packet import encode_attribute
from tests import oracle_radius as oracle
from tests.ldap.testbed import Client
from tests.process.running import (
    BASE,
    PATIENCE_S,
    SECRET,
    SERVICE_DN,
    Appliance,
    appliance,
    arguments,
    environment,
    user_dn,
)
from tests.radius.testbed import login

OK, INVALID = 0, 49
ACCEPT, REJECT, CHALLENGE = 2, 3, 11
STATE = 24
KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
FILE = f"""version: 1
entries:
  - {{model: authentik_core.group, id: readers, identifiers: {{name: readers}}}}
  - {{model: authentik_providers_ldap.ldapprovider, id: ldap, identifiers: {{name: ldap}},
     attrs: {{base_dn: "{BASE}", search_group: !KeyOf readers, search_mode: MODE}}}}
  - {{model: authentik_core.application, identifiers: {{slug: ldap}}, attrs: {{name: LDAP, provider: !KeyOf ldap}}}}
  - {{model: authentik_providers_radius.radiusprovider, id: radius, identifiers: {{name: radius}},
     attrs: {{shared_secret: {SECRET}}}}}
  - {{model: authentik_core.application, identifiers: {{slug: radius}}, attrs: {{name: R, provider: !KeyOf radius}}}}
  - {{model: authentik_core.user, identifiers: {{username: ldapservice}},
     attrs: {{password: service-pw, groups: [!KeyOf readers]}}}}
  - {{model: authentik_core.user, identifiers: {{username: ann}}, attrs: {{password: ANN}}}}
  - {{model: authentik_core.user, id: carol, identifiers: {{username: carol}}, attrs: {{password: carol-pw}}}}
  - {{model: authentik_stages_authenticator_totp.totpdevice, identifiers: {{user: !KeyOf carol}},
     attrs: {{key: "3132333435363738393031323334353637383930"}}}}
"""
CONFIG = '[provider.radius]\nreject_delay = "0s"\n'


def write(path: Path, password: str = "ann-one", mode: str = "cached", more: str = "") -> None:
    new = path.with_suffix(".new")
    new.write_text(FILE.replace("ANN", password).replace("MODE", mode) + more)
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "outpost.toml").write_text("version = 1\n" + CONFIG)
    write(tmp_path / "directory.yaml")
    return tmp_path / "directory.yaml"


def workers(running: Appliance) -> list[int]:
    """Process identifiers."""
    pid = running.process.pid
    return sorted(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@contextlib.contextmanager
def team(path: Path, *options: str, count: int = 2) -> Iterator[Appliance]:
    """An appliance whose searches work; what it said is looked at in the end."""
    # Else /proc says nothing about the processes.
    more = ("--workers", str(count), "--set", "process.core_dumps=true", "--config", str(path.parent / "outpost.toml"))
    with appliance(path, *more, *options) as running:
        until(lambda: running.get("/-/ready")[0] == 200)
        assert len(workers(running)) == count
        yield running
        for line in running.raw:
            assert isinstance(json.loads(line), dict)
        assert "Traceback" not in running.said and "-pw" not in running.said and SECRET not in running.said


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def halted(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def connect(running: Appliance) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", running.ports["ldap"]))


@contextlib.asynccontextmanager
async def clients_of_each(running: Appliance) -> AsyncIterator[list[Client]]:
    """One LDAP connection at each worker: one that answers while the others are halted is that one's."""
    pids = workers(running)
    found: list[Client] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < len(pids):
                client = await connect(running)
                with halted(*(pid for pid in pids if pid != pids[len(found)])), contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await client.bind("", "")
                        found.append(client)
                        continue
                client.writer.transport.abort()
        yield found
    finally:
        for client in found:
            client.writer.transport.abort()
        await asyncio.sleep(0)


async def is_ended(client: Client) -> bool:
    """The other side closes the connection, whatever it has to say before."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while await client.reader.read(4096):
                pass
    return True


@contextlib.contextmanager
def devices_of_each(running: Appliance) -> Iterator[list[socket.socket]]:
    """One RADIUS client at each worker, likewise."""
    pids = workers(running)
    found: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.connect(("127.0.0.1", running.ports["radius"]))
            sock.settimeout(0.2)
            with halted(*(pid for pid in pids if pid != pids[len(found)])), contextlib.suppress(TimeoutError):
                ask(sock, encode_request(12, 255, os.urandom(16), b"", SharedSecret(SECRET.encode())))
                found.append(sock)
            if len(found) == len(pids):
                break
        for sock in found:
            sock.settimeout(PATIENCE_S)
        yield found


def ask(sock: socket.socket, data: bytes) -> bytes:
    """The reply, whose authenticators hold."""
    sock.send(data)
    while True:
        reply = sock.recv(5000)
        if reply[1] == data[1]:
            assert oracle.response_holds(reply, data[4:20], SECRET.encode())
            return reply


def radius(sock: socket.socket, username: str, password: str, state: bytes = b"") -> bytes:
    extra = encode_attribute(STATE, state) if state else b""
    authenticator = os.urandom(16)
    return ask(
        sock, login(username, password, extra=extra, identifier=authenticator[0] % 255, authenticator=authenticator)
    )


def state_of(reply: bytes) -> bytes:
    rest = reply[20:]
    while rest[0] != STATE:
        rest = rest[rest[1] :]
    return rest[2 : rest[1]]


def total(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line))


async def test_all_serve_the_same_and_what_is_revoked_is_revoked_in_all(path: Path) -> None:
    with team(path, "--set", "cache.code_burst=0s", "--set", "limiter.damp=0s") as running:
        async with clients_of_each(running) as clients:
            for client in clients:
                assert await client.bind(SERVICE_DN, "service-pw") == OK
                code, found, _ = await client.search(BASE, "(cn=ann)", ["cn"])
                assert code == OK and next(entry["cn"] for entry in found) == [b"ann"]
                assert await client.bind(user_dn("ann"), "ann-one") == OK
                assert await client.bind(user_dn("ann"), "wrong") == INVALID
                assert await client.bind(user_dn("ann"), "ann-one") == OK
            # A password with a code counts once, wherever it is tried.
            secret = f"carol-pw;{pyotp.TOTP(KEY).now()}"
            answers = [await client.bind(user_dn("carol"), secret) for client in (clients[0], clients[1], clients[0])]
            assert answers == [OK, INVALID, INVALID]
            for client in clients:
                assert await client.bind(user_dn("ann"), "ann-one") == OK
            with devices_of_each(running) as devices:
                for sock in devices:
                    assert radius(sock, "ann", "ann-one")[0] == ACCEPT
                    assert radius(sock, "ann", "wrong")[0] == REJECT
                # The answer to a prompt may come from elsewhere, once.
                asked, other = devices
                state = state_of(prompt := radius(asked, "carol", "carol-pw"))
                assert prompt[0] == CHALLENGE
                wait = 30 - time.time() % 30
                code = pyotp.TOTP(KEY).at(time.time() + wait)
                assert radius(other, "ann", code, state)[0] == REJECT, "it is carol's"
                state = state_of(radius(asked, "carol", "carol-pw"))
                assert radius(other, "carol", code, state)[0] == ACCEPT
                assert radius(asked, "carol", code, state)[0] == REJECT
                assert radius(other, "carol", code, state)[0] == REJECT

                counted = running.get("/metrics")[1]
                assert total(counted, "outpost_radius_challenges_total") == 2
                assert total(counted, "outpost_radius_challenges_pending") == 0
                assert total(counted, "outpost_workers") == 2
                assert total(counted, "outpost_ldap_connections_open") >= 2
                assert total(counted, "outpost_credentials_cache_hits_total") >= 6

                write(path, "ann-two")
                running.event("^directory read")
                for client in clients:
                    assert await is_ended(client), "it rested on a password that is none any more"
                for sock in devices:
                    assert radius(sock, "ann", "ann-one")[0] == REJECT
                    assert radius(sock, "ann", "ann-two")[0] == ACCEPT
        async with clients_of_each(running) as clients:
            for client in clients:
                assert await client.bind(user_dn("ann"), "ann-one") == INVALID
                assert await client.bind(user_dn("ann"), "ann-two") == OK
        shown = {ssl.get_server_certificate(("127.0.0.1", running.ports["ldaps"])) for _ in range(8)}
        assert len(shown) == 1, "one certificate, whoever answers"
        for pid in workers(running):
            told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"OUTPOST" not in told and str(path).encode() not in told
        pids = workers(running)
        assert running.stop() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_guesses_are_counted_for_all_together(path: Path) -> None:
    with team(path) as running:
        async with clients_of_each(running) as clients:
            for number in range(10):
                assert await clients[number % 2].bind(user_dn("ann"), f"guess-{number}") == INVALID
            for client in clients:
                assert await client.bind(user_dn("ann"), "ann-one") == INVALID, "guesses at one count at the other"
            throttled = total(running.get("/metrics")[1], "outpost_credentials_logins_throttled_total")
            assert throttled == 2
        assert running.stop() == 0


async def test_a_killed_worker_is_replaced_and_costs_the_others_nothing(path: Path) -> None:
    with team(path) as running:
        async with clients_of_each(running) as clients:
            for client in clients:
                assert await client.bind(SERVICE_DN, "service-pw") == OK
            before = running.get("/metrics")[1]
            first, second = workers(running)
            is_over = False

            async def search() -> int:
                count = 0
                while not is_over:
                    code, found, _ = await clients[1].search(BASE, "(cn=ann)", ["cn"])
                    assert code == OK and found
                    count += 1
                    await asyncio.sleep(0.002)
                return count

            async def come_and_go() -> int:
                count = 0
                while not is_over:
                    client = await connect(running)
                    try:
                        assert await client.bind(SERVICE_DN, "service-pw") == OK
                        count += 1
                    except (asyncio.IncompleteReadError, ConnectionError):
                        pass  # it was the killed one's
                    finally:
                        await client.close()
                return count

            searching, coming = asyncio.create_task(search()), asyncio.create_task(come_and_go())
            for _ in range(2):
                await asyncio.sleep(0.2)
                os.kill(first, signal.SIGKILL)
                line = await asyncio.to_thread(running.event, "^a worker has ended and is replaced")
                assert line["status"] == "killed by SIGKILL" and line["pid"] == first
                await asyncio.to_thread(until, lambda: running.get("/-/ready")[0] == 200)
                assert second in workers(running) and first not in workers(running)
                [first] = set(workers(running)) - {second}
            is_over = True
            assert await searching > 10 and await coming > 10
            assert await is_ended(clients[0])
            after = running.get("/metrics")[1]
            for name in ("outpost_ldap_operations_total", "outpost_ldap_connections_total"):
                assert total(after, name) > total(before, name) > 0
            assert total(after, "outpost_workers_replaced_total") == 2
        async with clients_of_each(running) as clients:
            for client in clients:
                assert await client.bind(user_dn("ann"), "ann-one") == OK
        assert running.stop() == 0


async def test_workers_are_replaced_under_load_without_refusing_anybody(path: Path) -> None:
    with team(path, "--set", "process.drain=3s") as running:
        before, is_over = workers(running), False

        async def come_and_go() -> int:
            count = 0
            while not is_over:
                client = await connect(running)
                assert await client.bind(SERVICE_DN, "service-pw") == OK
                code, found, _ = await client.search(BASE, "(cn=ann)", ["cn"])
                assert code == OK and found
                await client.close()
                count += 1
            return count

        async def log_in() -> int:
            count = 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("127.0.0.1", running.ports["radius"]))
                sock.settimeout(1.0)
                while not is_over:
                    assert (await asyncio.to_thread(radius, sock, "ann", "ann-one"))[0] == ACCEPT
                    count += 1
            return count

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in (come_and_go, come_and_go, log_in)]
            running.send(signal.SIGUSR2)
            await asyncio.to_thread(running.event, "^the workers have been replaced")
            is_over = True
        assert all(task.result() > 20 for task in tasks)
        assert not set(workers(running)) & set(before) and len(workers(running)) == 2
        counted = running.get("/metrics")[1]
        assert total(counted, "outpost_workers_replaced_total") == 2
        bound = sum(task.result() for task in tasks[:2])
        assert total(counted, r'outpost_ldap_operations_total\{app="ldap",result="0",type="bind"\}') == bound
        assert total(counted, "outpost_radius_replies_total") == tasks[2].result()
        assert "pause-s" not in running.said and running.stop() == 0


def mapped(pid: int) -> list[dict[str, int]]:
    """Figures of the compiled directories that a process has mapped, in KiB."""
    found: list[dict[str, int]] = []
    is_ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = "memfd:outpost " in line
            if is_ours:
                found.append({})
        elif is_ours and line.endswith(" kB"):
            name, _, value = line.partition(":")
            found[-1][name] = int(value.split()[0])
    return found


def test_one_copy_of_the_directory_is_in_memory_for_all(path: Path) -> None:
    user = (
        "  - {{model: authentik_core.user, identifiers: {{username: user{0}}}, attrs: {{name: User {0}, password: x}}}}"
    )
    write(path, more="\n".join(user.format(number) for number in range(3000)))
    with team(path, count=3) as running:
        sizes = []
        for pid in workers(running):
            [figures] = mapped(pid)
            assert figures["Rss"] == figures["Size"] > 500
            assert figures["Private_Dirty"] == figures["Private_Clean"] == 0
            assert figures["Pss"] <= figures["Size"] / 3 + 1
            sizes.append(figures["Size"])
        assert len(set(sizes)) == 1 and not mapped(running.process.pid)
        assert running.stop() == 0


async def test_direct_searches_are_fresh_at_each(path: Path) -> None:
    write(path, mode="direct")
    with team(path) as running:
        async with clients_of_each(running) as clients:
            for client in clients:
                assert await client.bind(SERVICE_DN, "service-pw") == OK
                code, found, _ = await client.search(BASE, "(cn=ann)", ["cn"])
                assert code == OK and next(entry["cn"] for entry in found) == [b"ann"]
        assert running.stop() == 0


def test_they_do_not_outlive_the_parent(path: Path) -> None:
    with team(path) as running:
        pids = workers(running)
        running.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_what_no_worker_can_be_started_with_is_told_once(path: Path) -> None:
    command = [*arguments(path), "--workers", "2", "--set", f"ldap.client_ca={path}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"outpost: {path}: ldap.client_ca: expected certificates")
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_found_out_though_it_could_be_shared(path: Path) -> None:
    with appliance(path, "--workers", "2") as running:
        for name in ("ldap", "radius"):
            command = arguments(path, **{name: f"127.0.0.1:{running.ports[name]}"})
            done = subprocess.run(
                [*command, "--workers", "2"], env=environment(), capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 1 and "Address already in use" in done.stderr
        assert running.stop() == 0


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_replaced(path: Path) -> None:
    with team(path) as running:
        first, second = workers(running)
        os.kill(first, signal.SIGSTOP)
        until_s, begun = 60.0, time.monotonic()
        while first in workers(running):
            assert time.monotonic() < begun + until_s
            time.sleep(0.2)
        assert time.monotonic() - begun > 10
        until(lambda: running.get("/-/ready")[0] == 200)
        assert second in workers(running) and "a worker does not answer" in running.said
        assert running.stop() == 0
