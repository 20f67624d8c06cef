"""The failures that administrators of other outposts reported, as tests of backend and gate together.

The figures at full length are in `test_acceptance_long.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import pytest

from outpost.backends.authentik.backend import AuthentikBackend
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.identity import (
    Accepted,
    Decision,
    LdapProvider,
    RadiusProvider,
    Rejected,
    RejectReason,
    Secret,
    Source,
    Unavailable,
)
from outpost.radius.clients import ClientTable
from tests.backends.authentik.appliance import BOTH, Ears, ldap, ready, settings, small, until
from tests.backends.authentik.keys import renew
from tests.backends.authentik.test_catalog import with_certificate
from tests.stub_authentik.model import NEW, OLD, Application, Flow, Release, Stage
from tests.stub_authentik.server import Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]
LONG_AGO = "2020-01-01T00:00:00Z"


class Door:
    """A backend behind a gate, as the appliance puts them together, with a clock that can be moved."""

    def __init__(self, stub: Stub, ears: Ears, cache: CacheSettings, **options: Any) -> None:
        self.ahead = 0.0
        self.ears = ears
        self.backend = AuthentikBackend(
            settings(stub, **options), publish=self._publish, set_connected=self._set_connected, observer=ears
        )
        loop = asyncio.get_running_loop()
        self.gate = Gate(self.backend, GateSettings(cache=cache), clock=lambda: loop.time() + self.ahead)

    def _publish(self, revoked: Any) -> None:
        self.ears.revoked.append(revoked)
        self.gate.publish(revoked)

    def _set_connected(self, connected: bool) -> None:
        self.ears.connected.append(connected)
        self.gate.set_connected(connected)

    async def bind(self, username: str, password: str, provider: LdapProvider | None = None) -> Decision:
        wanted = provider or ldap(self.backend)
        return await self.gate.authenticate(wanted, username, Secret(password), Source("ldap", "192.0.2.7"))

    async def remembered(self, username: str, password: str) -> bool:
        """Whether a bind succeeds without a question to the server."""
        found = self.gate.known(ldap(self.backend), username, password.encode(), Source("ldap", "192.0.2.7"))
        return found is not None


@contextlib.asynccontextmanager
async def door(stub: Stub, cache: CacheSettings | None = None, **options: Any) -> AsyncIterator[Door]:
    found = Door(stub, Ears(), cache or CacheSettings(), **options)
    await found.backend.start()
    try:
        await ready(found.backend)
        yield found
    finally:
        await found.gate.stop()
        await found.backend.stop()


def restricted(release: Release = NEW) -> Stub:
    """A server whose LDAP application is for engineers; nobody changed of late."""
    stub = small(Stub(release))
    engineering = stub.group_named("engineering")
    assert engineering
    stub.apps["ldap-main"] = Application("ldap-main", frozenset({engineering.pk}))
    for user in stub.users.values():
        user.password_change_date = user.last_updated = LONG_AGO
    return stub


# -- 1: an old password must die ------------------------------------------------------------------


def change(stub: Stub, what: str) -> None:
    alice, engineering = stub.user_named("alice"), stub.group_named("engineering")
    assert engineering
    match what:
        case "password":
            stub.set_password(alice, "pw-new")
        case "disabled":
            stub.deactivate(alice)
        case "group":
            stub.leave(alice, engineering)
        case "app password":
            alice.app_passwords.clear()


def secret_for(stub: Stub, what: str) -> str:
    """What alice logs in with."""
    if what != "app password":
        return "pw-alice"
    stub.user_named("alice").app_passwords.add("app-password-of-alice")
    return "app-password-of-alice"


WHATS = ["password", "disabled", "group", "app password"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("what", WHATS)
async def test_an_old_login_dies_within_two_seconds(release: Release, what: str) -> None:
    async with restricted(release) as stub, door(stub, watch_interval_s=0.2) as front:
        await until(lambda: front.ears.connected == [True])
        secret = secret_for(stub, what)
        assert isinstance(await front.bind("alice", secret), Accepted)
        assert await front.remembered("alice", secret)
        looked = "/api/v3/core/users/me/" if release.is_legacy else "/api/v3/core/users/N/"
        if what == "app password":
            looked = "/api/v3/core/tokens/"
        start = stub.counts[looked]
        await stub.until(lambda: stub.counts[looked] > start)
        change(stub, what)
        if what == "password":
            assert isinstance(await front.bind("alice", "pw-new"), Accepted)
        async with asyncio.timeout(2.0):
            while await front.remembered("alice", secret):
                await asyncio.sleep(0.02)
        refused = await front.bind("alice", secret)
        assert isinstance(refused, Rejected)
        if what == "group":
            assert refused.reason is RejectReason.ACCESS_DENIED


@pytest.mark.parametrize("what", WHATS)
async def test_with_the_channel_cut_an_old_login_dies_within_its_bound(what: str) -> None:
    cache = CacheSettings(max_age_disconnected_s=30.0)
    async with restricted() as stub, door(stub, cache, watch_interval_s=0) as front:
        await until(lambda: front.ears.connected == [True])
        secret = secret_for(stub, what)
        assert isinstance(await front.bind("alice", secret), Accepted)
        stub.refuses_channel = True
        await stub.cut_channels()
        await until(lambda: front.ears.connected[-1] is False)
        change(stub, what)
        front.ahead += 30.0
        assert isinstance(await front.bind("alice", secret), Rejected)


async def test_an_app_password_whose_end_nobody_shows_dies_with_its_age() -> None:
    cache = CacheSettings(max_age_s=300.0)
    async with restricted() as stub, door(stub, cache, watch_interval_s=0) as front:
        await until(lambda: front.ears.connected == [True])
        alice = stub.user_named("alice")
        alice.app_passwords.add("app-password-of-alice")
        assert isinstance(await front.bind("alice", "app-password-of-alice"), Accepted)
        alice.app_passwords.clear()
        front.ahead += 300.0
        assert isinstance(await front.bind("alice", "app-password-of-alice"), Rejected)


async def test_an_ended_session_takes_the_login_along() -> None:
    async with restricted() as stub, door(stub, watch_interval_s=0) as front:
        await until(lambda: front.ears.connected == [True])
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        await stub.end_sessions(stub.user_named("alice"))
        await until(lambda: front.ears.revoked, 2.0)
        assert not await front.remembered("alice", "pw-alice")


async def test_a_changed_provider_takes_its_logins_along() -> None:
    async with restricted() as stub, door(stub) as front:
        await until(lambda: front.ears.connected == [True])
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        stub.flows["denying"] = Flow("denying", (Stage("identification"), Stage("deny")))
        stub.providers[1].flow = "denying"
        await stub.tell(2)
        await until(lambda: ldap(front.backend).bind_flow_slug == "denying", 2.0)
        assert isinstance(await front.bind("alice", "pw-alice"), Rejected)


# -- 2: a refusal must not stick ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "html"])
async def test_a_failure_of_the_server_does_not_stick(kind: str) -> None:
    async with restricted() as stub, door(stub) as front:
        # A GET on a kept connection that is reset is sent once more by the client library.
        stub.fail("/flows/executor/default-authentication-flow", kind, times=2 if kind == "reset" else 1)
        assert isinstance(await front.bind("alice", "pw-alice"), Unavailable)
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


async def test_a_refusal_does_not_stick() -> None:
    async with restricted() as stub, door(stub) as front:
        alice = stub.user_named("alice")
        alice.is_active = False
        assert isinstance(await front.bind("alice", "pw-alice"), Rejected)
        alice.is_active = True
        front.ahead += 10.0  # past the damper's pause
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


async def test_good_bad_good() -> None:
    async with restricted() as stub, door(stub) as front:
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        assert isinstance(await front.bind("alice", "wrong"), Rejected)
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


@pytest.mark.parametrize("path", ["/check_access/", "/users/me/"])
@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "html"])
async def test_no_failure_on_the_way_is_a_success(path: str, kind: str) -> None:
    async with restricted() as stub, door(stub) as front:
        stub.fail(path, kind)
        for _ in range(2):
            assert not isinstance(await front.bind("alice", "pw-alice"), Accepted)
        stub.heal()
        front.ahead += 10.0
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


# -- 4: recovery ----------------------------------------------------------------------------------


async def test_after_an_outage_binds_people_and_changes_work_again() -> None:
    async with restricted() as stub, door(stub) as front:
        await until(lambda: front.ears.connected == [True])
        await stub.stop()
        await until(lambda: front.backend.readiness()["ldap"], 5.0)
        assert isinstance(await front.bind("alice", "pw-alice"), Unavailable)
        stub.providers[1].fields["base_dn"] = "dc=changed"
        await stub.start()
        async with asyncio.timeout(5.0):
            await ready(front.backend)
            await until(lambda: ldap(front.backend).base_dn == "dc=changed")
            assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
            await until(lambda: front.ears.connected[-1])


# -- slow and hung servers ------------------------------------------------------------------------


async def test_logins_at_a_hung_server_end_at_their_deadline_and_leave_nothing() -> None:
    async with restricted() as stub, door(stub, login_timeout_s=0.5) as front:
        for i in range(5):
            stub.users[stub.user_named(f"user{i}").pk].groups.append(stub.group_named("engineering").pk)  # type: ignore[union-attr]
        stub.fail("/flows/executor/default-authentication-flow", "hang")
        binds = (front.bind(f"user{i % 5}", f"pw-{i}") for i in range(40))
        decisions = await asyncio.gather(*binds)
        assert all(isinstance(decision, Unavailable) for decision in decisions)
        stub.heal()
        await until(lambda: front.gate.gauges()["logins_pending"] == 0)
        await stub.until(lambda: stub.in_flight == 0)
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)


async def test_cold_logins_at_a_slow_server_hold_up_no_warm_one() -> None:
    async with restricted() as stub, door(stub) as front:
        await until(lambda: front.ears.connected == [True])
        assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        stub.flow_delay_s = 0.2
        cold = [asyncio.create_task(front.bind("bob", f"wrong-{i}")) for i in range(20)]
        await stub.until(lambda: stub.in_flight > 0)
        asked = stub.counts["/api/v3/flows/executor/default-authentication-flow/"]
        for _ in range(50):
            assert isinstance(await front.bind("alice", "pw-alice"), Accepted)
        assert not all(task.done() for task in cold)
        assert asked <= 20
        for task in cold:
            task.cancel()
        await asyncio.gather(*cold, return_exceptions=True)


# -- 7: the right provider ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wide", "narrow", "inside", "outside"),
    [
        ("192.168.128.0/24", "192.168.128.254/32", "192.168.128.254", "192.168.128.7"),
        ("2001:db8::/64", "2001:db8::fe/128", "2001:db8::fe", "2001:db8::7"),
    ],
)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
async def test_the_longest_network_decides_and_each_provider_has_its_own_policy(
    wide: str, narrow: str, inside: str, outside: str, order: tuple[str, str]
) -> None:
    stub = Stub()
    vpn = stub.add_group("vpn")
    stub.add_user("alice", "pw-alice", vpn)
    stub.add_user("bob", "pw-bob")
    stub.add_outpost("ldap")
    outpost = stub.add_outpost("radius")
    networks = {"a": wide, "b": narrow}
    for name in order:
        members = [vpn] if name == "b" else None
        stub.add_provider(
            outpost, f"{name}-{order.index(name)}", name, groups=members, client_networks=networks[name],
            shared_secret="the-same-secret",
        )  # fmt: skip
    async with stub, door(stub, tokens={"radius": BOTH["radius"]}) as found:
        table = ClientTable(found.backend.served().radius)

        def provider(address: str) -> RadiusProvider:
            peer = table.find(ipaddress.ip_address(address).packed)
            assert peer is not None
            return peer.client.provider

        assert provider(inside).application_slug == "b"
        assert provider(outside).application_slug == "a"
        source = Source("radius", inside)
        for address, expected in ((outside, Accepted), (inside, Rejected), (outside, Accepted), (inside, Rejected)):
            decision = await found.gate.authenticate(provider(address), "bob", Secret("pw-bob"), source)
            assert isinstance(decision, expected), "a remembered login of one provider is none of the other"
            found.ahead += 10.0


# -- 8: certificates ------------------------------------------------------------------------------


async def test_a_rotated_certificate_is_served_within_two_seconds() -> None:
    stub = small()
    pair = with_certificate(stub)
    async with stub, door(stub) as front:
        await until(lambda: front.ears.connected == [True])
        for _ in range(5):
            renew(pair)
            for _ in range(2):  # the server says it twice
                await stub.tell(2)
            await until(
                lambda: front.backend.served().certificates[pair.pk].certificate_chain == pair.certificate.encode(), 2.0
            )
        assert ldap(front.backend).certificate == pair.pk
