"""Our client at a server that answers with the recorded octets: what it reads is what the recordings show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from aiohttp import WSMsgType, web

from outpost.backends.authentik import stages
from outpost.backends.authentik.access import Access, AccessCheck
from outpost.backends.authentik.address import Address
from outpost.backends.authentik.app_passwords import app_passwords
from outpost.backends.authentik.client import Answer, NotFound, RequestRefused, TokenRefused, refusal
from outpost.backends.authentik.flow import FlowRun, Visitor, visiting
from outpost.backends.authentik.observer import Silence
from outpost.backends.authentik.sessions import Kept
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendUnavailable
from outpost.identity import LdapProvider, Mode, RadiusProvider, Revoked, Secret, Wanted
from tests.backends.authentik.appliance import Ears, ready, running, until
from tests.backends.authentik.replay import Bench, _play
from tests.backends.authentik.script import LDAP, RADIUS
from tests.stub_authentik import lab

VERSIONS = lab.versions()
OURS = ("ordering", "include_groups", "include_roles", "include_users", "include_children", "include_parents")
"""Parameters that change nothing about which objects are listed."""


def steps(version: str, names: list[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names or lab.names(version):
        for step in lab.recording(version, name).get("steps", []):
            yield name, step


def address(path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    parts = urlsplit(path)
    return parts.path, tuple(sorted(pair for pair in parse_qsl(parts.query) if pair[0] not in OURS))


class Recorded:
    """A server that has nothing but recorded answers to requests with a recorded token; 404 to everything else."""

    def __init__(self, version: str) -> None:
        self.answers: dict[tuple[str, Any], dict[str, Any]] = {}
        for _, step in steps(version):
            request, response = step["request"], step["response"]
            token = request["headers"].get("Authorization", "")
            if request["method"] == "GET" and token:
                same_for_all = urlsplit(request["path"]).path.endswith(("/root/config/", "/admin/version/"))
                self.answers.setdefault(("" if same_for_all else token, address(request["path"])), response)
        self.frames = [
            frame["text"]
            for session in lab.recording(version, "80-websocket")["sessions"]
            for frame in session["frames"]
            if frame.get("dir") == "server->outpost" and frame.get("text", "").startswith("{")
        ]
        self.hellos: list[dict[str, Any]] = []
        self.missing: list[str] = []
        self.asked: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/ws/"):
            return await self._channel(request)
        self.asked.append(request.path)
        where = address(request.raw_path)
        found = self.answers.get((request.headers.get("Authorization", ""), where)) or self.answers.get(("", where))
        if found is None:
            self.missing.append(request.raw_path)
            return web.Response(status=404, text="<html></html>", content_type="text/html")
        return _play(found)

    async def _channel(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.hellos.append(orjson.loads(message.data))
                if len(self.hellos) == 1:
                    for text in self.frames:
                        await socket.send_str(text)
        return socket

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Recorded]:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


def tokens(version: str) -> dict[str, Secret]:
    return {
        service: Secret(lab.token(lab.recording(version, f"01-outposts-instances-{service}")["steps"][0]))
        for service in ("ldap", "radius")
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_whole_backend_lives_on_the_recorded_answers(version: str) -> None:
    ears = Ears()
    server = Recorded(version)
    async with server.serving():
        options: dict[str, Any] = {"host": server.url, "tokens": tokens(version), "watch_interval_s": 0}
        async with running(server, ears, **options) as backend:  # type: ignore[arg-type]
            await ready(backend)
            served = backend.served()
            _judge_providers(version, served.ldap, served.radius)
            _judge_certificates(version, served.certificates)
            people = backend.current(served.ldap[0])
            assert people is not None
            _judge_people(version, people)
            await _judge_look_ups(version, backend, served.ldap[0])
            # Without the parameter the server may leave groups out; brands came in 2024.2.
            assert {path.partition("?")[0] for path in server.missing} <= {"/api/v3/core/users/"}


def _judge_providers(version: str, ldap: tuple[LdapProvider, ...], radius: tuple[RadiusProvider, ...]) -> None:
    recorded = lab.bodies(version, "03-outposts-ldap")[0]["results"]
    assert [one.pk for one in ldap] == [raw["pk"] for raw in recorded]
    for one, raw in zip(ldap, recorded, strict=True):
        same = ("name", "base_dn", "application_slug", "bind_flow_slug", "tls_server_name", "uid_start_number",
                "gid_start_number", "mfa_support")  # fmt: skip
        for name in same:
            assert getattr(one, name) == ("" if raw[name] is None else raw[name]), name
        assert one.search_mode is Mode(raw["search_mode"])
        assert one.bind_mode is Mode(raw["bind_mode"])
        assert one.certificate == raw["certificate"]
        assert one.search_group == raw.get("search_group")
        assert one.unbind_flow_slug == raw.get("unbind_flow_slug", "")
    recorded = lab.bodies(version, "04-outposts-radius")[0]["results"]
    assert [one.pk for one in radius] == [raw["pk"] for raw in recorded]
    for found, raw in zip(radius, recorded, strict=True):
        for name in ("name", "application_slug", "auth_flow_slug"):
            assert getattr(found, name) == raw[name]
        assert found.shared_secret == Secret(raw["shared_secret"])
        assert [str(network) for network in found.client_networks] == [
            part.strip() for part in raw["client_networks"].split(",")
        ]
        assert found.mfa_support is raw.get("mfa_support", True)


def _judge_certificates(version: str, certificates: Any) -> None:
    shown, certificate, key = lab.bodies(version, "06-crypto-keypair")[:3]
    assert list(certificates) == [shown["pk"]]
    pair = certificates[shown["pk"]]
    assert pair.name == shown["name"]
    assert pair.certificate_chain.decode() == certificate["data"]
    assert pair.private_key == Secret(key["data"])


def _judge_people(version: str, people: Any) -> None:
    users = [raw for page in lab.bodies(version, "20-users-list-pages") for raw in page["results"]]
    groups = lab.bodies(version, "24-groups-list")[0]["results"]
    assert len(people.users) == len(users) == lab.bodies(version, "20-users-list-pages")[0]["pagination"]["count"]
    by_pk = {one.pk: one for one in people.users}
    for raw in users:
        one = by_pk[raw["pk"]]
        for name in ("username", "name", "email", "uid", "is_active", "is_superuser", "attributes"):
            assert getattr(one, name) == raw[name]
        assert set(one.groups) == set(raw["groups"])
    assert {(g.pk, g.name, g.num_pk, g.is_superuser, *g.parents) for g in people.groups} == {
        (raw["pk"], raw["name"], raw["num_pk"], raw["is_superuser"], *([raw["parent"]] if raw["parent"] else []))
        for raw in groups
    }


async def _judge_look_ups(version: str, backend: Any, provider: LdapProvider) -> None:
    alice = lab.bodies(version, "23-users-retrieve")[0]
    found = await backend.fetch(provider, Wanted(user_pk=alice["pk"]))
    assert [one.username for one in found.users] == ["alice"]
    assert {one.pk for one in found.groups} == set(alice["groups"])
    assert (await backend.fetch(provider, Wanted(user_pk=999_999))).users == ()
    for wanted in (Wanted(username="alice"), Wanted(email="alice@example.com")):
        found = await backend.fetch(provider, wanted)
        assert [one.pk for one in found.users] == [alice["pk"]]
        assert {one.pk for one in found.groups} == set(alice["groups"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_recorded_events_are_understood_and_our_hello_is_as_recorded(version: str) -> None:
    ears = Ears()
    server = Recorded(version)
    recorded = [
        orjson.loads(frame["text"])["args"]
        for session in lab.recording(version, "80-websocket")["sessions"]
        for frame in session["frames"]
        if frame.get("dir") == "outpost->server" and '"hostname"' in frame.get("text", "")
    ]
    ended = [args["session_id"] for text in server.frames if (args := orjson.loads(text)["args"]).get("session_id")]
    async with server.serving():
        options: dict[str, Any] = {"host": server.url, "tokens": {"ldap": tokens(version)["ldap"]}}
        async with running(server, ears, watch_interval_s=0, **options) as backend:  # type: ignore[arg-type]
            await ready(backend)
            await until(lambda: ears.connected == [True])
            await until(lambda: server.asked.count("/api/v3/outposts/instances/") >= 2)
            await until(lambda: len(ears.revoked) >= len(ended))
            assert ears.revoked == [Revoked(session=handle) for handle in ended]
    assert bool(ended) is (version == "2025.10.4")
    ours = server.hellos[0]
    assert ours["instruction"] == 1
    for args in recorded:
        for name, value in args.items():
            assert type(ours["args"][name]) is type(value), name


def answer_of(response: dict[str, Any]) -> Answer:
    played = _play(response)
    assert isinstance(played.body, bytes | bytearray) or played.body is None
    location = played.headers.get("Location", "")
    return Answer(played.status, bytes(played.body or b""), (), location, "json" in played.content_type)


ERRORS = [
    pytest.param(step["response"], id=f"{version}-{name}-{i}")
    for version in VERSIONS
    for i, (name, step) in enumerate(steps(version))
    if step["response"]["status"] >= 400 and step["request"]["method"] == "GET" and name != "09-health"
]


@pytest.mark.parametrize("response", ERRORS)
def test_every_recorded_error_is_told_apart(response: dict[str, Any]) -> None:
    answer = answer_of(response)
    error = refusal(answer, "GET /x/")
    expected = {400: RequestRefused, 403: TokenRefused, 404: NotFound}.get(response["status"], BackendUnavailable)
    assert type(error) is expected
    body = response["body"]
    if isinstance(body, dict) and "detail" in body:
        assert body["detail"] in str(error)
    if isinstance(error, NotFound):
        assert error.is_api is ("_text" not in body)


CHECKS = [
    pytest.param(version, step, id=f"{version}-{name}-{i}")
    for version in VERSIONS
    for i, (name, step) in enumerate(steps(version))
    if "/check_access/" in step["request"]["path"] and step["request"]["method"] == "GET"
]


@pytest.mark.parametrize(("version", "step"), CHECKS)
async def test_every_recorded_access_check_is_read_as_it_is(version: str, step: dict[str, Any]) -> None:
    path, response = step["request"]["path"], step["response"]
    is_application = "/core/applications/" in path

    async def answer(request: web.Request) -> web.StreamResponse:
        if is_application and "/outposts/" in request.path:
            return web.Response(status=404, text="<html></html>", content_type="text/html")
        return _play(response)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider = RADIUS if "/outposts/radius/" in path else LDAP
    try:
        async with Bench(f"http://127.0.0.1:{runner.addresses[0][1]}", "ldap") as bench:
            visitor = Visitor.arriving(bench.pool, visiting(Secret("t"), "1"), "192.0.2.1")
            if response["status"] >= 500:
                with pytest.raises(BackendUnavailable):
                    await AccessCheck().ask(visitor, provider)
                return
            found = await AccessCheck().ask(visitor, provider)
    finally:
        await runner.cleanup()
    body = response["body"]
    if response["status"] != 200:
        assert not isinstance(found, Access)
        return
    assert isinstance(found, Access)
    assert found.is_passing is body.get("access", body)["passing"]
    assert found.has_search_permission is (None if is_application else body.get("has_search_permission", False))
    assert (found.attributes or b"").decode() == (body.get("attributes") or "")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_recorded_logout_is_seen_as_one(version: str) -> None:
    recorded = [step for _, step in steps(version, ["45-invalidation-unbind"])]
    logout = next(step for step in recorded if step.get("note", "").startswith("unbind: GET"))
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.raw_path == logout["request"]["path"]
        return _play(logout["response"])

    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Bench(f"http://127.0.0.1:{runner.addresses[0][1]}", "ldap") as bench:
            visitor = Visitor.arriving(bench.pool, visiting(Secret("t"), "1"), "192.0.2.1")
            cookies = logout["request"]["headers"]["Cookie"]
            visitor.jar.receive([pair.strip() for pair in cookies.split(";")], 0.0)
            run = FlowRun.prepare(visitor, bench.pool.address, "default-invalidation-flow", "ldap", Silence())
            assert await run.leave()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_stage_is_known_by_name(version: str) -> None:
    seen = set()
    for _, step in steps(version):
        body = step["response"]["body"]
        if isinstance(body, dict) and "component" in body and "/flows/executor/" in step["request"]["path"]:
            component = Shape(body, "x").text("component")
            assert component in stages.KNOWN
            seen.add(component)
    assert {stages.IDENTIFICATION, stages.PASSWORD, stages.AUTHENTICATOR, stages.DENIED, stages.REDIRECT} <= seen


class Said:
    """A pool whose server always says the same."""

    address = Address.parse("http://x")

    def __init__(self, content: object) -> None:
        self._octets = orjson.dumps(content)

    async def request(self, *_: object, **__: object) -> Answer:
        return Answer(200, self._octets, (), "", True, "Mon, 23 Nov 2026 10:37:20 GMT")


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_recorded_list_of_tokens_is_read(version: str) -> None:
    """It was recorded with an account that has no app password: one that differs in this only is told."""
    found = [
        step["response"]["body"]
        for _, step in steps(version, ["08-misc-errors-and-permissions"])
        if "/core/tokens/" in step["request"]["path"]
    ]
    assert found
    for content in found:
        for token in content["results"]:
            for intent, wanted in (("api", set()), ("app_password", {token["pk"]})):
                token["intent"] = intent
                visitor = Visitor(Said(content), {})  # type: ignore[arg-type]
                kept = Kept("", visitor, LDAP, "ldap", None, 0.0)
                assert await app_passwords(kept, token["user"], token["user_obj"]["username"]) == wanted
                assert await app_passwords(kept, token["user"] + 1, "somebody else") == set()


def test_a_recorded_address_is_ours() -> None:
    ours = Address.parse("http://x").api("/core/users/", (("page", "1"), ("page_size", "100"), ("ordering", "pk")))
    assert address(ours.raw_path_qs) == address("/api/v3/core/users/?page=1&page_size=100&include_groups=true")
    assert asyncio.iscoroutinefunction(Recorded("2023.6.1")._answer)
