"""The sections that belong to nobody else: addresses, the log, the process. Cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outpost.config.values import Endpoint, Network, Workers
from outpost.identity import Secret


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen; an empty list switches a listener off."""

    ldap: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 3389),)  # noqa: S104  (a server is to be reached)
    ldaps: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 6636),)  # noqa: S104
    radius: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 1812),)  # noqa: S104
    metrics: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 9300),)  # noqa: S104
    trusted_proxy_cidrs: tuple[Network, ...] = ()
    """Networks whose PROXY protocol header is believed (and demanded)."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how."""

    level: Literal["trace", "debug", "info", "warning", "error"] = "info"
    """Where it is not set, the outpost's own record on the authentik server decides."""
    format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, one JSON object per line otherwise."""
    debug: bool = False
    """Text whatever `format` says (AUTHENTIK_DEBUG)."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """The process itself."""

    drain_s: float = 10.0
    """How long a stop waits for what is in flight."""
    workers: Workers = Workers(1)  # noqa: RUF009  (a number)
    """Serving processes; `auto`: as many as processors may be used. With one, it does everything itself."""
    core_dumps: bool = False
    """Allow core dumps, which hold passwords in flight."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The authentik server and how to prove oneself to it."""

    host: str = ""
    """http(s)://HOST[:PORT][/PATH] or unix://SOCKET."""
    token: Secret | None = None
    """Token of the outpost, whose type decides what is served."""
    token_ldap: Secret | None = None
    """Token of an LDAP outpost, beside one of a RADIUS outpost."""
    token_radius: Secret | None = None
    """Token of a RADIUS outpost, beside one of an LDAP outpost."""
    build_hash: str = ""
    """Shown in the metrics (GIT_BUILD_HASH)."""
