"""PHC strings: what matches, what never does, what is refused before it costs anything."""

import re

import pytest

from outpost.backends.embedded import phc
from outpost.identity import Secret

SALT = "c29tZXNhbHRzb21l"
TAG = "A" * 43

# $ echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 (the reference implementation's own test vector)
REFERENCE = (
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
)  # fmt: skip


def string(v: object = 19, m: object = 19456, t: object = 2, p: object = 1, salt: str = SALT, tag: str = TAG) -> str:
    return f"$argon2id$v={v}$m={m},t={t},p={p}${salt}${tag}"


def test_the_reference_vector_verifies() -> None:
    assert phc.verify(REFERENCE, Secret("password"))


@pytest.mark.parametrize("wrong", ["", "Password", "password ", "password\0", "differentpassword"])
def test_another_password_does_not_verify(wrong: str) -> None:
    assert not phc.verify(REFERENCE, Secret(wrong))


def test_a_changed_hash_salt_or_cost_does_not_verify() -> None:
    for old, new in (("CTFh", "DTFh"), ("c29tZXNhbHQ", "c29tZXNhbHU"), ("t=2", "t=3"), ("m=65536", "m=65528")):
        changed = REFERENCE.replace(old, new)
        assert changed != REFERENCE
        assert not phc.verify(changed, Secret("password"))


def test_what_is_made_verifies_and_nothing_else() -> None:
    made = phc.hash_password(Secret("Grüße; 123456"))
    assert phc.parse(made) == phc.Cost(19456, 2, 1, 16, 32)
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert phc.verify(made, Secret("Grüße; 123456"))
    assert not phc.verify(made, Secret("Grüße; 123457"))
    assert phc.hash_password(Secret("Grüße; 123456")) != made


def test_an_empty_password_is_not_hashed() -> None:
    with pytest.raises(ValueError, match="empty password"):
        phc.hash_password(Secret(""))


def test_octets_that_are_no_text_are_a_password_too() -> None:
    made = phc.hash_password(Secret(b"\xff\x00\xfe"))
    assert phc.verify(made, Secret(b"\xff\x00\xfe"))
    assert not phc.verify(made, Secret(b"\xff\x00\xff"))


def test_a_dummy_costs_the_same_and_matches_nothing() -> None:
    assert phc.parse(phc.dummy()) == phc.parse(phc.hash_password(Secret("x")))
    like = phc.dummy(REFERENCE)
    assert phc.parse(like) == phc.parse(REFERENCE)
    assert not phc.verify(like, Secret("password"))
    assert not phc.verify(phc.dummy(), Secret(""))
    assert phc.dummy() != phc.dummy()


def test_a_dummy_like_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no argon2id string"):
        phc.dummy("alice-pw")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no argon2id string"),
        ("alice-pw", "no argon2id string"),
        ("$argon2id$", "no argon2id string"),
        (string()[1:], "no argon2id string"),
        (string() + "\n", "no argon2id string"),
        (" " + string(), "no argon2id string"),
        (string() + "$", "no argon2id string"),
        (string() + "=", "no argon2id string"),
        (string().replace("argon2id", "argon2i"), "no argon2id string"),
        (string().replace("argon2id", "argon2d"), "no argon2id string"),
        (string().replace("$v=19", ""), "no argon2id string"),
        (string(m="٣٣٣"), "no argon2id string"),
        (string(m=-1), "no argon2id string"),
        (string(m="9" * 10), "no argon2id string"),
        (string(salt="ab_-abcdefgh"), "no argon2id string"),
        (string(v=16), "another version"),
        (string(m=7), "7 KiB (m), expected 8 to"),
        (string(m=15, p=2), "15 KiB (m), expected 16 to"),
        (string(m=4 * 1024 * 1024 + 1), "4194305 KiB (m)"),
        (string(t=0), "0 passes (t)"),
        (string(t=1001), "1001 passes (t)"),
        (string(p=0), "0 lanes (p)"),
        (string(p=65), "65 lanes (p)"),
        (string(salt="AAAAAAAAAA"), "salt of 7 octets"),
        (string(salt="A" * 88), "salt of 66 octets"),
        (string(tag="A" * 20), "hash of 15 octets"),
        (string(tag="A" * 88), "hash of 66 octets"),
        (string(tag="A" * 41), "no argon2id string"),
        (string(tag="A" * 42 + "B"), "no argon2id string"),
        (string(tag="A" * 21 + "B"), "no argon2id string"),
    ],
)
def test_what_could_not_be_verified_is_refused(text: str, problem: str) -> None:
    for use in (phc.parse, lambda text: phc.verify(text, Secret("alice-pw"))):
        with pytest.raises(ValueError, match=re.escape(problem)) as caught:
            use(text)
        assert TAG not in str(caught.value)


@pytest.mark.parametrize("text", [string(), string(m=8, t=1), string(m=4 * 1024 * 1024), string(tag="A" * 22)])
def test_the_limits_themselves_are_fine(text: str) -> None:
    phc.parse(text)
