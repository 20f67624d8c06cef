"""The whole backend at a stub server: start, catalog, people, events, outage."""

from __future__ import annotations

import pytest
from aiohttp import web

from outpost import __version__
from outpost.backends.authentik import service
from outpost.backends.authentik.settings import AUTO
from outpost.identity import Accepted, Mode, Rejected, Revoked, Secret, Source
from tests.backends.authentik.appliance import (
    BOTH,
    SOURCE,
    Ears,
    accepted,
    bind,
    ldap,
    radius,
    ready,
    running,
    small,
    until,
)
from tests.backends.authentik.script import Script, html, reply
from tests.stub_authentik.model import FUTURE, NEW, OLD, Release
from tests.stub_authentik.server import LDAP_TOKEN, RADIUS_TOKEN, Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW, FUTURE)]


@pytest.mark.parametrize("release", RELEASES)
async def test_every_release_is_served(release: Release) -> None:
    async with small(Stub(release)) as stub, running(stub, tokens=BOTH, page_size=2) as backend:
        await ready(backend)
        people = backend.current(ldap(backend))
        assert people is not None
        assert {user.username for user in people.users} == {user.username for user in stub.users.values()}
        by_name = {group.name: group for group in people.groups}
        assert by_name["engineering"].parents == (by_name["staff"].pk,)
        assert by_name["engineering"].attributes == {"gidNumber": 70001}
        decision = await accepted(backend, "alice", "pw-alice")
        assert decision.identity.can_search is (not release.is_legacy)
        assert isinstance(await bind(backend, "alice", "wrong"), Rejected)
        login = await backend.authenticate(radius(backend), "bob", Secret("pw-bob"), Source("radius", "192.0.2.9"))
        assert isinstance(login, Accepted)


async def test_one_token_serves_what_its_outpost_is_for() -> None:
    async with small() as stub, running(stub, tokens={AUTO: Secret(RADIUS_TOKEN)}) as backend:
        await ready(backend)
        assert backend.served().ldap == ()
        assert radius(backend).shared_secret == Secret("very-secret")
        assert backend.readiness() == {"radius": ""}


async def test_each_service_has_its_own_channel_and_says_hello() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        await stub.until(lambda: len(stub.hellos) >= 2)
        hello = stub.hellos[0]
        assert hello["version"] == stub.release.version
        assert {"version", "buildHash", "uuid", "hostname", "golangVersion", "opensslEnabled", "opensslVersion",
                "fipsEnabled"} == hello.keys()  # fmt: skip
        assert stub.handshakes[0].query["instance_uuid"] == hello["uuid"]
        await until(lambda: ears.connected == [True])
        await stub.cut_channels()
        await until(lambda: ears.connected[:2] == [True, False])
        await until(lambda: ears.connected[:3] == [True, False, True])


async def test_a_saved_provider_is_seen_at_once() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        stub.providers[1].fields["mfa_support"] = False
        await stub.tell(2)
        await until(lambda: not ldap(backend).mfa_support, 2.0)
        assert Revoked(provider_pk=1, service="ldap") in ears.revoked


async def test_a_removed_provider_is_not_served_any_more() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        stub.providers[1].app = ""
        await stub.tell(2)
        await until(lambda: not backend.served().ldap, 2.0)
        assert Revoked(provider_pk=1, service="ldap") in ears.revoked
        assert "no provider" in backend.readiness()["ldap"]


async def test_another_certificate_revokes_nothing() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        stub.providers[1].fields["tls_server_name"] = "ldap.example.com"
        await backend.refresh()
        assert ldap(backend).tls_server_name == "ldap.example.com"
        assert ears.revoked == []


async def test_the_end_of_a_session_revokes_it() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        login = await accepted(backend, "alice", "pw-alice")
        await stub.end_sessions(stub.user_named("alice"))
        await until(lambda: Revoked(session=login.identity.session) in ears.revoked)


async def test_a_session_that_we_ended_ourselves_revokes_nothing() -> None:
    ears = Ears()
    async with small(bind_mode="direct") as stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        login = await accepted(backend, "alice", "pw-alice")
        handle = login.identity.session
        assert handle
        backend.sessions.hold(handle)
        backend.sessions.release(handle)
        await stub.until(lambda: stub.logouts == 1)
        await stub.tell(4, {"type": "event.session.end", "session_id": handle})
        await stub.tell(4, {"type": "event.session.end", "session_id": "another"})
        await until(lambda: ears.revoked)
        assert ears.revoked == [Revoked(session="another")]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"instruction": 99}', '{"instruction": 4}', '{"instruction": 4, "args": []}',
             '{"instruction": "2"}', '{"instruction": 3, "args": {"x": 1}}']
)  # fmt: skip
async def test_odd_events_are_ignored(text: str) -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        await stub.tell_raw(text)
        await stub.tell(4, {"session_id": "x"})
        await until(lambda: Revoked(session="x") in ears.revoked)
        assert ears.connected == [True]


async def test_a_server_without_event_channel_is_served_all_the_same() -> None:
    ears = Ears()
    stub = small()
    stub.refuses_channel = True
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        await stub.until(lambda: len(stub.handshakes) >= 1)
        await until(lambda: ears.said("no event channel: it is refused (HTTP 403)"))
        assert ears.connected == []


# -- start and outage -----------------------------------------------------------------------------


async def test_the_start_does_not_wait_for_the_server() -> None:
    ears = Ears()
    stub = small()
    await stub.start()
    await stub.stop()  # the port is known, nobody listens
    async with running(stub, ears) as backend:
        assert set(backend.readiness()) == {"ldap", "radius"}
        await until(lambda: ears.said("cannot be read"))
        assert backend.served().ldap == ()
        async with stub:
            await ready(backend, 5.0)
            assert await accepted(backend, "alice", "pw-alice")
    assert ears.said("cannot be read") <= 2


async def test_a_server_that_comes_back_is_used_within_five_seconds() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        await stub.stop()
        await until(lambda: backend.readiness()["ldap"], 5.0)
        assert ears.connected[:2] == [True, False]
        people = backend.current(ldap(backend))
        assert people is not None and people.users
        stub.add_user("new", "pw-new")
        await stub.start()
        await ready(backend, 5.0)
        assert await accepted(backend, "new", "pw-new")
        await until(lambda: ears.connected[:3] == [True, False, True], 5.0)


@pytest.mark.parametrize("kind", ["status", "truncate", "reset", "html"])
async def test_a_failed_page_never_shrinks_the_directory(kind: str) -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, page_size=2) as backend:
        await ready(backend)
        before = backend.current(ldap(backend))
        assert before is not None
        stub.fail(r"/core/users/\?page=3", kind)
        stub.add_user("late", "pw")
        await backend.refresh()
        assert ears.said("not refreshed")
        after = backend.current(ldap(backend))
        assert after is not None
        assert after.users == before.users
        assert after.generation == before.generation
        stub.heal()
        await backend.refresh()
        healed = backend.current(ldap(backend))
        assert healed is not None
        assert len(healed.users) == len(before.users) + 1


async def test_while_a_page_fails_only_it_is_asked_for() -> None:
    async with small() as stub, running(stub, page_size=2, attempts=1) as backend:
        await ready(backend)
        stub.fail(r"/core/users/\?page=3")
        await backend.refresh()
        asked = list(stub.requests)
        await backend.refresh()
        fresh = [one for one in list(stub.requests)[len(asked) :] if "page_size=2" in one]
        assert len(fresh) == 1
        assert "page=3" in fresh[0]


async def test_without_first_copy_the_search_waits_but_binds_work() -> None:
    stub = small()
    fault = stub.fail("/core/groups/", "hang")
    async with stub, running(stub) as backend:
        await until(lambda: backend.served().ldap)
        assert backend.current(ldap(backend)) is None
        assert "first time" in backend.readiness()["ldap"]
        assert await accepted(backend, "alice", "pw-alice")
        stub.faults.remove(fault)
        await until(lambda: backend.current(ldap(backend)), 5.0)


# -- what an operator got wrong -------------------------------------------------------------------


async def test_a_wrong_token_is_named_once() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, tokens={AUTO: Secret("nope")}, retry_max_s=0.05) as backend:
        await stub.until(lambda: stub.counts["/api/v3/outposts/instances/"] + len(stub.requests) >= 8)
        assert "AUTHENTIK_TOKEN" in backend.readiness()["ldap"]
        assert ears.said("refuses the outpost's token") == 1


async def test_a_token_of_the_other_type_is_named() -> None:
    ears = Ears()
    tokens = {"ldap": Secret(RADIUS_TOKEN)}
    async with small() as stub, running(stub, ears, tokens=tokens, retry_max_s=0.05) as backend:
        await until(lambda: ears.said("belongs to the RADIUS outpost"))
        assert "LDAP is needed here" in backend.readiness()["ldap"]
        assert backend.served().ldap == ()


async def test_of_several_outposts_the_one_that_fits_is_ours() -> None:
    """An administrator's token shows all of them."""
    ears = Ears()
    stub = small()
    stub.shows_all_outposts = True
    async with stub, running(stub, ears, tokens={"radius": Secret(RADIUS_TOKEN)}) as backend:
        await ready(backend)
        assert [one.name for one in backend.served().radius] == ["radius-main"]
        await backend.refresh()
        assert ears.said("the token shows 2 outposts, so it is none's own: servers may refuse all logins") == 1


async def test_of_several_outposts_that_fit_none_is_guessed() -> None:
    ears = Ears()
    stub = small()
    stub.shows_all_outposts = True
    async with stub, running(stub, ears, retry_max_s=0.05) as backend:
        await until(lambda: ears.said("the token shows 2 outposts, so it is none's own; copy the token of the one"))
        assert backend.served().ldap == ()


async def test_an_outpost_without_providers_waits_for_one() -> None:
    ears = Ears()
    stub = Stub()
    outpost = stub.add_outpost("ldap")
    async with stub, running(stub, ears) as backend:
        await until(lambda: ears.said("no provider with an application"))
        assert "no provider" in backend.readiness()["ldap"]
        await until(lambda: ears.connected == [True])
        stub.add_provider(outpost, "ldap-main")
        await stub.tell(2)
        await ready(backend, 3.0)


async def test_a_wrong_host_is_named() -> None:
    ears = Ears()
    stub = small()
    async with running(stub, ears, host="http://127.0.0.1:1", retry_max_s=0.05) as backend:
        await until(lambda: ears.said("cannot be read"))
        assert "127.0.0.1" in backend.readiness()["ldap"]


@pytest.mark.parametrize(
    "page", [html(200), html(404), reply({"detail": "Not found."}, status=404), reply({"hello": 1}), reply([])]
)
async def test_another_server_than_authentik_is_named(page: web.Response) -> None:
    ears = Ears()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=page.status, body=page.body, headers=page.headers)

    async with Script(other=answer) as script:
        async with running(small(), ears, host=script.url, retry_max_s=0.05) as backend:
            await until(lambda: len(script.requests) >= 4)
            assert f"what answers at {script.url} is no authentik server" in backend.readiness()["ldap"]
            assert "AUTHENTIK_HOST" in backend.readiness()["ldap"]
            assert ears.said("cannot be read") == 1


async def test_failures_that_alternate_are_told_once_each() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, retry_max_s=0.05) as backend:
        await ready(backend)
        for where in ("/outposts/instances/", "/core/groups/"):
            first, second = (stub.fail(where, status=status) for status in (502, 503))
            first.times = second.times = 0
            await backend.refresh()
            for number in range(8):
                fault = (first, second)[number % 2]
                hits = fault.hits
                first.times, second.times = (None, 0) if fault is first else (0, None)
                await backend.refresh()
                await stub.until(lambda fault=fault, hits=hits: fault.hits > hits + 2)  # type: ignore[misc]
            stub.heal()
            await ready(backend)
        for status in (502, 503):
            assert ears.said(f"the state of the outpost cannot be read: GET /outposts/instances/: HTTP {status}") == 1
            assert ears.said(f"the last copy stays: GET /core/groups/: HTTP {status}") == 1


@pytest.mark.parametrize("kind", ["status", "hang", "html", "truncate", "reset"])
async def test_a_version_that_cannot_be_read_holds_up_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "REQUEST_S", 0.2)
    ears = Ears()
    async with small() as stub:
        stub.fail("/admin/version/", kind)
        async with running(stub, ears) as backend:
            await ready(backend)
            assert await accepted(backend, "alice", "pw-alice")
            await stub.until(lambda: len(stub.hellos) > 0)
            assert stub.hellos[0]["version"] == __version__
            stub.heal()
            await backend.refresh()
            await stub.cut_channels()
            await stub.until(lambda: stub.hellos[-1]["version"] == stub.release.version)
        assert [event for level, event in ears.lines if level == "error"] == []


async def test_without_any_copy_nobody_is_told_of_one() -> None:
    ears = Ears()
    async with small() as stub:
        stub.fail("/core/groups/")
        async with running(stub, ears, retry_max_s=0.05):
            await until(lambda: ears.said("users and groups cannot be read, and there is no copy yet"))
    assert not ears.said("the last copy stays")


async def test_a_gateway_that_keeps_us_out_is_told_from_a_token_that_is_wrong() -> None:
    ears = Ears()
    async with small() as stub:
        stub.fail("/api/v3/", status=403)
        async with running(stub, ears, retry_max_s=0.05) as backend:
            await until(lambda: ears.said("HTTP 403 from a gateway in front of the server; it has to let us in"))
            assert "AUTHENTIK_TOKEN" not in backend.readiness()["ldap"]


async def test_the_log_level_is_the_outposts_unless_the_server_manages_it() -> None:
    ears = Ears()
    stub = small()
    stub.outposts[LDAP_TOKEN].log_level = "debug"
    stub.outposts[RADIUS_TOKEN].log_level = "trace"
    stub.outposts[RADIUS_TOKEN].managed = "goauthentik.io/outposts/embedded"
    async with stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        assert ears.levels == [("ldap", "debug")]


async def test_one_provider_that_makes_no_sense_costs_only_itself() -> None:
    ears = Ears()
    stub = small()
    stub.add_provider(stub.outposts["stub-ldap-token"], "broken", base_dn=7)
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        assert [one.name for one in backend.served().ldap] == ["ldap-main"]
        assert ears.said("is not served") == 1


async def test_modes_and_numbers_come_from_the_server() -> None:
    stub = small(search_mode="direct", bind_mode="cached", uid_start_number=7, gid_start_number=9)
    async with stub, running(stub) as backend:
        await ready(backend)
        provider = ldap(backend)
        assert (provider.search_mode, provider.bind_mode) == (Mode.DIRECT, Mode.CACHED)
        assert (provider.uid_start_number, provider.gid_start_number) == (7, 9)
        assert backend.current(provider) is None, "nobody searches a copy"


async def test_two_stops_are_one() -> None:
    async with small() as stub, running(stub) as backend:
        await ready(backend)
        await backend.authenticate(ldap(backend), "alice", Secret("pw-alice"), SOURCE)
        await backend.stop()
        await backend.stop()
        assert stub.logouts == 1
