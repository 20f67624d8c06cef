"""The door to the authority: what it lets be known, shared, refused, and how it fails closed."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import Gate, GateSettings
from outpost.credentials.limiter import Bucket, LimiterSettings
from outpost.errors import BackendError, BackendTimeout, BackendUnavailable
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    LdapProvider,
    Mode,
    RadiusProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)

LDAP = LdapProvider(1, "ldap", "dc=example", "app")
DIRECT = dataclasses.replace(LDAP, pk=2, bind_mode=Mode.DIRECT)
RADIUS = RadiusProvider(1, "radius", "app", (), Secret(b"s"))
HERE, THERE = Source("ldap", "192.0.2.1"), Source("ldap", "198.51.100.7")
ASKS = dataclasses.replace(HERE, interactive=True)
ALICE = Accepted(Identity(7, "alice", True, "session-7"))
WRONG = Rejected(RejectReason.INVALID_CREDENTIALS)
LOOKALIKE = SimpleNamespace(reason=UnavailableReason.BACKEND_DOWN, identity=ALICE.identity, detail="")
CANARY = "canary-9c41"


class Authority:
    """Answers what it is told, when it is told."""

    def __init__(self, answer: Decision | BaseException | Callable[[str, bytes], Decision] = ALICE) -> None:
        self.answer: object = answer
        self.asked: list[tuple[str, bytes]] = []
        self.sources: list[Source] = []
        self.cancelled = 0
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.during: Callable[[], None] = lambda: None

    async def authenticate(self, provider, username: str, secret: Secret, source: Source) -> Decision:
        self.asked.append((username, secret.reveal()))
        self.sources.append(source)
        return await self._answer(username, secret.reveal())

    async def resume(self, provider, continuation, secret: Secret, source: Source) -> Decision:
        self.asked.append((continuation, secret.reveal()))
        self.sources.append(source)
        return await self._answer(continuation, secret.reveal())

    async def _answer(self, name: str, secret: bytes) -> Decision:
        try:
            await self.is_open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.during()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(name, secret) if callable(self.answer) else self.answer  # type: ignore[return-value]


class Bench:
    """A gate with clocks that stand still unless moved."""

    def __init__(self, answer: object = ALICE, cache: dict | None = None, limiter: dict | None = None, **more) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.lines: list[tuple[str, str, Mapping[str, object]]] = []
        """Level, event and fields of what was logged."""
        self.authority = Authority(answer)  # type: ignore[arg-type]
        self.gate = Gate(
            self.authority,
            GateSettings(cache=CacheSettings(**(cache or {})), limiter=LimiterSettings(**(limiter or {})), **more),
            clock=lambda: self.now,
            epoch=lambda: 1e9 + self.now,
            sleep=self.sleep,
            log=lambda *line: self.lines.append(line),
        )
        self.gate.set_connected(True)
        self.lines.clear()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def login(self, secret: str = "pw", name: str = "alice", provider=LDAP, source: Source = HERE) -> Decision:
        return await self.gate.authenticate(provider, name, Secret(secret), source)

    def knows(self, secret: str = "pw", name: str = "alice", provider=LDAP, source: Source = HERE) -> Accepted | None:
        return self.gate.known(provider, name, secret.encode(), source)

    @property
    def questions(self) -> int:
        return len(self.authority.asked)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- remembering ----------------------------------------------------------------------------------


async def test_a_success_is_known_from_then_on() -> None:
    bench = Bench()
    assert bench.knows() is None
    assert await bench.login() == ALICE
    assert bench.knows() == ALICE
    assert await bench.login() == ALICE
    assert bench.questions == 1
    assert bench.knows("other") is None
    assert bench.knows(name="bob") is None
    assert bench.knows("") is None


async def test_radius_and_ldap_do_not_vouch_for_each_other() -> None:
    bench = Bench()
    await bench.login()
    assert bench.knows(provider=RADIUS) is None
    await bench.login(provider=RADIUS)
    assert bench.knows(provider=RADIUS) == ALICE
    assert bench.questions == 2


async def test_direct_providers_are_always_asked() -> None:
    bench = Bench()
    for _ in range(3):
        assert await bench.login(provider=DIRECT) == ALICE
        assert bench.knows(provider=DIRECT) is None
    assert bench.questions == 3


async def test_radius_can_be_kept_out_of_the_cache() -> None:
    bench = Bench(cache_radius=False)
    await bench.login(provider=RADIUS)
    assert bench.knows(provider=RADIUS) is None


@pytest.mark.parametrize(
    "decision",
    [
        *(Rejected(reason) for reason in RejectReason),
        *(Unavailable(reason) for reason in UnavailableReason),
        Challenge("code?", "c"),
    ],
    ids=str,
)
async def test_what_is_no_success_is_never_known(decision: Decision) -> None:
    bench = Bench(decision)
    told = await bench.login()
    assert type(told) is type(decision)
    assert bench.knows() is None
    bench.authority.answer = ALICE
    bench.now += 60
    assert await bench.login() == ALICE, "and stands in nobody's way"


async def test_an_empty_password_is_refused_and_nobody_is_asked() -> None:
    bench = Bench()
    told = await bench.login("")
    assert isinstance(told, Rejected)
    assert told.reason is RejectReason.EMPTY_PASSWORD
    assert bench.questions == 0


async def test_a_code_is_known_to_the_same_client_only_and_briefly() -> None:
    bench = Bench(dataclasses.replace(ALICE, used_code=True))
    await bench.login("pw;123456")
    assert bench.knows("pw;123456") is not None
    assert bench.knows("pw;123456", source=THERE) is None
    bench.now += 10
    assert bench.knows("pw;123456") is None


# -- verification in the background ---------------------------------------------------------------


async def test_an_older_hit_is_answered_at_once_and_verified_behind_its_back() -> None:
    bench = Bench(cache={"refresh_after_s": 100})
    await bench.login()
    bench.now += 100
    assert bench.knows() == ALICE
    assert bench.questions == 1
    await turns()
    assert bench.questions == 2
    bench.now += 250
    assert bench.knows() == ALICE, "it was verified 250 s ago, not 350"


async def test_nobody_can_answer_a_challenge_in_the_background() -> None:
    bench = Bench(cache={"refresh_after_s": 100})
    await bench.login(source=ASKS)
    bench.now += 100
    bench.authority.answer = Challenge("code?", "c")
    assert bench.knows(source=ASKS) == ALICE
    await turns()
    assert [source.interactive for source in bench.authority.sources] == [True, False]
    assert bench.knows(source=ASKS) is None, "the password alone is enough no more"


async def test_whoever_waits_for_an_answer_goes_before_the_background() -> None:
    bench = Bench(cache={"refresh_after_s": 100, "max_age_s": 1000}, concurrency=1, refresh_retry_s=15)
    await bench.login()
    bench.now += 100
    bench.authority.is_open.clear()
    waiting = asyncio.create_task(bench.login(name="bob"))
    await turns()
    assert bench.knows() == ALICE
    assert bench.gate.gauges()["logins_pending"] == 1
    bench.authority.is_open.set()
    await waiting
    assert bench.questions == 2
    bench.now += 15
    bench.knows()
    await turns()
    assert bench.questions == 3


async def test_a_refusal_in_the_background_evicts() -> None:
    bench = Bench(cache={"refresh_after_s": 100})
    await bench.login()
    bench.now += 100
    bench.authority.answer = WRONG
    assert bench.knows() == ALICE
    await turns()
    assert bench.knows() is None
    assert bench.gate.counters()["refreshes_refused"] == 1


async def test_an_outage_in_the_background_does_not_evict_but_does_not_renew() -> None:
    bench = Bench(cache={"refresh_after_s": 100, "max_age_s": 300})
    await bench.login()
    bench.now += 100
    bench.authority.answer = BackendUnavailable("down")
    assert bench.knows() == ALICE
    await turns()
    assert bench.knows() == ALICE
    bench.now += 200
    assert bench.knows() is None


async def test_many_hits_verify_once() -> None:
    bench = Bench(cache={"refresh_after_s": 100})
    await bench.login()
    bench.now += 100
    bench.authority.is_open.clear()
    for _ in range(50):
        assert bench.knows() == ALICE
    await turns()
    assert bench.questions == 2
    bench.authority.is_open.set()
    await turns()


async def test_an_authorities_bug_in_the_background_is_seen_and_harmless() -> None:
    bench = Bench(cache={"refresh_after_s": 100})
    await bench.login()
    bench.now += 100
    bench.authority.answer = RuntimeError(CANARY)
    assert bench.knows() == ALICE
    await turns()
    assert [level for level, _event, _fields in bench.lines] == ["error"]


# -- sharing --------------------------------------------------------------------------------------


async def test_identical_logins_share_one_question() -> None:
    bench = Bench()
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login()) for _ in range(50)]
    await turns()
    bench.authority.is_open.set()
    assert await asyncio.gather(*tasks) == [ALICE] * 50
    assert bench.questions == 1


@pytest.mark.parametrize(
    "other",
    [
        {"secret": "pw2"},
        {"name": "bob"},
        {"provider": DIRECT},
        {"provider": RADIUS},
        {"source": THERE},
        {"source": ASKS},
    ],
    ids=str,
)
async def test_logins_that_differ_share_nothing(other: dict) -> None:
    bench = Bench(lambda name, secret: ALICE if secret == b"pw" else WRONG)
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login()), asyncio.create_task(bench.login(**other))]
    await turns()
    assert bench.questions == 2
    bench.authority.is_open.set()
    first, second = await asyncio.gather(*tasks)
    assert first == ALICE
    assert second == (WRONG if "secret" in other else ALICE)


async def test_a_cancelled_waiter_takes_nobody_along() -> None:
    bench = Bench()
    bench.authority.is_open.clear()
    first, second, third = (asyncio.create_task(bench.login()) for _ in range(3))
    await turns()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    bench.authority.is_open.set()
    assert await asyncio.gather(second, third) == [ALICE, ALICE]
    assert (bench.questions, bench.authority.cancelled) == (1, 0)


async def test_an_authority_that_was_asked_is_heard_to_the_end() -> None:
    """Otherwise guessing and hanging up would cost no token."""
    bench = Bench(WRONG, limiter={"pair": Bucket(1, 0)})
    bench.authority.is_open.clear()
    task = asyncio.create_task(bench.login())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.authority.is_open.set()
    await turns()
    told = await bench.login("second guess")
    assert isinstance(told, Rejected)
    assert told.reason is RejectReason.THROTTLED


async def test_a_login_that_nobody_waits_for_any_more_is_not_begun() -> None:
    bench = Bench(concurrency=1)
    bench.authority.is_open.clear()
    blocker = asyncio.create_task(bench.login(name="blocker"))
    await turns()
    waiting = asyncio.create_task(bench.login())
    await turns()
    waiting.cancel()
    await turns()
    bench.authority.is_open.set()
    await blocker
    await turns()
    assert bench.authority.asked == [("blocker", b"pw")]
    assert bench.gate.gauges()["logins_pending"] == 0


async def test_an_authority_that_cancels_itself_is_no_success_and_no_cancellation_of_others() -> None:
    bench = Bench(asyncio.CancelledError())
    told = await bench.login()
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.INTERNAL
    assert bench.knows() is None


# -- revocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "revoked",
    [Revoked(), Revoked(user_pk=7), Revoked(session="session-7"), Revoked(provider_pk=1, service="ldap")],
    ids=str,
)
async def test_revoked_is_forgotten_at_once(revoked: Revoked) -> None:
    bench = Bench()
    await bench.login()
    bench.gate.publish(revoked)
    assert bench.knows() is None
    bench.authority.answer = WRONG
    assert await bench.login() == WRONG


async def test_revoking_somebody_else_changes_nothing() -> None:
    bench = Bench()
    await bench.login()
    bench.gate.publish(Revoked(user_pk=8))
    assert bench.knows() == ALICE


async def test_a_revocation_during_a_login_has_it_asked_again() -> None:
    bench = Bench()
    answers: list[Decision] = [ALICE, WRONG]

    def revoke_first(_name: str, _secret: bytes) -> Decision:
        if len(answers) == 2:
            bench.gate.publish(Revoked(user_pk=7))
        return answers.pop(0)

    bench.authority.answer = revoke_first
    assert await bench.login() == WRONG
    assert bench.knows() is None


async def test_endless_revocations_end_in_busy_not_in_success() -> None:
    bench = Bench()
    bench.authority.during = lambda: bench.gate.publish(Revoked())
    told = await bench.login()
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.BUSY
    assert bench.knows() is None
    assert bench.questions == 3


async def test_a_spent_code_is_not_tried_twice() -> None:
    bench = Bench(dataclasses.replace(ALICE, used_code=True))
    bench.authority.during = lambda: bench.gate.publish(Revoked(user_pk=7))
    assert isinstance(await bench.login("pw;123456"), Unavailable)
    assert bench.questions == 1


async def test_direct_logins_are_revoked_in_flight_too() -> None:
    bench = Bench()
    bench.authority.during = lambda: bench.gate.publish(Revoked(user_pk=7))
    assert isinstance(await bench.login(provider=DIRECT), Unavailable)


async def test_subscribers_hear_after_the_cache_has_forgotten() -> None:
    bench = Bench()
    await bench.login()
    heard: list[tuple[Revoked, Accepted | None]] = []
    unsubscribe = bench.gate.subscribe(lambda revoked: heard.append((revoked, bench.knows())))
    bench.gate.publish(Revoked(user_pk=7))
    assert heard == [(Revoked(user_pk=7), None)]
    unsubscribe()
    unsubscribe()
    bench.gate.publish(Revoked())
    assert len(heard) == 1


async def test_one_deaf_subscriber_does_not_keep_the_others_from_hearing() -> None:
    bench = Bench()
    heard: list[Revoked] = []

    def broken(_revoked: Revoked) -> None:
        raise RuntimeError(CANARY)

    bench.gate.subscribe(broken)
    bench.gate.subscribe(heard.append)
    bench.gate.publish(Revoked())
    assert heard == [Revoked()]
    assert len(bench.lines) == 1
    assert CANARY not in repr(bench.lines)


async def test_without_events_the_cache_is_believed_briefly() -> None:
    bench = Bench(cache={"max_age_disconnected_s": 30})
    bench.gate.set_connected(False)
    await bench.login()
    bench.now += 29
    assert bench.knows() == ALICE
    bench.now += 1
    assert bench.knows() is None
    bench.authority.answer = WRONG
    assert await bench.login() == WRONG


# -- failing closed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (BackendUnavailable("no route"), UnavailableReason.BACKEND_DOWN),
        (BackendTimeout("slow"), UnavailableReason.BACKEND_TIMEOUT),
        (TimeoutError(), UnavailableReason.BACKEND_TIMEOUT),
        (BackendError("odd"), UnavailableReason.BACKEND_ERROR),
        (RuntimeError(CANARY), UnavailableReason.INTERNAL),
        (KeyError(CANARY), UnavailableReason.INTERNAL),
        (StopAsyncIteration(), UnavailableReason.INTERNAL),
        (ExceptionGroup(CANARY, [ValueError(CANARY)]), UnavailableReason.INTERNAL),
        (AssertionError(CANARY), UnavailableReason.INTERNAL),
        (RecursionError(CANARY), UnavailableReason.INTERNAL),
        (MemoryError(), UnavailableReason.INTERNAL),
    ],
    ids=repr,
)
@pytest.mark.parametrize("call", ["authenticate", "resume"])
async def test_failures_become_unavailable(call: str, failure: Exception, reason: UnavailableReason) -> None:
    bench = Bench(Challenge("code?", "c"))
    challenge = await bench.login(source=ASKS)
    assert isinstance(challenge, Challenge)
    bench.authority.answer = failure
    if call == "resume":
        told = await bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS)
    else:
        told = await bench.login()
    assert isinstance(told, Unavailable)
    assert told.reason is reason
    assert bench.knows() is None
    assert bool(bench.lines) is (reason is UnavailableReason.INTERNAL)
    assert CANARY not in repr(bench.lines) + repr(told)
    if bench.lines:
        assert str(bench.lines[0][2]["error_id"]) in told.detail


@pytest.mark.parametrize(
    "nonsense", [None, True, "Accepted", 0, Accepted, {"accepted": True}, ALICE.identity, LOOKALIKE], ids=repr
)
async def test_an_answer_that_is_no_decision_is_no_success(nonsense: object) -> None:
    bench = Bench()
    bench.authority.answer = (lambda _name, _secret: nonsense) if callable(nonsense) else nonsense
    told = await bench.login()
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.INTERNAL
    assert bench.knows() is None


async def test_the_deadline_ends_a_login() -> None:
    bench = Bench(deadline_s=0.01)
    bench.authority.is_open.clear()
    told = await bench.login()
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.BACKEND_TIMEOUT
    assert bench.authority.cancelled == 1


async def test_a_success_after_the_deadline_is_none() -> None:
    class Stubborn(Authority):
        async def authenticate(self, *_) -> Decision:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            return ALICE

    gate = Gate(Stubborn(), GateSettings(deadline_s=0.01))
    told = await gate.authenticate(LDAP, "alice", Secret("pw"), HERE)
    assert isinstance(told, Unavailable)
    assert gate.known(LDAP, "alice", b"pw", HERE) is None


async def test_outages_are_bridged_only_if_asked_for_and_only_for_who_was_known() -> None:
    for offline, expected in ((0, Unavailable), (3600, Accepted)):
        bench = Bench(cache={"offline_for_s": offline})
        await bench.login()
        bench.authority.answer = BackendUnavailable("down")
        bench.now += 1000
        assert type(await bench.login()) is expected
        assert isinstance(await bench.login("wrong"), Unavailable)
        assert isinstance(await bench.login(name="bob"), Unavailable)
        assert isinstance(await bench.login(provider=DIRECT), Unavailable)


async def test_an_outage_does_not_bring_back_who_was_revoked() -> None:
    bench = Bench(cache={"offline_for_s": 3600})
    await bench.login()
    bench.gate.publish(Revoked(user_pk=7))
    bench.authority.answer = BackendUnavailable("down")
    assert isinstance(await bench.login(), Unavailable)


async def test_a_server_that_says_no_is_not_an_outage() -> None:
    bench = Bench(cache={"offline_for_s": 3600})
    await bench.login()
    bench.now += 1000
    for no in (WRONG, Unavailable(UnavailableReason.BACKEND_ERROR), Unavailable(UnavailableReason.BUSY)):
        bench.authority.answer = no
        assert await bench.login() == no
        bench.now += 60


# -- guessing -------------------------------------------------------------------------------------


async def test_different_wrong_secrets_are_counted_until_throttled() -> None:
    bench = Bench(WRONG, limiter={"pair": Bucket(5, 0)})
    told = [await bench.login(f"guess {i}") for i in range(20)]
    assert [d.reason for d in told if isinstance(d, Rejected)] == (
        [RejectReason.INVALID_CREDENTIALS] * 5 + [RejectReason.THROTTLED] * 15
    )
    assert bench.questions == 5


async def test_guesses_under_way_count_when_their_turn_comes() -> None:
    bench = Bench(WRONG, limiter={"pair": Bucket(5, 0)}, concurrency=1)
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login(f"guess {i}")) for i in range(20)]
    await turns()
    bench.authority.is_open.set()
    told = await asyncio.gather(*tasks)
    assert sum(d == WRONG for d in told) == 5


async def test_the_same_wrong_secret_waits_and_is_counted_once() -> None:
    bench = Bench(WRONG, limiter={"pair": Bucket(2, 0), "damp_s": 2})
    for _ in range(10):
        assert await bench.login() == WRONG
    assert bench.slept == [2.0] * 9
    assert await bench.login("other") == WRONG, "one token was left"
    assert isinstance(await bench.login("third"), Rejected)
    assert bench.questions == 11


async def test_repetitions_at_the_same_time_cost_one_question() -> None:
    bench = Bench(WRONG)
    await bench.login()
    told = await asyncio.gather(*(bench.login() for _ in range(20)))
    assert told == [WRONG] * 20
    assert bench.questions == 2


async def test_no_refusal_outlives_its_cause() -> None:
    bench = Bench(WRONG)
    await bench.login()
    bench.authority.answer = ALICE
    assert await bench.login() == ALICE


async def test_a_change_of_the_user_ends_the_pause() -> None:
    bench = Bench(WRONG)
    await bench.login()
    bench.gate.publish(Revoked(user_pk=7))
    await bench.login()
    assert bench.slept == []


async def test_the_same_code_again_is_a_new_guess() -> None:
    bench = Bench(Rejected(RejectReason.CODE_INVALID), limiter={"pair": Bucket(3, 0)})
    told = [await bench.login("pw;000000") for _ in range(5)]
    assert [d.reason for d in told if isinstance(d, Rejected)].count(RejectReason.CODE_INVALID) == 3


@pytest.mark.parametrize("reason", [RejectReason.ACCESS_DENIED, RejectReason.CODE_REQUIRED])
async def test_right_credentials_are_no_guess(reason: RejectReason) -> None:
    bench = Bench(Rejected(reason), limiter={"pair": Bucket(2, 0)})
    for i in range(10):
        assert await bench.login(f"pw {i}") == Rejected(reason)


async def test_somebody_known_is_not_throttled_with_the_secret_that_works() -> None:
    bench = Bench(lambda _name, secret: ALICE if secret == b"pw" else WRONG, limiter={"pair": Bucket(2, 0)})
    await bench.login()
    for i in range(10):
        await bench.login(f"guess {i}")
    bench.now += 1000  # too old to be believed, and worth a question
    assert await bench.login() == ALICE


# -- load -----------------------------------------------------------------------------------------


async def test_no_more_than_concurrency_are_asked_about_at_once() -> None:
    bench = Bench(concurrency=3)
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login(name=f"user{i}")) for i in range(10)]
    await turns()
    assert bench.questions == 3
    bench.authority.is_open.set()
    assert await asyncio.gather(*tasks) == [ALICE] * 10


async def test_too_many_pending_are_answered_busy_at_once() -> None:
    bench = Bench(pending=5)
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login(name=f"user{i}")) for i in range(5)]
    await turns()
    told = await bench.login(name="one too many")
    assert told == Unavailable(UnavailableReason.BUSY, "too many logins are pending")
    bench.authority.is_open.set()
    assert await asyncio.gather(*tasks) == [ALICE] * 5
    assert await bench.login(name="one too many") == ALICE


async def test_waiting_too_long_for_a_turn_is_busy() -> None:
    bench = Bench(concurrency=2, queue_timeout_s=0.05)
    bench.authority.is_open.clear()
    first = [asyncio.create_task(bench.login(name=name)) for name in ("first", "second")]
    await turns()
    waiting = asyncio.create_task(bench.login(name="third"))
    await turns()
    bench.gate._decided_at = bench.now + 1.0  # another login was decided meanwhile
    told = await waiting
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.BUSY
    bench.authority.is_open.set()
    assert await asyncio.gather(*first) == [ALICE, ALICE]


async def test_waiting_for_an_authority_that_decides_nothing_is_its_time_out() -> None:
    bench = Bench(concurrency=1, queue_timeout_s=0.01)
    bench.authority.is_open.clear()
    first = asyncio.create_task(bench.login(name="first"))
    await turns()
    told = await bench.login(name="second")
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.BACKEND_TIMEOUT
    bench.authority.is_open.set()
    assert await first == ALICE


async def test_the_turn_of_a_login_that_was_given_up_is_not_waited_out_again() -> None:
    bench = Bench(concurrency=1, queue_timeout_s=60.0)
    bench.authority.is_open.clear()
    first = asyncio.create_task(bench.login(name="first"))
    await turns()
    second = asyncio.create_task(bench.login(name="second"))
    await turns()
    bench.now += 31.0
    bench.authority.answer = Unavailable(UnavailableReason.BACKEND_TIMEOUT)
    bench.authority.is_open.set()
    await first
    told = await second
    assert isinstance(told, Unavailable)
    assert told.reason is UnavailableReason.BACKEND_TIMEOUT
    assert len(bench.authority.asked) == 1


async def test_the_time_in_the_queue_is_part_of_the_one_deadline() -> None:
    """The authority hears what is gone of it, whichever way a login takes; a pause for a repetition is none of it."""
    bench = Bench(concurrency=1)
    challenge = await challenge_of(bench)
    bench.authority.answer = WRONG
    await bench.login("again", "carol")
    bench.authority.answer = ALICE
    bench.authority.is_open.clear()
    first = asyncio.create_task(bench.login(name="first"))
    await turns()
    bench.authority.sources.clear()
    second = asyncio.create_task(bench.login(name="second"))
    third = asyncio.create_task(bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS))
    await turns()
    bench.now += 4.0
    bench.authority.is_open.set()
    assert await asyncio.gather(first, second, third) == [ALICE] * 3
    bench.now -= 3.0
    assert await bench.login("again", "carol") == ALICE
    assert bench.slept
    assert [source.waited_s for source in bench.authority.sources] == [4.0, 4.0, 0.0]


async def test_a_login_that_is_begun_anew_has_no_more_time_than_any() -> None:
    bench = Bench()

    def revoked_meanwhile() -> None:
        bench.authority.during = lambda: None
        bench.now += 3.0
        bench.gate.publish(Revoked(user_pk=7))

    bench.authority.during = revoked_meanwhile
    assert await bench.login() == ALICE
    assert [source.waited_s for source in bench.authority.sources] == [0.0, 3.0]


# -- challenges -----------------------------------------------------------------------------------


async def challenge_of(bench: Bench, **more) -> Challenge:
    bench.authority.answer = Challenge("code?", "inner", **more)
    told = await bench.login(source=ASKS)
    assert isinstance(told, Challenge)
    return told


async def test_a_challenge_is_resumed_once() -> None:
    bench = Bench()
    challenge = await challenge_of(bench)
    assert challenge.prompt == "code?"
    bench.authority.answer = ALICE
    assert await bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS) == ALICE
    assert bench.authority.asked[-1] == ("inner", b"123456")
    again = await bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS)
    assert isinstance(again, Rejected)
    assert bench.questions == 2


async def test_a_resumed_login_is_never_known() -> None:
    bench = Bench()
    challenge = await challenge_of(bench)
    bench.authority.answer = ALICE
    await bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS)
    assert bench.knows() is None
    assert bench.knows("123456") is None


async def test_challenges_follow_each_other() -> None:
    bench = Bench()
    first = await challenge_of(bench)
    bench.authority.answer = Challenge("another?", "inner 2")
    second = await bench.gate.resume(LDAP, first.continuation, Secret("1"), ASKS)
    assert isinstance(second, Challenge)
    bench.authority.answer = ALICE
    assert await bench.gate.resume(LDAP, second.continuation, Secret("2"), ASKS) == ALICE


async def test_two_identical_logins_do_not_share_a_challenge() -> None:
    bench = Bench()
    made: list[Challenge] = []

    def challenge(_name: str, _secret: bytes) -> Decision:
        made.append(Challenge("code?", f"inner {len(made)}"))
        return made[-1]

    bench.authority.answer = challenge
    bench.authority.is_open.clear()
    tasks = [asyncio.create_task(bench.login(source=ASKS)) for _ in range(2)]
    await turns()
    bench.authority.is_open.set()
    await asyncio.gather(*tasks)
    assert len(made) == 2


@pytest.mark.parametrize("forged", [None, "inner", object(), b"", 0])
async def test_a_continuation_that_is_not_ours_is_refused(forged: object) -> None:
    bench = Bench()
    told = await bench.gate.resume(LDAP, forged, Secret("123456"), ASKS)
    assert isinstance(told, Rejected)
    assert bench.questions == 0


@pytest.mark.parametrize("provider", [RADIUS, DIRECT], ids=["radius", "other"])
async def test_a_challenge_belongs_to_its_provider(provider) -> None:
    bench = Bench()
    challenge = await challenge_of(bench)
    bench.authority.answer = ALICE
    told = await bench.gate.resume(provider, challenge.continuation, Secret("123456"), ASKS)
    assert isinstance(told, Rejected)


async def test_a_late_or_empty_answer_is_refused() -> None:
    bench = Bench()
    late = await challenge_of(bench, expires_at=1e9 + bench.now + 60)
    bench.authority.answer = ALICE
    bench.now += 60
    assert isinstance(await bench.gate.resume(LDAP, late.continuation, Secret("123456"), ASKS), Rejected)
    empty = await challenge_of(bench)
    bench.authority.answer = ALICE
    assert isinstance(await bench.gate.resume(LDAP, empty.continuation, Secret(""), ASKS), Rejected)


async def test_a_revocation_between_password_and_code_wins() -> None:
    bench = Bench()
    challenge = await challenge_of(bench)
    bench.gate.publish(Revoked(user_pk=7))
    bench.authority.answer = ALICE
    assert isinstance(await bench.gate.resume(LDAP, challenge.continuation, Secret("123456"), ASKS), Unavailable)


async def test_wrong_codes_are_counted_as_guesses() -> None:
    bench = Bench(limiter={"pair": Bucket(3, 0)})
    reasons = []
    for _ in range(3):
        challenge = await challenge_of(bench)
        bench.authority.answer = Rejected(RejectReason.CODE_INVALID)
        told = await bench.gate.resume(LDAP, challenge.continuation, Secret("000000"), ASKS)
        assert isinstance(told, Rejected)
        reasons.append(told.reason)
    assert reasons == [RejectReason.CODE_INVALID] * 3
    told = await bench.login(source=ASKS)
    assert told == Rejected(RejectReason.THROTTLED, "too many failed logins of this user or from this source")


# -- the end --------------------------------------------------------------------------------------


async def test_stop_ends_what_is_under_way_and_forgets() -> None:
    bench = Bench()
    await bench.login()
    bench.authority.is_open.clear()
    waiting = asyncio.create_task(bench.login(name="bob"))
    await turns()
    await bench.gate.stop()
    assert isinstance(await waiting, Unavailable)
    assert bench.knows() is None
    assert isinstance(await bench.login(), Unavailable)
    await bench.gate.stop()


async def test_a_success_wrung_from_a_stopped_gate_is_none() -> None:
    class Stubborn(Authority):
        async def authenticate(self, *_) -> Decision:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            return ALICE

    gate = Gate(Stubborn())
    waiting = asyncio.create_task(gate.authenticate(LDAP, "alice", Secret("pw"), HERE))
    await turns()
    await gate.stop()
    assert isinstance(await waiting, Unavailable)
    assert gate.known(LDAP, "alice", b"pw", HERE) is None


async def test_counters_and_gauges_tell_what_happened() -> None:
    bench = Bench()
    await bench.login()
    bench.knows()
    await bench.login("")
    counters, gauges = bench.gate.counters(), bench.gate.gauges()
    assert (counters["cache_hits"], counters["cache_misses"], counters["authority_asked"]) == (1, 1, 1)
    assert (gauges["cache_entries"], gauges["revocations_connected"], gauges["logins_pending"]) == (1, 1, 0)
    assert all(isinstance(value, int) for value in (*counters.values(), *gauges.values()))


@pytest.mark.parametrize(
    "bad", [{"concurrency": 0}, {"pending": 0}, {"queue_timeout_s": 0}, {"deadline_s": 0}], ids=str
)
def test_settings_that_cannot_work_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="positive"):
        GateSettings(**bad)
