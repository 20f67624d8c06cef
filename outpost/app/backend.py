"""The one backend that the settings name, and how it is observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outpost.config.sections import ServerSettings
from outpost.config.settings import Settings
from outpost.identity import Backend, CertificateAuthority, Passwords, Publish
from outpost.ldap.operations.bind import Sessions
from outpost.ldap.stored import StoredArenas
from outpost.observe.logs import LogWriter

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True, slots=True)
class Source:
    """A backend and what is told about it."""

    backend: Backend
    outpost_name: Callable[[str], str]
    """By service: what the metrics' label `outpost_name` says."""
    is_connected: bool
    """Revocations would arrive already now; otherwise `set_connected` will tell."""
    families: Callable[[], Iterable[Metric]]
    sessions: Sessions | None = None
    """Those of the server that connections rest on."""
    passwords: Passwords | None = None
    """Who changes them; None where nobody here can."""
    certificates: CertificateAuthority | None = None
    """Who logs in their holders; None where nobody here can."""
    stored: StoredArenas | None = None
    """Where compiled directories outlive the process."""


Build = Callable[[Settings, LogWriter, Publish, Callable[[bool], None]], Source]


def build(settings: Settings, log: LogWriter, publish: Publish, set_connected: Callable[[bool], None]) -> Source:
    """The backend, not started.

    publish: takes revocations; set_connected: told whether every revocation would arrive. Raises ConfigError.
    """
    if settings.directory is not None:
        return _embedded(settings, settings.directory, log, publish)
    return _authentik(settings, log, publish, set_connected)


def _authentik(settings: Settings, log: LogWriter, publish: Publish, set_connected: Callable[[bool], None]) -> Source:
    from outpost.backends.authentik.backend import AuthentikBackend  # noqa: PLC0415
    from outpost.backends.authentik.settings import AuthentikSettings  # noqa: PLC0415
    from outpost.observe.authentik import AuthentikMeter  # noqa: PLC0415

    follows_level = "log.level" not in settings.places
    meter = AuthentikMeter(log, settings.part(ServerSettings).build_hash, follows_level=follows_level)
    part = settings.part(AuthentikSettings)
    backend = AuthentikBackend(part, publish=publish, set_connected=set_connected, observer=meter)
    return Source(
        backend,
        meter.outpost_name,
        is_connected=False,
        families=meter.families,
        sessions=backend.sessions,
        passwords=backend,
        stored=None if part.cache_path is None else StoredArenas(part.cache_path),
    )


def _embedded(settings: Settings, path: Path, log: LogWriter, publish: Publish) -> Source:
    from outpost.app import check  # noqa: PLC0415
    from outpost.backends.embedded.backend import EmbeddedBackend  # noqa: PLC0415

    backend = EmbeddedBackend(
        path,
        extras=check.extras(settings),
        review=check.reviewer(settings),
        publish=publish,
        log=lambda level, event: log.put(level, "outpost.directory", event, {}),
    )
    # Every change of the file passes through this process, so none can be missed.
    return Source(
        backend, lambda _service: "embedded", is_connected=True, families=tuple, passwords=backend, certificates=backend
    )
