"""Sums over what was counted are what counting each family on its own would have given."""

from hypothesis import given
from hypothesis import strategies as st

from outpost.observe.metrics import BUCKETS, Histogram, Requests, Tally

SECONDS = st.one_of(st.sampled_from([0.0, *BUCKETS]), st.floats(0, 100, allow_subnormal=False))
KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from([0, 49]), st.sampled_from(["", "no"]))


def shown(family) -> dict:
    return {(s.name, tuple(sorted(s.labels.items()))): round(s.value, 6) for s in family.samples}


@given(st.lists(st.tuples(KEYS, SECONDS), max_size=60))
def test_folding_changes_no_figure(requests) -> None:
    subject = Requests()
    durations, refused = Histogram("d", "", ("type",)), Tally("r", "", ("reason", "type"))
    for key, seconds in requests:
        subject.count(key, seconds)
        durations.observe((key[0],), seconds)
        if key[3]:
            refused.add((key[3], key[0]))
    more = {"outpost_name": "hub"}
    folded = subject.durations("d", "", ("type",), lambda key: (key[0],), more)
    assert shown(folded) == shown(durations.family(more))
    totals = subject.totals("r", "", ("reason", "type"), lambda key: (key[3], key[0]) if key[3] else None, more)
    assert shown(totals) == shown(refused.family(more))


def test_a_scrape_changes_nothing() -> None:
    subject = Requests()
    subject.count(("a", "x", 0, ""), 0.2)
    once = shown(subject.durations("d", "", ("type",), lambda key: key[:1], {}))
    assert shown(subject.durations("d", "", ("type",), lambda key: key[:1], {})) == once
    assert once["d_count", (("type", "a"),)] == 1
