"""People: complete copies, narrow look-ups, what a change revokes, the copy on disk."""

from __future__ import annotations

import asyncio
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from outpost.backends.authentik import pages, pauses, people, warm
from outpost.backends.authentik import roster as roster_module
from outpost.backends.authentik import service as service_module
from outpost.backends.authentik.backend import AuthentikBackend
from outpost.backends.authentik.census import Census, joined, page_of, revoked
from outpost.backends.authentik.client import Answer
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import Accepted, Group, LdapOptions, Revoked, Secret, User, Wanted
from outpost.processes.people import PackedPeople, Spool
from tests.backends.authentik.appliance import SOURCE, Ears, ldap, ready, running, settings, small, until
from tests.stub_authentik import lab
from tests.stub_authentik.model import FUTURE, NEW, OLD, Release
from tests.stub_authentik.server import LDAP_TOKEN, Stub


async def names(backend: AuthentikBackend, **wanted: object) -> tuple[set[str], set[str]]:
    found = await backend.fetch(ldap(backend), Wanted(**wanted))  # type: ignore[arg-type]
    return {user.username for user in found.users}, {group.name for group in found.groups}


# -- complete copies ------------------------------------------------------------------------------


async def test_nothing_changed_means_nothing_is_rebuilt() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        before, changes = backend.current(ldap(backend)), ears.changes
        await backend.refresh()
        after = backend.current(ldap(backend))
        assert before is not None and after is not None
        assert after.users == before.users
        assert after.generation == before.generation
        assert after.taken_at >= before.taken_at
        assert ears.changes == changes


@pytest.mark.parametrize("packed", [False, True])
async def test_only_pages_with_other_content_are_decoded_again(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    json = Answer.json

    def noting(answer: Answer, what: str) -> object:
        if "/core/users/, page" in what:
            decoded.append(answer.body)
        return json(answer, what)

    monkeypatch.setattr(Answer, "json", noting)
    stub = small()
    stub.packs = packed
    async with stub, running(stub, page_size=2, watch_interval_s=0) as backend:
        await ready(backend)
        count = -(-len(stub.users) // 2)
        assert len(decoded) == count and all(one.startswith(b"{") for one in decoded)
        await backend.refresh()
        assert len(decoded) == count
        stub.user_named("bob").name = "Bobby"
        stub.changed()
        await backend.refresh()
        assert len(decoded) == count + 1 and b"Bobby" in decoded[-1]


async def test_the_same_content_packed_otherwise_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    json = Answer.json
    monkeypatch.setattr(Answer, "json", lambda answer, what: decoded.append(what) or json(answer, what))  # type: ignore[func-returns-value]
    ears = Ears()
    stub = small()
    stub.packs = True
    async with stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        changes = ears.changes
        for level in (1, 9, 1):
            stub.packing_level = level
            before = sum("/core/users/, page" in what for what in decoded)
            await backend.refresh()
            assert sum("/core/users/, page" in what for what in decoded) == before == 1
        assert ears.changes == changes
        stub.user_named("bob").is_active = False
        stub.changed()
        stub.packing_level = 9
        await backend.refresh()
        found = backend.current(ldap(backend))
        assert found is not None and [one.username for one in found.users if not one.is_active] == ["bob"]


async def test_what_nobody_serves_changes_nothing() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        before, changes = backend.current(ldap(backend)), ears.changes
        stub.user_named("alice").last_login = "2026-01-01T00:00:00Z"
        stub.changed()
        await backend.refresh()
        assert before is not None and backend.current(ldap(backend)).generation == before.generation  # type: ignore[union-attr]
        assert ears.changes == changes


async def test_one_changed_user_leaves_the_others_as_they_were() -> None:
    async with small() as stub, running(stub) as backend:
        await ready(backend)
        before = backend.current(ldap(backend))
        stub.user_named("bob").name = "Robert"
        stub.touch(stub.user_named("bob"))
        await backend.refresh()
        after = backend.current(ldap(backend))
        assert before is not None and after is not None
        assert after.generation == before.generation + 1
        assert [user.username for user in after.users if user not in before.users] == ["bob"]


@pytest.mark.parametrize("what", ["password", "inactive", "group", "gone", "parent", "group gone"])
async def test_a_change_of_standing_is_revoked(what: str) -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        alice, engineering = stub.user_named("alice"), stub.group_named("engineering")
        assert engineering
        match what:
            case "password":
                stub.set_password(alice, "new")
            case "inactive":
                stub.deactivate(alice)
            case "group":
                stub.leave(alice, engineering)
            case "gone":
                del stub.users[alice.pk]
                stub.changed()
            case "parent":
                engineering.parents.clear()
                stub.changed()
            case "group gone":
                stub.leave(alice, engineering)
                del stub.groups[engineering.pk]
        await backend.refresh()
        assert ears.revoked == [Revoked(user_pk=alice.pk)]


async def test_what_changed_before_a_read_that_failed_is_not_forgotten() -> None:
    """The groups were read and the users were not: the next read finds both as it knows them."""
    ears = Ears()
    async with small() as stub, running(stub, ears, watch_interval_s=0, attempts=1) as backend:
        await ready(backend)
        staff, empty = stub.group_named("staff"), stub.group_named("empty")
        assert staff and empty
        staff.attributes = {"gidNumber": 70002}
        staff.parents.append(empty.pk)
        stub.changed()
        stub.fail("/core/users/.page=")
        await backend.refresh()
        assert ears.said("not refreshed")
        stub.heal()
        await backend.refresh()
        found = backend.current(ldap(backend))
        assert found is not None
        shown = next(one for one in found.groups if one.name == "staff")
        assert shown.attributes == {"gidNumber": 70002} and shown.parents == (empty.pk,)
        assert stub.user_named("bob").pk in ears.users()


async def test_another_name_revokes_nothing() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        stub.user_named("alice").email = "other@example.com"
        stub.touch(stub.user_named("alice"))
        stub.add_user("newcomer")
        await backend.refresh()
        assert ears.revoked == []


async def test_a_list_that_shrinks_while_it_is_read_is_read_again() -> None:
    stub = small()
    async with stub, running(stub, page_size=2) as backend:
        await ready(backend)
        fault = stub.fail(r"/core/users/\?page=4", "slow", delay_s=0.15)
        task = asyncio.create_task(backend.refresh())
        await stub.until(lambda: fault.hits > 0)
        first = min(stub.users)
        del stub.users[first]
        stub.changed()
        await task
        found = backend.current(ldap(backend))
        assert found is not None
        assert {user.pk for user in found.users} == set(stub.users)


async def test_the_server_may_hand_out_smaller_pages_than_asked_for() -> None:
    stub = small()
    stub.max_page_size = 3
    async with stub, running(stub, page_size=500) as backend:
        await ready(backend)
        found = backend.current(ldap(backend))
        assert found is not None and len(found.users) == len(stub.users)


async def test_no_more_pages_at_a_time_than_allowed() -> None:
    stub = small()
    for i in range(60):
        stub.add_user(f"more{i}")
    stub.fail(r"/core/users/\?page", "slow", delay_s=0.01)
    async with stub, running(stub, page_size=2, concurrency=3) as backend:
        await ready(backend)
        assert stub.most_in_flight <= 3


@pytest.mark.parametrize("release", [OLD, NEW, FUTURE], ids=lambda release: release.version)
async def test_a_complete_copy_does_without_the_records_of_each_users_groups(release: Release) -> None:
    stub = small(Stub(release))
    async with stub, running(stub, page_size=3) as backend:
        await ready(backend)
        found = backend.current(ldap(backend))
        assert found is not None
        assert {user.pk: set(user.groups) for user in found.users} == {
            user.pk: set(user.groups) for user in stub.users.values()
        }
        asked = [one for one in stub.requests if "/core/users/?page=" in one and "last_updated" not in one]
        assert asked and all("include_groups=false" in one for one in asked)
    shown = orjson.loads(stub.user_json(stub.user_named("alice"), with_groups=release.is_legacy))
    assert shown["groups"] and (shown["groups_obj"] is None) == (not release.is_legacy)


@pytest.mark.parametrize("withheld", ["missing", "null", "empty"])
async def test_a_server_that_withholds_groups_with_their_records_is_asked_for_both(withheld: str) -> None:
    """No server does that; if one did, nobody would lose his groups."""
    stub = small()
    stub.withholds_groups = withheld
    async with stub, running(stub, page_size=3) as backend:
        await ready(backend)
        for _ in range(2):
            found = backend.current(ldap(backend))
            assert found is not None
            assert all(set(user.groups) == set(stub.users[user.pk].groups) for user in found.users)
            await backend.refresh()
        last = [one for one in stub.requests if "/core/users/?page=" in one and "last_updated" not in one][-4:]
        assert all("include_groups=true" in one for one in last)


async def test_users_who_do_not_tell_their_groups_are_not_believed() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        before = backend.current(ldap(backend))
        stub.withholds_groups = "always"
        stub.changed()
        await backend.refresh()
        assert backend.current(ldap(backend)) == before
        assert ears.said("groups: expected a list, got null")


@pytest.mark.parametrize("version", lab.versions())
async def test_the_recorded_people_are_read_whole(version: str) -> None:
    stub = lab.laboratory(version)
    token = next(outpost.token for outpost in stub.outposts.values() if outpost.service == "ldap")
    async with stub, running(stub, tokens={"ldap": Secret(token)}) as backend:
        await ready(backend)
        found = backend.current(ldap(backend))
        assert found is not None
        recorded = [one for page in lab.bodies(version, "20-users-list-pages") for one in page["results"]]
        assert {user.pk: set(user.groups) for user in found.users} == {
            one["pk"]: set(one["groups"]) for one in recorded
        }
        assert any(user.groups for user in found.users)
        alice = next(user for user in found.users if user.username == "alice")
        assert alice.attributes["sshPublicKey"][0].startswith("ssh-ed25519")
        assert (alice.password_change_date is None) == (version == "2023.6.1")
        groups = {group.pk: group for group in found.groups}
        backend_group = next(group for group in found.groups if group.name == "backend")
        assert groups[backend_group.parents[0]].name == "engineering"


# -- narrow look-ups ------------------------------------------------------------------------------


async def test_a_look_up_asks_for_one_user_with_his_groups() -> None:
    async with small(search_mode="direct") as stub, running(stub) as backend:
        await ready(backend)
        asked = len(stub.requests)
        alice = stub.user_named("alice").pk
        for wanted in ({"username": "alice"}, {"user_pk": alice}, {"email": "alice@example.com"}):
            assert await names(backend, **wanted) == ({"alice"}, {"engineering"})
        people_asked = [one for one in list(stub.requests)[asked:] if "/core/" in one and "last_updated" not in one]
        assert len(people_asked) == 3


async def test_names_are_found_whatever_their_case() -> None:
    async with small(search_mode="direct") as stub, running(stub) as backend:
        await ready(backend)
        assert await names(backend, username="ALICE") == ({"alice"}, {"engineering"})
        assert await names(backend, email="Alice@Example.com") == ({"alice"}, {"engineering"})
        assert await names(backend, group_name="Engineering") == ({"alice"}, {"engineering"})


async def test_who_is_not_there_is_nobody() -> None:
    async with small(search_mode="direct") as stub, running(stub) as backend:
        await ready(backend)
        for wanted in ({"username": "nobody"}, {"username": " "}, {"user_pk": 999_999}, {"group_name": "none"}):
            assert await names(backend, **wanted) == (set(), set())


async def test_a_group_brings_its_members_with_all_their_groups() -> None:
    async with small(search_mode="direct") as stub, running(stub) as backend:
        await ready(backend)
        staff = stub.group_named("staff")
        assert staff
        stub.user_named("alice").groups.append(staff.pk)
        stub.changed()
        users, groups = await names(backend, group_name="engineering")
        assert (users, groups) == ({"alice"}, {"engineering", "staff"})


@pytest.mark.parametrize("release", [OLD, NEW, FUTURE], ids=lambda release: release.version)
async def test_effective_membership_needs_the_ancestors(release: Release) -> None:
    """Newer servers do not show the parents of the groups that they show with a user."""
    options = {"ldap-main": LdapOptions(nested_groups="effective")}
    stub = small(Stub(release), search_mode="direct")
    company, everybody = stub.add_group("company"), stub.add_group("everybody")
    staff = stub.group_named("staff")
    assert staff
    staff.parents.append(company.pk)
    if release.has_parents:
        staff.parents.append(everybody.pk)
        company.parents.append(everybody.pk)
    wanted = {"engineering", "staff", "company"} | ({"everybody"} if release.has_parents else set())
    async with stub, running(stub, ldap_options=options) as backend:
        await ready(backend)
        assert await names(backend, username="alice") == ({"alice"}, wanted)
        found = await backend.fetch(ldap(backend), Wanted(username="alice"))
        parents = {group.name: set(group.parents) for group in found.groups}
        assert parents["engineering"] == {staff.pk}
        assert parents["staff"] == set(staff.parents)


async def test_everything_includes_groups_without_members() -> None:
    async with small(search_mode="direct") as stub, running(stub, page_size=3) as backend:
        await ready(backend)
        users, groups = await names(backend)
        assert users == {user.username for user in stub.users.values()}
        assert groups == {"staff", "engineering", "empty"}


async def test_a_failing_look_up_is_an_error_and_never_an_empty_answer() -> None:
    async with small(search_mode="direct") as stub, running(stub, attempts=1) as backend:
        await ready(backend)
        for kind in ("status", "truncate", "reset", "html"):
            stub.heal()
            stub.fail("/core/users/", kind)
            for wanted in ({"username": "alice"}, {"user_pk": 1}, {}):
                with pytest.raises(BackendError):
                    await names(backend, **wanted)


# -- the copy on disk -----------------------------------------------------------------------------


async def test_the_copy_serves_a_start_without_the_server(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    stub = small()
    async with stub:
        async with running(stub, cache_path=path) as backend:
            await ready(backend)
            await until(lambda: (path / warm.NAME).exists())
            before = backend.current(ldap(backend))
    assert stat.S_IMODE((path / warm.NAME).stat().st_mode) == 0o600
    octets = (path / warm.NAME).read_bytes()
    assert LDAP_TOKEN.encode() not in octets and b"pw-alice" not in octets
    ears = Ears()
    async with running(stub, ears, cache_path=path) as backend:
        await until(lambda: backend.served().ldap)
        after = backend.current(ldap(backend))
        assert before is not None and after is not None
        assert after.users == before.users
        assert after.groups == before.groups
        assert backend.readiness()["ldap"], "not ready: nobody can log in"


async def test_a_change_while_we_were_away_is_noticed(tmp_path: Path) -> None:
    async with small() as stub:
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            await until(lambda: (tmp_path / warm.NAME).exists())
        stub.add_user("meanwhile")
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            await until(
                lambda: any(user.username == "meanwhile" for user in backend.current(ldap(backend)).users)  # type: ignore[union-attr]
            )


async def test_nothing_is_kept_of_the_copy_once_the_same_was_read(tmp_path: Path) -> None:
    """Octets of the copy would otherwise lie in memory beside those of the server, for as long as nothing changes."""
    async with small() as stub:
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            await until(lambda: (tmp_path / warm.NAME).exists())
            before = backend.current(ldap(backend))
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            await backend.refresh()
            found = backend.current(ldap(backend))
            service = backend._named("ldap")
    assert isinstance(before, PackedPeople) and isinstance(found, PackedPeople)
    assert service is not None and service.roster is not None
    assert found.spool is service.roster._spool
    assert (found.generation, found.digest) == (before.generation, before.digest)
    assert found.users == before.users


async def test_after_a_start_from_the_copy_logins_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "CALM_S", 3600.0)
    async with small() as stub:
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            await until(lambda: (tmp_path / warm.NAME).exists())
        stub.counts.clear()
        async with running(stub, cache_path=tmp_path) as backend:
            await ready(backend)
            found = await backend.authenticate(ldap(backend), "alice", Secret("pw-alice"), SOURCE)
            assert isinstance(found, Accepted)
            assert not stub.counts["/api/v3/core/groups/"]
            # Whoever asks for it does not wait.
            await backend.refresh()
            assert stub.counts["/api/v3/core/groups/"]


@pytest.mark.parametrize("damage", ["cut", "empty", "head", "flipped", "other token", "format", "writable", "link"])
def test_a_copy_that_is_not_ours_is_not_taken(tmp_path: Path, damage: str) -> None:
    stub = small(Stub())
    source = warm.source_of(settings(stub).host, Secret(LDAP_TOKEN))
    copy = warm.Copy(census_of(), ())
    warm.save(tmp_path, source, copy)
    found = warm.load(tmp_path, source)
    assert found is not None and found.providers == copy.providers
    assert found.census.is_like(copy.census) and found.census.numbers() == copy.census.numbers()
    assert found.census.people.users == copy.census.people.users
    assert found.census.people.taken_at == copy.census.people.taken_at
    file = tmp_path / warm.NAME
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-20])
        case "empty":
            file.write_bytes(b"")
        case "head":
            file.write_bytes(file.read_bytes()[:20])
        case "flipped":
            octets = bytearray(file.read_bytes())
            octets[-1] ^= 1
            file.write_bytes(octets)
        case "other token":
            source = warm.source_of("http://x", Secret("other"))
        case "format":
            save_as_format(tmp_path, source, copy)
        case "writable":
            file.chmod(0o666)
        case "link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
    if damage in ("empty", "other token", "format"):
        assert warm.load(tmp_path, source) is None
    else:
        with pytest.raises((BackendError, OSError)):
            warm.load(tmp_path, source)


def save_as_format(directory: Path, source: str, copy: warm.Copy, number: int = warm.FORMAT + 1) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "FORMAT", number)
        warm.save(directory, source, copy)


def census_of() -> Census:
    group = Group("g-1", 7, "staff", attributes={"x": [1, "y"]})
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    user = User(1, "alice", groups=("g-1",), attributes={"n": {"a": None}}, password_change_date=moment)
    spool = Spool()
    return joined([page_of([user], spool)], [group], spool, generation=3, taken_at=1_700_000_000.5)


# -- records --------------------------------------------------------------------------------------


def test_references_to_missing_groups_are_dropped() -> None:
    group = Group("a", 1, "a", parents=("a", "gone"))
    users, groups = people.consistent([User(1, "u", groups=("a", "gone"))], {"a": group})
    assert users[0].groups == ("a",)
    assert groups[0].parents == ("a",)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"pk": "1", "username": "x"},
        {"pk": 1},
        {"pk": 1, "username": None},
        {"pk": 1, "username": "x", "groups": [1]},
        {"pk": 1, "username": "x", "attributes": []},
        {"pk": 1, "username": "x", "last_updated": "yesterday"},
    ],
)
def test_a_record_of_another_shape_is_an_error(record: dict[str, object]) -> None:
    with pytest.raises(BackendError):
        people.user(Shape(orjson.loads(orjson.dumps(record)), "user"), {})


async def test_a_slow_page_is_waited_for() -> None:
    async with small() as stub:
        stub.fail(r"/core/users/\?page=2", "slow", delay_s=0.5)
        async with running(stub, page_size=2) as backend:
            await ready(backend)
            people = backend.current(ldap(backend))
            assert people is not None
            assert len(people.users) == len(stub.users)


async def test_pages_are_decoded_and_merged_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, set[int]] = {"decode": set(), "merge": set(), "join": set()}

    def noting(place: object, name: str, what: str) -> None:
        done = getattr(place, name)

        def wrapped(*arguments: object) -> object:
            threads[what].add(threading.get_ident())
            return done(*arguments)

        monkeypatch.setattr(place, name, wrapped)

    monkeypatch.setattr(pages, "OFF_LOOP", 1)
    noting(pages.Lister, "_decode", "decode")
    noting(pages.Lister, "_check", "join")
    noting(roster_module, "_compared", "merge")
    async with small() as stub, running(stub, page_size=2) as backend:
        await ready(backend)
    assert threading.get_ident() not in threads["decode"] | threads["merge"]
    assert threads["decode"] and threads["merge"]
    assert len(threads["join"] - {threading.get_ident()}) >= 1


async def test_one_page_is_decoded_at_a_time_and_pauses_only_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[int] = []
    paused: set[int] = set()
    decode, sleep = pages.Lister._decode, pauses.time.sleep

    def noting(*arguments: Any) -> Any:
        busy.append(1)
        assert len(busy) == 1
        try:
            return decode(*arguments)
        finally:
            busy.pop()

    def pausing(seconds: float) -> None:
        paused.add(threading.get_ident())
        sleep(seconds)

    monkeypatch.setattr(pages.Lister, "_decode", noting)
    monkeypatch.setattr(pauses.time, "sleep", pausing)
    monkeypatch.setattr(pages, "AT_A_TIME", 1)
    async with small() as stub, running(stub, page_size=2) as backend:
        await ready(backend)
        monkeypatch.setattr(pages, "OFF_LOOP", 1)
        stub.user_named("alice").name = stub.user_named("user4").name = "Somebody else"
        stub.changed()
        await backend.refresh()
        found = backend.current(ldap(backend))
        assert found is not None and sum(user.name == "Somebody else" for user in found.users) == 2
    assert paused and threading.get_ident() not in paused


@pytest.mark.parametrize("where", ["kept page", "changed page", "gone"])
def test_only_whose_standing_changed_is_revoked(where: str) -> None:
    """Pages that are in both copies are not compared; all others are."""
    spool = Spool()

    def page(*pks: int, active: bool = True) -> Any:
        return page_of((User(pk=pk, username=f"u{pk}", is_active=active or pk % 2 == 0) for pk in pks), spool)

    kept, old = page(1, 2, 3), page(4, 5, 6)
    before = joined((kept, old), (), spool, generation=1, taken_at=0.0)
    after = {
        "kept page": (kept, page(4, 5, 6)),
        "changed page": (kept, page(4, 5, 6, active=False)),
        "gone": (kept, page(4)),
    }[where]
    expected = {"kept page": set(), "changed page": {5}, "gone": {5, 6}}[where]
    assert revoked(before, joined(after, (), spool, generation=2, taken_at=0.0)) == expected
    assert revoked(before, joined((page(1, 2, 3, active=False), old), (), spool, generation=2, taken_at=0.0)) == {1, 3}
