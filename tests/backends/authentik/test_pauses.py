"""Long work in threads pauses after so many items and loses none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outpost.backends.authentik import pauses
from outpost.backends.authentik.pauses import gently


@pytest.mark.parametrize(
    ("count", "every", "expected"), [(0, 4, 0), (3, 4, 0), (4, 4, 1), (9, 4, 2), (3, 1, 3), (5, 0, 0)]
)
def test_everything_comes_in_order_with_a_pause_after_so_many(
    count: int, every: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(pauses.time, "sleep", slept.append)
    assert list(gently(range(count), every)) == list(range(count))
    assert slept == [pauses.PAUSE_S] * expected


def test_nothing_is_taken_before_it_is_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    found = gently(items(), 1)
    assert next(found) == 0 and taken == [0]
