"""Two hundred clients that keep to no rule, and the rules that the server's answers to them must keep."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import socket
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from outpost.identity import Revoked
from tests import noise_ber
from tests.ldap import decode, encode
from tests.ldap.generate import Questions
from tests.ldap.testbed import BASE, PASSWORDS, Bed, people, trusting

SERVICE = "ldapservice"
NOTICE = b"1.3.6.1.4.1.1466.20036"
START_TLS = "1.3.6.1.4.1.1466.20037"
WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"
CANCEL = "1.3.6.1.1.8"
PASSWORD_MODIFY = "1.3.6.1.4.1.4203.1.11.1"
PAGED = "1.2.840.113556.1.4.319"
CONTROLS = (
    PAGED, "1.2.840.113556.1.4.473", "1.3.6.1.1.12", "2.16.840.1.113730.3.4.2", "1.3.6.1.4.1.4203.1.10.1",
    "1.2.826.0.1.3344810.2.3", "1.2.840.113556.1.4.319.1", "9.9.9", "", "x" * 300,
)  # fmt: skip
BIND_RESPONSE, ENTRY, DONE, COMPARE_RESPONSE, EXTENDED_RESPONSE = 0x61, 0x64, 0x65, 0x6F, 0x78
PATIENCE_S = 60.0
"""Longer than a busy machine takes for anything here: what is not answered by then never will be."""
OTHERS = (b"cn=bob", b"cn=alice", b"cn=user", b"cn=ldapservice")


def user_dn(name: str) -> str:
    return f"cn={name},ou=users,{BASE}"


@dataclass
class Ledger:
    """What one client asked, and whether it may be told what it is told. Everything forbidden is an AssertionError."""

    who: str | None = None
    """As whom the server has let it in, by its answers so far."""
    is_noisy: bool = False
    """Octets were sent of which nobody knows what they are; none of them holds a password."""
    is_over: bool = False
    """The server said that it closes."""
    right: dict[int, str] = field(default_factory=dict)
    """Binds with the right password."""
    anonymous: set[int] = field(default_factory=set)
    """Binds without name and password."""
    open: set[int] = field(default_factory=set)
    """Requests without an answer."""
    lost: set[int] = field(default_factory=set)
    """Requests that were told to be abandoned."""

    def told(self, message: decode.Message) -> None:
        tag, number = message.tag, message.message_id
        if number == 0:
            assert tag == EXTENDED_RESPONSE and NOTICE in message.content, "a messageID of nobody"
            self.is_over = True
            return
        assert not self.is_over, "an answer behind the notice of disconnection"
        if tag == ENTRY:
            self._entry(decode.entry(message.content))
        else:
            assert tag in (BIND_RESPONSE, DONE, 0x67, 0x69, 0x6B, 0x6D, COMPARE_RESPONSE, EXTENDED_RESPONSE), hex(tag)
            code, _, diagnostic = decode.result(message.content)
            assert code != 80, diagnostic
            if tag == BIND_RESPONSE:
                self._bound(number, code)
            if tag == COMPARE_RESPONSE and code in (5, 6):
                assert self.who is not None, "a comparison for somebody unknown"
            if tag == EXTENDED_RESPONSE:
                self._extended(message.content)
        if tag != ENTRY and number in self.open:
            self.open.discard(number)
        else:
            assert self.is_noisy or number in self.open, f"an answer to nothing: {number}"

    def _bound(self, number: int, code: int) -> None:
        self.who = None
        if code == 0:
            self.who = self.right.get(number)
            assert self.who or number in self.anonymous or self.is_noisy, "a wrong password was believed"

    def _entry(self, entry: decode.Entry) -> None:
        if not entry.dn:
            return
        assert self.who is not None, f"{entry.dn!r} for somebody unknown"
        if self.who != SERVICE:
            own = b"cn=" + self.who.encode()
            told = entry.dn + b"".join(v for _, values in entry.attributes for v in values)
            assert not any(other in told for other in OTHERS if other != own), f"{entry.dn!r} for {self.who}"

    def _extended(self, content: bytes) -> None:
        for tag, value in decode.elements(content):
            if tag == 0x8B and value.startswith(b"dn:"):
                assert self.who is not None and value == b"dn:" + user_dn(self.who).encode(), "somebody else's name"


@dataclass
class Storm:
    """`clients` connections at a time until `requests` were sent."""

    bed: Bed
    questions: Questions
    requests: int
    clients: int = 200
    seed: int = 1
    sent: int = 0
    met: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    """Times that the watcher's questions were answered right."""
    refreshes: int = 0

    async def run(self) -> None:
        # What the testbed remembers would grow with the storm.
        seen, authority = self.bed.seen, self.bed.authority
        for name in ("taken", "ends", "refused", "binds", "searches", "operations", "clients", "explanations"):
            if hasattr(seen, name):
                setattr(seen, name, deque(maxlen=10))
        authority.asked = deque(maxlen=10)  # type: ignore[assignment]
        tls = trusting()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            around = [group.create_task(self._watch(stop)), group.create_task(self._change(stop))]
            storm = [group.create_task(self._client(n, tls)) for n in range(self.clients)]
            await asyncio.wait(storm)
            stop.set()
            await asyncio.wait(around)
        assert seen.failures == [], seen.failures[:3]

    @property
    def is_done(self) -> bool:
        return self.sent >= self.requests

    # -- what goes on meanwhile -------------------------------------------------------------------

    async def _change(self, stop: asyncio.Event) -> None:
        """Directories come and go, logins take their time, sessions end."""
        chance = random.Random(self.seed)
        bed = self.bed
        while not stop.is_set():
            self.refreshes += 1
            await bed.change(people(chance.choice((20, 60, 300)), generation=self.refreshes + 1))
            if chance.random() < 0.3:
                bed.authority.hold = asyncio.Event()
                await asyncio.sleep(0.02)
                bed.authority.hold.set()
                bed.authority.hold = None
            if chance.random() < 0.2:
                # Not the watcher's.
                bed.gate.publish(Revoked(user_pk=chance.choice((1, 2))))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05)

    async def _watch(self, stop: asyncio.Event) -> None:
        """Asks what it knows the answers to."""
        client = await self.bed.client(SERVICE)
        while not stop.is_set():
            async with asyncio.timeout(PATIENCE_S):
                alice = user_dn("alice")
                code, entries, _ = await client.search(BASE, "(&(objectClass=user)(cn=ALICE))", ["mail", "memberOf"])
                assert code == 0
                assert [(e.dn, e["mail"]) for e in entries] == [(alice.encode(), [b"alice@example.com"])]
                assert entries[0]["memberOf"] == [f"cn=labstaff,ou=groups,{BASE}".encode()]
                code, entries, _ = await client.search(BASE, "(&(objectClass=group)(cn=labstaff))", ["memberUid"])
                assert (code, [e["memberUid"] for e in entries]) == (0, [[b"alice"]])
                client.send(encode.compare(client.next_id, alice, "cn", "Alice"))
                client.send(encode.compare(client.next_id, alice, "cn", "bob"))
                client.send(encode.extended(client.next_id, WHO_AM_I))
                assert [decode.result((await client.message()).content)[0] for _ in range(2)] == [6, 5]
                assert b"dn:" + user_dn(SERVICE).encode() in (await client.message()).content
                assert (await client.search(f"cn=nobody,{BASE}"))[0] == 32
                stranger = await self.bed.client()
                assert (await stranger.search(BASE))[:2] == (50, [])
                assert await stranger.bind(user_dn("alice"), f"wrong-{self.rounds}") != 0
                assert (await stranger.search(BASE))[:2] == (50, [])
                assert await stranger.bind(user_dn(SERVICE), PASSWORDS[SERVICE]) == 0
                await stranger.close()
                self.bed.clients.remove(stranger)
            self.rounds += 1

    # -- one client -------------------------------------------------------------------------------

    async def _client(self, number: int, tls: ssl.SSLContext) -> None:
        chance = random.Random(self.seed * 1000 + number)
        behaviours: list[tuple[int, Callable[[Visit], Awaitable[None]]]] = [
            (6, Visit.pipeline),
            (3, Visit.controls),
            (2, Visit.extended),
            (2, Visit.storm),
            (4, Visit.noise),
            (2, Visit.truncate),
            (1, Visit.trickle),
            (2, Visit.start_tls),
            (1, Visit.injected),
            (1, Visit.no_handshake),
            (1, Visit.do_not_read),
        ]
        weights = [weight for weight, _ in behaviours]
        while not self.is_done:
            is_secure = chance.random() < 0.06
            visit = await Visit.begin(self, chance, number, tls, is_secure=is_secure)
            (_, behaviour) = chance.choices(behaviours, weights)[0]
            if is_secure and behaviour in (Visit.start_tls, Visit.injected, Visit.no_handshake):
                behaviour = Visit.pipeline
            self.met[behaviour.__name__] += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await behaviour(visit)
            except (ConnectionError, ssl.SSLError):
                # Whoever is cut off in the middle of sending does not hear why.
                self.met["cut off"] += 1
            finally:
                visit.writer.transport.abort()


class Visit:
    """One connection of a hostile client."""

    def __init__(self, storm: Storm, chance: random.Random, tls: ssl.SSLContext, *, is_secure: bool) -> None:
        self.storm, self.chance, self.tls, self.is_secure = storm, chance, tls, is_secure
        self.ledger = Ledger()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.may_be_cut = False
        """A session that ends during the handshake ends without a word."""
        self._held = b""
        self._next = 0

    @classmethod
    async def begin(
        cls, storm: Storm, chance: random.Random, number: int, tls: ssl.SSLContext, *, is_secure: bool
    ) -> Visit:
        made = cls(storm, chance, tls, is_secure=is_secure)
        # Addresses of their own, so that failures of one are not held against another.
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.{1 + number // 50}.{1 + number % 50}", 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", storm.bed.tls_port if is_secure else storm.bed.port))
        made.reader, made.writer = await asyncio.open_connection(
            sock=sock, ssl=tls if is_secure else None, server_hostname="localhost" if is_secure else None
        )
        return made

    @property
    def next_id(self) -> int:
        self._next += self.chance.choice((1, 1, 1, 50, 70_000))
        return self._next

    # -- requests ---------------------------------------------------------------------------------

    def request(self) -> bytes:
        """One well-formed request, on the ledger."""
        chance, number = self.chance, self.next_id
        one = chance.random()
        if one < 0.12:
            return self.right_bind(number)
        self.ledger.open.add(number)
        if one < 0.2:
            return self.wrong_bind(number)
        if one < 0.24:
            self.ledger.anonymous.add(number)
            return encode.bind(number, controls=self.some_controls())
        if one < 0.34:
            name = chance.choice((user_dn("alice"), user_dn("bob"), BASE, "cn=x", "nonsense", b"\xff"))
            return encode.compare(
                number, name, self.name(), chance.choice(("alice", "bob", b"\0")), self.some_controls()
            )
        if one < 0.42:
            return self.extension(number)
        if one < 0.46:
            operation = encode.tlv(chance.choice((0x66, 0x68, 0x6C)), chance.randbytes(chance.randrange(30)))
            return encode.message(number, operation)
        return self.search(number)

    def search(self, number: int, controls: list[bytes] | None = None) -> bytes:
        chance, questions = self.chance, self.storm.questions
        bases = (BASE, user_dn("alice"), user_dn("bob"), f"ou=users,{BASE}", "", "cn=subschema", "cn=x", "dc=elsewhere")
        return encode.search(
            number,
            chance.choice(bases),
            chance.choice(("(cn=alice)", "(objectClass=user)")) if chance.random() < 0.5 else questions.filter(),
            questions.wanted(),
            scope=chance.randrange(3),
            size_limit=chance.choice((0, 1, 3)),
            types_only=chance.random() < 0.1,
            controls=self.some_controls() if controls is None else controls,
        )

    def name(self) -> str:
        return self.chance.choice(("cn", "uid", "member", "nosuch", "entryDN", "2.5.4.3", ""))

    def right_bind(self, number: int) -> bytes:
        who = self.chance.choice(("alice", "bob", SERVICE))
        self.ledger.right[number] = who
        self.ledger.open.add(number)
        return encode.bind(number, user_dn(who), PASSWORDS[who])

    def wrong_bind(self, number: int) -> bytes:
        chance = self.chance
        who = chance.choice(("alice", "bob", "nobody"))
        one = chance.random()
        if one < 0.5:
            return encode.bind(number, user_dn(who), chance.choice(("wrong", "bob-pw ", "Alice-pw", "a" * 500, b"\0")))
        if one < 0.6:
            return encode.bind(number, user_dn(who), "")
        if one < 0.7:
            return encode.bind(number, chance.choice(("alice", "", "cn=alice", b"\xff", BASE)), "alice-pw-not")
        if one < 0.8:
            # A right password for another version.
            return encode.bind(number, user_dn("alice"), PASSWORDS["alice"], version=chance.choice((0, 2, 4)))
        mechanism = chance.choice(("PLAIN", "EXTERNAL", "DIGEST-MD5", "GSSAPI", ""))
        words = chance.choice((b"\0alice\0wrong", b"bob\0alice\0alice-pw", b"", None, b"\0\0", chance.randbytes(20)))
        return encode.sasl_bind(number, mechanism, words)

    def extension(self, number: int) -> bytes:
        chance = self.chance
        name = chance.choice((WHO_AM_I, WHO_AM_I, CANCEL, PASSWORD_MODIFY, "9.9.9", ""))
        value = chance.choice((None, None, b"", chance.randbytes(12), encode.tlv(0x30, encode.integer(number))))
        return encode.extended(number, name, value, self.some_controls())

    def some_controls(self) -> list[bytes]:
        return [self.control() for _ in range(self.chance.choice((0, 0, 0, 0, 0, 1, 2)))]

    def control(self) -> bytes:
        chance = self.chance
        page = encode.tlv(
            0x30, encode.integer(chance.choice((0, 1, 5, -1, 2**31 - 1))), encode.octets(chance.randbytes(8))
        )
        first = encode.tlv(0x30, encode.integer(3), encode.octets(b""))
        keys = [encode.tlv(0x30, encode.octets(self.name() or "sn")) for _ in range(chance.choice((1, 2, 20)))]
        value = chance.choice(
            (
                None,
                b"",
                page,
                first,
                encode.tlv(0x30, *keys),
                self.storm.questions.filter(),
                b"\x01\x01\xff",
                chance.randbytes(9),
            )
        )
        return encode.control(chance.choice(CONTROLS), chance.random() < 0.4, value)

    # -- behaviours -------------------------------------------------------------------------------

    async def pipeline(self) -> None:
        """Everything at once, and every request is answered."""
        if self.chance.random() < 0.6:
            await self.send(self.right_bind(self.next_id))
            await self.hear()
        for _ in range(self.chance.choice((1, 1, 3))):
            await self.send(*(self.request() for _ in range(self.chance.choice((1, 5, 20, 60)))))
            await self.hear()
        await self.leave()

    async def controls(self) -> None:
        await self.send(self.right_bind(self.next_id))
        for _ in range(self.chance.choice((3, 30))):
            number = self.next_id
            self.ledger.open.add(number)
            controls = [self.control() for _ in range(self.chance.choice((1, 2, 3, 40)))]
            await self.send(self.search(number, controls))
        await self.hear()
        await self.leave()

    async def extended(self) -> None:
        for _ in range(self.chance.choice((2, 20))):
            number = self.next_id
            self.ledger.open.add(number)
            await self.send(self.extension(number))
        await self.hear()
        await self.leave()

    async def storm(self) -> None:
        """Searches, and as many wishes to be rid of them; also of what never was, and of Binds."""
        await self.send(self.right_bind(self.next_id))
        chance, sent, out = self.chance, [], []
        for _ in range(chance.choice((5, 40))):
            number = self.next_id
            sent.append(number)
            if chance.random() < 0.1:
                out.append(self.right_bind(number))
            else:
                self.ledger.open.add(number)
                out.append(self.search(number, []))
            target = chance.choice((number, chance.choice(sent), number + 1, 0))
            if chance.random() < 0.5:
                self.ledger.lost.add(target)
                out.append(encode.abandon(self.next_id, target))
            else:
                number = self.next_id
                self.ledger.open.add(number)
                out.append(encode.extended(number, CANCEL, encode.tlv(0x30, encode.integer(target))))
        await self.send(*out)
        await self.hear()
        await self.leave()

    async def noise(self) -> None:
        """Requests after accidents. They hold no password, so nobody is let in by them."""
        chance = self.chance
        if chance.random() < 0.5:
            await self.send(self.right_bind(self.next_id))
            await self.hear()
        self.ledger.is_noisy = True
        for _ in range(chance.choice((1, 5, 20))):
            await self.send(noise_ber.mutation(chance))
        await self.leave()

    async def truncate(self) -> None:
        """Goes in the middle of a message."""
        out = b"".join(self.request() for _ in range(self.chance.choice((1, 4))))
        self.ledger.is_noisy = True
        await self.send(out[: self.chance.randrange(1, len(out))])
        await self.leave()

    async def trickle(self) -> None:
        """A few octets at a time."""
        out = b"".join(self.request() for _ in range(3))
        while out:
            size = self.chance.choice((1, 2, 7, 50))
            await self.send(out[:size], count=0)
            await asyncio.sleep(0)
            out = out[size:]
        self.storm.sent += 3
        await self.hear()
        await self.leave()

    async def start_tls(self) -> None:
        """StartTLS, the handshake, and then on."""
        await self.send(*(self.request() for _ in range(self.chance.choice((0, 0, 3)))))
        await self.hear()
        if not await self._ask_for_tls() or not await self._shake_hands():
            return
        await self.pipeline()

    async def injected(self) -> None:
        """Requests in the clear behind StartTLS; those must never count (RFC 4511 4.14.1)."""
        number = self.next_id
        hidden = encode.bind(number, user_dn("alice"), PASSWORDS["alice"])
        if not await self._ask_for_tls(hidden) or not await self._shake_hands():
            return
        # An answer to `number` would be one to nothing, and a success one to a Bind that nobody made.
        other = self.next_id
        self.ledger.open.add(other)
        await self.send(encode.extended(other, WHO_AM_I))
        await self.hear()
        assert self.ledger.is_over or self.ledger.who is None, "a Bind was slipped in"
        await self.leave()

    async def no_handshake(self) -> None:
        """StartTLS, and then anything but a handshake."""
        if await self._ask_for_tls():
            self.ledger.is_noisy = True
            await self.send(self.chance.choice((self.request(), self.chance.randbytes(200), b"\x16\x03\x01\xff\xff")))
            with contextlib.suppress(ConnectionError):
                if self.chance.random() < 0.5:
                    self.writer.write_eof()
                    await self.reader.read()

    async def do_not_read(self) -> None:
        """Asks for much and takes nothing."""
        number = self.next_id
        self.ledger.right[number] = SERVICE
        self.ledger.open.add(number)
        await self.send(encode.bind(number, user_dn(SERVICE), PASSWORDS[SERVICE]))
        out = [encode.search(self.next_id, BASE, attributes=["*", "+"]) for _ in range(self.chance.choice((2, 30)))]
        await self.send(*out)
        for _ in range(20):
            await asyncio.sleep(0)

    # -- octets -----------------------------------------------------------------------------------

    async def _ask_for_tls(self, *behind: bytes) -> bool:
        number = self.next_id
        self.ledger.open.add(number)
        await self.send(encode.extended(number, START_TLS), *behind)
        await self.hear()
        return not self.ledger.is_over

    async def _shake_hands(self) -> bool:
        try:
            await self.writer.start_tls(self.tls, server_hostname="localhost")
        except (OSError, ssl.SSLError):
            assert self.reader.at_eof() or self.writer.is_closing(), "no handshake"
            self.storm.met["no handshake"] += 1
            return False
        self.is_secure = self.may_be_cut = True
        self.storm.met["handshake"] += 1
        return True

    async def send(self, *messages: bytes, count: int | None = None) -> None:
        self.storm.sent += len(messages) if count is None else count
        self.writer.write(b"".join(messages))
        await self.writer.drain()

    async def hear(self) -> None:
        """Until everything is answered, or the connection ends; nothing else may keep a client waiting."""
        while self.ledger.open - self.ledger.lost:
            if not await self._more():
                assert self.ledger.is_over or self.ledger.is_noisy or self.may_be_cut, "closed without a notice"
                return

    async def leave(self) -> None:
        """In good order or not; what was not heard yet is still judged."""
        one = self.chance.random()
        if self.is_secure or one < 0.3:
            self.writer.write(encode.unbind(self.next_id))
        if not self.is_secure and (self.ledger.is_noisy or one < 0.6):
            # Half a close: the server answers what it has and closes.
            self.writer.write_eof()
        elif one >= 0.3 or self.ledger.is_noisy:
            return
        while await self._more():
            pass

    async def _more(self) -> bool:
        octets = await self.reader.read(1 << 16)
        self._held += octets
        whole, self._held = decode.cut(self._held)
        for message in decode.messages(whole):
            self.may_be_cut = False
            self.ledger.told(message)
            self.storm.met["answers"] += 1
            self.storm.met["entries"] += message.tag == ENTRY
            self.storm.met["let in"] += message.tag == BIND_RESPONSE and self.ledger.who is not None
        return bool(octets)


def resident() -> int:
    """Octets of this process in memory that are in use: what the C library has in its lists is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
