"""The real process for as long as one likes: logins and searches over LDAP, LDAPS and RADIUS while the directory
changes; every answer is right, and memory, threads and open files stay what they are.

`SOAK_S` is the length in seconds; ten minutes if it is not set.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import oracle_radius
from tests.ldap import encode
from tests.ldap.testbed import Client, trusting
from tests.process.running import BASE, SECRET, SERVICE_DN, Appliance, appliance, user_dn
from tests.radius.testbed import login

SECONDS = float(os.environ.get("SOAK_S", "600"))
USERS = 300
PATIENCE_S = 30.0
GROWTH = 8 << 20
"""Octets between the medians of the second and the last fifth of the run."""
PAGED, SORT = "1.2.840.113556.1.4.319", "1.2.840.113556.1.4.473"
WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"
ACCEPT, REJECT = 2, 3

HEAD = f"""version: 1
entries:
  - {{model: authentik_core.group, id: readers, identifiers: {{name: readers}}}}
  - {{model: authentik_core.group, id: staff, identifiers: {{name: staff}}}}
  - {{model: authentik_providers_ldap.ldapprovider, id: ldap, identifiers: {{name: ldap}},
     attrs: {{base_dn: "{BASE}", search_group: !KeyOf readers}}}}
  - {{model: authentik_core.application, identifiers: {{slug: ldap}}, attrs: {{name: LDAP, provider: !KeyOf ldap}}}}
  - {{model: authentik_providers_radius.radiusprovider, id: radius, identifiers: {{name: radius}},
     attrs: {{shared_secret: {SECRET}}}}}
  - {{model: authentik_core.application, identifiers: {{slug: radius}}, attrs: {{name: R, provider: !KeyOf radius}}}}
  - {{model: authentik_core.user, identifiers: {{username: ldapservice}},
     attrs: {{password: service-pw, groups: [!KeyOf readers]}}}}
"""
USER = """  - {{model: authentik_core.user, identifiers: {{username: {name}}},
     attrs: {{name: "{name} Example", email: {name}@example.com, password: {password}, groups: [!KeyOf staff],
             attributes: {{title: "engineer {generation}"}}}}}}
"""
CONFIG = '[provider.radius]\nreject_delay = "0s"\n'


def write(path: Path, generation: int) -> None:
    """Some people more or fewer each time, other titles, and one whose password is new."""
    count = USERS + generation % 7 * 10
    people = [USER.format(name=f"user{n}", password=f"pw-{n}", generation=generation) for n in range(count)]
    people.append(USER.format(name="turncoat", password=f"turn-{generation}", generation=generation))
    new = path.with_suffix(".new")
    new.write_text(HEAD + "".join(people))
    new.replace(path)


@dataclass
class Soak:
    running: Appliance
    directory: Path
    seconds: float
    met: Counter[str] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    clients: set[Client] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.until

    async def run(self) -> None:
        behaviours: list[tuple[int, Callable[[random.Random], Awaitable[None]]]] = [
            (6, self.search),
            (4, self.come_and_go),
            (2, self.come_and_go_in_secret),
            (6, self.radius),
            (1, self.change),
            (1, self.scrape),
            (1, self.measure),
        ]
        # It listens before its first directory is there.
        async with asyncio.timeout(PATIENCE_S):
            while (await asyncio.to_thread(self.running.get, "/-/ready"))[0] != 200:
                await asyncio.sleep(0.05)
        try:
            async with asyncio.TaskGroup() as group:
                for count, behaviour in behaviours:
                    for n in range(count):
                        group.create_task(behaviour(random.Random(f"{behaviour.__name__} {n}")))
        finally:
            for client in self.clients:
                client.writer.transport.abort()
            await asyncio.sleep(0)

    async def connect(self, *, is_secure: bool = False, source: str = "127.0.0.1") -> Client:
        port = self.running.ports["ldaps" if is_secure else "ldap"]
        there = trusting() if is_secure else None
        name = "localhost" if is_secure else None
        client = Client(
            *await asyncio.open_connection("127.0.0.1", port, ssl=there, server_hostname=name, local_addr=(source, 0))
        )
        self.clients.add(client)
        return client

    async def close(self, client: Client) -> None:
        self.clients.discard(client)
        await client.close()

    # -- load -------------------------------------------------------------------------------------

    async def search(self, chance: random.Random) -> None:
        """One connection for good, with searches of every kind."""
        client = await self.connect()
        assert await client.bind(SERVICE_DN, "service-pw") == 0
        keys = encode.tlv(0x30, encode.tlv(0x30, encode.octets("uidNumber")))
        while not self.is_over:
            n = chance.randrange(USERS)
            code, found, _ = await client.search(BASE, f"(&(objectClass=user)(cn=user{n}))")
            assert code == 0 and [e["mail"] for e in found] == [[f"user{n}@example.com".encode()]]
            self.met["searches"] += 1
            if chance.random() < 0.1:
                sort = encode.control(SORT, True, keys)
                code, found, _ = await client.search(BASE, "(objectClass=user)", ["uidNumber"], controls=[sort])
                numbers = [int(e["uidNumber"][0]) for e in found]
                assert code == 0 and len(numbers) > USERS and numbers == sorted(numbers)
                self.met["sorted"] += 1
            if chance.random() < 0.1:
                await self._first_page(client)
            if chance.random() < 0.05:
                # Gone before the answer is read; the connection goes on.
                client.send(encode.search(number := client.next_id, BASE, attributes=["*", "+"]))
                client.send(encode.abandon(client.next_id, number))
                client.send(encode.extended(client.next_id, WHO_AM_I))
                while (message := await client.message()).tag != 0x78:
                    assert message.message_id == number
                self.met["abandoned"] += 1
            await asyncio.sleep(chance.random() * 0.02)
        await self.close(client)

    async def _first_page(self, client: Client) -> None:
        """A listing whose rest is never asked for; the server must not keep it for ever."""
        page = encode.tlv(0x30, encode.integer(5), encode.octets(b""))
        code, found, _ = await client.search(
            BASE, "(objectClass=user)", ["cn"], controls=[encode.control(PAGED, True, page)]
        )
        assert (code, len(found)) == (0, 5)
        self.met["pages"] += 1

    @staticmethod
    def _somebody(chance: random.Random, *, is_right: bool) -> tuple[int, str]:
        """A user and where he logs in from. Whoever guesses does so elsewhere and at others, for the limiter takes
        him for an attacker, and rightly so."""
        if is_right:
            return chance.randrange(50, USERS), f"127.0.2.{chance.randrange(1, 250)}"
        return chance.randrange(50), f"127.0.3.{chance.randrange(1, 250)}"

    async def come_and_go(self, chance: random.Random, *, is_secure: bool = False) -> None:
        """Connections of one login each, right or wrong."""
        while not self.is_over:
            is_right = chance.random() < 0.8
            n, source = self._somebody(chance, is_right=is_right)
            client = await self.connect(is_secure=is_secure, source=source)
            if is_right:
                assert await client.bind(user_dn(f"user{n}"), f"pw-{n}") == 0
                code, found, _ = await client.search(BASE, "(objectClass=user)", ["cn"])
                # He may see himself and nobody else.
                assert (code, [e["cn"] for e in found]) == (0, [[f"user{n}".encode()]])
                self.met["logins"] += 1
            else:
                assert await client.bind(user_dn(f"user{n}"), f"pw-{n + 1}") != 0
                assert (await client.search(BASE))[:2] == (50, [])
                self.met["refusals"] += 1
            if chance.random() < 0.5:
                client.send(encode.unbind(client.next_id))
            else:
                client.writer.transport.abort()
            await self.close(client)
            self.met["secret" if is_secure else "plain"] += 1
            await asyncio.sleep(chance.random() * 0.02)

    async def come_and_go_in_secret(self, chance: random.Random) -> None:
        await self.come_and_go(chance, is_secure=True)

    async def radius(self, chance: random.Random) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_over:
            is_right = chance.random() < 0.8
            n, source = self._somebody(chance, is_right=is_right)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.bind((source, 0))
                sock.connect(("127.0.0.1", self.running.ports["radius"]))
                identifier, authenticator = chance.randrange(256), chance.randbytes(16)
                request = login(
                    f"user{n}",
                    f"pw-{n if is_right else n + 1}",
                    identifier=identifier,
                    authenticator=authenticator,
                    secret=SECRET.encode(),
                )
                reply = await self._exchange(loop, sock, request, identifier)
                assert oracle_radius.response_holds(reply, authenticator, SECRET.encode())
                assert reply[0] == (ACCEPT if is_right else REJECT)
                self.met["accepts" if is_right else "rejects"] += 1
                await asyncio.sleep(chance.random() * 0.02)

    @staticmethod
    async def _exchange(loop: asyncio.AbstractEventLoop, sock: socket.socket, request: bytes, identifier: int) -> bytes:
        """Sent again after a while, as devices do; late replies to what was asked before are passed over."""
        for _ in range(10):
            await loop.sock_sendall(sock, request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S / 10):
                    while True:
                        reply = await loop.sock_recv(sock, 5000)
                        if reply[1] == identifier:
                            return reply
        raise AssertionError("no reply")

    # -- meanwhile --------------------------------------------------------------------------------

    async def change(self, chance: random.Random) -> None:
        """A new directory every few seconds; the old password of one dies with it."""
        generation = 0
        while not self.is_over:
            generation += 1
            write(self.directory, generation)
            if generation % 3 == 0:
                self.running.send(signal.SIGHUP)
            client = await self.connect(source=f"127.0.4.{1 + generation % 250}")
            async with asyncio.timeout(PATIENCE_S):
                while await client.bind(user_dn("turncoat"), f"turn-{generation}") != 0:
                    await asyncio.sleep(0.3)
            assert await client.bind(user_dn("turncoat"), f"turn-{generation - 1}") != 0
            await self.close(client)
            self.met["changes"] += 1
            # Nobody reads all of this log, so it is looked through and dropped.
            said = "".join(self.running.raw)
            self.running.raw.clear()
            assert "Traceback" not in said and "internal error" not in said, said[-3000:]
            assert "service-pw" not in said and SECRET not in said
            with self.running._lines.mutex:
                self.running._lines.queue.clear()
            await asyncio.sleep(1 + chance.random())

    async def scrape(self, chance: random.Random) -> None:
        while not self.is_over:
            status, text = await asyncio.to_thread(self.running.get, "/metrics")
            assert status == 200 and "authentik_outpost" in text
            assert (await asyncio.to_thread(self.running.get, "/-/ready"))[0] == 200
            self.met["scrapes"] += 1
            await asyncio.sleep(1)

    async def measure(self, chance: random.Random) -> None:
        place = Path(f"/proc/{self.running.process.pid}")
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.is_over:
            self.resident.append(int((place / "statm").read_text().split()[1]) * page)
            self.threads.append(len(list((place / "task").iterdir())))
            self.files.append(len(list((place / "fd").iterdir())))
            await asyncio.sleep(max(0.1, min(1.0, self.seconds / 100)))


def fifths(samples: list[int]) -> list[float]:
    size = len(samples) // 5
    return [statistics.median(samples[n * size : (n + 1) * size]) for n in range(5)]


def grown(samples: list[int]) -> float:
    """From the second fifth, when everything has been used once, to the last."""
    _, early, _, _, late = fifths(samples)
    return late - early


def test_growth_is_seen() -> None:
    flat = [100 + n % 3 for n in range(500)]
    assert abs(grown(flat)) <= 1
    assert grown([n * (1 << 18) for n in range(500)]) > GROWTH
    # What is used up at the start does not count.
    assert grown([n if n < 90 else 100 for n in range(500)]) == 0


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
async def test_soak(tmp_path: Path) -> None:
    path, config = tmp_path / "directory.yaml", tmp_path / "outpost.toml"
    write(path, 0)
    config.write_text(f"version = 1\n{CONFIG}")
    with appliance(path, "--config", str(config)) as running:
        soak = Soak(running, path, SECONDS)
        await soak.run()
        line = f"{SECONDS:.0f} s: {dict(soak.met)}; MiB {[round(n / 2**20, 1) for n in fifths(soak.resident)]}"
        print(f"{line}; threads {fifths(soak.threads)}; files {fifths(soak.files)}")
        assert await asyncio.to_thread(running.stop) == 0
        assert "Traceback" not in running.said
    wanted = ("searches", "sorted", "pages", "logins", "refusals", "secret", "accepts", "rejects", "changes", "scrapes")
    assert min(soak.met[what] for what in wanted) >= min(5, SECONDS / 10), soak.met
    assert grown(soak.resident) < GROWTH, line
    assert grown(soak.threads) <= 2 and grown(soak.files) <= 10, line
