"""The parent's answers, with a real gate in front of a scripted authority."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import LimiterSettings
from outpost.errors import BackendUnavailable
from outpost.identity import (
    Accepted,
    Challenge,
    Changed,
    Decision,
    Identity,
    LdapProvider,
    Rejected,
    RejectReason,
    Secret,
    Served,
    Source,
    Unavailable,
    UnavailableReason,
    Wanted,
)
from outpost.processes import memory
from outpost.workers import words
from outpost.workers.desk import Arena, Desk
from outpost.workers.words import Decided, Found, PasswordDecided, Prompt
from tests.workers.testbed import ANN, HERE, LDAP, RADIUS, Clock

NAS = Source("radius", "192.0.2.9", interactive=True)
CODE = "123456"


class Backend:
    """Knows ann and her password, and asks carol for a code."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bug: Exception | None = None

    async def authenticate(self, provider: Any, username: str, secret: Secret, source: Source) -> Decision:
        self.asked.append(username)
        if self.bug is not None:
            raise self.bug
        if username == "carol":
            return Challenge("Code?", "carol's")
        return ANN if secret == Secret("pw") else Rejected(RejectReason.INVALID_CREDENTIALS)

    async def resume(self, provider: Any, continuation: object, secret: Secret, source: Source) -> Decision:
        self.asked.append(str(continuation))
        if secret == Secret("again"):
            return Challenge("Once more?", "carol's second")
        if secret == Secret(CODE):
            return Accepted(Identity(9, "carol", can_search=False), used_code=True)
        return Rejected(RejectReason.CODE_INVALID)

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        return ANN

    def can_change_passwords(self) -> bool:
        return True

    async def change_password(self, *_: Any) -> Changed:
        return Changed()


class Directories:
    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Arena:
        if wanted.username == "down":
            raise BackendUnavailable("nobody there")
        if wanted.username == "bug":
            raise ValueError("a bug that quotes hunter2")
        return Arena(b"arena of " + str(wanted.username).encode())


class Log:
    bugs = 0

    def bug(self, logger: str, what: str, error: BaseException) -> str:
        self.bugs += 1
        return "0badf00d"


class Office:
    def __init__(self) -> None:
        self.backend, self.clock, self.told = Backend(), Clock(), []  # type: ignore[var-annotated]
        settings = GateSettings(limiter=LimiterSettings(damp_s=0.0))
        self.gate = Gate(self.backend, settings, passwords=self.backend, certificates=self.backend, clock=self.clock)
        self.gate.set_connected(True)
        self.gate.subscribe_refusals(lambda key: self.told.append(words.Refused(key)))
        self.log = Log()
        tell: Callable[[Any], None] = self.told.append
        self.desk = Desk(self.gate, Directories(), self.log, tell, clock=self.clock)  # type: ignore[arg-type]
        self.desk.serve(Served(ldap=(LDAP,), radius=(RADIUS,)))

    async def ask(self, question: Any) -> Any:
        return (await self.desk.answer(question))[0]

    async def login(self, username: str = "ann", secret: str = "pw", source: Source = HERE, pk: int = 1) -> Any:
        return await self.ask(words.Authenticate(5, source.service, pk, username, Secret(secret), source))

    async def prompt(self) -> bytes:
        found = await self.login("carol", "pw", NAS)
        assert isinstance(found.decision, Prompt) and len(found.decision.state) == 16
        return bytes(found.decision.state)

    async def resume(self, state: bytes, secret: str = CODE, username: str = "carol", source: Source = NAS) -> Any:
        return (await self.ask(words.Resume(5, 1, username, state, Secret(secret), source))).decision


async def test_a_login_comes_with_what_is_believed_of_it() -> None:
    office = Office()
    first = await office.login()
    assert first == Decided(5, ANN, words.Proof(1000.0, 1300.0))
    [doubt] = office.told
    assert isinstance(doubt, words.Doubt) and doubt.user_pk == 7
    office.clock.now += 100.0
    assert await office.login() == first, "as old as it is"
    assert len(office.backend.asked) == 1 and len(office.told) == 1
    assert await office.login(secret="wrong") == Decided(5, Rejected(RejectReason.INVALID_CREDENTIALS))
    assert isinstance(office.told[-1], words.Refused)


async def test_what_is_refused_later_is_told() -> None:
    office = Office()
    await office.login()
    office.clock.now += 250.0
    office.backend.bug = None
    office.told.clear()
    office.backend.authenticate = lambda *_: asyncio.sleep(0, Rejected(RejectReason.INVALID_CREDENTIALS))  # type: ignore[method-assign,assignment]
    assert (await office.login()).decision == ANN, "verified behind its back"
    await asyncio.sleep(0.01)
    [refused] = office.told
    assert isinstance(refused, words.Refused)


async def test_a_prompt_is_answered_once_by_whom_it_was_shown_to() -> None:
    office = Office()
    unknown = RejectReason.FLOW_ERROR
    state = await office.prompt()
    assert (await office.resume(bytes(16))).reason is unknown
    assert (await office.resume(state)).identity.username == "carol"
    assert (await office.resume(state)).reason is unknown
    for stranger in (
        {"username": "ann"},
        {"source": replace(NAS, address="192.0.2.10")},
        {"secret": "000000"},
    ):
        state = await office.prompt()
        assert isinstance(await office.resume(state, **stranger), Rejected)
        assert (await office.resume(state)).reason is unknown, "one try"
    state = await office.prompt()
    office.clock.now += 120.0
    assert (await office.resume(state)).reason is unknown, "too late"
    state = await office.prompt()
    second = await office.resume(state, "again")
    assert isinstance(second, Prompt) and second.state != state
    assert (await office.resume(second.state)).identity.username == "carol"
    [expired, pending] = office.desk.families()
    assert pending.samples[0].value == 0 and expired.samples[0].value >= 1


async def test_one_answer_at_two_workers_at_once_counts_once() -> None:
    office = Office()
    state = await office.prompt()
    answers = await asyncio.gather(*(office.resume(state) for _ in range(5)))
    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert office.backend.asked.count("carol's") == 1


async def test_ldap_has_no_prompts() -> None:
    office = Office()
    found = await office.login("carol", "pw")
    assert found.decision == Prompt("Code?", b"", found.decision.attributes)
    assert isinstance(await office.resume(b""), Rejected)


async def test_who_is_served_no_more_logs_in_nobody() -> None:
    office = Office()
    gone = Unavailable(UnavailableReason.NOT_READY, "the provider is served no more")
    questions = [
        words.Authenticate(5, "ldap", 2, "ann", Secret("pw"), HERE),
        words.Authenticate(5, "radius", 2, "ann", Secret("pw"), NAS),
        words.Authenticate(5, "other", 1, "ann", Secret("pw"), HERE),
        words.Resume(5, 2, "carol", bytes(16), Secret(CODE), NAS),
        words.Vouch(5, 2, "ann", HERE),
    ]
    for question in questions:
        assert await office.ask(question) == Decided(5, gone)
    assert await office.ask(
        words.ChangePassword(5, 2, ANN.identity, Secret("a"), Secret("b"), HERE)
    ) == PasswordDecided(5, gone)
    assert await office.ask(words.LookUp(5, 2, Wanted())) == Found(5, gone.detail)
    assert office.backend.asked == []


async def test_bugs_are_unavailable() -> None:
    office = Office()
    office.backend.bug = ValueError("quotes hunter2")
    decision = (await office.login()).decision
    assert isinstance(decision, Unavailable) and "hunter2" not in decision.detail
    office.gate = None  # type: ignore[assignment]
    office.desk._gate = None  # type: ignore[assignment]
    failed = Unavailable(UnavailableReason.INTERNAL, "internal error 0badf00d")
    assert (await office.login()).decision == failed
    assert await office.ask(words.Vouch(5, 1, "ann", HERE)) == Decided(5, failed)
    change = words.ChangePassword(5, 1, ANN.identity, Secret("a"), Secret("b"), HERE)
    assert await office.ask(change) == PasswordDecided(5, failed)
    assert office.log.bugs == 3


async def test_certificates_and_passwords_are_the_gates() -> None:
    office = Office()
    assert await office.ask(words.Vouch(5, 1, "ann", HERE)) == Decided(5, ANN)
    change = words.ChangePassword(5, 1, ANN.identity, Secret("a"), Secret("b"), HERE)
    assert await office.ask(change) == PasswordDecided(5, Changed())


async def test_a_fresh_directory_comes_as_memory() -> None:
    office = Office()
    reply, arena = await office.desk.answer(words.LookUp(5, 1, Wanted(username="ann")))
    assert reply == Found(5) and arena is not None
    with memory.mapped(arena.descriptor) as octets:
        assert octets[:] == b"arena of ann"
    assert await office.desk.answer(words.LookUp(5, 1, Wanted(username="down"))) == (Found(5, "nobody there"), None)
    reply, arena = await office.desk.answer(words.LookUp(5, 1, Wanted(username="bug")))
    assert isinstance(reply, Found) and reply.problem == "internal error 0badf00d" and arena is None
