"""The table of accepted logins: its hash, its order, and what it believes."""

import hashlib
import struct
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.credentials._believed import DIGEST_SIZE, Believed, Entry, Who

KEY = bytes(range(32))
INFINITE = float("inf")


def entry(address: str | None = None, ends_at: float = INFINITE, verified_at: float = 0.0) -> Entry:
    made = Entry()
    made.accepted = object()  # type: ignore[assignment]
    made.address, made.ends_at, made.verified_at, made.refresh_at = address, ends_at, verified_at, INFINITE
    return made


def expected(hash_key: bytes, kind: bytes, number: int, name: bytes, secret: bytes) -> bytes:
    digest = hashlib.blake2b(key=hash_key, digest_size=DIGEST_SIZE)
    digest.update(struct.pack("<cqI", kind, number, len(name)) + name + secret)
    return digest.digest()


@given(
    st.binary(min_size=16, max_size=64),
    st.sampled_from(["ldap", "radius"]),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=90),
    st.binary(max_size=400),
)
def test_keys_are_those_of_hashlib(hash_key: bytes, service: str, pk: int, name: str, secret: bytes) -> None:
    table = Believed(hash_key)
    octets = name.strip().encode("utf-8", "surrogatepass").lower()
    kind = service[:1].upper().encode()
    assert table.key(Who(service, pk, name), secret) == expected(hash_key, kind, pk, octets, secret)
    assert table.mark(pk, secret) == expected(hash_key, b"M", pk, b"", secret)


@pytest.mark.parametrize("size", [0, 1, 94, 95, 96, 114, 115, 116, 127, 128, 129, 242, 243, 244, 1000])
def test_keys_at_the_ends_of_blocks(size: int) -> None:
    name, secret = "n" * 20, b"s" * size
    assert Believed(KEY).key(Who("ldap", 1, name), secret) == expected(KEY, b"L", 1, name.encode(), secret)


def test_a_known_answer() -> None:
    found = Believed(KEY).key(Who("ldap", 7, " Alice "), b"pw")
    assert found == Believed(KEY).key(Who("ldap", 7, "alice"), b"pw")
    others = [("radius", 7, "alice", b"pw"), ("ldap", 8, "alice", b"pw"), ("ldap", 7, "alic", b"epw")]
    assert found not in {Believed(KEY).key(Who(*who), secret) for *who, secret in others}  # type: ignore[misc]
    assert found != Believed(KEY[::-1]).key(Who("ldap", 7, "alice"), b"pw")


@pytest.mark.parametrize("hash_key", [b"", b"x" * 15, b"x" * 65])
def test_short_and_long_hash_keys_are_refused(hash_key: bytes) -> None:
    with pytest.raises(ValueError, match="hash key"):
        Believed(hash_key)


def test_unknown_services_are_refused() -> None:
    with pytest.raises(ValueError, match="service"):
        Who("http", 1, "a")


@given(st.lists(st.tuples(st.sampled_from(["put", "use", "remove"]), st.integers(0, 5))))
def test_the_order_is_that_of_use(steps: list[tuple[str, int]]) -> None:
    table, model = Believed(KEY), OrderedDict[bytes, Entry]()
    table.trusted_since = 0.0
    for step, number in steps:
        key = bytes([number]) * 16
        if step == "put":
            model.pop(key, None)
            model[key] = entry()
            table.put(key, model[key])
        elif step == "use":
            found = table.believed(key, 1.0, "a")
            assert found is model.get(key)
            if found is not None:
                model.move_to_end(key)
        elif key in model:
            table.remove(key)
            del model[key]
        else:
            with pytest.raises(KeyError):
                table.remove(key)
        assert [one.key for one in table] == list(model)
        assert all(one is model[one.key] for one in table)
        assert table.first() is next(iter(model.values()), None)
        assert len(table) == len(model)


@pytest.mark.parametrize(
    ("made", "now", "trusted_since", "address", "believed"),
    [
        ({}, 1.0, 0.0, "a", True),
        ({"ends_at": 1.0}, 1.0, 0.0, "a", False),
        ({"ends_at": 1.5}, 1.0, 0.0, "a", True),
        ({"address": "a"}, 1.0, 0.0, "a", True),
        ({"address": "b"}, 1.0, 0.0, "a", False),
        ({}, 29.0, INFINITE, "a", True),
        ({}, 30.0, INFINITE, "a", False),
        ({"verified_at": 5.0}, 34.0, 6.0, "a", True),
        ({"verified_at": 5.0}, 35.0, 6.0, "a", False),
        ({"verified_at": 5.0}, 35.0, 5.0, "a", True),
    ],
)
def test_what_is_believed(made: dict, now: float, trusted_since: float, address: str, believed: bool) -> None:
    table = Believed(KEY)
    table.max_age_disconnected, table.trusted_since = 30.0, trusted_since
    table.put(b"k" * 16, entry(**made))
    assert (table.believed(b"k" * 16, now, address) is not None) is believed
    assert (table.hits, table.misses) == ((1, 0) if believed else (0, 1))


def test_an_entry_is_in_one_table() -> None:
    table, one = Believed(KEY), entry()
    table.put(b"k" * 16, one)
    with pytest.raises(ValueError, match="once"):
        table.put(b"l" * 16, one)
    table.remove(b"k" * 16)
    assert one.key is None
    table.put(b"l" * 16, one)


def test_a_table_that_goes_leaves_its_entries_whole() -> None:
    table = Believed(KEY)
    kept = [entry() for _ in range(3)]
    for number, one in enumerate(kept):
        table.put(bytes([number]) * 16, one)
    del table
    assert all(one.accepted is not None for one in kept)
