"""Lines about RADIUS requests, and the counters of the most frequent ones."""

from typing import Final, final

from outpost.observe._lines import Lines
from outpost.observe._rows import Row

__all__: Final = ("Accepts", "RadiusLines")

@final
class RadiusLines:
    """Tells of requests; numbers them."""

    def __new__(cls, lines: Lines) -> RadiusLines: ...
    def number(self) -> int:
        """The number of a request that is told of elsewhere."""
    def answered(
        self, at: float, app: str, client: str, code: str, reply: str, reason: str, took: float, username: str
    ) -> None:
        """A request was answered at `at`, seconds since the epoch.

        code, reply: names of the packets' codes; took: seconds.
        """

@final
class Accepts:
    """Counts and tells the Access-Accepts that one client got in the very moment in which it asked.

    app, client: as in `RadiusObserver.answered`; signed, unsigned: where they are counted.
    """

    def __new__(cls, lines: RadiusLines, app: str, client: str, signed: Row, unsigned: Row) -> Accepts: ...
    def accepted(self, username: bytes, is_signed: bool, at: float) -> None:
        """One more, at `at`; username: UTF-8."""
