"""A copy of the last good state on disk, for a start before the server has told everything again.

Holds people and LDAP providers; no token, key or shared secret, and nothing that proves a login.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from outpost.backends.authentik.census import Census, Numbers, UserPage, digest_of
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError, DecodeError
from outpost.identity import LdapProvider, Mode, Secret
from outpost.processes.people import Chunk, PackedPeople, Spool, group_from, group_row

FORMAT = 2
NAME = "authentik-ldap.people"
MAGIC = b"outpost people\n"
HEAD = struct.Struct("<16sQ")
"""Checksum (BLAKE2b) of everything behind it, octets of the header."""
FIELDS = (
    "pk", "name", "base_dn", "application_slug", "bind_flow_slug", "unbind_flow_slug", "search_group",
    "tls_server_name", "uid_start_number", "gid_start_number", "search_mode", "bind_mode", "mfa_support",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copy:
    """What was kept."""

    census: Census
    providers: tuple[LdapProvider, ...]


def source_of(host: str, token: Secret) -> str:
    """Names server and outpost, so that the copy of another one is not taken; tells nothing about the token."""
    return hashlib.blake2b(host.encode(), key=token.reveal()[:64], digest_size=16).hexdigest()


def save(directory: Path, source: str, copy: Copy) -> None:
    """Replace the copy, readable by us alone. Blocks; raises OSError and DecodeError."""
    found = copy.census.people
    header: dict[str, Any] = {
        "format": FORMAT,
        "source": source,
        "taken_at": found.taken_at,
        "generation": found.generation,
        "providers": [{name: getattr(one, name) for name in FIELDS} for one in copy.providers],
        "groups": [group_row(one) for one in found.groups],
        "users": found.user_count,
        "pages": [page.size for page in found.pages],
    }
    octets = orjson.dumps(header)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f".{NAME}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.seek(len(MAGIC) + HEAD.size)
            hashed = hashlib.blake2b(digest_size=16)
            numbers = (one.tobytes() for one in copy.census.numbers())
            for piece in itertools.chain((octets,), numbers, map(found.spool.read, found.pages)):
                hashed.update(piece)
                file.write(piece)
            file.seek(0)
            file.write(MAGIC + HEAD.pack(hashed.digest(), len(octets)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / NAME)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def load(directory: Path, source: str) -> Copy | None:
    """The copy of this server and outpost; None when there is none. Blocks; raises BackendError and OSError."""
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BackendError(f"{path}: not ours alone to write, so it is not believed")
        # What is looked at below nobody can change or cut meanwhile.
        spool = Spool.of(descriptor, status.st_size)
    finally:
        os.close(descriptor)
    if not spool.size:
        return None
    try:
        with spool.mapped() as octets, memoryview(octets) as view:
            return _read(view, spool, source, str(path))
    except (ValueError, struct.error, DecodeError) as exc:
        raise BackendError(f"{path}: damaged") from exc


def _read(octets: memoryview, spool: Spool, source: str, where: str) -> Copy | None:
    """octets: all of the spool.

    Raises BackendError, and ValueError, struct.error and DecodeError for what `save` did not write.
    """
    if octets[: len(MAGIC)] != MAGIC:
        return None
    checksum, length = HEAD.unpack_from(octets, len(MAGIC))
    begin = len(MAGIC) + HEAD.size
    if hashlib.blake2b(octets[begin:], digest_size=16).digest() != checksum:
        raise ValueError("checksum")
    at = begin + length
    shape = Shape(orjson.loads(octets[begin:at]), where)
    if shape.raw("format") != FORMAT or shape.raw("source") != source:
        return None
    count = shape.integer("users")
    numbers = []
    for code in "qQQ":
        one = array(code)
        one.frombytes(octets[at : at + count * one.itemsize])
        if len(one) != count:
            raise ValueError("numbers")
        numbers.append(one)
        at += count * one.itemsize
    pages = []
    for size in shape.items("pages"):
        if not isinstance(size, int) or not 0 <= size <= len(octets) - at:
            raise ValueError("pages")
        pages.append(Chunk(at, size))
        at += size
    groups = tuple(group_from(row) for row in shape.items("groups"))
    taken_at = shape.raw("taken_at")
    if not isinstance(taken_at, float | int):
        raise ValueError("taken_at")
    whole = Numbers(*numbers)
    found = PackedPeople(
        spool,
        tuple(pages),
        count,
        groups,
        shape.integer("generation"),
        float(taken_at),
        digest_of(whole, groups),
    )
    return Copy(
        Census(found, (UserPage(*whole, Chunk(0, 0)),)), tuple(_provider(one) for one in shape.children("providers"))
    )


def _provider(shape: Shape) -> LdapProvider:
    return LdapProvider(
        pk=shape.integer("pk"),
        name=shape.text("name"),
        base_dn=shape.text("base_dn"),
        application_slug=shape.text("application_slug"),
        bind_flow_slug=shape.text("bind_flow_slug"),
        unbind_flow_slug=shape.text("unbind_flow_slug", ""),
        search_group=shape.optional_text("search_group"),
        tls_server_name=shape.text("tls_server_name", ""),
        uid_start_number=shape.integer("uid_start_number"),
        gid_start_number=shape.integer("gid_start_number"),
        search_mode=Mode.CACHED if shape.text("search_mode") == "cached" else Mode.DIRECT,
        bind_mode=Mode.CACHED if shape.text("bind_mode") == "cached" else Mode.DIRECT,
        mfa_support=shape.boolean("mfa_support"),
    )
