from pathlib import Path

import pytest

from outpost.errors import ConfigError
from outpost.radius.dictionary import Attribute, Dictionary, load, shipped

FREERADIUS = Path("/usr/share/freeradius/dictionary")


def named(name: str) -> Attribute:
    attribute = shipped().named(name)
    assert attribute is not None
    return attribute


@pytest.mark.parametrize(
    ("name", "text", "octets"),
    [
        ("User-Name", "älice", "älice".encode()),
        ("Class", "0x00ff", b"\0\xff"),
        ("Class", "staff", b"staff"),
        ("Session-Timeout", "3600", b"\0\0\x0e\x10"),
        ("service-type", "administrative-user", b"\0\0\0\6"),
        ("Tunnel-Type", "VLAN", b"\0\0\0\x0d"),
        ("Tunnel-Medium-Type", "0x6", b"\0\0\0\6"),
        ("Framed-IP-Address", "192.0.2.1", bytes([192, 0, 2, 1])),
        ("Framed-IPv6-Address", "2001:db8::1", bytes.fromhex("20010db8000000000000000000000001")),
        ("Framed-IPv6-Prefix", "2001:db8::/32", bytes.fromhex("002020010db8")),
        ("Framed-IPv6-Prefix", "::/0", b"\0\0"),
        ("Framed-Interface-Id", "1:2:3:4", bytes.fromhex("0001000200030004")),
    ],
)
def test_values_are_encoded_by_type(name: str, text: str, octets: bytes) -> None:
    assert named(name).encode(text) == octets


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Session-Timeout", "an hour"),
        ("Session-Timeout", "-1"),
        ("Session-Timeout", "4294967296"),
        ("Framed-IP-Address", "2001:db8::1"),
        ("Framed-IP-Address", "300.0.0.1"),
        ("Framed-IPv6-Prefix", "2001:db8::1/32"),
        ("Framed-Interface-Id", "1:2:3"),
        ("Class", "0xzz"),
    ],
)
def test_values_of_another_type_are_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        named(name).encode(text)


def test_what_is_encoded_is_decoded() -> None:
    for name, text in [
        ("Tunnel-Type", "VLAN"),
        ("Session-Timeout", "5"),
        ("Framed-IP-Address", "192.0.2.1"),
        ("Framed-IPv6-Prefix", "2001:db8::/32"),
        ("Framed-Interface-Id", "0001:0002:0003:0004"),
        ("Class", "0x00ff"),
        ("Filter-Id", "web.in"),
    ]:
        assert named(name).decode(named(name).encode(text)) == text
    assert named("Session-Timeout").decode(b"abc") == "0x616263"
    assert named("Filter-Id").decode(b"\xff") == "0xff" and named("Filter-Id").decode(b"a\x1b[1m") == r"'a\x1b[1m'"


def test_files_of_the_operator_add_vendors_and_replace_names(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("ATTRIBUTE\tAcme-Rank\t7\tinteger\nVALUE Acme-Rank Captain 0x2\n")
    path = tmp_path / "dictionary.acme"
    path.write_text(
        "VENDOR Acme 99999 format=2,1 # wide\nBEGIN-VENDOR Acme\n"
        "ATTRIBUTE Acme-Wide 300 string\nATTRIBUTE Acme-Tree 5 tlv\nATTRIBUTE Acme-Leaf 5.1 string\n"
        "BEGIN-TLV Acme-Tree\nEND-TLV Acme-Tree\nEND-VENDOR Acme\n$INCLUDE more\n"
        "ATTRIBUTE Tunnel-Type 64 integer has_tag\n"
    )
    dictionary = load([path])
    wide = dictionary.named("acme-wide")
    assert wide is not None and wide.vendor is not None and (wide.number, wide.sub_number) == (26, 300)
    assert (wide.vendor.type_size, wide.vendor.length_size) == (2, 1)
    assert dictionary.named("Acme-Leaf") is None and dictionary.named("Acme-Tree") is None
    rank = dictionary.named("Acme-Rank")
    assert rank is not None and rank.number == 7 and rank.encode("captain") == b"\0\0\0\2"
    assert shipped().named("Acme-Wide") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ATTRIBUTE A x string", "2: not a number"),
        ("ATTRIBUTE A 1 strng", "2: A: no type: strng"),
        ("NONSENSE here", "2: not understood"),
        ("BEGIN-VENDOR Nobody", "2: no VENDOR Nobody"),
        ("VENDOR V 1 format=3,1", "2: format="),
        ("VENDOR V 1 format=2,1,c", "2: format="),
        ("VENDOR V 1 format=1,1,d", "2: format="),
        ("VENDOR V 1\nBEGIN-VENDOR V format=Extended-Vendor-Specific-7", "3: no such place"),
        ("VENDOR V 1\nBEGIN-VENDOR V parent=Vendor-Specific", "3: no such place"),
        ("VENDOR V 1\nBEGIN-VENDOR V\nATTRIBUTE A 256 string", "4: A: the vendor's types have 1 octets"),
        ("$INCLUDE nowhere", "nowhere: cannot be read"),
        ("$INCLUDE loop", "too deep"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "loop"
    path.write_text("# first line\n" + text + "\n")
    with pytest.raises(ConfigError, match=problem):
        load([path])


@pytest.mark.skipif(not FREERADIUS.exists(), reason="FreeRADIUS's dictionaries are not installed")
def test_ours_agrees_with_freeradius() -> None:
    theirs = Dictionary()
    theirs.read_file(FREERADIUS)
    for name, ours in shipped().attributes.items():
        other = theirs.named(name)
        assert other is not None, name
        assert (ours.number, ours.sub_number, ours.kind) == (other.number, other.sub_number, other.kind), name
        assert (ours.has_tag, ours.encrypt, ours.vendor) == (other.has_tag, other.encrypt, other.vendor), name
        assert ours.values.items() <= other.values.items(), name
