"""One pass over a batch of datagrams: logins that are known already are answered in it, without a task or an object."""

from collections.abc import Callable
from typing import final

from outpost.identity import Accepted
from outpost.radius._datagrams import Datagrams
from outpost.radius._intake import Intake, Request
from outpost.radius.clients import Client
from outpost.radius.exchange import Exchange
from outpost.radius.observer import RadiusObserver
from outpost.radius.service import Gate

__all__ = ("Express",)

@final
class Express:
    """Answers datagrams, each as `general` would.

    exchange, intake: the same ones that `general` works with; gate: asked in C where it lets itself be; lasting: id
    of an `Accepted` to itself, the client, and the encoded attributes of every Access-Accept to a plain login, as far
    as that is known; general: answers any datagram (data, address, path, now); unknown: answers a login that the gate
    does not know; accepted: answers one that it does, where its attributes are not lasting.  These three give the
    octets to send at once, if any.  clock: monotonic seconds; epoch: seconds since the epoch.
    """

    def __new__(
        cls,
        exchange: Exchange,
        intake: Intake,
        observer: RadiusObserver,
        *,
        gate: Gate,
        lasting: dict[int, tuple[Accepted, Client, bytes]],
        general: Callable[[bytes, bytes, bytes, float], bytes | None],
        unknown: Callable[[Request, str, bytes, float], bytes | None],
        accepted: Callable[[Request, str, Accepted, float], bytes | None],
        clock: Callable[[], float],
        epoch: Callable[[], float],
    ) -> Express: ...
    def turn(self, socket: Datagrams) -> int:
        """Answer what waits at this socket, one batch at most; how many datagrams that was. Raises OSError."""
