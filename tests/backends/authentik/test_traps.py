"""Answers of real servers that look like a login and are none, or that cost one: one test for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from yarl import URL

from outpost.backends.authentik.address import Address
from outpost.identity import Accepted, LdapProvider, Provider, RadiusProvider, Rejected, RejectReason, Secret, Source
from tests.backends.authentik.appliance import BOTH, ldap, radius, ready, running, small
from tests.backends.authentik.replay import Bench, _play
from tests.backends.authentik.script import EMBEDDED, PASSWORD, RADIUS, Script, cookie, done, moved, reply
from tests.backends.authentik.test_authority import decide, rejected
from tests.stub_authentik import lab
from tests.stub_authentik.model import NEW, OLD, Flow, Release, Stage
from tests.stub_authentik.server import Stub

VERSIONS = lab.versions()
RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]


def steps(version: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.recording(version, name)["steps"]
    return found


# -- 1: a query that the server would write differently ---------------------------------------------------------------


@pytest.mark.parametrize("service", ["ldap", "radius"])
@pytest.mark.parametrize("version", VERSIONS)
def test_trap_1_the_query_is_written_octet_by_octet_as_the_server_writes_it(version: str, service: str) -> None:
    """Every recorded redirect shows how the server writes the address of the flow."""
    seen = 0
    for name in lab.names(version):
        for step in lab.recording(version, name)["steps"]:
            for key, location in step["response"]["headers"]:
                if key.lower() == "location" and f"outpost%252F{service}" in location:
                    slug = location.split("/")[5]
                    ours = Address.parse("http://x").executor(slug, ((f"goauthentik.io/outpost/{service}", "true"),))
                    assert URL(ours).raw_path_qs == location
                    seen += 1
    assert seen > 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_trap_1_a_redirect_back_to_the_flow_is_no_login(version: str) -> None:
    """The recorded answer to a wrongly written query, with a cookie that says that somebody is logged in."""
    first, bypass = steps(version, "49-misencoded-query-bypass")[:2]
    assert bypass["response"]["body"]["component"] == "xak-flow-redirect"
    ended = reply(bypass["response"]["body"], cookie())
    detail = rejected(await decide(Script(_play(first["response"]), ended)), RejectReason.FLOW_ERROR)
    assert "redirected to itself" in detail


# -- 2: the access check lets nobody in, in the sense that it lets Nobody in ------------------------------------------


def stub_with_open_application(release: Release) -> Stub:
    stub = small(Stub(release))
    ident, password = Stage("identification"), Stage("password")
    stub.flows["empty"] = Flow("empty")
    stub.flows["no-login"] = Flow("no-login", (ident, password))
    stub.flows["embedded-no-login"] = Flow("embedded-no-login", (Stage("identification", has_password=True),))
    return stub


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("service", ["ldap", "radius"])
@pytest.mark.parametrize("flow", ["empty", "no-login", "embedded-no-login"])
async def test_trap_2_a_flow_without_a_login_is_none_though_the_application_is_open_to_all(
    release: Release, service: str, flow: str
) -> None:
    async with stub_with_open_application(release) as stub, running(stub, tokens=BOTH) as backend:
        await ready(backend)
        provider: Provider = ldap(backend) if service == "ldap" else radius(backend)
        good = await backend.authenticate(provider, "alice", Secret("pw-alice"), Source(service, "192.0.2.1"))
        assert isinstance(good, Accepted)
        if isinstance(provider, LdapProvider):
            provider = replace(provider, bind_flow_slug=flow)
        else:
            provider = replace(provider, auth_flow_slug=flow)
        for password in ("pw-alice", "wrong"):
            decision = await backend.authenticate(provider, "alice", Secret(password), Source(service, "192.0.2.1"))
            assert isinstance(decision, Rejected), decision


@pytest.mark.parametrize("service", ["ldap", "radius"])
async def test_trap_2_a_session_that_ends_before_it_is_proven_is_no_login(service: str) -> None:
    """Newer servers' access check passes for an application without bindings although the session is gone."""
    async with stub_with_open_application(NEW) as stub, running(stub, tokens=BOTH) as backend:
        await ready(backend)
        provider: Provider = ldap(backend) if service == "ldap" else radius(backend)
        finish = stub.executor._Run._finish

        def finish_and_expire(run: Any) -> Any:
            answer = finish(run)
            run.executor.sessions.pop(run.session.key, None)
            return answer

        stub.executor._Run._finish = finish_and_expire  # type: ignore[method-assign]
        try:
            decision = await backend.authenticate(provider, "alice", Secret("pw-alice"), Source(service, "192.0.2.1"))
        finally:
            stub.executor._Run._finish = finish  # type: ignore[method-assign]
        assert isinstance(decision, Rejected), decision
        assert "without logging anybody in" in decision.detail


@pytest.mark.parametrize("version", VERSIONS)
async def test_trap_2_the_recorded_answers_to_nobody_are_no_login(version: str) -> None:
    recorded = steps(version, "49-anonymous-redirect-and-access")
    ends = [one for one in recorded if (one["response"]["body"] or {}).get("component") == "xak-flow-redirect"]
    access = [one["response"] for one in recorded if "check_access" in one["request"]["path"]]
    nobody = next(one["response"] for one in recorded if one["request"]["path"].endswith("/users/me/"))
    assert version == VERSIONS[0] or any(one["status"] == 200 and one["body"]["access"]["passing"] for one in access)
    for answer in access:
        for end in ends:
            last = _play(end["response"])
            last.headers.popall("Set-Cookie", None)
            last.headers.add("Set-Cookie", cookie())  # even if the cookie claimed a login
            script = Script(EMBEDDED, moved(), PASSWORD, moved(), last, me=_play(nobody), access=_play(answer))
            assert isinstance(await decide(script, RADIUS), Rejected)


# -- 3: logged in, then denied ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
async def test_trap_3_a_denial_after_the_login_stage_is_a_refusal_and_leaves_no_session(release: Release) -> None:
    stub = small(Stub(release), flow="login-then-deny")
    stages = (Stage("identification"), Stage("password"), Stage("login"), Stage("deny"))
    stub.flows["login-then-deny"] = Flow("login-then-deny", stages)
    async with stub, running(stub) as backend:
        await ready(backend)
        decision = await backend.authenticate(ldap(backend), "alice", Secret("pw-alice"), Source("ldap", "192.0.2.1"))
        assert stub.logins == 1, "the server did log her in"
        assert "denied access" in rejected(decision, RejectReason.FLOW_ERROR)
        await stub.until(lambda: stub.logouts == 1)
        assert stub.sessions_of(stub.user_named("alice")) == []


# -- 4: the client's address ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.7:4711", None),
        ("[2001:db8::1]:4711", None),
        ("client.example", None),
        ("192.0.2.7, 198.51.100.1", None),
        ("", None),
    ],
)
async def test_trap_4_what_is_no_bare_address_is_not_told_and_costs_no_login(
    release: Release, address: str, told: str | None
) -> None:
    seen: set[str | None] = set()
    async with small(Stub(release)) as stub, running(stub) as backend:
        await ready(backend)
        serve = stub.executor.serve

        async def listen(request: Any) -> Any:
            seen.add(request.headers.get("X-authentik-remote-ip"))
            return await serve(request)

        stub.executor.serve = listen  # type: ignore[method-assign]
        decision = await backend.authenticate(ldap(backend), "alice", Secret("pw-alice"), Source("ldap", address))
        assert isinstance(decision, Accepted), decision
    assert seen == {told}


@pytest.mark.parametrize("version", VERSIONS)
def test_trap_4_the_recorded_failure_is_what_a_bad_address_costs(version: str) -> None:
    """2023.6 answers 500 at the end of the flow; later releases do not mind."""
    last = steps(version, "48-remote-ip-invalid")[-1]["response"]["status"]
    assert last == (500 if version.startswith("2023") else 200)


# -- 5: the RADIUS access check ---------------------------------------------------------------------------------------


async def test_trap_5_the_application_is_always_named() -> None:
    """Without `app_slug` the server answers 500; with another one it answers about that application."""
    script = Script(EMBEDDED, done(), access={"access": {"passing": True}, "attributes": "AVoAFA=="})
    assert isinstance(await decide(script, RADIUS), Accepted)
    checks = [one for one in script.requests if "check_access" in one]
    assert checks == [f"GET /api/v3/outposts/radius/{RADIUS.pk}/check_access/?app_slug={RADIUS.application_slug}"]
    no_app = replace(RADIUS, application_slug="")
    script = Script(EMBEDDED, done())
    rejected(await decide(script, no_app), RejectReason.ACCESS_CHECK_FAIL)
    assert not [one for one in script.requests if "check_access" in one]


@pytest.fixture
async def mapping_failed() -> AsyncIterator[tuple[Stub, RadiusProvider]]:
    stub = small()
    stub.apps["radius-main"].groups = None
    provider = next(one for one in stub.providers.values() if one.service == "radius")
    provider.attributes = None  # what a property mapping that raises looks like
    async with stub, running(stub, tokens=BOTH) as backend:
        await ready(backend)
        yield stub, radius(backend)


@pytest.mark.parametrize("refuses", [False, True])
async def test_trap_5_a_property_mapping_that_raises_is_told_and_may_refuse(
    mapping_failed: tuple[Stub, RadiusProvider], refuses: bool
) -> None:
    stub, provider = mapping_failed
    token = next(one.token for one in stub.outposts.values() if one.service == "radius")
    async with Bench(stub.url, "radius", token=token, refuse_on_mapping_failure=refuses) as bench:
        source = Source("radius", "192.0.2.9")
        decision = await bench.authority.authenticate(provider, "bob", Secret("pw-bob"), source)
    if refuses:
        assert "property mapping" in rejected(decision, RejectReason.ATTRIBUTE_PARSE_FAILED)
    else:
        assert isinstance(decision, Accepted)
        assert decision.attributes.packet == b""
