"""Attribute types and object classes: what an entry may hold, how it matches, how the subschema says so (RFC 4512).

The numbers (OIDs) and object classes are those that authentik's newest outpost publishes, completed from RFC 4512,
4519, 2307, 4530 and 5020, so that every attribute of every entry is described.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from outpost.ldap.matching import Kind, normalise_value

OPERATIONAL: Final = 1
"""Returned only by name or `+`."""
INDEXED: Final = 2
"""Equality is answered from an index."""
MEMBERSHIP: Final = 4
"""Says who is in a group: reduced to the reader himself where he may not see everybody."""
PRIVATE: Final = 8
"""Left out of groups and containers where the reader may not see everybody."""

_SYNTAX: Final = "1.3.6.1.4.1.1466.115.121.1."
_RULES: Final = {
    # kind: (syntax, equality, ordering, substrings)
    Kind.CASE_IGNORE: ("15", "caseIgnoreMatch", "caseIgnoreOrderingMatch", "caseIgnoreSubstringsMatch"),
    Kind.CASE_EXACT: ("15", "caseExactMatch", "caseExactOrderingMatch", "caseExactSubstringsMatch"),
    Kind.INTEGER: ("27", "integerMatch", "integerOrderingMatch", ""),
    Kind.GENERALIZED_TIME: ("24", "generalizedTimeMatch", "generalizedTimeOrderingMatch", ""),
    Kind.DN: ("12", "distinguishedNameMatch", "", ""),
    Kind.TELEPHONE_NUMBER: ("50", "telephoneNumberMatch", "", "telephoneNumberSubstringsMatch"),
    Kind.OID: ("38", "objectIdentifierMatch", "", ""),
    Kind.BOOLEAN: ("7", "booleanMatch", "", ""),
    Kind.OCTET_STRING: ("40", "octetStringMatch", "", ""),
}
_IA5: Final = "26"
_DESCRIPTOR: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")

MATCHING_RULES: Final = {
    # name: (OID, syntax of the assertion, kind of the attributes it applies to)
    "objectIdentifierMatch": ("2.5.13.0", "38", Kind.OID),
    "distinguishedNameMatch": ("2.5.13.1", "12", Kind.DN),
    "caseIgnoreMatch": ("2.5.13.2", "15", Kind.CASE_IGNORE),
    "caseIgnoreOrderingMatch": ("2.5.13.3", "15", None),
    "caseIgnoreSubstringsMatch": ("2.5.13.4", "58", None),
    "caseExactMatch": ("2.5.13.5", "15", Kind.CASE_EXACT),
    "caseExactOrderingMatch": ("2.5.13.6", "15", None),
    "caseExactSubstringsMatch": ("2.5.13.7", "58", None),
    "booleanMatch": ("2.5.13.13", "7", Kind.BOOLEAN),
    "integerMatch": ("2.5.13.14", "27", Kind.INTEGER),
    "integerOrderingMatch": ("2.5.13.15", "27", None),
    "octetStringMatch": ("2.5.13.17", "40", Kind.OCTET_STRING),
    "telephoneNumberMatch": ("2.5.13.20", "50", Kind.TELEPHONE_NUMBER),
    "telephoneNumberSubstringsMatch": ("2.5.13.21", "58", None),
    "generalizedTimeMatch": ("2.5.13.27", "24", Kind.GENERALIZED_TIME),
    "generalizedTimeOrderingMatch": ("2.5.13.28", "24", None),
    "caseExactIA5Match": ("1.3.6.1.4.1.1466.109.114.1", "26", Kind.CASE_EXACT),
    "caseIgnoreIA5Match": ("1.3.6.1.4.1.1466.109.114.2", "26", Kind.CASE_IGNORE),
    "caseIgnoreIA5SubstringsMatch": ("1.3.6.1.4.1.1466.109.114.3", "58", None),
    "integerBitAndMatch": ("1.2.840.113556.1.4.803", "27", Kind.INTEGER),
    "integerBitOrMatch": ("1.2.840.113556.1.4.804", "27", Kind.INTEGER),
    "dnInChainMatch": ("1.2.840.113556.1.4.1941", "12", Kind.DN),
}
"""Rules with a kind work in extensible filters; the others are named by attribute types."""


@dataclass(frozen=True, slots=True)
class AttributeType:
    """RFC 4512 4.1.2. `syntax` and `equality` are empty where the kind's own hold."""

    name: str
    oid: str
    kind: Kind = Kind.CASE_IGNORE
    aliases: tuple[str, ...] = ()
    flags: int = 0
    single: bool = False
    ia5: bool = False
    usage: str = ""
    no_user_modification: bool = False
    published: bool = True
    """False for what is described in the subschema of no server and only looked up by an old name."""

    @property
    def operational(self) -> bool:
        """Not among the user attributes (RFC 4512 3.4)."""
        return bool(self.flags & OPERATIONAL)

    def describe(self) -> str:
        """An AttributeTypeDescription (RFC 4512 4.1.2)."""
        syntax, equality, ordering, substrings = _RULES[self.kind]
        if self.ia5:
            syntax = _IA5
            case = "caseIgnore" if self.kind is Kind.CASE_IGNORE else "caseExact"
            equality, ordering = f"{case}IA5Match", ""
            substrings = "caseIgnoreIA5SubstringsMatch" if self.kind is Kind.CASE_IGNORE else ""
        parts = [self.oid, _naming(self.name, *self.aliases), f"EQUALITY {equality}"]
        parts += [f"ORDERING {ordering}"] * bool(ordering) + [f"SUBSTR {substrings}"] * bool(substrings)
        parts += [f"SYNTAX {_SYNTAX}{syntax}"] + ["SINGLE-VALUE"] * self.single
        parts += ["NO-USER-MODIFICATION"] * self.no_user_modification
        parts += [f"USAGE {self.usage}"] * bool(self.usage)
        return f"( {' '.join(parts)} )"


@dataclass(frozen=True, slots=True)
class ObjectClass:
    """RFC 4512 4.1.1."""

    name: str
    oid: str
    sup: str = "top"
    kind: str = "STRUCTURAL"
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()

    def describe(self) -> str:
        """An ObjectClassDescription (RFC 4512 4.1.1)."""
        parts = [self.oid, _naming(self.name)] + [f"SUP {self.sup}"] * bool(self.sup) + [self.kind]
        for word, names in (("MUST", self.must), ("MAY", self.may)):
            if names:
                parts.append(f"{word} {names[0]}" if len(names) == 1 else f"{word} ( {' $ '.join(names)} )")
        return f"( {' '.join(parts)} )"


def _is_descriptor(name: str) -> bool:
    """RFC 4512 1.4: `shoe_size` and `goauthentik.io/ldap/user` are none, but entries have them."""
    return _DESCRIPTOR.match(name) is not None


def _naming(name: str, *aliases: str) -> str:
    """The NAME of a definition; names that are no descriptors are left out of it, for a parser may give up the whole
    schema over one of them.  What is known by such a name only goes by its number.  The description is worded for
    people and for ldap3, which takes what follows the word NAME in it for the name.
    """
    if not _is_descriptor(name):
        return f"DESC 'entries have it by the NAME {name}'"
    names = [f"'{one}'" for one in (name, *aliases) if _is_descriptor(one)]
    return f"NAME {names[0]}" if len(names) == 1 else f"NAME ( {' '.join(names)} )"


def _t(
    name: str,
    oid: str,
    kind: Kind = Kind.CASE_IGNORE,
    *aliases: str,
    flags: int = 0,
    single: bool = False,
    ia5: bool = False,
) -> AttributeType:
    return AttributeType(name, oid, kind, aliases, flags, single, ia5)


def _o(
    name: str, oid: str, kind: Kind, usage: str = "directoryOperation", flags: int = 0, *, single: bool = True
) -> AttributeType:
    fixed = usage == "directoryOperation"
    return AttributeType(name, oid, kind, (), OPERATIONAL | flags, single, usage=usage, no_user_modification=fixed)


_CI, _CE, _INT, _DN, _TEL, _OCT = (
    Kind.CASE_IGNORE,
    Kind.CASE_EXACT,
    Kind.INTEGER,
    Kind.DN,
    Kind.TELEPHONE_NUMBER,
    Kind.OCTET_STRING,
)

ATTRIBUTE_TYPES: Final = (
    _t("objectClass", "2.5.4.0", Kind.OID, flags=INDEXED),
    _t("cn", "2.5.4.3", _CI, "commonName", flags=INDEXED),
    _t("sn", "2.5.4.4", _CI, "surname", flags=INDEXED),
    _t("givenName", "2.5.4.42", _CI, "gn", flags=INDEXED),
    _t("displayName", "1.2.840.113556.1.2.13", _CI, flags=INDEXED),
    _t("name", "1.2.840.113556.1.4.1", _CI, flags=INDEXED),
    _t("uid", "0.9.2342.19200300.100.1.1", _CI, "userid", flags=INDEXED),
    _t("sAMAccountName", "1.2.840.113556.1.4.221", _CI, flags=INDEXED, single=True),
    _t("userPrincipalName", "1.2.840.113556.1.4.656", _CI, flags=INDEXED, single=True),
    _t("mail", "0.9.2342.19200300.100.1.3", _CI, "rfc822Mailbox", flags=INDEXED, ia5=True),
    _t("mailAlternateAddress", "2.16.840.1.113730.3.1.13", _CI, flags=INDEXED, ia5=True),
    _t("uidNumber", "1.3.6.1.1.1.1.0", _INT, flags=INDEXED, single=True),
    _t("gidNumber", "1.3.6.1.1.1.1.1", _INT, flags=INDEXED, single=True),
    _t("homeDirectory", "1.2.840.113556.1.4.44", _CE, single=True, ia5=True),
    _t("loginShell", "1.3.6.1.1.1.1.4", _CE, single=True, ia5=True),
    _t("gecos", "1.3.6.1.1.1.1.2", _CI, single=True, ia5=True),
    _t("member", "2.5.4.31", _DN, flags=INDEXED | MEMBERSHIP),
    _t("uniqueMember", "2.5.4.50", _DN, flags=INDEXED | MEMBERSHIP),
    _t("memberUid", "1.3.6.1.1.1.1.12", _CE, flags=INDEXED | MEMBERSHIP, ia5=True),
    _t("memberOf", "1.2.840.113556.1.2.102", _DN, flags=INDEXED | PRIVATE),
    _t("distinguishedName", "2.5.4.49", _DN, flags=INDEXED),
    _t("ak-active", "1.3.6.1.4.1.26027.1.1.3", Kind.BOOLEAN, "goauthentik.io/ldap/active", single=True),
    _t("ak-superuser", "1.3.6.1.4.1.26027.1.1.2", Kind.BOOLEAN, "goauthentik.io/ldap/superuser", single=True),
    _t("goauthentikio-user-sources", "1.3.6.1.4.1.26027.1.1.4", _CI, "goauthentik.io/ldap/sources"),
    _t("goauthentikio-user-override-ips", "1.3.6.1.4.1.26027.1.1.6", Kind.BOOLEAN, single=True),
    _t("goauthentikio-user-service-account", "1.3.6.1.4.1.26027.1.1.5", Kind.BOOLEAN, single=True),
    _t("c", "2.5.4.6", _CI, "countryName", single=True),
    _t("co", "1.2.840.113556.1.2.131", _CI, single=True),
    _t("l", "2.5.4.7", _CI, "localityName"),
    _t("st", "2.5.4.8", _CI, "stateOrProvinceName"),
    _t("street", "2.5.4.9", _CI, "streetAddress"),
    _t("postalCode", "2.5.4.17", _CI),
    _t("o", "2.5.4.10", _CI, "organizationName"),
    _t("ou", "2.5.4.11", _CI, "organizationalUnitName", flags=INDEXED),
    _t("dc", "0.9.2342.19200300.100.1.25", _CI, "domainComponent", flags=INDEXED, ia5=True, single=True),
    _t("title", "2.5.4.12", _CI),
    _t("description", "2.5.4.13", _CI),
    _t("telephoneNumber", "2.5.4.20", _TEL),
    _t("mobile", "0.9.2342.19200300.100.1.41", _TEL, "mobileTelephoneNumber"),
    _t("department", "1.2.840.113556.1.2.141", _CI, single=True),
    _t("company", "1.2.840.113556.1.2.146", _CI, single=True),
    _t("division", "1.2.840.113556.1.4.261", _CI, single=True),
    _t("manager", "0.9.2342.19200300.100.1.10", _DN, flags=INDEXED),
    _t("departmentNumber", "2.16.840.1.113730.3.1.2", _CI),
    _t("employeeNumber", "2.16.840.1.113730.3.1.3", _CI, single=True, flags=INDEXED),
    _t("employeeType", "2.16.840.1.113730.3.1.4", _CI),
    _t("preferredLanguage", "2.16.840.1.113730.3.1.39", _CI, single=True),
    _t("sshPublicKey", "1.3.6.1.4.1.24552.500.1.1.1.13", _OCT),
    _t("groupType", "1.2.840.113556.1.4.750", _INT, single=True),
    _t("objectCategory", "1.2.840.113556.1.4.782", _DN, single=True),
    _t("objectGUID", "1.2.840.113556.1.4.2", _OCT, single=True, flags=INDEXED),
    _t("userAccountControl", "1.2.840.113556.1.4.8", _INT, single=True, flags=INDEXED),
    _t("primaryGroupID", "1.2.840.113556.1.4.98", _INT, single=True, flags=INDEXED),
    _t("objectSid", "1.2.840.113556.1.4.146", _OCT, single=True, flags=INDEXED),
    _t("shadowLastChange", "1.3.6.1.1.1.1.5", _INT, single=True),
    _t("shadowMin", "1.3.6.1.1.1.1.6", _INT, single=True),
    _t("shadowMax", "1.3.6.1.1.1.1.7", _INT, single=True),
    _t("shadowExpire", "1.3.6.1.1.1.1.10", _INT, single=True),
    _t("sambaSID", "1.3.6.1.4.1.7165.2.1.20", _CI, single=True, flags=INDEXED, ia5=True),
    _t("sambaPrimaryGroupSID", "1.3.6.1.4.1.7165.2.1.23", _CI, single=True, ia5=True),
    _t("sambaAcctFlags", "1.3.6.1.4.1.7165.2.1.26", _CI, single=True, ia5=True),
    _t("sambaPwdLastSet", "1.3.6.1.4.1.7165.2.1.27", _INT, single=True),
    _t("sambaGroupType", "1.3.6.1.4.1.7165.2.1.19", _INT, single=True),
    _t("sambaDomainName", "1.3.6.1.4.1.7165.2.1.38", _CI, single=True, flags=INDEXED),
    _t("sambaNextRid", "1.3.6.1.4.1.7165.2.1.41", _INT, single=True),
    _t("sambaAlgorithmicRidBase", "1.3.6.1.4.1.7165.2.1.40", _INT, single=True),
    _o("entryUUID", "1.3.6.1.1.16.4", _CI, flags=INDEXED),
    _o("entryDN", "1.3.6.1.1.20", _DN, flags=INDEXED),
    _o("structuralObjectClass", "2.5.21.9", Kind.OID),
    _o("hasSubordinates", "2.5.18.9", Kind.BOOLEAN),
    _o("numSubordinates", "1.3.6.1.4.1.453.16.2.103", _INT, flags=PRIVATE),
    _o("subschemaSubentry", "2.5.18.10", _DN),
    _o("createTimestamp", "2.5.18.1", Kind.GENERALIZED_TIME),
    _o("modifyTimestamp", "2.5.18.2", Kind.GENERALIZED_TIME),
    _o("pwdChangedTime", "1.3.6.1.4.1.42.2.27.8.1.16", Kind.GENERALIZED_TIME),
    _o("namingContexts", "1.3.6.1.4.1.1466.101.120.5", _DN, "dSAOperation", single=False),
    _o("rootDomainNamingContext", "1.2.840.113556.1.4.1455", _DN, "dSAOperation"),
    _o("supportedLDAPVersion", "1.3.6.1.4.1.1466.101.120.15", _INT, "dSAOperation", single=False),
    _o("supportedControl", "1.3.6.1.4.1.1466.101.120.13", Kind.OID, "dSAOperation", single=False),
    _o("supportedExtension", "1.3.6.1.4.1.1466.101.120.7", Kind.OID, "dSAOperation", single=False),
    _o("supportedFeatures", "1.3.6.1.4.1.4203.1.3.5", Kind.OID, "dSAOperation", single=False),
    _o("supportedSASLMechanisms", "1.3.6.1.4.1.1466.101.120.14", _CI, "dSAOperation", single=False),
    _o("vendorName", "1.3.6.1.1.4", _CE, "dSAOperation"),
    _o("vendorVersion", "1.3.6.1.1.5", _CE, "dSAOperation"),
    _o("ldapSyntaxes", "1.3.6.1.4.1.1466.101.120.16", _CI, single=False),
    _o("matchingRules", "2.5.21.4", _CI, single=False),
    _o("dITContentRules", "2.5.21.2", _CI, single=False),
    _o("attributeTypes", "2.5.21.5", _CI, single=False),
    _o("objectClasses", "2.5.21.6", _CI, single=False),
)

_PERSON: Final = ("sn", "telephoneNumber", "description")
_ORGANISATION: Final = (
    "c", "l", "o", "ou", "st", "street", "postalCode", "title", "givenName", "co", "department", "company", "division",
    "mail", "mobile",
)  # fmt: skip
_GROUP: Final = ("o", "ou", "description", "member", "uniqueMember", "memberUid", "memberOf", "gidNumber", "uid")
_ACCOUNT: Final = ("sAMAccountName", "distinguishedName")

OBJECT_CLASSES: Final = (
    ObjectClass("top", "2.5.6.0", "", "ABSTRACT", ("objectClass",),
                ("objectCategory", "cn", "description", "displayName", "memberOf", "name", "objectGUID", "objectSid",
                 *_ACCOUNT)),
    ObjectClass("person", "2.5.6.6", must=("cn",), may=_PERSON),
    ObjectClass("organizationalPerson", "2.5.6.7", "person", may=_ORGANISATION),
    ObjectClass("inetOrgPerson", "2.16.840.1.113730.3.2.2", "organizationalPerson",
                may=("uidNumber", "gidNumber", "displayName", "homeDirectory", "uid", "departmentNumber",
                     "employeeNumber", "employeeType", "manager", "preferredLanguage", "mailAlternateAddress")),
    ObjectClass("user", "1.2.840.113556.1.5.9", "inetOrgPerson",
                may=("name", "displayName", "uid", "mail", "userPrincipalName", "userAccountControl", "primaryGroupID",
                     *_ACCOUNT)),
    ObjectClass("posixAccount", "1.3.6.1.1.1.2.0", kind="AUXILIARY",
                may=("cn", "description", "homeDirectory", "loginShell", "gecos", "uid", "uidNumber", "gidNumber")),
    ObjectClass("shadowAccount", "1.3.6.1.1.1.2.1", kind="AUXILIARY", must=("uid",),
                may=("shadowLastChange", "shadowMin", "shadowMax", "shadowExpire")),
    ObjectClass("ldapPublicKey", "1.3.6.1.4.1.24552.500.1.1.2.0", kind="AUXILIARY", may=("sshPublicKey", "uid")),
    ObjectClass("goauthentik.io/ldap/user", "1.3.6.1.4.1.26027.1.1.1", "organizationalPerson",
                may=("ak-active", "ak-superuser", "sAMAccountName", "goauthentikio-user-sources",
                     "goauthentikio-user-override-ips", "goauthentikio-user-service-account", "sshPublicKey")),
    ObjectClass("group", "1.2.840.113556.1.5.8", kind="AUXILIARY",
                may=("cn", "groupType", "ak-superuser", *_GROUP, *_ACCOUNT)),
    ObjectClass("groupOfNames", "2.5.6.9", must=("cn",), may=_GROUP),
    ObjectClass("groupOfUniqueNames", "2.5.6.17", "groupOfNames", may=("uniqueMember",)),
    ObjectClass("posixGroup", "1.3.6.1.1.1.2.2", kind="AUXILIARY", may=("cn", "description", "gidNumber", "memberUid")),
    ObjectClass("goauthentik.io/ldap/group", "1.3.6.1.4.1.26027.1.1.8", kind="AUXILIARY", may=("ak-superuser",)),
    ObjectClass("goauthentik.io/ldap/virtual-group", "1.3.6.1.4.1.26027.1.1.9", kind="AUXILIARY"),
    ObjectClass("organizationalUnit", "2.5.6.5", must=("ou",), may=("c", "l", "cn")),
    ObjectClass("organization", "2.5.6.4", must=("o",), may=("c", "l")),
    ObjectClass("country", "2.5.6.2", must=("c",)),
    ObjectClass("locality", "2.5.6.3", may=("l", "st")),
    ObjectClass("nsContainer", "2.16.840.1.113730.3.2.104", kind="AUXILIARY", may=("cn",)),
    ObjectClass("domain", "0.9.2342.19200300.100.4.13", may=("dc", "o", "ou")),
    ObjectClass("sambaSamAccount", "1.3.6.1.4.1.7165.2.2.6", kind="AUXILIARY", must=("uid", "sambaSID"),
                may=("cn", "sambaPrimaryGroupSID", "sambaAcctFlags", "sambaPwdLastSet", "displayName")),
    ObjectClass("sambaGroupMapping", "1.3.6.1.4.1.7165.2.2.4", kind="AUXILIARY",
                must=("gidNumber", "sambaSID", "sambaGroupType"), may=("displayName",)),
    ObjectClass("sambaDomain", "1.3.6.1.4.1.7165.2.2.5", must=("sambaDomainName", "sambaSID"),
                may=("sambaNextRid", "sambaAlgorithmicRidBase")),
    ObjectClass("subschema", "2.5.20.1", kind="AUXILIARY",
                may=("dITContentRules", "attributeTypes", "objectClasses", "matchingRules", "ldapSyntaxes")),
)  # fmt: skip

_CLASS_NAMES: Final = {c.oid.encode(): c.name.lower().encode() for c in OBJECT_CLASSES}


def normal_form(kind: int, value: bytes) -> bytes | None:
    """As `normalise_value`; and an object class is the same by its number and by its name (RFC 4512 1.4)."""
    form = normalise_value(kind, value)
    return _CLASS_NAMES.get(form, form) if kind == Kind.OID and form is not None else form


_SYNTAXES: Final = {
    "7": "Boolean", "12": "DN", "15": "Directory String", "24": "Generalized Time", "26": "IA5 String", "27": "INTEGER",
    "38": "OID", "40": "Octet String", "50": "Telephone Number", "58": "Substring Assertion",
}  # fmt: skip

INVALID_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")

SUBSCHEMA_DN: Final = b"cn=subschema"


@cache
def attribute_type(name: bytes) -> AttributeType | None:
    """The type with this descriptor, alias or OID, in whatever case; None if the schema knows none."""
    return _by_name().get(name.lower())


@cache
def _by_name() -> dict[bytes, AttributeType]:
    return {one.lower().encode(): t for t in ATTRIBUTE_TYPES for one in (t.name, *t.aliases, t.oid)}


def custom_oid(name: str) -> str:
    """A stable OID for an attribute nobody registered: 2.25 and a name-based UUID (ITU-T X.667)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'goauthentik.io/{name.lower()}').int}"


def custom_attribute(name: str) -> AttributeType:
    """The type of an attribute that only the directory's administrator knows."""
    return AttributeType(name, custom_oid(name))


@cache
def subschema(custom: frozenset[str] = frozenset()) -> list[tuple[bytes, list[bytes]]]:
    """Attributes of the subschema subentry `cn=subschema` (RFC 4512 4.2), custom attribute types included."""
    added = [custom_attribute(name) for name in sorted(custom)]
    classes = [c.describe() for c in OBJECT_CLASSES]
    if added:
        holder = ObjectClass(
            "goauthentikio-ldap-custom",
            "1.3.6.1.4.1.26027.1.1.10",
            kind="AUXILIARY",
            may=tuple(a.name if _is_descriptor(a.name) else a.oid for a in added),
        )
        classes.append(holder.describe())
    content_rules = [f"( {c.oid} {_naming(c.name)} )" for c in OBJECT_CLASSES if c.kind == "STRUCTURAL"]
    rules = [f"( {oid} NAME '{name}' SYNTAX {_SYNTAX}{syntax} )" for name, (oid, syntax, _) in MATCHING_RULES.items()]
    types: Iterable[AttributeType] = (*ATTRIBUTE_TYPES, *added)
    return [
        (b"objectClass", [b"top", b"subschema"]),
        (b"cn", [b"subschema"]),
        (b"entryDN", [SUBSCHEMA_DN]),
        (b"subschemaSubentry", [SUBSCHEMA_DN]),
        (b"ldapSyntaxes", [f"( {_SYNTAX}{oid} DESC '{text}' )".encode() for oid, text in _SYNTAXES.items()]),
        (b"matchingRules", [rule.encode() for rule in rules]),
        (b"dITContentRules", [rule.encode() for rule in content_rules]),
        (b"attributeTypes", [t.describe().encode() for t in types if t.published]),
        (b"objectClasses", [c.encode() for c in classes]),
    ]
