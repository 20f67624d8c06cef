"""Users and groups as the server's JSON shows them, made into `outpost.identity` values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from outpost.backends.authentik.shape import Shape
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
    return Group(
        pk=_shared(shape.text("pk"), pool),
        num_pk=shape.integer("num_pk"),
        name=shape.text("name"),
        is_superuser=shape.boolean("is_superuser", False),
        parents=tuple(_shared(pk, pool) for pk in parents),
        attributes=shape.mapping("attributes"),
    )


def _shared(text: str, pool: Pool) -> str:
    return pool.setdefault(text, text)


def consistent(users: Iterable[User], groups: Mapping[str, Group]) -> tuple[tuple[User, ...], tuple[Group, ...]]:
    """The same without references to groups that are not there: they went while the pages were read."""
    known = groups.keys()
    kept = tuple(
        one if known >= set(one.parents) else replace(one, parents=_within(one.parents, groups))
        for one in groups.values()
    )
    return tuple(
        one if known >= set(one.groups) else replace(one, groups=_within(one.groups, groups)) for one in users
    ), kept


def _within(pks: tuple[str, ...], known: Mapping[str, Group]) -> tuple[str, ...]:
    return tuple(pk for pk in pks if pk in known)


def standing(one: User) -> tuple[object, ...]:
    """What decides about logins: when it changes, what was believed about the user is to be forgotten."""
    return (one.password_change_date, one.is_active, frozenset(one.groups))


def changed_standing(
    before: Mapping[int, User],
    after: Mapping[int, User],
    groups_before: Mapping[str, Group],
    groups_after: Mapping[str, Group],
) -> frozenset[int]:
    """pks of the users who are gone or whose standing changed, by themselves or through their groups' ancestry."""
    found = {pk for pk, one in before.items() if after.get(pk) is not one and _differs(one, after.get(pk))}
    moved = _moved(groups_before, groups_after)
    if moved:
        found |= {pk for pk, one in before.items() if not moved.isdisjoint(one.groups)}
    return frozenset(found)


def _differs(one: User, other: User | None) -> bool:
    return other is None or standing(one) != standing(other)


def _moved(before: Mapping[str, Group], after: Mapping[str, Group]) -> frozenset[str]:
    """Groups that are gone or have other ancestors or superuser rights, and everything below them."""
    moved = set()
    for pk, one in before.items():
        other = after.get(pk)
        if other is None or set(one.parents) != set(other.parents) or one.is_superuser != other.is_superuser:
            moved.add(pk)
    if not moved:
        return frozenset()
    children: dict[str, list[str]] = {}
    for one in before.values():
        for parent in one.parents:
            children.setdefault(parent, []).append(one.pk)
    queue = list(moved)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in moved:
                moved.add(child)
                queue.append(child)
    return frozenset(moved)
