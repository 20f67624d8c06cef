"""The people of one LDAP outpost: complete copies, all or nothing, and narrow look-ups."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote

from outpost.backends.authentik import people
from outpost.backends.authentik.address import Query
from outpost.backends.authentik.census import Census, UserPage, joined, moved_in, page_of, revoked
from outpost.backends.authentik.client import Client, NotFound, RequestRefused
from outpost.backends.authentik.pages import Items, Lister, Reading, each
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError, DecodeError
from outpost.identity import Group, LdapProvider, People, User, Wanted
from outpost.processes.people import PackedPeople, Spool

T = TypeVar("T")
SPARE = 1 << 20
"""Octets that are not worth clearing up."""

BY_PK: Query = (("ordering", "pk"),)
NO_ROLES = ("include_roles", "false")
"""Since 2025.12 users are shown with the records of their roles."""
BARE: Query = (*BY_PK, ("include_groups", "false"), NO_ROLES)
"""How the users of a complete copy are asked for: their groups' records, two thirds of an answer, are read anyway.

Servers before 2024.4 do not know the parameter and send them; all of them list the pks of the groups.
"""
USERS: Query = (*BY_PK, ("include_groups", "true"), NO_ROLES)
# What is not asked for here the server either leaves out or looks up once per object; `users_obj`, which repeats every
# member with his attributes in every group of his, is the one part that nobody needs.
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
class GroupPage:
    """Some groups: `pages.Batch`."""

    items: tuple[Group, ...]
    keys: tuple[str, ...]
    """Their pks."""
    has_members: bool
    """Any of them."""


class _Withheld(BackendError):
    """A user's record does not even have an empty list of groups."""


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
        self._look_ups = asyncio.Semaphore(settings.concurrency * 2)
        at_once, decoding = settings.concurrency, asyncio.Lock()
        self._reading = Reading(settings.page_size, self._look_ups, at_once, decoding, prober)
        bulk = Reading(settings.page_size, asyncio.Semaphore(at_once), at_once, decoding, prober)
        self._users: Lister[UserPage] = Lister(client, "/core/users/", BARE, self._user_page, bulk)
        self._groups: Lister[GroupPage] = Lister(client, "/core/groups/", GROUPS, _group_page, bulk)
        self._spool = Spool()
        self._census: Census | None = None
        self._is_settled = False
        """The copy is of what the lists know; not so after a read that failed half-way."""
        self._tells_parents = True
        """The groups shown with a user name their parents (before 2026.2)."""

    @property
    def people(self) -> PackedPeople | None:
        """The last complete copy."""
        return self._census.people if self._census is not None else None

    @property
    def census(self) -> Census | None:
        """The same with what tells it from others."""
        return self._census

    def start_from(self, copy: Census) -> None:
        """Begin with a copy kept from an earlier run, unless a fresh one is there already."""
        if self._census is None:
            self._census, self._is_settled = copy, False

    def forget(self) -> None:
        """Drop the copy: nobody searches it any more."""
        self._census = None
        self._spool = Spool()
        self._users.forget()
        self._groups.forget()

    async def refresh(self) -> Refreshed:
        """Read everything; the old copy stays when anything fails. Raises BackendError."""
        await self._clear_up()
        await self._groups.probe()
        await self._users.probe()
        was_settled, self._is_settled = self._is_settled, False
        groups, groups_changed = await self._groups.read()
        users, users_changed = await self._read_users(groups)
        now = self._wall_clock()
        before = self._census
        if before is not None and was_settled and not groups_changed and not users_changed:
            return self._as_before(before, now, before.people.generation)
        generation = 1 if before is None else before.people.generation + 1
        try:
            found, gone = await asyncio.to_thread(_compared, before, users, groups, self._spool, generation, now)
        except DecodeError as exc:
            raise BackendError(str(exc)) from exc
        if before is not None and found.is_like(before):
            # Not `before`: its octets may be another file's, and would then be kept beside those just read.
            return self._as_before(found, now, before.people.generation)
        self._census, self._is_settled = found, True
        return Refreshed(is_changed=True, revoked=gone)

    async def _read_users(self, groups: Sequence[GroupPage]) -> tuple[tuple[UserPage, ...], bool]:
        """All users, who tell their groups: no server known withholds them, but nobody is to lose them if one does."""
        try:
            users, is_changed = await self._users.read()
            if self._users.query == USERS or any(page.has_groups for page in users):
                return users, is_changed
            if not any(page.has_members for page in groups):
                return users, is_changed
        except _Withheld:
            pass
        self._users.ask(USERS)
        return await self._users.read()

    def _as_before(self, census: Census, now: float, generation: int) -> Refreshed:
        self._census = replace(census, people=replace(census.people, taken_at=now, generation=generation))
        self._is_settled = True
        return Refreshed(is_changed=False, revoked=frozenset())

    async def _clear_up(self) -> None:
        """Leave behind what pages of earlier reads have written, once it is most of the spool."""
        live = sum(page.chunk.size for page in self._users.known)
        if self._spool.size > 2 * live + SPARE:
            try:
                self._spool = await asyncio.to_thread(moved_in, list(self._users.known), self._spool)
            except DecodeError as exc:
                raise BackendError(str(exc)) from exc

    def _user_page(self, shapes: Iterable[Shape]) -> UserPage:
        pool: people.Pool = {}

        def users() -> Iterator[User]:
            for shape in shapes:
                if self._users.query == BARE and shape.raw("groups") is None:
                    raise _Withheld(f"{shape.where}: no groups")
                yield people.user(shape.listing("groups"), pool)

        return page_of(users(), self._spool)

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
        decode = each(self._member, _member_pk)
        return await self._once(Lister(self._client, "/core/users/", (*USERS, *query), decode, self._reading))

    async def _list_groups(self, query: Query) -> tuple[Group, ...]:
        decode = each(_group, _pk)
        return await self._once(Lister(self._client, "/core/groups/", (*GROUPS, *query), decode, self._reading))

    async def _once(self, lister: Lister[Items[T]]) -> tuple[T, ...]:
        try:
            return tuple(itertools.chain.from_iterable(page.items for page in (await lister.read())[0]))
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
        return _group(Shape(content, "group"))

    def _member(self, shape: Shape) -> _Member:
        shown = tuple(shape.children("groups_obj"))
        if shown:
            self._tells_parents = "parent" in shown[0] or "parents" in shown[0]
        return _Member(people.user(shape.listing("groups"), {}), tuple(_group(one) for one in shown))


def _compared(
    before: Census | None,
    users: Sequence[UserPage],
    groups: Sequence[GroupPage],
    spool: Spool,
    generation: int,
    taken_at: float,
) -> tuple[Census, frozenset[int]]:
    """Everybody, and whom the difference concerns. Off the loop. Raises DecodeError."""
    everywhere = itertools.chain.from_iterable(page.items for page in groups)
    found = joined(users, everywhere, spool, generation=generation, taken_at=taken_at)
    if before is None or found.is_like(before):
        return found, frozenset()
    return found, revoked(before, found)


def _group_page(shapes: Iterable[Shape]) -> GroupPage:
    found, has_members = [], False
    for shape in shapes:
        found.append(_group(shape))
        has_members = has_members or bool(shape.items("users"))
    return GroupPage(tuple(found), tuple(one.pk for one in found), has_members)


def _group(shape: Shape) -> Group:
    return people.group(shape, {})


def _spread(members: Iterable[_Member]) -> tuple[Iterable[User], dict[str, Group]]:
    found = tuple(members)
    return [one.user for one in found], {group.pk: group for one in found for group in one.groups}


def _pk(one: Group) -> object:
    return one.pk


def _member_pk(one: _Member) -> object:
    return one.user.pk
