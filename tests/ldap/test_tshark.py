"""tshark reads every kind of response that this server has, and finds nothing malformed in any."""

import asyncio
import contextlib
import json
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from outpost.identity import LdapProvider, Mode, Revoked, Unavailable, UnavailableReason
from outpost.ldap import results
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from tests.ldap import decode, encode
from tests.ldap.test_controls import MATCHED_VALUES, PAGED, asserting, choosing, paged, sort
from tests.ldap.test_password_modify import OID as PASSWORD_MODIFY
from tests.ldap.test_password_modify import Keeper, wish
from tests.ldap.testbed import ALICE, BASE, SERVICE, Bed, Client, bed, people, provider

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

Recorded = list[list[tuple[bool, bytes]]]
"""Of each connection what was said, in order; True: by the server."""


@contextlib.asynccontextmanager
async def recording(there: Bed, into: Recorded) -> AsyncIterator[None]:
    """Clients of the bed go through a relay that remembers every octet."""
    port = there.port
    relays = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said: list[tuple[bool, bytes]] = []
        into.append(said)
        behind, before = await asyncio.open_connection("127.0.0.1", port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, by_server: bool) -> None:
            with contextlib.suppress(ConnectionError):
                while octets := await source.read(60_000):
                    said.append((by_server, octets))
                    target.write(octets)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, before, False), copy(behind, writer, True))

    def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(relay(reader, writer))
        relays.add(task)
        task.add_done_callback(relays.discard)

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    there.port = server.sockets[0].getsockname()[1]
    yield
    for client in there.clients:
        await client.close()
    await asyncio.wait_for(asyncio.gather(*relays), 10)
    server.close()


def capture(recorded: Recorded) -> bytes:
    """A pcap file of it: raw IPv4, a TCP connection each, the server on port 389."""
    found = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101)]
    for number, said in enumerate(recorded):
        at = {True: 1000, False: 1000}
        for by_server, octets in said:
            ports = (389, 40_000 + number) if by_server else (40_000 + number, 389)
            tcp = struct.pack("!HHIIBBHHH", *ports, at[by_server], at[not by_server], 0x50, 0x18, 65_535, 0, 0)
            at[by_server] += len(octets)
            ip = struct.pack("!BBHIBBH8s", 0x45, 0, 40 + len(octets), 0, 64, 6, 0, b"\x7f\0\0\1\x7f\0\0\1")
            packet = ip + tcp + octets
            found.append(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)
    return b"".join(found)


def tshark(folder: Path, recorded: Recorded, *arguments: str) -> str:
    path = folder / "ldap.pcap"
    path.write_bytes(capture(recorded))
    command = ["tshark", "-r", str(path), "-o", "tcp.desegment_tcp_streams:TRUE", "-o", "ip.check_checksum:FALSE"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


WRONG = "tcp.srcport==389 && (_ws.malformed || _ws.expert.severity==error || _ws.unreassembled)"


def flaws(folder: Path, recorded: Recorded) -> list[str]:
    """What tshark finds wrong with what the server said."""
    return tshark(
        folder, recorded, "-Y", WRONG, "-T", "fields", "-e", "frame.number", "-e", "_ws.col.Info"
    ).splitlines()


def read(folder: Path, recorded: Recorded) -> tuple[Counter[int], Counter[int], Counter[str], Counter[str]]:
    """Of the server's messages as tshark sees them: operations, result codes, controls, names of extended responses."""
    fields = ("ldap.protocolOp", "ldap.resultCode", "ldap.controlType", "ldap.responseName")
    chosen = [one for field in fields for one in ("-e", field)]
    said = tshark(folder, recorded, "-Y", "tcp.srcport==389 && ldap", "-T", "json", *chosen)
    found: list[Counter[str]] = [Counter() for _ in fields]
    for packet in json.loads(said):
        layers = packet["_source"]["layers"]
        for field, counter in zip(fields, found, strict=True):
            counter.update(layers.get(field, ()))
    operations, codes, controls, names = found
    return (
        Counter({int(n): count for n, count in operations.items()}),
        Counter({int(n): count for n, count in codes.items()}),
        controls,
        names,
    )


async def drain(client: Client, count: int = 1) -> int:
    """Read until so many operations have ended; the last result code."""
    code = -1
    while count:
        message = await client.message()
        if message.tag != 0x64:
            code = decode.result(message.content)[0]
            count -= 1
    return code


async def said_about_binds(there: Bed) -> None:
    client = await there.client()
    for name, password in ((ALICE, "alice-pw"), (ALICE, "wrong"), (ALICE, ""), ("", ""), ("cn=alice,dc=x", "pw")):
        await client.bind(name, password)
    await client.bind(ALICE, "alice-pw", version=2)
    await client.bind(ALICE, "alice-pw", controls=[encode.control("9.9.9", True)])
    for mechanism in ("PLAIN", "EXTERNAL", "GSSAPI"):
        client.send(encode.sasl_bind(client.next_id, mechanism, b"x"))
        await drain(client)
    for reason in UnavailableReason:
        there.authority.script["bob"] = Unavailable(reason)
        await client.bind(f"cn=bob,ou=users,{BASE}", f"{reason}")
    there.authority.script["bob"] = RuntimeError("a bug")
    assert await client.bind(f"cn=bob,ou=users,{BASE}", "what") == 80


async def said_about_searches(there: Bed) -> None:
    anonymous, client = await there.client(), await there.client("ldapservice")
    assert (await anonymous.search(BASE))[0] == 50
    controls: Iterable[Any] = [
        (),
        [paged(2)],
        [sort("cn")],
        [sort("-uidNumber"), paged(1)],
        [sort("nosuch")],
        [sort("nosuch", critical=True)],
        [asserting("(cn=nobody)")],
        [choosing("(objectClass=person)")],
        [encode.control("9.9.9", True)],
        [encode.control(PAGED, True, b"nonsense")],
        [encode.control(MATCHED_VALUES, True, b"")],
    ]
    for some in controls:
        for base in (BASE, "", "cn=subschema", ALICE, f"cn=nobody,ou=users,{BASE}", "nonsense", "dc=elsewhere"):
            await client.search(base, attributes=["*", "+"], controls=some)
    for attributes in (["1.1"], ["cn"], ["+"], ["nosuch"], ["objectGUID", "objectSid"]):
        await client.search(BASE, attributes=attributes)
        await client.search(BASE, attributes=attributes, types_only=True)
    assert (await client.search(BASE, size_limit=1))[0] == 4
    await client.search(BASE, controls=[paged(5, b"no cookie")])
    for filter in ("(member=cn=alice)", "(&)", "(|)", "(memberOf:1.2.840.113556.1.4.1941:=cn=x)"):
        await client.search(BASE, filter)


async def said_about_other_operations(there: Bed) -> None:
    client = await there.client("ldapservice")
    values = (("cn", "alice"), ("cn", "bob"), ("street", "x"), ("nosuch", "x"), ("uidNumber", "x"))
    for entry in (ALICE, f"cn=nobody,ou=users,{BASE}", "nonsense"):
        for name, value in values:
            client.send(encode.compare(client.next_id, entry, name, value))
            await drain(client)
    for tag in (0x66, 0x68, 0x4A, 0x6C):
        client.send(encode.message(client.next_id, encode.tlv(tag, ALICE.encode())))
        assert await drain(client) == 53
    extended: list[tuple[str, bytes | None]] = [
        (results.WHO_AM_I.decode(), None),
        (results.WHO_AM_I.decode(), b"x"),
        (results.CANCEL.decode(), encode.tlv(0x30, encode.integer(99))),
        (results.CANCEL.decode(), b"x"),
        ("1.2.3.4", None),
        (PASSWORD_MODIFY, wish(old="x", new="y")),
        (PASSWORD_MODIFY, wish(old="x")),
        (PASSWORD_MODIFY, b"nonsense"),
    ]
    for name, value in extended:
        client.send(encode.extended(client.next_id, name, value))
        await drain(client)
    await client.bind(SERVICE, "service-pw")
    target = client.next_id
    client.send(encode.search(target, BASE, attributes=["*", "+"]) + encode.search(client.next_id, BASE, "(cn=alice)"))
    await drain(client, 2)
    client.send(encode.extended(client.next_id, results.START_TLS.decode()))
    assert await drain(client) == 0
    await client.close()


async def said_at_the_end(there: Bed) -> None:
    """Notices of Disconnection."""
    for octets in (b"\x30\x05nonsense", b"\x30\x84\x7f\xff\xff\xff", encode.message(1, encode.tlv(0x7F, b""))):
        client = await there.client()
        client.send(octets)
        assert await drain(client) in (2, 11)
    client = await there.client("alice")
    there.gate.publish(Revoked(user_pk=1))
    assert await drain(client) == 8


async def cancelled(recorded: Recorded) -> None:
    async with (
        bed(providers=[provider(search_mode=Mode.DIRECT)], search_limits=SearchLimits()) as there,
        recording(there, recorded),
    ):
        client = await there.client("ldapservice")
        there.roster.hold = asyncio.Event()
        client.send(encode.search(70, BASE))
        while not there.roster.fetched:
            await asyncio.sleep(0.001)
        client.send(encode.extended(71, results.CANCEL.decode(), encode.tlv(0x30, encode.integer(70))))
        assert await drain(client) == results.CANCELED and await drain(client) == 0
        there.roster.hold.set()
        there.roster.is_down = True
        assert (await client.search(BASE))[0] == results.UNAVAILABLE


async def timed_out(recorded: Recorded) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    async with (
        bed(directory=people(3000), clock=clock, search_limits=SearchLimits(time_limit_s=0.05)) as there,
        recording(there, recorded),
    ):
        client = await there.client("ldapservice")
        assert (await client.search(BASE, attributes=["*", "+"]))[0] == results.TIME_LIMIT_EXCEEDED
        now[0] = 1e6
        there.server._swept()
        assert await drain(client) == results.UNAVAILABLE, "idle"


async def refused(recorded: Recorded) -> None:
    """Before TLS where it is required, before the first reading, and at a stop."""
    async with bed(providers=[provider(require_tls=True)]) as there, recording(there, recorded):
        client = await there.client()
        assert await client.bind(ALICE, "alice-pw") == 13
        assert (await client.search(BASE))[0] == 13
        client.send(encode.compare(client.next_id, ALICE, "cn", "x"))
        assert await drain(client) == 13
    async with bed(is_empty=True) as there, recording(there, recorded):
        client = await there.client("ldapservice")
        assert (await client.search(BASE))[0] == results.BUSY
        await there.server.stop(0.2)
        assert await drain(client) == results.UNAVAILABLE


async def everything() -> Recorded:
    recorded: Recorded = []
    options: LdapProvider = provider(samba=True, shadow=True, active_directory=True)
    async with (
        bed(providers=[options], passwords=Keeper(), limits=ServerLimits()) as there,
        recording(there, recorded),
    ):
        await said_about_binds(there)
        await said_about_searches(there)
        await said_about_other_operations(there)
        await said_at_the_end(there)
    await cancelled(recorded)
    await timed_out(recorded)
    await refused(recorded)
    return recorded


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(everything())


def said_by_server(recorded: Recorded) -> list[decode.Message]:
    return [
        m for said in recorded for m in decode.messages(b"".join(octets for by_server, octets in said if by_server))
    ]


def test_nothing_is_malformed_and_everything_is_understood(recorded: Recorded, tmp_path: Path) -> None:
    assert flaws(tmp_path, recorded) == []
    operations, codes, controls, names = read(tmp_path, recorded)
    sent = said_by_server(recorded)
    assert operations == Counter(m.tag & 0x1F for m in sent)
    assert codes == Counter(decode.result(m.content)[0] for m in sent if m.tag != 0x64)
    every = [decode.elements(control) for m in sent for _, control in decode.elements(m.controls)]
    assert controls == Counter(next(iter(parts))[1].decode() for parts in every)
    # Every kind there is; intermediate responses and references are never sent.
    assert set(operations) == {1, 4, 5, 7, 9, 11, 13, 15, 24}
    known = {
        value for name, value in vars(results).items() if name.isupper() and isinstance(value, int) and value < 128
    }
    tags = {results.SEARCH, results.MODIFY, results.ADD, results.DELETE, results.MODIFY_DN, results.COMPARE}
    never = {*tags, results.EXTENDED, results.SEARCH_DONE, results.INAPPROPRIATE_MATCHING}
    assert known - never - set(codes) <= {results.OPERATIONS_ERROR, results.UNDEFINED_ATTRIBUTE_TYPE}
    assert set(controls) == {PAGED, "1.2.840.113556.1.4.474"}
    assert set(names) == {"1.3.6.1.4.1.1466.20036", "1.3.6.1.4.1.1466.20037"}


def test_what_is_malformed_is_seen(recorded: Recorded, tmp_path: Path) -> None:
    said = next(said for said in recorded if sum(by_server for by_server, _ in said) > 3)
    at = next(n for n, (by_server, _) in enumerate(said) if by_server)
    octets = bytearray(said[at][1])
    octets[octets.index(0x0A) + 1] = 0x7F  # the resultCode's length
    assert flaws(tmp_path, [[*said[:at], (True, bytes(octets)), *said[at + 1 :]]])
