"""A packet as a person wants to read it: names, values, hidden fields opened, authenticators judged."""

from __future__ import annotations

from collections.abc import Iterator

from outpost._fastradius import SharedSecret, unhide_user_password
from outpost.errors import DecodeError
from outpost.identity import Secret
from outpost.radius.crypto import decrypt_salted, message_authenticator_holds, response_authenticator_holds
from outpost.radius.dictionary import EXTENDED, LONG_EXTENDED, VENDOR_SPECIFIC, Attribute, Dictionary, shipped
from outpost.radius.packet import (
    EAP_MESSAGE,
    HEADER_SIZE,
    LONGEST_PACKET,
    MESSAGE_AUTHENTICATOR,
    Code,
    code_name,
    decode_attributes,
)

USER_PASSWORD = 2
CHAP_PASSWORD = 3
HIGHEST_TAG = 0x1F
COMPUTED = frozenset({int(Code.ACCOUNTING_REQUEST), int(Code.DISCONNECT_REQUEST), int(Code.COA_REQUEST)})
RANDOM = frozenset({int(Code.ACCESS_REQUEST), int(Code.STATUS_SERVER)})
"""Requests whose authenticator is a random number."""

SIGNED = frozenset({*RANDOM, int(Code.ACCESS_ACCEPT), int(Code.ACCESS_REJECT), int(Code.ACCESS_CHALLENGE)})
"""What carries a Message-Authenticator, or should."""
EAP_CODES = {1: "Request", 2: "Response", 3: "Success", 4: "Failure"}
EAP_IDENTITY = 1
EAP_TYPES = {
    **{EAP_IDENTITY: "Identity", 2: "Notification", 3: "Nak", 4: "MD5-Challenge", 5: "One-Time-Password"},
    **{6: "Generic-Token-Card", 13: "TLS", 21: "TTLS", 25: "PEAP", 26: "MSCHAPv2", 43: "FAST", 52: "PWD", 55: "TEAP"},
}

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
    is_signed = False
    for at, number, value in _joined(octets):
        if number == MESSAGE_AUTHENTICATOR:
            is_signed = True
            lines.append(_line("Message-Authenticator", f"{value.hex()} {_signature(octets, at, key, authenticator)}"))
        else:
            lines += (
                _line(name, text) for name, text in _values(number, value, key, authenticator, dictionary or shipped())
            )
    if not is_signed and octets[0] in SIGNED:
        lines.append(_line("(no Message-Authenticator)", ""))
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


def _joined(octets: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(offset, type, value) of the attributes; what was sent in pieces is one (RFC 3579 3.1, 6929 2.2)."""
    at, begun_at, begun, parts = HEADER_SIZE, 0, 0, b""
    for number, value in decode_attributes(octets[HEADER_SIZE:], HEADER_SIZE):
        goes_on = number == EAP_MESSAGE or (len(value) >= 2 and value[:1] == parts[:1])
        if begun and not (begun == number and goes_on):
            yield begun_at, begun, parts
            begun = 0
        if not begun:
            begun_at, begun, parts = at, number, value
        elif number == EAP_MESSAGE:
            parts += value
        else:
            parts = value[:2] + parts[2:] + value[2:]
        is_fragment = number in LONG_EXTENDED and len(value) >= 2 and value[1] & 0x80
        if number != EAP_MESSAGE and not is_fragment:
            yield begun_at, begun, parts
            begun = 0
        at += len(value) + 2
    if begun:
        yield begun_at, begun, parts


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
    if number == EAP_MESSAGE:
        yield "EAP-Message", _eap(value)
        return
    if number == CHAP_PASSWORD and len(value) == 17:
        yield "CHAP-Password", f"identifier={value[0]} 0x{value[1:].hex()}"
        return
    head = 1 if number in EXTENDED else 2
    if (number in EXTENDED or number in LONG_EXTENDED) and len(value) >= head:
        yield _extended_value(number, value[0], value[head:], dictionary, whole=head == 1 or not value[1] & 0x80)
        return
    attribute = dictionary.numbered(number)
    if attribute is None:
        yield f"ATTR-{number}", f"0x{value.hex()}"
    else:
        yield _named(attribute, value, key, authenticator)


def _extended_value(number: int, kind: int, value: bytes, dictionary: Dictionary, *, whole: bool) -> tuple[str, str]:
    name, attribute = f"ATTR-{number}.{kind}", dictionary.numbered(number, 0, kind)
    if kind == VENDOR_SPECIFIC and len(value) >= 5:
        vendor, sub_number, value = int.from_bytes(value[:4]), value[4], value[5:]
        known = dictionary.vendor(vendor)
        name = f"{known.name if known else f'vendor {vendor}'} {number}.{kind}.{sub_number}"
        attribute = dictionary.numbered(number, vendor, sub_number)
    if attribute is not None:
        name = attribute.name
    return name, attribute.decode(value) if attribute is not None and whole else f"0x{value.hex()}"


def _eap(value: bytes) -> str:
    """RFC 3748 4."""
    if not value:
        return "EAP-Start"
    if len(value) < 4 or int.from_bytes(value[2:4]) != len(value) or value[0] not in EAP_CODES:
        return f"0x{value.hex()} (no EAP packet)"
    text = f"{EAP_CODES[value[0]]} identifier={value[1]}"
    if len(value) == 4:
        return text
    text += f" {EAP_TYPES.get(value[4], f'type {value[4]}')}"
    if value[4] == EAP_IDENTITY:
        identity = value[5:].decode(errors="backslashreplace")
        return f"{text} {identity if identity.isprintable() else repr(identity)}"
    return f"{text} 0x{value[5:].hex()}" if len(value) > 5 else text


def _vendors_values(
    value: bytes, key: SharedSecret | None, authenticator: bytes | None, dictionary: Dictionary
) -> Iterator[tuple[str, str]]:
    number = int.from_bytes(value[:4])
    vendor = dictionary.vendor(number)
    title = vendor.name if vendor else f"vendor {number}"
    sizes = (vendor.type_size, vendor.length_size) if vendor else (1, 1)
    flags = int(vendor is not None and vendor.has_continuation)
    at, found = 4, []
    while at < len(value):
        header = sum(sizes) + flags
        length = int.from_bytes(value[at + sizes[0] : at + sum(sizes)]) if sizes[1] else len(value) - at
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
