"""What counts as a regression, with a clock that stands still unless work is done: no timing, no noise but its own."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import guard


class Machine:
    """Its clock moves by what is worked on it; `noise` is added to each piece of work in turn."""

    def __init__(self, *noise: float) -> None:
        self.now = 0.0
        self.noise = itertools.cycle(noise or (0.0,))

    def work(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds + next(self.noise)

        return run

    def clock(self) -> float:
        return self.now

    def ratio(self, subject_s: float) -> float:
        return guard.ratio(self.work(subject_s), self.work(0.0005), self.clock, rounds=100)


@pytest.mark.parametrize("subject_s", [0.000_002, 0.0001, 0.02])
def test_the_ratio_is_of_one_call(subject_s: float) -> None:
    assert Machine().ratio(subject_s) == pytest.approx(subject_s / 0.0005)


def test_disturbed_turns_do_not_count() -> None:
    # Three of five pieces of work are interrupted, one of them for long.
    noisy = Machine(0.003, 0.0, 0.0002, 0.05, 0.0)
    assert noisy.ratio(0.0004) == pytest.approx(0.8)


def test_a_twin_slower_by_more_than_the_tolerance_is_reported_and_no_other() -> None:
    stored = Machine().ratio(0.0004)
    for factor, expected in ((1.0, False), (0.5, False), (1.14, False), (1.16, True), (2.0, True)):
        found = Machine(0.0, 0.001, 0.0).ratio(0.0004 * factor)
        again = Machine(0.0, 0.001, 0.0)
        believed = guard.confirmed(found, stored, lambda again=again, factor=factor: again.ratio(0.0004 * factor))
        assert guard.is_slower(believed, stored) is expected, factor


def test_a_ratio_that_was_worse_once_is_not_believed() -> None:
    tries = iter([1.5, 1.02])
    assert guard.confirmed(1.6, 1.0, lambda: next(tries)) == 1.02
    # A good one needs no further try, a bad one stays bad.
    assert guard.confirmed(1.1, 1.0, lambda: pytest.fail("measured again")) == 1.1
    assert guard.confirmed(1.6, 1.0, lambda: 1.4) == 1.4


def test_ratios_are_kept_by_version_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baseline.json"
    assert guard.load(path) == {}
    guard.store({"a": 0.123456, "b": 2.0}, path)
    monkeypatch.setattr(guard, "python", lambda: "3.99")
    assert guard.load(path) == {}
    guard.store({"a": 9.0}, path)
    assert guard.load(path) == {"a": 9.0}
    monkeypatch.undo()
    assert guard.load(path) == {"a": 0.123, "b": 2.0}
