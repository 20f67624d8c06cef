"""From people to the arena: what is shared, what is counted, what is refused."""

import hashlib
import random
import struct
import uuid
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.errors import ConfigError
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap._arena import BASE, CONTAINER, GROUP, USER, VIRTUAL_GROUP, Builder, Links, memberships
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.schema import normal_form
from tests.ldap import decode, encode

BASE_DN = "dc=ldap,dc=io"
GROUPS = f"ou=groups,{BASE_DN}"
CHAIN = "1.2.840.113556.1.4.1941"


def compiled(users: list[User], groups: list[Group], **options: Any) -> Snapshot:
    provider = LdapProvider(1, "ldap", BASE_DN, "ldap", options=LdapOptions(**options))
    return Snapshot(compile_people(People(tuple(users), tuple(groups), 3, 0.0), provider))


def found(snapshot: Snapshot, filter: str, *attributes: str) -> list[decode.Entry]:
    request = decode_message(encode.search(1, snapshot.base_dn, filter, attributes), Limits())
    assert isinstance(request, SearchRequest)
    search, octets = snapshot.search(request, snapshot.full_view()), b""
    while not search.finished:
        octets += search.read(1 << 16)
    return decode.entries(octets)


def first(entries: list[decode.Entry]) -> list[str]:
    return [e.dn.decode().partition(",")[0][3:] for e in entries]


# -- nesting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", ["direct", "effective"])
def test_ten_deep(nested: str) -> None:
    """Every level's members are found through the chain; memberOf says what the provider asks for."""
    groups = [Group(f"g{n}", n, f"g{n}", parents=(f"g{n + 1}",)) for n in range(9)] + [Group("g9", 9, "g9")]
    users = [User(n + 1, f"u{n}", groups=(f"g{n}",)) for n in range(10)]
    snapshot = compiled(users, groups, nested_groups=nested)
    for level in range(10):
        members = first(found(snapshot, f"(&(objectClass=user)(memberOf=cn=g{level},{GROUPS}))"))
        everybody = [f"u{n}" for n in range(level + 1)]
        assert members == (everybody if nested == "effective" else [f"u{level}"])
        chained = first(found(snapshot, f"(&(objectClass=user)(memberOf:{CHAIN}:=cn=g{level},{GROUPS}))"))
        assert chained == everybody
        above = first(found(snapshot, f"(&(!(objectClass=user))(member:{CHAIN}:=cn=u{level},ou=users,{BASE_DN}))"))
        assert above == [*(f"g{n}" for n in range(level, 10)), f"u{level}"]
        (group,) = found(snapshot, f"(&(cn=g{level})(objectClass=group))", "memberUid")
        assert sorted(group["memberUid"]) == [m.encode() for m in members]


@pytest.mark.parametrize("nested", ["direct", "effective"])
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_cycles_end(nested: str, size: int) -> None:
    groups = [Group(f"g{n}", n, f"g{n}", parents=(f"g{(n + 1) % size}",)) for n in range(size)]
    snapshot = compiled([User(1, "alice", groups=("g0",))], groups, nested_groups=nested)
    names = sorted(f"g{n}" for n in range(size))
    for n in range(size):
        assert first(found(snapshot, f"(&(cn=alice)(memberOf:{CHAIN}:=cn=g{n},{GROUPS}))")) == ["alice"]
        assert first(found(snapshot, f"(member:{CHAIN}:=cn=g{n},{GROUPS})")) == (names if size > 1 else [])
        direct = first(found(snapshot, f"(&(cn=alice)(memberOf=cn=g{n},{GROUPS}))"))
        assert direct == (["alice"] if nested == "effective" or n == 0 else [])
    assert first(found(snapshot, f"(member:{CHAIN}:=cn=alice,ou=users,{BASE_DN})")) == [*names, "alice"]


def test_every_path_through_a_lattice_counts_once() -> None:
    groups = [
        Group(f"{level}-{n}", 1, f"g{level}-{n}", parents=tuple(f"{level + 1}-{m}" for m in range(4)))
        for level in range(8)
        for n in range(4)
    ]
    snapshot = compiled([User(1, "alice", groups=("0-0",))], groups, nested_groups="effective")
    (alice,) = found(snapshot, "(&(uid=alice)(objectClass=user))", "memberOf")
    assert len(set(alice["memberOf"])) == len(alice["memberOf"]) == 1 + 7 * 4


# -- what compiling costs ------------------------------------------------------------------------------


def test_shared_values_are_stored_once() -> None:
    """Twenty groups of a user are twenty numbers, and not twenty names, in every user and in every group."""
    count = 400
    groups = [Group(f"{n}", n, f"{'long-group-name-' * 5}{n}") for n in range(20)]
    users = [User(n, f"user{n}", groups=tuple(str(g) for g in range(20))) for n in range(count)]
    provider = LdapProvider(1, "ldap", BASE_DN, "ldap")
    without = len(compile_people(People(tuple(User(u.pk, u.username) for u in users), tuple(groups), 1, 0.0), provider))
    arena = compile_people(People(tuple(users), tuple(groups), 1, 0.0), provider)
    # memberOf, member, uniqueMember, memberUid and two index entries: 4 octets each, and once the lists themselves.
    assert len(arena) - without < count * 20 * 4 * 8
    assert arena.count(b"long-group-name-" * 5 + b"7,ou=groups") == 1


def test_of_equal_values_the_first_is_kept() -> None:
    snapshot = compiled(
        [User(1, "alice", groups=("g", "g"), attributes={"colour": ["Red", "RED", " red", "blue", "Blue"]})],
        [Group("g", 1, "g")],
    )
    (alice,) = found(snapshot, "(&(uid=alice)(objectClass=user))", "colour", "memberOf")
    assert alice["colour"] == [b"Red", b"blue"] and len(alice["memberOf"]) == 1
    (group,) = found(snapshot, "(&(cn=g)(objectClass=group))", "member", "memberUid")
    assert group["member"] == [b"cn=alice,ou=users,dc=ldap,dc=io"] and group["memberUid"] == [b"alice"]


def test_namesakes_do_not_share_an_entry() -> None:
    snapshot = compiled(
        [User(1, "Bob", groups=("a",)), User(2, "bob", groups=("b",))], [Group("a", 1, "A"), Group("b", 2, "b")]
    )
    assert snapshot.user_pk(b"cn=bob,ou=users,dc=ldap,dc=io") == 1
    assert snapshot.own_view(2) is None and snapshot.dn_of_user(2) is None
    (bob,) = found(snapshot, "(&(cn=bob)(objectClass=user))", "memberOf", "cn")
    assert bob["cn"] == [b"Bob"] and bob["memberOf"] == [f"cn=A,{GROUPS}".encode()]
    assert found(snapshot, f"(memberOf=cn=b,{GROUPS})") == []
    (users,) = found(snapshot, "(&(ou=users)(objectClass=nsContainer))", "numSubordinates")
    assert users["numSubordinates"] == [b"1"]


def test_one_odd_user_keeps_nobody_else_out() -> None:
    odd = [
        User(1, "a", attributes={"uidNumber": "--5", "x" * 5000: "y"}),
        User(2, ""),
        User(3, "b\0", attributes={"": "", "objectClass": [], "dn": "x"}),
        User(2**31, "big"),
        User(5, "a\u0301" * 3000),
        User(6, "z", attributes={f"k{n}": n for n in range(3000)}),
    ]
    snapshot = compiled(odd, [])
    assert {"a", "big", "z"} <= set(first(found(snapshot, "(objectClass=user)")))
    assert snapshot.dn_of_user(2**31) == b"cn=big,ou=users,dc=ldap,dc=io"
    assert len(found(snapshot, "(cn=z)")[0].attributes) > 3000
    assert first(found(snapshot, "(uidNumber>=0)")) == ["", "b\\00", "big", "z"]


def test_nobody_at_all() -> None:
    assert first(found(compiled([], []), "(objectClass=*)")) == ["ldap", "users", "groups", "virtual-groups"]


def test_a_base_that_is_no_dn_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="base DN"):
        compile_people(People((), (), 1, 0.0), LdapProvider(1, "ldap", "nonsense", "ldap"))


def test_order_of_the_roster_does_not_matter() -> None:
    users = [User(n, f"user{n}", groups=(str(n % 3), str((n + 1) % 3))) for n in range(20)]
    groups = [Group(str(n), n, f"group{n}") for n in range(3)]
    one = compiled(users, groups)
    random.Random(1).shuffle(users)
    random.Random(2).shuffle(groups)
    assert bytes(compiled(users, groups).arena) == bytes(one.arena)


def test_a_layout_has_a_version() -> None:
    """Arenas outlive a process on disk: octets that come out otherwise are another version, or other entries."""
    at = datetime(2024, 2, 29, 12, 30, 59, tzinfo=UTC)
    users = tuple(
        User(
            n * 3 + 1,
            f"{'Uu'[n % 2]}ser{n}",
            f"Jane Q. Doe {n}",
            f"user{n}@Example.org",
            f"{n:064x}",
            str(uuid.UUID(int=n)),
            groups=("g1", "g2")[: n % 3],
            attributes={"title": "Dr.", "mobile": [f"+49 {n}", "030/1"], "shoeSize": n, "uidNumber": 7}
            if n % 4
            else {},
            date_joined=at,
            last_updated=None if n % 5 else at + timedelta(seconds=n),
        )
        for n in range(40)
    )
    groups = (Group("g1", 1, "Group 1", parents=("g2",)), Group("g2", 2, "g2", True, attributes={"description": "two"}))
    options = LdapOptions(nested_groups="effective", samba=True, shadow=True, active_directory=True)
    arena = compile_people(People(users, groups, 3, 0.0), LdapProvider(1, "ldap", BASE_DN, "ldap", options=options))
    assert struct.unpack_from("<I", arena, 24) == (3,)
    assert hashlib.blake2b(arena, digest_size=8).hexdigest() == "97e6cfd7adddd931"


# -- the builder itself --------------------------------------------------------------------------------


def builder() -> Builder:
    names = [(b"cn", 0, 2, [b"cn"]), (b"member", 4, 2, [b"member"])]
    made = Builder(names, 2, normal_form)
    assert made.add(b"dc=io", -1, BASE, -1, (0,), [b"io"]) == 0
    assert made.add(b"ou=users,dc=io", 0, CONTAINER, -1, (), []) == 1
    return made


def test_memberships_are_ascending_and_once_each_way() -> None:
    reach = {"a": (10,), "b": (11, 10), "c": (12,), "many": range(13, 113)}
    users, groups = memberships([("c", "b", "gone", "c"), (), ("many", "a")], reach, 3, 10, 103)
    assert [list(array("I", one)) for one in users] == [[10, 11, 12], [], [10, *range(13, 113)]]
    assert [list(array("I", one)) for one in groups] == [[3, 5], [3], [3], *([5] for _ in range(100))]


@pytest.mark.parametrize("place", [9, 12])
def test_a_membership_in_what_is_no_group_is_refused(place: int) -> None:
    with pytest.raises(ValueError, match="no place of a group"):
        memberships([("a",)], {"a": (place,)}, 3, 10, 2)


@pytest.mark.parametrize("count", [-1, 3])
def test_links_are_no_more_than_there_are(count: int) -> None:
    entries = array("I", (1, 2)).tobytes()
    assert list(Links(entries, [b"", b"a", b"b"], True, 1)) == [b"a"]
    with pytest.raises(ValueError, match="more than there are"):
        Links(entries, [b"", b"a", b"b"], True, count)


def test_an_arena_by_hand() -> None:
    made = builder()
    assert made.add(b"cn=A,ou=users,dc=io", 1, USER, 7, (0, "member"), [b"A", ()]) == 2
    assert made.add(b"ou=groups,dc=io", 0, CONTAINER, -1, (), []) == 3
    assert made.add(b"cn=g,ou=groups,dc=io", 3, GROUP, -1, (1,), [[b"cn=a,ou=users,dc=io", b"no DN"]]) == 4
    assert made.add(b"cn=v,ou=groups,dc=io", 3, VIRTUAL_GROUP, 7, (1, 0), [b"CN=A,ou=users,dc=io", b""]) == 5
    snapshot = Snapshot(made.finish(9))
    assert (snapshot.generation, snapshot.entry_count, snapshot.user_pk(b"cn=a,ou=users,dc=io")) == (9, 6, 7)
    assert first(found(snapshot, "(member=cn=a,ou=users,dc=io)")) == ["g", "v"]
    (group,) = found(snapshot, "(&(member=cn=a,ou=users,dc=io)(!(cn=*))(member=*))")[:1]
    assert group["member"] == [b"cn=a,ou=users,dc=io", b"no DN"], (
        "what is none of its syntax is kept, and equals nothing"
    )
    assert found(snapshot, "(member=no DN)") == []


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda b: b.add(b"DC=IO", 0, USER, 1, (), []), "two entries"),
        (lambda b: b.add(b"nonsense", 1, USER, 1, (), []), "no DN"),
        (lambda b: b.add(b"cn=a,dc=io", 2, USER, 1, (), []), "out of order"),
        (lambda b: b.add(b"cn=a,dc=io", -1, USER, 1, (), []), "out of order"),
        (lambda b: b.add(b"ou=a,ou=users,dc=io", 1, CONTAINER, -1, (), []), "out of order"),
        (lambda b: b.add(b"dc=a,dc=io", 0, BASE, -1, (), []), "out of order"),
        (
            lambda b: (
                b.add(b"cn=a,dc=io", 1, USER, 1, (), []),
                b.add(b"cn=b,cn=a,dc=io", 2, USER, 2, (), []),
            ),
            "out of order",
        ),
        (lambda b: b.add(b"cn=a,dc=io", 1, USER, 1, (0, 1), [b"a"]), "as many values"),
        (lambda b: b.add(b"cn=a,dc=io", 1, USER, 1, (0, 1, 0), [b"a", (), ()]), "more names"),
        (lambda b: (b.finish(1), b.finish(1)), "nothing to finish"),
        (lambda b: (b.finish(1), b.add(b"cn=a,dc=io", 1, USER, 1, (), [])), "out of order"),
    ],
)
def test_the_builder_refuses(spoil: Callable[[Builder], object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        spoil(builder())


@pytest.mark.parametrize("name", [-1, 2, "sn"])
def test_the_builder_knows_no_other_attributes(name: int | str) -> None:
    with pytest.raises(LookupError):
        builder().add(b"cn=a,dc=io", 1, USER, 1, (name,), [b"a"])


def test_an_empty_arena_is_none() -> None:
    with pytest.raises(ValueError, match="nothing to finish"):
        Builder([], 0, normal_form).finish(1)


def test_too_many_attributes() -> None:
    with pytest.raises(ValueError, match="65535"):
        Builder(((str(n).encode(), 0, 0, []) for n in range(65_537)), 0, normal_form)
