"""Who gets TLS 1.3 tickets (RFC 8446 4.6.1). Making one costs a tenth of a handshake, and few LDAP clients use any."""

from __future__ import annotations

from typing import Final, final

FIRST: Final = 8
"""Handshakes of an address that each get a ticket, whatever came of the ones before."""
EVERY: Final = 32
"""Of so many later ones two in a row get one, so that it is seen when clients there begin to resume."""
ADDRESSES: Final = 16_384
"""Remembered at a time."""


@final
class Tickets:
    """Counts for each address the handshakes since a session was resumed."""

    def __init__(self) -> None:
        self._in_full: dict[str, int] = {}

    def due(self, address: str) -> int:
        """How many tickets the next handshake of a client gets."""
        count = self._in_full.get(address, 0)
        return 1 if count < FIRST or count % EVERY < 2 else 0

    def finished(self, address: str, *, is_resumed: bool) -> None:
        """A handshake was done, in full or with a ticket."""
        if is_resumed:
            self._in_full.pop(address, None)
            return
        if address not in self._in_full and len(self._in_full) >= ADDRESSES:
            self._in_full.clear()
        self._in_full[address] = self._in_full.get(address, 0) + 1
