"""Real clients, a real proxy and a real reader of packets, over loopback."""

import asyncio
import io
import shutil
from pathlib import Path

import pytest
from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, AccessReject

from outpost._fastradius import SharedSecret, encode_request
from outpost.identity import ReplyAttributes
from outpost.radius.observer import DropReason
from outpost.radius.packet import encode_attribute
from tests.radius import peers
from tests.radius.testbed import SECRET, Bed, login, provider, serving

WORDS = "ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\n"
SIGNED = ",Message-Authenticator=0x00"

needs_radclient = pytest.mark.skipif(not peers.RADCLIENT, reason="radclient (freeradius-utils) is not installed")
needs_freeradius = pytest.mark.skipif(
    not peers.FREERADIUS or not peers.RADCLIENT, reason="freeradius and freeradius-utils are not installed"
)
needs_pam = pytest.mark.skipif(not peers.PAM_RADIUS, reason="pam_radius_auth (libpam-radius-auth) is not installed")
needs_tshark = pytest.mark.skipif(not peers.TSHARK, reason="tshark is not installed")

EVERYTHING = ReplyAttributes(
    (
        ("Tunnel-Type:1", "VLAN"),
        ("Tunnel-Medium-Type:1", "IEEE-802"),
        ("Tunnel-Private-Group-Id:1", "42"),
        ("Tunnel-Password:1", "tunnel"),
        ("MS-MPPE-Send-Key", "0x" + "11" * 32),
        ("Cisco-AVPair", "shell:priv-lvl=15"),
        ("Framed-IPv6-Prefix", "2001:db8::/32"),
        ("Session-Timeout", "3600"),
    )
)


OF_VENDORS = (
    ("Cisco-AVPair", '"ip:inacl#1=permit ip any any"'),
    ("HP-Privilege-Level", "15"),
    ("HP-User-Role", '"staff"'),
    ("APC-Service-Type", "Admin"),
    ("Extreme-CLI-Authorization", "Enabled"),
    ("Foundry-Privilege-Level", "0"),
    ("Huawei-Exec-Privilege", "15"),
    ("Juniper-Local-User-Name", '"admins"'),
    ("ASA-Group-Policy", '"OU=staff"'),
    ("MS-Primary-DNS-Server", "192.0.2.53"),
    ("MS-MPPE-Recv-Key", "0x" + "ab" * 32),
    ("Fortinet-Group-Name", '"vpn"'),
    ("Fortinet-Access-Profile", '"prof_admin"'),
    ("pfSense-Bandwidth-Max-Up", "1000"),
    ("WISPr-Bandwidth-Max-Down", "2000"),
    ("Aruba-User-Role", '"staff"'),
    ("Aruba-User-Vlan", "42"),
    ("Aruba-Named-User-Vlan", '"office"'),
    ("Aruba-CPPM-Role", '"staff"'),
    ("Mikrotik-Group", '"full"'),
    ("Mikrotik-Rate-Limit", '"10M/20M"'),
    ("Ruckus-User-Groups", '"staff"'),
    ("H3C-Exec-Privilege", "Manage"),
    ("PaloAlto-Admin-Role", '"superuser"'),
    ("PaloAlto-User-Group", '"vpn"'),
    ("Meraki-Device-Name", '"ap"'),
    ("Arista-AVPair", '"shell:priv-lvl=15"'),
    ("NAS-Filter-Rule", '"permit in ip from any to any"'),
    ("Egress-VLAN-Name", '"1office"'),
    ("Framed-IP-Address", "192.0.2.7"),
    ("Framed-Pool", '"pool"'),
    ("Acct-Interim-Interval", "600"),
    ("Termination-Action", "RADIUS-Request"),
)
"""What devices of many makes act on, and how radclient shows it."""


@pytest.mark.parametrize(("password", "code"), [("wonderland", AccessAccept), ("wrong", AccessReject)])
async def test_pyrad(password: str, code: int) -> None:
    words = Dictionary(io.StringIO(WORDS))
    async with serving(provider(message_authenticator="require")) as bed:

        def ask() -> int:
            client = Client("127.0.0.1", authport=bed.port, secret=SECRET, dict=words)
            request = client.CreateAuthPacket(User_Name="alice", message_authenticator=True)
            request["User-Password"] = request.PwCrypt(password)
            try:
                reply = client.SendPacket(request)
            finally:
                client._CloseSocket()
            assert reply.verify_message_authenticator(original_authenticator=request.authenticator)
            return int(reply.code)

        assert await asyncio.to_thread(ask) == code


@needs_radclient
@pytest.mark.interop
@pytest.mark.parametrize("signature", [SIGNED, ""])
@pytest.mark.parametrize(("password", "word"), [("wonderland", "Access-Accept"), ("wrong", "Access-Reject")])
async def test_radclient(password: str, word: str, signature: str) -> None:
    async with serving() as bed:
        asked = f'User-Name="alice",User-Password="{password}"{signature}'
        said = await peers.radclient(bed.port, asked, SECRET.decode())
        assert f"Received {word}" in said, said
        assert bed.observer.answers[0][7] is bool(signature)


@needs_radclient
@pytest.mark.interop
async def test_radclient_status() -> None:
    async with serving() as bed:
        said = await peers.radclient(bed.port, "Message-Authenticator=0x00", SECRET.decode(), "status")
        assert "Received Access-Accept" in said, said


@needs_radclient
@pytest.mark.interop
async def test_radclient_opens_what_is_encrypted_for_it() -> None:
    async with serving() as bed:
        bed.gate.attributes = EVERYTHING
        said = await peers.radclient(bed.port, 'User-Name="alice",User-Password="wonderland"', SECRET.decode())
        for line in (
            "Tunnel-Type:1 = VLAN",
            "Tunnel-Medium-Type:1 = IEEE-802",
            'Tunnel-Private-Group-Id:1 = "42"',
            'Tunnel-Password:1 = "tunnel"',
            "MS-MPPE-Send-Key = 0x" + "11" * 32,
            'Cisco-AVPair = "shell:priv-lvl=15"',
            "Framed-IPv6-Prefix = 2001:db8::/32",
        ):
            assert line in said, said


@needs_radclient
@pytest.mark.interop
async def test_radclient_reads_what_devices_of_many_makes_act_on() -> None:
    async with serving() as bed:
        bed.gate.attributes = ReplyAttributes(tuple((name, shown.strip('"')) for name, shown in OF_VENDORS))
        said = await peers.radclient(bed.port, 'User-Name="alice",User-Password="wonderland"', SECRET.decode())
        assert [line for line in said.splitlines() if "\tMessage-Authenticator" not in line][-len(OF_VENDORS) :] == [
            f"\t{name} = {shown}" for name, shown in OF_VENDORS
        ], said


@pytest.mark.skipif(not shutil.which("radtest"), reason="radtest (freeradius-utils) is not installed")
@pytest.mark.interop
async def test_radtest() -> None:
    async with serving(provider(message_authenticator="require")) as bed:
        process = await asyncio.create_subprocess_exec(
            *("radtest", "alice", "wonderland", f"127.0.0.1:{bed.port}", "0", SECRET.decode()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert b"Received Access-Accept" in out, out.decode()


@needs_freeradius
@pytest.mark.interop
async def test_freeradius_as_a_proxy_in_front(tmp_path: Path) -> None:
    async with serving(provider(message_authenticator="require")) as bed:
        bed.gate.attributes = EVERYTHING
        async with peers.freeradius(tmp_path, bed.port, SECRET) as port:
            for signature in (SIGNED, ""):
                asked = f'User-Name="alice",User-Password="wonderland"{signature}'
                said = await peers.radclient(port, asked, peers.FRONT_SECRET)
                assert "Received Access-Accept" in said and 'Tunnel-Password:1 = "tunnel"' in said, said
            said = await peers.radclient(port, 'User-Name="alice",User-Password="wrong"', peers.FRONT_SECRET)
            assert "Received Access-Reject" in said, said
            assert [answer[1] for answer in bed.observer.answers] == [2, 2, 3] and not bed.observer.drops


@needs_freeradius
@pytest.mark.interop
async def test_freeradius_takes_silence_for_a_dying_server_and_asks_for_its_health(tmp_path: Path) -> None:
    async with serving() as bed, peers.freeradius(tmp_path, bed.port, SECRET) as port:
        bed.gate.down = True
        said = await peers.radclient(port, 'User-Name="alice",User-Password="wonderland"', peers.FRONT_SECRET)
        assert "Received Access-Accept" not in said
        await bed.observer.until(lambda: any(answer[0] == 12 for answer in bed.observer.answers))
        assert bed.observer.drops == {DropReason.UNAVAILABLE: 1}


def pam(bed: Bed, folder: Path, answers: dict[str, str]) -> tuple[int, list[str]]:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return answers[prompt.strip()]

    return peers.pam_login(folder, bed.port, SECRET, "alice", answer), prompts


@needs_pam
@pytest.mark.interop
async def test_pam_radius(tmp_path: Path) -> None:
    async with serving() as bed:
        result, _ = await asyncio.to_thread(pam, bed, tmp_path, {"Password:": "wonderland"})
        assert result == 0
        result, _ = await asyncio.to_thread(pam, bed, tmp_path, {"Password:": "wrong"})
        assert result != 0


@needs_pam
@pytest.mark.interop
@pytest.mark.parametrize(("code", "succeeds"), [("123456", True), ("000000", False)])
async def test_pam_radius_with_a_challenge(tmp_path: Path, code: str, succeeds: bool) -> None:
    async with serving() as bed:
        bed.gate.codes["alice"] = b"123456"
        answers = {"Password:": "wonderland", "Code, please": code}
        result, prompts = await asyncio.to_thread(pam, bed, tmp_path, answers)
        assert (result == 0) is succeeds and len(prompts) == 2
        assert bed.gate.resumed == [("alice", code.encode())]


@needs_tshark
@pytest.mark.interop
async def test_tshark_reads_every_reply(tmp_path: Path) -> None:
    proxied = encode_attribute(33, b"via")
    packets = []
    async with serving() as bed:
        with bed.client() as client:
            bed.gate.attributes = EVERYTHING
            bed.gate.codes["carol"] = b"1"
            bed.gate.users["carol"] = b"wonderland"
            for identifier, data in enumerate(
                (
                    login(extra=proxied, identifier=0),
                    login(password="wrong", identifier=1),
                    login("carol", identifier=2),
                    encode_request(12, 3, bytes(range(16)), b"", SharedSecret(SECRET)),
                )
            ):
                assert data[1] == identifier
                packets += [data, await client.ask(data)]
    layers = await asyncio.to_thread(peers.tshark, tmp_path, packets, SECRET)
    assert len(layers) == len(packets)
    replies = [layer["radius"] for layer in layers[1::2]]
    assert [reply["radius.code"] for reply in replies] == ["2", "3", "11", "2"]
    for layer, reply in zip(layers[1::2], replies, strict=True):
        if reply is not replies[3]:  # tshark judges no answer to Status-Server
            assert reply["radius.authenticator_tree"]["radius.authenticator.valid"] == "1"
        assert "_ws.malformed" not in layer and "Malformed" not in str(layer)
    found = {
        name: value for avp in replies[0]["Attribute Value Pairs"]["radius.avp_tree"] for name, value in avp.items()
    }
    assert (found["radius.Tunnel_Type"], found["radius.Tunnel_Type.tag"]) == ("13", "0x01")
    assert (found["radius.Tunnel_Private_Group_Id"], found["radius.Tunnel_Private_Group_Id.tag"]) == ("42", "0x01")
    assert found["radius.Proxy_State"] == "76:69:61"
    # Control: a damaged reply is told apart.
    bent = packets[1][:-1] + bytes([packets[1][-1] ^ 1])
    (_, layer) = await asyncio.to_thread(peers.tshark, tmp_path, [packets[0], bent], SECRET)
    assert layer["radius"]["radius.authenticator_tree"]["radius.authenticator.valid"] == "0"
