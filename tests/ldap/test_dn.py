"""RFC 4514: the string form of names, and the normal form they are compared by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.errors import DecodeError
from outpost.ldap.dn import (
    MAX_MARKS,
    MAX_OCTETS,
    MAX_RDNS,
    escape,
    normalise,
    normalise_rdn,
    parse,
    prepare,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
TYPES = st.sampled_from(["cn", "OU", "domainComponent", "2.5.4.3", "1.3.6.1.4.1.1466.0", "x-long-Name9"])


# -- parse: RFC 4514 section 4 and the grammar of section 3 ------------------------------------------


@pytest.mark.parametrize(
    ("dn", "rdns"),
    [
        ("", ()),
        ("UID=jsmith,DC=example,DC=net", ((("UID", "jsmith"),), (("DC", "example"),), (("DC", "net"),))),
        (
            "OU=Sales+CN=J.  Smith,DC=example,DC=net",
            ((("OU", "Sales"), ("CN", "J.  Smith")), (("DC", "example"),), (("DC", "net"),)),
        ),
        (
            r"CN=James \"Jim\" Smith\, III,DC=example,DC=net",
            ((("CN", 'James "Jim" Smith, III'),), (("DC", "example"),), (("DC", "net"),)),
        ),
        (r"CN=Before\0dAfter,DC=example", ((("CN", "Before\rAfter"),), (("DC", "example"),))),
        ("1.3.6.1.4.1.1466.0=#04024869", ((("1.3.6.1.4.1.1466.0", b"\x04\x02Hi"),),)),
        (r"CN=Lu\C4\8Di\C4\87", ((("CN", "Lučić"),),)),
        ("CN=Lučić", ((("CN", "Lučić"),),)),
        ("cn=", ((("cn", ""),),)),
        ("cn=,ou=", ((("cn", ""),), (("ou", ""),))),
        ("cn=a=b#c", ((("cn", "a=b#c"),),)),
        (r"cn=\#a\=\ ", ((("cn", "#a= "),),)),
        (r"cn=\20a\20", ((("cn", " a "),),)),
        (r"cn=a \  ", ((("cn", "a  "),),)),
        (r"cn=a\5c\2C", ((("cn", "a\\,"),),)),
        (r"cn=\00", ((("cn", "\0"),),)),
        (" cn = a b , ou = c + l = d ", ((("cn", "a b"),), (("ou", "c"), ("l", "d")))),
        ("cn=#6162 , ou=x", ((("cn", b"ab"),), (("ou", "x"),))),
    ],
)
def test_names_of_the_grammar_are_parsed(dn: str, rdns: object) -> None:
    assert parse(dn) == rdns


@pytest.mark.parametrize(
    ("dn", "at"),
    [
        (" ", 1),
        ("cn", 2),
        ("=a", 0),
        (",", 0),
        ("cn=a,", 5),
        (",cn=a", 0),
        ("cn=a,,ou=b", 5),
        ("cn=a+", 5),
        ("cn=a+,ou=b", 5),
        ("c_n=a", 1),
        ("9cn=a", 0),
        ("9=a", 0),
        ("2.=a", 0),
        ("2..5=a", 0),
        ("2.05=a", 3),
        ("cn;lang-en=a", 2),
        ("cñ=a", 1),
        ('cn="a"', 3),
        ('cn=a"', 4),
        ("cn=a;ou=b", 4),
        ("cn=a<b", 4),
        ("cn=a>b", 4),
        ("cn=a\0", 4),
        ("cn=a\\", 4),
        ("cn=a\\x", 4),
        ("cn=a\\4", 4),
        ("cn=a\\4g", 4),
        (r"cn=ab\C4", 5),
        (r"cn=ab\41\C4c\8d", 8),
        (r"cn=\ed\a0\80", 3),
        (r"cn=\c0\80", 3),
        ("cn=#", 3),
        ("cn=#4", 3),
        ("cn=#616", 6),
        ("cn=#61x", 6),
        ("cn=#zz", 3),
        ("cn=a+cn=b", 5),
        ("cn=a+2.5.4.3=b", 5),
        ("cn=\ud800", 3),
    ],
)
def test_anything_else_is_refused_at_its_place(dn: str, at: int) -> None:
    with pytest.raises(DecodeError, match=rf"at character {at}$"):
        parse(dn)


def test_limits_hold_to_the_octet() -> None:
    fits = "cn=" + "é" * ((MAX_OCTETS - 4) // 2) + "a"
    assert len(fits.encode()) == MAX_OCTETS
    assert parse(fits) and normalise(fits.encode())
    assert len(parse(",".join(["dc=a"] * MAX_RDNS))) == MAX_RDNS
    with pytest.raises(DecodeError, match="8193 octets"):
        parse(fits + "a")
    for form in ("dc=a", "dc=(a)", "DC=é"):
        assert normalise(",".join([form] * MAX_RDNS).encode())
        with pytest.raises(DecodeError, match="more than 64 RDNs"):
            normalise(",".join([form] * (MAX_RDNS + 1)).encode())
    for octet in (b"a", b"(", b"\xff"):
        with pytest.raises(DecodeError, match="octets"):
            normalise(b"cn=" + octet * MAX_OCTETS)


@given(st.text(max_size=60) | st.text('cn=,+\\"#0aé <>;.2', max_size=60))
def test_no_text_does_worse_than_decode_error(dn: str) -> None:
    try:
        parse(dn)
    except DecodeError:
        return
    assert normalise(dn.encode()) == b",".join(map(normalise_rdn, parse(dn)))


# -- escape ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("Smith, James", r"Smith\, James"),
        ('a"+,;<>\\b', r"a\"\+\,\;\<\>\\b"),
        (" a ", r"\ a\ "),
        (" ", r"\ "),
        ("  ", r"\ \ "),
        ("#a#", r"\#a#"),
        ("a\0b\r", r"a\00b\0d"),
        ("a=b é", "a=b é"),
        ("", ""),
    ],
)
def test_escape_is_what_section_2_4_asks(value: str, escaped: str) -> None:
    assert escape(value) == escaped


@given(st.lists(st.dictionaries(TYPES, TEXT, min_size=1, max_size=1), min_size=1, max_size=5))
def test_escaped_values_come_back(rdns: list[dict[str, str]]) -> None:
    dn = ",".join("+".join(f"{kind}={escape(value)}" for kind, value in rdn.items()) for rdn in rdns)
    assert parse(dn) == tuple(tuple(rdn.items()) for rdn in rdns)


# -- the normal form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CN=Alice,OU=Users,DC=Example", "cn=alice,ou=users,dc=example"),
        ("cn=alice, ou=users , dc=example", "cn=alice,ou=users,dc=example"),
        ("commonName=a,organizationalUnitName=b,domainComponent=c", "cn=a,ou=b,dc=c"),
        ("2.5.4.3=a,2.5.4.11=b,0.9.2342.19200300.100.1.25=c", "cn=a,ou=b,dc=c"),
        ("userid=a,0.9.2342.19200300.100.1.1=a", "uid=a,UID=A"),
        ("cn=a+uid=b", "UID=B+CN=A"),
        ("cn=a  b", r"cn=\ a b\ "),
        ("cn=STRASSE", "cn=straße"),
        ("cn=ÉCOLE", "cn=e\u0301cole"),
        ("cn=\uff21\u3000b", "cn=a b"),
        (r"cn=a\,b", r"cn=A\2Cb"),
        (r"cn=\61", "cn=a"),
        ("cn=#0AFF", "cn=#0aff"),
        ("cn=", r"cn=\20"),
    ],
)
def test_equal_names_have_one_normal_form(one: str, other: str) -> None:
    assert normalise(one.encode()) == normalise(other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cn=alice", "uid=alice"),
        ("cn=alice", "cn=alic"),
        ("cn=a b", "cn=ab"),
        (r"cn=a\2cdc=b", "cn=a,dc=b"),
        (r"cn=a\+uid=b", "cn=a+uid=b"),
        (r"cn=\#61", "cn=#61"),
        (r"cn=a\00", "cn=a"),
        ("cn=ad\u200bmin", "cn=admin"),
        ("cn=ad\u00admin", "cn=admin"),
        ("cn=a,ou=b", "ou=b,cn=a"),
        ("", "cn="),
    ],
)
def test_different_names_have_different_normal_forms(one: str, other: str) -> None:
    assert normalise(one.encode()) != normalise(other.encode())


def test_the_normal_form_is_canonical_bytes() -> None:
    assert normalise(b"") == b""
    assert normalise(b"CN=Alice A,OU=Users,DC=Example") == b"cn=alice a,ou=users,dc=example"
    assert normalise(rb"cn=a\,b\\\"\00\+,dc=x") == rb"cn=a\2cb\5c\22\00\2b,dc=x"


@pytest.mark.parametrize(
    ("child", "base", "below"),
    [
        ("cn=a,dc=ldap,dc=x", "DC=ldap, DC=x", True),
        (r"cn=a\,dc=ldap,dc=x", "dc=ldap,dc=x", False),
        (r"cn=a\2Cdc=ldap,dc=x", "dc=ldap,dc=x", False),
        (r"cn=a\\,dc=ldap,dc=x", "dc=ldap,dc=x", True),
        ("cn=a,xdc=ldap", "dc=ldap", False),
    ],
)
def test_the_suffix_test_is_the_subtree_test(child: str, base: str, below: bool) -> None:
    assert normalise(child.encode()).endswith(b"," + normalise(base.encode())) is below


@given(st.lists(TEXT, min_size=2, max_size=5), st.integers(1, 4))
def test_a_child_is_rdn_comma_parent(values: list[str], cut: int) -> None:
    rdns = [f"cn={escape(value)}" for value in values]
    cut = min(cut, len(rdns) - 1)
    whole, parent = normalise(",".join(rdns).encode()), normalise(",".join(rdns[cut:]).encode())
    heads = b",".join(normalise_rdn(parse(rdn)[0]) for rdn in rdns[:cut])
    assert whole == heads + b"," + parent
    assert whole.count(b",") == len(rdns) - 1


@given(TEXT)
def test_normalising_twice_changes_nothing(value: str) -> None:
    once = normalise(f"cn={escape(value)},ou=x".encode())
    assert normalise(once) == once
    assert prepare(prepare(value)) == prepare(value)


@given(st.text("cnoudCN=,a b.@1#\\+", max_size=30))
def test_the_short_cut_agrees_with_the_long_way(text: str) -> None:
    try:
        rdns = parse(text)
    except DecodeError:
        with pytest.raises(DecodeError):
            normalise(text.encode())
    else:
        assert normalise(text.encode()) == b",".join(map(normalise_rdn, rdns))


@pytest.mark.parametrize("dn", [b"cn=\xff", b"cn=a,ou=\xc3", b"cn=\xed\xa0\x80", b"\x00", b"cn=\xc0\xaf"])
def test_octets_that_are_no_utf8_are_refused(dn: bytes) -> None:
    with pytest.raises(DecodeError):
        normalise(dn)


def test_combining_marks_cannot_cost_quadratic_time() -> None:
    normalise(("cn=a" + "\u0301" * 30).encode())
    with pytest.raises(DecodeError, match="combining marks"):
        normalise(("cn=" + "x" * 256 + "\u0345\u0301" * (MAX_MARKS // 2)).encode())
