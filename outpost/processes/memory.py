"""Memory that several processes read and nobody writes any more (memfd_create(2), F_ADD_SEALS), and what is freed."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final

SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(octets: bytes | bytearray | memoryview) -> int:
    """The descriptor of a copy that can neither be written nor cut. Raises OSError."""
    descriptor = os.memfd_create("outpost", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(octets).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]
        seal(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal(descriptor: int) -> None:
    """End all writing. Raises OSError, for instance while the memory is mapped for writing somewhere."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)


def mapped(descriptor: int) -> mmap.mmap:
    """The octets behind a sealed descriptor, which may be closed then; read-only.

    Raises ValueError unless it is sealed (else whoever has it too could change or cut what is being read) and not
    empty, and OSError.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise ValueError("no memory that can be sealed") from None
    if seals & SEALS != SEALS:
        raise ValueError("memory that is not sealed")
    # Pages of a private mapping are the file's own until they are written, which these never are. A shared one of
    # memory sealed against writing is refused before Linux 6.7.
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def give_back() -> None:
    """Return to the system what the C library keeps of freed memory (malloc_trim(3)). Any thread may call it.

    Between what lives on, the much that reading everybody frees stays ours otherwise.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return  # another C library, which has its own ways
    trim(0)
