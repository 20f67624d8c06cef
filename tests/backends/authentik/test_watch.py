"""Users who change are found although the server sends no event for it."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest

from outpost.backends.authentik.watch import LOOKS
from outpost.identity import Revoked, Secret, Source
from tests.backends.authentik.appliance import BOTH, Ears, accepted, radius, ready, running, small, until
from tests.stub_authentik.model import NEW, OLD, Application, Release
from tests.stub_authentik.server import RADIUS_TOKEN, Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("what", ["password", "inactive", "group"])
async def test_a_logged_in_user_who_changes_is_revoked(release: Release, what: str) -> None:
    ears = Ears()
    async with small(Stub(release), search_mode="direct") as stub, running(stub, ears) as backend:
        await ready(backend)
        alice = stub.user_named("alice")
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        await accepted(backend, "alice", "pw-alice")
        await watched(stub, alice.pk, release)
        assert ears.revoked == []
        match what:
            case "password":
                stub.set_password(alice, "new")
            case "inactive":
                stub.deactivate(alice)
            case "group":
                engineering = stub.group_named("engineering")
                assert engineering
                stub.leave(alice, engineering)
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


async def watched(stub: Stub, pk: int, release: Release) -> None:
    """Wait until the user was looked at twice after his login."""
    path = "/api/v3/core/users/me/" if release.is_legacy else "/api/v3/core/users/N/"
    start = stub.counts[path]
    await stub.until(lambda: stub.counts[path] >= start + 2)


async def test_a_password_changed_during_the_login_is_noticed() -> None:
    ears = Ears()
    async with small(search_mode="direct") as stub, running(stub, ears) as backend:
        await ready(backend)
        alice = stub.user_named("alice")
        stub.set_password(alice, "pw-alice")
        await accepted(backend, "alice", "pw-alice")
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


@pytest.mark.parametrize("ahead_s", [-3600.0, 0.0, 3600.0])
async def test_a_change_is_placed_on_the_servers_clock(ahead_s: float) -> None:
    """A password that changed before the login is no reason to end it, whatever our clock says."""
    ears = Ears()
    stub = small(search_mode="direct")
    stub.clock_ahead_s = ahead_s
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        for name, before_s, is_revoked in (("alice", 1.5, False), ("bob", -1.0, True)):
            user = stub.user_named(name)
            moment = datetime.now(UTC) + timedelta(seconds=ahead_s - before_s)
            user.password_change_date = moment.isoformat().replace("+00:00", "Z")
            stub.changed()
            await accepted(backend, name, f"pw-{name}")
            await watched(stub, user.pk, NEW)
            assert (Revoked(user_pk=user.pk) in ears.revoked) is is_revoked, name


async def test_a_radius_token_watches_the_sessions() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, tokens={"radius": Secret(RADIUS_TOKEN)}) as backend:
        await ready(backend)
        bob = stub.user_named("bob")
        source = Source("radius", "192.0.2.9")
        await backend.authenticate(radius(backend), "bob", Secret("pw-bob"), source)
        await watched(stub, bob.pk, OLD)
        stub.set_password(bob, "new")
        await until(lambda: Revoked(user_pk=bob.pk) in ears.revoked, 2.0)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("mode", ["direct", "cached"])
async def test_a_group_left_before_the_first_look_is_noticed(release: Release, mode: str) -> None:
    ears = Ears()
    stub = small(Stub(release), search_mode=mode)
    async with stub, running(stub, ears, watch_interval_s=0.3) as backend:
        await ready(backend)
        alice, engineering = stub.user_named("alice"), stub.group_named("engineering")
        assert engineering
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        await accepted(backend, "bob", "pw-bob")  # the watch is on its way
        await watched(stub, alice.pk, release)
        await accepted(backend, "alice", "pw-alice")
        stub.leave(alice, engineering)
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


@pytest.mark.parametrize("release", RELEASES)
async def test_an_application_that_is_closed_to_a_user_is_noticed(release: Release) -> None:
    ears = Ears()
    async with small(Stub(release)) as stub, running(stub, ears) as backend:
        await ready(backend)
        alice, staff = stub.user_named("alice"), stub.group_named("staff")
        assert staff
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        await accepted(backend, "alice", "pw-alice")
        await watched(stub, alice.pk, release)
        assert ears.revoked == []
        stub.apps["ldap-main"] = Application("ldap-main", frozenset({staff.pk}))
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


async def test_a_session_we_end_ourselves_is_no_reason_to_revoke() -> None:
    ears = Ears()
    async with small(Stub(OLD), bind_mode="direct") as stub, running(stub, ears) as backend:
        await ready(backend)
        login = await accepted(backend, "alice", "pw-alice")
        await watched(stub, stub.user_named("alice").pk, OLD)
        assert login.identity.session is not None
        stub.fail("/core/users/me/", "slow", delay_s=0.3)
        asked = stub.counts["/api/v3/core/users/me/"]
        await stub.until(lambda: stub.counts["/api/v3/core/users/me/"] > asked)
        backend.sessions.hold(login.identity.session)
        backend.sessions.release(login.identity.session)
        await stub.until(lambda: stub.logouts == 1)
        await stub.until(lambda: stub.in_flight == 0)
        assert ears.revoked == []


async def test_a_connection_is_watched_for_as_long_as_it_lasts() -> None:
    ears = Ears()
    async with small(search_mode="direct") as stub, running(stub, ears, session_lease_s=0.2) as backend:
        await ready(backend)
        alice = stub.user_named("alice")
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        login = await accepted(backend, "alice", "pw-alice")
        assert login.identity.session is not None
        backend.sessions.hold(login.identity.session)
        looks = stub.counts["/api/v3/core/users/N/"]
        await stub.until(lambda: stub.counts["/api/v3/core/users/N/"] > looks + 10)
        stub.set_password(alice, "new")
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


async def test_many_are_looked_at_in_turn_and_boundedly() -> None:
    ears = Ears()
    stub = small(search_mode="direct")
    people = [stub.add_user(f"many{i}", f"pw-{i}", password_change_date="2020-01-01T00:00:00Z") for i in range(40)]
    async with stub, running(stub, ears, watch_interval_s=1.0) as backend:
        await ready(backend)
        for i in range(40):
            await accepted(backend, f"many{i}", f"pw-{i}")
        watch = backend._watch
        assert watch is not None
        for _ in range(10):  # the first looks
            await watch._look()
        stub.requests.clear()
        for _ in range(20):
            before = len(stub.requests)
            await watch._look()
            looked = [one for one in list(stub.requests)[before:] if "last_updated" not in one]
            assert 0 < len(looked) <= 2 * LOOKS + 1  # the task may be on its way, too
        for user in people:
            assert any(f"/core/users/{user.pk}/" in one for one in stub.requests), "everybody had his turn"
        assert ears.revoked == []


async def test_a_slow_server_is_asked_about_fewer_users_at_a_time() -> None:
    ears = Ears()
    stub = small(search_mode="direct")
    for i in range(16):
        stub.add_user(f"many{i}", f"pw-{i}", password_change_date="2020-01-01T00:00:00Z")
    async with stub, running(stub, ears, watch_interval_s=0.4) as backend:
        await ready(backend)
        stub.fail(r"/core/users/[0-9]+/", "slow", delay_s=0.15)
        for i in range(16):
            await accepted(backend, f"many{i}", f"pw-{i}")
        stub.requests.clear()
        await stub.until(lambda: len([one for one in stub.requests if "last_updated" in one]) >= 3)
        shown = list(stub.requests)
        steps = [n for n, one in enumerate(shown) if "last_updated" in one]
        looks = [n for n, one in enumerate(shown) if re.search(r"/core/users/[0-9]+/", one)]
        looked = [sum(a < n < b for n in looks) for a, b in itertools.pairwise(steps)]
        assert 0 < max(looked) <= 3, "the step is over after half of its time, and the newest changes are listed again"
        assert ears.revoked == []


def with_app_passwords(stub: Stub, *keys: str) -> int:
    """alice gets these, and nobody changed of late; her pk."""
    alice = stub.user_named("alice")
    alice.app_passwords.update(keys)
    alice.password_change_date = "2020-01-01T00:00:00Z"
    stub.changed()
    return alice.pk


TOKENS = "/api/v3/core/tokens/"


@pytest.mark.parametrize("release", RELEASES)
async def test_a_revoked_app_password_is_noticed(release: Release) -> None:
    ears = Ears()
    async with small(Stub(release)) as stub, running(stub, ears) as backend:
        await ready(backend)
        pk = with_app_passwords(stub, "for-mail", "for-vpn")
        await accepted(backend, "alice", "for-mail")
        await stub.until(lambda: stub.counts[TOKENS] >= 2)
        assert ears.revoked == []
        stub.user_named("alice").app_passwords.add("a-new-one")
        asked = stub.counts[TOKENS]
        await stub.until(lambda: stub.counts[TOKENS] >= asked + 2)
        assert ears.revoked == []
        stub.user_named("alice").app_passwords.remove("for-mail")
        await until(lambda: Revoked(user_pk=pk) in ears.revoked, 2.0)


async def test_an_app_password_that_expires_is_noticed_though_it_is_still_listed() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        pk = with_app_passwords(stub, "for-mail", "long-gone")
        alice = stub.user_named("alice")
        alice.app_password_ends |= {"for-mail": "2999-01-01T00:00:00Z", "long-gone": "2020-01-01T00:00:00Z"}
        await accepted(backend, "alice", "for-mail")
        await stub.until(lambda: stub.counts[TOKENS] >= 2)
        assert ears.revoked == []
        alice.app_password_ends["for-mail"] = datetime.now(UTC).isoformat()
        await until(lambda: Revoked(user_pk=pk) in ears.revoked, 5.0)


async def test_who_has_no_app_password_is_asked_about_them_once_per_login() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        pk = with_app_passwords(stub)
        await accepted(backend, "alice", "pw-alice")
        await watched(stub, pk, NEW)
        await watched(stub, pk, NEW)
        assert stub.counts[TOKENS] == 1
        stub.user_named("alice").app_passwords.add("made-later")
        await accepted(backend, "alice", "made-later")
        await stub.until(lambda: stub.counts[TOKENS] >= 3)
        stub.user_named("alice").app_passwords.clear()
        await until(lambda: Revoked(user_pk=pk) in ears.revoked, 2.0)


async def test_app_passwords_on_many_pages_are_all_seen() -> None:
    ears = Ears()
    stub = small()
    stub.max_page_size = 4
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        pk = with_app_passwords(stub, *(f"key-{i}" for i in range(10)))
        await accepted(backend, "alice", "key-1")
        await stub.until(lambda: stub.counts[TOKENS] >= 6)
        assert ears.revoked == []
        stub.user_named("alice").app_passwords.remove("key-9")
        await until(lambda: Revoked(user_pk=pk) in ears.revoked, 2.0)


@pytest.mark.parametrize(
    ("kind", "status", "is_over"), [("status", 500, False), ("html", 200, False), ("status", 403, True)]
)
async def test_what_the_list_of_app_passwords_answers(kind: str, status: int, is_over: bool) -> None:
    """A server in trouble revokes nobody; one that shows nothing any more of what it showed does."""
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        pk = with_app_passwords(stub, "for-mail")
        await accepted(backend, "alice", "for-mail")
        await stub.until(lambda: stub.counts[TOKENS] >= 2)
        fault = stub.fail("/core/tokens/", kind, status=status)
        await until(lambda: fault.hits >= (1 if is_over else 2), 10.0)
        if is_over:
            await until(lambda: Revoked(user_pk=pk) in ears.revoked, 2.0)
        else:
            assert ears.revoked == []


async def test_a_deleted_user_is_noticed() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        alice = stub.user_named("alice")
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        await accepted(backend, "alice", "pw-alice")
        await watched(stub, alice.pk, NEW)
        del stub.users[alice.pk]
        stub.changed()
        await until(lambda: Revoked(user_pk=alice.pk) in ears.revoked, 2.0)


async def test_nobody_logged_in_means_nothing_is_asked() -> None:
    async with small() as stub, running(stub) as backend:
        await ready(backend)
        await backend.refresh()
        assert not [one for one in stub.requests if "last_updated" in one]


async def test_a_server_in_trouble_revokes_nobody() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        alice = stub.user_named("alice")
        alice.password_change_date = "2020-01-01T00:00:00Z"
        stub.changed()
        await accepted(backend, "alice", "pw-alice")
        await watched(stub, alice.pk, NEW)
        stub.fail("/core/users/", "status", status=404)
        await until(lambda: ears.said("were not looked for"), 5.0)
        assert ears.revoked == []
