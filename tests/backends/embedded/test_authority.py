"""Logins against a directory by hand: what is accepted, and everything that must be refused."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from outpost.backends.embedded.authority import CHALLENGE_S, EmbeddedAuthority
from outpost.backends.embedded.model import AppPassword, Binding, TotpDevice
from outpost.backends.embedded.pool import VerifyPool
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Secret,
    Served,
    Unavailable,
    UnavailableReason,
)
from tests.backends.embedded.people import (
    CLIENT,
    DEVICE,
    KEY,
    LDAP,
    NO_CODES,
    NOON,
    RADIUS,
    SUFFIX,
    TOTP,
    account,
    applications,
    code,
    desk,
    directory,
    hashed,
    plain,
)

WRONG = RejectReason.INVALID_CREDENTIALS
HASHED = hashed("pw-ann")


def reason(decision: Decision) -> object:
    assert isinstance(decision, Rejected | Unavailable), decision
    return decision.reason


def accepted(decision: Decision) -> Accepted:
    assert isinstance(decision, Accepted), decision
    return decision


# -- passwords ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [hashed, plain])
async def test_the_right_password_and_nothing_else(make) -> None:
    with desk(account(7, "Ann", make("pw-ann")), account(8, "bob", make("pw-bob"))) as it:
        assert accepted(await it.ldap("ann", "pw-ann")).identity == accepted(await it.ldap("ANN", "pw-ann")).identity
        found = accepted(await it.ldap(" Ann@Example.org ", "pw-ann"))
        assert (found.identity.user_pk, found.identity.username, found.used_code) == (7, "Ann", False)
        for username, secret in (
            ("ann", "pw-bob"),
            ("ann", "pw-ann "),
            ("ann", "pw-an"),
            ("ann", "pw-ann\0"),
            ("ann", "PW-ANN"),
            ("", "pw-ann"),
            ("ann\0", "pw-ann"),
            ("carl", "pw-ann"),
            ("\ud800", "pw-ann"),
        ):
            assert reason(await it.ldap(username, secret)) == WRONG, (username, secret)


@pytest.mark.parametrize("make", [hashed, plain])
@pytest.mark.parametrize("octets", [b"a\0b", b"\xff\xfe", "pässword".encode(), b";", b"x;123456"])
async def test_passwords_are_octets(make, octets) -> None:
    with desk(account(7, "ann", make(octets))) as it:
        accepted(await it.ldap("ann", octets))
        for other in (octets[:-1] or b"-", octets + b"\0", octets.replace(b"\0", b"")[:-1] or b"-"):
            assert reason(await it.ldap("ann", other)) == WRONG


async def test_the_own_string_is_no_password() -> None:
    with desk(account(7, "ann", HASHED)) as it:
        assert reason(await it.ldap("ann", HASHED.value.reveal())) == WRONG


@pytest.mark.parametrize("make", [hashed, plain])
async def test_an_empty_password_is_none_even_where_the_file_holds_one(make) -> None:
    with desk(account(7, "ann", make("")), account(8, "bob", make(""), totp=(TOTP,))) as it:
        assert reason(await it.ldap("ann", "")) == RejectReason.EMPTY_PASSWORD
        assert reason(await it.ldap("nobody", "")) == RejectReason.EMPTY_PASSWORD
        assert reason(await it.ldap("ann", ";123456")) == WRONG
        assert reason(await it.ldap("bob", ";" + code(NOON))) == WRONG
        assert reason(await it.radius("bob", code(NOON), SUFFIX)) == WRONG
    with desk(account(7, "ann", None, app_passwords=(AppPassword("t", Secret("")),))) as it:
        assert reason(await it.ldap("ann", ";")) == WRONG


@pytest.mark.parametrize("password", [HASHED, plain("pw-ann"), None])
async def test_inactive_users_stay_out(password) -> None:
    key = Secret("app-key-of-ann")
    inactive = account(7, "ann", password, is_active=False, app_passwords=(AppPassword("mail", key),), totp=(TOTP,))
    with desk(inactive) as it:
        for secret in ("pw-ann", "app-key-of-ann", "pw-ann;" + code(NOON)):
            assert reason(await it.ldap("ann", secret)) == WRONG
            assert reason(await it.radius("ann", secret)) == WRONG


async def test_without_a_password_nothing_logs_in() -> None:
    with desk(account(7, "ann", None), account(8, "bob", HASHED)) as it:
        for secret in ("None", "pw-ann", "\0"):
            assert reason(await it.ldap("ann", secret)) == WRONG


async def test_an_address_that_means_nobody_logs_nobody_in() -> None:
    with desk(account(7, "ann", HASHED), by_login={"ann": 7, "ghost": 99}) as it:
        assert reason(await it.ldap("ann@example.org", "pw-ann")) == WRONG
        assert reason(await it.ldap("ghost", "pw-ann")) == WRONG


# -- the same work for everybody ------------------------------------------------------------------

CAST = (
    account(1, "right", HASHED),
    account(2, "inactive", HASHED, is_active=False),
    account(3, "bare", None),
    account(4, "plain", plain("pw-plain")),
    account(5, "device", HASHED, totp=(TOTP,)),
)


@pytest.mark.parametrize("secret", ["wrong", "wrong;123456", "wrong;abcdefgh", "wrong123456", "wrong;1;123456"])
@pytest.mark.parametrize("provider", [LDAP, SUFFIX, NO_CODES])
async def test_every_refusal_costs_the_same_verifications(secret, provider) -> None:
    served = Served((LDAP,), (provider,) if provider is not LDAP else ())
    costs = {}
    with desk(*CAST, served=served) as it:
        for username in ("right", "inactive", "bare", "plain", "device", "unknown", "", "\ud800"):
            it.verify.asked.clear()
            assert reason(await it.ldap(username, secret, provider)) == WRONG
            costs[username] = [
                text.split("$")[:4] + [len(part) for part in text.split("$")[4:]] for text in it.verify.asked
            ]
    assert costs["right"]
    assert all(cost == costs["right"] for cost in costs.values()), costs


async def test_where_nothing_is_hashed_nothing_is_hashed_for_strangers_either() -> None:
    with desk(account(1, "ann", plain("x")), account(2, "bare", None)) as it:
        for username in ("ann", "bare", "unknown"):
            assert reason(await it.ldap(username, "wrong;123456")) == WRONG
        assert it.verify.asked == []


async def test_strangers_cost_what_the_accounts_cost_and_always_the_same() -> None:
    cast = [account(n, f"user{n}", hashed("x", iterations=1 + n % 2)) for n in range(1, 9)]
    with desk(*cast) as it:
        seen = set()
        for n in range(64):
            asked = []
            for _ in range(2):
                it.verify.asked.clear()
                assert reason(await it.ldap(f"stranger{n}", "wrong")) == WRONG
                asked.append(it.verify.asked[0])
            assert asked[0] == asked[1]
            seen.add(asked[0].split("$")[3])
        assert seen == {"m=8,t=1,p=1", "m=8,t=2,p=1"}


# -- app passwords --------------------------------------------------------------------------------


async def test_app_passwords_need_no_code_and_end_in_time() -> None:
    keys = (AppPassword("mail", Secret("key-mail"), NOON + 60), AppPassword("cal", Secret("key-cal")))
    with desk(account(7, "ann", HASHED, app_passwords=keys, totp=(TOTP,)), account(8, "bob", HASHED)) as it:
        found = accepted(await it.ldap("ann", "key-mail"))
        assert (found.expires_at, found.used_code) == (NOON + 60, False)
        assert accepted(await it.radius("ann", "key-cal")).expires_at is None
        assert accepted(await it.radius("ann", "key-cal", NO_CODES)).identity.user_pk == 7
        for username, secret in (("bob", "key-mail"), ("ann", "key-mai"), ("ann", "key-mail;" + code(NOON))):
            assert reason(await it.ldap(username, secret)) == WRONG
        it.now = NOON + 60
        assert reason(await it.ldap("ann", "key-mail")) == WRONG
        accepted(await it.ldap("ann", "key-cal"))


async def test_an_app_password_works_for_its_own_application_only() -> None:
    keys = (
        AppPassword("mail", Secret("key-mail"), None, "ldap"),
        AppPassword("wifi", Secret("key-wifi"), None, "radius"),
        AppPassword("gone", Secret("key-gone"), None, "no-such-application"),
        AppPassword("prefix", Secret("key-prefix"), None, "lda"),
        AppPassword("blank", Secret("key-blank"), None, ""),
        AppPassword("any", Secret("key-any")),
        AppPassword("late", Secret("key-late"), NOON + 60, "ldap"),
    )
    with desk(account(7, "ann", HASHED, app_passwords=keys), account(8, "bob", HASHED)) as it:
        accepted(await it.ldap("ann", "key-mail"))
        accepted(await it.radius("ann", "key-wifi"))
        for ask in (it.ldap, it.radius):
            accepted(await ask("ann", "key-any"))
            for secret in ("key-gone", "key-prefix", "key-blank"):
                assert reason(await ask("ann", secret)) == WRONG
        assert reason(await it.ldap("ann", "key-wifi")) == WRONG
        assert reason(await it.radius("ann", "key-mail")) == WRONG
        assert reason(await it.ldap("bob", "key-mail")) == WRONG
        assert reason(await it.ldap("nobody", "key-mail")) == WRONG
        accepted(await it.ldap("ann", "key-late"))
        it.now += 60
        assert reason(await it.ldap("ann", "key-late")) == WRONG
        moved = replace(LDAP, application_slug="radius")
        it.change(directory([account(7, "ann", HASHED, app_passwords=keys)], served=Served((moved,), (RADIUS,))))
        assert reason(await it.ldap("ann", "key-mail")) == WRONG, "the provider belongs to another application now"
        accepted(await it.ldap("ann", "key-wifi"))


async def test_the_same_key_for_two_applications() -> None:
    keys = (AppPassword("a", Secret("key"), NOON + 1, "radius"), AppPassword("b", Secret("key"), None, "ldap"))
    with desk(account(7, "ann", None, app_passwords=keys)) as it:
        assert accepted(await it.ldap("ann", "key")).expires_at is None
        assert accepted(await it.radius("ann", "key")).expires_at == NOON + 1


async def test_a_bound_app_password_is_refused_like_a_wrong_password() -> None:
    """The same work, so that the time tells nobody that the key is good elsewhere."""
    keys = (AppPassword("wifi", Secret("key-wifi"), None, "radius"),)
    with desk(account(7, "ann", HASHED, app_passwords=keys)) as it:
        for secret in ("key-wifi", "nonsense"):
            assert reason(await it.ldap("ann", secret)) == WRONG
        assert it.verify.asked == [HASHED.value.reveal_text()] * 2


async def test_app_passwords_pass_the_access_check_too() -> None:
    keys = (AppPassword("cal", Secret("key-cal")),)
    with desk(account(7, "ann", None, app_passwords=keys), applications=applications(Binding(0, 8, None))) as it:
        assert reason(await it.ldap("ann", "key-cal")) == RejectReason.ACCESS_DENIED


# -- codes ----------------------------------------------------------------------------------------

ANN = account(7, "ann", HASHED, totp=(TOTP,), static_codes=(Secret("abcd2345"), Secret("longstatic12")))


@pytest.mark.parametrize("offset", [-30, 0, 30])
async def test_a_code_within_a_step_is_right(offset) -> None:
    with desk(ANN) as it:
        assert accepted(await it.ldap("ann", "pw-ann;" + code(NOON + offset))).used_code


@pytest.mark.parametrize("offset", [-60, 60, -3600])
async def test_a_code_beyond_a_step_is_wrong(offset) -> None:
    with desk(ANN) as it:
        assert reason(await it.ldap("ann", "pw-ann;" + code(NOON + offset))) == RejectReason.CODE_INVALID


async def test_the_vectors_of_rfc6238() -> None:
    # Appendix B, SHA1: the key is the ASCII digits, T0 = 0, X = 30.
    device = TotpDevice("rfc", Secret(KEY), digits=8)
    for at, text in ((59, "94287082"), (1111111109, "07081804"), (1234567890, "89005924"), (20000000000, "65353130")):
        with desk(account(7, "ann", HASHED, totp=(device,))) as it:
            it.now = float(at)
            accepted(await it.ldap("ann", "pw-ann;" + text))
            assert reason(await it.ldap("ann", "pw-ann;" + text)) == RejectReason.CODE_INVALID


@pytest.mark.parametrize("key", [b"k", b"0123456789", b"0123456789abcdef" * 4])
async def test_any_key_length_and_step(key) -> None:
    device = TotpDevice("odd", Secret(key), digits=7, step_s=60)
    with desk(account(7, "ann", HASHED, totp=(device,))) as it:
        if len(key) >= 14:
            accepted(await it.ldap("ann", "pw-ann;" + code(NOON, key, 7, 60)))
        assert reason(await it.ldap("ann", "pw-ann;0000000")) == RejectReason.CODE_INVALID


async def test_a_code_works_once_across_steps_providers_and_reloads() -> None:
    with desk(ANN) as it:
        secret = "pw-ann;" + code(NOON)
        accepted(await it.ldap("ann", secret))
        for at in (NOON, NOON + 1, NOON + 30):
            it.now = at
            assert reason(await it.ldap("ann", secret)) == RejectReason.CODE_INVALID
            assert reason(await it.radius("ann", secret)) == RejectReason.CODE_INVALID
        it.now = NOON
        it.change(directory([]))
        it.change(directory([replace(ANN, pk=70, totp=(replace(TOTP, name="renamed"),))]))
        assert reason(await it.ldap("ann", secret)) == RejectReason.CODE_INVALID
        accepted(await it.ldap("ann", "pw-ann;" + code(NOON + 30)))
        # As on authentik, no step before the last one comes back.
        it.now = NOON + 30
        assert reason(await it.ldap("ann", "pw-ann;" + code(NOON))) == RejectReason.CODE_INVALID


async def test_one_device_of_several_is_spent() -> None:
    other = TotpDevice("tablet", Secret(b"another key of 20 oct"))
    with desk(replace(ANN, totp=(TOTP, other))) as it:
        accepted(await it.ldap("ann", "pw-ann;" + code(NOON)))
        accepted(await it.ldap("ann", "pw-ann;" + code(NOON, other.key.reveal())))
        assert reason(await it.ldap("ann", "pw-ann;" + code(NOON, other.key.reveal()))) == RejectReason.CODE_INVALID


async def test_a_static_code_works_once_for_its_user() -> None:
    bob = account(8, "bob", HASHED, static_codes=(Secret("abcd2345"),))
    with desk(ANN, bob) as it:
        assert reason(await it.ldap("bob", "pw-ann;longstatic12")) == RejectReason.CODE_INVALID
        for text in ("abcd2345", "longstatic12"):
            assert accepted(await it.ldap("ann", "pw-ann;" + text)).used_code
            assert reason(await it.ldap("ann", "pw-ann;" + text)) == RejectReason.CODE_INVALID
        accepted(await it.ldap("bob", "pw-ann;abcd2345"))
        it.change(directory([bob]))
        it.change(directory([replace(ANN, pk=70), bob]))
        for text in ("abcd2345", "longstatic12", "ABCD2345"):
            assert reason(await it.ldap("ann", "pw-ann;" + text)) == RejectReason.CODE_INVALID


async def test_a_wrong_password_spends_no_code() -> None:
    with desk(ANN) as it:
        for text in (code(NOON), "abcd2345"):
            assert reason(await it.ldap("ann", "pw-bob;" + text)) == WRONG
            assert reason(await it.ldap("ann", text)) == WRONG
            accepted(await it.ldap("ann", "pw-ann;" + text))


async def test_a_missing_code_is_asked_for_or_refused() -> None:
    with desk(ANN) as it:
        assert reason(await it.ldap("ann", "pw-ann")) == RejectReason.CODE_REQUIRED
        assert isinstance(await it.radius("ann", "pw-ann"), Challenge)
        assert reason(await it.radius("ann", "wrong")) == WRONG
        assert reason(await it.ldap("ann", "pw-ann;000000")) == RejectReason.CODE_INVALID
        assert reason(await it.radius("ann", "pw-ann;000000")) == RejectReason.CODE_INVALID


async def test_where_codes_are_not_read_a_device_still_is_asked() -> None:
    with desk(ANN, served=Served(radius=(NO_CODES,))) as it:
        assert reason(await it.ldap("ann", "pw-ann", NO_CODES)) == RejectReason.CODE_REQUIRED
        assert reason(await it.ldap("ann", "pw-ann;" + code(NOON), NO_CODES)) == WRONG
        challenge = await it.radius("ann", "pw-ann", NO_CODES)
        assert isinstance(challenge, Challenge)
        accepted(await it.resume(challenge.continuation, code(NOON)))


async def test_a_code_as_suffix_only_where_the_provider_says_so() -> None:
    with desk(ANN, served=Served(radius=(SUFFIX,))) as it:
        accepted(await it.radius("ann", "pw-ann" + code(NOON), SUFFIX))
        assert reason(await it.radius("ann", "pw-ann" + code(NOON), SUFFIX)) == RejectReason.CODE_INVALID
    with desk(ANN) as it:
        assert reason(await it.radius("ann", "pw-ann" + code(NOON))) == WRONG
        assert reason(await it.ldap("ann", "pw-ann" + code(NOON))) == WRONG


async def test_a_password_that_looks_like_one_with_a_code() -> None:
    tricky = account(7, "ann", hashed("pw;123456"))
    with desk(tricky) as it:
        assert not accepted(await it.ldap("ann", "pw;123456")).used_code
        assert reason(await it.ldap("ann", "pw")) == WRONG
    with desk(replace(tricky, totp=(TOTP,))) as it:
        assert reason(await it.ldap("ann", "pw;123456")) == RejectReason.CODE_REQUIRED
        accepted(await it.ldap("ann", "pw;123456;" + code(NOON)))


async def test_a_code_that_nobody_checks_is_no_part_of_a_password() -> None:
    with desk(account(7, "ann", HASHED)) as it:
        assert reason(await it.ldap("ann", "pw-ann;123456")) == RejectReason.CODE_INVALID
        assert reason(await it.radius("ann", "pw-ann;123456")) == RejectReason.CODE_INVALID


# -- challenges -----------------------------------------------------------------------------------


async def asked(it: Any) -> Challenge:
    challenge = await it.radius("ann", "pw-ann")
    assert isinstance(challenge, Challenge)
    assert challenge.expires_at == it.now + CHALLENGE_S
    return challenge


async def test_a_challenge_is_answered_once() -> None:
    with desk(ANN) as it:
        challenge = await asked(it)
        found = accepted(await it.resume(challenge.continuation, code(NOON) + "\r\n"))
        assert found.used_code and found.identity.user_pk == 7
        for answer in (code(NOON + 30), "abcd2345"):
            assert reason(await it.resume(challenge.continuation, answer)) == RejectReason.FLOW_ERROR
        # The code of one challenge is no answer to the next.
        assert reason(await it.resume((await asked(it)).continuation, code(NOON))) == RejectReason.CODE_INVALID


@pytest.mark.parametrize("answer", ["000000", "pw-ann", b"\xff\xfe", b"\0", "x" * 5000, " "])
async def test_a_wrong_answer_ends_the_challenge(answer) -> None:
    with desk(ANN) as it:
        challenge = await asked(it)
        assert reason(await it.resume(challenge.continuation, answer)) == RejectReason.CODE_INVALID
        assert reason(await it.resume(challenge.continuation, code(NOON))) == RejectReason.FLOW_ERROR
        accepted(await it.radius("ann", "pw-ann;" + code(NOON)))


async def test_answers_that_are_late_empty_or_another_providers() -> None:
    other = replace(RADIUS, pk=2, name="other")
    with desk(ANN, served=Served((LDAP,), (RADIUS, other))) as it:
        challenge = await asked(it)
        it.now += CHALLENGE_S
        assert reason(await it.resume(challenge.continuation, code(it.now))) == RejectReason.FLOW_ERROR
        assert reason(await it.resume((await asked(it)).continuation, "")) == RejectReason.EMPTY_PASSWORD
        for provider in (other, LDAP):
            assert (
                reason(await it.resume((await asked(it)).continuation, code(it.now), provider))
                == RejectReason.FLOW_ERROR
            )
        for forged in (None, 7, [], "x", object(), replace(challenge.continuation)):  # type: ignore[type-var]
            assert reason(await it.resume(forged, code(it.now))) == RejectReason.FLOW_ERROR
        accepted(await it.resume((await asked(it)).continuation, code(it.now)))


@pytest.mark.parametrize(
    "changes",
    [
        {"is_active": False},
        {"password": hashed("new")},
        {"password": None},
        {"totp": (replace(TOTP, key=Secret(b"y" * 20)),)},
        {"memberships": frozenset({"g"})},
        {"username": "anna"},
    ],
    ids=str,
)
async def test_a_user_who_changed_starts_anew(changes) -> None:
    with desk(ANN) as it:
        challenge = await asked(it)
        it.change(directory([replace(ANN, **changes)]))
        assert reason(await it.resume(challenge.continuation, code(NOON))) == WRONG
        assert reason(await it.resume(challenge.continuation, code(NOON))) == RejectReason.FLOW_ERROR


async def test_an_answer_after_the_user_or_the_provider_went() -> None:
    with desk(ANN) as it:
        challenge, second, third = await asked(it), await asked(it), await asked(it)
        it.change(directory([]))
        assert reason(await it.resume(challenge.continuation, code(NOON))) == WRONG
        it.change(directory([ANN], served=Served()))
        assert reason(await it.resume(second.continuation, code(NOON))) == RejectReason.NO_PROVIDER
        it.change(directory([ANN]))
        accepted(await it.resume(third.continuation, code(NOON)))


async def test_an_answer_meets_the_bindings_of_its_moment() -> None:
    with desk(ANN) as it:
        challenge = await asked(it)
        it.change(directory([ANN], applications=applications(Binding(0, 8, None))))
        assert reason(await it.resume(challenge.continuation, code(NOON))) == RejectReason.ACCESS_DENIED


async def test_the_continuation_shows_nothing() -> None:
    with desk(ANN) as it:
        challenge = await asked(it)
        assert "ann" not in repr(challenge) and "argon2" not in repr(challenge)


# -- access ---------------------------------------------------------------------------------------

STAFF = account(1, "staff", HASHED, memberships=frozenset({"staff", "all"}))
GUEST = account(2, "guest", HASHED, memberships=frozenset({"guests", "all"}))
NESTED = account(3, "nested", HASHED, memberships=frozenset({"team", "staff", "all"}))


@pytest.mark.parametrize(
    ("bindings", "needs_all", "let_in"),
    [
        ((), False, {"staff", "guest", "nested"}),
        ((), True, {"staff", "guest", "nested"}),
        ((Binding(0, None, "staff"),), False, {"staff", "nested"}),
        ((Binding(0, 2, None),), False, {"guest"}),
        ((Binding(0, 99, None),), False, set()),
        ((Binding(0, None, "nobody"),), False, set()),
        ((Binding(0, None, "guests", True),), False, {"staff", "nested"}),
        ((Binding(0, 1, None, True),), True, {"guest", "nested"}),
        ((Binding(0, None, "staff"), Binding(1, 2, None)), False, {"staff", "guest", "nested"}),
        ((Binding(0, None, "staff"), Binding(1, 2, None)), True, set()),
        ((Binding(0, None, "staff"), Binding(1, 1, None, True)), True, {"nested"}),
        ((Binding(5, None, "nobody"), Binding(1, None, "all")), False, {"staff", "guest", "nested"}),
        ((Binding(5, None, "all"), Binding(1, None, "nobody")), True, set()),
        ((Binding(0, None, "team"),), False, {"nested"}),
    ],
)
async def test_bindings_decide_who_comes_in(bindings, needs_all, let_in) -> None:
    with desk(STAFF, GUEST, NESTED, applications=applications(*bindings, needs_all=needs_all)) as it:
        for one in (STAFF, GUEST, NESTED):
            for login in (it.ldap, it.radius):
                decision = await login(one.username, "pw-ann")
                if one.username in let_in:
                    assert accepted(decision).identity.user_pk == one.pk
                else:
                    assert reason(decision) == RejectReason.ACCESS_DENIED
                assert reason(await login(one.username, "wrong")) == WRONG


async def test_who_may_search() -> None:
    cast = (
        account(1, "plain", HASHED),
        account(2, "searcher", HASHED, memberships=frozenset({"g-search"})),
        account(3, "super", HASHED, is_superuser=True),
    )
    with desk(*cast) as it:
        found = [accepted(await it.ldap(one.username, "pw-ann")).identity.can_search for one in cast]
        assert found == [False, True, True]
        assert not any([accepted(await it.radius(one.username, "pw-ann")).identity.can_search for one in cast])
        it.change(directory(cast, served=Served((replace(LDAP, search_group=None),))))
        found = [accepted(await it.ldap(one.username, "pw-ann")).identity.can_search for one in cast]
        assert found == [False, False, True]


async def test_reply_attributes_are_for_radius() -> None:
    reply = ReplyAttributes((("Tunnel-Private-Group-Id", "42"),))
    with desk(account(7, "ann", HASHED, reply=reply)) as it:
        assert accepted(await it.radius("ann", "pw-ann")).attributes == reply
        assert accepted(await it.ldap("ann", "pw-ann")).attributes == ReplyAttributes()


async def test_prompts_and_refusals_of_who_proved_to_be_somebody_carry_attributes_too() -> None:
    reply = ReplyAttributes((("Reply-Message", "hi"),))
    cast = [account(7, "ann", HASHED, reply=reply), account(8, "bob", HASHED, reply=reply, totp=(TOTP,))]
    with desk(*cast, applications=applications(Binding(0, 99, None))) as it:
        assert (await it.radius("ann", "pw-ann")).attributes == reply
        assert (await it.radius("ann", "wrong")).attributes == ReplyAttributes()
        asked = await it.radius("bob", "pw-ann")
        assert isinstance(asked, Challenge) and asked.attributes == reply


# -- providers and changes ------------------------------------------------------------------------


async def test_a_provider_that_went_lets_nobody_in() -> None:
    with desk(ANN) as it:
        assert reason(await it.ldap("ann", "pw-ann", replace(LDAP, pk=9))) == RejectReason.NO_PROVIDER
        it.change(directory([ANN], applications={}))
        assert reason(await it.ldap("ann", "pw-ann")) == RejectReason.NO_PROVIDER
        it.change(directory([ANN], served=Served(radius=(RADIUS,))))
        assert reason(await it.ldap("ann", "pw-ann")) == RejectReason.NO_PROVIDER
        it.book = None
        assert reason(await it.ldap("ann", "pw-ann")) == UnavailableReason.NOT_READY


async def test_the_provider_counts_as_it_is_now() -> None:
    with desk(ANN, served=Served((replace(LDAP, mfa_support=False),))) as it:
        assert reason(await it.ldap("ann", "pw-ann;" + code(NOON))) == WRONG


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"is_active": False}, WRONG),
        ({"password": hashed("new")}, WRONG),
        ({"password": None}, WRONG),
        ({"totp": (TOTP,)}, RejectReason.CODE_REQUIRED),
        ({"username": "anna"}, WRONG),
        ({"memberships": frozenset({"guests"})}, RejectReason.ACCESS_DENIED),
    ],
    ids=str,
)
async def test_a_change_while_the_password_is_verified_counts(changes, outcome) -> None:
    allowed = applications(Binding(0, None, "guests", True))
    ann = account(7, "ann", HASHED)
    with desk(ann, applications=allowed) as it:
        loop = asyncio.get_running_loop()
        changed = directory([replace(ann, **changes)], applications=allowed)

        def change_once() -> None:
            it.verify.before = lambda: None
            swapped = threading.Event()

            def swap() -> None:
                it.change(changed)
                swapped.set()

            loop.call_soon_threadsafe(swap)
            assert swapped.wait(10)

        it.verify.before = change_once
        assert reason(await it.ldap("ann", "pw-ann")) == outcome


async def test_bindings_that_change_while_the_password_is_verified_count() -> None:
    ann = account(7, "ann", HASHED)
    with desk(ann) as it:
        it.verify.before = lambda: it.change(directory([ann], applications=applications(Binding(0, 8, None))))
        assert reason(await it.ldap("ann", "pw-ann")) == RejectReason.ACCESS_DENIED


async def test_a_user_who_never_stands_still_is_no_success() -> None:
    with desk(account(7, "ann", HASHED)) as it:
        counter = iter(range(1000))
        it.verify.before = lambda: it.change(
            directory([account(7, "ann", HASHED, memberships=frozenset({f"g{next(counter)}"}))])
        )
        assert reason(await it.ldap("ann", "pw-ann")) == UnavailableReason.BUSY


# -- threads --------------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_passwords_are_verified() -> None:
    """The verification ends only after the loop has come round a hundred times."""
    with desk(account(7, "ann", HASHED)) as it:
        enough = threading.Event()
        it.verify.before = lambda: None if enough.wait(30) else pytest.fail("the loop stood still")
        login = asyncio.create_task(it.ldap("ann", "pw-ann"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not login.done()
        enough.set()
        accepted(await login)


async def test_too_many_at_once_are_told_to_come_back() -> None:
    with desk(account(7, "ann", HASHED), threads=1, queue=2) as it:
        go_on = threading.Event()
        it.verify.before = lambda: None if go_on.wait(30) else pytest.fail("nobody let it go on")
        held = [asyncio.create_task(it.ldap("ann", "pw-ann")) for _ in range(3)]
        await asyncio.sleep(0)
        assert reason(await it.ldap("ann", "pw-ann")) == UnavailableReason.BUSY
        held[-1].cancel()
        go_on.set()
        assert [type(one) for one in await asyncio.gather(*held[:2])] == [Accepted, Accepted]
        with pytest.raises(asyncio.CancelledError):
            await held[-1]
        # Whatever happened before, the room is free again.
        for _ in range(4):
            accepted(await it.ldap("ann", "pw-ann"))


async def test_concurrent_logins_each_get_their_own_answer() -> None:
    cast = [account(n, f"user{n}", hashed(f"pw-{n}")) for n in range(1, 13)]
    with desk(*cast) as it:
        right = await asyncio.gather(*(it.ldap(one.username, f"pw-{one.pk}") for one in cast))
        assert [accepted(one).identity.user_pk for one in right] == [one.pk for one in cast]
        wrong = await asyncio.gather(*(it.ldap(one.username, f"pw-{one.pk + 1}") for one in cast))
        assert {reason(one) for one in wrong} == {WRONG}


async def test_one_of_concurrent_logins_gets_the_code() -> None:
    with desk(ANN) as it:
        secret = "pw-ann;" + code(NOON)
        found = await asyncio.gather(*(it.ldap("ann", secret) for _ in range(8)))
        assert sum(isinstance(one, Accepted) for one in found) == 1
        assert {reason(one) for one in found if not isinstance(one, Accepted)} == {RejectReason.CODE_INVALID}


async def test_a_stopped_pool_is_no_refusal() -> None:
    pool = VerifyPool(1)
    with desk(account(7, "ann", HASHED)) as it:
        go_on = threading.Event()
        authority = EmbeddedAuthority(lambda: it.book, pool, verify=lambda _text, _secret: go_on.wait(30))
        logins = [asyncio.create_task(authority.authenticate(LDAP, "ann", Secret("x"), CLIENT)) for _ in range(3)]
        await asyncio.sleep(0)
        pool.stop()
        pool.stop()
        assert [reason(one) for one in await asyncio.gather(*logins[1:])] == [UnavailableReason.NOT_READY] * 2
        go_on.set()
        await logins[0]
        assert reason(await authority.authenticate(LDAP, "ann", Secret("x"), DEVICE)) == UnavailableReason.NOT_READY


@pytest.mark.parametrize("lie", [None, 1, "yes", object()])
async def test_only_true_is_true(lie) -> None:
    pool = VerifyPool(1)
    with desk(account(7, "ann", HASHED)) as it:
        authority = EmbeddedAuthority(lambda: it.book, pool, verify=lambda _text, _secret: lie)
        assert reason(await authority.authenticate(LDAP, "ann", Secret("pw-ann"), CLIENT)) == WRONG
    pool.stop()


async def test_a_bug_is_no_success() -> None:
    pool = VerifyPool(1)

    def broken(_text: str, _secret: Secret) -> bool:
        raise RuntimeError("broken")

    with desk(account(7, "ann", HASHED)) as it:
        authority = EmbeddedAuthority(lambda: it.book, pool, verify=broken)
        with pytest.raises(RuntimeError):
            await authority.authenticate(LDAP, "ann", Secret("pw-ann"), CLIENT)
    pool.stop()
