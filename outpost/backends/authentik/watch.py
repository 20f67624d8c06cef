"""Finds users who changed soon after they did: the server sends no event for that.

Once a second, while logins of ours are believed, the users changed last are listed (one small request, whatever the
size of the directory), and some of those who are logged in are looked at again, in turn: their record, whether their
session may still use the application, and whether all their app passwords are still there.  A server too old to tell
when a password changed is asked about the login's own session instead, which dies with the password.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from outpost.backends.authentik import people
from outpost.backends.authentik.access import Access, Denied
from outpost.backends.authentik.app_passwords import app_passwords
from outpost.backends.authentik.client import Client, NotFound
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.sessions import Kept, Sessions
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError, BackendTimeout
from outpost.identity import Identity, Publish, Revoked, User

MAX_WATCHED = 20_000
MAX_SESSIONS = 8
"""Of one user; more of them tell no more."""
NEWEST = 5
"""Users per page of the list of those who changed last."""
MAX_PAGES = 20
SKEW_S = 2.0
"""How far the clock of a server that does not tell it may be from ours."""
FAILED_PAUSE_S = 5.0
ROUND_S = 30.0
"""How long it should take until everybody was looked at again, as far as `LOOKS` lets it."""
LOOKS = 4
"""Users looked at again per step at most: each costs the server two requests, three if he has app passwords."""
LOOKING = 0.5
"""Share of a step after which no further user is looked at: a slow server is to have its time for logins."""
FIRST_LOOKS = 8
"""Users looked at for the first time per step at most."""
REQUEST_S = 5.0
Ask = Callable[[Kept], Awaitable[Access | Denied | None]]
"""Whether a session may still use its provider's application; None: that cannot be asked now."""


class Reader(Protocol):
    """Where users may be read; None while no token of ours may."""

    def __call__(self) -> Client | None:
        """The client of the LDAP outpost."""
        ...


@dataclass(slots=True)
class _Watched:
    username: str
    sessions: dict[str, None] = field(default_factory=dict)
    """Handles, those asked about longest ago first."""
    logged_in_at: float = 0.0
    """Seconds since the epoch, on the server's clock: what changed before had changed before the first login."""
    until: float = 0.0
    """On the loop's clock; later while a connection rests on one of the sessions."""
    is_new: bool = True
    """Not looked at since his first login."""
    standing: bytes | None = None
    own_groups: tuple[str, ...] | None = None
    """As his sessions show them."""
    app_passwords: frozenset[str] | None = None
    """As his sessions show them; None: to be asked for, empty: there are none whose end would have to be seen."""


class Watch:
    """Watches the users whose logins may be remembered."""

    def __init__(
        self,
        reader: Reader,
        ask: Ask,
        sessions: Sessions,
        publish: Publish,
        observer: Observer,
        *,
        interval_s: float,
        lease_s: float,
    ) -> None:
        self._reader = reader
        self._ask = ask
        self._sessions = sessions
        self._publish = publish
        self._observer = observer
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._watched: OrderedDict[int, _Watched] = OrderedDict()
        self._wake = asyncio.Event()
        self._tells_passwords: bool | None = None
        """The server shows when passwords changed; None: not known yet."""
        self._newest = ""

    def __len__(self) -> int:
        return len(self._watched)

    def logged_in(self, identity: Identity, started_at: float) -> None:
        """A login was accepted. On the event loop."""
        if not self._interval_s:
            return
        entry = self._watched.pop(identity.user_pk, None) or _Watched(identity.username)
        # At the front of the queue: until he was looked at once, a change cannot be told.
        self._watched[identity.user_pk] = entry
        self._watched.move_to_end(identity.user_pk, last=not entry.is_new)
        if not entry.logged_in_at:
            kept = self._sessions.find(identity.session) if identity.session else None
            arrived_at = kept.visitor.arrived_at if kept is not None else None
            entry.logged_in_at = started_at - SKEW_S if arrived_at is None else arrived_at
        entry.until = asyncio.get_running_loop().time() + self._lease_s
        entry.app_passwords = entry.app_passwords or None
        if identity.session:
            entry.sessions.pop(identity.session, None)
            entry.sessions[identity.session] = None
            while len(entry.sessions) > MAX_SESSIONS:
                del entry.sessions[next(iter(entry.sessions))]
        while len(self._watched) > MAX_WATCHED:
            self._watched.popitem()
        self._wake.set()

    def forget(self, pk: int) -> None:
        """The user's logins are forgotten already; his next one starts anew."""
        self._watched.pop(pk, None)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            if not self._watched:
                self._wake.clear()
                await self._wake.wait()
            pause = self._interval_s
            try:
                await self._look()
            except BackendError as exc:
                self._observer.log("debug", "changed users were not looked for", error=str(exc))
                pause = max(pause, FAILED_PAUSE_S)
            except Exception as exc:  # a bug must not end the watch for good
                self._observer.log("error", "looking for changed users failed", error=repr(exc))
                pause = max(pause, FAILED_PAUSE_S)
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for pk in [pk for pk, entry in self._watched.items() if entry.until <= now]:
            if any(self._sessions.is_held(handle) for handle in self._watched[pk].sessions):
                self._watched[pk].until = now + self._lease_s
            else:
                del self._watched[pk]
        client = self._reader()
        if client is not None and self._tells_passwords is not False:
            await self._list_newest(client)
        first = [pk for pk, entry in self._watched.items() if entry.is_new][:FIRST_LOOKS]
        in_turn = [pk for pk, entry in self._watched.items() if not entry.is_new]
        share = math.ceil(len(in_turn) * self._interval_s / ROUND_S)
        began = asyncio.get_running_loop().time()
        for pk in (*first, *in_turn[: min(LOOKS, share)]):
            if asyncio.get_running_loop().time() - began > self._interval_s * LOOKING:
                break
            # Whatever comes of it, the others are next.
            self._watched.move_to_end(pk)
            if client is not None and self._tells_passwords:
                await self._look_at(client, pk)
                if pk in first:  # what changed since his login and before this look only his session can tell
                    await self._ask_session(pk)
            else:
                await self._ask_session(pk)
            if pk not in first:
                await self._ask_access(pk)
            await self._ask_app_passwords(pk)
            if pk in self._watched:
                self._watched[pk].is_new = False

    async def _list_newest(self, client: Client) -> None:
        newest = ""
        for number in range(1, MAX_PAGES + 1):
            query = (("ordering", "-last_updated"), ("page", str(number)), ("page_size", str(NEWEST)))
            shape = Shape(await client.get("/core/users/", (*query, ("include_groups", "true"))), "changed users")
            found = list(shape.children("results"))
            if found:
                self._tells_passwords = "password_change_date" in found[0] and "last_updated" in found[0]
            if not found or not self._tells_passwords:
                return
            for one in found:
                moment = one.text("last_updated", "")
                newest = max(newest, moment)
                if moment <= self._newest:
                    self._newest = max(newest, self._newest)
                    return
                self._compare(people.user(one, {}))
            if not self._newest or not shape.child("pagination").integer("next"):
                break
        self._newest = max(newest, self._newest)

    async def _look_at(self, client: Client, pk: int) -> None:
        try:
            shape = Shape(await client.get(f"/core/users/{pk}/"), f"user {pk}")
        except NotFound as exc:
            if exc.is_api:
                self._revoke(pk, "gone")
            return
        self._compare(people.user(shape, {}))

    def _compare(self, user: User) -> None:
        entry = self._watched.get(user.pk)
        if entry is None:
            return
        standing = people.standing(user)
        if entry.standing is None:
            changed_at = user.password_change_date
            late = changed_at is not None and changed_at.timestamp() >= entry.logged_in_at
            entry.standing = standing
            if late or not user.is_active:
                entry.sessions.clear()
                self._tell(user.pk, "changed during the login")
        elif standing != entry.standing:
            # Kept for his next login: what changes after this is seen, and this is not held against it once more.
            entry.standing = standing
            entry.sessions.clear()
            entry.own_groups = None
            self._tell(user.pk, "changed")

    async def _ask_session(self, pk: int) -> None:
        entry = self._watched.get(pk)
        kept = None if entry is None else self._session(entry)
        if entry is None or kept is None:
            if entry is not None and entry.standing is None:
                del self._watched[pk]  # nothing is left by which a change could be seen
            return
        if entry.own_groups is None:
            entry.own_groups = kept.groups
        what = "session"
        url = kept.visitor.pool.address.api("/core/users/me/")
        async with _deadline(what):
            answer = await kept.visitor.request("GET", url, what)
        if self._sessions.is_own_ending(kept.handle):
            return
        if answer.status in (401, 403):
            self._sessions.forget(kept.handle)
            self._revoke(pk, "the session is over")
            return
        if answer.status != 200:
            raise BackendError(f"{what}: HTTP {answer.status}")
        user = Shape(answer.json(what), what).child("user")
        groups = people.group_pks(user.children("groups"))
        if not user.boolean("is_active", True) or groups != entry.own_groups:
            self._revoke(pk, "changed")

    async def _ask_access(self, pk: int) -> None:
        entry = self._watched.get(pk)
        kept = None if entry is None else self._session(entry)
        if kept is None:
            return
        async with _deadline("access check"):
            access = await self._ask(kept)
        if access is None or self._sessions.is_own_ending(kept.handle):
            return
        if isinstance(access, Denied) or not access.is_passing:
            self._revoke(pk, "may not use the application any more")

    async def _ask_app_passwords(self, pk: int) -> None:
        """Whether all that he had when he was looked at last are still there: nobody tells which of them he used."""
        entry = self._watched.get(pk)
        if entry is None or entry.app_passwords == frozenset():
            return
        kept = self._session(entry)
        if kept is None:
            return
        async with _deadline("app passwords"):
            found = await app_passwords(kept, pk, entry.username)
        if self._sessions.is_own_ending(kept.handle):
            return
        known, entry.app_passwords = entry.app_passwords, found
        if known is not None and not known <= found:
            self._revoke(pk, "an app password was revoked or expired")

    def _session(self, entry: _Watched) -> Kept | None:
        """One of the user's sessions that are still kept, in turn."""
        while entry.sessions:
            handle = next(iter(entry.sessions))
            del entry.sessions[handle]
            kept = self._sessions.find(handle)
            if kept is not None:
                entry.sessions[handle] = None
                return kept
        return None

    def _revoke(self, pk: int, why: str) -> None:
        self._watched.pop(pk, None)
        self._tell(pk, why)

    def _tell(self, pk: int, why: str) -> None:
        self._observer.log("info", "a user's logins are forgotten", user_pk=pk, reason=why)
        self._publish(Revoked(user_pk=pk))


@contextlib.asynccontextmanager
async def _deadline(what: str) -> AsyncIterator[None]:
    """Nobody waits for these requests but the next look. Raises BackendTimeout."""
    try:
        async with asyncio.timeout(REQUEST_S):
            yield
    except TimeoutError as exc:
        raise BackendTimeout(f"{what}: no answer within {REQUEST_S:g} s") from exc
