"""A server that comes back at another address: its name resolves to something else, and the old place says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.running import Appliance, user_dn
from tests.process.test_authentik import COMMAND, hearing, login, server
from tests.process.test_authentik_ldap import OK, UNAVAILABLE, bind, client, eventually, people
from tests.stub_authentik.network import swallow
from tests.stub_authentik.server import Stub

NAME = "authentik.test"
OLD_PLACE, NEW_PLACE = "127.0.0.2", "127.0.0.3"
RECOVERY_S = 5.0
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
BELIEVE = 'mount --bind "$0" /etc/hosts && exec "$@"'
"""Runs a command for which a file of ours is the hosts file."""


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    found = tmp_path / "hosts"
    point(found, OLD_PLACE)
    resolved = ["sh", "-c", BELIEVE, str(found), "getent", "hosts", NAME]
    with contextlib.suppress(FileNotFoundError):
        if OLD_PLACE in subprocess.run([*NAMESPACE, *resolved], capture_output=True, text=True, check=False).stdout:
            return found
    pytest.skip("no mount namespace may be made here")


def point(hosts: Path, address: str) -> None:
    """Whoever asks for the server's name from now on is told this address."""
    hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")


def outpost(stub: Stub, hosts: Path) -> contextlib.AbstractAsyncContextManager[Appliance]:
    """Started while the name leads to the old place, and ready."""
    command = [*NAMESPACE, "sh", "-c", BELIEVE, str(hosts), *COMMAND, "--set", "log.level=info"]
    return hearing(stub, command, server(f"http://{NAME}:{stub.port}"))


@contextlib.contextmanager
def void(address: str, port: int) -> Iterator[None]:
    """Somewhere that no connection to comes about, nor is it refused."""
    with socket.create_server((address, port)) as listener:
        swallow(listener)
        yield


async def ready(running: Appliance) -> bool:
    return (await asyncio.to_thread(running.get, "/-/ready"))[0] == 200


async def moved(stub: Stub, hosts: Path, running: Appliance) -> None:
    """The server is at the new place, with somebody and something new: all of it is there within the time allowed."""
    engineering = stub.group_named("engineering")
    assert engineering
    stub.add_user("late", "pw-late", engineering, can_search=True)
    stub.add_provider(stub.outposts["stub-ldap-token"], "second", "ldap-main", base_dn="dc=second")
    stub.hellos.clear()
    stub.address = NEW_PLACE
    await stub.start()
    point(hosts, NEW_PLACE)

    async def is_whole() -> bool:
        if await bind(running, "late", "pw-late") != OK or len(stub.hellos) < 2 or not await ready(running):
            return False
        async with client(running) as one:
            await one.bind("late", "pw-late")
            found = await one.search("(objectClass=user)")
        return isinstance(found, list) and user_dn("late") in found and "second" in running.said

    await eventually(is_whole, RECOVERY_S)
    stub.providers[1].fields["base_dn"] = "dc=changed"
    await stub.tell(2)

    async def is_changed() -> bool:
        async with client(running) as one:
            await one.bind("late", "pw-late")
            return await one.search("(cn=late)", "dc=changed") != 32

    await eventually(is_changed, 2.0)
    assert await login(running, "bob", "pw-bob") == 2


LENGTHS = [4.0, pytest.param(600.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("outage_s", LENGTHS)
async def test_after_an_outage_it_is_found_at_its_new_address(hosts: Path, outage_s: float) -> None:
    """The channel is closed with 1012, then connections run out of time, then the name leads elsewhere."""
    stub = people()
    stub.address = OLD_PLACE
    async with stub, outpost(stub, hosts) as running:
        assert await bind(running, "alice", "pw-alice") == OK
        await stub.stop()
        with void(OLD_PLACE, stub.port):

            async def is_red() -> bool:
                return not await ready(running)

            await eventually(is_red, 10.0)
            assert await bind(running, "bob", "pw-bob") == UNAVAILABLE
            async with client(running) as one:
                assert await one.bind("alice", "pw-alice") == OK, "remembered"
                found = await one.search("(objectClass=user)")
                assert isinstance(found, list) and len(found) == len(stub.users)
            await asyncio.sleep(outage_s)
            await moved(stub, hosts, running)


async def test_connections_to_where_it_was_do_not_hold_up_anybody(hosts: Path) -> None:
    """It goes without a word, pooled connections and event channel included, and is elsewhere at once."""
    stub = people()
    stub.address = OLD_PLACE
    async with stub, outpost(stub, hosts) as running:
        assert await bind(running, "alice", "pw-alice") == OK
        assert await login(running, "bob", "pw-bob") == 2
        await asyncio.sleep(0.3)  # all that it sent is acknowledged: the kernel of who is gone would not send it again
        stub.vanish()
        await moved(stub, hosts, running)
