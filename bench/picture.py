"""results.svg: one row per work, our CPU time beside the peer's, with no library but the standard one.

It brings its own background for light and for dark pages, so that it can be read wherever it is shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.cases import Case
from bench.results import Results

WIDTH, LABEL, VALUE, ROW, TOP, BOTTOM = 920, 390, 160, 40, 88, 44
BAR = WIDTH - LABEL - VALUE
"""Length of the longest bar, in pixels. The peer's stands for 1, ours is as much shorter as it is faster."""
NAMES = {"slapd": "slapd", "freeradius": "FreeRADIUS"}

STYLE = """\
  svg { font: 13px system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif }
  .paper { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328 } .small { font-size: 11px; fill: #59636e }
  .title { font-size: 16px; font-weight: 600 } .ours { fill: #0969da } .peer { fill: #c4ccd4 } .floor { fill: #bc4c00 }
  .strong { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .small { fill: #9198a1 }
    .ours { fill: #4493f8 } .peer { fill: #4d5661 } .floor { fill: #f0883e }
  }"""


def duration(us: float) -> str:
    """Microseconds, or milliseconds from the thousandth on."""
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} µs" if us >= 100 else f"{us:.1f} µs"


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'


def bar(y: float, length: float, height: float, kind: str) -> str:
    """One bar from the common left edge."""
    return f'<rect x="{LABEL}" y="{y:.1f}" width="{max(1.0, length):.1f}" height="{height}" rx="2" class="{kind}"/>'


def rows(cases: Sequence[Case], results: Results, most: float) -> list[str]:
    """Label, two bars, the floor's mark and the figures of each work."""
    drawn = []
    for at, case in enumerate(cases):
        y = TOP + at * ROW
        ours, theirs, floor = (
            [run.cpu_us for run in results.of(case.name, server)] for server in ("outpost", case.peer, case.floor)
        )
        mine, other, ratio = statistics.median(ours), statistics.median(theirs), results.ratio(case)
        assert ratio is not None
        scale = BAR / most
        drawn += [
            text(LABEL - 10, y + 15, case.name.replace("`", ""), anchor="end"),
            bar(y, scale * ratio, 13, "ours"),
            bar(y + 15, scale, 8, "peer"),
            text(WIDTH - VALUE + 12, y + 11, duration(mine), "strong"),
            text(WIDTH - 16, y + 11, f"× {ratio:.2f}", "strong", "end"),
            text(WIDTH - VALUE + 12, y + 25, f"{NAMES[case.peer]} {duration(other)}", "small"),
        ]
        if floor:
            x = LABEL + scale * min(most, statistics.median(floor) / other)
            drawn.append(f'<rect x="{x - 1:.1f}" y="{y - 3}" width="2" height="29" class="floor"/>')
    return drawn


def draw(cases: Sequence[Case], results: Results) -> str:
    """The picture. Works whose peer was absent are left out: there is nothing to compare them with."""
    shown = [case for case in cases if results.ratio(case) is not None]
    most = max([1.0, *(results.ratio(case) or 0.0 for case in shown)])
    height = TOP + len(shown) * ROW + BOTTOM
    y = height - 22
    said = (
        f"{results.users:,} users, {results.groups} groups; one processor each for server and client; "
        f"{results.machine}; {results.date}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'role="img" aria-label="CPU time per operation beside slapd and FreeRADIUS">',
            f"<style>\n{STYLE}\n</style>",
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="paper"/>',
            text(16, 28, "CPU time of the server per operation (shorter is better)", "title"),
            f'<rect x="{LABEL}" y="46" width="12" height="12" rx="2" class="ours"/>',
            text(LABEL + 18, 57, "outpost"),
            f'<rect x="{LABEL + 96}" y="46" width="12" height="12" rx="2" class="peer"/>',
            text(LABEL + 114, 57, "slapd, FreeRADIUS"),
            f'<rect x="{LABEL + 262}" y="43" width="2" height="18" class="floor"/>',
            text(LABEL + 270, 57, "a C server that knows nobody"),
            *rows(shown, results, most),
            text(16, y + 6, said, "small"),
            "</svg>\n",
        ]
    )
