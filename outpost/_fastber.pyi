"""BER as LDAP restricts it (RFC 4511 5.1), LDAPMessage framing and the protocol operations."""

from typing import Final, final

from typing_extensions import disjoint_base

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
    "check_filter",
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
    """Named limits of the decoder; octets or counts. Raises ValueError for limits nothing could pass.

    message: octets of a whole LDAPMessage, header included.  controls: per message.
    filter_depth: a lone item has depth 1; at most 512.  filter_terms: and, or, not and items together.
    substrings: pieces of one substring filter.  attributes: of one attribute selection.
    """

    def __init__(
        self,
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
    """One request control (RFC 4511 4.1.11); the repr shows the size of the value, not the value."""

    @property
    def oid(self) -> bytes: ...
    @property
    def critical(self) -> bool: ...
    @property
    def value(self) -> bytes | None: ...

@disjoint_base
class Request:
    """What every decoded request carries. `op` is the application tag octet, 0x60 for a BindRequest."""

    @property
    def message_id(self) -> int: ...
    @property
    def op(self) -> int: ...
    @property
    def controls(self) -> tuple[Control, ...]: ...
    def result(
        self,
        result_code: int,
        matched_dn: bytes = b"",
        diagnostic: bytes = b"",
        controls: tuple[tuple[bytes, bool, bytes | None], ...] = (),
    ) -> bytes:
        """The encoded final response to this request, with its messageID and the matching tag.

        Raises ValueError for what is never answered: unbind, abandon and unknown operations.
        """

@final
class BindRequest(Request):
    """RFC 4511 4.2. `mechanism` is None for simple authentication; the repr shows no credentials.

    `version` is 1..127. An authentication choice that is neither simple nor SASL has `mechanism` b"" and no
    credentials, which no server supports: authMethodNotSupported (7).
    """

    @property
    def authentication(self) -> int:
        """Tag octet of the choice: 0x80 simple, 0xA3 SASL, anything else unknown."""
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
    """RFC 4511 4.5.1. `filter` is the validated Filter, still BER; the repr shows its size."""

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
    """RFC 4511 4.10. The repr does not show the assertion value."""

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
    """RFC 4511 4.12. The repr shows the size of the value, not the value."""

    @property
    def name(self) -> bytes: ...
    @property
    def value(self) -> bytes | None: ...

@final
class OtherRequest(Request):
    """A well-framed operation that is not decoded further.

    `op` 0x66 modify, 0x68 add, 0x4A delete, 0x6C modifyDN; every other value is no request at all and is
    answered with Notice of Disconnection, protocolError (RFC 4511 4.1.1).
    """

@final
class Inbox:
    """Receive buffer of one connection: octets in, requests out, nothing copied twice.

    Hand `buffer()` to the transport, tell `received(count)`, then take requests with `next()` until it
    returns None.  `feed(data)` is the same for octets that are already `bytes`.

    It grows with what was received, never with what a header announces, and shrinks when it is idle.
    Octets of binds and extended operations are wiped as soon as they are decoded.
    """

    def __new__(cls, limits: Limits) -> Inbox: ...
    @property
    def limits(self) -> Limits:
        """May be replaced between messages (small before bind, larger after)."""
    @limits.setter
    def limits(self, limits: Limits) -> None: ...
    def buffer(self, size_hint: int = -1) -> memoryview:
        """Room for at least 1024 further octets; valid until the next call of `buffer` or `feed`.

        size_hint: not needed, as asyncio's BufferedProtocol passes it. A view kept for longer is harmless
        but deaf. Raises LimitExceeded when more than the message limit and 64 KiB lie unread.
        """
    def received(self, count: int) -> None:
        """`count` octets were written at the start of the last `buffer()`."""
    def feed(self, data: bytes) -> None:
        """Append octets."""
    def next(self) -> Request | None:
        """The next complete request, or None if more octets are needed.

        Raises DecodeError or LimitExceeded; the connection cannot be used after either.
        """
    def pending(self) -> int:
        """Octets received and not yet consumed."""
    def discard(self) -> int:
        """Drop everything received and not yet consumed; returns how many octets that were."""

def frame_size(data: bytes, limit: int) -> int:
    """Octets in the first LDAPMessage, or 0 when its header is still incomplete (RFC 4511 5.1).

    Judges from the 2 to 6 octets of the header: raises DecodeError or, over `limit` octets, LimitExceeded.
    """

def check_filter(data: bytes, limits: Limits) -> None:
    """Raises DecodeError or LimitExceeded unless `data` is exactly one well-formed Filter (RFC 4511 4.5.1.7)."""

def decode_message(data: bytes, limits: Limits) -> Request:
    """The one request that `data` is, with nothing left over. Raises DecodeError or LimitExceeded.

    What a sender may choose is taken as it comes: lengths in up to 4 octets, any octet but 0 for TRUE, components
    of unknown tags at the end of a SEQUENCE (RFC 4511 4; not the SEQUENCE's own repeated, nor the APPLICATION class).
    """

def encode_result(
    message_id: int,
    op: int,
    result_code: int,
    matched_dn: bytes = b"",
    diagnostic: bytes = b"",
    controls: tuple[tuple[bytes, bool, bytes | None], ...] = (),
) -> bytes:
    """A message whose operation is a bare LDAPResult; `op` is the response's tag octet, 0x65 for searchResDone.

    Raises ValueError for every other `op`; this and all the others, ValueError or OverflowError for a messageID or
    resultCode that is not in 0..maxInt (RFC 4511 4.1.1).
    """

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
