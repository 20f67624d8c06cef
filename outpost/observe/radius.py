"""Metrics and log lines of the RADIUS room; implements `outpost.radius.observer.RadiusObserver`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

from outpost.observe._radius_lines import Accepts, RadiusLines
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import Requests, Tally, counter, gauges
from outpost.radius.observer import DropReason
from outpost.radius.packet import Code, code_name

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOGGER = "outpost.radius"
ACCESS_ACCEPT, STATUS_SERVER = int(Code.ACCESS_ACCEPT), int(Code.STATUS_SERVER)
LONGEST_NAME = 256
"""Characters of a user name in a line."""


@final
class RadiusMeter:
    """Counts and tells what the RADIUS room did.

    outpost_name: what the label of the same name says, asked at each scrape.
    """

    def __init__(self, log: LogWriter, outpost_name: Callable[[], str]) -> None:
        self._log = log
        self._outpost_name = outpost_name
        self._lines = RadiusLines(log.lines)
        self._challenges = (0, 0, 0)
        self._answered = Requests()
        """By app, code of the reply, whether the request was signed, and reason."""
        self._dropped = Tally("outpost_radius_dropped", "RADIUS datagrams left unanswered.", ("reason", "app"))
        self._status = Tally("outpost_radius_status", "Status-Server requests answered.", ("app",))
        self._resent = Tally("outpost_radius_resent", "RADIUS replies sent again.", ("app",))
        self._bugs = Tally("outpost_radius_bugs", "Datagrams that failed inside.", ())

    def answered(
        self, code: int, reply: int, app: str, client: str, username: str, reason: str, took_s: float, signed: bool
    ) -> None:
        """Counts, and tells. A question about our health is no login: it has its own counter and is told at `debug`."""
        level = "info"
        if code == STATUS_SERVER:
            self._status.add((app,))
            level = "debug"
        else:
            self._answered.count((app, reply, signed, reason), took_s)
        if not self._log.wants(level):
            return
        shown = username[:LONGEST_NAME]
        if self._log.is_json and level == "info":
            self._lines.answered(
                time.time(), app, client, code_name(code), code_name(reply), str(reason), took_s, shown
            )
            return
        line: dict[str, object] = {
            "app": app,
            "client": client,
            "code": code_name(code),
            "reason": reason,
            "reply": code_name(reply),
            "requestId": self._lines.number(),
            "took-ms": int(took_s * 1e6) / 1000,
            "username": shown,
        }
        if not reason:
            del line["reason"]
        self._log.put(level, LOGGER, "Radius Request", line)

    def accepts(self, app: str, client: str) -> Accepts | None:
        """Counts and tells the same, from C."""
        if not self._log.is_json:
            return None
        signed, unsigned = (self._answered.row((app, ACCESS_ACCEPT, is_signed, "")) for is_signed in (True, False))
        return Accepts(self._lines, app, client, signed, unsigned)

    def dropped(self, reason: DropReason, app: str) -> None:
        """Counts."""
        self._dropped.add((reason, app))

    def noticed(self, reason: DropReason, app: str, client: str, suppressed: int) -> None:
        """Tells."""
        fields = {"reason": str(reason), "app": app, "client": client, "suppressed": suppressed}
        self._log.put("warning", LOGGER, "Datagram dropped", fields)

    def resent(self, app: str) -> None:
        """Counts."""
        self._resent.add((app,))

    def challenges(self, opened: int, expired: int, pending: int) -> None:
        """Remembers the figures."""
        self._challenges = (opened, expired, pending)

    def explained(self, app: str, client: str, username: str, detail: str) -> None:
        """Tells."""
        fields = {"app": app, "client": client, "username": username[:LONGEST_NAME], "detail": detail}
        self._log.put("info", LOGGER, "Login explained", fields)

    def failed(self, what: str, error: BaseException) -> str:
        """Tells, with the traceback."""
        self._bugs.add(())
        return self._log.bug(LOGGER, what, error)

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        name, answered = {"outpost_name": self._outpost_name()}, self._answered
        yield answered.durations(
            "authentik_outpost_radius_request_duration_seconds",
            "Duration of RADIUS requests.",
            ("app",),
            lambda key: key[:1],
            name,
        )
        yield answered.totals(
            "authentik_outpost_radius_requests_rejected",
            "RADIUS requests refused.",
            ("reason", "app"),
            lambda key: (key[3], key[0]) if key[3] else None,
            name,
        )
        yield answered.totals(
            "outpost_radius_replies",
            "RADIUS requests answered.",
            ("code", "signed", "app"),
            lambda key: (code_name(key[1]), "true" if key[2] else "false", key[0]),
            {},
        )
        for ours in (self._dropped, self._status, self._resent, self._bugs):
            yield ours.family({})
        opened, expired, pending = self._challenges
        yield counter("outpost_radius_challenges", "RADIUS challenges opened.", opened)
        yield counter("outpost_radius_challenges_expired", "RADIUS challenges expired.", expired)
        yield gauges("outpost_radius_challenges_pending", "RADIUS challenges open now.", (), [((), float(pending))])
