"""Text to value and back: durations, sizes, addresses, indirections.

Each reader takes what a settings file or an environment variable holds and returns the value, or
raises ValueError with one sentence that says what was expected and never quotes a secret.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Workers = NewType("Workers", int)
"""A number of serving processes."""
MOST_WORKERS: Final = 256

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"(\d+)\s*([kmg]i?b?|b)?", re.IGNORECASE)
_SIZE_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TRUE: Final = frozenset({"1", "t", "true", "y", "yes", "on"})
_FALSE: Final = frozenset({"0", "f", "false", "n", "no", "off", ""})


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A local address to listen on; an empty host means every address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def boolean(value: object) -> bool:
    """True or False from a boolean or one of the usual words."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise ValueError("expected true or false")


def integer(value: object) -> int:
    """A non-negative whole number."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("expected a whole number")
    if isinstance(value, str):
        if not re.fullmatch(r"[0-9]{1,18}", value.strip()):
            raise ValueError("expected a whole number")
        value = int(value)
    if value < 0:
        raise ValueError("expected a whole number that is not negative")
    return value


def workers(value: object) -> Workers:
    """A number of processes; `auto` is one for each processor that this one may use."""
    if isinstance(value, str) and value.strip().lower() == "auto":
        return Workers(min(len(os.sched_getaffinity(0)), MOST_WORKERS))
    try:
        number = integer(value)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_WORKERS:
        raise ValueError(f"expected a number of processes from 1 to {MOST_WORKERS}, or auto")
    return Workers(number)


def real(value: object) -> float:
    """A non-negative number."""
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if 0 <= number < float("inf"):
            return number
    raise ValueError("expected a number that is not negative")


def text(value: object) -> str:
    """A string as it is."""
    if not isinstance(value, str):
        raise ValueError("expected a text in quotes")
    return value


def duration(value: object) -> float:
    """Seconds, from `30s`, `5m`, `1h30m`, `250ms` or a bare number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if re.fullmatch(r"\d+(\.\d+)?", word):
            return float(word)
        if _DURATION.fullmatch(word):
            return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(word))
    raise ValueError("expected a duration like 30s, 5m or 1h")


def show_duration(seconds: float) -> str:
    """The shortest text that `duration` reads back as `seconds`."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _UNITS_S[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    if seconds == 0:
        return "0s"
    milliseconds = seconds * 1000
    return f"{int(milliseconds)}ms" if milliseconds == int(milliseconds) else f"{seconds:g}s"


def size(value: object) -> int:
    """Octets, from `64KiB`, `1MiB` (K, M and G count in 1024) or a bare number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = (match[2] or "").lower().rstrip("b").rstrip("i")
        return int(match[1]) * _SIZE_UNITS[unit]
    raise ValueError("expected a size like 64KiB or 1MiB")


def show_size(octets: int) -> str:
    """The shortest text that `size` reads back as `octets`."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if octets and octets % factor == 0:
            return f"{octets // factor}{unit}"
    return str(octets)


def words(value: object) -> tuple[str, ...]:
    """The members of a list, or of a text with commas; an empty text is an empty list."""
    members = value.split(",") if isinstance(value, str) else value
    if not isinstance(members, list | tuple) or not all(isinstance(m, str) for m in members):
        raise ValueError("expected a list of texts, or one text with commas")
    found = tuple(m.strip() for m in members)
    return () if found == ("",) else found


def endpoint(value: str) -> Endpoint:
    """The address in `host:port`, `[IPv6]:port` or `:port`."""
    match = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})", value)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{value!r} is no address; expected HOST:PORT or [IPv6]:PORT with a port up to 65535")
    if match["six"] is None:
        return Endpoint(match["host"], int(match["port"]))
    try:
        ipaddress.IPv6Address(match["six"])
    except ValueError:
        raise ValueError(f"{match['six']!r} is no IPv6 address") from None
    return Endpoint(match["six"], int(match["port"]))


def endpoints(value: object) -> tuple[Endpoint, ...]:
    """The addresses of a comma list; none at all switches the listener off."""
    found = tuple(endpoint(word) for word in words(value))
    for i, one in enumerate(found):
        if one.port and one in found[:i]:
            raise ValueError(f"{one} is listed twice")
    return found


def networks(value: object) -> tuple[Network, ...]:
    """The networks of a comma list of CIDR blocks or single addresses."""
    found: list[Network] = []
    for word in words(value):
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            raise ValueError(f"{word!r} is no network; expected a CIDR block like 10.0.0.0/8") from None
    return tuple(found)


def follow(value: str, environ: Mapping[str, str]) -> str:
    """What `env://NAME?default` or `file:///path?default` points to; any other text as it is.

    Content of files is stripped of surrounding white space. Raises ValueError if the target is
    missing and no default is given.
    """
    scheme, found, rest = value.partition("://")
    if not found or scheme not in {"env", "file"}:
        return value
    target, has_default, default = rest.partition("?")
    if scheme == "env":
        if target in environ:
            return environ[target]
        if has_default:
            return default
        raise ValueError(f"environment variable {target} is not set")
    try:
        return Path(target).read_text().strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if has_default:
            return default
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ValueError(f"{target}: {reason}") from None
