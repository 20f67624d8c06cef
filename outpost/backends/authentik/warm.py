"""A copy of the last good state on disk, for a start before the server has told everything again.

Holds people and LDAP providers; no token, key or shared secret, and nothing that proves a login.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from outpost.backends.authentik import people
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import LdapProvider, Mode, People, Secret

FORMAT = 1
NAME = "authentik-ldap.json"
FIELDS = (
    "pk", "name", "base_dn", "application_slug", "bind_flow_slug", "unbind_flow_slug", "search_group",
    "tls_server_name", "uid_start_number", "gid_start_number", "search_mode", "bind_mode", "mfa_support",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copy:
    """What was kept."""

    people: People
    providers: tuple[LdapProvider, ...]


def source_of(host: str, token: Secret) -> str:
    """Names server and outpost, so that the copy of another one is not taken; tells nothing about the token."""
    return hashlib.blake2b(host.encode(), key=token.reveal()[:64], digest_size=16).hexdigest()


def save(directory: Path, source: str, copy: Copy) -> None:
    """Replace the copy, readable by us alone. Blocks; raises OSError."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "source": source,
        "taken_at": copy.people.taken_at,
        "generation": copy.people.generation,
        "providers": [{name: getattr(one, name) for name in FIELDS} for one in copy.providers],
        "groups": copy.people.groups,
        "users": copy.people.users,
    }
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = directory / f".{NAME}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS))
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
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BackendError(f"{path}: not ours alone to write, so it is not believed")
        octets = file.read()
    try:
        shape = Shape(orjson.loads(octets), str(path))
    except orjson.JSONDecodeError as exc:
        raise BackendError(f"{path}: damaged") from exc
    if shape.raw("format") != FORMAT or shape.raw("source") != source:
        return None
    pool: people.Pool = {}
    groups = tuple(people.group(one, pool) for one in shape.children("groups"))
    users = tuple(people.user(one, pool) for one in shape.children("users"))
    taken_at = shape.raw("taken_at")
    if not isinstance(taken_at, float | int):
        raise BackendError(f"{path}: damaged")
    found = People(users, groups, shape.integer("generation"), float(taken_at))
    return Copy(found, tuple(_provider(one) for one in shape.children("providers")))


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
