"""What the LDAP room tells about its work; metrics and logs implement it.

Every method is called on the hot path: count, queue, and return; never block, never format unless the level asks for
it, never raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from outpost._fastber import SearchRequest
from outpost.observe._ldap_lines import LdapLines
from outpost.observe._rows import Row


@dataclass(frozen=True, slots=True)
class Ledger:
    """An observer for whoever answers in C: what it is told here, it need not be told by its methods."""

    row: Callable[[str, str, int], Row]
    """By kind, app and result code: where successful requests are counted."""
    lines: LdapLines


class LdapObserver(Protocol):
    """The port that `outpost.observe` fills.

    app: slug of the provider's application, empty when no provider was chosen; client: bare address;
    bind_dn: as the client wrote it, empty while anonymous; took_s: seconds; reason: a `RejectReason` or
    `UnavailableReason` value, or empty.
    """

    def connected(self, listener: str) -> None:
        """A connection was taken. listener: `ldap` or `ldaps`."""
        ...

    def disconnected(self, listener: str, client: str, why: str) -> None:
        """A connection is gone. why: `unbind`, `eof`, `lost`, `idle`, `decode`, `limit`, `sequence`, `handshake` (of
        StartTLS), `stalled`, `session_end`, `shutdown`."""
        ...

    def disconnected_early(self, listener: str, client: str, why: str) -> None:
        """A connection ended before it counted as taken. why: `handshake`, `proxy`, `lost`, `too_many`,
        `too_many_of_address`."""
        ...

    def bound(self, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int, reason: str) -> None:
        """A Bind was answered; bind_dn is the name in it."""
        ...

    def explained(self, app: str, client: str, bind_dn: bytes, detail: str) -> None:
        """Why a Bind did not succeed, in words for an administrator; never a secret."""
        ...

    def searched(
        self,
        app: str,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took_s: float,
        result_code: int,
        reason: str,
        entries: int,
    ) -> None:
        """A search was answered, or given up (result_code -1: abandoned). request may be kept; it never changes."""
        ...

    def operated(self, kind: str, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int) -> None:
        """Any other operation was answered. kind: `compare`, `extended`, `add`, `delete`, `modify`, `modifyDN`."""
        ...

    def failed(self, what: str, error: BaseException) -> str:
        """A bug: log it with its traceback; the short identifier that is told to the peer."""
        ...


class Silent:
    """Observes nothing."""

    def connected(self, listener: str) -> None:
        """Nothing."""

    def disconnected(self, listener: str, client: str, why: str) -> None:
        """Nothing."""

    def disconnected_early(self, listener: str, client: str, why: str) -> None:
        """Nothing."""

    def bound(self, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int, reason: str) -> None:
        """Nothing."""

    def explained(self, app: str, client: str, bind_dn: bytes, detail: str) -> None:
        """Nothing."""

    def searched(
        self,
        app: str,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took_s: float,
        result_code: int,
        reason: str,
        entries: int,
    ) -> None:
        """Nothing."""

    def operated(self, kind: str, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int) -> None:
        """Nothing."""

    def failed(self, what: str, error: BaseException) -> str:
        """An identifier that leads nowhere."""
        return "unlogged"
