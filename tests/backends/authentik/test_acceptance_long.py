"""The figures of `test_acceptance.py` at full length: memory, outages and failures that last.

Quick versions run always, the real ones with `make test-long`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from outpost.identity import Accepted
from tests.backends.authentik.appliance import accepted, ldap, ready, running, small, until

QUICK, FULL = "quick", pytest.param("full", marks=[pytest.mark.slow, pytest.mark.timeout(7200)])


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def measured(stub_options: list[str], probe_options: list[str]) -> list[dict[str, Any]]:
    async with program("tests.stub_authentik.process", *stub_options) as stub:
        assert stub.stdout is not None
        url = (await stub.stdout.readline()).decode().strip()
        async with program("tests.backends.authentik.probe", url, *probe_options) as probe:
            assert probe.stdout is not None
            return [json.loads(line) async for line in probe.stdout]


@pytest.mark.parametrize("length", [QUICK, FULL])
async def test_refreshes_leave_the_memory_as_it_was(length: str) -> None:
    users, groups, refreshes = (100_000, 5_000, 200) if length == "full" else (2_000, 100, 12)
    stub = ["--users", str(users), "--groups", str(groups), "--per-user", "20", "--churn", "50"]
    rows = await measured(stub, ["--refreshes", str(refreshes)])
    assert [row["users"] for row in rows] == [users] * refreshes
    assert rows[-1]["generation"] >= refreshes // 2, "people changed all the time"
    allowed = 1.05 if length == "full" else 1.25
    assert rows[-1]["rss_kib"] <= rows[4]["rss_kib"] * allowed


@pytest.mark.parametrize("length", [QUICK, FULL])
async def test_a_start_with_a_users_endpoint_that_always_fails_stays_small_and_idle(length: str) -> None:
    seconds = 600 if length == "full" else 4
    rows = await measured(["--users", "1000", "--fail", "/core/users/"], ["--seconds", str(seconds)])
    assert len(rows) == seconds
    assert not rows[-1]["ready"]
    if length == "full":
        assert rows[-1]["rss_kib"] <= 64 * 1024
        assert (rows[-1]["cpu_s"] - rows[0]["cpu_s"]) / seconds < 0.05


@pytest.mark.parametrize("length", [QUICK, FULL])
async def test_after_an_outage_of_any_length_everything_works_within_five_seconds(length: str) -> None:
    async with small() as stub, running(stub) as backend:
        await ready(backend)
        await stub.stop()
        await until(lambda: backend.readiness()["ldap"], 5.0)
        await asyncio.sleep(600 if length == "full" else 1)
        stub.add_user("late", "pw-late")
        await stub.start()
        async with asyncio.timeout(5.0):
            await ready(backend)
            assert isinstance(await accepted(backend, "late", "pw-late"), Accepted)
            await until(
                lambda: any(user.username == "late" for user in backend.current(ldap(backend)).users)  # type: ignore[union-attr]
            )


@pytest.mark.parametrize("length", [QUICK, FULL])
async def test_pages_that_keep_failing_cost_one_question_per_step(length: str) -> None:
    async with small() as stub, running(stub, page_size=2) as backend:
        await ready(backend)
        before = backend.current(ldap(backend))
        stub.fail(r"/core/users/\?page=[2-9]")
        await backend.refresh()
        asked = len([one for one in stub.requests if "/core/users/" in one])
        await asyncio.sleep(600 if length == "full" else 4)
        fresh = [one for one in list(stub.requests) if "/core/users/" in one][asked:]
        assert fresh
        assert len({one.split("&", maxsplit=1)[0] for one in fresh}) == 1, "always the one page that failed"
        after = backend.current(ldap(backend))
        assert before is not None and after is not None and after.users == before.users
