"""A login's own cookie jar: flat, keyed by name, blind to Domain, Path and Secure.

The server may be reached by another name than the one its cookies are made for (COOKIE_DOMAIN with an internal
AUTHENTIK_HOST), and everything in here came from it and goes back to it only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime

SESSION = "authentik_session"
CSRF = "authentik_csrf"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
"""cookie-octet (RFC 6265 4.1.1)."""
_SECONDS = re.compile(r"-?[0-9]{1,10}")
MAX_COOKIES = 50
"""RFC 6265 6.1 asks user agents for at least 50 per domain."""


class Jar:
    """The cookies of one login."""

    __slots__ = ("_values", "session_expires_at")

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self.session_expires_at: float | None = None
        """Seconds since the epoch at which the session cookie ends; None for a cookie without an end."""

    def get(self, name: str) -> str:
        """The value of a cookie, empty when there is none."""
        return self._values.get(name, "")

    def header(self) -> str:
        """The value of the Cookie header, empty without cookies."""
        return "; ".join(f"{name}={value}" for name, value in self._values.items())

    def receive(self, headers: Iterable[str], now: float) -> None:
        """Take the Set-Cookie headers of a response; unusable ones are ignored (RFC 6265 5.2).

        now: seconds since the epoch.
        """
        for header in headers:
            pair, *attributes = header.split(";")
            name, equals, value = pair.strip().partition("=")
            name, value = name.strip(), value.strip().strip('"')
            if not equals or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                continue
            expires_at = _expiry(attributes, now)
            if expires_at is not None and expires_at <= now:
                self._values.pop(name, None)
            elif name in self._values or len(self._values) < MAX_COOKIES:
                self._values[name] = value
            if name == SESSION:
                self.session_expires_at = expires_at


def _expiry(attributes: list[str], now: float) -> float | None:
    date = ""
    for attribute in attributes:
        key, _, value = attribute.partition("=")
        match key.strip().lower():
            case "max-age":  # "Max-Age has precedence" (RFC 6265 5.3)
                digits = value.strip()
                if _SECONDS.fullmatch(digits):
                    return now + max(int(digits), 0)
            case "expires":
                date = value.strip()
    if not date:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
