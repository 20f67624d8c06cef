"""The authentik backend: one or two outposts of one server behind one object."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping

from outpost.backends.authentik.access import Access, Denied
from outpost.backends.authentik.client import Client, NotFound, Pools
from outpost.backends.authentik.observer import Observer, Silence
from outpost.backends.authentik.passwords import PasswordChanges
from outpost.backends.authentik.service import Service, Surroundings
from outpost.backends.authentik.sessions import Kept, Sessions
from outpost.backends.authentik.settings import SERVICES, AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.backends.authentik.watch import Watch
from outpost.errors import BackendError, BackendUnavailable
from outpost.identity import (
    Accepted,
    CertificateKeyPair,
    Crowd,
    Decision,
    Identity,
    LdapProvider,
    PasswordDecision,
    People,
    Provider,
    Publish,
    RadiusProvider,
    Revoked,
    Secret,
    Served,
    Source,
    Unavailable,
    UnavailableReason,
    Wanted,
)

STOP_S = 2.0
"""How long a stop ends sessions on the server."""
BRAND_S = 600.0


def _nobody(_: Revoked) -> None:
    """Nobody listens."""


def _unheard(_: bool) -> None:
    """Nobody listens."""


class AuthentikBackend:
    """All of identity as one authentik server knows it; implements `outpost.identity.Backend` and `Passwords`."""

    def __init__(
        self,
        settings: AuthentikSettings,
        *,
        publish: Publish = _nobody,
        set_connected: Callable[[bool], None] = _unheard,
        observer: Observer | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError for settings that cannot work.

        publish: takes revocations; set_connected: told whether every revocation would arrive. Both on the event loop.
        """
        settings.check()
        self._settings = settings
        self._publish = publish
        self._set_connected = set_connected
        self._observer = observer or Silence()
        self._wall_clock = wall_clock
        self._subscribers: list[Callable[[], None]] = []
        self._served = Served()
        self._is_connected = False
        self._is_started = False
        self._services: list[Service] = []
        self._watcher: asyncio.Task[None] | None = None
        self._brands: dict[str, tuple[float, str]] = {}
        self._pools = Pools(settings)
        self.sessions = Sessions(
            self._observer, self._default_slug, is_ending=settings.end_sessions, lease_s=settings.session_lease_s
        )
        """The server's sessions; connections `hold` and `release` those they rest on."""
        self._watch: Watch | None = None
        self._changes = PasswordChanges(
            self._pools.logins, self.sessions, self._observer, self._revoked, settings.login_timeout_s
        )

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin work; returns without waiting for the server. Raises ConfigError."""
        if self._is_started:
            return
        self._is_started = True
        settings = self._settings
        around = Surroundings(
            settings=settings,
            pools=self._pools,
            sessions=self.sessions,
            observer=self._observer,
            wall_clock=self._wall_clock,
            instance=str(uuid.uuid4()),
            publish=self._revoked,
            changed=self._changed,
            connected=self._connected,
        )
        self._watch = Watch(
            self._reader,
            self._may_still,
            self.sessions,
            self._publish,
            self._observer,
            interval_s=settings.watch_interval_s,
            lease_s=settings.session_lease_s,
        )
        self._services = [Service(declared, token, around) for declared, token in settings.tokens.items()]
        for service in self._services:
            service.start()
        if settings.watch_interval_s:
            self._watcher = asyncio.create_task(self._watch.run(), name="authentik-watch")

    async def refresh(self) -> None:
        """Read everything again now; keeps the old state and logs the reason where that fails."""
        outcomes = await asyncio.gather(*(one.refresh() for one in self._services), return_exceptions=True)
        for service, outcome in zip(self._services, outcomes, strict=True):
            if isinstance(outcome, BackendError):
                self._observer.log("error", f"not refreshed: {outcome}", service=service.kind)
            elif isinstance(outcome, BaseException):
                raise outcome

    async def stop(self) -> None:
        """End sessions and tasks; idempotent."""
        for service in self._services:
            await service.stop()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await self.sessions.stop(STOP_S if self._is_started else 0.0)
        await self._pools.close()

    def readiness(self) -> Mapping[str, str]:
        """Per service an empty string when ready, else the reason why not; both while the type is not known."""
        found = {}
        for service in self._services:
            for kind in (service.kind,) if service.kind else SERVICES:
                found[kind] = service.readiness()
        return found or dict.fromkeys(SERVICES, "not started")

    # -- logins -----------------------------------------------------------------------------------

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        service = self._service_of(provider)
        if service is None or service.authority is None:
            return Unavailable(UnavailableReason.NOT_READY, "the server has not told yet what is served")
        started_at = self._wall_clock()
        decision = await service.authority.authenticate(provider, username, secret, source)
        return self._noted(decision, started_at)

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a Challenge."""
        service = self._service_of(provider)
        if service is None or service.authority is None:
            return Unavailable(UnavailableReason.NOT_READY, "the server has not told yet what is served")
        started_at = self._wall_clock()
        decision = await service.authority.resume(provider, continuation, secret, source)
        return self._noted(decision, started_at)

    def _revoked(self, revoked: Revoked) -> None:
        if revoked.user_pk is not None and self._watch is not None:
            self._watch.forget(revoked.user_pk)
        self._publish(revoked)

    def _noted(self, decision: Decision, started_at: float) -> Decision:
        if isinstance(decision, Accepted) and self._watch is not None:
            self._watch.logged_in(decision.identity, started_at)
        return decision

    def _service_of(self, provider: Provider) -> Service | None:
        return self._named("radius" if isinstance(provider, RadiusProvider) else "ldap")

    def _named(self, kind: str) -> Service | None:
        return next((one for one in self._services if one.kind == kind), None)

    # -- passwords --------------------------------------------------------------------------------

    def can_change_passwords(self) -> bool:
        """Whether the server was reached, and has not told that it offers its users no way."""
        service = self._named("ldap")
        return service is not None and service.authority is not None and self._changes.is_offered

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """The decision about a change, which the server makes in the user's own session."""
        service = self._named("ldap")
        if service is None or service.authority is None:
            return Unavailable(UnavailableReason.NOT_READY, "the server has not told yet what is served")
        return await self._changes.change(service.authority, provider, identity, old, new, source)

    # -- people -----------------------------------------------------------------------------------

    def current(self, provider: LdapProvider) -> Crowd | None:
        """The last complete copy, or None before the first; never blocks."""
        service = self._named("ldap")
        return service.roster.people if service is not None and service.roster is not None else None

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> People:
        """A fresh copy of at least `wanted`. Raises BackendError."""
        service = self._named("ldap")
        if service is None or service.roster is None:
            raise BackendUnavailable("the server has not been reached yet")
        return await service.roster.fetch(provider, wanted)

    def _reader(self) -> Client | None:
        service = self._named("ldap")
        return service.watcher if service is not None else None

    async def _may_still(self, kept: Kept) -> Access | Denied | None:
        service = self._named(kept.service)
        if service is None or service.authority is None:
            return None
        return await service.authority.access.ask(kept.visitor, kept.provider)

    # -- what is served ---------------------------------------------------------------------------

    def served(self) -> Served:
        """The providers and certificates of this moment; never blocks."""
        return self._served

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` on the event loop after each change of `current` and `served`."""
        self._subscribers.append(on_change)

    def _changed(self) -> None:
        ldap: list[LdapProvider] = []
        radius: list[RadiusProvider] = []
        certificates: dict[str, CertificateKeyPair] = {}
        for service in self._services:
            if service.catalog is not None:
                for provider in service.catalog.providers:
                    if isinstance(provider, LdapProvider):
                        ldap.append(provider)
                    else:
                        radius.append(provider)
                certificates |= service.catalog.certificates
        self._served = Served(tuple(ldap), tuple(radius), certificates)
        for on_change in self._subscribers:
            try:
                on_change()
            except Exception as exc:  # one listener's bug must not keep the others, or the next read, from theirs
                self._observer.log("error", "a listener failed", error=repr(exc))

    def _connected(self) -> None:
        channels = [one.channel for one in self._services]
        is_connected = bool(channels) and all(one is not None and one.is_connected for one in channels)
        if is_connected != self._is_connected:
            self._is_connected = is_connected
            self._set_connected(is_connected)

    async def _default_slug(self, kind: str) -> str:
        """The slug of the brand's (before 2024.2: the tenant's) invalidation flow."""
        now = asyncio.get_running_loop().time()
        until, slug = self._brands.get(kind, (0.0, ""))
        service = self._named(kind)
        if now < until or service is None:
            return slug
        try:
            content = await service.client.get("/core/brands/current/")
        except NotFound:
            content = await service.client.get("/core/tenants/current/")
        slug = Shape(content, "brand").text("flow_invalidation", "")
        self._brands[kind] = (now + BRAND_S, slug)
        return slug
