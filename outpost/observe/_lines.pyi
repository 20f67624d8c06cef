"""Log lines of requests, one JSON object each, rendered in C where the request was answered."""

from collections.abc import Callable
from typing import Final, final

__all__: Final = ("Lines",)

@final
class Lines:
    """Lines that wait for their writer, in the order in which they came; safe from every thread.

    Rendered lines lie in one growing buffer. Others, of whatever form their writer knows, go into the same queue.
    pending: lines that may wait; further ones are dropped and counted. wake: called when there is something to take.
    What compiled modules write lines with is in `_lines.pxd`; `write` is the same for everybody else.
    """

    threshold: int
    """Number of the least important level that is written; whoever writes looks at it first."""

    def __new__(cls, pending: int, wake: Callable[[], object], threshold: int = 20) -> Lines: ...
    @property
    def waiting(self) -> int:
        """Lines not taken yet."""
    @property
    def dropped(self) -> int:
        """Lines that nobody will see."""
    def drop(self, count: int) -> None:
        """So many lines more that nobody will see."""
    def put(self, line: object) -> None:
        """A line that its writer is to render."""
    def take(self) -> tuple[object, int] | None:
        """What waits longest, and how many lines it is: octets of rendered lines, or one that was `put`."""
    def write(self, fields: tuple[tuple[str, str | int | float], ...], at: float) -> None:
        """One line of these fields, keys in alphabetic order; the value of `timestamp` is `at`, in seconds since the
        epoch, whatever it is given as. Floats are seconds and written as milliseconds."""
