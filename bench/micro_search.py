"""One search among 10,000 users, from the request's octets to the answer's: `pytest bench/micro_search.py`.

Beside it the same by two peers: a plain Python server (dictionaries, a filter of closures, entries encoded one by one)
and the server inside ldap3 (its MOCK_SYNC strategy, which encodes nothing). Every case checks that they find
the same entries. The time is per search; `extra_info` holds the entries and octets that it returned.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from bench.population import BASE_DN, memberships
from outpost._fastber import Limits, SearchRequest, decode_message, encode_search_entry
from outpost.identity import Group, LdapProvider, People, User
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import Directory
from outpost.ldap.schema import ATTRIBUTE_TYPES
from tests.ldap import decode, encode

with warnings.catch_warnings():
    # ldap3 still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

USERS, GROUPS = 10_000, 200
LIMITS = Limits()
CASES = {
    # name: (filter, attributes, entries)
    "equality": ("(cn=user5000)", ["*"], 2),
    "equality_and_class": ("(&(objectClass=posixAccount)(cn=user5000))", ["*"], 1),
    "substring_initial": ("(mail=user12*)", ["cn", "mail", "memberOf"], 111),
    "substring_any": ("(mail=*r123*)", ["cn", "mail", "memberOf"], 11),
    "presence": ("(mail=*)", ["cn", "mail", "memberOf"], USERS),
    "everything": ("(objectClass=*)", ["*"], 2 * USERS + GROUPS + 4),
}
PROVIDER = LdapProvider(1, "ldap", BASE_DN, "ldap")
OPERATIONAL = {t.name.lower() for t in ATTRIBUTE_TYPES if t.operational}


@cache
def people() -> People:
    groups = tuple(Group(f"g{g}", g, f"group{g}") for g in range(GROUPS))
    users = tuple(
        User(
            u,
            f"user{u}",
            f"User Number {u}",
            f"user{u}@example.org",
            uid=f"{u:064x}",
            groups=tuple(f"g{g}" for g in of),
        )
        for u, of in enumerate(memberships(USERS, GROUPS))
    )
    return People(users, groups, 1, 0.0)


@cache
def snapshot() -> Snapshot:
    return Snapshot(compile_people(people(), PROVIDER))


@cache
def plain() -> list[tuple[bytes, dict[str, tuple[bytes, list[bytes]]]]]:
    """The same entries as a plain server would keep them."""
    return [
        (e.dn, {n.lower(): (n.encode(), [v] if isinstance(v, bytes) else list(v)) for n, v in e.attributes})
        for e in Directory(people(), PROVIDER).entries()
    ]


def request(name: str) -> bytes:
    filter, attributes, _ = CASES[name]
    return encode.search(7, BASE_DN, filter, attributes)


def search_compiled(octets: bytes, view: Any) -> tuple[int, int]:
    """Entries and octets."""
    asked = decode_message(octets, LIMITS)
    assert isinstance(asked, SearchRequest)
    search = snapshot().search(asked, view)
    size = 0
    while not search.finished:
        size += len(search.read(65_536))
    return search.sent, size


Test = Callable[[dict[str, tuple[bytes, list[bytes]]]], bool]


def closure(tag: int, content: bytes) -> Test:
    """An encoded filter of the kinds asked here as closures."""
    if tag == 0xA0:
        parts = [closure(*part) for part in decode.elements(content)]
        return lambda entry: all(part(entry) for part in parts)
    if tag == 0x87:
        present = content.decode().lower()
        return lambda entry: present in entry
    (_, description), (_, value) = decode.elements(content)
    name = description.decode().lower()
    if tag == 0xA3:
        wanted = value.lower()
        return lambda entry: name in entry and any(v.lower() == wanted for v in entry[name][1])
    ((kind, piece),) = decode.elements(value.lower())
    if kind == 0x80:
        return lambda entry: name in entry and any(v.lower().startswith(piece) for v in entry[name][1])
    return lambda entry: name in entry and any(piece in v.lower() for v in entry[name][1])


def search_plainly(octets: bytes, entries: list[tuple[bytes, dict[str, tuple[bytes, list[bytes]]]]]) -> tuple[int, int]:
    """Entries and octets."""
    asked = decode_message(octets, LIMITS)
    assert isinstance(asked, SearchRequest)
    ((tag, content),) = decode.elements(asked.filter)
    test = closure(tag, content)
    wanted = None if asked.attributes == (b"*",) else {a.decode().lower() for a in asked.attributes}
    count = size = 0
    for dn, entry in entries:
        if test(entry):
            chosen = [v for name, v in entry.items() if (name not in OPERATIONAL if wanted is None else name in wanted)]
            size += len(encode_search_entry(asked.message_id, dn, chosen))
            count += 1
    return count, size


@cache
def mock() -> Any:
    """ldap3's own server, filled with the same entries."""
    connection = ldap3.Connection(ldap3.Server("mock"), client_strategy=ldap3.MOCK_SYNC)
    for dn, entry in plain():
        connection.strategy.add_entry(dn.decode(), {n.decode(): list(v) for n, v in entry.values()}, validate=False)
    connection.bind()
    return connection


@pytest.mark.parametrize("name", CASES)
def test_outpost(benchmark: Any, name: str) -> None:
    view = snapshot().full_view()
    count, size = benchmark(search_compiled, request(name), view)
    benchmark.extra_info.update(entries=count, octets=size)
    assert count == CASES[name][2]


@pytest.mark.parametrize("name", CASES)
def test_plain_python(benchmark: Any, name: str) -> None:
    count, size = benchmark.pedantic(search_plainly, (request(name), plain()), rounds=5)
    benchmark.extra_info.update(entries=count, octets=size)
    assert (count, size) == search_compiled(request(name), snapshot().full_view())


@pytest.mark.parametrize("name", ["equality", "substring_initial", "presence"])
def test_ldap3(benchmark: Any, name: str) -> None:
    filter, attributes, expected = CASES[name]
    connection = mock()
    benchmark.pedantic(connection.search, (BASE_DN, filter), {"attributes": attributes}, rounds=2)
    assert len(connection.response) == expected


def test_own_view(benchmark: Any) -> None:
    """What a user without search permission asks: himself, his own group, his groups."""
    octets = request("everything")

    def search() -> tuple[int, int]:
        return search_compiled(octets, snapshot().own_view(5000))

    count, size = benchmark(search)
    benchmark.extra_info.update(entries=count, octets=size)
    assert count == 4 + 2 + 5


def test_compare(benchmark: Any) -> None:
    view, dn = snapshot().full_view(), f"cn=group7,ou=groups,{BASE_DN}".encode()
    assert benchmark(snapshot().compare, view, dn, b"memberUid", b"nobody") == 5


def test_compile(benchmark: Any) -> None:
    """Off the event loop, whenever the people change."""
    arena = benchmark.pedantic(compile_people, (people(), PROVIDER), rounds=3)
    benchmark.extra_info.update(octets=len(arena))


def test_load(benchmark: Any) -> None:
    """Checking every offset of an arena that somebody else wrote."""
    arena = bytes(snapshot().arena)
    benchmark.pedantic(Snapshot, (arena,), rounds=5)
