"""Users and groups as the server's JSON shows them, made into `outpost.identity` values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from hashlib import blake2b
from uuid import UUID

from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import Group, User

Pool = dict[str, str]
"""One object per group's pk: with many memberships the text itself must not be kept many times."""


def user(shape: Shape, pool: Pool) -> User:
    """One user. Raises BackendError."""
    return User(
        pk=shape.integer("pk"),
        username=shape.text("username"),
        name=shape.text("name", ""),
        email=shape.text("email", ""),
        uid=shape.text("uid", ""),
        uuid=shape.text("uuid", ""),
        is_active=shape.boolean("is_active", True),
        is_superuser=shape.boolean("is_superuser", False),
        type=_shared(shape.text("type", "internal"), pool),
        path=_shared(shape.text("path", "users"), pool),
        groups=tuple(_shared(pk, pool) for pk in shape.texts("groups")),
        attributes=shape.mapping("attributes"),
        date_joined=shape.moment("date_joined"),
        last_updated=shape.moment("last_updated"),
        password_change_date=shape.moment("password_change_date"),
    )


def group(shape: Shape, pool: Pool) -> Group:
    """One group, with one parent (before 2026.2) or several. Raises BackendError."""
    if "parents" in shape:
        parents = shape.texts("parents")
    else:
        parent = shape.optional_text("parent")
        parents = () if parent is None else (parent,)
    pk = shape.text("pk")
    return Group(
        pk=_shared(pk, pool),
        num_pk=_number(pk) if shape.raw("num_pk") is None else shape.integer("num_pk"),
        name=shape.text("name"),
        is_superuser=shape.boolean("is_superuser", False),
        parents=tuple(_shared(pk, pool) for pk in parents),
        attributes=shape.mapping("attributes"),
    )


def _number(pk: str) -> int:
    """A group's number as servers make it from its UUID. Raises BackendError where `pk` is none."""
    try:
        return int(str(UUID(pk).int)[:5])
    except ValueError as exc:
        raise BackendError("a group has neither a number nor a UUID") from exc


def _shared(text: str, pool: Pool) -> str:
    return pool.setdefault(text, text)


def consistent(users: Iterable[User], groups: Mapping[str, Group]) -> tuple[tuple[User, ...], tuple[Group, ...]]:
    """The same without references to groups that are not there: they went while the pages were read."""
    known = groups.keys()
    return tuple(
        one if known >= set(one.groups) else replace(one, groups=_within(one.groups, known)) for one in users
    ), consistent_groups(groups.values())


def consistent_groups(groups: Iterable[Group]) -> tuple[Group, ...]:
    """The same without parents that are not there."""
    found = tuple(groups)
    known = {one.pk for one in found}
    return tuple(
        one if known >= set(one.parents) else replace(one, parents=_within(one.parents, known)) for one in found
    )


def _within(pks: tuple[str, ...], known: Set[str]) -> tuple[str, ...]:
    return tuple(pk for pk in pks if pk in known)


def standing_text(one: User) -> tuple[object, ...]:
    """What decides about logins: when it changes, what was believed about the user is to be forgotten."""
    changed = one.password_change_date
    return (None if changed is None else changed.timestamp(), one.is_active, sorted(set(one.groups)))


def standing(one: User) -> bytes:
    """A digest of the same: of everybody who has logged in one is kept."""
    return blake2b(repr(standing_text(one)).encode(), digest_size=16).digest()


def group_pks(records: Iterable[Shape]) -> tuple[str, ...]:
    """The pks of some groups, each once, in order. Many people are in few groups: one string for each group."""
    return tuple(sorted({sys.intern(one.text("pk")) for one in records}))


def moved(before: Mapping[str, Group], after: Mapping[str, Group]) -> frozenset[str]:
    """Groups that are gone or have other ancestors or superuser rights, and everything below them."""
    found = set()
    for pk, one in before.items():
        other = after.get(pk)
        if other is None or set(one.parents) != set(other.parents) or one.is_superuser != other.is_superuser:
            found.add(pk)
    if not found:
        return frozenset()
    children: dict[str, list[str]] = {}
    for one in before.values():
        for parent in one.parents:
            children.setdefault(parent, []).append(one.pk)
    queue = list(found)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return frozenset(found)
