"""Requests to replies: what a PAP login, a health probe or a refused method is answered (RFC 2865 4).

Pure decisions over the gate; sockets, timers and tasks are the server's.  Whatever cannot be decided is silence, so
that the device asks another server: a Reject would be a lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, final

from outpost.errors import LimitExceeded
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    RadiusProvider,
    Rejected,
    RejectReason,
    Secret,
    Source,
)
from outpost.radius.exchange import Request
from outpost.radius.observer import DropReason, RadiusObserver
from outpost.radius.packet import EAP_MESSAGE, Code, encode_attribute


class Gate(Protocol):
    """Decides logins; `outpost.credentials.gate` fills it."""

    def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
        """The decision if it may be given without asking anybody; None says nothing about the credentials."""
        ...

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        ...

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a `Challenge`."""
        ...


class Answer(NamedTuple):
    """A reply to send."""

    octets: bytes
    code: int
    username: str = ""
    reason: str = ""
    """A `RejectReason`, empty unless refused."""
    delay_s: float = 0.0
    """Counted from the arrival of the request."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that somebody has to be asked about."""

    request: Request
    username: str
    secret: Secret
    source: Source


Outcome = Answer | DropReason
"""A DropReason is silence."""


@final
class RadiusService:
    """Answers requests; one for all providers.

    gate: who decides logins; is_ready: whether logins can work now, for Status-Server.
    """

    def __init__(self, gate: Gate, observer: RadiusObserver, *, is_ready: Callable[[], bool]) -> None:
        self._gate = gate
        self._observer = observer
        self._is_ready = is_ready

    def answer(self, request: Request) -> Outcome | Login:
        """The reply if it is known at once, else what `decide` has to be asked. Never raises."""
        try:
            if request.packet.code == Code.STATUS_SERVER:
                return self._status(request)
            return self._access(request)
        except Exception as exc:  # one odd packet must not take the loop with it
            self._observer.failed("a request failed", exc)
            return DropReason.INTERNAL

    async def decide(self, login: Login) -> Outcome:
        """The reply to a login, after the gate was asked. Raises nothing but CancelledError."""
        request = login.request
        try:
            decision = await self._gate.authenticate(
                request.client.provider, login.username, login.secret, login.source
            )
            return self._tell(request, login.username, decision)
        except Exception as exc:
            self._observer.failed("a login failed", exc)
            return DropReason.INTERNAL

    # -- inside -----------------------------------------------------------------------------------

    def _status(self, request: Request) -> Outcome:
        if request.client.provider.options.status_server_requires_health and not self._is_ready():
            return DropReason.NOT_READY
        # RFC 5997 3: on the authentication port an Access-Accept.
        return Answer(request.packet.reply(Code.ACCESS_ACCEPT, b""), Code.ACCESS_ACCEPT)

    def _access(self, request: Request) -> Outcome | Login:
        packet, provider = request.packet, request.client.provider
        try:
            username = (packet.user_name or b"").decode()
        except UnicodeDecodeError:
            username = ""
        if packet.has_eap or packet.has_ms_chap or packet.chap_password is not None:
            return self._unsupported(request, username)
        if not username or "\0" in username:
            return self._reject(request, username, RejectReason.INVALID_CREDENTIALS)
        password = packet.user_password
        if password is None:
            missing = not packet.has_user_password
            reason = RejectReason.EMPTY_PASSWORD if missing else RejectReason.INVALID_CREDENTIALS
            return self._reject(request, username, reason)
        if not password:
            return self._reject(request, username, RejectReason.EMPTY_PASSWORD)
        accepted = self._gate.known(provider, username, password, request.source)
        if accepted is not None:
            return self._tell(request, username, accepted)
        try:
            password.decode()
        except UnicodeDecodeError:
            # No one types this: most likely the shared secrets differ. Nobody is asked.
            return self._reject(request, username, RejectReason.INVALID_CREDENTIALS)
        source = request.source
        if packet.calling_station_id:
            source = replace(source, calling_station=packet.calling_station_id.decode(errors="replace"))
        return Login(request, username, Secret(password), source)

    def _tell(self, request: Request, username: str, decision: Decision) -> Outcome:
        """The one place where a decision becomes a packet."""
        if isinstance(decision, Accepted):
            return self._accept(request, username, decision)
        if isinstance(decision, Rejected):
            return self._reject(request, username, decision.reason)
        if isinstance(decision, Challenge):
            return self._reject(request, username, RejectReason.CODE_REQUIRED)
        return DropReason.UNAVAILABLE

    def _accept(self, request: Request, username: str, accepted: Accepted) -> Outcome:
        if accepted.attributes.named or accepted.attributes.packet:
            return self._reject(request, username, RejectReason.ATTRIBUTE_DECODE_FAILED)
        try:
            octets = request.packet.reply(Code.ACCESS_ACCEPT, b"")
        except LimitExceeded:
            return DropReason.REPLY_TOO_LARGE
        return Answer(octets, Code.ACCESS_ACCEPT, username)

    def _reject(self, request: Request, username: str, reason: RejectReason) -> Outcome:
        try:
            octets = request.packet.reply(Code.ACCESS_REJECT, b"")
        except LimitExceeded:
            return DropReason.REPLY_TOO_LARGE
        delay_s = request.client.provider.options.reject_delay_s
        return Answer(octets, Code.ACCESS_REJECT, username, reason, delay_s)

    def _unsupported(self, request: Request, username: str) -> Outcome:
        """CHAP and MS-CHAP need a clear-text password on our side; EAP is not spoken. Refused at once."""
        attributes = b""
        eap = request.packet.eap_message
        if eap is not None:
            # RFC 3579 2.6.3: an Access-Reject carries EAP-Failure; RFC 3748 4.2: with the identifier of the response.
            attributes = encode_attribute(EAP_MESSAGE, bytes((4, eap[1] if len(eap) > 1 else 0, 0, 4)))
        try:
            octets = request.packet.reply(Code.ACCESS_REJECT, attributes)
        except LimitExceeded:
            return DropReason.REPLY_TOO_LARGE
        return Answer(octets, Code.ACCESS_REJECT, username, RejectReason.UNSUPPORTED_METHOD)
