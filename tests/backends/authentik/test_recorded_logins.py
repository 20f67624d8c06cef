"""Every login that was recorded at a real server leads to the decision that the recording shows."""

from __future__ import annotations

from typing import Any

import pytest

from outpost.identity import Accepted, Decision, LdapProvider, Rejected, RejectReason, Unavailable, UnavailableReason
from tests.backends.authentik.replay import Bench, Player, logins, provider_of, secret_of, source_of
from tests.stub_authentik import lab

LOGINS = [pytest.param(version, name, id=f"{version}-{name}") for version in lab.versions() for name in logins(version)]
CODE = RejectReason.CODE_INVALID
REASONS = {
    "31-bind-empty-password": RejectReason.EMPTY_PASSWORD,
    "34-embedded-empty-password": RejectReason.EMPTY_PASSWORD,
    "32-mfa-no-code": RejectReason.CODE_REQUIRED,
    "33-mfa-threshold-2nd-new-client": RejectReason.CODE_REQUIRED,
    "32-mfa-static-reuse": CODE,
    "32-mfa-totp-reuse": CODE,
    "32-mfa-wrong-code": CODE,
    "32-mfa-ok-static-right-after-wrong": CODE,  # throttled in 2023.6, accepted later
    "33-mfa-configure-not-configured": RejectReason.FLOW_ERROR,
    "33-mfa-deny-not-configured": RejectReason.FLOW_ERROR,
    "33-mfa-webauthn-only": RejectReason.FLOW_ERROR,
    "35-deny-stage": RejectReason.FLOW_ERROR,
    "35-flow-consent": RejectReason.FLOW_ERROR,
    "35-flow-denied-by-policy": RejectReason.FLOW_ERROR,
    "35-flow-dummy-stage": RejectReason.FLOW_ERROR,
    "35-flow-empty": RejectReason.FLOW_ERROR,
    "35-flow-require-authenticated": RejectReason.FLOW_ERROR,
    "35-flow-without-login-stage": RejectReason.FLOW_ERROR,
    "35-login-then-deny": RejectReason.FLOW_ERROR,
    "34-embedded-access-denied": RejectReason.ACCESS_DENIED,
    "34-embedded-upn": RejectReason.ACCESS_DENIED,
    "40-radius-denied": RejectReason.ACCESS_DENIED,
    "40-radius-unknown-app": RejectReason.ACCESS_CHECK_FAIL,
}
"""Where it is not plainly the credentials."""


def is_login(record: dict[str, Any]) -> bool:
    """Whether the server logged somebody in, by its own words: flow, access and (if asked) users/me."""
    outcome = record["outcome"]
    if outcome["flow_passed"] is not True or outcome["access_status"] != 200 or outcome.get("me_status", 200) != 200:
        return False
    access = outcome["access"].get("access", outcome["access"])
    return access["passing"] is True


async def replay(version: str, name: str, *, is_legacy: bool | None) -> tuple[Decision, Player]:
    record = lab.recording(version, name)
    provider = provider_of(version, record)
    source = source_of(provider)
    async with Player(version, record) as player, Bench(player.url, source.service, is_legacy=is_legacy) as bench:
        username = record["answers"]["ident"]
        decision = await bench.authority.authenticate(provider, username, secret_of(record), source)
    return decision, player


@pytest.mark.parametrize(("version", "name"), LOGINS)
async def test_the_decision_is_the_recorded_one(version: str, name: str) -> None:
    record = lab.recording(version, name)
    decision, player = await replay(version, name, is_legacy=version == "2023.6.1")
    assert player.complaints == []
    assert isinstance(decision, Accepted) == is_login(record)
    if name == "35-flow-missing":
        assert isinstance(decision, Unavailable)
        assert decision.reason is UnavailableReason.BACKEND_ERROR
    elif not isinstance(decision, Accepted):
        assert isinstance(decision, Rejected)
        assert decision.reason is REASONS.get(name, RejectReason.INVALID_CREDENTIALS)
        assert decision.detail
        for secret in (record["answers"]["password"], record["answers"].get("code")):
            assert not secret or secret not in decision.detail
    # Who is logged in is asked beside the access check and costs no time of its own.
    assert player.asked - player.extra <= len(record["steps"])
    assert player.extra <= 1


ACCEPTED = [p for p in LOGINS if is_login(lab.recording(*map(str, p.values)))]


@pytest.mark.parametrize(("version", "name"), ACCEPTED)
async def test_an_accepted_identity_is_the_recorded_user(version: str, name: str) -> None:
    record = lab.recording(version, name)
    decision, _ = await replay(version, name, is_legacy=version == "2023.6.1")
    assert isinstance(decision, Accepted)
    me = next((s["response"]["body"]["user"] for s in record["steps"] if s["request"]["path"].endswith("/me/")), None)
    if me is not None:
        assert (decision.identity.user_pk, decision.identity.username) == (me["pk"], me["username"])
    provider = provider_of(version, record)
    if isinstance(provider, LdapProvider):
        access = record["outcome"]["access"]
        in_group = me is not None and provider.search_group in {group["pk"] for group in me["groups"]}
        assert decision.identity.can_search is access.get("has_search_permission", in_group)
    assert decision.used_code is ("code" in record["answers"])
    assert bool(decision.attributes.packet) is bool(record["outcome"]["access"].get("attributes"))


@pytest.mark.parametrize("name", ["34-embedded-ok", "30-bind-ok-alice"])
@pytest.mark.parametrize("version", lab.versions())
async def test_the_session_cookie_says_when_a_login_ends(version: str, name: str) -> None:
    decision, _ = await replay(version, name, is_legacy=version == "2023.6.1")
    assert isinstance(decision, Accepted)
    assert (decision.expires_at is not None) is (name == "34-embedded-ok")
