"""Starts with something wrong, at the real process: one clear line each, and it goes on living."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pyrad.packet import AccessAccept

from tests.backends.authentik.appliance import small
from tests.backends.authentik.script import Script, html
from tests.process.running import Appliance, environment
from tests.process.test_authentik import COMMAND, login, until_ready
from tests.process.test_authentik_ldap import UNAVAILABLE, bind
from tests.stub_authentik.model import FUTURE
from tests.stub_authentik.server import LDAP_TOKEN, RADIUS_TOKEN, Stub

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLOSED = "http://127.0.0.1:1"


@contextlib.asynccontextmanager
async def started(**env: str) -> AsyncIterator[Appliance]:
    """A process that listens, whatever is wrong with its server, and ends well."""
    running = Appliance(COMMAND, environment(**env))
    try:
        await asyncio.to_thread(running.wait_until_listening)
        yield running
        assert running.process.poll() is None, running.said
        assert (await asyncio.to_thread(running.get, "/outpost.goauthentik.io/ping"))[0] == 204
        assert await asyncio.to_thread(running.stop) == 0
        assert "Traceback" not in running.said
        for token in (LDAP_TOKEN, RADIUS_TOKEN, "no-such-token"):
            assert token not in running.said
    finally:
        running.end()


async def wrong(running: Appliance, words: str, *, tries: Callable[[], bool] | None = None, lines: int = 1) -> str:
    """The one line (per service) about what is wrong, which is not told again however often it is tried."""
    for _ in range(400):
        if (tries is None or tries()) and len(complaints(running)) >= lines:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # a second line would have come by now
    found = complaints(running)
    assert len(found) == lines, running.said
    for line in found:
        assert words in line["event"], line
    status, text = await asyncio.to_thread(running.get, "/-/ready")
    assert status == 503
    assert words in text or lines == 0
    return text


def complaints(running: Appliance) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in running.raw if line.startswith("{")]
    return [line for line in found if line["level"] in ("warning", "error")]


async def test_a_server_that_is_not_there() -> None:
    async with started(AUTHENTIK_HOST=CLOSED, AUTHENTIK_TOKEN=LDAP_TOKEN) as running:
        await wrong(running, "cannot connect to 127.0.0.1:1: Connection refused")
        assert await bind(running, "alice", "pw-alice") == UNAVAILABLE, "nobody is told that the password is wrong"


async def test_a_name_that_nobody_has() -> None:
    async with started(AUTHENTIK_HOST="https://authentik.invalid", AUTHENTIK_TOKEN=LDAP_TOKEN) as running:
        await wrong(running, "cannot connect to authentik.invalid:443")


async def test_a_server_that_is_no_authentik() -> None:
    async with Script(other=lambda _: _html()) as script:
        async with started(AUTHENTIK_HOST=script.url, AUTHENTIK_TOKEN=LDAP_TOKEN) as running:
            await wrong(running, "is no authentik server", tries=lambda: len(script.requests) >= 3)


async def _html() -> Any:
    return html(200)


async def test_a_token_that_the_server_does_not_know() -> None:
    async with small() as stub, started(AUTHENTIK_HOST=stub.url, AUTHENTIK_TOKEN="no-such-token") as running:
        await wrong(running, "check AUTHENTIK_TOKEN", tries=lambda: len(stub.requests) >= 3)


async def test_a_radius_token_where_ldap_is_expected() -> None:
    async with small() as stub, started(AUTHENTIK_HOST=stub.url, AUTHENTIK_TOKEN_LDAP=RADIUS_TOKEN) as running:
        words = "the token belongs to the RADIUS outpost 'stub-radius', but an outpost of type LDAP is needed here"
        await wrong(running, words, tries=lambda: stub.counts["/api/v3/outposts/instances/"] >= 2)


async def test_an_outpost_without_providers_waits_for_one() -> None:
    stub = Stub()
    stub.add_user("bob", "pw-bob")
    outpost = stub.add_outpost("radius")
    async with stub, started(AUTHENTIK_HOST=stub.url, AUTHENTIK_TOKEN=RADIUS_TOKEN) as running:
        await wrong(running, "has no provider with an application", lines=1)
        await stub.until(lambda: len(stub.hellos) > 0)
        stub.add_provider(outpost, "late", shared_secret="very-secret")
        await stub.tell(2)
        await until_ready(running)
        assert await login(running, "bob", "pw-bob") == AccessAccept


async def test_a_server_of_an_unknown_future_version() -> None:
    async with small(Stub(FUTURE)) as stub:
        async with started(
            AUTHENTIK_HOST=stub.url, AUTHENTIK_TOKEN_LDAP=LDAP_TOKEN, AUTHENTIK_TOKEN_RADIUS=RADIUS_TOKEN
        ) as running:
            await until_ready(running)
            assert await login(running, "bob", "pw-bob") == AccessAccept
            assert complaints(running) == []


# -- the server's certificate -----------------------------------------------------------------------------------------


def identity(folder: Path, *, host: str = "127.0.0.1", days: int = 1) -> ssl.SSLContext:
    """A server context with a certificate of an authority of its own, whose own is `ca.pem`."""
    now = datetime.datetime.now(datetime.UTC)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)

    def builder(name: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
        )

    root = (
        builder(issuer, authority.public_key())
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        builder(subject, key.public_key())
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "cert.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("wrongly", "words"),
    [
        ({"days": -1}, "certificate has expired"),
        ({"host": "other.example"}, "IP address mismatch"),
        ({}, ""),
    ],
    ids=["expired", "another name", "good"],
)
async def test_certificates_of_the_server(tmp_path: Path, wrongly: dict[str, Any], words: str) -> None:
    stub = small()
    stub.tls = identity(tmp_path, **wrongly)
    env = {"AUTHENTIK_TOKEN": RADIUS_TOKEN, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    async with stub:
        async with started(AUTHENTIK_HOST=stub.url, **env) as running:
            if words:
                assert words in await wrong(running, "the server's certificate is not trusted")
                assert not stub.requests
            else:
                await until_ready(running)
                assert await login(running, "bob", "pw-bob") == AccessAccept
                await stub.until(lambda: len(stub.hellos) > 0)
        if words:
            async with started(AUTHENTIK_HOST=stub.url, AUTHENTIK_INSECURE="true", **env) as running:
                await until_ready(running)
                assert await login(running, "bob", "pw-bob") == AccessAccept
                await stub.until(lambda: len(stub.hellos) > 0)


async def test_an_authority_that_nobody_trusts(tmp_path: Path) -> None:
    stub = small()
    stub.tls = identity(tmp_path)
    async with stub, started(AUTHENTIK_HOST=stub.url, AUTHENTIK_TOKEN=RADIUS_TOKEN) as running:
        await wrong(running, "the server's certificate is not trusted")
        assert not stub.requests


# -- other places for a server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sub-path", "unix"])
async def test_everything_works_wherever_the_server_is(tmp_path: Path, where: str) -> None:
    stub = small(Stub(prefix="/auth/here" if where == "sub-path" else ""))
    if where == "unix":
        stub.socket = tmp_path / "server.sock"
    async with stub:
        host = stub.url + ("/" if where == "sub-path" else "")
        async with started(
            AUTHENTIK_HOST=host, AUTHENTIK_TOKEN_LDAP=LDAP_TOKEN, AUTHENTIK_TOKEN_RADIUS=RADIUS_TOKEN
        ) as running:
            await until_ready(running)
            assert await login(running, "bob", "pw-bob") == AccessAccept
            await stub.until(lambda: len(stub.hellos) >= 2)
            assert complaints(running) == []
