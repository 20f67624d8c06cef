"""Compiled directories on disk: a start, or a provider's change that is none to its directory, needs no compiling.

What is stored is the arena as it is searched, without secrets: what any reader of the directory may see.  It is taken
only for the very people and settings that it was compiled from, and checked like any other arena.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import stat
from pathlib import Path
from typing import Final, final

import orjson

from outpost import __version__
from outpost.errors import BackendError
from outpost.identity import LdapProvider
from outpost.processes import memory
from outpost.processes.people import PackedPeople

MAGIC: Final = b"outpost arena\n\0\0"
KEY: Final = 16
BLOCK: Final = 1 << 20


@final
class StoredArenas:
    """One file for each provider. Methods block; any thread may call them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, people: PackedPeople, provider: LdapProvider) -> memoryview | None:
        """The arena that was compiled from these, in memory of ours; None when there is none.

        Raises BackendError for a file that is not ours alone to write, and OSError.
        """
        path = self._path(provider)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BackendError(f"{path}: not ours alone to write, so it is not believed")
            if file.read(len(MAGIC) + KEY) != MAGIC + key_of(people, provider):
                return None
            return _copied(descriptor, status.st_size - len(MAGIC) - KEY)

    def save(self, people: PackedPeople, provider: LdapProvider, arena: bytes | memoryview) -> None:
        """Replace what is stored of the provider, readable by us alone. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(provider)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Not waited for: what a power failure leaves of it is told by the arena's own checksum.
            with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
                file.write(MAGIC + key_of(people, provider))
                left = memoryview(arena)
                while left:
                    left = left[file.write(left[:BLOCK]) :]
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise

    def _path(self, provider: LdapProvider) -> Path:
        return self._directory / f"ldap-{provider.pk}.arena"


def key_of(people: PackedPeople, provider: LdapProvider) -> bytes:
    """Tells apart whatever makes a difference to an arena, and a generation from the next."""
    said = {
        "version": __version__,
        "people": people.digest.hex(),
        "generation": people.generation,
        "base_dn": provider.base_dn,
        "numbers": (provider.uid_start_number, provider.gid_start_number),
        "options": dataclasses.asdict(provider.options),
    }
    return hashlib.blake2b(orjson.dumps(said), digest_size=KEY).digest()


def _copied(descriptor: int, size: int) -> memoryview | None:
    """The rest of a file in sealed memory: a file may be cut while it is mapped, and reading it then ends a process."""
    copy = os.memfd_create("outpost", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = size
        while left > 0:
            written = os.sendfile(copy, descriptor, None, min(left, BLOCK))
            if not written:
                return None
            left -= written
        if size <= 0:
            return None
        memory.seal(copy)
        return memoryview(memory.mapped(copy))
    finally:
        os.close(copy)
