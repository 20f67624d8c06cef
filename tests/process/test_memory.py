"""No password stays in the memory of the real process once its login is decided.

Python cannot wipe what it frees, so the process runs with allocators that do: `PYTHONMALLOC=debug` and
`MALLOC_PERTURB_`.  What a scan of its memory finds then is held by something that lives.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import pytest

from tests.backends.authentik.appliance import small
from tests.process.running import Appliance
from tests.process.test_authentik import COMMAND, login, server, until_ready
from tests.process.test_authentik_ldap import INVALID, OK, bind, client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

WIPING = {"PYTHONMALLOC": "debug", "MALLOC_PERTURB_": "165"}


def found(pid: int, needle: bytes) -> list[bytes]:
    """Where the process has these octets in its memory, with those around them."""
    places = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if "r" not in permissions or "[v" in line:
                continue
            start, end = (int(number, 16) for number in span.split("-"))
            try:
                memory.seek(start)
                octets = memory.read(end - start)
            except OSError:
                continue
            places += [octets[max(0, at.start() - 60) : at.end() + 30] for at in re.finditer(re.escape(needle), octets)]
    return places


def may_look(pid: int) -> bool:
    try:
        Path(f"/proc/{pid}/mem").open("rb").close()
    except PermissionError:
        return False
    return True


async def test_decided_logins_leave_no_password_in_memory() -> None:
    canary = f"cAn4ry-{secrets.token_hex(8)}"
    stub = small()
    for number in range(30):
        stub.add_user(f"user-{number}", f"{canary}-{number}")
    stub.add_user("pending", f"{canary}-pending")
    async with stub:
        running = Appliance(COMMAND, server(stub.url, **WIPING))
        try:
            await asyncio.to_thread(running.wait_until_listening)
            await until_ready(running)
            pid = running.process.pid
            if not may_look(pid):
                pytest.skip("only root may look into its memory")
            async with client(running) as plain, client(running, "ldaps") as secure:
                for number in range(10):
                    assert await bind(running, f"user-{number}", f"{canary}-{number}") == OK
                    assert await bind(running, f"user-{number}", f"{canary}-wrong-{number}") == INVALID
                    assert await bind(running, f"user-{number}", f"{canary}-{number}") == OK, "from the cache"
                    assert await secure.bind(f"user-{10 + number}", f"{canary}-{10 + number}") == OK
                    assert await login(running, f"user-{20 + number}", f"{canary}-{20 + number}") == 2
                assert await plain.bind("user-0", f"{canary}-0") == OK
                left = found(pid, canary.encode())
                for _ in range(20):  # what is on its way out of the event loop
                    if not left:
                        break
                    await asyncio.sleep(0.1)
                    left = found(pid, canary.encode())
                assert left == [], "connections that stay open hold nothing either"
            stub.fail("/flows/executor/", "hang")
            waiting = asyncio.create_task(bind(running, "pending", f"{canary}-pending"))
            await stub.until(lambda: stub.in_flight > 0)
            assert found(pid, f"{canary}-pending".encode()), "the scan finds what is there"
            stub.heal()
            await waiting
            assert await asyncio.to_thread(running.stop) == 0
        finally:
            running.end()
