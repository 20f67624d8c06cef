"""Passwords, codes and shared secrets are sent through everything there is; then everything it told is searched."""

import asyncio
import base64
import contextlib
import dataclasses
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from outpost._fastradius import SharedSecret
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import LimiterSettings
from outpost.errors import BackendUnavailable
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    LdapProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
)
from outpost.observe import logs
from outpost.observe.exposition import Exposition
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import gauges, totals
from outpost.observe.radius import RadiusMeter
from outpost.radius.server import RadiusServer
from tests.radius.testbed import Client, login, provider

CANARY = "cAn4ry"
SHARED = f"{CANARY}-shared-secret".encode()
LDAP = LdapProvider(1, "ldap", "dc=example", "app")
FORMS = (
    CANARY.encode(),
    CANARY.lower().encode(),
    CANARY.encode().hex().encode(),
    base64.b64encode(CANARY.encode())[:8],
    base64.b64encode(b"?" + CANARY.encode())[2:8],
    base64.b64encode(b"??" + CANARY.encode())[4:8],
    b", ".join(str(octet).encode() for octet in CANARY.encode()),
)


class Careless:
    """An authority with every bug that quotes what it was given."""

    async def authenticate(self, provider, username: str, secret: Secret, source: Source) -> Decision:
        text = secret.reveal_text()
        match username:
            case "alice":
                return Accepted(Identity(1, username, False))
            case "asks":
                return Challenge("Code?", text)
            case "down":
                raise BackendUnavailable("connection refused")
            case "value":
                raise ValueError(f"odd value {text!r}")
            case "key":
                return {}[text]  # type: ignore[no-any-return]
            case "number":
                return int(text)  # type: ignore[return-value]
            case "octets":
                return (secret.reveal() + b"\xff").decode()  # type: ignore[return-value]
            case "chain":
                try:
                    raise ValueError(text)
                except ValueError as exc:
                    raise LookupError(text) from exc
            case "group":
                raise ExceptionGroup(text, [ValueError(text), TypeError()])
            case "answer":
                return text  # type: ignore[return-value]
            case "task":
                asyncio.get_running_loop().create_task(self.forgotten(text))
                await asyncio.sleep(0)
            case "callback":
                asyncio.get_running_loop().call_soon(self.broken, text)
                await asyncio.sleep(0)
        return Rejected(RejectReason.INVALID_CREDENTIALS, "the password is wrong")

    async def resume(self, provider, continuation, secret: Secret, source: Source) -> Decision:
        raise ValueError(f"{continuation} {secret.reveal_text()}")

    async def forgotten(self, text: str) -> None:
        raise ValueError(text)

    def broken(self, text: str) -> None:
        raise ValueError(text)


USERS = (
    "alice",
    "asks",
    "down",
    "value",
    "key",
    "number",
    "octets",
    "chain",
    "group",
    "answer",
    "task",
    "callback",
    "x",
)


class Everything:
    """Servers and observers as the appliance has them, and all that they told."""

    def __init__(self, is_json: bool) -> None:
        read, self._write = os.pipe()
        self.told = bytearray()
        self._reader = threading.Thread(target=self._read, args=(read,))
        self._reader.start()
        self.log = LogWriter(self._write, is_json=is_json, level="trace")
        self.gate = Gate(
            Careless(),
            GateSettings(cache=CacheSettings(refresh_after_s=0), limiter=LimiterSettings(damp_s=0)),
            log=lambda level, event, fields: self.log.put(level, "outpost.credentials", event, fields),
        )
        self.ldap, self.radius = LdapMeter(self.log, lambda: "hub"), RadiusMeter(self.log, lambda: "hub")
        self.exposition = Exposition()
        for source in (self.ldap.families, self.radius.families, self.credentials):
            self.exposition.add(source)

    def credentials(self):
        yield from totals("outpost_credentials", "Credentials", self.gate.counters())
        for name, value in self.gate.gauges().items():
            yield gauges(f"outpost_credentials_{name}", "", (), [((), float(value))])

    def _read(self, descriptor: int) -> None:
        while octets := os.read(descriptor, 65536):
            self.told += octets
        os.close(descriptor)

    def finish(self) -> bytes:
        self.told += self.exposition.text()
        self.log.stop()
        os.close(self._write)
        self._reader.join(5)
        return bytes(self.told)


@contextlib.asynccontextmanager
async def everything(is_json: bool) -> AsyncIterator[Everything]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    found = Everything(is_json)
    logs.configure(found.log)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logs.loop_failed(found.log, context))
    try:
        yield found
    finally:
        logging.captureWarnings(False)
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)


def leaks(text: bytes) -> list[bytes]:
    return [text[max(0, at - 80) : at + 80] for form in FORMS if (at := text.find(form)) >= 0]


async def ldap_logins(found: Everything) -> list[Decision]:
    gate, told = found.gate, []
    source = Source("ldap", "192.0.2.1", interactive=True)
    for user in USERS:
        for attempt in range(2):
            secret = f"{CANARY}-{user}"
            decision = gate.known(LDAP, user, secret.encode(), source)
            if decision is None:
                decision = await gate.authenticate(LDAP, user, Secret(secret), source)
            told.append(decision)
            reason = getattr(decision, "reason", "")
            found.ldap.bound("app", "192.0.2.1", f"cn={user},dc=example".encode(), 0.1, attempt, str(reason))
            if isinstance(decision, Challenge):
                told.append(await gate.resume(LDAP, decision.continuation, Secret(f"{CANARY}123456"), source))
    for _ in range(10):  # until the loop has complained about what nobody waited for
        await asyncio.sleep(0)
    return told


async def radius_logins(found: Everything) -> None:
    server = RadiusServer(found.gate, found.radius, is_ready=lambda: True)
    server.serve([provider(secret=SHARED)])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    await server.start([sock])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.setblocking(False)
        device.bind(("127.0.0.1", 0))
        client = Client(device, ("127.0.0.1", server.addresses[0][1]))
        for number, user in enumerate(("alice", "alice", "x", "asks")):
            packet = login(user, f"{CANARY}-{user}", secret=SHARED, identifier=number)
            await client.ask(packet, SHARED)
        for number, user in enumerate(("value", "down", "chain"), 10):  # answered by silence
            client.send(login(user, f"{CANARY}-{user}", secret=SHARED, identifier=number))
        client.send(login("alice", f"{CANARY}-wrong", secret=b"another secret", identifier=20))
        client.send(login("alice", f"{CANARY}-wrong", secret=SHARED, identifier=21)[:-3])
        await client.ask(login("alice", f"{CANARY}-alice", secret=SHARED, identifier=22), SHARED)
    await server.stop()


@pytest.mark.parametrize("is_json", [True, False], ids=["json", "text"])
async def test_no_secret_is_told(is_json: bool) -> None:
    async with everything(is_json) as found:
        decisions = await ldap_logins(found)
        await radius_logins(found)
        found.gate.publish(Revoked(user_pk=1))
        shown = repr([decisions[0], *decisions, found.gate, vars(found.gate), vars(found.gate._cache)])
        shown += repr([provider(secret=SHARED), SharedSecret(SHARED), dataclasses.asdict(LDAP)])
        await found.gate.stop()
        text = found.finish()
    challenges = [d for d in decisions if isinstance(d, Challenge)]
    assert challenges
    assert leaks(text) == []
    assert leaks(shown.encode()) == []
    # What should have been told was told: a silent server would pass everything above.
    assert text.count(b"the authority failed") > 10
    for needle in (
        b"Task exception was never retrieved",
        b"Exception in callback",
        b"Bind request",
        b"Radius Request",
        b"Datagram dropped",
        b"ValueError",
        b"requests_rejected_total",
    ):
        assert needle in text


async def test_the_search_finds_what_it_searches_for() -> None:
    async with everything(True) as found:
        found.log.put("info", "x", "y", {"password": f"{CANARY}-1"})
        text = found.finish()
    assert leaks(text)
    for octets in (b"", b"?", b"??"):
        assert leaks(base64.b64encode(octets + CANARY.encode() + b"more"))
    assert leaks(repr(list(CANARY.encode())).encode())
