"""Replies kept for retransmissions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.radius._intake import Replies


def test_replies_are_for_the_same_octets_and_their_time() -> None:
    replies = Replies(10, 1000, 5.0)
    replies.keep(b"key", b"request", b"reply", 0.0)
    assert replies.find(b"key", b"request", 4.9) == b"reply" and replies.find(b"yek", b"request", 0.0) is None
    assert replies.find(b"key", b"another", 1.0) is None and len(replies) == 0
    replies.keep(b"key", b"request", b"reply", 0.0)
    assert replies.next_deadline() == 5.0 and replies.find(b"key", b"request", 5.0) is None
    assert len(replies) == 0 and replies.next_deadline() is None


def test_replies_are_bounded_by_number_and_octets() -> None:
    replies = Replies(10, 1000, 50.0)
    for number in range(20):
        replies.keep(b"%d" % number, b"request", b"reply", float(number))
    assert len(replies) == 10 and replies.find(b"9", b"request", 0.0) is None and replies.next_deadline() == 60.0
    replies.expire(61.0)
    assert len(replies) == 8 and replies.find(b"19", b"request", 61.0) == b"reply"
    for number in range(20):
        replies.keep(b"same", b"request", bytes(200), float(number))
    assert len(replies) == 9 and replies.find(b"same", b"request", 19.0) == bytes(200)
    replies.expire(100.0)
    for number in range(100):
        replies.keep(b"%d" % number, bytes(50), bytes(50), 100.0)
        assert len(replies) <= 10
    with pytest.raises(ValueError, match="positive"):
        Replies(0, 1, 1.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["keep", "find", "expire"]), st.integers(0, 9), st.integers(0, 2), st.integers(0, 4)),
        max_size=200,
    )
)
def test_replies_are_those_of_a_plain_dictionary(steps: list[tuple[str, int, int, int]]) -> None:
    replies, plain, now = Replies(100, 10_000, 5.0), {}, 0.0
    for what, number, content, later in steps:
        now += later
        key, request = b"%d" % number, b"%d" % content
        if what == "keep":
            replies.keep(key, request, b"%f" % now, now)
            plain[key] = (request, b"%f" % now, now + 5.0)
        elif what == "expire":
            replies.expire(now)
            plain = {key: one for key, one in plain.items() if now < one[2]}
            assert len(replies) == len(plain)
            assert replies.next_deadline() == min((one[2] for one in plain.values()), default=None)
        else:
            known = plain.get(key)
            is_it = known is not None and known[0] == request and now < known[2]
            assert replies.find(key, request, now) == (known[1] if known and is_it else None)
            if not is_it:
                plain.pop(key, None)
    for _ in range(1000):
        replies.keep(b"same", b"x", b"y", now)
    assert len(replies) <= 11
