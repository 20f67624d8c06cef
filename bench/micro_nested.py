"""What nested groups cost a search: 10,000 users, 5,000 groups ten deep, cycles: `pytest bench/micro_nested.py`.

`effective` is worked out from the nesting; `flat` is the same memberships written out, so that both answer the same
octets; `direct` is the same file without nesting, whose users are in fewer groups.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from bench.population import BASE_DN
from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import Directory
from tests.ldap import encode

USERS, CHAINS, DEPTH, QUERIES = 10_000, 500, 10, 500
CASES = {
    "one_user_three_attributes": ("(cn=user{user})", ["cn", "mail", "uid"]),
    "one_user_memberships": ("(cn=user{user})", ["memberOf"]),
    "one_user_everything": ("(cn=user{user})", ["*"]),
    "is_a_member": (f"(&(cn=user{{user}})(memberOf=cn=group{{group}},ou=groups,{BASE_DN}))", ["1.1"]),
}
EFFECTIVE = LdapProvider(1, "ldap", BASE_DN, "ldap", options=LdapOptions(nested_groups="effective"))
DIRECT = LdapProvider(1, "ldap", BASE_DN, "ldap")


@cache
def people() -> People:
    chance = random.Random(1)
    groups = []
    for number in range(CHAINS * DEPTH):
        chain, level = divmod(number, DEPTH)
        parents = [number + 1] if level + 1 < DEPTH else [chain * DEPTH] * (chain % 10 == 0)
        groups.append(Group(f"g{number}", number, f"group{number}", parents=tuple(f"g{one}" for one in parents)))
    users = tuple(
        User(
            u,
            f"user{u}",
            f"User Number {u}",
            f"user{u}@example.org",
            uid=f"{u:064x}",
            groups=tuple(f"g{chance.randrange(CHAINS) * DEPTH + chance.randrange(DEPTH)}" for _ in range(4)),
        )
        for u in range(1, USERS + 1)
    )
    return People(users, tuple(groups), 1, 0.0)


@cache
def snapshot(kind: str) -> Snapshot:
    population = people()
    if kind == "flat":
        directory = Directory(population, EFFECTIVE)
        users = tuple(
            replace(user, groups=(*user.groups, *(above for pk in user.groups for above in directory.ancestors(pk))))
            for user in population.users
        )
        population = replace(population, users=users)
    return Snapshot(compile_people(population, EFFECTIVE if kind == "effective" else DIRECT))


@pytest.mark.parametrize("kind", ["flat", "effective", "direct"])
@pytest.mark.parametrize("case", CASES)
def test_search(benchmark: Any, case: str, kind: str) -> None:
    there = snapshot(kind)
    text, attributes = CASES[case]
    chance = random.Random(2)
    requests = []
    for _ in range(QUERIES):
        filled = text.format(user=chance.randrange(1, USERS + 1), group=chance.randrange(CHAINS * DEPTH))
        request = decode_message(encode.search(1, BASE_DN, filter=filled, attributes=attributes), Limits())
        assert isinstance(request, SearchRequest)
        requests.append(request)
    view = there.full_view()

    def ask() -> int:
        size = 0
        for request in requests:
            found = there.search(request, view)
            while not found.finished:
                size += len(found.read(1 << 20))
        return size

    benchmark.extra_info["octets"] = benchmark(ask) / QUERIES


@pytest.mark.parametrize("kind", ["direct", "effective"])
def test_build(benchmark: Any, kind: str) -> None:
    provider = EFFECTIVE if kind == "effective" else DIRECT
    benchmark.pedantic(lambda: Snapshot(compile_people(people(), provider)), rounds=3)
