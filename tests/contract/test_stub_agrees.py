"""The stub server answers what the real servers answered: every recorded request is replayed and compared."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.stub_authentik import lab
from tests.stub_authentik.model import Plan, User
from tests.stub_authentik.server import Stub

UNPLAYED = {
    (
        "08-misc-errors-and-permissions",
        "/used_by/",
    ): "a view of the administrators' pages: the stub could but repeat it",
    ("08-misc-errors-and-permissions", "/core/applications/"): "the same: applications with all that is set up in them",
    ("08-misc-errors-and-permissions", "/providers/ldap/"): "the same: providers as administrators edit them",
    ("47-check-access", "for_user="): "asked with an administrator's token, which no outpost has",
}
"""Recorded requests that are not played to the stub, by recording and a part of their path, and why not.

The client reads the answers to them all the same (`test_client_reads_all.py`).
"""
STEPLESS = {
    "48-remote-ip-events": "what an administrator found in the server's log of events after logins",
    "80-websocket": (
        "frames in time with an administrator's changes: the handshakes are played below, the server's frames to the "
        "client in `test_client_agrees.py`; malformed frames, which no outpost sends, are not played"
    ),
}
"""Recordings without requests of an outpost, and what they are instead."""
MIDDLE = {"32-mfa-post-variants": ("erin", 2)}
"""Recordings that begin in the middle of a flow: of whom, and at which of its stages."""
VOLATILE = {
    # Values that differ from request to request; their presence and type are compared all the same.
    "flow_info", "request_id", "token", "config_url", "last_used", "last_login", "error_reporting", "capabilities",
    "autocomplete", "matched_domain", "branding_logo", "fingerprint_sha1", "cert_expiry",
    "cert_subject", "device_uid",
}  # fmt: skip
PLAYS = [
    pytest.param(version, name, id=f"{version}-{name}")
    for version in lab.versions()
    for name in lab.names(version)
    if name not in STEPLESS
]


class Replay:
    """One recording played to one stub; cookies of the recording are translated into the stub's."""

    def __init__(self, stub: Stub, http: aiohttp.ClientSession) -> None:
        self._stub = stub
        self._http = http
        self._cookies: dict[str, str] = {}

    async def step(self, step: dict[str, Any], name: str) -> list[str]:
        """What is different, empty when nothing is."""
        request, expected = step["request"], step["response"]
        headers = {
            key: value
            for key, value in request["headers"].items()
            if key.lower() not in ("host", "content-length", "cookie", "referer", "x-authentik-csrf")
        }
        given = _cookies(request["headers"].get("Cookie", ""))
        translated = {key: self._translate(key, value) for key, value in given.items()}
        if translated:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in translated.items())
        if "X-authentik-CSRF" in {
            key.title().replace("Authentik-Csrf", "authentik-CSRF") for key in request["headers"]
        }:
            headers["X-authentik-CSRF"] = translated.get("authentik_csrf", "")
        body = request["body"]
        data = None
        if body is not None:
            data = body["_raw"].encode() if "_raw" in body else json.dumps(body).encode()
        url = URL(f"http://127.0.0.1:{self._stub.port}{request['path']}", encoded=True)
        async with self._http.request(request["method"], url, headers=headers, data=data, allow_redirects=False) as got:
            content = await got.read()
            self._learn(expected["headers"], got.headers.getall("Set-Cookie", []))
            found: list[str] = []
            if got.status != expected["status"]:
                found.append(f"status {got.status}, recorded {expected['status']}")
            theirs = sorted(_set_cookies(v for k, v in expected["headers"] if k.lower() == "set-cookie"))
            ours = sorted(_set_cookies(got.headers.getall("Set-Cookie", [])))
            if ours != theirs:
                found.append(f"cookies {ours}, recorded {theirs}")
            locations = [v for k, v in expected["headers"] if k.lower() == "location"]
            if got.headers.getall("Location", []) != locations:
                found.append(f"location {got.headers.get('Location')}, recorded {locations}")
            is_json = isinstance(expected["body"], dict | list) and "_text" not in expected["body"]
            if request["method"] != "HEAD" and is_json != ("json" in got.content_type):
                found.append(f"{got.content_type}, recorded JSON: {is_json}")
            if not is_json or "json" not in got.content_type:
                return found
            return found + _differences(json.loads(content), expected["body"], "")

    def begin(self, step: dict[str, Any], name: str) -> None:
        """Put the step's session where the recording finds it when it begins in the middle of a flow."""
        if name not in MIDDLE:
            return
        username, position = MIDDLE[name]
        flow = step["request"]["path"].partition("/flows/executor/")[2].partition("/")[0]
        session = self._stub.executor.open()
        session.plan = Plan(flow, position, self._stub.user_named(username), username)
        cookie = _cookies(step["request"]["headers"]["Cookie"])["authentik_session"]
        self._cookies[cookie] = _cookies(self._stub.executor.cookie(session))["authentik_session"]

    def _translate(self, name: str, value: str) -> str:
        if value not in self._cookies and name == "authentik_session":
            user = self._subject(value)
            if user is not None:  # logged in by an earlier recording
                session = self._stub.executor.open()
                session.user, session.secret_revision, session.csrf = user, user.secret_revision, "csrf"
                self._cookies[value] = _cookies(self._stub.executor.cookie(session))["authentik_session"]
        return self._cookies.get(value, value)

    def _subject(self, cookie: str) -> User | None:
        parts = cookie.split(".")
        if len(parts) != 3:
            return None
        subject = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))["sub"]
        return next((user for user in self._stub.users.values() if user.uid == subject), None)

    def _learn(self, recorded: list[list[str]], ours: list[str]) -> None:
        mine = {}
        for header in ours:
            mine |= _cookies(header.partition(";")[0])
        for key, header in recorded:
            if key.lower() == "set-cookie":
                for name, value in _cookies(header.partition(";")[0]).items():
                    if name in mine:
                        self._cookies[value] = mine[name]


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";") if "=" in part)
    return {name: value for name, _, value in pairs}


def _set_cookies(headers: Any) -> list[tuple[str, bool, bool]]:
    """Name, whether it has an end, whether it is deleted; browsers' device memory counts for nothing."""
    found = []
    for header in headers:
        name = header.partition("=")[0]
        if name not in ("authentik_device", "authentik_mfa"):
            found.append((name, "expires=" in header, "Max-Age=0" in header))
    return found


def _differences(ours: Any, theirs: Any, where: str) -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [f"{where}.{key}: only ours" for key in ours.keys() - theirs.keys()]
        found += [f"{where}.{key}: missing" for key in theirs.keys() - ours.keys() if key not in LEFT_OUT]
        for key in ours.keys() & theirs.keys():
            if key not in VOLATILE and not (key == "attributes" and isinstance(theirs[key], str)):
                found += _differences(ours[key], theirs[key], f"{where}.{key}")
            elif type(ours[key]) is not type(theirs[key]) and None not in (ours[key], theirs[key]):
                found.append(f"{where}.{key}: another type")
        return found
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return [f"{where}: {len(ours)} elements, recorded {len(theirs)}"]
        if not where.endswith("results"):
            ours, theirs = sorted(ours, key=_pk), sorted(theirs, key=_pk)
        return [
            text
            for i, pair in enumerate(zip(ours, theirs, strict=True))
            for text in _differences(*pair, f"{where}[{i}]")
        ]
    return [] if ours == theirs else [f"{where}: {str(ours)[:80]!r}, recorded {str(theirs)[:80]!r}"]


def _pk(item: Any) -> str:
    return str(item.get("pk")) if isinstance(item, dict) else str(item)


LEFT_OUT = {
    # Branding and the like, which no outpost reads.
    "branding_logo", "branding_favicon", "branding_custom_css", "ui_footer_links", "ui_theme", "flow_user_settings",
    "flags",
}  # fmt: skip


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def why_not(name: str, step: dict[str, Any]) -> str:
    """Why a step is not played to the stub; empty when it is."""
    path = step["request"]["path"]
    return next((why for (where, part), why in UNPLAYED.items() if where == name and part in path), "")


def prepare(stub: Stub, content: dict[str, Any]) -> None:
    """One-time codes that the recording shows to be good."""
    who = (content.get("answers") or {}).get("ident", "")
    for step in content["steps"]:
        body = step["request"]["body"]
        if isinstance(body, dict) and body.get("code") and "response_errors" not in (step["response"]["body"] or {}):
            stub.user_named(who or "erin").codes.add(str(body["code"]))


@pytest.mark.parametrize(("version", "name"), PLAYS)
async def test_the_stub_answers_as_recorded(version: str, name: str, http: aiohttp.ClientSession) -> None:
    content = lab.recording(version, name)
    found = []
    async with lab.laboratory(version) as stub:
        prepare(stub, content)
        replay = Replay(stub, http)
        for i, step in enumerate(content["steps"]):
            if step.get("note", "").startswith("64 s after"):
                for session in stub.executor.sessions.values():
                    session.expires_at = 0.0
            if not why_not(name, step):
                replay.begin(step, name)
                label = f"{i} {step['request']['method']} {step['request']['path']}"
                found += [f"{label}: {text}" for text in await replay.step(step, name)]
    assert not found, "\n".join(found)


def test_a_difference_is_seen() -> None:
    assert _differences({"a": 1}, {"a": 2}, "")
    assert _differences({"a": 1}, {}, "")
    assert _differences({}, {"a": 1}, "")
    assert _differences({"a": [1]}, {"a": [1, 2]}, "")
    assert _differences({"a": {"b": None}}, {"a": {"b": "x"}}, "")
    assert _differences({"a": [{"b": 1}]}, {"a": [{"b": 1}]}, "") == []


@pytest.mark.parametrize("version", lab.versions())
async def test_users_without_their_groups_records_differ_in_nothing_else(
    version: str, http: aiohttp.ClientSession
) -> None:
    """As recorded of three users, and of everybody at the stub."""
    steps = {step["request"]["path"]: step for step in lab.recording(version, "22-users-filters")["steps"]}
    path = "/api/v3/core/users/?page=1&page_size=3&include_groups="
    bare, whole = (steps[path + text]["response"]["body"]["results"] for text in ("false", "true"))
    shows_records = version == "2023.6.1"
    assert [one["groups_obj"] for one in bare] == (
        [one["groups_obj"] for one in whole] if shows_records else [None] * 3
    )
    assert _without_records(bare) == _without_records(whole)
    headers = {"Authorization": f"Bearer {lab.token(steps[path + 'true'])}"}
    pages = lab.recording(version, "20-users-list-pages")["steps"]
    async with lab.laboratory(version) as stub:
        for step in pages:
            asked = step["request"]["path"].replace("&include_groups=true", "") + "&include_groups=false"
            recorded = step["response"]["body"]["results"]
            async with http.get(URL(f"{stub.url}{asked}", encoded=True), headers=headers) as got:
                shown = (await got.json())["results"]
            assert not _differences(_without_records(shown), _without_records(recorded), "results")
            wanted = [one["groups_obj"] if shows_records else None for one in recorded]
            assert not _differences([one["groups_obj"] for one in shown], wanted, "groups_obj")


def _without_records(users: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "groups_obj"} for one in users]


HANDSHAKES = [
    pytest.param(version, i, id=f"{version}-{shake['note']}")
    for version in lab.versions()
    for i, shake in enumerate(lab.recording(version, "80-websocket")["handshakes"])
]


@pytest.mark.parametrize(("version", "number"), HANDSHAKES)
async def test_the_event_channel_opens_as_recorded(version: str, number: int, http: aiohttp.ClientSession) -> None:
    shake = lab.recording(version, "80-websocket")["handshakes"][number]
    path = shake["request"]["line"].split(" ")[1]
    recorded = int(shake["response"]["status_line"].split(" ")[1])
    token = shake["request"]["headers"].get("Authorization", "")
    async with lab.laboratory(version) as stub:
        url = URL(f"http://127.0.0.1:{stub.port}{path}", encoded=True)
        try:
            async with http.ws_connect(url, headers={"Authorization": token} if token else {}) as socket:
                assert recorded == 101
                await socket.send_str('{"instruction": 1, "args": {"version": "x", "uuid": "y"}}')
                assert await socket.receive_json() == {"instruction": 0, "args": {}}
        except aiohttp.WSServerHandshakeError as exc:
            assert exc.status == recorded
