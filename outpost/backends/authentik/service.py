"""One outpost of the server: its record, catalog, people and event channel, each read and read again for itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from outpost import __version__
from outpost.backends.authentik import warm
from outpost.backends.authentik.authority import FlowAuthority
from outpost.backends.authentik.catalog import ServiceCatalog
from outpost.backends.authentik.client import Client, NoJson, NotFound, Pools, TokenRefused
from outpost.backends.authentik.events import EventChannel, Listeners
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.roster import AuthentikRoster
from outpost.backends.authentik.sessions import Sessions
from outpost.backends.authentik.settings import AUTO, SERVICES, AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.backends.authentik.staggered import staggered
from outpost.backends.authentik.watch import REQUEST_S
from outpost.errors import BackendError, DecodeError
from outpost.identity import LdapProvider, Mode, Publish, Revoked, Secret
from outpost.processes import memory

RETRY_FIRST_S = 0.25
QUESTION_S = 10.0
"""What the answer to a small question may take."""
ASK_AGAIN_S = 3.0
"""A small question without an answer is asked once more beside it: on another connection, to where the server is by
now."""
MIN_INTERVAL_S = 30.0
"""The server's own floor for `refresh_interval`."""
MIN_PEOPLE_GAP_S = 3.0
"""Updates come in bunches and are never about people: these are read again this long after the last time at the
earliest, and the longer it takes the less often."""
CONFIG_KEYS = frozenset({"capabilities", "error_reporting", "cache_timeout"})
"""Of the server's general settings: every release has some of them."""
MAX_TOLD = 20
"""Different failures told of one trouble."""
CALM_S = 3.0
"""After a start from the copy on disk, whose people are as good as they were: those who come back log in first, before
all pages are read, which keeps server and processor busy."""
MAX_REVOKED = 5000
"""Beyond this everything is forgotten at once."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the services of one backend share. The callables are called on the event loop and do not block."""

    settings: AuthentikSettings
    pools: Pools
    sessions: Sessions
    observer: Observer
    wall_clock: Callable[[], float]
    instance: str
    """UUID of this process."""
    publish: Publish
    changed: Callable[[], None]
    connected: Callable[[], None]


class Service:
    """What one token is good for."""

    def __init__(self, declared: str, token: Secret, around: Surroundings) -> None:
        settings = around.settings
        self.kind = declared if declared in SERVICES else ""
        """`ldap` or `radius`; empty while only the server knows."""
        self.problem = "the server has not been reached yet"
        """Why the outpost's state cannot be read; empty when it can."""
        self.people_problem = ""
        self.name = ""
        self.catalog: ServiceCatalog | None = None
        self.roster: AuthentikRoster | None = None
        self.channel: EventChannel | None = None
        self.authority: FlowAuthority | None = None
        self._declared = declared
        self._token = token
        self._around = around
        self._settings = settings
        self._observer = around.observer
        version = settings.version or __version__
        self.client = Client(around.pools.rest, token, settings, version)
        # The loops below try again by themselves: one request per step.
        once = replace(settings, attempts=1)
        self._prober = Client(around.pools.rest, token, once, version)
        brief = replace(once, request_timeout_s=min(QUESTION_S, once.request_timeout_s))
        self._asker = Client(around.pools.rest, token, brief, version)
        """For small questions."""
        self.watcher = Client(
            around.pools.rest, token, replace(once, request_timeout_s=min(REQUEST_S, once.request_timeout_s)), version
        )
        """For looking after single users, many times: a request that takes long is given up."""
        self._outpost_pk = ""
        self._is_warned = False
        self._told: set[str] = set()
        """What was said of the present trouble: where failures alternate, each is told once."""
        self._interval_s = settings.refresh_interval_s
        self._random = random.Random()  # noqa: S311 - jitter
        self._wanted = asyncio.Event()
        self._people_wanted = asyncio.Event()
        self._people_urgent = asyncio.Event()
        """Do not wait until the last read is long enough ago."""
        self._reading = asyncio.Lock()
        self._reading_people = asyncio.Lock()
        self._took_s = 0.0
        self._calm_until = 0.0
        self._was_connected = False
        self._knows_server = False
        self._knows_version = bool(settings.version)
        self._tasks: list[asyncio.Task[None]] = []

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin work; returns at once."""
        if self.kind:
            self._become(self.kind)
        self._spawn(self._keep_reading(), "catalog")

    async def stop(self) -> None:
        """End all tasks; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"authentik-{self.kind or AUTO}-{name}"))

    def _become(self, kind: str) -> None:
        """The service is known: from now on it has its parts."""
        around, settings = self._around, self._settings
        self.kind = kind
        self.catalog = ServiceCatalog(kind, self._prober, settings, self._observer, around.wall_clock)
        self.authority = FlowAuthority(
            service=kind,
            token=self._token,
            pool=around.pools.logins,
            settings=settings,
            sessions=around.sessions,
            observer=self._observer,
            wall_clock=around.wall_clock,
        )
        self.authority.say_version(self.client.version)
        listeners = Listeners(self.want, self._session_ended, self._connected)
        self.channel = EventChannel(
            around.pools.rest, self.client, lambda: self._outpost_pk, around.instance, listeners, self._observer, kind
        )
        if kind == "ldap":
            self.roster = AuthentikRoster(self.client, self._prober, settings, around.wall_clock)
            self._spawn(self._keep_reading_people(), "people")

    # -- the outpost and its catalog --------------------------------------------------------------

    def want(self) -> None:
        """Read everything again, soon. Never blocks."""
        self._wanted.set()
        self._people_wanted.set()

    async def refresh(self) -> None:
        """Read everything again now; what fails is tried again soon. Raises BackendError."""
        try:
            await self._read()
            await self._read_people()
        except BackendError:
            self._people_urgent.set()
            self.want()
            raise

    async def _keep_reading(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        await self._load_copy()
        while True:
            started = loop.time()
            try:
                await self._read()
                failures = 0
                delay = self._jittered(self._interval_s)
            except Exception as exc:
                failures += 1
                self._trouble(exc)
                # What the attempt took was pause enough.
                delay = max(RETRY_FIRST_S, self._backoff(failures) - (loop.time() - started))
            await self._pause(None if failures else self._wanted, delay)

    async def _read(self) -> None:
        """One complete read; tells the problem by raising."""
        async with self._reading:
            self._wanted.clear()
            try:
                await self._read_outpost()
                assert self.catalog is not None and self.authority is not None
                change = await self.catalog.refresh()
                self.authority.access.learn(is_legacy=self.catalog.is_legacy)
            except BackendError as exc:
                self.problem = str(exc)
                raise
            self._recovered()
            if change.is_changed:
                self._catalog_changed()
            for revoked in change.revoked:
                self._around.publish(revoked)
            self._observer.refreshed(self.kind, self._around.wall_clock())

    async def _read_outpost(self) -> None:
        await self._learn_server()
        await self._learn_version()
        shape = Shape(await self._question("/outposts/instances/"), "outposts")
        wanted = self._declared if self._declared in SERVICES else self.kind
        record = self._own(list(shape.listing("results").children("results")), wanted)
        kind, name = record.text("type"), record.text("name")
        if wanted and kind != wanted:
            raise BackendError(
                f"the token belongs to the {_upper(kind)} outpost {name!r}, but an outpost of type {_upper(wanted)} is"
                " needed here"
            )
        if kind not in SERVICES:
            raise BackendError(
                f"the token belongs to outpost {name!r} of type {kind!r}; only ldap and radius are served"
            )
        interval = record.integer("refresh_interval_s", 0)
        self._interval_s = max(interval, MIN_INTERVAL_S) if interval > 0 else self._settings.refresh_interval_s
        if not self.catalog:
            self._become(kind)
        known, self._outpost_pk = self._outpost_pk, record.text("pk")
        if (known, self.name) != (self._outpost_pk, name):
            self.name = name
            self._observer.outpost(kind, name, self._around.instance, self.client.version)
        level = record.mapping("config").get("log_level")
        if isinstance(level, str) and not record.optional_text("managed"):
            self._observer.level(kind, level)
        if not known:
            assert self.channel is not None
            self._spawn(self.channel.run(), "events")

    def _own(self, records: list[Shape], wanted: str) -> Shape:
        """Our outpost's record. Raises BackendError."""
        if not records:
            raise BackendError("the token belongs to no outpost; copy the token of an LDAP or RADIUS outpost")
        if len(records) == 1:
            return records[0]
        fitting = [one for one in records if one.text("type") in ((wanted,) if wanted else SERVICES)]
        problem = f"the token shows {len(records)} outposts, so it is none's own"
        if len(fitting) != 1:
            raise BackendError(f"{problem}; copy the token of the one that is meant")
        if not self._is_warned:
            self._is_warned = True
            # Newer servers take the word of nobody but an outpost's own account for who logs in.
            advice = "servers may refuse all logins; copy the outpost's token"
            self._observer.log("warning", f"{problem}: {advice}", service=self.kind or AUTO)
        return fitting[0]

    async def _learn_server(self) -> None:
        """Make sure that it is an authentik server that answers: its general settings are there for everybody."""
        if self._knows_server:
            return
        try:
            content = await self._question("/root/config/")
        except (NotFound, NoJson) as exc:
            raise self._no_authentik(str(exc)) from exc
        if not isinstance(content, dict) or not content.keys() & CONFIG_KEYS:
            raise self._no_authentik("GET /root/config/: other JSON than expected")
        capabilities = content.get("capabilities")
        self._observer.log("debug", "the server answers", service=self.kind or AUTO, capabilities=capabilities)
        self._knows_server = True

    def _no_authentik(self, why: str) -> BackendError:
        host = self._settings.host
        return BackendError(f"what answers at {host} is no authentik server ({why}); check AUTHENTIK_HOST")

    async def _question(self, path: str) -> Any:
        return await staggered(lambda: self._asker.get(path), ASK_AGAIN_S)

    async def _learn_version(self) -> None:
        """The server flags outposts of another version than its own: say the same as it does."""
        if self._knows_version:
            return
        try:
            shape = Shape(await self.watcher.get("/admin/version/"), "version")
            version = shape.text("version_current", "")
        except (NotFound, TokenRefused):
            version = ""
        except BackendError as exc:  # nothing but our name for ourselves depends on it: asked again with the next read
            self._observer.log("debug", f"the server's version is not known: {exc}", service=self.kind or AUTO)
            return
        if version and version.isascii() and version.isprintable():
            for client in (self.client, self._prober, self._asker, self.watcher):
                client.version = version
            if self.authority is not None:
                self.authority.say_version(version)
        self._knows_version = True

    def _catalog_changed(self) -> None:
        assert self.catalog is not None
        if not self.catalog.providers:
            self._observer.log(
                "warning",
                "the outpost has no provider with an application: nothing is served until one is added",
                service=self.kind,
                outpost=self.name,
            )
        else:
            self._observer.log(
                "info", "providers read", service=self.kind, names=[one.name for one in self.catalog.providers]
            )
        if self.authority is not None:
            self.authority.say_version(self.client.version)
        if self.roster is not None and not self._is_cached() and self.roster.people is not None:
            self.roster.forget()
        self._people_wanted.set()
        self._around.changed()

    def _trouble(self, exc: Exception) -> None:
        text = str(exc) if isinstance(exc, BackendError) else f"{type(exc).__name__}: {exc}"
        self.problem = text
        if text not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(text)
            self._observer.log("error", f"the state of the outpost cannot be read: {text}", service=self.kind or AUTO)

    def _recovered(self) -> None:
        was = self.problem
        self.problem = ""
        if self._told:
            self._told.clear()
            self._observer.log("info", "the server answers again", service=self.kind)
        if was and self.channel is not None and not self.channel.is_connected:
            self.channel.kick()
        if was:
            self._people_urgent.set()
            self._people_wanted.set()

    # -- people -----------------------------------------------------------------------------------

    def _is_cached(self) -> bool:
        providers = self.catalog.providers if self.catalog is not None else ()
        return any(isinstance(one, LdapProvider) and one.search_mode is Mode.CACHED for one in providers)

    async def _keep_reading_people(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        told: set[str] = set()
        while True:
            await asyncio.sleep(self._calm_until - loop.time())
            started = loop.time()
            try:
                was_read = await self._read_people()
                if failures:
                    self._observer.log("info", "users and groups are read again", service=self.kind)
                failures = 0
                told.clear()
                gap = max(MIN_PEOPLE_GAP_S, 2 * self._took_s) if was_read else 0.0
                delay = max(self._jittered(self._interval_s), gap)
            except Exception as exc:
                failures += 1
                text = str(exc) if isinstance(exc, BackendError) else f"{type(exc).__name__}: {exc}"
                self.people_problem = text
                if text not in told and len(told) < MAX_TOLD:
                    told.add(text)
                    stays = "the last copy stays" if self._has_people() else "and there is no copy yet"
                    event = f"users and groups cannot be read, {stays}: {text}"
                    self._observer.log("error", event, service=self.kind)
                gap, delay = 0.0, self._backoff(failures)
            await self._pause(self._people_urgent if failures else self._people_wanted, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, gap - (loop.time() - started))):
                    await self._people_urgent.wait()

    def _has_people(self) -> bool:
        return self.roster is not None and self.roster.people is not None

    async def _read_people(self) -> bool:
        """Whether there was anything to read. Raises BackendError."""
        roster = self.roster
        if roster is None:
            return False
        async with self._reading_people:
            self._people_wanted.clear()
            self._people_urgent.clear()
            if not self._is_cached() or (self.catalog is not None and not self.catalog.is_read):
                self.people_problem = ""
                return False
            loop = asyncio.get_running_loop()
            started = loop.time()
            outcome = await roster.refresh()
            self._took_s = loop.time() - started
            self.people_problem = ""
            found = roster.people
            assert found is not None
            self._observer.log(
                "debug", "users and groups read", users=found.user_count, groups=len(found.groups),
                changed=outcome.is_changed, seconds=round(self._took_s, 3),
            )  # fmt: skip
            if outcome.is_changed:
                # First what is forgotten, so that nobody believes it by the light of the new copy.
                self._revoke(outcome.revoked)
                self._around.changed()
                await self._save_copy()
            await asyncio.to_thread(memory.give_back)
            return True

    def _revoke(self, users: frozenset[int]) -> None:
        if len(users) > MAX_REVOKED:
            self._around.publish(Revoked())
            return
        for pk in sorted(users):
            self._around.publish(Revoked(user_pk=pk))

    async def _load_copy(self) -> None:
        path, roster, catalog = self._settings.cache_path, self.roster, self.catalog
        if path is None or (self.kind == "radius"):
            return
        try:
            copy = await asyncio.to_thread(warm.load, path, warm.source_of(self._settings.host, self._token))
        except (BackendError, OSError) as exc:
            self._observer.log("warning", f"the copy of the directory was not read: {exc}")
            return
        if copy is None:
            return
        if roster is None or catalog is None:
            self._become("ldap")
            roster, catalog = self.roster, self.catalog
        assert roster is not None and catalog is not None
        self._calm_until = asyncio.get_running_loop().time() + CALM_S
        catalog.start_from(copy.providers)
        roster.start_from(copy.census)
        self._observer.log("info", "started from the copy on disk", users=copy.census.people.user_count)
        self._around.changed()

    async def _save_copy(self) -> None:
        path, roster, catalog = self._settings.cache_path, self.roster, self.catalog
        if path is None or roster is None or catalog is None or roster.census is None:
            return
        providers = tuple(one for one in catalog.providers if isinstance(one, LdapProvider))
        copy = warm.Copy(roster.census, providers)
        try:
            await asyncio.to_thread(warm.save, path, warm.source_of(self._settings.host, self._token), copy)
        except (DecodeError, OSError) as exc:
            self._observer.log("warning", f"the copy of the directory was not written: {exc}")

    # -- events -----------------------------------------------------------------------------------

    def _session_ended(self, handle: str) -> None:
        if self._around.sessions.is_own_ending(handle):
            return
        self._around.sessions.forget(handle)
        self._around.publish(Revoked(session=handle))

    def _connected(self, is_connected: bool) -> None:
        self._around.connected()
        if not is_connected:
            self._around.pools.doubt()
        if not is_connected or self._was_connected:
            # Down: is the server still there?  Up again: what happened meanwhile?
            self.want()
        self._was_connected |= is_connected

    # -- time -------------------------------------------------------------------------------------

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.9, 1.0)

    def _backoff(self, failures: int) -> float:
        longest = min(self._settings.retry_max_s, RETRY_FIRST_S * float(2 ** min(failures, 10)))
        return longest * self._random.uniform(0.5, 1.0)

    async def _pause(self, wanted: asyncio.Event | None, seconds: float) -> None:
        """Wait that long, or until it is wanted earlier; None: never earlier."""
        if wanted is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await wanted.wait()
        except TimeoutError:
            return
        # One saved object makes the server send several events.
        await asyncio.sleep(self._random.uniform(0.05, 0.2))

    # -- readiness --------------------------------------------------------------------------------

    def readiness(self) -> str:
        """Empty when everything is there, else what is missing."""
        if self.problem:
            return self.problem
        if self.catalog is None or not self.catalog.is_read:
            return "the outpost's providers are being read"
        if not self.catalog.providers:
            return f"the outpost {self.name!r} has no provider with an application yet"
        if self._is_cached():
            if self.people_problem:
                return f"users and groups cannot be read: {self.people_problem}"
            if not self._has_people():
                return "users and groups are being read for the first time"
        return ""


def _upper(kind: str) -> str:
    return kind.upper() if kind in SERVICES else repr(kind)
