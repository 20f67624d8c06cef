"""TLS over real sockets: StartTLS, ldaps, which certificate, and what nobody may do without it."""

import asyncio
import os
import re
import shutil
import ssl
import struct
import subprocess
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from outpost.identity import CertificateKeyPair, LdapProvider, Mode, People, Revoked, Secret, Served, Wanted
from outpost.ldap import tls
from outpost.ldap.channel import UNREAD
from outpost.ldap.server import ServerLimits
from tests.ldap import decode, encode, pki
from tests.ldap.testbed import ALICE, BASE, SERVICE, Bed, Client, Roster, bed, people, provider, trusting

START_TLS = "1.3.6.1.4.1.1466.20037"
WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"
CANCEL = "1.3.6.1.1.8"


async def ask(client: Client, octets: bytes) -> int:
    """resultCode of what answers one message."""
    client.send(octets)
    return decode.result((await client.message()).content)[0]


async def told_to_start(client: Client) -> None:
    """StartTLS up to its answer."""
    client.send(encode.extended(client.next_id, START_TLS))
    found = await client.message()
    assert decode.result(found.content)[0] == 0
    assert dict(decode.elements(found.content))[0x8A] == START_TLS.encode()


async def start_tls(client: Client, context: ssl.SSLContext | None = None, name: str = "localhost") -> None:
    await told_to_start(client)
    await handshake(client, context, name)


async def handshake(client: Client, context: ssl.SSLContext | None = None, name: str = "localhost") -> None:
    async with asyncio.timeout(10):
        await client.writer.start_tls(context or trusting(), server_hostname=name)


def shown(client: Client) -> bytes:
    """The server's certificate, DER."""
    found = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert found
    return found


async def emptied(there: Bed, left: int = 0) -> None:
    async with asyncio.timeout(10):
        while there.server.open > left or there.server._arriving or there.server._connecting:
            await asyncio.sleep(0.001)


async def run(*command: str, given: str = "", environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and all output of a program."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=30,
        errors="replace",
        env={**os.environ, **(environ or {})},
    )
    return done.returncode, done.stdout + done.stderr


# -- StartTLS (RFC 4511 4.14) ---------------------------------------------------------------------


async def test_start_tls_then_everything_works() -> None:
    async with bed() as there:
        client = await there.client()
        await start_tls(client)
        assert await client.bind(SERVICE, "service-pw") == 0
        assert len((await client.search(f"ou=users,{BASE}", scope=1))[1]) == 3
        assert there.seen.operations == [("extended", 0)]


async def test_an_identity_survives_start_tls() -> None:
    async with bed() as there:
        client = await there.client("alice")
        await start_tls(client)
        client.send(encode.extended(client.next_id, WHO_AM_I))
        found = await client.message()
        assert dict(decode.elements(found.content))[0x8B] == b"dn:" + ALICE.encode()
        assert [one.dn for one in (await client.search(BASE, "(cn=alice)"))[1]][:1] == [ALICE.encode()]
        there.gate.publish(Revoked(user_pk=1))
        assert decode.result((await client.message()).content)[0] == 8, "it can still be revoked"


async def test_start_tls_takes_no_value_and_comes_once() -> None:
    async with bed() as there:
        client = await there.client()
        assert await ask(client, encode.extended(1, START_TLS, b"")) == 2
        assert await ask(client, encode.extended(2, START_TLS, b"x")) == 2
        assert (await client.search("", scope=0))[0] == 0, "still without TLS"
        await start_tls(client)
        assert await ask(client, encode.extended(3, START_TLS)) == 1
        assert (await client.search("", scope=0))[0] == 0, "still with TLS"
        encrypted = await there.client(tls=trusting())
        assert await ask(encrypted, encode.extended(1, START_TLS)) == 1
        assert (await encrypted.search("", scope=0))[0] == 0


async def test_start_tls_is_advertised_until_it_is_done() -> None:
    async with bed() as there:
        client = await there.client()
        [root] = (await client.search("", scope=0, attributes=["supportedExtension"]))[1]
        assert START_TLS.encode() in root["supportedExtension"]
        await start_tls(client)
        [root] = (await client.search("", scope=0, attributes=["supportedExtension"]))[1]
        assert START_TLS.encode() not in root["supportedExtension"]


@pytest.mark.parametrize(
    "behind",
    [
        encode.bind(2, SERVICE, "service-pw"),
        encode.bind(2, SERVICE, "service-pw") + encode.search(3, BASE) + encode.unbind(4),
        encode.unbind(2),
        encode.extended(2, START_TLS),
        encode.abandon(2, 1),
        encode.bind(2, SERVICE, "service-pw")[:20],
        b"\xff" * 50,
        b"\x30\x84\x7f\xff\xff\xff",
        encode.bind(2, SERVICE, b"x" * 1_000_000),
    ],
)
async def test_what_is_sent_behind_start_tls_is_dropped(behind: bytes) -> None:
    """Otherwise somebody in the middle could put requests in front of the encrypted ones."""
    async with bed() as there:
        client = await there.client()
        client.send(encode.extended(1, START_TLS) + behind)
        assert decode.result((await client.message()).content)[0] == 0
        if len(behind) > 10_000:
            # It comes in pieces, of which TLS sees some and refuses them.
            assert await client.is_closed()
        else:
            await handshake(client)
            client.send(encode.extended(9, WHO_AM_I))
            found = await client.message()
            assert found.message_id == 9
            assert dict(decode.elements(found.content))[0x8B] == b"", "nobody"
        assert there.authority.asked == []
        assert there.seen.searches == []


async def test_octets_between_start_tls_and_the_handshake_are_no_requests() -> None:
    async with bed() as there:
        client = await there.client()
        await told_to_start(client)
        client.send(encode.bind(2, SERVICE, "service-pw"), encode.search(3, BASE))
        assert await client.is_closed()
        await emptied(there)
        assert there.authority.asked == []
        assert there.seen.searches == []
        assert there.seen.ends == ["handshake"]


class SlowRoster(Roster):
    """Its people come when they are let go."""

    def __init__(self) -> None:
        super().__init__(people())
        self.gone_on = asyncio.Event()

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> People:
        found = await super().fetch(provider, wanted)
        await self.gone_on.wait()
        return found


async def test_start_tls_waits_for_what_is_in_work() -> None:
    async with bed(providers=[provider(search_mode=Mode.DIRECT)]) as there:
        roster = there.directories._roster = SlowRoster()
        client = await there.client("ldapservice")
        client.send(
            encode.search(50, ALICE, scope=0),
            encode.extended(51, START_TLS),
            encode.bind(52, ALICE, "alice-pw"),
        )
        async with asyncio.timeout(10):
            while not roster.fetched:
                await asyncio.sleep(0.001)
        [channel] = there.server._channels
        assert not channel.session.is_secure
        assert channel._shaking is None
        roster.gone_on.set()
        assert [(await client.message()).message_id for _ in range(3)] == [50, 50, 51]
        await handshake(client)
        client.send(encode.extended(53, WHO_AM_I))
        found = await client.message()
        assert (found.message_id, dict(decode.elements(found.content))[0x8B]) == (53, b"dn:" + SERVICE.encode())
        assert there.authority.asked == [("ldapservice", "127.0.0.1")]


async def test_start_tls_waits_for_a_bind() -> None:
    async with bed() as there:
        there.authority.hold = asyncio.Event()
        client = await there.client()
        client.send(encode.bind(1, ALICE, "alice-pw"), encode.extended(2, START_TLS))
        async with asyncio.timeout(10):
            while not there.authority.asked:
                await asyncio.sleep(0.001)
        there.authority.hold.set()
        assert [(await client.message()).message_id for _ in range(2)] == [1, 2]
        await handshake(client)
        assert (await client.search(ALICE, scope=0))[0] == 0


ALERT, FATAL = b"\x15", b"\2"


@pytest.mark.parametrize("octets", [b"garbage" * 30, b"\x16\x03\x01\xff\xff" + bytes(40), b"\x15\x03\x03\0\2\2\x28"])
async def test_no_client_hello(octets: bytes) -> None:
    async with bed() as there:
        client, other = await there.client("alice"), await there.client()
        await told_to_start(client)
        client.send(octets)
        client.writer.write_eof()
        async with asyncio.timeout(10):
            told = await client.reader.read()
        assert told == b"" or (told[:1], told[5:6], len(told)) == (ALERT, FATAL, 7)
        await emptied(there, 1)
        assert there.seen.ends == ["handshake"]
        assert (await other.search("", scope=0))[0] == 0


async def test_a_handshake_has_a_deadline() -> None:
    async with bed(limits=ServerLimits(handshake_s=0.1)) as there:
        client, half = await there.client("alice"), await there.client()
        for one in (client, half):
            await told_to_start(one)
        half.send(b"\x16\x03\x01\x02")
        assert await client.is_closed()
        assert await half.is_closed()
        await emptied(there)
        assert there.seen.ends == ["handshake", "handshake"]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_clients_that_leave_during_the_handshake(sent: bytes) -> None:
    async with bed() as there:
        for _ in range(5):
            client = await there.client("alice")
            await told_to_start(client)
            client.send(sent)
            await asyncio.sleep(0)
            client.writer.transport.abort()
        await emptied(there)
        assert there.sessions.held == []
        assert there.seen.ends == ["handshake"] * 5


async def test_revocation_during_the_handshake() -> None:
    async with bed() as there:
        client = await there.client("alice")
        await told_to_start(client)
        there.gate.publish(Revoked(user_pk=1))
        assert await client.is_closed()
        await emptied(there)
        assert there.sessions.held == []


async def test_stopping_during_the_handshake() -> None:
    async with bed() as there:
        client = await there.client("alice")
        await told_to_start(client)
        await there.server.stop(0.1)
        assert there.server.open == 0
        assert await client.is_closed()


async def test_large_results_over_tls() -> None:
    async with bed(directory=people(1000)) as there:
        slow, quick = await there.client(tls=trusting()), await there.client()
        await start_tls(quick)
        for one in (slow, quick):
            assert await one.bind(SERVICE, "service-pw") == 0
        for _ in range(9):
            slow.send(encode.search(slow.next_id, BASE, attributes=["*", "+"]))
        async with asyncio.timeout(10):
            while not any(channel.stalled_at is not None for channel in there.server._channels):
                await asyncio.sleep(0.005)
        assert len((await quick.search(BASE))[1]) == 2005
        done = entries = 0
        while done < 9:
            found = await slow.message()
            done += found.tag == 0x65
            entries += found.tag == 0x64
        assert entries == 9 * 2005


# -- ldaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_upgraded", [False, True])
async def test_versions(version: ssl.TLSVersion, is_upgraded: bool) -> None:
    context = pki.client_context(minimum_version=version, maximum_version=version)
    async with bed() as there:
        client = await there.client(tls=None if is_upgraded else context)
        if is_upgraded:
            await start_tls(client, context)
        assert client.writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
        assert await client.bind(SERVICE, "service-pw") == 0
        assert (await client.search(BASE))[0] == 0


def old_context(purpose: int) -> ssl.SSLContext:
    """One that speaks TLS 1.1 and nothing else."""
    context = ssl.SSLContext(purpose)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    if purpose == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def test_the_old_client_can_do_what_the_next_test_refuses(tmp_path: Path) -> None:
    there = old_context(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(*pki.server("localhost").write(str(tmp_path)))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = there.wrap_bio(to_server, to_client, server_side=True)
    client = old_context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert (client.version(), server.version()) == ("TLSv1.1", "TLSv1.1")


async def test_tls_1_1_is_refused() -> None:
    async with bed() as there:
        context = old_context(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises((ssl.SSLError, OSError)):
            await there.client(tls=context)
        client = await there.client()
        await told_to_start(client)
        with pytest.raises((ssl.SSLError, OSError)):
            await handshake(client, context)
        await emptied(there)
        assert (there.seen.refused, there.seen.ends) == (["handshake"], ["handshake"])
        fine = await there.client(tls=trusting())
        assert (await fine.search("", scope=0))[0] == 0


async def test_plain_octets_at_the_tls_port() -> None:
    async with bed(limits=ServerLimits(handshake_s=0.5)) as there:
        for octets in (encode.bind(1, SERVICE, "service-pw"), b"GET / HTTP/1.0\r\n\r\n", b"\x30", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", there.tls_port)
            client = Client(reader, writer)
            there.clients.append(client)
            client.send(octets)
            assert await client.is_closed()
        await emptied(there)
        assert there.authority.asked == []
        assert there.seen.taken == []
        assert there.seen.refused == ["handshake"] * 4


async def test_clients_of_ldaps_that_leave_early() -> None:
    async with bed() as there:
        for octets in (b"", b"\x16\x03\x01\x02\x00\x01"):
            _, writer = await asyncio.open_connection("127.0.0.1", there.tls_port)
            writer.write(octets)
            await asyncio.sleep(0.01)
            writer.transport.abort()
        async with asyncio.timeout(10):
            while len(there.seen.refused) < 2:
                await asyncio.sleep(0.001)
        await emptied(there)
        assert there.seen.taken == []


async def test_many_handshakes_that_go_nowhere_hold_nobody_up() -> None:
    async with bed(limits=ServerLimits(handshake_s=0.5)) as there:
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", there.tls_port)
            there.clients.append(Client(reader, writer))
            writer.write(b"\x16\x03\x01\x02\x00\x01")
        fine = await there.client("alice", tls=trusting())
        assert (await fine.search(ALICE, scope=0))[0] == 0
        await emptied(there, 1)
        assert there.seen.refused == ["handshake"] * 100
        assert (await fine.search(ALICE, scope=0))[0] == 0, "whose handshake was done in time has no deadline"


async def test_stopping_does_not_wait_for_handshakes() -> None:
    async with bed() as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.tls_port)
        client = Client(reader, writer)
        there.clients.append(client)
        client.send(b"\x16\x03\x01\x02\x00\x01")
        async with asyncio.timeout(10):
            while not there.server._channels:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(10):
            await there.server.stop(60.0)
        assert await client.is_closed()
        assert (there.seen.taken, there.seen.refused) == ([], [])


@pytest.mark.parametrize("is_upgraded", [False, True])
async def test_who_sends_and_never_reads_is_read_no_more(is_upgraded: bool) -> None:
    async with bed(directory=people(1000)) as there:
        client = await there.client(tls=None if is_upgraded else trusting())
        if is_upgraded:
            await start_tls(client)
        assert await client.bind(SERVICE, "service-pw") == 0
        client.writer.transport.pause_reading()
        [channel] = there.server._channels
        for count in range(250):
            # The first fill what the kernel keeps for the client.
            client.send(encode.search(client.next_id, BASE, scope=2 if count < 80 else 0, attributes=["x" * 1000]))
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while channel._is_reading:
                await asyncio.sleep(0.001)
        assert channel.stalled_at is not None
        assert channel._inbox.pending() < UNREAD + 16_384
        client.writer.transport.resume_reading()
        done = 0
        while done < 250:
            done += (await client.message()).tag == 0x65
        assert channel._is_reading and channel.stalled_at is None


async def test_what_is_left_at_the_end_is_not_kept_for_ever() -> None:
    """Too little waits for the client to count as stalled, and it does not take it."""
    now = [0.0]
    async with bed(clock=lambda: now[0]) as there:
        client = await there.client(tls=trusting())
        assert (await client.search("", scope=0))[0] == 0
        [channel] = there.server._channels
        transport, closed = channel._transport, []
        assert transport is not None
        channel._transport = HangingTransport(transport, closed)  # type: ignore[assignment]
        client.send(encode.unbind(1))
        async with asyncio.timeout(10):
            while not closed:
                await asyncio.sleep(0.001)
        now[0] = 60.0
        there.server._swept()
        assert there.server.open == 1
        now[0] = 60.1
        there.server._swept()
        await emptied(there)
        assert there.seen.ends == ["stalled"]


class HangingTransport:
    """Does not come to an end by itself."""

    def __init__(self, there: Any, closed: list[bool]) -> None:
        self.write, self.abort, self.is_closing = there.write, there.abort, there.is_closing
        self.close = lambda: closed.append(True)


async def test_a_bug_behind_tls_ends_its_connection_alone() -> None:
    async with bed() as there:
        client, other = await there.client(tls=trusting()), await there.client("alice", tls=trusting())
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what["exception"]))
        [channel] = [one for one in there.server._channels if one.session.identity is None]
        channel._inbox = None  # type: ignore[assignment]
        client.send(encode.search(1, "", scope=0))
        assert await client.is_closed()
        await emptied(there, 1)
        assert len(failures) == 1
        assert (await other.search(ALICE, scope=0))[0] == 0


V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack("!HH", 5000, 636)


@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 636\r\n", V2])
async def test_the_proxy_header_comes_before_tls(header: bytes) -> None:
    async with bed(trusted="127.0.0.0/8") as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.tls_port)
        client = Client(reader, writer)
        there.clients.append(client)
        client.send(header)
        await handshake(client)
        assert await client.bind(ALICE, "alice-pw") == 0
        assert there.authority.asked == [("alice", "203.0.113.9")]


async def test_without_its_proxy_header_nobody_is_taken() -> None:
    async with bed(trusted="127.0.0.0/8", limits=ServerLimits(handshake_s=0.5)) as there:
        with pytest.raises((ssl.SSLError, OSError)):
            await there.client(tls=trusting())
        assert there.seen.refused == ["proxy"]


async def test_a_proxy_header_inside_tls_is_no_ldap() -> None:
    async with bed() as there:
        client = await there.client(tls=trusting())
        client.send(V2, encode.bind(1, ALICE, "alice-pw"))
        assert decode.result((await client.message()).content)[0] == 2
        assert await client.is_closed()
        assert there.authority.asked == []


# -- programs -------------------------------------------------------------------------------------


@pytest.fixture
def authority_file(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(pki.authority().pem)
    return str(path)


async def with_certificate(there: Bed, pair: pki.Pair) -> None:
    served = Served(ldap=(provider(certificate="c"),), certificates={"c": pair.served()})
    assert await there.serve(served) == ()


@pytest.mark.interop
@pytest.mark.parametrize(("names", "is_right"), [(("localhost", "127.0.0.1"), True), (("elsewhere.example",), False)])
async def test_ldapsearch(names: tuple[str, ...], is_right: bool, authority_file: str) -> None:
    async with bed() as there:
        await with_certificate(there, pki.server(*names))
        for url, flags in (
            (f"ldap://127.0.0.1:{there.port}", ("-ZZ",)),
            (f"ldaps://127.0.0.1:{there.tls_port}", ()),
        ):
            status, output = await run(
                *("ldapsearch", "-LLL", "-x", "-H", url, *flags, "-D", SERVICE, "-w", "service-pw"),
                *("-b", f"ou=users,{BASE}", "(cn=alice)", "mail"),
                environ={"LDAPTLS_CACERT": authority_file, "LDAPTLS_REQCERT": "demand"},
            )
            assert (status == 0) is is_right, output
            assert ("mail: alice@example.com" in output) is is_right, output
        assert len(there.authority.asked) == is_right


@pytest.mark.interop
async def test_openssl(authority_file: str) -> None:
    async with bed() as there:
        await with_certificate(there, pki.server("localhost"))
        trust = ("-CAfile", authority_file, "-verify_return_error", "-verify_hostname", "localhost")
        for port, flags in ((there.port, ("-starttls", "ldap")), (there.tls_port, ())):
            where = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *trust, *flags)
            for version in ("-tls1_2", "-tls1_3"):
                status, output = await run(*where, version)
                assert status == 0, output
                assert "Verify return code: 0 (ok)" in output
            status, output = await run(*where, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
            assert status != 0, output
            status, output = await run(*where, "-tls1_2", given="R\n")
            assert status != 0 and "no renegotiation" in output, output


@pytest.mark.interop
async def test_new_keys_during_a_connection() -> None:
    """KeyUpdate (RFC 8446 4.6.3), asked for and not."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    async with bed() as there:
        where = ("s_client", "-connect", f"127.0.0.1:{there.tls_port}", "-tls1_3", "-msg")
        given, told = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        client = await asyncio.create_subprocess_exec("openssl", *where, stdin=given, stdout=given, stderr=told)
        assert client.stdin is not None and client.stdout is not None
        seen = b""
        for said, (command, answered) in enumerate(((b"K\n", 1), (b"k\n", 1), (b"K\n", 2)), 1):
            client.stdin.write(command)
            async with asyncio.timeout(10):
                while seen.count(b"KEYUPDATE") < said:
                    seen += await client.stdout.read(65_536)
            client.stdin.write(encode.search(1, "", scope=0))
            async with asyncio.timeout(10):
                while seen.count(b"supportedLDAPVersion") < said:
                    seen += await client.stdout.read(65_536)
            assert len(re.findall(rb"<<< TLS 1.3, Handshake [^\n]*, KeyUpdate", seen)) == answered
        client.kill()
        await client.wait()
        assert there.seen.searches == [(0, "", 1)] * 3


@pytest.mark.interop
async def test_a_server_name_that_is_an_address() -> None:
    """RFC 6066 forbids it; clients send it all the same."""
    async with bed() as there:
        pair = pki.server("host.example", "192.0.2.7", "2001:db8::7")
        served = Served(
            ldap=(provider(certificate="a"), provider(2, "dc=second", certificate="b")),
            certificates={"a": pair.served(), "b": pki.server("other.example").served()},
        )
        assert await there.serve(served) == ()
        for name, is_it in (("192.0.2.7", True), ("2001:db8::7", True), ("192.0.2.8", False)):
            _, output = await run("openssl", "s_client", "-connect", f"127.0.0.1:{there.tls_port}", "-servername", name)
            assert ("host.example" in output) is is_it, (name, output)


# -- which certificate ----------------------------------------------------------------------------

A = pki.server("a.example")
B = pki.server("b.example", "*.wild.example", "192.0.2.7")


def two() -> Served:
    return Served(
        ldap=(
            provider(certificate="a", tls_server_name="One.Example"),
            provider(2, "dc=second", certificate="b", tls_server_name="b2.example"),
            provider(3, "dc=third", tls_server_name="three.example"),
            provider(4, "dc=fourth"),
        ),
        certificates={"a": A.served("a"), "b": B.served("b")},
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("one.example", A),
        ("ONE.example", A),
        ("one.example.", A),
        ("a.example", A),
        ("A.EXAMPLE", A),
        ("b.example", B),
        ("b2.example", B),
        ("x.wild.example", B),
        ("X.Wild.Example", B),
        ("x.y.wild.example", None),
        ("wild.example", None),
        ("three.example", None),
        ("elsewhere.example", None),
        ("example", None),
        ("127.0.0.1", None),
        ("192.0.2.7", None),
    ],
)
async def test_the_certificate_of_a_name(name: str, wanted: pki.Pair | None) -> None:
    """Addresses are not sent as a server name, so that nothing is known of what the client wants."""
    async with bed() as there:
        default = shown(await there.client(tls=trusting()))
        assert await there.serve(two()) == ()
        upgraded = await there.client()
        await start_tls(upgraded, name=name)
        expected = default if wanted is None else wanted.der
        assert shown(upgraded) == expected
        assert shown(await there.client(tls=trusting(), name=name)) == expected


async def test_the_generated_certificate() -> None:
    async with bed() as there, bed() as elsewhere:
        found = x509.load_der_x509_certificate(shown(await there.client(tls=trusting())))
        assert found.subject == found.issuer
        found.verify_directly_issued_by(found)
        assert shown(await elsewhere.client(tls=trusting())) != shown(await there.client(tls=trusting()))


@pytest.mark.parametrize("how", ["ldaps", "StartTLS"])
async def test_without_a_certificate_there_is_no_connection(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made for the first handshake: what fails then is that handshake, and nothing else."""

    def broken() -> CertificateKeyPair:
        raise ImportError("broken installation")

    async with bed() as there:
        plain = await there.client("alice")
        with monkeypatch.context() as patched:
            patched.setattr(tls, "self_signed", broken)
            client = await there.client()
            with pytest.raises((OSError, EOFError)):
                if how == "ldaps":
                    await there.client(tls=trusting())
                else:
                    await start_tls(client)
            client.writer.close()
            await emptied(there, 1)
        assert [type(one) for one in there.seen.failures] == [ImportError]
        assert (await plain.search(ALICE, scope=0))[0] == 0
        assert shown(await there.client(tls=trusting()))


async def test_the_only_certificate_is_for_every_name() -> None:
    async with bed() as there:
        await with_certificate(there, A)
        for name in ("a.example", "nobody.example", "127.0.0.1"):
            assert shown(await there.client(tls=trusting(), name=name)) == A.der


async def test_two_providers_may_share_one_certificate() -> None:
    async with bed() as there:
        served = Served(
            ldap=(provider(certificate="c"), provider(2, "dc=second", certificate="d")),
            certificates={"c": A.served(), "d": A.served()},
        )
        assert await there.serve(served) == ()
        assert shown(await there.client(tls=trusting(), name="nobody.example")) == A.der


async def test_new_handshakes_see_new_certificates_and_open_connections_stay() -> None:
    async with bed() as there:
        await with_certificate(there, A)
        old, upgraded = await there.client(tls=trusting()), await there.client("alice")
        assert await old.bind(ALICE, "alice-pw") == 0
        await start_tls(upgraded)
        late = await there.client()
        await told_to_start(late)
        await with_certificate(there, B)
        assert (shown(old), shown(upgraded)) == (A.der, A.der)
        for client in (old, upgraded):
            assert (await client.search(ALICE, scope=0))[0] == 0
        assert shown(await there.client(tls=trusting())) == B.der
        await handshake(late)
        assert shown(late) == B.der
        assert await there.serve(Served(ldap=(provider(),))) == ()
        assert shown(await there.client(tls=trusting())) not in {A.der, B.der}
        assert (await old.search(ALICE, scope=0))[0] == 0


def secrets_of(*pairs: pki.Pair) -> set[str]:
    """Pieces of the private keys, without what the certificates say as well."""
    lines = [line for pair in pairs for line in pair.key_pem().decode().splitlines()[1:-1]]
    public = "".join(pair.pem.decode() for pair in pairs)
    return {line[at : at + 12] for line in lines for at in range(0, len(line) - 12, 4)} - {
        public[at : at + 12] for at in range(len(public))
    }


BROKEN: dict[str, Callable[[], CertificateKeyPair]] = {
    "the key is none": lambda: A.served("broken", b"-----BEGIN PRIVATE KEY-----\n" + A.key_pem()[100:]),
    "the key is empty": lambda: A.served("broken", b""),
    "the key of another": lambda: A.served("broken", B.key_pem()),
    "the key is encrypted": lambda: A.served("broken", A.key_pem(b"passphrase")),
    "the certificate is none": lambda: CertificateKeyPair("broken", A.key_pem(), Secret(A.key_pem())),
    "the certificate is garbage": lambda: CertificateKeyPair("broken", b"\xff\0" + A.pem[60:], Secret(A.key_pem())),
    "nothing": lambda: CertificateKeyPair("broken", b"", Secret(b"")),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_certificate_that_cannot_be_used(what: str, caplog: pytest.LogCaptureFixture, capfd) -> None:
    async with bed() as there:
        await with_certificate(there, A)
        served = Served(
            ldap=(
                provider(certificate="broken", tls_server_name="a.example"),
                provider(2, "dc=second", certificate="b"),
            ),
            certificates={"broken": BROKEN[what](), "b": B.served("b")},
        )
        [flaw] = await there.serve(served)
        assert "ldap-1" in flaw and "broken" in flaw
        assert len(flaw) < 250
        assert shown(await there.client(tls=trusting(), name="b.example")) == B.der
        client = await there.client("alice")
        await start_tls(client, name="a.example")
        assert shown(client) == B.der, "it is the only one left"
        told = flaw + caplog.text + "".join(capfd.readouterr()) + repr(there.seen.__dict__) + repr(A.served())
        assert not [piece for piece in secrets_of(A, B) if piece in told]
        assert "passphrase" not in told
        assert await there.serve(two()) == ()
        assert shown(await there.client(tls=trusting(), name="a.example")) == A.der, "mended"


def test_what_the_last_test_looks_for_is_there() -> None:
    assert len([piece for piece in secrets_of(A, B) if piece in A.key_pem().decode()]) > 3


async def test_a_certificate_that_is_missing() -> None:
    async with bed() as there:
        served = Served(
            ldap=(provider(certificate="gone"), provider(2, "dc=second", certificate="b")),
            certificates={"b": B.served("b")},
        )
        [flaw] = await there.serve(served)
        assert "ldap-1" in flaw
        assert shown(await there.client(tls=trusting(), name="b.example")) == B.der


# -- require_tls ----------------------------------------------------------------------------------

EXEMPT = {
    "root DSE": encode.search(1, "", scope=0),
    "root DSE, all": encode.search(1, "", scope=0, attributes=["*", "+"]),
}
REQUESTS = {
    "bind": encode.bind(1, ALICE, "alice-pw"),
    "wrong bind": encode.bind(1, ALICE, "wrong"),
    "empty password": encode.bind(1, ALICE, ""),
    "anonymous bind": encode.bind(1),
    "bind of a stranger": encode.bind(1, "cn=x,dc=elsewhere", "x"),
    "PLAIN": encode.sasl_bind(1, "PLAIN", b"\0alice\0alice-pw"),
    "EXTERNAL": encode.sasl_bind(1, "EXTERNAL"),
    "GSSAPI": encode.sasl_bind(1, "GSSAPI"),
    "search": encode.search(1, BASE),
    "search of the schema": encode.search(1, "cn=subschema", scope=0),
    "search elsewhere": encode.search(1, "dc=elsewhere"),
    "search of nonsense": encode.search(1, "nonsense"),
    "compare": encode.compare(1, ALICE, "cn", "alice"),
    "compare elsewhere": encode.compare(1, "dc=elsewhere", "cn", "alice"),
    "Who am I": encode.extended(1, WHO_AM_I),
    "Cancel": encode.extended(1, CANCEL, encode.tlv(0x30, encode.integer(7))),
    "unknown extension": encode.extended(1, "1.2.3.4"),
    "delete": encode.message(1, encode.octets(ALICE, 0x4A)),
    "critical control": encode.extended(1, WHO_AM_I, controls=[encode.control("1.2.3.4", True)]),
}


@pytest.mark.parametrize("what", [*EXEMPT, *REQUESTS])
async def test_require_tls(what: str) -> None:
    async with bed(providers=[provider(require_tls=True)]) as there:
        client = await there.client()
        octets = {**EXEMPT, **REQUESTS}[what]
        client.send(octets)
        found = await client.message()
        while found.tag == 0x64:
            assert what in EXEMPT
            found = await client.message()
        assert decode.result(found.content)[0] == (0 if what in EXEMPT else 13)
        assert there.authority.asked == []
        await start_tls(client)
        client.send(octets)
        found = await client.message()
        while found.tag == 0x64:
            found = await client.message()
        assert decode.result(found.content)[0] != 13, "nothing is missing any more"
        assert await client.bind(SERVICE, "service-pw") == 0
        assert (await client.search(BASE))[0] == 0
        encrypted = await there.client(tls=trusting())
        assert await encrypted.bind(ALICE, "alice-pw") == 0


async def test_require_tls_of_one_provider_among_others() -> None:
    async with bed(providers=[provider(require_tls=True), provider(2, "dc=second")]) as there:
        client = await there.client()
        assert await ask(client, REQUESTS["bind"]) == 13
        assert await ask(client, REQUESTS["search"]) == 13
        assert await ask(client, REQUESTS["compare"]) == 13
        assert await ask(client, encode.bind(1, "cn=alice,dc=second", "alice-pw")) == 0
        assert (await client.search("dc=second"))[0] == 0
        assert (await client.search(BASE))[0] == 50


async def test_require_tls_counts_at_once() -> None:
    async with bed() as there:
        client, encrypted = await there.client("alice"), await there.client(tls=trusting())
        assert await encrypted.bind(ALICE, "alice-pw") == 0
        assert await there.serve(Served(ldap=(provider(require_tls=True),))) == ()
        for what in ("search", "compare", "Who am I", "search of the schema"):
            assert await ask(client, REQUESTS[what]) == 13
        assert (await client.search("", scope=0))[0] == 0
        assert (await encrypted.search(ALICE, scope=0))[0] == 0
        await start_tls(client)
        assert (await client.search(ALICE, scope=0))[0] == 0
