"""Searches in work: entries in slices, pages, sorted or as they come, and the SearchResultDone behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from outpost._fastber import SearchRequest, encode_result
from outpost.ldap import results
from outpost.ldap._snapshot import Search
from outpost.ldap.controls import paging_response

Controls = tuple[tuple[bytes, bool, bytes | None], ...]
Told = Callable[[int, int, float], None]
"""Called with result code (-1: abandoned), entries and time, once, when a listing ends."""



@final
class Streamed:
    """Entries as the directory has them, read from the search while they are sent.

    page: entries at most, 0 for all; keep: takes the search for the next page and gives the cookie.
    """

    __slots__ = ("_controls", "_deadline", "_keep", "_left", "_missing_is_empty", "_request", "_search", "_told", "_was")
    is_finished: bool

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
        controls: Controls = (),
    ) -> None:
        self._request = request
        self._search = search
        self._deadline = deadline
        self._told = told
        self._missing_is_empty = missing_is_empty
        self._left = page
        self._keep = keep
        self._controls = controls
        self._was = search.sent
        self.is_finished = False

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages; the SearchResultDone when all are out, the page is full or time is up."""
        search = self._search
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
class Prepared:
    """Entries that are encoded already: sorted ones."""

    __slots__ = ("_at", "_code", "_controls", "_messages", "_request", "_told")
    is_finished: bool

    def __init__(
        self, request: SearchRequest, messages: Sequence[bytes], code: int, *, told: Told, controls: Controls = ()
    ) -> None:
        self._request = request
        self._messages = messages
        self._code = code
        self._told = told
        self._controls = controls
        self._at = 0
        self.is_finished = False

    def more(self, size: int, examined: int, now: float) -> bytes:
        """Further messages, the SearchResultDone behind the last."""
        chunk: list[bytes] = []
        room = size
        while self._at < len(self._messages) and room > 0:
            message = self._messages[self._at]
            chunk.append(message)
            room -= len(message)
            self._at += 1
        if self._at == len(self._messages):
            self.is_finished = True
            self._told(self._code, self._at, now)
            chunk.append(
                encode_result(self._request.message_id, results.SEARCH_DONE, self._code, controls=self._controls)
            )
        return b"".join(chunk)

    def give_up(self, now: float) -> None:
        """Nobody waits for the rest."""
        if not self.is_finished:
            self.is_finished = True
            self._told(-1, self._at, now)
