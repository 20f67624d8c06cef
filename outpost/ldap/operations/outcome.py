"""What an operation comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from outpost._fastber import Request
from outpost.identity import Revoked
from outpost.ldap._session import Session
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import SortKey

PAGED_LISTINGS = 8
"""Paged searches that one session may have half read."""


class Listing(Protocol):
    """A search whose entries are still to be sent."""

    @property
    def is_finished(self) -> bool:
        """Nothing is left to send."""
        ...

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages, about `size` octets at most; the last ones end with the SearchResultDone."""
        ...

    def give_up(self, now: float) -> None:
        """The client does not want the rest."""
        ...


@dataclass(frozen=True, slots=True)
class Later:
    """The answer needs somebody else; call and await the work to have it."""

    work: Callable[[], Awaitable[bytes | Listing]]


@dataclass(frozen=True, slots=True)
class StartTls:
    """Send the octets, then begin the TLS handshake (RFC 4511 4.14)."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the operation with this messageID and say so (RFC 3909)."""

    request: Request
    message_id: int


Outcome = bytes | Listing | Later | StartTls | Cancel


ResponseControls = tuple[tuple[bytes, bool, bytes | None], ...]
"""Type, criticality and value of each."""


@dataclass(slots=True)
class Page:
    """A paged search between two pages; it holds its snapshot."""

    search: Search
    fingerprint: object
    """What must be the same in the request for the next page."""
    sort: tuple[SortKey, ...]
    """The keys that the listing was asked to be sorted by."""
    expires_at: float = 0.0
    rest: list[bytes] | None = None
    """What is left of a sorted listing; None when `search` itself goes on."""
    code: int = 0
    """resultCode behind the last of `rest`."""
    controls: ResponseControls = ()
    """Sent with every page."""


def is_revoked(session: Session, revoked: Revoked) -> bool:
    """Whether the identity of this session is among what is believed no more."""
    identity, provider = session.identity, session.provider
    if identity is None or provider is None:
        return False
    if revoked.service not in {None, "ldap"}:
        return False
    return (
        revoked.user_pk in {None, identity.user_pk}
        and revoked.session in {None, identity.session}
        and revoked.provider_pk in {None, provider.pk}
    )
