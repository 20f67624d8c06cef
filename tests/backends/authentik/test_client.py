"""REST requests: token, retries, deadlines, words for what went wrong; where the server may be."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import pathlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from outpost.backends.authentik import client as client_module
from outpost.backends.authentik.client import Client, NoJson, NotFound, Pool, Pools, RequestRefused, TokenRefused
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.errors import BackendError, BackendTimeout, BackendUnavailable
from outpost.identity import Accepted, Secret, Unavailable
from tests.backends.authentik.replay import Bench
from tests.backends.authentik.script import ASKING, EMBEDDED, LDAP, Script, Step, done, html, moved, reply
from tests.backends.authentik.test_faults import FAULTS, hang

ENVIRONMENT = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_BASE_S", 0.001)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


def sequence(*steps: Step) -> Any:
    """Answers in order, the last one again and again."""
    left = list(steps)

    async def answer(request: web.Request) -> web.StreamResponse:
        step = left.pop(0) if len(left) > 1 else left[0]
        if callable(step):
            return await step(request)
        if isinstance(step, dict):
            return reply(step)
        return web.Response(status=step.status, body=step.body, headers=step.headers)

    return answer


@contextlib.asynccontextmanager
async def serving(*steps: Step, **options: Any) -> AsyncIterator[tuple[Client, Script]]:
    async with Script(other=sequence(*steps)) as script:
        settings = AuthentikSettings(script.url, {"ldap": Secret("the-token")}, **options)
        async with Pools(settings) as pools:
            yield Client(pools.rest, Secret("the-token"), settings, "1.2.3"), script


async def test_the_token_and_the_user_agent() -> None:
    async with serving({"a": 1}) as (client, script):
        assert await client.get("/core/users/", (("page", "1"),)) == {"a": 1}
        assert script.requests == ["GET /api/v3/core/users/?page=1"]
        assert script.headers[0]["Authorization"] == "Bearer the-token"
        assert script.headers[0]["User-Agent"] == "goauthentik.io/outpost/1.2.3"
        client.version = "2"
        await client.get("/core/users/")
        assert script.headers[1]["User-Agent"] == "goauthentik.io/outpost/2"


TRANSIENT = ("500", "502 of a gateway", "503 as JSON", "429", "reset", "closed without a word", "cut off in the body",
             "HTML with 200", "JSON typed as HTML", "truncated JSON", "empty body")  # fmt: skip


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_transient_faults_are_tried_again(fault: str) -> None:
    async with serving(FAULTS[fault], FAULTS[fault], {"a": 1}, attempts=3) as (client, script):
        assert await client.get("/x/") == {"a": 1}
        # A request on a kept connection that the server just closed is sent again by the HTTP client itself, too.
        assert len(script.requests) >= 3


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_tries_are_bounded(fault: str) -> None:
    async with serving(FAULTS[fault], attempts=3) as (client, script):
        with pytest.raises(BackendUnavailable):
            await client.get("/x/")
        assert 3 <= len(script.requests) <= 6


async def test_a_hanging_server_costs_a_deadline_per_try() -> None:
    async with serving(hang, attempts=2, request_timeout_s=0.1) as (client, script):
        with pytest.raises(BackendTimeout, match=r"0\.1 s"):
            await client.get("/x/")
        assert len(script.requests) == 2


async def test_a_caller_without_a_deadline_does_not_wait_for_ever() -> None:
    async with Script(other=hang) as script:
        settings = AuthentikSettings(script.url, {"ldap": Secret("t")})
        for name in ("request_timeout_s", "login_timeout_s", "duo_timeout_s"):
            object.__setattr__(settings, name, -0.9)
        pool = Pool(settings, limit=1)
        with pytest.raises(BackendTimeout, match="does not answer"):
            await pool.request("GET", settings.address().api("/x/"), {}, "x", limit=10)
        await pool.close()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_named_and_not_tried_again(status: int) -> None:
    answer = reply({"detail": "Token invalid/expired"}, status=status)
    async with serving(answer) as (client, script):
        with pytest.raises(TokenRefused, match="AUTHENTIK_TOKEN") as caught:
            await client.get("/root/config/")
        assert "Token invalid/expired" in str(caught.value)
        assert "the-token" not in str(caught.value)
        assert len(script.requests) == 1


async def test_not_found_by_the_api_and_not_found_at_all() -> None:
    async with serving(reply({"detail": "Invalid page."}, status=404), html(404)) as (client, script):
        for is_api in (True, False):
            with pytest.raises(NotFound) as caught:
                await client.get("/x/")
            assert caught.value.is_api is is_api
        assert len(script.requests) == 2


async def test_a_bad_value_is_not_tried_again() -> None:
    async with serving(reply({"members_by_username": ["no"]}, status=400)) as (client, script):
        with pytest.raises(RequestRefused):
            await client.get("/x/")
        assert len(script.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_the_token_follows_no_redirect(status: int) -> None:
    async with Script() as elsewhere:
        async with serving(moved(f"{elsewhere.url}/x/", status=status), attempts=1) as (client, _):
            with pytest.raises(BackendUnavailable, match="AUTHENTIK_HOST") as caught:
                await client.get("/x/")
            assert elsewhere.url in str(caught.value)
        assert elsewhere.requests == []


@pytest.mark.parametrize("detail", ["a\nb", "\x1b[31m", 5, None, ["x"]])
async def test_details_that_would_break_a_log_line_are_left_out(detail: object) -> None:
    async with serving(reply({"detail": detail}, status=403)) as (client, _):
        with pytest.raises(TokenRefused) as caught:
            await client.get("/x/")
        assert str(caught.value).isprintable()


async def test_an_oversized_page_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BODY", 1000)
    async with serving(reply({"a": "x" * 2000})) as (client, script):
        with pytest.raises(BackendError, match="1000 octets"):
            await client.get("/x/")
        assert len(script.requests) == 1


def gzipped(content: object, *, level: int = 6, cut: int = 0, tail: bytes = b"", **options: Any) -> web.Response:
    octets = gzip.compress(orjson.dumps(content), level)
    headers = {"Content-Encoding": options.pop("encoding", "gzip")}
    body = octets[: len(octets) - cut] + tail
    return web.Response(body=body, content_type="application/json", headers=headers, **options)


async def test_a_packed_answer_is_read_and_handed_over_as_it_travelled() -> None:
    answer = gzipped({"a": [1, 2, 3]})
    async with serving(answer) as (client, script):
        assert await client.get("/x/") == {"a": [1, 2, 3]}
        found = await client.get_answer("/x/")
        assert found.is_packed and found.body == answer.body
        assert found.unpacked("x", 100).body == b'{"a":[1,2,3]}'
        assert script.headers[0]["Accept-Encoding"] == "gzip"
    async with serving({"a": 1}) as (client, _):
        assert not (await client.get_answer("/x/")).is_packed


@pytest.mark.parametrize("damage", [{"cut": 1}, {"cut": 9}, {"tail": b"x"}, {"encoding": "x-gzip", "cut": 4}])
async def test_a_packed_answer_that_is_not_whole_is_refused(damage: dict[str, Any]) -> None:
    async with serving(gzipped({"a": "b" * 100}, **damage)) as (client, _):
        with pytest.raises(NoJson):
            await client.get("/x/")


async def test_what_is_no_gzip_is_refused() -> None:
    plain = web.Response(body=b'{"a":1}', content_type="application/json", headers={"Content-Encoding": "gzip"})
    async with serving(plain) as (client, _):
        with pytest.raises(NoJson, match="no gzip"):
            await client.get("/x/")


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip"])
async def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    async with serving(gzipped({"a": 1}, encoding=encoding)) as (client, script):
        with pytest.raises(BackendUnavailable, match="not asked for"):
            await client.get("/x/")
        assert len(script.requests) == AuthentikSettings(script.url, {}).attempts


async def test_a_packed_answer_counts_by_what_it_grows_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BODY", 1000)
    async with serving(gzipped("x" * 998)) as (client, _):
        assert len(await client.get("/x/")) == 998
    async with serving(gzipped("x" * 1_000_000)) as (client, script):
        with pytest.raises(BackendError, match="larger than 1000 octets"):
            await client.get("/x/")
        assert len(script.requests) == 1


async def test_the_words_of_a_packed_refusal_are_read() -> None:
    async with serving(gzipped({"detail": "Token invalid/expired"}, status=403)) as (client, _):
        with pytest.raises(TokenRefused, match="Token invalid/expired"):
            await client.get("/x/")


async def test_the_event_channel_asks_for_no_encoding() -> None:
    async with serving({}) as (client, _):
        assert set(client.headers()) == {"Authorization", "User-Agent"}


async def test_a_pool_is_bounded() -> None:
    most = busy = 0

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        return reply({})

    async with Script(other=count) as script:
        settings = AuthentikSettings(script.url, {"ldap": Secret("t")})
        pool = Pool(settings, limit=3)
        client = Client(pool, Secret("t"), settings, "1")
        await asyncio.gather(*(client.get("/x/") for _ in range(20)))
        await pool.close()
        await pool.close()
    assert most == 3


# -- where the server is --------------------------------------------------------------------------


async def login(url: str, **options: Any) -> object:
    async with Bench(url, "ldap", **options) as bench:
        return await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING)


async def test_a_server_behind_a_unix_socket(tmp_path: pathlib.Path) -> None:
    script = Script(EMBEDDED, moved(), done())
    script.socket = tmp_path / "s"
    async with script:
        assert isinstance(await login(script.url), Accepted)
    assert {headers["Host"] for headers in script.headers} == {"localhost"}


async def test_a_missing_unix_socket_is_no_decision(tmp_path: pathlib.Path) -> None:
    assert isinstance(await login(f"unix://{tmp_path}/missing"), Unavailable)


def certificate(tmp_path: pathlib.Path) -> ssl.SSLContext:
    """A server context with a fresh self-signed certificate for another name."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    octets = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(octets)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


async def test_an_untrusted_certificate_is_named_and_no_secret_goes_out(tmp_path: pathlib.Path) -> None:
    script = Script(EMBEDDED, moved(), done())
    script.tls = certificate(tmp_path)
    async with script:
        decision = await login(script.url)
        assert isinstance(decision, Unavailable)
        assert "certificate is not trusted" in decision.detail
        assert script.requests == []
        assert isinstance(await login(script.url, insecure=True), Accepted)


async def test_tls_with_a_server_that_speaks_none_is_named() -> None:
    async with Script(EMBEDDED, moved(), done()) as script:
        decision = await login(script.url.replace("http:", "https:"))
        assert isinstance(decision, Unavailable)
        assert "TLS" in decision.detail


async def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # A plain HTTP proxy gets the absolute URL; this one answers as the server would.
    async with Script(EMBEDDED, done()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://user:secret@"))
        monkeypatch.setenv("no_proxy", "")
        assert isinstance(await login("http://idp.invalid:9000"), Accepted)
    assert {headers["Host"] for headers in proxy.headers} == {"idp.invalid:9000"}
    assert all(headers["Proxy-Authorization"].startswith("Basic ") for headers in proxy.headers)


async def test_a_dead_proxy_is_no_decision_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    decision = await login("http://idp.invalid:9000")
    assert isinstance(decision, Unavailable)
    assert "secret" not in decision.detail
