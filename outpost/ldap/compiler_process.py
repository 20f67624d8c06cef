"""The process that compiles one directory: `python -m outpost.ldap.compiler_process DESCRIPTOR`."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, Final

import orjson

from outpost.errors import OutpostError
from outpost.identity import LdapProvider, People
from outpost.ldap.arena import compile_people
from outpost.ldap.compiler import provider_from
from outpost.processes import child, memory, message
from outpost.processes.people import Chunk, group_from, read, unpack_pages

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
        people, provider = asked_for(order)
        descriptor = memory.sealed(compile_people(people, provider, left_out))
    except OutpostError as error:
        message.send(sock, orjson.dumps({"refused": str(error)}))
    except Exception as exc:  # its text may quote somebody's attributes
        message.send(sock, orjson.dumps({"failed": type(exc).__name__}))
    else:
        message.send(sock, orjson.dumps({"left_out": left_out}), (descriptor,))
    # Nobody needs to wait until a million objects are taken apart.
    os._exit(0)


def asked_for(order: message.Message) -> tuple[People, LdapProvider]:
    """Whose arena is asked for. Raises OutpostError, and anything else for an order that is none."""
    said: dict[str, Any] = orjson.loads(order.body)
    (descriptor,) = order.descriptors
    people = People(
        tuple(unpack_pages(read(descriptor, Chunk(*page)) for page in said["pages"])),
        tuple(group_from(row) for row in said["groups"]),
        said["generation"],
        said["taken_at"],
    )
    return people, provider_from(said["provider"])


if __name__ == "__main__":
    main()
