import os

import pytest

from outpost._fastradius import SharedSecret, decode, encode_request
from outpost.errors import DecodeError
from outpost.identity import ReplyAttributes, Secret
from outpost.radius.attributes import Renderer
from outpost.radius.describe import describe_packet
from outpost.radius.dictionary import load, shipped
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
        "  (no Message-Authenticator)",
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


def test_rfc2865_7_2_a_chap_request() -> None:
    flopsy = bytes.fromhex(
        "010100472aee86f08d0d55969ca5978e0d3367a20108666c6f707379031316e97557c316185895f293ff634407727504"
        "06c0a80110050600000014060600000002070600000001"
    )
    assert describe_packet(flopsy, Secret(b"xyzzy5461")).splitlines() == [
        "Access-Request identifier=1 length=71",
        "  authenticator                2aee86f08d0d55969ca5978e0d3367a2 (random)",
        "  User-Name                    flopsy",
        "  CHAP-Password                identifier=22 0xe97557c316185895f293ff6344077275",
        "  NAS-IP-Address               192.168.1.16",
        "  NAS-Port                     20",
        "  Service-Type                 Framed-User",
        "  Framed-Protocol              PPP",
        "  (no Message-Authenticator)",
    ]


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([b""], "EAP-Start"),
        ([b"\2\7\0\x0a\1alice"], "Response identifier=7 Identity alice"),
        ([b"\2\7\0\x0a\1a\x1b[1m"], "Response identifier=7 Identity 'a\\x1b[1m'"),
        ([b"\1\x09\0\6\x0d\x20"], "Request identifier=9 TLS 0x20"),
        ([b"\2\7\0\5", b"\x03"], "Response identifier=7 Nak"),
        ([b"\2\7\1\x04\x19" + b"a" * 248, b"b" * 7], f"Response identifier=7 PEAP 0x{'61' * 248}{'62' * 7}"),
        ([b"\4\7\0\4"], "Failure identifier=7"),
        ([b"\2\7\0\5\xc8"], "Response identifier=7 type 200"),
        ([b"\2\7\0\6\1"], "0x0207000601 (no EAP packet)"),
        ([b"\x09\7\0\4"], "0x09070004 (no EAP packet)"),
    ],
)
def test_eap_is_shown_whole(parts: list[bytes], shown: str) -> None:
    body = encode_attribute(1, b"alice") + b"".join(encode_attribute(79, part) for part in parts)
    text = describe_packet(encode_request(1, 1, bytes(16), body, SharedSecret(SECRET)), Secret(SECRET))
    assert [line.split(maxsplit=1)[1] for line in text.splitlines() if "EAP-Message" in line] == [shown]
    assert text.splitlines()[2].endswith("(right)")


def test_a_challenge_is_judged_with_its_request() -> None:
    request = login()
    packet = decode(request, SharedSecret(SECRET))
    assert not isinstance(packet, int)
    challenge = packet.reply(11, encode_attribute(24, b"\1\2") + encode_attribute(18, b"Code?"))
    lines = describe_packet(challenge, Secret(SECRET), request).splitlines()
    assert lines[0].startswith("Access-Challenge") and lines[3:] == [
        "  State                        0x0102",
        "  Reply-Message                Code?",
    ]
    assert all(line.endswith("(right)") for line in lines[1:3])
    for wrong in (login(authenticator=bytes(16)), login(identifier=2, authenticator=bytes(16))):
        lines = describe_packet(challenge, Secret(SECRET), wrong).splitlines()
        assert all("(WRONG" in line for line in lines[1:3])


def test_extended_attributes_are_joined_and_named() -> None:
    dictionary = load()
    dictionary.read(
        "VENDOR Acme 99999 format=1,1,c\nBEGIN-VENDOR Acme format=Extended-Vendor-Specific-5\n"
        "ATTRIBUTE Acme-Long 7 string\nEND-VENDOR Acme\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-More 9 string\n"
        "END-VENDOR Acme\nATTRIBUTE Long 245.9 string\n",
        "test",
    )
    named = (("Acme-Long", "x" * 300), ("Acme-More", "y"), ("Long", "z" * 600), ("Filter-Id", "f"))
    body = Renderer(dictionary, os.urandom).render(ReplyAttributes(named), 2, SECRET, bytes(16))
    body += encode_attribute(245, b"\x1a\0" + (9).to_bytes(4) + b"\x05ab") + encode_attribute(245, b"\x09\x80cut")
    text = describe_packet(b"\2\1" + (20 + len(body)).to_bytes(2) + bytes(16) + body, dictionary=dictionary)
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["Acme-Long", "x" * 300],
        ["Acme-More", "y"],
        ["Long", "z" * 600],
        ["Filter-Id", "f"],
        ["Cisco", "245.26.5", "0x6162"],
        ["Long", "0x637574"],
        ["(no", "Message-Authenticator)"],
    ]


def test_where_a_packet_is_broken_is_told() -> None:
    for data, problem in (
        (NEMO[:20] + b"\1\1" + NEMO[22:], "at octet 20: type 1 announces 1 octets of 36"),
        (NEMO[:51] + b"\x07" + NEMO[52:], "at octet 50: type 5 announces 7 octets of 6"),
        (NEMO[:2] + b"\0\x33" + NEMO[4:], "at octet 50: type 5 has no length"),
        (NEMO[:-1], "the header announces 56 octets, there are 55"),
    ):
        with pytest.raises(DecodeError, match=problem):
            describe_packet(data)


@pytest.mark.parametrize("data", [b"", NEMO[:19], NEMO[:-1], NEMO[:20] + b"\1\1" + NEMO[22:]])
def test_what_is_no_packet_is_told(data: bytes) -> None:
    with pytest.raises(DecodeError):
        describe_packet(data)
