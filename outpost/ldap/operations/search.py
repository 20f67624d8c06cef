"""Search (RFC 4511 4.5): which entry collection, under which view, and how it is listed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from outpost._fastber import Limits, SearchRequest
from outpost.errors import BackendError, DecodeError, OperationError
from outpost.identity import Identity, LdapProvider, Mode, RejectReason
from outpost.ldap import controls as request_controls
from outpost.ldap import plain, results
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import Controls, Paging, SortKey, sort_response
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations import sorting, wanted
from outpost.ldap.operations.listing import EXAMINED, SLICE, Ordered, Streamed
from outpost.ldap.operations.outcome import PAGED_LISTINGS, Later, Listing, Outcome, Page, Session
from outpost.ldap.providers import Providers
from outpost.ldap.schema import SUBSCHEMA_DN, subschema
from outpost.ldap.shelf import Library, Shelf

FOREVER: Final = float("inf")
NOT_BOUND = "bind first"
BUSY = "the directory is being read for the first time"


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """What one search may take."""

    size_limit: int = 0
    """Entries returned at most, 0 for no limit of the server's own; then sizeLimitExceeded (4)."""
    time_limit_s: float = 60.0
    """Seconds that one search may take, its sending included; then timeLimitExceeded (3)."""
    page_lifetime_s: float = 300.0
    """How long the rest of a paged search waits for the client to ask for it."""
    sort_entries: int = 50_000
    """Entries that are sorted at most; then adminLimitExceeded (11)."""


@final
class Searcher:
    """Answers searches for every connection of a server."""

    def __init__(
        self,
        library: Library,
        observer: LdapObserver,
        limits: SearchLimits,
        decoding: Limits,
        root: Callable[[Session], plain.Attributes],
        clock: Callable[[], float],
    ) -> None:
        self._library = library
        self._observer = observer
        self._limits = limits
        self._size_limit = limits.size_limit
        self._decoding = decoding
        self._root = root
        self._clock = clock

    def begin(self, session: Session, request: SearchRequest, providers: Providers, now: float) -> Outcome:
        """The listing, the work that leads to it, or the refusal."""
        try:
            if providers.any_requires_tls and request.base_object:
                bound = None if session.provider is None else providers.current(session.provider)
                self._check_tls(session, providers.requires_tls(bound))
            controls = request_controls.understand(request, self._decoding)
            return self._route(session, request, controls, providers, now)
        except OperationError as error:
            return self._refuse(session, request, error, "", now)
        except DecodeError as error:
            return self._refuse(session, request, OperationError(results.INVALID_DN_SYNTAX, str(error)), "", now)

    def _route(
        self, session: Session, request: SearchRequest, controls: Controls, providers: Providers, now: float
    ) -> Outcome:
        base, owner = providers.of_base(request.base_object)
        if not base:
            # singleLevel below the root DSE is empty: the naming contexts are not its children (RFC 4512 5.1).
            found = None if request.scope == 1 else plain.entry(request, b"", self._root(session))
            return self._one(session, request, found, now)
        identity, bound = session.identity, session.provider
        provider = None if bound is None else providers.current(bound)
        if identity is None or provider is None:
            self._check_tls(session, owner is not None and owner.options.require_tls)
            raise _Refused(results.INSUFFICIENT_ACCESS_RIGHTS, NOT_BOUND, RejectReason.EMPTY_BIND_DN)
        if base == SUBSCHEMA_DN:
            shelf = self._library.shelf(provider)
            custom = frozenset[str]() if shelf is None else shelf.snapshot.custom_attributes
            found = None if request.scope == 1 else plain.entry(request, SUBSCHEMA_DN, subschema(custom))
            return self._one(session, request, found, now)
        if owner is None:
            raise OperationError(results.NO_SUCH_OBJECT, "no such base DN is served here")
        if owner.pk != provider.pk:
            diagnostic = "the base DN belongs to another provider than the bind DN"
            raise _Refused(results.INSUFFICIENT_ACCESS_RIGHTS, diagnostic, RejectReason.INVALID_BIND_DN)
        if controls.paging is not None and controls.paging.cookie:
            return self._next_page(session, request, controls, controls.paging, now)
        if provider.search_mode is Mode.DIRECT:
            return Later(partial(self._fresh, session, request, controls, provider, identity, now))
        shelf = self._library.shelf(provider)
        if shelf is None and identity.can_search:
            raise OperationError(results.BUSY, BUSY)
        view = None if shelf is None else shelf.view(identity)
        if shelf is not None and view is not None and controls is request_controls.NONE:
            return self._plain(session, request, provider, shelf.snapshot.search(request, view, self._size_limit), now)
        if shelf is None or view is None:
            # He came after the directory was read, or before it was for the first time: he needs nothing but himself.
            return Later(partial(self._fresh, session, request, controls, provider, identity, now))
        return self._listing(session, request, controls, provider, shelf, identity, now)

    def _plain(
        self, session: Session, request: SearchRequest, provider: LdapProvider, search: Search, now: float
    ) -> Outcome:
        """Most searches end in their first slice: then the whole answer is one string of octets."""
        octets = search.read(SLICE, EXAMINED)
        missing_is_empty = provider.options.missing_base == "empty"
        if not search.finished:
            deadline, told = self._deadline(request, now), self._teller(session, request, now)
            return Streamed(
                request, search, deadline=deadline, told=told, missing_is_empty=missing_is_empty, octets=octets
            )
        code = search.result_code
        if code == results.NO_SUCH_OBJECT:
            if missing_is_empty:
                code = results.SUCCESS
            else:
                octets = request.result(code, search.matched_dn)
        if code != results.NO_SUCH_OBJECT:
            octets += request.result(code)
        took = self._clock() - now
        self._observer.searched(session.app, session.address, session.bind_dn, request, took, code, "", search.sent)
        return octets

    def _check_tls(self, session: Session, is_required: bool) -> None:
        if is_required and not session.is_secure:
            raise OperationError(results.CONFIDENTIALITY_REQUIRED, "this needs TLS: use ldaps or StartTLS first")

    async def _fresh(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        provider: LdapProvider,
        identity: Identity,
        now: float,
    ) -> bytes | Listing:
        try:
            shelf = await self._library.fetch(provider, wanted.of_search(request, identity, provider))
            return self._listing(session, request, controls, provider, shelf, identity, now)
        except BackendError:
            error = OperationError(results.UNAVAILABLE, "the directory cannot be read at the moment")
            return self._refuse(session, request, error, "", now)
        except OperationError as error:
            return self._refuse(session, request, error, "", now)

    def _listing(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        provider: LdapProvider,
        shelf: Shelf,
        identity: Identity,
        now: float,
    ) -> Listing:
        view = shelf.view(identity)
        if view is None:
            raise _Refused(
                results.INSUFFICIENT_ACCESS_RIGHTS, "you are not in this directory", RejectReason.USER_INFO_NOT_CACHED
            )
        snapshot = shelf.snapshot
        if controls.assertion is not None and snapshot.matches(view, request.base_object, controls.assertion) is False:
            raise OperationError(results.ASSERTION_FAILED, "the assertion is not true of the base object")
        paging = controls.paging
        told = self._teller(session, request, now)
        missing_is_empty = provider.options.missing_base == "empty"
        if controls.subentries or (paging is not None and not paging.size):
            # No entry here is a subentry; and a page of nothing asks for an estimate, which RFC 2696 lets us withhold.
            keep = None if paging is None else _never
            return Ordered(request, [], results.SUCCESS, told=told, keep=keep)
        page = 0 if paging is None else paging.size
        if controls.sort:
            return self._sorted(session, request, controls, controls.sort, shelf, identity, page, now)
        search = snapshot.search(request, view, self._limits.size_limit)
        return Streamed(
            request,
            search,
            deadline=self._deadline(request, now),
            told=told,
            missing_is_empty=missing_is_empty,
            page=page,
            keep=None
            if paging is None
            else lambda: self._keep(session, request, Page(search, _fingerprint(request), 0)),
        )

    def _sorted(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        wanted_keys: tuple[SortKey, ...],
        shelf: Shelf,
        identity: Identity,
        page: int,
        now: float,
    ) -> Listing:
        view, snapshot = shelf.view(identity), shelf.snapshot
        assert view is not None and session.provider is not None
        told = self._teller(session, request, now)
        missing_is_empty = session.provider.options.missing_base == "empty"
        whole = self._limits.sort_entries + 1
        is_paged = controls.paging is not None
        search = snapshot.search(request, view, whole, whole=True)

        def keep(rest: list[bytes]) -> bytes:
            return self._keep(session, request, Page(search, _fingerprint(request), 0, rest))

        try:
            keys = sorting.understand(wanted_keys, snapshot.custom_attributes)
        except sorting.CannotSort as error:
            if controls.sort_is_critical:
                diagnostic = "cannot be sorted like that"
                raise OperationError(results.UNAVAILABLE_CRITICAL_EXTENSION, diagnostic) from None
            unsorted = snapshot.search(request, view, self._limits.size_limit)
            return Streamed(
                request,
                unsorted,
                deadline=self._deadline(request, now),
                told=told,
                missing_is_empty=missing_is_empty,
                page=page,
                keep=(lambda: self._keep(session, request, Page(unsorted, _fingerprint(request), 0)))
                if is_paged
                else None,
                controls=((results.SORT_RESPONSE, False, sort_response(error.code, error.attribute)),),
            )
        values = snapshot.search(request, view, whole, tuple(key.attribute for key in keys), whole=True)
        limits = [limit for limit in (request.size_limit, self._limits.size_limit) if limit]
        return sorting.Sorted(
            request,
            search,
            values,
            keys,
            limit=self._limits.sort_entries,
            size_limit=min(limits, default=0),
            deadline=self._deadline(request, now),
            told=told,
            missing_is_empty=missing_is_empty,
            page=page,
            keep=keep if is_paged else None,
        )

    # -- pages ------------------------------------------------------------------------------------

    def _keep(self, session: Session, request: SearchRequest, page: Page) -> bytes:
        page.expires_at = self._clock() + self._limits.page_lifetime_s
        cookie = secrets.token_bytes(8)
        session.pages[cookie] = page
        if len(session.pages) > PAGED_LISTINGS:
            session.pages.popitem(last=False)
        return cookie

    def _next_page(
        self, session: Session, request: SearchRequest, controls: Controls, paging: Paging, now: float
    ) -> Listing:
        page = session.pages.pop(paging.cookie, None)
        if page is None or now > page.expires_at:
            raise OperationError(results.UNWILLING_TO_PERFORM, "the cookie of the paged search is unknown or too old")
        told = self._teller(session, request, now)
        if not paging.size:
            return Ordered(request, [], results.SUCCESS, told=told, keep=_never)
        if page.fingerprint != _fingerprint(request):
            raise OperationError(results.UNWILLING_TO_PERFORM, "the cookie belongs to another search")
        if page.rest is not None:

            def keep(rest: list[bytes]) -> bytes:
                return self._keep(session, request, Page(page.search, page.fingerprint, 0, rest))

            return Ordered(request, page.rest, results.SUCCESS, told=told, page=paging.size, keep=keep)
        search = page.search
        search.continue_as(request.message_id)
        return Streamed(
            request,
            search,
            deadline=self._deadline(request, now),
            told=told,
            page=paging.size,
            keep=lambda: self._keep(session, request, page),
            sent_before=search.sent,
        )

    # -- ends -------------------------------------------------------------------------------------

    def _deadline(self, request: SearchRequest, now: float) -> float:
        own, asked = self._limits.time_limit_s or FOREVER, request.time_limit or FOREVER
        return now + min(own, asked)

    def _teller(self, session: Session, request: SearchRequest, now: float) -> Callable[[int, int, float], None]:
        app, bind_dn, address, observer = session.app, session.bind_dn, session.address, self._observer

        def told(code: int, entries: int, at: float) -> None:
            observer.searched(app, address, bind_dn, request, at - now, code, "", entries)

        return told

    def _one(self, session: Session, request: SearchRequest, entry: bytes | None, now: float) -> bytes:
        self._teller(session, request, now)(results.SUCCESS, int(entry is not None), self._clock())
        return (entry or b"") + request.result(results.SUCCESS)

    def _refuse(
        self, session: Session, request: SearchRequest, error: OperationError, reason: str, now: float
    ) -> bytes:
        if isinstance(error, _Refused):
            reason = error.reason
        took, code = self._clock() - now, error.result_code
        self._observer.searched(session.app, session.address, session.bind_dn, request, took, code, reason, 0)
        return request.result(code, error.matched_dn.encode(), error.diagnostic.encode())


class _Refused(OperationError):
    """An OperationError with a reason for the metrics."""

    def __init__(self, result_code: int, diagnostic: str, reason: RejectReason) -> None:
        self.reason = reason.value
        super().__init__(result_code, diagnostic)


def _never(_: list[bytes]) -> bytes:
    """Nothing is left, so there is no cookie."""
    return b""


def _fingerprint(request: SearchRequest) -> object:
    """What RFC 2696 3 wants to stay the same from page to page."""
    return (
        request.base_object,
        request.scope,
        request.filter,
        request.attributes,
        request.types_only,
        request.size_limit,
    )
