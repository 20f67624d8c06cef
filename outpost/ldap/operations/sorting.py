"""Server-side sorting (RFC 2891): all entries are gathered, then ordered by their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

from outpost._fastber import SearchRequest, encode_result, frame_size
from outpost.ldap import results
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import SortKey, sort_response, take
from outpost.ldap.matching import WITH_ORDERING, Kind, normalise_value
from outpost.ldap.operations.listing import Controls, Ordered, Told
from outpost.ldap.schema import ATTRIBUTE_TYPES

WHOLE = 1 << 31

ORDERING_RULES = {
    b"caseignoreorderingmatch": Kind.CASE_IGNORE,
    b"2.5.13.3": Kind.CASE_IGNORE,
    b"caseexactorderingmatch": Kind.CASE_EXACT,
    b"2.5.13.6": Kind.CASE_EXACT,
    b"integerorderingmatch": Kind.INTEGER,
    b"2.5.13.15": Kind.INTEGER,
    b"generalizedtimeorderingmatch": Kind.GENERALIZED_TIME,
    b"2.5.13.28": Kind.GENERALIZED_TIME,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key, its attribute and rule known."""

    attribute: bytes
    kind: Kind
    is_reversed: bool


class CannotSort(Exception):
    """code: the sortResult; attribute: the one at fault."""

    def __init__(self, code: int, attribute: bytes) -> None:
        self.code = code
        self.attribute = attribute
        super().__init__(code)


@cache
def _kinds() -> dict[bytes, Kind]:
    return {name.lower().encode(): t.kind for t in ATTRIBUTE_TYPES for name in (t.name, *t.aliases, t.oid)}


def understand(keys: Sequence[SortKey], custom: frozenset[str]) -> tuple[Key, ...]:
    """The keys as they can be used. Raises CannotSort."""
    found: list[Key] = []
    for key in keys:
        name = key.attribute.lower()
        kind = _kinds().get(name)
        if kind is None:
            if name.decode("utf-8", "replace") not in {one.lower() for one in custom}:
                raise CannotSort(results.NO_SUCH_ATTRIBUTE, key.attribute)
            kind = Kind.CASE_IGNORE
        if key.ordering_rule is not None:
            ruled = ORDERING_RULES.get(key.ordering_rule.lower())
            if ruled is None:
                raise CannotSort(results.INAPPROPRIATE_MATCHING, key.attribute)
            kind = ruled
        if kind not in WITH_ORDERING:
            raise CannotSort(results.INAPPROPRIATE_MATCHING, key.attribute)
        found.append(Key(key.attribute, kind, key.is_reversed))
    return tuple(found)


@final
class Sorted:
    """A listing in order. Two searches over the same entries: what is sent, and what it is sorted by.

    limit: entries that are sorted at most; size_limit: the client's.
    """

    def __init__(
        self,
        request: SearchRequest,
        entries: Search,
        values: Search,
        keys: Sequence[Key],
        *,
        limit: int,
        size_limit: int,
        deadline: float,
        told: Told,
        missing_is_empty: bool,
        page: int = 0,
        keep: Callable[[list[bytes]], bytes] | None = None,
    ) -> None:
        self._request = request
        self._searches = (entries, values)
        self._keys = keys
        self._limit = limit
        self._size_limit = size_limit
        self._deadline = deadline
        self._told = told
        self._missing_is_empty = missing_is_empty
        self._page = page
        self._keep = keep
        self._found: tuple[list[bytes], list[bytes]] = ([], [])
        self._ordered: Ordered | None = None
        self._is_over = False

    @property
    def is_finished(self) -> bool:
        """Nothing is left to send."""
        return self._is_over or (self._ordered is not None and self._ordered.is_finished)

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Nothing while entries are gathered, then messages in order."""
        if self._ordered is not None:
            return self._ordered.more(size, examined, now)
        if now > self._deadline:
            return self._fail(results.TIME_LIMIT_EXCEEDED, b"", (), now)
        for search, found in zip(self._searches, self._found, strict=True):
            if not search.finished:
                found.extend(_messages(search.read(size, examined)))
        entries, values = self._searches
        if entries.sent > self._limit:
            told = (results.SORT_RESPONSE, False, sort_response(results.ADMIN_LIMIT_EXCEEDED))
            return self._fail(results.ADMIN_LIMIT_EXCEEDED, b"", (told,), now)
        if not (entries.finished and values.finished):
            return b""
        if entries.result_code == results.NO_SUCH_OBJECT and not self._missing_is_empty:
            return self._fail(results.NO_SUCH_OBJECT, entries.matched_dn, (), now)
        self._ordered = self._order()
        return self._ordered.more(size, examined, now)

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        if self._ordered is not None:
            self._ordered.give_up(now)
        elif not self._is_over:
            self._is_over = True
            self._told(-1, 0, now)

    def _order(self) -> Ordered:
        operations, values = self._found
        self._found = ([], [])
        order = list(range(len(operations)))
        read = [_values(octets) for octets in values]
        # A stable sort by the last key first leaves the first key in charge.
        for key in reversed(self._keys):
            name = key.attribute.lower()
            least = [_least(key.kind, held, name) for held in read]
            # RFC 2891 2.2: an entry without the key counts as the largest.
            order.sort(key=lambda i, least=least: (least[i] is None, least[i] or 0), reverse=key.is_reversed)  # type: ignore[misc]
        operations = [operations[i] for i in order]
        code = results.SUCCESS
        if self._size_limit and len(operations) > self._size_limit:
            del operations[self._size_limit :]
            code = results.SIZE_LIMIT_EXCEEDED
        controls: Controls = ((results.SORT_RESPONSE, False, sort_response(results.SUCCESS)),)
        return Ordered(
            self._request, operations, code, told=self._told, page=self._page, keep=self._keep, controls=controls
        )

    def _fail(self, code: int, matched_dn: bytes, controls: Controls, now: float) -> bytes:
        self._is_over = True
        self._told(code, 0, now)
        return encode_result(self._request.message_id, results.SEARCH_DONE, code, matched_dn, controls=controls)


def _messages(octets: bytes) -> Iterator[bytes]:
    """The protocolOp of each LDAPMessage in `octets`, which are our own."""
    at = 0
    while at < len(octets):
        size = frame_size(octets[at : at + 6], WHOLE - 1)
        _, content, _ = take(octets[at : at + size])
        _, _, operation = take(content)
        yield operation
        at += size


def _values(operation: bytes) -> dict[bytes, list[bytes]]:
    """Values by attribute description, in lower case, of a SearchResultEntry."""
    _, content, _ = take(operation)
    _, _, rest = take(content)
    _, attributes, _ = take(rest)
    found: dict[bytes, list[bytes]] = {}
    while attributes:
        _, attribute, attributes = take(attributes)
        _, name, rest = take(attribute)
        _, values, _ = take(rest)
        held = found.setdefault(name.lower(), [])
        while values:
            _, value, values = take(values)
            held.append(value)
    return found


def _least(kind: Kind, held: dict[bytes, list[bytes]], name: bytes) -> int | bytes | None:
    """What the entry is sorted by: its lowest value."""
    # The description in the entry is the schema's own spelling, whatever alias was asked for.
    normal = [one for value in held.get(_spelling(name), ()) if (one := normalise_value(kind, value)) is not None]
    if not normal:
        return None
    return min(int(one) for one in normal) if kind is Kind.INTEGER else min(normal)


@cache
def _spelling(name: bytes) -> bytes:
    for t in ATTRIBUTE_TYPES:
        if name.decode("utf-8", "replace") in {one.lower() for one in (t.name, *t.aliases, t.oid)}:
            return t.name.lower().encode()
    return name
