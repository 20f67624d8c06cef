import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import outpost
from outpost.processes import child, memory, message
from outpost.processes.child import Child

ROOT = str(Path(outpost.__file__).parent.parent)
ECHO = "tests.processes.echo"


@pytest.fixture
async def echo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Child]:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("AUTHENTIK_TOKEN", "token-that-must-not-travel")
    monkeypatch.setenv("OUTPOST_DIRECTORY", "/nowhere")
    started = await child.start(ECHO)
    started.socket.settimeout(20)
    try:
        yield started
    finally:
        started.socket.close()
        if started.process.returncode is None:
            started.process.kill()
        await started.process.wait()


async def ask(sock: socket.socket, body: bytes, *descriptors: int) -> message.Message:
    message.send(sock, body, descriptors)
    found = await asyncio.to_thread(message.receive, sock)
    assert found is not None
    return found


async def test_it_answers_with_what_it_was_sent(echo: Child) -> None:
    kept = memory.sealed(b"shared")
    found = await ask(echo.socket, bytes(1_000_000), kept)
    os.close(kept)
    assert found.body == bytes(1_000_000)
    with memory.mapped(found.descriptors[0]) as octets:
        assert octets[:] == b"shared"
    found.close()
    message.send(echo.socket, b"exit")
    assert await echo.process.wait() == 3


async def test_no_setting_is_in_its_environment_or_arguments(echo: Child) -> None:
    environment = (await ask(echo.socket, b"environment")).body.decode()
    assert "AUTHENTIK" not in environment and "OUTPOST_" not in environment and "must-not-travel" not in environment
    arguments = (await ask(echo.socket, b"arguments")).body.decode().split("\0")
    assert arguments[-3:-1] == ["-m", ECHO] and arguments[-1].isdigit() and "-P" in arguments


async def test_it_ends_when_the_channel_does(echo: Child) -> None:
    await ask(echo.socket, b"up?")
    echo.socket.close()
    assert await echo.process.wait() == 0


async def test_it_dies_with_its_parent_whatever_it_does() -> None:
    program = textwrap.dedent(f"""
        import asyncio, os, signal, sys
        from outpost.processes import child, message
        async def main():
            started = await child.start({ECHO!r})
            message.send(started.socket, b"up?")
            message.receive(started.socket)
            message.send(started.socket, b"sleep")
            # A second owner of our end: its closing is not what ends the child.
            os.set_inheritable(started.socket.fileno(), True)
            print(started.process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    pid = int(ran.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, "it outlived its parent"
        await asyncio.sleep(0.02)


def test_the_package_is_found_where_it_was_found_here(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"PATH": "/bin", "AUTHENTIK_HOST": "x", "OUTPOST_CONFIG": "y", "GIT_BUILD_HASH": "z"}
    monkeypatch.setattr(sys, "path", ["/somewhere/bin", ROOT])
    assert child.environment(given) == {"PATH": "/bin"}
    monkeypatch.setattr(sys, "path", [ROOT])
    assert child.environment(given) == {"PATH": "/bin", "PYTHONPATH": ROOT}
    assert child.environment({"PYTHONPATH": "/more"}) == {"PYTHONPATH": f"{ROOT}:/more"}
