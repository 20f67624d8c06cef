"""The process that compiles one directory: `python -m outpost.ldap.compiler_process DESCRIPTOR`."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from typing import Any, Final

import orjson

from outpost.errors import OutpostError
from outpost.identity import People
from outpost.ldap.arena import compile_people
from outpost.ldap.compiler import provider_from
from outpost.processes import child, memory, message
from outpost.processes.people import Chunk, group_from, read, unpack_users

NICE: Final = 5
"""Whoever waits for an answer comes first."""


def main() -> None:
    """Answer one order, and end."""
    sock = child.inherited(sys.argv[1])
    os.nice(NICE)
    # Nothing of this lasts, and looking for cycles in a million objects takes as long as the work itself.
    gc.disable()
    order = message.receive(sock)
    if order is None:
        return
    try:
        left_out: list[str] = []
        descriptor = memory.sealed(compiled(order, left_out))
    except OutpostError as error:
        message.send(sock, orjson.dumps({"refused": str(error)}))
    except Exception as exc:  # its text may quote somebody's attributes
        message.send(sock, orjson.dumps({"failed": type(exc).__name__}))
    else:
        message.send(sock, orjson.dumps({"left_out": left_out}), (descriptor,))


def compiled(order: message.Message, left_out: list[str]) -> bytes:
    """The arena that is asked for; `left_out` gets the names of those who are not in it.

    Raises OutpostError, and anything else for an order that is none.
    """
    said: dict[str, Any] = orjson.loads(order.body)
    (descriptor,) = order.descriptors
    pages = (unpack_users(read(descriptor, Chunk(*page))) for page in said["pages"])
    people = People(
        tuple(itertools.chain.from_iterable(pages)),
        tuple(group_from(row) for row in said["groups"]),
        said["generation"],
        said["taken_at"],
    )
    return compile_people(people, provider_from(said["provider"]), left_out)


if __name__ == "__main__":
    main()
