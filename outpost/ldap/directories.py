"""The compiled directory of each provider: built off the event loop, swapped in whole, kept when a build fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, final

from outpost.errors import BackendError, DecodeError, OutpostError
from outpost.identity import Crowd, LdapProvider, Mode, Roster, Wanted
from outpost.ldap._shelf import Shelf
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.compiler import compile_apart
from outpost.ldap.stored import StoredArenas
from outpost.processes import memory
from outpost.processes.people import PackedPeople

NAMED = 10
"""Names in one line of the log."""
LOOKUPS = 16
"""Fresh directories compiled at a time."""
APART = 2_000
"""Users from which on a directory is compiled in a process of its own: that takes a quarter of a second more, which is
what the loop would otherwise share with the work."""
RETRY_S = 30.0
"""After which it is tried again to compile the same people, where it was not they that failed."""

B = TypeVar("B")
"""What a compiled directory is kept as; `Shelf` where it is searched."""

Log = Callable[[str, str], None]
"""Takes level and event."""


def _silence(level: str, event: str) -> None:
    """Nobody listens."""


def shelved(arena: bytes | memoryview) -> Shelf:
    """A compiled directory to be searched. Raises DecodeError for what is none."""
    return Shelf(Snapshot(arena))


def _nobody_asked(provider: LdapProvider) -> None:
    """Nobody waits for directories."""


@final
class Directories(Generic[B]):
    """Implements `outpost.ldap.shelf.Library`, where the directories are shelves.

    Everything but compiling runs on one event loop.  keep: from an arena to what is kept of it, called off the loop;
    built: called when a provider's directory is a new one; stored: where arenas outlive the process.
    """

    def __init__(
        self,
        roster: Roster,
        keep: Callable[[bytes | memoryview], B],
        log: Log = _silence,
        built: Callable[[LdapProvider], None] = _nobody_asked,
        stored: StoredArenas | None = None,
    ) -> None:
        self._roster = roster
        self._stored = stored
        self._keep = keep
        self._log = log
        self._tell_built = built
        self._providers: dict[int, LdapProvider] = {}
        self.shelves: dict[int, B] = {}
        """The last complete directory of each provider, by primary key; one dictionary for good."""
        self._built: dict[int, tuple[int, LdapProvider]] = {}
        """What each shelf was built from: generation of the people, and the provider."""
        self._failed: dict[int, tuple[int, LdapProvider]] = {}
        self._left_out: dict[int, list[str]] = {}
        """Who is missing from each shelf, as told last."""
        self._builds: dict[int, asyncio.Task[None]] = {}
        self._retries: dict[int, asyncio.TimerHandle] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._is_stopped = False

    def serve(self, providers: Iterable[LdapProvider]) -> None:
        """Providers or people changed: build what differs. Returns at once."""
        self._providers = {one.pk: one for one in providers}
        for pk in self.shelves.keys() - self._providers.keys():
            del self.shelves[pk], self._built[pk]
            self._left_out.pop(pk, None)
        for pk in self._providers:
            self._build(pk)

    def shelf(self, provider: LdapProvider) -> B | None:
        """The last complete directory of a provider, or None before the first."""
        return self.shelves.get(provider.pk)

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> B:
        """A fresh directory of at least `wanted`. Raises BackendError."""
        async with self._lookups:
            people = await self._roster.fetch(provider, wanted)
            return await self._compiled(people, provider)

    def readiness(self) -> str:
        """Empty, or what is still to be done before searches can be answered."""
        waiting = [
            one.name for pk, one in self._providers.items() if one.search_mode is Mode.CACHED and pk not in self.shelves
        ]
        return f"the directory of provider {waiting[0]!r} is not complete yet" if waiting else ""

    async def stop(self) -> None:
        """End the builds; idempotent."""
        self._is_stopped = True
        tasks = tuple(self._builds.values())
        for task in tasks:
            task.cancel()
        for retry in self._retries.values():
            retry.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- building ---------------------------------------------------------------------------------

    def _build(self, pk: int) -> None:
        if self._is_stopped or pk in self._builds:
            return  # a build under way looks again when it ends
        provider = self._providers[pk]
        people = self._roster.current(provider)
        if people is None or provider.search_mode is not Mode.CACHED:
            return
        source = (people.generation, provider)
        if source in (self._built.get(pk), self._failed.get(pk)):
            return
        self._builds[pk] = asyncio.get_running_loop().create_task(self._built_from(pk, people, provider))

    async def _built_from(self, pk: int, people: Crowd, provider: LdapProvider) -> None:
        source = (people.generation, provider)
        left_out: list[str] = []
        try:
            shelf = await self._compiled(people, provider, left_out)
        except (BackendError, DecodeError) as error:
            # Nothing is wrong with the people: memory was short, or a process was ended.
            self._failed[pk] = source
            self._retries[pk] = asyncio.get_running_loop().call_later(RETRY_S, self._retry, pk)
            self._log("error", f"directory of provider {provider.name!r} not built, the last one is kept: {error}")
        except OutpostError as error:
            self._failed[pk] = source
            self._log("error", f"directory of provider {provider.name!r} not built, the last one is kept: {error}")
        except Exception as exc:  # a bug in one entry must not take the directory that works away
            self._failed[pk] = source
            # The text of a foreign exception may quote somebody's attributes.
            failed = type(exc).__name__
            self._log("error", f"directory of provider {provider.name!r} not built, the last one is kept: {failed}")
        else:
            if pk in self._providers:
                self.shelves[pk] = shelf
                self._built[pk] = source
                self._failed.pop(pk, None)
                self._tell_built(provider)
                self._tell_left_out(provider, left_out)
            await asyncio.to_thread(memory.give_back)
        finally:
            del self._builds[pk]
        if pk in self._providers:
            self._build(pk)

    def _tell_left_out(self, provider: LdapProvider, names: list[str]) -> None:
        """Once for the same ones: a directory is built again and again."""
        names.sort()
        if names == self._left_out.get(provider.pk, []):
            return
        self._left_out[provider.pk] = names
        if names:
            first = ", ".join(repr(name[:60]) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            self._log(
                "warning",
                f"directory of provider {provider.name!r}: {len(names)} left out whose names are too long for a DN or"
                f" equal to another's in one: {first}",
            )

    def _retry(self, pk: int) -> None:
        self._failed.pop(pk, None)
        if pk in self._providers:
            self._build(pk)

    async def _compiled(self, people: Crowd, provider: LdapProvider, left_out: list[str] | None = None) -> B:
        """Raises ConfigError, BackendError, and DecodeError for an arena that is none."""
        try:
            if not isinstance(people, PackedPeople):
                return await asyncio.to_thread(lambda: self._keep(compile_people(people, provider, left_out)))
            found = await self._loaded(people, provider)
            if found is not None:
                return found
            if people.user_count >= APART:
                arena: bytes | memoryview = await compile_apart(people, provider, left_out)
            else:
                arena = await asyncio.to_thread(compile_people, people, provider, left_out)
            kept = await asyncio.to_thread(self._keep, arena)
            await self._store(people, provider, arena)
            return kept
        except MemoryError:
            raise BackendError("no memory for the directory") from None

    async def _loaded(self, people: PackedPeople, provider: LdapProvider) -> B | None:
        """What is stored of just these, if it is whole."""
        stored = self._stored
        if stored is None:
            return None
        try:
            arena = await asyncio.to_thread(stored.load, people, provider)
            return None if arena is None else await asyncio.to_thread(self._keep, arena)
        except (OutpostError, OSError) as error:
            self._log("warning", f"the stored directory of provider {provider.name!r} is not taken: {error}")
            return None

    async def _store(self, people: PackedPeople, provider: LdapProvider, arena: bytes | memoryview) -> None:
        if self._stored is None:
            return
        try:
            await asyncio.to_thread(self._stored.save, people, provider, arena)
        except OSError as error:
            self._log("warning", f"the directory of provider {provider.name!r} was not stored: {error}")
