"""Everything put together: one backend, one gate, the servers, and who hears of which change.

backend ──decides──► gate ──► LDAP and RADIUS servers
   │  ▲                ▲
   │  └─ refresh       └── revocations, and whether they arrive
   └── people and catalog changed ──► directories, providers, certificates
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, final

from outpost import __version__
from outpost.app import backend as backends
from outpost.app.http import HttpServer
from outpost.app.servers import InProcess, Options, People, Servers
from outpost.config.sections import ListenSettings, ProcessSettings
from outpost.config.settings import Settings
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import LimiterSettings
from outpost.identity import Revoked, Secret, Served
from outpost.ldap.directories import Directories, shelved
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from outpost.ldap.tls import TlsSettings, self_signed
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import gauges, totals
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits as ExchangeLimits

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from outpost.observe.exposition import Exposition
    from outpost.workers.team import Team

LOGGER = "outpost"
STOPPING = "stopping"
SERVICES = ("ldap", "radius")
Opened = Mapping[str, Sequence[socket.socket]]
"""Sockets by service."""


class Serving(Protocol):
    """Who has the sockets of LDAP and RADIUS: this process, or its workers."""

    def serve(self, served: Served) -> set[str]:
        """Serve these from now on; what an operator has to mend about them."""
        ...

    async def start(self, opened: Sequence[Opened]) -> None:
        """Serve these sockets, one mapping per process; they are closed by `stop`. Raises OutpostError."""
        ...

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds; idempotent."""
        ...

    def readiness(self, service: str) -> str:
        """Empty, or what is still to be done here."""
        ...

    async def count(self) -> None:
        """Bring the figures up to date."""
        ...

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Totals to be added to those of the gate and the log."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """Sizes to be added to those of the gate."""
        ...


@final
class Appliance:
    """The composition. Lives on one event loop; `start` once, `stop` as often as you like."""

    def __init__(self, settings: Settings, log: LogWriter, build: backends.Build = backends.build) -> None:
        """Raises ConfigError."""
        self._log = log
        self._is_stopping = False
        self._told: set[str] = set()
        self._source = build(settings, log, self._publish, self._set_connected)
        self._backend = self._source.backend
        source = self._source
        hash_key = os.urandom(32)
        self._gate = Gate(
            self._backend,
            gate_settings(settings),
            passwords=source.passwords,
            certificates=source.certificates,
            hash_key=hash_key,
            log=lambda level, event, fields: log.put(level, "outpost.credentials", event, fields),
        )
        self._gate.set_connected(self._source.is_connected)
        self._team = self._worker_team(settings, hash_key) if settings.part(ProcessSettings).workers > 1 else None
        self._serving: Serving = self._in_process(settings) if self._team is None else self._team
        self._exposition: Exposition | None = None
        self._http = HttpServer(self.readiness, self._scraped)

    async def start(self, sockets: Opened, *further: Opened) -> None:
        """Begin to serve on these sockets, by service, and on `further` ones of workers; they are closed by `stop`.

        Raises OutpostError.
        """
        await self._http.start(sockets["metrics"])
        await self._backend.start()
        self._backend.subscribe(self._changed)
        self._changed()
        await self._serving.start((sockets, *further))

    async def refresh(self) -> None:
        """Read everything again (SIGHUP); what fails is logged, and the old state kept."""
        try:
            await self._backend.refresh()
        except Exception as exc:  # whatever it is, what is served must go on being served
            self._log.bug(LOGGER, "a refresh failed", exc)
        if not self._is_stopping:
            # Files that are not the backend's may have changed, too.
            self._changed()

    async def roll(self) -> None:
        """Replace the workers one after the other, without refusing a connection (SIGUSR2)."""
        if self._team is not None:
            await self._team.roll()

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds, end everything; idempotent."""
        self._is_stopping = True
        await self._serving.stop(drain_s)
        await self._gate.stop()
        await self._backend.stop()
        await self._http.stop()

    def readiness(self) -> Mapping[str, str]:
        """Per service an empty string when it is ready, else the reason why it is not."""
        states = dict(self._backend.readiness())
        for service, reason in states.items():
            states[service] = reason or self._serving.readiness(service)
        return dict.fromkeys(states, STOPPING) if self._is_stopping else states

    def _in_process(self, settings: Settings) -> InProcess:
        source, gate, log = self._source, self._gate, self._log
        directories = Directories(
            self._backend, shelved, lambda level, event: log.put(level, LOGGER, event, {}), stored=source.stored
        )
        servers = Servers(
            server_options(settings),
            gate,
            directories,
            log,
            outpost_name=source.outpost_name,
            is_ready=lambda: not self.readiness().get("radius"),
            people=People(
                source.sessions,
                None if source.passwords is None else gate,
                None if source.certificates is None else gate,
            ),
        )
        return InProcess(servers, directories)

    def _worker_team(self, settings: Settings, hash_key: bytes) -> Team:
        # With one process nobody pays for it.
        from outpost.workers.team import Team  # noqa: PLC0415
        from outpost.workers.words import Configure, State  # noqa: PLC0415

        source, log = self._source, self._log
        process = settings.part(ProcessSettings)
        gate, options = gate_settings(settings), server_options(settings)
        certificate, class_key = self_signed(), Secret(os.urandom(32))

        def configure(listeners: tuple[str, ...]) -> Configure:
            return Configure(
                version=__version__,
                listeners=listeners,
                is_json=log.is_json,
                level=log.threshold,
                can_vouch=source.certificates is not None,
                can_change_passwords=source.passwords is not None,
                has_sessions=source.sessions is not None,
                hash_key=Secret(hash_key),
                core_dumps=process.core_dumps,
                drain_s=process.drain_s,
                gate=gate,
                **options._asdict(),
                default_certificate=certificate,
                class_key=class_key,
            )

        def state() -> State:
            return State(
                threshold=log.threshold,
                trusted_since=self._gate.trusted_since,
                can_change_passwords=self._gate.can_change_passwords(),
                readiness=dict(self._backend.readiness()),
                outposts={service: source.outpost_name(service) for service in SERVICES},
            )

        return Team(
            self._gate,
            self._backend,
            log,
            source.sessions,
            configure=configure,
            state=state,
            most=gate.pending,
            drain_s=process.drain_s,
            flawed=self._flawed,
            stored=source.stored,
        )

    # -- who hears of what ------------------------------------------------------------------------

    def _publish(self, revoked: Revoked) -> None:
        self._gate.publish(revoked)

    def _set_connected(self, connected: bool) -> None:
        self._gate.set_connected(connected)

    def _changed(self) -> None:
        """People or catalog changed: hand the new ones to the servers, and tell once what an operator has to mend."""
        self._tell(self._serving.serve(self._backend.served()))

    def _flawed(self) -> None:
        if self._team is not None:
            self._tell(self._team.flaws)

    def _tell(self, flaws: set[str]) -> None:
        for flaw in sorted(flaws - self._told):
            self._log.put("warning", LOGGER, flaw, {})
        self._told = flaws

    def _families(self) -> Iterator[Metric]:
        yield gauges("outpost_info", "What runs.", ("version",), [((__version__,), 1.0)])
        yield gauges("outpost_ready", "The service is ready.", ("service",), self._ready_rows())
        further, sizes = self._serving.counters(), self._serving.gauges()
        counted = {name: value + further.get(name, 0) for name, value in self._gate.counters().items()}
        yield from totals("outpost_credentials", "Credentials", counted)
        for name, value in self._gate.gauges().items():
            what = f"Credentials: {name.replace('_', ' ')} now."
            yield gauges(f"outpost_credentials_{name}", what, (), [((), float(value + sizes.get(name, 0)))])
        yield from totals("outpost_log", "Log lines", {"dropped": self._log.dropped + further.get("log_dropped", 0)})

    async def _scraped(self) -> bytes:
        await self._serving.count()
        if self._exposition is None:
            self._exposition = await asyncio.to_thread(self._made_exposition)
        return self._exposition.text()

    def _made_exposition(self) -> Exposition:
        from outpost.observe.exposition import Exposition  # noqa: PLC0415

        exposition = Exposition()
        for families in (self._families, self._serving.families, self._source.families):
            exposition.add(families)
        return exposition

    def _ready_rows(self) -> Iterator[tuple[tuple[str, ...], float]]:
        for service, reason in self.readiness().items():
            yield (service,), 0.0 if reason else 1.0


def gate_settings(settings: Settings) -> GateSettings:
    """The gate's settings, those of its parts in place."""
    return dataclasses.replace(
        settings.part(GateSettings), cache=settings.part(CacheSettings), limiter=settings.part(LimiterSettings)
    )


def server_options(settings: Settings) -> Options:
    """What the servers are told."""
    return Options(
        settings.part(TlsSettings),
        settings.part(ServerLimits),
        settings.part(SearchLimits),
        settings.part(DictionarySettings),
        settings.part(ExchangeLimits),
        settings.part(ListenSettings).trusted_proxy_cidrs,
    )
