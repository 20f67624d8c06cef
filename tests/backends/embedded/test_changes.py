"""Whom a new version of the directory makes us forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from outpost.backends.embedded.changes import revocations
from outpost.backends.embedded.model import Account, AppPassword, Binding, Directory
from outpost.identity import LdapOptions, ReplyAttributes, Revoked, Secret, Served
from tests.backends.embedded.people import LDAP, RADIUS, TOTP, account, applications, directory, hashed, plain

ANN = account(7, "ann", hashed("pw"), memberships=frozenset({"staff"}))
BOB = account(8, "bob", hashed("pw"))
WAS = directory([ANN, BOB])
BOTH = [Revoked(provider_pk=1, service="ldap"), Revoked(provider_pk=1, service="radius")]


def change(accounts: Sequence[Account] = (ANN, BOB), **more: Any) -> list[Revoked]:
    return revocations(WAS, directory(accounts, **more))


def test_nothing_for_the_same() -> None:
    assert revocations(WAS, WAS) == []
    assert change([replace(BOB), replace(ANN, password=replace(ANN.password))]) == []


def test_nothing_for_what_is_new() -> None:
    new = replace(LDAP, pk=2, name="more")
    assert change([ANN, BOB, account(9, "carl")], served=Served((LDAP, new), (RADIUS,))) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"username": "anna"},
        {"is_active": False},
        {"password": hashed("new")},
        {"password": plain("pw")},
        {"password": None},
        {"app_passwords": (AppPassword("t", Secret("k")),)},
        {"totp": (TOTP,)},
        {"static_codes": (Secret("abcd1234"),)},
        {"memberships": frozenset({"staff", "more"})},
        {"memberships": frozenset()},
        {"is_superuser": True},
        {"reply": ReplyAttributes((("Class", "x"),))},
    ],
    ids=lambda changes: "-".join(f"{name}-{type(value).__name__}" for name, value in changes.items()),
)
def test_a_changed_account_is_forgotten_and_nobody_else(changes) -> None:
    assert change([replace(ANN, **changes), BOB]) == [Revoked(user_pk=7)]


def test_users_who_vanished_or_share_a_number_now() -> None:
    assert change([BOB]) == [Revoked(user_pk=7)]
    assert change([]) == [Revoked(user_pk=7), Revoked(user_pk=8)]
    assert change([replace(ANN, pk=8)]) == [Revoked(user_pk=7), Revoked(user_pk=8)]


def test_a_name_that_means_somebody_else_is_forgotten() -> None:
    logins = dict(WAS.by_login)
    assert change(by_login=logins | {"ann@example.org": 8}) == [Revoked(user_pk=7)]
    assert change(by_login=logins | {"ann@corp.example": 7}) == []
    del logins["bob@example.org"]
    assert change(by_login=logins) == [Revoked(user_pk=8)]


def test_a_changed_provider_is_forgotten_by_its_service() -> None:
    assert change(served=Served((), (RADIUS,))) == BOTH[:1]
    assert change(served=Served((LDAP,), ())) == BOTH[1:]
    assert change(served=Served((replace(LDAP, options=LdapOptions(samba=True)),), (RADIUS,))) == BOTH[:1]
    assert change(served=Served((LDAP,), (replace(RADIUS, shared_secret=Secret("new")),))) == BOTH[1:]
    assert change(served=Served((replace(LDAP, pk=5),), (RADIUS,))) == BOTH[:1]


def test_changed_bindings_forget_the_provider() -> None:
    assert change(applications=applications(Binding(0, 7, None))) == BOTH
    assert change(applications=applications(needs_all=True)) == BOTH
    assert change(applications={}) == BOTH
    only_ldap = applications() | {"ldap": replace(applications()["ldap"], bindings=(Binding(0, None, "staff"),))}
    assert change(applications=only_ldap) == BOTH[:1]
    assert change(applications=applications() | {"wiki": applications(Binding(0, 1, None))["ldap"]}) == []


def test_a_directory_that_lost_everything() -> None:
    empty: Directory = directory([], served=Served(), applications={})
    assert revocations(WAS, empty) == [Revoked(user_pk=7), Revoked(user_pk=8), *BOTH]
