"""Compiled directories on disk: taken for the people and settings that they were made of, and for nobody else."""

import asyncio
import os
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from outpost.errors import BackendError
from outpost.identity import LdapProvider
from outpost.ldap import directories
from outpost.ldap._shelf import Shelf
from outpost.ldap.arena import compile_people
from outpost.ldap.directories import Directories, shelved
from outpost.ldap.stored import StoredArenas
from outpost.processes.people import PackedPeople, Spool, pack_rows, row_of
from tests.ldap.generate import people
from tests.ldap.testbed import Roster

POPULATION, PROVIDER = people(random.Random(3), users=10, groups=4)


def packed(generation: int = 1, digest: bytes = b"these") -> PackedPeople:
    spool = Spool()
    pages = (spool.append(pack_rows(map(row_of, POPULATION.users))),)
    return PackedPeople(spool, pages, len(POPULATION.users), POPULATION.groups, generation, 0.0, digest)


ARENA = compile_people(packed(), PROVIDER)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    stored = StoredArenas(tmp_path / "made" / "here")
    assert stored.load(packed(), PROVIDER) is None
    for _ in range(2):
        stored.save(packed(), PROVIDER, ARENA)
        found = stored.load(packed(), PROVIDER)
        assert found is not None and found.readonly and bytes(found) == ARENA
    (file,) = (tmp_path / "made" / "here").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"")
    assert bytes(found) == ARENA, "nobody can change what is searched"


@pytest.mark.parametrize(
    ("there", "provider"),
    [
        (packed(digest=b"others"), PROVIDER),
        (packed(generation=2), PROVIDER),
        (packed(), replace(PROVIDER, base_dn="dc=other")),
        (packed(), replace(PROVIDER, uid_start_number=PROVIDER.uid_start_number + 1)),
        (packed(), replace(PROVIDER, options=replace(PROVIDER.options, login_shell="/bin/other"))),
    ],
)
def test_it_is_for_nobody_else(tmp_path: Path, there: PackedPeople, provider: LdapProvider) -> None:
    stored = StoredArenas(tmp_path)
    stored.save(packed(), PROVIDER, ARENA)
    assert stored.load(there, provider) is None
    assert stored.load(packed(), replace(PROVIDER, certificate="new", bind_flow_slug="other")) is not None


def spoilt(file: Path, how: str) -> None:
    match how:
        case "cut":
            os.truncate(file, file.stat().st_size - 8)
        case "empty":
            os.truncate(file, 32)
        case "changed":
            octets = bytearray(file.read_bytes())
            octets[len(octets) // 2] ^= 1
            file.write_bytes(octets)
        case "writable":
            file.chmod(0o666)
        case "link":
            file.rename(file.with_name("elsewhere"))
            file.symlink_to(file.with_name("elsewhere"))


@pytest.mark.parametrize("how", ["writable", "link"])
def test_a_file_that_is_not_ours_is_not_read(tmp_path: Path, how: str) -> None:
    stored = StoredArenas(tmp_path)
    stored.save(packed(), PROVIDER, ARENA)
    spoilt(next(tmp_path.iterdir()), how)
    with pytest.raises((BackendError, OSError)):
        stored.load(packed(), PROVIDER)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


class Start:
    """One run of the appliance, as far as directories go."""

    def __init__(self, place: Path, there: PackedPeople) -> None:
        self.roster = Roster(None)
        self.roster.people = there
        self.said: list[tuple[str, str]] = []
        self.there: Directories[Shelf] = Directories(
            self.roster, shelved, lambda level, event: self.said.append((level, event)), stored=StoredArenas(place)
        )

    async def served(self) -> bytes:
        self.there.serve([PROVIDER])
        await until(lambda: self.there.shelf(PROVIDER))
        found = self.there.shelf(PROVIDER)
        assert found is not None
        await self.there.stop()
        return bytes(found.snapshot.arena)


async def test_a_second_start_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Start(tmp_path, packed()).served() == ARENA

    def never(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(directories, "compile_people", never)
    second = Start(tmp_path, packed())
    assert await second.served() == ARENA and not second.said


@pytest.mark.parametrize("how", ["cut", "empty", "changed", "writable", "link"])
async def test_what_is_damaged_is_compiled_anew_and_stored(tmp_path: Path, how: str) -> None:
    await Start(tmp_path, packed()).served()
    spoilt(next(tmp_path.iterdir()), how)
    again = Start(tmp_path, packed())
    assert await again.served() == ARENA
    assert how == "empty" or [level for level, event in again.said if "is not taken" in event] == ["warning"]
    third = Start(tmp_path, packed())
    assert await third.served() == ARENA
    assert not [event for _, event in third.said if "is not taken" in event]


async def test_other_people_take_its_place(tmp_path: Path) -> None:
    await Start(tmp_path, packed()).served()
    await Start(tmp_path, packed(generation=2, digest=b"new")).served()
    stored = StoredArenas(tmp_path)
    assert stored.load(packed(), PROVIDER) is None
    assert stored.load(packed(generation=2, digest=b"new"), PROVIDER) is not None


async def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    start = Start(tmp_path / "file" / "below", packed())
    await start.served()
    assert [level for level, event in start.said if "was not stored" in event] == ["warning"]
