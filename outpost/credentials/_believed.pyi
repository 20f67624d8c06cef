"""Accepted logins by keyed hash, in the order in which they were used, looked up without a call into Python."""

from collections.abc import Iterator
from typing import Final, final

from outpost.identity import Accepted

__all__: Final = ("DIGEST_SIZE", "Believed", "Entry", "Who")

DIGEST_SIZE: Final[int]
"""Octets of a key. 128 bits: a collision would be a wrong success."""

@final
class Entry:
    """One login that was accepted. Times are seconds on one monotonic clock."""

    accepted: Accepted
    owner: tuple[str, int]
    """Service and primary key of the provider."""
    address: str | None
    """Set if a one-time code took part: the only client address that may repeat this login."""
    mark: bytes
    """Equal marks of one user mean the same secret, at whichever provider."""
    verified_at: float
    """When the backend was asked, not when it answered: what changed in between was perhaps not seen."""
    refresh_at: float
    ends_at: float
    offline_until: float
    cost: int
    """Octets it takes."""

    def __new__(cls) -> Entry: ...
    @property
    def key(self) -> bytes:
        """What it is found by; set when it is put into a table."""

@final
class Who:
    """Somebody who may log in at one provider: what of a login's key does not depend on the secret."""

    def __new__(cls, service: str, provider_pk: int, username: str) -> Who: ...
    @property
    def provider_pk(self) -> int: ...
    @property
    def name(self) -> bytes:
        """The name, trimmed, its ASCII letters folded."""

@final
class Believed:
    """The table of a `CredentialsCache`, which has the rules; here is only what every request needs.

    hash_key: 16 to 64 octets. The oldest entry is the one that was not used for longest.
    """

    trusted_since: float
    """Since when revocations arrive; infinite while they do not."""
    max_age_disconnected: float
    """Seconds that a login is believed which was verified before that."""

    def __new__(cls, hash_key: bytes) -> Believed: ...
    def key(self, who: Who, secret: bytes) -> bytes:
        """The keyed hash of a login."""
    def mark(self, user_pk: int, secret: bytes) -> bytes:
        """A keyed hash by which one user's equal secrets are recognised."""
    def believed(self, key: bytes, now: float, address: str) -> Entry | None:
        """The entry if the login may be believed without asking; counts a hit or a miss."""
    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    def get(self, key: bytes) -> Entry | None:
        """The entry, whatever it is worth."""
    def put(self, key: bytes, entry: Entry) -> None:
        """Add an entry as the newest, in the place of another with this key. Raises ValueError for one in use."""
    def remove(self, key: bytes) -> None:
        """Raises KeyError."""
    def first(self) -> Entry | None:
        """The oldest."""
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Entry]:
        """From the oldest to the newest."""
