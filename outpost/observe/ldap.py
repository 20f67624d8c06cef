"""Metrics and log lines of the LDAP room; implements `outpost.ldap.observer.LdapObserver`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

from outpost._fastber import SearchRequest
from outpost.ldap.filter import filter_text
from outpost.ldap.observer import Ledger
from outpost.observe._ldap_lines import LdapLines
from outpost.observe._rows import Row
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import Requests, Tally, gauges

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOGGER = "outpost.ldap"
SCOPES = {0: "Base Object", 1: "Single Level", 2: "Whole Subtree", 3: "Subordinate Subtree"}
QUIET = frozenset({"unbind", "eof"})
"""Ends of connections that nobody needs to read about."""


@final
class LdapMeter:
    """Counts and tells what the LDAP room did.

    outpost_name: what the label of the same name says, asked at each scrape.
    """

    def __init__(self, log: LogWriter, outpost_name: Callable[[], str]) -> None:
        self._log = log
        self._outpost_name = outpost_name
        self.lines = LdapLines(log.lines, self._search_apart, self._other_apart)
        self._open = {"ldap": 0, "ldaps": 0}
        self._answered = Requests()
        """By type, app, result code and reason."""
        self._connected = Tally("outpost_ldap_connections", "LDAP connections taken.", ("listener",))
        self._ended = Tally("outpost_ldap_disconnects", "LDAP connections ended.", ("listener", "why"))
        self._bugs = Tally("outpost_ldap_bugs", "Operations that failed inside.", ())

    @property
    def ledger(self) -> Ledger | None:
        """Where lines are rendered in C."""
        return Ledger(self._row, self.lines) if self._log.is_json else None

    def _row(self, kind: str, app: str, result_code: int) -> Row:
        return self._answered.row((kind, app, result_code, ""))

    def connected(self, listener: str) -> None:
        """Counts."""
        self._connected.add((listener,))
        self._open[listener] = self._open.get(listener, 0) + 1

    def disconnected(self, listener: str, client: str, why: str) -> None:
        """Counts, and tells unusual ends at debug level."""
        self._ended.add((listener, why))
        self._open[listener] = self._open.get(listener, 0) - 1
        if why not in QUIET and self._log.wants("debug"):
            self._log.put("debug", LOGGER, "Connection ended", {"client": client, "listener": listener, "why": why})

    def disconnected_early(self, listener: str, client: str, why: str) -> None:
        """Counts, and tells at debug level."""
        self._ended.add((listener, why))
        if self._log.wants("debug"):
            self._log.put("debug", LOGGER, "Connection refused", {"client": client, "listener": listener, "why": why})

    def bound(self, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int, reason: str) -> None:
        """Counts, and tells."""
        self._answered.count(("bind", app, result_code, reason), took_s)
        if self._log.wants("info"):
            if self._log.is_json:
                self.lines.bind(time.time(), client, bind_dn, took_s, result_code, reason)
            else:
                self._other_apart(self.lines.number(), time.time(), "", client, bind_dn, took_s, result_code, reason)

    def explained(self, app: str, client: str, bind_dn: bytes, detail: str) -> None:
        """Tells."""
        fields = {"app": app, "client": client, "bindDN": _text(bind_dn).lower(), "detail": detail}
        self._log.put("info", LOGGER, "Login explained", fields)

    def searched(
        self,
        app: str,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took_s: float,
        result_code: int,
        reason: str,
        entries: int,
    ) -> None:
        """Counts, and tells."""
        self._answered.count(("search", app, result_code, reason), took_s)
        if self._log.wants("info"):
            if self._log.is_json:
                self.lines.search(time.time(), client, bind_dn, request, took_s, result_code, reason, entries)
            else:
                self._search_apart(
                    self.lines.number(), time.time(), client, bind_dn, request, took_s, result_code, reason, entries
                )

    def operated(self, kind: str, app: str, client: str, bind_dn: bytes, took_s: float, result_code: int) -> None:
        """Counts, and tells."""
        self._answered.count((kind, app, result_code, ""), took_s)
        if self._log.wants("info"):
            if self._log.is_json:
                self.lines.operation(time.time(), kind, client, bind_dn, took_s, result_code)
            else:
                self._other_apart(self.lines.number(), time.time(), kind, client, bind_dn, took_s, result_code, "")

    def _search_apart(
        self,
        number: int,
        at: float,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took_s: float,
        result_code: int,
        reason: str,
        entries: int,
    ) -> None:
        """A line that is made by the thread that writes, the text of the filter included."""

        def fields() -> dict[str, object]:
            found = _request(number, client, bind_dn, took_s, result_code, reason)
            found["attributes"] = [_text(name) for name in request.attributes]
            found["baseDN"] = _text(request.base_object)
            found["filter"] = filter_text(request.filter)
            found["scope"] = SCOPES.get(request.scope) or str(request.scope)
            found["entries"] = entries
            return found

        self._log.lines.put((at, "info", LOGGER, "Search request", fields))

    def _other_apart(
        self,
        number: int,
        at: float,
        kind: str,
        client: str,
        bind_dn: bytes,
        took_s: float,
        result_code: int,
        reason: str,
    ) -> None:
        """The same for what is no search. kind: empty for a Bind."""

        def fields() -> dict[str, object]:
            found = _request(number, client, bind_dn, took_s, result_code, reason)
            return {**found, "operation": kind} if kind else found

        self._log.lines.put((at, "info", LOGGER, "Request" if kind else "Bind request", fields))

    def failed(self, what: str, error: BaseException) -> str:
        """Tells, with the traceback."""
        self._bugs.add(())
        return self._log.bug(LOGGER, what, error)

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        name, answered = {"outpost_name": self._outpost_name()}, self._answered
        yield answered.durations(
            "authentik_outpost_ldap_request_duration_seconds",
            "Duration of LDAP requests.",
            ("type", "app"),
            lambda key: key[:2],
            name,
        )
        yield answered.totals(
            "authentik_outpost_ldap_requests_rejected",
            "LDAP requests refused.",
            ("type", "reason", "app"),
            lambda key: (key[0], key[3], key[1]) if key[3] else None,
            name,
        )
        yield answered.totals(
            "outpost_ldap_operations",
            "LDAP operations answered.",
            ("type", "result", "app"),
            lambda key: (key[0], str(key[2]), key[1]),
            {},
        )
        for ours in (self._connected, self._ended, self._bugs):
            yield ours.family({})
        rows = [((listener,), float(count)) for listener, count in self._open.items()]
        yield gauges("outpost_ldap_connections_open", "LDAP connections open now.", ("listener",), rows)


def _request(
    identifier: int, client: str, bind_dn: bytes, took_s: float, result_code: int, reason: str
) -> dict[str, object]:
    found: dict[str, object] = {
        "bindDN": _text(bind_dn).lower(),
        "client": client,
        "requestId": identifier,
        "result": result_code,
        "took-ms": round(took_s * 1000, 3),
    }
    if reason:
        found["reason"] = reason
    return found


def _text(octets: bytes) -> str:
    """UTF-8 text, what is none escaped, so long that a line stays a line."""
    return octets[:1024].decode(errors="backslashreplace")
