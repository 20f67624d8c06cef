"""A server that fails in any way makes no decision: never a login, never a refusal."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import web

from outpost.backends.authentik import flow
from outpost.identity import Secret, Unavailable, UnavailableReason
from tests.backends.authentik.replay import Bench
from tests.backends.authentik.script import (
    ASKING,
    EMBEDDED,
    LDAP,
    PASSWORD,
    Handler,
    Script,
    Step,
    cookie,
    done,
    html,
    moved,
    reply,
)
from tests.backends.authentik.test_authority import decide


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return html(500)


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return html(500)


def raw(octets: bytes) -> Handler:
    """An answer written as it is, after which the connection is closed."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(octets)  # type: ignore[attr-defined]
        request.transport.close()
        return html(500)

    return answer


async def halfway(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"component": "xak-flow-redirect", "to": "/"')
    assert request.transport is not None
    request.transport.abort()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b" " * 65536)
    except (ConnectionError, RuntimeError):
        return response


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


def typed(content_type: str) -> web.Response:
    content = b'{"component": "xak-flow-redirect", "to": "/"}'
    return web.Response(body=content, headers={"Content-Type": content_type, "Set-Cookie": cookie()})


def text(content: bytes) -> web.Response:
    return web.Response(body=content, headers={"Content-Type": "application/json", "Set-Cookie": cookie()})


FAULTS: dict[str, Step] = {
    "time-out": hang,
    "reset": reset,
    "closed without a word": raw(b""),
    "garbage": raw(b"\x16\x03\x01\x02\x00 no HTTP \r\n\r\n"),
    "cut off in the head": raw(b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "cut off in the body": halfway,
    "endless body": endless,
    "dripping body": dripping,
    "500": html(500),
    "502 of a gateway": html(502),
    "503 as JSON": reply({"detail": "later"}, status=503),
    "429": reply({"detail": "slow down"}, status=429),
    "400": reply({"detail": "bad"}, status=400),
    "401": reply({"detail": "who?"}, status=401),
    "403 of a firewall": html(403),
    "404": html(404),
    "204": web.Response(status=204),
    "206": web.Response(status=206, body=b"{}", content_type="application/json"),
    "HTML with 200": html(200),
    "JSON typed as HTML": typed("text/html"),
    "JSON without a type": typed("application/octet-stream"),
    "empty body": text(b""),
    "truncated JSON": text(b'{"component": "xak-flow-redirect", "to": "/'),
    "null": text(b"null"),
    "a list": text(b"[]"),
    "an empty object": text(b"{}"),
    "component of another kind": text(b'{"component": 5}'),
    "component null": text(b'{"component": null}'),
    "target of another kind": text(b'{"component": "xak-flow-redirect", "to": 5}'),
    "errors of another kind": text(b'{"component": "ak-stage-password", "response_errors": [1]}'),
    "devices of another kind": text(b'{"component": "ak-stage-authenticator-validate", "device_challenges": 5}'),
    "a device of another kind": text(b'{"component": "ak-stage-authenticator-validate", "device_challenges": [5]}'),
    "not UTF-8": text(b'{"component": "\xff"}'),
    "deep": text(b'{"component":' * 5000 + b"1" + b"}" * 5000),
    "server failure in the flow": text(b'{"component": "ak-stage-flow-error"}'),
    "redirect elsewhere": moved("https://elsewhere.example/"),
}
AT = {
    "first request": lambda fault: (fault,),
    "after the name": lambda fault: (PASSWORD, fault),
    "after the password": lambda fault: (EMBEDDED, moved(), fault),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", AT)
async def test_a_fault_in_the_flow_is_no_decision(fault: str, at: str) -> None:
    script = Script(*AT[at](FAULTS[fault]))
    decision = await decide(script, login_timeout_s=0.3)
    assert isinstance(decision, Unavailable), decision
    assert decision.detail
    assert "pw" not in decision.detail.split()
    if fault in ("time-out", "dripping body"):
        assert decision.reason is UnavailableReason.BACKEND_TIMEOUT


AFTER = [
    "time-out", "reset", "closed without a word", "garbage", "cut off in the head", "cut off in the body",
    "endless body", "dripping body", "500", "502 of a gateway", "503 as JSON", "429", "400", "204", "206",
    "HTML with 200", "JSON typed as HTML", "JSON without a type", "empty body", "truncated JSON", "null", "a list",
    "not UTF-8", "deep", "redirect elsewhere",
]  # fmt: skip
"""401, 403 and 404 are an answer when said about a session: nobody is logged in, or no such application."""


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("at", ["me", "access", "legacy"])
async def test_a_fault_after_the_flow_is_no_decision(fault: str, at: str) -> None:
    options: dict[str, Any] = {at: FAULTS[fault]}
    if at == "legacy":
        options["access"] = html(404)
    decision = await decide(Script(EMBEDDED, done(), **options), login_timeout_s=0.3)
    assert isinstance(decision, Unavailable), decision


async def test_an_oversized_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MAX_FLOW_BODY", 10_000)
    for answer in (text(b" " * 20_000 + b"{}"), endless):
        decision = await decide(Script(answer))
        assert isinstance(decision, Unavailable)
        assert "10000 octets" in decision.detail


async def test_a_compressed_answer_counts_by_what_it_grows_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MAX_FLOW_BODY", 10_000)

    async def bomb(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b" " * 1_000_000, content_type="application/json")
        response.enable_compression(web.ContentCoding.gzip)
        return response

    decision = await decide(Script(bomb))
    assert isinstance(decision, Unavailable)
    assert "10000 octets" in decision.detail


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with Bench(url, "ldap") as bench:
            decision = await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING)
    assert isinstance(decision, Unavailable)
    assert decision.reason is UnavailableReason.BACKEND_DOWN


async def test_a_server_that_takes_no_connections_costs_the_deadline() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with Bench(url, "ldap", login_timeout_s=0.3) as bench:
            decision = await bench.authority.authenticate(LDAP, "alice", Secret("pw"), ASKING)
    assert isinstance(decision, Unavailable)
    assert decision.reason is UnavailableReason.BACKEND_TIMEOUT


async def test_two_hundred_logins_at_a_hanging_server_cost_a_deadline_each_and_leave_nothing() -> None:
    script = Script(hang, loop=True)
    async with script, Bench(script.url, "ldap", login_timeout_s=0.5, login_concurrency=256) as bench:
        before = len(asyncio.all_tasks())
        started = asyncio.get_running_loop().time()
        decisions = await asyncio.gather(
            *(bench.authority.authenticate(LDAP, f"user{i}", Secret("pw"), ASKING) for i in range(200))
        )
        assert asyncio.get_running_loop().time() - started < 5
        assert all(isinstance(d, Unavailable) and d.reason is UnavailableReason.BACKEND_TIMEOUT for d in decisions)
        assert bench.authority.turns.active == 0
        assert len(bench.sessions) == 0
        for _ in range(100):
            if len(asyncio.all_tasks()) <= before:
                break
            await asyncio.sleep(0.02)
        assert len(asyncio.all_tasks()) <= before
