import os

import pytest

from outpost._fastradius import SharedSecret, decode, encode_request
from outpost.errors import DecodeError
from outpost.identity import ReplyAttributes, Secret
from outpost.radius.attributes import Renderer
from outpost.radius.describe import describe_packet
from outpost.radius.dictionary import shipped
from outpost.radius.packet import encode_attribute
from tests.radius.testbed import SECRET, login

NEMO = bytes.fromhex(
    "010000380f403f9473978057bd83d5cb98f4227a01066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a80110050600000003"
)
REPLY = bytes.fromhex("0200002686fe220e7624ba2a1005f6bf9b55e0b20606000000010f06000000000e06c0a80103")


def test_rfc2865_7_1() -> None:
    assert describe_packet(NEMO, Secret(b"xyzzy5461")).splitlines() == [
        "Access-Request identifier=0 length=56",
        "  authenticator                0f403f9473978057bd83d5cb98f4227a (random)",
        "  User-Name                    nemo",
        "  User-Password                arctangent",
        "  NAS-IP-Address               192.168.1.16",
        "  NAS-Port                     3",
    ]
    text = describe_packet(REPLY, Secret(b"xyzzy5461"), NEMO)
    assert "86fe220e7624ba2a1005f6bf9b55e0b2 (right)" in text
    assert "Service-Type                 Login-User" in text and "Login-Service                Telnet" in text


def test_without_the_secret_nothing_hidden_is_shown() -> None:
    text = describe_packet(NEMO)
    assert "arctangent" not in text and "0dbe70" not in text and "16 octets ***" in text


def test_what_does_not_hold_is_told() -> None:
    assert "WRONG" in describe_packet(REPLY, Secret(b"xyzzy5462"), NEMO)
    assert "WRONG" in describe_packet(REPLY[:-1] + b"\4", Secret(b"xyzzy5461"), NEMO)
    assert "not judged" in describe_packet(REPLY, Secret(b"xyzzy5461"))
    good = login()
    assert "(right)" in describe_packet(good, Secret(SECRET))
    assert "WRONG" in describe_packet(good[:-1] + bytes([good[-1] ^ 1]), Secret(SECRET))
    accounting = encode_request(4, 1, bytes(16), encode_attribute(40, b"\0\0\0\1"), SharedSecret(SECRET))
    text = describe_packet(accounting, Secret(SECRET))
    assert text.count("WRONG") == 0 and "Acct-Status-Type             Start" in text
    assert describe_packet(accounting, Secret(b"other")).count("WRONG") == 2


def test_a_reply_with_everything() -> None:
    named = (
        ("Tunnel-Type:1", "VLAN"),
        ("Tunnel-Private-Group-Id:1", "42"),
        ("Tunnel-Password:2", "tunnel"),
        ("MS-MPPE-Send-Key", "0x" + "11" * 32),
        ("Cisco-AVPair", "shell:priv-lvl=15"),
        ("Original-Packet-Code", "1"),
        ("Framed-IPv6-Prefix", "2001:db8::/32"),
    )
    request = login()
    packet = decode(request, SharedSecret(SECRET))
    assert not isinstance(packet, int)
    attributes = Renderer(shipped(), os.urandom).render(ReplyAttributes(named), 2, SECRET, packet.authenticator)
    attributes += encode_attribute(26, (9).to_bytes(4, "big") + b"\1\4ab" + b"\xfe\3c")
    attributes += encode_attribute(26, (99999).to_bytes(4, "big") + b"\1\4ab") + encode_attribute(
        26, b"\0\0\0\x09\1\xff"
    )
    attributes += encode_attribute(231, b"\1") + encode_attribute(18, b"\x1b[31m")
    text = describe_packet(packet.reply(2, attributes), Secret(SECRET), request)
    lines = [line.split(maxsplit=1) for line in text.splitlines()[3:]]
    assert lines == [
        ["Tunnel-Type:1", "VLAN"],
        ["Tunnel-Private-Group-Id:1", "42"],
        ["Tunnel-Password:2", "tunnel"],
        ["MS-MPPE-Send-Key", "0x" + "11" * 32],
        ["Cisco-AVPair", "shell:priv-lvl=15"],
        ["Original-Packet-Code", "1"],
        ["Framed-IPv6-Prefix", "2001:db8::/32"],
        ["Cisco-AVPair", "ab"],
        ["Cisco", "254                    0x63"],
        ["vendor", "99999 1               0x6162"],
        ["Cisco", "0x01ff"],
        ["ATTR-231", "0x01"],
        ["Reply-Message", r"'\x1b[31m'"],
    ]
    assert text.count("(right)") == 2


@pytest.mark.parametrize("data", [b"", NEMO[:19], NEMO[:-1], NEMO[:20] + b"\1\1" + NEMO[22:]])
def test_what_is_no_packet_is_told(data: bytes) -> None:
    with pytest.raises(DecodeError):
        describe_packet(data)
