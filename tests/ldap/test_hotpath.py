"""What is answered in C is answered, counted, told and remembered as the operations do it: the same both ways."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric

from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.errors import DecodeError
from outpost.identity import LdapProvider, Mode, Revoked, Served
from outpost.ldap._shelf import Shelf
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.channel import Channel
from outpost.ldap.dn import normalise
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import LdapServer
from outpost.observe._lines import Lines
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import render_json
from tests.ldap import encode
from tests.ldap.testbed import ALICE, BASE, PASSWORDS, SERVICE, Authority, Sessions, people, provider

INNER = f"ou=users,{BASE}"
PEOPLE = people(8)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Library:
    """Compiled once for all examples."""

    compiled: ClassVar[dict[LdapProvider, Shelf]] = {}

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf] = {}
        self._served: dict[int, Shelf] = {}

    def serve(self, providers: Iterable[LdapProvider]) -> None:
        is_empty = bool(self._served) and not self.shelves
        for one in providers:
            if one not in self.compiled:
                self.compiled[one] = Shelf(Snapshot(compile_people(PEOPLE, one)))
        self._served = {one.pk: self.compiled[one] for one in providers}
        self.put([] if is_empty else self._served)

    def put(self, there: Iterable[int]) -> None:
        """Only the directories of these are complete."""
        self.shelves.clear()
        self.shelves.update({pk: self._served[pk] for pk in there})

    def turn(self) -> None:
        """All directories are gone, or come back."""
        self.put([] if self.shelves else self._served)

    def shelf(self, provider: LdapProvider) -> Shelf | None:
        return self.shelves.get(provider.pk)

    async def fetch(self, provider: LdapProvider, wanted: object) -> Shelf:
        return self.compiled[provider]

    async def stop(self) -> None:
        pass


class Log:
    is_json = True

    def __init__(self) -> None:
        self.lines = Lines(10_000, lambda: None)

    def wants(self, level: str) -> bool:
        return level != "debug"

    def bug(self, logger: str, what: str, error: BaseException) -> str:
        raise AssertionError from error

    def put(self, *line: Any) -> None:
        self.lines.put((0.0, *line))

    def text(self) -> bytes:
        out = b""
        while (found := self.lines.take()) is not None:
            out += found[0] if isinstance(found[0], bytes) else render_json(found[0])  # type: ignore[arg-type]
        return re.sub(rb'"timestamp":"[^"]*"', b"", out)


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_paused = self.is_closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Side:
    """A server without sockets, and one connection to it."""

    def __init__(self, providers: Sequence[LdapProvider], *, is_secure: bool = False, size_limit: int = 0) -> None:
        self.clock, self.log, self.directories = Clock(), Log(), Library()
        self.authority, self.sessions = Authority(), Sessions()
        self.gate = Gate(
            self.authority,
            GateSettings(cache=CacheSettings(max_age_s=50, refresh_after_s=40)),
            hash_key=bytes(32),
            clock=self.clock,
            epoch=lambda: 5000.0,
            sleep=lambda _: asyncio.sleep(0),
        )
        self.gate.set_connected(True)
        self.meter = LdapMeter(self.log, lambda: "o")  # type: ignore[arg-type]
        self.server = LdapServer(
            self.gate,
            self.directories,  # type: ignore[arg-type]
            self.meter,
            sessions=self.sessions,
            search_limits=SearchLimits(size_limit=size_limit),
            clock=self.clock,
        )
        self.server.serve(Served(ldap=tuple(providers)))
        self.transport = Transport()
        self.channel = Channel(self.server, "192.0.2.1", "ldaps" if is_secure else "ldap")
        self.channel.connection_made(self.transport)

    async def hot(self, octets: bytes) -> None:
        """As a transport does it."""
        while octets and not self.transport.is_closed:
            view = self.channel.get_buffer(-1)
            size = min(len(view), len(octets))
            view[:size], octets = octets[:size], octets[size:]
            self.channel.buffer_updated(size)
            await self.settled()

    async def plain(self, octets: bytes) -> None:
        """Past the part that is compiled."""
        if not self.transport.is_closed:
            self.channel._inbox.feed(octets)
            self.channel.active_at = self.clock()
            self.channel._turn()
            await self.settled()

    async def settled(self) -> None:
        for _ in range(200):
            if self.channel.is_idle or self.transport.is_closed:
                return
            await asyncio.sleep(0)
        raise AssertionError("work without end")

    def state(self) -> dict[str, object]:
        """Everything that there is to compare."""
        session, believed = self.channel.session, self.gate.believed
        return {
            "sent": self.transport.sent,
            "closed": self.transport.is_closed,
            "session": (session.bind_dn, session.provider, session.identity, len(session.pages)),
            "limits": repr(self.channel._inbox.limits),
            "pending": self.channel._inbox.pending(),
            "held": list(self.sessions.held),
            "asked": self.authority.asked,
            "gate": self.gate.counters(),
            "order": [(entry.mark, entry.verified_at) for entry in believed],
            "metrics": [sorted(map(repr, _samples(family))) for family in self.meter.families()],
            "lines": self.log.text().splitlines(),
        }


def _samples(family: Metric) -> Iterable[object]:
    return ((sample.name, sorted(sample.labels.items()), sample.value) for sample in family.samples)


SETS: dict[str, list[LdapProvider]] = {
    "one": [provider()],
    "strict": [provider(strict_bind_dn=True)],
    "nested": [provider(), provider(2, INNER)],
    "two": [provider(), provider(2, "dc=other")],
    "tls": [provider(require_tls=True)],
    "tls of one": [provider(), provider(2, "dc=other", require_tls=True)],
    "direct": [provider(search_mode=Mode.DIRECT, bind_mode=Mode.DIRECT)],
    "uid": [provider(rdn_attribute="uid")],
    "missing": [provider(missing_base="empty")],
    "upn": [provider(bind_names=("dn", "upn", "username"))],
}

NAMES = st.sampled_from(
    [
        SERVICE,
        ALICE,
        ALICE.upper(),
        f"cn=bob,{INNER}",
        f"cn=bob,ou=x,{BASE}",
        f"cn=bob,{BASE}",
        f"uid=alice,{INNER}",
        f"cn=Bob , {INNER}",
        f"cn=alice+uid=bob,{INNER}",
        f"cn=al\\69ce,{INNER}",
        BASE,
        "",
        "cn=alice",
        "alice",
        "=",
        "cn=ä",
        f"cn=alice,,{BASE}",
        f"o=x,cn=alice,{BASE}",
        f"cn=alice,dc=other,{BASE}",
        f"cn=a  b,{INNER}",
        "alice@ldap.goauthentik.io",
        "cn=alice,dc=other",
        f"ou=users,{BASE}",
        "cn=subschema",
        f"cn={'x' * 300},{BASE}",
        f"dc=y,{BASE}",
        f"cn=alice,x{BASE}",
    ]
)
SECRETS = st.sampled_from([*PASSWORDS.values(), "wrong", ""])
KNOWN = st.sampled_from([(SERVICE, "service-pw"), (ALICE, "alice-pw"), (f"cn=Alice,OU=users,{BASE}", "alice-pw")])
FILTERS = st.sampled_from(
    [
        *("(cn=alice)", "(mail=ALICE@example.com)", "(objectClass=*)", "(&(objectClass=user)(cn=bob))", "(cn=nobody)"),
        *(
            "(uid=a*)",
            "(!(cn=alice))",
            "(nosuch=1)",
            "(uidNumber>=2003)",
            "(cn:caseExactMatch:=alice)",
            "(cn=\\c3\\a4)",
        ),
        *(f"(member={ALICE})", "(memberOf=*)", "(|(cn=alice)(cn=bob))", "(userPassword=x)", "(&)"),
    ]
)
ATTRIBUTES = st.lists(
    st.sampled_from(["*", "+", "cn", "MAIL", "1.1", "", "cn,mail", "nosuch", "ü", "memberOf"]), max_size=3
)


def _numbered(make: Any) -> st.SearchStrategy[bytes]:
    """With a messageID of any size."""
    return st.tuples(st.sampled_from([1, 2, 127, 128, 300, 70_000, 2**31 - 1]), make).map(lambda both: both[1](both[0]))


CONTROLS = st.sampled_from([(), (), (), (encode.control("1.2.3"),), (encode.control("1.2.3", True),)])
MESSAGES = st.one_of(
    _numbered(st.builds(lambda who: lambda n: encode.bind(n, *who), KNOWN)),
    _numbered(st.builds(lambda name, pw, c: lambda n: encode.bind(n, name, pw, controls=c), NAMES, SECRETS, CONTROLS)),
    _numbered(st.builds(lambda v: lambda n: encode.bind(n, ALICE, "alice-pw", version=v), st.sampled_from([1, 2, 4]))),
    _numbered(
        st.builds(
            lambda base, filter, names, scope, limit, types, c: (
                lambda n: encode.search(
                    n, base, filter, names, scope=scope, size_limit=limit, types_only=types, controls=c
                )
            ),
            NAMES,
            FILTERS,
            ATTRIBUTES,
            st.sampled_from([0, 1, 2]),
            st.sampled_from([0, 0, 0, 1, 2, 1000]),
            st.sampled_from([False, False, True]),
            CONTROLS,
        )
    ),
    _numbered(
        st.builds(
            lambda entry, name, value, c: lambda n: encode.compare(n, entry, name, value, c),
            NAMES,
            st.sampled_from(["cn", "mail", "memberOf", "objectClass", "nosuch", "uidNumber", "telephoneNumber", "ou"]),
            st.sampled_from(
                ["alice", "ALICE ", "alice@example.com", "user", "x", "2001", "\udcff", "ä", "users", ""]
            ).map(lambda text: text.encode("utf-8", "surrogateescape")),
            CONTROLS,
        )
    ),
    st.sampled_from(
        [
            encode.extended(5, "1.3.6.1.4.1.4203.1.11.3"),
            encode.abandon(6, 5),
            encode.unbind(7),
            encode.sasl_bind(8, "PLAIN", b"\0alice\0alice-pw"),
            b"\x30\x84\x00\x00\x00\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00",
            b"\x30\x05\x02\x01\x01",
            b"\x30\x80",
            b"\x30\x0c\x02\x02\x00\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00",
            b"\x30\x0c\x02\x01\x00\x60\x07\x02\x01\x03\x04\x00\x80\x00",
        ]
    ),
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A message of which one octet is another."""
    octets = bytearray(draw(MESSAGES))
    octets[draw(st.integers(0, len(octets) - 1))] = draw(st.integers(0, 255))
    return bytes(octets)


STEPS = st.lists(
    st.one_of(
        st.lists(MESSAGES, min_size=1, max_size=4).map(b"".join),
        MESSAGES,
        changed(),
        st.integers(1, 60),
        st.sampled_from([Revoked(user_pk=1), Revoked(), "empty", "again", "disconnected"]),
    ),
    max_size=8,
)


async def both_ways(
    providers: Sequence[LdapProvider], steps: Sequence[Any], *, is_secure: bool, size_limit: int, cut: int
) -> tuple[Side, Side]:
    fast, slow = (Side(providers, is_secure=is_secure, size_limit=size_limit) for _ in range(2))
    try:
        for step in steps:
            for side in (fast, slow):
                if isinstance(step, bytes):
                    way = side.hot if side is fast else side.plain
                    for part in (step[:cut], step[cut:]) if cut else (step,):
                        await way(part)
                elif isinstance(step, int):
                    side.clock.now += step
                elif isinstance(step, Revoked):
                    side.gate.publish(step)
                elif step == "empty":
                    side.directories.turn()
                elif step == "again":
                    again = tuple(dataclasses.replace(one) for one in providers)
                    side.server.serve(Served(ldap=again))
                else:
                    side.gate.set_connected(False)
                for _ in range(3):
                    await asyncio.sleep(0)
            assert fast.state() == slow.state(), step
    finally:
        for side in (fast, slow):
            side.channel.connection_lost(None)
            await side.gate.stop()
            assert side.sessions.held == []
    return fast, slow


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(SETS)), STEPS, st.booleans(), st.sampled_from([0, 0, 1]), st.sampled_from([0, 0, 1, 9, 40])
)
@example("one", [encode.bind(1, SERVICE, "service-pw")] * 3 + [encode.search(2, BASE, "(cn=alice)")], False, 0, 0)
def test_both_ways_agree(which: str, steps: list[Any], is_secure: bool, size_limit: int, cut: int) -> None:
    asyncio.run(both_ways(SETS[which], steps, is_secure=is_secure, size_limit=size_limit, cut=cut))


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(
    st.sampled_from(sorted(SETS)), STEPS, st.booleans(), st.sampled_from([0, 0, 1]), st.sampled_from([0, 0, 1, 9, 40])
)
def test_both_ways_agree_for_long(which: str, steps: list[Any], is_secure: bool, size_limit: int, cut: int) -> None:
    asyncio.run(both_ways(SETS[which], steps, is_secure=is_secure, size_limit=size_limit, cut=cut))


def here(octets: bytes, *before: bytes, which: str = "one", is_secure: bool = False) -> int:
    """How many of the requests in `octets` are answered in C, behind others."""

    async def counted() -> int:
        side = Side(SETS[which], is_secure=is_secure)
        for one in before:
            await side.hot(one)
        answered = side.server.hotpath.answered
        await side.hot(octets)
        side.channel.connection_lost(None)
        await side.gate.stop()
        return side.server.hotpath.answered - answered

    return asyncio.run(counted())


BIND = encode.bind(1, SERVICE, "service-pw")
FIND = encode.search(2, BASE, "(cn=alice)")
COMPARE = encode.compare(3, ALICE, "mail", "alice@example.com")


@pytest.mark.parametrize("which", ["one", "nested", "two", "uid", "missing", "upn"])
def test_common_requests_are_answered_in_c(which: str) -> None:
    # Where the base is another provider's, and where there is no such entry, the rest goes the other way, too.
    expected = {"nested": 1, "uid": 2}.get(which, 4)
    assert here(BIND + FIND + COMPARE + BIND, BIND, which=which) == expected
    inner = encode.compare(3, f"cn=labstaff,ou=groups,{BASE}", "cn", "labstaff") + encode.search(2, BASE, scope=0)
    first = encode.bind(
        1, f"uid=ldapservice,ou=groups,{BASE}" if which == "uid" else f"cn=ldapservice,{BASE}", "service-pw"
    )
    assert here(first + inner, first, which=which) == 3


@pytest.mark.parametrize(
    "request_",
    [
        encode.bind(1, SERVICE, "wrong"),
        encode.bind(1, SERVICE, ""),
        encode.bind(1),
        encode.bind(1, SERVICE, "service-pw", controls=[encode.control("1.2.3")]),
        encode.bind(1, SERVICE, "service-pw", version=2),
        encode.search(2, "", scope=0),
        encode.search(2, "cn=subschema", scope=0),
        encode.search(2, "dc=elsewhere"),
        encode.search(2, f"cn=nobody,{BASE}"),
        encode.search(2, BASE, controls=[encode.control("1.2.3")]),
        encode.compare(3, ALICE, "nosuch", "x"),
        encode.compare(3, f"cn=nobody,{BASE}", "cn", "x"),
        encode.extended(5, "1.3.6.1.4.1.4203.1.11.3"),
        encode.unbind(6),
    ],
)
def test_what_is_not_plain_is_left(request_: bytes) -> None:
    assert here(request_, BIND) == 0


@pytest.mark.parametrize("which", ["tls", "direct"])
def test_settings_are_heeded(which: str) -> None:
    assert here(BIND + FIND + COMPARE, BIND, which=which) == 0
    assert here(BIND + FIND + COMPARE, BIND, which=which, is_secure=True) == (3 if which == "tls" else 0)


def test_a_login_that_is_due_to_be_verified_again_is_left() -> None:
    async def counted() -> list[int]:
        side, found = Side(SETS["one"]), []
        for seconds in (0, 0, 39, 1, 1, 50):
            side.clock.now += seconds
            await side.hot(BIND)
            found.append(side.server.hotpath.answered)
        side.channel.connection_lost(None)
        await side.gate.stop()
        return found

    # Asked; believed; believed; asked behind its back; believed; too old.
    assert asyncio.run(counted()) == [0, 1, 2, 2, 3, 3]


def test_nothing_is_answered_while_something_is_in_work() -> None:
    async def counted() -> None:
        side = Side(SETS["one"])
        await side.hot(BIND)
        side.authority.hold = asyncio.Event()
        other = encode.bind(9, ALICE, "alice-pw")
        view = side.channel.get_buffer(-1)
        view[: len(other + FIND)] = other + FIND
        side.channel.buffer_updated(len(other + FIND))
        await asyncio.sleep(0.01)
        sent = side.transport.sent
        side.channel.get_buffer(-1)[: len(FIND)] = FIND
        side.channel.buffer_updated(len(FIND))
        assert (side.transport.sent, side.server.hotpath.answered) == (sent, 0)
        side.authority.hold.set()
        await side.settled()
        assert side.transport.sent.count(b"\x65\x07\x0a\x01\x00") == 2
        side.channel.connection_lost(None)
        await side.gate.stop()

    asyncio.run(counted())


def test_a_client_that_does_not_read_is_waited_for() -> None:
    async def counted() -> None:
        side = Side([provider(missing_base="empty")])
        await side.hot(BIND)
        taken = []

        def write(data: bytes) -> None:
            taken.append(len(data))
            side.channel.pause_writing()

        side.transport.write = write  # type: ignore[method-assign]
        many = encode.search(2, BASE) * 400
        side.channel._inbox.feed(many[: -len(FIND)])
        side.channel.get_buffer(-1)[: len(FIND)] = many[-len(FIND) :]
        side.channel.buffer_updated(len(FIND))
        assert len(taken) == 1 and 256 * 1024 <= taken[0] < 300 * 1024
        assert side.channel._inbox.pending() > 0
        side.channel.connection_lost(None)
        await side.gate.stop()

    asyncio.run(counted())


def test_passwords_are_wiped_from_the_buffer() -> None:
    async def counted() -> None:
        side = Side(SETS["one"])
        await side.hot(BIND)
        view = side.channel.get_buffer(-1)
        view[: len(BIND)] = BIND
        side.channel.buffer_updated(len(BIND))
        assert side.server.hotpath.answered == 1
        assert b"service-pw" not in bytes(view)
        side.channel.connection_lost(None)
        await side.gate.stop()

    asyncio.run(counted())


def test_no_snapshot_is_held_by_an_idle_connection() -> None:
    async def counted() -> None:
        side = Side(SETS["one"])
        shelf = Shelf(Snapshot(compile_people(PEOPLE, SETS["one"][0])))
        side.directories.shelves[SETS["one"][0].pk] = shelf
        await side.hot(BIND + FIND + COMPARE)
        snapshot = shelf.snapshot
        side.directories.shelves.clear()
        del shelf
        # This name, and the argument of the call.
        assert sys.getrefcount(snapshot) == 2
        side.channel.connection_lost(None)
        await side.gate.stop()

    asyncio.run(counted())


PIECES = st.sampled_from(
    [
        "cn=",
        "CN=",
        "ou=",
        "dc=",
        "uid=",
        "o=",
        "c=",
        "sn=",
        "=",
        "alice",
        "Users",
        ",",
        ", ",
        " ",
        "  ",
        "+",
        "\\,",
        "\\20",
        "#61",
        "ldap",
        "goauthentik",
        "io",
        f",ou=users,{BASE}",
        f",{BASE}",
        "-._@9",
        "x",
        "ä",
        "\x00",
        '"',
        "2.5.4.3=",
    ]
)


@settings(max_examples=400)
@given(st.one_of(st.text("cnoudi=, +aZ9.\\"), st.lists(PIECES).map("".join), st.binary(max_size=12)))
@example(",".join(["cn=a"] * 61) + f",{BASE}")
@example(",".join(["cn=a"] * 60) + f",{BASE}")
@example(f"cn={'a' * 240},{BASE}")
def test_plain_names_are_found_as_normal_forms_are(dn: str | bytes) -> None:
    octets = dn.encode() if isinstance(dn, str) else dn
    snapshot = _snapshot()
    try:
        expected = _entries().get(normalise(octets), -1)
    except DecodeError:
        with pytest.raises(DecodeError):
            snapshot.user_pk(octets)
    else:
        assert snapshot.user_pk(octets) == expected


@functools.cache
def _snapshot() -> Snapshot:
    return Snapshot(compile_people(PEOPLE, provider()))


@functools.cache
def _entries() -> dict[bytes, int]:
    return {normalise(f"cn={user.username},{INNER}".encode()): user.pk for user in PEOPLE.users}


@pytest.mark.parametrize(
    "dn",
    [
        ALICE,
        ALICE.upper(),
        f"cn = alice , {INNER}",
        f"cn=al\\69ce,{INNER}",
        f"2.5.4.3=alice,{INNER}",
        f"CN=Alice,{INNER}",
    ],
)
def test_every_spelling_of_a_name_is_found(dn: str) -> None:
    assert _snapshot().user_pk(dn.encode()) == 1
