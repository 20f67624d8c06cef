"""A server on loopback that answers a login as a test tells it to: the flow's steps in order, access and users/me."""

from __future__ import annotations

import asyncio
import base64
import pathlib
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any, Self

import orjson
from aiohttp import web

from outpost.identity import LdapProvider, RadiusProvider, Secret, Source

UID = "5f" * 32
FLOW = "the-flow"
EXECUTOR = f"/api/v3/flows/executor/{FLOW}/?query=goauthentik.io%252Foutpost%252Fldap%3Dtrue"
"""As the server writes it, octet by octet."""
LDAP = LdapProvider(7, "directory", "dc=example,dc=com", "the-app", FLOW, "the-unbind-flow")
RADIUS = RadiusProvider(9, "network", "the-app", (ip_network("0.0.0.0/0"),), Secret("s"), FLOW)
ASKING = Source("ldap", "192.0.2.1")
IDENTIFICATION = {"component": "ak-stage-identification", "password_fields": False}
EMBEDDED = {"component": "ak-stage-identification", "password_fields": True}
PASSWORD = {"component": "ak-stage-password"}
DONE = {"component": "xak-flow-redirect", "to": "/"}
ME = {"user": {"pk": 5, "username": "alice", "uid": UID, "is_active": True, "groups": [{"pk": "g1", "name": "x"}]}}
PASSING = {"access": {"passing": True, "messages": []}, "has_search_permission": True}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Step = dict[str, Any] | web.Response | Handler


def validate(*classes: str) -> dict[str, Any]:
    devices = [{"device_class": kind, "device_uid": str(i + 1), "challenge": {}} for i, kind in enumerate(classes)]
    return {"component": "ak-stage-authenticator-validate", "device_challenges": devices, "configuration_stages": []}


def cookie(subject: str | None = UID, *, authenticated: object = True, end: str = "", key: str = "key") -> str:
    """A Set-Cookie header with a session."""
    claims = orjson.dumps({"sid": key, "sub": subject, "authenticated": authenticated})
    middle = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
    return f"authentik_session=e30.{middle}.sig; HttpOnly; Path=/; SameSite=Lax{end}"


def reply(content: object, *cookies: str, status: int = 200) -> web.Response:
    response = web.Response(status=status, body=orjson.dumps(content), content_type="application/json")
    for value in cookies:
        response.headers.add("Set-Cookie", value)
    return response


def html(status: int) -> web.Response:
    return web.Response(status=status, text="<html>no</html>", content_type="text/html")


def done(*cookies: str) -> web.Response:
    return reply(DONE, *(cookies or (cookie(),)))


def moved(location: str = "", *cookies: str, status: int = 302) -> Handler:
    """A redirect, by default to the request's own URL."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.Response(status=status, headers={"Location": location or request.raw_path})
        for value in cookies:
            response.headers.add("Set-Cookie", value)
        return response

    return answer


class Script:
    """`flow` is used up step by step; the last step may repeat for ever with `loop`."""

    def __init__(
        self,
        *flow: Step,
        me: Step = ME,
        access: Step = PASSING,
        legacy: Step | None = None,
        other: Handler | None = None,
        loop: bool = False,
        prefix: str = "",
    ) -> None:
        self._flow = list(flow)
        self._me, self._access, self._legacy, self._other, self._loop = me, access, legacy, other, loop
        self._prefix = prefix
        self.socket: pathlib.Path | None = None
        """Listen here instead of on a port."""
        self.tls: ssl.SSLContext | None = None
        self.requests: list[str] = []
        self.posts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()
        return self

    async def _listen(self) -> None:
        if self.socket is not None:
            await web.UnixSite(self._runner, self.socket).start()
            self.url = f"unix://{self.socket}"
            return
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        assert site._server is not None
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}{self._prefix}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        for _ in range(3):  # transports close on later turns of the loop
            await asyncio.sleep(0)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path}")
        self.headers.append(dict(request.headers))
        path = request.path.removeprefix(self._prefix)
        if path.startswith("/api/v3/flows/executor/"):
            if request.method == "POST":
                self.posts.append(orjson.loads(await request.read()))
            if not self._flow:
                return html(500)
            step = self._flow[0] if self._loop and len(self._flow) == 1 else self._flow.pop(0)
        elif path == "/api/v3/core/users/me/":
            step = self._me
        elif path.startswith("/api/v3/outposts/"):
            step = self._access
        elif path.startswith("/api/v3/core/applications/") and self._legacy is not None:
            step = self._legacy
        elif self._other is not None:
            step = self._other
        else:
            return html(404)
        if callable(step):
            return await step(request)
        if isinstance(step, dict):
            return reply(step)
        return web.Response(status=step.status, body=step.body, headers=step.headers)
