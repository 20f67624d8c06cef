"""What was proven lately: a bounded table of accepted logins that forgets at the slightest doubt.

Owns the rules of reuse; knows no clock, no task and no backend.  Times are seconds on one monotonic clock
that the caller reads, except `epoch`, the wall clock, which is looked at only to learn how far a session's
end lies ahead.

What is stored: `Accepted` values under a keyed hash.  What is never stored: a refusal, a secret, anything
from which a secret can be computed without the per-process key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from outpost.credentials._believed import Believed, Entry, Who
from outpost.identity import Accepted, Revoked

K = TypeVar("K")

ENTRY_COST = 900
"""Octets one entry takes beside its texts: object, identity, order and three indexes (measured, rounded up)."""
REVOCATIONS_REMEMBERED = 1024
"""Revocations that a login in flight is checked against one by one; when more arrive it counts as revoked."""
NEVER = float("inf")

SERVICES = ("ldap", "radius")


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How long and how much is believed. Raises ValueError for a negative number."""

    max_entries: int = 50_000
    max_bytes: int = 64 << 20
    max_age_s: float = 300.0
    """A login is believed this long at most, less if its session ends earlier. 0 switches the cache off."""
    refresh_after_s: float = 240.0
    """A hit on an older entry is answered at once and verified again in the background."""
    max_age_disconnected_s: float = 30.0
    """The same as `max_age_s` for everything verified while, or before, revocations could get lost."""
    offline_for_s: float = 0.0
    """While the server cannot be reached, a login verified less than this ago still counts. 0 is off."""
    code_burst_s: float = 10.0
    """A login with a one-time code may be repeated this long by the same client. 0 is off."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")


@final
class Index(Generic[K]):
    """Keys by something they have in common; one key costs no set."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[K, bytes | set[bytes]] = {}

    def add(self, common: K, key: bytes) -> None:
        """Afterwards `key` is found under `common`."""
        before = self._found.get(common)
        if before is None:
            self._found[common] = key
        elif isinstance(before, set):
            before.add(key)
        elif before != key:
            self._found[common] = {before, key}

    def discard(self, common: K, key: bytes) -> None:
        """Afterwards `key` is not found under `common`."""
        before = self._found.get(common)
        if isinstance(before, set):
            before.discard(key)
            if not before:
                del self._found[common]
        elif before == key:
            del self._found[common]

    def get(self, common: K) -> tuple[bytes, ...]:
        """The keys under `common`, in no order."""
        found = self._found.get(common, ())
        return tuple(found) if isinstance(found, set | tuple) else (found,)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[K]:
        return iter(self._found)


@final
class CredentialsCache:
    """Accepted logins by keyed hash, least recently used out.

    hash_key: up to 64 random octets, made anew in each process and kept nowhere else.
    """

    def __init__(self, settings: CacheSettings, hash_key: bytes) -> None:
        self.settings = settings
        self.believed = Believed(hash_key)
        """The entries; whoever answers requests in C looks here."""
        self.believed.max_age_disconnected = settings.max_age_disconnected_s
        self._by_user: Index[int] = Index()
        self._by_session: Index[str] = Index()
        self._by_owner: Index[tuple[str, int]] = Index()
        self._longest = max(settings.max_age_s, settings.offline_for_s)
        self._revision = 0
        self._forgotten_revision = 0
        self._revocations: deque[tuple[int, Revoked]] = deque()
        self.bytes_used = 0
        self.evicted = 0
        """Entries that went for want of room."""
        self.revoked = 0
        """Entries that went because something was revoked."""

    def __len__(self) -> int:
        return len(self.believed)

    @property
    def hits(self) -> int:
        """Logins that were believed."""
        return self.believed.hits

    @property
    def misses(self) -> int:
        """Logins that were not."""
        return self.believed.misses

    # -- keys -----------------------------------------------------------------------------------------

    def key(self, service: str, provider_pk: int, username: str, secret: bytes) -> bytes:
        """The keyed hash of a login, 16 octets.

        The name is trimmed and its ASCII letters are folded, as authentik looks names up.  Other letters are
        not folded here: where the server tells two of them apart, one person's login must not become
        another's.  Such a spelling is only a miss.
        """
        return self.believed.key(Who(service, provider_pk, username), secret)

    def mark(self, user_pk: int, secret: bytes) -> bytes:
        """A keyed hash by which one user's equal secrets are recognised, 16 octets."""
        return self.believed.mark(user_pk, secret)

    # -- reuse ----------------------------------------------------------------------------------------

    def get(self, key: bytes, now: float, address: str) -> Entry | None:
        """The login if it may be believed without asking; `refresh_at` tells when to ask again behind its back."""
        return self.believed.believed(key, now, address)

    def remembers(self, key: bytes) -> bool:
        """True if this secret, without a one-time code, was right of late, whether or not it may be believed now."""
        entry = self.believed.get(key)
        return entry is not None and entry.address is None

    def offline(self, key: bytes, now: float) -> Accepted | None:
        """The login if it may be believed although, and only because, the server cannot be asked."""
        entry = self.believed.get(key)
        return entry.accepted if entry is not None and now < entry.offline_until else None

    # -- what happens ---------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Counts revocations. Read it before asking the backend and hand it to `put`."""
        return self._revision

    def put(
        self,
        key: bytes,
        accepted: Accepted,
        *,
        service: str,
        provider_pk: int,
        address: str,
        mark: bytes,
        asked_at: float,
        revision: int,
        now: float,
        epoch: float,
        until: float = NEVER,
    ) -> bool:
        """Remember a login, not beyond `until`; False if it may not be remembered.

        asked_at, revision: clock and `revision` when the backend was asked.  A revocation since then that
        could concern this login, or a newer answer, wins.  A secret that is new for its user puts his other
        secrets in doubt: they are verified again before they are believed, since a password may have changed.
        """
        if type(accepted) is not Accepted:
            raise TypeError("only Accepted is remembered")
        if self.revoked_since(revision, accepted, service, provider_pk):
            return False
        before = self.believed.get(key)
        others = self._others(accepted.identity.user_pk, mark)
        if any(e.verified_at > asked_at for e in others) or (before is not None and before.verified_at > asked_at):
            return False
        if before is not None:
            self._remove(key, before)
        else:
            self.doubt(accepted.identity.user_pk, mark, now)
        entry = self._entry(accepted, address, asked_at, now, epoch)
        entry.ends_at = min(entry.ends_at, until)
        entry.owner = (service, provider_pk)
        entry.mark = mark
        if now >= entry.ends_at or entry.cost > self.settings.max_bytes:
            return False
        self.believed.put(key, entry)
        self.bytes_used += entry.cost
        self._by_user.add(accepted.identity.user_pk, key)
        self._by_owner.add(entry.owner, key)
        if accepted.identity.session is not None:
            self._by_session.add(accepted.identity.session, key)
        self._make_room(now)
        return self.believed.get(key) is not None

    def doubt(self, user_pk: int, mark: bytes, now: float) -> None:
        """The secret of this mark is new for its user: believe his other ones no more without asking."""
        for entry in self._others(user_pk, mark):
            # Kept, so that verifying it again is no news that would cast doubt in turn.
            entry.ends_at = min(entry.ends_at, now)
            entry.offline_until = min(entry.offline_until, now)

    def find(self, key: bytes) -> Entry | None:
        """What is remembered of a login, whether or not it may be believed."""
        return self.believed.get(key)

    def discard(self, key: bytes) -> bool:
        """Forget one login, because the backend said no to it; True if it was known."""
        entry = self.believed.get(key)
        if entry is None:
            return False
        self._remove(key, entry)
        return True

    def revoke(self, revoked: Revoked) -> int:
        """Forget everything that any of the given fields concerns; the number of logins forgotten."""
        self._revision += 1
        if len(self._revocations) >= REVOCATIONS_REMEMBERED:
            self._forgotten_revision = self._revocations.popleft()[0]
        self._revocations.append((self._revision, revoked))
        if revoked.user_pk is None and revoked.session is None and revoked.provider_pk is None:
            doomed = [entry.key for entry in self.believed if revoked.service in {None, entry.owner[0]}]
        else:
            doomed = self._concerned(revoked)
        for key in doomed:
            entry = self.believed.get(key)
            if entry is not None:
                self._remove(key, entry)
        self.revoked += len(doomed)
        return len(doomed)

    def revoked_since(self, revision: int, accepted: Accepted, service: str, provider_pk: int) -> bool:
        """True if something was revoked after `revision` that concerns, or may concern, this login."""
        if revision < self._forgotten_revision:
            return True
        for at, revoked in reversed(self._revocations):
            if at <= revision:
                return False
            if concerns(revoked, accepted, service, provider_pk):
                return True
        return False

    def set_connected(self, connected: bool, now: float) -> None:
        """Whether revocations arrive. What was verified before they did is trusted as briefly as without them."""
        if not connected:
            self.believed.trusted_since = NEVER
        elif self.believed.trusted_since == NEVER:
            self.believed.trusted_since = now

    @property
    def is_connected(self) -> bool:
        """Whether revocations arrive."""
        return self.believed.trusted_since != NEVER

    def clear(self) -> None:
        """Forget everything."""
        self.revoke(Revoked())

    # -- inside ---------------------------------------------------------------------------------------

    def _entry(self, accepted: Accepted, address: str, asked_at: float, now: float, epoch: float) -> Entry:
        settings = self.settings
        session_end = NEVER if accepted.expires_at is None else now + (accepted.expires_at - epoch)
        entry = Entry()
        entry.accepted = accepted
        entry.verified_at = asked_at
        entry.ends_at = min(asked_at + settings.max_age_s, session_end)
        if accepted.used_code:
            entry.address = address
            # From the answer, not from the question: a slow login is a burst, too.
            entry.ends_at = min(entry.ends_at, now + settings.code_burst_s)
            entry.refresh_at = NEVER
            entry.offline_until = 0.0
        else:
            entry.address = None
            entry.refresh_at = asked_at + settings.refresh_after_s
            entry.offline_until = min(asked_at + settings.offline_for_s, session_end)
        identity, attributes = accepted.identity, accepted.attributes
        entry.cost = (
            ENTRY_COST
            + 4 * len(identity.username)
            + 4 * len(identity.session or "")
            + len(attributes.packet)
            + sum(200 + 4 * len(name) + 4 * len(value) for name, value in attributes.named)
        )
        return entry

    def _others(self, user_pk: int, mark: bytes) -> list[Entry]:
        found = map(self.believed.get, self._by_user.get(user_pk))
        return [entry for entry in found if entry is not None and entry.mark != mark]

    def _concerned(self, revoked: Revoked) -> list[bytes]:
        keys: set[bytes] = set()
        if revoked.user_pk is not None:
            keys.update(self._by_user.get(revoked.user_pk))
        if revoked.session is not None:
            keys.update(self._by_session.get(revoked.session))
        if revoked.provider_pk is not None:
            for service in SERVICES if revoked.service is None else (revoked.service,):
                keys.update(self._by_owner.get((service, revoked.provider_pk)))
        return list(keys)

    def _remove(self, key: bytes, entry: Entry) -> None:
        self.believed.remove(key)
        self.bytes_used -= entry.cost
        identity = entry.accepted.identity
        self._by_user.discard(identity.user_pk, key)
        self._by_owner.discard(entry.owner, key)
        if identity.session is not None:
            self._by_session.discard(identity.session, key)

    def _make_room(self, now: float) -> None:
        table, settings = self.believed, self.settings
        while len(table) > settings.max_entries or self.bytes_used > settings.max_bytes:
            oldest = table.first()
            if oldest is None:
                return
            self._remove(oldest.key, oldest)
            self.evicted += 1
        for _ in range(2):  # two out for one in: what has died is gone after one lifetime without any sweep
            oldest = table.first()
            if oldest is None or now - oldest.verified_at < self._longest:
                return
            self._remove(oldest.key, oldest)


def concerns(revoked: Revoked, accepted: Accepted, service: str, provider_pk: int) -> bool:
    """True if any field of `revoked` names this login, or it names nothing and so means everything."""
    if revoked.user_pk is None and revoked.session is None and revoked.provider_pk is None:
        return revoked.service in {None, service}
    identity = accepted.identity
    return (
        (revoked.user_pk is not None and revoked.user_pk == identity.user_pk)
        or (revoked.session is not None and revoked.session == identity.session)
        or (
            revoked.provider_pk is not None
            and revoked.provider_pk == provider_pk
            and revoked.service in {None, service}
        )
    )
