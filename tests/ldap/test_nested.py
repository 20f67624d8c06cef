"""Nested groups at size: 5,000 of them, ten deep, with cycles; the same closure in entries and in filters."""

import random
from dataclasses import replace
from functools import cache

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from tests.ldap import decode, encode

BASE = "dc=example,dc=com"
USERS, GROUPS = f"ou=users,{BASE}", f"ou=groups,{BASE}"
CHAINS, DEPTH, PEOPLE = 500, 10, 600
IN_CHAIN = "1.2.840.113556.1.4.1941"


def pk(number: int) -> str:
    return f"{number:032x}"


@cache
def organisation() -> tuple[dict[int, set[int]], People]:
    """The groups above each group as they are written, and everybody.

    Chains of ten; every tenth is closed to a ring, some groups are in themselves, some chains lead into others.
    """
    above: dict[int, set[int]] = {}
    for chain in range(CHAINS):
        for level in range(DEPTH):
            one = chain * DEPTH + level
            above[one] = {one + 1} if level + 1 < DEPTH else set()
        if chain % 10 == 0:
            above[chain * DEPTH + DEPTH - 1].add(chain * DEPTH)
        if chain % 7 == 0:
            above[chain * DEPTH + 4].add(chain * DEPTH + 4)
        if chain % 3 == 0:
            above[chain * DEPTH + 6].add((chain + 1) % CHAINS * DEPTH + 2)
    groups = tuple(Group(pk(n), n, f"g{n}", parents=(*map(pk, sorted(up)), "gone")) for n, up in above.items())
    chance = random.Random(1)
    users = tuple(
        User(n, f"u{n}", groups=tuple(pk(chance.randrange(CHAINS * DEPTH)) for _ in range(chance.randrange(4))))
        for n in range(1, PEOPLE + 1)
    )
    return above, People(users, groups, 1, 0.0)


@cache
def closure() -> dict[int, frozenset[int]]:
    """All groups above each, itself only where it is: by squaring the relation until it grows no more."""
    above, _ = organisation()
    found = {one: set(up) for one, up in above.items()}
    grows = True
    while grows:
        grows = False
        for up in found.values():
            more = set().union(*(found[one] for one in up)) - up if up else set()
            if more:
                up |= more
                grows = True
    return {one: frozenset(up) for one, up in found.items()}


@cache
def snapshot(nested_groups: str) -> Snapshot:
    provider = LdapProvider(1, "ldap", BASE, "ldap", options=LdapOptions(nested_groups=nested_groups))
    return Snapshot(compile_people(organisation()[1], provider))


def search(there: Snapshot, text: str, *attributes: str, base: str = BASE) -> dict[str, dict[str, set[str]]]:
    """Attributes by DN."""
    request = decode_message(encode.search(1, base, filter=text, attributes=attributes or ["1.1"]), Limits())
    assert isinstance(request, SearchRequest)
    found, octets = there.search(request, there.full_view()), b""
    while not found.finished:
        octets += found.read(1 << 20)
    entries = decode.entries(octets)
    for entry in entries:
        for _, values in entry.attributes:
            assert len(values) == len(set(values)), "nothing twice"
    return {e.dn.decode(): {n.decode(): {v.decode() for v in values} for n, values in e.attributes} for e in entries}


def dns(groups: frozenset[int] | set[int]) -> set[str]:
    return {f"cn=g{n},{GROUPS}" for n in groups}


def effective(user: User) -> set[int]:
    direct = {int(one, 16) for one in user.groups}
    return direct.union(*(closure()[one] for one in direct))


def test_the_organisation_is_what_it_says() -> None:
    sizes = [len(up) for up in closure().values()]
    assert len(sizes) == 5000 and max(sizes) > 10 and sum(one in up for one, up in closure().items()) > 500


def test_every_user_is_in_every_group_above_his() -> None:
    _, population = organisation()
    found = search(snapshot("effective"), "(objectClass=user)", "memberOf")
    assert len(found) == PEOPLE
    for user in population.users:
        assert found[f"cn={user.username},{USERS}"].get("memberOf", set()) == dns(effective(user))
    direct = search(snapshot("direct"), "(objectClass=user)", "memberOf")
    for user in population.users:
        assert direct[f"cn={user.username},{USERS}"].get("memberOf", set()) == dns({int(g, 16) for g in user.groups})


def test_every_group_is_in_every_group_above_it_but_never_in_itself() -> None:
    above, _ = organisation()
    found = search(snapshot("effective"), "(objectClass=group)", "memberOf", base=GROUPS)
    for one, up in closure().items():
        assert found[f"cn=g{one},{GROUPS}"].get("memberOf", set()) == dns(up - {one})
    direct = search(snapshot("direct"), "(objectClass=group)", "memberOf", base=GROUPS)
    for one, written in above.items():
        assert direct[f"cn=g{one},{GROUPS}"].get("memberOf", set()) == dns(written - {one})


def test_members_are_the_other_side() -> None:
    above, population = organisation()
    everybody: dict[int, set[str]] = {one: set() for one in above}
    for user in population.users:
        for one in effective(user):
            everybody[one].add(user.username)
    found = search(snapshot("effective"), "(objectClass=group)", "member", "memberUid", base=GROUPS)
    for one, names in everybody.items():
        held = found[f"cn=g{one},{GROUPS}"]
        below = dns({other for other, up in above.items() if one in up and other != one})
        assert held.get("memberUid", set()) == names
        assert held.get("member", set()) == {f"cn={name},{USERS}" for name in names} | below


@pytest.mark.parametrize("number", [0, 9, 10, 46, 62, 2345, 4999])
def test_filters_see_what_entries_show(number: int) -> None:
    """(memberOf=...) of the effective view, and LDAP_MATCHING_RULE_IN_CHAIN of either view, say the same."""
    _, population = organisation()
    dn = f"cn=g{number},{GROUPS}"
    users = {f"cn={u.username},{USERS}" for u in population.users if number in effective(u)}
    groups = dns({one for one, up in closure().items() if number in up and one != number})
    assert len(groups) > 0 or number % DEPTH == 0
    assert set(search(snapshot("effective"), f"(memberOf={dn})")) == users | groups
    assert set(search(snapshot("effective"), f"(&(objectClass=user)(memberOf={dn}))")) == users
    for nested_groups in ("direct", "effective"):
        found = search(snapshot(nested_groups), f"(&(objectClass=user)(memberOf:{IN_CHAIN}:={dn}))")
        assert set(found) == users
    some = sorted(users)[:3]
    for user in some:
        assert dn in search(snapshot("effective"), f"(member={user})", base=GROUPS)
        assert dn in search(snapshot("direct"), f"(member:{IN_CHAIN}:={user})", base=GROUPS)


def test_an_answer_costs_what_it_holds_and_not_how_it_came_about() -> None:
    """Users whose nested groups were worked out have octet for octet the entries of users who are in all of them."""
    _, population = organisation()
    flat = replace(
        population,
        users=tuple(replace(u, groups=tuple(map(pk, sorted(effective(u))))) for u in population.users),
    )
    provider = LdapProvider(1, "ldap", BASE, "ldap")
    same = Snapshot(compile_people(flat, provider))
    assert search(same, "(objectClass=user)", "*") == search(snapshot("effective"), "(objectClass=user)", "*")


@pytest.mark.parametrize("nested_groups", ["direct", "effective"])
def test_one_ring_of_all_groups(nested_groups: str) -> None:
    """The worst there is: everybody in one group is in all of them."""
    size = 300
    groups = tuple(Group(pk(n), n, f"g{n}", parents=(pk((n + 1) % size), pk((n + 7) % size))) for n in range(size))
    options = LdapOptions(nested_groups=nested_groups)
    provider = LdapProvider(1, "ldap", BASE, "ldap", options=options)
    there = Snapshot(compile_people(People((User(1, "u", groups=(pk(0),)),), groups, 1, 0.0), provider))
    assert len(search(there, f"(member:{IN_CHAIN}:=cn=u,{USERS})", base=GROUPS)) == size
    held = search(there, "(cn=u)", "memberOf", base=USERS)[f"cn=u,{USERS}"]["memberOf"]
    assert len(held) == (size if nested_groups == "effective" else 1)
