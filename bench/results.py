"""What one run of the bench found."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from typing import Any, Self

from bench.cases import Case


@dataclass(frozen=True)
class Run:
    """One run of one case against one server. CPU and latency in microseconds, `others` and `stolen` in processors."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    rss_mib: float
    others: float
    stolen: float


@dataclass(frozen=True)
class Compared:
    """One work round after round, by one process and by several: CPU µs per operation, or operations per second."""

    alone: list[float]
    together: list[float]

    @property
    def ratios(self) -> list[float]:
        """Of each round, what several processes take or do by what one does."""
        return [b / a for a, b in zip(self.alone, self.together, strict=True)]


@dataclass(frozen=True)
class Teamwork:
    """One process against a parent and its workers."""

    workers: int
    cost: dict[str, Compared]
    """All processes on one processor: CPU µs per operation of all of them."""
    room: dict[str, Compared]
    """All processes on two processors, the generator among them: operations per second."""
    memory_mib: list[float]
    """Proportional set size: of the one process, of the team, and what of the team's the directories take."""

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made of it."""
        cost, room = ({name: Compared(**one) for name, one in found[kind].items()} for kind in ("cost", "room"))
        return cls(found["workers"], cost, room, found["memory_mib"])


@dataclass
class Results:
    """Everything that one run of the bench found: `runs[case][server]`, in the order they were made."""

    machine: str
    date: str
    versions: dict[str, str]
    command: str
    users: int
    groups: int
    seconds: float
    rounds: int
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    team: Teamwork | None = None
    """None where only a part was measured."""

    def add(self, case: str, server: str, run: Run) -> None:
        """One more run."""
        self.runs.setdefault(case, {}).setdefault(server, []).append(run)

    def of(self, case: str, server: str) -> list[Run]:
        """The runs of one server, none if it is absent."""
        return self.runs.get(case, {}).get(server, [])

    def ratio(self, case: Case) -> float | None:
        """Our CPU time per operation by the peer's: the median of the rounds' ratios."""
        pairs = zip(self.of(case.name, "outpost"), self.of(case.name, case.peer), strict=False)
        ratios = [ours.cpu_us / theirs.cpu_us for ours, theirs in pairs if theirs.cpu_us]
        return statistics.median(ratios) if ratios else None

    def to_json(self) -> str:
        """To be read by `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        found = json.loads(text)
        runs = {c: {s: [Run(**r) for r in many] for s, many in of.items()} for c, of in found.pop("runs").items()}
        team = found.pop("team", None)
        return cls(runs=runs, team=None if team is None else Teamwork.from_dict(team), **found)
