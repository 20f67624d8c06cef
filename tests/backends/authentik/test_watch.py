"""Users who change are found although the server sends no event for it."""

from __future__ import annotations

import pytest

from outpost.identity import Revoked, Secret, Source
from tests.backends.authentik.appliance import BOTH, Ears, accepted, radius, ready, running, small, until
from tests.stub_authentik.model import NEW, OLD, Release
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
