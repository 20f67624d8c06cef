"""The flat cookie jar and what the session cookie says."""

from __future__ import annotations

import base64
import hashlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.backends.authentik.cookies import MAX_COOKIES, Jar
from outpost.backends.authentik.session import read_claims

NOW = 1_700_000_000.0


def jar(*headers: str) -> Jar:
    found = Jar()
    found.receive(headers, NOW)
    return found


def test_the_newest_value_of_a_name_counts() -> None:
    assert jar("a=1; Path=/", "b=2; Domain=x.example; Secure", "a=3").header() == "a=3; b=2"


@pytest.mark.parametrize("end", ["Max-Age=0", "max-age=-5", "expires=Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_cookie_that_has_ended_is_gone(end: str) -> None:
    assert jar("a=1", f'a=""; {end}').header() == ""


@pytest.mark.parametrize(
    ("attributes", "expires_at"),
    [
        ("", None),
        ("; Max-Age=60", NOW + 60),
        ("; expires=Tue, 14 Nov 2023 22:14:20 GMT", NOW + 60),
        ("; expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=30", NOW + 30),
        ("; Max-Age=30; expires=Tue, 14 Nov 2023 22:14:20 GMT", NOW + 30),
        ("; expires=Tue, 14 Nov 2023 22:14:20 -0000", NOW + 60),
        ("; Max-Age=abc", None),
        ("; Max-Age=1e9", None),
        ("; Max-Age=٣", None),
        ("; Max-Age=99999999999999999999", None),
        ("; expires=whenever", None),
        ("; expires=Tue, 14 Nov 2023 22:14:20 +99999999999999999999999", None),
        ("; expires=Tue, 99 Nov 2023 22:14:20 GMT", None),
    ],
)
def test_the_end_of_the_session(attributes: str, expires_at: float | None) -> None:
    assert jar(f"authentik_session=x{attributes}").session_expires_at == expires_at


@pytest.mark.parametrize("header", ["", "a", "=1", "a b=1", "a=1\r\nX: y", "a=1,2", "a=ä", "a=\x00", 'a="1\\"', ";a=1"])
def test_unusable_cookies_are_ignored(header: str) -> None:
    assert jar(header).header() == ""


def test_the_jar_is_bounded() -> None:
    found = jar(*(f"c{i}=1" for i in range(1000)), "c0=2")
    assert found.header().count("=") == MAX_COOKIES
    assert found.get("c0") == "2"


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_header_is_survived(headers: list[str]) -> None:
    shown = jar(*headers).header()
    assert shown.isascii()
    assert shown.isprintable()


def token(claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b'=').decode()}.sig"


def test_claims_of_a_login() -> None:
    claims = read_claims(token({"sid": "k", "sub": "u1", "authenticated": True}))
    assert claims.is_authenticated is True
    assert claims.subject == "u1"
    assert claims.handle == hashlib.sha256(b"k").hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        {}, {"sub": "u1"}, {"authenticated": True}, {"sub": "anonymous", "authenticated": True},
        {"sub": "", "authenticated": True}, {"sub": 5, "authenticated": True}, {"sub": "u1", "authenticated": "true"},
        {"sub": "u1", "authenticated": 1}, {"sub": "u1", "authenticated": False}, {"sub": None, "authenticated": True},
    ],
)  # fmt: skip
def test_claims_that_are_no_login(content: dict[str, object]) -> None:
    assert read_claims(token(content)).is_authenticated is False


@pytest.mark.parametrize("cookie", ["", "opaque", "a.b", "a.b.c.d", "a.!!!.c", "a.e30", token([1]), token("x")])
def test_cookies_that_tell_nothing(cookie: str) -> None:
    claims = read_claims(cookie)
    assert (claims.subject, claims.is_authenticated) == (None, None)
    assert claims.handle == hashlib.sha256(cookie.encode()).hexdigest()


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_cookie_is_survived(cookie: str) -> None:
    assert read_claims(cookie).is_authenticated is not True
    assert read_claims(f"a.{cookie}.c").is_authenticated is not True
