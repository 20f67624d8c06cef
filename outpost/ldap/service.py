"""Every LDAP operation behind one door: a request in, an `Outcome` out, nothing raised but bugs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import final

from outpost._fastber import (
    BindRequest,
    CompareRequest,
    ExtendedRequest,
    Limits,
    OtherRequest,
    Request,
    SearchRequest,
)
from outpost.identity import LdapProvider
from outpost.ldap import controls, plain, results, rootdse
from outpost.ldap._session import Session
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations import compare, extended
from outpost.ldap.operations.bind import CONFIDENTIALITY, EXTERNAL, PLAIN, Binder, Gate, Sessions
from outpost.ldap.operations.external import Voucher
from outpost.ldap.operations.outcome import Later, Listing, Outcome
from outpost.ldap.operations.password_modify import Changer, PasswordModifier
from outpost.ldap.operations.search import Searcher, SearchLimits
from outpost.ldap.providers import Providers
from outpost.ldap.shelf import Library


@final
class LdapService:
    """The operations of one server, for all its connections."""

    def __init__(
        self,
        gate: Gate,
        library: Library,
        observer: LdapObserver,
        *,
        limits: SearchLimits,
        decoding: Limits,
        sessions: Sessions | None = None,
        passwords: Changer | None = None,
        voucher: Voucher | None = None,
        clock: Callable[[], float],
        epoch: Callable[[], float],
    ) -> None:
        self.providers = Providers(())
        self.can_start_tls = True
        self._library = library
        self._observer = observer
        self._decoding = decoding
        self._clock = clock
        self._can_vouch = voucher is not None
        self._binder = Binder(gate, observer, sessions, self._mechanisms, clock, voucher, epoch)
        self._modifier = PasswordModifier(passwords, observer, self._binder.release)
        self._searcher = Searcher(library, observer, limits, decoding, self._root, clock)

    def serve(self, providers: Iterable[LdapProvider]) -> tuple[str, ...]:
        """Serve these from now on; what an operator has to mend about them."""
        self.providers = Providers(providers)
        return self.providers.flaws

    def answer(self, session: Session, request: Request, now: float) -> Outcome:
        """What comes of `request`."""
        if isinstance(request, SearchRequest):
            return self._searcher.begin(session, request, self.providers, now)
        refusal = self._refusal(session, request)
        if isinstance(request, BindRequest):
            if refusal is not None:
                # RFC 4513 4: whoever binds is anonymous until a Bind succeeds.
                self._binder.release(session)
                return refusal
            return self._binder.begin(session, request, self.providers, now)
        if refusal is not None:
            return self._told(session, request, refusal, now)
        if isinstance(request, CompareRequest):
            outcome: Outcome = compare.begin(session, request, self.providers, self._library, self._decoding)
        elif isinstance(request, ExtendedRequest) and request.name == results.PASSWORD_MODIFY:
            outcome = self._modifier.begin(session, request, self.providers)
        elif isinstance(request, ExtendedRequest):
            outcome = extended.begin(session, request, can_start_tls=self.can_start_tls)
        elif isinstance(request, OtherRequest):
            outcome = request.result(results.UNWILLING_TO_PERFORM, diagnostic=b"this directory is read-only")
        else:
            raise TypeError(f"no operation: {type(request).__name__}")
        return self._told(session, request, outcome, now)

    def release(self, session: Session) -> None:
        """The session is anonymous from now on, or its connection is gone."""
        self._binder.release(session)

    def _refusal(self, session: Session, request: Request) -> bytes | None:
        """Without TLS where that is required, or a critical control that is not understood here (RFC 4511 4.1.11)."""
        if not (isinstance(request, BindRequest) or session.is_secure or _is_start_tls(request)):
            bound = session.provider
            if self.providers.requires_tls(None if bound is None else self.providers.current(bound)):
                return request.result(results.CONFIDENTIALITY_REQUIRED, diagnostic=CONFIDENTIALITY)
        if isinstance(request, CompareRequest):
            return None
        for control in request.controls:
            if control.critical and request.op not in controls.UNDERSTOOD.get(control.oid, ()):
                diagnostic = b"a critical control is not supported here"
                return request.result(results.UNAVAILABLE_CRITICAL_EXTENSION, diagnostic=diagnostic)
        return None

    def _told(self, session: Session, request: Request, outcome: Outcome, now: float) -> Outcome:
        kind = "compare" if isinstance(request, CompareRequest) else results.CODE_NAMES.get(request.op, "extended")
        if isinstance(outcome, Later):
            return Later(partial(self._told_later, session, request, outcome, now))
        code = _code(outcome) if isinstance(outcome, bytes) else results.SUCCESS
        self._observer.operated(kind, session.app, session.address, session.bind_dn, self._clock() - now, code)
        return outcome

    async def _told_later(self, session: Session, request: Request, later: Later, now: float) -> bytes | Listing:
        outcome = await later.work()
        self._told(session, request, outcome, now)
        return outcome

    def _mechanisms(self, session: Session) -> tuple[bytes, ...]:
        """SASL mechanisms: PLAIN only where TLS hides the password, EXTERNAL only for who has shown who he is."""
        if not session.is_secure:
            return ()
        certificate = session.certificate
        return (EXTERNAL, PLAIN) if self._can_vouch and certificate is not None and certificate.name else (PLAIN,)

    def _root(self, session: Session) -> plain.Attributes:
        return rootdse.attributes(
            self.providers.bases(),
            is_secure=session.is_secure,
            can_start_tls=self.can_start_tls,
            can_change_passwords=self._modifier.is_offered(self.providers),
            mechanisms=self._mechanisms(session),
        )


def _is_start_tls(request: Request) -> bool:
    return isinstance(request, ExtendedRequest) and request.name == results.START_TLS


def _code(octets: bytes) -> int:
    """resultCode of one of our own encoded responses."""
    _, content, _ = controls.take(octets)
    _, _, operation = controls.take(content)
    _, result, _ = controls.take(operation)
    _, code, _ = controls.take(result)
    return int.from_bytes(code, "big")
