"""The compiled directory against a plain search over the same entries, and by hand."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.errors import DecodeError
from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap._snapshot import Search, Snapshot, View
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import Directory
from outpost.ldap.filter import parse_filter
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
    world = World(2000 + seed)
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


# -- by hand -------------------------------------------------------------------------------------------

BASE = "dc=ldap,dc=goauthentik,dc=io"
USERS, GROUPS, OWN_GROUPS = f"ou=users,{BASE}", f"ou=groups,{BASE}", f"ou=virtual-groups,{BASE}"
ALICE = f"cn=alice,{USERS}".encode()
BOB = f"cn=bob,{USERS}".encode()
JOINED = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC)
PEOPLE = People(
    users=(
        User(
            1,
            "alice",
            "Alice Adams",
            "Alice@Example.org",
            groups=("p-admins", "p-staff"),
            attributes={
                "title": "Chief  Engineer",
                "colour": ["Red", "green", "RED", "red"],
                "shadowMax": "6",
                "telephoneNumber": "+49 30 1234-5",
                "loginShell": "/bin/Zsh",
                "note": ["a*b", "(x)", "back\\slash"],
                "secret-of-alice": "x",
            },
            date_joined=JOINED,
        ),
        User(
            2,
            "bob",
            "Bob",
            groups=("p-staff",),
            attributes={"manager": ALICE.decode(), "description": "abcabcabd", "shadowMin": "-12"},
        ),
        User(
            3,
            "Carol, Ann",
            is_active=False,
            attributes={"manager": BOB.decode(), "sAMAccountName": "alice", "shadowMin": "-3"},
        ),
    ),
    groups=(
        Group("p-admins", 1, "admins", is_superuser=True, parents=("p-staff",)),
        Group("p-staff", 2, "staff", parents=("p-all",)),
        Group("p-all", 3, "all", parents=("p-staff",)),
        Group("p-empty", 4, "empty", attributes={"description": "nobody is in here"}),
    ),
    generation=7,
    taken_at=0.0,
)
DIRECT = LdapProvider(1, "ldap", BASE, "ldap")
EFFECTIVE = replace(DIRECT, options=LdapOptions(nested_groups="effective"))
SNAPSHOT = Snapshot(compile_people(PEOPLE, DIRECT))
NESTED = Snapshot(compile_people(PEOPLE, EFFECTIVE))


def own(user_pk: int, snapshot: Snapshot = SNAPSHOT) -> View:
    view = snapshot.own_view(user_pk)
    assert view is not None
    return view


def answer(
    filter: str | bytes = "(objectClass=*)",
    attributes: Sequence[str] = (),
    base: str | bytes = BASE,
    *,
    snapshot: Snapshot = SNAPSHOT,
    view: View | None = None,
    **options: Any,
) -> list[decode.Entry]:
    """The entries; the search has to succeed."""
    search = snapshot.search(request(5, base, filter, attributes, **options), view or snapshot.full_view())
    found = decode.entries(drain(search))
    assert (search.result_code, search.matched_dn, search.sent) == (0, b"", len(found))
    return found


def names(filter: str | bytes, base: str | bytes = BASE, **options: Any) -> list[str]:
    """First RDNs without their type, of users with nothing, of the others with the first letters of the container."""
    found = []
    for entry in answer(filter, ["1.1"], base, **options):
        assert entry.attributes == []
        rdn, _, rest = entry.dn.decode().replace("\\,", ";").partition(",")
        prefix = {"ou=groups": "g:", "ou=virtual-groups": "v:"}.get(rest.partition(",")[0], "")
        found.append(prefix + rdn.partition("=")[2].replace(";", ","))
    return found


def test_entries_come_container_by_container_in_order_of_name() -> None:
    expected = ["ldap", "users", "Carol, Ann", "alice", "bob", "groups", "g:admins", "g:all", "g:empty", "g:staff"]
    assert names("(objectClass=*)") == [*expected, "virtual-groups", "v:Carol, Ann", "v:alice", "v:bob"]
    assert SNAPSHOT.entry_count == 14
    assert (SNAPSHOT.generation, SNAPSHOT.base_dn) == (7, BASE.encode())
    assert SNAPSHOT.custom_attributes == {"colour", "note", "secret-of-alice"}


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        # equality (RFC 4517 4.2)
        ("(cn=alice)", ["alice", "v:alice"]),
        ("(CN=ALICE)", ["alice", "v:alice"]),
        ("(commonName= alice )", ["alice", "v:alice"]),
        ("(2.5.4.3=alice)", ["alice", "v:alice"]),
        ("(cn=alic)", []),
        ("(cn=alicee)", []),
        ("(cn=)", []),
        ("(title=chief engineer)", ["alice"]),
        ("(title=Chief     Engineer)", ["alice"]),
        ("(title=ChiefEngineer)", []),
        ("(colour=GREEN)", ["alice"]),
        ("(note=a\\2ab)", ["alice"]),
        ("(note=\\28x\\29)", ["alice"]),
        ("(note=back\\5cslash)", ["alice"]),
        ("(loginShell=/bin/Zsh)", ["alice"]),
        ("(loginShell=/bin/zsh)", []),
        ("(uidNumber=2001)", ["alice"]),
        ("(uidNumber=0002001)", ["alice"]),
        ("(uidNumber=x)", []),
        ("(telephoneNumber=+4930 12345)", ["alice"]),
        ("(telephoneNumber=+4930 123456)", []),
        ("(ak-active=false)", ["Carol, Ann"]),
        ("(ak-active=no)", []),
        ("(createTimestamp=20240229120000Z)", ["alice"]),
        ("(createTimestamp=20240229130000+0100)", ["alice"]),
        ("(createTimestamp=20240229120000.000Z)", ["alice"]),
        ("(createTimestamp=2024022912Z)", ["alice"]),
        ("(createTimestamp=20240230120000Z)", []),
        ("(manager=CN=Alice , OU=users,DC=LDAP,dc=goauthentik,dc=io)", ["bob"]),
        ("(manager=nonsense)", []),
        (f"(memberOf=cn=admins,{GROUPS})", ["alice"]),
        (f"(member=cn=alice,{USERS})", ["g:admins", "g:staff", "v:alice"]),
        ("(memberUid=alice)", ["g:admins", "g:staff", "v:alice"]),
        ("(memberUid=ALICE)", []),
        ("(objectClass=posixAccount)", ["Carol, Ann", "alice", "bob"]),
        ("(objectClass=POSIXACCOUNT)", ["Carol, Ann", "alice", "bob"]),
        ("(objectClass=1.3.6.1.1.1.2.0)", ["Carol, Ann", "alice", "bob"]),
        ("(objectClass=goauthentik.io/ldap/virtual-group)", ["v:Carol, Ann", "v:alice", "v:bob"]),
        (f"(entryDN=cn=Carol\\5c, Ann,{USERS})", ["Carol, Ann"]),
        (f"(distinguishedName=cn=carol\\5c2c ann,{USERS})", ["Carol, Ann"]),
        # substrings: all pieces, in order, without overlap
        ("(cn=al*)", ["alice", "g:all", "v:alice"]),
        ("(cn=*l*)", ["Carol, Ann", "alice", "g:all", "virtual-groups", "v:Carol, Ann", "v:alice"]),
        ("(cn=*ce)", ["alice", "v:alice"]),
        ("(cn=a*i*e)", ["alice", "v:alice"]),
        ("(cn=a*e*i*)", []),
        ("(cn=alice*ice)", []),
        ("(cn=AL*CE)", ["alice", "v:alice"]),
        ("(cn=* ann)", ["Carol, Ann", "v:Carol, Ann"]),
        ("(description=abc*abd)", ["bob"]),
        ("(description=*abca*abd)", ["bob"]),
        ("(description=*abcabd*)", ["bob"]),
        ("(description=abcabcabd*abd)", []),
        ("(title=chief*engineer)", ["alice"]),
        ("(title=chief *engineer)", ["alice"]),
        ("(telephoneNumber=*30-12*)", ["alice"]),
        ("(loginShell=/bin/z*)", []),
        ("(loginShell=/bin/Z*)", ["alice"]),
        ("(uidNumber=20*)", []),
        ("(member=cn=alice*)", []),
        ("(createTimestamp=2024*)", []),
        # ordering
        ("(uidNumber>=2002)", ["Carol, Ann", "bob"]),
        ("(uidNumber<=2002)", ["alice", "bob"]),
        ("(uidNumber>=-1)", ["Carol, Ann", "alice", "bob"]),
        ("(uidNumber>=9)", ["Carol, Ann", "alice", "bob"]),
        ("(uidNumber>=many)", []),
        ("(shadowMin>=-3)", ["Carol, Ann"]),
        ("(shadowMin>=-9)", ["Carol, Ann"]),
        ("(shadowMin<=-9)", ["bob"]),
        ("(shadowMin<=-12)", ["bob"]),
        ("(shadowMin<=0)", ["Carol, Ann", "bob"]),
        ("(shadowMin>=1)", []),
        ("(cn>=bobby)", ["users", "Carol, Ann", "groups", "g:empty", "g:staff", "virtual-groups", "v:Carol, Ann"]),
        ("(cn<=bob)", ["alice", "bob", "g:admins", "g:all", "v:alice", "v:bob"]),
        ("(createTimestamp>=20240229115959Z)", ["alice"]),
        ("(createTimestamp<=20240229115959Z)", []),
        ("(createTimestamp<=20240229120000.5Z)", ["alice"]),
        ("(createTimestamp>=20240229120000.5Z)", []),
        ("(createTimestamp<=20240229130000+0100)", ["alice"]),
        ("(ak-active>=TRUE)", []),
        (f"(member>=cn=alice,{USERS})", []),
        # approximate: as equality (RFC 4511 4.5.1.7.6)
        ("(cn~=ALICE)", ["alice", "v:alice"]),
        ("(cn~=alyce)", []),
        # presence
        ("(colour=*)", ["alice"]),
        ("(memberOf=*)", ["alice", "bob", "g:admins", "g:all", "g:staff"]),
        ("(givenName=*)", ["alice"]),
        ("(mail=*)", ["alice"]),
        ("(member=*)", ["g:admins", "g:all", "g:staff", "v:Carol, Ann", "v:alice", "v:bob"]),
        ("(entryUUID=*)", names("(objectClass=*)")),
        ("(nosuch=*)", []),
        # three values (RFC 4511 4.5.1.7): what is Undefined stays so under not
        ("(!(cn=alice))", [n for n in names("(objectClass=*)") if n not in ("alice", "v:alice")]),
        ("(!(nosuch=1))", []),
        ("(!(nosuch=*))", []),
        ("(!(uidNumber=x))", []),
        ("(!(ak-active>=TRUE))", []),
        ("(!(member=cn=a*))", []),
        ("(!(cn;lang-de=alice))", []),
        ("(!(!(nosuch=1)))", []),
        ("(|(cn=alice)(nosuch=1))", ["alice", "v:alice"]),
        ("(|(cn=alice)(!(nosuch=1)))", ["alice", "v:alice"]),
        ("(&(cn=alice)(nosuch=1))", []),
        ("(&(cn=alice)(!(nosuch=1)))", []),
        ("(!(&(cn=alice)(nosuch=1)))", [n for n in names("(objectClass=*)") if n not in ("alice", "v:alice")]),
        ("(!(|(cn=alice)(nosuch=1)))", []),
        # true and false (RFC 4526)
        ("(&)", names("(objectClass=*)")),
        ("(|)", []),
        ("(!(|))", names("(objectClass=*)")),
        # several classes at once
        ("(|(objectClass=posixAccount)(objectClass=nsContainer))",
         ["users", "Carol, Ann", "alice", "bob", "groups", "virtual-groups"]),
        ("(&(objectClass=group)(!(objectClass=goauthentik.io/ldap/virtual-group)))",
         ["g:admins", "g:all", "g:empty", "g:staff"]),
        ("(&(|(cn=alice)(cn=bob))(|(cn=bob)(cn=staff)))", ["bob", "v:bob"]),
        ("(|(&(cn=alice)(mail=*))(&(|(cn=bob)(cn=x))(uidNumber=2002)))", ["alice", "bob"]),
        # extensible (RFC 4511 4.5.1.7.7)
        ("(cn:=ALICE)", ["alice", "v:alice"]),
        ("(cn:caseIgnoreMatch:=ALICE)", ["alice", "v:alice"]),
        ("(cn:caseExactMatch:=ALICE)", []),
        ("(cn:2.5.13.5:=alice)", ["alice", "v:alice"]),
        ("(title:caseExactMatch:=Chief Engineer)", ["alice"]),
        ("(title:caseExactMatch:=chief engineer)", []),
        ("(loginShell:caseIgnoreMatch:=/BIN/zsh)", ["alice"]),
        ("(colour:caseExactMatch:=Red)", ["alice"]),
        ("(:caseIgnoreMatch:=green)", ["alice"]),
        ("(:integerMatch:=2002)", ["bob", "v:bob"]),
        ("(:distinguishedNameMatch:=" + BOB.decode() + ")", ["Carol, Ann", "bob", "g:staff", "v:bob"]),
        ("(:booleanMatch:=FALSE)", names("(hasSubordinates=FALSE)")),
        ("(uidNumber:integerMatch:=02002)", ["bob"]),
        ("(cn:integerMatch:=5)", []),
        ("(!(cn:integerMatch:=5))", []),
        ("(cn:nosuchMatch:=5)", []),
        ("(!(cn:nosuchMatch:=5))", []),
        ("(!(nosuch:caseIgnoreMatch:=5))", []),
        ("(!(cn:caseIgnoreSubstringsMatch:=5))", []),
        ("(ou:dn:=groups)", ["groups", "g:admins", "g:all", "g:empty", "g:staff"]),
        ("(ou:DN:=GROUPS)", ["groups", "g:admins", "g:all", "g:empty", "g:staff"]),
        ("(ou:=groups)", ["groups"]),
        ("(ou:dn:caseExactMatch:=groups)", ["groups", "g:admins", "g:all", "g:empty", "g:staff"]),
        ("(ou:dn:caseExactMatch:=GROUPS)", []),
        ("(dc:dn:=GoAuthentik)", names("(objectClass=*)")),
        ("(cn:dn:=carol, ann)", ["Carol, Ann", "v:Carol, Ann"]),
        ("(:dn:caseIgnoreMatch:=virtual-groups)", ["virtual-groups", "v:Carol, Ann", "v:alice", "v:bob"]),
        ("(:dn:distinguishedNameMatch:=alice)", []),
        ("(:dn:caseExactMatch:=alice)", names("(:caseIgnoreMatch:=alice)")),
        ("(:dn:caseExactMatch:=ALICE)", []),
        ("(telephoneNumber:caseExactMatch:=+49  30 1234-5)", ["alice"]),
        ("(telephoneNumber:caseIgnoreMatch:=+4930 12345)", []),
        ("(:caseIgnoreMatch:=+49 30 1234-5)", ["alice"]),
        ("(:caseExactMatch:=+49301234-5)", []),
        ("(:dn:caseExactMatch:=goauthentik)", names("(objectClass=*)")),
        ("(:caseIgnoreMatch:=/BIN/zsh)", ["alice"]),
        ("(:caseExactMatch:=/BIN/zsh)", []),
        ("(!(cn=))", []),
        ("(description:dn:=nobody is in here)", ["g:empty"]),
        # bits: 6 is 0b110
        ("(shadowMax:1.2.840.113556.1.4.803:=4)", ["alice"]),
        ("(shadowMax:1.2.840.113556.1.4.803:=6)", ["alice"]),
        ("(shadowMax:1.2.840.113556.1.4.803:=5)", []),
        ("(shadowMax:1.2.840.113556.1.4.803:=0)", ["alice"]),
        ("(shadowMax:1.2.840.113556.1.4.804:=5)", ["alice"]),
        ("(shadowMax:1.2.840.113556.1.4.804:=9)", []),
        ("(shadowMax:1.2.840.113556.1.4.804:=0)", []),
        ("(!(shadowMax:1.2.840.113556.1.4.804:=x))", []),
        ("(!(cn:1.2.840.113556.1.4.803:=1))", []),
        # chains; staff and all are in each other
        (f"(memberOf:1.2.840.113556.1.4.1941:=cn=admins,{GROUPS})", ["alice"]),
        (f"(memberOf:1.2.840.113556.1.4.1941:=cn=ALL,{GROUPS})", ["alice", "bob", "g:admins", "g:all", "g:staff"]),
        (f"(memberOf:1.2.840.113556.1.4.1941:=cn=empty,{GROUPS})", []),
        (f"(member:1.2.840.113556.1.4.1941:=cn=alice,{USERS})", ["g:admins", "g:all", "g:staff", "v:alice"]),
        (f"(uniqueMember:dnInChainMatch:=cn=bob,{USERS})", ["g:all", "g:staff", "v:bob"]),
        (f"(member:1.2.840.113556.1.4.1941:=cn=staff,{GROUPS})", ["g:all", "g:staff"]),
        (f"(manager:1.2.840.113556.1.4.1941:=cn=alice,{USERS})", ["Carol, Ann", "bob"]),
        (f"(manager:1.2.840.113556.1.4.1941:=cn=bob,{USERS})", ["Carol, Ann"]),
        ("(!(member:1.2.840.113556.1.4.1941:=nonsense))", []),
        ("(member:1.2.840.113556.1.4.1941:=cn=elsewhere)", []),
    ],
)  # fmt: skip
def test_filters(filter: str, found: list[str]) -> None:
    assert names(filter) == found
    for entry in answer(attributes=["1.1"]):
        wanted = names(filter, entry.dn, scope=encode.BASE_OBJECT) != []
        assert SNAPSHOT.matches(SNAPSHOT.full_view(), entry.dn, parse_filter(filter)) is wanted


def test_matches_knows_no_entry_that_is_not_there() -> None:
    everything = parse_filter("(objectClass=*)")
    assert SNAPSHOT.matches(SNAPSHOT.full_view(), f"cn=gone,{USERS}".encode(), everything) is None
    assert SNAPSHOT.matches(own(2), ALICE, everything) is None
    assert SNAPSHOT.matches(own(1), ALICE, everything) is True
    with pytest.raises(DecodeError):
        SNAPSHOT.matches(SNAPSHOT.full_view(), b"nonsense", everything)


@pytest.mark.parametrize(
    ("base", "scope", "found"),
    [
        (BASE, 0, ["ldap"]),
        (BASE, 1, ["users", "groups", "virtual-groups"]),
        (USERS, 0, ["users"]),
        (USERS, 1, ["Carol, Ann", "alice", "bob"]),
        (USERS, 2, ["users", "Carol, Ann", "alice", "bob"]),
        ("OU=Users , DC=LDAP,dc=goauthentik , dc=io", 1, ["Carol, Ann", "alice", "bob"]),
        ("organizationalUnitName=users," + BASE, 1, ["Carol, Ann", "alice", "bob"]),
        (f"cn=CAROL\\2C  ann,{USERS}", 0, ["Carol, Ann"]),
        (f"cn=Carol\\, Ann,{USERS}", 2, ["Carol, Ann"]),
        (ALICE, 1, []),
        (ALICE, 2, ["alice"]),
    ],
)
def test_scopes(base: str, scope: int, found: list[str]) -> None:
    assert names("(objectClass=*)", base, scope=scope) == found
    assert names("(|(objectClass=top)(cn=x))", base, scope=scope) == found


@pytest.mark.parametrize(
    ("base", "matched"),
    [
        (f"cn=gone,{USERS}", USERS),
        (f"cn=x,cn=ALICE,{USERS}", f"cn=alice,{USERS}"),
        (f"cn=a\\,b,{USERS}", USERS),
        (f"ou=x,ou=y,{BASE}", BASE),
        ("dc=elsewhere", ""),
        ("dc=goauthentik,dc=io", ""),
        ("", ""),
        ("xdc=ldap,dc=goauthentik,dc=io", ""),
    ],
)
def test_a_base_that_is_not_there_is_told_with_the_nearest_that_is(base: str, matched: str) -> None:
    for scope in range(3):
        search = SNAPSHOT.search(request(1, base, scope=scope), SNAPSHOT.full_view())
        assert drain(search) == b""
        assert (search.result_code, search.matched_dn, search.sent) == (32, matched.encode(), 0)


def test_a_base_that_is_no_dn_is_refused() -> None:
    with pytest.raises(DecodeError):
        SNAPSHOT.search(request(1, "nonsense"), SNAPSHOT.full_view())


def test_a_view_belongs_to_its_snapshot() -> None:
    for use in (
        lambda view: SNAPSHOT.search(request(1, BASE), view),
        lambda view: SNAPSHOT.compare(view, ALICE, b"cn", b"alice"),
        lambda view: SNAPSHOT.matches(view, ALICE, parse_filter("(cn=*)")),
    ):
        use(SNAPSHOT.full_view())
        with pytest.raises(ValueError, match="another snapshot"):
            use(NESTED.full_view())


# -- selection (RFC 4511 4.5.1.8, RFC 3673) ------------------------------------------------------------

USER_ATTRIBUTES = [
    "objectClass", "cn", "sAMAccountName", "uid", "name", "displayName", "sn", "givenName", "mail", "uidNumber",
    "gidNumber", "homeDirectory", "ak-active", "ak-superuser", "memberOf",
    "distinguishedName", "title", "colour", "shadowMax",
    "telephoneNumber", "loginShell", "note", "secret-of-alice",
]  # fmt: skip
OPERATIONAL_ATTRIBUTES = [
    "entryUUID", "entryDN", "structuralObjectClass", "hasSubordinates", "subschemaSubentry", "createTimestamp",
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "returned"),
    [
        ([], USER_ATTRIBUTES),
        ([""], USER_ATTRIBUTES),
        (["*"], USER_ATTRIBUTES),
        (["+"], OPERATIONAL_ATTRIBUTES),
        (["*", "+"], [*USER_ATTRIBUTES, *OPERATIONAL_ATTRIBUTES]),
        (["+,*"], [*USER_ATTRIBUTES, *OPERATIONAL_ATTRIBUTES]),
        (["*", "entryuuid"], [*USER_ATTRIBUTES, "entryUUID"]),
        (["+", "CN"], ["cn", *OPERATIONAL_ATTRIBUTES]),
        (["1.1"], []),
        (["1.1", "mail"], ["mail"]),
        (["MAIL", "mail", "0.9.2342.19200300.100.1.3", "rfc822mailbox"], ["mail"]),
        (["surname", "gn", "commonname"], ["cn", "sn", "givenName"]),
        (["SECRET-OF-ALICE"], ["secret-of-alice"]),
        (["nosuch"], []),
        (["nosuch", "uid"], ["uid"]),
        (["uid, cn ,mail"], ["cn", "uid", "mail"]),
        (["cn;lang-de"], []),
        (["employeeNumber"], []),
        (["userPassword"], []),
    ],
)
def test_attribute_selection(wanted: list[str], returned: list[str]) -> None:
    for types_only in (False, True):
        (entry,) = answer("(cn=alice)", wanted, USERS, types_only=types_only)
        assert sorted(entry.names) == sorted(returned)
        assert all(bool(values) is not types_only for _, values in entry.attributes)


def test_values_are_as_they_were_given() -> None:
    (entry,) = answer("(cn=alice)", ["*", "+"], USERS)
    assert entry.dn == ALICE
    assert entry["mail"] == [b"Alice@Example.org"]
    assert entry["title"] == [b"Chief  Engineer"]
    assert sorted(entry["memberOf"]) == [f"cn={g},{GROUPS}".encode() for g in ("admins", "staff")]
    assert entry["colour"] == [b"Red", b"green"], "equal values are one"
    assert entry["createTimestamp"] == [b"20240229120000Z"]
    (carol,) = answer("(ak-active=FALSE)", ["cn", "entryDN"], USERS)
    assert (carol.dn, carol["cn"]) == (f"cn=Carol\\, Ann,{USERS}".encode(), [b"Carol, Ann"])


def test_long_names_and_values_are_framed_right() -> None:
    attributes = {
        f"{'n' * size}{size}": ["v" * length for length in (1, 127, 128, 255, 256, 65535, 65536)]
        for size in (120, 124, 125, 126, 127, 128, 200, 300)
    } | {f"one{'n' * size}": "v" for size in (124, 125, 200)}
    snapshot = Snapshot(compile_people(replace(PEOPLE, users=(User(1, "long", attributes=attributes),)), DIRECT))
    (entry,) = answer("(cn=long)", [], USERS, snapshot=snapshot)
    for name, values in attributes.items():
        expected = [values.encode()] if isinstance(values, str) else [v.encode() for v in values]
        assert entry[name] == expected
        (alone,) = answer("(cn=long)", [name.upper()], USERS, snapshot=snapshot)
        assert alone.attributes == [(name.encode(), expected)]
        (bare,) = answer("(cn=long)", [name], USERS, snapshot=snapshot, types_only=True)
        assert bare.attributes == [(name.encode(), [])]
    many = {"many": [f"value {n}" for n in range(1000)]}
    snapshot = Snapshot(compile_people(replace(PEOPLE, users=(User(1, "many", attributes=many),)), DIRECT))
    (entry,) = answer("(many=VALUE 999)", ["many"], USERS, snapshot=snapshot)
    assert entry["many"] == [v.encode() for v in many["many"]]


# -- limits and slices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "server", "sent", "code"),
    [
        (0, 0, 14, 0),
        (5, 0, 5, 4),
        (0, 5, 5, 4),
        (5, 9, 5, 4),
        (9, 5, 5, 4),
        (13, 0, 13, 4),
        (14, 0, 14, 0),
        (15, 14, 14, 0),
    ],
)
def test_size_limit(client: int, server: int, sent: int, code: int) -> None:
    for slices in ({}, {"size": 1}, {"entries": 2}, {"examined": 1}):
        search = SNAPSHOT.search(request(1, BASE, size_limit=client), SNAPSHOT.full_view(), server)
        assert len(decode.entries(drain(search, **slices))) == sent
        assert (search.result_code, search.sent) == (code, sent)


@pytest.mark.parametrize(
    "filter", ["(objectClass=*)", "(|(cn=alice)(cn=b*)(ak-active=FALSE))", "(objectClass=user)", "(cn=x)"]
)
def test_slices_are_the_same_octets(filter: str) -> None:
    asked = request(300, BASE, filter, ["*", "+"])
    for view in (SNAPSHOT.full_view(), own(1)):
        whole = drain(SNAPSHOT.search(asked, view))
        for size in (1, 50, 1000, 1 << 30):
            for examined in (0, 1, 3):
                for entries in (0, 1, 2):
                    assert drain(SNAPSHOT.search(asked, view), size, examined, entries) == whole


def test_a_slice_keeps_its_bounds() -> None:
    asked = request(1, BASE)
    search = SNAPSHOT.search(asked, SNAPSHOT.full_view())
    assert len(decode.entries(search.read(1))) == 1, "one entry is never torn"
    assert len(decode.entries(search.read(1 << 20, 0, 3))) == 3
    assert not search.finished and search.sent == 4
    search = SNAPSHOT.search(request(1, BASE, "(cn=bob)"), SNAPSHOT.full_view())
    search = SNAPSHOT.search(request(1, BASE, "(cn=*bob)"), SNAPSHOT.full_view())
    assert search.read(1 << 20, 2) == b"" and not search.finished
    assert len(decode.entries(drain(search))) == 2
    assert search.read(1 << 20) == b"" and search.finished


def test_a_search_outlives_its_snapshot() -> None:
    snapshot = Snapshot(compile_people(PEOPLE, DIRECT))
    search = snapshot.search(request(1, BASE), snapshot.full_view())
    del snapshot
    assert len(decode.entries(drain(search, 1))) == 14


def test_message_ids_of_every_length() -> None:
    for number in (1, 127, 128, 255, 256, 32767, 32768, 8388607, 8388608, 2**31 - 1):
        octets = drain(SNAPSHOT.search(request(number, ALICE, scope=0), SNAPSHOT.full_view()))
        assert [m.message_id for m in decode.messages(octets)] == [number]


# -- what one may see of oneself -----------------------------------------------------------------------


@pytest.mark.parametrize("snapshot", [SNAPSHOT, NESTED], ids=["direct", "effective"])
def test_own_view_shows_only_oneself(snapshot: Snapshot) -> None:
    groups = {1: ["g:admins", "g:staff"], 2: ["g:staff"], 3: []}
    if snapshot is NESTED:
        groups |= {1: ["g:admins", "g:all", "g:staff"], 2: ["g:all", "g:staff"]}
    for pk, name in ((1, "alice"), (2, "bob"), (3, "Carol, Ann")):
        view = own(pk, snapshot)
        found = answer(view=view, snapshot=snapshot, attributes=["*", "+"])
        expected = ["ldap", "users", name, "groups", *groups[pk], "virtual-groups", f"v:{name}"]
        assert names("(objectClass=*)", view=view, snapshot=snapshot) == expected
        me = snapshot.dn_of_user(pk)
        for entry in found:
            if not entry.dn.endswith(USERS.encode()):
                assert {"memberOf", "numSubordinates"}.isdisjoint(entry.names)
            for attribute, value in (("member", me), ("uniqueMember", me), ("memberUid", name.encode())):
                if attribute in entry.names:
                    assert entry[attribute] == [value]
        others = [n for n in (b"alice", b"bob", b"carol") if n != name.lower().encode()[:5]]
        shown = b"".join(
            v for e in found for n, values in e.attributes for v in (e.dn, *values) if n != b"manager"
        ).lower()
        if pk == 3:
            # The administrator wrote that name into Carol's own entry.
            others = [b"bob"]
        assert not any(other in shown for other in others)
    assert snapshot.own_view(4) is snapshot.own_view(-1) is snapshot.own_view(2**40) is None


def test_own_view_finds_nobody_else() -> None:
    bob = own(2)
    for filter in (
        "(cn=alice)", "(uid=alice)", "(mail=alice@example.org)", f"(member=cn=alice,{USERS})", "(memberUid=alice)",
        f"(uniqueMember=cn=alice,{USERS})", "(member=cn=alice*)", f"(:distinguishedNameMatch:=cn=admins,{GROUPS})",
        f"(memberOf=cn=admins,{GROUPS})", f"(memberOf=cn=all,{GROUPS})",
        f"(memberOf:1.2.840.113556.1.4.1941:=cn=all,{GROUPS})",
        f"(member:1.2.840.113556.1.4.1941:=cn=alice,{USERS})",
        f"(member:1.2.840.113556.1.4.1941:=cn=admins,{GROUPS})",
        f"(manager:1.2.840.113556.1.4.1941:=cn=bob,{USERS})", "(numSubordinates=*)",
        "(numSubordinates>=0)", "(colour=*)",
        "(:caseExactMatch:=alice)", "(entryDN:dn:=alice)", "(cn:dn:=admins)",
    ):  # fmt: skip
        assert names(filter, view=bob) == [], filter
    assert names(f"(member=cn=bob,{USERS})", view=bob) == ["g:staff", "v:bob"]
    assert names(f"(member:1.2.840.113556.1.4.1941:=cn=bob,{USERS})", view=bob) == ["g:staff", "v:bob"]
    assert names(f"(memberOf:1.2.840.113556.1.4.1941:=cn=staff,{GROUPS})", view=bob) == ["bob"]
    assert names(f"(!(member=cn=alice,{USERS}))", view=bob) == names("(&)", view=bob)
    for base, matched in ((ALICE, USERS), (f"cn=admins,{GROUPS}", GROUPS), (f"cn=x,cn=alice,{OWN_GROUPS}", OWN_GROUPS)):
        search = SNAPSHOT.search(request(1, base), bob)
        gone = SNAPSHOT.search(request(1, "cn=gone," + matched), bob)
        assert (search.result_code, search.matched_dn) == (gone.result_code, gone.matched_dn) == (32, matched.encode())


def test_own_view_tells_no_count() -> None:
    """A limit, a size or a slice says nothing about what is hidden."""
    alone = Snapshot(compile_people(replace(PEOPLE, users=PEOPLE.users[1:2], groups=PEOPLE.groups[1:2]), DIRECT))
    for filter in ("(objectClass=*)", "(cn=*)", "(|(cn=bob)(cn=alice))", "(objectClass=group)"):
        asked = request(1, BASE, filter, ["*", "+"])
        assert drain(SNAPSHOT.search(asked, own(2))) == drain(alone.search(asked, own(2, alone)))
        for limit in range(1, 9):
            one, other = (s.search(asked, own(2, s), limit) for s in (SNAPSHOT, alone))
            assert drain(one) == drain(other) and one.result_code == other.result_code


def test_own_name_is_not_what_an_attribute_says() -> None:
    """Carol's sAMAccountName is alice; she is not shown that alice is in her groups."""
    users = (*PEOPLE.users[:2], replace(PEOPLE.users[2], groups=("p-staff",)))
    snapshot = Snapshot(compile_people(replace(PEOPLE, users=users), DIRECT))
    (staff,) = answer("(cn=staff)", ["memberUid", "member"], snapshot=snapshot, view=own(3, snapshot))
    assert staff["memberUid"] == [b"Carol, Ann"]
    assert names("(memberUid=alice)", snapshot=snapshot, view=own(3, snapshot)) == []


# -- compare (RFC 4511 4.10) ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dn", "attribute", "value", "code"),
    [
        (ALICE, "cn", "ALICE", 6),
        (ALICE, "2.5.4.3", "alice", 6),
        (ALICE.upper(), "commonName", " alice ", 6),
        (ALICE, "cn", "bob", 5),
        (ALICE, "colour", "GREEN", 6),
        (ALICE, "colour", "blue", 5),
        (ALICE, "uidNumber", "02001", 6),
        (ALICE, "uidNumber", "2002", 5),
        (ALICE, "uidNumber", "x", 21),
        (ALICE, "ak-active", "maybe", 21),
        (ALICE, "memberOf", "nonsense", 21),
        (ALICE, "memberOf", f"cn=ADMINS , {GROUPS}", 6),
        (ALICE, "memberOf", f"cn=all,{GROUPS}", 5),
        (ALICE, "objectClass", "2.5.6.6", 6),
        (ALICE, "objectClass", "person", 6),
        (ALICE, "objectClass", "group", 5),
        (ALICE, "entryDN", ALICE.decode().upper(), 6),
        (ALICE, "description", "x", 16),
        (ALICE, "member", "nonsense", 16),
        (ALICE, "userPassword", "x", 17),
        (ALICE, "nosuch", "x", 17),
        (ALICE, "cn;lang-de", "alice", 17),
        (ALICE, "", "alice", 17),
        (f"cn=staff,{GROUPS}".encode(), "memberUid", "alice", 6),
        (f"cn=staff,{GROUPS}".encode(), "memberUid", "ALICE", 5),
        (f"cn=gone,{USERS}".encode(), "cn", "gone", 32),
        (b"", "objectClass", "top", 32),
    ],
)
def test_compare(dn: bytes, attribute: str, value: str, code: int) -> None:
    assert SNAPSHOT.compare(SNAPSHOT.full_view(), dn, attribute.encode(), value.encode()) == code


@pytest.mark.parametrize(
    ("dn", "attribute", "value", "code"),
    [
        (BOB, "cn", "bob", 6),
        (BOB, "manager", ALICE.decode(), 6),
        (f"cn=staff,{GROUPS}", "member", BOB.decode(), 6),
        (f"cn=staff,{GROUPS}", "memberUid", "bob", 6),
        (f"cn=staff,{GROUPS}", "member", ALICE.decode(), 5),
        (f"cn=staff,{GROUPS}", "memberUid", "alice", 5),
        (f"cn=staff,{GROUPS}", "uniqueMember", f"cn=all,{GROUPS}", 5),
        (f"cn=staff,{GROUPS}", "memberOf", f"cn=all,{GROUPS}", 16),
        (USERS, "numSubordinates", "3", 16),
        (ALICE, "cn", "alice", 32),
        (f"cn=admins,{GROUPS}", "cn", "admins", 32),
        (f"cn=alice,{OWN_GROUPS}", "cn", "alice", 32),
    ],
)
def test_compare_in_own_view(dn: bytes | str, attribute: str, value: str, code: int) -> None:
    octets = dn.encode() if isinstance(dn, str) else dn
    assert SNAPSHOT.compare(own(2), octets, attribute.encode(), value.encode()) == code


def test_compare_refuses_what_is_no_dn() -> None:
    with pytest.raises(DecodeError):
        SNAPSHOT.compare(SNAPSHOT.full_view(), b"nonsense", b"cn", b"x")


def test_users_by_dn_and_back() -> None:
    assert SNAPSHOT.user_pk(b"CN=Alice , ou=users," + BASE.encode()) == 1
    assert SNAPSHOT.user_pk(f"cn=carol\\2c ann,{USERS}".encode()) == 3
    for other in (f"cn=alice,{OWN_GROUPS}", f"cn=admins,{GROUPS}", USERS, f"cn=gone,{USERS}", ""):
        assert SNAPSHOT.user_pk(other.encode()) == -1
    with pytest.raises(DecodeError):
        SNAPSHOT.user_pk(b"nonsense")
    assert SNAPSHOT.dn_of_user(1) == ALICE
    assert SNAPSHOT.dn_of_user(9) is SNAPSHOT.dn_of_user(-1) is None
