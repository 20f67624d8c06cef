"""Matching rules as normal forms: two values match when their normal forms are the same octets (RFC 4517, RFC 4518).

Every attribute has one `Kind`, which decides its equality, ordering and substring rules.  The compiled directory holds
normal forms, so that a search compares octets and never calls a rule per value.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from outpost.errors import DecodeError
from outpost.ldap.dn import normalise as normalise_dn


class Kind(enum.IntEnum):
    """Families of syntaxes that share their matching rules. The numbers are part of the arena's format."""

    CASE_IGNORE = 0
    """caseIgnoreMatch, caseIgnoreIA5Match, uuidMatch."""
    CASE_EXACT = 1
    """caseExactMatch, caseExactIA5Match."""
    INTEGER = 2
    GENERALIZED_TIME = 3
    DN = 4
    TELEPHONE_NUMBER = 5
    OID = 6
    """objectIdentifierMatch; descriptors and numbers of the same thing are the same."""
    BOOLEAN = 7
    OCTET_STRING = 8


WITH_ORDERING: Final = frozenset({Kind.CASE_IGNORE, Kind.CASE_EXACT, Kind.INTEGER, Kind.GENERALIZED_TIME})
WITH_SUBSTRINGS: Final = frozenset({Kind.CASE_IGNORE, Kind.CASE_EXACT, Kind.TELEPHONE_NUMBER})

_SPACES = re.compile(r"\s+")
_INTEGER = re.compile(rb"(-?)0*([0-9]+)\Z")
_OID = re.compile(rb"[0-9]+(\.[0-9]+)+\Z|[A-Za-z][A-Za-z0-9;./_-]*\Z")
_TIME = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(\d\d)?)?(?:[.,](\d{1,9}))?(Z|[+-]\d\d(?:\d\d)?)\Z")
_ASCII_PLAIN = re.compile(rb"[!-@\[-~]+(?: [!-@\[-~]+)*\Z")
"""Octets that are their own normal form under caseIgnoreMatch."""
_COMPLEMENT = bytes.maketrans(b"0123456789", b"9876543210")


def prepare(text: str, *, fold: bool) -> str:
    """String preparation, as far as it changes anything in practice (RFC 4518 2.2 to 2.4).

    Control and zero-width characters are removed, separators become spaces, NFKC, and case folding where asked for.
    Spaces are left as they are.
    """
    kept = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    kept = unicodedata.normalize("NFKC", kept)
    if fold:
        kept = unicodedata.normalize("NFKC", kept.casefold())
    return _SPACES.sub(" ", kept)


def normalise_value(kind: int, value: bytes) -> bytes | None:
    """The normal form of an attribute or assertion value; None if `value` is none of that syntax.

    An assertion without a normal form makes its filter item Undefined (RFC 4511 4.5.1.7).
    """
    if kind in (Kind.CASE_IGNORE, Kind.CASE_EXACT):
        if not value:
            # RFC 4517 3.3.6: a Directory String has one character at least.
            return None
        if kind == Kind.CASE_IGNORE and _ASCII_PLAIN.match(value):
            return value
        try:
            # RFC 4518 2.6.1: what has nothing but spaces compares as spaces, not as nothing.
            return prepare(value.decode(), fold=kind == Kind.CASE_IGNORE).strip(" ").encode() or b" "
        except UnicodeDecodeError:
            return None
    if kind == Kind.DN:
        try:
            return normalise_dn(value)
        except DecodeError:
            return None
    if kind == Kind.INTEGER:
        found = _INTEGER.match(value)
        if found is None:
            return None
        return found[2] if found[2] == b"0" else found[1] + found[2]
    if kind == Kind.GENERALIZED_TIME:
        return _time(value)
    if kind == Kind.TELEPHONE_NUMBER:
        try:
            return _digits(prepare(value.decode(), fold=True)) or None
        except UnicodeDecodeError:
            return None
    if kind == Kind.OID:
        return value.lower() if _OID.match(value) else None
    if kind == Kind.BOOLEAN:
        upper = value.upper()
        return upper if upper in (b"TRUE", b"FALSE") else None
    return value


def rank(kind: int, normal: bytes) -> tuple[int, bytes]:
    """What normal forms of a kind with ordering are compared by."""
    if kind == Kind.INTEGER:
        # Not int(): that refuses numbers of thousands of digits, and anybody may send one.
        if normal[:1] == b"-":
            return 1 - len(normal), normal[1:].translate(_COMPLEMENT)
        return len(normal), normal
    if kind == Kind.GENERALIZED_TIME:
        return 0, normal[:-1]  # a fraction comes before the Z, and after the time without one
    return 0, normal


def normalise_substring(kind: int, value: bytes, *, initial: bool, final: bool) -> bytes | None:
    """The normal form of one piece of a substring assertion; None if the kind has no substring rule.

    RFC 4518 2.6.1: spaces inside are squeezed; those at an edge that borders on `*` still count as one.
    """
    if kind not in WITH_SUBSTRINGS:
        return None
    try:
        text = prepare(value.decode(), fold=kind != Kind.CASE_EXACT)
    except UnicodeDecodeError:
        return None
    if kind == Kind.TELEPHONE_NUMBER:
        return _digits(text)
    if initial:
        text = text.lstrip(" ")
    if final:
        text = text.rstrip(" ")
    return text.encode()


def _digits(text: str) -> bytes:
    """RFC 4518 2.6.3; what was apart may be composed once the spaces are gone."""
    return unicodedata.normalize("NFKC", re.sub(r"[\s-]+", "", text)).encode()


def _time(value: bytes) -> bytes | None:
    """RFC 4517 3.3.13, as `YYYYMMDDhhmmss[.f]Z` in UTC without trailing zeros."""
    found = _TIME.match(value)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    offset = UTC
    if zone != b"Z":
        delta = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5] or b"0"))
        if delta >= timedelta(hours=24):
            return None
        offset = timezone(-delta if zone[:1] == b"-" else delta)
    if fraction and second is None:
        return None
    try:
        leap = second == b"60"
        at = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute or 0),
            59 if leap else int(second or 0),
            tzinfo=offset,
        )
        at = (at + timedelta(seconds=leap)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    digits = (fraction or b"").rstrip(b"0")
    return b"%04d%02d%02d%02d%02d%02d" % at.timetuple()[:6] + (b"." + digits if digits else b"") + b"Z"
