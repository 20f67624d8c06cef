"""What the RADIUS room tells about its work; metrics and logs implement it.

Every method is called on the hot path: count, queue, and return; never block, never format unless the level asks for
it, never raise.
"""

from __future__ import annotations

import enum
from typing import Protocol

from outpost.observe._radius_lines import Accepts


class DropReason(enum.StrEnum):
    """Why a datagram got no answer: log field and metric label, a closed set."""

    UNKNOWN_CLIENT = "unknown_client"
    """No provider's client_networks hold the source address."""
    TOO_SHORT = "too_short"
    BAD_LENGTH = "bad_length"
    BAD_ATTRIBUTE = "bad_attribute"
    TOO_MANY_ATTRIBUTES = "too_many_attributes"
    UNEXPECTED_CODE = "unexpected_code"
    MALFORMED_MESSAGE_AUTHENTICATOR = "malformed_message_authenticator"
    """More than one, or not 16 octets."""
    BAD_MESSAGE_AUTHENTICATOR = "bad_message_authenticator"
    """It does not hold: another shared secret, or a forged or damaged packet."""
    BAD_REQUEST_AUTHENTICATOR = "bad_request_authenticator"
    MISSING_MESSAGE_AUTHENTICATOR = "missing_message_authenticator"
    """The provider requires one (`message_authenticator = "require"`)."""
    EAP_WITHOUT_MESSAGE_AUTHENTICATOR = "eap_without_message_authenticator"
    """RFC 3579 3.1."""
    STATUS_WITHOUT_MESSAGE_AUTHENTICATOR = "status_without_message_authenticator"
    """RFC 5997 3."""
    PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR = "proxy_state_without_message_authenticator"
    """The carrier of CVE-2024-3596; `message_authenticator = "optional"` lets it pass."""
    AMBIGUOUS = "ambiguous"
    """User-Name, User-Password or State more than once (RFC 2865 5.44 allows one)."""
    DUPLICATE = "duplicate"
    """A retransmission of a request still being worked on (RFC 5080 2.2.2)."""
    SUPERSEDED = "superseded"
    """The client used the identifier for a new request before this one was answered."""
    ABANDONED = "abandoned"
    """No decision within the time a client can still be waiting."""
    OVERLOADED = "overloaded"
    """Too many requests in work; the client tries again."""
    RATE_LIMITED = "rate_limited"
    """Too many Status-Server requests from one address."""
    UNAVAILABLE = "unavailable"
    """No decision was possible; the client is to ask another server."""
    NOT_READY = "not_ready"
    """Status-Server while logins cannot work."""
    REPLY_TOO_LARGE = "reply_too_large"
    PROVIDER_GONE = "provider_gone"
    """The provider was removed or changed while the request was in work."""
    STOPPING = "stopping"
    INTERNAL = "internal"
    """A bug; logged on its own."""


class RadiusObserver(Protocol):
    """The port that `outpost.observe` fills.

    app: slug of the provider's application, empty when no provider was chosen; client: bare address of the network
    device; code, reply: packet codes (`outpost.radius.packet.code_name` names them).
    """

    def answered(
        self, code: int, reply: int, app: str, client: str, username: str, reason: str, took_s: float, signed: bool
    ) -> None:
        """A request was decided and its reply handed to the socket (a Reject may have been held back before that).

        username: as sent, empty for Status-Server; reason: a `RejectReason` value, empty unless refused; took_s:
        seconds from the datagram to the decision, without the delay of a Reject; signed: the request carried a valid
        Message-Authenticator.
        """
        ...

    def accepts(self, app: str, client: str) -> Accepts | None:
        """What does the work of `answered` for the Access-Accepts of logins that are known already.

        None: `answered` is called for these, too.
        """
        ...

    def dropped(self, reason: DropReason, app: str) -> None:
        """A datagram got no answer; counts only."""
        ...

    def noticed(self, reason: DropReason, app: str, client: str, suppressed: int) -> None:
        """The log line to `dropped`, at most one per reason and address and interval.

        suppressed: how many of that reason were not told since the last one.
        """
        ...

    def resent(self, app: str) -> None:
        """A retransmission got the identical reply once more."""
        ...

    def challenges(self, opened: int, expired: int, pending: int) -> None:
        """The conversations that wait for an answer: totals opened and expired so far, and how many are open."""
        ...

    def explained(self, app: str, client: str, username: str, detail: str) -> None:
        """Why a login was refused or not decided, one sentence for the administrator; not called without one."""
        ...

    def failed(self, what: str, error: BaseException) -> str:
        """A bug: log it with its traceback; a short identifier of that log entry."""
        ...


class Silent:
    """Observes nothing."""

    def answered(
        self, code: int, reply: int, app: str, client: str, username: str, reason: str, took_s: float, signed: bool
    ) -> None:
        """Nothing."""

    def accepts(self, app: str, client: str) -> Accepts | None:
        """Nothing."""
        return None

    def dropped(self, reason: DropReason, app: str) -> None:
        """Nothing."""

    def noticed(self, reason: DropReason, app: str, client: str, suppressed: int) -> None:
        """Nothing."""

    def resent(self, app: str) -> None:
        """Nothing."""

    def challenges(self, opened: int, expired: int, pending: int) -> None:
        """Nothing."""

    def explained(self, app: str, client: str, username: str, detail: str) -> None:
        """Nothing."""

    def failed(self, what: str, error: BaseException) -> str:
        """An identifier that leads nowhere."""
        return "unlogged"
