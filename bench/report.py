"""RESULTS.md from the figures of one run: `python -m bench.report` writes page and picture anew from results.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import picture
from bench.cases import CASES, Case
from bench.results import Compared, Results, Run, Teamwork

QUIET = 0.1
"""Processors' worth of other work beside which the figures still count as undisturbed."""


def median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    """Of one figure over the runs."""
    return statistics.median(map(figure, runs))


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def spread(runs: Sequence[Run]) -> str:
    """Median of the CPU time and, in brackets, least and most."""
    if not runs:
        return "-"
    each = [run.cpu_us for run in runs]
    return f"{number(statistics.median(each))} ({number(min(each))} to {number(max(each))})"


def row(case: Case, results: Results) -> str:
    """One line of the table of CPU times."""
    ratio = results.ratio(case)
    cells = [
        case.name.replace("|", "\\|"),
        spread(results.of(case.name, "outpost")),
        f"{case.peer} {spread(results.of(case.name, case.peer))}" if ratio is not None else f"{case.peer} absent",
        "-" if ratio is None else f"**{ratio:.2f}**" if ratio <= case.target else f"{ratio:.2f}",
        f"{case.target:.2f}",
        spread(results.of(case.name, case.floor)),
    ]
    return "| " + " | ".join(cells) + " |"


def latency_row(case: Case, results: Results) -> str:
    """One line of the table of what clients see."""
    cells = [case.name.replace("|", "\\|")]
    for figure in (lambda r: r.per_second, lambda r: r.p50_us, lambda r: r.p99_us, lambda r: r.rss_mib):
        for server in ("outpost", case.peer):
            runs = results.of(case.name, server)
            cells.append(number(median(runs, figure)) if runs else "-")
    return "| " + " | ".join(cells) + " |"


def disturbance(results: Results) -> str:
    """One sentence on what else the machine did."""
    runs = [run for servers in results.runs.values() for of in servers.values() for run in of]
    others = sorted(run.others for run in runs)
    stolen = max(run.stolen for run in runs)
    typical, most = statistics.median(others), others[-1]
    verdict = (
        "The machine was quiet" if typical <= QUIET and stolen <= QUIET else "THE MACHINE WAS BUSY WITH OTHER THINGS"
    )
    return (
        f"{verdict}: other processes used {typical:.2f} of a processor during a run (median; {most:.2f} at most), "
        f"and at most {stolen:.2f} was taken by the host."
    )


def ratio_of(compared: Compared, digits: int = 2) -> str:
    """Median of the rounds' ratios and, in brackets, least and most."""
    ratios = compared.ratios
    return f"{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})"


def team(found: Teamwork) -> list[str]:
    """The section about several workers."""
    many = f"parent and {found.workers} workers"
    lines = [
        "## Several workers",
        "",
        "All processes on one processor, CPU time of all of them together: what workers cost. Where they cost no more "
        "than one",
        "process, two processors carry twice as much; the last column is 2 by the ratio.",
        "",
        f"| work | one process, µs | {many}, µs | ratio (least to most) | two processors carry |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.cost.items():
        carried = 2 / statistics.median(one.ratios)
        cells = [name, number(statistics.median(one.alone)), number(statistics.median(one.together)), ratio_of(one)]
        lines.append("| " + " | ".join([*cells, f"{carried:.2f}"]) + " |")
    lines += [
        "",
        "By the clock, on two processors which the generator shares, work of which it takes little:",
        "",
        f"| work | one process, ops/s | {many}, ops/s | ratio (least to most) |",
        "|---|---|---|---|",
    ]
    for name, one in found.room.items():
        cells = [
            name.replace("|", "\\|"),
            number(statistics.median(one.alone)),
            number(statistics.median(one.together)),
        ]
        lines.append("| " + " | ".join([*cells, ratio_of(one)]) + " |")
    alone, together, shared = found.memory_mib
    lines += [
        "",
        f"Memory (proportional set size): {alone:.0f} MiB for one process; {together:.0f} MiB for {many} together, of "
        f"which the directories, once, {shared:.1f} MiB.",
        "",
    ]
    return lines


def page(cases: Sequence[Case], results: Results) -> str:
    """RESULTS.md."""
    done = [case for case in cases if case.name in results.runs]
    said = ", ".join(f"{name} {value}" for name, value in results.versions.items())
    lines = [
        "# Results",
        "",
        "Written by `make bench`. What is measured and why it is fair: [README.md](README.md); where the time goes:",
        "[docs/performance.md](../docs/performance.md).",
        "",
        "![CPU time per operation beside slapd and FreeRADIUS](results.svg)",
        "",
        f"- {results.date}, {results.machine}; {said}",
        f"- {results.users:,} users, {results.groups} groups, 5 groups each, in every server",
        f"- each figure: median of {results.rounds} runs of {results.seconds:g} s (least to most), servers in turn; "
        "server and generator pinned to a processor each, the generator polling",
        f"- {disturbance(results)}",
        f"- `{results.command}`",
        "",
        "## CPU time of the server per operation, µs",
        "",
        "Ratio: median of the rounds' ratios of our time to the peer's; bold where it is what we want. Floor: a C "
        "server that looks nothing up.",
        "",
        "| work | ours | peer | ratio | wanted | floor |",
        "|---|---|---|---|---|---|",
        *(row(case, results) for case in done),
        "",
        "## What clients see",
        "",
        "As fast as one processor goes: latency is mostly waiting in line. Medians; ours first, then the peer's.",
        "",
        "| work | ops/s | | p50 µs | | p99 µs | | RSS MiB | |",
        "|---|---|---|---|---|---|---|---|---|",
        *(latency_row(case, results) for case in done),
        "",
        *(team(results.team) if results.team is not None else ()),
        "## Commands",
        "",
        "Behind `taskset`, with `-s`, `-W 1` and `-P` for length, warm-up and the server's process; before each run of",
        "logins every user has logged in once.",
        "",
        *(f"    {results.commands[case.name]}" for case in done),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write page and picture anew."""
    here = Path(__file__).parent
    results = Results.from_json((here / "results.json").read_text())
    (here / "RESULTS.md").write_text(page(CASES, results))
    (here / "results.svg").write_text(picture.draw(CASES, results))


if __name__ == "__main__":
    main()
