"""Prompts of RADIUS that the parent keeps, so that any worker may get the answer (RFC 2865 5.24)."""

from __future__ import annotations

from typing import Final, NamedTuple, final

from outpost.radius.conversations import STATE_SIZE, Waiting

NEVER: Final = float("inf")


class Answered(NamedTuple):
    """A State that came with an answer, and who sent it; whether it stands for anything is the parent's to say."""

    state: bytes
    username: str


@final
class Prompts:
    """Implements `outpost.radius.conversations.Prompts`; a continuation is the State that the parent has made."""

    def __init__(self) -> None:
        self.opened = 0
        self.expired = 0
        """Counted by the parent."""

    def __len__(self) -> int:
        return 0

    def open(
        self,
        provider_pk: int,
        address: str,
        username: str,
        continuation: object,
        *,
        now: float,
        lifetime_s: float | None = None,
    ) -> bytes:
        """The State of a new prompt. Raises TypeError unless the parent has made it."""
        if not isinstance(continuation, bytes) or len(continuation) != STATE_SIZE:
            raise TypeError("no State of the parent's")
        self.opened += 1
        return continuation

    def take(self, state: bytes, provider_pk: int, address: str, username: str, *, now: float) -> Waiting | None:
        """What to resume with; None for a State that nobody here has made."""
        if len(state) != STATE_SIZE:
            return None
        return Waiting(provider_pk, address, username, Answered(state, username), NEVER)

    def expire(self, now: float) -> None:
        """The parent does."""
