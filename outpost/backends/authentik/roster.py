"""The people of one LDAP outpost: complete copies, all or nothing, and narrow look-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote

from outpost.backends.authentik import people
from outpost.backends.authentik.address import Query
from outpost.backends.authentik.client import Client, NotFound, RequestRefused
from outpost.backends.authentik.pages import Lister, Reading
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.identity import Group, LdapProvider, People, User, Wanted

T = TypeVar("T")

# What is not asked for here the server either leaves out or looks up once per object; `users_obj`, which repeats every
# member with his attributes in every group of his, is the one part that nobody needs.
USERS: Query = (("ordering", "pk"), ("include_groups", "true"))
GROUPS: Query = (
    ("ordering", "name"),
    ("include_users", "false"),
    ("include_children", "true"),
    ("include_parents", "true"),
)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The outcome of a complete read."""

    is_changed: bool
    revoked: frozenset[int]
    """pks of the users about whom nothing is to be believed any more."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A user with his groups as they stand in the same answer."""

    user: User
    groups: tuple[Group, ...]


class AuthentikRoster:
    """Complete copies of users and groups, and fresh subsets. Methods raise BackendError."""

    def __init__(
        self, client: Client, prober: Client, settings: AuthentikSettings, wall_clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._wall_clock = wall_clock
        self._pool: people.Pool = {}
        self._look_ups = asyncio.Semaphore(settings.concurrency * 2)
        self._reading = Reading(settings.page_size, self._look_ups, prober)
        bulk = Reading(settings.page_size, asyncio.Semaphore(settings.concurrency), prober)
        self._users: Lister[User] = Lister(client, "/core/users/", USERS, self._user, _pk, bulk)
        self._groups: Lister[Group] = Lister(client, "/core/groups/", GROUPS, self._group, _pk, bulk)
        self._tells_parents = True
        """The groups shown with a user name their parents (before 2026.2)."""
        self._people: People | None = None
        self._by_pk: dict[int, User] = {}
        self._groups_by_pk: dict[str, Group] = {}

    @property
    def people(self) -> People | None:
        """The last complete copy."""
        return self._people

    def start_from(self, copy: People) -> None:
        """Begin with a copy kept from an earlier run, unless a fresh one is there already."""
        if self._people is None:
            self._take(copy)

    def forget(self) -> None:
        """Drop the copy: nobody searches it any more."""
        self._people = None
        self._by_pk, self._groups_by_pk, self._pool = {}, {}, {}
        self._users.forget()
        self._groups.forget()

    async def refresh(self) -> Refreshed:
        """Read everything; the old copy stays when anything fails. Raises BackendError."""
        await self._groups.probe()
        await self._users.probe()
        groups, groups_changed = await self._groups.read()
        users, users_changed = await self._users.read()
        now = self._wall_clock()
        before = self._people
        if before is not None and before.taken_at and not groups_changed and not users_changed:
            self._people = replace(before, taken_at=now)
            return Refreshed(is_changed=False, revoked=frozenset())
        found = await asyncio.to_thread(self._merge, users, groups)
        if before is not None and found.is_same:
            self._people = replace(before, taken_at=now)
            return Refreshed(is_changed=False, revoked=frozenset())
        generation = 1 if before is None else before.generation + 1
        self._by_pk, self._groups_by_pk = found.users, found.groups
        self._people = People(tuple(found.users.values()), tuple(found.groups.values()), generation, now)
        return Refreshed(is_changed=True, revoked=found.revoked if before is not None else frozenset())

    def _take(self, copy: People) -> None:
        self._people = copy
        self._by_pk = {one.pk: one for one in copy.users}
        self._groups_by_pk = {one.pk: one for one in copy.groups}

    def _merge(self, users: Iterable[User], groups: Iterable[Group]) -> _Merged:
        """Off the loop. Objects that did not change stay the same objects."""
        fresh_users, fresh_groups = people.consistent(users, {one.pk: one for one in groups})
        old_users, old_groups = self._by_pk, self._groups_by_pk
        kept_users = {one.pk: _kept(old_users.get(one.pk), one) for one in fresh_users}
        kept_groups = {one.pk: _kept(old_groups.get(one.pk), one) for one in fresh_groups}
        is_same = (
            list(kept_users) == list(old_users)
            and list(kept_groups) == list(old_groups)
            and all(one is old_users[pk] for pk, one in kept_users.items())
            and all(one is old_groups[pk] for pk, one in kept_groups.items())
        )
        revoked = people.changed_standing(old_users, kept_users, old_groups, kept_groups)
        return _Merged(kept_users, kept_groups, is_same, revoked)

    # -- narrow look-ups --------------------------------------------------------------------------

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> People:
        """A fresh copy of at least `wanted`. Raises BackendError."""
        users, groups = await self._subset(wanted)
        if provider.options.nested_groups == "effective":
            groups = await self._with_ancestors(groups)
        kept_users, kept_groups = people.consistent(users, groups)
        return People(kept_users, kept_groups, 0, self._wall_clock())

    async def _subset(self, wanted: Wanted) -> tuple[Iterable[User], dict[str, Group]]:
        if wanted.user_pk is not None:
            return _spread(await self._user_by_pk(wanted.user_pk))
        if wanted.username is not None:
            return _spread(await self._users_where("username", wanted.username))
        if wanted.email is not None:
            return _spread(await self._users_where("email", wanted.email))
        if wanted.group_name is not None:
            return await self._one_group(wanted.group_name)
        # Users bring their own groups along, but there are groups without members.
        users, groups = await asyncio.gather(self._list_users(()), self._list_groups(()))
        return [one.user for one in users], {one.pk: one for one in groups}

    async def _one_group(self, name: str) -> tuple[Iterable[User], dict[str, Group]]:
        groups = await self._list_groups((("name", name),))
        if not groups and name.strip():
            folded = name.casefold()
            groups = tuple(g for g in await self._list_groups((("search", name),)) if g.name.casefold() == folded)
        if not groups:
            return (), {}
        members = await self._list_users(tuple(("groups_by_pk", one.pk) for one in groups))
        users, found = _spread(members)
        return users, found | {one.pk: one for one in groups}

    async def _user_by_pk(self, pk: int) -> tuple[_Member, ...]:
        async with self._look_ups:
            try:
                content = await self._client.get(f"/core/users/{pk}/")
            except NotFound as exc:
                if not exc.is_api:
                    raise
                return ()
        return (self._member(Shape(content, f"user {pk}")),)

    async def _users_where(self, key: str, value: str) -> tuple[_Member, ...]:
        """Users by a value that LDAP compares without regard to case, but the server's filter with it."""
        found = await self._list_users(((key, value),))
        if found or not value.strip():
            return found
        folded = value.casefold()
        wider = await self._list_users((("search", value),))
        return tuple(one for one in wider if getattr(one.user, key).casefold() == folded)

    async def _list_users(self, query: Query) -> tuple[_Member, ...]:
        lister = Lister(self._client, "/core/users/", (*USERS, *query), self._member, _member_pk, self._reading)
        return await self._once(lister)

    async def _list_groups(self, query: Query) -> tuple[Group, ...]:
        return await self._once(
            Lister(self._client, "/core/groups/", (*GROUPS, *query), self._group, _pk, self._reading)
        )

    async def _once(self, lister: Lister[T]) -> tuple[T, ...]:
        try:
            return (await lister.read())[0]
        except RequestRefused:
            # "Select a valid choice": the value of a filter names nothing that exists.
            return ()

    async def _with_ancestors(self, groups: dict[str, Group]) -> dict[str, Group]:
        """The groups and everything above them, level by level."""
        found = dict(groups) if self._tells_parents else {}
        wanted = {pk for one in groups.values() for pk in one.parents} if self._tells_parents else set(groups)
        asked: set[str] = set()
        while wanted := wanted - found.keys() - asked:
            asked |= wanted
            level = [one for one in await asyncio.gather(*map(self._group_by_pk, sorted(wanted))) if one is not None]
            found |= {one.pk: one for one in level}
            wanted = {pk for one in level for pk in one.parents}
        return found

    async def _group_by_pk(self, pk: str) -> Group | None:
        async with self._look_ups:
            try:
                content = await self._client.get(f"/core/groups/{quote(pk, safe='')}/", GROUPS)
            except NotFound as exc:
                if not exc.is_api:
                    raise
                return None
        return self._group(Shape(content, "group"))

    def _member(self, shape: Shape) -> _Member:
        shown = tuple(shape.children("groups_obj"))
        if shown:
            self._tells_parents = "parent" in shown[0] or "parents" in shown[0]
        return _Member(self._user(shape), tuple(self._group(one) for one in shown))

    def _user(self, shape: Shape) -> User:
        return people.user(shape, self._pool)

    def _group(self, shape: Shape) -> Group:
        return people.group(shape, self._pool)


@dataclass(frozen=True, slots=True)
class _Merged:
    users: dict[int, User]
    groups: dict[str, Group]
    is_same: bool
    revoked: frozenset[int]


def _spread(members: Iterable[_Member]) -> tuple[Iterable[User], dict[str, Group]]:
    found = tuple(members)
    return [one.user for one in found], {group.pk: group for one in found for group in one.groups}


def _pk(one: User | Group) -> object:
    return one.pk


def _member_pk(one: _Member) -> object:
    return one.user.pk


def _kept(old: T | None, new: T) -> T:
    return old if old is not None and old == new else new
