"""What the switches of a provider add to entries: Windows, Samba and shadow attributes, SIDs, defaults."""

import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.config.settings import load
from outpost.errors import ConfigError
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import Directory
from outpost.ldap.schema import ATTRIBUTE_TYPES, OBJECT_CLASSES
from outpost.ldap.sids import dns_domain, domain_sid, group_rid, guid, netbios_name, packed, user_rid
from tests.ldap import decode, encode
from tests.ldap.generate import people

BASE = "dc=example,dc=com"
PROVIDER = LdapProvider(1, "ldap", BASE, "ldap")
UUID = "0b5a0c5c-1122-4333-8444-5566778899aa"
STAFF = "11111111-2222-4333-8444-555555555555"
SID = "S-1-5-21-1-22-333"
CHANGED = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
ALL = {"samba": True, "active_directory": True, "shadow": True}
HASHES = ("sambaNTPassword", "SAMBALMPASSWORD", "sambaPasswordHistory", "unicodePwd", "userPassword", "krbPrincipalKey")

Entries = dict[str, dict[str, list[bytes]]]


def by_rdn(*folk: User | Group, base: str = BASE, **options: Any) -> Entries:
    """Attributes of every entry by the first two RDNs of its DN."""
    users = tuple(p for p in folk if isinstance(p, User))
    groups = tuple(p for p in folk if isinstance(p, Group))
    provider = replace(PROVIDER, base_dn=base, options=LdapOptions(**options))
    found = {}
    for entry in Directory(People(users, groups, 1, 0.0), provider).entries():
        rdn = entry.dn.decode()[: -len(base)].rstrip(",")
        found[rdn] = {n: [v] if isinstance(v, bytes) else list(v) for n, v in entry.attributes}
        assert len(found[rdn]) == len(entry.attributes)
        assert all(found[rdn].values())
    return found


def alice(**fields: Any) -> User:
    return User(5, "alice", **{"uuid": UUID, "password_change_date": CHANGED, "groups": (STAFF,)} | fields)


GROUP = Group(STAFF, 17, "staff")
USER, OWN, TEAM = "cn=alice,ou=users", "cn=alice,ou=virtual-groups", "cn=staff,ou=groups"


# -- switches ------------------------------------------------------------------------------------------


def test_nothing_of_it_without_a_switch() -> None:
    off = by_rdn(alice(), GROUP)
    for entry in off.values():
        assert not {n for n in entry if n.startswith(("samba", "shadow", "object")) and n != "objectClass"}
        assert not {"userPrincipalName", "userAccountControl", "primaryGroupID", "groupType", "loginShell"} & set(entry)
    on = by_rdn(alice(), GROUP, **ALL)
    assert set(on) - set(off) == {"sambaDomainName=EXAMPLE"}
    for rdn, entry in off.items():
        for name, values in entry.items():
            if name not in {"objectClass", "numSubordinates"}:
                assert on[rdn][name] == values, "a switch adds and changes nothing"
        assert on[rdn]["objectClass"][: len(entry["objectClass"])] == entry["objectClass"]
    assert (off[""]["numSubordinates"], on[""]["numSubordinates"]) == ([b"3"], [b"4"])


def test_active_directory() -> None:
    found = by_rdn(alice(), GROUP, active_directory=True, domain_sid=SID)
    user = found[USER]
    assert user["objectGUID"] == [uuid.UUID(UUID).bytes_le]
    assert user["objectGUID"][0].hex() == "5c0c5a0b221133438444" + "5566778899aa"
    assert user["userPrincipalName"] == [b"alice@example.com"]
    assert user["userAccountControl"] == [b"512"]
    assert user["objectSid"] == [packed(f"{SID}-{2 * 2005 + 1000}")]
    assert user["primaryGroupID"] == [str(2 * 2005 + 1001).encode()]
    assert found[OWN]["objectSid"] == [packed(f"{SID}-{2 * 2005 + 1001}")]
    assert found[TEAM]["objectSid"] == [packed(f"{SID}-{2 * 4017 + 1001}")]
    assert found[TEAM]["objectGUID"] == [uuid.UUID(STAFF).bytes_le]
    assert found[TEAM]["groupType"] == found[OWN]["groupType"] == [b"-2147483646"]
    assert found[""]["objectSid"] == [packed(SID)] and len(found[""]["objectGUID"][0]) == 16
    assert not any("samba" in name for entry in found.values() for name in entry)
    off = by_rdn(alice(is_active=False), active_directory=True)[USER]
    assert int(off["userAccountControl"][0]) & 2, "(userAccountControl:1.2.840.113556.1.4.803:=2) finds who is disabled"


def test_samba() -> None:
    found = by_rdn(alice(), GROUP, samba=True, domain_sid=SID)
    user = found[USER]
    assert user["objectClass"][-1] == b"sambaSamAccount"
    assert user["sambaSID"] == [f"{SID}-{2 * 2005 + 1000}".encode()]
    assert user["sambaPrimaryGroupSID"] == found[OWN]["sambaSID"] == [f"{SID}-{2 * 2005 + 1001}".encode()]
    assert user["sambaAcctFlags"] == [b"[U          ]"]
    assert user["sambaPwdLastSet"] == [str(int(CHANGED.timestamp())).encode()]
    assert found[TEAM]["objectClass"][-1] == found[OWN]["objectClass"][-1] == b"sambaGroupMapping"
    assert found[TEAM]["sambaGroupType"] == [b"2"]
    domain = found["sambaDomainName=EXAMPLE"]
    assert domain["objectClass"] == [b"top", b"sambaDomain"]
    assert (domain["sambaSID"], domain["sambaDomainName"]) == ([SID.encode()], [b"EXAMPLE"])
    assert domain["sambaNextRid"] == domain["sambaAlgorithmicRidBase"] == [b"1000"]
    assert domain["hasSubordinates"] == [b"FALSE"]
    assert not any(name in entry for entry in found.values() for name in ("objectSid", "objectGUID"))
    assert by_rdn(alice(is_active=False), samba=True)[USER]["sambaAcctFlags"] == [b"[DU         ]"]


@pytest.mark.parametrize("name", HASHES)
def test_no_switch_and_no_custom_attribute_serves_a_password_hash(name: str) -> None:
    attributes = {name: "8846F7EAEE8FB117AD06BDD830B7586C"}
    for options in ({}, ALL):
        folk = (alice(attributes=attributes), replace(GROUP, attributes=attributes))
        for entry in by_rdn(*folk, **options).values():
            assert name.lower() not in {n.lower() for n in entry}


def test_shadow() -> None:
    user = by_rdn(alice(), shadow=True)[USER]
    assert user["objectClass"][-1] == b"shadowAccount"
    assert user["shadowLastChange"] == [b"19724"], "days from 1970-01-01 to 2024-01-02"
    user = by_rdn(alice(password_change_date=None), shadow=True)[USER]
    assert user["objectClass"][-1] == b"shadowAccount" and "shadowLastChange" not in user
    user = by_rdn(alice(password_change_date=CHANGED.replace(tzinfo=None)), shadow=True)[USER]
    assert user["shadowLastChange"] == [b"19724"]


@pytest.mark.parametrize(
    ("base", "options", "username", "upn"),
    [
        (BASE, {}, "alice", b"alice@example.com"),
        ("DC=Example,DC=COM", {}, "alice", b"alice@example.com"),
        ("ou=x,dc=example+l=y,0.9.2342.19200300.100.1.25=com", {}, "alice", b"alice@example.com"),
        (BASE, {"domain": "Corp.example"}, "alice", b"alice@corp.example"),
        ("o=acme", {}, "alice", b"alice"),
        ("o=acme", {"domain": "acme.example"}, "alice", b"alice@acme.example"),
        (BASE, {}, "alice@other.example", b"alice@other.example"),
    ],
)
def test_principal_names(base: str, options: dict[str, Any], username: str, upn: bytes) -> None:
    found = by_rdn(User(1, username), base=base, active_directory=True, **options)
    (user,) = [entry for rdn, entry in found.items() if rdn.endswith("ou=users") and rdn.startswith("cn=")]
    assert user["userPrincipalName"] == [upn]


@pytest.mark.parametrize(
    ("base", "options", "name"),
    [
        (BASE, {}, "EXAMPLE"),
        (BASE, {"domain": "corp.example.com"}, "CORP"),
        (BASE, {"samba_domain": "Work_Group"}, "Work_Group"),
        ("o=Acme Widgets International,c=de", {}, "ACME-WIDGETS-IN"),
        ("o=ü", {}, "DOMAIN"),
        ("o=#0401ff", {}, "DOMAIN"),
    ],
)
def test_names_of_domains(base: str, options: dict[str, Any], name: str) -> None:
    found = by_rdn(base=base, samba=True, **options)
    assert found[f"sambaDomainName={name}"]["sambaDomainName"] == [name.encode()]


def test_defaults_give_way_to_what_somebody_has() -> None:
    options = {"home_directory": "/srv/%s/home", "login_shell": "/bin/bash"}
    own = {"loginShell": "/bin/zsh", "homeDirectory": "/root"}
    found = by_rdn(alice(), User(6, "bob", attributes=own), **options)
    assert found[USER]["loginShell"] == [b"/bin/bash"] and found[USER]["homeDirectory"] == [b"/srv/alice/home"]
    bob = found["cn=bob,ou=users"]
    assert bob["loginShell"] == [b"/bin/zsh"] and bob["homeDirectory"] == [b"/root"]
    assert "homeDirectory" not in by_rdn(alice(), home_directory="")[USER]
    odd = {"sambaSID": "S-1-5-21-9-9-9-1234", "sambaAcctFlags": "[UX         ]", "shadowMax": "90"}
    user = by_rdn(alice(attributes=odd), **ALL)[USER]
    assert [user[n] for n in odd] == [[v.encode()] for v in odd.values()]


def test_custom_values_add_to_the_built_in_ones_on_demand() -> None:
    own = {
        "mail": ["a@example.org", "alice@example.com"],
        "uidNumber": "77",
        "colour": "red",
        "objectClass": "hostObject",
    }
    replaced, added = (
        by_rdn(alice(email="alice@example.com", attributes=own), custom_attributes=how)[USER]
        for how in ("replace", "add")
    )
    assert replaced["mail"] == [b"a@example.org", b"alice@example.com"] and replaced["objectClass"] == [b"hostObject"]
    assert added["mail"] == [b"alice@example.com", b"a@example.org", b"alice@example.com"]
    assert added["objectClass"][0] == b"top" and added["objectClass"][-1] == b"hostObject"
    for entry in (replaced, added):
        assert entry["uidNumber"] == [b"77"] and entry["colour"] == [b"red"], "one value only; nothing to add to"
    provider = replace(PROVIDER, options=LdapOptions(custom_attributes="add"))
    there = Snapshot(compile_people(People((alice(email="alice@example.com", attributes=own),), (), 1, 0.0), provider))
    asked = encode.search(1, BASE, "(&(mail=alice@example.com)(mail=a@example.org))", ["mail"])
    request = decode_message(asked, Limits())
    assert isinstance(request, SearchRequest)
    [entry] = decode.entries(there.search(request, there.full_view()).read(1 << 20))
    assert entry["mail"] == [b"alice@example.com", b"a@example.org"], "each once"


def test_what_the_rdn_says_is_in_the_entry() -> None:
    """RFC 4512 2.3.1, whatever the backend calls the user."""
    found = by_rdn(alice(uid="f" * 64), rdn_attribute="uid")
    assert found["uid=alice,ou=users"]["uid"] == [b"alice"]
    assert by_rdn(alice(uid="f" * 64))[USER]["uid"] == [b"f" * 64]


@pytest.mark.parametrize("nested", ["direct", "effective"])
def test_both_schemas_of_posix_groups(nested: str) -> None:
    """RFC 2307 reads memberUid, RFC 2307bis member: the same people, login names against DNs."""
    inner = Group("22222222-2222-4333-8444-555555555555", 18, "inner", parents=(STAFF,))
    folk = (alice(groups=(inner.pk,)), User(6, "bob, jr.", groups=(STAFF,)), GROUP, inner)
    for rdn_attribute in ("cn", "uid"):
        found = by_rdn(*folk, nested_groups=nested, rdn_attribute=rdn_attribute)
        names = {e["entryDN"][0]: e["sAMAccountName"][0] for e in found.values() if "homeDirectory" in e}
        for entry in found.values():
            if b"posixGroup" in entry["objectClass"]:
                assert b"groupOfNames" in entry["objectClass"]
                people = [names[dn] for dn in entry.get("member", []) if dn in names]
                assert people == entry.get("memberUid", [])
                assert entry.get("uniqueMember") == entry.get("member")
        outer = found[TEAM]["memberUid"]
        assert sorted(outer) == ([b"alice", b"bob, jr."] if nested == "effective" else [b"bob, jr."])


# -- SIDs ----------------------------------------------------------------------------------------------


def sids(found: Entries) -> list[str]:
    return [v.decode() for entry in found.values() for v in entry.get("sambaSID", [])]


def test_sids_are_the_same_tomorrow_and_everybody_has_his_own() -> None:
    users = [User(pk, f"u{pk}") for pk in range(1, 3001)]
    groups = [Group(str(uuid.UUID(int=n)), n, f"g{n}") for n in range(1, 3001)]
    found = by_rdn(*users, *groups, samba=True, active_directory=True)
    every = sids(found)
    assert len(every) == len(set(every)) == 9000 + 1 - 1000, "virtual groups give way to real ones"
    random.Random(1).shuffle(users)
    assert by_rdn(*reversed(groups), *users, samba=True, active_directory=True) == found
    for entry in found.values():
        if "sambaSID" in entry and "objectSid" in entry:
            assert entry["objectSid"] == [packed(entry["sambaSID"][0].decode())]
    assert domain_sid(b"dc=example,dc=com") == domain_sid(b"dc=example,dc=com") != domain_sid(b"dc=example,dc=org")


@pytest.mark.parametrize("seed", range(20))
def test_no_two_entries_have_the_same_sid(seed: int) -> None:
    population, provider = people(random.Random(seed))
    provider = replace(provider, options=replace(provider.options, samba=True, active_directory=True))
    bare = replace(
        population,
        users=tuple(replace(u, attributes=_numbers(u.attributes)) for u in population.users),
        groups=tuple(replace(g, attributes=_numbers(g.attributes)) for g in population.groups),
    )
    found: list[bytes] = []
    for entry in Directory(bare, provider).entries():
        found += [v for n, v in entry.attributes if n in {"sambaSID", "objectSid"} and isinstance(v, bytes)]
    # The domain's own SID is that of the base and of the sambaDomain, in two spellings.
    assert len(found) == len(set(found)) > 2


def _numbers(attributes: Any) -> dict[str, Any]:
    return {n: v for n, v in attributes.items() if n.lower() in {"uidnumber", "gidnumber"}}


def test_who_shares_a_number_has_no_sid() -> None:
    found = by_rdn(
        User(1, "a", attributes={"uidNumber": "70"}),
        User(2, "b", attributes={"uidNumber": 70}),
        User(3, "c", attributes={"gidNumber": "4017"}),
        User(4, "d", attributes={"gidNumber": "100"}),
        User(5, "e", attributes={"gidNumber": "100"}),
        User(6, "f", attributes={"uidNumber": "-5"}),
        User(7, "g", attributes={"uidNumber": str(2**31 - 1)}),
        GROUP,
        **ALL,
    )
    for name in "abfg":
        assert not {"sambaSID", "objectSid", "sambaAcctFlags"} & set(found[f"cn={name},ou=users"])
        assert b"sambaSamAccount" not in found[f"cn={name},ou=users"]["objectClass"]
        assert "objectGUID" in found[f"cn={name},ou=users"]
    assert found["cn=c,ou=users"]["sambaPrimaryGroupSID"] == found[TEAM]["sambaSID"]
    for name in "cde":
        assert not {"sambaSID", "objectSid"} & set(found[f"cn={name},ou=virtual-groups"])
    for name in "de":
        assert "sambaSID" in found[f"cn={name},ou=users"]
        assert not {"sambaPrimaryGroupSID", "primaryGroupID"} & set(found[f"cn={name},ou=users"]), "nobody is group 100"


def test_numbers_of_users_and_groups_never_meet() -> None:
    numbers = [0, 1, 2, 999, 1000, 2**31 - 600, *random.Random(1).sample(range(2**31), 5000)]
    users, groups = {user_rid(n) for n in numbers} - {None}, {group_rid(n) for n in numbers} - {None}
    assert users.isdisjoint(groups) and len(users) > 5000
    assert min(r for r in users | groups if r is not None) == 1000
    assert [user_rid(n) for n in (-1, 2**31)] == [group_rid(n) for n in (-1, 2**31)] == [None, None]


def test_binary_forms() -> None:
    """[MS-DTYP] 2.4.2.2: the built-in administrator of a well-known example."""
    assert packed("S-1-5-32-544").hex() == "01020000000000052000000020020000"
    assert packed("S-1-5-21-4294967295-0-1").hex() == "010400000000000515000000ffffffff0000000001000000"
    assert guid("00112233-4455-6677-8899-aabbccddeeff") == bytes.fromhex("33221100554477668899aabbccddeeff")
    assert guid("g") is None and guid("") is None
    assert netbios_name("a.b") == "A-B" and netbios_name("--") == "DOMAIN"
    assert dns_domain(()) == ""


# -- subschema -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rdn_attribute", ["cn", "uid"])
def test_everything_is_in_the_subschema_and_allowed_by_the_classes(rdn_attribute: str) -> None:
    classes = {c.name: c for c in OBJECT_CLASSES}
    types = {t.name: t for t in ATTRIBUTE_TYPES}
    options = ALL | {"login_shell": "/bin/sh", "rdn_attribute": rdn_attribute}
    for rdn, entry in by_rdn(alice(name="A B", email="a@x"), GROUP, **options).items():
        todo, allowed, required = [v.decode() for v in entry["objectClass"]], set(), set()
        while todo:
            one = classes[todo.pop()]
            allowed |= {*one.must, *one.may}
            required |= {*one.must}
            todo += [one.sup] * bool(one.sup)
        for name, values in entry.items():
            assert types[name].operational or name in allowed, (rdn, name)
            assert len(values) == 1 or not types[name].single, (rdn, name)
        assert required <= set(entry), rdn
        assert entry["structuralObjectClass"][0] in entry["objectClass"]


def test_clients_find_them() -> None:
    """The searches of appliances, and binary values as they come over the wire."""
    population = People((alice(), User(6, "bob", is_active=False)), (GROUP,), 1, 0.0)
    provider = replace(PROVIDER, options=LdapOptions(samba=True, shadow=True, active_directory=True, domain_sid=SID))
    snapshot = Snapshot(compile_people(population, provider))

    def search(text: str) -> list[str]:
        request = decode_message(encode.search(1, BASE, filter=text, attributes=["*"]), Limits())
        assert isinstance(request, SearchRequest)
        found, octets = snapshot.search(request, snapshot.full_view()), b""
        while not found.finished:
            octets += found.read(1 << 20)
        return [entry.dn.decode().partition(",")[0] for entry in decode.entries(octets)]

    assert search("(&(sambaDomainName=example)(objectclass=sambaDomain))") == ["sambaDomainName=EXAMPLE"]
    assert search(f"(sambaSID={SID}-5010)") == ["cn=alice"]
    octets = "".join(f"\\{b:02x}" for b in packed(f"{SID}-5010"))
    assert search(f"(objectSid={octets})") == ["cn=alice"]
    octets = "".join(f"\\{b:02x}" for b in uuid.UUID(UUID).bytes_le)
    assert search(f"(objectGUID={octets})") == ["cn=alice"]
    assert search("(userPrincipalName=ALICE@EXAMPLE.COM)") == ["cn=alice"]
    assert search("(&(objectClass=user)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))") == ["cn=alice"]
    assert search("(&(objectClass=shadowAccount)(shadowLastChange=19724))") == ["cn=alice"]
    assert search("(sambaNTPassword=*)") == []
    own = snapshot.own_view(5)
    assert own is not None


# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('rdn_attribute = "mail"', "expected one of cn, uid"),
        ('rdn_attribute = "CN"', "expected one of cn, uid"),
        ('rdn_attribute = ""', "expected one of cn, uid"),
        ('domain_sid = "S-1-5-21-1-2"', "domain_sid: expected"),
        ('domain_sid = "S-1-5-21-1-2-4294967296"', "domain_sid: expected"),
        ('domain_sid = "S-1-5-21-1-2-3-4"', "domain_sid: expected"),
        ('domain_sid = "S-1-5-21-1-2-03"', "domain_sid: expected"),
        ('domain = "a..b"', "domain: expected"),
        ('domain = "user@example.com"', "domain: expected"),
        ('samba_domain = "a,b"', "samba_domain: expected"),
        ('samba_domain = "ABCDEFGHIJKLMNOP"', "samba_domain: expected"),
        ('bind_names = ["nickname"]', "expected one of username, mail, upn"),
    ],
)
def test_wrong_settings_are_refused_when_they_are_read(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "outpost.toml"
    file.write_text(f'version = 1\ndirectory = "x.yaml"\n[provider.ldap]\n{text}\n')
    with pytest.raises(ConfigError, match=problem):
        load(file, {})


def test_right_settings_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "outpost.toml"
    file.write_text(
        'version = 1\ndirectory = "x.yaml"\n[provider.ldap]\nrdn_attribute = "uid"\nsamba = true\nshadow = true\n'
        'domain = "corp.example"\ndomain_sid = "S-1-5-21-4294967295-0-1"\nsamba_domain = "CORP"\n'
    )
    found = load(file, {}).providers["ldap"].ldap_options(LdapOptions())
    assert found == LdapOptions(
        rdn_attribute="uid",
        samba=True,
        shadow=True,
        domain="corp.example",
        domain_sid="S-1-5-21-4294967295-0-1",
        samba_domain="CORP",
    )
