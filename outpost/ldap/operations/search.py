"""Search (RFC 4511 4.5): which entry collection, under which view, and how it is listed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, final

from outpost._fastber import Limits, SearchRequest, encode_result
from outpost.errors import BackendError, DecodeError, OperationError
from outpost.identity import Identity, LdapProvider, Mode, RejectReason
from outpost.ldap import controls as request_controls
from outpost.ldap import plain, results
from outpost.ldap._session import Session
from outpost.ldap._shelf import Shelf
from outpost.ldap._snapshot import Search, Snapshot, View
from outpost.ldap.controls import Controls, Paging, paging_response, sort_response
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations import sorting, wanted
from outpost.ldap.operations.listing import EXAMINED, SLICE, Ordered, Streamed
from outpost.ldap.operations.matched_values import Chosen, Narrowed
from outpost.ldap.operations.outcome import (
    PAGED_LISTINGS,
    Later,
    Listing,
    Outcome,
    Page,
    ResponseControls,
)
from outpost.ldap.providers import Providers
from outpost.ldap.schema import SUBSCHEMA_DN, subschema
from outpost.ldap.shelf import Library

FOREVER: Final = float("inf")
NOT_BOUND = "bind first"
NOT_TRUE = "the assertion is not true of the base object"
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
    """Entries that are sorted at most; more come unsorted, or not at all where sorting is critical (12)."""


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
            return self._one(session, request, controls, b"", self._root(session), now)
        identity, bound = session.identity, session.provider
        provider = None if bound is None else providers.current(bound)
        if identity is None or provider is None:
            self._check_tls(session, owner is not None and owner.options.require_tls)
            raise _Refused(results.INSUFFICIENT_ACCESS_RIGHTS, NOT_BOUND, RejectReason.EMPTY_BIND_DN)
        if base == SUBSCHEMA_DN:
            shelf = self._library.shelf(provider)
            custom = frozenset[str]() if shelf is None else shelf.snapshot.custom_attributes
            return self._one(session, request, controls, SUBSCHEMA_DN, subschema(custom), now)
        if owner is None:
            raise OperationError(results.NO_SUCH_OBJECT, "no such base DN is served here")
        if owner.pk != provider.pk:
            diagnostic = "the base DN belongs to another provider than the bind DN"
            raise _Refused(results.INSUFFICIENT_ACCESS_RIGHTS, diagnostic, RejectReason.INVALID_BIND_DN)
        if controls.paging is not None and controls.paging.cookie:
            return _narrowed(request, controls, self._next_page(session, request, controls, controls.paging, now))
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
        asserted = controls.assertion
        if asserted is not None and shelf.snapshot.matches(view, request.base_object, asserted) is False:
            raise OperationError(results.ASSERTION_FAILED, NOT_TRUE)
        paging = controls.paging
        if controls.subentries or (paging is not None and not paging.size):
            # No entry here is a subentry; and a page of nothing asks for an estimate, which RFC 2696 lets us withhold.
            base = shelf.snapshot.search(request, view)
            if base.result_code == results.NO_SUCH_OBJECT and provider.options.missing_base != "empty":
                raise OperationError(results.NO_SUCH_OBJECT, "", matched_dn=base.matched_dn.decode())
            keep = None if paging is None else _never
            return Ordered(request, [], results.SUCCESS, told=self._teller(session, request, now), keep=keep)
        whole = self._sorted if controls.sort else self._unsorted
        return _narrowed(request, controls, whole(session, request, controls, provider, shelf.snapshot, view, now))

    def _unsorted(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        provider: LdapProvider,
        snapshot: Snapshot,
        view: View,
        now: float,
        response: ResponseControls = (),
    ) -> Listing:
        search = snapshot.search(request, view, self._size_limit)

        def keep() -> bytes:
            return self._keep(session, Page(search, fingerprint, controls.sort, controls=response))

        fingerprint = _fingerprint(request, controls)

        return Streamed(
            request,
            search,
            deadline=self._deadline(request, now),
            told=self._teller(session, request, now),
            missing_is_empty=provider.options.missing_base == "empty",
            page=0 if controls.paging is None else controls.paging.size,
            keep=None if controls.paging is None else keep,
            controls=response,
        )

    def _sorted(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        provider: LdapProvider,
        snapshot: Snapshot,
        view: View,
        now: float,
    ) -> Listing:
        def unsorted(response: ResponseControls) -> Listing:
            return self._unsorted(session, request, controls, provider, snapshot, view, now, response)

        try:
            keys = sorting.understand(controls.sort, snapshot.custom_attributes)
        except sorting.CannotSort as error:
            response = ((results.SORT_RESPONSE, False, sort_response(error.code, error.attribute)),)
            if controls.sort_is_critical:
                raise _Refused(
                    results.UNAVAILABLE_CRITICAL_EXTENSION, "cannot be sorted like that", controls=response
                ) from None
            return unsorted(response)
        # One more than may be sorted tells that there are too many.
        whole = self._limits.sort_entries + 1
        search = snapshot.search(request, view, whole, whole=True)

        def keep(rest: list[bytes], code: int) -> bytes:
            page = Page(search, fingerprint, controls.sort, rest=rest, code=code, controls=sorting.SORTED)
            return self._keep(session, page)

        fingerprint = _fingerprint(request, controls)
        limits = [limit for limit in (request.size_limit, self._size_limit) if limit]
        return sorting.Sorted(
            request,
            search,
            snapshot.search(request, view, whole, tuple(key.attribute for key in keys), whole=True),
            keys,
            limit=self._limits.sort_entries,
            size_limit=min(limits, default=0),
            deadline=self._deadline(request, now),
            told=self._teller(session, request, now),
            missing_is_empty=provider.options.missing_base == "empty",
            unsorted=None if controls.sort_is_critical else partial(unsorted, sorting.TOO_MANY),
            page=0 if controls.paging is None else controls.paging.size,
            keep=None if controls.paging is None else keep,
        )

    # -- pages ------------------------------------------------------------------------------------

    def _keep(self, session: Session, page: Page) -> bytes:
        page.expires_at = self._clock() + self._limits.page_lifetime_s
        cookie = secrets.token_bytes(8)
        session.pages[cookie] = page
        if len(session.pages) > PAGED_LISTINGS:
            del session.pages[next(iter(session.pages))]
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
        # Clients that sort are known to send the sort keys with the first page only.
        if page.fingerprint != _fingerprint(request, controls) or controls.sort not in {(), page.sort}:
            raise OperationError(results.UNWILLING_TO_PERFORM, "the cookie belongs to another search")
        search = page.search
        if page.rest is not None:

            def keep(rest: list[bytes], code: int) -> bytes:
                return self._keep(session, replace(page, rest=rest, code=code))

            return Ordered(
                request, page.rest, page.code, told=told, page=paging.size, keep=keep, controls=page.controls
            )
        search.continue_as(request.message_id)
        return Streamed(
            request,
            search,
            deadline=self._deadline(request, now),
            told=told,
            page=paging.size,
            keep=lambda: self._keep(session, page),
            controls=page.controls,
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

    def _one(
        self,
        session: Session,
        request: SearchRequest,
        controls: Controls,
        dn: bytes,
        attributes: plain.Attributes,
        now: float,
    ) -> bytes:
        """The answer from an entry that has nothing below it."""
        paging = controls.paging
        if paging is not None and paging.cookie:
            raise OperationError(results.UNWILLING_TO_PERFORM, "the cookie belongs to another search")
        if controls.assertion is not None and not plain.is_true_of(controls.assertion, attributes):
            raise OperationError(results.ASSERTION_FAILED, NOT_TRUE)
        found = None
        # singleLevel below the root DSE is empty: the naming contexts are not its children (RFC 4512 5.1).
        if request.scope != 1 and not controls.subentries and (paging is None or paging.size):
            found = plain.entry(request, dn, attributes)
        if found is not None and controls.values is not None and not request.types_only:
            found = Chosen(controls.values).narrowed(found)
        response: ResponseControls = sorting.SORTED if controls.sort else ()
        if paging is not None:
            response = (*response, (results.PAGED_RESULTS, False, paging_response(b"")))
        self._teller(session, request, now)(results.SUCCESS, int(found is not None), self._clock())
        return (found or b"") + encode_result(
            request.message_id, results.SEARCH_DONE, results.SUCCESS, controls=response
        )

    def _refuse(
        self, session: Session, request: SearchRequest, error: OperationError, reason: str, now: float
    ) -> bytes:
        response: ResponseControls = ()
        if isinstance(error, _Refused):
            reason, response = error.reason, error.controls
        took, code = self._clock() - now, error.result_code
        self._observer.searched(session.app, session.address, session.bind_dn, request, took, code, reason, 0)
        return encode_result(
            request.message_id,
            results.SEARCH_DONE,
            code,
            error.matched_dn.encode(),
            error.diagnostic.encode(),
            controls=response,
        )


class _Refused(OperationError):
    """An OperationError with a reason for the metrics, or with response controls."""

    def __init__(
        self,
        result_code: int,
        diagnostic: str,
        reason: RejectReason | None = None,
        controls: ResponseControls = (),
    ) -> None:
        self.reason = "" if reason is None else reason.value
        self.controls = controls
        super().__init__(result_code, diagnostic)


def _narrowed(request: SearchRequest, controls: Controls, whole: Listing) -> Listing:
    """RFC 3876 3: where no values are returned, there are none to choose."""
    if controls.values is None or request.types_only:
        return whole
    return Narrowed(whole, Chosen(controls.values))


def _never(_: list[bytes], code: int) -> bytes:
    """Nothing is left, so there is no cookie."""
    del code
    return b""


def _fingerprint(request: SearchRequest, controls: Controls) -> object:
    """What RFC 2696 3 wants to stay the same from page to page."""
    return (
        request.base_object,
        request.scope,
        request.filter,
        request.attributes,
        request.types_only,
        request.size_limit,
        controls.values,
    )
