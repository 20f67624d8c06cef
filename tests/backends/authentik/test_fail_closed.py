"""Whatever fails at whichever request of a login, through gate and backend: no success, and none is remembered."""

from __future__ import annotations

import pytest

from outpost.identity import Accepted, Rejected, RejectReason, Secret, Source, Unavailable
from tests.backends.authentik.appliance import BOTH, radius, until
from tests.backends.authentik.test_acceptance import RELEASES, Door, door, restricted
from tests.stub_authentik.model import NEW, Release
from tests.stub_authentik.server import Stub

LOGIN = r"/flows/executor/|check_access|/users/me/"
REQUESTS = {"2023.6.1": 8, "2025.10.4": 8}
"""Of one login: six in the flow, who is logged in, and the access check (legacy: told apart beforehand)."""
KINDS = ["status", "hang", "truncate", "reset", "html"]


def count(stub: Stub) -> int:
    return sum("/flows/executor/" in one or "check_access" in one or "/users/me/" in one for one in stub.requests)


async def settled(front: Door) -> None:
    await until(lambda: front.ears.connected == [True])


@pytest.mark.parametrize("release", RELEASES)
async def test_a_login_takes_so_many_requests(release: Release) -> None:
    async with restricted(release) as stub, door(stub, watch_interval_s=0) as front:
        await settled(front)
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        assert count(stub) == REQUESTS[release.version]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("mode", ["direct", "cached"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_any_request_is_no_success_and_leaves_none(release: Release, mode: str, kind: str) -> None:
    stub = restricted(release)
    stub.providers[1].fields["bind_mode"] = mode
    successes = 0
    async with stub, door(stub, watch_interval_s=0, login_timeout_s=0.3) as front:
        await settled(front)
        for at in range(REQUESTS[release.version]):
            stub.fail(LOGIN, kind, skip=at)
            for _ in range(2):
                decision = await front.bind("alice", "pw-alice")
                successes += isinstance(decision, Accepted)
                assert isinstance(decision, Unavailable), (at, decision)
            assert not await front.remembered("alice", "pw-alice")
            stub.heal()
            front.ahead += 600.0
        assert successes == 0
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted), "and it is alive"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 502, 503])
async def test_no_status_at_any_request_is_a_success(status: int) -> None:
    async with restricted() as stub, door(stub, watch_interval_s=0) as front:
        await settled(front)
        for at in range(REQUESTS[NEW.version]):
            stub.fail(LOGIN, "status", status=status, skip=at)
            assert not isinstance(await front.bind("alice", "pw-alice"), Accepted), at
            stub.heal()
            front.ahead += 600.0
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_any_request_of_a_radius_login_is_no_success(kind: str) -> None:
    async with restricted() as stub, door(stub, tokens=BOTH, watch_interval_s=0, login_timeout_s=0.3) as front:
        await settled(front)
        for at in range(REQUESTS[NEW.version]):
            stub.fail(LOGIN, kind, skip=at)
            source = Source("radius", "192.0.2.9")
            decision = await front.gate.authenticate(radius(front.backend), "bob", Secret("pw-bob"), source)
            assert isinstance(decision, Unavailable), (at, decision)
            stub.heal()
            front.ahead += 600.0


async def test_an_empty_password_asks_nobody() -> None:
    async with restricted() as stub, door(stub, watch_interval_s=0) as front:
        await settled(front)
        for username in ("alice", "", " ", "\0"):
            decision = await front.bind(username, "")
            assert isinstance(decision, Rejected)
            assert decision.reason is RejectReason.EMPTY_PASSWORD
        assert count(stub) == 0


@pytest.mark.parametrize("release", RELEASES)
async def test_a_code_is_spent_by_its_login_whatever_is_remembered(release: Release) -> None:
    """password;code: the second time from elsewhere, or later, the server is asked, and it says no."""
    stub = restricted(release)
    alice = stub.user_named("alice")
    alice.devices, alice.codes = ("static",), {"123456"}
    async with stub, door(stub, watch_interval_s=0) as front:
        await settled(front)
        assert isinstance(await front.bind("alice", "pw-alice;123456"), Accepted)
        provider = front.backend.served().ldap[0]
        elsewhere = Source("ldap", "192.0.2.8")
        again = await front.gate.authenticate(provider, "alice", Secret("pw-alice;123456"), elsewhere)
        assert isinstance(again, Rejected) and again.reason is RejectReason.CODE_INVALID
        front.ahead += 11.0
        late = await front.bind("alice", "pw-alice;123456")
        assert isinstance(late, Rejected)
        without = await front.bind("alice", "pw-alice")
        assert isinstance(without, Rejected) and without.reason is RejectReason.CODE_REQUIRED


@pytest.mark.parametrize("spelling", ["alice", "ALICE", " alice ", "alice@example.com"])
async def test_other_spellings_are_the_same_person(spelling: str) -> None:
    async with restricted() as stub, door(stub, watch_interval_s=0) as front:
        await settled(front)
        decision = await front.bind(spelling, "pw-alice")
        assert isinstance(decision, Accepted)
        assert decision.identity.user_pk == stub.user_named("alice").pk
        assert decision.identity.username == "alice"
