"""Datagrams to requests in C: authenticators, policy, repetitions (RFC 2865 3, 5080 2.2.2)."""

from collections import OrderedDict
from typing import Any, Final, final

from outpost._fastradius import Packet, SharedSecret

__all__: Final = (
    "AMBIGUOUS",
    "DUPLICATE",
    "EAP_WITHOUT_MESSAGE_AUTHENTICATOR",
    "MISSING_MESSAGE_AUTHENTICATOR",
    "PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR",
    "STATUS_WITHOUT_MESSAGE_AUTHENTICATOR",
    "UNEXPECTED_CODE",
    "Intake",
    "Peer",
    "Replies",
    "Request",
)

UNEXPECTED_CODE: int
"""Neither Access-Request nor Status-Server."""
STATUS_WITHOUT_MESSAGE_AUTHENTICATOR: int
"""RFC 5997 3."""
EAP_WITHOUT_MESSAGE_AUTHENTICATOR: int
"""RFC 3579 3.1."""
MISSING_MESSAGE_AUTHENTICATOR: int
"""The policy requires one."""
PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR: int
"""The policy does not let this pass."""
AMBIGUOUS: int
"""`Packet.is_ambiguous`."""
DUPLICATE: int
"""The same octets are a request in work."""

@final
class Replies:
    """Replies given lately, for requests that come again (RFC 5080 2.2.2). The oldest goes first.

    Keys have 64 octets at most, or ValueError is raised.

    most: replies kept; most_octets: of requests and replies together; lifetime_s: seconds each is kept.
    """

    def __new__(cls, most: int, most_octets: int, lifetime_s: float) -> Replies: ...
    def __len__(self) -> int: ...
    def find(self, key: bytes, request: bytes, now: float) -> bytes | None:
        """The reply that the very same octets got under this key; None if there is none (any more)."""
    def keep(self, key: bytes, request: bytes, reply: bytes, now: float) -> None:
        """Keep a reply, and let go of the oldest ones beyond the limits."""
    def next_deadline(self) -> float | None:
        """When the oldest reply is over; None without any."""
    def expire(self, now: float) -> None:
        """Let go of the replies nobody asks for any more; of very many only some at a time."""

@final
class Peer:
    """One address that sends, and who serves it.

    client, source: the caller's, handed on to each request; is_signature_required: an Access-Request without
    Message-Authenticator gets no answer; is_proxy_state_free: nor does one with Proxy-State, unless this is set.
    """

    def __init__(
        self,
        client: Any,
        source: Any,
        secret: SharedSecret,
        *,
        is_signature_required: bool,
        is_proxy_state_free: bool,
    ) -> None: ...
    @property
    def client(self) -> Any: ...
    @property
    def source(self) -> Any: ...
    @property
    def secret(self) -> SharedSecret: ...

@final
class Request:
    """One request to be answered once. Made by `Intake.receive` only."""

    @property
    def packet(self) -> Packet: ...
    @property
    def client(self) -> Any:
        """The peer's."""
    @property
    def source(self) -> Any:
        """The peer's."""
    @property
    def path(self) -> bytes: ...
    @property
    def key(self) -> bytes: ...
    @property
    def received_at(self) -> float: ...
    @property
    def is_live(self) -> bool:
        """False once it was superseded, given up or finished: its answer must not be sent."""
    @property
    def is_superseding(self) -> bool:
        """It took the place of another one, which got no answer."""

@final
class Intake:
    """Datagrams to requests: authenticators, policy, duplicates, in this order (RFC 2865 3, 5080 2.2.2).

    Nothing is remembered for a packet whose Message-Authenticator does not hold.
    """

    def __new__(cls, replies: Replies) -> Intake: ...
    @property
    def replies(self) -> Replies: ...
    @property
    def pending(self) -> OrderedDict[bytes, Request]:
        """Requests that are held, oldest first."""
    def receive(self, data: bytes, peer: Peer, path: bytes, now: float) -> Request | bytes | int:
        """A new request, the octets of a reply to send once more, or the number of why there is no answer."""
    def hold(self, request: Request) -> None:
        """Remember a request that is not answered at once."""
    def finish(self, request: Request, reply: bytes, now: float) -> bool:
        """Keep the reply for retransmissions; False if the request was answered or given up before."""
    def end(self, request: Request) -> bool:
        """Nobody will answer this request any more; False if that was so before."""
