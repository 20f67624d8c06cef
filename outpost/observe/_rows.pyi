"""Counted durations: cells that compiled modules add to without a call into Python."""

from typing import Final, final

__all__: Final = ("BUCKETS", "Row")

BUCKETS: Final[tuple[float, ...]]
"""Upper bounds in seconds, inclusive."""

@final
class Row:
    """How many took how long."""

    def __new__(cls) -> Row: ...
    def observe(self, seconds: float) -> None:
        """Count one."""
    def listed(self) -> list[float]:
        """One cell per bucket, one for longer ones, and the sum."""
