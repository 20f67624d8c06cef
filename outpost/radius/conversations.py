"""Logins that wait for one more answer: State to continuation, once (RFC 2865 4.4, 5.24)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final


@dataclass(frozen=True, slots=True)
class ConversationLimits:
    """Bounds of what a prompt may keep waiting."""

    pending: int = 8192
    """Prompts without an answer; the oldest goes first."""
    lifetime_s: float = 120.0
    """How long a person may take to answer."""


DEFAULTS = ConversationLimits()
STATE_SIZE = 16


class Waiting(NamedTuple):
    """One prompt, bound to whom it was shown."""

    provider_pk: int
    address: str
    username: str
    continuation: object
    expires_at: float


class Prompts(Protocol):
    """Who keeps the prompts that wait for their answer."""

    @property
    def opened(self) -> int:
        """Prompts shown so far."""
        ...

    @property
    def expired(self) -> int:
        """Prompts forgotten without an answer so far."""
        ...

    def __len__(self) -> int: ...

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
        """The State of a new prompt."""
        ...

    def take(self, state: bytes, provider_pk: int, address: str, username: str, *, now: float) -> Waiting | None:
        """The prompt this State was for, which is over with that; None if there is none for these peers."""
        ...

    def expire(self, now: float) -> None:
        """Forget the prompts whose time is over."""
        ...


@final
class Conversations:
    """Prompts that wait for their answer. random: octets from a safe source."""

    def __init__(self, random: Callable[[int], bytes], limits: ConversationLimits = DEFAULTS) -> None:
        self._random = random
        self._limits = limits
        self._waiting: OrderedDict[bytes, Waiting] = OrderedDict()
        self.opened = 0
        """Prompts shown so far."""
        self.expired = 0
        """Prompts forgotten without an answer so far."""

    def __len__(self) -> int:
        return len(self._waiting)

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
        """The State of a new prompt.

        address: of the network device; lifetime_s: shortens how long the answer is accepted.
        """
        self.expire(now)
        while len(self._waiting) >= self._limits.pending:
            self._waiting.popitem(last=False)
            self.expired += 1
        lifetime_s = min(self._limits.lifetime_s, self._limits.lifetime_s if lifetime_s is None else lifetime_s)
        state = self._random(STATE_SIZE)
        self._waiting[state] = Waiting(provider_pk, address, username, continuation, now + lifetime_s)
        self.opened += 1
        return state

    def take(self, state: bytes, provider_pk: int, address: str, username: str, *, now: float) -> Waiting | None:
        """The prompt this State was for, which is over with that; None if there is none for these peers."""
        waiting = self._waiting.pop(state, None)
        if waiting is None:
            return None
        if now >= waiting.expires_at:
            self.expired += 1
            return None
        if (waiting.provider_pk, waiting.address, waiting.username) != (provider_pk, address, username):
            return None
        return waiting

    def expire(self, now: float) -> None:
        """Forget the prompts whose time is over."""
        while self._waiting:
            state, oldest = next(iter(self._waiting.items()))
            # Lifetimes differ, so a shorter one behind a longer one waits for it; `take` checks each.
            if now < oldest.expires_at:
                return
            del self._waiting[state]
            self.expired += 1
