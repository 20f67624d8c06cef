"""Codec and search against the stored ratios: `make bench-check`. `make bench-baseline` renews them.

A failure names the subject, its ratio to the reference loop, and the stored one. guard.py says how noise is kept out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import guard, micro_ber, micro_radius, micro_search, reference
from bench.population import BASE_DN
from outpost._fastber import Inbox, decode_message


def _decode(data: bytes) -> guard.Work:
    return lambda: decode_message(data, micro_ber.LIMITS)


def _inbox() -> guard.Work:
    inbox, data = Inbox(micro_ber.LIMITS), micro_ber.BIND + micro_ber.SEARCH

    def receive() -> None:
        inbox.buffer()[: len(data)] = data
        inbox.received(len(data))
        assert inbox.next() is not None and inbox.next() is not None

    return receive


def _search(name: str) -> guard.Work:
    octets, view = micro_search.request(name), micro_search.snapshot().full_view()
    return lambda: micro_search.search_compiled(octets, view)


def _compare() -> guard.Work:
    snapshot = micro_search.snapshot()
    view, dn = snapshot.full_view(), f"cn=group7,ou=groups,{BASE_DN}".encode()
    return lambda: snapshot.compare(view, dn, b"memberUid", b"nobody")


SUBJECTS: dict[str, Callable[[], guard.Work]] = {
    "decode bind": lambda: _decode(micro_ber.BIND),
    "decode search": lambda: _decode(micro_ber.SEARCH),
    "decode nested search": lambda: _decode(micro_ber.NESTED),
    "inbox, bind and search": _inbox,
    "encode entry": lambda: micro_ber.entry_by_core,
    "encode searchResDone": lambda: micro_ber.result_by_core,
    "encode bindResponse": lambda: micro_ber.bind_result_by_core,
    **{f"search, {name}": (lambda name=name: _search(name)) for name in micro_search.CASES},  # type: ignore[misc]
    "compare": _compare,
    "RADIUS login, packet core": lambda: micro_radius.core,
}


@pytest.fixture(scope="module")
def renewed(request: pytest.FixtureRequest) -> Iterator[dict[str, float] | None]:
    """Where new ratios are put when they are to be stored."""
    if not request.config.getoption("--renew"):
        yield None
        return
    ratios: dict[str, float] = {}
    yield ratios
    guard.store(ratios)


@pytest.mark.parametrize("name", SUBJECTS)
def test_not_slower(benchmark: Any, name: str, renewed: dict[str, float] | None) -> None:
    subject = SUBJECTS[name]()
    if renewed is not None:
        renewed[name] = statistics.median(guard.ratio(subject, reference.work) for _ in range(5))
    elif name not in guard.load():
        pytest.skip(f"no ratio is stored for {name} and Python {guard.python()}")
    theirs: list[float] = []
    repeat, count = guard.turn(subject)
    benchmark.pedantic(
        repeat,
        setup=lambda: theirs.append(guard.seconds(reference.work, time.perf_counter)),
        rounds=guard.ROUNDS,
        warmup_rounds=10,
    )
    found = benchmark.stats.stats.min / count / min(theirs)
    stored = (renewed if renewed is not None else guard.load())[name]
    found = guard.confirmed(found, stored, lambda: guard.ratio(subject, reference.work))
    benchmark.extra_info.update(ratio=found, stored=stored, calls=count)
    print(f"{name}: {found / stored:.2f} of the stored ratio")
    assert not guard.is_slower(found, stored), (
        f"{name} is {found / stored - 1:.0%} slower than it was: ratio {found:.4g}, stored {stored:.4g}"
    )


def test_a_slower_twin_is_reported() -> None:
    """The check sees on this machine, now, what it is for."""
    bind = SUBJECTS["decode bind"]()

    def honest() -> None:
        for _ in range(10):
            bind()

    def slower() -> None:
        for _ in range(13):
            bind()

    stored = min(guard.ratio(honest, reference.work) for _ in range(3))
    found = guard.ratio(slower, reference.work)
    assert guard.is_slower(guard.confirmed(found, stored, lambda: guard.ratio(slower, reference.work)), stored)
    found = guard.ratio(honest, reference.work)
    assert not guard.is_slower(guard.confirmed(found, stored, lambda: guard.ratio(honest, reference.work)), stored)
