"""RADIUS packets by hashlib and hmac alone: what `outpost._fastradius` is held against."""

import hashlib
import hmac
import struct
from collections.abc import Iterator

COMPUTED = {4, 40, 43}


def hide(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    padded = password + bytes(-len(password) % 16) or bytes(16)
    hidden, chain = b"", authenticator
    for at in range(0, len(padded), 16):
        pad = hashlib.md5(secret + chain).digest()
        chain = bytes(a ^ b for a, b in zip(padded[at : at + 16], pad, strict=True))
        hidden += chain
    return hidden


def unhide(hidden: bytes, secret: bytes, authenticator: bytes) -> bytes | None:
    if not 16 <= len(hidden) <= 128 or len(hidden) % 16:
        return None
    plain, chain = b"", authenticator
    for at in range(0, len(hidden), 16):
        pad = hashlib.md5(secret + chain).digest()
        chain = hidden[at : at + 16]
        plain += bytes(a ^ b for a, b in zip(chain, pad, strict=True))
    return plain.rstrip(b"\0")


def attribute(number: int, value: bytes) -> bytes:
    return bytes((number, len(value) + 2)) + value


def attributes(packet: bytes) -> list[tuple[int, bytes]] | None:
    found, at, end = [], 20, struct.unpack(">H", packet[2:4])[0]
    while at < end:
        if end - at < 2 or packet[at + 1] < 2 or packet[at + 1] > end - at:
            return None
        found.append((packet[at], packet[at + 2 : at + packet[at + 1]]))
        at += packet[at + 1]
    return found


def message_authenticator(packet: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """What the one Message-Authenticator of `packet` should be."""
    body = b""
    for number, value in attributes(packet) or []:
        body += attribute(number, bytes(16) if number == 80 else value)
    return hmac.digest(secret, packet[:4] + authenticator + body, "md5")


def signed(data: bytes, secret: bytes) -> bool:
    """Whether the one Message-Authenticator of `data` holds."""
    signatures = [value for number, value in attributes(data) or [] if number == 80]
    return signatures == [message_authenticator(data, secret, data[4:20])]


def mended(data: bytes, found: list[tuple[int, bytes]], whole: bytes) -> Iterator[bytes]:
    """Packets that one damaged octet may have made `data` of: a type, the Length, an attribute's length."""
    yield whole[:2] + struct.pack(">H", len(whole) & 0xFFFF) + whole[4:]
    at = 20
    for _, value in found:
        yield data[:at] + bytes([80]) + data[at + 1 :]
        if bytes([80, 18]) in value:
            for length in range(2, len(value)):
                yield data[: at + 1] + bytes([length]) + data[at + 2 :]
        at += len(value) + 2


def accepts(data: bytes, secret: bytes) -> bool:
    """Whether a datagram is a well-formed request whose authenticators hold, and no damage hides that they did."""
    if len(data) < 20:
        return False
    size = struct.unpack(">H", data[2:4])[0]
    if not 20 <= size <= 4096 or size > len(data):
        return False
    data, whole = data[:size], data
    found = attributes(data)
    if found is None or len(found) > 200:
        return False
    authenticator = data[4:20]
    if data[0] in COMPUTED:
        if hashlib.md5(data[:4] + bytes(16) + data[20:] + secret).digest() != authenticator:
            return False
        authenticator = bytes(16)
    signatures = [value for number, value in found if number == 80]
    if not signatures:
        return data[0] in COMPUTED or not any(signed(one, secret) for one in mended(data, found, whole))
    return signatures == [message_authenticator(data, secret, authenticator)]


def request(
    code: int, identifier: int, authenticator: bytes, body: bytes, secret: bytes, sign: bool = True, last: bool = False
) -> bytes:
    """A request as a client makes it; `last` puts the Message-Authenticator at the end."""
    signature = attribute(80, bytes(16)) if sign else b""
    body = body + signature if last else signature + body
    if code in COMPUTED:
        authenticator = bytes(16)
    head = struct.pack(">BBH", code, identifier, 20 + len(body))
    if sign:
        at = len(body) - 16 if last else 2
        mac = hmac.digest(secret, head + authenticator + body, "md5")
        body = body[:at] + mac + body[at + 16 :]
    if code in COMPUTED:
        authenticator = hashlib.md5(head + bytes(16) + body + secret).digest()
    return head + authenticator + body


def response_holds(reply: bytes, request_authenticator: bytes, secret: bytes) -> bool:
    """Length, Response Authenticator, and a Message-Authenticator as the very first attribute."""
    found = attributes(reply)
    if found is None or struct.unpack(">H", reply[2:4])[0] != len(reply) or not found or found[0][0] != 80:
        return False
    digest = hashlib.md5(reply[:4] + request_authenticator + reply[20:] + secret).digest()
    return digest == reply[4:20] and found[0][1] == message_authenticator(reply, secret, request_authenticator)
