"""Sessions on the server: kept while something rests on them, ended afterwards, never in anybody's way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from outpost.backends.authentik import sessions as sessions_module
from outpost.backends.authentik.session import read_claims
from outpost.identity import Accepted, LdapProvider, Mode, RadiusProvider, Rejected, Secret, Unavailable
from tests.backends.authentik.replay import Bench
from tests.backends.authentik.script import (
    ASKING,
    DONE,
    EMBEDDED,
    LDAP,
    RADIUS,
    Script,
    cookie,
    done,
    html,
    reply,
)

GONE = 'authentik_session=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/'
OUT = reply(DONE, GONE)


UNREMEMBERED = replace(LDAP, bind_mode=Mode.DIRECT)
"""Nothing but connections rests on the sessions of these logins."""


async def login(bench: Bench, provider: LdapProvider | RadiusProvider = UNREMEMBERED) -> str:
    decision = await bench.authority.authenticate(provider, "alice", Secret("pw"), ASKING)
    assert isinstance(decision, Accepted)
    assert decision.identity.session is not None
    return decision.identity.session


async def ended(bench: Bench) -> None:
    async with asyncio.timeout(5):
        await bench.sessions._queue.join()


def flows(script: Script) -> list[str]:
    return [request.split("/")[5] for request in script.requests if "/flows/executor/" in request]


async def test_the_last_release_ends_the_session_with_its_own_cookie() -> None:
    async with Script(EMBEDDED, done(), OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        handle = await login(bench)
        assert handle == read_claims(cookie().split(";")[0].partition("=")[2]).handle
        bench.sessions.hold(handle)
        bench.sessions.hold(handle)
        bench.sessions.release(handle)
        assert bench.sessions._queue.empty()
        assert len(bench.sessions) == 1
        bench.sessions.release(handle)
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow"]
        assert "authentik_session=e30" in script.headers[-1]["Cookie"]
        assert "Authorization" not in script.headers[-1]
        assert bench.sessions.is_own_ending(handle)
        assert len(bench.sessions) == 0


async def test_a_flow_that_does_not_log_out_is_followed_by_the_general_one() -> None:
    async with Script(EMBEDDED, done(), done(), OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        bench.sessions.release(await login(bench))
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow", "default-invalidation-flow"]


async def test_a_protocol_without_unbind_flow_uses_the_general_one() -> None:
    script = Script(EMBEDDED, done(), OUT, access={"access": {"passing": True}, "attributes": "AVoAFA=="})
    async with script, Bench(script.url, "radius", end_sessions=True) as bench:
        await login(bench, RADIUS)
        await bench.sessions.stop(5.0)
        assert flows(script)[2:] == ["default-invalidation-flow"]


async def test_a_session_that_a_remembered_login_rests_on_outlives_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions_module, "SWEEP_S", 0.02)
    script = Script(EMBEDDED, done(), OUT)
    async with script, Bench(script.url, "ldap", end_sessions=True, session_lease_s=0.3) as bench:
        handle = await login(bench, LDAP)
        bench.sessions.hold(handle)
        assert bench.sessions.is_held(handle)
        bench.sessions.release(handle)
        assert not bench.sessions.is_held(handle)
        assert bench.sessions.find(handle)
        assert bench.sessions._queue.empty()
        async with asyncio.timeout(5):
            while not bench.sessions.is_own_ending(handle):
                await asyncio.sleep(0.01)
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow"]


async def test_a_login_that_nobody_remembers_or_holds_is_ended_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "SWEEP_S", 0.02)
    monkeypatch.setattr(sessions_module, "UNREMEMBERED_S", 0.05)
    script = Script(EMBEDDED, done(), EMBEDDED, done(cookie(key="two")), OUT)
    async with script, Bench(script.url, "ldap", end_sessions=True, session_lease_s=600.0) as bench:
        remembered = await login(bench, LDAP)
        free = await login(bench)
        async with asyncio.timeout(5):
            while not bench.sessions.is_own_ending(free):
                await asyncio.sleep(0.01)
        await ended(bench)
        assert bench.sessions.find(remembered)


async def test_a_session_nobody_holds_ends_after_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "SWEEP_S", 0.02)
    script = Script(EMBEDDED, done(), EMBEDDED, done(cookie(key="two")), OUT)
    async with script, Bench(script.url, "ldap", end_sessions=True, session_lease_s=0.05) as bench:
        held = await login(bench)
        bench.sessions.hold(held)
        free = await login(bench)
        async with asyncio.timeout(5):
            while not bench.sessions.is_own_ending(free):
                await asyncio.sleep(0.01)
        await ended(bench)
        assert not bench.sessions.is_own_ending(held)
        assert len(bench.sessions) == 1


async def test_a_session_that_has_expired_is_forgotten_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "SWEEP_S", 0.02)
    script = Script(EMBEDDED, done(cookie(end="; Max-Age=1")), OUT)
    async with script, Bench(script.url, "ldap", end_sessions=True) as bench:
        handle = await login(bench)
        bench.sessions.hold(handle)
        bench.sessions._kept[handle].expires_at = 1.0
        async with asyncio.timeout(5):
            while len(bench.sessions):
                await asyncio.sleep(0.01)
        assert len(flows(script)) == 2


async def test_a_session_that_the_server_ended_is_not_ended_again() -> None:
    async with Script(EMBEDDED, done(), OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        handle = await login(bench)
        bench.sessions.forget(handle)
        bench.sessions.release(handle)
        bench.sessions.hold(handle)
        assert not bench.sessions.is_own_ending(handle)
        assert len(flows(script)) == 2


@pytest.mark.parametrize(
    ("last", "options", "kind"),
    [
        (done(), {"access": {"access": {"passing": False}}}, Rejected),
        (reply({"component": "ak-stage-access-denied"}, cookie()), {}, Rejected),
        (done(), {"access": html(500)}, Unavailable),
    ],
)
async def test_a_refused_login_leaves_no_session_behind(
    last: web.Response, options: dict[str, Any], kind: type
) -> None:
    script = Script(EMBEDDED, last, OUT, **options)
    async with script, Bench(script.url, "ldap", end_sessions=True) as bench:
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), kind)
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow"]


async def test_a_cancelled_login_leaves_no_session_behind() -> None:
    asked = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.sleep(30)
        return html(500)

    async with (
        Script(EMBEDDED, done(), OUT, access=hang) as script,
        Bench(script.url, "ldap", end_sessions=True) as bench,
    ):
        task = asyncio.create_task(bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING))
        await asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow"]


async def test_a_failed_login_has_no_session_to_end() -> None:
    anonymous = reply({"component": "ak-stage-access-denied"}, cookie("anonymous", authenticated=False))
    async with Script(EMBEDDED, anonymous, OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), Rejected)
        assert bench.sessions._queue.empty()
        assert bench.sessions._workers == []


async def test_ending_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "END_TIMEOUT_S", 0.05)

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return html(500)

    async with Script(EMBEDDED, done(), hang, loop=True) as script, Bench(script.url, "ldap", end_sessions=True) as b:
        handle = await login(b)
        visitor = b.sessions._kept[handle].visitor
        for i in range(sessions_module.MAX_QUEUED + 50):
            b.sessions.keep(f"h{i}", visitor, UNREMEMBERED, "ldap", None)
            b.sessions.release(f"h{i}")
        assert b.sessions.dropped == 50
        started = asyncio.get_running_loop().time()
        await b.sessions.stop(0.2)
        await b.sessions.stop(0.2)
        assert asyncio.get_running_loop().time() - started < 2


async def test_kept_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "MAX_KEPT", 10)
    async with Script(EMBEDDED, done()) as script, Bench(script.url, "ldap") as bench:
        visitor = bench.sessions._kept[await login(bench)].visitor
        for i in range(100):
            bench.sessions.keep(f"h{i}", visitor, LDAP, "ldap", None)
        assert len(bench.sessions) == 10


async def test_a_worker_outlives_a_bug() -> None:
    async with Script(EMBEDDED, done(), OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        handle = await login(bench)
        visitor = bench.sessions._kept[handle].visitor
        for i in range(3):
            bench.sessions.keep(f"h{i}", None, UNREMEMBERED, "ldap", None)  # type: ignore[arg-type]
            bench.sessions.release(f"h{i}")
        bench.sessions.keep("good", visitor, UNREMEMBERED, "ldap", None)
        bench.sessions.release("good")
        await ended(bench)
        assert flows(script)[2:] == ["the-unbind-flow"]


async def test_sessions_are_left_alone_when_told_so() -> None:
    async with Script(EMBEDDED, done(), OUT) as script, Bench(script.url, "ldap", end_sessions=False) as bench:
        bench.sessions.release(await login(bench))
        await bench.sessions.stop(1)
        assert len(flows(script)) == 2


async def test_stopping_ends_what_is_known() -> None:
    async with Script(EMBEDDED, done(), OUT) as script, Bench(script.url, "ldap", end_sessions=True) as bench:
        bench.sessions.hold(await login(bench))
        await bench.sessions.stop(5)
        assert flows(script)[2:] == ["the-unbind-flow"]
