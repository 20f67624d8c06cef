"""Real clients over loopback."""

import asyncio
import io
import shutil

import pytest
from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessAccept, AccessReject

from tests.radius.testbed import SECRET, provider, serving

WORDS = io.StringIO("ATTRIBUTE User-Name 1 string\nATTRIBUTE User-Password 2 string\nATTRIBUTE Proxy-State 33 octets\n")

radclient = pytest.mark.skipif(not shutil.which("radclient"), reason="radclient (freeradius-utils) is not installed")


@pytest.mark.parametrize(("password", "code"), [("wonderland", AccessAccept), ("wrong", AccessReject)])
async def test_pyrad(password: str, code: int) -> None:
    WORDS.seek(0)
    words = Dictionary(WORDS)
    async with serving(provider(message_authenticator="require")) as bed:

        def ask() -> int:
            client = Client("127.0.0.1", authport=bed.port, secret=SECRET, dict=words)
            request = client.CreateAuthPacket(User_Name="alice", message_authenticator=True)
            request["User-Password"] = request.PwCrypt(password)
            try:
                reply = client.SendPacket(request)
            finally:
                client._CloseSocket()
            assert reply.verify_message_authenticator(original_authenticator=request.authenticator)
            return int(reply.code)

        assert await asyncio.to_thread(ask) == code


@radclient
@pytest.mark.interop
@pytest.mark.parametrize("signature", [",Message-Authenticator=0x00", ""])
@pytest.mark.parametrize(("password", "word"), [("wonderland", "Access-Accept"), ("wrong", "Access-Reject")])
async def test_radclient(password: str, word: str, signature: str) -> None:
    async with serving() as bed:
        process = await asyncio.create_subprocess_exec(
            *("radclient", "-x", "-r", "1", "-t", "5", f"127.0.0.1:{bed.port}", "auth", SECRET.decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        asked = f'User-Name="alice",User-Password="{password}"{signature}\n'
        out, _ = await process.communicate(asked.encode())
        assert f"Received {word}" in out.decode(), out.decode()
        assert bed.observer.answers[0][7] is bool(signature)


@radclient
@pytest.mark.interop
async def test_radclient_status() -> None:
    async with serving() as bed:
        process = await asyncio.create_subprocess_exec(
            *("radclient", "-x", "-r", "1", "-t", "5", f"127.0.0.1:{bed.port}", "status", SECRET.decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate(b"Message-Authenticator=0x00\n")
        assert "Received Access-Accept" in out.decode(), out.decode()
