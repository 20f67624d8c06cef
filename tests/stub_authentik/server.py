"""The stub server itself: state, life, event channel, faults on demand."""

from __future__ import annotations

import asyncio
import gzip
import pathlib
import re
import ssl
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Self

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from tests.stub_authentik import render
from tests.stub_authentik.flows import Executor
from tests.stub_authentik.model import (
    NEW,
    Application,
    Flow,
    Group,
    KeyPair,
    Outpost,
    Plan,
    Provider,
    Release,
    Session,
    User,
    default_flows,
    now_text,
)
from tests.stub_authentik.network import swallow
from tests.stub_authentik.rest import PASSWORD_STAGE, Rest, html

LDAP_TOKEN = "stub-ldap-token"
RADIUS_TOKEN = "stub-radius-token"
NO_ATTRIBUTES = bytes.fromhex("01 5a 00 14") + bytes(16)
"""The packet that a RADIUS provider without property mappings makes."""


@dataclass
class Fault:
    """Something that goes wrong for requests whose path and query match `pattern`.

    kind: `status` (with `status`), `hang`, `slow` (with `delay_s`), `truncate`, `reset` or `html`.
    """

    pattern: str
    kind: str = "status"
    status: int = 500
    delay_s: float = 0.0
    times: int | None = None
    """How often; None: until removed."""
    skip: int = 0
    """Requests that match and go well before."""
    hits: int = 0


class Stub:
    """One authentik server on a loopback port, which stays the same over stop and start."""

    def __init__(self, release: Release = NEW, *, prefix: str = "") -> None:
        self.release = release
        self.prefix = prefix
        self.address = "127.0.0.1"
        """Of loopback; where it listens from its next start on."""
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.socket: pathlib.Path | None = None
        """Listen here instead of on a port."""
        self.users: dict[int, User] = {}
        self.groups: dict[str, Group] = {}
        self.providers: dict[int, Provider] = {}
        self.apps: dict[str, Application] = {}
        self.outposts: dict[str, Outpost] = {}
        self.shows_all_outposts = False
        """As to an administrator's token."""
        self.key_pairs: dict[str, KeyPair] = {}
        self.flows: dict[str, Flow] = default_flows()
        self.executor = Executor(self)
        self.change_flow = "default-password-change"
        """The password stage's configuration flow; empty: it has none."""
        self.configure_url = ""
        """What the user settings name in its place."""
        self.policy_message = "Password needs to be 8 characters or longer."
        self.writes_passwords = True
        """False: the flow skips its write stage, as it does when a policy is bound to that."""
        self.faults: list[Fault] = []
        self.max_page_size = 100_000
        self.packs = False
        """Answers are compressed for whoever takes gzip, as the server's router does it."""
        self.packing_level = 6
        self.withholds_groups = ""
        """What no server does: leave out a user's list of groups (`missing`, `null`, `empty`) where their records are
        not asked for; `always`: there, too."""
        self.crowd: list[User] | None = None
        """All users by pk, where nobody comes or goes any more: many thousands are not sorted for every page."""
        self.push_delay_s = 0.0
        self.clock_ahead_s = 0.0
        """What the Date header is ahead of the machine."""
        self.flow_delay_s = 0.0
        """Added to every request at the executor: a slow server."""
        self.flow_work_s = 0.0
        """Every request at the executor keeps the only worker busy for this long."""
        self._worker = asyncio.Lock()
        self.requests: deque[str] = deque(maxlen=50_000)
        self.counts: Counter[str] = Counter()
        """Requests by path without numbers."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.logins = self.logouts = self.password_checks = self.key_views = 0
        self.channels: list[tuple[Outpost, web.WebSocketResponse]] = []
        self.handshakes: list[web.Request] = []
        self.hellos: list[dict[str, Any]] = []
        self.refuses_channel = False
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._vanished: list[web.AppRunner] = []
        self._members: dict[str, list[User]] | None = None
        self._shown: dict[tuple[int, bool], bytes] = {}

    # -- life -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        if self.socket is not None:
            return f"unix://{self.socket}"
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.port}{self.prefix}"

    async def start(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        api = f"{self.prefix}/api/v3"
        app.router.add_routes(Rest(self).routes(self.prefix))
        app.router.add_route("*", f"{api}/flows/executor/{{slug}}/", self._flow)
        app.router.add_get(f"{self.prefix}/flows/-/configure/{PASSWORD_STAGE}/", self._configure)
        app.router.add_get(f"{self.prefix}/ws/outpost/{{pk}}/", self._channel)
        app.router.add_get(f"{self.prefix}/-/health/{{which:live|ready}}/", self._healthy)
        app.router.add_get(f"{self.prefix}/-/metrics/", self._metrics)
        app.router.add_route("*", "/{rest:.*}", self._nothing)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self._runner = runner
        if self.socket is not None:
            await web.UnixSite(runner, self.socket).start()
            return
        await web.TCPSite(runner, self.address, self.port, ssl_context=self.tls, reuse_address=True).start()
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for _, socket in list(self.channels):
            await socket.close(code=WSCloseCode.SERVICE_RESTART)
        await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    def vanish(self) -> None:
        """Be gone from the network: whatever is sent here, by whom it is connected or not, is lost without a word."""
        runner, self._runner = self._runner, None
        assert runner is not None and runner.server is not None
        for site in runner.sites:
            assert isinstance(site, web.TCPSite) and site._server is not None
            for listener in site._server.sockets:  # type: ignore[attr-defined]
                swallow(listener)
        for connection in runner.server.connections:
            assert connection.transport is not None
            swallow(connection.transport.get_extra_info("socket"))
        self._vanished.append(runner)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for runner in self._vanished:
            await runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.raw_path.removeprefix(self.prefix)}")
        self.counts[re.sub(r"[0-9a-f-]{36}|(?<=/)[0-9]+(?=/)", "N", request.path.removeprefix(self.prefix))] += 1
        self._notify()
        is_channel = "/ws/" in request.path
        self.in_flight += not is_channel
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            fault = self._fault(request)
            if fault is not None:
                return await self._go_wrong(fault, request, handler)
            answer: web.StreamResponse = await handler(request)
            if self.packs and "gzip" in request.headers.get("Accept-Encoding", ""):
                _pack(answer, self.packing_level)
            if self.clock_ahead_s:
                answer.headers["Date"] = formatdate(time.time() + self.clock_ahead_s, usegmt=True)
            return answer
        finally:
            self.in_flight -= not is_channel

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if re.search(fault.pattern, request.raw_path) and (fault.times is None or fault.hits < fault.times):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                return fault
        return None

    async def _go_wrong(self, fault: Fault, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        match fault.kind:
            case "status":
                return html(fault.status)
            case "html":
                return html(200)
            case "hang":
                while fault in self.faults and transport is not None and not transport.is_closing():
                    await asyncio.sleep(0.02)
            case "slow":
                await asyncio.sleep(fault.delay_s)
                answer: web.StreamResponse = await handler(request)
                return answer
            case "truncate":
                whole = await handler(request)
                return web.Response(body=whole.body[: len(whole.body) // 2], content_type="application/json")
        if transport is not None:
            transport.abort()
        raise asyncio.CancelledError

    def fail(self, pattern: str, kind: str = "status", **options: Any) -> Fault:
        """Add a fault; `faults.remove` or `heal` takes it away."""
        fault = Fault(pattern, kind, **options)
        self.faults.insert(0, fault)
        return fault

    def heal(self) -> None:
        self.faults.clear()

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        if "/ws/" in request.path:
            return web.Response(status=403)
        if self.release.is_legacy and not request.path.endswith("/") and request.method == "GET":
            return web.Response(status=301, headers={"Location": f"{request.path}/"}, content_type="text/html")
        return html(404)

    async def _healthy(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=204 if self.release.is_legacy else 200, content_type="text/html")

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        """Without the monitoring's password."""
        if not self.release.is_legacy:
            return html(500)
        realm = {"WWW-Authenticate": 'Basic realm="authentik-monitoring"'}
        return web.Response(status=401, headers=realm, content_type="text/html")

    async def _flow(self, request: web.Request) -> web.StreamResponse:
        if self.flow_delay_s:
            await asyncio.sleep(self.flow_delay_s)
        if self.flow_work_s:
            async with self._worker:
                await asyncio.sleep(self.flow_work_s)
        return await self.executor.serve(request)

    async def _configure(self, request: web.Request) -> web.StreamResponse:
        """Plan the password stage's configuration flow and lead to its page (`ConfigureFlowInitView`)."""
        session = self.executor.find(request)
        if session is None or session.user is None:
            target = f"{self.prefix}/flows/-/default/authentication/?next={request.path}"
            return web.Response(status=302, headers={"Location": target}, content_type="text/html")
        if not self.change_flow or self.change_flow not in self.flows:
            return html(404)
        session.plan = Plan(self.change_flow, pending=session.user, pending_name=session.user.username)
        target = f"{self.prefix}/if/flow/{self.change_flow}/"
        return web.Response(status=302, headers={"Location": target}, content_type="text/html")

    # -- waiting for what the other side does -----------------------------------------------------

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until something the other side does makes `condition` true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                try:
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    # -- event channel ----------------------------------------------------------------------------

    async def _channel(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(request)
        outpost = self.outpost_of(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if outpost is None or outpost.pk != request.match_info["pk"] or self.refuses_channel:
            return web.Response(status=403)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        entry = (outpost, socket)
        self.channels.append(entry)
        self._notify()
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    content = orjson.loads(message.data)
                    instruction = content["instruction"]
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    break
                if instruction == 1:
                    self.hellos.append(content["args"])
                    await socket.send_str('{"instruction": 0, "args": {}}')
                self._notify()
        finally:
            self.channels.remove(entry)
            self._notify()
        return socket

    async def tell(self, instruction: int, args: dict[str, Any] | None = None, service: str = "") -> None:
        """Send an instruction to the outposts (of one service) that are connected."""
        for outpost, socket in list(self.channels):
            if not service or outpost.service == service:
                await socket.send_str(orjson.dumps({"instruction": instruction, "args": args or {}}).decode())

    async def tell_raw(self, text: str) -> None:
        for _, socket in list(self.channels):
            await socket.send_str(text)

    async def cut_channels(self) -> None:
        for _, socket in list(self.channels):
            await socket.close(code=WSCloseCode.SERVICE_RESTART)

    # -- state ------------------------------------------------------------------------------------

    def changed(self) -> None:
        """People changed in a way that the stub cannot see."""
        self._members = None
        self._shown.clear()

    def add_user(self, username: str, password: str = "", *groups: Group, **fields: Any) -> User:
        fields.setdefault("name", username.title())
        fields.setdefault("email", f"{username}@example.com")
        user = User(username, password, groups=[group.pk for group in groups], **fields)
        self.users[user.pk] = user
        self._members = None
        return user

    def add_group(self, name: str, *parents: Group, **fields: Any) -> Group:
        group = Group(name, parents=[parent.pk for parent in parents], **fields)
        self.groups[group.pk] = group
        self._members = None
        return group

    def add_outpost(self, service: str, token: str = "") -> Outpost:
        token = token or (LDAP_TOKEN if service == "ldap" else RADIUS_TOKEN)
        outpost = Outpost(f"stub-{service}", service, token)
        self.outposts[token] = outpost
        return outpost

    def add_provider(
        self, outpost: Outpost, name: str, app: str = "", *, groups: list[Group] | None = None, **fields: Any
    ) -> Provider:
        """A provider with its application, which members of `groups` may use (None: everybody)."""
        flow = fields.pop("flow", "default-authentication-flow")
        provider = Provider(len(self.providers) + 1, name, outpost.service, app or name, flow, fields=fields)
        if outpost.service == "radius":
            provider.attributes = NO_ATTRIBUTES
        self.providers[provider.pk] = provider
        allowed = None if groups is None else frozenset(group.pk for group in groups)
        self.apps[provider.app] = Application(provider.app, allowed)
        outpost.providers.append(provider.pk)
        return provider

    def add_key_pair(self, name: str, certificate: str, key: str, fingerprint: str) -> KeyPair:
        pair = KeyPair(name, certificate, key, fingerprint)
        self.key_pairs[pair.pk] = pair
        return pair

    def touch(self, user: User) -> None:
        user.last_updated = now_text()
        self.changed()

    def touched(self, user: User) -> None:
        """One user's record changed, but not his groups."""
        user.last_updated = now_text()
        for with_groups in (True, False):
            self._shown.pop((user.pk, with_groups), None)

    def set_password(self, user: User, password: str) -> None:
        """As an administrator does it: other sessions of the user die, nobody is told."""
        user.password = password
        user.password_change_date = now_text()
        user.secret_revision += 1
        self.touch(user)

    def deactivate(self, user: User) -> None:
        user.is_active = False
        self.touch(user)

    def leave(self, user: User, group: Group) -> None:
        """Take a user out of a group; his record's time stamp does not change."""
        user.groups.remove(group.pk)
        self.changed()

    def sessions_of(self, user: User) -> list[Session]:
        return [session for session in self.executor.sessions.values() if session.user is user]

    async def end_sessions(self, user: User) -> None:
        """End a user's sessions and say so (from 2025.8)."""
        for session in self.sessions_of(user):
            del self.executor.sessions[session.key]
            await self.tell(4, {"type": "event.session.end", "session_id": self.executor.handle(session)})

    # -- look-ups ---------------------------------------------------------------------------------

    def outpost_of(self, token: str) -> Outpost | None:
        return self.outposts.get(token)

    def group_named(self, name: str) -> Group | None:
        return next((group for group in self.groups.values() if group.name == name), None)

    def user_named(self, name: str) -> User:
        return next(user for user in self.users.values() if user.username == name)

    def find_user(self, uid: str, fields: tuple[str, ...], *, exact: bool = False) -> User | None:
        for user in self.users.values():
            for field in fields:
                value = user.attributes.get("upn") if field == "upn" else getattr(user, field)
                if value == uid or (not exact and isinstance(value, str) and value.casefold() == uid.casefold()):
                    return user
        return None

    def members(self, pk: str) -> list[User]:
        if self._members is None:
            self._members = defaultdict(list)
            for user in self.users.values():
                for group in user.groups:
                    self._members[group].append(user)
        return self._members.get(pk, [])

    def user_json(self, user: User, *, with_groups: bool) -> bytes:
        key = (user.pk, with_groups)
        shown = self._shown.get(key)
        if shown is None:
            record = render.user(user, self.groups, self.release, with_groups=with_groups)
            if self.withholds_groups == "always" or (self.withholds_groups and not with_groups):
                record["groups"] = [] if self.withholds_groups == "empty" else None
                if self.withholds_groups == "missing":
                    del record["groups"]
            shown = orjson.dumps(record)
            self._shown[key] = shown
        return shown


def _pack(answer: web.StreamResponse, level: int) -> None:
    if isinstance(answer, web.Response) and isinstance(answer.body, bytes):
        answer.body = gzip.compress(answer.body, level)
        answer.headers["Content-Encoding"] = "gzip"
