"""The compiled directory against a plain search over the same entries, and by hand."""

import random

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.errors import DecodeError
from outpost.ldap._snapshot import Search, Snapshot, View
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import Directory
from tests.ldap import decode, encode
from tests.ldap.generate import Questions, people
from tests.ldap.oracle_search import Found, Oracle

LIMITS = Limits()
POPULATIONS, CASES = 60, 250


def request(*arguments: object, **options: object) -> SearchRequest:
    found = decode_message(encode.search(*arguments, **options), LIMITS)
    assert isinstance(found, SearchRequest)
    return found


def drain(search: Search, size: int = 1 << 20, examined: int = 0, entries: int = 0) -> bytes:
    parts = []
    while not search.finished:
        parts.append(search.read(size, examined, entries))
    return b"".join(parts)


def canonical(entries: list[tuple[bytes, list[tuple[str, list[bytes]]]]]) -> list[object]:
    """Entries in order; attributes in order; values in any."""
    return [(dn, [(name, sorted(values)) for name, values in attributes]) for dn, attributes in entries]


def read(octets: bytes, message_id: int) -> list[tuple[bytes, list[tuple[str, list[bytes]]]]]:
    assert all(m.message_id == message_id for m in decode.messages(octets))
    return [(e.dn, [(n.decode(), v) for n, v in e.attributes]) for e in decode.entries(octets)]


# -- differential --------------------------------------------------------------------------------------


def test_there_are_enough_cases() -> None:
    assert POPULATIONS * CASES >= 10_000


class World:
    """Some people, compiled, and everybody's view of them beside the oracle's."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        population, provider = people(self.chance)
        entries = list(Directory(population, provider).entries())
        self.snapshot = Snapshot(compile_people(population, provider))
        self.questions = Questions(self.chance, entries)
        everything = Oracle(entries)
        self.full: tuple[View, Oracle] = (self.snapshot.full_view(), everything)
        self.own: list[tuple[View, Oracle]] = []
        for user in population.users:
            own, expected = self.snapshot.own_view(user.pk), everything.own(user.pk)
            assert (own is None) is (expected is None)
            if own is not None and expected is not None:
                self.own.append((own, expected))

    def view(self) -> tuple[View, Oracle]:
        return self.chance.choice(self.own) if self.chance.random() < 0.4 else self.full


@pytest.mark.parametrize("seed", range(POPULATIONS))
def test_every_answer_is_the_oracle_s(seed: int) -> None:
    world = World(seed)
    chance, questions = world.chance, world.questions
    answered = 0
    for number in range(1, CASES + 1):
        view, oracle = world.view()
        base, scope = questions.base([e.dn for e in oracle.entries]), chance.choice((0, 1, 2, 2, 2))
        text, wanted = questions.filter(), questions.wanted()
        types_only, limit = chance.random() < 0.1, chance.choice((0, 0, 0, 1, 3))
        asked = request(number, base, text, wanted, scope=scope, types_only=types_only, size_limit=limit)
        where = f"seed {seed}, case {number}: {asked!r} {text.hex()}"
        try:
            expected: Found | None = oracle.search(base, scope, text, wanted, types_only=types_only, limit=limit)
        except DecodeError:
            expected = None
        if expected is None:
            with pytest.raises(DecodeError):
                world.snapshot.search(asked, view)
            continue
        search = world.snapshot.search(asked, view)
        octets = drain(search, chance.choice((1, 700, 1 << 20)), chance.choice((0, 1, 7)), chance.choice((0, 1)))
        assert canonical(read(octets, number)) == canonical(expected.entries), where
        assert (search.result_code, search.matched_dn) == (expected.result_code, expected.matched_dn), where
        assert search.sent == len(expected.entries), where
        answered += bool(expected.entries)
    assert answered > CASES // 10, "the questions are too odd"


@pytest.mark.parametrize("seed", range(20))
def test_every_comparison_is_the_oracle_s(seed: int) -> None:
    world = World(1000 + seed)
    seen = set()
    for number in range(150):
        view, oracle = world.view()
        dn, name = world.questions.base([e.dn for e in oracle.entries]), world.questions.name()
        value = world.questions.value(name)
        try:
            code = oracle.compare(dn, name.encode(), value)
        except DecodeError:
            with pytest.raises(DecodeError):
                world.snapshot.compare(view, dn, name.encode(), value)
            continue
        seen.add(code)
        assert world.snapshot.compare(view, dn, name.encode(), value) == code, (seed, number, dn, name, value)
    assert {5, 6, 16, 32} <= seen
