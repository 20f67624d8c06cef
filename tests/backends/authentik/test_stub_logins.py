"""Logins through the whole way, at the stub server in the state of the laboratory, and what they leave there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from outpost.identity import Accepted, LdapProvider, Mode, Secret, Source, Unavailable
from tests.backends.authentik.replay import Bench, logins, provider_of, secret_of, source_of
from tests.backends.authentik.test_recorded_logins import is_login
from tests.contract.test_stub_agrees import prepare
from tests.stub_authentik import lab
from tests.stub_authentik.model import NEW, OLD, Flow, Release, Stage
from tests.stub_authentik.server import LDAP_TOKEN, Stub

LOGINS = [pytest.param(version, name, id=f"{version}-{name}") for version in lab.versions() for name in logins(version)]
PROVIDER = LdapProvider(
    1, "d", "dc=x", "d", "default-authentication-flow", "default-invalidation-flow", bind_mode=Mode.DIRECT
)
SOURCE = Source("ldap", "192.0.2.1")


def stub_with_alice(release: Release = NEW, **options: Any) -> Stub:
    stub = Stub(release, **options)
    stub.add_user("alice", "pw")
    stub.add_provider(stub.add_outpost("ldap"), "d")
    return stub


@pytest.mark.parametrize(("version", "name"), LOGINS)
async def test_the_stub_s_decision_is_the_recorded_one(version: str, name: str) -> None:
    record = lab.recording(version, name)
    provider = provider_of(version, record)
    source = source_of(provider)
    async with lab.laboratory(version) as stub:
        prepare(stub, record)
        token = next(outpost.token for outpost in stub.outposts.values() if outpost.service == source.service)
        is_legacy = version == "2023.6.1"
        async with Bench(stub.url, source.service, token=token, is_legacy=is_legacy) as bench:
            username = record["answers"]["ident"]
            decision = await bench.authority.authenticate(provider, username, secret_of(record), source)
        assert isinstance(decision, Accepted) == is_login(record), decision
        if isinstance(decision, Accepted) and isinstance(provider, LdapProvider) and not is_legacy:
            assert decision.identity.can_search is record["outcome"]["access"]["has_search_permission"]


@pytest.mark.parametrize("release", [OLD, NEW], ids=lambda release: release.version)
@pytest.mark.parametrize("prefix", ["", "/sub/path"])
async def test_a_login_leaves_nothing_on_the_server_once_released(release: Release, prefix: str) -> None:
    async with (
        stub_with_alice(release, prefix=prefix) as stub,
        Bench(stub.url, "ldap", token=LDAP_TOKEN, end_sessions=True) as bench,
    ):
        decision = await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Accepted)
        handle = decision.identity.session
        assert handle is not None
        sessions = stub.sessions_of(stub.user_named("alice"))
        assert [stub.executor.handle(session) for session in sessions] == [handle]
        bench.sessions.hold(handle)
        bench.sessions.release(handle)
        await stub.until(lambda: stub.logouts == 1)
        assert stub.sessions_of(stub.user_named("alice")) == []
        assert not [request for request in stub.requests if request.startswith("POST") and "invalidation" in request]


async def test_an_unbind_flow_that_does_not_log_out_is_made_up_for() -> None:
    unbind = replace(PROVIDER, unbind_flow_slug="default-provider-invalidation-flow")
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN, end_sessions=True) as bench:
        decision = await bench.authority.authenticate(unbind, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Accepted)
        assert decision.identity.session is not None
        bench.sessions.release(decision.identity.session)
        await stub.until(lambda: stub.logouts == 1)


async def test_a_wrong_password_is_tried_once() -> None:
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN) as bench:
        await bench.authority.authenticate(PROVIDER, "alice", Secret("wrong"), SOURCE)
        assert stub.password_checks == 1
        assert stub.logins == 0


async def test_a_stage_after_the_login_is_answered_with_the_csrf_token() -> None:
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN) as bench:
        ident, login = Stage("identification", has_password=True), Stage("login")
        stub.flows["odd"] = Flow("odd", (ident, login, Stage("password")))
        provider = LdapProvider(1, "d", "dc=x", "d", "odd")
        decision = await bench.authority.authenticate(provider, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Accepted)


async def test_two_hundred_cold_binds_at_a_slow_server_all_end_well_and_boundedly() -> None:
    async with (
        stub_with_alice() as stub,
        Bench(stub.url, "ldap", token=LDAP_TOKEN, login_concurrency=64, login_timeout_s=60.0) as bench,
    ):
        stub.flow_delay_s = 0.05
        decisions = await asyncio.gather(
            *(bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE) for _ in range(200))
        )
        assert all(isinstance(decision, Accepted) for decision in decisions)
        assert len({decision.identity.session for decision in decisions if isinstance(decision, Accepted)}) == 200
        assert stub.most_in_flight <= 128  # two at a time after the flow
        assert stub.counts["/api/v3/flows/executor/default-authentication-flow/"] == 200 * 6


async def test_a_server_with_more_logins_than_it_can_decide_in_time_gets_through_them_all() -> None:
    """Forty clients who come again and again, at a server that decides some twenty logins a second."""
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN, login_timeout_s=0.5) as bench:
        stub.flow_work_s = 0.006

        async def insist() -> None:
            while not isinstance(await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE), Accepted):
                pass

        async with asyncio.timeout(30):
            await asyncio.gather(*(insist() for _ in range(40)))
        assert bench.authority.turns.limit < 40
        assert bench.authority.turns.active == 0


@pytest.mark.parametrize("kind", ["status", "hang", "truncate", "reset", "html"])
@pytest.mark.parametrize("where", ["/flows/executor/", "/check_access/", "/users/me/"])
async def test_a_faulty_server_makes_no_decision_and_recovers_at_once(kind: str, where: str) -> None:
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN, login_timeout_s=0.5) as bench:
        stub.fail(where, kind)
        decision = await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Unavailable)
        stub.heal()
        decision = await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE)
        assert isinstance(decision, Accepted)


async def test_a_server_that_comes_back_is_used_at_once() -> None:
    async with stub_with_alice() as stub, Bench(stub.url, "ldap", token=LDAP_TOKEN) as bench:
        assert isinstance(await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE), Accepted)
        await stub.stop()
        assert isinstance(await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE), Unavailable)
        await stub.start()
        assert isinstance(await bench.authority.authenticate(PROVIDER, "alice", Secret("pw"), SOURCE), Accepted)
