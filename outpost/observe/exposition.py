"""Everything that is counted, as Prometheus reads it; with it comes the library, which `metrics` leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Source = Callable[[], Iterable[Metric]]


@final
class _Folding(Collector):
    def __init__(self, sources: list[Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        for source in self._sources:
            yield from source()

    def describe(self) -> Iterable[Metric]:
        # Names are not looked at before the first scrape.
        return ()


@final
class Exposition:
    """Everything that is counted, in the text format of Prometheus."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Folding(self._sources))

    def add(self, source: Source) -> None:
        """Ask `source` for families at each scrape."""
        self._sources.append(source)

    def text(self) -> bytes:
        """The body of an answer to a scrape."""
        return generate_latest(self._registry)
