"""AUTHENTIK_HOST in all its forms, and the URLs made of it."""

from __future__ import annotations

import pytest

from outpost.backends.authentik.address import Address
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.errors import ConfigError
from outpost.identity import Secret

ENVIRONMENT = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://idp.example", "https://idp.example/api/v3/x/"),
        (" https://idp.example/ ", "https://idp.example/api/v3/x/"),
        ("HTTPS://IDP.Example:9443//", "https://idp.example:9443/api/v3/x/"),
        ("http://idp.example/auth/", "http://idp.example/auth/api/v3/x/"),
        ("https://idp.example/a/b", "https://idp.example/a/b/api/v3/x/"),
        ("http://[2001:db8::1]:9000/s", "http://[2001:db8::1]:9000/s/api/v3/x/"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example/api/v3/x/"),
        ("unix:///run/authentik.sock", "http://localhost/api/v3/x/"),
    ],
)
def test_hosts(host: str, url: str) -> None:
    assert str(Address.parse(host).api("/x/")) == url


def test_a_unix_socket_is_remembered() -> None:
    assert Address.parse("unix:///run/authentik.sock").socket == "/run/authentik.sock"


@pytest.mark.parametrize(
    "host",
    [
        "", "  ", "idp.example", "idp.example:9443", "ftp://idp.example", "https://", "https:///x", "//idp.example",
        "https://user:secret@idp.example", "https://idp.example/?x=1", "https://idp.example/#x", "https://[::1",
        "https://idp.example:99999", "https://idp.example:x", "https://idp.example/a b", "https://idp.example/a\r\nb",
        "unix://run/authentik.sock", "unix:", "unix://", "https://" + "ü" * 80 + ".example",
    ],
)  # fmt: skip
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(host)
    assert caught.value.source == "AUTHENTIK_HOST"
    assert "secret" not in str(caught.value)


def test_the_flow_s_query_is_escaped_twice() -> None:
    url = Address.parse("https://idp.example/sub").executor("a/b c", (("goauthentik.io/outpost/ldap", "true"),))
    assert str(url) == (
        "https://idp.example/sub/api/v3/flows/executor/a%2Fb%20c/?query=goauthentik.io%252Foutpost%252Fldap%3Dtrue"
    )


def test_query_values_are_escaped() -> None:
    url = Address.parse("https://idp.example").api("/core/users/", (("username", "a&b=c d+é"), ("page", "1")))
    assert url.raw_query_string == "username=a%26b%3Dc+d%2B%C3%A9&page=1"


def test_the_event_channel_s_url() -> None:
    url = Address.parse("https://idp.example/sub").websocket("4b2c", (("a", "b"),))
    assert str(url) == "wss://idp.example/sub/ws/outpost/4b2c/?a=b"


@pytest.mark.parametrize(
    ("host", "environment", "proxy"),
    [
        ("http://idp.example", {"http_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("http://idp.example", {"HTTP_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ("https://idp.example", {"HTTPS_PROXY": "http://u:p@proxy:3128"}, "http://u:p@proxy:3128"),
        ("https://idp.example", {"HTTP_PROXY": "http://proxy:3128"}, None),
        ("https://idp.example", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example"}, None),
        ("https://idp.example", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other"}, "http://proxy:3128"),
        ("https://idp.example", {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ("https://idp.example", {"HTTPS_PROXY": ""}, None),
        ("unix:///run/a.sock", {"HTTP_PROXY": "http://proxy:3128"}, None),
    ],
)
def test_proxies_come_from_the_environment(
    host: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Address.parse(host).proxy() == proxy


def test_other_kinds_of_proxy_are_refused_without_showing_their_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:hidden@proxy:1080")
    with pytest.raises(ConfigError) as caught:
        AuthentikSettings("https://idp.example", {"ldap": Secret("t")}).check()
    assert caught.value.source == "HTTPS_PROXY"
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "tokens",
    [{}, {"ldap": Secret("")}, {"kerberos": Secret("t")}, {"auto": Secret("t"), "ldap": Secret("t")},
     {"ldap": Secret("a b")}, {"ldap": Secret("a\nb")}, {"ldap": Secret("ä")}],
)  # fmt: skip
def test_tokens_that_cannot_work(tokens: dict[str, Secret]) -> None:
    with pytest.raises(ConfigError, match="AUTHENTIK_TOKEN"):
        AuthentikSettings("https://idp.example", tokens).check()


@pytest.mark.parametrize("name", ["page_size", "concurrency", "login_concurrency", "attempts", "login_timeout_s"])
def test_numbers_that_cannot_work(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        AuthentikSettings("https://idp.example", {"ldap": Secret("t")}, **{name: 0}).check()
