"""The real process against a server made for tests."""

import asyncio
import contextlib
import functools
import socket
import sys
from collections.abc import AsyncIterator, Sequence

import pytest
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject

from outpost._fastradius import SharedSecret, encode_request
from outpost.radius.packet import encode_attribute
from tests import oracle_radius as oracle
from tests.backends.authentik.appliance import small
from tests.process.radius_client import answer_code
from tests.process.running import LISTENERS, Appliance, environment
from tests.radius import testbed
from tests.stub_authentik.server import LDAP_TOKEN, RADIUS_TOKEN, Stub

COMMAND = [sys.executable, "-m", "outpost", "run"]
for _name in LISTENERS:
    COMMAND += ["--set", f"listen.{_name}=127.0.0.1:0"]


SECRET = b"very-secret"
request = functools.partial(testbed.login, secret=SECRET)


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


@contextlib.asynccontextmanager
async def hearing(stub: Stub, command: Sequence[str], env: dict[str, str]) -> AsyncIterator[Appliance]:
    """A process that is ready, with both event channels open; it ends well."""
    running = Appliance(command, env)
    try:
        await asyncio.to_thread(running.wait_until_listening)
        await until_ready(running)
        await stub.until(lambda: len(stub.hellos) >= 2)
        yield running
        assert await asyncio.to_thread(running.stop) == 0
        assert "Traceback" not in running.said
    finally:
        running.end()


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


def ask(sock: socket.socket, data: bytes) -> bytes:
    """The reply, whose authenticators hold."""
    sock.send(data)
    reply = sock.recv(5000)
    assert oracle.response_holds(reply, data[4:20], SECRET) and reply[1] == data[1]
    return reply


async def until_answered(running: Appliance, sock: socket.socket) -> None:
    """Until the provider of the stub is served."""
    await until_ready(running)
    sock.settimeout(10)
    status = encode_request(12, 255, bytes(16), b"", SharedSecret(SECRET))
    assert (await asyncio.to_thread(ask, sock, status))[0] == 2


async def test_a_push_delays_nobody_and_survives_retransmissions() -> None:
    stub = small()
    stub.add_user("dora", "pw-dora", devices=("duo",))
    async with stub:
        running = Appliance(COMMAND, server(stub.url))
        try:
            await asyncio.to_thread(running.wait_until_listening)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("127.0.0.1", running.ports["radius"]))
                await until_answered(running, sock)
                stub.push_delay_s = 2.0
                pushed = request("dora", "pw-dora", identifier=1)
                sock.send(pushed)
                for identifier in range(2, 5):
                    status = encode_request(12, identifier, bytes(16), b"", SharedSecret(SECRET))
                    assert (await asyncio.to_thread(ask, sock, status))[0] == AccessAccept
                    sock.send(pushed)
                reply = await asyncio.to_thread(sock.recv, 5000)
                assert (reply[0], reply[1]) == (AccessAccept, 1)
                assert await asyncio.to_thread(ask, sock, pushed) == reply
                assert stub.password_checks == 1
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(5000)
        finally:
            running.end()


@pytest.mark.parametrize(("code", "wanted"), [("123456", AccessAccept), ("000000", AccessReject)])
async def test_a_missing_code_is_asked_for_and_the_same_flow_goes_on(code: str, wanted: int) -> None:
    stub = small()
    stub.add_user("tom", "pw-tom", devices=("totp",), codes={"123456"})
    async with stub:
        running = Appliance(COMMAND, server(stub.url))
        try:
            await asyncio.to_thread(running.wait_until_listening)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("127.0.0.1", running.ports["radius"]))
                await until_answered(running, sock)
                checks = stub.password_checks
                prompt = await asyncio.to_thread(ask, sock, request("tom", "pw-tom"))
                assert prompt[0] == AccessChallenge
                state = dict(oracle.attributes(prompt) or [])[24]
                answer = request("tom", code, identifier=2, extra=encode_attribute(24, state))
                assert (await asyncio.to_thread(ask, sock, answer))[0] == wanted
                assert stub.password_checks == checks + 1
                again = request("tom", "123456", identifier=3, extra=encode_attribute(24, state))
                assert (await asyncio.to_thread(ask, sock, again))[0] == AccessReject
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
