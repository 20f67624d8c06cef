"""What is in a RADIUS packet, as text: `outpost decode radius`. The same decoder of attributes as the server's."""

from __future__ import annotations

from collections.abc import Iterator

from outpost.errors import DecodeError
from outpost.radius.packet import HEADER_SIZE, LONGEST_PACKET, VENDOR_SPECIFIC, code_name, decode_attributes

NAMES = {
    1: "User-Name",
    2: "User-Password",
    3: "CHAP-Password",
    4: "NAS-IP-Address",
    5: "NAS-Port",
    6: "Service-Type",
    7: "Framed-Protocol",
    8: "Framed-IP-Address",
    11: "Filter-Id",
    12: "Framed-MTU",
    18: "Reply-Message",
    24: "State",
    25: "Class",
    26: "Vendor-Specific",
    27: "Session-Timeout",
    28: "Idle-Timeout",
    30: "Called-Station-Id",
    31: "Calling-Station-Id",
    32: "NAS-Identifier",
    33: "Proxy-State",
    40: "Acct-Status-Type",
    44: "Acct-Session-Id",
    60: "CHAP-Challenge",
    61: "NAS-Port-Type",
    64: "Tunnel-Type",
    65: "Tunnel-Medium-Type",
    77: "Connect-Info",
    79: "EAP-Message",
    80: "Message-Authenticator",
    81: "Tunnel-Private-Group-Id",
    87: "NAS-Port-Id",
}
"""The everyday attributes (RFC 2865, 2866, 2868, 2869); any other shows as ATTR-n."""
TEXTS = frozenset({1, 11, 18, 30, 31, 32, 44, 77, 87})
NUMBERS = frozenset({5, 6, 7, 12, 27, 28, 40, 61})
ADDRESSES = frozenset({4, 8})
HIDDEN = frozenset({2, 3})
"""Recoverable, by guessing at least, for whoever knows the shared secret."""


def describe(octets: bytes) -> str:
    """One line for the header and one per attribute, in order (RFC 2865 3 and 5). Raises DecodeError.

    Nothing is verified, since that takes the shared secret.
    """
    if len(octets) < HEADER_SIZE:
        raise DecodeError(f"a packet has at least {HEADER_SIZE} octets, not {len(octets)}")
    length = int.from_bytes(octets[2:4], "big")
    if not HEADER_SIZE <= length <= min(len(octets), LONGEST_PACKET):
        raise DecodeError(f"the header announces {length} octets, there are {len(octets)}")
    return "\n".join(_lines(octets, length))


def _lines(octets: bytes, length: int) -> Iterator[str]:
    yield f"{code_name(octets[0])} identifier={octets[1]} length={length}"
    yield f"  {'authenticator':<24} {octets[4:20].hex()}"
    for number, value in decode_attributes(octets[HEADER_SIZE:length]):
        yield f"  {NAMES.get(number, f'ATTR-{number}'):<24} {_value(number, value)}"
    if len(octets) > length:
        yield f"  {'(padding)':<24} {len(octets) - length} octets"


def _value(number: int, value: bytes) -> str:
    if number in HIDDEN:
        return f"{len(value)} octets ***"
    if number in ADDRESSES and len(value) == 4:
        return ".".join(map(str, value))
    if number in NUMBERS and len(value) == 4:
        return str(int.from_bytes(value, "big"))
    if number in TEXTS:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return "0x" + value.hex()
        return text if text.isprintable() else repr(text)
    if number == VENDOR_SPECIFIC and len(value) > 4:
        return f"vendor {int.from_bytes(value[:4], 'big')}: 0x{value[4:].hex()}"
    return "0x" + value.hex()
