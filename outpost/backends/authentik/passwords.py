"""Changes a user's password the way he would in his settings there: with his own session, in the flow that is offered.

The old password is proved by a login as for a bind, the new one by another after the change: the end of a flow alone
proves nothing.  No word of the server reaches the client with a password in it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import final

import orjson

from outpost import passcode
from outpost.backends.authentik import stages
from outpost.backends.authentik.authority import FlowAuthority, Waiting, unavailable_reason
from outpost.backends.authentik.client import Pool, refusal
from outpost.backends.authentik.flow import REDIRECTS, FlowRun, Visitor
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.sessions import Sessions
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import (
    Accepted,
    Challenge,
    Changed,
    Identity,
    LdapProvider,
    PasswordDecision,
    Publish,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
    Unwilling,
)

COMPONENT = "ak-user-settings-password"
MAX_POSTS = 5
MAX_OCTETS = 1024
SAID = 300
"""Characters of what the server says that are handed on."""
UNTYPED = frozenset(
    {"hidden", "static", "separator", "text_read_only", "text_area_read_only", "alert_info", "alert_warning"}
    | {"alert_danger"}
)
"""Kinds of fields that nobody fills in."""
NOT_OFFERED = "the server offers its users no way to change their passwords"
NEEDS_CODE = "the server asks for a one-time code: append one to the old password, password;code"
UNPROVED = "the server ended its flow, but the new password logs nobody in: look there which one holds"


class _No(Exception):
    """Why nothing can be done: one sentence for the user, without a secret."""


@dataclass(slots=True, repr=False)
class _Form:
    """The new password on its way through the flow."""

    new: str
    secrets: tuple[str, ...]
    """What no sentence may quote."""
    is_sent: bool = False
    """The server may have changed it."""


@final
class PasswordChanges:
    """The changes at one server. Everything on one event loop; publish: takes revocations."""

    def __init__(self, pool: Pool, sessions: Sessions, observer: Observer, publish: Publish, timeout_s: float) -> None:
        self.is_offered = True
        """False since the server offered no way to somebody, until it offers one."""
        self._pool = pool
        self._sessions = sessions
        self._observer = observer
        self._publish = publish
        self._timeout_s = timeout_s

    async def change(
        self,
        authority: FlowAuthority,
        provider: LdapProvider,
        identity: Identity,
        old: Secret,
        new: Secret,
        source: Source,
    ) -> PasswordDecision:
        """Make `new` the password of `identity`, who knows `old`; `Changed` after a login with it only."""
        try:
            text = _new_text(provider, new)
        except _No as exc:
            return Unwilling(str(exc))
        decision = await authority.authenticate(provider, identity.username, old, replace(source, interactive=False))
        if isinstance(decision, Challenge) or _lacks_code(decision):
            return Unwilling(NEEDS_CODE)
        if not isinstance(decision, Accepted):
            return decision
        visitor = self._taken(decision)
        if visitor is None:
            return Unavailable(UnavailableReason.BACKEND_ERROR, "the session of the old password is gone")
        before, _ = passcode.split(old.reveal(), provider.mfa_support)
        form = _Form(text, (text, before.decode()))
        try:
            if decision.identity.user_pk != identity.user_pk:
                return Unwilling("the old password is that of another user")
            await self._ask(authority, visitor, form)
        except _No as exc:
            return Unwilling(str(exc))
        except TimeoutError:
            return Unavailable(UnavailableReason.BACKEND_TIMEOUT, "the server did not end the change in time")
        except BackendError as exc:
            return Unavailable(unavailable_reason(exc), str(exc))
        finally:
            # Even where nobody knows how it ended: what rests on the old password has to be proved anew.
            if form.is_sent:
                self._publish(Revoked(user_pk=identity.user_pk))
            self._sessions.discard(visitor, provider, "ldap")
        return await self._prove(authority, provider, identity, new, source)

    async def _ask(self, authority: FlowAuthority, visitor: Visitor, form: _Form) -> None:
        """Raises _No, BackendError, TimeoutError."""
        async with asyncio.timeout(self._timeout_s):
            await authority.turns.take()
            try:
                await self._fill(await self._flow(visitor), form)
            finally:
                authority.turns.give_back()

    async def _prove(
        self, authority: FlowAuthority, provider: LdapProvider, identity: Identity, new: Secret, source: Source
    ) -> PasswordDecision:
        """Log in with the new password; where that needs a code, which is spent, up to the code."""
        asking = replace(source, interactive=True, waited_s=0.0)  # the change is made: this must not lack time
        proof = await authority.authenticate(provider, identity.username, new, asking)
        if isinstance(proof, Unavailable):
            return Unavailable(proof.reason, f"whether the new password holds is not known: {proof.detail}")
        is_proved = False
        if isinstance(proof, Accepted):
            visitor = self._taken(proof)
            if visitor is not None:
                self._sessions.discard(visitor, provider, "ldap")
            is_proved = proof.identity.user_pk == identity.user_pk
        elif isinstance(proof, Challenge):
            # The old password got past the code, so the stage before it is what was to be proved.
            waiting = proof.continuation
            is_proved = isinstance(waiting, Waiting) and waiting.run.has_credential
        if not is_proved:
            return Unwilling(UNPROVED)
        self._observer.log("info", f"the password of {identity.username!r} was changed by {source.address}")
        return Changed()

    def _taken(self, accepted: Accepted) -> Visitor | None:
        """The visitor behind a login that nobody else is to use."""
        handle = accepted.identity.session
        kept = self._sessions.find(handle) if handle is not None else None
        if kept is None:
            return None
        self._sessions.forget(kept.handle)
        return kept.visitor

    async def _flow(self, visitor: Visitor) -> FlowRun:
        """The flow that the server offers this user."""
        address = self._pool.address
        what = "user settings"
        answer = await visitor.request("GET", address.api("/stages/all/user_settings/"), what)
        if answer.status in (401, 403, 404):
            raise self._nothing_offered()
        if answer.status != 200:
            raise refusal(answer, what)
        found = answer.json(what)
        offered = [Shape(one, what) for one in (found if isinstance(found, list) else ())]
        paths = [one.text("configure_url", "") for one in offered if one.text("component", "") == COMPONENT]
        path = next((one for one in paths if one), "")
        if not path:
            raise self._nothing_offered()
        try:
            url = address.configuration(path)
        except ValueError:
            raise _No("the page that the server names for a change is none of its own") from None
        self.is_offered = True
        answer = await visitor.request("GET", url, "password settings")
        if answer.status >= 500 or answer.status == 429:
            raise refusal(answer, "password settings")
        slug = address.flow_shown(answer.location) if answer.status in REDIRECTS else None
        if slug is None:
            raise _No("the server does not let this user change his password")
        return FlowRun(visitor, slug, address.executor(slug, ()), "ldap", self._observer)

    def _nothing_offered(self) -> _No:
        self.is_offered = False
        return _No(NOT_OFFERED)

    @staticmethod
    async def _fill(run: FlowRun, form: _Form) -> None:
        """Answer every form of the flow until its end. Raises _No and BackendError."""
        posted: set[bytes] = set()
        challenge = await run.exchange("GET", None)
        while True:
            component = challenge.text("component")
            errors = challenge.mapping("response_errors")
            if component == stages.SERVER_ERROR:
                raise BackendError(f"flow {run.slug!r}: the server failed")
            if component == stages.DENIED:
                raise _No(_said("the server denies the change", challenge.text("error_message", ""), form))
            if errors:
                form.is_sent = form.is_sent and len(posted) > 1
                raise _No(_said("the server refuses the new password", _messages(errors), form))
            if component == stages.REDIRECT and "/flows/executor/" not in challenge.text("to", ""):
                if not form.is_sent:
                    raise _No("the server's flow ended without asking for a new password")
                return
            if component != stages.PROMPT:
                wanted = stages.UNANSWERABLE.get(component, "something that LDAP clients cannot answer")
                raise _No(f"the server's flow for a change asks for {wanted}")
            body, has_password = _filled(challenge, form.new)
            fingerprint = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
            if fingerprint in posted or len(posted) >= MAX_POSTS:
                raise _No("the server's flow for a change does not end")
            posted.add(fingerprint)
            form.is_sent |= has_password
            challenge = await run.exchange("POST", body)


def _new_text(provider: LdapProvider, new: Secret) -> str:
    """Raises _No for what could not be logged in with."""
    octets = new.reveal()
    if not octets:
        raise _No("the new password is empty")
    if len(octets) > MAX_OCTETS:
        raise _No(f"the new password is longer than {MAX_OCTETS} octets")
    if passcode.split(octets, provider.mfa_support)[1] is not None:
        raise _No("the new password ends like one with a one-time code behind it")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise _No("the new password is no UTF-8") from None


def _filled(challenge: Shape, new: str) -> tuple[dict[str, object], bool]:
    """The answer to a form, and whether the new password is in it. Raises _No for a field that nobody can fill in."""
    body: dict[str, object] = {"component": stages.PROMPT}
    has_password = False
    for field in challenge.children("fields"):
        key, kind = field.text("field_key"), field.text("type", "")
        if key == "component":
            raise _No("the server's form for a change cannot be filled in")
        # What goes into an attribute is kept in clear: no password of ours belongs there.
        if kind == "password" and not key.startswith("attributes"):
            body[key] = new
            has_password = True
        elif kind == "hidden":
            body[key] = field.text("initial_value", "")
        elif kind not in UNTYPED and field.boolean("required", True):
            raise _No(f"the server's form for a change asks for {_plain(key, 50)!r}, too")
    return body, has_password


def _lacks_code(decision: object) -> bool:
    return isinstance(decision, Rejected) and decision.reason is RejectReason.CODE_REQUIRED


def _messages(errors: object) -> str:
    found: list[str] = []
    for value in errors.values() if isinstance(errors, dict) else ():
        for one in value if isinstance(value, list) else (value,):
            text = one.get("string") if isinstance(one, dict) else one
            if isinstance(text, str):
                found.append(text)
    return " ".join(dict.fromkeys(found))


def _said(what: str, message: str, form: _Form) -> str:
    """The server's own sentence, unless it quotes a password."""
    if not message.strip() or any(one.casefold() in message.casefold() for one in form.secrets if one):
        return what
    return f"{what}: {_plain(message, SAID)}"


def _plain(text: str, most: int) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:most]).strip()
