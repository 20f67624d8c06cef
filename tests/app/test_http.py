"""Probes and metrics over a real socket."""

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from outpost.app.http import HttpServer


class Site:
    def __init__(self) -> None:
        self.states = {"ldap": "", "radius": ""}
        self.url = ""


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    server = HttpServer(lambda: found.states, lambda: b"outpost_up 1\n")
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
