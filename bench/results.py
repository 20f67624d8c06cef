"""What one run of the bench found."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from typing import Self

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
        return cls(runs=runs, **found)
