"""TLS between a plain transport and a channel: octets through the ssl module's memory, in the turn they come in."""

import asyncio
import ssl
from typing import Any, Final, Protocol, type_check_only

from typing_extensions import disjoint_base

__all__: Final = ("TlsEnd",)

@type_check_only
class Encrypted(Protocol):
    """Whoever is behind TLS: a buffered protocol without `connection_made`."""

    def encrypted(self, end: TlsEnd, /) -> None:
        """The handshake is done; `end` is the transport from now on."""
    def get_buffer(self, sizehint: int, /) -> memoryview:
        """Room for octets, not empty; asked for more than once before some come."""
    def buffer_updated(self, nbytes: int, /) -> None:
        """Octets came."""
    def eof_received(self) -> bool | None:
        """The client said that it sends no more (close_notify); closed is whatever comes back."""
    def connection_lost(self, exc: Exception | None, /) -> None:
        """It is over, be it before the handshake was done."""
    def pause_writing(self) -> None:
        """The client does not read fast enough."""
    def resume_writing(self) -> None:
        """It does again."""

@disjoint_base
class TlsEnd:
    """The server's end of one TLS connection: a buffered protocol to the plain transport, a transport to `wire`.

    scratch: where encrypted octets are read into; nothing stays there, so that all connections of a loop share it.
    Raises ssl.SSLError. Whatever is wrong with what the client sends ends the connection, after an alert.
    An exception of `wire` goes to whoever called, which is to say that the transport ends this connection alone.
    """

    def __init__(self, wire: Encrypted, context: ssl.SSLContext, scratch: memoryview) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The plain transport is ready; the client speaks first."""
    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for encrypted octets."""
    def buffer_updated(self, nbytes: int) -> None:
        """Encrypted octets came."""
    def eof_received(self) -> bool:
        """The connection was closed without close_notify."""
    def connection_lost(self, exc: Exception | None) -> None:
        """The plain transport is gone."""
    def pause_writing(self) -> None:
        """The client does not read fast enough."""
    def resume_writing(self) -> None:
        """It does again."""
    def write(self, data: bytes) -> None:
        """Encrypt and send; nothing happens once it is closed."""
    def close(self) -> None:
        """Send close_notify behind what was written and close, without waiting for the client's own."""
    def abort(self) -> None:
        """Drop the connection with whatever waits to be sent."""
    def is_closing(self) -> bool:
        """Nothing can be sent any more."""
    def pause_reading(self) -> None:
        """Neither read nor decrypt."""
    def resume_reading(self) -> None:
        """Go on with both."""
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of encrypted octets."""
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, and whatever the plain transport knows."""
    def go_on(self) -> None:
        """Decrypt what came before reading was paused."""
