"""The real process against a server made for tests."""

import asyncio
import sys

import pytest
from pyrad.packet import AccessAccept, AccessReject

from tests.backends.authentik.appliance import small
from tests.process.radius_client import answer_code
from tests.process.running import LISTENERS, Appliance, environment
from tests.stub_authentik.server import LDAP_TOKEN, RADIUS_TOKEN

COMMAND = [sys.executable, "-m", "outpost", "run"]
for _name in LISTENERS:
    COMMAND += ["--set", f"listen.{_name}=127.0.0.1:0"]


def server(url: str, **more: str) -> dict[str, str]:
    return environment(AUTHENTIK_HOST=url, AUTHENTIK_TOKEN_LDAP=LDAP_TOKEN, AUTHENTIK_TOKEN_RADIUS=RADIUS_TOKEN, **more)


async def login(running: Appliance, user: str, password: str) -> int:
    return await asyncio.to_thread(answer_code, running.ports["radius"], user, password, "very-secret")


async def until_ready(running: Appliance) -> None:
    for _ in range(200):
        if (await asyncio.to_thread(running.get, "/-/ready"))[0] == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(running.said)


async def test_logins_are_decided_by_the_server() -> None:
    async with small() as stub:
        running = Appliance(COMMAND, server(stub.url))
        try:
            await asyncio.to_thread(running.wait_until_listening)
            await until_ready(running)
            assert await login(running, "alice", "pw-alice") == AccessAccept
            assert await login(running, "alice", "wrong") == AccessReject
            status, text = await asyncio.to_thread(running.get, "/metrics")
            assert status == 200
            assert 'authentik_outpost_info{build="",outpost_name="stub-radius",outpost_type="radius"' in text
            assert await asyncio.to_thread(running.stop) == 0
            for secret in (LDAP_TOKEN, RADIUS_TOKEN, "pw-alice", "very-secret"):
                assert secret not in running.said
            assert "Traceback" not in running.said
        finally:
            running.end()


async def test_it_listens_without_the_server_and_says_why_it_is_not_ready() -> None:
    running = Appliance(COMMAND, server("http://127.0.0.1:9"))
    try:
        await asyncio.to_thread(running.wait_until_listening)
        status, text = await asyncio.to_thread(running.get, "/-/ready")
        assert status == 503
        assert "radius: " in text
        assert "radius: ready" not in text
        assert (await asyncio.to_thread(running.get, "/outpost.goauthentik.io/ping"))[0] == 204
        assert await asyncio.to_thread(running.stop) == 0
    finally:
        running.end()


@pytest.mark.parametrize("token", ["", "to ken"])
async def test_a_token_that_cannot_be_one_is_2(token: str) -> None:
    running = Appliance(COMMAND, environment(AUTHENTIK_HOST="http://127.0.0.1:9", AUTHENTIK_TOKEN=token))
    try:
        assert await asyncio.to_thread(running.process.wait, 20) == 2
    finally:
        running.end()
    assert "AUTHENTIK_TOKEN" in running.said
    assert "to ken" not in running.said
    assert "Traceback" not in running.said
