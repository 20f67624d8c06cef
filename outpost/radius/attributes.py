"""Attributes of a reply: named by an administrator or rendered by the backend, encoded for one request.

Values that travel encrypted are bound to the Request Authenticator, so they are encrypted for each reply anew
(RFC 2868 3.5, 2548 2.4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, final

from outpost.errors import DecodeError, LimitExceeded
from outpost.identity import RejectReason, ReplyAttributes
from outpost.radius.crypto import LONGEST_SALTED, decrypt_salted, encrypt_salted, salted_size
from outpost.radius.dictionary import LONG_EXTENDED, VENDOR_SPECIFIC, Attribute, Dictionary, Vendor
from outpost.radius.packet import (
    HEADER_SIZE,
    IDLE_TIMEOUT,
    LONGEST_VALUE,
    REPLY_MESSAGE,
    SESSION_TIMEOUT,
    Code,
    decode_attributes,
    encode_attribute,
    encode_text,
)

PASSWORD_RETRY = 75
NEVER = frozenset({2, 3, 24, 33, 60, 79, 80})
"""Ours, the protocol's or secret: passwords, State, Proxy-State, EAP-Message, Message-Authenticator."""

PROMPT = 76
ALLOWED = {
    int(Code.ACCESS_REJECT): frozenset({REPLY_MESSAGE, PASSWORD_RETRY}),
    int(Code.ACCESS_CHALLENGE): frozenset({REPLY_MESSAGE, VENDOR_SPECIFIC, SESSION_TIMEOUT, IDLE_TIMEOUT, PROMPT}),
}
"""What RFC 2865 5.44 and 2869 5.19 let these carry; an Access-Accept carries all."""

MOST_COMPILED = 1024
HIGHEST_TAG = 0x1F


class Flawed(ValueError):
    """Attributes that cannot be sent; `reason` is what the login is refused with."""

    def __init__(self, reason: RejectReason, problem: str) -> None:
        self.reason = reason
        super().__init__(problem)


class Piece(NamedTuple):
    """One attribute, encrypted ones in plaintext."""

    number: int
    value: bytes
    """Complete octets; of an encrypted attribute those before the salt (vendor header, tag)."""
    hidden: bytes | None = None
    """What is to be encrypted behind `value`; None for nothing."""


@final
class Renderer:
    """Encodes reply attributes. random: octets from a safe source, for salts."""

    def __init__(self, dictionary: Dictionary, random: Callable[[int], bytes]) -> None:
        self._dictionary = dictionary
        self._random = random
        self._compiled: dict[tuple[int, ReplyAttributes], bytes] = {}

    def render(
        self,
        attributes: ReplyAttributes,
        code: int,
        secret: bytes,
        request_authenticator: bytes,
        *,
        rendered_with: bytes | None = None,
    ) -> bytes:
        """The encoded attributes of a reply, the backend's packet first, then the named ones.

        Only what a packet of this code may carry.  secret: of the request; rendered_with: the secret that hides values
        in the backend's packet, where it is another one.  Raises Flawed: an Access-Accept without the restrictions it
        was meant to carry would give away too much.
        """
        if not attributes.packet and not attributes.named:
            return b""
        known = self._compiled.get((code, attributes))
        if known is not None:
            return known
        allowed = ALLOWED.get(code)
        pieces = [
            piece
            for piece in self._pieces(attributes, secret if rendered_with is None else rendered_with)
            if piece.number not in NEVER and (allowed is None or piece.number in allowed)
        ]
        encoded = self._encode(pieces, secret, request_authenticator)
        if all(piece.hidden is None for piece in pieces):
            if len(self._compiled) >= MOST_COMPILED:
                self._compiled.clear()
            self._compiled[code, attributes] = encoded
        return encoded

    def is_lasting(self, attributes: ReplyAttributes, code: int) -> bool:
        """Whether what `render` gave is the same for every request."""
        return not (attributes.packet or attributes.named) or (code, attributes) in self._compiled

    def complaints(self, named: tuple[tuple[str, str], ...]) -> list[str]:
        """What is wrong with named attributes, one sentence each; for checking a directory before it serves."""
        found = []
        for name, text in named:
            try:
                self._encode(list(self._named(name, text)), b"any", bytes(16))
            except Flawed as exc:
                found.append(str(exc))
        return found

    # -- inside -----------------------------------------------------------------------------------

    def _encode(self, pieces: list[Piece], secret: bytes, request_authenticator: bytes) -> bytes:
        salt = 0
        parts = []
        for piece in pieces:
            value = piece.value
            try:
                if piece.hidden is not None:
                    if len(piece.hidden) > LONGEST_SALTED:
                        raise LimitExceeded(f"an encrypted attribute holds {LONGEST_SALTED} octets at most")
                    # RFC 2868 3.5: "the most significant bit MUST be set", and each salt of a packet be unique.
                    salt = (salt + 1 if salt else int.from_bytes(self._random(2))) & 0x7FFF | 0x8000
                    value += encrypt_salted(piece.hidden, secret, request_authenticator, salt.to_bytes(2))
                parts.append(encode_attribute(piece.number, value))
            except LimitExceeded as exc:
                raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, str(exc)) from exc
        return b"".join(parts)

    def _pieces(self, attributes: ReplyAttributes, secret: bytes) -> Iterator[Piece]:
        if attributes.packet:
            yield from self._copied(attributes.packet, secret)
        for name, text in attributes.named:
            yield from self._named(name, text)

    def _named(self, name: str, text: str) -> Iterator[Piece]:
        """`Name` or `Name:TAG`, as FreeRADIUS writes it."""
        bare, _, tag_text = name.partition(":")
        attribute = self._dictionary.named(bare)
        if attribute is None:
            raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, f"the dictionary has no attribute {bare}")
        tag = 0
        if tag_text:
            tag = int(tag_text) if tag_text.isascii() and tag_text.isdigit() else -1
            if not attribute.has_tag or not 0 <= tag <= HIGHEST_TAG:
                raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, f"{bare} takes no tag {tag_text}")
        if attribute.number == REPLY_MESSAGE:
            yield from (Piece(*pair) for pair in decode_attributes(encode_text(REPLY_MESSAGE, text)))
            return
        try:
            value = attribute.encode(text)
        except ValueError as exc:
            raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, str(exc)) from None
        if attribute.encrypt not in {0, 2} or (attribute.encrypt and attribute.is_extended):
            raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, f"{bare} is not for replies")
        yield from _wrapped(attribute, value, tag)

    def _copied(self, packet: bytes, secret: bytes) -> Iterator[Piece]:
        """The attributes of a packet that the backend rendered, salt-encrypted ones opened."""
        if len(packet) < HEADER_SIZE or not HEADER_SIZE <= int.from_bytes(packet[2:4]) <= len(packet):
            raise Flawed(RejectReason.ATTRIBUTE_DECODE_FAILED, "the backend's attributes are no packet")
        try:
            pairs = list(decode_attributes(packet[HEADER_SIZE : int.from_bytes(packet[2:4])]))
        except DecodeError as exc:
            raise Flawed(RejectReason.ATTRIBUTE_DECODE_FAILED, str(exc)) from exc
        for number, value in pairs:
            yield self._opened(number, value, packet[4:HEADER_SIZE], secret)

    def _opened(self, number: int, value: bytes, authenticator: bytes, secret: bytes) -> Piece:
        attribute, head, is_vendors = self._dictionary.numbered(number), 0, False
        if number == VENDOR_SPECIFIC and len(value) >= 6:
            attribute = self._dictionary.numbered(number, int.from_bytes(value[:4]), value[4])
            head, is_vendors = 6, True
            # Several attributes in one, or another layout of the vendor's: copied as it is.
            if attribute is not None and (
                attribute.vendor is None or not attribute.vendor.is_usual or value[5] != len(value) - 4
            ):
                attribute = None
        if attribute is None or attribute.encrypt != 2:
            return Piece(number, value)
        shown = value[:head]
        if attribute.has_tag:
            # pyrad up to 2.5.4, which authentik renders with, leaves out the tag that RFC 2868 3.5 demands.
            is_tagless = (len(value) - head) % 16 == 2
            shown += bytes(1) if is_tagless else value[head : head + 1]
            head += 0 if is_tagless else 1
        # Sixteen zero octets: the packet had no authenticator yet when the value was encrypted.
        opened = [decrypt_salted(value[head:], secret, key) for key in (authenticator, bytes(16))]
        # The wrong key looks right once in 256 times, but then hardly ever with as much padding as the right one.
        plain = min((one for one in opened if one is not None), key=len, default=None)
        if plain is not None:
            if is_vendors:  # the tag may be new
                shown = shown[:5] + bytes((len(shown) + salted_size(plain) - 4,)) + shown[6:]
            return Piece(number, shown, plain)
        raise Flawed(RejectReason.ATTRIBUTE_PARSE_FAILED, f"{attribute.name} cannot be decrypted")


def _wrapped(attribute: Attribute, value: bytes, tag: int) -> Iterator[Piece]:
    """A value in its place: tag, vendor header or extension around it."""
    hidden = None
    head = b""
    if attribute.has_tag:
        if attribute.kind == "string":
            # RFC 2868 3.6: a first octet above 0x1F is text already. An encrypted one always has its tag (3.5).
            head = bytes((tag,)) if tag or attribute.encrypt else b""
        else:
            value = bytes((tag,)) + value[1:]  # 3.1: the tag takes the place of the highest octet
    if attribute.encrypt:
        value, hidden = head, value
    else:
        value = head + value
    if attribute.is_extended:
        yield from _extended(attribute, value)
    elif attribute.vendor is not None:
        yield from _vendors(attribute.vendor, attribute.sub_number, value, hidden)
    else:
        yield Piece(attribute.number, value, hidden)


def _extended(attribute: Attribute, value: bytes) -> Iterator[Piece]:
    kind = attribute.sub_number
    if attribute.vendor is not None:
        # RFC 6929 2.3: vendor and vendor's type belong to the value, and so to the first fragment alone.
        value = attribute.vendor.number.to_bytes(4) + bytes((kind,)) + value
        kind = VENDOR_SPECIFIC
    if attribute.number not in LONG_EXTENDED:
        yield Piece(attribute.number, bytes((kind,)) + value)
        return
    # RFC 6929 2.2: fragments of 251 octets, the M bit on all but the last.
    for chunk, more in _chunks(value, LONGEST_VALUE - 2):
        yield Piece(attribute.number, bytes((kind, more)) + chunk)


def _vendors(vendor: Vendor, kind: int, value: bytes, hidden: bytes | None) -> Iterator[Piece]:
    head = vendor.number.to_bytes(4) + kind.to_bytes(vendor.type_size)
    if vendor.has_continuation and hidden is None:
        for chunk, more in _chunks(value, LONGEST_VALUE - 7):
            yield Piece(VENDOR_SPECIFIC, head + bytes((len(chunk) + 3, more)) + chunk)
        return
    rest = bytes(vendor.has_continuation) + value
    size = vendor.type_size + vendor.length_size + len(rest) + (0 if hidden is None else salted_size(hidden))
    # What does not fit into one attribute is refused when that is encoded.
    length = min(size, 255).to_bytes(vendor.length_size) if vendor.length_size else b""
    yield Piece(VENDOR_SPECIFIC, head + length + rest, hidden)


def _chunks(value: bytes, room: int) -> Iterator[tuple[bytes, int]]:
    """A value in pieces, each with an octet that says whether more follows."""
    for at in range(0, max(len(value), 1), room):
        yield value[at : at + room], 0x80 if at + room < len(value) else 0


def carries(encoded: bytes, wanted: int) -> bool:
    """Whether encoded attributes hold one of this type."""
    return any(number == wanted for number, _ in decode_attributes(encoded))
