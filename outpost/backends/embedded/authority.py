"""Decides logins from a directory file.

A password is verified in a thread, everything after that is decided at once on the loop with the directory of that
moment: nothing can change between the last look at an account and the decision.
"""

from __future__ import annotations

import bisect
import hmac
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, final

from outpost import passcode
from outpost.backends.embedded import phc
from outpost.backends.embedded.codes import Codes
from outpost.backends.embedded.model import Account, Application, AppPassword, Directory
from outpost.backends.embedded.packed import summary_of
from outpost.backends.embedded.pool import PoolBusy, PoolStopped, VerifyPool
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    LdapProvider,
    Provider,
    RadiusProvider,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.passcode import Reading

PROMPT: Final = "Enter the code from your authenticator"
CHALLENGE_S: Final = 120.0
MOST_WAITING: Final = 65536
"""Challenges that wait for their answer."""
ROUNDS: Final = 3
"""Times a login is begun anew because its account changed while the password was verified."""

Verify = Callable[[str, Secret], bool]
Serving = tuple[Provider, Application]

_NOBODYS: Final = Secret(secrets.token_bytes(32))
"""Compared with where there is no plain-text password."""


@final
class Book:
    """A directory with what hides, in the time a refusal takes, whether a name is in it.

    Making one may walk all accounts: call it off the loop.  key: one for all of a process, so that a name means the
    same after a reload.
    """

    def __init__(self, directory: Directory, key: bytes) -> None:
        self.directory = directory
        costs = summary_of(directory.accounts).costs
        self._decoys = tuple(text for text, _ in costs)
        self._shares = list(itertools.accumulate(count for _, count in costs))
        self._key = key

    def account(self, username: str) -> Account | None:
        """Whom a login name means; white space around it is none of it, as in authentik."""
        pk = self.directory.by_login.get(username.strip().casefold())
        return None if pk is None else self.directory.accounts.get(pk)

    def serving(self, provider: Provider) -> Serving | None:
        """The provider as it is now, and its application; None if it is gone."""
        served = self.directory.served
        now: Sequence[Provider] = served.ldap if isinstance(provider, LdapProvider) else served.radius
        found = next((one for one in now if one.pk == provider.pk), None)
        application = None if found is None else self.directory.applications.get(found.application_slug)
        return None if found is None or application is None else (found, application)

    def decoy(self, username: str) -> str | None:
        """A PHC string that nothing matches, for a name without one; always of the same cost for the same name.

        Costs are drawn as they are shared out among the accounts.  None when no account has a hashed password.
        """
        if not self._decoys:
            return None
        name = username.strip().casefold().encode("utf-8", "surrogatepass")
        draw = int.from_bytes(blake2b(name, key=self._key, digest_size=8).digest()) % self._shares[-1]
        return self._decoys[bisect.bisect_right(self._shares, draw)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Continuation:
    """What a Challenge needs to go on; tells its holder nothing, and is known by identity alone."""

    account: Account
    provider: Provider
    deadline: float
    """On the monotonic clock."""


@final
class EmbeddedAuthority:
    """The Authority of a directory file. Lives on one event loop.

    book: the directory of this moment, None before there is one; wall_clock: seconds since the epoch;
    clock: monotonic seconds.
    """

    def __init__(
        self,
        book: Callable[[], Book | None],
        pool: VerifyPool,
        *,
        verify: Verify = phc.verify,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._pool = pool
        self._verify = verify
        self._wall_clock = wall_clock
        self._clock = clock
        self._codes = Codes()
        self._waiting: OrderedDict[_Continuation, None] = OrderedDict()
        """Challenges not answered yet, oldest first."""

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        if not secret:
            return Rejected(RejectReason.EMPTY_PASSWORD, "empty password")
        for _ in range(ROUNDS):
            book = self._book()
            if book is None:
                return _not_ready()
            serving = book.serving(provider)
            if serving is None:
                return _no_provider(provider)
            account = book.account(username)
            app_password = self._app_password(account, secret, serving[1].slug)
            if account is not None and app_password is not None:
                return _admitted(serving, account, expires_at=app_password.expires_at)
            suffix = isinstance(serving[0], RadiusProvider) and serving[0].options.code_suffix
            readings = passcode.readings(secret.reveal(), serving[0].mfa_support, suffix=suffix)
            try:
                right = await self._right(book, account, username, readings)
            except PoolBusy:
                return Unavailable(UnavailableReason.BUSY, "too many passwords are being verified")
            except PoolStopped:
                return _not_ready()
            now = self._book()
            if now is None:
                return _not_ready()
            if now is book or (now.account(username) == account and now.serving(provider) == serving):
                return self._judged(serving, account, right, source)
        return Unavailable(UnavailableReason.BUSY, "the directory changed during the login")

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a Challenge; a second answer needs a new login."""
        if not isinstance(continuation, _Continuation) or continuation not in self._waiting:
            return Rejected(RejectReason.FLOW_ERROR, "this challenge is unknown or was answered before")
        del self._waiting[continuation]
        account, asked = continuation.account, continuation.provider
        if self._clock() >= continuation.deadline:
            return Rejected(RejectReason.FLOW_ERROR, "the challenge was answered too late")
        if not secret:
            return Rejected(RejectReason.EMPTY_PASSWORD, "empty code")
        if type(provider) is not type(asked) or provider.pk != asked.pk:
            return Rejected(RejectReason.FLOW_ERROR, "the challenge was another provider's")
        book = self._book()
        if book is None:
            return _not_ready()
        serving = book.serving(provider)
        if serving is None:
            return _no_provider(provider)
        if book.directory.accounts.get(account.pk) != account:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "the user changed since the password was verified")
        if not self._codes.spend(account, secret.reveal().strip(), self._wall_clock()):
            return Rejected(RejectReason.CODE_INVALID, "wrong code, or one used before")
        return _admitted(serving, account, used_code=True)

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about somebody who has proved to be `username`; no password, and no code, is asked."""
        book = self._book()
        if book is None:
            return _not_ready()
        serving = book.serving(provider)
        if serving is None:
            return _no_provider(provider)
        account = book.account(username) if username.strip() else None
        if account is None or account.is_active is not True:
            detail = "no such user" if account is None else "the user is deactivated"
            return Rejected(RejectReason.INVALID_CREDENTIALS, detail)
        return _admitted(serving, account)

    # -- inside -----------------------------------------------------------------------------------

    def _app_password(self, account: Account | None, secret: Secret, slug: str) -> AppPassword | None:
        """The one that `secret` is, of an active user, not expired, and for this application."""
        if account is None or not account.is_active or not account.app_passwords:
            return None
        now = self._wall_clock()
        found = [one for one in account.app_passwords if one.key and one.key == secret]
        found = [one for one in found if one.application is None or one.application == slug]
        return next((one for one in found if one.expires_at is None or now < one.expires_at), None)

    async def _right(
        self, book: Book, account: Account | None, username: str, readings: Sequence[Reading]
    ) -> list[Reading]:
        """The readings whose password is the account's; the work is the same whether there is one or not.

        Every reading is tried whatever came of those before.  Raises PoolBusy, PoolStopped.
        """
        password = account.password if account is not None else None
        is_theirs = account is not None and account.is_active and password is not None
        target = password.value.reveal_text() if password is not None and password.is_hashed else None
        decoy = book.decoy(username) if target is None else None
        plain = password.value if password is not None and not password.is_hashed else _NOBODYS

        def work() -> list[bool]:
            if target is not None:
                return [self._verify(target, Secret(reading.password)) is True for reading in readings]
            if decoy is not None:
                for reading in readings:
                    self._verify(decoy, Secret(reading.password))
            return [hmac.compare_digest(plain.reveal(), reading.password) for reading in readings]

        outcomes = work() if target is None and decoy is None else await self._pool.run(work)
        return [
            reading
            for reading, is_right in zip(readings, outcomes, strict=True)
            if is_right and is_theirs and reading.password
        ]

    def _judged(self, serving: Serving, account: Account | None, right: Sequence[Reading], source: Source) -> Decision:
        if account is None or not account.is_active or not right:
            detail = "no such user" if account is None else "the user is deactivated"
            if account is not None and account.is_active:
                detail = "wrong password" if account.password is not None else "the user has no password"
            return Rejected(RejectReason.INVALID_CREDENTIALS, detail)
        codes = [reading.code for reading in right if reading.code is not None]
        if not account.has_device:
            if len(codes) < len(right):
                return _admitted(serving, account)
            # What follows the password is a code that nobody checks, or the password is another one.
            return Rejected(RejectReason.CODE_INVALID, "a code behind the right password, but the user has no device")
        if any(self._codes.spend(account, code.encode(), self._wall_clock()) for code in codes):
            return _admitted(serving, account, used_code=True)
        if codes:
            return Rejected(RejectReason.CODE_INVALID, "wrong code, or one used before")
        if not source.interactive:
            return Rejected(RejectReason.CODE_REQUIRED, "the user has a device, and the secret has no code")
        return self._challenge(serving[0], account)

    def _challenge(self, provider: Provider, account: Account) -> Decision:
        now = self._clock()
        while self._waiting and next(iter(self._waiting)).deadline <= now:
            self._waiting.popitem(last=False)
        if len(self._waiting) >= MOST_WAITING:
            return Unavailable(UnavailableReason.BUSY, "too many challenges wait for their answer")
        continuation = _Continuation(account, provider, now + CHALLENGE_S)
        self._waiting[continuation] = None
        return Challenge(PROMPT, continuation, self._wall_clock() + CHALLENGE_S, _reply(provider, account))


def _admitted(
    serving: Serving, account: Account, *, used_code: bool = False, expires_at: float | None = None
) -> Decision:
    """The decision about somebody who proved who he is."""
    provider, application = serving
    if application.admits(account) is not True:
        return Rejected(
            RejectReason.ACCESS_DENIED,
            f"the bindings of application {application.slug!r} do not let the user in",
            _reply(provider, account),
        )
    if isinstance(provider, LdapProvider):
        can_search = account.is_superuser or provider.search_group in account.memberships
        return Accepted(Identity(account.pk, account.username, can_search), expires_at, used_code=used_code)
    identity = Identity(account.pk, account.username, can_search=False)
    return Accepted(identity, expires_at, _reply(provider, account), used_code)


def _reply(provider: Provider, account: Account) -> ReplyAttributes:
    """What a reply to somebody who proved who he is says besides; of a refusal or prompt little is sent."""
    return account.reply if isinstance(provider, RadiusProvider) else ReplyAttributes()


def _not_ready() -> Unavailable:
    return Unavailable(UnavailableReason.NOT_READY, "the directory is not there")


def _no_provider(provider: Provider) -> Rejected:
    return Rejected(RejectReason.NO_PROVIDER, f"the directory has no provider {provider.name!r} any more")
