"""Everything put together: one backend, one gate, the servers, and who hears of which change.

backend ──decides──► gate ──► LDAP and RADIUS servers
   │  ▲                ▲
   │  └─ refresh       └── revocations, and whether they arrive
   └── people and catalog changed ──► directories, providers, certificates
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import final

from prometheus_client.core import Metric

from outpost import __version__
from outpost.app import backend as backends
from outpost.app.http import HttpServer
from outpost.config.sections import ListenSettings
from outpost.config.settings import Settings
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import LimiterSettings
from outpost.identity import Revoked
from outpost.ldap.directories import Directories
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import LdapServer, ServerLimits
from outpost.ldap.tls import TlsSettings
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import Exposition, gauges, totals
from outpost.observe.radius import RadiusMeter
from outpost.radius import dictionary
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits as ExchangeLimits
from outpost.radius.server import RadiusServer

LOGGER = "outpost"
STOPPING = "stopping"


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
        self._gate = Gate(
            self._backend, gate_settings(settings), passwords=source.passwords, certificates=source.certificates
        )
        self._gate.set_connected(self._source.is_connected)
        self._ldap_meter = LdapMeter(log, lambda: self._source.outpost_name("ldap"))
        self._directories = Directories(self._backend, lambda level, event: log.put(level, LOGGER, event, {}))
        self._ldap = LdapServer(
            self._gate,
            self._directories,
            self._ldap_meter,
            sessions=self._source.sessions,
            passwords=None if source.passwords is None else self._gate,
            voucher=None if source.certificates is None else self._gate,
            tls=settings.part(TlsSettings),
            limits=settings.part(ServerLimits),
            search_limits=settings.part(SearchLimits),
            trusted_proxies=settings.part(ListenSettings).trusted_proxy_cidrs,
        )
        self._radius_meter = RadiusMeter(log, lambda: self._source.outpost_name("radius"))
        self._radius = RadiusServer(
            self._gate,
            self._radius_meter,
            is_ready=lambda: not self.readiness().get("radius"),
            dictionary=dictionary.load(settings.part(DictionarySettings).dictionaries),
            limits=settings.part(ExchangeLimits),
        )
        self._exposition = Exposition()
        for families in (self._families, self._ldap_meter.families, self._radius_meter.families, self._source.families):
            self._exposition.add(families)
        self._http = HttpServer(self.readiness, self._exposition.text)

    async def start(self, sockets: Mapping[str, Sequence[socket.socket]]) -> None:
        """Begin to serve on these sockets, by service; they are closed by `stop`. Raises ConfigError."""
        await self._http.start(sockets["metrics"])
        await self._backend.start()
        self._backend.subscribe(self._changed)
        self._changed()
        await self._ldap.start({name: sockets[name] for name in ("ldap", "ldaps")})
        await self._radius.start(sockets["radius"])

    async def refresh(self) -> None:
        """Read everything again (SIGHUP); what fails is logged, and the old state kept."""
        try:
            await self._backend.refresh()
        except Exception as exc:  # whatever it is, what is served must go on being served
            self._log.bug(LOGGER, "a refresh failed", exc)
        if not self._is_stopping:
            # Files that are not the backend's may have changed, too.
            self._changed()

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds, end everything; idempotent."""
        self._is_stopping = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ldap.stop(drain_s))
            group.create_task(self._radius.stop(drain_s))
        await self._gate.stop()
        await self._backend.stop()
        await self._http.stop()

    def readiness(self) -> Mapping[str, str]:
        """Per service an empty string when it is ready, else the reason why it is not."""
        states = dict(self._backend.readiness())
        if not states.get("ldap", "absent"):
            states["ldap"] = self._directories.readiness()
        return dict.fromkeys(states, STOPPING) if self._is_stopping else states

    # -- who hears of what ------------------------------------------------------------------------

    def _publish(self, revoked: Revoked) -> None:
        self._gate.publish(revoked)

    def _set_connected(self, connected: bool) -> None:
        self._gate.set_connected(connected)

    def _changed(self) -> None:
        """People or catalog changed: hand the new ones to the servers, and tell once what an operator has to mend."""
        served = self._backend.served()
        flaws = {str(flaw) for flaw in (*self._ldap.serve(served), *self._radius.serve(served.radius))}
        for flaw in sorted(flaws - self._told):
            self._log.put("warning", LOGGER, flaw, {})
        self._told = flaws

    def _families(self) -> Iterator[Metric]:
        yield gauges("outpost_info", "What runs.", ("version",), [((__version__,), 1.0)])
        yield gauges("outpost_ready", "The service is ready.", ("service",), self._ready_rows())
        yield from totals("outpost_credentials", "Credentials", self._gate.counters())
        for name, value in self._gate.gauges().items():
            what = f"Credentials: {name.replace('_', ' ')} now."
            yield gauges(f"outpost_credentials_{name}", what, (), [((), float(value))])
        yield from totals("outpost_log", "Log lines", {"dropped": self._log.dropped})

    def _ready_rows(self) -> Iterator[tuple[tuple[str, ...], float]]:
        for service, reason in self.readiness().items():
            yield (service,), 0.0 if reason else 1.0


def gate_settings(settings: Settings) -> GateSettings:
    """The gate's settings, those of its parts in place."""
    return dataclasses.replace(
        settings.part(GateSettings), cache=settings.part(CacheSettings), limiter=settings.part(LimiterSettings)
    )
