"""Password and one-time code in one string: `password;code`.

Directory clients have one password field, so the code rides behind the last semicolon.  Pure text
rules; nothing here knows users, devices or whether a code is right.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIGITS = re.compile(rb"[0-9]{6}", re.ASCII)
_EIGHT = re.compile(rb"[A-Za-z0-9]{8}", re.ASCII)
_ANY_CODE = re.compile(rb"[A-Za-z0-9]{4,64}", re.ASCII)


class Reading(NamedTuple):
    """One way to read a secret."""

    password: bytes
    code: str | None


def split(secret: bytes, mfa_support: bool, *, suffix: bool = False) -> tuple[bytes, str | None]:
    """Password and code by the rule authentik's outposts apply; `(secret, None)` when it does not match.

    The last `;`, not at the end, followed by 6 decimal digits or by 8 of [A-Za-z0-9] (octets).  Their
    rule also takes a sign in place of the first digit; no generator shows one, so ours does not.
    suffix: also the last 6 octets, when all are digits, without separator; `;` wins.

    It cannot tell a password that contains `;123456` from one with a code: whoever knows the user's
    devices tries `readings` instead.
    """
    if not mfa_support:
        return secret, None
    head, separator, tail = secret.rpartition(b";")
    if separator and (_DIGITS.fullmatch(tail) or _EIGHT.fullmatch(tail)):
        return head, tail.decode("ascii")
    if suffix and _DIGITS.fullmatch(secret[-6:]):
        return secret[:-6], secret[-6:].decode("ascii")
    return secret, None


def readings(secret: bytes, mfa_support: bool, *, suffix: bool = False) -> tuple[Reading, ...]:
    """Every way to read `secret`: always the whole first, then those with a code (one; two with suffix).

    For backends that can check both halves.  Any 4 to 64 of [A-Za-z0-9] behind the last `;` counts as
    a code here, because static codes have no fixed length (12 is common).  How many readings there
    are depends on the secret and the provider only, never on the user: trying them all costs the
    same for everybody.
    """
    found = [Reading(secret, None)]
    if not mfa_support:
        return tuple(found)
    head, separator, tail = secret.rpartition(b";")
    if separator and _ANY_CODE.fullmatch(tail):
        found.append(Reading(head, tail.decode("ascii")))
    password, code = split(secret, True, suffix=suffix)
    if code is not None and (password, code) not in found:
        found.append(Reading(password, code))
    return tuple(found)


def is_code(text: str) -> bool:
    """Whether `readings` would recognise `text` behind a semicolon."""
    return text.isascii() and _ANY_CODE.fullmatch(text.encode()) is not None
