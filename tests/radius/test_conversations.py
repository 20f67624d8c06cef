import os

from outpost.radius.conversations import ConversationLimits, Conversations

PEER = (1, "127.0.0.1", "alice")


def test_a_state_works_once() -> None:
    talks = Conversations(os.urandom)
    state = talks.open(*PEER, "code", now=0.0)
    assert len(state) == 16
    waiting = talks.take(state, *PEER, now=1.0)
    assert waiting is not None and waiting.continuation == "code"
    assert talks.take(state, *PEER, now=1.0) is None


def test_a_state_is_bound_to_provider_device_and_user_and_spent_by_the_wrong_one() -> None:
    for wrong in ((2, "127.0.0.1", "alice"), (1, "127.0.0.2", "alice"), (1, "127.0.0.1", "bob")):
        talks = Conversations(os.urandom)
        state = talks.open(*PEER, "code", now=0.0)
        assert talks.take(state, *wrong, now=1.0) is None
        assert talks.take(state, *PEER, now=1.0) is None
    assert Conversations(os.urandom).take(b"guess", *PEER, now=0.0) is None


def test_a_state_ends_with_its_time_or_the_backends() -> None:
    talks = Conversations(os.urandom, ConversationLimits(lifetime_s=60))
    late, short = talks.open(*PEER, "a", now=0.0), talks.open(*PEER, "b", now=0.0, lifetime_s=5)
    longer = talks.open(*PEER, "c", now=0.0, lifetime_s=1000)
    assert talks.take(short, *PEER, now=5.0) is None
    assert talks.take(late, *PEER, now=59.0) is not None
    assert talks.take(longer, *PEER, now=60.0) is None
    assert talks.expired == 2


def test_sixty_five_thousand_prompts_are_bounded_expired_and_counted() -> None:
    talks = Conversations(os.urandom, ConversationLimits(pending=1000))
    states = [talks.open(*PEER, n, now=0.0) for n in range(65_536)]
    assert len(talks) == 1000 and talks.opened == 65_536 and talks.expired == 64_536
    assert talks.take(states[0], *PEER, now=1.0) is None
    assert talks.take(states[-1], *PEER, now=1.0) is not None
    talks.expire(1000.0)
    assert len(talks) == 0 and talks.expired == 65_535
