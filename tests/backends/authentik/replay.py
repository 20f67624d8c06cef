"""One recorded login played back by an HTTP server on loopback, which insists on the recorded requests.

The recorded octets come back unchanged: status, headers (cookies, Location) and body.  A request that the recording
does not have, or has at another place, is an error of the client and fails the test.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Self

import orjson
from aiohttp import web

from outpost import passcode
from outpost.backends.authentik.authority import FlowAuthority
from outpost.backends.authentik.client import Pool
from outpost.backends.authentik.observer import Silence
from outpost.backends.authentik.sessions import Sessions
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.identity import LdapProvider, Provider, RadiusProvider, Secret, Source
from tests.stub_authentik import lab

TOKEN = "replayed-token"
ADDRESS = "203.0.113.7"
AFTER = ("/check_access/", "/core/users/me/")
"""Asked after the flow, side by side: their order is free."""
SENT = ("date", "server", "content-length", "transfer-encoding", "connection")
"""Headers that the playing server sets itself."""


def logins(version: str) -> list[str]:
    """The recordings of whole logins."""
    return [name for name in lab.names(version) if "answers" in lab.recording(version, name)]


def users_me(version: str, username: str) -> object | None:
    """A user as `/core/users/me/` showed him, whichever recording has him."""
    for name in logins(version):
        for step in lab.recording(version, name)["steps"]:
            body = step["response"]["body"]
            if step["request"]["path"].endswith("/users/me/") and "user" in (body or {}):
                if body["user"]["username"] == username:
                    return body
    return None


@dataclass
class Player:
    """The server; `complaints` says what the client did that the recording does not have."""

    version: str
    record: dict[str, Any]
    complaints: list[str] = field(default_factory=list)
    asked: int = 0
    extra: int = 0
    """Requests that the recorded client did not make and that run beside another one."""

    def __post_init__(self) -> None:
        steps = self.record["steps"]
        self._flow = [step for step in steps if "/flows/executor/" in step["request"]["path"]]
        self._after = [step for step in steps if step not in self._flow]
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body = await request.read()
        self._judge_headers(request)
        if "/flows/executor/" in request.raw_path:
            return self._from_flow(request, body)
        for step in self._after:
            if step["request"]["path"] == request.raw_path and step["request"]["method"] == request.method:
                self._after.remove(step)
                return _play(step["response"])
        if request.path.endswith("/users/me/"):
            # The recorded RADIUS client did not ask who is logged in; the server would have answered this.
            self.extra += 1
            me = users_me(self.version, self.record["answers"]["ident"])
            return _play({"status": 200 if me else 403, "headers": [], "body": me or {"detail": "no"}})
        return self._complain(f"not in the recording: {request.method} {request.raw_path}")

    def _from_flow(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if not self._flow:
            return self._complain(f"after the end of the flow: {request.method} {request.raw_path}")
        step = self._flow.pop(0)
        expected = step["request"]
        if (request.method, request.raw_path) != (expected["method"], expected["path"]):
            return self._complain(f"{request.method} {request.raw_path}, not {expected['method']} {expected['path']}")
        if (orjson.loads(body) if body else None) != expected["body"]:
            self.complaints.append(f"body {body!r}, not {expected['body']}")
        theirs = expected["headers"].get("Cookie", "")
        if _cookies(request.headers.get("Cookie", "")) != _cookies(theirs):
            self.complaints.append(f"cookies {request.headers.get('Cookie')}, not {theirs}")
        return _play(step["response"])

    def _judge_headers(self, request: web.Request) -> None:
        headers = request.headers
        if "Authorization" in headers:
            self.complaints.append("Authorization on a user's request")
        if headers.get("X-authentik-outpost-token") != TOKEN:
            self.complaints.append("no outpost token")
        if headers.get("X-authentik-remote-ip") != ADDRESS:
            self.complaints.append("no client address")
        if not headers.get("User-Agent", "").startswith("goauthentik.io/outpost/"):
            self.complaints.append("not the user agent of an outpost")

    def _complain(self, what: str) -> web.Response:
        self.complaints.append(what)
        return web.Response(status=500)


def _cookies(header: str) -> set[str]:
    return {pair.strip() for pair in header.split(";") if pair.strip()}


def _play(recorded: dict[str, Any]) -> web.Response:
    content = recorded["body"]
    if isinstance(content, dict) and "_text" in content:
        octets = content["_text"].encode()
    else:
        octets = b"" if content is None else orjson.dumps(content)
    response = web.Response(status=recorded["status"], body=octets)
    for name, value in recorded["headers"]:
        if name.lower() == "content-type":
            response.headers["Content-Type"] = value
        elif name.lower() not in SENT:
            response.headers.add(name, value)
    if content is not None and "content-type" not in dict(recorded["headers"]):
        response.content_type = "application/json"
    return response


def provider_of(version: str, record: dict[str, Any]) -> Provider:
    """The provider that the recorded client stood for, with the recorded flow."""
    answers = record["answers"]
    mfa = "code" in answers or passcode.split(answers["password"].encode(), True)[1] is None
    for number in ("03", "04"):
        service = "ldap" if number == "03" else "radius"
        for raw in lab.bodies(version, f"{number}-outposts-{service}")[0]["results"]:
            if raw["application_slug"] != record["app"]:
                continue
            if service == "ldap":
                return LdapProvider(
                    raw["pk"], raw["name"], raw["base_dn"], record["app"], record["flow"],
                    search_group=raw.get("search_group"), mfa_support=mfa,
                )  # fmt: skip
            return _radius(raw["pk"], raw["name"], record, mfa)
    return _radius(6, "unknown", record, mfa)


def _radius(pk: int, name: str, record: dict[str, Any], mfa: bool) -> RadiusProvider:
    networks = (ip_network("0.0.0.0/0"),)
    return RadiusProvider(pk, name, record["app"], networks, Secret("s"), record["flow"], mfa_support=mfa)


def secret_of(record: dict[str, Any]) -> Secret:
    """What the client's user typed."""
    answers = record["answers"]
    return Secret(answers["password"] + (f";{answers['code']}" if "code" in answers else ""))


def source_of(provider: Provider) -> Source:
    return Source("ldap" if isinstance(provider, LdapProvider) else "radius", ADDRESS)


class Bench:
    """An authority with what it needs; `async with`."""

    def __init__(self, url: str, service: str, *, is_legacy: bool | None = None, **options: Any) -> None:
        options.setdefault("end_sessions", False)
        token = Secret(options.pop("token", TOKEN))
        self.settings = AuthentikSettings(url, {service: token}, **options)
        self.pool = Pool(self.settings, limit=self.settings.login_concurrency * 2)
        self.ended: list[str] = []
        self.sessions = Sessions(
            Silence(), self._default_slug, is_ending=self.settings.end_sessions, lease_s=self.settings.session_lease_s
        )
        self.authority = FlowAuthority(
            service=service, token=token, pool=self.pool, settings=self.settings,
            sessions=self.sessions, observer=Silence(), wall_clock=time.time,
        )  # fmt: skip
        self.authority.access.learn(is_legacy=is_legacy)

    async def _default_slug(self, service: str) -> str:
        return "default-invalidation-flow"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sessions.stop(1.0)
        await self.pool.close()
