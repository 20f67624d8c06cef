"""The server's session as its cookie shows it: handle and claims."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

import orjson

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Claims:
    """What the session cookie says without its signature being checked: it came straight from the server."""

    handle: str
    """SHA-256 of the session's key in hexadecimal, as the server names it when the session ends."""
    subject: str | None
    """`uid` of the logged-in user; None when the cookie does not tell."""
    is_authenticated: bool | None
    """None when the cookie does not tell."""


def read_claims(cookie: str) -> Claims:
    """The claims of an `authentik_session` cookie; one that is no JWT tells its handle only."""
    payload = _jwt_payload(cookie)
    if payload is None:
        return Claims(hashlib.sha256(cookie.encode()).hexdigest(), None, None)
    sid, subject = payload.get("sid"), payload.get("sub")
    key = sid if isinstance(sid, str) and sid else cookie
    # A JWT that does not say so is not taken for a login.
    authenticated = payload.get("authenticated") is True and isinstance(subject, str) and subject not in ("", ANONYMOUS)
    return Claims(
        hashlib.sha256(key.encode()).hexdigest(), subject if isinstance(subject, str) else None, authenticated
    )


def _jwt_payload(cookie: str) -> dict[str, object] | None:
    parts = cookie.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    return payload if isinstance(payload, dict) else None
