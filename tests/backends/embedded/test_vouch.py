"""Logins of people whom a certificate proved: everything but the proof is decided as for a password."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outpost.backends.embedded.model import Binding
from outpost.identity import Accepted, Decision, Rejected, RejectReason, Served, Unavailable, UnavailableReason
from tests.backends.embedded.people import CLIENT, LDAP, TOTP, Desk, account, applications, desk, plain

WRONG = RejectReason.INVALID_CREDENTIALS


async def vouched(it: Desk, username: str, provider=LDAP) -> Decision:
    return await it.authority.vouch(provider, username, CLIENT)


@pytest.mark.parametrize("name", ["Ann", "ann", "ANN", "ann@example.org", "Ann@Example.Org"])
async def test_whoever_is_known_is_let_in(name: str) -> None:
    with desk(account(7, "Ann", plain("pw")), account(8, "bob")) as it:
        found = await vouched(it, name)
        assert isinstance(found, Accepted)
        assert (found.identity.user_pk, found.identity.username, found.identity.can_search) == (7, "Ann", False)
        assert found.used_code is False
        assert it.verify.asked == []


async def test_neither_password_nor_code_is_asked() -> None:
    with desk(account(7, "ann", None, totp=(TOTP,))) as it:
        assert isinstance(await vouched(it, "ann"), Accepted)


@pytest.mark.parametrize("name", ["", " ", "\0", "bob", "ann\0", "7", "ann@example", "\ud800"])
async def test_nobody_is_let_in(name: str) -> None:
    with desk(account(7, "ann")) as it:
        found = await vouched(it, name)
        assert isinstance(found, Rejected) and found.reason is WRONG


async def test_a_user_without_name_is_never_found() -> None:
    with desk(account(7, "")) as it:
        assert isinstance(await vouched(it, ""), Rejected)
        assert isinstance(await vouched(it, " "), Rejected)


async def test_the_deactivated_stay_out() -> None:
    with desk(account(7, "ann", is_active=False), account(8, "bob")) as it:
        found = await vouched(it, "ann")
        assert isinstance(found, Rejected) and found.reason is WRONG
        assert isinstance(await vouched(it, "bob"), Accepted)


async def test_the_application_decides() -> None:
    with desk(
        account(7, "ann", memberships=frozenset({"staff"})),
        account(8, "bob"),
        applications=applications(Binding(0, None, "staff")),
    ) as it:
        assert isinstance(await vouched(it, "ann"), Accepted)
        found = await vouched(it, "bob")
        assert isinstance(found, Rejected) and found.reason is RejectReason.ACCESS_DENIED


async def test_who_may_search() -> None:
    searching = replace(LDAP, search_group="readers")
    with desk(
        account(7, "ann", memberships=frozenset({"readers"})),
        account(8, "bob"),
        account(9, "root", is_superuser=True),
        served=Served((searching,)),
    ) as it:
        found = [await vouched(it, name, searching) for name in ("ann", "bob", "root")]
        assert [one.identity.can_search for one in found if isinstance(one, Accepted)] == [True, False, True]


async def test_without_provider_or_directory() -> None:
    with desk(account(7, "ann"), served=Served()) as it:
        found = await vouched(it, "ann")
        assert isinstance(found, Rejected) and found.reason is RejectReason.NO_PROVIDER
        it.book = None
        found = await vouched(it, "ann")
        assert isinstance(found, Unavailable) and found.reason is UnavailableReason.NOT_READY
