"""A process of ours, started anew (never forked from a running loop) with one end of a pair of message sockets.

What it is to do is told over the channel: neither the command line nor the environment holds a setting, and what
the environment of this process says of them is not handed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import outpost
from outpost.processes import message

PR_SET_DUMPABLE: Final = 4
"""prctl(2): whether there is a core dump of us, and other processes of the same user may read our memory."""
PR_SET_PDEATHSIG: Final = 1
"""prctl(2): a signal to us when our parent ends."""
OURS: Final = ("AUTHENTIK_", "OUTPOST_", "GIT_BUILD_HASH")
"""What names of settings begin with in the environment."""


class Child(NamedTuple):
    """A running process and our end of the pair, both the caller's."""

    process: Process
    socket: socket.socket


async def start(module: str) -> Child:
    """Run `module` with `python -m`; its only argument is the descriptor of its end. Raises OSError.

    It reads nothing from standard input, and standard error is ours. `inherited` is its first call.
    """
    here, there = message.pair()
    try:
        with there:
            descriptor = there.fileno()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *interpreter_options(),
                *("-m", module, str(descriptor)),
                stdin=DEVNULL,
                stdout=DEVNULL,
                pass_fds=(descriptor,),
                env=environment(os.environ),
            )
    except BaseException:
        here.close()
        raise
    return Child(process, here)


def inherited(argument: str) -> socket.socket:
    """In the child: its end of the pair. From now on it dies with its parent. Raises OSError and ValueError."""
    parent = os.getppid()
    # Where there is no such call, the end of the channel is what is left to notice.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    sock = message.adopt(int(argument))
    if os.getppid() != parent:
        raise OSError("the parent is gone")
    return sock


def keep_private() -> None:
    """No core dump, and nobody reads our memory, where the limit of core dumps says so; children inherit only that."""
    if resource.getrlimit(resource.RLIMIT_CORE)[0] == 0:
        # Where there is no such call, the limit is what there is.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def interpreter_options() -> tuple[str, ...]:
    """Those of this interpreter that matter; the working directory is not searched for modules."""
    return ("-P", *(f"-W{option}" for option in sys.warnoptions))


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a child: none of our settings, and the package is found where it was found here."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OURS)}
    root = str(Path(outpost.__file__).parent.parent)
    if sys.path and sys.path[0] == root:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH"))))
    return kept
