"""The process that reads one directory file: `python -m outpost.backends.embedded.apart_process DESCRIPTOR`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import orjson

from outpost.backends.embedded.apart import ANSWER, ORDER, Done, Failed, Order, Refused
from outpost.backends.embedded.changes import revoked_users
from outpost.backends.embedded.loader import load
from outpost.backends.embedded.model import Directory
from outpost.backends.embedded.packed import PackedAccounts, PackedLogins, Summary, digest_of, pack, summary_of
from outpost.errors import ConfigError
from outpost.processes import child, memory, message
from outpost.processes.people import Chunk, group_from, group_row, pack_rows, row_of, unpack_users

NICE: Final = 5
"""Whoever waits for an answer comes first."""
PAGE: Final = 1000
"""Users that are packed together."""


class _Lossy(Exception):
    """What was read cannot be told as it is; quotes nothing of it."""


def main() -> None:
    """Answer one order, and end."""
    sock = child.inherited(sys.argv[1])
    child.keep_private()
    # Nothing of this lasts, and looking for cycles in a million objects takes as long as the work itself.
    gc.disable()
    received = message.receive(sock)
    if received is None:
        return
    descriptors: Sequence[int] = ()
    said: Refused | Failed | Done
    try:
        order = ORDER.decode(received.body)
        if not order.is_urgent:
            os.nice(NICE)
        said, descriptors = answered(order, received.descriptors)
    except ConfigError as error:
        said = Refused(error.problem, error.source, error.line, error.key)
    except _Lossy as error:
        said = Failed(str(error))
    except Exception as exc:  # its text may quote a secret
        said = Failed(type(exc).__name__)
    message.send(sock, ANSWER.encode(said), descriptors)


def answered(order: Order, before: Sequence[int]) -> tuple[Done, tuple[int, int]]:
    """What is in the file, with descriptors of accounts and people; `before`: that of the accounts there were, or none.

    Raises ConfigError, and anything else for a directory that cannot be told without loss.
    """
    directory = load(order.path, order.extras, environ=order.environ)
    octets = pack(directory.accounts, directory.by_login)
    summary, digest = summary_of(directory.accounts), digest_of(octets)
    there = memory.sealed(octets)
    accounts = PackedAccounts(os.dup(there), digest, summary)
    logins = PackedLogins(accounts)
    if not _is_same(directory, accounts, logins):
        raise _Lossy("accounts do not come back as they were")
    revoked = None
    if before:
        old = PackedAccounts(before[0], b"", Summary((), ()))
        revoked = tuple(revoked_users(old, PackedLogins(old), accounts, logins))
    pages, people_digest, crowd = _pages(directory)
    done = Done(
        accounts_digest=digest,
        summary=summary,
        people_digest=people_digest,
        groups=_groups(directory),
        pages=pages,
        user_count=directory.people.user_count,
        taken_at=directory.people.taken_at,
        served=directory.served,
        applications=directory.applications,
        files=directory.files,
        warnings=directory.warnings,
        revoked=revoked,
    )
    return done, (there, crowd)


def _is_same(directory: Directory, accounts: PackedAccounts, logins: PackedLogins) -> bool:
    return (
        len(accounts) == len(directory.accounts)
        and all(accounts[pk] == account for pk, account in directory.accounts.items())
        and dict(logins.owned()) == directory.by_login
    )


def _pages(directory: Directory) -> tuple[tuple[tuple[int, int], ...], bytes, int]:
    """Where the pages lie, a digest of everybody, and the memory. Raises _Lossy and TypeError."""
    users, hashed = directory.people.users, blake2b(_groups(directory).encode(), digest_size=16)
    pages: list[tuple[int, int]] = []
    whole = bytearray()
    for first in range(0, len(users), PAGE):
        some = list(users[first : first + PAGE])
        rows = [row_of(one) for one in some]
        packed = pack_rows(rows)
        if unpack_users(packed, {}) != some:
            raise _Lossy("attributes hold what JSON cannot, a date perhaps")
        for row in rows:
            hashed.update(row)
        pages.append(Chunk(len(whole), len(packed)))
        whole += packed
    return tuple(pages), hashed.digest(), memory.sealed(whole)


def _groups(directory: Directory) -> str:
    groups = directory.people.groups
    text = orjson.dumps([group_row(one) for one in groups]).decode()
    if tuple(group_from(row) for row in orjson.loads(text)) != groups:
        raise _Lossy("attributes hold what JSON cannot, a date perhaps")
    return text


if __name__ == "__main__":
    main()
