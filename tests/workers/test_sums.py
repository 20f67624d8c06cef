from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from outpost.observe.metrics import Histogram
from outpost.workers.sums import Sums, family_of
from outpost.workers.words import TO_PARENT, Family, Numbers, Sample


def numbers(count: float, open_now: float, took_s: float = 0.004) -> Numbers:
    """As they arrive."""
    counter = CounterMetricFamily("asked", "Asked.", labels=("app",))
    counter.add_metric(("mail",), count)
    took = Histogram("took", "Took.", ("app",))
    for _ in range(int(count)):
        took.observe(("mail",), took_s)
    gauge = GaugeMetricFamily("open", "Open.", value=open_now)
    families = tuple(family_of(metric) for metric in (counter, took.family({}), gauge))
    found = Numbers(1, families, {"cache_hits": int(count)}, {"cache_entries": int(open_now)})
    arrived = TO_PARENT.decode(TO_PARENT.encode(found))
    assert arrived == found
    return found


def text(sums: Sums, *further: Family) -> dict[str, float]:
    """What a scraper reads."""

    class Source:
        def collect(self):
            return list(sums.families(further))

    registry = CollectorRegistry()
    registry.register(Source())  # type: ignore[arg-type]
    lines = generate_latest(registry).decode().splitlines()
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(list(sums.families(further)))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_numbers_of_all_are_added() -> None:
    sums = Sums()
    sums.take(1, numbers(3, 5))
    sums.take(2, numbers(4, 1, took_s=0.2))
    found = text(sums)
    assert found['asked_total{app="mail"}'] == 7
    assert found["open"] == 6
    assert found['took_bucket{app="mail",le="0.005"}'] == 3
    assert found['took_bucket{app="mail",le="+Inf"}'] == found['took_count{app="mail"}'] == 7
    assert sums.counters() == {"cache_hits": 7} and sums.gauges() == {"cache_entries": 6}


def test_totals_never_go_backwards_and_sizes_do() -> None:
    sums = Sums()
    sums.take(1, numbers(3, 5))
    sums.take(2, numbers(4, 1))
    sums.retire(1)
    sums.retire(1)
    found = text(sums)
    assert found['asked_total{app="mail"}'] == found['took_count{app="mail"}'] == 7 and found["open"] == 1
    sums.take(3, numbers(1, 1))
    sums.take(3, numbers(2, 1))
    assert text(sums)['asked_total{app="mail"}'] == 9
    assert sums.counters() == {"cache_hits": 9} and sums.gauges() == {"cache_entries": 2}
    sums.retire(2)
    sums.retire(3)
    assert text(sums)['asked_total{app="mail"}'] == 9 and "open" not in text(sums)


def test_further_numbers_are_added_for_one_scrape() -> None:
    sums = Sums()
    sums.take(1, numbers(3, 5))
    further = Family("open", "Open.", "gauge", (Sample("open", (), 10.0),))
    assert text(sums, further)["open"] == 15
    assert text(sums)["open"] == 5
