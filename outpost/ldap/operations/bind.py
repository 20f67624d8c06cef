"""Bind (RFC 4511 4.2, RFC 4513): from a name and a password to an identity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, final

from outpost._fastber import BindRequest, encode_bind_result
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    LdapProvider,
    Provider,
    Rejected,
    RejectReason,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
    User,
)
from outpost.ldap import results
from outpost.ldap._session import Session
from outpost.ldap.certificates import ClientCertificate
from outpost.ldap.entries import Naming
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations import external
from outpost.ldap.operations.external import Claim, NoClaimError, Voucher
from outpost.ldap.operations.outcome import Later, Outcome
from outpost.ldap.providers import BindName, Providers

SIMPLE: Final = 0x80
PLAIN: Final = b"PLAIN"
EXTERNAL: Final = b"EXTERNAL"

_REFUSALS: Final = {
    RejectReason.ACCESS_DENIED: results.INSUFFICIENT_ACCESS_RIGHTS,
    RejectReason.ACCESS_CHECK_FAIL: results.INSUFFICIENT_ACCESS_RIGHTS,
    RejectReason.NO_PROVIDER: results.INSUFFICIENT_ACCESS_RIGHTS,
    RejectReason.EMPTY_PASSWORD: results.UNWILLING_TO_PERFORM,
}
"""Everything else that is refused is invalidCredentials."""

_OUTAGES: Final = {
    UnavailableReason.BUSY: (results.BUSY, b"busy, try again"),
    UnavailableReason.INTERNAL: (results.OTHER, b"internal error"),
}
_OUTAGE: Final = (results.UNAVAILABLE, b"logins cannot be checked at the moment")

CONFIDENTIALITY = b"this needs TLS: use ldaps or StartTLS first"


class Gate(Protocol):
    """The part of the credentials gate that a Bind needs."""

    def known(self, provider: Provider, username: str, secret: bytes, source: Source) -> Accepted | None:
        """The decision if it may be given at once."""
        ...

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision."""
        ...


class Sessions(Protocol):
    """The backend's sessions that open connections rest on."""

    def hold(self, handle: str) -> None:
        """One more connection rests on the session."""
        ...

    def release(self, handle: str) -> None:
        """One less."""
        ...


@final
class Binder:
    """Decides Binds for every connection of a server."""

    def __init__(
        self,
        gate: Gate,
        observer: LdapObserver,
        sessions: Sessions | None,
        mechanisms: Callable[[Session], tuple[bytes, ...]],
        clock: Callable[[], float],
        voucher: Voucher | None,
        epoch: Callable[[], float],
    ) -> None:
        self._gate = gate
        self._voucher = voucher
        self._epoch = epoch
        self._observer = observer
        self._sessions = sessions
        self._mechanisms = mechanisms
        self._clock = clock

    def release(self, session: Session) -> None:
        """The session's identity is given up."""
        if self._sessions is not None and session.identity is not None and session.identity.session is not None:
            self._sessions.release(session.identity.session)
        session.forget()

    def begin(self, session: Session, request: BindRequest, providers: Providers, now: float) -> Outcome:
        """The answer, or the work that leads to it. The session is anonymous until a success."""
        self.release(session)
        name = request.name
        if request.version != 3:
            diagnostic = f"version {request.version} is not supported, only 3"
            return self._refuse(session, request, name, now, results.PROTOCOL_ERROR, diagnostic.encode())
        if providers.requires_tls(None) and not session.is_secure:
            return self._refuse(session, request, name, now, results.CONFIDENTIALITY_REQUIRED, CONFIDENTIALITY)
        if request.authentication != SIMPLE:
            return self._sasl(session, request, providers, now)
        password = request.credentials or b""
        if not password:
            if name:
                # RFC 4513 5.1.2: clients that forget to ask for a password must not be told that it was right.
                reason = RejectReason.EMPTY_PASSWORD
                return self._refuse(
                    session, request, name, now, results.UNWILLING_TO_PERFORM, b"the password is empty", reason
                )
            self._observer.bound("", session.address, name, self._clock() - now, results.SUCCESS, "")
            return request.result(results.SUCCESS)
        found = providers.bind_name(name)
        return self._log_in(session, request, providers, found, name, password, now)

    def _sasl(self, session: Session, request: BindRequest, providers: Providers, now: float) -> Outcome:
        """SASL PLAIN (RFC 4616) where TLS protects it."""
        mechanism = request.mechanism or b""
        if mechanism == EXTERNAL and self._voucher is not None and session.certificate is not None:
            return self._external(self._voucher, session.certificate, session, request, providers, now)
        if mechanism not in self._mechanisms(session):
            if mechanism == PLAIN:
                return self._refuse(
                    session, request, request.name, now, results.CONFIDENTIALITY_REQUIRED, CONFIDENTIALITY
                )
            return self._refuse(
                session,
                request,
                request.name,
                now,
                results.AUTH_METHOD_NOT_SUPPORTED,
                b"this SASL mechanism is not offered",
            )
        parts = (request.credentials or b"").split(b"\0")
        if len(parts) != 3 or not parts[1]:
            diagnostic = b"PLAIN: expected authzid NUL authcid NUL password"
            return self._refuse(session, request, b"", now, results.INVALID_CREDENTIALS, diagnostic)
        authorization, name, password = parts
        if authorization and authorization not in {name, b"dn:" + name, b"u:" + name}:
            diagnostic = b"PLAIN: acting as somebody else is not supported"
            return self._refuse(session, request, name, now, results.INVALID_CREDENTIALS, diagnostic)
        if not password:
            reason = RejectReason.EMPTY_PASSWORD
            return self._refuse(
                session, request, name, now, results.UNWILLING_TO_PERFORM, b"the password is empty", reason
            )
        name = name.removeprefix(b"dn:") if name.startswith(b"dn:") else name.removeprefix(b"u:")
        found = providers.bind_name(name)
        if found is None:
            # RFC 4616: authcid is a user name; it needs no DN where it can only mean one provider.
            served = list(providers)
            try:
                username = name.decode()
            except UnicodeDecodeError:
                username = ""
            if len(served) == 1 and username and "=" not in username:
                found = BindName(served[0], username)
        return self._log_in(session, request, providers, found, name, password, now)

    def _log_in(
        self,
        session: Session,
        request: BindRequest,
        providers: Providers,
        found: BindName | None,
        name: bytes,
        password: bytes,
        now: float,
    ) -> Outcome:
        if found is None:
            if not providers.bases():
                # Nothing is known yet, perhaps because the server cannot be reached: that says nothing about anybody.
                diagnostic = b"no directory is served yet"
                reason = UnavailableReason.NOT_READY
                return self._refuse(session, request, name, now, results.UNAVAILABLE, diagnostic, reason)
            return self._refuse(
                session, request, name, now, results.INSUFFICIENT_ACCESS_RIGHTS, b"", RejectReason.NO_PROVIDER
            )
        provider = found.provider
        if provider.options.require_tls and not session.is_secure:
            return self._refuse(session, request, name, now, results.CONFIDENTIALITY_REQUIRED, CONFIDENTIALITY)
        source = Source("ldap", session.address)
        accepted = self._gate.known(provider, found.username, password, source)
        if accepted is not None:
            return self._settle(session, request, provider, name, accepted, now)
        return Later(
            partial(self._ask, session, request, provider, found.username, name, Secret(password), source, now)
        )

    async def _ask(
        self,
        session: Session,
        request: BindRequest,
        provider: LdapProvider,
        username: str,
        name: bytes,
        secret: Secret,
        source: Source,
        now: float,
    ) -> bytes:
        decision = await self._gate.authenticate(provider, username, secret, source)
        return self._settle(session, request, provider, name, decision, now)

    def _external(
        self,
        voucher: Voucher,
        certificate: ClientCertificate,
        session: Session,
        request: BindRequest,
        providers: Providers,
        now: float,
    ) -> Outcome:
        """The name in the request counts for nothing (RFC 4513 5.2); who is meant is in the certificate."""
        authorization = request.credentials or b""
        try:
            # It was good when the connection began, or when the TLS session did that this one resumes.
            if self._epoch() >= certificate.expires_at:
                raise NoClaimError("the certificate has expired")
            claimed = external.claim(certificate, authorization, providers)
        except NoClaimError as error:
            refusal = self._refuse(
                *(session, request, authorization, now, results.INVALID_CREDENTIALS, b""),
                RejectReason.CLIENT_CERTIFICATE,
            )
            self._observer.explained("", session.address, authorization, str(error))
            return refusal
        return Later(partial(self._vouch, voucher, session, request, claimed, authorization, now))

    async def _vouch(
        self, voucher: Voucher, session: Session, request: BindRequest, claimed: Claim, name: bytes, now: float
    ) -> bytes:
        provider = claimed.provider
        decision = await voucher.vouch(provider, claimed.username, Source("ldap", session.address))
        if isinstance(decision, Accepted):
            identity = decision.identity
            if claimed.fits(identity):
                name = Naming(provider).of_user(User(identity.user_pk, identity.username))[0]
            else:
                detail = "the certificate's name means another user than the one it belongs to"
                decision = Rejected(RejectReason.CLIENT_CERTIFICATE, detail)
        return self._settle(session, request, provider, name, decision, now)

    def _settle(
        self,
        session: Session,
        request: BindRequest,
        provider: LdapProvider,
        name: bytes,
        decision: Decision,
        now: float,
    ) -> bytes:
        """The one place where a decision becomes a result code."""
        diagnostic = b""
        if isinstance(decision, Accepted):
            code, reason = results.SUCCESS, ""
            if self._sessions is not None and decision.identity.session is not None:
                self._sessions.hold(decision.identity.session)
            session.become(name, provider, decision.identity)
        elif isinstance(decision, Rejected):
            code, reason = _REFUSALS.get(decision.reason, results.INVALID_CREDENTIALS), decision.reason.value
        elif isinstance(decision, Challenge):
            # A simple Bind has no second round: password and code belong together, as `password;code`.
            code, reason = results.INVALID_CREDENTIALS, RejectReason.CODE_REQUIRED.value
        elif isinstance(decision, Unavailable):
            code, diagnostic = _OUTAGES.get(decision.reason, _OUTAGE)
            reason = decision.reason.value
        else:
            raise TypeError(f"no decision: {type(decision).__name__}")
        took = self._clock() - now
        self._observer.bound(provider.application_slug, session.address, name, took, code, reason)
        if isinstance(decision, Rejected | Unavailable) and decision.detail:
            self._observer.explained(provider.application_slug, session.address, name, decision.detail)
        return encode_bind_result(request.message_id, code, diagnostic=diagnostic)

    def _refuse(
        self,
        session: Session,
        request: BindRequest,
        name: bytes,
        now: float,
        code: int,
        diagnostic: bytes,
        reason: str = "",
    ) -> bytes:
        # A StrEnum's member is not the plain string that the log writer takes.
        self._observer.bound("", session.address, name, self._clock() - now, code, str(reason))
        return encode_bind_result(request.message_id, code, diagnostic=diagnostic)
