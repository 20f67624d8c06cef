"""How many logins the server is asked to decide at once.

A server that takes a login's whole deadline for each of many at a time decides none of them: all that it did was for
nothing, and the clients come again.  So the number falls when logins run out of time, and rises again while they are
quick; whoever cannot be decided in the time that is left is told so at once and costs the server nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import final

LEAST = 4
"""Logins at a time however slow the server is."""
SMOOTHING = 0.2
"""Weight of the latest login in what the next is expected to take."""


@final
class Turns:
    """A semaphore, first come first served, that adapts. Everything on one event loop; times are seconds of its clock.

    most: logins at a time; deadline_s: what one may take.
    """

    def __init__(self, most: int, deadline_s: float) -> None:
        self.most = most
        self.active = 0
        self.expected_s = 0.0
        """How long a login takes of late."""
        self.decided_at = float("-inf")
        """When the server last decided something."""
        self._deadline_s = deadline_s
        self._limit = float(most)
        self._shrunk_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Logins at a time now."""
        return int(self._limit)

    async def take(self) -> None:
        """Wait for a turn; every turn taken is given back once."""
        if self.active < self.limit and not self._waiting:
            self.active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it came in the moment of the cancellation
            raise

    def give_back(self) -> None:
        """The turn is over, or is not needed any more."""
        self.active -= 1
        self._hand_out()

    def decided(self, took_s: float, now: float) -> None:
        """The server decided a login in this time."""
        self.decided_at = now
        self.expected_s += SMOOTHING * (took_s - self.expected_s) if self.expected_s else took_s
        is_wanted = bool(self._waiting) or self.active >= self.limit
        if is_wanted and took_s < self._deadline_s / 4:
            self._limit = min(float(self.most), self._limit + 1.0)
            self._hand_out()

    def ran_out_of_time(self, now: float) -> None:
        """The server did not decide a login within its deadline: ask it less at a time."""
        least = float(min(LEAST, self.most))
        if now - self.decided_at >= self._deadline_s:
            self._limit = least  # it decided none at all; with every quick one it is asked one more
        elif now - self._shrunk_at >= self._deadline_s / 10:
            self._shrunk_at = now
            self._limit = max(least, min(self._limit, float(self.active)) / 2)

    def _hand_out(self) -> None:
        while self._waiting and self.active < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)
