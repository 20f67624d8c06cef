"""The parent's answers to what workers ask: the gate, the directories and the prompts, one for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, final

from outpost.credentials.gate import Gate
from outpost.errors import OutpostError
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    LdapProvider,
    Provider,
    RadiusProvider,
    Rejected,
    RejectReason,
    Served,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.ldap.directories import Directories
from outpost.observe.logs import LogWriter
from outpost.processes import memory
from outpost.radius.conversations import Conversations
from outpost.workers import words
from outpost.workers.words import (
    Authenticate,
    ChangePassword,
    Decided,
    Family,
    Found,
    LookUp,
    PasswordDecided,
    Prompt,
    Proof,
    Resume,
    Sample,
    ToWorker,
    Vouch,
)

LOGGER: Final = "outpost.workers"
GONE: Final = Unavailable(UnavailableReason.NOT_READY, "the provider is served no more")

Question = Authenticate | Resume | Vouch | ChangePassword | LookUp


class Arena:
    """A compiled directory in sealed memory, for as long as somebody has this object."""

    __slots__ = ("descriptor",)

    def __init__(self, octets: bytes | memoryview) -> None:
        """Raises OSError."""
        self.descriptor = memory.sealed(octets)

    def __del__(self) -> None:
        os.close(self.descriptor)


@final
class Desk:
    """Answers questions; raises nothing but CancelledError. Everything runs on one event loop.

    tell: says something to all workers; clock: monotonic seconds of the machine; epoch: seconds since the epoch.
    """

    def __init__(
        self,
        gate: Gate,
        directories: Directories[Arena],
        log: LogWriter,
        tell: Callable[[ToWorker], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        epoch: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._gate = gate
        self._directories = directories
        self._log = log
        self._tell = tell
        self._clock = clock
        self._epoch = epoch
        self._prompts = Conversations(random)
        self._ldap: dict[int, LdapProvider] = {}
        self._radius: dict[int, RadiusProvider] = {}

    def serve(self, served: Served) -> None:
        """The providers of this moment."""
        self._ldap = {one.pk: one for one in served.ldap}
        self._radius = {one.pk: one for one in served.radius}

    def refuse(self, question: Question, unavailable: Unavailable) -> ToWorker:
        """The answer to a question that is not even looked at."""
        if isinstance(question, LookUp):
            return Found(question.id, unavailable.detail)
        if isinstance(question, ChangePassword):
            return PasswordDecided(question.id, unavailable)
        return Decided(question.id, unavailable)

    async def answer(self, question: Question) -> tuple[ToWorker, Arena | None]:
        """The answer; nothing is awaited between the gate's word and the return."""
        try:
            if isinstance(question, LookUp):
                return await self._look_up(question)
            if isinstance(question, ChangePassword):
                return await self._change(question), None
            return await self._decide(question), None
        except Exception as exc:
            identifier = self._log.bug(LOGGER, "a worker's question failed", exc)
            failed = Unavailable(UnavailableReason.INTERNAL, f"internal error {identifier}")
            return self.refuse(question, failed), None

    def expire(self) -> None:
        """Forget prompts nobody answers any more."""
        self._prompts.expire(self._clock())

    def families(self) -> tuple[Family, ...]:
        """What workers cannot know of the prompts, under the names that they use."""
        expired, pending = "outpost_radius_challenges_expired", "outpost_radius_challenges_pending"
        return (
            Family(
                expired,
                "RADIUS challenges expired.",
                "counter",
                (Sample(f"{expired}_total", (), self._prompts.expired),),
            ),
            Family(pending, "RADIUS challenges open now.", "gauge", (Sample(pending, (), len(self._prompts)),)),
        )

    async def _look_up(self, question: LookUp) -> tuple[ToWorker, Arena | None]:
        provider = self._ldap.get(question.provider_pk)
        if provider is None:
            return Found(question.id, GONE.detail), None
        try:
            return Found(question.id), await self._directories.fetch(provider, question.wanted)
        except OutpostError as error:
            return Found(question.id, str(error) or "the look-up failed"), None

    async def _change(self, question: ChangePassword) -> ToWorker:
        provider = self._ldap.get(question.provider_pk)
        if provider is None:
            return PasswordDecided(question.id, GONE)
        decision = await self._gate.change_password(
            provider, question.identity, question.old, question.new, question.source
        )
        return PasswordDecided(question.id, decision)

    async def _decide(self, question: Authenticate | Resume | Vouch) -> ToWorker:
        if isinstance(question, Authenticate):
            return await self._authenticate(question)
        if isinstance(question, Resume):
            return await self._resume(question)
        provider = self._ldap.get(question.provider_pk)
        if provider is None:
            return Decided(question.id, GONE)
        decision = await self._gate.vouch(provider, question.username, question.source)
        return self._decided(question.id, provider, question.username, question.source, decision)

    async def _authenticate(self, question: Authenticate) -> ToWorker:
        served: dict[str, dict[int, LdapProvider] | dict[int, RadiusProvider]]
        served = {"ldap": self._ldap, "radius": self._radius}
        provider = served.get(question.service, {}).get(question.provider_pk)
        if provider is None:
            return Decided(question.id, GONE)
        came_at = self._clock()
        username, secret = question.username, question.secret
        decision = await self._gate.authenticate(provider, username, secret, question.source)
        entry = self._gate.remembered(provider, username, secret) if isinstance(decision, Accepted) else None
        if entry is None or entry.accepted is not decision:
            return self._decided(question.id, provider, username, question.source, decision)
        if entry.verified_at >= came_at:
            self._tell(words.Doubt(decision.identity.user_pk, entry.mark))
        return Decided(question.id, decision, Proof(entry.verified_at, entry.ends_at))

    async def _resume(self, question: Resume) -> ToWorker:
        provider = self._radius.get(question.provider_pk)
        if provider is None:
            return Decided(question.id, GONE)
        waiting = self._prompts.take(
            question.state, provider.pk, question.source.address, question.username, now=self._clock()
        )
        if waiting is None:
            detail = "the State is unknown, too old, used before, or another user's"
            return Decided(question.id, Rejected(RejectReason.FLOW_ERROR, detail))
        decision = await self._gate.resume(provider, waiting.continuation, question.secret, question.source)
        return self._decided(question.id, provider, question.username, question.source, decision)

    def _decided(
        self, identifier: int, provider: Provider, username: str, source: Source, decision: Decision
    ) -> Decided:
        if not isinstance(decision, Challenge):
            return Decided(identifier, decision)
        state = b""
        if isinstance(provider, RadiusProvider):
            lifetime_s = None if decision.expires_at is None else decision.expires_at - self._epoch()
            state = self._prompts.open(
                provider.pk,
                source.address,
                username,
                decision.continuation,
                now=self._clock(),
                lifetime_s=lifetime_s,
            )
        return Decided(identifier, Prompt(decision.prompt, state, decision.attributes))
