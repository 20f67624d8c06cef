"""When a login that was proven is believed again, and when no more."""

import pytest

from outpost.credentials.cache import ENTRY_COST, CacheSettings, CredentialsCache, Index
from outpost.identity import (
    Accepted,
    Challenge,
    Identity,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Revoked,
    Unavailable,
    UnavailableReason,
)

KEY = bytes(range(32))
HERE, THERE = "192.0.2.1", "198.51.100.7"
EPOCH = 1_700_000_000.0


class Bench:
    """A cache that hears of revocations, and a clock."""

    def __init__(self, **settings) -> None:
        self.cache = CredentialsCache(CacheSettings(**settings), KEY)
        self.now = 1000.0
        self.cache.set_connected(True, 0.0)

    def key(self, name: str = "alice", secret: str = "pw", service: str = "ldap", provider: int = 1) -> bytes:
        return self.cache.key(service, provider, name, secret.encode())

    def put(self, name: str = "alice", secret: str = "pw", *, pk: int = 7, service: str = "ldap", **more) -> bool:
        provider = more.pop("provider", 1)
        accepted = Accepted(
            Identity(pk, name, True, more.pop("session", None)),
            expires_at=more.pop("expires_at", None),
            used_code=more.pop("used_code", False),
            attributes=more.pop("attributes", ReplyAttributes()),
        )
        given = {
            "service": service,
            "provider_pk": provider,
            "address": HERE,
            "mark": self.cache.mark(pk, secret.encode()),
            "asked_at": self.now,
            "revision": self.cache.revision,
            "now": self.now,
            "epoch": EPOCH,
        }
        return self.cache.put(self.key(name, secret, service, provider), accepted, **{**given, **more})

    def has(self, name: str = "alice", secret: str = "pw", *, address: str = HERE, **more) -> bool:
        return self.cache.get(self.key(name, secret, **more), self.now, address) is not None


def test_what_was_put_is_found_and_nothing_else() -> None:
    bench = Bench()
    assert not bench.has()
    assert bench.put()
    assert bench.has()
    assert not bench.has(secret="PW")
    assert not bench.has(secret="pw\0")
    assert not bench.has(secret="")
    assert not bench.has("bob")
    assert not bench.has(provider=2)
    assert not bench.has(service="radius")
    assert (bench.cache.hits, bench.cache.misses) == (1, 7)


def test_a_hit_is_the_very_decision() -> None:
    bench = Bench()
    bench.put()
    entry = bench.cache.get(bench.key(), bench.now, THERE)
    assert entry is not None
    assert entry.accepted == Accepted(Identity(7, "alice", True))


@pytest.mark.parametrize(
    "no_success",
    [
        Rejected(RejectReason.INVALID_CREDENTIALS),
        Challenge("code?", object()),
        Unavailable(UnavailableReason.BACKEND_DOWN),
        None,
        True,
    ],
)
def test_only_accepted_is_remembered(no_success) -> None:
    bench = Bench()
    with pytest.raises(TypeError):
        bench.cache.put(
            bench.key(),
            no_success,
            service="ldap",
            provider_pk=1,
            address=HERE,
            mark=b"",
            asked_at=0,
            revision=0,
            now=0,
            epoch=0,
        )
    assert len(bench.cache) == 0


@pytest.mark.parametrize("spelling", ["ALICE", " alice ", "Alice"])
def test_names_are_compared_as_the_server_does(spelling: str) -> None:
    bench = Bench()
    bench.put("alice")
    assert bench.has(spelling)


@pytest.mark.parametrize(("one", "other"), [("ß", "ss"), ("İ", "i"), ("ａ", "a"), ("a b", "ab"), ("É", "é")])
def test_names_that_the_server_may_tell_apart_are(one: str, other: str) -> None:
    bench = Bench()
    bench.put(one)
    assert not bench.has(other)


def test_no_two_logins_have_one_key() -> None:
    cache = Bench().cache
    keys = {
        cache.key(service, provider, name, secret)
        for service in ("ldap", "radius")
        for provider in (0, 1, 256)
        for name in ("", "a", "ab", "a\0", "abc", "\ud800")
        for secret in (b"", b"b", b"c", b"bc", b"\0", b"abc")
    }
    assert len(keys) == 2 * 3 * 6 * 6
    assert all(len(key) == 16 for key in keys)
    assert cache.mark(0, b"b") not in keys


def test_keys_depend_on_the_key_of_the_process() -> None:
    other = CredentialsCache(CacheSettings(), KEY[::-1])
    assert other.key("ldap", 1, "alice", b"pw") != Bench().key()
    with pytest.raises(ValueError, match="hash key"):
        CredentialsCache(CacheSettings(), b"short")


# -- age ------------------------------------------------------------------------------------------


def test_believed_for_max_age_and_no_longer() -> None:
    bench = Bench(max_age_s=300)
    bench.put()
    bench.now += 299.9
    assert bench.has()
    bench.now += 0.1
    assert not bench.has()


def test_age_counts_from_the_question_not_from_the_answer() -> None:
    bench = Bench(max_age_s=300)
    bench.put(asked_at=bench.now - 100)
    bench.now += 200
    assert not bench.has()


def test_the_sessions_end_comes_first() -> None:
    bench = Bench(max_age_s=300)
    bench.put(expires_at=EPOCH + 60)
    bench.now += 59.9
    assert bench.has()
    bench.now += 0.1
    assert not bench.has()


def test_a_session_that_has_ended_is_not_remembered() -> None:
    bench = Bench()
    assert not bench.put(expires_at=EPOCH)
    assert not bench.put(expires_at=EPOCH - 1)
    assert len(bench.cache) == 0


def test_max_age_zero_switches_it_off() -> None:
    bench = Bench(max_age_s=0)
    assert not bench.put()
    assert not bench.has()


def test_an_older_hit_asks_to_be_verified() -> None:
    bench = Bench(max_age_s=300, refresh_after_s=240)
    bench.put()
    entry = bench.cache.get(bench.key(), bench.now, HERE)
    assert entry is not None
    assert entry.refresh_at == bench.now + 240


# -- without the event channel --------------------------------------------------------------------


def test_without_events_everything_is_believed_briefly() -> None:
    bench = Bench(max_age_disconnected_s=30)
    bench.put()
    bench.now += 20
    bench.cache.set_connected(False, bench.now)
    assert bench.has()
    bench.now += 10
    assert not bench.has()


def test_a_cache_that_was_never_told_is_disconnected() -> None:
    cache = CredentialsCache(CacheSettings(), KEY)
    assert not cache.is_connected


def test_what_was_verified_before_events_came_back_stays_doubtful() -> None:
    bench = Bench(max_age_disconnected_s=30)
    bench.cache.set_connected(False, bench.now)
    bench.put()
    bench.now += 10
    bench.cache.set_connected(True, bench.now)
    bench.put("bob", pk=8)
    bench.now += 29
    assert not bench.has()
    assert bench.has("bob")


def test_saying_connected_twice_moves_nothing() -> None:
    bench = Bench(max_age_disconnected_s=30)
    bench.put()
    bench.now += 100
    bench.cache.set_connected(True, bench.now)
    assert bench.has()


# -- one-time codes -------------------------------------------------------------------------------


def test_a_code_is_repeatable_by_the_same_client_within_the_burst() -> None:
    bench = Bench(code_burst_s=10)
    bench.put(secret="pw;123456", used_code=True)
    assert bench.has(secret="pw;123456")
    assert not bench.has(secret="pw;123456", address=THERE)
    assert not bench.cache.remembers(bench.key(secret="pw;123456"))
    bench.now += 10
    assert not bench.has(secret="pw;123456")


def test_code_burst_zero_never_repeats_a_code() -> None:
    bench = Bench(code_burst_s=0)
    assert not bench.put(secret="pw;123456", used_code=True)


def test_a_code_never_helps_through_an_outage() -> None:
    bench = Bench(offline_for_s=3600)
    bench.put(secret="pw;123456", used_code=True)
    assert bench.cache.offline(bench.key(secret="pw;123456"), bench.now) is None


# -- outages --------------------------------------------------------------------------------------


def test_outages_are_not_bridged_unless_asked_for() -> None:
    bench = Bench()
    bench.put()
    assert bench.cache.offline(bench.key(), bench.now) is None


def test_outages_are_bridged_for_as_long_as_asked() -> None:
    bench = Bench(max_age_s=300, offline_for_s=3600)
    bench.put()
    bench.put("bob", pk=8, expires_at=EPOCH + 600)
    bench.now += 599
    assert not bench.has()
    assert bench.cache.offline(bench.key(), bench.now) is not None
    assert bench.cache.offline(bench.key("bob"), bench.now) is not None
    bench.now += 2
    assert bench.cache.offline(bench.key("bob"), bench.now) is None, "his session is over"
    bench.now += 3000
    assert bench.cache.offline(bench.key(), bench.now) is None


# -- revocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revoked", "survivors"),
    [
        (Revoked(), set()),
        (Revoked(user_pk=7), {"bob", "carol"}),
        (Revoked(session="s-bob"), {"alice", "carol"}),
        (Revoked(provider_pk=2), {"alice"}),
        (Revoked(provider_pk=2, service="ldap"), {"alice", "carol"}),
        (Revoked(provider_pk=2, service="radius"), {"alice", "bob"}),
        (Revoked(service="ldap"), {"carol"}),
        (Revoked(user_pk=7, session="s-bob"), {"carol"}),
        (Revoked(user_pk=999), {"alice", "bob", "carol"}),
        (Revoked(session="s"), {"alice", "bob", "carol"}),
    ],
)
def test_revoked_forgets_whom_it_names(revoked: Revoked, survivors: set[str]) -> None:
    bench = Bench(offline_for_s=3600)
    logins = [("alice", 7, "ldap", 1), ("bob", 8, "ldap", 2), ("carol", 9, "radius", 2)]
    for name, pk, service, provider in logins:
        assert bench.put(name, pk=pk, service=service, provider=provider, session=f"s-{name}")
    assert bench.cache.revoke(revoked) == 3 - len(survivors)
    for name, _, service, provider in logins:
        assert bench.has(name, service=service, provider=provider) is (name in survivors)
        known = bench.cache.offline(bench.key(name, "pw", service, provider), bench.now)
        assert (known is not None) is (name in survivors)


def test_a_revocation_during_the_login_wins() -> None:
    bench = Bench()
    revision = bench.cache.revision
    bench.cache.revoke(Revoked(user_pk=7))
    assert not bench.put(pk=7, revision=revision)
    assert bench.put("bob", pk=8, revision=revision), "another user's revocation is not his"
    assert bench.put(pk=7), "asked after it"


def test_a_login_older_than_the_memory_of_revocations_counts_as_revoked() -> None:
    bench = Bench()
    revision = bench.cache.revision
    for _ in range(1024):
        bench.cache.revoke(Revoked(user_pk=99))
    assert bench.put(revision=revision)
    bench.cache.revoke(Revoked(user_pk=99))
    assert bench.put("bob", pk=8, revision=revision + 1)
    assert not bench.put("carol", pk=9, revision=revision)


# -- doubt ----------------------------------------------------------------------------------------


def test_a_new_secret_puts_the_old_one_in_doubt() -> None:
    bench = Bench(offline_for_s=3600)
    bench.put(secret="old")
    bench.now += 1
    bench.put(secret="new")
    assert not bench.has(secret="old")
    assert bench.cache.offline(bench.key(secret="old"), bench.now) is None
    assert bench.has(secret="new")


def test_two_good_secrets_settle() -> None:
    bench = Bench()
    bench.put(secret="password")
    bench.now += 1
    bench.put(secret="app-password")
    bench.now += 1
    bench.put(secret="password")
    assert bench.has(secret="password")
    assert bench.has(secret="app-password")


def test_the_same_secret_at_another_provider_is_no_news() -> None:
    bench = Bench()
    bench.put()
    bench.now += 1
    bench.put(provider=2, service="radius")
    assert bench.has()


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    bench = Bench()
    bench.put(secret="new")
    assert not bench.put(secret="old", asked_at=bench.now - 5)
    assert bench.has(secret="new")
    assert not bench.has(secret="old")


def test_a_refusal_forgets() -> None:
    bench = Bench()
    bench.put()
    assert bench.cache.discard(bench.key())
    assert not bench.cache.discard(bench.key())
    assert not bench.has()


# -- room -----------------------------------------------------------------------------------------


def test_least_recently_used_goes_first() -> None:
    bench = Bench(max_entries=3)
    for i, name in enumerate("abc"):
        bench.put(name, pk=i)
    assert bench.has("a")
    bench.put("d", pk=10)
    assert [bench.has(name) for name in "abcd"] == [True, False, True, True]
    assert bench.cache.evicted == 1


def test_bytes_are_bounded_too() -> None:
    bench = Bench(max_bytes=10 * (ENTRY_COST + 40))
    for i in range(100):
        bench.put(f"user{i}", pk=i)
    assert len(bench.cache) == 10
    assert bench.cache.bytes_used <= 10 * (ENTRY_COST + 40)


def test_what_is_bigger_than_the_cache_is_not_put() -> None:
    bench = Bench(max_bytes=10_000)
    bench.put("bob", pk=8)
    assert not bench.put(attributes=ReplyAttributes(packet=bytes(20_000)))
    assert bench.has("bob")


def test_nothing_is_left_when_all_are_gone() -> None:
    bench = Bench()
    for i in range(20):
        bench.put(f"u{i}", pk=i % 5, provider=i % 3, session=f"s{i % 4}", secret="same")
    bench.cache.clear()
    assert (len(bench.cache), bench.cache.bytes_used) == (0, 0)
    assert not list(bench.cache._by_user)
    assert not list(bench.cache._by_session)
    assert not list(bench.cache._by_owner)


@pytest.mark.parametrize("name", CacheSettings.__slots__)
def test_negative_settings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        CacheSettings(**{name: -1})


def test_no_secret_is_kept_or_shown() -> None:
    bench = Bench()
    bench.put(secret="canary-5f2b")
    entry = bench.cache.get(bench.key(secret="canary-5f2b"), bench.now, HERE)
    shown = repr([getattr(entry, name) for name in dir(entry) if not name.startswith("__")]) + repr(vars(bench.cache))
    assert "canary" not in shown


def test_index_holds_one_or_many() -> None:
    index: Index[int] = Index()
    assert index.get(1) == ()
    index.add(1, b"a")
    index.add(1, b"a")
    assert index.get(1) == (b"a",)
    index.add(1, b"b")
    index.discard(1, b"x")
    assert set(index.get(1)) == {b"a", b"b"}
    index.discard(1, b"a")
    index.discard(1, b"b")
    index.discard(1, b"b")
    assert len(index) == 0
