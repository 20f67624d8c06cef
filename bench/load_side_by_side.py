"""Whole servers under load, ours and the peers', in turn on the same processor: `python -m bench.load_side_by_side`.

The server is pinned to one processor and the generator to another; what is quoted is the server's CPU time
per operation (it survives a noisy machine) and the ratio between servers measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import servers
from bench.cases import CASES, WARM_USERS, Case

HERE = Path(__file__).parent
BIN = HERE / "bin"


def build_generators() -> None:
    """Compile the generators with cc; needs OpenSSL's headers."""
    BIN.mkdir(exist_ok=True)
    for source in sorted((HERE / "generators").glob("*.c")):
        libraries = ["-lssl", "-lcrypto", "-lpthread"] if source.stem == "ldapload" else ["-lpthread"]
        subprocess.run(["cc", "-O2", "-o", str(BIN / source.stem), str(source), *libraries], check=True)


def measure(case: Case, server: servers.Server, seconds: float, users: int) -> dict[str, Any]:
    """One run of one case: the generator's own figures. Raises when an answer was wrong or lost."""
    radius = case.peer == "freeradius"
    port = server.radius if radius else server.ldaps if case.ldaps else server.ldap
    top = min(users, WARM_USERS) if case.users_only else users
    command = [
        *("taskset", "-c", str(servers.CLIENT_CPU), str(BIN / ("radload" if radius else "ldapload"))),
        *("-p", str(port), "-s", str(seconds), "-W", "1", "--spin", "-j", "-P", str(server.pid)),
        *("-U", f"0:{top - 1}", *case.arguments),
    ]
    if radius and server.name == "outpost":
        command.append("--need-ma")  # Debian's FreeRADIUS does not sign its answers
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{server.name}: {case.name}: {done.stdout[-400:]}{done.stderr[-400:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def spread(values: list[float]) -> str:
    """Median and, in brackets, least and most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def row(case: Case, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """One line of the table."""
    mine = [float(f["server_us_op"]) for f in ours]
    cells = [
        case.name,
        spread(mine),
        f"{statistics.median(float(f.get('ops_s') or f.get('accept_s') or 0) for f in ours):,.0f}",
        f"{statistics.median(float(f['p50_us']) for f in ours):.0f}",
        f"{statistics.median(float(f['p99_us']) for f in ours):.0f}",
        f"{max(int(f['rss_kb']) for f in ours) // 1024}",
    ]
    if theirs:
        others = [float(f["server_us_op"]) for f in theirs]
        ratio = statistics.median(a / b for a, b in zip(mine, others, strict=True))
        cells += [f"{case.peer} {spread(others)}", f"{ratio:.2f}", f"{case.target:.2f}"]
    else:
        cells += [f"{case.peer} absent", "-", f"{case.target:.2f}"]
    return "| " + " | ".join(cells) + " |"


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def versions() -> str:
    """Versions of what took part."""
    said = [f"Python {platform.python_version()}", f"uvloop {version('uvloop')}", f"Linux {platform.release()}"]
    for command in (["slapd", "-VV"], ["freeradius", "-v"]):
        if servers.present(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said.append((done.stdout + done.stderr).strip().splitlines()[0].strip(" $@(#)"))
    return ", ".join(said)


def main() -> int:
    """Run the cases and print, or write, the table."""
    parser = argparse.ArgumentParser(prog="bench.load_side_by_side", description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case and server, in turn")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--write", type=Path, help="write the report to this file")
    options = parser.parse_args()
    build_generators()
    chosen = [case for case in CASES if options.only in case.name]
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outpost-bench-")))
        running = {}
        for name in ("outpost", *sorted({case.peer for case in chosen})):
            if name != "outpost" and not servers.present(name):
                print(f"{name} is not installed: measured without it", file=sys.stderr)
                continue
            (work / name).mkdir()
            start = servers.outpost if name == "outpost" else servers.PEERS[name]
            running[name] = stack.enter_context(start(work / name, options.users, options.groups))
        lines = [
            f"Machine: {processor()}; {versions()}.",
            f"Population: {options.users} users, {options.groups} groups, 5 groups each. Each figure: median of "
            f"{options.rounds} runs of {options.seconds:g} s (least to most), the servers in turn, server and",
            "generator each pinned to a processor of its own, the generator polling (`--spin`).",
            f"Command: `python -m bench.load_side_by_side {' '.join(sys.argv[1:])}`.",
            "",
            "| work | our CPU µs/op | ops/s | p50 µs | p99 µs | RSS MiB | peer's CPU µs/op | ratio | wanted |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for case in chosen:
            ours: list[dict[str, Any]] = []
            theirs: list[dict[str, Any]] = []
            for _ in range(options.rounds):
                ours.append(measure(case, running["outpost"], options.seconds, options.users))
                if case.peer in running:
                    theirs.append(measure(case, running[case.peer], options.seconds, options.users))
            lines.append(row(case, ours, theirs))
            print(lines[-1], flush=True)
    report = "\n".join(lines) + "\n"
    if options.write:
        options.write.write_text("# Results\n\nWritten by `make bench`; see `bench/load_side_by_side.py`.\n\n" + report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
