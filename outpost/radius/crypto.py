"""Authenticators and hidden attributes off the hot path, and the salt encryption (RFC 2868 3.5, 2548 2.4.2).

`outpost._fastradius` does the same for whole packets on the hot path.
"""

from __future__ import annotations

import hashlib
import hmac

LONGEST_SALTED = 239
"""Octets of plaintext: 253 less tag, salt and length octet, in blocks of 16."""


def _stream(octets: bytes, secret: bytes, first: bytes, *, hiding: bool) -> bytes:
    """b(1) = MD5(S + first), b(i) = MD5(S + c(i-1)); octets in blocks of 16."""
    out, chain = bytearray(), first
    for at in range(0, len(octets), 16):
        block = octets[at : at + 16]
        pad = hashlib.md5(secret + chain, usedforsecurity=False).digest()
        mixed = bytes(a ^ b for a, b in zip(block, pad, strict=True))
        chain = mixed if hiding else block
        out += mixed
    return bytes(out)


def salted_size(plain: bytes) -> int:
    """Octets of what `encrypt_salted` makes of it."""
    return 2 + (len(plain) + 16) // 16 * 16


def encrypt_salted(plain: bytes, secret: bytes, request_authenticator: bytes, salt: bytes) -> bytes:
    """Salt and ciphertext (RFC 2868 3.5).

    salt: 2 octets, the first bit set, unlike any other salt of the packet.  Raises ValueError beyond 239 octets.
    """
    if len(plain) > LONGEST_SALTED:
        raise ValueError(f"an encrypted attribute holds {LONGEST_SALTED} octets at most")
    if len(salt) != 2 or not salt[0] & 0x80 or len(request_authenticator) != 16:
        raise ValueError("no salt or no authenticator")
    padded = bytes((len(plain),)) + plain
    padded += bytes(-len(padded) % 16)
    return salt + _stream(padded, secret, request_authenticator + salt, hiding=True)


def decrypt_salted(hidden: bytes, secret: bytes, request_authenticator: bytes) -> bytes | None:
    """The plaintext; None where salt, length and padding show that this is none (RFC 2868 3.5).

    hidden: salt and ciphertext.
    """
    if len(hidden) < 18 or (len(hidden) - 2) % 16 or not hidden[0] & 0x80 or len(request_authenticator) != 16:
        return None
    plain = _stream(hidden[2:], secret, request_authenticator + hidden[:2], hiding=False)
    size = plain[0]
    if size > len(plain) - 1 or any(plain[1 + size :]):
        return None
    return plain[1 : 1 + size]


def chap_holds(response: bytes, challenge: bytes, password: bytes) -> bool:
    """A CHAP-Password, identifier and digest, is the answer of somebody who knows the password (RFC 2865 5.3)."""
    digest = hashlib.md5(response[:1] + password + challenge, usedforsecurity=False).digest()
    return len(response) == 17 and hmac.compare_digest(digest, response[1:])


def response_authenticator_holds(reply: bytes, request_authenticator: bytes, secret: bytes) -> bool:
    """MD5(Code+ID+Length+RequestAuth+Attributes+Secret) is what the reply says (RFC 2865 3)."""
    digest = hashlib.md5(reply[:4] + request_authenticator + reply[20:] + secret, usedforsecurity=False).digest()
    return hmac.compare_digest(digest, reply[4:20])


def message_authenticator_holds(packet: bytes, offset: int, authenticator: bytes, secret: bytes) -> bool:
    """The Message-Authenticator whose attribute starts at `offset` is right (RFC 3579 3.2).

    authenticator: of the request; 16 zero octets for Accounting, Disconnect and CoA requests.
    """
    value = packet[offset + 2 : offset + 18]
    zeroed = packet[:4] + authenticator + packet[20 : offset + 2] + bytes(16) + packet[offset + 18 :]
    return len(value) == 16 and hmac.compare_digest(hmac.digest(secret, zeroed, "md5"), value)
