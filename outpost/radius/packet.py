"""Numbers and names of packets, and attributes in their encoded form (RFC 2865 3-5).

An attribute list is ordered `(type, value)` pairs, never a mapping: order and repetition mean something.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from outpost.errors import DecodeError, LimitExceeded


class Code(enum.IntEnum):
    """What a packet is (RFC 2865 3, 2866 3, 5176 2.3, 5997)."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    STATUS_CLIENT = 13
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


_NAMES = {
    Code.COA_REQUEST: "CoA-Request",
    Code.COA_ACK: "CoA-ACK",
    Code.COA_NAK: "CoA-NAK",
    Code.DISCONNECT_ACK: "Disconnect-ACK",
    Code.DISCONNECT_NAK: "Disconnect-NAK",
}
CODE_NAMES = {int(code): _NAMES.get(code, code.name.replace("_", "-").title()) for code in Code}

USER_NAME = 1
USER_PASSWORD = 2
SERVICE_TYPE = 6
REPLY_MESSAGE = 18
STATE = 24
CLASS = 25
SESSION_TIMEOUT = 27
IDLE_TIMEOUT = 28
CALLING_STATION_ID = 31
NAS_IDENTIFIER = 32
PROXY_STATE = 33
EAP_MESSAGE = 79
MESSAGE_AUTHENTICATOR = 80
CHARGEABLE_USER_IDENTITY = 89

CALL_CHECK = 10
"""Service-Type of a MAC authentication bypass (RFC 2865 5.6)."""
LONGEST_VALUE = 253
LONGEST_PACKET = 4096
HEADER_SIZE = 20


def code_name(code: int) -> str:
    """`Access-Request` for 1; `Code-99` for a number without a name."""
    return CODE_NAMES.get(code) or f"Code-{code}"


def encode_attribute(number: int, value: bytes) -> bytes:
    """One attribute (RFC 2865 5). Raises LimitExceeded beyond 253 octets."""
    if len(value) > LONGEST_VALUE:
        raise LimitExceeded(f"an attribute holds {LONGEST_VALUE} octets at most, not {len(value)}")
    return bytes((number, len(value) + 2)) + value


def decode_attributes(octets: bytes, origin: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) of encoded attributes, in order. Raises DecodeError where the bounds are broken.

    origin: where in the packet the octets begin, for the error.
    """
    at = 0
    while at < len(octets):
        left = len(octets) - at
        size = octets[at + 1] if left >= 2 else 0
        if size < 2 or size > left:
            said = f"announces {size} octets of {left}" if left >= 2 else "has no length"
            raise DecodeError(f"attribute out of bounds at octet {origin + at}: type {octets[at]} {said}")
        yield octets[at], octets[at + 2 : at + size]
        at += size


def encode_text(number: int, text: str) -> bytes:
    """Text as one attribute or as several of at most 253 octets, never cut inside a character (RFC 2865 5.18)."""
    octets = text.encode()
    parts = []
    while octets:
        end = min(len(octets), LONGEST_VALUE)
        while end < len(octets) and octets[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(encode_attribute(number, octets[:end]))
        octets = octets[end:]
    return b"".join(parts)
