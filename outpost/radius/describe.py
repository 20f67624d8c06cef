"""A packet as a person wants to read it: names, values, hidden fields opened, authenticators judged."""

from __future__ import annotations

from collections.abc import Iterator

from outpost._fastradius import SharedSecret, unhide_user_password
from outpost.errors import DecodeError
from outpost.identity import Secret
from outpost.radius.crypto import decrypt_salted, message_authenticator_holds, response_authenticator_holds
from outpost.radius.dictionary import EXTENDED, LONG_EXTENDED, Attribute, Dictionary, shipped
from outpost.radius.packet import (
    HEADER_SIZE,
    LONGEST_PACKET,
    MESSAGE_AUTHENTICATOR,
    VENDOR_SPECIFIC,
    Code,
    code_name,
    decode_attributes,
)

USER_PASSWORD = 2
HIGHEST_TAG = 0x1F
COMPUTED = frozenset({int(Code.ACCOUNTING_REQUEST), int(Code.DISCONNECT_REQUEST), int(Code.COA_REQUEST)})
RANDOM = frozenset({int(Code.ACCESS_REQUEST), int(Code.STATUS_SERVER)})
"""Requests whose authenticator is a random number."""

RIGHT, WRONG = "(right)", "(WRONG: another shared secret, or a damaged packet)"
NEEDS_REQUEST = "(not judged without the request it answers)"


def describe_packet(
    data: bytes, secret: Secret | None = None, request: bytes | None = None, dictionary: Dictionary | None = None
) -> str:
    """One line for the header and one per attribute, in order. Raises DecodeError.

    secret: opens what is hidden and judges authenticators; without one, hidden values stay hidden.  request: the
    packet that a reply answers, for the reply's authenticators and hidden values.
    """
    size = _size(data)
    octets = data[:size]
    if request is not None and (len(request) < HEADER_SIZE or request[0] not in RANDOM | COMPUTED):
        raise DecodeError("the request is none")
    key = SharedSecret(secret.reveal()) if secret else None
    authenticator = _authenticator(octets, request)
    lines = [f"{code_name(octets[0])} identifier={octets[1]} length={size}"]
    lines.append(_line("authenticator", f"{octets[4:20].hex()} {_verdict(octets, key, request)}"))
    at = HEADER_SIZE
    for number, value in decode_attributes(octets[HEADER_SIZE:]):
        if number == MESSAGE_AUTHENTICATOR:
            lines.append(_line("Message-Authenticator", f"{value.hex()} {_signature(octets, at, key, authenticator)}"))
        else:
            lines += (
                _line(name, text) for name, text in _values(number, value, key, authenticator, dictionary or shipped())
            )
        at += len(value) + 2
    if len(data) > size:
        lines.append(_line("(padding)", f"{len(data) - size} octets"))
    return "\n".join(line.rstrip() for line in lines)


def _size(data: bytes) -> int:
    if len(data) < HEADER_SIZE:
        raise DecodeError(f"a packet has at least {HEADER_SIZE} octets, not {len(data)}")
    size = int.from_bytes(data[2:4])
    if not HEADER_SIZE <= size <= min(len(data), LONGEST_PACKET):
        raise DecodeError(f"the header announces {size} octets, there are {len(data)}")
    return size


def _line(name: str, text: str) -> str:
    return f"  {name:<28} {text}"


def _authenticator(octets: bytes, request: bytes | None) -> bytes | None:
    """What signature and hidden values are bound to; None when that is unknown."""
    if octets[0] in COMPUTED:
        return bytes(16)
    if octets[0] in RANDOM:
        return octets[4:20]
    return None if request is None else request[4:20]


def _verdict(octets: bytes, key: SharedSecret | None, request: bytes | None) -> str:
    if octets[0] in RANDOM:
        return "(random)"
    if key is None:
        return ""
    if octets[0] in COMPUTED:
        return RIGHT if response_authenticator_holds(octets, bytes(16), key.octets) else WRONG
    if request is None:
        return NEEDS_REQUEST
    return RIGHT if response_authenticator_holds(octets, request[4:20], key.octets) else WRONG


def _signature(octets: bytes, at: int, key: SharedSecret | None, authenticator: bytes | None) -> str:
    if key is None:
        return ""
    if authenticator is None:
        return NEEDS_REQUEST
    return RIGHT if message_authenticator_holds(octets, at, authenticator, key.octets) else WRONG


def _values(
    number: int, value: bytes, key: SharedSecret | None, authenticator: bytes | None, dictionary: Dictionary
) -> Iterator[tuple[str, str]]:
    """(name, text) of one attribute; several when a Vendor-Specific one holds several."""
    if number == VENDOR_SPECIFIC and len(value) > 4:
        yield from _vendors_values(value, key, authenticator, dictionary)
        return
    if number in EXTENDED or number in LONG_EXTENDED:
        head = 1 if number in EXTENDED else 2
        if len(value) >= head:
            attribute = dictionary.numbered(number, 0, value[0])
            name = attribute.name if attribute else f"ATTR-{number}.{value[0]}"
            whole = head == 1 or not value[1] & 0x80
            yield name, attribute.decode(value[head:]) if attribute and whole else f"0x{value[head:].hex()}"
            return
    attribute = dictionary.numbered(number)
    if attribute is None:
        yield f"ATTR-{number}", f"0x{value.hex()}"
    else:
        yield _named(attribute, value, key, authenticator)


def _vendors_values(
    value: bytes, key: SharedSecret | None, authenticator: bytes | None, dictionary: Dictionary
) -> Iterator[tuple[str, str]]:
    number = int.from_bytes(value[:4])
    vendor = dictionary.vendor(number)
    title = vendor.name if vendor else f"vendor {number}"
    sizes = (vendor.type_size, vendor.length_size) if vendor else (1, 1)
    at, found = 4, []
    while at < len(value):
        header = sum(sizes)
        length = int.from_bytes(value[at + sizes[0] : at + header]) if sizes[1] else len(value) - at
        if len(value) - at < header or not header <= length <= len(value) - at:
            yield title, f"0x{value[4:].hex()}"
            return
        sub_number = int.from_bytes(value[at : at + sizes[0]])
        found.append((sub_number, value[at + header : at + length]))
        at += length
    for sub_number, content in found:
        attribute = dictionary.numbered(VENDOR_SPECIFIC, number, sub_number)
        if attribute is None:
            yield f"{title} {sub_number}", f"0x{content.hex()}"
        else:
            yield _named(attribute, content, key, authenticator)


def _named(
    attribute: Attribute, value: bytes, key: SharedSecret | None, authenticator: bytes | None
) -> tuple[str, str]:
    name = attribute.name
    if attribute.has_tag and value and (attribute.kind != "string" or value[0] <= HIGHEST_TAG):
        if value[0]:
            name += f":{value[0]}"
        value = value[1:] if attribute.kind == "string" else bytes(1) + value[1:]
    if not attribute.encrypt:
        return name, attribute.decode(value)
    if key is None or authenticator is None:
        return name, f"{len(value)} octets ***"
    plain = None
    if attribute.number == USER_PASSWORD:
        plain = unhide_user_password(value, key, authenticator)
    elif attribute.encrypt == 2:
        plain = decrypt_salted(value, key.octets, authenticator)
    return name, f"0x{value.hex()} (not decrypted)" if plain is None else attribute.decode(plain)
