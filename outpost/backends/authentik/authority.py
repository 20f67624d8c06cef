"""Decides logins: flow, then proof that somebody is logged in, then the access check.

Only the three together make an Accepted.  The end of a flow alone proves nothing: a flow may end with its redirect
without a login stage, and newer servers' access checks pass for anonymous callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from outpost import passcode
from outpost.backends.authentik import people
from outpost.backends.authentik.access import Access, AccessCheck, Denied, reply_attributes
from outpost.backends.authentik.client import Pool, TokenRefused, refusal
from outpost.backends.authentik.cookies import SESSION
from outpost.backends.authentik.flow import Finished, FlowRun, NeedsCode, Outcome, Visitor, visiting
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.session import Claims, read_claims
from outpost.backends.authentik.sessions import Sessions
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.backends.authentik.stages import Answers
from outpost.backends.authentik.turns import Turns
from outpost.errors import BackendError, BackendTimeout, BackendUnavailable
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

PROMPT = "Enter the code from your authenticator"


@dataclass(slots=True, repr=False)
class Waiting:
    """What a Challenge needs to go on; used once."""

    run: FlowRun
    needs: NeedsCode
    answers: Answers
    provider_pk: int
    deadline: float
    """On the loop's clock."""
    is_used: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Who the session belongs to, as the server tells (`/core/users/me/`)."""

    pk: int
    username: str
    names: frozenset[str]
    """Everything by which the session cookie may name this user."""
    is_active: bool
    groups: tuple[str, ...]
    """pks, in order."""


@dataclass(frozen=True, slots=True, repr=False)
class _Login:
    provider: Provider
    run: FlowRun
    answers: Answers


class FlowAuthority:
    """The Authority of one outpost, which serves one protocol."""

    def __init__(
        self,
        *,
        service: str,
        token: Secret,
        pool: Pool,
        settings: AuthentikSettings,
        sessions: Sessions,
        observer: Observer,
        wall_clock: Callable[[], float],
    ) -> None:
        self.access = AccessCheck()
        self._service = service
        self._token = token
        self._headers = visiting(token, "")
        self._pool = pool
        self._settings = settings
        self._sessions = sessions
        self._observer = observer
        self._wall_clock = wall_clock
        self.turns = Turns(settings.login_concurrency, settings.login_timeout_s)

    def say_version(self, version: str) -> None:
        """The version that we say we are."""
        self._headers = visiting(self._token, version)

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        if not username.strip():
            return Rejected(RejectReason.INVALID_CREDENTIALS, "empty user name")
        if not secret:
            return Rejected(RejectReason.EMPTY_PASSWORD, "empty password")
        slug = provider.bind_flow_slug if isinstance(provider, LdapProvider) else provider.auth_flow_slug
        if not slug:
            return Unavailable(UnavailableReason.BACKEND_ERROR, f"provider {provider.name!r} has no authorization flow")
        suffix = isinstance(provider, RadiusProvider) and provider.options.code_suffix
        if not _is_text(username):
            return Rejected(RejectReason.INVALID_CREDENTIALS, "the user name is no Unicode text")
        password, code = passcode.split(secret.reveal(), provider.mfa_support, suffix=suffix)
        try:
            text = password.decode()
            # The name goes out as it came: the server trims and folds it itself.  With mfa_support off the whole
            # password answers a code stage too, so that a flow of codes alone works.
            answers = Answers(username, text, code if provider.mfa_support else text)
        except UnicodeDecodeError:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "the password is no UTF-8; is the shared secret right?")
        visitor = Visitor.arriving(self._pool, self._headers, source.address)
        run = FlowRun.prepare(visitor, self._pool.address, slug, self._service, self._observer)
        interactive = source.interactive and provider.mfa_support
        login = _Login(provider, run, answers)
        return await self._decide(login, lambda: run.start(answers, interactive=interactive), source.waited_s)

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a Challenge; `secret` is the code alone, empty to ask for a push.

        The server goes on seeing the address that the login came from first.
        """
        if not isinstance(continuation, Waiting) or continuation.provider_pk != provider.pk:
            return Rejected(RejectReason.FLOW_ERROR, "the challenge belongs to another provider")
        if continuation.is_used:
            return Rejected(RejectReason.FLOW_ERROR, "the challenge was answered before")
        continuation.is_used = True
        if asyncio.get_running_loop().time() > continuation.deadline:
            return Rejected(RejectReason.CODE_REQUIRED, "the answer to the challenge came too late")
        try:
            code = secret.reveal().decode().strip()
        except UnicodeDecodeError:
            return Rejected(RejectReason.CODE_INVALID, "the code is no UTF-8")
        answers = replace(continuation.answers, code=code or None)
        run, challenge = continuation.run, continuation.needs.challenge
        login = _Login(provider, run, answers)
        return await self._decide(login, lambda: run.resume(challenge, answers), source.waited_s)

    async def _decide(self, login: _Login, step: Callable[[], Awaitable[Outcome]], waited_s: float) -> Decision:
        loop = asyncio.get_running_loop()
        turns, timeout_s = self.turns, self._settings.login_timeout_s
        came_at = started_at = loop.time() - waited_s
        has_turn = is_asked = False
        decision: Decision | None = None
        try:
            async with asyncio.timeout_at(came_at + timeout_s) as deadline:
                await turns.take()
                has_turn = True
                started_at = loop.time()
                if started_at - came_at + turns.expected_s >= timeout_s:
                    return self._no_turn(came_at)

                def push_started(is_waiting: bool) -> None:
                    nonlocal has_turn
                    if has_turn:  # what is waited for from now on is a person, not the server
                        has_turn = False
                        turns.give_back()
                    deadline.reschedule(loop.time() + (self._settings.duo_timeout_s if is_waiting else timeout_s))

                login.run.on_push = push_started
                is_asked = True
                outcome = await step()
                decision = await self._conclude(login, outcome)
            if has_turn:
                turns.decided(loop.time() - started_at, loop.time())
        except TimeoutError:
            if not is_asked:
                return self._no_turn(came_at)
            # What began late says little about the server.
            if has_turn and loop.time() - started_at >= timeout_s / 2:
                turns.ran_out_of_time(loop.time())
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the server did not decide within the deadline")
        except BackendError as exc:
            return Unavailable(unavailable_reason(exc), str(exc))
        finally:
            if has_turn:
                turns.give_back()
            # Whatever ended it, cancelled callers included: a session that got as far as a login is not left behind.
            if not isinstance(decision, Accepted | Challenge):
                self._sessions.discard(login.run.visitor, login.provider, self._service)
        return decision

    def _no_turn(self, came_at: float) -> Unavailable:
        """A login that had no turn in time, and nothing was asked for it."""
        if self.turns.decided_at < came_at:
            detail = "the server decided no login within the deadline"
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, detail)
        return Unavailable(UnavailableReason.BUSY, "too many logins are under way")

    async def _conclude(self, login: _Login, outcome: Outcome) -> Decision:
        if isinstance(outcome, Finished):
            return await self._prove(login)
        if not isinstance(outcome, NeedsCode):
            return Rejected(outcome.reason, outcome.detail)
        if not login.run.is_interactive:
            return Rejected(
                RejectReason.CODE_REQUIRED,
                f"the flow asked for {outcome.devices}; the client gave none (password;code)",
            )
        timeout_s = self._settings.challenge_timeout_s
        deadline = asyncio.get_running_loop().time() + timeout_s
        waiting = Waiting(login.run, outcome, login.answers, login.provider.pk, deadline)
        return Challenge(PROMPT, waiting, self._wall_clock() + timeout_s)

    async def _prove(self, login: _Login) -> Decision:
        run = login.run
        if not run.has_credential:
            return Rejected(RejectReason.FLOW_ERROR, f"the flow {run.slug!r} ended without asking for a password")
        cookie = run.visitor.jar.get(SESSION)
        claims = read_claims(cookie)
        if not cookie or claims.is_authenticated is False:
            return Rejected(RejectReason.FLOW_ERROR, f"the flow {run.slug!r} ended without logging anybody in")
        person, access = await asyncio.gather(
            self._whoami(run.visitor), self.access.ask(run.visitor, login.provider), return_exceptions=True
        )
        if isinstance(person, BaseException):
            raise person
        if isinstance(person, Rejected):
            return person
        if isinstance(access, BaseException):
            raise access
        return self._judge(login, claims, person, access)

    def _judge(self, login: _Login, claims: Claims, person: Person, access: Access | Denied) -> Decision:
        provider, visitor = login.provider, login.run.visitor
        if claims.subject is not None and claims.subject not in person.names:
            return Rejected(RejectReason.FLOW_ERROR, "the session belongs to another user than the server says")
        if not person.is_active:
            return Rejected(RejectReason.INVALID_CREDENTIALS, "the user is deactivated")
        if isinstance(access, Denied):
            return Rejected(access.reason, access.detail)
        if access.is_passing is not True:
            said = "; ".join(repr(message[:200]) for message in access.messages[:3])
            return Rejected(
                RejectReason.ACCESS_DENIED,
                f"the policies of application {provider.application_slug!r} do not let the user in"
                + (f": {said}" if said else ""),
            )
        attributes = ReplyAttributes()
        if isinstance(provider, RadiusProvider):
            try:
                attributes = reply_attributes(access.attributes)
            except ValueError:
                return Rejected(RejectReason.ATTRIBUTE_DECODE_FAILED, "the server's reply attributes are no Base64")
            if access.mapping_failed:
                detail = "a property mapping of the provider failed on the server: see the events there"
                if self._settings.refuse_on_mapping_failure:
                    return Rejected(RejectReason.ATTRIBUTE_PARSE_FAILED, detail)
                self._observer.log("warning", detail, provider=provider.name)
        expires_at = visitor.jar.session_expires_at
        self._sessions.keep(claims.handle, visitor, provider, self._service, expires_at, person.groups)
        return Accepted(
            Identity(person.pk, person.username, _can_search(provider, person, access), claims.handle),
            expires_at,
            attributes,
            # A code that no stage asked for was not checked; the secret is still not worth remembering.
            used_code=login.run.used_code or (provider.mfa_support and login.answers.code is not None),
        )

    async def _whoami(self, visitor: Visitor) -> Person | Rejected:
        what = "users/me"
        answer = await visitor.request("GET", self._pool.address.api("/core/users/me/"), what)
        if answer.status != 200:
            error = refusal(answer, what)
            if isinstance(error, TokenRefused):
                return Rejected(RejectReason.FLOW_ERROR, "the flow ended without logging anybody in")
            raise error
        user = Shape(answer.json(what), what).child("user")
        pk, username = user.integer("pk"), user.text("username")
        names = {str(pk), username, user.text("uid", username), user.text("uuid", username)}
        return Person(
            pk,
            username,
            frozenset(names),
            user.boolean("is_active", True),
            people.group_pks(user.children("groups")),
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _can_search(provider: Provider, person: Person, access: Access) -> bool:
    if not isinstance(provider, LdapProvider):
        return False
    if access.has_search_permission is not None:
        return access.has_search_permission
    # Before 2024.8: members of the search group; without one nobody searches.
    return provider.search_group is not None and provider.search_group in person.groups


def unavailable_reason(error: BackendError) -> UnavailableReason:
    """Why there is no decision."""
    if isinstance(error, BackendTimeout):
        return UnavailableReason.BACKEND_TIMEOUT
    if isinstance(error, BackendUnavailable):
        return UnavailableReason.BACKEND_DOWN
    return UnavailableReason.BACKEND_ERROR
