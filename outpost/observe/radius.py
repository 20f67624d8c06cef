"""Metrics and log lines of the RADIUS room; implements `outpost.radius.observer.RadiusObserver`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

from prometheus_client.core import CounterMetricFamily, Metric

from outpost.observe.logs import LogWriter
from outpost.observe.metrics import Requests, Tally, gauges
from outpost.radius.observer import DropReason
from outpost.radius.packet import code_name

LOGGER = "outpost.radius"
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
        self._requests = 0
        self._challenges = (0, 0, 0)
        self._answered = Requests()
        """By app, code of the reply, whether the request was signed, and reason."""
        self._dropped = Tally("outpost_radius_dropped", "RADIUS datagrams left unanswered.", ("reason", "app"))
        self._resent = Tally("outpost_radius_resent", "RADIUS replies sent again.", ("app",))
        self._bugs = Tally("outpost_radius_bugs", "Datagrams that failed inside.", ())

    def answered(
        self, code: int, reply: int, app: str, client: str, username: str, reason: str, took_s: float, signed: bool
    ) -> None:
        """Counts, and tells."""
        self._answered.count((app, reply, signed, reason), took_s)
        if self._log.wants("info"):
            self._requests += 1
            line: dict[str, object] = {
                "app": app,
                "client": client,
                "code": code_name(code),
                "event": "Radius Request",
                "level": "info",
                "logger": LOGGER,
                "reason": reason,
                "reply": code_name(reply),
                "requestId": self._requests,
                "timestamp": None,
                "took-ms": int(took_s * 1e6) / 1000,
                "username": username if len(username) <= LONGEST_NAME else username[:LONGEST_NAME],
            }
            if not reason:
                del line["reason"]
            self._log.put_plain(line)

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
        for ours in (self._dropped, self._resent, self._bugs):
            yield ours.family({})
        opened, expired, pending = self._challenges
        yield CounterMetricFamily("outpost_radius_challenges", "RADIUS challenges opened.", value=opened)
        yield CounterMetricFamily("outpost_radius_challenges_expired", "RADIUS challenges expired.", value=expired)
        yield gauges("outpost_radius_challenges_pending", "RADIUS challenges open now.", (), [((), float(pending))])
