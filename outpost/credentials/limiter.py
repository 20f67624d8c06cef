"""Who may try to log in, and how soon again: token buckets for failures, and pauses for repeated ones.

Only failures cost a token, so somebody with right credentials is never slowed, however often he comes.
Three buckets are looked at before the backend is asked, and each failure with a new secret takes a token
out of all three:

    pair    (service, user, source)   stops guessing at one account from one place
    source  (source)                  slows one password tried on many accounts
    user    (service, user)           slows guessing at one account from many places

Nobody can lock a user out everywhere by guessing at him: the last `reserve` tokens of the source and user
buckets are kept for pairs that logged in successfully within `known_for_s`.  A stranger is refused when his
bucket falls below the reserve; the user at his usual place only when it is empty, or when there were too
many failures in his own name from that very place.

Arithmetic: out of one bucket at most burst + refill_per_s * T failures are let through in T seconds (strangers:
burst - reserve), plus as many as were in flight when it ran dry.  Those leave it below zero, so that the
long-run rate holds.  With the defaults one source guesses at one account 5,770 times a day, all sources
together 17,300 times, and one source tries 86,500 logins a day in all; an honest user who failed ten times
in a row waits 15 seconds for the next try.

A repeated failure of the very same login teaches nobody anything, so it costs no token (else a forgotten mail
client would lock its owner out).  It is damped instead: `Damper` makes it wait until a pause since the
last refusal is over, and then the backend is asked again.  No refusal is ever remembered as an answer.

Names are compared folded (case, compatibility forms, spaces) and kept as keyed hashes only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

NAME_LENGTH = 1024
"""Characters of a name that count; bounds the work that a name can cause."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Size and speed of one kind of token bucket. Raises ValueError unless burst > reserve >= 0."""

    burst: float
    """Tokens in a full bucket."""
    refill_per_s: float
    reserve: float = 0.0
    """The last tokens, which only known pairs may use."""

    def __post_init__(self) -> None:
        if not self.burst > self.reserve >= 0 or self.refill_per_s < 0:
            raise ValueError("a bucket needs burst > reserve >= 0 and a refill rate that is not negative")


@dataclass(frozen=True, slots=True)
class LimiterSettings:
    """How many failures are let through, and how fast the same one may be repeated."""

    enabled: bool = True
    pair: Bucket = Bucket(burst=10, refill_per_s=1 / 15)
    source: Bucket = Bucket(burst=200, refill_per_s=1.0, reserve=100)
    """Generous, since behind one source there may be a whole mail server or wireless network."""
    user: Bucket = Bucket(burst=60, refill_per_s=0.2, reserve=30)
    known_for_s: float = 12 * 3600.0
    """A source counts as usual for a user this long after his last success from there."""
    max_entries: int = 20_000
    """Rows in each of the tables; the least recently used goes."""
    damp_s: float = 2.0
    """Pause between two attempts upstream with the same wrong secret. 0 is off."""
    repeat_memory_s: float = 600.0
    """A refusal of the same login within this time is a repetition and takes no token."""

    def __post_init__(self) -> None:
        if min(self.known_for_s, self.damp_s, self.repeat_memory_s) < 0 or self.max_entries < 1:
            raise ValueError("limiter times must not be negative and tables need at least one row")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Whom one login counts for: keyed hashes, good as long as their Limiter."""

    pair: bytes
    source: bytes
    user: bytes


@final
class _Row:
    __slots__ = ("known_until", "stamp", "tokens")

    def __init__(self, tokens: float, stamp: float) -> None:
        self.tokens = tokens
        self.stamp = stamp
        self.known_until = 0.0


@final
class _Table:
    """Buckets of one kind."""

    __slots__ = ("_bucket", "_max_entries", "_rows")

    def __init__(self, bucket: Bucket, max_entries: int) -> None:
        self._bucket = bucket
        self._max_entries = max_entries
        self._rows: OrderedDict[bytes, _Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def tokens(self, key: bytes, now: float) -> float:
        row = self._rows.get(key)
        if row is None:
            return self._bucket.burst
        return min(self._bucket.burst, row.tokens + max(0.0, now - row.stamp) * self._bucket.refill_per_s)

    def admits(self, key: bytes, now: float, known: bool) -> bool:
        return self.tokens(key, now) >= 1 + (0.0 if known else self._bucket.reserve)

    def is_known(self, key: bytes, now: float) -> bool:
        row = self._rows.get(key)
        return row is not None and now < row.known_until

    def take(self, key: bytes, now: float) -> None:
        tokens = self.tokens(key, now) - 1
        row = self._touch(key, now)
        row.tokens = tokens
        row.stamp = max(row.stamp, now)

    def know(self, key: bytes, now: float, known_until: float) -> None:
        self._touch(key, now).known_until = known_until

    def _touch(self, key: bytes, now: float) -> _Row:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row(self._bucket.burst, now)
            if len(self._rows) > self._max_entries:
                self._rows.popitem(last=False)
        else:
            self._rows.move_to_end(key)
        return row


@final
class Limiter:
    """Failures by pair, source and user. hash_key: as for the cache."""

    def __init__(self, settings: LimiterSettings, hash_key: bytes) -> None:
        self.settings = settings
        self._hash = hashlib.blake2b(key=hash_key, digest_size=16, person=b"limiter")
        self._pairs = _Table(settings.pair, settings.max_entries)
        self._sources = _Table(settings.source, settings.max_entries)
        self._users = _Table(settings.user, settings.max_entries)

    def attempt(self, service: str, username: str, address: str) -> Attempt:
        """What the next three methods take; compute it once per login."""
        name, source = counted_name(username), counted_source(address)
        return Attempt(
            pair=self._digest("pair", service, name, source),
            source=self._digest("source", source),
            user=self._digest("user", service, name),
        )

    def admits(self, attempt: Attempt, now: float) -> bool:
        """False if this login is not to be tried now. Takes no token: only a failure does."""
        if not self.settings.enabled:
            return True
        known = self._pairs.is_known(attempt.pair, now)
        return (
            self._pairs.admits(attempt.pair, now, known)
            and self._sources.admits(attempt.source, now, known)
            and self._users.admits(attempt.user, now, known)
        )

    def failed(self, attempt: Attempt, now: float) -> None:
        """Count a failure with a secret that was not just tried."""
        self._pairs.take(attempt.pair, now)
        self._sources.take(attempt.source, now)
        self._users.take(attempt.user, now)

    def succeeded(self, attempt: Attempt, now: float) -> None:
        """Know this pair from now on.

        Its failures are not forgiven: else each of a user's own logins would buy new guesses for whoever sits
        behind the same source.
        """
        self._pairs.know(attempt.pair, now, now + self.settings.known_for_s)

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return len(self._pairs) + len(self._sources) + len(self._users)

    def _digest(self, *parts: str) -> bytes:
        digest = self._hash.copy()
        for part in parts:
            octets = part.encode("utf-8", "surrogatepass")
            digest.update(len(octets).to_bytes(8, "big") + octets)
        return digest.digest()


@final
class Damper:
    """Refusals of late by the cache's key: when the same login may be tried again, never what the answer was."""

    def __init__(self, settings: LimiterSettings) -> None:
        self._pause = settings.damp_s
        self._memory = settings.repeat_memory_s
        self._max_entries = settings.max_entries
        self._refused_at: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._refused_at)

    def pause(self, key: bytes, now: float) -> float:
        """Seconds to wait before the backend is asked, 0.0 if it was not refused of late; at most `damp_s`."""
        refused_at = self._refused_at.get(key)
        return 0.0 if refused_at is None else min(max(0.0, refused_at + self._pause - now), self._pause)

    def refused(self, key: bytes, now: float) -> bool:
        """Note a refusal; True if it is a new one, which a limiter has to count."""
        refused_at = self._refused_at.pop(key, None)
        self._refused_at[key] = now
        if len(self._refused_at) > self._max_entries:
            self._refused_at.popitem(last=False)
        return refused_at is None or now - refused_at >= self._memory

    def forget(self, key: bytes) -> None:
        """The login succeeded."""
        self._refused_at.pop(key, None)

    def clear(self) -> None:
        """Something changed that may have been the reason of any refusal."""
        self._refused_at.clear()


def counted_name(username: str) -> str:
    """One spelling for all spellings that a lenient server might take for the same user.

    Coarser than the cache's key on purpose: that two people share a counter is harmless, that one has two
    counters is not (CVE-2025-6004).
    """
    folded = unicodedata.normalize("NFKC", username[:NAME_LENGTH]).casefold()
    return "".join(unicodedata.normalize("NFKC", folded).split())


def counted_source(address: str) -> str:
    """One name for all addresses that one host usually has: an IPv4 address, or an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
