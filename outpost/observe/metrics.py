"""Numbers for Prometheus: plain counters where the work is done, folded into families when somebody scrapes.

Names and labels of `authentik_outpost_*` are those of authentik's own outposts, in seconds; `outpost_*` are ours.
Label values come from closed sets and from the backend (application slugs), never from a client.  The library is loaded
for the first scrape (`outpost.observe.exposition`): no start waits for it, and who is never scraped does without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

from outpost.observe._rows import BUCKETS, Row

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Labels = tuple[str, ...]
Key = tuple[Any, ...]
LabelsOf = Callable[[Key], Labels | None]


@final
class Histogram:
    """Counts of durations in seconds, by label values."""

    __slots__ = ("_rows", "help", "labels", "name")

    def __init__(self, name: str, help: str, labels: Labels) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._rows: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one duration."""
        one = Row()
        one.observe(seconds)
        self.add(labels, one.listed())

    def add(self, labels: Labels, row: Iterable[float]) -> None:
        """Count what another row counted: per bucket, longer ones, and the sum."""
        before = self._rows.get(labels) or Row().listed()
        self._rows[labels] = [a + b for a, b in zip(before, row, strict=True)]

    def family(self, more: Mapping[str, str]) -> Metric:
        """What a scrape sees, with the labels `more` in front."""
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

        family = HistogramMetricFamily(self.name, self.help, labels=(*more, *self.labels))
        for labels, row in self._rows.items():
            total = 0.0
            buckets = []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), row, strict=False):
                total += count
                buckets.append((bound, total))
            family.add_metric((*more.values(), *labels), buckets=buckets, sum_value=row[-1])
        return family


@final
class Requests:
    """Requests by what they were and how they ended.

    One look-up counts a request; the families of a scrape are sums over what was counted.  Keys are tuples of few
    values; `labels_of` functions map them to label values, or to None for what a family leaves out.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}

    def count(self, key: Key, seconds: float) -> None:
        """Count one request and how long it took."""
        self.row(key).observe(seconds)

    def row(self, key: Key) -> Row:
        """What to count the requests of a key with, for whoever keeps it."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row()
        return row

    def durations(self, name: str, help: str, labels: Labels, labels_of: LabelsOf, more: Mapping[str, str]) -> Metric:
        """A histogram of the durations, with the labels `more` in front."""
        folded = Histogram(name, help, labels)
        for key, cells in self._counted():
            values = labels_of(key)
            if values is not None:
                folded.add(values, cells)
        return folded.family(more)

    def totals(self, name: str, help: str, labels: Labels, labels_of: LabelsOf, more: Mapping[str, str]) -> Metric:
        """Numbers of requests, with the labels `more` in front; name: without `_total`."""
        folded = Tally(name, help, labels)
        for key, cells in self._counted():
            values = labels_of(key)
            if values is not None:
                folded.add(values, int(sum(cells[:-1])))
        return folded.family(more)

    def _counted(self) -> Iterator[tuple[Key, list[float]]]:
        for key, row in self._rows.items():
            cells = row.listed()
            # Rows are handed out before there is anything to count.
            if any(cells[:-1]):
                yield key, cells


@final
class Tally:
    """Totals by label values."""

    __slots__ = ("_rows", "help", "labels", "name")

    def __init__(self, name: str, help: str, labels: Labels) -> None:
        """name: without `_total`, which the exposition adds."""
        self.name = name
        self.help = help
        self.labels = labels
        self._rows: Counter[Labels] = Counter()

    def add(self, labels: Labels, count: int = 1) -> None:
        """Count one, or as many as there were."""
        self._rows[labels] += count

    def family(self, more: Mapping[str, str]) -> Metric:
        """What a scrape sees, with the labels `more` in front."""
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        family = CounterMetricFamily(self.name, self.help, labels=(*more, *self.labels))
        for labels, count in self._rows.items():
            family.add_metric((*more.values(), *labels), count)
        return family


def gauges(name: str, help: str, labels: Labels, rows: Iterable[tuple[Labels, float]]) -> Metric:
    """A family of values that go up and down."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def counter(name: str, help: str, value: float) -> Metric:
    """A family of one total; name: without `_total`, which the exposition adds."""
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

    return CounterMetricFamily(name, help, value=value)


def totals(prefix: str, help: str, counts: Mapping[str, int]) -> Iterator[Metric]:
    """One counter family per name, for rooms that keep their own counters."""
    for name, count in counts.items():
        yield counter(f"{prefix}_{name}", f"{help}: {name.replace('_', ' ')}.", count)
