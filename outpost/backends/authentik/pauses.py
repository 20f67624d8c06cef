"""Long work in a thread that leaves the interpreter to the event loop in between.

Whoever waits for the interpreter asks its holder for it only after 5 ms (`sys.getswitchinterval`), and then once for
each time that the loop has slept: logins would take as long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")
PAUSE_S: Final = 0.00005
"""Long enough for a waiting thread to wake up; the system makes twice of it."""


def gently(items: Iterable[T], every: int) -> Iterator[T]:
    """The same, with a pause after so many of them; 0, for none, where this is the loop's own thread."""
    for number, item in enumerate(items, 1):
        yield item
        if every and not number % every:
            time.sleep(PAUSE_S)
