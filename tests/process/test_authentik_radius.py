"""RADIUS devices at the real process, served as a server made for tests says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from pyrad.client import Timeout
from pyrad.packet import AccessAccept, AccessReject

from outpost.radius.packet import encode_attribute
from tests import oracle_radius as oracle
from tests.backends.authentik.appliance import small
from tests.process.radius_client import answer_code
from tests.process.running import Appliance
from tests.process.test_authentik import COMMAND, SECRET, ask, hearing, request, server
from tests.process.test_authentik_ldap import eventually
from tests.stub_authentik.model import NEW, OLD, Release
from tests.stub_authentik.server import NO_ATTRIBUTES, Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]


def outpost(stub: Stub) -> contextlib.AbstractAsyncContextManager[Appliance]:
    return hearing(stub, COMMAND, server(stub.url))


@contextlib.contextmanager
def device(running: Appliance) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", running.ports["radius"]))
        sock.settimeout(10)
        yield sock


async def login(running: Appliance, password: str, secret: str, patience_s: float = 0.3) -> int:
    """The code of the reply, 0 when there is none."""
    try:
        return await asyncio.to_thread(answer_code, running.ports["radius"], "bob", password, secret, patience_s)
    except Timeout:
        return 0


@pytest.mark.parametrize("release", RELEASES)
async def test_secret_networks_and_provider_are_the_servers_from_one_moment_to_the_next(release: Release) -> None:
    async with small(Stub(release)) as stub, outpost(stub) as running:
        provider = stub.providers[2]

        async def becomes(answers: dict[str, int]) -> None:
            await stub.tell(2, service="radius")

            async def is_so() -> bool:
                return {secret: await login(running, "pw-bob", secret) for secret in answers} == answers

            await eventually(is_so, 5.0)

        assert await login(running, "pw-bob", "very-secret", 10.0) == AccessAccept
        provider.fields["shared_secret"] = "another-secret"
        await becomes({"very-secret": 0, "another-secret": AccessAccept})
        assert await login(running, "wrong", "another-secret", 10.0) == AccessReject
        provider.fields["client_networks"] = "192.0.2.0/24"
        await becomes({"another-secret": 0})
        provider.fields["client_networks"] = "192.0.2.0/24, 127.0.0.1/32"
        await becomes({"another-secret": AccessAccept})
        app, provider.app = provider.app, ""
        await becomes({"another-secret": 0})
        provider.app = app
        await becomes({"another-secret": AccessAccept})


async def test_what_property_mappings_made_is_in_the_reply() -> None:
    stub = small()
    made = encode_attribute(18, b"welcome") + encode_attribute(25, b"staff") + encode_attribute(25, b"wifi")
    stub.providers[2].attributes = NO_ATTRIBUTES[:2] + (20 + len(made)).to_bytes(2, "big") + bytes(16) + made
    async with stub, outpost(stub) as running:
        with device(running) as sock:
            for identifier in (1, 2):  # decided by the server, and remembered
                reply = await asyncio.to_thread(ask, sock, request("bob", "pw-bob", identifier=identifier))
                assert reply[0] == AccessAccept
                found = oracle.attributes(reply) or []
                assert [value for kind, value in found if kind == 18] == [b"welcome"]
                assert {b"staff", b"wifi"} <= {value for kind, value in found if kind == 25}
            assert stub.logins == 1
    assert SECRET.decode() not in running.said
