"""Sessions that logins leave on the server: remembered while used, ended when nothing uses them any more.

A session is kept so that what happens to it on the server can end what rests on it here.  Bound connections hold and
release it; a remembered credential needs it for as long as it may be remembered at most, which is what the lease is
for.  Ending is a courtesy: asynchronous, bounded, never in anybody's way.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from outpost.backends.authentik.cookies import SESSION
from outpost.backends.authentik.flow import FlowRun, Visitor
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.session import read_claims
from outpost.errors import BackendError
from outpost.identity import LdapProvider, Mode, Provider

MAX_KEPT = 20_000
"""Sessions remembered; beyond that the oldest is left to expire on the server."""
MAX_QUEUED = 1_000
MAX_ENDED = 5_000
"""Handles remembered of sessions that we ended ourselves."""
SWEEP_S = 15.0
UNREMEMBERED_S = 15.0
"""Lease of a login that no credentials cache keeps: time enough for its connection to hold the session."""
WORKERS = 2
END_TIMEOUT_S = 10.0
DefaultSlug = Callable[[str], Awaitable[str]]
"""The slug of the server's general invalidation flow, asked with a service's token."""


@dataclass(slots=True, repr=False)
class Kept:
    """A session that somebody may still use."""

    handle: str
    visitor: Visitor
    provider: Provider
    service: str
    expires_at: float | None
    """Seconds since the epoch; None: when the server thinks so."""
    leased_until: float
    """On the loop's clock."""
    groups: tuple[str, ...] = ()
    """pks of the user's groups, in order, as the session showed them at the login."""
    holders: int = 0


class Sessions:
    """The sessions of all outposts of this process."""

    def __init__(
        self, observer: Observer, default_slug: DefaultSlug, *, is_ending: bool, lease_s: float = 600.0
    ) -> None:
        self._observer = observer
        self._default_slug = default_slug
        self._is_ending = is_ending
        self._lease_s = lease_s
        self._sweep: asyncio.TimerHandle | None = None
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._queue: asyncio.Queue[Kept] = asyncio.Queue(MAX_QUEUED)
        self._workers: list[asyncio.Task[None]] = []
        self.dropped = 0
        """Sessions left to expire because too many were waiting to be ended."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self,
        handle: str,
        visitor: Visitor,
        provider: Provider,
        service: str,
        expires_at: float | None,
        groups: tuple[str, ...] = (),
    ) -> None:
        """Remember the session of an accepted login, for the time of the lease at least. On the event loop only."""
        loop = asyncio.get_running_loop()
        lease_s = self._lease_s if _is_remembered(provider) else min(self._lease_s, UNREMEMBERED_S)
        self._kept[handle] = Kept(handle, visitor, provider, service, expires_at, loop.time() + lease_s, groups)
        while len(self._kept) > MAX_KEPT:
            self._enqueue(self._kept.popitem(last=False)[1])
        if self._sweep is None:
            self._sweep = loop.call_later(min(SWEEP_S, self._lease_s), self._sweep_leases)

    def hold(self, handle: str) -> None:
        """Somebody rests on this session; unknown handles are ignored."""
        kept = self._kept.get(handle)
        if kept is not None:
            kept.holders += 1

    def release(self, handle: str) -> None:
        """A holder is done; the last one's session is ended on the server, at the end of its lease if that is later."""
        kept = self._kept.get(handle)
        if kept is None:
            return
        kept.holders -= 1
        is_leased = _is_remembered(kept.provider) and kept.leased_until > asyncio.get_running_loop().time()
        if kept.holders <= 0 and not is_leased:
            del self._kept[handle]
            self._enqueue(kept)

    def forget(self, handle: str) -> None:
        """The server has ended this session itself."""
        self._kept.pop(handle, None)

    def find(self, handle: str) -> Kept | None:
        """The session, None when it is not kept."""
        return self._kept.get(handle)

    def is_held(self, handle: str) -> bool:
        """Whether a connection rests on this session."""
        kept = self._kept.get(handle)
        return kept is not None and kept.holders > 0

    def is_own_ending(self, handle: str) -> bool:
        """Whether the end of this session was our doing: nothing that rested on it has to be forgotten for it."""
        return handle in self._ended

    def _sweep_leases(self) -> None:
        loop = asyncio.get_running_loop()
        now, epoch = loop.time(), time.time()
        for kept in list(self._kept.values()):
            if kept.expires_at is not None and kept.expires_at <= epoch:
                del self._kept[kept.handle]  # gone on the server, too
            elif kept.holders <= 0 and kept.leased_until <= now:
                del self._kept[kept.handle]
                self._enqueue(kept)
        self._sweep = None
        if self._kept:
            self._sweep = loop.call_later(min(SWEEP_S, self._lease_s), self._sweep_leases)

    def discard(self, visitor: Visitor, provider: Provider, service: str) -> None:
        """End the session of a login that was not accepted, in case it got that far."""
        cookie = visitor.jar.get(SESSION)
        claims = read_claims(cookie)
        if cookie and claims.is_authenticated is not False:
            self._enqueue(Kept(claims.handle, visitor, provider, service, None, 0.0))

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
        self._ended[kept.handle] = None
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        own = kept.provider.unbind_flow_slug if isinstance(kept.provider, LdapProvider) else ""
        if own and await self._leave(kept, own):
            return
        general = await self._default_slug(kept.service)
        if general and general != own:
            await self._leave(kept, general)

    async def _leave(self, kept: Kept, slug: str) -> bool:
        pool = kept.visitor.pool
        return await FlowRun.prepare(kept.visitor, pool.address, slug, kept.service, self._observer).leave()

    async def stop(self, timeout_s: float) -> None:
        """End what is known, for as long as there is time, and stop; idempotent."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._kept:
            self._enqueue(self._kept.popitem(last=False)[1])
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


def _is_remembered(provider: Provider) -> bool:
    """Whether the logins of this provider may be remembered, and so rest on their sessions without any connection."""
    return not isinstance(provider, LdapProvider) or provider.bind_mode is Mode.CACHED
