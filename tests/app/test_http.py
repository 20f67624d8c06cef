"""Probes and metrics over a real socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from outpost.app.http import CONNECTIONS, HttpServer


class Site:
    def __init__(self) -> None:
        self.states = {"ldap": "", "radius": ""}
        self.url = ""


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()

    async def exposition() -> bytes:
        return b"outpost_up 1\n"

    server = HttpServer(lambda: found.states, exposition)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    found.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    await server.start([sock])
    yield found
    await server.stop()
    await server.stop()
    assert sock.fileno() == -1


async def get(url: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.request(method, url) as answer:
        return answer.status, await answer.text()


async def test_ping_says_alive_to_any_method(site: Site) -> None:
    site.states = {"ldap": "no directory yet"}
    for method in ("GET", "HEAD", "POST"):
        assert await get(site.url + "/outpost.goauthentik.io/ping", method) == (204, "")


async def test_ready_names_each_service(site: Site) -> None:
    assert await get(site.url + "/-/ready") == (200, "ldap: ready\nradius: ready\n")
    site.states = {"ldap": "", "radius": "the server cannot be reached"}
    assert await get(site.url + "/-/ready") == (503, "ldap: ready\nradius: the server cannot be reached\n")


async def test_serving_nothing_is_not_ready(site: Site) -> None:
    site.states = {}
    assert (await get(site.url + "/-/ready"))[0] == 503


async def test_metrics(site: Site) -> None:
    assert await get(site.url + "/metrics") == (200, "outpost_up 1\n")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)])
async def test_anything_else_is_refused(site: Site, method: str, path: str, status: int) -> None:
    assert (await get(site.url + path, method))[0] == status


async def raw(site: Site, octets: bytes) -> bytes:
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(octets)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_several_requests_on_one_connection(site: Site) -> None:
    answer = await raw(site, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert answer.count(b"HTTP/1.1 200") == 3


async def test_a_head_answer_has_no_body(site: Site) -> None:
    answer = await raw(site, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"ontent-length: 13" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_and_the_next_one_served(site: Site, octets: bytes) -> None:
    assert b" 200 " not in await raw(site, octets)
    assert (await get(site.url + "/metrics"))[0] == 200


async def test_clients_are_limited(site: Site) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    there = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS)]
    assert await raw(site, b"") == b""
    for _, writer in there:
        writer.close()
        await writer.wait_closed()
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            if (await get(site.url + "/metrics"))[0] == 200:
                break
