"""Users and groups as entries: names, values and precedence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from outpost.errors import ConfigError
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap.dn import parse
from outpost.ldap.entries import (
    RESERVED,
    Directory,
    EntryValues,
    attribute_name,
    custom_values,
    generalized_time,
    text_value,
)
from outpost.ldap.schema import ATTRIBUTE_TYPES

PROVIDER = LdapProvider(1, "ldap", "DC=ldap,DC=goauthentik,DC=io", "ldap")
USERS = "ou=users,dc=ldap,dc=goauthentik,dc=io"
GROUPS = "ou=groups,dc=ldap,dc=goauthentik,dc=io"
OWN_GROUPS = "ou=virtual-groups,dc=ldap,dc=goauthentik,dc=io"
NESTED = LdapOptions(nested_groups="effective")


def directory(*people: User | Group, base: str = PROVIDER.base_dn, **options: Any) -> Directory:
    users = tuple(p for p in people if isinstance(p, User))
    groups = tuple(p for p in people if isinstance(p, Group))
    return Directory(People(users, groups, 1, 0.0), replace(PROVIDER, base_dn=base, options=LdapOptions(**options)))


def flat(entry: EntryValues) -> dict[str, list[bytes]]:
    found = {name: [value] if isinstance(value, bytes) else list(value) for name, value in entry.attributes}
    assert len(found) == len(entry.attributes) == len({name.lower() for name in found}), "no attribute twice"
    assert all(values for values in found.values()), "no attribute without values"
    return found


def entry(kind: str, *people: User | Group, **options: Any) -> dict[str, list[bytes]]:
    """The only entry of this kind."""
    (found,) = [e for e in directory(*people, **options).entries() if e.kind == kind]
    return flat(found)


def by_dn(*people: User | Group, **options: Any) -> dict[str, dict[str, list[bytes]]]:
    return {e.dn.decode(): flat(e) for e in directory(*people, **options).entries()}


def user(pk: int = 5, username: str = "alice", **fields: Any) -> User:
    return User(pk, username, **fields)


# -- the tree ------------------------------------------------------------------------------------------


def test_order_and_names_of_entries() -> None:
    found = directory(user(2, "bob"), user(1, "Alice"), Group("g2", 2, "staff"), Group("g1", 1, "Admins")).entries()
    assert [(e.kind, e.user_pk, e.dn.decode()) for e in found] == [
        ("base", -1, "DC=ldap,DC=goauthentik,DC=io"),
        ("container", -1, USERS),
        ("user", 1, f"cn=Alice,{USERS}"),
        ("user", 2, f"cn=bob,{USERS}"),
        ("container", -1, GROUPS),
        ("group", -1, f"cn=Admins,{GROUPS}"),
        ("group", -1, f"cn=staff,{GROUPS}"),
        ("container", -1, OWN_GROUPS),
        ("virtual_group", 1, f"cn=Alice,{OWN_GROUPS}"),
        ("virtual_group", 2, f"cn=bob,{OWN_GROUPS}"),
    ]


@pytest.mark.parametrize(
    ("base", "attribute", "value", "structural"),
    [
        ("DC=ldap,DC=io", "dc", b"ldap", b"domain"),
        ("o=Acme Inc.,c=DE", "o", b"Acme Inc.", b"organization"),
        ("organizationName=Acme", "o", b"Acme", b"organization"),
        ("OU=x+L=y,dc=z", "ou", b"x", b"organizationalUnit"),
        ("c=DE", "c", b"DE", b"country"),
        ("l=Berlin", "l", b"Berlin", b"locality"),
        ("cn=directory", "cn", b"directory", b"organizationalUnit"),
        ("o=a\\, b", "o", b"a, b", b"organization"),
    ],
)
def test_the_base_is_what_it_is_named_by(base: str, attribute: str, value: bytes, structural: bytes) -> None:
    found = entry("base", base=base)
    assert found[attribute] == [value]
    assert found["objectClass"] == [b"top", structural]
    assert found["structuralObjectClass"] == [structural]
    assert found["entryDN"] == found["distinguishedName"] == [base.encode()]
    if structural == b"organizationalUnit":
        assert found["ou"]


@pytest.mark.parametrize("base", ["", "nonsense", "dc=a,", "cn=\0"])
def test_a_base_that_is_no_dn_is_a_wrong_setting(base: str) -> None:
    with pytest.raises(ConfigError, match="base DN"):
        directory(base=base)


def test_containers_say_what_they_hold() -> None:
    found = by_dn(user(1, "a"), user(2, "b"), Group("g", 1, "g"))
    assert [found[dn]["numSubordinates"] for dn in (USERS, GROUPS, OWN_GROUPS)] == [[b"2"], [b"1"], [b"2"]]
    assert found[PROVIDER.base_dn]["numSubordinates"] == [b"3"]
    for dn, name in ((USERS, b"users"), (GROUPS, b"groups"), (OWN_GROUPS, b"virtual-groups")):
        assert found[dn]["ou"] == found[dn]["cn"] == [name]
        assert found[dn]["objectClass"] == [b"top", b"organizationalUnit", b"nsContainer"]
        assert found[dn]["hasSubordinates"] == [b"TRUE"]
    assert by_dn()[USERS]["hasSubordinates"] == [b"FALSE"]


@pytest.mark.parametrize(
    "name",
    [
        "a,b",
        "a+b",
        'q"q',
        "#x",
        " lead",
        "trail ",
        "back\\slash",
        "a=b",
        "<x>",
        "ü",
        "nul\0",
        "new\nline",
        "a;b",
        "  ",
        "%s",
    ],
)
def test_names_are_escaped_and_come_back(name: str) -> None:
    found = directory(user(1, name), Group("g", 1, name))
    for e in found.entries():
        if e.kind in ("user", "group", "virtual_group"):
            assert parse(e.dn.decode())[0] == (("cn", name),)
            assert flat(e)["cn"] == [name.encode()]
    assert found.left_out == []


def test_rdn_attribute() -> None:
    found = by_dn(user(username="a,b", groups=("g",)), Group("g", 1, "g"), rdn_attribute="uid", uid="username")
    dn = f"uid=a\\,b,{USERS}"
    assert found[dn]["uid"] == [b"a,b"]
    assert found[f"cn=g,{GROUPS}"]["member"] == found[f"cn=a\\,b,{OWN_GROUPS}"]["member"] == [dn.encode()]


def test_namesakes_are_left_out_everywhere() -> None:
    """What DNs cannot tell apart must not become one identity: the first by name stays."""
    made = directory(
        user(1, "Alice", groups=("g1",)),
        user(2, "alice", groups=("g1", "g2")),
        user(3, "ALICE", groups=("g3",)),
        user(4, "x" * 8200, groups=("g1",)),
        user(1, "again", groups=("g1",)),
        Group("g1", 1, "Staff"),
        Group("g2", 2, "staff", parents=("g1",)),
        Group("g3", 3, "other", parents=("g2",)),
    )
    found = {e.dn.decode(): flat(e) for e in made.entries()}
    assert sorted(made.left_out) == sorted(["Alice", "alice", "x" * 8200, "staff"])
    assert [dn for dn in found if dn.endswith(f",{USERS}")] == [f"cn=ALICE,{USERS}", f"cn=again,{USERS}"]
    assert found[f"cn=Staff,{GROUPS}"]["memberUid"] == [b"again"]
    assert found[f"cn=other,{GROUPS}"]["memberUid"] == [b"ALICE"]
    assert found[f"cn=ALICE,{USERS}"]["memberOf"] == [f"cn=other,{GROUPS}".encode()]
    assert "memberOf" not in found[f"cn=other,{GROUPS}"], "its parent is not there"
    assert found[USERS]["numSubordinates"] == [b"2"]


# -- users (the built-in attributes) -------------------------------------------------------------------


def test_a_user() -> None:
    joined = datetime(2024, 1, 2, 3, 4, 5, 999999, tzinfo=UTC)
    found = entry(
        "user",
        user(
            name="Alice van Adams",
            email="Alice@Example.org",
            uid="f" * 64,
            uuid="0b5a0c5c-0000-4000-8000-000000000001",
            is_superuser=True,
            groups=("g", "gone"),
            date_joined=joined,
            last_updated=joined.astimezone(timezone(timedelta(hours=2))),
            password_change_date=joined.replace(tzinfo=None),
        ),
        Group("g", 1, "staff"),
    )
    dn = f"cn=alice,{USERS}".encode()
    assert found == {
        "objectClass": [
            b"top", b"person", b"organizationalPerson", b"inetOrgPerson", b"user", b"posixAccount",
            b"goauthentik.io/ldap/user",
        ],
        "cn": [b"alice"],
        "sAMAccountName": [b"alice"],
        "uid": [b"f" * 64],
        "name": [b"Alice van Adams"],
        "displayName": [b"Alice van Adams"],
        "sn": [b"Adams"],
        "givenName": [b"Alice van"],
        "mail": [b"Alice@Example.org"],
        "uidNumber": [b"2005"],
        "gidNumber": [b"2005"],
        "homeDirectory": [b"/home/alice"],
        "ak-active": [b"TRUE"],
        "ak-superuser": [b"TRUE"],
        "memberOf": [f"cn=staff,{GROUPS}".encode()],
        "distinguishedName": [dn],
        "entryDN": [dn],
        "entryUUID": [b"0b5a0c5c-0000-4000-8000-000000000001"],
        "structuralObjectClass": [b"goauthentik.io/ldap/user"],
        "hasSubordinates": [b"FALSE"],
        "subschemaSubentry": [b"cn=subschema"],
        "createTimestamp": [b"20240102030405Z"],
        "modifyTimestamp": [b"20240102030405Z"],
        "pwdChangedTime": [b"20240102030405Z"],
    }  # fmt: skip


def test_what_is_empty_is_left_out() -> None:
    found = entry("user", user())
    absent = {
        "name",
        "displayName",
        "givenName",
        "mail",
        "memberOf",
        "createTimestamp",
        "modifyTimestamp",
        "pwdChangedTime",
    }
    assert absent.isdisjoint(found)
    assert (found["sn"], found["uid"]) == ([b"alice"], [b"alice"])
    assert found["entryUUID"] == entry("user", user(name="other"))["entryUUID"] != entry("user", user(6))["entryUUID"]
    group = entry("group", Group("g", 1, "empty"))
    assert {"member", "uniqueMember", "memberUid", "memberOf"}.isdisjoint(group)


@pytest.mark.parametrize(
    ("name", "given", "family"),
    [("Alice Adams", b"Alice", b"Adams"), ("Cher", None, b"Cher"), ("  A  B  ", b"A", b"B"), ("", None, b"alice")],
)
def test_full_names(name: str, given: bytes | None, family: bytes) -> None:
    found = entry("user", user(name=name))
    assert (found.get("givenName"), found["sn"]) == ([given] if given else None, [family])


@pytest.mark.parametrize(
    ("attributes", "uid_number", "gid_number", "own_group"),
    [
        ({}, b"2005", b"2005", b"2005"),
        ({"uidNumber": "77"}, b"77", b"77", b"77"),
        ({"gidNumber": "88"}, b"2005", b"88", b"88"),
        ({"uidNumber": "77", "gidNumber": "88"}, b"77", b"88", b"88"),
        ({"uidNumber": 77}, b"77", b"77", b"77"),
        ({"uidNumber": " 77 "}, b" 77 ", b"77", b"77"),
        ({"uidNumber": "-1"}, b"-1", b"-1", b"-1"),
        ({"uidNumber": "--5"}, b"--5", b"2005", b"2005"),
        ({"uidNumber": "²"}, "²".encode(), b"2005", b"2005"),
        ({"uidNumber": "x"}, b"x", b"2005", b"2005"),
        ({"uidNumber": True}, b"TRUE", b"2005", b"2005"),
        ({"uidNumber": None}, b"2005", b"2005", b"2005"),
    ],
)
def test_numbers(attributes: dict[str, Any], uid_number: bytes, gid_number: bytes, own_group: bytes) -> None:
    """One person's odd attribute is shown as it is, and never keeps the others out."""
    found = entry("user", user(attributes=attributes))
    assert (found["uidNumber"], found["gidNumber"]) == ([uid_number], [gid_number])
    assert entry("virtual_group", user(attributes=attributes))["gidNumber"] == [own_group]


# -- groups --------------------------------------------------------------------------------------------


def test_a_group() -> None:
    found = by_dn(
        user(1, "alice", groups=("g", "g")),
        user(2, "bob", groups=("g",)),
        Group(
            "g",
            17,
            "staff",
            is_superuser=True,
            parents=("up", "gone"),
            attributes={"description": "d", "gidNumber": "5"},
        ),
        Group("up", 18, "all"),
        Group("down", 19, "interns", parents=("g",)),
    )
    dn = f"cn=staff,{GROUPS}".encode()
    members = [f"cn=alice,{USERS}".encode(), f"cn=bob,{USERS}".encode(), f"cn=interns,{GROUPS}".encode()]
    group = found[dn.decode()]
    assert group.pop("member") == group.pop("uniqueMember") == members
    assert group.pop("memberUid") == [b"alice", b"bob"]
    assert group == {
        "objectClass": [
            b"top", b"group", b"groupOfUniqueNames", b"groupOfNames", b"goauthentik.io/ldap/group", b"posixGroup",
        ],
        "cn": [b"staff"],
        "sAMAccountName": [b"staff"],
        "uid": [b"g"],
        "gidNumber": [b"5"],
        "ak-superuser": [b"TRUE"],
        "memberOf": [f"cn=all,{GROUPS}".encode()],
        "distinguishedName": [dn],
        "entryDN": [dn],
        "entryUUID": [b"g"],
        "structuralObjectClass": [b"groupOfUniqueNames"],
        "hasSubordinates": [b"FALSE"],
        "subschemaSubentry": [b"cn=subschema"],
        "description": [b"d"],
    }  # fmt: skip
    assert found[f"cn=all,{GROUPS}"]["gidNumber"] == [b"4018"]
    assert found[f"cn=all,{GROUPS}"]["ak-superuser"] == [b"FALSE"]


def test_a_virtual_group() -> None:
    found = entry("virtual_group", user(uid="abc", is_superuser=True, attributes={"cn": "x", "colour": "red"}))
    dn = f"cn=alice,{OWN_GROUPS}".encode()
    me = f"cn=alice,{USERS}".encode()
    assert found["objectClass"][-1] == b"goauthentik.io/ldap/virtual-group"
    assert found["member"] == found["uniqueMember"] == [me]
    assert (found["memberUid"], found["cn"], found["uid"]) == ([b"alice"], [b"alice"], [b"abc"])
    assert (found["entryDN"], found["ak-superuser"]) == ([dn], [b"FALSE"])
    assert "colour" not in found and "memberOf" not in found
    assert found["entryUUID"] != entry("user", user(uid="abc"))["entryUUID"]


def chain(count: int, *, close: bool = False) -> list[Group]:
    """Groups of which each is in the next; closed: the last in the first."""
    return [
        Group(f"g{n}", n, f"g{n}", parents=(f"g{n + 1}",) if n + 1 < count else (("g0",) if close else ()))
        for n in range(count)
    ]


@pytest.mark.parametrize("close", [False, True])
def test_effective_membership(close: bool) -> None:
    people = [user(1, "alice", groups=("g0",)), user(2, "bob", groups=("g3", "g1")), *chain(5, close=close)]
    direct, nested = by_dn(*people), by_dn(*people, nested_groups="effective")

    def groups(found: dict[str, dict[str, list[bytes]]], dn: str) -> list[str]:
        held = [v.decode().partition(",")[0][3:] for v in found[dn].get("memberOf", [])]
        assert len(set(held)) == len(held)
        return sorted(held)

    everywhere = ["g0", "g1", "g2", "g3", "g4"]
    assert groups(direct, f"cn=alice,{USERS}") == ["g0"]
    assert groups(direct, f"cn=bob,{USERS}") == ["g1", "g3"]
    assert groups(nested, f"cn=alice,{USERS}") == everywhere
    assert groups(nested, f"cn=bob,{USERS}") == (everywhere if close else everywhere[1:])
    assert groups(direct, f"cn=g1,{GROUPS}") == ["g2"]
    assert groups(nested, f"cn=g1,{GROUPS}") == ["g0", "g2", "g3", "g4"][0 if close else 1 :]
    for n in range(5):
        group = nested[f"cn=g{n},{GROUPS}"]
        expected = [b"alice", b"bob"] if n or close else [b"alice"]
        assert sorted(group["memberUid"]) == expected
        below = [m for m in group["member"] if m.endswith(GROUPS.encode())]
        assert below == ([f"cn=g{(n - 1) % 5},{GROUPS}".encode()] if n or close else [])
        assert len(set(group["member"])) == len(group["member"])


def test_a_group_within_itself() -> None:
    for options in ({}, {"nested_groups": "effective"}):
        found = by_dn(user(groups=("g",)), Group("g", 1, "g", parents=("g",)), **options)
        assert found[f"cn=alice,{USERS}"]["memberOf"] == [f"cn=g,{GROUPS}".encode()]
        assert found[f"cn=g,{GROUPS}"]["member"] == [f"cn=alice,{USERS}".encode()]
        assert "memberOf" not in found[f"cn=g,{GROUPS}"]


# -- custom attributes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("colour", "colour"),
        ("goauthentik.io/user/service-account", "goauthentikio-user-service-account"),
        ("GOAUTHENTIK.IO/user/Service-Account", "goauthentikio-user-service-account"),
        ("x.y/z", "xy-z"),
        ("with space", "with-space"),
        ("ümlaut", "x--mlaut"),
        ("", "x-"),
        ("5th", "x-5th"),
        ("_x", "x-_x"),
        ("a;binary", "a-binary"),
        ("under_score", "under_score"),
        ("MAIL", "mail"),
        ("surname", "sn"),
        ("CommonName", "cn"),
        ("a\0b", "a-b"),
    ],
)
def test_attribute_names(key: str, name: str) -> None:
    assert attribute_name(key) == name


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        ("text", b"text"),
        ("ü", "ü".encode()),
        (True, b"TRUE"),
        (False, b"FALSE"),
        (5, b"5"),
        (-5, b"-5"),
        (5.0, b"5"),
        (2.5, b"2.5"),
        (10**20, b"100000000000000000000"),
        (1e21, b"1000000000000000000000"),
        (datetime(2024, 1, 2, tzinfo=UTC), b"20240102000000Z"),
        ({"b": [1, "ü"], "a": None}, '{"a": null, "b": [1, "ü"]}'.encode()),
        ([1, "x"], b'[1, "x"]'),
    ],
)
def test_text_of_values(value: Any, octets: bytes) -> None:
    assert text_value(value) == octets


def test_custom_values() -> None:
    found = custom_values(
        {
            "list": ["a", None, 5, "", ["n"]],
            "none": None,
            "empty": "",
            "nothing": [],
            "home": "/srv/%s/%d/%s",
            "radius": {"Reply-Message": "x"},
            "Colour": "red",
            "colour": "blue",
        },
        "alice",
    )
    assert found == {
        "list": ("list", [b"a", b"5", b'["n"]']),
        "home": ("home", [b"/srv/alice/%d/alice"]),
        "colour": ("Colour", [b"red"]),
    }
    assert custom_values({"home": "/srv/%s"}, None) == {"home": ("home", [b"/srv/%s"])}
    assert custom_values({"radius": "text"}, None) == {"radius": ("radius", [b"text"])}


def test_custom_attributes_take_the_place_of_built_in_ones() -> None:
    found = entry(
        "user",
        user(
            name="Alice Adams",
            email="a@x",
            attributes={
                "MAIL": ["b@x", "c@x"], "displayName": "Ally", "objectClass": ["top", "custom"], "colour": "red",
                "sAMAccountName": "ALI", "rfc822Mailbox": "ignored@x", "surname": "Other", "givenName": None,
                "homeDirectory": "/srv/%s",
            },
        ),
    )  # fmt: skip
    assert found["mail"] == [b"b@x", b"c@x"]
    assert found["displayName"] == [b"Ally"] and found["name"] == [b"Alice Adams"]
    assert found["objectClass"] == [b"top", b"custom"]
    assert found["homeDirectory"] == [b"/srv/alice"]
    assert found["sn"] == [b"Other"] and found["givenName"] == [b"Alice"]
    assert found["colour"] == [b"red"] and found["sAMAccountName"] == [b"ALI"]
    group = entry("group", Group("g", 1, "staff", attributes={"cn": "Staff!", "member": "cn=x", "home": "%s"}))
    assert (group["cn"], group["home"]) == ([b"Staff!"], [b"%s"]) and "member" not in group


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_cannot_be_set(name: str) -> None:
    """Who is in a group, and what an entry is called, is not said by an attribute."""
    spellings = {n for t in ATTRIBUTE_TYPES if t.name.lower() == name for n in (t.name, *t.aliases)} | {
        name,
        name.upper(),
    }
    for spelling in spellings:
        attributes = {spelling: f"cn=admins,{GROUPS}"}
        people = (user(groups=("g",)), Group("g", 1, "g"))
        assert entry("user", replace(people[0], attributes=attributes), people[1]) == entry("user", *people)
        assert entry("group", people[0], replace(people[1], attributes=attributes)) == entry("group", *people)


def test_reserved_is_what_decides_about_membership_or_names() -> None:
    assert {
        "memberof",
        "member",
        "uniquemember",
        "memberuid",
        "entrydn",
        "distinguishedname",
        "userpassword",
    } <= RESERVED
    assert RESERVED >= {t.name.lower() for t in ATTRIBUTE_TYPES if t.usage == "directoryOperation" and t.single} - {
        "namingcontexts"
    }


def test_custom_names() -> None:
    made = directory(
        user(1, "a", attributes={"colour": "x", "mail": "y"}), user(2, "b", attributes={"COLOUR": "x", "shoe": "4"})
    )
    assert made.custom_names() == ["colour", "shoe"]


def test_generalized_time_is_utc_in_whole_seconds() -> None:
    assert generalized_time(datetime(2024, 2, 29, 23, 30, tzinfo=timezone(timedelta(hours=-2)))) == b"20240301013000Z"
    assert generalized_time(datetime(2024, 2, 29, 23, 30, 1, 999999)) == b"20240229233001Z"
    assert generalized_time(datetime(987, 2, 3, tzinfo=UTC)) == b"09870203000000Z"
