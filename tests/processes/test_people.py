"""People as octets: what goes in comes out, and what is damaged is noticed."""

import gc
import os
import zlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import orjson
import pytest

from outpost.errors import DecodeError
from outpost.identity import Group, User
from outpost.processes.people import Chunk, PackedPeople, Spool, group_from, group_row, pack_rows, row_of, unpack_users

USERS = (
    User(1, "ann"),
    User(
        2**31,
        "bärbel ☃",
        "Bärbel  Schmidt",
        "b@example.org",
        "f" * 64,
        "7f3c1d54-9d7e-4e0f-8a43-9a5a5b3a1c11",
        False,
        True,
        "service_account",
        "users/deep",
        ("g1", "g2"),
        {"list": [1, None, "x"], "deep": {"a": [True, 1.5]}, "": ""},
        datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime(2030, 1, 1),
    ),
)


def test_users_come_back_as_they_were() -> None:
    assert tuple(unpack_users(pack_rows(map(row_of, USERS)), {})) == USERS
    assert unpack_users(pack_rows([]), {}) == []


def test_a_spool_may_begin_as_a_copy_of_a_file(tmp_path: Path) -> None:
    octets = os.urandom((1 << 20) + 5)
    file = tmp_path / "file"
    file.write_bytes(octets)
    with file.open("rb") as opened:
        spool = Spool.of(opened.fileno(), len(octets) - 1)
        longer = Spool.of(opened.fileno(), len(octets) + 7)
    file.write_bytes(b"")
    with spool.mapped() as mapped:
        assert mapped[:] == octets[:-1]
    assert longer.size == len(octets)
    chunk = spool.append(b"more")
    assert chunk == Chunk(len(octets) - 1, 4)
    assert spool.read(chunk) == b"more"
    assert spool.read(Chunk(3, 9)) == octets[3:12]
    with pytest.raises(ValueError):
        Spool().mapped()


def test_groups_come_back_as_they_were() -> None:
    for group in (Group("a", 1, "staff"), Group("b", 2**31, "ü", True, ("a", "c"), {"x": [1, {"y": None}]})):
        assert group_from(orjson.loads(orjson.dumps(group_row(group)))) == group


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"nothing compressed",
        zlib.compress(b"no JSON"),
        zlib.compress(b'{"a":1}'),
        zlib.compress(b"[[1]]"),
        zlib.compress(b"[1]"),
        pack_rows(map(row_of, USERS))[:-5],
        zlib.compress(row_of(USERS[1]).replace(b"2024-02-29", b"2023-02-29").join((b"[", b"]"))),
    ],
)
def test_damaged_users_are_an_error(octets: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack_users(octets, {})


@pytest.mark.parametrize("row", [None, [], ["a", 1], ["a", 1, "n", False, None, {}], 5])
def test_damaged_groups_are_an_error(row: object) -> None:
    with pytest.raises(DecodeError):
        group_from(row)


def test_a_spool_keeps_what_is_written_until_nobody_has_it() -> None:
    spool = Spool()
    chunks = [spool.append(bytes([n % 256]) * n) for n in (1, 0, 70_000)]
    assert [spool.read(chunk) for chunk in chunks] == [b"\1", b"", bytes([70_000 % 256]) * 70_000]
    for wrong in (Chunk(spool.size, 1), Chunk(0, spool.size + 1), Chunk(-1, 1), Chunk(2**70, 1)):
        with pytest.raises(DecodeError):
            spool.read(wrong)
    descriptor = spool.descriptor
    os.fstat(descriptor)
    del spool
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_packed_people_are_read_where_they_lie() -> None:
    spool = Spool()
    pages = tuple(spool.append(pack_rows([row_of(user)])) for user in USERS)
    packed = PackedPeople(spool, pages, 2, (Group("g1", 1, "g"),), 7, 1.0)
    assert packed.users == USERS and packed.user_count == len(USERS)
    with pytest.raises(DecodeError):
        PackedPeople(spool, (Chunk(0, spool.size + 1),), 1, (), 7, 1.0).users  # noqa: B018


def test_only_the_same_user_has_the_same_row() -> None:
    assert row_of(USERS[0]) == row_of(User(1, "ann")) != row_of(User(1, "ann", email="x"))
