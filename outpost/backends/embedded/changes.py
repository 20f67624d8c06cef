"""What two versions of a directory have against each other: whom to forget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from outpost.backends.embedded.model import Account, Application, Directory
from outpost.backends.embedded.packed import PackedAccounts, PackedLogins
from outpost.identity import Provider, Revoked


def revocations(old: Directory, new: Directory, users: Iterable[int] | None = None) -> list[Revoked]:
    """What was believed of `old` and no longer holds in `new`: users first, then providers, each in order of pk.

    users: the pks of those users, where they are known.  A provider is revoked when it, or who may use it, differs.
    Nothing for what is new or unchanged.
    """
    if users is None:
        users = revoked_users(old.accounts, old.by_login, new.accounts, new.by_login)
    found = [Revoked(user_pk=pk) for pk in users]
    for service, was, now in (
        ("ldap", old.served.ldap, new.served.ldap),
        ("radius", old.served.radius, new.served.radius),
    ):
        are = _served(now, new.applications)
        found += [
            Revoked(provider_pk=pk, service=service)
            for pk, state in sorted(_served(was, old.applications).items())
            if are.get(pk) != state
        ]
    return found


def revoked_users(
    old: Mapping[int, Account], old_logins: Mapping[str, int], new: Mapping[int, Account], new_logins: Mapping[str, int]
) -> list[int]:
    """pks in order: users of whose accounts anything differs, or a name of whose means another user or nobody."""
    before, after = _names(old_logins), _names(new_logins)
    was: Callable[[int], object] = old.get
    now: Callable[[int], object] = new.get
    if isinstance(old, PackedAccounts) and isinstance(new, PackedAccounts):
        was, now = old.row, new.row
    return [pk for pk in sorted(old) if now(pk) != was(pk) or not before[pk] <= after[pk]]


def _names(by_login: Mapping[str, int]) -> defaultdict[int, set[str]]:
    found: defaultdict[int, set[str]] = defaultdict(set)
    for name, pk in by_login.owned() if isinstance(by_login, PackedLogins) else by_login.items():
        found[pk].add(name)
    return found


def _served(
    providers: Sequence[Provider], applications: Mapping[str, Application]
) -> dict[int, tuple[Provider, Application | None]]:
    return {one.pk: (one, applications.get(one.application_slug)) for one in providers}
