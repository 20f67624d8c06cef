"""What a login costs that is known, and one that is not, and what it costs to count and tell it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outpost.credentials.cache import CacheSettings, CredentialsCache
from outpost.credentials.gate import Gate, GateSettings
from outpost.identity import (
    Accepted,
    Decision,
    Identity,
    LdapProvider,
    Provider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
)
from outpost.observe.exposition import Exposition
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter
from outpost.observe.radius import RadiusMeter

PROVIDER = LdapProvider(1, "ldap", "dc=example", "app")
SOURCE = Source("ldap", "192.0.2.1")
NAME, PASSWORD = "alice.lastname", b"correct horse battery staple"
DN = b"cn=alice.lastname,ou=users,dc=ldap,dc=goauthentik,dc=io"
USERS = 50_000


class Answers:
    """An authority that takes no time."""

    def __init__(self, decision: Decision | None = None) -> None:
        self.decision = decision

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        return self.decision or Accepted(Identity(hash(username) & 0xFFFFFF, username, can_search=False))

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        raise NotImplementedError


@pytest.fixture(scope="module")
def full() -> Gate:
    """A gate that knows 50,000 users."""
    gate = Gate(Answers(), GateSettings(cache=CacheSettings(max_entries=USERS + 1, max_bytes=1 << 30)))
    gate.set_connected(True)

    async def fill() -> None:
        for number in range(USERS):
            await gate.authenticate(PROVIDER, f"user{number}", Secret(PASSWORD), SOURCE)
        await gate.authenticate(PROVIDER, NAME, Secret(PASSWORD), SOURCE)

    asyncio.run(fill())
    return gate


def test_a_known_login(benchmark: Any, full: Gate) -> None:
    assert benchmark(full.known, PROVIDER, NAME, PASSWORD, SOURCE) is not None


def test_a_login_that_is_not_known(benchmark: Any, full: Gate) -> None:
    assert benchmark(full.known, PROVIDER, NAME, b"wrong", SOURCE) is None


def test_known_logins_of_many_users(benchmark: Any, full: Gate) -> None:
    names = [f"user{n * 7919 % USERS}" for n in range(1000)]

    def thousand() -> None:
        for name in names:
            assert full.known(PROVIDER, name, PASSWORD, SOURCE) is not None

    benchmark(thousand)


def test_blake2b_alone(benchmark: Any) -> None:
    """The floor under a known login."""
    data = NAME.encode() + PASSWORD
    benchmark(lambda: hashlib.blake2b(data, digest_size=16, key=b"k" * 32).digest())


def test_the_key(benchmark: Any) -> None:
    cache = CredentialsCache(CacheSettings(), os.urandom(32))
    benchmark(cache.key, "ldap", 1, NAME, PASSWORD)


@pytest.mark.parametrize("decision", [None, Rejected(RejectReason.INVALID_CREDENTIALS)], ids=["success", "refusal"])
def test_a_hundred_logins_that_are_asked_about(benchmark: Any, decision: Decision | None) -> None:
    loop = asyncio.new_event_loop()
    gate = Gate(Answers(decision))
    count = 0

    async def hundred() -> None:
        nonlocal count
        for _ in range(100):
            count += 1
            await gate.authenticate(
                PROVIDER, f"user{count}", Secret(PASSWORD), Source("ldap", f"2001:db8::{count:x}:0")
            )

    benchmark(lambda: loop.run_until_complete(hundred()))
    loop.close()


def test_a_revocation_of_one_of_many(benchmark: Any, full: Gate) -> None:
    benchmark(full.publish, Revoked(user_pk=-1))


@contextmanager
def writer(level: str) -> Iterator[LogWriter]:
    """A log that goes nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    log = LogWriter(descriptor, is_json=True, level=level)
    yield log
    log.stop()
    os.close(descriptor)


@pytest.mark.parametrize("level", ["warning", "info"])
def test_count_and_tell_a_bind(benchmark: Any, level: str) -> None:
    with writer(level) as log:
        meter = LdapMeter(log, lambda: "hub")
        benchmark(meter.bound, "app", "192.0.2.1", DN, 0.0001, 0, "")


@pytest.mark.parametrize("level", ["warning", "info"])
def test_count_and_tell_a_radius_login(benchmark: Any, level: str) -> None:
    with writer(level) as log:
        meter = RadiusMeter(log, lambda: "hub")
        benchmark(meter.answered, 1, 2, "app", "192.0.2.1", NAME, "", 0.0001, True)


def test_a_scrape(benchmark: Any) -> None:
    with writer("warning") as log:
        meter = LdapMeter(log, lambda: "hub")
        for app in range(20):
            for kind in ("bound", "operated"):
                for code in range(5):
                    told = (f"app{app}", "192.0.2.1", DN, 0.01, code)
                    meter.bound(*told, "") if kind == "bound" else meter.operated("compare", *told)
        exposition = Exposition()
        exposition.add(meter.families)
        benchmark(exposition.text)
