"""Reads a large directory file in a process of its own, so that neither its work nor its garbage is the server's.

The process gets the path and what was read before, and gives back sealed memory with accounts and with people, and
whom to forget.  It is started for one read and ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from outpost.backends.embedded.model import Application, Directory, Extras
from outpost.backends.embedded.packed import PackedAccounts, PackedLogins, Summary
from outpost.errors import BackendError, ConfigError, DecodeError
from outpost.identity import Served
from outpost.processes import errand
from outpost.processes.message import Message
from outpost.processes.people import Chunk, PackedPeople, Spool, group_from
from outpost.processes.wire import Wire

MODULE: Final = "outpost.backends.embedded.apart_process"
LONGEST_S: Final = 600.0
"""A process that takes longer is ended; 100,000 users take a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to read. A descriptor of the accounts before comes with it, if there are any."""

    path: Path
    extras: Extras
    environ: Mapping[str, str]
    """For `!Env`."""
    is_urgent: bool
    """Nobody is served yet."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A ConfigError."""

    problem: str
    source: str
    line: int | None
    key: str


@dataclass(frozen=True, slots=True)
class Failed:
    """No directory, for a reason that is not the file's."""

    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """Everything but the accounts and the users, which lie in the memory whose two descriptors come with it."""

    accounts_digest: bytes
    summary: Summary
    people_digest: bytes
    groups: str
    """JSON."""
    pages: tuple[tuple[int, int], ...]
    user_count: int
    taken_at: float
    served: Served
    applications: Mapping[str, Application]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
    revoked: tuple[int, ...] | None
    """pks; None: there were no accounts before."""


ORDER: Final[Wire[Order]] = Wire(Order)
ANSWER: Final[Wire[Refused | Failed | Done]] = Wire(Refused | Failed | Done)


class Apart(NamedTuple):
    """What was read, and pks of the users to forget; None: there was nothing to compare with."""

    directory: Directory
    revoked: tuple[int, ...] | None


async def load_apart(path: Path, extras: Extras, before: Directory | None = None) -> Apart:
    """What `loader.load` returns for the file, and how the accounts differ from those of `before`.

    Raises ConfigError as that does, and BackendError when the process could not do it.
    """
    accounts = None if before is None else before.accounts
    old = (accounts.descriptor,) if isinstance(accounts, PackedAccounts) else ()
    try:
        order = ORDER.encode(Order(path, extras, dict(os.environ), is_urgent=before is None))
    except TypeError:  # of a name or variable that is no Unicode
        raise BackendError("its name, or the environment, cannot be told to a process") from None
    answer = await errand.answer_of(MODULE, order, old, longest_s=LONGEST_S)
    return await asyncio.to_thread(_taken, answer)


def _taken(answer: Message) -> Apart:
    """Raises ConfigError and BackendError."""
    with contextlib.ExitStack() as stack:
        stack.callback(answer.close)
        try:
            said = ANSWER.decode(answer.body)
            if isinstance(said, Refused):
                raise ConfigError(said.problem, source=said.source, line=said.line, key=said.key)
            if isinstance(said, Failed):
                raise errand.failed(said.why)
            there, crowd = answer.descriptors
            stack.pop_all()
            spool = Spool(crowd)
            accounts = PackedAccounts(there, said.accounts_digest, said.summary)
            people = PackedPeople(
                spool,
                tuple(Chunk(*page) for page in said.pages),
                said.user_count,
                tuple(group_from(row) for row in orjson.loads(said.groups)),
                1,
                said.taken_at,
                said.people_digest,
            )
        except (DecodeError, ValueError, OSError) as error:
            raise errand.failed(f"it made no sense, {type(error).__name__}") from None
    directory = Directory(
        people, accounts, PackedLogins(accounts), said.served, said.applications, said.files, said.warnings
    )
    return Apart(directory, said.revoked)
