"""People as octets in memory that processes share: written page by page, read by whoever compiles them.

The process that serves needs none of them as objects, and 100,000 users are a hundred megabytes as objects and fifteen
as these octets, which it does not even have mapped.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Self, final

import orjson

from outpost.errors import BackendError, DecodeError
from outpost.identity import Group, User

BLOCK: Final = 1 << 20
LEVEL: Final = 1
"""Of compression: the fastest, which takes two thirds away."""


class Chunk(NamedTuple):
    """Where octets lie in a spool."""

    offset: int
    size: int


@final
class Spool:
    """Octets that are written once and read often, in memory without a name. Any thread may use it."""

    def __init__(self, descriptor: int | None = None) -> None:
        """descriptor: of what another process has written, ours from now on. Raises BackendError."""
        try:
            self.descriptor = os.memfd_create("outpost-people", os.MFD_CLOEXEC) if descriptor is None else descriptor
        except OSError as error:
            raise BackendError(f"no memory for people: {os.strerror(error.errno or 0)}") from None
        weakref.finalize(self, os.close, self.descriptor)
        self._lock = threading.Lock()
        self.size = os.fstat(self.descriptor).st_size

    @classmethod
    def of(cls, descriptor: int, size: int) -> Self:
        """A copy of the first `size` octets of a file, or of all that it has. Raises BackendError and OSError."""
        spool = cls()
        while spool.size < size and (
            written := os.sendfile(spool.descriptor, descriptor, spool.size, min(size - spool.size, BLOCK))
        ):
            spool.size += written
        return spool

    def mapped(self) -> mmap.mmap:
        """All that was written until now, to be read. Raises OSError, and ValueError when that is nothing."""
        return mmap.mmap(self.descriptor, self.size, prot=mmap.PROT_READ)

    def append(self, octets: bytes) -> Chunk:
        """Where they are from now on. Raises BackendError."""
        with self._lock:
            chunk = Chunk(self.size, len(octets))
            self.size += len(octets)
        left, at = memoryview(octets), chunk.offset
        try:
            while left:
                written = os.pwrite(self.descriptor, left, at)
                left, at = left[written:], at + written
        except OSError as error:
            raise BackendError(f"no memory for people: {os.strerror(error.errno or 0)}") from None
        return chunk

    def read(self, chunk: Chunk) -> bytes:
        """Raises DecodeError where there is nothing like it."""
        return read(self.descriptor, chunk)


def read(descriptor: int, chunk: Chunk) -> bytes:
    """What `Spool.append` wrote into the spool with this descriptor. Raises DecodeError."""
    try:
        octets = os.pread(descriptor, chunk.size, chunk.offset)
    except (OSError, ValueError, OverflowError):
        octets = b""
    if len(octets) != chunk.size:
        raise DecodeError("people: cut short")
    return octets


@final
@dataclass(frozen=True, slots=True)
class PackedPeople:
    """Implements `outpost.identity.Crowd`: as `People`, but the users lie in a spool."""

    spool: Spool
    pages: tuple[Chunk, ...]
    user_count: int
    groups: tuple[Group, ...]
    generation: int
    taken_at: float
    digest: bytes = b""
    """The same for the same people in the same order; empty: not known."""

    @property
    def users(self) -> tuple[User, ...]:
        """Made anew each time, which takes a while. Raises DecodeError."""
        return tuple(unpack_pages(self.spool.read(page) for page in self.pages))


def row_of(one: User) -> bytes:
    """One user as JSON; the same for equal users whose attributes came in the same order."""
    return orjson.dumps(
        (
            one.pk, one.username, one.name, one.email, one.uid, one.uuid, one.is_active, one.is_superuser, one.type,
            one.path, one.groups, one.attributes, one.date_joined, one.last_updated, one.password_change_date,
        )
    )  # fmt: skip


def pack_rows(rows: Iterable[bytes]) -> bytes:
    """Users, each as `row_of` says."""
    return zlib.compress(b"[" + b",".join(rows) + b"]", LEVEL)


def unpack_pages(pages: Iterable[bytes]) -> Iterator[User]:
    """The users of all pages. Raises DecodeError."""
    # One object for each group's pk: with many memberships the text itself must not be kept many times.
    shared: dict[str, str] = {}
    return itertools.chain.from_iterable(unpack_users(page, shared) for page in pages)


def unpack_users(octets: bytes, shared: dict[str, str]) -> list[User]:
    """What `pack_rows` packed; `shared` gets, and gives, the texts that many users have. Raises DecodeError."""
    same = shared.setdefault
    try:
        rows = orjson.loads(zlib.decompress(octets))
        return [
            User(
                pk, username, name, email, uid, uuid, is_active, is_superuser, same(kind, kind), same(path, path),
                tuple(map(same, groups, groups)), attributes, _moment(joined), _moment(updated), _moment(changed),
            )
            for pk, username, name, email, uid, uuid, is_active, is_superuser, kind, path, groups, attributes, joined,
                updated, changed in rows
        ]  # fmt: skip
    except (zlib.error, ValueError, TypeError) as error:
        raise DecodeError(f"people: {type(error).__name__}") from None


def group_row(one: Group) -> list[Any]:
    """One group as JSON has it."""
    return [one.pk, one.num_pk, one.name, one.is_superuser, one.parents, one.attributes]


def group_from(row: Any) -> Group:
    """What `group_row` made. Raises DecodeError."""
    try:
        pk, num_pk, name, is_superuser, parents, attributes = row
        return Group(pk, num_pk, name, is_superuser, tuple(parents), attributes)
    except (ValueError, TypeError) as error:
        raise DecodeError(f"people: {type(error).__name__}") from None


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
