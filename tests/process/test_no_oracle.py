"""Nobody learns from a refusal why it was one: the same octets, the same questions to the server, the same time."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from tests.ldap import encode
from tests.process.running import Appliance, user_dn
from tests.process.test_authentik_ldap import outpost, people
from tests.radius.testbed import login
from tests.stub_authentik.model import NEW, OLD, Application, Release
from tests.stub_authentik.server import Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]
REFUSED = {
    "unknown user": ("nobody", "pw"),
    "unknown user, odd name": ("no\u00f6body*)(", "pw"),
    "wrong password": ("alice", "wrong"),
    "wrong password of one without access": ("bob", "wrong"),
    "deactivated": ("gone", "pw-gone"),
    "deactivated, wrong password": ("gone", "wrong"),
    "wrong password of one with a device": ("erin", "wrong"),
    "wrong password and a code": ("erin", "wrong;123456"),
    "password without the code": ("erin", "pw-erin"),
    "password with a wrong code": ("erin", "pw-erin;999999"),
}
TRIES = 15


def laboratory(release: Release) -> Stub:
    stub = people(release)
    engineering = stub.group_named("engineering")
    assert engineering
    members = frozenset({engineering.pk})
    stub.apps["radius-main"] = Application("radius-main", members)
    stub.add_user("gone", "pw-gone", engineering, is_active=False)
    stub.add_user("erin", "pw-erin", engineering, devices=("totp",), codes={"123456"})
    return stub


async def bind(running: Appliance, user: str, password: str, source: str = "127.0.0.1") -> bytes:
    """All octets of the BindResponse, and that nothing follows it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ports["ldap"], local_addr=(source, 0))
    writer.write(encode.bind(1, user_dn(user.replace("*", "\\2a")), password))
    answer = await reader.readexactly(2)
    answer += await reader.readexactly(answer[1])
    writer.write(encode.unbind(2))
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    return answer


async def access(running: Appliance, user: str, password: str) -> bytes:
    """All octets of the reply to a request whose authenticator and identifier are always the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", running.ports["radius"]))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, login(user, password, secret=b"very-secret"))
        async with asyncio.timeout(10):
            return await loop.sock_recv(sock, 5000)


@pytest.fixture(params=RELEASES)
async def stub(request: pytest.FixtureRequest) -> AsyncIterator[Stub]:
    async with laboratory(request.param) as found:
        yield found


async def test_refusals_are_the_same_octets(stub: Stub) -> None:
    async with outpost(stub) as running:
        answers = {what: await bind(running, *who) for what, who in REFUSED.items()}
        first = answers["unknown user"]
        assert first[5] == 0x61 and first[7:] == b"\x0a\x01\x31\x04\x00\x04\x00", "49, no matchedDN, no text"
        assert answers == dict.fromkeys(REFUSED, first)
        # Who knows the password is told that it is the application that is not for him, as he always was.
        assert (await bind(running, "bob", "pw-bob"))[7:] == b"\x0a\x01\x32\x04\x00\x04\x00"
        for number in range(12):
            await bind(running, "nobody", f"guess-{number}")
            await bind(running, "alice", f"guess-{number}")
        checks = stub.password_checks
        assert await bind(running, "alice", "one-too-many") == await bind(running, "nobody", "one-too-many") == first
        assert stub.password_checks == checks, "both were throttled"

        who = {**REFUSED, "no access": ("bob", "pw-bob")}
        del who["password without the code"]  # is asked for it
        replies = await asyncio.gather(*(access(running, *one) for one in who.values()))
        assert replies[0][0] == 3
        assert set(replies) == {replies[0]}


async def test_a_server_that_pretends_is_asked_the_same_for_everybody() -> None:
    async with laboratory(NEW) as stub, outpost(stub, "--set", "limiter.damp=100ms") as running:
        asked = {}
        for what in ("unknown user", "wrong password", "deactivated", "wrong password of one without access"):
            for attempt in range(2):
                stub.requests.clear()
                await bind(running, *REFUSED[what])
                await stub.until(lambda: stub.in_flight == 0)
                asked[what, attempt] = [one for one in stub.requests if "/api/" in one]
        assert len(asked["unknown user", 0]) == 4
        assert all(found == asked["unknown user", 0] for found in asked.values()), asked


@pytest.mark.slow
async def test_refusals_take_the_same_time() -> None:
    stub = laboratory(NEW)
    stub.flow_delay_s = 0.03
    for number in range(TRIES):
        stub.add_user(f"known-{number}", "pw")
        stub.add_user(f"gone-{number}", "pw", is_active=False)
    async with stub, outpost(stub) as running:
        took: dict[str, list[float]] = {"known": [], "unknown": [], "gone": []}
        for number in range(TRIES):
            for kind, found in took.items():
                started = time.perf_counter()
                await bind(running, f"{kind}-{number}", "pw" if kind == "gone" else "wrong", f"127.0.5.{number + 1}")
                found.append(time.perf_counter() - started)
        medians = [statistics.median(found) for found in took.values()]
        assert max(medians) < 1.5 * min(medians), took
