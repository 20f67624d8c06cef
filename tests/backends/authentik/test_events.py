"""The event channel: hellos, reconnects, and that nothing ever holds its reader up."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from outpost.backends.authentik import events
from outpost.backends.authentik.client import Client, Pools
from outpost.backends.authentik.events import EventChannel, Listeners
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.identity import Revoked, Secret
from tests.backends.authentik.appliance import BOTH, Ears, ldap, ready, running, small, until
from tests.stub_authentik.server import LDAP_TOKEN, Stub


async def test_a_hello_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.HELLO_EVERY_S == 10.0, "the server's memory of an instance lasts 15 s"
    monkeypatch.setattr(events, "HELLO_EVERY_S", 0.05)
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await stub.until(lambda: len(stub.hellos) >= 5)
        assert len({hello["uuid"] for hello in stub.hellos}) == 1
        assert len(stub.handshakes) == 1
        assert ears.connected == [True]


async def test_an_event_is_heard_while_everything_is_read_and_nothing_answers() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, watch_interval_s=0) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        stub.fail("/api/v3/(outposts|core)/", "hang")
        asked = len(stub.requests)
        await stub.tell(2)
        await stub.until(lambda: len(stub.requests) > asked)
        await stub.tell(4, {"session_id": "gone"})
        await until(lambda: Revoked(session="gone") in ears.revoked, 1.0)
        assert stub.in_flight > 0, "the refresh is still at it"


async def test_many_events_are_one_refresh() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        await stub.until(lambda: stub.in_flight == 0)
        before = stub.counts["/api/v3/outposts/instances/"]
        stub.providers[1].fields["base_dn"] = "dc=changed"
        for _ in range(50):
            await stub.tell(2)
        await until(lambda: ldap(backend).base_dn == "dc=changed", 2.0)
        await asyncio.sleep(0.3)
        assert stub.counts["/api/v3/outposts/instances/"] - before <= 3


async def test_each_outpost_hears_its_own_events() -> None:
    ears = Ears()
    async with small() as stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        await stub.until(lambda: len(stub.hellos) >= 2)
        await until(lambda: ears.connected == [True])
        asked = list(stub.requests)
        stub.providers[2].fields["mfa_support"] = False
        await stub.tell(2, service="radius")
        await until(lambda: not backend.served().radius[0].mfa_support, 2.0)
        fresh = list(stub.requests)[len(asked) :]
        assert any("/outposts/radius/" in one for one in fresh)
        assert not any("/outposts/ldap/?" in one for one in fresh)


class Waits(EventChannel):
    """A channel whose pauses are noted instead of waited for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.waited: list[float] = []
        self.limit = 12

    async def _pause(self, seconds: float) -> None:
        self.waited.append(seconds)
        if len(self.waited) >= self.limit:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def channel_of(stub: Stub, pools: Pools, settings: AuthentikSettings) -> Waits:
    listeners = Listeners(lambda: None, lambda _: None, lambda _: None)
    client = Client(pools.rest, Secret(LDAP_TOKEN), settings, "1")
    pk = next(iter(stub.outposts.values())).pk
    return Waits(pools.rest, client, lambda: pk, "instance", listeners, Ears(), "ldap")


async def test_reconnects_wait_from_one_to_thirty_seconds_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = small()
    stub.refuses_channel = True
    async with stub:
        settings = AuthentikSettings(stub.url, {"ldap": Secret(LDAP_TOKEN)})
        async with Pools(settings) as pools:
            channel = await channel_of(stub, pools, settings)
            task = asyncio.create_task(channel.run())
            await until(lambda: len(channel.waited) >= channel.limit)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for i, waited in enumerate(channel.waited):
        longest = min(30.0, 2.0 ** (i + 1))
        assert longest / 2 <= waited <= longest
    assert max(channel.waited) <= 30.0
    assert len(set(channel.waited)) == len(channel.waited)
    attempts = [int(shake.query["attempt"]) for shake in stub.handshakes]
    assert attempts == list(range(channel.limit))
    assert {shake.query["instance_uuid"] for shake in stub.handshakes} == {"instance"}


async def test_a_channel_that_was_up_is_sought_again_at_once() -> None:
    async with small() as stub:
        settings = AuthentikSettings(stub.url, {"ldap": Secret(LDAP_TOKEN)})
        async with Pools(settings) as pools:
            channel = await channel_of(stub, pools, settings)
            task = asyncio.create_task(channel.run())
            for round_ in itertools.count(1):
                await until(lambda: channel.is_connected)
                await stub.cut_channels()
                await until(lambda round_=round_: len(channel.waited) >= round_)  # type: ignore[misc]
                if round_ == 5:
                    break
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert all(0.5 <= waited <= 1.0 for waited in channel.waited)


async def test_a_server_that_is_back_is_not_waited_for() -> None:
    """The channel waits up to 30 s, but a catalog that could be read again says that the server is there."""
    ears = Ears()
    async with small() as stub, running(stub, ears) as backend:
        await ready(backend)
        await until(lambda: ears.connected == [True])
        channel = backend._services[0].channel
        assert channel is not None
        pauses: list[float] = []
        pause = channel._pause

        async def long_pause(seconds: float) -> None:
            pauses.append(seconds)
            await pause(1000.0)

        channel._pause = long_pause  # type: ignore[method-assign]
        await stub.stop()
        await until(lambda: backend.readiness()["ldap"] and pauses)
        await stub.start()
        await until(lambda: ears.connected[-1] is True, 5.0)
