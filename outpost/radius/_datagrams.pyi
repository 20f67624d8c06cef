from typing import final

__all__ = ("Datagrams",)

@final
class Datagrams:
    """One bound, non-blocking UDP socket with IP_PKTINFO or IPV6_RECVPKTINFO set; borrowed, never closed.

    tag: first octet of every path, 0 to 255, so that paths of several sockets differ.
    """

    def __new__(cls, fileno: int, tag: int) -> Datagrams: ...
    @property
    def fileno(self) -> int: ...
    @property
    def batch(self) -> int:
        """Most datagrams that one `receive` returns."""
    def receive(self) -> list[tuple[bytes, bytes, bytes]]:
        """Up to `batch` waiting datagrams as (data, address of 4 or 16 octets, path). Raises OSError."""
    def send(self, replies: list[tuple[bytes, bytes]]) -> int:
        """Send (path, octets) each; how many the system did not take. Never waits, raises no OSError."""
