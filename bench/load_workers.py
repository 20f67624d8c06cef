"""One process against several: `python -m bench.load_workers`, a part of `make bench`.

Two questions, each asked in turn, round after round. *Cost*: all processes of the server on one processor and the
generator on the other; CPU time per operation of all of them together. Where workers cost no more than one process,
nothing is shared between them that could hold one up, and twice the processors serve twice as much. *Room*: everything
on both processors, with work of which the generator takes next to nothing; operations per second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import generators, population, report, servers
from bench.cases import BIND, MAIL, SCAN, SERVICE
from bench.population import BASE_DN, SECRET
from bench.results import Compared, Teamwork

USERS = 1_000
"""Who log in: few, so that all of them are soon known to every worker."""
LOGIN_PASSES = 8
SCANS = ("-o", "sub", "-E", "0", "--base", BASE_DN, "--filter", SCAN, *SERVICE)
Work = tuple[str, tuple[str, ...]]
CLIENT, BOTH = str(servers.CLIENT_CPU), f"{servers.SERVER_CPU},{servers.CLIENT_CPU}"
LDAP_LOGIN: Work = ("ldap", ("-o", "bind", "-c", "32", *BIND))
RADIUS_LOGIN: Work = ("radius", ("-c", "16", "-d", "8", "-S", SECRET, "--need-ma"))
COST: dict[str, Work] = {
    "warm simple bind": LDAP_LOGIN,
    "equality search, all attributes": ("ldap", ("-o", "sub", "-c", "32", "-E", "1", *MAIL)),
    "PAP Accept, 16 sockets, 8 in flight": RADIUS_LOGIN,
}
ROOM: dict[str, Work] = {f"`{SCAN}` over 10,000 users": ("ldap", ("-c", "16", *SCANS))}


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def spread(server: servers.Server) -> None:
    """Let all processes of the server run on both processors from now on."""
    for pid in family(server.pid):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {servers.SERVER_CPU, servers.CLIENT_CPU})


def generate(server: servers.Server, kind: str, arguments: Sequence[str], cpus: str, *more: str) -> dict[str, float]:
    """The generator's figures. Raises RuntimeError when an answer was wrong or lost."""
    program, port = ("radload", server.radius) if kind == "radius" else ("ldapload", server.ldap)
    pids = ",".join(map(str, family(server.pid)))
    command = [
        str(generators.BIN / program),
        "-p",
        str(port),
        "-U",
        f"0:{USERS - 1}",
        *arguments,
        "-j",
        "-P",
        pids,
        *more,
    ]
    done = subprocess.run(["taskset", "-c", cpus, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout[-300:]}{done.stderr[-300:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def memory_mib(pids: Sequence[int]) -> tuple[float, float]:
    """What the processes take together (proportional set size), and of that what they have in shared memory, MiB."""
    total = shared = 0
    for pid in pids:
        is_ours = False
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if line[:1] in "0123456789abcdef" and "-" in line.split(" ")[0]:
                is_ours = "memfd:outpost" in line
            elif line.startswith("Pss:"):
                size = int(line.split()[1])
                total += size
                shared += size if is_ours else 0
    return total / 1024, shared / 1024


def measure(people: servers.Population, workers: int, seconds: float, rounds: int) -> Teamwork:
    """Both questions."""
    length = ("-s", str(seconds))
    dumpable = ("--set", "process.core_dumps=true")  # else nobody may read /proc
    cost = {name: Compared([], []) for name in COST}
    room = {name: Compared([], []) for name in ROOM}
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as more,
        servers.outpost(Path(one), people, *dumpable) as alone,
        servers.outpost(Path(more), people, *dumpable, "--workers", str(workers)) as team,
    ):
        for server in (alone, team):
            for kind, arguments in (LDAP_LOGIN, RADIUS_LOGIN):
                generate(server, kind, arguments, CLIENT, "--seq", "-n", str(USERS * LOGIN_PASSES))
        for name, (kind, arguments) in COST.items():
            for _ in range(rounds):
                for server, figures in ((alone, cost[name].alone), (team, cost[name].together)):
                    figures.append(float(generate(server, kind, arguments, CLIENT, "--spin", *length)["server_us_op"]))
        memory = [memory_mib(family(alone.pid))[0], *memory_mib(family(team.pid))]
        for server in (alone, team):
            spread(server)
        for name, (kind, arguments) in ROOM.items():
            for _ in range(rounds):
                for server, figures in ((alone, room[name].alone), (team, room[name].together)):
                    figures.append(float(generate(server, kind, arguments, BOTH, *length)["ops_s"]))
    return Teamwork(workers, cost, room, memory)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.load_workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    generators.build()
    people = servers.Population(options.users, 200, population.certificate())
    print("\n".join(report.team(measure(people, options.workers, options.seconds, options.rounds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
