"""A worker's gate: a cache of what the parent has accepted, in front of the parent's own gate.

Limits, damping, sharing and one-time codes are the parent's, where they hold for all workers.  What is remembered here
is believed no longer than there, and forgotten when the parent says so: revocations, refusals and doubts arrive in
the order in which they happened, between the answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import final

from outpost.credentials._believed import Believed, Entry, Who
from outpost.credentials.cache import NEVER, CredentialsCache
from outpost.credentials.gate import GateSettings, is_cached, service_of
from outpost.errors import BackendError, BackendTimeout, LimitExceeded
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    LdapProvider,
    PasswordDecision,
    Provider,
    Publish,
    RadiusProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.calls import Calls
from outpost.workers.prompts import Answered
from outpost.workers.words import Decided, PasswordDecided, Prompt, ToParent


@final
class Front:
    """Decides logins as `outpost.credentials.gate.Gate` does. Everything runs on one event loop.

    hash_key: of the parent's cache; clock: monotonic seconds of the machine; epoch: seconds since the epoch.
    """

    def __init__(
        self,
        calls: Calls,
        settings: GateSettings,
        hash_key: bytes,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
    ) -> None:
        self._calls = calls
        self._settings = settings
        self.clock = self._clock = clock
        self._epoch = epoch
        self._cache = CredentialsCache(settings.cache, hash_key)
        self._subscribers: list[Publish] = []
        self._refreshing: set[asyncio.Task[Decision]] = set()
        self._can_change_passwords = False
        self._raced = 0

    # -- logins ---------------------------------------------------------------------------------------

    @property
    def believed(self) -> Believed:
        """Remembered logins, for whoever answers requests in C: a hit there is what `known` would say."""
        return self._cache.believed

    def whom(self, provider: Provider, username: str) -> Who | None:
        """What to look somebody up by in `believed`; None if his logins are not remembered."""
        return Who(service_of(provider), provider.pk, username) if is_cached(provider, self._settings) else None

    def known(self, provider: Provider, username: str, secret: bytes, source: Source) -> Accepted | None:
        """The decision if it may be given without asking anybody; None says nothing about the credentials."""
        if not secret or not is_cached(provider, self._settings):
            return None
        cache = self._cache
        service = "radius" if type(provider) is RadiusProvider else "ldap"
        now = self._clock()
        entry = cache.get(cache.key(service, provider.pk, username, secret), now, source.address)
        if entry is None:
            return None
        if now >= entry.refresh_at:
            self._refresh(entry, provider, username, Secret(secret), source)
        return entry.accepted

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        if not secret:
            return Rejected(RejectReason.EMPTY_PASSWORD, "the password is empty")

        def make(identifier: int) -> ToParent:
            return words.Authenticate(identifier, service_of(provider), provider.pk, username, secret, source)

        return await self._decision(
            provider, make, lambda decided: self._learn(decided, provider, username, secret, source)
        )

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a `Challenge`; the parent knows whether there was one."""
        if not isinstance(continuation, Answered):
            return Rejected(RejectReason.FLOW_ERROR, "this challenge is unknown")

        def make(identifier: int) -> ToParent:
            state, username = continuation
            return words.Resume(identifier, provider.pk, username, state, secret, source)

        return await self._decision(provider, make)

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about somebody whose certificate was verified."""
        return await self._decision(provider, lambda identifier: words.Vouch(identifier, provider.pk, username, source))

    # -- passwords ------------------------------------------------------------------------------------

    def can_change_passwords(self) -> bool:
        """Whether asking makes sense at this moment."""
        return self._can_change_passwords

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """The decision about a change. Whoever cancels this does not hear the answer, and it counts all the same."""

        def make(identifier: int) -> ToParent:
            return words.ChangePassword(identifier, provider.pk, identity, old, new, source)

        def land(reply: PasswordDecided, message: Message) -> PasswordDecision:
            message.close()
            return reply.decision

        try:
            return await self._calls.ask(make, PasswordDecided, land)
        except (LimitExceeded, BackendError) as exc:
            return _unavailable(exc)

    # -- what the parent says -------------------------------------------------------------------------

    def subscribe(self, on_revoked: Publish) -> Callable[[], None]:
        """Call `on_revoked` on the event loop at each revocation; calling the result ends that."""
        self._subscribers.append(on_revoked)

        def unsubscribe() -> None:
            if on_revoked in self._subscribers:
                self._subscribers.remove(on_revoked)

        return unsubscribe

    def publish(self, revoked: Revoked) -> None:
        """Forget what is revoked, then tell every subscriber."""
        self._cache.revoke(revoked)
        for subscriber in tuple(self._subscribers):
            subscriber(revoked)

    def refused(self, key: bytes) -> None:
        """Forget this login: it was refused."""
        self._cache.discard(key)

    def doubt(self, user_pk: int, mark: bytes) -> None:
        """Believe the user's other secrets no more without asking."""
        self._cache.doubt(user_pk, mark, self._clock())

    def set_state(self, *, trusted_since: float, can_change_passwords: bool) -> None:
        """Since when revocations arrive (infinite: they do not), and whether passwords can be changed now."""
        # Both, since they may have ceased and begun again unnoticed.
        self._cache.set_connected(False, 0.0)
        if trusted_since != NEVER:
            self._cache.set_connected(True, trusted_since)
        self._can_change_passwords = can_change_passwords

    # -- life -----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End what goes on in the background and forget everything; idempotent."""
        tasks = tuple(self._refreshing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()

    def counters(self) -> Mapping[str, int]:
        """Totals to be added to the gate's. What is not found here is looked for, and counted, there."""
        cache = self._cache
        return {"cache_hits": cache.hits, "cache_evicted": cache.evicted, "logins_raced": self._raced}

    def gauges(self) -> Mapping[str, int]:
        """Sizes to be added to the gate's."""
        return {"cache_entries": len(self._cache), "cache_bytes": self._cache.bytes_used}

    # -- inside ---------------------------------------------------------------------------------------

    async def _decision(
        self,
        provider: Provider,
        make: Callable[[int], ToParent],
        learn: Callable[[Decided], None] | None = None,
    ) -> Decision:
        def land(reply: Decided, message: Message) -> tuple[Decision, int]:
            message.close()
            if learn is not None:
                learn(reply)
            return _decision_of(reply), self._cache.revision

        try:
            decision, revision = await self._calls.ask(make, Decided, land)
        except (LimitExceeded, BackendError) as exc:
            return _unavailable(exc)
        if isinstance(decision, Accepted) and self._cache.revoked_since(
            revision, decision, service_of(provider), provider.pk
        ):
            # It arrived in the same breath as the answer, and behind it.
            self._raced += 1
            return Unavailable(UnavailableReason.BUSY, "access rights changed during the login")
        return decision

    def _learn(self, decided: Decided, provider: Provider, username: str, secret: Secret, source: Source) -> None:
        proof, accepted, cache = decided.proof, decided.decision, self._cache
        if proof is None or not isinstance(accepted, Accepted):
            return
        service, octets = service_of(provider), secret.reveal()
        cache.put(
            cache.key(service, provider.pk, username, octets),
            accepted,
            service=service,
            provider_pk=provider.pk,
            address=source.address,
            mark=cache.mark(accepted.identity.user_pk, octets),
            asked_at=proof.verified_at,
            revision=cache.revision,
            now=self._clock(),
            epoch=self._epoch(),
            until=proof.ends_at,
        )

    def _refresh(self, entry: Entry, provider: Provider, username: str, secret: Secret, source: Source) -> None:
        """Ask the parent, whose gate verifies the login behind its own answer; a later refresh brings the news."""
        entry.refresh_at = self._clock() + self._settings.refresh_retry_s
        if len(self._refreshing) >= self._settings.refreshes:
            return
        work = self._renewed(provider, username, secret, replace(source, interactive=False))
        task = asyncio.get_running_loop().create_task(work)
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _renewed(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        decision = await self.authenticate(provider, username, secret, source)
        cache = self._cache
        entry = cache.find(cache.key(service_of(provider), provider.pk, username, secret.reveal()))
        if entry is not None:
            entry.refresh_at = max(entry.refresh_at, self._clock() + self._settings.refresh_retry_s)
        return decision


def _decision_of(reply: Decided) -> Decision:
    decision = reply.decision
    if isinstance(decision, Prompt):
        return Challenge(decision.prompt, decision.state, attributes=decision.attributes)
    return decision


def _unavailable(exc: Exception) -> Unavailable:
    if isinstance(exc, LimitExceeded):
        return Unavailable(UnavailableReason.BUSY, str(exc))
    if isinstance(exc, BackendTimeout):
        return Unavailable(UnavailableReason.BACKEND_TIMEOUT, str(exc))
    return Unavailable(UnavailableReason.BACKEND_DOWN, str(exc))
