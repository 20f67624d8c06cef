"""Searches in work: entries in slices, pages, sorted or as they come, and the SearchResultDone behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from outpost._fastber import SearchRequest, encode_result, frame_size
from outpost.ldap import results
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import paging_response, take, wrapped
from outpost.ldap.operations.outcome import ResponseControls

SLICE = 128 * 1024
"""Octets of entries made in one turn of the loop."""
EXAMINED = 4096
"""Candidates tested in one turn of the loop."""

Told = Callable[[int, int, float], None]
"""Called with result code (-1: abandoned), entries and time, once, when a listing ends."""


@final
class Streamed:
    """Entries as the directory has them, read from the search while they are sent.

    page: entries at most, 0 for all; keep: takes the search for the next page and gives the cookie; octets: what was
    read already; sent_before: entries of earlier pages.
    """

    __slots__ = (
        "_controls",
        "_deadline",
        "_keep",
        "_left",
        "_missing_is_empty",
        "_octets",
        "_request",
        "_search",
        "_told",
        "_was",
        "is_finished",
    )

    def __init__(
        self,
        request: SearchRequest,
        search: Search,
        *,
        deadline: float,
        told: Told,
        missing_is_empty: bool = False,
        page: int = 0,
        keep: Callable[[], bytes] | None = None,
        controls: ResponseControls = (),
        octets: bytes = b"",
        sent_before: int = 0,
    ) -> None:
        self._request = request
        self._search = search
        self._octets = octets
        self._deadline = deadline
        self._told = told
        self._missing_is_empty = missing_is_empty
        self._left = page
        self._keep = keep
        self._controls = controls
        self._was = sent_before
        self.is_finished = False

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages; the SearchResultDone when all are out, the page is full or time is up."""
        search = self._search
        if self._octets:
            octets, self._octets = self._octets, b""
            return octets
        if now > self._deadline:
            return self._finish(results.TIME_LIMIT_EXCEEDED, b"", now)
        before = search.sent
        octets = search.read(size, examined, self._left)
        if self._left:
            self._left -= search.sent - before
            if self._left == 0 and not search.finished:
                assert self._keep is not None
                return octets + self._finish(results.SUCCESS, self._keep(), now)
        if not search.finished:
            return octets
        code = search.result_code
        if code == results.NO_SUCH_OBJECT and self._missing_is_empty:
            code = results.SUCCESS
        return octets + self._finish(code, b"", now)

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        if not self.is_finished:
            self.is_finished = True
            self._told(-1, self._search.sent - self._was, now)

    def _finish(self, code: int, cookie: bytes, now: float) -> bytes:
        self.is_finished = True
        self._told(code, self._search.sent - self._was, now)
        controls = self._controls
        if self._keep is not None:
            controls = (*controls, (results.PAGED_RESULTS, False, paging_response(cookie)))
        matched = self._search.matched_dn if code == results.NO_SUCH_OBJECT else b""
        return encode_result(self._request.message_id, results.SEARCH_DONE, code, matched, controls=controls)


@final
class Ordered:
    """Entries that are encoded already, each a whole protocolOp without the LDAPMessage around it.

    code: of the SearchResultDone when the last is out; page and keep as in `Streamed`, keep gets what is left and code.
    """

    __slots__ = ("_at", "_code", "_controls", "_keep", "_operations", "_page", "_request", "_told", "is_finished")

    def __init__(
        self,
        request: SearchRequest,
        operations: list[bytes],
        code: int,
        *,
        told: Told,
        page: int = 0,
        keep: Callable[[list[bytes], int], bytes] | None = None,
        controls: ResponseControls = (),
    ) -> None:
        self._request = request
        self._operations = operations
        self._code = code
        self._told = told
        self._page = page
        self._keep = keep
        self._controls = controls
        self._at = 0
        self.is_finished = False

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages, the SearchResultDone behind the last of the page."""
        operations, chunk, room = self._operations, list[bytes](), size
        stop = min(len(operations), self._page or len(operations))
        while self._at < stop and room > 0:
            message = wrapped(self._request.message_id, operations[self._at])
            chunk.append(message)
            room -= len(message)
            self._at += 1
        if self._at == stop:
            self.is_finished = True
            is_last = stop == len(operations)
            code = self._code if is_last else results.SUCCESS
            controls = self._controls
            if self._keep is not None:
                cookie = b"" if is_last else self._keep(operations[stop:], self._code)
                controls = (*controls, (results.PAGED_RESULTS, False, paging_response(cookie)))
            self._told(code, self._at, now)
            chunk.append(encode_result(self._request.message_id, results.SEARCH_DONE, code, controls=controls))
        return b"".join(chunk)

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        if not self.is_finished:
            self.is_finished = True
            self._told(-1, self._at, now)


def messages(octets: bytes) -> Iterator[bytes]:
    """Each of our own LDAPMessages in `octets`."""
    at = 0
    while at < len(octets):
        size = frame_size(octets[at : at + 6], (1 << 31) - 1)
        yield octets[at : at + size]
        at += size


def operation(message: bytes) -> bytes:
    """The protocolOp of one of our own LDAPMessages."""
    _, content, _ = take(message)
    _, _, rest = take(content)
    return rest


def entry(operation: bytes) -> tuple[bytes, Iterator[tuple[bytes, list[bytes]]]]:
    """Name, and attributes in their order, of one of our own SearchResultEntries."""
    _, content, _ = take(operation)
    _, name, rest = take(content)
    _, attributes, _ = take(rest)
    return name, _attributes(attributes)


def _attributes(octets: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    while octets:
        _, attribute, octets = take(octets)
        _, name, rest = take(attribute)
        _, values, _ = take(rest)
        held: list[bytes] = []
        while values:
            _, value, values = take(values)
            held.append(value)
        yield name, held
