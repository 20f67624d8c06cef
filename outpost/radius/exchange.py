"""Datagrams to requests: client, authenticators, policy and duplicates, in this order (RFC 2865 3, 5080 2.2.2).

Sans-I/O: octets and the time come in, requests and stored replies come out.  Nothing is remembered for a
packet whose Message-Authenticator does not hold.  The path is whatever the transport needs to answer (for UDP both
addresses and the sender's port); here it is only a part of the key.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import final

from outpost import _fastradius
from outpost._fastradius import Packet, Replies, decode
from outpost.identity import Source
from outpost.radius.clients import Client, ClientTable, unmapped
from outpost.radius.observer import DropReason, RadiusObserver
from outpost.radius.packet import Code

VERDICTS = {
    _fastradius.TOO_SHORT: DropReason.TOO_SHORT,
    _fastradius.BAD_LENGTH: DropReason.BAD_LENGTH,
    _fastradius.BAD_ATTRIBUTE: DropReason.BAD_ATTRIBUTE,
    _fastradius.TOO_MANY_ATTRIBUTES: DropReason.TOO_MANY_ATTRIBUTES,
    _fastradius.MALFORMED_MESSAGE_AUTHENTICATOR: DropReason.MALFORMED_MESSAGE_AUTHENTICATOR,
    _fastradius.BAD_MESSAGE_AUTHENTICATOR: DropReason.BAD_MESSAGE_AUTHENTICATOR,
    _fastradius.BAD_REQUEST_AUTHENTICATOR: DropReason.BAD_REQUEST_AUTHENTICATOR,
}
ANSWERED = frozenset({int(Code.ACCESS_REQUEST), int(Code.STATUS_SERVER)})

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
class Request:
    """One request to be answered once."""

    __slots__ = ("client", "is_live", "key", "packet", "path", "received_at", "source")

    def __init__(
        self, packet: Packet, client: Client, source: Source, path: bytes, key: bytes, received_at: float
    ) -> None:
        self.packet = packet
        self.client = client
        self.source = source
        self.path = path
        self.key = key
        self.received_at = received_at
        self.is_live = True
        """False once it was superseded, abandoned or finished: its answer must not be sent."""


@final
class Exchange:
    """The requests in work and the replies given lately. Counts and tells every drop through the observer."""

    def __init__(self, table: ClientTable, observer: RadiusObserver, limits: Limits = DEFAULTS) -> None:
        self.table = table
        """May be replaced at any time."""
        self._observer = observer
        self._limits = limits
        self._pending: OrderedDict[bytes, Request] = OrderedDict()
        self._replies = Replies(limits.replies, limits.reply_octets, limits.reply_lifetime_s)
        self._notices: dict[tuple[DropReason, bytes], list[float]] = {}

    @property
    def pending(self) -> int:
        """Requests in work."""
        return len(self._pending)

    @property
    def replies(self) -> int:
        """Replies kept."""
        return len(self._replies)

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
        client = peer.client
        packet = judge(data, client)
        if isinstance(packet, DropReason):
            self._drop(packet, client.app, address, now)
            return None
        key = packet.key(path)
        reply = self._replies.find(key, packet.octets, now)
        if reply is not None:
            self._observer.resent(client.app)
            return reply
        older = self._pending.get(key)
        if older is not None:
            if older.packet.octets == packet.octets:
                self._drop(DropReason.DUPLICATE, client.app, address, now)
                return None
            self._end(older)
            self._drop(DropReason.SUPERSEDED, client.app, address, now)
        return Request(packet, client, peer.source, path, key, now)

    def hold(self, request: Request) -> bool:
        """Remember a request that is not answered at once; False if there are too many, and it is dropped."""
        if len(self._pending) >= self._limits.pending and self._pending.get(request.key) is not request:
            self.give_up(request, DropReason.OVERLOADED, request.received_at)
            return False
        self._pending[request.key] = request
        return True

    def finish(self, request: Request, reply: bytes, now: float) -> bool:
        """Keep the reply for retransmissions; whether it is to be sent at all."""
        if not request.is_live:
            return False
        self._end(request)
        self._replies.keep(request.key, request.packet.octets, reply, now)
        return True

    def give_up(self, request: Request, reason: DropReason, now: float) -> None:
        """No answer: count it, and let a retransmission be a new request."""
        if request.is_live:
            self._end(request)
            self._drop(reason, request.client.app, ip_address(request.source.address).packed, now)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` has something to do; None for never."""
        deadlines = []
        if self._pending:
            deadlines.append(next(iter(self._pending.values())).received_at + self._limits.abandon_after_s)
        reply = self._replies.next_deadline()
        if reply is not None:
            deadlines.append(reply)
        return min(deadlines, default=None)

    def handle_deadline(self, now: float) -> None:
        """Forget what is over: replies nobody asks for any more, requests nobody waits for."""
        self._replies.expire(now)
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if now < oldest.received_at + self._limits.abandon_after_s:
                break
            self.give_up(oldest, DropReason.ABANDONED, now)
        self._tell_suppressed(now)

    # -- inside -----------------------------------------------------------------------------------

    def _end(self, request: Request) -> None:
        request.is_live = False
        if self._pending.get(request.key) is request:
            del self._pending[request.key]

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


def judge(data: bytes, client: Client) -> Packet | DropReason:
    """The request in a datagram of this client, or why it gets no answer."""
    packet = decode(data, client.secret)
    if isinstance(packet, int):
        return VERDICTS[packet]
    if packet.code not in ANSWERED:
        return DropReason.UNEXPECTED_CODE
    if not packet.is_signed:
        if packet.code == Code.STATUS_SERVER:
            return DropReason.STATUS_WITHOUT_MESSAGE_AUTHENTICATOR  # RFC 5997 3
        if packet.has_eap:
            return DropReason.EAP_WITHOUT_MESSAGE_AUTHENTICATOR  # RFC 3579 3.1
        if client.is_signature_required:
            return DropReason.MISSING_MESSAGE_AUTHENTICATOR
        if packet.has_proxy_state and not client.is_proxy_state_free:
            return DropReason.PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR
    return DropReason.AMBIGUOUS if packet.is_ambiguous else packet
