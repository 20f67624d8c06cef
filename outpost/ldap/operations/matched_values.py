"""Matched values (RFC 3876): entries reduced to the values that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from outpost._fastber import encode_search_entry
from outpost.ldap import plain
from outpost.ldap.controls import element, take
from outpost.ldap.matching import Kind
from outpost.ldap.operations import listing
from outpost.ldap.operations.outcome import Listing
from outpost.ldap.schema import MATCHING_RULES, attribute_type

_UNEQUAL = frozenset({"integerBitAndMatch", "integerBitOrMatch", "dnInChainMatch"})
_RULES = {
    name.lower().encode(): kind
    for rule, (oid, _, kind) in MATCHING_RULES.items()
    if kind is not None and rule not in _UNEQUAL
    for name in (rule, oid)
}
"""Equality rules. Of the others in filters none says anything definite about a single value."""


@final
class Chosen:
    """Which values are returned. Filter items that say nothing definite of a value do not choose it."""

    def __init__(self, items: Sequence[bytes]) -> None:
        self._of: dict[bytes, list[tuple[Kind | None, bytes]]] = {}
        self._of_any: list[tuple[Kind, bytes]] = []
        for item in items:
            self._add(item)

    def narrowed(self, message: bytes) -> bytes:
        """A message; if it is a SearchResultEntry, with the chosen values only."""
        operation = listing.operation(message)
        if operation[0] != 0x64:
            return message
        name, attributes = listing.entry(operation)
        kept = [(described, chosen) for described, values in attributes if (chosen := self._choose(described, values))]
        _, content, _ = take(message)
        _, number, _ = take(content)
        return encode_search_entry(int.from_bytes(number, "big"), name, kept)

    def _choose(self, description: bytes, values: list[bytes]) -> list[bytes]:
        known = attribute_type(description)
        kind = plain.kind_of(description.lower()) if known is None else known.kind
        items = [(ruled or kind, item) for ruled, item in self._of.get(_canonical(description), ())]
        items += [(ruled, item) for ruled, item in self._of_any if ruled is kind]
        return [value for value in values if any(plain.fits(item, ruled, (value,)) for ruled, item in items)]

    def _add(self, item: bytes) -> None:
        tag, content, _ = take(item)
        if tag == 0x87:
            self._of.setdefault(_canonical(content), []).append((None, item))
        elif tag != 0xA9:
            _, name, _ = take(content)
            self._of.setdefault(_canonical(name), []).append((None, item))
        else:
            self._add_extensible(content)

    def _add_extensible(self, content: bytes) -> None:
        """matchingRule, type or both: an equality, maybe under another rule than the attribute's own."""
        parts = {}
        while content:
            tag, part, content = take(content)
            parts[tag] = part
        name, rule = parts.get(0x82), parts.get(0x81)
        equality = element(0xA3, element(0x04, name or b"") + element(0x04, parts[0x83]))
        kind: Kind | None = None
        if rule is not None:
            kind = _RULES.get(rule.lower())
            if kind is None:
                return
        if name is not None:
            self._of.setdefault(_canonical(name), []).append((kind, equality))
        elif kind is not None:
            self._of_any.append((kind, equality))


@final
class Narrowed:
    """Another listing with its values reduced."""

    __slots__ = ("_chosen", "_whole")

    def __init__(self, whole: Listing, chosen: Chosen) -> None:
        self._whole = whole
        self._chosen = chosen

    @property
    def is_finished(self) -> bool:
        """Nothing is left to send."""
        return self._whole.is_finished

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages."""
        return b"".join(map(self._chosen.narrowed, listing.messages(self._whole.more(size, examined, now))))

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        self._whole.give_up(now)


def _canonical(description: bytes) -> bytes:
    known = attribute_type(description)
    return description.lower() if known is None else known.name.lower().encode()
