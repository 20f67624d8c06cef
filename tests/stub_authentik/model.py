"""What the stub server knows: releases, people, providers, flows."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Release:
    """What a server version can do."""

    version: str
    is_legacy: bool
    """Before 2024.8: challenge `type`, `search_group`, the application's check_access, tenants."""
    has_parents: bool = False
    """From 2026.2: groups have several `parents`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields nobody knows, added to every object."""


OLD = Release("2023.6.1", is_legacy=True)
NEW = Release("2025.10.4", is_legacy=False)
FUTURE = Release(
    "2031.2.0", is_legacy=False, has_parents=True, extra={"x_unheard_of": {"deep": [1, None, {"a": "b"}]}, "x_new": 7}
)

_serial = itertools.count(1000)


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def number() -> int:
    return next(_serial)


@dataclass
class Group:
    name: str
    pk: str = field(default_factory=lambda: str(uuid.uuid4()))
    num_pk: int = field(default_factory=number)
    is_superuser: bool = False
    parents: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    roles: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class User:
    username: str
    password: str = ""
    pk: int = field(default_factory=number)
    name: str = ""
    email: str = ""
    uid: str = ""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_active: bool = True
    type: str = "internal"
    path: str = "users"
    groups: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    last_login: str | None = None
    date_joined: str = field(default_factory=now_text)
    last_updated: str = field(default_factory=now_text)
    password_change_date: str = field(default_factory=now_text)
    app_passwords: set[str] = field(default_factory=set)
    app_password_ends: dict[str, str] = field(default_factory=dict)
    """When those expire that do; the stub goes on listing them, as newer servers do for a while."""
    devices: tuple[str, ...] = ()
    """Device classes in order: `static`, `totp`, `duo`, `webauthn`, …"""
    codes: set[str] = field(default_factory=set)
    """One-time codes, each accepted once."""
    approves_push: bool = True
    can_search: bool = False
    """Object permission `search_full_directory`."""
    secret_revision: int = 0
    """Grows with the password; sessions remember it."""

    def __post_init__(self) -> None:
        self.uid = self.uid or hashlib.sha256(f"{self.pk}-stub".encode()).hexdigest()


@dataclass
class KeyPair:
    name: str
    certificate: str
    key: str
    fingerprint: str
    pk: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Application:
    slug: str
    groups: frozenset[str] | None = None
    """pks of the groups whose members pass; None: no bindings, everybody passes."""
    users: frozenset[int] = frozenset()


@dataclass
class Provider:
    pk: int
    name: str
    service: str
    """`ldap` or `radius`."""
    app: str
    flow: str = "default-authentication-flow"
    unbind_flow: str = "default-invalidation-flow"
    fields: dict[str, Any] = field(default_factory=dict)
    """What else the outposts' endpoint shows."""
    attributes: bytes | None = None
    """RADIUS reply packet of the property mappings; None when one raised."""
    is_searchable: bool = True
    """Users who `can_search` may do so here."""


@dataclass
class Outpost:
    name: str
    service: str
    token: str
    providers: list[int] = field(default_factory=list)
    pk: str = field(default_factory=lambda: str(uuid.uuid4()))
    refresh_interval_s: int = 300
    log_level: str = "info"
    managed: str | None = None
    account: User | None = None
    token_pk: str = field(default_factory=lambda: str(uuid.uuid4()))
    raw: dict[str, Any] | None = None
    """A recorded record to show instead of a made one."""


@dataclass
class Stage:
    """One stage; kinds: identification, password, mfa, login, deny, consent, dummy, logout, prompt, write."""

    kind: str
    user_fields: tuple[str, ...] = ("email", "username")
    has_password: bool = False
    classes: tuple[str, ...] = ("static", "totp", "webauthn", "duo", "sms")
    not_configured: str = "skip"
    duration_s: int = 0
    asks_remember: bool = False
    fields: tuple[tuple[str, str, bool], ...] = ()
    """Of a prompt: key, type and whether it is required."""
    shortest: int = 0
    """Characters that the policy of a prompt asks for."""


@dataclass
class Flow:
    slug: str
    stages: tuple[Stage, ...] = ()
    title: str = ""
    denied: str = ""
    """Message of a policy that refuses at the first request."""
    authentication: str = "none"
    """`none`, `require_authenticated` or `require_outpost`."""


@dataclass
class Session:
    key: str
    user: User | None = None
    secret_revision: int = 0
    expires_at: float | None = None
    csrf: str = ""
    plan: Plan | None = None


@dataclass
class Plan:
    flow: str
    position: int = 0
    pending: User | None = None
    pending_name: str = ""
    failures: int = 0
    is_enrolling: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    """What was filled in."""


def default_flows() -> dict[str, Flow]:
    ident, password, mfa, login = Stage("identification"), Stage("password"), Stage("mfa"), Stage("login")
    embedded = Stage("identification", has_password=True, user_fields=("email", "upn", "username"))
    prompt = Stage("prompt", fields=(("password", "password", True), ("password_repeat", "password", True)), shortest=8)
    found = [
        Flow("default-password-change", (prompt, Stage("write")), authentication="require_authenticated"),
        Flow("default-authentication-flow", (ident, password, mfa, login), "Welcome to authentik!"),
        Flow("default-invalidation-flow", (Stage("logout"),)),
        Flow("default-provider-invalidation-flow"),
        Flow("embedded", (embedded, login)),
        Flow("embedded-60s", (embedded, Stage("login", duration_s=60))),
    ]
    return {flow.slug: flow for flow in found}
