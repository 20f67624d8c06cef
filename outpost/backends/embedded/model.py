"""What a directory file says, as values: people, credentials, who may use what, and what is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from outpost.identity import Crowd, LdapOptions, RadiusOptions, ReplyAttributes, Secret, Served


@dataclass(frozen=True, slots=True)
class Password:
    """One accepted password: an argon2id PHC string, or plain text as a blueprint may hold it."""

    value: Secret
    is_hashed: bool


@dataclass(frozen=True, slots=True)
class AppPassword:
    """A token of intent `app_password`: a further password of its user, with which no code is asked."""

    identifier: str
    key: Secret
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""
    application: str | None = None
    """Slug of the only application that it works for; None: for all."""


@dataclass(frozen=True, slots=True)
class TotpDevice:
    """A confirmed TOTP generator (RFC 6238, HMAC-SHA-1, T0 = 0)."""

    name: str
    key: Secret
    """The shared secret, raw octets."""
    digits: int = 6
    step_s: int = 30


@dataclass(frozen=True, slots=True)
class Account:
    """What one user proves himself with, and what follows from that."""

    pk: int
    username: str
    is_active: bool
    password: Password | None
    """None: no password logs in."""
    app_passwords: tuple[AppPassword, ...] = ()
    totp: tuple[TotpDevice, ...] = ()
    static_codes: tuple[Secret, ...] = ()
    """Codes that work once each; a code is known by its value."""
    memberships: frozenset[str] = frozenset()
    """pks of all groups, inherited ones included."""
    is_superuser: bool = False
    """By membership, inherited included."""
    reply: ReplyAttributes = field(default_factory=ReplyAttributes)
    """RADIUS reply attributes: groups in order of name, then the user's own, each name set last wins."""

    @property
    def has_device(self) -> bool:
        """A code is asked for."""
        return bool(self.totp or self.static_codes)


@dataclass(frozen=True, slots=True)
class Binding:
    """One policy binding of an application: exactly one of user_pk and group_pk is set."""

    order: int
    user_pk: int | None
    group_pk: str | None
    is_negated: bool = False

    def passes(self, account: Account) -> bool:
        """Whether this binding says yes to `account`."""
        matches = account.pk == self.user_pk if self.group_pk is None else self.group_pk in account.memberships
        return matches is not self.is_negated


@dataclass(frozen=True, slots=True)
class Application:
    """Who may use a provider."""

    slug: str
    name: str
    bindings: tuple[Binding, ...] = ()
    """Enabled ones, in order."""
    needs_all: bool = False
    """policy_engine_mode `all`; otherwise one that passes is enough."""

    def admits(self, account: Account) -> bool:
        """Whether `account` may use the application; without bindings everybody may, as in authentik."""
        if not self.bindings:
            return True
        outcomes = (binding.passes(account) for binding in self.bindings)
        return all(outcomes) if self.needs_all else any(outcomes)


@dataclass(frozen=True, slots=True)
class Extras:
    """What the settings add to providers, by provider name."""

    ldap: Mapping[str, LdapOptions] = field(default_factory=dict)
    radius: Mapping[str, RadiusOptions] = field(default_factory=dict)


NO_EXTRAS: Final = Extras()


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory file, read completely and found consistent."""

    people: Crowd
    accounts: Mapping[int, Account]
    """By user pk."""
    by_login: Mapping[str, int]
    """User pk by username and by mail address, both case-folded; a username wins over another's mail address, and an
    address that two users share logs nobody in."""
    served: Served
    applications: Mapping[str, Application]
    """By slug; a provider without an application is not in `served`."""
    files: tuple[Path, ...] = ()
    """The file itself and every file that it reads, all watched for changes."""
    warnings: tuple[str, ...] = ()
    """What works but deserves a look, each a sentence with file and line."""
