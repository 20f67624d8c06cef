"""The composition, with a scripted backend and everything else real."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_network

import aiohttp
import pytest
import pytest_asyncio

from outpost._fastradius import SharedSecret, encode_request, hide_user_password
from outpost.app.appliance import Appliance
from outpost.app.backend import Source as BackendSource
from outpost.app.backend import build
from outpost.config import settings
from outpost.errors import ConfigError
from outpost.identity import (
    Accepted,
    Decision,
    Identity,
    People,
    RadiusOptions,
    RadiusProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Served,
)
from outpost.observe.logs import LogWriter
from outpost.radius.packet import encode_attribute

KEY = SharedSecret(b"testing123")
PROVIDER = RadiusProvider(
    1, "wifi", "wifi", (ip_network("127.0.0.0/8"),), Secret("testing123"), options=RadiusOptions(reject_delay_s=0.0)
)


class Scripted:
    """A backend whose one user is alice."""

    def __init__(self, publish: Callable[[Revoked], None]) -> None:
        self.publish = publish
        self.password = b"alice-pw"
        self.asked = 0
        self.refreshed = 0
        self.calls: list[str] = []
        self.states = {"ldap": "", "radius": ""}
        self.catalog = Served(radius=(PROVIDER,))
        self.subscribers: list[Callable[[], None]] = []

    async def authenticate(self, provider, username, secret, source) -> Decision:
        self.asked += 1
        if username == "alice" and secret == Secret(self.password):
            return Accepted(Identity(7, "alice", can_search=False))
        return Rejected(RejectReason.INVALID_CREDENTIALS)

    async def resume(self, provider, continuation, secret, source) -> Decision:
        return Rejected(RejectReason.FLOW_ERROR)

    def current(self, provider) -> People | None:
        return None

    async def fetch(self, provider, wanted) -> People:
        raise NotImplementedError

    def served(self) -> Served:
        return self.catalog

    def subscribe(self, on_change: Callable[[], None]) -> None:
        self.subscribers.append(on_change)

    async def start(self) -> None:
        self.calls.append("start")

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.refreshed > 1:
            raise RuntimeError("a bug")

    async def stop(self) -> None:
        self.calls.append("stop")

    def readiness(self) -> Mapping[str, str]:
        return self.states


class Bench:
    def __init__(self, appliance: Appliance, backend: Scripted, ports: dict[str, int]) -> None:
        self.appliance, self.backend, self.ports = appliance, backend, ports
        self._identifier = 0

    async def radius(self, password: str) -> int | None:
        """The code of the reply to alice's Access-Request, or None for silence."""
        self._identifier += 1
        authenticator = os.urandom(16)
        attributes = encode_attribute(1, b"alice")
        attributes += encode_attribute(2, hide_user_password(password.encode(), KEY, authenticator))
        request = encode_request(1, self._identifier, authenticator, attributes, KEY)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.ports["radius"]))
            await loop.sock_sendall(sock, request)
            try:
                return (await asyncio.wait_for(loop.sock_recv(sock, 4096), 1))[0]
            except TimeoutError:
                return None

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.ports['metrics']}{path}"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return answer.status, await answer.text()


def listening(kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    built: list[Scripted] = []

    def build(_settings, _log, publish, _set_connected) -> BackendSource:
        built.append(Scripted(publish))
        return BackendSource(built[0], lambda _service: "tests", is_connected=True, families=tuple)

    null = os.open(os.devnull, os.O_WRONLY)
    log = LogWriter(null, is_json=True)
    appliance = Appliance(settings.load(None, {"OUTPOST_DIRECTORY": "unused"}), log, build)
    kinds = {"ldap": 1, "ldaps": 1, "radius": 2, "metrics": 1}
    sockets = {service: [listening(socket.SocketKind(kind))] for service, kind in kinds.items()}
    ports = {service: group[0].getsockname()[1] for service, group in sockets.items()}
    await appliance.start(sockets)
    yield Bench(appliance, built[0], ports)
    await appliance.stop(1.0)
    await appliance.stop(1.0)
    assert built[0].calls[0] == "start"
    assert built[0].calls[-1] == "stop"
    for service in ("ldap", "ldaps"):
        sockets[service][0].close()
    assert [s.fileno() for group in sockets.values() for s in group] == [-1] * 4
    log.stop()
    os.close(null)


async def test_a_login_is_decided_by_the_backend_once_and_remembered(bench) -> None:
    assert await bench.radius("alice-pw") == 2
    assert await bench.radius("alice-pw") == 2
    assert bench.backend.asked == 1
    assert await bench.radius("wrong") == 3


async def test_a_revocation_ends_what_was_remembered(bench) -> None:
    assert await bench.radius("alice-pw") == 2
    bench.backend.password = b"changed"
    bench.backend.publish(Revoked(user_pk=7))
    assert await bench.radius("alice-pw") == 3


async def test_a_changed_catalog_is_served(bench) -> None:
    bench.backend.catalog = Served()
    for tell in bench.backend.subscribers:
        tell()
    assert await bench.radius("alice-pw") is None


async def test_ready_is_what_the_backend_says(bench) -> None:
    assert await bench.get("/-/ready") == (200, "ldap: ready\nradius: ready\n")
    bench.backend.states = {"ldap": "no directory yet", "radius": ""}
    assert await bench.get("/-/ready") == (503, "ldap: no directory yet\nradius: ready\n")


async def test_a_refresh_that_fails_leaves_everything_serving(bench) -> None:
    await bench.appliance.refresh()
    await bench.appliance.refresh()
    assert bench.backend.refreshed == 2
    assert await bench.radius("alice-pw") == 2


async def test_every_room_is_in_the_metrics(bench) -> None:
    await bench.radius("alice-pw")
    _, text = await bench.get("/metrics")
    for name in (
        'authentik_outpost_radius_request_duration_seconds_count{app="wifi",outpost_name="tests"} 1.0',
        "outpost_credentials_cache_entries 1.0",
        'outpost_ready{service="radius"} 1.0',
        "outpost_log_dropped_total 0.0",
        "process_resident_memory_bytes",
        "outpost_info{",
    ):
        assert name in text, name


async def test_what_the_gate_tells_is_logged(tmp_path) -> None:
    def build(_settings, _log, publish, _set_connected) -> BackendSource:
        return BackendSource(Scripted(publish), lambda _service: "tests", is_connected=True, families=tuple)

    with (tmp_path / "log").open("wb") as file:
        log = LogWriter(file.fileno(), is_json=True)
        appliance = Appliance(settings.load(None, {"OUTPOST_DIRECTORY": "unused"}), log, build)
        await appliance.stop(0.0)
        log.stop()
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert ("outpost.credentials", "info", "revocations arrive") in [
        (line["logger"], line["level"], line["event"]) for line in lines
    ]


def test_a_broken_dictionary_of_the_operators_is_refused_before_serving(tmp_path) -> None:
    words = tmp_path / "dictionary.acme"
    words.write_text("ATTRIBUTE Acme-Rank one integer\n")
    loaded = settings.load(None, {"OUTPOST_DIRECTORY": "unused", "OUTPOST_RADIUS__DICTIONARIES": str(words)})
    null = os.open(os.devnull, os.O_WRONLY)
    log = LogWriter(null, is_json=True)
    with pytest.raises(ConfigError, match=r"acme:1: not a number: one"):
        Appliance(loaded, log, lambda *_: BackendSource(Scripted(print), str, is_connected=True, families=tuple))
    log.stop()
    os.close(null)


async def test_only_a_directory_file_knows_who_has_a_certificate(tmp_path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text("version: 1\nentries: []\n")
    null = os.open(os.devnull, os.O_WRONLY)
    log = LogWriter(null, is_json=True)
    for environ, knows in (
        ({"OUTPOST_DIRECTORY": str(path)}, True),
        ({"AUTHENTIK_HOST": "https://authentik.example.org", "AUTHENTIK_TOKEN": "token"}, False),
    ):
        source = build(settings.load(None, environ), log, lambda _: None, lambda _: None)
        assert (source.certificates is not None) is knows
        await source.backend.stop()
    log.stop()
    os.close(null)
