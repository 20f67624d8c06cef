"""Changes of passwords at the stub server: known good, and everything after which nothing may be called changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from outpost.backends.authentik.address import Address
from outpost.backends.authentik.backend import AuthentikBackend
from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import Bucket, LimiterSettings
from outpost.identity import (
    Accepted,
    Changed,
    PasswordDecision,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Unavailable,
    UnavailableReason,
    Unwilling,
)
from tests.backends.authentik.appliance import SOURCE, Ears, accepted, bind, ldap, ready, running, small, until
from tests.stub_authentik.model import FUTURE, NEW, OLD, Flow, Release, Stage
from tests.stub_authentik.server import Stub

RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW, FUTURE)]
BOUND, NEWER = "pw-alice", "a-newer-password"
SETTINGS, CONFIGURE, EXECUTOR = "user_settings", "/flows/-/configure/", "/flows/executor/default-password-change/"

SHORT = {"watch_interval_s": 60, "login_timeout_s": 0.4, "end_sessions": False}


def quiet(stub: Stub | None = None) -> Stub:
    """A server where nobody changed of late: what is revoked is the change's doing."""
    found = small(stub)
    for user in found.users.values():
        user.password_change_date = user.last_updated = "2020-01-01T00:00:00Z"
    return found


async def change(
    backend: AuthentikBackend, old: str = BOUND, new: str | bytes = NEWER, user: str = "alice"
) -> PasswordDecision:
    identity = (await accepted(backend, user, f"pw-{user}")).identity
    return await backend.change_password(ldap(backend), identity, Secret(old), Secret(new), SOURCE)


def said(decision: PasswordDecision) -> str:
    assert isinstance(decision, Unwilling), decision
    assert NEWER not in decision.detail and BOUND not in decision.detail
    return decision.detail


def untouched(stub: Stub) -> bool:
    return stub.user_named("alice").password == BOUND


def form(*fields: tuple[str, str, bool]) -> Flow:
    return Flow("default-password-change", (Stage("prompt", fields=fields), Stage("write")))


# -- known good ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/sub/path"])
@pytest.mark.parametrize("release", RELEASES)
async def test_the_server_changes_it_and_it_is_proved(release: Release, prefix: str) -> None:
    ears = Ears()
    async with quiet(Stub(release, prefix=prefix)) as stub, running(stub, ears, watch_interval_s=60) as backend:
        await ready(backend)
        assert backend.can_change_passwords()
        logins = stub.logins
        assert await change(backend) == Changed()
        assert stub.logins == logins + 3, "as whoever asked, with the old one, with the new one"
        alice = stub.user_named("alice")
        assert Revoked(user_pk=alice.pk) in ears.revoked
        assert isinstance(await bind(backend, "alice", BOUND), Rejected)
        await accepted(backend, "alice", NEWER)
        await until(lambda: stub.logouts >= 2)
        assert ears.said(NEWER) == ears.said(BOUND) == 0
        assert ears.said("the password of 'alice' was changed by 192.0.2.7") == 1


async def test_a_gateway_may_hide_the_sub_path() -> None:
    address = Address.parse("https://sso.example.com/sub")
    page = "/flows/-/configure/6f7ad5ce-23c3-4d3e-b7a3-0b4c6f7fd0aa/"
    for path in (page, "/sub" + page, "https://sso.example.com/sub" + page, "https://sso.example.com" + page):
        assert str(address.configuration(path)) == "https://sso.example.com/sub" + page
    for location in ("/if/flow/change/", "/sub/if/flow/change/?a=b", "https://sso.example.com/sub/if/flow/change/"):
        assert address.flow_shown(location) == "change"
    for location in (
        "",
        "/",
        "/if/flow/",
        "/if/flow/a/b/",
        "/flows/-/default/authentication/?next=/if/flow/x/",
        "//[x",
    ):
        assert address.flow_shown(location) is None


async def test_fields_that_nobody_fills_in_are_no_hindrance() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        stub.flows["default-password-change"] = form(
            ("about", "static", True), ("token", "hidden", True), ("nickname", "text", False),
            ("password", "password", True),
        )  # fmt: skip
        assert await change(backend) == Changed()


async def test_a_code_rides_on_the_old_password() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        alice = stub.user_named("alice")
        alice.devices, alice.codes = ("totp",), {"123456"}
        decision = await backend.change_password(ldap(backend), identity, Secret(BOUND), Secret(NEWER), SOURCE)
        assert "one-time code" in said(decision) and untouched(stub)
        old = Secret(f"{BOUND};123456")
        assert await backend.change_password(ldap(backend), identity, old, Secret(NEWER), SOURCE) == Changed()
        assert alice.password == NEWER


async def test_with_a_code_the_new_password_is_proved_all_the_same() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        alice = stub.user_named("alice")
        alice.devices, alice.codes, stub.writes_passwords = ("totp",), {"123456"}, False
        old = Secret(f"{BOUND};123456")
        decision = await backend.change_password(ldap(backend), identity, old, Secret(NEWER), SOURCE)
        assert "logs nobody in" in said(decision) and untouched(stub)


# -- must refuse ---------------------------------------------------------------------------------------


async def test_where_no_way_is_offered_that_is_said_and_no_more_advertised() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        stub.change_flow = ""
        assert "no way" in said(await change(backend))
        assert not backend.can_change_passwords()
        stub.change_flow = "default-password-change"
        assert await change(backend) == Changed()
        assert backend.can_change_passwords()


async def test_the_policy_says_what_it_wants() -> None:
    ears = Ears()
    async with quiet() as stub, running(stub, ears, watch_interval_s=60) as backend:
        await ready(backend)
        decision = await change(backend, new="short")
        assert said(decision).endswith("Password needs to be 8 characters or longer.") and untouched(stub)
        assert not ears.revoked, "nothing was changed"
        stub.policy_message = "SHORT is too short"
        assert said(await change(backend, new="short")) == "the server refuses the new password"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/flows/-/configure/6f7ad5ce-23c3-4d3e-b7a3-0b4c6f7fd0aa/",
        "//127.0.0.1:1/flows/-/configure/6f7ad5ce-23c3-4d3e-b7a3-0b4c6f7fd0aa/",
        "/flows/-/configure/../../api/v3/core/users/me/",
        "/flows/-/configure/6f7ad5ce/?next=/",
        "/if/flow/default-password-change/",
        "@127.0.0.1:1/flows/-/configure/6f7ad5ce-23c3-4d3e-b7a3-0b4c6f7fd0aa/",
    ],
)
async def test_another_host_or_page_is_not_asked(url: str) -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        stub.configure_url = url
        assert "none of its own" in said(await change(backend))
        assert untouched(stub) and not any(CONFIGURE in one for one in stub.requests)


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [
        (form(("password", "password", True), ("pin", "number", True)), "asks for 'pin'"),
        (form(("password", "password", True), ("attributes.wifi", "password", True)), "asks for 'attributes.wifi'"),
        (form(("nickname", "text", False)), "without asking for a new password"),
        (Flow("default-password-change"), "without asking for a new password"),
        (Flow("default-password-change", (Stage("consent"),)), "consent"),
        (Flow("default-password-change", (Stage("dummy"),)), "dummy"),
        (Flow("default-password-change", denied="Not today"), "denies the change: Not today"),
    ],
)
async def test_flows_that_cannot_be_gone_through(flow: Flow, sentence: str) -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        stub.flows["default-password-change"] = flow
        assert sentence in said(await change(backend)) and untouched(stub)


async def test_a_flow_without_an_end_is_left() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        prompt = Stage("prompt", fields=(("password", "password", True),))
        stub.flows["default-password-change"] = Flow("default-password-change", (prompt,) * 50)
        assert "does not end" in said(await change(backend))
        assert sum(one.startswith("POST") and EXECUTOR in one for one in stub.requests) == 1
        stages = tuple(Stage("prompt", fields=((f"p{i}", "password", True),)) for i in range(50))
        stub.flows["default-password-change"] = Flow("default-password-change", stages)
        assert "does not end" in said(await change(backend))
        assert sum(one.startswith("POST") and EXECUTOR in one for one in stub.requests) == 6


@pytest.mark.parametrize(
    "new", ["", "with-code;123456", "x" * 1025, b"\xff\xfe-no-text"], ids=["empty", "code", "long", "octets"]
)
async def test_passwords_that_could_not_be_logged_in_with(new: str | bytes) -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        assert isinstance(await change(backend, new=new), Unwilling)
        assert untouched(stub) and not any(SETTINGS in one for one in stub.requests)


async def test_the_end_of_the_flow_is_no_proof() -> None:
    ears = Ears()
    async with quiet() as stub, running(stub, ears, watch_interval_s=60) as backend:
        await ready(backend)
        stub.writes_passwords = False
        assert "logs nobody in" in said(await change(backend))
        assert stub.user_named("alice").pk in ears.users(), "nobody knows, so everything is proved anew"


async def test_nobody_changes_anothers() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        other = replace(identity, user_pk=stub.user_named("bob").pk)
        decision = await backend.change_password(ldap(backend), other, Secret(BOUND), Secret(NEWER), SOURCE)
        assert "another user" in said(decision) and untouched(stub)


async def test_a_wrong_old_password_is_a_refusal_that_counts() -> None:
    async with quiet() as stub, running(stub) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        limits = LimiterSettings(pair=Bucket(burst=3, refill_per_s=0.001))
        gate = Gate(backend, GateSettings(limiter=limits), passwords=backend)
        reasons = []
        for i in range(4):
            wrong = Secret(f"wrong-{i}")
            decision = await gate.change_password(ldap(backend), identity, wrong, Secret(NEWER), SOURCE)
            assert isinstance(decision, Rejected)
            reasons.append(decision.reason)
        assert reasons == [RejectReason.INVALID_CREDENTIALS] * 3 + [RejectReason.THROTTLED]
        assert untouched(stub) and not any(SETTINGS in one for one in stub.requests)
        await gate.stop()


@pytest.mark.parametrize("kind", ["status", "reset", "hang", "html", "truncate"])
@pytest.mark.parametrize(
    ("pattern", "skip"),
    [
        ("executor/default-authentication-flow", 1),
        (SETTINGS, 0),
        (CONFIGURE, 0),
        (EXECUTOR, 0),
        (EXECUTOR, 1),
        (EXECUTOR, 2),
        ("executor/default-authentication-flow", 7),
    ],
    ids=["old", "settings", "configure", "form", "answer", "end", "proof"],
)
async def test_trouble_at_any_request_is_no_change(pattern: str, skip: int, kind: str) -> None:
    ears = Ears()
    async with quiet() as stub, running(stub, ears, **SHORT) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        fault = stub.fail(pattern, kind, skip=skip)
        decision = await backend.change_password(ldap(backend), identity, Secret(BOUND), Secret(NEWER), SOURCE)
        assert fault.hits
        assert isinstance(decision, Unavailable | Unwilling), decision
        if kind == "hang":
            assert isinstance(decision, Unavailable) and decision.reason is UnavailableReason.BACKEND_TIMEOUT
        posted = any(one.startswith("POST") and EXECUTOR in one for one in stub.requests)
        assert (identity.user_pk in ears.users()) is posted, "what may have changed is forgotten"
        assert not ears.said(NEWER) and NEWER not in decision.detail


async def test_whoever_goes_away_in_the_middle_leaves_nothing_believed() -> None:
    ears = Ears()
    async with quiet() as stub, running(stub, ears, watch_interval_s=60) as backend:
        await ready(backend)
        identity = (await accepted(backend, "alice", BOUND)).identity
        stub.fail(EXECUTOR, "hang", skip=1)
        asked = backend.change_password(ldap(backend), identity, Secret(BOUND), Secret(NEWER), SOURCE)
        task = asyncio.create_task(asked)
        await stub.until(lambda: any(one.startswith("POST") and EXECUTOR in one for one in stub.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert identity.user_pk in ears.users()
        stub.heal()


async def test_before_the_server_is_reached() -> None:
    stub = quiet()
    async with running(stub, host="http://127.0.0.1:1") as backend:
        assert not backend.can_change_passwords()
    async with stub, running(stub) as other:
        await ready(other)
        provider = ldap(other)
        identity = (await accepted(other, "alice", BOUND)).identity
    decision = await backend.change_password(provider, identity, Secret(BOUND), Secret(NEWER), SOURCE)
    assert not isinstance(decision, Changed | Accepted) and untouched(stub)
