"""One complete copy of the people, and what tells whether another one differs and whom that concerns.

Of a user the process keeps three numbers; everything else lies packed in a spool.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import orjson

from outpost.backends.authentik import people
from outpost.backends.authentik.pauses import gently
from outpost.identity import Group, User
from outpost.processes.people import Chunk, PackedPeople, Spool, group_row, pack_rows, row_of, unpack_users

AT_A_TIME = 16
"""Pages compared between two pauses."""


@dataclass(slots=True)
class UserPage:
    """Some users: `pages.Batch`."""

    keys: array[int]
    """Their pks."""
    digests: array[int]
    """Of all that is kept about each."""
    standings: array[int]
    """Of what decides about each one's logins."""
    chunk: Chunk
    has_groups: bool = False
    """Any of them is a member of one."""


class Numbers(NamedTuple):
    """What is kept of each user, in the order of the pages."""

    pks: array[int]
    digests: array[int]
    standings: array[int]


@dataclass(frozen=True, slots=True)
class Census:
    """Everybody."""

    people: PackedPeople
    pages: tuple[UserPage, ...]

    def is_like(self, other: Census) -> bool:
        """Whether the same people stand in both, in the same order."""
        return self.people.digest == other.people.digest

    def numbers(self) -> Numbers:
        """Those of all pages."""
        return _numbers(self.pages)


def page_of(users: Iterable[User], spool: Spool) -> UserPage:
    """Pack some users into the spool. Raises BackendError."""
    page = UserPage(array("q"), array("Q"), array("Q"), Chunk(0, 0))
    rows = []
    for one in users:
        row = row_of(one)
        rows.append(row)
        page.keys.append(one.pk)
        page.digests.append(_number(row))
        page.standings.append(_number(repr(people.standing_text(one)).encode()))
        page.has_groups = page.has_groups or bool(one.groups)
    page.chunk = spool.append(pack_rows(rows))
    return page


def joined(
    pages: Sequence[UserPage], groups: Iterable[Group], spool: Spool, *, generation: int, taken_at: float
) -> Census:
    """All pages of one read."""
    whole = people.consistent_groups(groups)
    found = _numbers(pages)
    chunks = tuple(page.chunk for page in pages)
    digest = digest_of(found, whole)
    return Census(PackedPeople(spool, chunks, len(found.pks), whole, generation, taken_at, digest), tuple(pages))


def _numbers(pages: Iterable[UserPage]) -> Numbers:
    found = Numbers(array("q"), array("Q"), array("Q"))
    for page in pages:
        found.pks.extend(page.keys)
        found.digests.extend(page.digests)
        found.standings.extend(page.standings)
    return found


def digest_of(numbers: Numbers, groups: Iterable[Group]) -> bytes:
    """Tells these people from others."""
    hashed = blake2b(numbers.pks.tobytes(), digest_size=16)
    hashed.update(numbers.digests.tobytes())
    hashed.update(orjson.dumps([group_row(one) for one in groups]))
    return hashed.digest()


def revoked(before: Census, after: Census) -> frozenset[int]:
    """pks of the users who are gone or whose standing changed, by themselves or through their groups' ancestry.

    Raises DecodeError.
    """
    kept = {id(page) for page in before.pages} & {id(page) for page in after.pages}
    standings: dict[int, int] = {}
    for page in gently((one for one in after.pages if id(one) not in kept), AT_A_TIME):
        standings.update(zip(page.keys, page.standings, strict=True))
    found = set()
    for page in gently((one for one in before.pages if id(one) not in kept), AT_A_TIME):
        found |= {pk for pk, one in zip(page.keys, page.standings, strict=True) if standings.get(pk) != one}
    moved = people.moved({one.pk: one for one in before.people.groups}, {one.pk: one for one in after.people.groups})
    if moved:
        # One page at a time: all of them as objects would be too many.
        for chunk in gently(before.people.pages, 1):
            users = unpack_users(before.people.spool.read(chunk), {})
            found |= {one.pk for one in users if not moved.isdisjoint(one.groups)}
    return frozenset(found)


def moved_in(pages: Iterable[UserPage], old: Spool) -> Spool:
    """A new spool with nothing but these pages, which lie there from now on. Raises BackendError and DecodeError."""
    spool = Spool()
    for page in pages:
        page.chunk = spool.append(old.read(page.chunk))
    return spool


def _number(octets: bytes) -> int:
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "little")
