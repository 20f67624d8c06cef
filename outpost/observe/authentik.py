"""Metrics and log lines of the authentik backend; implements `outpost.backends.authentik.observer.Observer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, final

from outpost.observe.logs import LEVELS, LogWriter
from outpost.observe.metrics import Histogram, gauges

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOGGER = "outpost.authentik"


class Record(NamedTuple):
    """An outpost record as the server has it."""

    name: str
    uuid: str
    version: str


@final
class AuthentikMeter:
    """Counts and tells what the authentik backend did.

    build: the label of the same name; follows_level: the outposts' records on the server decide what is logged.
    """

    def __init__(self, log: LogWriter, build: str = "", *, follows_level: bool = False) -> None:
        self._log = log
        self._build = build
        self._follows_level = follows_level
        self._levels: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._updated: dict[str, float] = {}
        self._up: dict[str, bool] = {}
        self._flow = {
            method: Histogram(
                f"authentik_outpost_flow_timing_{method}_seconds",
                f"Duration of {method.upper()} requests to the flow executor.",
                ("stage", "flow"),
            )
            for method in ("get", "post")
        }

    def outpost_name(self, service: str) -> str:
        """The name of the outpost that serves `ldap` or `radius`; empty while it is unknown."""
        record = self._records.get(service)
        return record.name if record else ""

    def log(self, level: str, event: str, **fields: object) -> None:
        """Tells."""
        self._log.put(level if level in LEVELS else "info", LOGGER, event, fields)

    def flow_request(self, method: str, stage: str, flow: str, seconds: float) -> None:
        """Counts."""
        self._flow[method].observe((stage, flow), seconds)

    def outpost(self, service: str, name: str, uuid: str, version: str) -> None:
        """Remembers."""
        self._records[service] = Record(name, uuid, version)

    def level(self, service: str, level: str) -> None:
        """Takes it over; of two outposts' levels the one that tells more."""
        if self._follows_level and level in LEVELS:
            self._levels[service] = LEVELS[level]
            self._log.threshold = min(self._levels.values())

    def refreshed(self, service: str, at: float) -> None:
        """Remembers."""
        self._updated[service] = at

    def connection(self, service: str, up: bool) -> None:
        """Remembers."""
        self._up[service] = up

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        for histogram in self._flow.values():
            yield histogram.family({})
        known = self._records.items()
        five = ("outpost_name", "outpost_type", "uuid", "version", "build")
        labels = {service: (r.name, service, r.uuid, r.version, self._build) for service, r in known}
        yield gauges("authentik_outpost_info", "What runs.", five, [(row, 1.0) for row in labels.values()])
        updated = [(labels[service], at) for service, at in self._updated.items() if service in labels]
        yield gauges("authentik_outpost_last_update", "Last complete read, in seconds since the epoch.", five, updated)
        up = [((r.name, service, r.uuid), float(self._up.get(service, False))) for service, r in known]
        yield gauges("authentik_outpost_connection", "The event channel is up.", five[:3], up)
