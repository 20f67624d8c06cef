"""A failure as text for the log: where, of what kind, and why as far as that cannot quote a password.

Messages of foreign exceptions often quote what they choked on (`invalid literal for int(): 'hunter2'`).  Only ours,
those of the operating system and those that the interpreter words without values are told; local variables never.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterator
from typing import Final

from outpost.errors import OutpostError

CHAIN: Final = 8
"""Causes of causes, and members of groups, that are told."""
WITHHELD: Final = "(message withheld, it may quote input)"
WITHOUT_VALUES: Final = frozenset(
    {
        AttributeError,
        ImportError,
        IndexError,
        MemoryError,
        ModuleNotFoundError,
        NameError,
        OverflowError,
        RecursionError,
        TypeError,
        UnboundLocalError,
        ZeroDivisionError,
        struct.error,
    }
)
"""Exact types whose messages name types, attributes and modules, no values."""


def describe(error: BaseException) -> str:
    """The traceback of an exception, its causes first; several lines, no secrets."""
    return "".join(_lines(error, CHAIN))


def reason(error: BaseException) -> str:
    """Kind and message of an exception in one line, the message only if it cannot quote input."""
    return f"{type(error).__name__}: {_message(error)}".removesuffix(": ")


def _message(error: BaseException) -> str:
    if isinstance(error, OutpostError) or type(error) in WITHOUT_VALUES:
        return str(error)
    if isinstance(error, OSError):
        # The file name and the address that belong to it are no secrets, but what a subclass adds may be.
        return f"[Errno {error.errno}] {error.strerror}" if isinstance(error.errno, int) else ""
    if isinstance(error, BaseExceptionGroup):
        return f"{len(error.exceptions)} exceptions"
    return WITHHELD if any(error.args) else ""


def _lines(error: BaseException, left: int) -> Iterator[str]:
    if not left:
        yield "(more causes)\n"
        return
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _lines(cause, left - 1)
        yield "\nThen:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{reason(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions[:left]:
            yield "\nOne of them:\n\n"
            yield from _lines(member, left - 1)
