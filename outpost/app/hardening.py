"""Limits of the process itself: no core dumps, as many connections as the system allows."""

from __future__ import annotations

import ctypes
import resource

from outpost.processes import child

MALLOC = ((-3, 1 << 20), (-1, 1 << 20), (-8, 4))
"""mallopt(3): M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in octets, M_ARENA_MAX."""
FILES_WANTED = 1 << 20
"""Descriptors beyond which nothing is gained; some systems allow billions."""


def forbid_core_dumps() -> None:
    """No core dump of this process from now on, since it would hold passwords in flight."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    child.keep_private()


def return_memory() -> None:
    """Give what large, short-lived buffers took (20 MiB for one argon2id hash) back to the system at once.

    The C library otherwise learns from the first of them to keep the next ones.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library, which has its own ways
    for parameter, value in MALLOC:
        mallopt(parameter, value)


def raise_file_limit() -> int:
    """Raise the soft limit of open files towards the hard one; the limit that counts now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted
