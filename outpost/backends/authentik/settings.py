"""What the authentik backend is told by its operator; filled by `outpost.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outpost.backends.authentik.address import Address
from outpost.errors import ConfigError
from outpost.identity import LdapOptions, RadiusOptions, Secret

SERVICES = ("ldap", "radius")
AUTO = "auto"
"""Key in `AuthentikSettings.tokens` of a token whose outpost type decides what it serves."""


@dataclass(frozen=True, slots=True)
class AuthentikSettings:
    """Settings of the authentik backend. Times are seconds."""

    host: str
    """AUTHENTIK_HOST: `https://idp.example`, `https://idp.example/sub/path` or `unix:///run/authentik.sock`."""
    tokens: Mapping[str, Secret]
    """By service (`ldap`, `radius`), or one under `auto`."""
    insecure: bool = False
    """AUTHENTIK_INSECURE: the server's certificate is not verified."""
    version: str = ""
    """Version told to the server in User-Agent and hello; empty: the server's own once known, else ours."""
    page_size: int = 100
    """AUTHENTIK_LDAP__PAGE_SIZE; the server caps it at its own maximum."""
    concurrency: int = 4
    """Pages read from the server at a time."""
    login_concurrency: int = 128
    """Logins driven through flows at a time at most, fewer while they run out of time; further ones wait within their
    deadline."""
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 30.0
    """One REST request, all attempts counted separately; a page of users takes a loaded server seconds."""
    login_timeout_s: float = 10.0
    """One login from the client's question on: its wait for a turn, the flow, proof and access check."""
    duo_timeout_s: float = 60.0
    """Added while the server waits for the answer to a Duo push: its POST blocks until then."""
    challenge_timeout_s: float = 120.0
    """How long the answer to a Challenge is waited for."""
    attempts: int = 3
    """Tries of one REST request before it counts as failed; delays grow with full jitter."""
    refresh_interval_s: float = 300.0
    """Used when the server does not say (before 2024.6)."""
    watch_interval_s: float = 1.0
    """Look for freshly changed users this often while sessions of ours are alive; 0 turns it off."""
    retry_max_s: float = 3.0
    """Longest pause between two tries to reach a server that does not answer: it is used within 5 s of its return."""
    cache_path: Path | None = None
    """Directory for the copy of the last good state (no secrets in it), for a start without the server."""
    refuse_on_mapping_failure: bool = False
    """Refuse a RADIUS login whose property mappings failed on the server; otherwise it is accepted without them."""
    end_sessions: bool = True
    """Log out the server's sessions that nothing uses any more."""
    session_lease_s: float = 600.0
    """A session that nobody holds is ended after this; longer than a credential is remembered."""
    ldap_options: Mapping[str, LdapOptions] = field(default_factory=dict)
    """By provider name."""
    radius_options: Mapping[str, RadiusOptions] = field(default_factory=dict)
    """By provider name."""

    def address(self) -> Address:
        """Where the server is. Raises ConfigError."""
        return Address.parse(self.host)

    def check(self) -> None:
        """Raise ConfigError for settings that cannot work."""
        self.address().proxy()
        if not self.tokens or any(not token for token in self.tokens.values()):
            raise ConfigError("is empty; paste the token of the outpost", source="AUTHENTIK_TOKEN")
        for service in self.tokens:
            if service not in (*SERVICES, AUTO):
                raise ConfigError(f"no such service: {service!r}", source="AUTHENTIK_TOKEN")
        if AUTO in self.tokens and len(self.tokens) > 1:
            raise ConfigError(
                "set either this or one token per service (AUTHENTIK_TOKEN_LDAP, AUTHENTIK_TOKEN_RADIUS)",
                source="AUTHENTIK_TOKEN",
            )
        for token in self.tokens.values():
            text = token.reveal()
            if not text.isascii() or any(octet <= 0x20 or octet == 0x7F for octet in text):
                raise ConfigError("has blanks, line ends or non-ASCII characters", source="AUTHENTIK_TOKEN")
            if text[:1] == text[-1:] and text[:1] in (b'"', b"'"):  # a file of variables is no shell script
                raise ConfigError("is in quotation marks; give it without", source="AUTHENTIK_TOKEN")
        for name in ("page_size", "concurrency", "login_concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError("must be at least 1", key=f"authentik.{name}")
        for name in ("connect_timeout_s", "request_timeout_s", "login_timeout_s", "challenge_timeout_s", "retry_max_s"):
            if getattr(self, name) <= 0:
                raise ConfigError("must be more than 0", key=f"authentik.{name}")
