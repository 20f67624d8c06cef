"""Compiles a large directory in a process of its own, so that neither its work nor its memory is the server's.

The process gets a descriptor of the people and what the provider says, and gives back sealed memory with the arena. It
is started for one directory and ended with it; whatever happens to it, there is a directory or an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Final

import orjson

from outpost.errors import BackendError, ConfigError
from outpost.identity import LdapOptions, LdapProvider, Mode
from outpost.processes import child, memory
from outpost.processes.channel import Channel
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
    try:
        started = await child.start(MODULE)
    except OSError as error:
        raise BackendError(f"no process to compile it: {os.strerror(error.errno or 0)}") from None
    try:
        async with asyncio.timeout(LONGEST_S):
            answer = await _answer(started, order, people.spool.descriptor)
    except TimeoutError:
        raise BackendError(f"not compiled within {LONGEST_S:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.process.kill()
        await started.process.wait()
    return _arena(answer, left_out)


async def _answer(started: child.Child, order: bytes, descriptor: int) -> Message:
    """What the process says to the order. Raises BackendError when it says nothing."""
    answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def received(message: Message) -> None:
        if answered.done():
            message.close()
        else:
            answered.set_result(message)

    def closed(why: str) -> None:
        if not answered.done():
            said = why or "it ended before it was done"
            answered.set_exception(BackendError(f"the process that compiles it failed: {said}"))

    channel = Channel(started.socket, received, closed)
    try:
        channel.post(order, (descriptor,))
        return await answered
    finally:
        channel.close()


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
    raise BackendError(f"the process that compiles it failed: {failed or 'it made no sense'}")


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
