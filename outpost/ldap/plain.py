"""Entries that are in no snapshot (root DSE, subschema): filter, selection and encoding over plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from outpost._fastber import SearchRequest, encode_search_entry
from outpost.ldap.matching import WITH_ORDERING, WITH_SUBSTRINGS, Kind, normalise_substring, normalise_value, rank

Attributes = Sequence[tuple[bytes, Sequence[bytes]]]

_KINDS: Final[Mapping[bytes, Kind]] = {
    b"objectclass": Kind.OID,
    b"entrydn": Kind.DN,
    b"subschemasubentry": Kind.DN,
    b"namingcontexts": Kind.DN,
    b"defaultnamingcontext": Kind.DN,
    b"rootdomainnamingcontext": Kind.DN,
    b"supportedldapversion": Kind.INTEGER,
    b"supportedcontrol": Kind.OID,
    b"supportedextension": Kind.OID,
    b"supportedfeatures": Kind.OID,
}
_NAMES: Final[Mapping[bytes, bytes]] = {b"2.5.4.0": b"objectclass", b"commonname": b"cn", b"2.5.4.3": b"cn"}


def entry(request: SearchRequest, dn: bytes, attributes: Attributes) -> bytes | None:
    """The SearchResultEntry for this request, or None if its filter is not TRUE of the entry."""
    if not is_true_of(request.filter, attributes):
        return None
    chosen = [(name, () if request.types_only else values) for name, values in select(request.attributes, attributes)]
    return encode_search_entry(request.message_id, dn, [(name, list(values)) for name, values in chosen])


def kind_of(name: bytes) -> Kind:
    """The matching rules of an attribute of these entries."""
    return _KINDS.get(name, Kind.CASE_IGNORE)


def select(wanted: Sequence[bytes], attributes: Attributes) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The attributes that were asked for (RFC 4511 4.5.1.8); an empty list and `*` ask for all.

    All of them are shown without `+` too, because clients of this product's predecessors do not ask for it.
    """
    names = {name.strip().lower() for listed in wanted for name in listed.split(b",")}
    names = {_NAMES.get(name, name) for name in names}
    everything = not names or names == {b""} or b"*" in names or b"+" in names
    for name, values in attributes:
        if everything or name.lower() in names:
            yield name, values


def matches(octets: bytes, held: Mapping[bytes, tuple[Kind, Sequence[bytes]]]) -> bool:
    """Whether a validated BER Filter is TRUE of the entry; Undefined is not."""
    return _evaluate(octets, 0, held)[0] is True


def is_true_of(octets: bytes, attributes: Attributes) -> bool:
    """Whether a validated BER Filter is TRUE of an entry with these attributes."""
    return matches(octets, {name.lower(): (kind_of(name.lower()), values) for name, values in attributes})


def fits(octets: bytes, kind: Kind, values: Sequence[bytes]) -> bool | None:
    """Whether a validated filter item about one attribute holds for any of its values; None is Undefined."""
    return _fits(octets, *_header(octets, 0), kind, values)


def _evaluate(octets: bytes, at: int, held: Mapping[bytes, tuple[Kind, Sequence[bytes]]]) -> tuple[bool | None, int]:
    tag, start, end = _header(octets, at)
    if tag in {0xA0, 0xA1}:  # and, or: three-valued (RFC 4511 4.5.1.7)
        decisive = tag == 0xA1
        outcome: bool | None = not decisive
        while start < end:
            one, start = _evaluate(octets, start, held)
            if one is decisive:
                outcome = decisive
            elif one is None and outcome is not decisive:
                outcome = None
        return outcome, end
    if tag == 0xA2:
        negated, _ = _evaluate(octets, start, held)
        return None if negated is None else not negated, end
    if tag == 0x87:
        return _name(octets[start:end]) in held, end
    if tag == 0xA9:  # extensibleMatch: no rule is offered for these entries
        return None, end
    _, name_start, name_end = _header(octets, start)
    found = held.get(_name(octets[name_start:name_end]))
    if found is None:
        # Not having an attribute is FALSE if the attribute is known, and Undefined if it is not.
        return None, end
    return _fits(octets, tag, start, end, *found), end


def _fits(octets: bytes, tag: int, start: int, end: int, kind: Kind, values: Sequence[bytes]) -> bool | None:
    if tag == 0x87:
        return True
    _, _, at = _header(octets, start)
    if tag == 0xA4:
        return _substrings(octets, at, kind, values)
    _, value_start, value_end = _header(octets, at)
    wanted = normalise_value(kind, octets[value_start:value_end])
    if wanted is None:
        return None
    normal = [form for value in values if (form := normalise_value(kind, value)) is not None]
    if tag in {0xA3, 0xA8}:
        return wanted in normal
    if kind not in WITH_ORDERING:
        return None
    limit, ranks = rank(kind, wanted), [rank(kind, form) for form in normal]
    return any(one >= limit if tag == 0xA5 else one <= limit for one in ranks)


def _substrings(octets: bytes, at: int, kind: Kind, values: Sequence[bytes]) -> bool | None:
    if kind not in WITH_SUBSTRINGS:
        return None
    _, at, end = _header(octets, at)
    pieces: list[tuple[int, bytes]] = []
    while at < end:
        tag, start, at = _header(octets, at)
        piece = normalise_substring(kind, octets[start:at], initial=tag == 0x80, final=tag == 0x82)
        if piece is None:
            return None
        pieces.append((tag, piece))
    return any(_holds(value, pieces) for v in values if (value := normalise_value(kind, v)) is not None)


def _holds(value: bytes, pieces: Sequence[tuple[int, bytes]]) -> bool:
    at = 0
    for tag, piece in pieces:
        if tag == 0x80:
            if not value.startswith(piece):
                return False
            at = len(piece)
        elif tag == 0x82:
            return len(value) - len(piece) >= at and value.endswith(piece)
        else:
            at = value.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
    return True


def _name(octets: bytes) -> bytes:
    name = octets.lower()
    return _NAMES.get(name, name)


def _header(octets: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the element at `at`; the decoder has validated it."""
    tag, first = octets[at], octets[at + 1]
    if first < 0x80:
        return tag, at + 2, at + 2 + first
    start = at + 2 + (first & 0x7F)
    return tag, start, start + int.from_bytes(octets[at + 2 : start], "big")
