"""One appliance with a server's people at full size: memory, compiling, refreshing, searching, starting warm.

    python -m bench.load_scale                          # 100,000 users, 5,000 groups, 20 groups each
    python -m bench.load_scale --users 10000 --groups 500

Both sizes are measured for the search.  The server is the tests' own, as a process of its own that is nicer than the
appliance; everything runs on loopback, and nothing is pinned: the appliance's compiler needs a processor, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import generators
from tests.process.running import BASE, Appliance, environment, user_dn
from tests.process.test_authentik import COMMAND
from tests.stub_authentik.server import LDAP_TOKEN

SEARCHER = "user0"
TICK = os.sysconf("SC_CLK_TCK")
READY_S = 900.0


class Process:
    """What the kernel says about one process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._place = Path(f"/proc/{pid}")

    def memory(self) -> dict[str, float]:
        """MiB by kind: all resident, and of it our own, shared and of files; and the most there ever was."""
        text = (self._place / "status").read_text()
        return {key: int(value) / 1024 for key, value in re.findall(r"^(VmHWM|VmRSS|Rss\w+):\s+(\d+) kB", text, re.M)}

    def cpu_s(self) -> tuple[float, float]:
        """Of the process itself, and of the processes that it has waited for."""
        fields = (self._place / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK, (int(fields[13]) + int(fields[14])) / TICK

    def children(self) -> str:
        return (self._place / "task" / str(self.pid) / "children").read_text().strip()

    def until_idle(self) -> None:
        quiet = 0
        while quiet < 4:
            before = self.cpu_s()[0]
            time.sleep(0.25)
            quiet = quiet + 1 if self.cpu_s()[0] - before < 0.03 and not self.children() else 0


@contextlib.contextmanager
def server(users: int, groups: int, *options: str) -> Iterator[str]:
    """The URL of a server with that many people."""
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.stub_authentik.process", "--users", str(users)]
    command += ["--groups", str(groups), "--per-user", "20", "--searcher", SEARCHER, "--log-level", "debug", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


@contextlib.contextmanager
def appliance(url: str, cache: Path) -> Iterator[Appliance]:
    env = environment(AUTHENTIK_HOST=url, AUTHENTIK_TOKEN=LDAP_TOKEN)
    running = Appliance([*COMMAND, "--set", f"authentik.cache_path={cache}"], env)
    try:
        running.wait_until_listening()
        yield running
        running.stop()
    finally:
        running.end()


def until_ready(running: Appliance) -> float:
    deadline = time.monotonic() + READY_S
    while running.get("/-/ready")[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready: {running.get('/-/ready')[1]}")
        time.sleep(0.1)
    took = time.monotonic() - running.started
    running.event("^users and groups read$", READY_S)
    return took


def load(running: Appliance, *options: str) -> subprocess.Popen[str]:
    command = [str(generators.BIN / "ldapload"), "-p", str(running.ports["ldap"]), "-j", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def figures(process: subprocess.Popen[str]) -> dict[str, Any]:
    found, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load met unexpected answers: {found}")
    return dict(json.loads(found))


def search(running: Appliance, users: int, seconds: float) -> dict[str, Any]:
    """Equality on one indexed attribute over the whole directory, all attributes."""
    who = ["-D", user_dn(SEARCHER), "-w", "pw-0", "-U", f"0:{users - 1}", "-c", "16", "-s", str(seconds)]
    what = ["-o", "sub", "--base", BASE, "--filter", "(mail=user%u@example.com)", "-P", str(running.process.pid)]
    return figures(load(running, *who, *what))


def refresh(running: Appliance) -> dict[str, Any]:
    running.send(signal.SIGHUP)
    return running.event("^users and groups read$", READY_S)


def measure(users: int, groups: int, seconds: float, *, is_full: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"users": users, "groups": groups}
    binds = ["-o", "bind", "--dn", f"cn=user%u,ou=users,{BASE}", "--pw", "pw-%u", "-U", "1:200"]
    with tempfile.TemporaryDirectory() as place, server(users, groups) as url:
        cache = Path(place)
        with appliance(url, cache) as running:
            process = Process(running.process.pid)
            found["listening_s"] = time.monotonic() - running.started
            found["base_mib"] = process.memory()
            found["ready_s"] = until_ready(running)
            process.until_idle()
            own, children = process.cpu_s()
            found |= {"first_read_cpu_s": own, "compile_cpu_s": children, "memory_mib": process.memory()}
            found["search"] = search(running, users, seconds)
            if is_full:
                before = process.cpu_s()
                unchanged = refresh(running)
                process.until_idle()
                after = process.cpu_s()
                assert not unchanged["changed"]
                found["unchanged_refresh_cpu_s"] = after[0] - before[0]
                found["unchanged_refresh_s"] = unchanged["seconds"]
                figures(load(running, *binds, "--seq", "-n", "200", "-c", "4"))
                found["binds_alone"] = figures(load(running, *binds, "-R", "1000", "-c", "16", "-s", str(seconds)))
        with appliance(url, cache) as running:
            found["warm_listening_s"] = time.monotonic() - running.started
            who = ["-D", user_dn(SEARCHER), "-w", "pw-0", "-U", "1:1", "-c", "1", "-n", "1"]
            what = ["-o", "sub", "--base", BASE, "--filter", "(mail=user%u@example.com)", "-E", "1"]
            while True:
                tried = load(running, *who, *what)
                tried.communicate()
                if tried.returncode == 0:
                    break
            found["warm_start_s"] = time.monotonic() - running.started
            found["warm_start_cpu_s"] = Process(running.process.pid).cpu_s()[0]
            until_ready(running)
            Process(running.process.pid).until_idle()
            found["warm_memory_mib"] = Process(running.process.pid).memory()
    if is_full:
        found |= during(users, groups, binds, seconds)
    return found


def during(users: int, groups: int, binds: list[str], seconds: float) -> dict[str, Any]:
    """Warm binds while people who changed are read and compiled, again and again."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        url = stack.enter_context(server(users, groups, "--churn", "50"))
        running = stack.enter_context(appliance(url, Path(place)))
        process = Process(running.process.pid)
        until_ready(running)
        process.until_idle()
        figures(load(running, *binds, "--seq", "-n", "200", "-c", "4"))
        began, before = time.monotonic(), process.cpu_s()
        running.send(signal.SIGHUP)
        while not process.children():
            time.sleep(0.01)
        # The people are read: from here to the end the directory is compiled, checked and put in place.
        compiling = load(running, *binds, "-R", "1000", "-c", "16", "-s", str(max(seconds, 8.0)), "-W", "0")
        while process.children():
            time.sleep(0.01)
        took = time.monotonic() - began
        figured = figures(compiling)
        process.until_idle()
        after = process.cpu_s()
        memory = []
        for _ in range(6):
            refresh(running)
            process.until_idle()
            memory.append(round(process.memory()["VmRSS"], 1))
    return {
        "binds_while_compiling": figured,
        "changed_refresh_s": took,
        "changed_refresh_cpu_s": after[0] - before[0],
        "changed_compile_cpu_s": after[1] - before[1],
        "memory_over_refreshes_mib": memory,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    options = parser.parse_args()
    generators.build()
    large = measure(options.users, options.groups, options.seconds, is_full=True)
    small = measure(options.users // 10, options.groups // 10, options.seconds, is_full=False)
    print(json.dumps({"large": large, "small": small}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
