"""The embedded backend: a directory file behind the ports, read again whenever it changes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

from outpost.backends.embedded import phc, rewrite
from outpost.backends.embedded.apart import Apart, load_apart
from outpost.backends.embedded.authority import Book, EmbeddedAuthority
from outpost.backends.embedded.changes import revocations
from outpost.backends.embedded.loader import load as load_file
from outpost.backends.embedded.model import NO_EXTRAS, Account, Directory, Extras, Password
from outpost.backends.embedded.pool import PoolBusy, PoolStopped, VerifyPool
from outpost.backends.embedded.rewrite import CannotChange
from outpost.backends.embedded.settle import settled
from outpost.errors import BackendError, BackendUnavailable, ConfigError
from outpost.identity import (
    Changed,
    Crowd,
    Decision,
    Identity,
    LdapProvider,
    PasswordDecision,
    People,
    Provider,
    Publish,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Served,
    Source,
    Unavailable,
    UnavailableReason,
    Unwilling,
    Wanted,
)
from outpost.observe.failures import reason
from outpost.processes.people import PackedPeople

POLL_S: Final = 2.0
"""Between two looks at the files; a change is read when two of them agree about it."""
APART_OCTETS: Final = 512 * 1024
"""Size of a file from which on (some 2,000 users) a process of its own reads it: that takes a quarter of a second more,
which is what logins would otherwise wait in turn with the work."""
MOST_OCTETS: Final = 1024
"""Of a new password."""
MOST_REVOKED: Final = 1000
"""Revocations of one change that are told one by one; every open connection hears each of them."""

Log = Callable[[str, str], None]
"""Takes a level (`info`, `warning`, `error`) and one sentence for the administrator."""
Review = Callable[[Directory], Directory]
Stamp = tuple[int, int, int, int]
Stamps = Mapping[Path, Stamp | None]
"""What tells two versions of a file apart; None: there is none."""


def _nobody(_: Revoked) -> None:
    """Nobody listens."""


def _unheard(_level: str, _event: str) -> None:
    """Nobody listens."""


def _as_it_is(directory: Directory) -> Directory:
    """Nothing to add."""
    return directory


@dataclass(frozen=True, slots=True)
class _Version:
    """What one read of the file came to."""

    book: Book
    revoked: tuple[Revoked, ...]
    is_changed: bool


@final
class EmbeddedBackend:
    """All of identity as one directory file knows it; implements `outpost.identity.Backend` and `Passwords`.

    publish: takes revocations, on the event loop; log: takes what an administrator should read; review: adds warnings
    to what was read, in a thread; load: reads the directory, in a thread, whatever its size, and raises ConfigError;
    poll_s: seconds between two looks at the files.
    """

    def __init__(
        self,
        path: Path,
        *,
        extras: Extras = NO_EXTRAS,
        publish: Publish = _nobody,
        log: Log = _unheard,
        review: Review = _as_it_is,
        load: Callable[[], Directory] | None = None,
        poll_s: float = POLL_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        pool: VerifyPool | None = None,
    ) -> None:
        self._publish = publish
        self._log = log
        self._extras = extras
        self._review = review
        self._load = load or (lambda: load_file(path, extras))
        self._may_be_apart = load is None
        self._not_apart = ""
        """Why the last large version was not read by a process of its own."""
        self._poll_s = poll_s
        self._sleep = sleep
        self._path = path
        self._files: tuple[Path, ...] = (path,)
        self._stamps: Stamps = {}
        """Of the last version that was read, whatever it was worth."""
        self._key = secrets.token_bytes(32)
        self._book: Book | None = None
        self._told: frozenset[str] = frozenset()
        """Warnings of the present version; each is logged when it appears."""
        self._missing: frozenset[Path] = frozenset()
        self._subscribers: list[Callable[[], None]] = []
        self._reading = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[PasswordDecision]] = set()
        self._is_writable = False
        self._is_stopped = False
        self._pool = pool or VerifyPool()
        self._authority = EmbeddedAuthority(lambda: self._book, self._pool)

    # -- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the file and watch it. Raises ConfigError when it cannot be served."""
        if self._watcher is None and not self._is_stopped:
            async with self._reading:
                await self._read()
            self._watcher = asyncio.create_task(self._watch(), name="directory-watch")

    async def refresh(self) -> None:
        """Read the file again now; keeps what was read before and logs the reason if that fails."""
        async with self._reading:
            if self._book is None or self._is_stopped:
                return
            try:
                await self._read()
            except ConfigError as error:
                self._log("error", f"the directory stays as it was read before: {error}")

    async def stop(self) -> None:
        """End tasks and threads; idempotent."""
        self._is_stopped = True
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        # A file that is being written gets finished.
        await asyncio.gather(*self._changes, return_exceptions=True)
        self._pool.stop()

    def readiness(self) -> Mapping[str, str]:
        """Per service that the file has a provider for an empty string; both with the reason while there is none."""
        if self._book is None:
            return dict.fromkeys(("ldap", "radius"), "not started")
        served = self.served()
        found = {service: "" for service in ("ldap", "radius") if getattr(served, service)}
        return found or dict.fromkeys(("ldap", "radius"), "the directory has no provider with an application")

    # -- logins -----------------------------------------------------------------------------------

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        return await self._authority.authenticate(provider, username, secret, source)

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a Challenge."""
        return await self._authority.resume(provider, continuation, secret, source)

    # -- passwords --------------------------------------------------------------------------------

    def can_change_passwords(self) -> bool:
        """Whether the file could be written when it was read."""
        return self._is_writable and self._book is not None

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """Write `new` into the file, where `identity` knows `old`; whoever cancels this has begun it all the same."""
        task = asyncio.create_task(self._change(provider, identity, old, new, source))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _change(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        if not new:
            return Unwilling("the new password is empty")
        if len(new.reveal()) > MOST_OCTETS:
            return Unwilling(f"the new password is longer than {MOST_OCTETS} octets")
        account = self._own_account(provider, identity)
        if not isinstance(account, Account):
            return account
        password = account.password
        if password is None or not old:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "no old password")
        try:
            if not await self._pool.run(lambda: _matches(password, old)):
                return Rejected(RejectReason.INVALID_CREDENTIALS, "wrong old password")
            like = password.value.reveal_text() if password.is_hashed else None
            made = await self._pool.run(lambda: phc.hash_password(new, like))
        except PoolBusy:
            return Unavailable(UnavailableReason.BUSY, "too many passwords are being verified")
        except PoolStopped:
            return Unavailable(UnavailableReason.NOT_READY, "the directory is not there")
        async with self._reading:
            if self._is_stopped:
                return Unavailable(UnavailableReason.NOT_READY, "the directory is not there")
            if self._own_account(provider, identity) != account:
                return Unwilling("your account changed meanwhile; try again")
            return await self._write(account, password, made, source)

    def _own_account(self, provider: LdapProvider, identity: Identity) -> Account | PasswordDecision:
        """The account of somebody who logged in, as long as he still could."""
        book = self._book
        serving = book.serving(provider) if book is not None else None
        account = book.directory.accounts.get(identity.user_pk) if book is not None else None
        if serving is None or account is None or not account.is_active or account.username != identity.username:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "the account is there no more")
        if serving[1].admits(account) is not True:
            return Rejected(RejectReason.ACCESS_DENIED, "the application does not let the user in any more")
        return account

    async def _write(self, account: Account, password: Password, made: str, source: Source) -> PasswordDecision:
        """Change the file and read it again, all with the lock held."""
        seen = await asyncio.to_thread(_stamps, (self._path,))
        if seen[self._path] is None or seen[self._path] != self._stamps.get(self._path):
            return Unwilling("the directory file changed meanwhile; try again")
        name, now = account.username, datetime.now(UTC)
        try:
            await asyncio.to_thread(rewrite.change_password, self._path, name, password.value, made, now)
        except CannotChange as error:
            self._log("warning", f"the password of {name!r} was not changed: {error}")
            return Unwilling(str(error))
        try:
            await self._read()
        except ConfigError as error:
            self._log("error", f"the directory stays as it was read before: {error}")
        book = self._book
        found = book.directory.accounts.get(account.pk) if book is not None else None
        if found is None or found.password != Password(Secret(made), True):
            return Unwilling("the new password is in the directory file, but the file cannot be read again")
        self._log("info", f"the password of {name!r} was changed by {source.address}")
        return Changed()

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about somebody whose certificate was verified."""
        return await self._authority.vouch(provider, username, source)

    # -- people and what is served ----------------------------------------------------------------

    def current(self, provider: LdapProvider) -> Crowd | None:
        """The people in the file, None before `start`; never blocks."""
        return self._book.directory.people if self._book is not None else None

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Crowd:
        """All people in the file. Raises BackendUnavailable before `start`."""
        if self._book is None:
            raise BackendUnavailable("the directory has not been read yet")
        return self._book.directory.people

    def served(self) -> Served:
        """The providers and certificates of this moment; never blocks."""
        return self._book.directory.served if self._book is not None else Served()

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` on the event loop after each change of `current` and `served`."""
        self._subscribers.append(on_change)

    # -- reading ----------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Read the file and take it over, all at once. Raises ConfigError, and then nothing has changed."""
        before = await asyncio.to_thread(_stamps, self._files)
        self._is_writable = await asyncio.to_thread(rewrite.is_writable, self._path)
        # A version that cannot be read is not tried again until it is another one.
        self._stamps = before
        version = await self._newest(self._book, before[self._path])
        directory = version.book.directory
        after = await asyncio.to_thread(_stamps, directory.files)
        if self._is_stopped:
            return
        self._files = directory.files
        self._stamps = {path: before.get(path, stamp) for path, stamp in after.items()}
        self._warn(directory.warnings)
        if not version.is_changed:
            return
        self._book = version.book
        # Nothing from here on awaits: nobody sees the new people with an old login.
        for revoked in version.revoked:
            self._publish(revoked)
        people, served = directory.people, directory.served
        self._log(
            "info",
            f"directory read: {people.user_count} users, {len(people.groups)} groups, "
            f"{len(served.ldap)} LDAP and {len(served.radius)} RADIUS providers",
        )
        for on_change in self._subscribers:
            try:
                on_change()
            except Exception as exc:  # one listener's bug must not keep the others, or the next read, from theirs
                self._log("error", f"a listener failed: {reason(exc)}")

    async def _newest(self, old: Book | None, stamp: Stamp | None) -> _Version:
        """Read and compare. Raises ConfigError."""
        if self._may_be_apart and stamp is not None and stamp[2] >= APART_OCTETS:
            try:
                found = await load_apart(self._path, self._extras, None if old is None else old.directory)
            except BackendError as error:
                if str(error) != self._not_apart:
                    self._log("warning", f"the directory is read without a process of its own: {error}")
                self._not_apart = str(error)
            else:
                self._not_apart = ""
                return await asyncio.to_thread(self._version, old, found)
        return await asyncio.to_thread(lambda: self._version(old, Apart(settled(self._load), None)))

    def _version(self, old: Book | None, found: Apart) -> _Version:
        """Compare; in a thread."""
        directory = self._review(found.directory)
        if old is None:
            return _Version(Book(directory, self._key), (), is_changed=True)
        people = _numbered(old.directory.people, directory.people)
        directory = replace(directory, people=people)
        # Where the file is and what it deserves a look for is no content.
        is_changed = replace(old.directory, files=directory.files, warnings=directory.warnings) != directory
        revoked = revocations(old.directory, directory, found.revoked)
        if len(revoked) > MOST_REVOKED:
            revoked = [Revoked()]
        return _Version(Book(directory, self._key), tuple(revoked), is_changed)

    def _warn(self, warnings: Iterable[str]) -> None:
        found = dict.fromkeys(warnings)
        for text in found:
            if text not in self._told:
                self._log("warning", text)
        self._told = frozenset(found)

    # -- watching ---------------------------------------------------------------------------------

    async def _watch(self) -> None:
        pending: Stamps | None = None
        while True:
            await self._sleep(self._poll_s)
            seen = await asyncio.to_thread(_stamps, self._files)
            missing = frozenset(path for path, stamp in seen.items() if stamp is None)
            for path in sorted(missing - self._missing):
                self._log("error", f"the directory stays as it was read before: {path} is gone")
            self._missing = missing
            if missing or seen == self._stamps:
                pending = None
            elif seen != pending:
                pending = seen  # perhaps half-written: let it stand still first
            else:
                pending = None
                try:
                    await self.refresh()
                except Exception as exc:  # whatever it is, the next version may be better
                    self._log("error", f"the directory stays as it was read before: {reason(exc)}")


def _matches(password: Password, secret: Secret) -> bool:
    if password.is_hashed:
        return phc.verify(password.value.reveal_text(), secret)
    return bool(password.value) and hmac.compare_digest(password.value.reveal(), secret.reveal())


def _numbered(old: Crowd, new: Crowd) -> Crowd:
    """The old people if the content is the same, else the new ones with the next generation."""
    if isinstance(old, PackedPeople) and isinstance(new, PackedPeople):
        return old if old.digest == new.digest else replace(new, generation=old.generation + 1)
    if isinstance(old, People) and isinstance(new, People) and (old.users, old.groups) == (new.users, new.groups):
        return old
    assert isinstance(new, People | PackedPeople)
    return replace(new, generation=old.generation + 1)


def _stamps(files: Iterable[Path]) -> Stamps:
    found: dict[Path, Stamp | None] = {}
    for path in files:
        found[path] = None
        with contextlib.suppress(OSError, ValueError):
            status = path.stat()
            # The time of the last status change, too: who may read a file can be what was wrong with it.
            found[path] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    return found
