"""An arena is believed only when it is whole: what a file or another process hands over may be anything."""

import mmap
import os
import pathlib
import random
import struct
import subprocess
import sys

import pytest

from outpost._fastber import Limits, decode_message
from outpost.errors import DecodeError
from outpost.identity import Group, People, User
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from tests.ldap import encode, wrong_arenas
from tests.ldap.generate import people
from tests.ldap.wrong_arenas import signed

ROOT = pathlib.Path(__file__).parents[2]
POPULATION, PROVIDER = people(random.Random(1), users=4, groups=2)
ARENA = compile_people(POPULATION, PROVIDER)
CHECKSUM, VERSION, SIZE = 8, 24, 32
ENCODED, DNS, IN_RECORD = 1, 3, 0


def test_a_whole_arena_is_taken_from_wherever_it_lies() -> None:
    with mmap.mmap(-1, len(ARENA) + 8) as mapped:
        mapped[8 : 8 + len(ARENA)] = ARENA
        for arena in (ARENA, signed(ARENA), bytearray(ARENA), memoryview(mapped)[8 : 8 + len(ARENA)]):
            snapshot = Snapshot(arena)
            assert bytes(snapshot.arena) == ARENA
            assert snapshot.generation == POPULATION.generation
            assert snapshot.base_dn == PROVIDER.base_dn.encode()
            assert Snapshot(snapshot.arena).entry_count == snapshot.entry_count
            del snapshot, arena


def test_the_memory_is_held_for_as_long_as_it_is_searched() -> None:
    octets = bytearray(ARENA)
    snapshot = Snapshot(octets)
    with pytest.raises(BufferError):
        octets.clear()
    request = decode_message(encode.search(1, PROVIDER.base_dn), Limits())
    search = snapshot.search(request, snapshot.full_view())  # type: ignore[arg-type]
    del snapshot
    with pytest.raises(BufferError):
        octets.clear()
    assert search.read(1 << 20)
    del search
    octets.clear()


def test_the_same_people_make_the_same_arena() -> None:
    assert compile_people(POPULATION, PROVIDER) == ARENA


@pytest.mark.parametrize("keep", [0, 1, 8, 24, 100, 167, 168, 200, len(ARENA) // 2, len(ARENA) - 4, len(ARENA) - 1])
def test_truncated_arenas_are_refused(keep: int) -> None:
    for arena in (ARENA[:keep], signed(ARENA[:keep]) if keep >= 24 else b""):
        with pytest.raises(DecodeError, match="arena"):
            Snapshot(arena)


@pytest.mark.parametrize("more", [1, 4, 4096])
def test_longer_arenas_are_refused(more: int) -> None:
    for arena in (ARENA + bytes(more), signed(ARENA + bytes(more))):
        with pytest.raises(DecodeError, match="arena"):
            Snapshot(arena)


def test_any_octet_changed_is_refused() -> None:
    for at in {*range(200), *range(200, len(ARENA), 37)}:
        wrong = bytearray(ARENA)
        wrong[at] ^= 1 << (at % 8)
        with pytest.raises(DecodeError, match="checksum" if at >= 8 else "not one of ours"):
            Snapshot(wrong)


@pytest.mark.parametrize("version", [0, 1, 2, 4, 0xFFFFFFFF])
def test_other_versions_are_refused(version: int) -> None:
    wrong = bytearray(ARENA)
    struct.pack_into("<I", wrong, VERSION, version)
    with pytest.raises(DecodeError, match="version"):
        Snapshot(signed(wrong))


@pytest.mark.parametrize("at", range(48, 168, 4))
@pytest.mark.parametrize("value", [0, 1, 7, 0x7FFFFFFC, 0xFFFFFFFC, 0xFFFFFFFF])
def test_no_field_of_the_header_is_believed(at: int, value: int) -> None:
    """Refused, or it does not matter: counts may be smaller, and the last four octets are padding."""
    wrong = bytearray(ARENA)
    (right,) = struct.unpack_from("<I", wrong, at)
    struct.pack_into("<I", wrong, at, value)
    try:
        Snapshot(signed(wrong))
    except DecodeError:
        return
    assert value <= right or at == 164


def test_a_list_is_as_long_as_its_form_says() -> None:
    """An item says whether the whole attribute lies encoded behind its list; both kinds are checked for themselves."""
    users = tuple(User(n, f"user{n}", groups=("g",)) for n in range(10))
    arena = compile_people(People(users, (Group("g", 1, "g"),), 1, 0.0), PROVIDER)
    items, count = struct.unpack_from("<II", arena, 80)
    refused = 0
    for at in range(items, items + 8 * count, 8):
        _, form, where, _ = struct.unpack_from("<HBBI", arena, at)
        if form != DNS or where != IN_RECORD:
            continue
        wrong = bytearray(arena)
        wrong[at + 2] = ENCODED
        with pytest.raises(DecodeError, match=r"a list is too long|a value lies outside"):
            Snapshot(signed(wrong))
        refused += 1
    assert refused == 3, "memberOf, and member and uniqueMember, which share one list: each use of it is looked at"


def test_a_snapshot_is_loaded_once() -> None:
    snapshot = Snapshot(ARENA)
    with pytest.raises(TypeError):
        snapshot.__init__(ARENA)  # type: ignore[misc]


@pytest.mark.parametrize("seed", [1, 2])
def test_no_offset_is_followed_out_of_the_arena(seed: int) -> None:
    """In a process of its own, where the pages around the arena cannot be read."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", wrong_arenas.__file__, str(seed), "800"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    refused, late, harmless = map(int, run.stdout.split())
    assert refused > 200 and harmless > 50 and refused + late + harmless == 800
