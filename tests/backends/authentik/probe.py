"""A backend as a process of its own, measured: python -m tests.backends.authentik.probe URL --refreshes 200.

Prints one JSON object per refresh (or per second without refreshes): resident memory in KiB, CPU seconds, users known.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import pathlib
import resource
import time

import uvloop

from outpost.app import hardening
from outpost.backends.authentik.backend import AuthentikBackend
from outpost.backends.authentik.settings import AUTO, AuthentikSettings
from outpost.identity import Secret
from tests.stub_authentik.server import LDAP_TOKEN


def resident_kib() -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def tell(backend: AuthentikBackend, number: int, stall: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    served = backend.served().ldap
    people = backend.current(served[0]) if served else None
    line = {
        "number": number,
        "rss_kib": resident_kib(),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "users": people.user_count if people else 0,
        "generation": people.generation if people else 0,
        "ready": backend.readiness()["ldap"] == "",
        "stall_s": stall,
    }
    print(json.dumps(line), flush=True)


class Stalls:
    """The longest time that the event loop was held up."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.perf_counter() - started - 0.005)


async def run(options: argparse.Namespace) -> None:
    settings = AuthentikSettings(host=options.url, tokens={AUTO: Secret(LDAP_TOKEN)})
    backend = AuthentikBackend(settings)
    await backend.start()
    stalls = Stalls()
    if options.refreshes:
        watching = asyncio.create_task(stalls.watch())
        while backend.readiness()["ldap"]:
            await asyncio.sleep(0.05)
        for number in range(1, options.refreshes + 1):
            stalls.longest = 0.0
            await backend.refresh()
            gc.collect()
            tell(backend, number, stalls.longest)
        watching.cancel()
    else:  # nothing of ours is to be measured along with it
        for number in range(options.seconds):
            await asyncio.sleep(1)
            tell(backend, number, 0.0)
    await backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--refreshes", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=10)
    hardening.return_memory()  # as the appliance does
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
