"""Figures at the real process with a server made for tests, at their full length; `make slow` runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from tests.backends.authentik.appliance import small
from tests.backends.authentik.keys import renew
from tests.backends.authentik.test_acceptance_long import program
from tests.backends.authentik.test_catalog import with_certificate
from tests.ldap import decode, encode
from tests.ldap.testbed import Client, trusting
from tests.process.running import BASE, Appliance, environment, user_dn
from tests.process.test_authentik import COMMAND, until_ready
from tests.stub_authentik.server import LDAP_TOKEN

CROWD = (100_000, 5_000, 200, 1_000)
"""Users, groups, refreshes, users who log in."""
START_TLS = "1.3.6.1.4.1.1466.20037"
OK, BUSY, UNAVAILABLE = 0, 51, 52


@contextlib.asynccontextmanager
async def crowd(*options: str) -> AsyncIterator[str]:
    """The URL of a server with many people."""
    async with program("tests.stub_authentik.process", *options) as stub:
        assert stub.stdout is not None
        yield (await stub.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def started(url: str, *options: str) -> AsyncIterator[Appliance]:
    running = Appliance([*COMMAND, *options], environment(AUTHENTIK_HOST=url, AUTHENTIK_TOKEN=LDAP_TOKEN))
    try:
        await asyncio.to_thread(running.wait_until_listening)
        yield running
        assert await asyncio.to_thread(running.stop) == 0
        assert "Traceback" not in running.said
    finally:
        running.end()


async def connected(running: Appliance, source: str = "127.0.0.1") -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", running.ports["ldap"], local_addr=(source, 0)))


class Process:
    """What the operating system knows about a process and those that it started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def _places(self, name: str) -> Iterator[Path]:
        pids = [self._pid]
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):  # it ended meanwhile
                    pids += map(int, (task / "children").read_text().split())
            yield from Path(f"/proc/{pid}").glob(name)

    @property
    def resident(self) -> int:
        """Octets; what several of them share counts for each."""
        return sum(int(_text(place).split()[1]) for place in self._places("statm")) * os.sysconf("SC_PAGE_SIZE")

    @property
    def files(self) -> int:
        return len(list(self._places("fd/*")))

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time, user and system, those of ended children included."""
        fields = _text(Path(f"/proc/{self._pid}/stat")).rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    @property
    def is_busy(self) -> bool:
        """One of their threads runs, or would if there were a processor for it."""
        return any(_text(place).rpartition(")")[2].split()[0] in "RD" for place in self._places("task/*/stat"))

    async def until_idle(self) -> None:
        """Whatever was begun, such as compiling a directory, is done."""
        quiet = 0
        while quiet < 20:
            await asyncio.sleep(0.02)
            quiet = 0 if self.is_busy else quiet + 1


def _text(place: Path) -> str:
    """What the kernel says there, and the like of it where the process has just ended."""
    try:
        return place.read_text()
    except OSError:
        return "0 0 ) X"


async def until_bound(client: Client, name: str) -> None:
    """On a machine with more work than processors a login may miss its deadline, and is begun again."""
    async with asyncio.timeout(120):
        code = UNAVAILABLE
        while code == UNAVAILABLE:
            client.send(encode.bind(client.next_id, user_dn(name), f"pw-{name.removeprefix('user')}"))
            head = await client.reader.readexactly(2)
            code = decode.result(decode.messages(head + await client.reader.readexactly(head[1]))[0].content)[0]
    assert code == OK


async def themselves(running: Appliance, names: list[str], met: Counter[str]) -> None:
    """Each binds on a connection of his own and reads what he may: himself."""
    for n, name in enumerate(names):
        client = await connected(running, f"127.0.1.{1 + n % 250}")
        await until_bound(client, name)
        code, found, _ = await client.search(BASE, "(objectClass=user)", ["cn"])
        assert (code, [one["cn"] for one in found]) == (OK, [[name.encode()]])
        await client.close()
        met["searches"] += 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_refreshes_and_many_users_leave_the_memory_as_it_was() -> None:
    """People change before each of the refreshes; a thousand of them log in and read themselves, again and again."""
    users, groups, refreshes, dns = CROWD
    options = ["--users", str(users), "--groups", str(groups), "--per-user", "20", "--churn", "50"]
    met: Counter[str] = Counter()
    chance = random.Random(1)
    names = [f"user{n}" for n in range(dns)]
    resident = []
    async with crowd(*options, "--log-level", "debug") as url, started(url) as running:
        process = Process(running.process.pid)
        while (await asyncio.to_thread(running.get, "/-/ready"))[0] != 200:
            await asyncio.sleep(0.2)
        for number in range(1, refreshes + 1):
            running.raw.clear()
            line = {"changed": False}
            while not line["changed"]:  # they change when the server is asked, and may be read before
                running.send(signal.SIGHUP)
                line = await asyncio.to_thread(running.event, "^users and groups read$", 300)
            assert line["users"] == users
            await themselves(running, names if number in (1, refreshes) else chance.sample(names, dns // 10), met)
            await process.until_idle()
            resident.append(process.resident)
        print(f"{met['searches']} logins; MiB {[round(one / 2**20, 1) for one in resident]}")
    # Medians: what a build has given back by the moment of one sample differs.
    early, late = statistics.median(resident[2:7]), statistics.median(resident[-5:])
    assert abs(late - early) <= early * 0.05
    assert met["searches"] >= 2 * dns


FAILURES: list[tuple[str, dict[str, int]]] = [("status", {"status": 500}), ("status", {"status": 502}), ("hang", {})]
STEP_S = 1.5
"""The shortest of the longest pauses between two tries."""


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_ten_minutes_of_failing_pages_cost_nothing_and_change_nothing() -> None:
    """Ten pages of users; all but the first fail in turn with 500, with 502 and by time-out."""
    stub = small()
    for number in range(1_000 - len(stub.users)):
        stub.add_user(f"many{number}")
    stub.add_user("reader", "pw-reader", can_search=True, password_change_date="2020-01-01T00:00:00Z")
    wanted = {user_dn(user.username).encode() for user in stub.users.values()}
    loop = asyncio.get_running_loop()
    async with stub, started(stub.url, "--set", "authentik.request_timeout=10s") as running:
        await until_ready(running)
        client = await connected(running)
        assert await client.bind(user_dn("reader"), "pw-reader") == OK
        process = Process(running.process.pid)
        await process.until_idle()
        resident, shares = [], []
        for kind, options in FAILURES:
            fault = stub.fail(r"/core/users/\?page=([2-9]|10)&page_size=100", kind, **options)
            stub.add_user(f"late{kind}{len(shares)}")
            running.send(signal.SIGHUP)
            await asyncio.to_thread(running.event, "users and groups cannot be read, the last copy stays", 30)
            began, used, asked = loop.time(), process.cpu_s, fault.hits
            while loop.time() - began < 200:
                code, found, _ = await client.search(BASE, "(objectClass=user)", ["entryDN"])
                assert code == OK
                assert {one["entryDN"][0] for one in found} == wanted, "never a part of the people"
                resident.append(process.resident)
                await asyncio.sleep(5)
            assert 0 < fault.hits - asked <= 200 / STEP_S + 3
            shares.append((process.cpu_s - used) / (loop.time() - began))
            assert (await asyncio.to_thread(running.get, "/-/ready"))[0] == 503
            stub.faults.remove(fault)
        print(f"CPU {[f'{share:.2%}' for share in shares]}; MiB {[round(one / 2**20, 1) for one in resident[::10]]}")
        assert max(shares) < 0.05
        assert max(resident[1:]) - resident[1] < 1 << 20
        wanted |= {user_dn(user.username).encode() for user in stub.users.values()}
        async with asyncio.timeout(5):
            found = []
            while {one["entryDN"][0] for one in found} != wanted:
                _, found, _ = await client.search(BASE, "(objectClass=user)", ["entryDN"])
                await asyncio.sleep(0.1)
        await client.close()


async def decided(running: Appliance, name: str, source: str) -> tuple[int, float]:
    """Result code of a bind on a connection of its own, and the seconds it took."""
    client = await connected(running, source)
    began = asyncio.get_running_loop().time()
    client.send(encode.bind(client.next_id, user_dn(name), f"pw-{name.removeprefix('user')}"))
    async with asyncio.timeout(30):
        head = await client.reader.readexactly(2)
        code = decode.result(decode.messages(head + await client.reader.readexactly(head[1]))[0].content)[0]
    took = asyncio.get_running_loop().time() - began
    await client.close()
    return code, took


@pytest.mark.slow
async def test_a_hung_server_costs_each_of_many_binds_its_deadline_and_leaves_nothing() -> None:
    """With all settings as they are by default: 10 seconds, 52."""
    stub = small()
    for number in range(200):
        stub.add_user(f"cold{number}", f"pw-cold{number}", password_change_date="2020-01-01T00:00:00Z")
    async with stub, started(stub.url) as running:
        await until_ready(running)
        process = Process(running.process.pid)
        resident = []
        for number in range(4):
            files = process.files
            stub.fail("/flows/executor/", "hang")
            outcomes = await asyncio.gather(*(decided(running, f"cold{n}", f"127.0.1.{1 + n}") for n in range(200)))
            assert {code for code, _ in outcomes} == {UNAVAILABLE}
            times = sorted(took for _, took in outcomes)
            print(f"{times[0]:.2f} to {times[-1]:.2f} s")
            assert 9.5 < times[0] and times[-1] < 12
            stub.heal()
            await stub.until(lambda: stub.in_flight == 0)
            await process.until_idle()
            assert process.files <= files + 4
            _, text = await asyncio.to_thread(running.get, "/metrics")
            assert re.search(r"^outpost_\w*logins_pending\S* 0(\.0)?$", text, re.M), text
            resident.append(process.resident)
            assert (await decided(running, f"user{number}", "127.0.2.1"))[0] == OK, "and it is used again at once"
        assert resident[-1] - resident[0] < 4 << 20, resident


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_binds_at_a_server_that_is_too_slow_are_bounded_and_hold_up_nobody() -> None:
    """Each login takes the server longer than its deadline: none is decided, few are asked, the rest is told so."""
    stub = small()
    for number in range(1_000):
        stub.add_user(f"cold{number}", f"pw-cold{number}")
    stub.add_user("warm", "pw-warm", can_search=True, password_change_date="2020-01-01T00:00:00Z")
    loop = asyncio.get_running_loop()
    async with stub, started(stub.url) as running:
        await until_ready(running)
        process = Process(running.process.pid)
        warm = await connected(running)
        assert await warm.bind(user_dn("warm"), "pw-warm") == OK
        stub.flow_delay_s, before = 3.0, process.resident
        stub.most_in_flight = 0
        binds = [loop.create_task(decided(running, f"cold{n}", f"127.0.1.{1 + n % 250}")) for n in range(1_000)]
        waited = []
        while not all(bind.done() for bind in binds):
            began = loop.time()
            assert await warm.bind(user_dn("warm"), "pw-warm") == OK
            assert (await warm.search(BASE, "(cn=warm)"))[0] == OK
            waited.append(loop.time() - began)
            await asyncio.sleep(0.02)
        outcomes = [await bind for bind in binds]
        codes = Counter(code for code, _ in outcomes)
        waited.sort()
        longest, p99 = max(took for _, took in outcomes), waited[int(len(waited) * 0.99)]
        print(f"{dict(codes)}, longest {longest:.1f} s, at most {stub.most_in_flight} at the server")
        print(f"warm bind and search meanwhile: p99 {p99 * 1e3:.1f} ms")
        assert set(codes) <= {BUSY, UNAVAILABLE}
        assert longest < 12
        assert stub.most_in_flight <= 140
        assert p99 < 0.5
        stub.flow_delay_s = 0.0
        await stub.until(lambda: stub.in_flight == 0)
        await process.until_idle()
        assert process.resident - before < 32 << 20
        assert (await decided(running, "user0", "127.0.2.1"))[0] == OK
        await warm.close()


@dataclass
class Handshakes:
    """Connections at a steady rate, half LDAPS and half StartTLS, and which certificate each was shown."""

    running: Appliance
    seen: list[tuple[float, int]] = field(default_factory=list)
    """When it was begun, on the loop's clock, and the serial number."""
    failures: list[BaseException] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def keep_connecting(self, per_second: int) -> None:
        loop = asyncio.get_running_loop()
        began, number = loop.time(), 0
        while True:
            number += 1
            task = loop.create_task(self._one(is_upgraded=number % 2 == 0))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))

    async def _one(self, *, is_upgraded: bool) -> None:
        began = asyncio.get_running_loop().time()
        try:
            self.seen.append((began, await self.serial(is_upgraded=is_upgraded)))
        except Exception as exc:
            self.failures.append(exc)

    async def serial(self, *, is_upgraded: bool) -> int:
        """The number of the certificate that is served now."""
        port = self.running.ports["ldap" if is_upgraded else "ldaps"]
        async with asyncio.timeout(10):
            if is_upgraded:
                client = Client(*await asyncio.open_connection("127.0.0.1", port))
                client.send(encode.extended(client.next_id, START_TLS))
                assert decode.result((await client.message()).content)[0] == OK
                await client.writer.start_tls(trusting())
            else:
                client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting()))
            octets = client.writer.get_extra_info("ssl_object").getpeercert(True)
            assert await client.bind("", "") == OK
            await client.close()
        return x509.load_der_x509_certificate(octets).serial_number


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_certificates_rotate_for_ten_minutes_under_fifty_connections_a_second() -> None:
    stub = small()
    pair = with_certificate(stub)
    loop = asyncio.get_running_loop()

    def serial() -> int:
        return x509.load_pem_x509_certificate(pair.certificate.encode()).serial_number

    async with stub, started(stub.url) as running:
        await until_ready(running)
        await stub.until(lambda: len(stub.hellos) > 0)
        handshakes = Handshakes(running)
        rotations = [(loop.time(), serial())]
        busy = loop.create_task(handshakes.keep_connecting(50))
        for _ in range(20):
            renew(pair)
            rotations.append((loop.time(), serial()))
            for _ in range(2):  # the server says it twice
                await stub.tell(2)
            await asyncio.sleep(30)
        good = serial()
        pair.key = "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----\n"
        pair.fingerprint = "00"
        await stub.tell(2)
        line = await asyncio.to_thread(running.event, "cannot be used, the last good one stays")
        assert line["level"] == "error"
        assert {await handshakes.serial(is_upgraded=is_upgraded) for is_upgraded in (False, True)} == {good}
        busy.cancel()
        await asyncio.gather(busy, *handshakes.tasks, return_exceptions=True)
    assert handshakes.failures == []
    assert len(handshakes.seen) >= 50 * 600 * 0.95
    latest = 0.0
    for i, (at, number) in enumerate(rotations):
        until = rotations[i + 1][0] if i + 1 < len(rotations) else loop.time()
        during = sorted((began - at, shown) for began, shown in handshakes.seen if at <= began < until)
        assert {shown for _, shown in during} <= {number, rotations[max(0, i - 1)][1]}
        old = [after for after, shown in during if shown != number]
        latest = max(latest, *old, 0.0)
    print(
        f"{len(handshakes.seen)} handshakes, the last with an old certificate {latest * 1e3:.0f} ms after its rotation"
    )
    assert latest < 2.0
