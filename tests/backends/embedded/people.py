"""Directories made by hand, and an authority over one."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pyotp
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from outpost.backends.embedded import phc
from outpost.backends.embedded.authority import Book, EmbeddedAuthority
from outpost.backends.embedded.model import Account, Application, Binding, Directory, Password, TotpDevice
from outpost.backends.embedded.pool import VerifyPool
from outpost.identity import (
    Decision,
    Group,
    LdapProvider,
    People,
    Provider,
    RadiusOptions,
    RadiusProvider,
    Secret,
    Served,
    Source,
    User,
)

LDAP = LdapProvider(1, "directory", "dc=example,dc=org", "ldap", search_group="g-search")
RADIUS = RadiusProvider(1, "network", "radius", (ip_network("192.0.2.0/24"),), Secret("testing123"))
SUFFIX = replace(RADIUS, options=RadiusOptions(code_suffix=True))
NO_CODES = replace(RADIUS, mfa_support=False)
CLIENT = Source("ldap", "192.0.2.7")
DEVICE = Source("radius", "192.0.2.8", interactive=True)
KEY = b"12345678901234567890"
TOTP = TotpDevice("telephone", Secret(KEY))
NOON = 1_800_000_000.0


def hashed(text: str | bytes, iterations: int = 1) -> Password:
    octets = text.encode() if isinstance(text, str) else text
    kdf = Argon2id(salt=b"salt-of-tests", length=32, iterations=iterations, lanes=1, memory_cost=8)
    return Password(Secret(kdf.derive_phc_encoded(octets)), True)


def plain(text: str | bytes) -> Password:
    return Password(Secret(text), False)


def code(at: float, key: bytes = KEY, digits: int = 6, step_s: int = 30) -> str:
    """What the generator shows, by another implementation than ours."""
    return pyotp.TOTP(base64.b32encode(key).decode(), digits=digits, interval=step_s).at(int(at))


def account(pk: int, username: str, password: Password | None = None, **more: Any) -> Account:
    return Account(pk, username, more.pop("is_active", True), password, **more)


def directory(accounts: Iterable[Account], **more: Any) -> Directory:
    by_pk = {one.pk: one for one in accounts}
    users = tuple(
        User(one.pk, one.username, email=f"{one.username.lower()}@example.org", groups=tuple(sorted(one.memberships)))
        for one in by_pk.values()
    )
    groups = sorted({name for one in by_pk.values() for name in one.memberships})
    logins = {f"{one.username}@example.org".casefold(): one.pk for one in by_pk.values()}
    logins |= {one.username.casefold(): one.pk for one in by_pk.values()}
    filled: dict[str, Any] = {
        "people": People(users, tuple(Group(pk, n, pk) for n, pk in enumerate(groups)), 1, NOON),
        "accounts": by_pk,
        "by_login": logins,
        "served": Served((LDAP,), (RADIUS,)),
        "applications": applications(),
        "files": (Path("directory.yaml"),),
    }
    return Directory(**(filled | more))


def applications(*bindings: Binding, needs_all: bool = False) -> Mapping[str, Application]:
    return {slug: Application(slug, slug.upper(), bindings, needs_all) for slug in ("ldap", "radius")}


class Counted:
    """The real verification, counted by the PHC strings that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, text: str, secret: Secret) -> bool:
        self.asked.append(text)
        self.before()
        return phc.verify(text, secret)


class Desk:
    """An authority whose directory and clocks a test sets."""

    def __init__(self, directory: Directory, pool: VerifyPool) -> None:
        self.book: Book | None = Book(directory, b"key")
        self.verify = Counted()
        self.now = NOON
        self.authority = EmbeddedAuthority(
            lambda: self.book, pool, verify=self.verify, wall_clock=lambda: self.now, clock=lambda: self.now
        )

    def change(self, directory: Directory) -> None:
        self.book = Book(directory, b"key")

    async def ldap(self, username: str, secret: str | bytes, provider: Provider = LDAP) -> Decision:
        return await self.authority.authenticate(provider, username, Secret(secret), CLIENT)

    async def radius(self, username: str, secret: str | bytes, provider: Provider = RADIUS) -> Decision:
        return await self.authority.authenticate(provider, username, Secret(secret), DEVICE)

    async def resume(self, continuation: object, secret: str | bytes, provider: Provider = RADIUS) -> Decision:
        return await self.authority.resume(provider, continuation, Secret(secret), DEVICE)


@contextmanager
def desk(*accounts: Account, threads: int = 2, queue: int = 64, **more: Any) -> Iterator[Desk]:
    pool = VerifyPool(threads, queue)
    try:
        yield Desk(directory(accounts, **more), pool)
    finally:
        pool.stop()
