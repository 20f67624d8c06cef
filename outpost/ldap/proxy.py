"""The PROXY protocol header, versions 1 and 2: who really connected (haproxy's proxy-protocol.txt).

Read with exact octet counts, because what follows belongs to LDAP or TLS.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Generator

from outpost.errors import DecodeError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_MAX = 107
"""Octets of the longest version 1 header, line end included."""
V2_MAX = 1024
"""Octets of addresses and TLVs accepted in version 2."""


def header() -> Generator[int, bytes, str | None]:
    """Yields how many octets are wanted next and is sent exactly those; returns the address of the client.

    None: the proxy speaks for itself (LOCAL, UNKNOWN). Raises DecodeError for what is no header.
    """
    start = yield len(SIGNATURE)
    if start == SIGNATURE:
        return (yield from _version2())
    if start.startswith(b"PROXY "):
        return (yield from _version1(start))
    raise DecodeError("PROXY header: neither version 1 nor 2")


def _version1(line: bytes) -> Generator[int, bytes, str | None]:
    while not line.endswith(b"\r\n"):
        if len(line) >= V1_MAX:
            raise DecodeError("PROXY header: version 1 line is too long")
        line += yield 1
    words = line[:-2].split(b" ")
    if len(words) > 1 and words[1] == b"UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"}:
        raise DecodeError("PROXY header: malformed version 1 line")
    if not all(port.isdigit() and len(port) <= 5 and int(port) < 65536 for port in words[4:]):
        raise DecodeError("PROXY header: malformed port")
    version = 4 if words[1] == b"TCP4" else 6
    try:
        source, target = (ipaddress.ip_address(word.decode("ascii")) for word in words[2:4])
    except ValueError:
        raise DecodeError("PROXY header: malformed address") from None
    if source.version != version or target.version != version:
        raise DecodeError("PROXY header: address of another family")
    return _plain(source)


def _version2() -> Generator[int, bytes, str | None]:
    what, family, size = struct.unpack("!BBH", (yield 4))
    if what >> 4 != 2 or what & 15 > 1:
        raise DecodeError("PROXY header: unknown version or command")
    if size > V2_MAX:
        raise DecodeError(f"PROXY header: {size} octets are more than {V2_MAX}")
    body = (yield size) if size else b""
    if what & 15 == 0:
        return None
    if family >> 4 == 1:
        if size < 12:
            raise DecodeError("PROXY header: truncated addresses")
        return _plain(ipaddress.IPv4Address(body[:4]))
    if family >> 4 == 2:
        if size < 36:
            raise DecodeError("PROXY header: truncated addresses")
        return _plain(ipaddress.IPv6Address(body[:16]))
    return None


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
