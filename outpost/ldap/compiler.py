"""Compiles a large directory in a process of its own, so that neither its work nor its memory is the server's.

The process gets a descriptor of the people and what the provider says, and gives back sealed memory with the arena. It
is started for one directory and ended with it; whatever happens to it, there is a directory or an error.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import orjson

from outpost.errors import BackendError, ConfigError
from outpost.identity import LdapOptions, LdapProvider, Mode
from outpost.processes import errand, memory
from outpost.processes.message import Message
from outpost.processes.people import PackedPeople, group_row

MODULE: Final = "outpost.ldap.compiler_process"
LONGEST_S: Final = 600.0
"""A process that takes longer is ended; 100,000 users take seconds."""


async def compile_apart(people: PackedPeople, provider: LdapProvider, left_out: list[str] | None = None) -> memoryview:
    """The arena of everybody under the provider's base DN, in memory that nobody can write any more.

    left_out: gets the names of those who are not in it.

    Raises ConfigError for a base DN that is none, and BackendError when there is no arena in the end.
    """
    order = await asyncio.to_thread(_order, people, provider)
    answer = await errand.answer_of(MODULE, order, (people.spool.descriptor,), longest_s=LONGEST_S)
    return _arena(answer, left_out)


def _arena(answer: Message, left_out: list[str] | None) -> memoryview:
    """Raises ConfigError and BackendError."""
    try:
        said = orjson.loads(answer.body)
        if isinstance(said, dict) and isinstance(said.get("left_out"), list) and len(answer.descriptors) == 1:
            arena = memoryview(memory.mapped(answer.descriptors[0]))
            if left_out is not None:
                left_out += said["left_out"]
            return arena
    except orjson.JSONDecodeError:
        said = {}
    except (OSError, ValueError, MemoryError) as error:
        raise BackendError(f"its memory cannot be read: {type(error).__name__}") from None
    finally:
        answer.close()
    if isinstance(said, dict) and isinstance(said.get("refused"), str):
        raise ConfigError(said["refused"])
    failed = said.get("failed") if isinstance(said, dict) else None
    raise errand.failed(failed or "it made no sense")


def _order(people: PackedPeople, provider: LdapProvider) -> bytes:
    return orjson.dumps(
        {
            "provider": provider_row(provider),
            "generation": people.generation,
            "taken_at": people.taken_at,
            "groups": [group_row(one) for one in people.groups],
            "pages": [(page.offset, page.size) for page in people.pages],
        }
    )


def provider_row(provider: LdapProvider) -> dict[str, Any]:
    """A provider as JSON has it."""
    return dataclasses.asdict(provider)


def provider_from(row: Mapping[str, Any]) -> LdapProvider:
    """What `provider_row` made. Raises TypeError, ValueError and KeyError for anything else."""
    options = dict(row["options"])
    options["bind_names"] = tuple(options["bind_names"])
    modes = {name: Mode(row[name]) for name in ("search_mode", "bind_mode")}
    return LdapProvider(**{**row, **modes, "options": LdapOptions(**options)})
