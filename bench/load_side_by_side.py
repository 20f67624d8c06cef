"""Whole servers under load, ours, the peers' and the floors, in turn on one processor: `make bench`.

The server is pinned to one processor and the generator to another; what is compared is the server's CPU time
per operation (it survives a noisy machine), as ratios of one run. Writes RESULTS.md, results.json and results.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import generators, load_workers, picture, population, report, servers
from bench.cases import CASES, Case
from bench.results import Results, Run
from outpost import __version__

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP_S = 1.0


def command(case: Case, server: servers.Server, people: servers.Population, *more: str) -> list[str]:
    """The generator's command line, without `taskset`."""
    radius = case.peer == "freeradius"
    port = server.radius if radius else server.ldaps if case.ldaps else server.ldap
    program = str(generators.BIN / ("radload" if radius else "ldapload"))
    return [program, "-p", str(port), "-U", f"0:{people.users - 1}", *case.arguments, "-j", *more]


def generate(arguments: list[str]) -> dict[str, Any]:
    """The generator's own figures. Raises RuntimeError when an answer was wrong or lost."""
    pinned = ["taskset", "-c", str(servers.CLIENT_CPU), *arguments]
    done = subprocess.run(pinned, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stdout[-400:]}{done.stderr[-400:]}")
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def busy_s() -> tuple[float, float]:
    """Processor seconds that this machine's processes have used, and what the host took from it."""
    user, nice, system, _, _, _, _, steal = (
        int(n) / TICKS for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return user + nice + system, steal


def measure(case: Case, server: servers.Server, people: servers.Population, seconds: float) -> Run:
    """One run of one case."""
    if case.is_login:
        # Through whichever listener: a login is remembered for all of them.
        everybody = dataclasses.replace(case, ldaps=False, arguments=tuple(a for a in case.arguments if a != "--ldaps"))
        generate(command(everybody, server, people, "--seq", "-n", str(people.users)))
    before, started = busy_s(), time.monotonic()
    found = generate(
        command(case, server, people, "-s", str(seconds), "-W", str(WARM_UP_S), "--spin", "-P", str(server.pid))
    )
    took, after = time.monotonic() - started, busy_s()
    # The generator polls and so has its processor for itself all the time.
    known = float(found["server_cpu"]) + 1.0
    return Run(
        cpu_us=float(found["server_us_op"]),
        per_second=float(found.get("ops_s") or found.get("accept_s") or 0.0),
        p50_us=float(found["p50_us"]),
        p99_us=float(found["p99_us"]),
        rss_mib=int(found["rss_kb"]) / 1024,
        others=max(0.0, (after[0] - before[0]) / took - known),
        stolen=(after[1] - before[1]) / took,
    )


def processor() -> str:
    """The processor's name, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """Versions of what took part."""
    said = {
        "outpost": __version__,
        "Python": platform.python_version(),
        "uvloop": version("uvloop"),
        "Linux": platform.release(),
    }
    for name, arguments, word in (("slapd", ["-VV"], 2), ("freeradius", ["-v"], 3)):
        if servers.present(name):
            done = subprocess.run([name, *arguments], capture_output=True, text=True, check=False)
            first = (done.stdout + done.stderr).strip().splitlines()[0].strip(" $@(#)").split()
            said[name] = first[word].rstrip(",") if len(first) > word else " ".join(first)
    return said


def main() -> int:
    """Run the cases and write the report."""
    parser = argparse.ArgumentParser(prog="bench.load_side_by_side", description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case and server, in turn")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--write", type=Path, help="write RESULTS.md, results.json and results.svg into this folder")
    options = parser.parse_args()
    generators.build()
    people = servers.Population(options.users, options.groups, population.certificate())
    chosen = [case for case in CASES if options.only in case.name]
    wanted = dict.fromkeys(("outpost", *(c.peer for c in chosen), *(c.floor for c in chosen if c.floor)))
    results = Results(
        machine=f"{processor()}, {os.cpu_count()} processors",
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        versions=versions(),
        command="python -m bench.load_side_by_side " + " ".join(sys.argv[1:]),
        users=options.users,
        groups=options.groups,
        seconds=options.seconds,
        rounds=options.rounds,
    )
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outpost-bench-")))
        running = {}
        for name in wanted:
            if not servers.present(name):
                print(f"{name} is not installed: measured without it", file=sys.stderr)
                continue
            (work / name).mkdir()
            running[name] = stack.enter_context(servers.STARTS[name](work / name, people))
        for case in chosen:
            taking_turns = [running[name] for name in ("outpost", case.peer, case.floor) if name in running]
            for _ in range(options.rounds):
                for server in taking_turns:
                    results.add(case.name, server.name, measure(case, server, people, options.seconds))
            results.commands[case.name] = " ".join(
                Path(word).name if n == 0 else word
                for n, word in enumerate(command(case, running["outpost"], people, "--spin"))
            )
            print(report.row(case, results), flush=True)
    if not options.only:
        results.team = load_workers.measure(people, 2, options.seconds, options.rounds)
        print("\n".join(report.team(results.team)), flush=True)
    if options.write:
        (options.write / "results.json").write_text(results.to_json())
        (options.write / "RESULTS.md").write_text(report.page(CASES, results))
        (options.write / "results.svg").write_text(picture.draw(CASES, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
