"""Paged listings by four clients: everything, exactly once, while the directory changes under them.

The directory alternates between everybody and every second one, so that a listing that is not of one reading shows it.
"""

import asyncio
import json
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import uvloop

from outpost.identity import People, User
from tests.ldap.testbed import BASE, PASSWORDS, Bed, bed

with warnings.catch_warnings():
    # ldap3 still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ldap3"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:DeprecationWarning"),
]

HERE = Path(__file__).parent
SERVICE_DN, SERVICE_PW = f"cn=ldapservice,ou=users,{BASE}", PASSWORDS["ldapservice"]
USERS, FILTER = f"ou=users,{BASE}", "(objectClass=user)"


def population(count: int, step: int, generation: int) -> People:
    names = [*PASSWORDS, *(f"user{n:06}" for n in range(len(PASSWORDS), count))]
    listed = [(pk, name) for pk, name in enumerate(names, 1) if pk <= len(PASSWORDS) or pk % step == 0]
    return People(tuple(User(pk, name, name=name) for pk, name in listed), (), generation, 0.0)


class Served:
    """A server in a thread of its own, whose directory has everybody and every second one by turns."""

    def __init__(self, count: int) -> None:
        self.port = 0
        self.changes = 0
        self._sides = [population(count, step, 1).users for step in (1, 2)]
        self._dns = [{f"cn={one.username},{USERS}" for one in side} for side in self._sides]
        self._ready = threading.Event()
        self._bed: Bed
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(100)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with bed(directory=People(self._sides[0], (), 1, 0.0)) as self._bed:
            self.port = self._bed.port
            self._ready.set()
            await self._stop.wait()

    @property
    def dns(self) -> set[str]:
        """Of those who are in the directory now."""
        return self._dns[self.changes % 2]

    def change(self) -> None:
        """The next directory is served when this returns."""
        self.changes += 1
        people = People(self._sides[self.changes % 2], (), self.changes + 1, 0.0)
        asyncio.run_coroutine_threadsafe(self._bed.change(people), self._loop).result(100)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    served = Served(12_345)
    yield served
    served.stop()


@pytest.fixture(scope="module")
def large() -> Iterator[Served]:
    served = Served(100_000)
    yield served
    served.stop()


# -- the clients: DNs by page size; `pause` is called behind the first page -----------------------

Listed = Callable[[int, int, Callable[[], None]], list[str]]


def held(command: list[str], place: Path, mark: str, go_on: str, pause: Callable[[], None]) -> str:
    """What a program says that waits for `go_on` at the first line with `mark`."""
    with subprocess.Popen(command, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if mark in line:
                break
        pause()
        # It said nothing behind the mark yet.
        said.append(process.communicate(go_on)[0])
    assert process.returncode == 0
    return "".join(said)


def by_ldapsearch(port: int, size: int, pause: Callable[[], None]) -> list[str]:
    if shutil.which("ldapsearch") is None:
        pytest.skip("ldap-utils is not installed")
    command = [
        "stdbuf",
        "-oL",
        "ldapsearch",
        "-LLL",
        "-o",
        "ldif-wrap=no",
        "-x",
        "-H",
        f"ldap://127.0.0.1:{port}",
        "-D",
        SERVICE_DN,
    ]
    command += ["-w", SERVICE_PW, "-E", f"!pr={size}/prompt", "-b", USERS, FILTER, "1.1"]
    said = held(command, HERE, "Press [size]", "\n" * 100_000, pause)
    return [line.removeprefix("dn: ") for line in said.splitlines() if line.startswith("dn: ")]


def by_python_ldap(port: int, size: int, pause: Callable[[], None]) -> list[str]:
    ldap = pytest.importorskip("ldap", reason="python-ldap could not be built here")
    from ldap.controls import SimplePagedResultsControl

    there = ldap.initialize(f"ldap://127.0.0.1:{port}")
    there.simple_bind_s(SERVICE_DN, SERVICE_PW)
    control = SimplePagedResultsControl(True, size=size, cookie="")
    found: list[str] = []
    while True:
        asked = there.search_ext(USERS, ldap.SCOPE_SUBTREE, FILTER, ["1.1"], serverctrls=[control])
        _, entries, _, controls = there.result3(asked)
        assert len(entries) <= size
        if not found:
            pause()
        found += [dn for dn, _ in entries]
        [answer] = [one for one in controls if one.controlType == control.controlType]
        control.cookie = answer.cookie
        if not answer.cookie:
            there.unbind_s()
            return found


def by_ldap3(port: int, size: int, pause: Callable[[], None]) -> list[str]:
    server = ldap3.Server("127.0.0.1", port, get_info=ldap3.NONE)
    there = ldap3.Connection(server, SERVICE_DN, SERVICE_PW, auto_bind=True, raise_exceptions=True)
    pages = there.extend.standard.paged_search(USERS, FILTER, attributes="1.1", paged_size=size, generator=True)
    found = [next(pages)["dn"]]
    pause()
    found += [entry["dn"] for entry in pages]
    there.unbind()
    return found


def by_ldapts(place: Path) -> Listed:
    def listed(port: int, size: int, pause: Callable[[], None]) -> list[str]:
        command = ["node", "paging.mjs", f"ldap://127.0.0.1:{port}", SERVICE_DN, SERVICE_PW, USERS, FILTER, str(size)]
        *_, last = held(command, place, "first page", "\n", pause).splitlines()
        found = json.loads(last)
        assert isinstance(found, list)
        return found

    return listed


@pytest.fixture(scope="module")
def ldapts(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or no npm")
    place = tmp_path_factory.mktemp("ldapts")
    shutil.copy(HERE / "paging.mjs", place)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), "ldapts@8"]
    if subprocess.run(command, capture_output=True, timeout=300, check=False).returncode != 0:
        pytest.skip("npm could not fetch ldapts")
    return by_ldapts(place)


def check(served: Served, listed: Listed, size: int) -> None:
    begun_with, changes = served.dns, served.changes
    found = listed(served.port, size, served.change)
    assert served.changes == changes + 1
    assert len(found) == len(set(found)), "nobody twice"
    assert set(found) == begun_with, "all of one reading"


CLIENTS = [by_ldapsearch, by_python_ldap, by_ldap3]


@pytest.mark.parametrize("listed", CLIENTS)
def test_every_entry_comes_once_across_refreshes(small: Served, listed: Listed) -> None:
    check(small, listed, 200)


SIZES = (1, 2, 3, 10, 99, 500, 1000, 5000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("listed", CLIENTS)
def test_every_page_size(small: Served, listed: Listed, size: int) -> None:
    check(small, listed, size)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", SIZES)
def test_every_page_size_by_ldapts(small: Served, ldapts: Listed, size: int) -> None:
    check(small, ldapts, size)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [100, 1000, 5000])
@pytest.mark.parametrize("listed", CLIENTS)
def test_a_hundred_thousand_entries(large: Served, listed: Listed, size: int) -> None:
    check(large, listed, size)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [100, 1000, 5000])
def test_a_hundred_thousand_entries_by_ldapts(large: Served, ldapts: Listed, size: int) -> None:
    check(large, ldapts, size)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_pages(large: Served) -> None:
    check(large, by_ldapsearch, 1)


def test_a_wrong_listing_would_be_seen() -> None:
    class Unchanging:
        port, changes = 0, 0
        dns: ClassVar = {"a", "b", "c"}

        def change(self) -> None:
            self.changes += 1

    def listing(*dns: str) -> Listed:
        return lambda port, size, pause: pause() or list(dns)

    check(Unchanging(), listing("c", "a", "b"), 1000)
    for wrong in (["a", "b"], ["a", "b", "c", "a"], ["a", "b", "d"], []):
        with pytest.raises(AssertionError):
            check(Unchanging(), listing(*wrong), 1000)
    with pytest.raises(AssertionError):
        check(Unchanging(), lambda port, size, pause: ["a", "b", "c"], 1000)
