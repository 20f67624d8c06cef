"""One LDAP session as a machine without I/O: octets in, requests out in an order the RFC allows.

RFC 4511 4.2.1: everything outstanding is finished before a Bind is processed, and what follows a Bind or StartTLS waits
until that is answered.  Everything else may overlap.
"""

from __future__ import annotations

from typing import final

from outpost._fastber import (
    AbandonRequest,
    BindRequest,
    ExtendedRequest,
    Inbox,
    Limits,
    OtherRequest,
    Request,
    UnbindRequest,
    encode_extended_result,
)
from outpost.errors import DecodeError, LimitExceeded, ProtocolError, SequenceError
from outpost.ldap.results import (
    ADMIN_LIMIT_EXCEEDED,
    CODE_NAMES,
    EXTENDED,
    NOTICE_OF_DISCONNECTION,
    PROTOCOL_ERROR,
    START_TLS,
)


@final
class Connection:
    """The order of one session.

        connection.inbox.feed(octets)              # or buffer() and received()
        while request := connection.next():        # raises ProtocolError: send `notice(error)` and close
            ...answer it at once, or connection.begin(request) and later connection.finish(request.message_id)

    outstanding: operations that may be in work at a time; when reached, `next` waits.
    """

    __slots__ = ("_exclusive", "_held", "_outstanding", "inbox", "running")

    def __init__(self, limits: Limits, outstanding: int) -> None:
        self.inbox = Inbox(limits)
        self._outstanding = outstanding
        self.running: set[int] = set()
        """messageIDs of the operations in work."""
        self._exclusive = False
        self._held: Request | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing is in work and nothing waits."""
        return not self.running and self._held is None

    @property
    def has_begun(self) -> bool:
        """Something is in work; what waits is not."""
        return bool(self.running)

    @property
    def is_blocked(self) -> bool:
        """`next` would not take another request, however many octets came."""
        return self._exclusive or self._held is not None or len(self.running) >= self._outstanding

    def next(self) -> Request | None:
        """The next request that may be begun now; None when there is none.

        Raises ProtocolError when the session cannot go on.
        """
        if self._exclusive:
            return None
        request = self._held
        if request is not None:
            if self.running:
                return None
            self._held = None
            return request
        if len(self.running) >= self._outstanding:
            return None
        request = self.inbox.next()
        if request is None:
            return None
        kind = type(request)
        if kind is AbandonRequest or kind is UnbindRequest:
            return request
        if self.running:
            if request.message_id in self.running:
                # RFC 4511 4.1.1.1 forbids it, and an answer could belong to either.
                raise SequenceError(f"messageID {request.message_id} is in use")
            if kind is BindRequest or (isinstance(request, ExtendedRequest) and request.name == START_TLS):
                self._held = request
                return None
        if kind is OtherRequest and request.op not in CODE_NAMES:
            raise DecodeError(f"tag {request.op:#04x} is no request")
        return request

    def begin(self, request: Request) -> None:
        """`request` is not answered yet; a Bind or StartTLS holds everything behind it back."""
        self.running.add(request.message_id)
        if type(request) is BindRequest or (request.op == EXTENDED and _is_start_tls(request)):
            self._exclusive = True

    def finish(self, message_id: int) -> bool:
        """The operation was answered or given up; whether it was in work."""
        if message_id not in self.running:
            return False
        self.running.discard(message_id)
        self._exclusive = False
        return True


def _is_start_tls(request: Request) -> bool:
    return isinstance(request, ExtendedRequest) and request.name == START_TLS


def notice(result_code: int, diagnostic: str) -> bytes:
    """Notice of Disconnection (RFC 4511 4.4.1), after which the server closes."""
    return encode_extended_result(0, result_code, diagnostic=diagnostic.encode(), name=NOTICE_OF_DISCONNECTION)


def notice_of(error: ProtocolError) -> bytes:
    """The notice for a session that broke the protocol; tells what was wrong, and quotes nothing."""
    code = ADMIN_LIMIT_EXCEEDED if isinstance(error, LimitExceeded) else PROTOCOL_ERROR
    return notice(code, str(error))
