"""The one door to the authority: remembers successes, shares identical logins, sheds load, fails closed.

`Gate` is an `Authority` around an `Authority`, whatever protocol asks and wherever identity lives.  It also
is the hub for revocations: the backend publishes here, the cache forgets first, then everybody who
subscribed hears of it.

The rules of reuse are in `outpost.credentials.cache`, those of refusal in `outpost.credentials.limiter`; here
are the tasks.  Whatever goes wrong on the way becomes `Unavailable`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from outpost.credentials._believed import Believed, Entry, Who
from outpost.credentials.cache import CacheSettings, CredentialsCache
from outpost.credentials.limiter import Attempt, Damper, Limiter, LimiterSettings
from outpost.errors import BackendError, BackendTimeout, BackendUnavailable, OutpostError
from outpost.identity import (
    Accepted,
    Authority,
    CertificateAuthority,
    Challenge,
    Changed,
    Decision,
    Identity,
    LdapProvider,
    Mode,
    PasswordDecision,
    Passwords,
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
    Unwilling,
)

NEVER = float("-inf")
ROUNDS = 3
"""Times a login is begun anew because what it was sharing, or what it had learnt, cannot be used."""

GUESSES = frozenset({RejectReason.INVALID_CREDENTIALS, RejectReason.CODE_INVALID, RejectReason.FLOW_ERROR})
"""Refusals that may be wrong guesses. Right credentials without access, or without a code, are none."""

UNREACHABLE = frozenset({UnavailableReason.BACKEND_DOWN, UnavailableReason.BACKEND_TIMEOUT})

Ask = Callable[[], Awaitable[Decision]]


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What is believed, refused, and asked of the authority at once."""

    cache: CacheSettings = field(default_factory=CacheSettings)
    limiter: LimiterSettings = field(default_factory=LimiterSettings)
    concurrency: int = 256
    """Logins the authority works on at a time. One that waits for a person to confirm on a telephone is among them."""
    pending: int = 2048
    """Logins begun and not decided, waiting ones included; beyond that the answer is busy."""
    queue_timeout_s: float = 10.0
    """A login that has not had its turn by then is answered busy."""
    deadline_s: float = 120.0
    """Backstop behind the authority's own deadlines, longer than a person takes to confirm on a telephone."""
    refreshes: int = 16
    """Verifications in the background at a time."""
    refresh_retry_s: float = 15.0
    """Pause before an entry whose verification in the background came to nothing is tried again."""
    cache_radius: bool = True
    """RADIUS logins are remembered, as LDAP binds of providers in mode `cached` are."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.pending < 1 or self.queue_timeout_s <= 0 or self.deadline_s <= 0:
            raise ValueError("concurrency, pending, queue_timeout_s and deadline_s must be positive")


DEFAULTS = GateSettings()
Log = Callable[[str, str, Mapping[str, object]], None]
"""Takes level, event and fields."""


def _silence(level: str, event: str, fields: Mapping[str, object]) -> None:
    """Nobody listens."""


@final
class _Flight:
    """One login on its way, and how many wait for it."""

    __slots__ = ("begun", "claimed", "name", "revision", "task", "waiters")

    task: asyncio.Task[Decision]

    def __init__(self, name: object) -> None:
        self.name = name
        self.waiters = 0
        self.begun = False
        """The authority was asked."""
        self.claimed = False
        """Somebody has the Challenge, and only one may."""
        self.revision = 0
        """The cache's revision when the authority was asked."""


@final
class _Continuation:
    """An authority's continuation, spent at once, and whom to count a wrong answer for."""

    __slots__ = ("attempt", "expires_at", "inner", "owner", "revision")

    def __init__(self, challenge: Challenge, owner: tuple[str, int], attempt: Attempt, revision: int) -> None:
        self.inner: object | None = challenge.continuation
        self.expires_at = challenge.expires_at
        self.owner = owner
        self.attempt = attempt
        self.revision = revision
        """The cache's revision when the password was asked about; it may be revoked before the code comes."""


@dataclass(frozen=True, slots=True)
class _Login:
    provider: Provider
    username: str
    secret: Secret
    source: Source
    key: bytes
    attempt: Attempt
    is_cached: bool
    came_at: float
    """On the gate's clock."""


@final
class Gate:
    """Authority, credentials cache and revocation hub. Everything runs on one event loop.

    passwords: who changes them, None where nobody can; certificates: who logs in their holders, None likewise;
    hash_key: of the cache, where other processes' caches have the same;
    clock: monotonic seconds; epoch: seconds since the epoch; random: octets from a safe source.
    """

    def __init__(
        self,
        authority: Authority,
        settings: GateSettings = DEFAULTS,
        *,
        passwords: Passwords | None = None,
        certificates: CertificateAuthority | None = None,
        hash_key: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[int], bytes] = os.urandom,
        log: Log = _silence,
    ) -> None:
        self._authority = authority
        self._passwords = passwords
        self._certificates = certificates
        self._settings = settings
        self.clock = self._clock = clock
        self._epoch = epoch
        self._sleep = sleep
        self._cache = CredentialsCache(settings.cache, random(32) if hash_key is None else hash_key)
        self._limiter = Limiter(settings.limiter, random(32))
        self._damper = Damper(settings.limiter)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._flights: dict[object, _Flight] = {}
        self._refreshing: set[bytes] = set()
        self._tasks: set[asyncio.Task[Decision]] = set()
        self._changes: set[asyncio.Task[PasswordDecision]] = set()
        self._subscribers: list[Publish] = []
        self._refusals: list[Callable[[bytes], None]] = []
        self._is_stopped = False
        self._log = log
        self._decided_at = NEVER
        self._shared = self._asked = self._throttled = self._damped = self._busy = 0
        self._refreshed = self._refresh_refused = self._offline = self._raced = self._bugs = 0

    # -- logins ---------------------------------------------------------------------------------------

    @property
    def believed(self) -> Believed:
        """Remembered logins, for whoever answers requests in C: a hit there is what `known` would say."""
        return self._cache.believed

    def whom(self, provider: Provider, username: str) -> Who | None:
        """What to look somebody up by in `believed`; None if his logins are not remembered."""
        return Who(service_of(provider), provider.pk, username) if is_cached(provider, self._settings) else None

    def known(self, provider: Provider, username: str, secret: bytes, source: Source) -> Accepted | None:
        """The decision if it may be given without asking anybody; otherwise call `authenticate`.

        Hits only: None says nothing about the credentials.
        """
        if not secret or not is_cached(provider, self._settings):
            return None
        cache = self._cache
        service = "radius" if type(provider) is RadiusProvider else "ldap"
        key = cache.key(service, provider.pk, username, secret)
        now = self._clock()
        entry = cache.get(key, now, source.address)
        if entry is None:
            return None
        if now >= entry.refresh_at:
            self._refresh(entry, key, provider=provider, username=username, secret=Secret(secret), source=source)
        return entry.accepted

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login, from the cache or from the authority.

        Identical logins from one address that are under way at the same time share one question.  A cancelled caller
        takes nothing along: the others get their answer, and an authority that was asked is heard to the end,
        so that the failure counts and the success is not asked for again.
        """
        octets = secret.reveal()
        if not octets:
            # RFC 4513 5.1.2: an empty password proves nothing, whatever a directory makes of it.
            return Rejected(RejectReason.EMPTY_PASSWORD, "the password is empty")
        service, cached = service_of(provider), is_cached(provider, self._settings)
        key = self._cache.key(service, provider.pk, username, octets)
        if cached:
            now = self._clock()
            entry = self._cache.get(key, now, source.address)
            if entry is not None:
                if now >= entry.refresh_at:
                    self._refresh(entry, key, provider=provider, username=username, secret=secret, source=source)
                return entry.accepted
        attempt = self._limiter.attempt(service, username, source.address)
        login = _Login(provider, username, secret, source, key, attempt, cached, self._clock())
        for _ in range(ROUNDS):
            flight = self._join(login)
            if flight is None:
                return self._too_busy("too many logins are pending")
            decision = await self._outcome(flight)
            if isinstance(decision, Challenge):
                if flight.claimed:
                    continue
                flight.claimed = True
                return self._wrapped(decision, (service, provider.pk), attempt, flight.revision)
            if not isinstance(decision, Accepted) or not self._is_revoked(flight.revision, decision, provider):
                return decision
            self._raced += 1
            if decision.used_code:
                break  # the code is spent: asking again would turn a true login into a refusal
        return self._too_busy("access rights changed during the login")

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a `Challenge` of this gate; never remembered, never shared."""
        owner = (service_of(provider), provider.pk)
        if not isinstance(continuation, _Continuation) or continuation.inner is None or continuation.owner != owner:
            return Rejected(RejectReason.FLOW_ERROR, "this challenge is unknown or was answered before")
        inner, continuation.inner = continuation.inner, None
        if continuation.expires_at is not None and self._epoch() >= continuation.expires_at:
            return Rejected(RejectReason.FLOW_ERROR, "the challenge was answered too late")
        if not secret:
            return Rejected(RejectReason.EMPTY_PASSWORD, "the answer to the challenge is empty")
        if len(self._flights) >= self._settings.pending:
            return self._too_busy("too many logins are pending")
        attempt, came_at = continuation.attempt, self._clock()

        async def ask(flight: _Flight) -> Decision:
            decision = await self._ask(
                flight,
                came_at,
                lambda: self._limiter.admits(attempt, self._clock()),
                lambda: self._authority.resume(provider, inner, secret, self._waited(source, came_at)),
            )
            if isinstance(decision, Accepted):
                self._limiter.succeeded(attempt, self._clock())
            elif isinstance(decision, Rejected) and decision.reason in GUESSES:
                self._limiter.failed(attempt, self._clock())
            return decision

        flight = self._launch(object(), ask)
        decision = await self._outcome(flight)
        if isinstance(decision, Challenge):
            return self._wrapped(decision, owner, attempt, continuation.revision)
        if isinstance(decision, Accepted) and self._is_revoked(continuation.revision, decision, provider):
            self._raced += 1
            return self._too_busy("access rights changed during the login")
        return decision

    # -- certificates ---------------------------------------------------------------------------------

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about somebody whose certificate was verified; never remembered, never shared."""
        certificates = self._certificates
        if certificates is None:
            return Rejected(RejectReason.UNSUPPORTED_METHOD, "certificates log in nobody here")
        if self._is_stopped:
            return Unavailable(UnavailableReason.NOT_READY, "the appliance is stopping")
        revision = self._cache.revision
        try:
            async with asyncio.timeout(self._settings.deadline_s) as deadline:
                decision = await certificates.vouch(provider, username, source)
            if deadline.expired():
                raise TimeoutError
            if not isinstance(decision, Accepted | Rejected | Unavailable):
                raise TypeError(f"the authority answered with {type(decision).__name__}")
        except TimeoutError:
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the backend did not answer in time")
        except BackendError as exc:
            return Unavailable(UnavailableReason.BACKEND_ERROR, str(exc))
        except Exception as exc:
            return self._bug(exc, "the authority failed")
        if isinstance(decision, Accepted) and self._is_revoked(revision, decision, provider):
            self._raced += 1
            return self._too_busy("access rights changed during the login")
        return decision

    # -- passwords ------------------------------------------------------------------------------------

    def can_change_passwords(self) -> bool:
        """Whether asking makes sense at this moment."""
        return self._passwords is not None and self._passwords.can_change_passwords()

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """The decision about a change; a wrong old password counts like that of a login.

        Whoever cancels this does not hear the answer, and it counts all the same.
        """
        passwords = self._passwords
        if passwords is None:
            return Unwilling("passwords cannot be changed here")
        if self._is_stopped or len(self._changes) >= self._settings.pending:
            return self._too_busy("too many changes are pending")
        task = asyncio.create_task(self._change(passwords, provider, identity, old, new, source))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if task.cancelled() and me is not None and not me.cancelling():
                return Unavailable(UnavailableReason.NOT_READY, "the appliance is stopping")
            raise

    async def _change(
        self,
        passwords: Passwords,
        provider: LdapProvider,
        identity: Identity,
        old: Secret,
        new: Secret,
        source: Source,
    ) -> PasswordDecision:
        attempt = self._limiter.attempt(service_of(provider), identity.username, source.address)
        came_at = self._clock()
        try:
            async with asyncio.timeout(self._settings.queue_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            return self._too_busy("the change waited too long for its turn")
        try:
            if not self._limiter.admits(attempt, self._clock()):
                return self._is_throttled()
            async with asyncio.timeout(self._settings.deadline_s) as deadline:
                decision = await passwords.change_password(provider, identity, old, new, self._waited(source, came_at))
            if deadline.expired():
                raise TimeoutError
            if not isinstance(decision, Changed | Unwilling | Rejected | Unavailable):
                raise TypeError(f"the change was answered with {type(decision).__name__}")
        except TimeoutError:
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the backend did not answer in time")
        except Exception as exc:
            return self._bug(exc, "a password could not be changed")
        finally:
            self._slots.release()
        if isinstance(decision, Changed):
            self._limiter.succeeded(attempt, self._clock())
        elif isinstance(decision, Rejected) and decision.reason in GUESSES:
            self._limiter.failed(attempt, self._clock())
        return decision

    # -- revocation -----------------------------------------------------------------------------------

    def publish(self, revoked: Revoked) -> None:
        """Forget what is revoked, then tell every subscriber. Call on the event loop; raises nothing."""
        self._cache.revoke(revoked)
        if revoked.session is None or revoked.user_pk is not None or revoked.provider_pk is not None:
            self._damper.clear()
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(revoked)
            except Exception as exc:  # one deaf subscriber must not keep the others from hearing
                self._bug(exc, "a subscriber failed to handle a revocation")

    def subscribe(self, on_revoked: Publish) -> Callable[[], None]:
        """Call `on_revoked` on the event loop at each revocation; calling the result ends that."""
        self._subscribers.append(on_revoked)

        def unsubscribe() -> None:
            if on_revoked in self._subscribers:
                self._subscribers.remove(on_revoked)

        return unsubscribe

    def subscribe_refusals(self, on_refused: Callable[[bytes], None]) -> None:
        """Call `on_refused` with the cache's key of each login that the authority did not accept."""
        self._refusals.append(on_refused)

    def remembered(self, provider: Provider, username: str, secret: Secret) -> Entry | None:
        """What the cache knows of a login, whether or not it may be believed."""
        if not is_cached(provider, self._settings):
            return None
        return self._cache.find(self._cache.key(service_of(provider), provider.pk, username, secret.reveal()))

    @property
    def trusted_since(self) -> float:
        """Since when revocations arrive, on the gate's clock; infinite while they do not."""
        return self._cache.believed.trusted_since

    def set_connected(self, connected: bool) -> None:
        """Whether the backend would learn of a revocation at once. Until this is called it is taken for deaf.

        Tell False as soon as an event may get lost, and True only when no more can.
        """
        if connected != self._cache.is_connected:
            self._log("info", "revocations arrive" if connected else "revocations do not arrive", {})
        self._cache.set_connected(connected, self._clock())

    # -- life -----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End everything under way with Unavailable and forget everything; idempotent."""
        self._is_stopped = True
        tasks = (*self._tasks, *self._changes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()

    def counters(self) -> Mapping[str, int]:
        """Totals since the start, by name; a closed set (see `outpost.observe.metrics`)."""
        cache = self._cache
        return {
            "cache_hits": cache.hits,
            "cache_misses": cache.misses,
            "cache_evicted": cache.evicted,
            "cache_revoked": cache.revoked,
            "refreshes": self._refreshed,
            "refreshes_refused": self._refresh_refused,
            "offline_answers": self._offline,
            "authority_asked": self._asked,
            "logins_shared": self._shared,
            "logins_throttled": self._throttled,
            "logins_damped": self._damped,
            "logins_busy": self._busy,
            "logins_raced": self._raced,
            "bugs": self._bugs,
        }

    def gauges(self) -> Mapping[str, int]:
        """Sizes at this moment, by name; a closed set."""
        return {
            "cache_entries": len(self._cache),
            "cache_bytes": self._cache.bytes_used,
            "limiter_rows": self._limiter.rows + len(self._damper),
            "logins_pending": len(self._flights),
            "revocations_connected": int(self._cache.is_connected),
        }

    # -- inside ---------------------------------------------------------------------------------------

    def _refresh(
        self, entry: Entry, key: bytes, *, provider: Provider, username: str, secret: Secret, source: Source
    ) -> None:
        entry.refresh_at = self._clock() + self._settings.refresh_retry_s
        if key in self._refreshing or len(self._refreshing) >= self._settings.refreshes or self._slots.locked():
            return  # somebody waiting for an answer comes first; the next hit tries again
        attempt = self._limiter.attempt(service_of(provider), username, source.address)
        alone, now = replace(source, interactive=False), self._clock()
        login = _Login(provider, username, secret, alone, key, attempt, is_cached=True, came_at=now)
        flight = self._join(login)
        if flight is None:
            return
        self._refreshing.add(key)
        self._refreshed += 1
        flight.waiters += 1

        def finished(task: asyncio.Task[Decision]) -> None:
            self._refreshing.discard(key)
            if not task.cancelled() and flight.begun and isinstance(task.result(), Rejected | Challenge):
                self._refresh_refused += 1

        flight.task.add_done_callback(finished)

    def _join(self, login: _Login) -> _Flight | None:
        """The flight of an identical login, or a new one; None if there are too many."""
        name = (login.key, login.source.address, login.source.interactive)
        flight = self._flights.get(name)
        if flight is not None:
            self._shared += 1
            return flight
        if len(self._flights) >= self._settings.pending or self._is_stopped:
            return None
        return self._launch(name, lambda flight: self._log_in(flight, login))

    def _launch(self, name: object, fly: Callable[[_Flight], Coroutine[Any, Any, Decision]]) -> _Flight:
        flight = self._flights[name] = _Flight(name)

        async def guarded() -> Decision:
            try:
                decision = await fly(flight)
            except Exception as exc:
                return self._bug(exc, "a login failed inside the gate")
            if self._is_stopped:
                return Unavailable(UnavailableReason.NOT_READY, "the appliance is stopping")
            return decision

        def landed(task: asyncio.Task[Decision]) -> None:
            self._tasks.discard(task)
            self._forget(flight)

        flight.task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(flight.task)
        flight.task.add_done_callback(landed)
        return flight

    async def _outcome(self, flight: _Flight) -> Decision:
        """The decision of a flight; a cancelled waiter leaves it to the others."""
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if flight.task.cancelled() and me is not None and not me.cancelling():
                return Unavailable(UnavailableReason.INTERNAL, "the login was broken off")
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.begun and not flight.task.done():
                self._forget(flight)  # nobody may join it any more
                flight.task.cancel()

    def _forget(self, flight: _Flight) -> None:
        if self._flights.get(flight.name) is flight:
            del self._flights[flight.name]

    async def _log_in(self, flight: _Flight, login: _Login) -> Decision:
        """One login: pause, queue, ask, learn."""
        if not self._admits(login):
            return self._is_throttled()
        pause = self._damper.pause(login.key, self._clock())
        if pause > 0:
            self._damped += 1
            await self._sleep(pause)
        came_at = login.came_at + pause  # what the pause takes is the client's own doing
        asked_at = self._clock()

        def ask() -> Awaitable[Decision]:
            nonlocal asked_at
            asked_at = self._clock()
            source = self._waited(login.source, came_at)
            return self._authority.authenticate(login.provider, login.username, login.secret, source)

        decision = await self._ask(flight, came_at, lambda: self._admits(login), ask)
        return self._learnt(flight, login, decision, asked_at) if flight.begun else decision

    def _admits(self, login: _Login) -> bool:
        # A secret that was right of late is no guess. If it is refused now, it is forgotten and becomes one.
        return self._cache.remembers(login.key) or self._limiter.admits(login.attempt, self._clock())

    def _waited(self, source: Source, came_at: float) -> Source:
        """The same, and how long it has waited here: one deadline holds for the queue and for what comes after."""
        return replace(source, waited_s=max(0.0, self._clock() - came_at))

    async def _ask(self, flight: _Flight, came_at: float, admits: Callable[[], bool], ask: Ask) -> Decision:
        """The authority's decision, or Unavailable, or THROTTLED without having asked.

        came_at: on the gate's clock.
        """
        queued_at = self._clock()
        left_s = self._settings.queue_timeout_s - (queued_at - came_at)
        try:
            async with asyncio.timeout(left_s):
                await self._slots.acquire()
        except TimeoutError:
            if self._decided_at < queued_at:
                return self._is_stuck()
            return self._too_busy("the login waited too long for its turn")
        try:
            if self._decided_at < queued_at and self._clock() - queued_at >= self._settings.queue_timeout_s / 2:
                return self._is_stuck()  # the turn comes from one that was given up, and this would be the next
            if not admits():  # failures since it began to wait count, too
                return self._is_throttled()
            flight.begun = True
            flight.revision = self._cache.revision
            self._asked += 1
            async with asyncio.timeout(self._settings.deadline_s) as deadline:
                decision = await ask()
            if deadline.expired():
                raise TimeoutError  # an authority that caught its own cancellation has decided nothing
            if not isinstance(decision, Accepted | Rejected | Challenge | Unavailable):
                raise TypeError(f"the authority answered with {type(decision).__name__}")
            if not isinstance(decision, Unavailable):
                self._decided_at = self._clock()
        except BackendUnavailable as exc:
            return Unavailable(UnavailableReason.BACKEND_DOWN, str(exc))
        except (BackendTimeout, TimeoutError):
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the backend did not answer in time")
        except BackendError as exc:
            return Unavailable(UnavailableReason.BACKEND_ERROR, str(exc))
        except Exception as exc:
            return self._bug(exc, "the authority failed")
        else:
            return decision
        finally:
            self._slots.release()

    def _learnt(self, flight: _Flight, login: _Login, decision: Decision, asked_at: float) -> Decision:
        """The decision, after cache, damper and limiter have drawn their conclusions."""
        now, cache, provider = self._clock(), self._cache, login.provider
        if isinstance(decision, Accepted):
            self._damper.forget(login.key)
            self._limiter.succeeded(login.attempt, now)
            if login.is_cached:
                cache.put(
                    login.key,
                    decision,
                    service=service_of(provider),
                    provider_pk=provider.pk,
                    address=login.source.address,
                    mark=cache.mark(decision.identity.user_pk, login.secret.reveal()),
                    asked_at=asked_at,
                    revision=flight.revision,
                    now=now,
                    epoch=self._epoch(),
                )
        elif isinstance(decision, Rejected):
            self._refused(login.key)
            if decision.reason is not RejectReason.THROTTLED:
                is_new = self._damper.refused(login.key, now)
                # The same code is a new guess every 30 seconds.
                if decision.reason in GUESSES and (is_new or decision.reason is RejectReason.CODE_INVALID):
                    self._limiter.failed(login.attempt, now)
        elif isinstance(decision, Challenge):
            self._refused(login.key)
        elif decision.reason in UNREACHABLE and login.is_cached:
            accepted = cache.offline(login.key, now)
            if accepted is not None:
                self._offline += 1
                return accepted
        return decision

    def _refused(self, key: bytes) -> None:
        self._cache.discard(key)
        for subscriber in self._refusals:
            subscriber(key)

    def _is_revoked(self, revision: int, accepted: Accepted, provider: Provider) -> bool:
        return self._cache.revoked_since(revision, accepted, service_of(provider), provider.pk)

    def _wrapped(self, challenge: Challenge, owner: tuple[str, int], attempt: Attempt, revision: int) -> Challenge:
        return replace(challenge, continuation=_Continuation(challenge, owner, attempt, revision))

    def _is_throttled(self) -> Rejected:
        self._throttled += 1
        return Rejected(RejectReason.THROTTLED, "too many failed logins of this user or from this source")

    def _too_busy(self, detail: str) -> Unavailable:
        self._busy += 1
        return Unavailable(UnavailableReason.BUSY, detail)

    def _is_stuck(self) -> Unavailable:
        return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the backend decided nothing while the login waited")

    def _bug(self, exc: Exception, event: str) -> Unavailable:
        """Log what failed under an id that also goes into the answer's detail.

        A foreign exception's text may quote what it choked on, so only ours is logged; no local variables.
        """
        self._bugs += 1
        error_id = secrets.token_hex(4)
        fields = {
            "error_id": error_id,
            "error": str(exc) if isinstance(exc, OutpostError) else type(exc).__name__,
            "trace": [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(exc.__traceback__)],
        }
        self._log("error", event, fields)
        return Unavailable(UnavailableReason.INTERNAL, f"internal error {error_id}")


def service_of(provider: Provider) -> str:
    """`ldap` or `radius`."""
    return "radius" if isinstance(provider, RadiusProvider) else "ldap"


def is_cached(provider: Provider, settings: GateSettings) -> bool:
    """Whether logins at this provider are remembered."""
    if type(provider) is LdapProvider:
        return provider.bind_mode is Mode.CACHED
    return settings.cache_radius
