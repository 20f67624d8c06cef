import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.passcode import is_code, readings, split

SPLIT = [
    (b"pw;123456", b"pw", "123456"),
    (b"pw;000000", b"pw", "000000"),
    (b"pw;abcDEF12", b"pw", "abcDEF12"),
    (b"pw;12345678", b"pw", "12345678"),
    (b"a;b;123456", b"a;b", "123456"),
    (b"a;123456;654321", b"a;123456", "654321"),
    (b";123456", b"", "123456"),
    (b"p\xc3\xa4ss;123456", b"p\xc3\xa4ss", "123456"),
    (b"\xff\xfe;123456", b"\xff\xfe", "123456"),
    (b"pw;;123456", b"pw;", "123456"),
]
WHOLE = [
    b"",
    b"pw",
    b";",
    b"pw;",
    b"pw;123456;",
    b"pw;12345",
    b"pw;1234567",
    b"pw;123456789",
    b"pw;abcdef",
    b"pw;12345a",
    b"pw;+12345",
    b"pw;-12345",
    b"pw; 12345",
    b"pw;12345\n",
    b"pw;123456\n",
    b"pw;abcdefg-",
    b"pw;abcd efg",
    b"pw;abcdefghijkl",
    b"pw;\xd9\xa1\xd9\xa2\xd9\xa3",
    b"pw;\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4",
    b"123456",
    b"pw123456",
]


@pytest.mark.parametrize(("secret", "password", "code"), SPLIT)
def test_code_behind_the_last_semicolon(secret: bytes, password: bytes, code: str) -> None:
    assert split(secret, True) == (password, code)


@pytest.mark.parametrize("secret", WHOLE)
def test_anything_else_stays_whole(secret: bytes) -> None:
    assert split(secret, True) == (secret, None)


@pytest.mark.parametrize("secret", [s for s, _, _ in SPLIT] + WHOLE)
def test_without_mfa_support_nothing_is_split(secret: bytes) -> None:
    assert split(secret, False, suffix=True) == (secret, None)
    assert readings(secret, False, suffix=True) == ((secret, None),)


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (b"pw123456", (b"pw", "123456")),
        (b"123456", (b"", "123456")),
        (b"pw12345", (b"pw12345", None)),
        (b"pw;123456", (b"pw", "123456")),
        (b"pw;1234567", (b"pw;1", "234567")),
        (b"pw\xd9\xa1\xd9\xa2\xd9\xa3", (b"pw\xd9\xa1\xd9\xa2\xd9\xa3", None)),
    ],
)
def test_suffix_takes_six_trailing_digits(secret: bytes, expected: tuple[bytes, str | None]) -> None:
    assert split(secret, True, suffix=True) == expected


@pytest.mark.parametrize("code", ["123456", "abcDEF12", "abcdefghijkl", "1234", "x" * 64])
def test_readings_take_codes_of_any_sensible_length(code: str) -> None:
    assert readings(b"pw;" + code.encode(), True) == ((b"pw;" + code.encode(), None), (b"pw", code))
    assert is_code(code)


@pytest.mark.parametrize("tail", ["", "123", "x" * 65, "abcd-efgh", "12 34", "äöüß", "1234\n"])
def test_readings_leave_other_tails_alone(tail: str) -> None:
    assert readings(f"pw;{tail}".encode(), True) == ((f"pw;{tail}".encode(), None),)
    assert not is_code(tail)


def test_an_ambiguous_tail_is_read_both_ways() -> None:
    assert readings(b"pw;1234567", True, suffix=True) == (
        (b"pw;1234567", None),
        (b"pw", "1234567"),
        (b"pw;1", "234567"),
    )


@given(st.binary(max_size=80) | st.from_regex(rb"[a;]{0,4};[0-9a]{0,12}", fullmatch=True), st.booleans(), st.booleans())
def test_readings_cover_the_rule_and_lose_nothing(secret: bytes, mfa_support: bool, suffix: bool) -> None:
    found = readings(secret, mfa_support, suffix=suffix)
    assert found[0] == (secret, None) and len(set(found)) == len(found) <= 2 + suffix
    assert split(secret, mfa_support, suffix=suffix) in found
    for password, code in found[1:]:
        assert secret in (password + b";" + code.encode(), password + code.encode())
