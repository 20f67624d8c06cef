"""Directories compiled in a process of their own: the same arena, or an error and the old directory."""

import asyncio
import gc
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from outpost.errors import BackendError, ConfigError
from outpost.identity import LdapOptions, LdapProvider, Mode, People, User
from outpost.ldap import compiler, directories
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.compiler import compile_apart, provider_from, provider_row
from outpost.ldap.directories import Directories, shelved
from outpost.processes.people import PackedPeople, Spool, pack_rows, row_of
from tests.ldap.generate import people
from tests.ldap.testbed import Roster

POPULATION, PROVIDER = people(random.Random(3), users=30, groups=8)

PRELUDE = """
import os, signal, sys, time
from outpost.processes import child, memory, message
sock = child.inherited(sys.argv[1])
order = message.receive(sock)
DONE = b'{"left_out":[]}'
"""


def packed(population: People = POPULATION, generation: int = 1) -> PackedPeople:
    spool = Spool()
    pages = [spool.append(pack_rows(map(row_of, population.users[at : at + 7]))) for at in range(0, 40, 7)]
    return PackedPeople(spool, tuple(pages), len(population.users), population.groups, generation, 0.0)


def instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Another process than ours compiles."""
    (tmp_path / "stand_in.py").write_text(PRELUDE + script)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(Path(compiler.__file__).parents[2]))))
    monkeypatch.setattr(compiler, "MODULE", "stand_in")


async def test_it_is_the_same_arena() -> None:
    arena = await compile_apart(packed(), PROVIDER)
    assert arena == compile_people(packed(), PROVIDER) and arena.readonly
    assert Snapshot(arena).entry_count > 40


async def test_who_is_not_in_it_is_told() -> None:
    twins = People((User(1, "Bob"), User(2, "bob"), User(3, "ann")), (), 1, 0.0)
    left_out: list[str] = []
    await compile_apart(packed(twins), PROVIDER, left_out)
    assert left_out == ["bob"]


async def test_a_base_that_is_no_dn_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="base DN"):
        await compile_apart(packed(), LdapProvider(1, "ldap", "nonsense", "ldap"))


async def test_people_that_are_damaged_are_no_directory() -> None:
    there = packed()
    os.ftruncate(there.spool.descriptor, there.spool.size - 1)
    with pytest.raises(ConfigError, match="people: cut short"):
        await compile_apart(there, PROVIDER)


FAILURES = {
    "ends": ("raise SystemExit(0)", "ended before it was done"),
    "dies": ("os.kill(os.getpid(), signal.SIGKILL)", "ended before it was done"),
    "makes no sense": ("message.send(sock, b'?'); time.sleep(60)", "made no sense"),
    "says nothing": ("message.send(sock, b''); time.sleep(60)", "made no sense"),
    "sends too much": ("message.send(sock, DONE, order.descriptors * 2); time.sleep(60)", "made no sense"),
    "sends memory that it could still change": (
        "message.send(sock, DONE, (os.memfd_create('x', 0),)); time.sleep(60)",
        "memory cannot be read",
    ),
    "has a bug": ("""message.send(sock, b'{"failed":"KeyError"}')""", "KeyError"),
    "takes for ever": ("time.sleep(60)", "not done within"),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_a_process_that_fails_makes_no_directory(
    how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, said = FAILURES[how]
    instead(monkeypatch, tmp_path, script)
    monkeypatch.setattr(compiler, "LONGEST_S", 1.5 if how == "takes for ever" else 30.0)
    before = len(os.listdir("/proc/self/fd"))
    people_there = packed()
    with pytest.raises(BackendError, match=said):
        await compile_apart(people_there, PROVIDER)
    del people_there
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("damage", ["cut", "changed", "killed"])
async def test_the_directory_there_is_stays_until_a_whole_one_comes(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(directories, "APART", 1)
    monkeypatch.setattr(directories, "RETRY_S", 0.2)
    said: list[str] = []
    roster = Roster(None)
    roster.people = packed()
    there = Directories(roster, shelved, lambda level, event: said.append(event) if level == "error" else None)
    there.serve([PROVIDER])
    await until(lambda: there.shelf(PROVIDER))
    kept = there.shelf(PROVIDER)
    arena = bytearray(compile_people(packed(), PROVIDER))
    if damage == "cut":
        del arena[-4:]
    arena[len(arena) // 2] ^= 1
    (tmp_path / "arena").write_bytes(arena)
    script = f"message.send(sock, DONE, (memory.sealed(open({str(tmp_path / 'arena')!r}, 'rb').read()),))"
    with monkeypatch.context() as patch:
        instead(patch, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)" if damage == "killed" else script)
        roster.people = packed(generation=2)
        there.serve([PROVIDER])
        await until(lambda: said)
        assert there.shelf(PROVIDER) is kept and "the last one is kept" in said[0]
    await until(lambda: there.shelf(PROVIDER) is not kept)
    found = there.shelf(PROVIDER)
    assert found is not None and found.snapshot.generation == 2, "tried again by itself"
    await there.stop()


async def test_who_stops_waiting_ends_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instead(monkeypatch, tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(60)")
    task = asyncio.create_task(compile_apart(packed(), PROVIDER))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("."))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()[:-1]), signal.SIGCONT)


def test_a_provider_comes_back_as_it_was() -> None:
    options = LdapOptions(nested_groups="effective", bind_names=("mail", "upn"), samba=True, domain="example.org")
    one = LdapProvider(7, "näme", "dc=x", "app", search_group="g", search_mode=Mode.DIRECT, options=options)
    assert provider_from(orjson.loads(orjson.dumps(provider_row(one)))) == one
