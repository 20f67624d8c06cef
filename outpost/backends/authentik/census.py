"""One complete copy of the people, and what tells whether another one differs and whom that concerns.

Of a user the process keeps three numbers; everything else lies packed in a spool.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from outpost.backends.authentik import people
from outpost.identity import Group, User
from outpost.processes.people import Chunk, PackedPeople, Spool, group_row, pack_rows, row_of, unpack_users


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


@dataclass(frozen=True, slots=True)
class Census:
    """Everybody."""

    people: PackedPeople
    pks: array[int]
    digests: array[int]
    standings: array[int]

    def is_like(self, other: Census) -> bool:
        """Whether the same people stand in both, in the same order."""
        return (self.pks, self.digests, self.people.groups) == (other.pks, other.digests, other.people.groups)


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
    page.chunk = spool.append(pack_rows(rows))
    return page


def joined(
    pages: Sequence[UserPage], groups: Iterable[Group], spool: Spool, *, generation: int, taken_at: float
) -> Census:
    """All pages of one read."""
    pks, digests, standings = array("q"), array("Q"), array("Q")
    for page in pages:
        pks += page.keys
        digests += page.digests
        standings += page.standings
    whole = people.consistent_groups(groups)
    chunks = tuple(page.chunk for page in pages)
    found = PackedPeople(spool, chunks, len(pks), whole, generation, taken_at, digest_of(pks, digests, whole))
    return Census(found, pks, digests, standings)


def digest_of(pks: array[int], digests: array[int], groups: Iterable[Group]) -> bytes:
    """Tells these people from others."""
    hashed = blake2b(pks.tobytes(), digest_size=16)
    hashed.update(digests.tobytes())
    hashed.update(orjson.dumps([group_row(one) for one in groups]))
    return hashed.digest()


def revoked(before: Census, after: Census) -> frozenset[int]:
    """pks of the users who are gone or whose standing changed, by themselves or through their groups' ancestry.

    Raises DecodeError.
    """
    now = dict(zip(after.pks, after.standings, strict=True))
    found = {pk for pk, standing in zip(before.pks, before.standings, strict=True) if now.get(pk) != standing}
    moved = people.moved({one.pk: one for one in before.people.groups}, {one.pk: one for one in after.people.groups})
    if moved:
        # One page at a time: all of them as objects would be too many.
        for chunk in before.people.pages:
            users = unpack_users(before.people.spool.read(chunk))
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
