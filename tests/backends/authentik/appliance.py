"""A backend at a stub server, and ears for what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from outpost.backends.authentik.backend import AuthentikBackend
from outpost.backends.authentik.observer import Silence
from outpost.backends.authentik.settings import AUTO, AuthentikSettings
from outpost.identity import Accepted, Decision, LdapProvider, RadiusProvider, Revoked, Secret, Source
from tests.stub_authentik.server import LDAP_TOKEN, RADIUS_TOKEN, Stub

SOURCE = Source("ldap", "192.0.2.7")


class Ears(Silence):
    """Hears log lines, revocations and the state of the event channel."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.revoked: list[Revoked] = []
        self.connected: list[bool] = []
        self.changes = 0
        self.levels: list[tuple[str, str]] = []

    def log(self, level: str, event: str, **fields: object) -> None:
        self.lines.append((level, event))

    def level(self, service: str, level: str) -> None:
        self.levels.append((service, level))

    def said(self, text: str) -> int:
        return sum(text in event for _, event in self.lines)

    def users(self) -> set[int | None]:
        return {one.user_pk for one in self.revoked}

    def change(self) -> None:
        self.changes += 1


def settings(stub: Stub, **options: Any) -> AuthentikSettings:
    options.setdefault("tokens", {AUTO: Secret(LDAP_TOKEN)})
    options.setdefault("connect_timeout_s", 1.0)
    options.setdefault("watch_interval_s", 0.05)
    return AuthentikSettings(host=options.pop("host", stub.url), **options)


BOTH = {"ldap": Secret(LDAP_TOKEN), "radius": Secret(RADIUS_TOKEN)}


@contextlib.asynccontextmanager
async def running(stub: Stub, ears: Ears | None = None, **options: Any) -> AsyncIterator[AuthentikBackend]:
    heard = ears or Ears()
    backend = AuthentikBackend(
        settings(stub, **options),
        publish=heard.revoked.append,
        set_connected=heard.connected.append,
        observer=heard,
    )
    backend.subscribe(heard.change)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def ready(backend: AuthentikBackend, timeout_s: float = 10.0) -> None:
    await until(lambda: not any(backend.readiness().values()), timeout_s)


def ldap(backend: AuthentikBackend, name: str = "") -> LdapProvider:
    return next(one for one in backend.served().ldap if not name or one.name == name)


def radius(backend: AuthentikBackend) -> RadiusProvider:
    return backend.served().radius[0]


async def bind(backend: AuthentikBackend, username: str, password: str) -> Decision:
    return await backend.authenticate(ldap(backend), username, Secret(password), SOURCE)


async def accepted(backend: AuthentikBackend, username: str, password: str) -> Accepted:
    decision = await bind(backend, username, password)
    assert isinstance(decision, Accepted), decision
    return decision


def small(stub: Stub | None = None, **fields: Any) -> Stub:
    """A server with one LDAP and one RADIUS outpost and a few people."""
    stub = stub or Stub()
    staff = stub.add_group("staff")
    engineering = stub.add_group("engineering", staff, attributes={"gidNumber": 70001})
    stub.add_group("empty")
    stub.add_user("alice", "pw-alice", engineering, can_search=True)
    stub.add_user("bob", "pw-bob", staff)
    for i in range(5):
        stub.add_user(f"user{i}", f"pw-{i}", staff)
    stub.add_provider(stub.add_outpost("ldap"), "ldap-main", **fields)
    stub.add_provider(stub.add_outpost("radius"), "radius-main", shared_secret="very-secret")
    return stub
