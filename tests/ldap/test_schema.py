"""The subschema says everything that entries hold, and nothing twice (RFC 4512 4.1, 4.2)."""

import random
import re
import warnings

import pytest

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.entries import GROUP_CLASSES, USER_CLASSES, VIRTUAL_GROUP_CLASSES, Directory
from outpost.ldap.matching import WITH_ORDERING, WITH_SUBSTRINGS, Kind
from outpost.ldap.schema import (
    ATTRIBUTE_TYPES,
    INDEXED,
    MATCHING_RULES,
    MEMBERSHIP,
    OBJECT_CLASSES,
    OPERATIONAL,
    PRIVATE,
    SUBSCHEMA_DN,
    custom_attribute,
    custom_oid,
    normal_form,
    subschema,
)
from tests.ldap import decode, encode
from tests.ldap.generate import people

with warnings.catch_warnings():
    # ldap3 still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.protocol.rfc4512 import AttributeTypeInfo, ObjectClassInfo, SchemaInfo

CUSTOM = frozenset({"colour", "shoe_size", "goauthentikio-x"})
KNOWN = {n.lower(): t for t in ATTRIBUTE_TYPES for n in (t.name, *t.aliases)}
CLASSES = {c.name: c for c in OBJECT_CLASSES}


def lists(custom: frozenset[str] = CUSTOM) -> dict[str, list[str]]:
    return {name.decode(): [v.decode() for v in values] for name, values in subschema(custom)}


def by_ldap3(custom: frozenset[str] = CUSTOM) -> SchemaInfo:
    raw = {name.decode(): values for name, values in subschema(custom)}
    return SchemaInfo(SUBSCHEMA_DN.decode(), {name: [v.decode() for v in values] for name, values in raw.items()}, raw)


def test_ldap3_reads_all_of_it() -> None:
    found = by_ldap3()
    aliases_of_old = {name for name in KNOWN if "/" in name}
    assert {n.lower() for t in found.attribute_types.values() for n in t.name} == set(KNOWN) - aliases_of_old | CUSTOM
    assert {n for c in found.object_classes.values() for n in c.name} == set(CLASSES) | {"goauthentikio-ldap-custom"}
    assert {n for r in found.matching_rules.values() for n in r.name} == set(MATCHING_RULES)
    assert len(found.ldap_syntaxes) == len(lists()["ldapSyntaxes"])
    for info in found.attribute_types.values():
        assert isinstance(info, AttributeTypeInfo) and info.oid and info.syntax and info.equality
    for info in found.object_classes.values():
        assert isinstance(info, ObjectClassInfo) and info.oid
    assert found.attribute_types["uidNumber"].single_value
    assert not found.attribute_types["memberOf"].single_value
    assert found.attribute_types["entryUUID"].no_user_modification
    assert found.attribute_types["entryUUID"].usage == "DIRECTORY_OPERATION"
    assert found.attribute_types["namingContexts"].usage == "DSA_OPERATION"
    assert found.object_classes["top"].kind == "ABSTRACT"
    assert found.object_classes["posixAccount"].kind == "AUXILIARY"
    assert found.object_classes["organizationalPerson"].superior == ["person"]


DESCRIPTION = re.compile(
    r"\( (?P<oid>[0-9]+(\.[0-9]+)+)( NAME (?P<names>'[A-Za-z][A-Za-z0-9-]*'|\( ('[A-Za-z][A-Za-z0-9-]*' )+\)))?"
    r"( DESC '[^'\\]+')?"
    r"(?P<rest>( [A-Z-]+( ([A-Za-z0-9.-]+|\( [A-Za-z0-9.-]+( \$ [A-Za-z0-9.-]+)* \)))?)*) \)"
)


@pytest.mark.parametrize("of", ["matchingRules", "dITContentRules", "attributeTypes", "objectClasses"])
def test_every_description_follows_the_grammar(of: str) -> None:
    """RFC 4512 4.1, read by an expression of our own."""
    found = lists()[of]
    matches = [DESCRIPTION.fullmatch(text) for text in found]
    assert all(matches), [text for text, match in zip(found, matches, strict=True) if not match]
    oids = [m["oid"] for m in matches if m]
    names = [n.lower() for m in matches if m for n in re.findall("'([^']*)'", m["names"] or "")]
    assert len(set(oids)) == len(oids) and len(set(names)) == len(names)


def test_no_oid_and_no_name_means_two_things() -> None:
    oids = (
        [t.oid for t in ATTRIBUTE_TYPES]
        + [c.oid for c in OBJECT_CLASSES]
        + [oid for oid, *_ in MATCHING_RULES.values()]
    )
    assert len(set(oids)) == len(oids)
    assert len(KNOWN) == sum(1 + len(t.aliases) for t in ATTRIBUTE_TYPES)


def test_what_is_named_is_described() -> None:
    """Classes name known attributes and classes, attributes known rules and syntaxes; nothing described is unused."""
    described = lists()
    syntaxes = {re.match(r"\( ([0-9.]+) ", s)[1] for s in described["ldapSyntaxes"]}  # type: ignore[index]
    used = set(re.findall(r"SYNTAX ([0-9.]+)", " ".join(described["attributeTypes"] + described["matchingRules"])))
    assert used == syntaxes
    rules = set(re.findall(r"(?:EQUALITY|ORDERING|SUBSTR) (\S+)", " ".join(described["attributeTypes"])))
    assert rules <= set(MATCHING_RULES)
    listed = set()
    for c in OBJECT_CLASSES:
        assert not c.sup or c.sup in CLASSES
        assert {n.lower() for n in (*c.must, *c.may)} <= set(KNOWN), c.name
        listed |= {KNOWN[n.lower()].name for n in (*c.must, *c.may)}
    unlisted = {t.name for t in ATTRIBUTE_TYPES if not t.operational} - listed
    assert unlisted == set(), "every user attribute belongs to a class"
    contents = {re.match(r"\( ([0-9.]+) ", s)[1] for s in described["dITContentRules"]}  # type: ignore[index]
    assert contents == {c.oid for c in OBJECT_CLASSES if c.kind == "STRUCTURAL"}


@pytest.mark.parametrize("seed", range(10))
def test_every_entry_is_described_and_every_class_known(seed: int) -> None:
    snapshot = Snapshot(compile_people(*people(random.Random(seed))))
    found = by_ldap3(snapshot.custom_attributes)
    classes = {n for c in found.object_classes.values() for n in (*c.name, c.oid)}
    request = decode_message(encode.search(1, snapshot.base_dn, attributes=["*", "+"]), Limits())
    assert isinstance(request, SearchRequest)
    search, octets = snapshot.search(request, snapshot.full_view()), b""
    while not search.finished:
        octets += search.read(1 << 20)
    sent: set[str] = set()
    for entry in decode.entries(octets):
        sent |= set(entry.names)
        assert {v.decode() for v in (*entry["objectClass"], *entry["structuralObjectClass"])} <= classes
        for name, _ in entry.attributes:
            assert name.decode() in found.attribute_types[name.decode()].name, "the same spelling"
    assert snapshot.custom_attributes <= sent, "nothing is described that nobody has"


def reachable(names: tuple[bytes, ...]) -> set[str]:
    """Attributes that classes allow, their superclasses included."""
    todo, found = [n.decode() for n in names], set()
    while todo:
        c = CLASSES[todo.pop()]
        found |= {KNOWN[n.lower()].name for n in (*c.must, *c.may)}
        todo += [c.sup] * bool(c.sup)
    return found


def test_built_in_attributes_are_allowed_by_the_classes_of_their_entry() -> None:
    population, provider = people(random.Random(1))
    bare = type(population)(
        tuple(type(u)(u.pk, u.username, "N N", "m@x", groups=u.groups) for u in population.users),
        tuple(type(g)(g.pk, g.num_pk, g.name, parents=g.parents) for g in population.groups),
        0,
        0.0,
    )
    for entry in Directory(bare, provider).entries():
        (classes,) = [v for n, v in entry.attributes if n == "objectClass"]
        assert not isinstance(classes, bytes)
        allowed = reachable(tuple(classes))
        for name, _ in entry.attributes:
            assert KNOWN[name.lower()].operational or name in allowed, (entry.kind, name)
        required = {n for c in classes for n in CLASSES[c.decode()].must}
        assert required <= {n for n, _ in entry.attributes}, (entry.kind, required)


def test_classes_of_entries_are_those_of_the_newest_outpost() -> None:
    assert USER_CLASSES[0] == b"top" and b"goauthentik.io/ldap/user" in USER_CLASSES
    assert {*GROUP_CLASSES, b"goauthentik.io/ldap/virtual-group"} == set(VIRTUAL_GROUP_CLASSES)
    assert {c.decode() for c in (*USER_CLASSES, *VIRTUAL_GROUP_CLASSES)} <= set(CLASSES)


def test_the_rules_an_attribute_names_are_those_it_has() -> None:
    for t in ATTRIBUTE_TYPES:
        text = t.describe()
        assert ("ORDERING" in text) <= (t.kind in WITH_ORDERING)
        assert ("SUBSTR" in text) <= (t.kind in WITH_SUBSTRINGS)
        equality = re.search(r"EQUALITY (\S+)", text)
        assert equality and MATCHING_RULES[equality[1]][2] is t.kind


def test_flags() -> None:
    flagged = {
        flag: {t.name for t in ATTRIBUTE_TYPES if t.flags & flag}
        for flag in (MEMBERSHIP, PRIVATE, OPERATIONAL, INDEXED)
    }
    assert flagged[MEMBERSHIP] == {"member", "uniqueMember", "memberUid"}
    assert flagged[PRIVATE] == {"memberOf", "numSubordinates"}
    assert flagged[OPERATIONAL] == {t.name for t in ATTRIBUTE_TYPES if "USAGE" in t.describe()}
    must = "cn uid sAMAccountName mail uidNumber gidNumber entryUUID objectClass member memberOf memberUid entryDN"
    assert set(must.split()) <= flagged[INDEXED]


def test_custom_attributes() -> None:
    assert custom_oid("colour") == custom_oid("Colour") != custom_oid("shoe_size")
    assert re.fullmatch(r"2\.25\.[1-9][0-9]*", custom_oid("colour"))
    assert (
        custom_attribute("Colour")
        .describe()
        .startswith(f"( {custom_oid('colour')} NAME 'Colour' EQUALITY caseIgnoreMatch")
    )
    (holder,) = [c for c in lists()["objectClasses"] if "'goauthentikio-ldap-custom'" in c]
    assert f"MAY ( colour $ goauthentikio-x $ {custom_oid('shoe_size')} )" in holder
    assert not any("ldap-custom" in c for c in lists(frozenset())["objectClasses"])
    (one,) = [c for c in lists(frozenset({"x"}))["objectClasses"] if "ldap-custom" in c]
    assert "MAY x )" in one


@pytest.mark.parametrize(
    ("of", "name"), [("attributeTypes", "shoe_size"), ("objectClasses", "goauthentik.io/ldap/virtual-group")]
)
def test_names_that_are_no_descriptors_are_told_in_words(of: str, name: str) -> None:
    (one,) = [text for text in lists()[of] if name in text]
    assert re.match(rf"\( [0-9.]+ DESC 'entries have it by the NAME {name}' ", one)


def test_object_classes_are_the_same_by_number_and_name() -> None:
    assert normal_form(Kind.OID, b"2.5.6.6") == normal_form(Kind.OID, b"PERSON") == b"person"
    assert normal_form(Kind.OID, b"2.5.6.6666") == b"2.5.6.6666"
    assert normal_form(Kind.OID, b"?") is None
    assert normal_form(Kind.CASE_IGNORE, b"2.5.6.6") == b"2.5.6.6"
