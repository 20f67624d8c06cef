"""Logins with certificates through the gate: passed on, never remembered, and nothing but a success is one."""

import asyncio

import pytest

from outpost.credentials.gate import Gate, GateSettings
from outpost.errors import BackendError, BackendUnavailable
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    LdapProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)

LDAP = LdapProvider(1, "ldap", "dc=x", "ldap")
HERE = Source("ldap", "192.0.2.1")
ALICE = Accepted(Identity(7, "alice", can_search=True))


class Backend:
    """Answers what it is told to, once it may."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        self.asked.append(username)
        await self.is_open.wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    async def authenticate(self, *_: object) -> Decision:
        return Rejected(RejectReason.INVALID_CREDENTIALS)

    async def resume(self, *_: object) -> Decision:
        raise AssertionError


def gate(backend: Backend, **settings: float) -> Gate:
    return Gate(backend, GateSettings(**settings), certificates=backend)  # type: ignore[arg-type]


async def test_every_login_is_asked_about() -> None:
    backend = Backend(ALICE)
    there = gate(backend)
    assert [await there.vouch(LDAP, "alice", HERE) for _ in range(3)] == [ALICE] * 3
    assert backend.asked == ["alice"] * 3
    assert there.known(LDAP, "alice", b"", HERE) is None
    assert isinstance(await there.authenticate(LDAP, "alice", Secret("x"), HERE), Rejected)
    backend.answer = Rejected(RejectReason.ACCESS_DENIED)
    assert await there.vouch(LDAP, "alice", HERE) == backend.answer
    await there.stop()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, UnavailableReason.INTERNAL),
        (True, UnavailableReason.INTERNAL),
        (Challenge("code", object()), UnavailableReason.INTERNAL),
        (RuntimeError("a bug"), UnavailableReason.INTERNAL),
        (BackendUnavailable("down"), UnavailableReason.BACKEND_ERROR),
        (BackendError("broken"), UnavailableReason.BACKEND_ERROR),
    ],
)
async def test_nothing_else_is_a_success(answer: object, reason: UnavailableReason) -> None:
    found = await gate(Backend(answer)).vouch(LDAP, "alice", HERE)
    assert isinstance(found, Unavailable) and found.reason is reason


async def test_a_backend_that_never_answers() -> None:
    backend = Backend(ALICE)
    backend.is_open.clear()
    found = await gate(backend, deadline_s=0.01).vouch(LDAP, "alice", HERE)
    assert isinstance(found, Unavailable) and found.reason is UnavailableReason.BACKEND_TIMEOUT


@pytest.mark.parametrize(
    ("revoked", "counts"),
    [(Revoked(user_pk=7), True), (Revoked(), True), (Revoked(user_pk=8), False)],
)
async def test_revocation_on_the_way(revoked: Revoked, counts: bool) -> None:
    backend = Backend(ALICE)
    backend.is_open.clear()
    there = gate(backend)
    asking = asyncio.create_task(there.vouch(LDAP, "alice", HERE))
    await asyncio.sleep(0)
    there.publish(revoked)
    backend.is_open.set()
    assert isinstance(await asking, Unavailable if counts else Accepted)


async def test_where_certificates_log_in_nobody() -> None:
    backend = Backend(ALICE)
    found = await Gate(backend).vouch(LDAP, "alice", HERE)  # type: ignore[arg-type]
    assert isinstance(found, Rejected) and found.reason is RejectReason.UNSUPPORTED_METHOD
    assert backend.asked == []


async def test_a_stopped_gate() -> None:
    backend = Backend(ALICE)
    there = gate(backend)
    await there.stop()
    assert isinstance(await there.vouch(LDAP, "alice", HERE), Unavailable)
    assert backend.asked == []
