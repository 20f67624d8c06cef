"""Datagrams to requests: client, authenticators, policy and duplicates, in this order (RFC 2865 3, 5080 2.2.2).

Sans-I/O: octets and the time come in, requests and stored replies come out.  Nothing is remembered for a
packet whose Message-Authenticator does not hold.  The path is whatever the transport needs to answer (for UDP both
addresses and the sender's port); here it is only a part of the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import final

from outpost import _fastradius
from outpost.radius import _intake
from outpost.radius._intake import Intake, Replies, Request
from outpost.radius.clients import ClientTable, unmapped
from outpost.radius.observer import DropReason, RadiusObserver

VERDICTS = {
    number: DropReason[name]
    for name, number in {**vars(_fastradius), **vars(_intake)}.items()
    if name in DropReason.__members__ and isinstance(number, int)
}

QUIET = frozenset({DropReason.DUPLICATE, DropReason.SUPERSEDED, DropReason.OVERLOADED})
"""Part of normal life under load: counted, not logged one by one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the memory and the patience of one exchange."""

    logins: int = 4096
    """Logins that somebody is asked about at a time."""
    delayed: int = 16384
    """Rejects held back at a time; further ones go out at once (the gate throttles guessing by itself)."""
    pending: int = 20480
    """Requests in work, of both kinds."""
    replies: int = 65536
    """Replies kept for retransmissions; the oldest goes first."""
    reply_octets: int = 64 << 20
    """Octets of requests and replies kept."""
    reply_lifetime_s: float = 10.0
    """How long a reply is kept; RFC 5080 2.2.2 has 5 to 30 seconds, and devices wait 3 to 5 before they ask again."""
    abandon_after_s: float = 60.0
    """A request undecided by then is forgotten; a person confirming on a telephone takes less."""
    notice_interval_s: float = 30.0
    """At most one log line per reason and address in this time."""
    notices: int = 1024
    """(reason, address) pairs whose log lines are held back; beyond that they are only counted."""


DEFAULTS = Limits()


@final
class Exchange:
    """The requests in work and the replies given lately. Counts and tells every drop through the observer."""

    def __init__(self, table: ClientTable, observer: RadiusObserver, limits: Limits = DEFAULTS) -> None:
        self.table = table
        """May be replaced at any time."""
        self._observer = observer
        self._limits = limits
        self.intake = Intake(Replies(limits.replies, limits.reply_octets, limits.reply_lifetime_s))
        """For `outpost.radius._express`, which shares it."""
        self._notices: dict[tuple[DropReason, bytes], list[float]] = {}

    @property
    def pending(self) -> int:
        """Requests in work."""
        return len(self.intake.pending)

    @property
    def replies(self) -> int:
        """Replies kept."""
        return len(self.intake.replies)

    def receive_datagram(self, data: bytes, address: bytes, path: bytes, now: float) -> Request | bytes | None:
        """A new request, the octets of a reply to send once more, or None for silence.

        The request is to be finished, given up or held before the next datagram is received.
        address: the sender's, 4 or 16 octets; path: where a reply goes, the same octets for the same sender, port and
        listener; now: monotonic seconds.
        """
        peer = self.table.find(address)
        if peer is None:
            self._drop(DropReason.UNKNOWN_CLIENT, "", address, now)
            return None
        found = self.intake.receive(data, peer, path, now)
        if isinstance(found, Request):
            if found.is_superseding:
                self._drop(DropReason.SUPERSEDED, peer.client.app, address, now)
            return found
        if isinstance(found, int):
            self._drop(VERDICTS[found], peer.client.app, address, now)
            return None
        self._observer.resent(peer.client.app)
        return found

    def hold(self, request: Request) -> bool:
        """Remember a request that is not answered at once; False if there are too many, and it is dropped."""
        pending = self.intake.pending
        if len(pending) >= self._limits.pending and pending.get(request.key) is not request:
            self.give_up(request, DropReason.OVERLOADED, request.received_at)
            return False
        self.intake.hold(request)
        return True

    def finish(self, request: Request, reply: bytes, now: float) -> bool:
        """Keep the reply for retransmissions; whether it is to be sent at all."""
        return self.intake.finish(request, reply, now)

    def give_up(self, request: Request, reason: DropReason, now: float) -> None:
        """No answer: count it, and let a retransmission be a new request."""
        if self.intake.end(request):
            self._drop(reason, request.client.app, ip_address(request.source.address).packed, now)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to do; None for never."""
        deadlines = []
        pending = self.intake.pending
        if pending:
            deadlines.append(next(iter(pending.values())).received_at + self._limits.abandon_after_s)
        reply = self.intake.replies.next_deadline()
        if reply is not None:
            deadlines.append(reply)
        return min(deadlines, default=None)

    def handle_deadline(self, now: float) -> None:
        """Forget what is over: replies nobody asks for any more, requests nobody waits for."""
        self.intake.replies.expire(now)
        pending = self.intake.pending
        while pending:
            oldest = next(iter(pending.values()))
            if now < oldest.received_at + self._limits.abandon_after_s:
                break
            self.give_up(oldest, DropReason.ABANDONED, now)
        self._tell_suppressed(now)

    # -- inside -----------------------------------------------------------------------------------

    def _drop(self, reason: DropReason, app: str, address: bytes, now: float) -> None:
        self._observer.dropped(reason, app)
        if reason in QUIET:
            return
        name = (reason, unmapped(address))
        told = self._notices.get(name)
        if told is None:
            if len(self._notices) >= self._limits.notices:
                return
            self._notices[name] = [now, 0]
        elif now < told[0] + self._limits.notice_interval_s:
            told[1] += 1
            return
        else:
            self._notices[name] = [now, 0]
        suppressed = 0 if told is None else int(told[1])
        self._observer.noticed(reason, app, str(ip_address(name[1])), suppressed)

    def _tell_suppressed(self, now: float) -> None:
        over = [name for name, told in self._notices.items() if now >= told[0] + self._limits.notice_interval_s]
        for name in over:
            suppressed = int(self._notices.pop(name)[1])
            if suppressed:
                self._observer.noticed(name[0], "", str(ip_address(name[1])), suppressed)
