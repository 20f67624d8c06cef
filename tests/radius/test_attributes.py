import io
import os

import pytest
from pyrad.dictionary import Dictionary as PyradDictionary
from pyrad.packet import AuthPacket

from outpost.identity import RejectReason, ReplyAttributes
from outpost.radius.attributes import Flawed, Renderer, carries
from outpost.radius.crypto import decrypt_salted, encrypt_salted
from outpost.radius.dictionary import Dictionary, shipped
from outpost.radius.packet import Code, decode_attributes, encode_attribute

SECRET = b"testing123"
ASKED = bytes(range(16))
BLOB = bytes(range(100, 116))


def renderer(dictionary: Dictionary | None = None) -> Renderer:
    return Renderer(dictionary or shipped(), os.urandom)


def rendered(*named: tuple[str, str], packet: bytes = b"", code: Code = Code.ACCESS_ACCEPT) -> list[tuple[int, bytes]]:
    encoded = renderer().render(ReplyAttributes(named, packet), code, SECRET, ASKED)
    return list(decode_attributes(encoded))


def blob(*attributes: tuple[int, bytes], authenticator: bytes = BLOB) -> bytes:
    body = b"".join(encode_attribute(*one) for one in attributes)
    return b"\1\7" + (20 + len(body)).to_bytes(2, "big") + authenticator + body


def vsa(vendor: int, number: int, value: bytes) -> tuple[int, bytes]:
    return 26, vendor.to_bytes(4, "big") + bytes((number, len(value) + 2)) + value


def test_dynamic_vlan_with_and_without_tags() -> None:
    assert rendered(
        ("Tunnel-Type:1", "VLAN"), ("Tunnel-Medium-Type:1", "IEEE-802"), ("Tunnel-Private-Group-Id:1", "42")
    ) == [(64, b"\1\0\0\x0d"), (65, b"\1\0\0\6"), (81, b"\x0142")]
    assert rendered(("Tunnel-Type", "13"), ("Tunnel-Private-Group-Id", "42")) == [(64, b"\0\0\0\x0d"), (81, b"42")]


def test_vendor_attributes_and_order_and_repetition() -> None:
    assert rendered(
        ("Cisco-AVPair", "shell:priv-lvl=15"), ("Filter-Id", "a"), ("cisco-avpair", "b"), ("Fortinet-Group-Name", "g")
    ) == [vsa(9, 1, b"shell:priv-lvl=15"), (11, b"a"), vsa(9, 1, b"b"), vsa(12356, 1, b"g")]


def test_long_reply_messages_become_several() -> None:
    parts = rendered(("Reply-Message", "é" * 200))
    assert [number for number, _ in parts] == [18, 18] and b"".join(v for _, v in parts).decode() == "é" * 200


def test_encrypted_attributes_are_bound_to_the_request_and_salted_apart() -> None:
    password, send, recv = rendered(
        ("Tunnel-Password:3", "tunnel"), ("MS-MPPE-Send-Key", "0x" + "11" * 32), ("MS-MPPE-Recv-Key", "0x" + "22" * 32)
    )
    assert password[1][0] == 3 and decrypt_salted(password[1][1:], SECRET, ASKED) == b"tunnel"
    for (number, value), sub, byte in ((send, 16, 0x11), (recv, 17, 0x22)):
        assert number == 26 and value[:4] == (311).to_bytes(4, "big") and value[4] == sub
        assert value[5] == len(value) - 4
        assert decrypt_salted(value[6:], SECRET, ASKED) == bytes([byte] * 32)
        assert decrypt_salted(value[6:], SECRET, bytes(16)) != bytes([byte] * 32)
    salts = {password[1][1:3], send[1][6:8], recv[1][6:8]}
    assert len(salts) == 3 and all(salt[0] & 0x80 for salt in salts)
    assert rendered(("Tunnel-Password", "tunnel"))[0][1][0] == 0


@pytest.mark.parametrize("authenticator", [BLOB, bytes(16)])
def test_a_rendered_packet_is_copied_and_its_secrets_encrypted_anew(authenticator: bytes) -> None:
    key = encrypt_salted(b"k" * 32, SECRET, authenticator, b"\x90\x01")
    packet = blob((64, b"\0\0\0\x0d"), vsa(311, 17, key), (25, b"group"), (231, b"?"), (69, b"\2" + key), (69, key))
    found = rendered(packet=packet)
    assert [found[0], *found[2:4]] == [(64, b"\0\0\0\x0d"), (25, b"group"), (231, b"?")]
    assert decrypt_salted(found[1][1][6:], SECRET, ASKED) == b"k" * 32 and found[1][1][:6] == vsa(311, 17, key)[1][:6]
    assert found[4][1][0] == 2 and decrypt_salted(found[4][1][1:], SECRET, ASKED) == b"k" * 32
    assert found[5][1][0] == 0 and decrypt_salted(found[5][1][1:], SECRET, ASKED) == b"k" * 32


def test_what_pyrad_renders_is_copied() -> None:
    words = io.StringIO(
        "VENDOR Microsoft 311\nATTRIBUTE Reply-Message 18 string\n"
        "ATTRIBUTE Tunnel-Password 69 string has_tag,encrypt=2\n"
        "BEGIN-VENDOR Microsoft\nATTRIBUTE MS-MPPE-Send-Key 16 octets encrypt=2\nEND-VENDOR Microsoft\n"
    )
    packet = AuthPacket(code=1, secret=SECRET, authenticator=BLOB, dict=PyradDictionary(words))
    packet.AddAttribute("Reply-Message", "hi")
    packet.AddAttribute("MS-MPPE-Send-Key", b"s" * 32)
    packet.AddAttribute("Tunnel-Password:1", "pw")
    found = dict(rendered(packet=packet.RequestPacket()))
    assert found[18] == b"hi" and decrypt_salted(found[26][6:], SECRET, ASKED) == b"s" * 32
    assert found[69][0] == 1 and decrypt_salted(found[69][1:], SECRET, ASKED) == b"pw"


def test_what_is_ours_or_secret_is_never_copied() -> None:
    ours = [(n, bytes(16)) for n in (2, 3, 24, 33, 60, 79, 80)]
    assert rendered(packet=blob(*ours, (11, b"f"))) == [(11, b"f")]
    assert rendered(packet=blob()) == []


def test_the_packet_comes_before_the_named() -> None:
    assert rendered(("Class", "b"), packet=blob((25, b"a"))) == [(25, b"a"), (25, b"b")]


@pytest.mark.parametrize(
    ("code", "numbers"),
    [(Code.ACCESS_REJECT, [18, 75]), (Code.ACCESS_CHALLENGE, [18, 26]), (Code.ACCESS_ACCEPT, [18, 6, 26, 75])],
)
def test_rfc2865_5_44_what_a_reply_may_carry(code: Code, numbers: list[int]) -> None:
    named = (("Reply-Message", "no"), ("Service-Type", "6"), ("Cisco-AVPair", "x"), ("Password-Retry", "3"))
    assert [number for number, _ in rendered(*named, code=code)] == numbers


@pytest.mark.parametrize(
    "named",
    [
        ("No-Such-Attribute", "x"),
        ("Session-Timeout", "soon"),
        ("Tunnel-Type:32", "VLAN"),
        ("Tunnel-Type:x", "VLAN"),
        ("Session-Timeout:1", "5"),
        ("User-Password", "x"),
        ("Filter-Id", "x" * 254),
        ("Cisco-AVPair", "x" * 300),
    ],
)
def test_flawed_names_are_refused_without_their_value(named: tuple[str, str]) -> None:
    with pytest.raises(Flawed) as caught:
        rendered(named)
    assert caught.value.reason is RejectReason.ATTRIBUTE_PARSE_FAILED and "xx" not in str(caught.value)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"short", RejectReason.ATTRIBUTE_DECODE_FAILED),
        (blob((11, b"x"))[:-1], RejectReason.ATTRIBUTE_DECODE_FAILED),
        (b"\1\7\0\x13" + bytes(16), RejectReason.ATTRIBUTE_DECODE_FAILED),
        (b"\1\7\0\x16" + bytes(16) + b"\1\1", RejectReason.ATTRIBUTE_DECODE_FAILED),
        (blob(vsa(311, 16, bytes(50))), RejectReason.ATTRIBUTE_PARSE_FAILED),
        (blob((69, b"\1" + bytes(18))), RejectReason.ATTRIBUTE_PARSE_FAILED),
    ],
)
def test_a_flawed_packet_is_refused(packet: bytes, reason: RejectReason) -> None:
    with pytest.raises(Flawed) as caught:
        rendered(packet=packet)
    assert caught.value.reason is reason


def test_layouts_of_vendors_and_extended_attributes() -> None:
    dictionary = Dictionary()
    dictionary.read(
        "VENDOR Wide 1 format=2,2\nVENDOR Bare 2 format=4,0\n"
        "BEGIN-VENDOR Wide\nATTRIBUTE W 258 string\nEND-VENDOR Wide\n"
        "BEGIN-VENDOR Bare\nATTRIBUTE B 5 string\nEND-VENDOR Bare\n"
        "ATTRIBUTE Short 241.9 string\nATTRIBUTE Long 245.9 string\n",
        "test",
    )
    attributes = ReplyAttributes((("W", "ab"), ("B", "ab"), ("Short", "ab"), ("Long", "x" * 300)))
    assert list(decode_attributes(renderer(dictionary).render(attributes, 2, SECRET, ASKED))) == [
        (26, b"\0\0\0\1" + b"\1\2" + b"\0\6" + b"ab"),
        (26, b"\0\0\0\2" + b"\0\0\0\5" + b"ab"),
        (241, b"\x09ab"),
        (245, b"\x09\x80" + b"x" * 251),
        (245, b"\x09\0" + b"x" * 49),
    ]


def test_rfc6929_2_3_extended_attributes_of_vendors() -> None:
    dictionary = Dictionary()
    dictionary.read(
        "VENDOR Acme 99999 format=2,2\n"
        "BEGIN-VENDOR Acme format=Extended-Vendor-Specific-1\nATTRIBUTE Short 7 integer\nEND-VENDOR Acme\n"
        "BEGIN-VENDOR Acme parent=Extended-Vendor-Specific-6\nATTRIBUTE Long 8 string\n"
        "ATTRIBUTE Hidden 9 string encrypt=2\nEND-VENDOR Acme\n",
        "test",
    )
    named = (("Short", "5"), ("Long", "x" * 300))
    acme = (99999).to_bytes(4)
    assert list(decode_attributes(renderer(dictionary).render(ReplyAttributes(named), 2, SECRET, ASKED))) == [
        (241, b"\x1a" + acme + b"\x07\0\0\0\5"),
        (246, b"\x1a\x80" + acme + b"\x08" + b"x" * 246),
        (246, b"\x1a\0" + b"x" * 54),
    ]
    assert renderer(dictionary).complaints((("Hidden", "x"),)) == ["Hidden is not for replies"]


def test_values_of_vendors_that_go_on_in_the_next_attribute() -> None:
    dictionary = Dictionary()
    dictionary.read(
        "VENDOR WiMAX 24757 format=1,1,c\nVENDOR Wide 1 format=2,2\nBEGIN-VENDOR WiMAX\nATTRIBUTE Text 7 string\n"
        "ATTRIBUTE Key 8 octets encrypt=2\nEND-VENDOR WiMAX\n"
        "BEGIN-VENDOR Wide\nATTRIBUTE WideKey 258 octets encrypt=2\nEND-VENDOR Wide\n",
        "test",
    )
    named = (("Text", "x" * 250), ("Text", "y"), ("Key", "0x" + "11" * 20), ("WideKey", "0x" + "22" * 20))
    found = list(decode_attributes(renderer(dictionary).render(ReplyAttributes(named), 2, SECRET, ASKED)))
    wimax = (24757).to_bytes(4)
    assert found[:3] == [
        (26, wimax + b"\7\xf9\x80" + b"x" * 246),
        (26, wimax + b"\7\7\0" + b"x" * 4),
        (26, wimax + b"\7\4\0y"),
    ]
    assert found[3][1][:7] == wimax + bytes((8, 3 + 34, 0))
    assert decrypt_salted(found[3][1][7:], SECRET, ASKED) == b"\x11" * 20
    assert found[4][1][:8] == (1).to_bytes(4) + b"\1\2" + (4 + 34).to_bytes(2)
    assert decrypt_salted(found[4][1][8:], SECRET, ASKED) == b"\x22" * 20


@pytest.mark.parametrize(
    "named",
    [("Tunnel-Password:1", "x" * 240), ("MS-MPPE-Send-Key", "0x" + "00" * 240), ("Filter-Id", "x" * 254)],
)
def test_values_too_long_to_be_sent_are_refused_and_told_before(named: tuple[str, str]) -> None:
    with pytest.raises(Flawed):
        rendered(named)
    assert len(renderer().complaints((named,))) == 1


def test_complaints_name_what_a_directory_has_wrong() -> None:
    named = (("Filter-Id", "ok"), ("Nope", "x"), ("Session-Timeout", "soon"))
    found = renderer().complaints(named)
    assert len(found) == 2 and "Nope" in found[0] and "Session-Timeout" in found[1]


def test_what_is_carried_is_found() -> None:
    assert carries(encode_attribute(24, b"y") + encode_attribute(25, b"x"), 25)
    assert not carries(encode_attribute(24, b"x"), 25)


def test_what_the_backend_hid_with_its_secret_is_hidden_with_that_of_the_request() -> None:
    hidden = b"\1" + encrypt_salted(b"k" * 32, SECRET, BLOB, b"\x80\1")
    attributes = ReplyAttributes(packet=blob((69, hidden)))
    encoded = renderer().render(attributes, 2, b"radsec", ASKED, rendered_with=SECRET)
    ((_, value),) = decode_attributes(encoded)
    assert value[0] == 1 and decrypt_salted(value[1:], b"radsec", ASKED) == b"k" * 32
    assert decrypt_salted(value[1:], SECRET, ASKED) is None
    with pytest.raises(Flawed):
        renderer().render(attributes, 2, SECRET, ASKED, rendered_with=b"radsec")
