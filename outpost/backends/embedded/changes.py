"""What two versions of a directory have against each other: whom to forget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from outpost.backends.embedded.model import Application, Directory
from outpost.identity import Provider, Revoked


def revocations(old: Directory, new: Directory) -> list[Revoked]:
    """What was believed of `old` and no longer holds in `new`: users first, then providers, each in order of pk.

    A user is revoked when anything of the account differs or a name by which he logged in means another user or
    nobody; a provider when it, or who may use it, differs.  Nothing for what is new or unchanged.
    """
    before, after = _logins(old), _logins(new)
    found = [
        Revoked(user_pk=pk)
        for pk, account in sorted(old.accounts.items())
        if new.accounts.get(pk) != account or not before[pk] <= after[pk]
    ]
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


def _logins(directory: Directory) -> defaultdict[int, set[str]]:
    found: defaultdict[int, set[str]] = defaultdict(set)
    for name, pk in directory.by_login.items():
        found[pk].add(name)
    return found


def _served(
    providers: Sequence[Provider], applications: Mapping[str, Application]
) -> dict[int, tuple[Provider, Application | None]]:
    return {one.pk: (one, applications.get(one.application_slug)) for one in providers}
