"""The stub as a process of its own, for measurements: python -m tests.stub_authentik.process --users 1000.

Prints its URL on one line, then serves until its standard input is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys

from tests.stub_authentik.server import Stub


def crowd(users: int, groups: int, per_user: int) -> Stub:
    """One LDAP outpost with many people."""
    stub = Stub()
    found = [stub.add_group(f"group{i}") for i in range(groups)]
    for i in range(users):
        mine = {(i * 7 + j * 13) % groups: None for j in range(per_user)}
        stub.add_user(f"user{i}", f"pw-{i}", *[found[k] for k in mine], attributes={"employeeNumber": i})
    stub.add_provider(stub.add_outpost("ldap"), "ldap-main")
    stub.crowd = list(stub.users.values())
    return stub


async def serve(options: argparse.Namespace) -> None:
    stub = crowd(options.users, options.groups, options.per_user)
    if options.searcher:
        searcher = stub.user_named(options.searcher)
        searcher.can_search, searcher.password_change_date = True, "2020-01-01T00:00:00Z"
    for outpost in stub.outposts.values():
        outpost.log_level = options.log_level
    if options.fail:
        stub.fail(options.fail)
    everybody = itertools.cycle(list(stub.users.values()))

    async def churn() -> None:
        """Some people change before each complete read."""
        seen = 0
        while True:
            await asyncio.sleep(0.01)
            reads = sum("/core/groups/?page=1&" in one for one in list(stub.requests)[-50:])
            if reads and stub.counts["/api/v3/core/groups/"] != seen:
                seen = stub.counts["/api/v3/core/groups/"]
                for _ in range(options.churn):
                    user = next(everybody)
                    user.name = f"{user.username} {seen}"
                    stub.touched(user)

    async with stub:
        print(stub.url, flush=True)
        task = asyncio.create_task(churn()) if options.churn else None
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        if task is not None:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--per-user", type=int, default=5)
    parser.add_argument("--churn", type=int, default=0)
    parser.add_argument("--fail", default="")
    parser.add_argument("--log-level", default="info", help="what the server asks its outposts for")
    parser.add_argument("--searcher", default="", help="user who may search the directory")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
