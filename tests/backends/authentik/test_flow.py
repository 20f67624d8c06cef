"""Where a flow stops: bounds, repeats, words for the administrator, redirects."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from outpost.backends.authentik.flow import MAX_HOPS, MAX_POSTS, Visitor, visiting
from outpost.backends.authentik.stages import UNANSWERABLE, Answers
from outpost.identity import Accepted, RejectReason, Secret, Unavailable
from tests.backends.authentik.replay import Bench
from tests.backends.authentik.script import (
    EMBEDDED,
    EXECUTOR,
    IDENTIFICATION,
    PASSWORD,
    Script,
    done,
    moved,
    validate,
)
from tests.backends.authentik.test_authority import LOGIN, decide, rejected


def error(field: str, text: str) -> dict[str, Any]:
    return {"response_errors": {field: [{"string": text, "code": "invalid"}]}}


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", sorted(UNANSWERABLE))
async def test_stages_nobody_can_answer_are_named(component: str) -> None:
    script = Script(EMBEDDED, {"component": component})
    detail = rejected(await decide(script), RejectReason.FLOW_ERROR)
    assert UNANSWERABLE[component] in detail
    assert component in detail
    assert len(script.posts) == 1


@pytest.mark.parametrize("component", ["ak-source-oauth", "ak-stage-of-the-future", "", "ak-stage-password "])
async def test_unknown_stages_are_refused_by_name(component: str) -> None:
    detail = rejected(await decide(Script(EMBEDDED, {"component": component})), RejectReason.FLOW_ERROR)
    assert f"({component})" in detail


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("webauthn",), "a WebAuthn device"),
        (("sms", "email", "sms"), "a code sent by SMS or a code sent by e-mail"),
        (("quantum",), "a device of class 'quantum'"),
        ((), "a second factor"),
    ],
)
async def test_second_factors_are_named(classes: tuple[str, ...], words: str) -> None:
    assert words in rejected(await decide(Script(EMBEDDED, validate(*classes))), RejectReason.FLOW_ERROR)


async def test_enrolment_is_named() -> None:
    challenge = validate() | {"configuration_stages": [{"pk": "1"}]}
    assert "enrolment" in rejected(await decide(Script(EMBEDDED, challenge)), RejectReason.FLOW_ERROR)


async def test_the_denial_s_message_is_quoted_on_one_line() -> None:
    denied = {"component": "ak-stage-access-denied", "error_message": "no\nway " + "x" * 1000}
    detail = rejected(await decide(Script(denied)), RejectReason.FLOW_ERROR)
    assert r"no\nway" in detail
    assert "\n" not in detail
    assert len(detail) < 300


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (PASSWORD | error("password", "Invalid password"), RejectReason.INVALID_CREDENTIALS),
        (PASSWORD | error("non_field_errors", "Failed"), RejectReason.INVALID_CREDENTIALS),
        (EMBEDDED | error("uid_field", "Null characters are not allowed."), RejectReason.INVALID_CREDENTIALS),
        (EMBEDDED | error("captcha_token", "wanted"), RejectReason.FLOW_ERROR),
        (validate("totp") | error("code", "Invalid Token"), RejectReason.CODE_INVALID),
        (validate("duo") | error("duo", "denied"), RejectReason.CODE_INVALID),
        ({"component": "xak-flow-redirect", "to": "/"} | error("password", "no"), RejectReason.FLOW_ERROR),
        (PASSWORD | {"response_errors": {"password": "text"}}, RejectReason.INVALID_CREDENTIALS),
        (PASSWORD | {"response_errors": {"password": []}}, RejectReason.INVALID_CREDENTIALS),
        (PASSWORD | {"response_errors": {"password": [5]}}, RejectReason.INVALID_CREDENTIALS),
    ],
)
async def test_errors_of_a_stage_refuse_the_login(challenge: dict[str, Any], reason: RejectReason) -> None:
    rejected(await decide(Script(IDENTIFICATION, challenge, done())), reason)


async def test_a_failing_server_inside_a_flow_is_no_refusal() -> None:
    decision = await decide(Script(EMBEDDED, {"component": "ak-stage-flow-error", "request_id": "abc"}))
    assert isinstance(decision, Unavailable)
    assert "abc" in decision.detail


# -- repeats and bounds ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (IDENTIFICATION, RejectReason.FLOW_ERROR),
        (EMBEDDED, RejectReason.INVALID_CREDENTIALS),
        (PASSWORD, RejectReason.INVALID_CREDENTIALS),
        (validate("totp"), RejectReason.CODE_INVALID),
        (validate("duo"), RejectReason.INVALID_CREDENTIALS),
        ({"component": "ak-stage-user-login"}, RejectReason.FLOW_ERROR),
    ],
)
async def test_a_stage_that_comes_back_is_answered_once(challenge: dict[str, Any], reason: RejectReason) -> None:
    # Two attempts at one password would be two failed logins for the server, and so would eight more.
    mfa = challenge["component"].endswith("validate") and challenge["device_challenges"][0]["device_class"] == "totp"
    script = Script(challenge, loop=True)
    rejected(await decide(script, secret="pw;123456" if mfa else "pw"), reason)
    assert len(script.posts) == 1


async def test_a_flow_that_starts_over_is_stopped_at_the_first_repeat() -> None:
    script = Script(IDENTIFICATION, moved(), PASSWORD, moved(), IDENTIFICATION, moved(), PASSWORD, moved(), done())
    detail = rejected(await decide(script), RejectReason.INVALID_CREDENTIALS)
    assert "ak-stage-identification" in detail
    assert len(script.posts) == 2


async def test_a_flow_has_at_most_ten_answers() -> None:
    count = 0

    async def another(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        challenge = validate("totp")
        challenge["device_challenges"][0]["device_uid"] = str(count)
        return web.json_response(challenge)

    script = Script(another, loop=True)
    rejected(await decide(script, secret="pw;123456"), RejectReason.FLOW_ERROR)
    assert len(script.posts) == MAX_POSTS == 10


async def test_ten_answers_are_enough_for_a_login_at_the_eleventh_challenge() -> None:
    stages = []
    for i in range(MAX_POSTS - 1):
        challenge = validate("totp")
        challenge["device_challenges"][0]["device_uid"] = str(i)
        stages.append(challenge)
    assert isinstance(await decide(Script(EMBEDDED, *stages, done()), secret="pw;123456"), Accepted)


# -- redirects ------------------------------------------------------------------------------------


async def test_a_redirect_loop_ends() -> None:
    script = Script(EMBEDDED, moved(), loop=True)
    decision = await decide(script)
    assert isinstance(decision, Unavailable)
    assert "redirects in a row" in decision.detail
    assert len(script.requests) == 1 + 1 + MAX_HOPS


@pytest.mark.parametrize(
    "location",
    [
        "/if/flow/the-flow/",
        "https://elsewhere.example/",
        "//elsewhere.example/",
        EXECUTOR.replace("%252F", "%2F"),
        EXECUTOR.replace("%3D", "="),
        EXECUTOR + "&x=1",
        "",
        "http://[broken",
        "/" + "x" * 4000,
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_other_redirects_are_not_followed(location: str, status: int) -> None:
    script = Script(EMBEDDED, moved(location or "/", status=status), done())
    decision = await decide(script)
    assert isinstance(decision, Unavailable)
    assert "AUTHENTIK_HOST" in decision.detail
    assert len(decision.detail) < 400
    assert len(script.requests) == 2


async def test_an_upgrade_to_https_is_told_and_not_tried_again() -> None:
    script = Script(moved("https://127.0.0.1" + EXECUTOR, status=301))
    decision = await decide(script)
    assert isinstance(decision, Unavailable)
    assert "https://127.0.0.1" in decision.detail
    assert len(script.requests) == 1


async def test_an_absolute_location_of_another_host_asks_our_own_server() -> None:
    script = Script(EMBEDDED, moved("http://internal.example" + EXECUTOR), done())
    assert isinstance(await decide(script), Accepted)


@pytest.mark.parametrize("hidden", [False, True], ids=["server knows the sub-path", "gateway hides it"])
async def test_a_server_below_a_sub_path(hidden: bool) -> None:
    location = EXECUTOR if hidden else "/sub/path" + EXECUTOR
    script = Script(EMBEDDED, moved(location), done(), prefix="/sub/path")
    assert isinstance(await decide(script), Accepted)
    assert all(" /sub/path/api/v3/" in request for request in script.requests)


async def test_the_query_is_encoded_as_the_server_does_it() -> None:
    script = Script(*LOGIN)
    await decide(script)
    assert {request for request in script.requests if "/flows/" in request} == {f"GET {EXECUTOR}", f"POST {EXECUTOR}"}


async def test_cookies_are_flat_and_the_newest_counts() -> None:
    domain = "; Domain=idp.example; Path=/elsewhere; Secure"
    script = Script(
        IDENTIFICATION,
        moved("", "a=1" + domain, "b=2"),
        PASSWORD,
        moved("", "a=3" + domain, "b=; Max-Age=0"),
        done(),
    )
    assert isinstance(await decide(script), Accepted)
    assert [headers.get("Cookie") for headers in script.headers[:5]] == [None, None, "a=1; b=2", "a=1; b=2", "a=3"]


# -- secrets --------------------------------------------------------------------------------------


async def test_secrets_have_no_repr() -> None:
    async with Bench("http://127.0.0.1:1", "ldap") as bench:
        visitor = Visitor.arriving(bench.pool, visiting(Secret("the-token"), "1"), "192.0.2.1")
        visitor.jar.receive(["authentik_session=the-cookie"], 0.0)
        shown = repr(visitor) + repr(visitor.jar) + repr(Answers("alice", "the-password", "the-code"))
        for secret in ("the-token", "the-cookie", "the-password", "the-code"):
            assert secret not in shown
