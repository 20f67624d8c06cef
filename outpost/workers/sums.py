"""Numbers of all workers as one: totals never go backwards, whoever comes and goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, final

from outpost.workers.words import Family, Numbers, Sample

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LASTING: Final = frozenset({"counter", "histogram"})
"""Types whose numbers count on when their worker is gone."""

Key = tuple[str, tuple[tuple[str, str], ...]]


def family_of(metric: Metric) -> Family:
    """A metric as it travels."""
    samples = tuple(Sample(one.name, tuple(one.labels.items()), float(one.value)) for one in metric.samples)
    return Family(metric.name, metric.documentation, metric.type, samples)


@final
class Sums:
    """The last numbers of each worker, and what those that are gone have counted."""

    def __init__(self) -> None:
        self._last: dict[int, Numbers] = {}
        self._gone: dict[str, tuple[Family, Counter[Key]]] = {}
        self._counters: Counter[str] = Counter()

    def take(self, worker: int, numbers: Numbers) -> None:
        """The numbers of a worker as they are now."""
        self._last[worker] = numbers

    def retire(self, worker: int) -> None:
        """A worker is gone: its last numbers stay, as far as they are totals."""
        numbers = self._last.pop(worker, None)
        if numbers is None:
            return
        self._counters.update(numbers.counters)
        for family in numbers.families:
            if family.type in LASTING:
                _, sums = self._gone.setdefault(family.name, (family, Counter()))
                _add(sums, family)

    def families(self, further: Iterable[Family] = ()) -> Iterator[Metric]:
        """What a scrape sees of all of them, and of `further` numbers."""
        from prometheus_client.core import Metric  # noqa: PLC0415

        found = {name: (family, sums.copy()) for name, (family, sums) in self._gone.items()}
        for family in (*(one for numbers in self._last.values() for one in numbers.families), *further):
            _, sums = found.setdefault(family.name, (family, Counter()))
            _add(sums, family)
        for family, sums in found.values():
            metric = Metric(family.name, family.help, family.type)
            for (name, labels), value in sums.items():
                metric.add_sample(name, dict(labels), value)
            yield metric

    def counters(self) -> Mapping[str, int]:
        """Totals by name, of those that are gone, too."""
        found = self._counters.copy()
        for numbers in self._last.values():
            found.update(numbers.counters)
        return found

    def gauges(self) -> Mapping[str, int]:
        """Sizes by name, of those that are there."""
        found: Counter[str] = Counter()
        for numbers in self._last.values():
            found.update(numbers.gauges)
        return found


def _add(sums: Counter[Key], family: Family) -> None:
    for sample in family.samples:
        # Not `update`: the values are floats.
        sums[sample.name, sample.labels] += sample.value  # type: ignore[assignment]
