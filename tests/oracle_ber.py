"""LDAPMessages in plain Python, from RFC 4511's ASN.1: what `outpost._fastber` is held against.

Requests come out as dicts of their ASN.1 components, so that a difference names the component.
"""

from collections.abc import Callable, Iterable
from typing import Any

from outpost._fastber import Limits
from outpost.errors import DecodeError, LimitExceeded

MAX_INT = 2**31 - 1
BOOLEAN, INTEGER, OCTETS, ENUMERATED, SEQUENCE, SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31
AND, OR, NOT, EQUAL, SUBSTRINGS, GREATER, LESS, PRESENT, APPROX, EXTENSIBLE = (
    *range(0xA0, 0xA7),
    0x87,
    0xA8,
    0xA9,
)
FILTERS = {AND, OR, NOT, EQUAL, SUBSTRINGS, GREATER, LESS, PRESENT, APPROX, EXTENSIBLE}
BIND, UNBIND, SEARCH, COMPARE, ABANDON, EXTENDED = 0x60, 0x42, 0x63, 0x6E, 0x50, 0x77
RESPONSES = {BIND: 0x61, SEARCH: 0x65, 0x66: 0x67, 0x68: 0x69, 0x4A: 0x6B, 0x6C: 0x6D, COMPARE: 0x6F, EXTENDED: 0x78}


# -- writing -----------------------------------------------------------------------------------------


def tlv(tag: int, content: bytes, extra: int = 0) -> bytes:
    """One element; `extra` length octets more than it needs, which BER allows (X.690 8.1.3.5)."""
    size = len(content)
    if size < 0x80 and not extra:
        return bytes((tag, size)) + content
    octets = (size.bit_length() + 7) // 8 or 1
    octets = min(octets + extra, 4)
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets, "big") + content


def number(value: int, tag: int = INTEGER) -> bytes:
    """A non-negative INTEGER or ENUMERATED in as many octets as it needs, sign bit included."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def boolean(value: bool, tag: int = BOOLEAN) -> bytes:
    return tlv(tag, b"\xff" if value else b"\0")


def octets(*values: bytes) -> bytes:
    return b"".join(tlv(OCTETS, value) for value in values)


def control(oid: bytes, critical: bool = False, value: bytes | None = None) -> bytes:
    body = octets(oid)
    if critical:
        body += boolean(True)
    if value is not None:
        body += octets(value)
    return tlv(SEQUENCE, body)


Controls = Iterable[tuple[bytes, bool, bytes | None]]


def message(message_id: int, operation: bytes, controls: Controls = ()) -> bytes:
    body = number(message_id) + operation
    encoded = b"".join(control(*one) for one in controls)
    return tlv(SEQUENCE, body + (tlv(0xA0, encoded) if encoded else b""))


def optional(tag: int, value: bytes | None) -> bytes:
    return b"" if value is None else tlv(tag, value)


def bind(name: bytes, password: bytes, version: int = 3) -> bytes:
    return tlv(BIND, number(version) + octets(name) + tlv(0x80, password))


def sasl_bind(name: bytes, mechanism: bytes, credentials: bytes | None, version: int = 3) -> bytes:
    choice = tlv(0xA3, octets(mechanism) + optional(OCTETS, credentials))
    return tlv(BIND, number(version) + octets(name) + choice)


def unbind() -> bytes:
    return tlv(UNBIND, b"")


def search(
    base: bytes,
    filter: bytes,
    attributes: Iterable[bytes] = (),
    scope: int = 2,
    deref: int = 0,
    size_limit: int = 0,
    time_limit: int = 0,
    types_only: bool = False,
) -> bytes:
    body = octets(base) + number(scope, ENUMERATED) + number(deref, ENUMERATED)
    body += number(size_limit) + number(time_limit) + boolean(types_only) + filter
    return tlv(SEARCH, body + tlv(SEQUENCE, octets(*attributes)))


def compare(entry: bytes, attribute: bytes, value: bytes) -> bytes:
    return tlv(COMPARE, octets(entry) + tlv(SEQUENCE, octets(attribute, value)))


def abandon(message_id: int) -> bytes:
    return tlv(ABANDON, number(message_id)[2:])


def extended(name: bytes, value: bytes | None = None) -> bytes:
    return tlv(EXTENDED, tlv(0x80, name) + optional(0x81, value))


def assertion(tag: int, attribute: bytes, value: bytes) -> bytes:
    return tlv(tag, octets(attribute, value))


def present(attribute: bytes) -> bytes:
    return tlv(PRESENT, attribute)


def substrings(attribute: bytes, initial: bytes | None, inner: Iterable[bytes], final: bytes | None) -> bytes:
    pieces = optional(0x80, initial) + b"".join(tlv(0x81, one) for one in inner) + optional(0x82, final)
    return tlv(SUBSTRINGS, octets(attribute) + tlv(SEQUENCE, pieces))


def extensible(rule: bytes | None, attribute: bytes | None, value: bytes, dn: bool | None = None) -> bytes:
    body = optional(0x81, rule) + optional(0x82, attribute) + tlv(0x83, value)
    return tlv(EXTENSIBLE, body + (b"" if dn is None else boolean(dn, 0x84)))


def result(tag: int, code: int, matched: bytes = b"", diagnostic: bytes = b"", tail: bytes = b"") -> bytes:
    """LDAPResult (4.1.9) under the tag of its response."""
    return tlv(tag, number(code, ENUMERATED) + octets(matched, diagnostic) + tail)


def entry(name: bytes, attributes: Iterable[tuple[bytes, Iterable[bytes]]]) -> bytes:
    body = b"".join(tlv(SEQUENCE, octets(kind) + tlv(SET, octets(*values))) for kind, values in attributes)
    return tlv(0x64, octets(name) + tlv(SEQUENCE, body))


# -- reading -----------------------------------------------------------------------------------------


class Reader:
    """The elements in a run of octets, one after another."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def __bool__(self) -> bool:
        return bool(self.left)

    def any(self) -> tuple[int, bytes]:
        """Tag octet and content of the next element (RFC 4511 5.1)."""
        if not self.left:
            raise DecodeError("nothing left")
        tag = self.left[0]
        if tag & 0x1F == 0x1F or tag == 0:
            raise DecodeError("a tag LDAP has no use for")
        start, size = header(self.left, 1)
        if not start or len(self.left) - start < size:
            raise DecodeError("truncated")
        content, self.left = self.left[start : start + size], self.left[start + size :]
        return tag, content

    def next(self, wanted: int) -> bytes:
        tag, content = self.any()
        if tag != wanted:
            raise DecodeError(f"0x{wanted:02x} expected, not 0x{tag:02x}")
        return content

    def optional(self, wanted: int) -> bytes | None:
        return self.next(wanted) if self.left[:1] == bytes((wanted,)) else None

    def number(self, wanted: int = INTEGER) -> int:
        return integer(self.next(wanted))

    def rest(self, *own: int) -> None:
        """Section 4: trailing components of unrecognised tags are ignored; the SEQUENCE's own are recognised."""
        while self:
            tag, _ = self.any()
            if tag in own or tag >> 6 == 1:
                raise DecodeError("a recognised component in the wrong place")


def header(data: bytes, at: int) -> tuple[int, int]:
    """Where the content starts, and its size, by the length field at `at`; a start of 0 is an incomplete field."""
    if at >= len(data):
        return 0, 0
    if data[at] < 0x80:
        return at + 1, data[at]
    count = data[at] & 0x7F
    if not 1 <= count <= 4:
        raise DecodeError("indefinite, or more than four length octets")
    field = data[at + 1 : at + 1 + count]
    return (at + 1 + count, int.from_bytes(field, "big")) if len(field) == count else (0, 0)


def integer(content: bytes) -> int:
    if not content:
        raise DecodeError("no content")
    value = int.from_bytes(content, "big", signed=True)
    if (value if value >= 0 else ~value).bit_length() // 8 + 1 != len(content):
        raise DecodeError("not minimal")
    if not 0 <= value <= MAX_INT:
        raise DecodeError("out of range")
    return value


def truth(content: bytes) -> bool:
    if len(content) != 1:
        raise DecodeError("a BOOLEAN has one octet")
    return content != b"\0"


class FilterCheck:
    """Walks a Filter (4.5.1.7) and counts."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.terms = 0

    def one(self, reader: Reader, depth: int) -> None:
        if depth > self.limits.filter_depth:
            raise LimitExceeded("filter_depth")
        if self.terms == self.limits.filter_terms:
            raise LimitExceeded("filter_terms")
        self.terms += 1
        tag, content = reader.any()
        if tag not in FILTERS:
            raise DecodeError("no filter")
        inner = Reader(content)
        if tag in (AND, OR):
            while inner:
                self.one(inner, depth + 1)
        elif tag == NOT:
            self.one(inner, depth + 1)
            if inner:
                raise DecodeError("not of two")
        elif tag == SUBSTRINGS:
            inner.next(OCTETS)
            self.pieces(Reader(inner.next(SEQUENCE)))
            inner.rest(OCTETS, SEQUENCE)
        elif tag == EXTENSIBLE:
            rule, kind = inner.optional(0x81), inner.optional(0x82)
            if rule is None and kind is None:
                raise DecodeError("neither matchingRule nor type")
            inner.next(0x83)
            dn = inner.optional(0x84)
            if dn is not None:
                truth(dn)
            inner.rest(0x81, 0x82, 0x83, 0x84)
        elif tag != PRESENT:
            inner.next(OCTETS)
            inner.next(OCTETS)
            inner.rest(OCTETS)

    def pieces(self, reader: Reader) -> None:
        tags: list[int] = []
        while reader:
            if len(tags) == self.limits.substrings:
                raise LimitExceeded("substrings")
            tag, _ = reader.any()
            if not 0x80 <= tag <= 0x82 or (tag == 0x80 and tags) or 0x82 in tags:
                raise DecodeError("initial, any, final")
            tags.append(tag)
        if not tags:
            raise DecodeError("no substring")


def check_filter(data: bytes, limits: Limits) -> None:
    reader = Reader(data)
    FilterCheck(limits).one(reader, 1)
    if reader:
        raise DecodeError("octets after the filter")


def frame_size(data: bytes, limit: int) -> int:
    if not data:
        return 0
    if data[0] != SEQUENCE:
        raise DecodeError("no SEQUENCE")
    start, size = header(data, 1)
    if start and start + size > limit:
        raise LimitExceeded("message")
    return start and start + size


Components = dict[str, Any]


def read_bind(reader: Reader, limits: Limits) -> Components:
    version = reader.number()
    if not 1 <= version <= 127:
        raise DecodeError("version")
    name = reader.next(OCTETS)
    choice, content = reader.any()
    mechanism: bytes | None = None
    credentials: bytes | None = None
    if choice == 0x80:
        credentials = content
    elif choice == 0xA3:
        sasl = Reader(content)
        mechanism, credentials = sasl.next(OCTETS), sasl.optional(OCTETS)
        sasl.rest(OCTETS)
    elif choice >> 6 == 2:
        mechanism = b""
    else:
        raise DecodeError("no AuthenticationChoice")
    reader.rest(INTEGER, OCTETS, 0x80, 0xA3)
    return {
        "version": version,
        "name": name,
        "authentication": choice,
        "mechanism": mechanism,
        "credentials": credentials,
    }


def read_unbind(reader: Reader, limits: Limits) -> Components:
    if reader:
        raise DecodeError("not NULL")
    return {}


def read_search(reader: Reader, limits: Limits) -> Components:
    found: Components = {"base_object": reader.next(OCTETS)}
    for name, highest in (("scope", 2), ("deref_aliases", 3)):
        found[name] = reader.number(ENUMERATED)
        if found[name] > highest:
            raise DecodeError(name)
    found["size_limit"] = reader.number()
    found["time_limit"] = reader.number()
    found["types_only"] = truth(reader.next(BOOLEAN))
    before = reader.left
    FilterCheck(limits).one(reader, 1)
    found["filter"] = before[: len(before) - len(reader.left)]
    selection = Reader(reader.next(SEQUENCE))
    attributes: list[bytes] = []
    while selection:
        if len(attributes) == limits.attributes:
            raise LimitExceeded("attributes")
        attributes.append(selection.next(OCTETS))
    found["attributes"] = tuple(attributes)
    reader.rest(OCTETS, ENUMERATED, INTEGER, BOOLEAN, SEQUENCE, *FILTERS)
    return found


def read_compare(reader: Reader, limits: Limits) -> Components:
    target = reader.next(OCTETS)
    ava = Reader(reader.next(SEQUENCE))
    found = {"entry": target, "attribute": ava.next(OCTETS), "assertion_value": ava.next(OCTETS)}
    ava.rest(OCTETS)
    reader.rest(OCTETS, SEQUENCE)
    return found


def read_abandon(reader: Reader, limits: Limits) -> Components:
    return {"abandoned_id": integer(reader.left)}


def read_extended(reader: Reader, limits: Limits) -> Components:
    found = {"name": reader.next(0x80), "value": reader.optional(0x81)}
    reader.rest(0x80, 0x81)
    return found


def read_controls(reader: Reader, limits: Limits) -> tuple[tuple[bytes, bool, bytes | None], ...]:
    found: list[tuple[bytes, bool, bytes | None]] = []
    while reader:
        if len(found) == limits.controls:
            raise LimitExceeded("controls")
        one = Reader(reader.next(SEQUENCE))
        oid, critical, value = one.next(OCTETS), one.optional(BOOLEAN), None
        is_critical = critical is not None and truth(critical)
        value = one.optional(OCTETS)
        one.rest(BOOLEAN, OCTETS)
        found.append((oid, is_critical, value))
    return tuple(found)


OPERATIONS: dict[int, tuple[str, Callable[[Reader, Limits], Components]]] = {
    BIND: ("BindRequest", read_bind),
    UNBIND: ("UnbindRequest", read_unbind),
    SEARCH: ("SearchRequest", read_search),
    COMPARE: ("CompareRequest", read_compare),
    ABANDON: ("AbandonRequest", read_abandon),
    EXTENDED: ("ExtendedRequest", read_extended),
}


def decode_message(data: bytes, limits: Limits) -> Components:
    if len(data) > limits.message:
        raise LimitExceeded("message")
    whole = Reader(data)
    reader = Reader(whole.next(SEQUENCE))
    if whole:
        raise DecodeError("octets after the message")
    message_id = reader.number()
    if message_id == 0:
        raise DecodeError("no request has messageID 0")
    op, content = reader.any()
    if op >> 6 != 1:
        raise DecodeError("no protocolOp")
    kind, read = OPERATIONS.get(op, ("OtherRequest", lambda reader, limits: {}))
    found: Components = {"kind": kind, "message_id": message_id, "op": op, **read(Reader(content), limits)}
    controls = reader.optional(0xA0)
    found["controls"] = () if controls is None else read_controls(Reader(controls), limits)
    reader.rest(INTEGER, 0xA0)
    return found


def components(request: object) -> Components:
    """What a request of the core holds, as `decode_message` here says it; wherever the core and stub agree."""
    names = [name for name in dir(request) if not name.startswith("_") and name != "result"]
    found = {name: getattr(request, name) for name in names}
    found["controls"] = tuple((one.oid, one.critical, one.value) for one in found["controls"])
    return {"kind": type(request).__name__, **found}
