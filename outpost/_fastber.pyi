"""BER as LDAP restricts it (RFC 4511 5.1), LDAPMessage framing and the protocol operations."""

from typing import Final, final

__all__: Final = (
    "AbandonRequest",
    "BindRequest",
    "CompareRequest",
    "Control",
    "ExtendedRequest",
    "Inbox",
    "Limits",
    "OtherRequest",
    "Request",
    "SearchRequest",
    "UnbindRequest",
    "decode_message",
    "encode_bind_result",
    "encode_extended_result",
    "encode_intermediate",
    "encode_result",
    "encode_search_entry",
    "frame_size",
)

@final
class Limits:
    """Named limits of the decoder; octets or counts."""

    def __init__(
        self,
        *,
        message: int = 262_144,
        controls: int = 32,
        filter_depth: int = 64,
        filter_terms: int = 4_096,
        substrings: int = 256,
        attributes: int = 1_024,
    ) -> None: ...
    @property
    def message(self) -> int: ...
    @property
    def controls(self) -> int: ...
    @property
    def filter_depth(self) -> int: ...
    @property
    def filter_terms(self) -> int: ...
    @property
    def substrings(self) -> int: ...
    @property
    def attributes(self) -> int: ...

@final
class Control:
    """One request control (RFC 4511 4.1.11)."""

    @property
    def oid(self) -> bytes: ...
    @property
    def critical(self) -> bool: ...
    @property
    def value(self) -> bytes | None: ...

class Request:
    """What every decoded request carries. `op` is the application tag octet, 0x60 for a BindRequest."""

    @property
    def message_id(self) -> int: ...
    @property
    def op(self) -> int: ...
    @property
    def controls(self) -> tuple[Control, ...]: ...

@final
class BindRequest(Request):
    """RFC 4511 4.2. `mechanism` is None for simple authentication; the repr shows no credentials."""

    @property
    def version(self) -> int: ...
    @property
    def name(self) -> bytes: ...
    @property
    def mechanism(self) -> bytes | None: ...
    @property
    def credentials(self) -> bytes | None: ...

@final
class UnbindRequest(Request):
    """RFC 4511 4.3."""

@final
class SearchRequest(Request):
    """RFC 4511 4.5.1. `filter` is the validated Filter, still BER."""

    @property
    def base_object(self) -> bytes: ...
    @property
    def scope(self) -> int: ...
    @property
    def deref_aliases(self) -> int: ...
    @property
    def size_limit(self) -> int: ...
    @property
    def time_limit(self) -> int: ...
    @property
    def types_only(self) -> bool: ...
    @property
    def filter(self) -> bytes: ...
    @property
    def attributes(self) -> tuple[bytes, ...]: ...

@final
class CompareRequest(Request):
    """RFC 4511 4.10."""

    @property
    def entry(self) -> bytes: ...
    @property
    def attribute(self) -> bytes: ...
    @property
    def assertion_value(self) -> bytes: ...

@final
class AbandonRequest(Request):
    """RFC 4511 4.11."""

    @property
    def abandoned_id(self) -> int: ...

@final
class ExtendedRequest(Request):
    """RFC 4511 4.12."""

    @property
    def name(self) -> bytes: ...
    @property
    def value(self) -> bytes | None: ...

@final
class OtherRequest(Request):
    """A well-framed operation that is not decoded further: add, delete, modify, modifyDN."""

@final
class Inbox:
    """Receive buffer of one connection: octets in, requests out, nothing copied twice.

    Hand `buffer()` to the transport, tell `received(count)`, then take requests with `next()` until it
    returns None.  `feed(data)` is the same for octets that are already `bytes`.
    """

    def __init__(self, limits: Limits) -> None: ...
    limits: Limits
    """May be replaced between messages (small before bind, larger after)."""
    def buffer(self, size_hint: int) -> memoryview: ...
    def received(self, count: int) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def next(self) -> Request | None:
        """The next complete request, or None if more octets are needed.

        Raises DecodeError or LimitExceeded; the connection cannot be used after either.
        """
    def pending(self) -> int:
        """Octets received and not yet consumed."""
    def discard(self) -> int:
        """Drop everything received and not yet consumed; returns how many octets that were."""

def frame_size(data: bytes, limit: int) -> int:
    """Octets in the first LDAPMessage, or 0 when its header is still incomplete (RFC 4511 5.1)."""

def decode_message(data: bytes, limits: Limits) -> Request:
    """The one request that `data` is, with nothing left over. Raises DecodeError or LimitExceeded."""

def encode_result(
    message_id: int,
    op: int,
    result_code: int,
    matched_dn: bytes = b"",
    diagnostic: bytes = b"",
    controls: tuple[tuple[bytes, bool, bytes | None], ...] = (),
) -> bytes:
    """A message whose operation is a bare LDAPResult; `op` is the response's tag octet, 0x65 for searchResDone."""

def encode_bind_result(
    message_id: int,
    result_code: int,
    matched_dn: bytes = b"",
    diagnostic: bytes = b"",
    server_credentials: bytes | None = None,
    controls: tuple[tuple[bytes, bool, bytes | None], ...] = (),
) -> bytes:
    """A BindResponse (RFC 4511 4.2.2)."""

def encode_extended_result(
    message_id: int,
    result_code: int,
    matched_dn: bytes = b"",
    diagnostic: bytes = b"",
    name: bytes | None = None,
    value: bytes | None = None,
    controls: tuple[tuple[bytes, bool, bytes | None], ...] = (),
) -> bytes:
    """An ExtendedResponse (RFC 4511 4.12); message_id 0 makes an unsolicited notification."""

def encode_intermediate(message_id: int, name: bytes | None = None, value: bytes | None = None) -> bytes:
    """An IntermediateResponse (RFC 4511 4.13)."""

def encode_search_entry(message_id: int, object_name: bytes, attributes: list[tuple[bytes, list[bytes]]]) -> bytes:
    """A SearchResultEntry (RFC 4511 4.5.2) from plain values; for the few entries that are in no snapshot."""
