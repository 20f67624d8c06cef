"""A worker's directories: compiled by the parent, read from its memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import final

from outpost.errors import BackendUnavailable, LimitExceeded, OutpostError
from outpost.identity import LdapProvider, Wanted
from outpost.ldap._shelf import Shelf
from outpost.ldap._snapshot import Snapshot
from outpost.processes import memory
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.calls import Calls
from outpost.workers.words import Found


@final
class Shelves:
    """Implements `outpost.ldap.server.ServedLibrary`. Everything but checking an arena runs on one event loop.

    adopted: told when searches see a directory, by provider and edition; log: takes level and event.
    """

    def __init__(self, calls: Calls, adopted: Callable[[int, int], None], log: Callable[[str, str], None]) -> None:
        self._calls = calls
        self._adopted = adopted
        self._log = log
        self._providers: frozenset[int] = frozenset()
        self.shelves: dict[int, Shelf] = {}
        """The last complete directory of each provider, by primary key; one dictionary for good."""
        self._editions: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, providers: Iterable[LdapProvider]) -> None:
        """The parent builds what differs; what is served no more is given up."""
        self._providers = frozenset(one.pk for one in providers)
        for pk in self.shelves.keys() - self._providers:
            del self.shelves[pk]

    def shelf(self, provider: LdapProvider) -> Shelf | None:
        """The last complete directory of a provider, or None before the first."""
        return self.shelves.get(provider.pk)

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Shelf:
        """A fresh directory of at least `wanted`. Raises BackendError."""

        def land(reply: Found, message: Message) -> int:
            if reply.problem or len(message.descriptors) != 1:
                message.close()
                raise BackendUnavailable(reply.problem or "no directory came")
            return message.descriptors[0]

        try:
            found = await self._calls.ask(lambda identifier: words.LookUp(identifier, provider.pk, wanted), Found, land)
        except LimitExceeded as exc:
            raise BackendUnavailable(str(exc)) from None
        return await asyncio.to_thread(_shelved, found)

    def adopt(self, provider_pk: int, edition: int, descriptor: int) -> None:
        """A provider's directory has come; `descriptor` is closed."""
        self._editions[provider_pk] = edition
        task = asyncio.get_running_loop().create_task(self._adopt(provider_pk, edition, descriptor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End what is under way; idempotent."""
        await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    async def _adopt(self, provider_pk: int, edition: int, descriptor: int) -> None:
        try:
            shelf = await asyncio.to_thread(_shelved, descriptor)
        except OutpostError as error:
            self._log("error", f"a directory could not be taken over, the last one is kept: {error}")
            return
        if self._editions.get(provider_pk) == edition and provider_pk in self._providers:
            self.shelves[provider_pk] = shelf
            self._adopted(provider_pk, edition)


def _shelved(descriptor: int) -> Shelf:
    """The directory in sealed memory; the descriptor is closed. Raises DecodeError and BackendUnavailable."""
    try:
        return Shelf(Snapshot(memoryview(memory.mapped(descriptor))))
    except (OSError, ValueError, MemoryError) as error:
        raise BackendUnavailable(f"the directory's memory cannot be read: {type(error).__name__}") from None
    finally:
        os.close(descriptor)
