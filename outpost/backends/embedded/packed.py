"""Accounts as octets in sealed memory: each becomes an object when somebody asks for it.

Ten thousand of them as objects take as long to make, to compare and to take apart as a hundred logins.  What is kept of
them here is an index that is searched where it lies; the rows are JSON (`outpost.processes.wire`).
"""

from __future__ import annotations

import bisect
import itertools
import mmap
import os
import struct
import weakref
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal, final

from outpost.backends.embedded import phc
from outpost.backends.embedded.model import Account, AppPassword, Password, TotpDevice
from outpost.errors import DecodeError
from outpost.identity import ReplyAttributes, Secret
from outpost.processes import memory
from outpost.processes.wire import Wire

_HEAD: Final = struct.Struct("<QQ")
"""Number of accounts, number of names."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is asked about all accounts together."""

    costs: tuple[tuple[str, int], ...]
    """Of hashed passwords: a PHC string of each cost, and how many accounts have one like it."""
    replies: tuple[tuple[str, str, str], ...]
    """Each reply attribute once: name, value and the username of the first who gets it."""


@dataclass(frozen=True, slots=True)
class _Row:
    pk: int
    username: str
    is_active: bool
    password: Password | None
    app_passwords: tuple[AppPassword, ...]
    totp: tuple[TotpDevice, ...]
    static_codes: tuple[Secret, ...]
    memberships: tuple[str, ...]
    is_superuser: bool
    reply: ReplyAttributes


_ROW: Final[Wire[_Row]] = Wire(_Row)


@final
class PackedAccounts(Mapping[int, Account]):
    """Accounts by pk, in order of it, where `pack` has laid them down. Any thread may ask."""

    def __init__(self, descriptor: int, digest: bytes, summary: Summary) -> None:
        """descriptor: of sealed memory, ours from now on; digest: tells these octets from others.

        Raises DecodeError for memory that holds something else, and OSError.
        """
        weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        self.digest = digest
        self.summary = summary
        try:
            mapped = memory.mapped(descriptor)
            # There are password hashes and keys in it.
            mapped.madvise(mmap.MADV_DONTDUMP)
            octets = memoryview(mapped)
            accounts, names = _HEAD.unpack_from(octets)
            at = _HEAD.size
            if at + 8 * (2 * accounts + 3 * names) > len(octets):
                raise ValueError("cut short")
            columns: list[memoryview[int]] = []
            kinds: tuple[tuple[Literal["q", "Q"], int], ...]
            kinds = (("q", accounts), ("Q", accounts), ("Q", names), ("q", names), ("Q", names))
            for code, count in kinds:
                columns.append(octets[at : at + 8 * count].cast(code))
                at += 8 * count
            self._pks, self._ends, self.hashes, self.owners, self._name_ends = columns
            size = self._ends[-1] if accounts else 0
            self._rows, self._names = octets[at : at + size], octets[at + size :]
            if len(self._rows) != size or len(self._names) != (self._name_ends[-1] if names else 0):
                raise ValueError("cut short")
        except (ValueError, TypeError, struct.error):
            raise DecodeError("accounts: no memory of ours") from None

    def row(self, pk: int) -> bytes | None:
        """All that is known of an account; the same octets for equal ones."""
        place = bisect.bisect_left(self._pks, pk)
        if place == len(self._pks) or self._pks[place] != pk:
            return None
        return self._row(place)

    def _row(self, place: int) -> bytes:
        return bytes(self._rows[self._ends[place - 1] if place else 0 : self._ends[place]])

    def any(self, number: int) -> Account:
        """One of the accounts; there has to be one."""
        return _account(self._row(number % len(self._pks)))

    def name(self, place: int) -> bytes:
        """A login name."""
        return bytes(self._names[self._name_ends[place - 1] if place else 0 : self._name_ends[place]])

    def __getitem__(self, pk: int) -> Account:
        row = self.row(pk)
        if row is None:
            raise KeyError(pk)
        return _account(row)

    def __iter__(self) -> Iterator[int]:
        return iter(self._pks)

    def __len__(self) -> int:
        return len(self._pks)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedAccounts):
            return self.digest == other.digest
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


@final
class PackedLogins(Mapping[str, int]):
    """User pks by login name."""

    def __init__(self, accounts: PackedAccounts) -> None:
        self._accounts = accounts
        self._hashes, self._owners = accounts.hashes, accounts.owners

    def __getitem__(self, name: str) -> int:
        octets = name.encode("utf-8", "surrogatepass")
        number = _number(octets)
        place = bisect.bisect_left(self._hashes, number)
        while place < len(self._hashes) and self._hashes[place] == number:
            if self._accounts.name(place) == octets:
                return self._owners[place]
            place += 1
        if self._accounts:
            # Whoever is there is made an object next; who is not must not be told by the time that this takes.
            self._accounts.any(number)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (self._accounts.name(place).decode("utf-8", "surrogatepass") for place in range(len(self)))

    def __len__(self) -> int:
        return len(self._hashes)

    def owned(self) -> Iterator[tuple[str, int]]:
        """All names, each with its pk."""
        return zip(self, self._owners, strict=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedLogins):
            return self._accounts == other._accounts
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


def pack(accounts: Mapping[int, Account], by_login: Mapping[str, int]) -> bytes:
    """The octets that `PackedAccounts` reads. Raises TypeError for text that is no Unicode."""
    pks = array("q", sorted(accounts))
    rows = [_ROW.encode(_row(accounts[pk])) for pk in pks]
    names = sorted((_number(octets), octets, pk) for octets, pk in _encoded(by_login))
    columns = (
        pks,
        _ends(rows),
        array("Q", [number for number, _, _ in names]),
        array("q", [pk for _, _, pk in names]),
        _ends([octets for _, octets, _ in names]),
    )
    index = b"".join(one.tobytes() for one in columns)
    return b"".join((_HEAD.pack(len(pks), len(names)), index, *rows, *(octets for _, octets, _ in names)))


def digest_of(octets: bytes) -> bytes:
    """Tells accounts from others."""
    return blake2b(octets, digest_size=32).digest()


def summary_of(accounts: Mapping[int, Account]) -> Summary:
    """What is asked about all of them together; walks them unless somebody has."""
    if isinstance(accounts, PackedAccounts):
        return accounts.summary
    costs: dict[str, tuple[str, int]] = {}
    replies: dict[tuple[str, str], str] = {}
    for account in accounts.values():
        if account.password is not None and account.password.is_hashed:
            text = account.password.value.reveal_text()
            cost = text.rpartition("$")[0].rpartition("$")[0]
            costs[cost] = text, costs.get(cost, (text, 0))[1] + 1
        for pair in account.reply.named:
            replies.setdefault(pair, account.username)
    # No account's own: this is kept by itself, and the cost is all that anybody wants of it.
    return Summary(
        tuple((phc.dummy(text), count) for text, count in costs.values()),
        tuple((*pair, username) for pair, username in replies.items()),
    )


def _encoded(by_login: Mapping[str, int]) -> Iterator[tuple[bytes, int]]:
    return ((name.encode("utf-8", "surrogatepass"), pk) for name, pk in by_login.items())


def _ends(parts: list[bytes]) -> array[int]:
    return array("Q", itertools.accumulate(map(len, parts)))


def _number(octets: bytes) -> int:
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "little")


def _row(account: Account) -> _Row:
    return _Row(
        account.pk,
        account.username,
        account.is_active,
        account.password,
        account.app_passwords,
        account.totp,
        account.static_codes,
        tuple(sorted(account.memberships)),
        account.is_superuser,
        account.reply,
    )


def _account(octets: bytes) -> Account:
    """Raises DecodeError."""
    row = _ROW.decode(octets)
    return Account(
        row.pk,
        row.username,
        row.is_active,
        row.password,
        row.app_passwords,
        row.totp,
        row.static_codes,
        frozenset(row.memberships),
        row.is_superuser,
        row.reply,
    )
