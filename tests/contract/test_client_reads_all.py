"""Our client is given every recorded answer, each at the place where it hurts most; and no recording is left out."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web

from outpost.backends.authentik.client import Client, NoJson, NotFound, RequestRefused, TokenRefused, refusal
from outpost.errors import BackendError, BackendUnavailable
from outpost.identity import Accepted, LdapProvider, Rejected, RejectReason, Secret, Source, Unavailable
from tests.backends.authentik.replay import Bench, _play
from tests.backends.authentik.script import EMBEDDED, FLOW, PASSING
from tests.contract.test_client_agrees import answer_of
from tests.contract.test_stub_agrees import HANDSHAKES, PLAYS, STEPLESS, UNPLAYED, why_not
from tests.stub_authentik import lab

EXECUTOR = "/flows/executor/"
TOKEN = "the-outposts-token"
PROVIDER = LdapProvider(7, "directory", "dc=example,dc=com", "the-app", FLOW)
SOURCE = Source("ldap", "192.0.2.1")
DENIED = {"component": "ak-stage-access-denied", "error_message": "the recording ends here"}
FILES = [(version, path.stem) for version in lab.versions() for path in sorted((lab.CONTRACT / version).iterdir())]
RECORDINGS = [pytest.param(*one, id="-".join(one)) for one in FILES if lab.recording(*one).get("steps")]


def answers(version: str, name: str, *, flow: bool) -> list[dict[str, Any]]:
    steps = lab.recording(version, name)["steps"]
    return [step for step in steps if (EXECUTOR in step["request"]["path"]) is flow]


def subject(step: dict[str, Any]) -> str:
    """Who is logged in by the session cookie that a recorded answer sets; empty when nobody is."""
    for key, header in step["response"]["headers"]:
        name, _, value = header.partition(";")[0].partition("=")
        if key.lower() == "set-cookie" and name == "authentik_session" and value.count(".") == 2:
            claims = json.loads(base64.urlsafe_b64decode(value.split(".")[1] + "=="))
            return str(claims["sub"]) if claims["authenticated"] else ""
    return ""


class OneAnswer:
    """A server that answers everything with one recorded answer; a login's password as well, and lets everybody in."""

    def __init__(self) -> None:
        self.step: dict[str, Any] = {}
        self.asked: list[str] = []
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        if f"{EXECUTOR}{FLOW}/" not in request.path:
            if request.path.endswith("/me/") and EXECUTOR in self.step["request"]["path"]:
                user = {"pk": 5, "username": "x", "uid": subject(self.step), "is_active": True, "groups": []}
                return web.json_response({"user": user})
            if "/check_access/" in request.path and EXECUTOR in self.step["request"]["path"]:
                return web.json_response(PASSING)
            return _play(self.step["response"])
        if len(self.asked) == 1:
            return web.json_response(EMBEDDED)
        return _play(self.step["response"]) if len(self.asked) == 2 else web.json_response(DENIED)


@pytest.fixture
async def server() -> AsyncIterator[OneAnswer]:
    found = OneAnswer()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", found.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.mark.parametrize(("version", "name"), RECORDINGS)
async def test_every_recorded_answer_of_the_api_is_read_or_refused(version: str, name: str, server: OneAnswer) -> None:
    """Asked for with our own requests, so that what is read of a recorded POST is its answer."""
    async with Bench(server.url, "ldap", token=TOKEN, attempts=1) as bench:
        client = Client(bench.pool, Secret(TOKEN), bench.settings, version)
        for step in answers(version, name, flow=False):
            server.step, response = step, step["response"]
            parts = urlsplit(step["request"]["path"])
            query = parse_qsl(parts.query, keep_blank_values=True)
            try:
                content = await client.get(parts.path.removeprefix("/api/v3"), tuple(query))
            except BackendError as exc:
                judge_refusal(response, exc)
            else:
                assert (response["status"], content) == (200, response["body"])
            method, _, asked = server.asked[-1].partition(" ")
            assert method == "GET"
            if parts.path.startswith("/api/v3/"):
                assert urlsplit(asked).path == parts.path
                assert parse_qsl(urlsplit(asked).query, keep_blank_values=True) == query


def judge_refusal(response: dict[str, Any], error: BackendError) -> None:
    status, body = response["status"], response["body"]
    is_json = isinstance(body, dict | list) and "_text" not in body
    if status == 200:
        assert not is_json
        assert type(error) is NoJson
    else:
        kinds = {400: RequestRefused, 401: TokenRefused, 403: TokenRefused, 404: NotFound}
        assert type(error) is kinds.get(status, BackendUnavailable)
    text = str(error)
    assert text.isprintable()
    assert len(text) < 400
    assert TOKEN not in text
    if isinstance(error, NotFound):
        assert error.is_api is is_json
    elif 300 <= status < 400:
        assert "redirects" in text
    elif status != 200:
        assert f"HTTP {status}" in text
    if is_json and status != 200 and "detail" in body:
        assert body["detail"] in text


@pytest.mark.parametrize(("version", "name"), RECORDINGS)
async def test_no_recorded_answer_in_the_middle_of_a_flow_lets_in_whom_the_server_does_not(
    version: str, name: str, server: OneAnswer
) -> None:
    """Each is the answer to a password, at a server that says yes to everything asked after the flow."""
    async with Bench(server.url, "ldap", token=TOKEN, is_legacy=False) as bench:
        for step in answers(version, name, flow=True):
            server.step, response = step, step["response"]
            server.asked.clear()
            decision = await bench.authority.authenticate(PROVIDER, "erin", Secret("pw-erin-1;123456"), SOURCE)
            assert len(server.asked) >= 2
            body = response["body"] if isinstance(response["body"], dict) else {}
            component = body.get("component")
            is_end = component == "xak-flow-redirect" and EXECUTOR not in body["to"]
            is_login = response["status"] == 200 and is_end and subject(step) != ""
            assert isinstance(decision, Accepted) is is_login, (decision, step)
            if is_login:
                continue
            assert isinstance(decision, Rejected | Unavailable)
            assert decision.detail.isprintable()
            assert decision.detail
            if response["status"] >= 400 or component in (None, "ak-stage-flow-error"):
                assert isinstance(decision, Unavailable)
            elif body.get("response_errors") and component == "ak-stage-authenticator-validate":
                assert isinstance(decision, Rejected)
                assert decision.reason is RejectReason.CODE_INVALID
            else:
                assert isinstance(decision, Rejected)
                if component == "xak-flow-redirect" and not is_end:
                    assert "redirected to itself" in decision.detail


@pytest.mark.parametrize("version", lab.versions())
def test_a_healthy_server_s_liveness_is_no_answer_of_the_api(version: str) -> None:
    live, ready, metrics = (answer_of(step["response"]) for step in answers(version, "09-health", flow=False))
    wanted = (204, 401) if version == "2023.6.1" else (200, 500)
    assert (live.status, metrics.status) == (ready.status, metrics.status) == wanted
    for answer in (live, ready):
        assert (answer.is_json, answer.body) == (False, b"")
        if answer.status == 204:
            assert str(refusal(answer, "x")) == "x: HTTP 204 from the server or a gateway in front of it"
    assert type(refusal(metrics, "x")) is (TokenRefused if metrics.status == 401 else BackendUnavailable)


# -- completeness ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "name"), FILES)
def test_no_recording_is_left_out(version: str, name: str) -> None:
    """Every file is played to the stub and to the client, or stands in the list with a reason."""
    content = lab.recording(version, name)
    played = {param.values for param in PLAYS}
    if content.get("steps"):
        assert (version, name) in played
        assert (version, name) in {param.values for param in RECORDINGS}
        left_out = [why_not(name, step) for step in content["steps"]]
        assert not all(left_out), "a recording of which nothing is played belongs in the list as a whole"
    elif "handshakes" in content:
        numbers = {param.values[1] for param in HANDSHAKES if param.values[0] == version}
        assert numbers == set(range(len(content["handshakes"])))
        assert set(content) <= {"name", "description", "handshakes", "sessions", "steps"}
        assert STEPLESS.get(name)
    else:
        assert STEPLESS.get(name), f"{name} is neither played nor in the list"


def test_the_lists_name_what_there_is() -> None:
    steps = [(name, step) for version, name in FILES for step in lab.recording(version, name).get("steps", [])]
    for (name, part), reason in UNPLAYED.items():
        assert reason
        assert any(where == name and part in step["request"]["path"] for where, step in steps), (name, part)
    for name in STEPLESS:
        assert name in {one for _, one in FILES}
        assert all(not lab.recording(version, name).get("steps") for version in lab.versions())
    assert sum(bool(why_not(name, step)) for name, step in steps) == 8
