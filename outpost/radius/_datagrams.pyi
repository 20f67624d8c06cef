from typing import final

__all__ = ("Datagrams",)

@final
class Datagrams:
    """One bound, non-blocking UDP socket with IP_PKTINFO or IPV6_RECVPKTINFO set; borrowed, never closed.

    tag: first octet of every path, 0 to 255, so that paths of several sockets differ.
    What `outpost.radius._express` takes datagrams with is in `_datagrams.pxd`.
    """

    def __new__(cls, fileno: int, tag: int) -> Datagrams: ...
    @property
    def fileno(self) -> int: ...
    @property
    def batch(self) -> int:
        """Most datagrams that are taken at once."""
    def send(self, path: bytes, octets: bytes) -> bool:
        """Send one reply; False if the system did not take it. Never waits, raises no OSError.

        octets: 4096 at most.
        """
