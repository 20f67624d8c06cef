"""Client certificates and SASL EXTERNAL over real sockets: who gets in by them, and everybody who must not."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from outpost.errors import ConfigError
from outpost.identity import (
    Accepted,
    Challenge,
    Identity,
    Rejected,
    RejectReason,
    Revoked,
    Served,
    Unavailable,
    UnavailableReason,
)
from outpost.ldap.certificates import read
from outpost.ldap.tls import Certificates, TlsSettings, read_trust
from tests.ldap import decode, encode, pki
from tests.ldap.testbed import ALICE, BASE, SERVICE, Bed, Client, bed, provider, trusting

START_TLS = "1.3.6.1.4.1.1466.20037"
WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"
CA = pki.authority("Client CA")
ALICES = CA.issue(cn="alice", mail=["alice@example.com"], upn=["alice@ldap.goauthentik.io"], usage=pki.CLIENT)
DAY_S = 86400.0


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "clients.pem"
    path.write_bytes(CA.pem)
    return path


async def connected(there: Bed, pair: pki.Pair | None, *, upgraded: bool = False, **more: Any) -> Client:
    context = pki.client_context(pair, **more)
    if not upgraded:
        return await there.client(tls=context)
    client = await there.client()
    client.send(encode.extended(client.next_id, START_TLS))
    assert decode.result((await client.message()).content)[0] == 0
    await client.writer.start_tls(context, server_hostname="localhost")
    return client


async def external(client: Client, credentials: bytes | None = b"", name: str = "") -> int:
    client.send(encode.sasl_bind(client.next_id, "EXTERNAL", credentials, name=name))
    async with asyncio.timeout(10):
        return decode.result((await client.message()).content)[0]


async def who_am_i(client: Client) -> bytes:
    client.send(encode.extended(client.next_id, WHO_AM_I))
    return dict(decode.elements((await client.message()).content))[0x8B]


async def mechanisms(client: Client) -> list[bytes]:
    [root] = (await client.search("", scope=0, attributes=["supportedSASLMechanisms"]))[1]
    return dict(root.attributes).get(b"supportedSASLMechanisms", [])


# -- let in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("upgraded", [False, True])
async def test_a_certificate_logs_its_user_in(bundle: Path, upgraded: bool, version: ssl.TLSVersion) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES, upgraded=upgraded, minimum_version=version, maximum_version=version)
        assert await mechanisms(client) == [b"EXTERNAL", b"PLAIN"]
        assert await who_am_i(client) == b"", "TLS alone logs in nobody"
        assert (await client.search(BASE))[0] == 50
        assert await external(client) == 0
        assert await who_am_i(client) == b"dn:" + ALICE.encode()
        _, found, _ = await client.search(BASE, "(objectClass=person)")
        assert [one.dn for one in found] == [ALICE.encode()], "he sees what he sees with his password"
        assert there.authority.vouched == [(1, "alice", "127.0.0.1")]
        assert there.authority.asked == []
        assert there.seen.binds == [(ALICE.encode(), 0, "")]


async def test_whoever_may_search_may_do_so_with_a_certificate(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, CA.issue(cn="LDAPservice"))
        assert await external(client) == 0
        assert await who_am_i(client) == b"dn:" + SERVICE.encode()
        assert len((await client.search(f"ou=users,{BASE}", scope=1))[1]) == 3


@pytest.mark.parametrize("part", ["cn", "mail", "upn"])
async def test_every_part_of_the_certificate(bundle: Path, part: Any) -> None:
    async with bed(tls=TlsSettings(bundle, part), can_vouch=True) as there:
        client = await connected(there, ALICES)
        assert await external(client) == 0
        assert await who_am_i(client) == b"dn:" + ALICE.encode()
        assert [name for _, name, _ in there.authority.vouched] == ["alice@example.com" if part == "mail" else "alice"]


@pytest.mark.parametrize(
    "credentials",
    [None, b"", b"dn:" + ALICE.encode(), b"dn:CN=Alice, OU=Users," + BASE.encode(), b"u:alice", b"u:ALICE"],
)
async def test_acting_as_oneself(bundle: Path, credentials: bytes | None) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES)
        assert await external(client, credentials, name="cn=bob,dc=whatever") == 0
        assert await who_am_i(client) == b"dn:" + ALICE.encode()


async def test_certificates_of_an_authority_below(bundle: Path) -> None:
    below = pki.Issuer("Below", CA)
    pair = below.issue(cn="alice")
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        assert await external(await connected(there, pair, chain=below.pem)) == 0
        assert await is_turned_away(there, pair), "nobody told the server of the authority between"
        bundle.write_bytes(below.pem)
        assert await there.serve(there.served) == ()
        assert await external(await connected(there, pair)) == 0, "an authority counts without the one above it"
        assert await is_turned_away(there, ALICES)


async def test_a_certificate_keeps_nobody_from_using_a_password(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        for pair in (ALICES, None):
            client = await connected(there, pair)
            assert await client.bind(SERVICE, "service-pw") == 0
            assert await who_am_i(client) == b"dn:" + SERVICE.encode()
        plain = await there.client("alice")
        assert (await plain.search(ALICE, scope=0))[0] == 0


async def test_revocation_ends_what_a_certificate_began(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES)
        assert await external(client) == 0
        there.gate.publish(Revoked(user_pk=1))
        assert decode.result((await client.message()).content)[0] == 8
        assert await client.is_closed()


async def test_providers_are_told_apart(bundle: Path) -> None:
    providers = [provider(), provider(2, "dc=second,dc=example")]
    async with bed(providers=providers, tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES)
        for credentials in (b"", b"u:alice"):
            assert await external(client, credentials) == 49, "it could be either"
        assert await external(client, b"dn:cn=alice,ou=users,dc=second,dc=example") == 0
        assert await who_am_i(client) == b"dn:cn=alice,ou=users,dc=second,dc=example"
        assert await external(client, b"dn:" + ALICE.encode()) == 0
        assert [pk for pk, _, _ in there.authority.vouched] == [2, 1]
    async with bed(providers=providers, tls=TlsSettings(bundle, "upn"), can_vouch=True) as there:
        for domain, code in (("second.example", 0), ("SECOND.example", 0), ("third.example", 49), ("example", 49)):
            pair = CA.issue(upn=[f"alice@{domain}"])
            assert await external(await connected(there, pair)) == code
        assert [pk for pk, _, _ in there.authority.vouched] == [2, 2]
        client = await connected(there, CA.issue(upn=["alice@second.example"]))
        assert await external(client, b"dn:" + ALICE.encode()) == 49, "a name counts in its own domain only"


# -- not let in -----------------------------------------------------------------------------------


async def is_turned_away(there: Bed, pair: pki.Pair, **more: Any) -> bool:
    """Whether TLS ends with this certificate; with TLS 1.3 the client hears of it when it first reads."""
    try:
        client = await connected(there, pair, **more)
        await external(client)
    except (OSError, EOFError):
        return True
    return False


OTHERS = pki.Issuer("Client CA")
"""Of the same name, with a key of its own."""
NO_AUTHORITY = pki.Issuer("no authority", CA, ca=False)
UNVERIFIED: dict[str, tuple[pki.Pair, bytes]] = {
    "another authority": (pki.authority("elsewhere").issue(cn="alice"), b""),
    "another authority of the same name": (OTHERS.issue(cn="alice"), b""),
    "another authority, and its certificate": (OTHERS.issue(cn="alice"), OTHERS.pem),
    "its own issuer": (OTHERS.pair, b""),
    "expired": (CA.issue(cn="alice", days=(-3, -1)), b""),
    "not yet valid": (CA.issue(cn="alice", days=(1, 3)), b""),
    "for servers only": (CA.issue(cn="alice", usage=pki.SERVER), b""),
    "issued by somebody who is no authority": (NO_AUTHORITY.issue(cn="alice"), NO_AUTHORITY.pem),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize("what", UNVERIFIED)
async def test_what_is_not_verified(bundle: Path, what: str, upgraded: bool, version: ssl.TLSVersion) -> None:
    pair, chain = UNVERIFIED[what]
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        more = {"upgraded": upgraded, "chain": chain, "minimum_version": version, "maximum_version": version}
        assert await is_turned_away(there, pair, **more)
        assert not await is_turned_away(there, ALICES, **{**more, "chain": b""})
        assert [name for _, name, _ in there.authority.vouched] == ["alice"]
        assert len(there.seen.binds) == 1


async def test_without_a_certificate(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        for upgraded in (False, True):
            client = await connected(there, None, upgraded=upgraded)
            assert await mechanisms(client) == [b"PLAIN"]
            for credentials in (b"", b"u:alice", b"dn:" + ALICE.encode()):
                assert await external(client, credentials) == 7
        plain = await there.client()
        assert await mechanisms(plain) == []
        assert await external(plain) == 7
        assert there.authority.vouched == []


async def test_without_authorities_nobody_is_asked_and_nobody_believed() -> None:
    async with bed(can_vouch=True) as there:
        client = await connected(there, ALICES)
        assert await mechanisms(client) == [b"PLAIN"]
        assert await external(client) == 7
        assert there.authority.vouched == []


async def test_where_certificates_log_in_nobody(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle)) as there:
        [flaw] = await there.serve(there.served)
        assert "client_ca" in flaw
        client = await connected(there, ALICES)
        assert await mechanisms(client) == [b"PLAIN"]
        assert await external(client) == 7
        assert await client.bind(ALICE, "alice-pw") == 0


MANY = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in ("alice", "bob")]
NAMELESS: dict[str, tuple[str, dict[str, Any]]] = {
    "no common name": ("cn", {"mail": ["alice@example.com"]}),
    "no subject": ("cn", {"subject": []}),
    "empty common name": ("cn", {"cn": ""}),
    "blank common name": ("cn", {"cn": " "}),
    "two common names": ("cn", {"cn": ["alice", "bob"]}),
    "the same common name twice": ("cn", {"cn": ["alice", "alice"]}),
    "spaces around the common name": ("cn", {"cn": " alice"}),
    "NUL in the common name": ("cn", {"cn": "alice\0"}),
    "NUL inside the common name": ("cn", {"cn": "alice\0.example"}),
    "a line break in the common name": ("cn", {"cn": "alice\n"}),
    "no mail address": ("mail", {"cn": "alice@example.com"}),
    "two mail addresses": ("mail", {"mail": ["alice@example.com", "bob@example.com"]}),
    "no real mail address": ("mail", {"mail": ["alice"]}),
    "half a mail address": ("mail", {"mail": ["@example.com"]}),
    "mail address in the subject": (
        "mail",
        {"subject": [x509.NameAttribute(NameOID.EMAIL_ADDRESS, "alice@example.com")]},
    ),
    "no user principal name": ("upn", {"cn": "alice", "mail": ["alice@ldap.goauthentik.io"]}),
    "two user principal names": ("upn", {"upn": ["alice@ldap.goauthentik.io", "bob@ldap.goauthentik.io"]}),
    "no domain": ("upn", {"upn": ["alice"]}),
    "no user": ("upn", {"upn": ["@ldap.goauthentik.io"]}),
    "another kind of name": (
        "upn",
        {"other": [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), b"\x0c\x19alice@ldap.goauthentik.io")]},
    ),
    "no text": ("upn", {"other": [x509.OtherName(pki.UPN, b"\x04\x05alice")]}),
}


@pytest.mark.parametrize("what", NAMELESS)
async def test_certificates_that_name_nobody(bundle: Path, what: str) -> None:
    part, fields = NAMELESS[what]
    async with bed(tls=TlsSettings(bundle, part), can_vouch=True) as there:  # type: ignore[arg-type]
        client = await connected(there, CA.issue(**fields))
        assert await mechanisms(client) == [b"PLAIN"]
        for credentials in (b"", b"dn:" + ALICE.encode(), b"u:alice"):
            assert await external(client, credentials) == 49
        assert there.authority.vouched == []
        assert {reason for _, _, reason in there.seen.binds} == {"client_certificate"}
        assert (await client.search(BASE))[0] == 50
        assert await client.bind(ALICE, "alice-pw") == 0


@pytest.mark.parametrize(
    "credentials",
    [
        b"dn:cn=bob,ou=users," + BASE.encode(),
        b"u:bob",
        b"u:",
        b"u:alice ",
        b"dn:",
        b"dn:alice",
        b"dn:cn=alice,dc=elsewhere",
        b"dn:" + BASE.encode(),
        b"alice",
        b"u:\xff",
        b"x:alice",
        b"\0alice\0alice-pw",
        b"DN:" + ALICE.encode(),
    ],
)
async def test_acting_as_somebody_else(bundle: Path, credentials: bytes) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES)
        assert await external(client, credentials) == 49
        assert await who_am_i(client) == b""
        assert (await client.search(BASE))[0] == 50
        assert await external(client) == 0


async def test_a_name_is_not_taken_for_a_mail_address(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, CA.issue(cn="alice@example.com"))
        assert await external(client) == 49
        assert there.authority.vouched == [(1, "alice@example.com", "127.0.0.1")]
        assert there.seen.binds[-1][2] == "client_certificate"


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        (Rejected(RejectReason.INVALID_CREDENTIALS), 49),
        (Rejected(RejectReason.ACCESS_DENIED), 50),
        (Rejected(RejectReason.NO_PROVIDER), 50),
        (Unavailable(UnavailableReason.BUSY), 51),
        (Unavailable(UnavailableReason.BACKEND_DOWN), 52),
        (Challenge("code", object()), 80),
        (Accepted(Identity(2, "bob", True)), 49),
        (Accepted(Identity(2, "alice ", True)), 49),
        (Accepted(Identity(2, "", True)), 49),
        (RuntimeError("a bug"), 80),
        (True, 80),
    ],
)
async def test_every_decision_has_its_code(bundle: Path, decision: Any, code: int) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        there.authority.vouching["alice"] = decision
        client = await connected(there, ALICES)
        assert await client.bind(SERVICE, "service-pw") == 0
        assert await external(client) == code
        assert await who_am_i(client) == b"", "and who was bound before is not any more"
        assert (await client.search(BASE))[0] == 50


async def test_revocation_while_it_is_decided(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        there.authority.hold = asyncio.Event()
        client = await connected(there, ALICES)
        client.send(encode.sasl_bind(1, "EXTERNAL", b""))
        async with asyncio.timeout(10):
            while not there.authority.vouched:
                await asyncio.sleep(0.001)
        there.gate.publish(Revoked(user_pk=1))
        there.authority.hold.set()
        assert decode.result((await client.message()).content)[0] == 51
        assert await who_am_i(client) == b""


async def test_a_certificate_that_expires_during_the_connection(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True, epoch=lambda: now[0]) as there:
        ends = ALICES.certificate.not_valid_after_utc.timestamp()
        now = [ends - 1]
        client = await connected(there, ALICES)
        assert await external(client) == 0
        now = [ends]
        assert await external(client) == 49
        assert (await client.search(BASE))[0] == 50


# -- revocation lists, and other authorities ------------------------------------------------------


async def test_revocation_lists(bundle: Path) -> None:
    bobs = CA.issue(cn="bob")
    other = pki.authority("another client CA")
    carls = other.issue(cn="alice")
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        assert not await is_turned_away(there, bobs)
        for contents, refused in (
            (CA.pem + CA.revoke(bobs), {"bob"}),
            (CA.revoke(bobs) + CA.pem, {"bob"}),
            (CA.pem + CA.revoke(), set()),
            (CA.pem + CA.revoke(days=(-3, -1)), {"alice", "bob"}),
            (CA.pem + OTHERS.revoke(), {"alice", "bob"}),
        ):
            bundle.write_bytes(contents)
            assert await there.serve(there.served) == ()
            found = {name for name, pair in (("alice", ALICES), ("bob", bobs)) if await is_turned_away(there, pair)}
            assert found == refused, contents
        bundle.write_bytes(CA.pem + other.pem + CA.revoke())
        assert await there.serve(there.served) == ()
        assert not await is_turned_away(there, ALICES)
        assert await is_turned_away(there, carls), "of his authority nobody knows whom it revoked"


async def test_authorities_are_read_again(bundle: Path) -> None:
    others = OTHERS.issue(cn="alice")
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        client = await connected(there, ALICES)
        bundle.write_bytes(OTHERS.pem)
        assert await there.serve(there.served) == ()
        assert (await client.search("", scope=0))[0] == 0, "open connections stay"
        assert await is_turned_away(there, ALICES)
        assert not await is_turned_away(there, others)
        for broken in (b"", b"garbage", OTHERS.pair.key_pem(), CA.revoke()):
            bundle.write_bytes(broken)
            [flaw] = await there.serve(there.served)
            assert str(bundle) in flaw
            assert await is_turned_away(there, ALICES)
            assert not await is_turned_away(there, others)
        bundle.unlink()
        [flaw] = await there.serve(there.served)
        assert not await is_turned_away(there, others)


async def test_authorities_count_whatever_certificate_is_chosen(bundle: Path) -> None:
    """OpenSSL takes what it checks with from the context that the server name leads to."""
    served = Served(
        ldap=(provider(certificate="a", tls_server_name="a.example"), provider(2, "dc=second", certificate="b")),
        certificates={"a": pki.server("a.example").served(), "b": pki.server("b.example").served()},
    )
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        others = OTHERS.issue(cn="alice")
        for trusted, right, wrong in ((CA, ALICES, others), (OTHERS, others, ALICES)):
            bundle.write_bytes(trusted.pem)
            assert await there.serve(served) == ()
            for name in ("a.example", "b.example", "nobody.example", "127.0.0.1"):
                client = await there.client(tls=pki.client_context(right), name=name)
                assert await external(client, b"dn:" + ALICE.encode()) == 0
                with pytest.raises((OSError, EOFError)):
                    client = await there.client(tls=pki.client_context(wrong), name=name)
                    await external(client, b"dn:" + ALICE.encode())


@pytest.mark.parametrize("contents", [b"", b"garbage", pki.authority().pair.key_pem(), CA.revoke(), None])
def test_wrong_settings(contents: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(ConfigError) as info:
        read_trust(path)
    assert "ldap.client_ca" in str(info.value) and str(path) in str(info.value)


def resumed(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, int]:
    """The session of one connection that binds by EXTERNAL, and the resultCode; -1 when the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as there:
                there.sendall(encode.sasl_bind(1, "EXTERNAL", b""))
                found = there.recv(4096)
                assert session is None or not found or there.session_reused
                return there.session, decode.result(decode.messages(found)[0].content)[0] if found else -1
        except OSError:
            return None, -1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_resumed_sessions(bundle: Path, version: ssl.TLSVersion) -> None:
    context = pki.client_context(ALICES, minimum_version=version, maximum_version=version)
    async with bed(tls=TlsSettings(bundle), can_vouch=True, epoch=lambda: now[0]) as there:
        ends = ALICES.certificate.not_valid_after_utc.timestamp()
        now = [ends - DAY_S]
        session, code = await asyncio.to_thread(resumed, there.tls_port, context, None)
        assert (code, session is not None) == (0, True)
        assert (await asyncio.to_thread(resumed, there.tls_port, context, session))[1] == 0
        now = [ends]
        assert (await asyncio.to_thread(resumed, there.tls_port, context, session))[1] == 49
        now = [ends - DAY_S]
        bundle.write_bytes(CA.pem + CA.revoke(ALICES))
        assert await there.serve(there.served) == ()
        found = await asyncio.to_thread(resumed_or_not, there.tls_port, context, session)
        assert found == -1


def resumed_or_not(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as there:
                there.sendall(encode.sasl_bind(1, "EXTERNAL", b""))
                found = there.recv(4096)
                return decode.result(decode.messages(found)[0].content)[0] if found else -1
        except OSError:
            return -1


class Handshaken:
    """The end of a handshake that brought a certificate along."""

    def __init__(self, mode: ssl.VerifyMode) -> None:
        self.context = pki.client_context()
        self.context.verify_mode = mode

    def getpeercert(self, binary_form: bool = False) -> bytes:
        assert binary_form
        return ALICES.der


def test_a_certificate_counts_only_where_it_was_verified() -> None:
    certificates = Certificates(TlsSettings(), can_vouch=True)
    found = certificates.shown(Handshaken(ssl.CERT_OPTIONAL))  # type: ignore[arg-type]
    assert found is not None and found.name == "alice"
    assert certificates.shown(Handshaken(ssl.CERT_NONE)) is None  # type: ignore[arg-type]


# -- reading, and programs ------------------------------------------------------------------------


def test_reading_never_raises() -> None:
    for der in (b"", b"garbage", ALICES.der[:-1], ALICES.der[:100], ALICES.pem):
        found = read(der, "cn")
        assert (found.name, found.expires_at) == ("", 0.0)
        assert found.flaw
    found = read(ALICES.der, "cn")
    assert (found.name, found.flaw, found.part) == ("alice", "", "cn")
    broken = CA.issue(other=[x509.OtherName(pki.UPN, b"\x0c\x05a\xff@bc")])
    assert read(broken.der, "upn").name == ""
    for part in ("cn", "mail", "upn"):
        for at in range(0, len(ALICES.der), 3):
            read(ALICES.der[:at] + bytes([ALICES.der[at] ^ 0xFF]) + ALICES.der[at + 1 :], part)  # type: ignore[arg-type]


async def run(*command: str, environ: Mapping[str, str]) -> tuple[int, str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, env={**os.environ, **environ}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.interop
async def test_ldapwhoami(bundle: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pki.authority().pem)
    cert, key = ALICES.write(str(tmp_path))
    shown = {"LDAPTLS_CACERT": str(ca), "LDAPTLS_REQCERT": "demand", "LDAPTLS_CERT": cert, "LDAPTLS_KEY": key}
    served = Served(
        ldap=(provider(certificate="c"),), certificates={"c": pki.server("localhost", "127.0.0.1").served()}
    )
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        assert await there.serve(served) == ()
        for url, *flags in ((f"ldap://127.0.0.1:{there.port}", "-ZZ"), (f"ldaps://127.0.0.1:{there.tls_port}",)):
            command = ("ldapwhoami", "-Q", "-Y", "EXTERNAL", "-H", url, *flags)
            status, output = await run(*command, environ=shown)
            assert (status, f"dn:{ALICE}" in output) == (0, True), output
            status, output = await run(*command, "-X", "u:bob", environ=shown)
            assert status == 49, output
            status, output = await run(*command, environ={k: v for k, v in shown.items() if "REQ" in k or "CA" in k})
            assert status != 0, output


async def test_ldap3(bundle: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # ldap3 still asks pyasn1 for names of old.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ldap3

    cert, key = ALICES.write(str(tmp_path))

    def ask(port: int, is_upgraded: bool) -> str:
        tls = ldap3.Tls(local_certificate_file=cert, local_private_key_file=key, validate=ssl.CERT_NONE)
        server = ldap3.Server("127.0.0.1", port, use_ssl=not is_upgraded, tls=tls, get_info=None)
        client = ldap3.Connection(server, authentication=ldap3.SASL, sasl_mechanism=ldap3.EXTERNAL, sasl_credentials=())
        client.open()
        if is_upgraded:
            assert client.start_tls()
        assert client.bind(), client.result
        found = client.extend.standard.who_am_i()
        client.unbind()
        return str(found)

    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        assert await asyncio.to_thread(ask, there.tls_port, False) == f"dn:{ALICE}"
        assert await asyncio.to_thread(ask, there.port, True) == f"dn:{ALICE}"


async def test_trusting_contexts_of_the_other_tests_show_nothing(bundle: Path) -> None:
    async with bed(tls=TlsSettings(bundle), can_vouch=True) as there:
        assert await external(await there.client(tls=trusting())) == 7
