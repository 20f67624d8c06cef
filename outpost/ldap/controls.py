"""Request controls: which are understood, and what their values say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outpost._fastber import Control, Limits, Request, check_filter
from outpost.errors import OperationError, ProtocolError
from outpost.ldap.results import (
    ASSERTION,
    COMPARE,
    MANAGE_DSA_IT,
    MATCHED_VALUES,
    PAGED_RESULTS,
    PROTOCOL_ERROR,
    SEARCH,
    SORT_REQUEST,
    SUBENTRIES,
    UNAVAILABLE_CRITICAL_EXTENSION,
)

UNDERSTOOD: Final[Mapping[bytes, frozenset[int]]] = {
    PAGED_RESULTS: frozenset({SEARCH}),
    SORT_REQUEST: frozenset({SEARCH}),
    ASSERTION: frozenset({SEARCH, COMPARE}),
    MANAGE_DSA_IT: frozenset({SEARCH, COMPARE}),
    SUBENTRIES: frozenset({SEARCH}),
    MATCHED_VALUES: frozenset({SEARCH}),
}
"""Operations that each control may come with; with others it counts as unknown."""


@dataclass(frozen=True, slots=True)
class Paging:
    """Simple paged results (RFC 2696). An empty cookie begins a listing."""

    size: int
    cookie: bytes


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of server-side sorting (RFC 2891)."""

    attribute: bytes
    ordering_rule: bytes | None
    is_reversed: bool


@dataclass(frozen=True, slots=True)
class Controls:
    """The controls of one request that were understood."""

    paging: Paging | None = None
    sort: tuple[SortKey, ...] = ()
    sort_is_critical: bool = False
    assertion: bytes | None = None
    subentries: bool = False
    """RFC 3672 4: nothing but subentries is to be shown."""
    values: tuple[bytes, ...] | None = None
    """Filter items, one of which each returned value is to match (RFC 3876)."""


NONE: Final = Controls()
MAX_ITEMS: Final = 64
"""Filter items that each value is tested with at most."""


def understand(request: Request, limits: Limits) -> Controls:
    """The controls of `request`. Raises OperationError: 12 for an unknown critical one, 2 for a wrong value."""
    if not request.controls:
        return NONE
    values: dict[bytes, Control] = {}
    for control in request.controls:
        if request.op in UNDERSTOOD.get(control.oid, ()):
            if control.oid in values:
                raise OperationError(PROTOCOL_ERROR, f"control {_shown(control.oid)} is given twice")
            values[control.oid] = control
        elif control.critical:
            raise OperationError(
                UNAVAILABLE_CRITICAL_EXTENSION, f"critical control {_shown(control.oid)} is not supported here"
            )
    paging = sort = assertion = matched_values = None
    for oid, control in values.items():
        try:
            if oid == PAGED_RESULTS:
                paging = _paging(_value(control))
            elif oid == SORT_REQUEST:
                sort = _sort(_value(control))
            elif oid == ASSERTION:
                assertion = _value(control)
                check_filter(assertion, limits)
            elif oid == MATCHED_VALUES:
                matched_values = _items(_value(control), limits)
            elif oid == MANAGE_DSA_IT and control.value is not None:
                raise ValueError("takes no value")
        except (ValueError, ProtocolError) as error:
            raise OperationError(PROTOCOL_ERROR, f"control {_shown(oid)}: {error}") from None
    subentries = SUBENTRIES in values and _subentries(values[SUBENTRIES])
    found = Controls(
        paging=paging,
        sort=sort or (),
        sort_is_critical=SORT_REQUEST in values and values[SORT_REQUEST].critical,
        assertion=assertion,
        subentries=subentries,
        values=matched_values,
    )
    return NONE if found == NONE else found


def paging_response(cookie: bytes, size: int = 0) -> bytes:
    """The value of the response control; an empty cookie ends the listing."""
    return element(0x30, _integer(size) + element(0x04, cookie))


def sort_response(result_code: int, attribute: bytes = b"") -> bytes:
    """The value of SortResult (RFC 2891 1.2)."""
    return element(0x30, element(0x0A, bytes([result_code])) + (element(0x80, attribute) if attribute else b""))


def wrapped(message_id: int, operation: bytes) -> bytes:
    """An LDAPMessage around an encoded protocolOp."""
    return element(0x30, _integer(message_id) + operation)


def element(tag: int, content: bytes) -> bytes:
    """One BER element in the definite form."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def take(octets: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it. Raises ValueError."""
    if len(octets) < 2:
        raise ValueError("truncated")
    size, start = octets[1], 2
    if size >= 0x80:
        count = size & 0x7F
        start = 2 + count
        if not 1 <= count <= 4 or len(octets) < start:
            raise ValueError("malformed length")
        size = int.from_bytes(octets[2:start], "big")
    if len(octets) < start + size:
        raise ValueError("truncated")
    return octets[0], octets[start : start + size], octets[start + size :]


def _paging(octets: bytes) -> Paging:
    tag, content, rest = take(octets)
    if tag != 0x30 or rest:
        raise ValueError("malformed value")
    tag, size, content = take(content)
    if tag != 0x02 or not 1 <= len(size) <= 4:
        raise ValueError("malformed page size")
    tag, cookie, rest = take(content)
    if tag != 0x04 or rest:
        raise ValueError("malformed cookie")
    number = int.from_bytes(size, "big", signed=True)
    if number < 0:
        raise ValueError("negative page size")
    return Paging(number, cookie)


def _sort(octets: bytes) -> tuple[SortKey, ...]:
    tag, content, rest = take(octets)
    if tag != 0x30 or rest or not content:
        raise ValueError("malformed value")
    keys: list[SortKey] = []
    while content:
        tag, key, content = take(content)
        if tag != 0x30 or len(keys) == 16:
            raise ValueError("malformed key" if tag != 0x30 else "more than 16 keys")
        tag, attribute, key = take(key)
        if tag != 0x04 or not attribute:
            raise ValueError("malformed attribute")
        rule, is_reversed = None, False
        while key:
            tag, value, key = take(key)
            if tag == 0x80 and rule is None:
                rule = value
            elif tag == 0x81 and len(value) == 1:
                is_reversed = value != b"\0"
            else:
                raise ValueError("malformed key")
        keys.append(SortKey(attribute, rule, is_reversed))
    return tuple(keys)


def _items(octets: bytes, limits: Limits) -> tuple[bytes, ...]:
    """RFC 3876 2: a SEQUENCE OF filter items, and no filters over filters."""
    tag, content, rest = take(octets)
    if tag != 0x30 or rest or not content:
        raise ValueError("malformed value")
    items: list[bytes] = []
    while content:
        tag, inner, rest = take(content)
        item, content = content[: len(content) - len(rest)], rest
        check_filter(item, limits)
        if tag in {0xA0, 0xA1, 0xA2} or len(items) == MAX_ITEMS:
            raise ValueError("only filter items are allowed" if len(items) < MAX_ITEMS else "too many filter items")
        if tag == 0xA9:
            while inner:
                tag, _, inner = take(inner)
                if tag == 0x84:
                    raise ValueError("no dnAttributes here")
        items.append(item)
    return tuple(items)


def _subentries(control: Control) -> bool:
    if control.value in {b"\x01\x01\xff", b"\x01\x01\x00"}:
        return control.value == b"\x01\x01\xff"
    raise OperationError(PROTOCOL_ERROR, f"control {_shown(SUBENTRIES)}: malformed value")


def _value(control: Control) -> bytes:
    if control.value is None:
        raise ValueError("needs a value")
    return control.value


def _integer(number: int) -> bytes:
    return element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def _shown(oid: bytes) -> str:
    return oid[:128].decode("ascii", "backslashreplace")
