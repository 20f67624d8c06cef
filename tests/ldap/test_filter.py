"""RFC 4515: filters as text, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost._fastber import Limits, check_filter
from outpost.errors import DecodeError, LimitExceeded
from outpost.ldap.filter import MAX_CHARACTERS, MAX_DEPTH, MAX_TERMS, filter_text, parse_filter


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes(2, "big").lstrip(b"\0")
    return bytes((tag, 0x80 | len(size))) + size + content


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def equal(name: bytes, value: bytes) -> bytes:
    return tlv(0xA3, octets(name), octets(value))


# -- RFC 4515 section 4, as octets -------------------------------------------------------------------

EXAMPLES = [
    ("(cn=Babs Jensen)", equal(b"cn", b"Babs Jensen")),
    ("(!(cn=Tim Howes))", tlv(0xA2, equal(b"cn", b"Tim Howes"))),
    (
        "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
        tlv(
            0xA0,
            equal(b"objectClass", b"Person"),
            tlv(0xA1, equal(b"sn", b"Jensen"), tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x80, b"Babs J")))),
        ),
    ),
    (
        "(o=univ*of*mich*)",
        tlv(0xA4, octets(b"o"), tlv(0x30, tlv(0x80, b"univ"), tlv(0x81, b"of"), tlv(0x81, b"mich"))),
    ),
    ("(seeAlso=)", equal(b"seeAlso", b"")),
    (
        "(cn:caseExactMatch:=Fred Flintstone)",
        tlv(0xA9, tlv(0x81, b"caseExactMatch"), tlv(0x82, b"cn"), tlv(0x83, b"Fred Flintstone")),
    ),
    ("(cn:=Betty Rubble)", tlv(0xA9, tlv(0x82, b"cn"), tlv(0x83, b"Betty Rubble"))),
    (
        "(sn:dn:2.4.6.8.10:=Barney Rubble)",
        tlv(0xA9, tlv(0x81, b"2.4.6.8.10"), tlv(0x82, b"sn"), tlv(0x83, b"Barney Rubble"), b"\x84\x01\xff"),
    ),
    ("(o:dn:=Ace Industry)", tlv(0xA9, tlv(0x82, b"o"), tlv(0x83, b"Ace Industry"), b"\x84\x01\xff")),
    ("(:1.2.3:=Wilma Flintstone)", tlv(0xA9, tlv(0x81, b"1.2.3"), tlv(0x83, b"Wilma Flintstone"))),
    ("(:dn:2.4.6.8.10:=Dino)", tlv(0xA9, tlv(0x81, b"2.4.6.8.10"), tlv(0x83, b"Dino"), b"\x84\x01\xff")),
    (
        r"(o=Parens R Us \28for all your parenthetical needs\29)",
        equal(b"o", b"Parens R Us (for all your parenthetical needs)"),
    ),
    (r"(cn=*\2a*)", tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x81, b"*")))),
    (r"(filename=C:\5cMyFile)", equal(b"filename", b"C:\\MyFile")),
    (r"(bin=\00\00\00\04)", equal(b"bin", b"\0\0\0\x04")),
    ("(sn=Lučić)", equal(b"sn", "Lučić".encode())),
    (r"(1.3.6.1.4.1.1466.0=\04\02Hi)", equal(b"1.3.6.1.4.1.1466.0", b"\x04\x02Hi")),
    # The rest of the grammar, and RFC 4526.
    ("(&)", b"\xa0\x00"),
    ("(|)", b"\xa1\x00"),
    ("(cn=*)", tlv(0x87, b"cn")),
    ("(uidNumber>=1000)", tlv(0xA5, octets(b"uidNumber"), octets(b"1000"))),
    ("(uidNumber<=1000)", tlv(0xA6, octets(b"uidNumber"), octets(b"1000"))),
    ("(cn~=bab)", tlv(0xA8, octets(b"cn"), octets(b"bab"))),
    ("(cn;lang-en=a)", equal(b"cn;lang-en", b"a")),
    ("(my_own=a=b>=c)", equal(b"my_own", b"a=b>=c")),
    ("(cn=*a)", tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x82, b"a")))),
    ("(cn=a*b)", tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x80, b"a"), tlv(0x82, b"b")))),
    ("(cn=**)", tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x81, b"")))),
    ("(:dn:dn:=a)", tlv(0xA9, tlv(0x81, b"dn"), tlv(0x83, b"a"), b"\x84\x01\xff")),
    ("(cn=" + "x" * 300 + ")", equal(b"cn", b"x" * 300)),
    ("(!(&(!(a=b))(c=*)))", tlv(0xA2, tlv(0xA0, tlv(0xA2, equal(b"a", b"b")), tlv(0x87, b"c")))),
    (
        "(memberOf:1.2.840.113556.1.4.1941:=cn=a,dc=b)",
        tlv(0xA9, tlv(0x81, b"1.2.840.113556.1.4.1941"), tlv(0x82, b"memberOf"), tlv(0x83, b"cn=a,dc=b")),
    ),
]


@pytest.mark.parametrize(("text", "encoded"), EXAMPLES)
def test_text_becomes_the_octets_of_rfc_4511(text: str, encoded: bytes) -> None:
    assert parse_filter(text) == encoded


@pytest.mark.parametrize(("text", "encoded"), EXAMPLES)
def test_octets_become_text_that_means_the_same(text: str, encoded: bytes) -> None:
    assert parse_filter(filter_text(encoded)) == encoded


def test_hex_digits_may_be_of_either_case() -> None:
    assert parse_filter(r"(a=\C4\8d)") == parse_filter("(a=č)")
    assert parse_filter("(o:DN:=x)") == parse_filter("(o:dn:=x)")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", 0),
        ("cn=a", 0),
        (" (cn=a)", 0),
        ("(cn=a) ", 6),
        ("(cn=a)(cn=b)", 6),
        ("(cn=a))", 6),
        ("(cn=a", 5),
        ("(", 1),
        ("()", 1),
        ("(cn)", 3),
        ("(=a)", 1),
        ("(cn>a)", 3),
        ("(cn==)(", 6),
        ("(cn=a(b)", 5),
        ("(cn=a\0)", 5),
        ("(cn=\\)", 4),
        ("(cn=\\4)", 4),
        ("(cn=a\\zz)", 5),
        ("(cn=\ud800)", 4),
        ("(cn>=a*)", 6),
        ("(cn:=a*b)", 6),
        ("(& (cn=a))", 2),
        ("(&(cn=a)", 8),
        ("(&(cn=a)x)", 8),
        ("(!)", 2),
        ("(!(a=b)(c=d))", 7),
        ("(!a=b)", 2),
        ("(c n=a)", 2),
        ("(9a=b)", 1),
        ("(1.=b)", 1),
        ("(1.02=b)", 4),
        ("(cn;=b)", 3),
        ("(cñ=b)", 2),
        ("(:=a)", 1),
        ("(:dn:=a)", 1),
        ("(:dn=a)", 1),
        ("(cn:dn:rule:more:=a)", 3),
        ("(cn:9a:=b)", 3),
        ("(cn:dn)", 3),
    ],
)
def test_anything_else_is_refused_at_its_place(text: str, at: int) -> None:
    with pytest.raises(DecodeError, match=rf"at character {at}$"):
        parse_filter(text)


def test_limits_hold_to_the_unit() -> None:
    deep = "(!" * (MAX_DEPTH - 1) + "(a=b)" + ")" * (MAX_DEPTH - 1)
    check_filter(parse_filter(deep), Limits())
    with pytest.raises(DecodeError, match="deeper than 64 at character 128"):
        parse_filter(f"(!{deep})")
    with pytest.raises(DecodeError, match="deeper"):
        parse_filter("(&" * 30_000)
    wide = "(|" + "(a=b)" * (MAX_TERMS - 1) + ")"
    check_filter(parse_filter(wide), Limits())
    with pytest.raises(DecodeError, match="more than 4096 terms"):
        parse_filter(wide[:-1] + "(a=b))")
    assert parse_filter("(a=" + "b" * (MAX_CHARACTERS - 4) + ")")
    with pytest.raises(DecodeError, match="more than 65536 characters"):
        parse_filter("(a=" + "b" * (MAX_CHARACTERS - 3) + ")")


# -- BER to text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (equal(b"cn", b"a\xffb\n(*)\\\0"), r"(cn=a\ffb\0a\28\2a\29\5c\00)"),
        (equal(b"cn", "é\u202e\u2028".encode()), r"(cn=é\e2\80\ae\e2\80\a8)"),
        (equal(b"a=b)(", b""), r"(a\3db\29\28=)"),
        (tlv(0x87, b"\xff"), r"(\ff=*)"),
        (tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x80, b""))), "(cn=**)"),
        (tlv(0xA4, octets(b"cn"), tlv(0x30, tlv(0x82, b""))), "(cn=**)"),
        (tlv(0xA9, tlv(0x82, b"o"), tlv(0x83, b"x"), b"\x84\x01\x00"), "(o:=x)"),
        (b"\xa3\x84\x00\x00\x00\x06\x04\x01a\x04\x01b", "(a=b)"),
    ],
)
def test_hostile_octets_are_shown_escaped(encoded: bytes, text: str) -> None:
    assert filter_text(encoded) == text


@pytest.mark.parametrize(
    "encoded",
    [
        equal(b"userPassword", b"hunter2"),
        equal(b"USERPASSWORD;lang-en", b"hunter2"),
        tlv(0xA4, octets(b"unicodePwd"), tlv(0x30, tlv(0x80, b"hunter2"))),
        tlv(0xA2, tlv(0xA9, tlv(0x82, b"2.5.4.35"), tlv(0x83, b"hunter2"))),
    ],
)
def test_passwords_never_show(encoded: bytes) -> None:
    assert "hunter2" not in filter_text(encoded)
    assert "..." in filter_text(encoded)


def test_output_is_bounded() -> None:
    assert filter_text(equal(b"cn", b"x" * 60_000)) == "(cn=" + "x" * 1020 + "…"
    assert len(filter_text(tlv(0xA1, *[equal(b"cn", b"x")] * 4000), 100)) == 101
    pieces = tlv(0x30, *[tlv(0x81, b"\xff")] * 9000)
    assert len(filter_text(tlv(0xA4, octets(b"cn"), pieces), 50)) == 51
    assert filter_text(equal(b"cn", b"x"), 6) == "(cn=x)"
    assert filter_text(equal(b"cn", b"x"), 5) == "(cn=x…"


@pytest.mark.parametrize("encoded", [b"", b"\xa3", b"\xa3\x00", b"\xa0\x80\x00\x00", b"\xa0\x00\x00", b"\x30\x00"])
def test_only_a_well_formed_filter_has_a_text(encoded: bytes) -> None:
    with pytest.raises(DecodeError):
        filter_text(encoded)


def test_depth_of_text_is_bounded_too() -> None:
    encoded = equal(b"a", b"b")
    for _ in range(512):
        encoded = tlv(0xA2, encoded)
    with pytest.raises(LimitExceeded):
        filter_text(encoded)


# -- properties --------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"cn", b"objectClass", b"x-a_b9", b"1.2.840.1", b"cn;lang-en;x-1", b"dn"])
RULES = st.sampled_from([b"caseExactMatch", b"2.5.13.2"])
VALUES = st.binary(max_size=12) | st.text(st.characters(exclude_categories=("Cs",)), max_size=12).map(str.encode)
ITEMS = st.one_of(
    st.builds(
        lambda tag, name, value: tlv(tag, octets(name), octets(value)),
        st.sampled_from([0xA3, 0xA5, 0xA6, 0xA8]),
        NAMES,
        VALUES,
    ),
    st.builds(lambda name: tlv(0x87, name), NAMES),
    st.builds(
        lambda name, initial, inner, final: tlv(
            0xA4,
            octets(name),
            tlv(0x30, *[tlv(0x80, v) for v in initial], *[tlv(0x81, v) for v in inner], *[tlv(0x82, v) for v in final]),
        ),
        NAMES,
        st.lists(VALUES.filter(bool), max_size=1),
        st.lists(VALUES, min_size=1, max_size=3),
        st.lists(VALUES.filter(bool), max_size=1),
    ),
    st.builds(
        lambda rule, name, value, dn: tlv(
            0xA9, *[tlv(0x81, rule)] * (rule != b""), *name, tlv(0x83, value), *[b"\x84\x01\xff"] * dn
        ),
        RULES,
        st.lists(NAMES.map(lambda name: tlv(0x82, name)), max_size=1),
        VALUES,
        st.booleans(),
    ),
    st.builds(lambda name, value: tlv(0xA9, tlv(0x82, name), tlv(0x83, value)), NAMES, VALUES),
)
FILTERS = st.recursive(
    ITEMS,
    lambda inner: st.one_of(
        st.builds(lambda tag, parts: tlv(tag, *parts), st.sampled_from([0xA0, 0xA1]), st.lists(inner, max_size=4)),
        st.builds(lambda part: tlv(0xA2, part), inner),
    ),
    max_leaves=6,
)


@given(FILTERS)
def test_every_filter_survives_its_text(encoded: bytes) -> None:
    check_filter(encoded, Limits())
    text = filter_text(encoded, 100_000)
    assert text.isprintable()
    assert parse_filter(text) == encoded


@given(st.text("()&|!=*\\0a1:<>~dn.;", max_size=40) | st.text(max_size=40))
def test_what_is_parsed_is_well_formed(text: str) -> None:
    try:
        encoded = parse_filter(text)
    except DecodeError:
        return
    check_filter(encoded, Limits())
    assert parse_filter(filter_text(encoded)) == encoded


@given(st.binary(max_size=40))
def test_no_octets_do_worse_than_our_errors(data: bytes) -> None:
    try:
        filter_text(data)
    except (DecodeError, LimitExceeded):
        pass
