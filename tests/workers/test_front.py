"""A worker's gate: what it believes, for how long, and what becomes of it when the parent falters."""

import asyncio
from dataclasses import replace

import pytest

from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import GateSettings
from outpost.identity import (
    Accepted,
    Challenge,
    Changed,
    Identity,
    Mode,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Revoked,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
)
from outpost.workers import words
from outpost.workers.prompts import Answered, Prompts
from outpost.workers.words import Decided, PasswordDecided, Prompt
from tests.workers.testbed import ANN, HERE, LDAP, RADIUS, bench


async def test_a_login_is_asked_about_once_and_then_known() -> None:
    async with bench() as it:
        task = it.login()
        asked = await it.parent.next()
        assert asked == words.Authenticate(1, "ldap", 1, "ann", Secret("pw"), HERE)
        it.accept(asked.id)
        assert await task == ANN
        assert it.known() == ANN
        assert it.known(b"other") is None and it.known(b"") is None
        assert it.known(provider=RADIUS) is None, "another provider's"
        assert it.front.counters()["cache_hits"] == 1 and it.front.gauges()["cache_entries"] == 1


async def test_it_is_believed_no_longer_than_the_parent_does() -> None:
    async with bench(GateSettings(cache=CacheSettings(refresh_after_s=900.0))) as it:
        task = it.login()
        it.accept((await it.parent.next()).id, age_s=100.0)
        await task
        it.clock.now += 199.0
        assert it.known() == ANN
        it.clock.now += 1.0
        assert it.known() is None, "it was 100 s old when it came"
        task = it.login()
        it.accept((await it.parent.next()).id, lasts_s=10.0)
        await task
        assert it.known() == ANN
        it.clock.now += 10.0
        assert it.known() is None


async def test_what_the_parent_does_not_remember_is_not_remembered_here() -> None:
    async with bench() as it:
        for decision in (ANN, Rejected(RejectReason.INVALID_CREDENTIALS), Unavailable(UnavailableReason.BUSY)):
            task = it.login()
            it.parent.say(Decided((await it.parent.next()).id, decision))
            assert await task == decision
            assert it.known() is None
        direct = replace(LDAP, bind_mode=Mode.DIRECT)
        task = it.login(provider=direct)
        it.accept((await it.parent.next()).id)
        assert await task == ANN and it.known(provider=direct) is None


async def test_a_code_counts_for_its_client_alone() -> None:
    async with bench() as it:
        task = it.login("pw;123456")
        it.accept((await it.parent.next()).id, replace(ANN, used_code=True), lasts_s=10.0)
        await task
        assert it.known(b"pw;123456") is not None
        assert it.known(b"pw;123456", source=Source("ldap", "192.0.2.2")) is None
        it.clock.now += 10.0
        assert it.known(b"pw;123456") is None


async def test_what_is_revoked_refused_or_doubted_is_believed_no_more() -> None:
    async with bench() as it:
        heard: list[Revoked] = []
        unsubscribe = it.front.subscribe(heard.append)

        async def know(password: str = "pw") -> None:
            task = it.login(password)
            it.accept((await it.parent.next()).id)
            await task
            assert it.known(password.encode()) == ANN

        cache = it.front._cache
        for said in (
            words.Revoke(Revoked(user_pk=7)),
            words.Revoke(Revoked(session="s")),
            words.Revoke(Revoked()),
            words.Refused(cache.key("ldap", 1, "ann", b"pw")),
            words.Doubt(7, cache.mark(7, b"new")),
        ):
            await know()
            it.parent.say(said)
            await asyncio.sleep(0.01)
            assert it.known() is None, said
            it.clock.now += 1.0
        assert len(heard) == 3
        unsubscribe()
        await know()
        for harmless in (
            words.Revoke(Revoked(user_pk=8)),
            words.Refused(bytes(16)),
            words.Doubt(7, cache.mark(7, b"pw")),
            words.Doubt(8, bytes(16)),
        ):
            it.parent.say(harmless)
        await asyncio.sleep(0.01)
        assert it.known() == ANN and len(heard) == 3


@pytest.mark.parametrize("revoked", [Revoked(user_pk=7), Revoked(session="s"), Revoked(provider_pk=1), Revoked()])
async def test_a_revocation_right_behind_the_answer_wins(revoked: Revoked) -> None:
    async with bench() as it:
        task = it.login()
        it.accept((await it.parent.next()).id)
        it.parent.say(words.Revoke(revoked))
        assert await task == Unavailable(UnavailableReason.BUSY, "access rights changed during the login")
        assert it.known() is None
        for make in (
            lambda: it.front.vouch(LDAP, "ann", HERE),
            lambda: it.front.resume(RADIUS, Answered(bytes(16), "ann"), Secret("1"), HERE),
        ):
            task = asyncio.create_task(make())
            it.parent.say(Decided((await it.parent.next()).id, ANN))
            it.parent.say(words.Revoke(replace(revoked, service=None)))
            assert isinstance(await task, Unavailable)
        # One before the answer, or of somebody else, does not concern it.
        task = it.login()
        identifier = (await it.parent.next()).id
        it.parent.say(words.Revoke(revoked))
        it.accept(identifier)
        it.parent.say(words.Revoke(Revoked(user_pk=8)))
        assert await task == ANN


async def test_while_revocations_may_be_missed_only_the_young_are_believed() -> None:
    async with bench() as it:
        it.front.set_state(trusted_since=float("inf"), can_change_passwords=False)
        task = it.login()
        it.accept((await it.parent.next()).id)
        await task
        it.clock.now += 29.0
        assert it.known() == ANN
        it.clock.now += 1.0
        assert it.known() is None
        # What was verified before they arrived again is as young as before.
        it.front.set_state(trusted_since=it.clock(), can_change_passwords=False)
        assert it.known() is None
        task = it.login()
        it.accept((await it.parent.next()).id)
        await task
        it.clock.now += 200.0
        assert it.known() == ANN
        it.front.set_state(trusted_since=it.clock(), can_change_passwords=False)
        assert it.known() is None, "they ceased in between"


async def test_an_old_one_is_renewed_behind_its_answer() -> None:
    settings = GateSettings(cache=CacheSettings(refresh_after_s=60.0))
    async with bench(settings) as it:
        task = it.login()
        it.accept((await it.parent.next()).id)
        await task
        it.clock.now += 60.0
        assert it.known() == ANN == it.known()
        asked = await it.parent.next()
        assert isinstance(asked, words.Authenticate) and it.parent.heard.empty(), "one question for both hits"
        it.accept(asked.id, age_s=60.0)
        await asyncio.sleep(0.01)
        it.clock.now += 10.0
        assert it.known() == ANN
        await asyncio.sleep(0.01)
        assert it.parent.heard.empty(), "the parent is not asked at every hit"
        it.clock.now += 10.0
        assert it.known() == ANN
        it.accept((await it.parent.next()).id, age_s=1.0)
        await asyncio.sleep(0.01)
        it.clock.now += 250.0
        assert it.known() == ANN, "the news count"


async def test_prompts_are_the_parents() -> None:
    async with bench() as it:
        task = it.login(provider=RADIUS)
        attributes = ReplyAttributes((("Reply-Message", "code"),))
        it.parent.say(Decided((await it.parent.next()).id, Prompt("Code?", bytes(range(16)), attributes)))
        challenge = await task
        assert challenge == Challenge("Code?", bytes(range(16)), attributes=attributes)
        prompts = Prompts()
        state = prompts.open(1, "192.0.2.1", "ann", challenge.continuation, now=0.0)
        assert state == bytes(range(16)) and prompts.opened == 1
        with pytest.raises(TypeError):
            prompts.open(1, "192.0.2.1", "ann", b"", now=0.0)
        for wrong in (b"", bytes(15), bytes(17)):
            assert prompts.take(wrong, 1, "192.0.2.1", "ann", now=0.0) is None
        waiting = prompts.take(state, 1, "192.0.2.1", "ann", now=0.0)
        assert waiting is not None
        task = asyncio.create_task(it.front.resume(RADIUS, waiting.continuation, Secret("123456"), HERE))
        asked = await it.parent.next()
        assert asked == words.Resume(2, 1, "ann", state, Secret("123456"), HERE)
        it.parent.say(Decided(asked.id, ANN))
        assert await task == ANN
        assert isinstance(await it.front.resume(RADIUS, object(), Secret("1"), HERE), Rejected)


async def test_passwords_are_changed_by_the_parent() -> None:
    async with bench() as it:
        assert it.front.can_change_passwords()
        identity = Identity(7, "ann", can_search=False)
        task = asyncio.create_task(it.front.change_password(LDAP, identity, Secret("old"), Secret("new"), HERE))
        asked = await it.parent.next()
        assert asked == words.ChangePassword(1, 1, identity, Secret("old"), Secret("new"), HERE)
        it.parent.say(PasswordDecided(asked.id, Changed()))
        assert await task == Changed()
        it.parent.channel.close()
        lost = await it.front.change_password(LDAP, identity, Secret("old"), Secret("new"), HERE)
        assert lost == Unavailable(UnavailableReason.BACKEND_DOWN, "the parent process is gone")


async def test_an_empty_password_is_refused_without_asking() -> None:
    async with bench() as it:
        assert await it.login("") == Rejected(RejectReason.EMPTY_PASSWORD, "the password is empty")
        assert it.parent.heard.empty()


# -- fail closed ------------------------------------------------------------------------------------


async def test_without_its_parent_nobody_logs_in() -> None:
    async with bench() as it:
        task = it.login()
        await it.parent.next()
        it.parent.channel.close()
        down = Unavailable(UnavailableReason.BACKEND_DOWN, "the parent process is gone")
        assert await task == down and await it.login() == down and it.lost == [""]


async def test_a_late_answer_is_none_and_counts_for_nothing() -> None:
    async with bench(timeout_s=0.05) as it:
        task = it.login()
        asked = await it.parent.next()
        decision = await task
        assert isinstance(decision, Unavailable) and decision.reason is UnavailableReason.BACKEND_TIMEOUT
        assert await it.parent.next() == words.Cancel(asked.id)
        it.accept(asked.id)
        await asyncio.sleep(0.01)
        assert it.known() is None and it.lost == []


async def test_who_goes_away_takes_his_question_back() -> None:
    async with bench() as it:
        task = it.login()
        asked = await it.parent.next()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await it.parent.next() == words.Cancel(asked.id)
        assert len(it.calls) == 0


async def test_too_many_questions_are_busy() -> None:
    async with bench(most=3) as it:
        tasks = [it.login(f"pw{n}") for n in range(3)]
        for _ in tasks:
            await it.parent.next()
        decision = await it.login("one more")
        assert isinstance(decision, Unavailable) and decision.reason is UnavailableReason.BUSY
        for n, task in enumerate(tasks, 1):
            it.accept(n)
            assert await task == ANN


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{}",
        b'["Decided",1]',
        b'["Accepted",[7,"ann",true,"s"],null,[[],""],false]',
        b'["Decided",1,["Accepted",[7,"ann",1,"s"],null,[[],""],false],null]',
        b'["Decided",1,["Accepted"],null]',
        b'["Decided",1,true,null]',
        b'["PasswordDecided",1,["Changed"]]',
        b'["Found",1,""]',
        b'["Configure"]',
        b"\xff\x00",
    ],
    ids=repr,
)
async def test_no_malformed_answer_is_a_success(octets: bytes) -> None:
    async with bench() as it:
        task = it.login()
        await it.parent.next()
        it.parent.channel.post(octets)
        assert isinstance(await task, Unavailable)
        assert it.known() is None
        await asyncio.sleep(0.01)
        assert len(it.lost) == 1, "the channel is closed"
        assert isinstance(await it.login(), Unavailable)


async def test_answers_go_to_whom_they_belong() -> None:
    async with bench() as it:
        first, second = it.login("one"), it.login("two")
        questions = [await it.parent.next(), await it.parent.next()]
        one, two = sorted(questions, key=lambda asked: asked.secret.reveal())
        it.parent.say(Decided(999, ANN))
        it.parent.say(Decided(two.id, Accepted(Identity(8, "two", can_search=False))))
        it.parent.say(Decided(two.id, ANN))
        it.parent.say(Decided(one.id, Rejected(RejectReason.INVALID_CREDENTIALS)))
        assert (await second).identity.username == "two"
        assert await first == Rejected(RejectReason.INVALID_CREDENTIALS)
