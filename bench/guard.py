"""Ratios that survive a noisy machine, and when one of them is a regression.

A subject and the reference take turns, some hundred times, each for a fraction of a millisecond. Of each the quickest
turn counts: what disturbs a turn can only make it longer. A ratio that looks worse is measured again before it is
believed, and the best of the tries counts.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.15
TRIES = 4
ROUNDS = 300
TURN_S = 0.0004
"""About as long as one turn of a subject lasts; short enough to fall between two interruptions."""

Work = Callable[[], object]
Clock = Callable[[], float]


def seconds(work: Work, clock: Clock) -> float:
    """That it takes once."""
    started = clock()
    work()
    return clock() - started


def turn(subject: Work, clock: Clock = time.perf_counter) -> tuple[Work, int]:
    """The subject repeated until it takes `TURN_S`, and how often that is."""
    count = max(1, round(TURN_S / min(seconds(subject, clock) for _ in range(20))))

    def repeat() -> None:
        for _ in range(count):
            subject()

    return repeat, count


def ratio(subject: Work, reference: Work, clock: Clock = time.perf_counter, rounds: int = ROUNDS) -> float:
    """Seconds of one call of the subject by those of the reference."""
    repeat, count = turn(subject, clock)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(seconds(reference, clock))
        ours.append(seconds(repeat, clock))
    return min(ours) / count / min(theirs)


def is_slower(found: float, stored: float) -> bool:
    """More than the tolerance above the stored ratio."""
    return found > stored * (1 + TOLERANCE)


def confirmed(found: float, stored: float, again: Callable[[], float]) -> float:
    """The ratio to believe: a worse one only if it comes back on every further try."""
    for _ in range(TRIES - 1):
        if not is_slower(found, stored):
            break
        found = min(found, again())
    return found


def python() -> str:
    """Ratios are of one version of Python: another runs the reference at another speed."""
    return ".".join(platform.python_version_tuple()[:2])


def load(path: Path = BASELINE) -> dict[str, float]:
    """Stored ratios by subject; empty if there are none for this Python."""
    stored: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    return stored.get(python(), {})


def store(ratios: dict[str, float], path: Path = BASELINE) -> None:
    """Replace those of this Python."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[python()] = {name: float(f"{value:.3g}") for name, value in sorted(ratios.items())}
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
