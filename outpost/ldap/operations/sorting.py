"""Server-side sorting (RFC 2891): all entries are gathered, then ordered by their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from outpost._fastber import SearchRequest, encode_result
from outpost.ldap import results
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import SortKey, sort_response
from outpost.ldap.matching import WITH_ORDERING, Kind, normalise_value, rank
from outpost.ldap.operations.listing import Ordered, Told, entry, messages, operation
from outpost.ldap.operations.outcome import Listing, ResponseControls
from outpost.ldap.schema import attribute_type

SORTED: Final = ((results.SORT_RESPONSE, False, sort_response(results.SUCCESS)),)
"""The response control of a listing in order."""
TOO_MANY: Final = ((results.SORT_RESPONSE, False, sort_response(results.ADMIN_LIMIT_EXCEEDED)),)
"""The response control when there are more entries than may be sorted."""

Rank = tuple[int, int, bytes]
VALUE, NOTHING = 0, (1, 0, b"")

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
    """In lower case, as the schema calls it."""
    kind: Kind
    is_reversed: bool


class CannotSort(Exception):
    """code: the sortResult; attribute: the one at fault."""

    def __init__(self, code: int, attribute: bytes) -> None:
        self.code = code
        self.attribute = attribute
        super().__init__(code)


def understand(keys: Sequence[SortKey], custom: frozenset[str]) -> tuple[Key, ...]:
    """The keys as they can be used. Raises CannotSort."""
    found: list[Key] = []
    for key in keys:
        known = attribute_type(key.attribute)
        kind = Kind.CASE_IGNORE if known is None else known.kind
        name = key.attribute.lower() if known is None else known.name.lower().encode()
        if known is None and name.decode("utf-8", "replace") not in {one.lower() for one in custom}:
            raise CannotSort(results.NO_SUCH_ATTRIBUTE, key.attribute)
        if key.ordering_rule is not None:
            ruled = ORDERING_RULES.get(key.ordering_rule.lower())
            if ruled is None:
                raise CannotSort(results.INAPPROPRIATE_MATCHING, key.attribute)
            kind = ruled
        if kind not in WITH_ORDERING:
            raise CannotSort(results.INAPPROPRIATE_MATCHING, key.attribute)
        found.append(Key(name, kind, key.is_reversed))
    return tuple(found)


@final
class Sorted:
    """A listing in order. Two searches over the same entries: what is sent, and what it is sorted by.

    limit: entries that are sorted at most; size_limit: the client's; unsorted: begins the listing that takes its
    place if there are more, None if the client wants nothing then.
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
        unsorted: Callable[[], Listing] | None,
        page: int = 0,
        keep: Callable[[list[bytes], int], bytes] | None = None,
    ) -> None:
        self._request = request
        self._entries = entries
        self._values = values
        self._keys = keys
        self._unsorted = unsorted
        self._limit = limit
        self._size_limit = size_limit
        self._deadline = deadline
        self._told = told
        self._missing_is_empty = missing_is_empty
        self._page = page
        self._keep = keep
        self._operations: list[bytes] = []
        self._ranks: list[list[Rank]] = [[] for _ in keys]
        self._instead: Listing | None = None
        self._is_over = False

    @property
    def is_finished(self) -> bool:
        """Nothing is left to send."""
        return self._is_over or (self._instead is not None and self._instead.is_finished)

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Nothing while entries are gathered, then messages in order."""
        if self._instead is not None:
            return self._instead.more(size, examined, now)
        if now > self._deadline:
            return self._fail(results.TIME_LIMIT_EXCEEDED, b"", (), now)
        entries, values = self._entries, self._values
        self._operations.extend(map(operation, messages(entries.read(size, examined))))
        for message in messages(values.read(size, examined)):
            self._add(operation(message))
        if entries.sent > self._limit:
            self._operations, self._ranks = [], []
            if self._unsorted is None:
                return self._fail(results.UNAVAILABLE_CRITICAL_EXTENSION, b"", TOO_MANY, now)
            self._instead = self._unsorted()
        elif not (entries.finished and values.finished):
            return b""
        elif entries.result_code == results.NO_SUCH_OBJECT and not self._missing_is_empty:
            return self._fail(results.NO_SUCH_OBJECT, entries.matched_dn, (), now)
        else:
            self._instead = self._order()
        return self._instead.more(size, examined, now)

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        if self._instead is not None:
            self._instead.give_up(now)
        elif not self._is_over:
            self._is_over = True
            self._told(-1, 0, now)

    def _add(self, entry_operation: bytes) -> None:
        _, attributes = entry(entry_operation)
        held = {name.lower(): values for name, values in attributes}
        for key, ranks in zip(self._keys, self._ranks, strict=True):
            normal = [normalise_value(key.kind, value) for value in held.get(key.attribute, ())]
            # RFC 2891 2.2: the least of several values counts, and nothing is larger than everything.
            ranks.append(min((VALUE, *rank(key.kind, one)) if one is not None else NOTHING for one in normal or [None]))

    def _order(self) -> Ordered:
        operations, order = self._operations, list(range(len(self._operations)))
        # A stable sort by the last key first leaves the first key in charge.
        for key, ranks in reversed([*zip(self._keys, self._ranks, strict=True)]):
            order.sort(key=ranks.__getitem__, reverse=key.is_reversed)
        self._operations, self._ranks = [], []
        operations = [operations[i] for i in order]
        code = results.SUCCESS
        if self._size_limit and len(operations) > self._size_limit:
            del operations[self._size_limit :]
            code = results.SIZE_LIMIT_EXCEEDED
        return Ordered(
            self._request, operations, code, told=self._told, page=self._page, keep=self._keep, controls=SORTED
        )

    def _fail(self, code: int, matched_dn: bytes, controls: ResponseControls, now: float) -> bytes:
        self._is_over = True
        self._told(code, 0, now)
        return encode_result(self._request.message_id, results.SEARCH_DONE, code, matched_dn, controls=controls)
