"""What makes a login, and everything that must not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    LdapProvider,
    Provider,
    RadiusProvider,
    Rejected,
    RejectReason,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from tests.backends.authentik.replay import Bench
from tests.backends.authentik.script import (
    ASKING,
    DONE,
    EMBEDDED,
    IDENTIFICATION,
    LDAP,
    ME,
    PASSING,
    PASSWORD,
    RADIUS,
    UID,
    Script,
    cookie,
    done,
    html,
    moved,
    reply,
    validate,
)

LOGIN = (IDENTIFICATION, moved(), PASSWORD, moved(), done())


async def decide(
    script: Script,
    provider: Provider = LDAP,
    username: str = "alice",
    secret: str | bytes = "pw",
    source: Source = ASKING,
    **options: Any,
) -> Decision:
    service = "ldap" if isinstance(provider, LdapProvider) else "radius"
    async with script, Bench(script.url, service, **options) as bench:
        return await bench.authority.authenticate(provider, username, Secret(secret), source)


def rejected(decision: Decision, reason: RejectReason) -> str:
    assert isinstance(decision, Rejected), decision
    assert decision.reason is reason
    assert decision.detail
    return decision.detail


async def test_flow_proof_and_access_together_make_a_login() -> None:
    script = Script(*LOGIN)
    decision = await decide(script)
    assert isinstance(decision, Accepted)
    assert (decision.identity.user_pk, decision.identity.username) == (5, "alice")
    assert decision.identity.can_search is True
    assert decision.expires_at is None
    assert decision.used_code is False
    assert script.posts == [
        {"component": "ak-stage-identification", "uid_field": "alice", "password": "pw"},
        {"component": "ak-stage-password", "password": "pw"},
    ]
    assert len(script.requests) == 7


async def test_the_end_of_the_session_cookie_is_the_end_of_the_login() -> None:
    decision = await decide(Script(*LOGIN[:-1], done(cookie(end="; Max-Age=60"))))
    assert isinstance(decision, Accepted)
    assert decision.expires_at is not None
    assert 0 < decision.expires_at - time.time() <= 60


# -- proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flow",
    [
        pytest.param((done(),), id="an empty flow of somebody logged in"),
        pytest.param((DONE,), id="an empty flow"),
        pytest.param((IDENTIFICATION, done()), id="a name without a password"),
        pytest.param(
            (IDENTIFICATION, moved(), PASSWORD, done(cookie("anonymous", authenticated=False))), id="no login"
        ),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, DONE), id="no cookie"),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, done(cookie("anonymous"))), id="anonymous says it is nobody"),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, done(cookie(authenticated="true"))), id="true as a word"),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, done(cookie(authenticated=1))), id="true as a number"),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, done(cookie(None))), id="no subject"),
        pytest.param((IDENTIFICATION, moved(), PASSWORD, done(cookie("6a" * 32))), id="another user's session"),
        pytest.param(
            (IDENTIFICATION, {"component": "xak-flow-redirect", "to": "/api/v3/flows/executor/the-flow/?query=x"}),
            id="back to the executor before any password check",
        ),
        pytest.param(
            (EMBEDDED, reply({"component": "xak-flow-redirect", "to": "/a/flows/executor/the-flow/"}, cookie())),
            id="back to the executor with a session",
        ),
        pytest.param((EMBEDDED, reply({"component": "ak-stage-access-denied"}, cookie())), id="login, then denied"),
    ],
)
@pytest.mark.parametrize("provider", [LDAP, RADIUS], ids=["ldap", "radius"])
async def test_an_end_of_a_flow_is_no_login(flow: tuple[Any, ...], provider: Provider) -> None:
    rejected(await decide(Script(*flow), provider), RejectReason.FLOW_ERROR)


@pytest.mark.parametrize("status", [401, 403])
async def test_nobody_according_to_the_server_is_no_login(status: int) -> None:
    script = Script(*LOGIN, me=reply({"detail": "Authentication credentials were not provided."}, status=status))
    rejected(await decide(script), RejectReason.FLOW_ERROR)


async def test_an_opaque_cookie_is_believed_only_with_the_servers_word() -> None:
    opaque = done("authentik_session=0123456789abcdef; Path=/")
    assert isinstance(await decide(Script(EMBEDDED, opaque)), Accepted)
    refused = Script(EMBEDDED, opaque, me=reply({"detail": "no"}, status=403))
    rejected(await decide(refused), RejectReason.FLOW_ERROR)


async def test_a_deactivated_user_is_refused() -> None:
    me = {"user": ME["user"] | {"is_active": False}}
    rejected(await decide(Script(*LOGIN, me=me)), RejectReason.INVALID_CREDENTIALS)


@pytest.mark.parametrize(
    "me",
    [
        {},
        {"user": None},
        {"user": []},
        {"user": {"pk": "5", "username": "alice", "uid": UID}},
        {"user": {"pk": True, "username": "alice", "uid": UID}},
        {"user": {"pk": 5, "uid": UID}},
        {"user": {"pk": 5, "username": "alice", "uid": UID, "is_active": "yes"}},
        {"user": {"pk": 5, "username": "alice", "uid": UID, "groups": [5]}},
    ],
)
async def test_a_user_of_unknown_shape_is_no_decision(me: dict[str, Any]) -> None:
    decision = await decide(Script(*LOGIN, me=me))
    assert isinstance(decision, Unavailable)
    assert decision.reason is UnavailableReason.BACKEND_ERROR


# -- access ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [False, None, "true", 1, [], {}, "missing"])
async def test_access_must_be_said_explicitly(value: object) -> None:
    access = {"access": {} if value == "missing" else {"passing": value}, "has_search_permission": True}
    rejected(await decide(Script(*LOGIN, access=access)), RejectReason.ACCESS_DENIED)
    legacy = {} if value == "missing" else {"passing": value}
    script = Script(*LOGIN, access=html(404), legacy=legacy)
    rejected(await decide(script), RejectReason.ACCESS_DENIED)


async def test_the_policies_own_words_reach_the_administrator() -> None:
    access = {"access": {"passing": False, "messages": ["come by\ndaylight", 5]}}
    assert r"come by\ndaylight" in rejected(await decide(Script(*LOGIN, access=access)), RejectReason.ACCESS_DENIED)


async def test_a_server_without_the_newer_question_is_asked_the_older_one() -> None:
    script = Script(*LOGIN, access=html(404), legacy={"passing": True})
    decision = await decide(script)
    assert isinstance(decision, Accepted)
    assert decision.identity.can_search is False
    assert "GET /api/v3/core/applications/the-app/check_access/" in script.requests


async def test_the_older_question_is_remembered() -> None:
    script = Script(EMBEDDED, done(), EMBEDDED, done(), access=html(404), legacy={"passing": True})
    async with script, Bench(script.url, "ldap") as bench:
        for _ in range(2):
            assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), Accepted)
    assert sum("/outposts/ldap/" in request for request in script.requests) == 1


@pytest.mark.parametrize(("group", "searches"), [("g1", True), ("g2", False), (None, False)])
async def test_before_search_permissions_the_search_group_decides(group: str | None, searches: bool) -> None:
    provider = LdapProvider(7, "d", "dc=x", "the-app", "the-flow", search_group=group)
    decision = await decide(Script(*LOGIN, legacy={"passing": True}), provider, is_legacy=True)
    assert isinstance(decision, Accepted)
    assert decision.identity.can_search is searches


@pytest.mark.parametrize("value", ["true", 1, None, "missing"])
async def test_search_permission_must_be_said_explicitly(value: object) -> None:
    access = {"access": {"passing": True}} | ({} if value == "missing" else {"has_search_permission": value})
    decision = await decide(Script(*LOGIN, access=access))
    assert isinstance(decision, Accepted)
    assert decision.identity.can_search is False


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_access_question_is_a_refusal(status: int) -> None:
    script = Script(*LOGIN, access=reply({"detail": "no"}, status=status), legacy={"passing": True})
    rejected(await decide(script), RejectReason.ACCESS_CHECK_FAIL)
    assert not any("/core/applications/" in request for request in script.requests)


@pytest.mark.parametrize("access", [html(500), html(502), html(200), reply([]), reply({"access": None}), reply({})])
async def test_a_failing_access_question_is_no_decision(access: web.Response) -> None:
    assert isinstance(await decide(Script(*LOGIN, access=access)), Unavailable)


async def test_a_provider_without_application_lets_nobody_in() -> None:
    provider = LdapProvider(7, "d", "dc=x", "", "the-flow")
    rejected(await decide(Script(*LOGIN), provider), RejectReason.ACCESS_CHECK_FAIL)


async def test_a_provider_without_flow_makes_no_decision() -> None:
    script = Script()
    assert isinstance(await decide(script, LdapProvider(7, "d", "dc=x", "the-app", "")), Unavailable)
    assert script.requests == []


# -- RADIUS ---------------------------------------------------------------------------------------


def radius_access(attributes: object) -> dict[str, Any]:
    return {"access": {"passing": True}, "attributes": attributes}


async def test_reply_attributes_are_the_servers_packet() -> None:
    decision = await decide(Script(EMBEDDED, done(), access=radius_access("AVoAFA==")), RADIUS)
    assert isinstance(decision, Accepted)
    assert decision.attributes.packet == b"\x01\x5a\x00\x14"
    assert decision.identity.can_search is False


async def test_reply_attributes_that_are_no_base64_refuse_the_login() -> None:
    script = Script(EMBEDDED, done(), access=radius_access("***"))
    rejected(await decide(script, RADIUS), RejectReason.ATTRIBUTE_DECODE_FAILED)


async def test_a_failed_property_mapping_may_refuse_the_login() -> None:
    decision = await decide(Script(EMBEDDED, done(), access=radius_access(None)), RADIUS)
    assert isinstance(decision, Accepted)
    assert decision.attributes.packet == b""
    script = Script(EMBEDDED, done(), access=radius_access(None))
    strict = await decide(script, RADIUS, refuse_on_mapping_failure=True)
    rejected(strict, RejectReason.ATTRIBUTE_PARSE_FAILED)


# -- what is not sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "secret", "reason"),
    [
        ("", "pw", RejectReason.INVALID_CREDENTIALS),
        ("  ", "pw", RejectReason.INVALID_CREDENTIALS),
        ("al\ud800ce", "pw", RejectReason.INVALID_CREDENTIALS),
        ("alice", "", RejectReason.EMPTY_PASSWORD),
        ("alice", b"\xff\xfe", RejectReason.INVALID_CREDENTIALS),
    ],
)
async def test_what_no_server_need_be_asked(username: str, secret: str | bytes, reason: RejectReason) -> None:
    script = Script(*LOGIN)
    rejected(await decide(script, username=username, secret=secret), reason)
    assert script.requests == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("radius.example", None),
        ("192.0.2.1:3389", None),
        ("192.0.2.1\r\nX-Evil: 1", None),
        ("", None),
    ],
)
async def test_only_a_bare_address_is_told(address: str, shown: str | None) -> None:
    script = Script(*LOGIN)
    await decide(script, source=Source("ldap", address))
    assert {headers.get("X-authentik-remote-ip") for headers in script.headers} == {shown}
    assert all("Authorization" not in headers and "X-Evil" not in headers for headers in script.headers)


async def test_a_post_after_the_login_carries_the_csrf_token() -> None:
    csrf = "authentik_csrf=abc; Path=/"
    login = {"component": "ak-stage-user-login"}
    script = Script(EMBEDDED, reply(login, cookie(), csrf), done())
    assert isinstance(await decide(script), Accepted)
    assert script.headers[2]["X-authentik-CSRF"] == "abc"
    assert script.headers[2]["Referer"].startswith(script.url)
    assert "X-authentik-CSRF" not in script.headers[1]


# -- codes ----------------------------------------------------------------------------------------


async def test_a_code_beats_a_push() -> None:
    script = Script(EMBEDDED, moved(), validate("duo", "webauthn", "totp"), moved(), done())
    decision = await decide(script, secret="pw;123456")
    assert isinstance(decision, Accepted)
    assert decision.used_code is True
    assert script.posts[0]["password"] == "pw"
    assert script.posts[1]["code"] == "123456"
    assert script.posts[1]["selected_challenge"]["device_class"] == "totp"
    assert "duo" not in script.posts[1]


async def test_without_a_code_the_push_is_asked_for() -> None:
    script = Script(EMBEDDED, moved(), validate("totp", "duo"), moved(), done())
    decision = await decide(script)
    assert isinstance(decision, Accepted)
    assert decision.used_code is False
    assert script.posts[1] == {
        "component": "ak-stage-authenticator-validate",
        "selected_challenge": {"device_class": "duo", "device_uid": "2", "challenge": {}},
        "duo": 2,
    }


async def test_a_slow_push_is_waited_for_longer_than_a_login() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.6)
        return await moved()(request)

    script = Script(EMBEDDED, moved(), validate("duo"), slow, done())
    assert isinstance(await decide(script, login_timeout_s=0.4, duo_timeout_s=10.0), Accepted)


async def test_a_push_that_nobody_answers_is_no_decision() -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return html(500)

    script = Script(EMBEDDED, moved(), validate("duo"), never)
    decision = await decide(script, login_timeout_s=0.2, duo_timeout_s=0.3)
    assert isinstance(decision, Unavailable)
    assert decision.reason is UnavailableReason.BACKEND_TIMEOUT


@pytest.mark.parametrize("classes", [("sms",), ("email", "webauthn"), ("sms", "email", "unheard-of")])
@pytest.mark.parametrize("secret", ["pw", "pw;123456"])
async def test_devices_that_make_the_server_send_something_are_never_selected(
    classes: tuple[str, ...], secret: str
) -> None:
    script = Script(EMBEDDED, moved(), validate(*classes), moved(), done())
    rejected(await decide(script, secret=secret), RejectReason.FLOW_ERROR)
    assert len(script.posts) == 1


async def test_a_code_that_no_stage_asked_for_is_still_not_remembered() -> None:
    decision = await decide(Script(EMBEDDED, done()), secret="pw;123456")
    assert isinstance(decision, Accepted)
    assert decision.used_code is True


async def test_without_mfa_support_the_password_goes_out_whole_and_as_the_code() -> None:
    provider = RadiusProvider(9, "n", "the-app", RADIUS.client_networks, Secret("s"), "the-flow", mfa_support=False)
    script = Script(EMBEDDED, moved(), validate("totp"), moved(), done())
    assert isinstance(await decide(script, provider, secret="pw;123456"), Accepted)
    assert script.posts[0]["password"] == "pw;123456"
    assert script.posts[1]["code"] == "pw;123456"


# -- challenges -----------------------------------------------------------------------------------

INTERACTIVE = Source("radius", "192.0.2.1", interactive=True)


async def test_an_interactive_client_is_asked_for_the_code_once() -> None:
    script = Script(EMBEDDED, moved(), validate("totp"), moved(), done(), access=radius_access("AVoAFA=="))
    async with script, Bench(script.url, "radius") as bench:
        challenge = await bench.authority.authenticate(RADIUS, "alice", Secret("pw"), INTERACTIVE)
        assert isinstance(challenge, Challenge)
        assert "pw" not in repr(challenge)
        decision = await bench.authority.resume(RADIUS, challenge.continuation, Secret("123456"), INTERACTIVE)
        assert isinstance(decision, Accepted)
        assert decision.used_code is True
        again = await bench.authority.resume(RADIUS, challenge.continuation, Secret("123456"), INTERACTIVE)
        rejected(again, RejectReason.FLOW_ERROR)
    assert script.posts[1]["code"] == "123456"


async def test_a_wrong_code_after_a_challenge_is_refused() -> None:
    wrong = validate("totp") | {"response_errors": {"code": [{"string": "Invalid Token", "code": "invalid"}]}}
    script = Script(EMBEDDED, moved(), validate("totp"), wrong)
    async with script, Bench(script.url, "radius") as bench:
        challenge = await bench.authority.authenticate(RADIUS, "alice", Secret("pw"), INTERACTIVE)
        assert isinstance(challenge, Challenge)
        decision = await bench.authority.resume(RADIUS, challenge.continuation, Secret("000000"), INTERACTIVE)
    rejected(decision, RejectReason.CODE_INVALID)


async def test_an_empty_answer_to_a_challenge_asks_for_a_push_or_is_refused() -> None:
    for classes, ends in ((("totp", "duo"), Accepted), (("totp",), Rejected)):
        script = Script(EMBEDDED, moved(), validate(*classes), moved(), done())
        async with script, Bench(script.url, "radius") as bench:
            challenge = await bench.authority.authenticate(RADIUS, "alice", Secret("pw"), INTERACTIVE)
            assert isinstance(challenge, Challenge)
            decision = await bench.authority.resume(RADIUS, challenge.continuation, Secret(""), INTERACTIVE)
            assert isinstance(decision, ends)


async def test_a_challenge_is_bound_to_its_provider_and_its_time() -> None:
    script = Script(EMBEDDED, moved(), validate("totp"), EMBEDDED, moved(), validate("totp"), moved(), done())
    other = RadiusProvider(10, "other", "app", RADIUS.client_networks, Secret("s"), "the-flow")
    async with script, Bench(script.url, "radius", challenge_timeout_s=0.05) as bench:
        first = await bench.authority.authenticate(RADIUS, "alice", Secret("pw"), INTERACTIVE)
        assert isinstance(first, Challenge)
        for provider, continuation in ((other, first.continuation), (RADIUS, object()), (RADIUS, None)):
            decision = await bench.authority.resume(provider, continuation, Secret("123456"), INTERACTIVE)
            rejected(decision, RejectReason.FLOW_ERROR)
        await asyncio.sleep(0.06)
        late = await bench.authority.resume(RADIUS, first.continuation, Secret("123456"), INTERACTIVE)
        rejected(late, RejectReason.CODE_REQUIRED)
    assert len(script.posts) == 1


async def test_clients_that_cannot_be_asked_are_told_that_a_code_is_wanted() -> None:
    detail = rejected(await decide(Script(EMBEDDED, validate("totp"))), RejectReason.CODE_REQUIRED)
    assert "a TOTP code" in detail


# -- bounds ---------------------------------------------------------------------------------------


async def test_logins_beyond_the_limit_wait_for_their_turn() -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        entered.set()
        await released.wait()
        return reply(EMBEDDED)

    script = Script(slow, done(), EMBEDDED, done())
    async with script, Bench(script.url, "ldap", login_concurrency=1) as bench:
        both = [
            asyncio.create_task(bench.authority.authenticate(LDAP, name, Secret("pw"), ASKING)) for name in ("a", "b")
        ]
        await entered.wait()
        assert len(script.requests) == 1
        released.set()
        assert all(isinstance(decision, Accepted) for decision in await asyncio.gather(*both))
    assert [post["uid_field"] for post in script.posts] == ["a", "b"]


async def test_a_login_that_never_gets_a_turn_is_told_busy_if_others_are_decided() -> None:
    script = Script(EMBEDDED, loop=True)
    async with script, Bench(script.url, "ldap", login_concurrency=1, login_timeout_s=0.3) as bench:
        turns = bench.authority.turns
        await turns.take()
        waiting = asyncio.create_task(bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING))
        await asyncio.sleep(0.1)
        turns.decided(0.1, asyncio.get_running_loop().time())
        decision = await waiting
        assert isinstance(decision, Unavailable)
        assert decision.reason is UnavailableReason.BUSY
        decision = await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING)
        assert isinstance(decision, Unavailable)
        assert decision.reason is UnavailableReason.BACKEND_TIMEOUT, "nothing was decided while it waited"
    assert script.requests == []


async def test_a_login_that_could_not_end_in_time_is_not_begun() -> None:
    script = Script(EMBEDDED, done())
    async with script, Bench(script.url, "ldap", login_concurrency=1, login_timeout_s=0.3) as bench:
        turns = bench.authority.turns
        turns.decided(0.25, asyncio.get_running_loop().time())
        await turns.take()
        waiting = asyncio.create_task(bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING))
        await asyncio.sleep(0.15)
        turns.give_back()
        assert isinstance(await waiting, Unavailable)
        assert script.requests == []
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), Accepted)
        assert turns.active == 0


async def test_what_was_waited_elsewhere_is_gone_of_the_deadline() -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return done()

    script = Script(hang, EMBEDDED, validate("totp"), hang, EMBEDDED, done())
    async with script, Bench(script.url, "ldap", login_timeout_s=30.0) as bench, asyncio.timeout(10):
        turns = bench.authority.turns
        late, too_late = replace(ASKING, waited_s=29.8, interactive=True), replace(ASKING, waited_s=30.0)
        told = await bench.authority.authenticate(LDAP, "alice", Secret("pw"), late)
        assert isinstance(told, Unavailable)
        assert told.reason is UnavailableReason.BACKEND_TIMEOUT
        assert turns.limit == turns.most, "the server had no time to be slow"
        told = await bench.authority.authenticate(LDAP, "alice", Secret("pw"), replace(late, waited_s=1.0))
        assert isinstance(told, Challenge)
        answer = await bench.authority.resume(LDAP, told.continuation, Secret("123456"), late)
        assert isinstance(answer, Unavailable)
        assert answer.reason is UnavailableReason.BACKEND_TIMEOUT
        asked = len(script.requests)
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), too_late), Unavailable)
        assert len(script.requests) == asked
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), Accepted)
        assert turns.active == 0


async def test_a_push_holds_no_turn() -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def push(request: web.Request) -> web.StreamResponse:
        entered.set()
        await released.wait()
        return done()

    script = Script(EMBEDDED, validate("duo"), push, EMBEDDED, done())
    async with script, Bench(script.url, "ldap", login_concurrency=1) as bench:
        pushed = asyncio.create_task(bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING))
        await entered.wait()
        assert isinstance(await bench.authority.authenticate(LDAP, "bob", Secret("pw"), ASKING), Accepted)
        released.set()
        assert isinstance(await pushed, Accepted)
        assert bench.authority.turns.active == 0


async def test_a_cancelled_login_is_cancelled_and_gives_its_turn_back() -> None:
    entered = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        entered.set()
        await asyncio.sleep(30)
        return done()

    script = Script(hang, EMBEDDED, done())
    async with script, Bench(script.url, "ldap", login_concurrency=1) as bench:
        task = asyncio.create_task(bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING), Accepted)


async def test_a_bug_is_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(*LOGIN, access=PASSING)
    async with script, Bench(script.url, "ldap") as bench:

        async def broken(*_: object) -> None:
            raise KeyError("bug")

        monkeypatch.setattr(bench.authority, "access", type("Broken", (), {"ask": broken})())
        with pytest.raises(KeyError):
            await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING)
