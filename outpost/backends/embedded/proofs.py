"""What people prove themselves with: passwords, app passwords, TOTP generators and static codes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from outpost import passcode
from outpost.backends.embedded import phc
from outpost.backends.embedded.blueprint import (
    APPLICATION,
    STATIC_DEVICE,
    STATIC_TOKEN,
    TOKEN,
    TOTP,
    USER,
    Blueprint,
    Entry,
)
from outpost.backends.embedded.model import AppPassword, Password, TotpDevice
from outpost.identity import Secret

_FOREIGN_HASH: Final = re.compile(
    r"\$(?:argon2(?:id|i|d)|2[abxy]?|[1567y]|gy|scrypt|pbkdf2[a-z0-9-]*)\$.+"
    r"|(?:argon2|scrypt|bcrypt|bcrypt_sha256|pbkdf2_sha1|pbkdf2_sha256|md5)\$.+\$.+"
    r"|\{[A-Z0-9_-]{3,20}\}[A-Za-z0-9+/=$.]{8,}",
    re.ASCII | re.DOTALL,
)
"""Hashes of other kinds; taken for plain text, the hash itself would be the password."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_INTENTS: Final = frozenset({"verification", "api", "app_password", "recovery"})


@dataclass(slots=True)
class Proofs:
    """What one user has besides his password."""

    app_passwords: list[AppPassword] = field(default_factory=list)
    totp: list[TotpDevice] = field(default_factory=list)
    static_codes: list[Secret] = field(default_factory=list)


NO_PROOFS: Final = Proofs()


def read_password(entry: Entry) -> Password | None:
    """The `password` of a user; None when missing or empty. Raises ConfigError."""
    fields = entry.fields
    if "password" not in fields:
        return None
    text = fields.text("password")
    if not text:
        return None
    if text.startswith("$argon2id$"):
        try:
            phc.parse(text)
        except ValueError as exc:
            raise fields.error("password", str(exc)) from None
        return Password(Secret(text), True)
    if _FOREIGN_HASH.fullmatch(text):
        raise fields.error("password", "is a hash of a kind that cannot be checked here, expected $argon2id$ or text")
    return Password(Secret(text), False)


def read_proofs(blueprint: Blueprint) -> Mapping[Entry, Proofs]:
    """Tokens and devices by the user they belong to. Raises ConfigError."""
    found: dict[Entry, Proofs] = {}
    for entry in blueprint.of(TOKEN):
        _read_token(blueprint, entry, found)
    for entry in blueprint.of(TOTP):
        _read_totp(blueprint, entry, found)
    _read_static(blueprint, found)
    return found


def _of(blueprint: Blueprint, entry: Entry, found: dict[Entry, Proofs]) -> Proofs:
    return found.setdefault(blueprint.needed(entry.fields, "user", USER), Proofs())


def _read_token(blueprint: Blueprint, entry: Entry, found: dict[Entry, Proofs]) -> None:
    fields = entry.fields
    if fields.choice("intent", "verification", _INTENTS) != "app_password":
        return
    identifier = fields.required("identifier")
    key = Secret(fields.required("key"))
    expires = fields.moment("expires")
    if not fields.boolean("expiring", "expires" in fields):
        expires = None
    elif expires is None:
        raise fields.error("expires", "is missing; an expiring token needs it")
    expires_at = None if expires is None else expires.timestamp()
    application = _application(blueprint, entry)
    _of(blueprint, entry, found).app_passwords.append(AppPassword(identifier, key, expires_at, application))


def _application(blueprint: Blueprint, entry: Entry) -> str | None:
    """Slug of the one application that a token is for; None when it says nothing.

    A server knows no such field and takes the token for every application: what it does not enforce is said there.
    """
    fields = entry.fields
    if "application" not in fields:
        return None
    item = fields.item("application")
    if item is None or item.value == "":
        # Written, but nothing in it: surely not meant to be for every application.
        raise fields.error("application", "is empty; leave it out of a token that is for every application")
    if isinstance(item.value, str):
        slugs = {one.fields.required("slug") for one in blueprint.of(APPLICATION)}
        if item.value in slugs:
            return item.value
        if not _UUID.fullmatch(item.value):
            near = difflib.get_close_matches(item.value, slugs, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise fields.error("application", f"no application in this file has the slug {item.value!r}{hint}")
    return blueprint.entry_of(item, APPLICATION).fields.required("slug")


def _read_totp(blueprint: Blueprint, entry: Entry, found: dict[Entry, Proofs]) -> None:
    fields = entry.fields
    if not fields.boolean("confirmed", True):
        return
    try:
        key = bytes.fromhex(fields.required("key"))
    except ValueError:
        raise fields.error("key", "expected hexadecimal digits") from None
    if not key:
        raise fields.error("key", "is empty")
    digits = fields.integer("digits", 6, 6, 8)
    step_s = fields.integer("step", 30, 1, 3600)
    device = TotpDevice(fields.text("name", entry.name), Secret(key), digits, step_s)
    _of(blueprint, entry, found).totp.append(device)


def _read_static(blueprint: Blueprint, found: dict[Entry, Proofs]) -> None:
    owners: dict[Entry, Proofs | None] = {}
    for entry in blueprint.of(STATIC_DEVICE):
        proofs = _of(blueprint, entry, found)
        owners[entry] = proofs if entry.fields.boolean("confirmed", True) else None
    empty = {entry for entry, proofs in owners.items() if proofs is not None}
    for entry in blueprint.of(STATIC_TOKEN):
        fields = entry.fields
        device = blueprint.needed(fields, "device", STATIC_DEVICE)
        proofs_of_owner = owners[device]
        empty.discard(device)
        code = fields.required("token")
        if not passcode.is_code(code):
            raise fields.error("token", "expected 4 to 64 letters and digits; nothing else can be typed as a code")
        if proofs_of_owner is not None:
            proofs_of_owner.static_codes.append(Secret(code))
    for entry in empty:
        blueprint.warn("a static device without tokens asks nobody for a code", entry.line)
