"""Failures cost tokens, successes never do; nobody is locked out everywhere by a stranger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.credentials.limiter import Bucket, Damper, Limiter, LimiterSettings, counted_name, counted_source

KEY = bytes(range(32))
HERE, THERE = "192.0.2.1", "198.51.100.7"


def limiter(**settings) -> Limiter:
    return Limiter(LimiterSettings(**settings), KEY)


def failures_until_refused(limiter: Limiter, service: str, user: str, address: str, now: float, at_most: int) -> int:
    attempt = limiter.attempt(service, user, address)
    for i in range(at_most):
        if not limiter.admits(attempt, now):
            return i
        limiter.failed(attempt, now)
    return at_most


def test_a_pair_gets_its_burst_and_then_its_refill() -> None:
    subject = limiter(pair=Bucket(burst=10, refill_per_s=1 / 15))
    assert failures_until_refused(subject, "ldap", "alice", HERE, 0.0, 100) == 10
    attempt = subject.attempt("ldap", "alice", HERE)
    assert not subject.admits(attempt, 14.9)
    assert subject.admits(attempt, 15.1)
    subject.failed(attempt, 15.1)
    assert not subject.admits(attempt, 15.2)


def test_success_costs_nothing_however_often() -> None:
    subject = limiter()
    attempt = subject.attempt("ldap", "alice", HERE)
    for _ in range(10_000):
        assert subject.admits(attempt, 0.0)
        subject.succeeded(attempt, 0.0)


def test_success_forgives_no_failure() -> None:
    subject = limiter(pair=Bucket(burst=3, refill_per_s=0))
    attempt = subject.attempt("ldap", "alice", HERE)
    for _ in range(3):
        subject.failed(attempt, 0.0)
        subject.succeeded(attempt, 0.0)
    assert not subject.admits(attempt, 0.0)


def test_one_password_on_many_accounts_is_slowed_by_the_source() -> None:
    subject = limiter(source=Bucket(burst=20, refill_per_s=0))
    tried = sum(failures_until_refused(subject, "ldap", f"user{i}", HERE, 0.0, 1) for i in range(100))
    assert tried == 20
    assert subject.admits(subject.attempt("ldap", "user1", THERE), 0.0)


def test_one_account_from_many_places_is_slowed_by_the_user() -> None:
    subject = limiter(user=Bucket(burst=20, refill_per_s=0))
    tried = sum(failures_until_refused(subject, "ldap", "alice", f"192.0.2.{i}", 0.0, 1) for i in range(100))
    assert tried == 20
    assert subject.admits(subject.attempt("ldap", "bob", "192.0.2.1"), 0.0)


def test_strangers_cannot_lock_a_user_out_of_his_usual_place() -> None:
    subject = limiter(user=Bucket(burst=20, refill_per_s=0, reserve=10), known_for_s=3600)
    home = subject.attempt("ldap", "alice", HERE)
    subject.succeeded(home, 0.0)
    tried = sum(failures_until_refused(subject, "ldap", "alice", f"198.51.100.{i}", 1.0, 1) for i in range(100))
    assert tried == 10
    assert subject.admits(home, 1.0)
    assert not subject.admits(home, 3600.0), "the place is usual no more"


def test_the_usual_place_is_no_licence_to_guess() -> None:
    subject = limiter(pair=Bucket(burst=5, refill_per_s=0))
    subject.succeeded(subject.attempt("ldap", "alice", HERE), 0.0)
    assert failures_until_refused(subject, "ldap", "alice", HERE, 0.0, 100) == 5


@pytest.mark.parametrize("spelling", ["ALICE", " alice", "al ice", "ａｌｉｃｅ", "Alice\u3000"])
def test_another_spelling_is_no_new_counter(spelling: str) -> None:
    subject = limiter()
    assert subject.attempt("ldap", spelling, HERE) == subject.attempt("ldap", "alice", HERE)


def test_services_and_users_have_their_own_counters() -> None:
    subject = limiter()
    one = subject.attempt("ldap", "alice", HERE)
    assert subject.attempt("radius", "alice", HERE).pair != one.pair
    assert subject.attempt("ldap", "bob", HERE).pair != one.pair
    assert subject.attempt("ldap", "alice", THERE).pair != one.pair
    assert subject.attempt("radius", "bob", HERE).source == one.source


def test_boundaries_between_parts_cannot_be_moved() -> None:
    subject = limiter()
    assert subject.attempt("ldap", "ab", "c").pair != subject.attempt("ldap", "a", "bc").pair


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
        ("", ""),
    ],
)
def test_a_source_is_a_host_or_a_64(address: str, counted: str) -> None:
    assert counted_source(address) == counted


def test_switched_off_it_admits_everything() -> None:
    assert failures_until_refused(limiter(enabled=False), "ldap", "alice", HERE, 0.0, 1000) == 1000


def test_the_tables_are_bounded() -> None:
    subject = limiter(max_entries=50)
    for i in range(500):
        subject.failed(subject.attempt("ldap", f"u{i}", f"10.0.{i // 250}.{i % 250}"), float(i))
    assert subject.rows == 150


@pytest.mark.parametrize("bad", [{"burst": 1, "reserve": 1}, {"burst": 1, "reserve": -1}, {"burst": 0}])
def test_a_bucket_that_cannot_work_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="burst"):
        Bucket(**{"refill_per_s": 1.0, **bad})


@pytest.mark.parametrize(
    "bad", [{"damp_s": -1.0}, {"known_for_s": -1.0}, {"repeat_memory_s": -1.0}, {"max_entries": 0}]
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limiter"):
        LimiterSettings(**bad)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_folding_a_name_twice_changes_nothing(name: str) -> None:
    once = counted_name(name)
    assert counted_name(f" {name} ") == once
    assert not any(c.isspace() for c in once)


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=150)
)
def test_no_schedule_of_failures_gets_more_than_the_arithmetic_promises(steps) -> None:
    """burst + refill * T per bucket, whatever the order, with clocks that also stand still."""
    settings = LimiterSettings(
        pair=Bucket(4, 0.1), source=Bucket(8, 0.2, reserve=2), user=Bucket(6, 0.15, reserve=2), known_for_s=20
    )
    subject = Limiter(settings, KEY)
    now = 0.0
    let_through: dict[tuple[str, object], int] = {}
    for pause, user, place, is_right in steps:
        now += pause
        attempt = subject.attempt("ldap", f"u{user}", f"10.0.0.{place}")
        if not subject.admits(attempt, now):
            continue
        if is_right:
            subject.succeeded(attempt, now)
            continue
        subject.failed(attempt, now)
        for name in (("pair", (user, place)), ("source", place), ("user", user)):
            let_through[name] = let_through.get(name, 0) + 1
    for (kind, _), count in let_through.items():
        bucket: Bucket = getattr(settings, kind)
        assert count <= bucket.burst + bucket.refill_per_s * now + 1e-6


def test_a_clock_that_steps_back_refills_nothing_twice() -> None:
    subject = limiter(pair=Bucket(burst=10, refill_per_s=1.0))
    attempt = subject.attempt("ldap", "alice", HERE)
    for _ in range(10):
        subject.failed(attempt, 100.0)
    subject.failed(attempt, 0.0)
    assert not subject.admits(attempt, 100.0)


# -- damping --------------------------------------------------------------------------------------


def test_a_repeated_refusal_waits_and_is_no_new_guess() -> None:
    damper = Damper(LimiterSettings(damp_s=2, repeat_memory_s=600))
    assert damper.pause(b"k", 0.0) == 0.0
    assert damper.refused(b"k", 0.0)
    assert damper.pause(b"k", 0.5) == 1.5
    assert damper.pause(b"k", 2.0) == 0.0
    assert not damper.refused(b"k", 2.0)
    assert damper.refused(b"k", 602.0), "long ago is new again"
    assert damper.refused(b"other", 2.0)


def test_a_pause_is_never_longer_than_the_setting_when_the_clock_steps_back() -> None:
    damper = Damper(LimiterSettings(damp_s=2))
    damper.refused(b"k", 1000.0)
    assert damper.pause(b"k", 10.0) == 2.0


def test_success_and_change_end_the_pause() -> None:
    damper = Damper(LimiterSettings())
    damper.refused(b"a", 0.0)
    damper.refused(b"b", 0.0)
    damper.forget(b"a")
    assert (damper.pause(b"a", 0.0), damper.pause(b"b", 0.0)) == (0.0, 2.0)
    damper.clear()
    assert (damper.pause(b"b", 0.0), len(damper)) == (0.0, 0)


def test_the_damper_is_bounded() -> None:
    damper = Damper(LimiterSettings(max_entries=10))
    for i in range(100):
        damper.refused(i.to_bytes(2, "big"), 0.0)
    assert len(damper) == 10
