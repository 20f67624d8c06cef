"""Normal forms: which values are the same (RFC 4517 4.2, RFC 4518)."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outpost.ldap.matching import WITH_SUBSTRINGS, Kind, normalise_substring, normalise_value, prepare

SAME = [
    (Kind.CASE_IGNORE, "alice", "ALICE"),
    (Kind.CASE_IGNORE, "alice", "  Alice  "),
    (Kind.CASE_IGNORE, "a b", "A    b"),
    (Kind.CASE_IGNORE, "a b", "a\t\u00a0b"),
    (Kind.CASE_IGNORE, "straße", "STRASSE"),
    (Kind.CASE_IGNORE, "é", "e\u0301"),
    (Kind.CASE_IGNORE, "ﬁne", "FINE"),
    (Kind.CASE_IGNORE, "zero\u200bwidth", "ZeroWidth"),
    (Kind.CASE_IGNORE, "soft\u00adhyphen", "softhyphen"),
    (Kind.CASE_IGNORE, "bell\x07", "bell"),
    (Kind.CASE_IGNORE, "ΑΣ", "ας"),
    (Kind.CASE_EXACT, "a b", " a   b "),
    (Kind.CASE_EXACT, "é", "e\u0301"),
    (Kind.INTEGER, "5", "0005"),
    (Kind.INTEGER, "-5", "-05"),
    (Kind.INTEGER, "0", "-000"),
    (Kind.DN, "cn=a,dc=b", "CN=A , DC=b"),
    (Kind.DN, "cn=a\\,b,dc=c", "commonName=A\\2cB,dc=c"),
    (Kind.DN, "cn=a+ou=b,dc=c", "ou=B + cn=A,dc=c"),
    (Kind.TELEPHONE_NUMBER, "+49 30 1234-5", "+493012345"),
    (Kind.OID, "inetOrgPerson", "INETORGPERSON"),
    (Kind.OID, "1.2.3", "1.2.3"),
    (Kind.BOOLEAN, "true", "TRUE"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "20240229130000+0100"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "2024022912Z"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "202402291200Z"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "20240229120000.000Z"),
    (Kind.GENERALIZED_TIME, "20240229120000.5Z", "20240229120000,50Z"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "20240229073000-0430"),
    (Kind.GENERALIZED_TIME, "20240101000000Z", "20231231235960Z"),
    (Kind.GENERALIZED_TIME, "20240229110000Z", "2024022912+01"),
    (Kind.OCTET_STRING, "a", "a"),
]
DIFFERENT = [
    (Kind.CASE_IGNORE, "a b", "ab"),
    (Kind.CASE_IGNORE, "a", "á"),
    (Kind.CASE_EXACT, "a", "A"),
    (Kind.CASE_EXACT, "a b", "ab"),
    (Kind.INTEGER, "5", "-5"),
    (Kind.INTEGER, "5", "50"),
    (Kind.DN, "cn=a,dc=b", "cn=a,dc=c"),
    (Kind.DN, "cn=a\\,dc=b", "cn=a,dc=b"),
    (Kind.TELEPHONE_NUMBER, "+49", "49"),
    (Kind.OID, "person", "persons"),
    (Kind.BOOLEAN, "TRUE", "FALSE"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "20240229120000.1Z"),
    (Kind.GENERALIZED_TIME, "20240229120000Z", "20240229120000+0100"),
    (Kind.OCTET_STRING, "a", "A"),
    (Kind.OCTET_STRING, "a", "a "),
]
INVALID = [
    (Kind.CASE_IGNORE, b"\xff"),
    (Kind.CASE_EXACT, b"a\xc3"),
    (Kind.INTEGER, b""),
    (Kind.INTEGER, b"-"),
    (Kind.INTEGER, b"+5"),
    (Kind.INTEGER, b"5.0"),
    (Kind.INTEGER, b" 5"),
    (Kind.INTEGER, b"5\n"),
    (Kind.INTEGER, "٥".encode()),
    (Kind.DN, b"nonsense"),
    (Kind.DN, b"cn=\xff"),
    (Kind.TELEPHONE_NUMBER, b" - "),
    (Kind.TELEPHONE_NUMBER, b"\xff"),
    (Kind.OID, b""),
    (Kind.OID, b"1"),
    (Kind.OID, b"1..2"),
    (Kind.OID, b"a b"),
    (Kind.BOOLEAN, b"1"),
    (Kind.BOOLEAN, b"yes"),
    (Kind.GENERALIZED_TIME, b"2024"),
    (Kind.GENERALIZED_TIME, b"20240229120000"),
    (Kind.GENERALIZED_TIME, b"20230229120000Z"),
    (Kind.GENERALIZED_TIME, b"20241301000000Z"),
    (Kind.GENERALIZED_TIME, b"20240229240000Z"),
    (Kind.GENERALIZED_TIME, b"20240229120061Z"),
    (Kind.GENERALIZED_TIME, b"20240229120000+2400"),
    (Kind.GENERALIZED_TIME, b"20240229120000Z\n"),
    (Kind.GENERALIZED_TIME, b"99991231235960Z"),
    (Kind.GENERALIZED_TIME, b"00010101000000+0100"),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_the_same(kind: Kind, one: str, other: str) -> None:
    form = normalise_value(kind, one.encode())
    assert form is not None
    assert normalise_value(kind, other.encode()) == form


@pytest.mark.parametrize(("kind", "one", "other"), DIFFERENT)
def test_different(kind: Kind, one: str, other: str) -> None:
    forms = {normalise_value(kind, one.encode()), normalise_value(kind, other.encode())}
    assert len(forms) == 2 and None not in forms


@pytest.mark.parametrize(("kind", "value"), INVALID)
def test_values_of_no_such_syntax_have_no_form(kind: Kind, value: bytes) -> None:
    assert normalise_value(kind, value) is None


@example(Kind.TELEPHONE_NUMBER, "A´".encode())
@example(Kind.CASE_IGNORE, b"\x00")
@example(Kind.CASE_EXACT, b"  ")
@given(st.sampled_from(Kind), st.binary(max_size=20) | st.text(max_size=20).map(str.encode))
def test_a_normal_form_is_its_own(kind: Kind, value: bytes) -> None:
    form = normalise_value(kind, value)
    assert form is None or normalise_value(kind, form) == form


@given(st.text(max_size=20))
def test_case_never_tells_names_apart(text: str) -> None:
    assert normalise_value(Kind.CASE_IGNORE, text.encode()) == normalise_value(
        Kind.CASE_IGNORE, text.casefold().encode()
    )


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_is_exactly_the_same_is_the_same(one: str, other: str) -> None:
    """The compiled directory looks at case only among values that are the same without it."""
    for left, right in ((one, other), (one, f" {one}  "), (one, "\u00a0".join(one.split(" ")))):
        if normalise_value(Kind.CASE_EXACT, left.encode()) == normalise_value(Kind.CASE_EXACT, right.encode()):
            assert normalise_value(Kind.CASE_IGNORE, left.encode()) == normalise_value(Kind.CASE_IGNORE, right.encode())


# -- substrings (RFC 4518 2.6.1) ----------------------------------------------------------------------


def test_kinds_without_a_substring_rule() -> None:
    for kind in Kind:
        known = normalise_substring(kind, b"a", initial=False, final=False) is not None
        assert known is (kind in WITH_SUBSTRINGS)


@pytest.mark.parametrize(
    ("kind", "piece", "initial", "final", "form"),
    [
        (Kind.CASE_IGNORE, " A  B ", False, False, b" a b "),
        (Kind.CASE_IGNORE, " A  B ", True, False, b"a b "),
        (Kind.CASE_IGNORE, " A  B ", False, True, b" a b"),
        (Kind.CASE_IGNORE, "STRASSE", False, False, b"strasse"),
        (Kind.CASE_IGNORE, "   ", False, False, b" "),
        (Kind.CASE_IGNORE, "   ", True, False, b""),
        (Kind.CASE_EXACT, "A  b", False, False, b"A b"),
        (Kind.TELEPHONE_NUMBER, "30 12-3", False, False, b"30123"),
    ],
)
def test_pieces(kind: Kind, piece: str, initial: bool, final: bool, form: bytes) -> None:
    assert normalise_substring(kind, piece.encode(), initial=initial, final=final) == form


def test_pieces_that_are_no_text() -> None:
    assert normalise_substring(Kind.CASE_IGNORE, b"\xff", initial=False, final=False) is None


@given(st.text("aB  ñß", min_size=1, max_size=12), st.data())
def test_every_cut_of_a_value_is_found_in_it(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    whole = normalise_value(Kind.CASE_IGNORE, text.encode()) or b""
    left = normalise_substring(Kind.CASE_IGNORE, text[:at].strip().encode(), initial=True, final=False) or b""
    right = normalise_substring(Kind.CASE_IGNORE, text[at:].strip().encode(), initial=False, final=True) or b""
    assert whole.startswith(left) and whole.endswith(right)


def test_preparation_leaves_edges_alone() -> None:
    assert prepare("  A\r\n\tB ", fold=True) == " a b "
    assert prepare("A\u200bB", fold=False) == "AB"


def test_every_kind_is_tried_here() -> None:
    assert {kind for kind, *_ in itertools.chain(SAME)} == set(Kind)
    assert {kind for kind, *_ in itertools.chain(DIFFERENT)} == set(Kind)
    assert {kind for kind, *_ in itertools.chain(INVALID)} == set(Kind) - {Kind.OCTET_STRING}
