"""Sessions that logins leave on the server: remembered while used, ended when nothing uses them any more.

Ending is a courtesy to the server: asynchronous, bounded, never in anybody's way.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from outpost.backends.authentik.cookies import SESSION
from outpost.backends.authentik.flow import FlowRun, Visitor
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.session import read_claims
from outpost.errors import BackendError
from outpost.identity import LdapProvider, Provider

MAX_KEPT = 20_000
"""Sessions remembered; beyond that the oldest is left to expire on the server."""
MAX_QUEUED = 1_000
WORKERS = 2
END_TIMEOUT_S = 10.0
DefaultSlug = Callable[[str], Awaitable[str]]
"""The slug of the server's general invalidation flow, asked with a service's token."""


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """A session that somebody may still use."""

    visitor: Visitor
    service: str
    slug: str
    """Flow that ends it; empty: the server's general one."""
    expires_at: float | None


class Sessions:
    """The sessions of all outposts of this process."""

    def __init__(self, observer: Observer, default_slug: DefaultSlug, *, is_ending: bool) -> None:
        self._observer = observer
        self._default_slug = default_slug
        self._is_ending = is_ending
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._queue: asyncio.Queue[Kept] = asyncio.Queue(MAX_QUEUED)
        self._workers: list[asyncio.Task[None]] = []
        self.dropped = 0
        """Sessions left to expire because too many were waiting to be ended."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, handle: str, visitor: Visitor, provider: Provider, service: str, expires_at: float | None) -> None:
        """Remember the session of an accepted login."""
        self._kept[handle] = Kept(visitor, service, _slug(provider), expires_at)
        self._kept.move_to_end(handle)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def release(self, handle: str) -> None:
        """Nothing uses this session any more: end it on the server, some time soon."""
        kept = self._kept.pop(handle, None)
        if kept is not None:
            self._enqueue(kept)

    def forget(self, handle: str) -> None:
        """The server has ended this session itself."""
        self._kept.pop(handle, None)

    def discard(self, visitor: Visitor, provider: Provider, service: str) -> None:
        """End the session of a login that was not accepted, in case it got that far."""
        cookie = visitor.jar.get(SESSION)
        if cookie and read_claims(cookie).is_authenticated is not False:
            self._enqueue(Kept(visitor, service, _slug(provider), None))

    def _enqueue(self, kept: Kept) -> None:
        if not self._is_ending:
            return
        if not self._workers:
            self._workers = [asyncio.create_task(self._work(), name=f"end-sessions-{i}") for i in range(WORKERS)]
        try:
            self._queue.put_nowait(kept)
        except asyncio.QueueFull:
            self.dropped += 1

    async def _work(self) -> None:
        while True:
            kept = await self._queue.get()
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._end(kept)
            except (BackendError, TimeoutError) as exc:
                self._observer.log("debug", "session not ended", service=kept.service, error=str(exc))
            except Exception as exc:  # the worker outlives a bug; the session expires on the server
                self._observer.log("error", "session not ended", service=kept.service, error=repr(exc))
            finally:
                self._queue.task_done()

    async def _end(self, kept: Kept) -> None:
        """Run the invalidation flow with the session's own cookie; the provider's may not log out, the general does."""
        slugs = [kept.slug] if kept.slug else []
        for slug in slugs:
            if await self._leave(kept, slug):
                return
        general = await self._default_slug(kept.service)
        if general and general not in slugs:
            await self._leave(kept, general)

    async def _leave(self, kept: Kept, slug: str) -> bool:
        pool = kept.visitor.pool
        return await FlowRun.prepare(kept.visitor, pool.address, slug, kept.service, self._observer).leave()

    async def stop(self, timeout_s: float) -> None:
        """End what is known, for as long as there is time, and stop; idempotent."""
        for handle in list(self._kept):
            self.release(handle)
        if self._workers:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._queue.join()
            except TimeoutError:
                pass
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _slug(provider: Provider) -> str:
    return provider.unbind_flow_slug if isinstance(provider, LdapProvider) else ""
