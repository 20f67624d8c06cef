"""LDAP messages as a client sends them (RFC 4511), built without the code under test."""

from collections.abc import Iterable

from outpost.ldap.filter import parse_filter

BASE_OBJECT, SINGLE_LEVEL, WHOLE_SUBTREE = range(3)


def tlv(tag: int, *contents: bytes) -> bytes:
    """One element in the definite form with the fewest length octets."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int, tag: int = 0x02) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes | str, tag: int = 0x04) -> bytes:
    return tlv(tag, value.encode() if isinstance(value, str) else value)


def boolean(value: bool, tag: int = 0x01) -> bytes:
    return tlv(tag, b"\xff" if value else b"\0")


def control(oid: str, critical: bool = False, value: bytes | None = None) -> bytes:
    """A Control (4.1.11); a criticality of FALSE is left out, as 5.1 wants."""
    rest = b"" if value is None else octets(value)
    return tlv(0x30, octets(oid), boolean(True) if critical else b"", rest)


def message(message_id: int, operation: bytes, controls: Iterable[bytes] = ()) -> bytes:
    """An LDAPMessage (4.1.1); `controls` are made by `control`."""
    extra = b"".join(controls)
    return tlv(0x30, integer(message_id), operation, tlv(0xA0, extra) if extra else b"")


def bind(
    message_id: int,
    name: bytes | str = b"",
    password: bytes | str = b"",
    *,
    version: int = 3,
    controls: Iterable[bytes] = (),
) -> bytes:
    """A simple BindRequest (4.2)."""
    return message(message_id, tlv(0x60, integer(version), octets(name), octets(password, 0x80)), controls)


def sasl_bind(
    message_id: int,
    mechanism: str,
    credentials: bytes | None = None,
    *,
    name: bytes | str = b"",
    controls: Iterable[bytes] = (),
) -> bytes:
    """A BindRequest with a SASL mechanism (4.2)."""
    choice = tlv(0xA3, octets(mechanism), b"" if credentials is None else octets(credentials))
    return message(message_id, tlv(0x60, integer(3), octets(name), choice), controls)


def unbind(message_id: int, controls: Iterable[bytes] = ()) -> bytes:
    return message(message_id, tlv(0x42), controls)


def search(
    message_id: int,
    base: bytes | str,
    filter: bytes | str = "(objectClass=*)",
    attributes: Iterable[bytes | str] = (),
    *,
    scope: int = WHOLE_SUBTREE,
    size_limit: int = 0,
    time_limit: int = 0,
    types_only: bool = False,
    deref_aliases: int = 0,
    controls: Iterable[bytes] = (),
) -> bytes:
    """A SearchRequest (4.5.1); `filter` is text (RFC 4515) or encoded already."""
    return message(
        message_id,
        tlv(
            0x63,
            octets(base),
            integer(scope, 0x0A),
            integer(deref_aliases, 0x0A),
            integer(size_limit),
            integer(time_limit),
            boolean(types_only),
            parse_filter(filter) if isinstance(filter, str) else filter,
            tlv(0x30, *map(octets, attributes)),
        ),
        controls,
    )


def compare(
    message_id: int, entry: bytes | str, attribute: bytes | str, value: bytes | str, controls: Iterable[bytes] = ()
) -> bytes:
    """A CompareRequest (4.10)."""
    return message(message_id, tlv(0x6E, octets(entry), tlv(0x30, octets(attribute), octets(value))), controls)


def abandon(message_id: int, abandoned_id: int, controls: Iterable[bytes] = ()) -> bytes:
    return message(message_id, integer(abandoned_id, 0x50), controls)


def extended(message_id: int, name: str, value: bytes | None = None, controls: Iterable[bytes] = ()) -> bytes:
    """An ExtendedRequest (4.12)."""
    rest = b"" if value is None else octets(value, 0x81)
    return message(message_id, tlv(0x77, octets(name, 0x80), rest), controls)
