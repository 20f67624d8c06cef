"""Users and groups as LDAP entries: which entries a provider has, and which attributes each holds.

COMPAT: names, values and precedence are those of authentik's outpost (custom attributes replace built-in ones),
completed by what clients ask for in the field.  Knows nothing of wire formats; the arena and the tests read what it
yields.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from outpost.errors import ConfigError, DecodeError
from outpost.identity import Crowd, Group, LdapProvider, User
from outpost.ldap._arena import Links
from outpost.ldap.dn import LONG_VALUE, escape, normalise, parse
from outpost.ldap.schema import ATTRIBUTE_TYPES, INVALID_IN_NAMES
from outpost.ldap.sids import RID_BASE, dns_domain, domain_sid, group_rid, guid, netbios_name, packed, user_rid

K = TypeVar("K")
Value = bytes | Sequence[bytes]

#: What nobody may set through a custom attribute: it decides about membership, names the entry, or is as good as a
#: password.
RESERVED: Final = frozenset(
    {
        "memberof", "member", "uniquemember", "memberuid", "entrydn", "entryuuid", "distinguishedname", "dn",
        "structuralobjectclass", "hassubordinates", "numsubordinates", "subschemasubentry", "createtimestamp",
        "modifytimestamp", "pwdchangedtime", "userpassword", "authpassword", "unicodepwd", "ntpwdhistory",
        "lmpwdhistory", "dbcspwd", "supplementalcredentials", "sambantpassword", "sambalmpassword",
        "sambapasswordhistory", "sambapreviouscleartextpw", "sambacleartextpassword", "krbprincipalkey",
    }
)  # fmt: skip

USER_CLASSES: Final = (
    b"top", b"person", b"organizationalPerson", b"inetOrgPerson", b"user", b"posixAccount", b"goauthentik.io/ldap/user",
)  # fmt: skip
GROUP_CLASSES: Final = (
    b"top",
    b"group",
    b"groupOfUniqueNames",
    b"groupOfNames",
    b"goauthentik.io/ldap/group",
    b"posixGroup",
)
VIRTUAL_GROUP_CLASSES: Final = (
    b"top", b"group", b"groupOfUniqueNames", b"groupOfNames", b"goauthentik.io/ldap/group", b"posixGroup",
    b"goauthentik.io/ldap/virtual-group",
)  # fmt: skip

_URLS: Final = uuid.NAMESPACE_URL.bytes
_INTEGER: Final = re.compile(r"-?[0-9]+\Z")
_SIMPLE: Final = re.compile(r"[a-z0-9][a-z0-9._@-]*\Z")
"""Names that are their own RFC 4514 escape and their own normal form."""
_SINGLE: Final = frozenset(t.name for t in ATTRIBUTE_TYPES if t.single)
_CANONICAL: Final = {t.name.lower(): t.name for t in ATTRIBUTE_TYPES} | {
    alias.lower(): t.name for t in ATTRIBUTE_TYPES for alias in t.aliases
}


@dataclass(slots=True)
class EntryValues:
    """One entry: `attributes` by description, in the order they are sent; values may repeat."""

    dn: bytes
    normal: bytes | None
    """The normal form of `dn` where it is known without parsing."""
    kind: str
    """`base`, `container`, `user`, `group` or `virtual_group`."""
    user_pk: int
    attributes: list[tuple[str, Value]]
    login: bytes | None = None
    """Of a user."""
    holders: Links | None = None
    """Of a group: the entries whose memberOf names it."""


class Naming:
    """The DNs of one provider. Raises ConfigError if its base DN is none."""

    def __init__(self, provider: LdapProvider) -> None:
        try:
            rdns = parse(provider.base_dn)
            base = provider.base_dn.encode()
            self.normal = normalise(base)
        except DecodeError as error:
            raise ConfigError(f"base DN of provider {provider.name!r}: {error}") from None
        if not rdns:
            raise ConfigError(f"base DN of provider {provider.name!r} is empty")
        self.base = base
        self.naming = rdns[0]
        self.depth = len(rdns)
        self.domain = (provider.options.domain or dns_domain(rdns)).lower()
        """DNS domain of user principal names; empty where there is none."""
        lower = provider.base_dn.lower().encode()
        self.users = b"ou=users," + lower
        self.groups = b"ou=groups," + lower
        self.virtual_groups = b"ou=virtual-groups," + lower
        self.rdn = provider.options.rdn_attribute
        # Only then is a simple name's DN its own normal form.
        self.exact = lower == self.normal

    def of_user(self, user: User) -> tuple[bytes, bytes | None]:
        """The user's DN, and its normal form if that is known."""
        value = user.username
        if self.rdn == "uid":
            return self._below("uid", value, self.users)
        return self._below("cn", value, self.users)

    def of_group(self, group: Group) -> tuple[bytes, bytes | None]:
        """The group's DN, and its normal form if that is known."""
        return self._below("cn", group.name, self.groups)

    def of_virtual_group(self, user: User) -> tuple[bytes, bytes | None]:
        """The DN of the user's own group, and its normal form if that is known."""
        return self._below("cn", user.username, self.virtual_groups)

    def _below(self, attribute: str, value: str, container: bytes) -> tuple[bytes, bytes | None]:
        if len(value) < LONG_VALUE and _SIMPLE.match(value):
            dn = f"{attribute}={value},".encode() + container
            return dn, dn if self.exact else None
        return f"{attribute}={escape(value)},".encode() + container, None


def attribute_name(key: str) -> str:
    """The description under which a custom attribute appears: `/` becomes `-`, dots go (as authentik does), and what no
    attribute description may hold becomes `-`."""
    name = INVALID_IN_NAMES.sub("-", key.replace("/", "-").replace(".", ""))
    if not name or not name[0].isalpha():
        name = f"x-{name}"
    return _CANONICAL.get(name.lower(), name)


def text_value(value: Any) -> bytes:
    """One element of a custom attribute as it is sent."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass") if value.isascii() else value.encode("utf-8", "replace")
    if isinstance(value, bool):
        return b"TRUE" if value else b"FALSE"
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, float):
        return (str(int(value)) if value.is_integer() else repr(value)).encode()
    if isinstance(value, datetime):
        return generalized_time(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str).encode()


def custom_values(attributes: Mapping[str, Any], username: str | None) -> dict[str, tuple[str, list[bytes]]]:
    """Custom attributes by lower-case description. In a user's, `%s` stands for the username."""
    found: dict[str, tuple[str, list[bytes]]] = {}
    for key, value in attributes.items():
        if key == "radius" and isinstance(value, Mapping):
            continue
        name = attribute_name(str(key))
        if name.lower() in RESERVED or value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        octets = [text_value(v) for v in values if v is not None]
        if username is not None:
            octets = [o.replace(b"%s", username.encode()) if b"%s" in o else o for o in octets]
        octets = [o for o in octets if o]
        if octets:
            found.setdefault(name.lower(), (name, octets))
    return found


def generalized_time(at: datetime) -> bytes:
    """RFC 4517 3.3.13, in whole seconds of UTC; a time without zone is UTC."""
    text = _utc(at).isoformat()
    return f"{text[:4]}{text[5:7]}{text[8:10]}{text[11:13]}{text[14:16]}{text[17:19]}Z".encode()


def _utc(at: datetime) -> datetime:
    if at.tzinfo is UTC:
        return at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _unshared(numbers: Mapping[K, int], rid: Callable[[int], int | None]) -> dict[K, int]:
    """The RIDs of those whose number nobody else has."""
    count = Counter(numbers.values())
    found = ((pk, rid(number)) for pk, number in numbers.items() if count[number] == 1)
    return {pk: number for pk, number in found if number is not None}


def _number(attributes: Mapping[str, Any], name: str, otherwise: int) -> bytes:
    """COMPAT: only a string overrides; a JSON number replaces the attribute itself, which comes to the same."""
    if not attributes:
        return b"%d" % otherwise
    value = attributes.get(name)
    if isinstance(value, str) and _INTEGER.match(value.strip()):
        return value.strip().encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    return str(otherwise).encode()


def _truth(value: bool) -> bytes:
    return b"TRUE" if value else b"FALSE"


def _uuid(kind: str, name: str) -> bytes:
    named = _URLS + f"https://goauthentik.io/outpost/{kind}/{name}".encode()
    text = hashlib.sha1(named, usedforsecurity=False).hexdigest()
    # What uuid.uuid5 returns (RFC 9562 5.5), several times faster.
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}".encode()


def _common(dn: bytes, identifier: bytes, structural: bytes) -> list[tuple[str, Value]]:
    return [
        ("distinguishedName", dn),
        ("entryUUID", identifier),
        ("entryDN", dn),
        ("structuralObjectClass", structural),
        ("hasSubordinates", b"FALSE"),
        ("subschemaSubentry", b"cn=subschema"),
    ]


class Directory:
    """All entries of one provider, in the order in which they are listed."""

    def __init__(self, people: Crowd, provider: LdapProvider) -> None:
        """Raises ConfigError if the provider's base DN is no DN."""
        self.provider = provider
        self.naming = Naming(provider)
        self.left_out: list[str] = []
        """Names that a DN cannot tell apart from an earlier one, or cannot hold: nobody is taken for somebody else."""
        self._user_dns: dict[int, bytes] = {}
        self._group_dns: dict[str, bytes] = {}
        self._normals: dict[bytes, bytes] = {}
        taken: set[bytes] = set()
        self._users = [
            user
            for user in sorted(people.users, key=lambda user: user.username)
            if self._is_whole(user)
            and self._admit(user.pk, user.username, self.naming.of_user(user), self._user_dns, taken)
        ]
        self._groups = [
            group
            for group in sorted(people.groups, key=lambda group: group.name)
            if self._admit(group.pk, group.name, self.naming.of_group(group), self._group_dns, taken)
        ]
        self.groups = {group.pk: group for group in self._groups}
        self._above: dict[str, tuple[str, ...]] = {}
        # Members are known by where their entries come: behind the base and the first container.
        self._first_user = 3 if provider.options.samba else 2
        first_group = self._first_user + len(self._users) + 1
        self._places = {group.pk: first_group + i for i, group in enumerate(self._groups)}
        before, between = [b""] * self._first_user, [b""]
        self._dns: list[bytes] = [*before, *self._user_dns.values(), *between, *self._group_dns.values()]
        self._logins: list[bytes] = [*before, *(user.username.encode() for user in self._users)]
        self._member_of: list[list[int]] = []
        """By user: the places of his groups, ascending."""
        self._members: dict[str, list[int]] = {pk: [] for pk in self.groups}
        self._children: dict[str, list[int]] = {pk: [] for pk in self.groups}
        self._parents = {
            group.pk: [pk for pk in dict.fromkeys(group.parents) if pk in self.groups and pk != group.pk]
            for group in self._groups
        }
        for pk, parents in self._parents.items():
            for parent in parents:
                self._children[parent].append(self._places[pk])
        members = [self._members[group.pk] for group in self._groups]
        for place, user in enumerate(self._users, self._first_user):
            mine = self._places_of(user)
            self._member_of.append(mine)
            for group_place in mine:
                members[group_place - first_group].append(place)
        self._below: dict[str, list[int]] = {}
        """By group: the groups whose memberOf names it, where that is more than its children."""
        if provider.options.nested_groups == "effective":
            for group in self._groups:
                for pk in self.ancestors(group.pk):
                    self._below.setdefault(pk, []).append(self._places[group.pk])
        options = provider.options
        self._sid = options.domain_sid or domain_sid(self.naming.normal)
        self._user_rids: dict[int, int] = {}
        self._group_rids: dict[str, int] = {}
        self._own_rids: dict[int, int] = {}
        """By user pk: the RID of his virtual group."""
        self._carried: frozenset[int] = frozenset()
        """RIDs that groups have."""
        if options.samba or options.active_directory:
            self._number_sids()

    def _is_whole(self, user: User) -> bool:
        """Whether there can be the user's own group, too, whose DN is a little longer."""
        dn, normal = self.naming.of_virtual_group(user)
        try:
            return bool(normal or normalise(dn))
        except DecodeError:
            self.left_out.append(user.username)
            return False

    def _admit(
        self, pk: Any, name: str, dn: tuple[bytes, bytes | None], dns: dict[Any, bytes], taken: set[bytes]
    ) -> bool:
        try:
            normal = dn[1] or normalise(dn[0])
        except DecodeError:
            normal = b""
        if not normal or normal in taken or pk in dns:
            self.left_out.append(name)
            return False
        taken.add(normal)
        dns[pk] = dn[0]
        self._normals[dn[0]] = normal
        return True

    def _number_sids(self) -> None:
        """Whoever shares a number with somebody else gets no SID: nobody is to be taken for him.

        A virtual group gives way to a real one.
        """
        uids = {user.pk: int(self._uid_number(user)) for user in self._users}
        gids = {group.pk: int(self._group_number(group)) for group in self._groups}
        own = {user.pk: int(self._gid(user)) for user in self._users}
        taken = set(gids.values())
        self._user_rids = _unshared(uids, user_rid)
        self._group_rids = _unshared(gids, group_rid)
        self._own_rids = _unshared({pk: gid for pk, gid in own.items() if gid not in taken}, group_rid)
        self._carried = frozenset((*self._group_rids.values(), *self._own_rids.values()))

    def _places_of(self, user: User) -> list[int]:
        """The groups that the user is a member of, directly or effectively as the provider says."""
        places = self._places
        direct = {places[pk] for pk in user.groups if pk in places}
        if self.provider.options.nested_groups == "effective":
            for pk in user.groups:
                if pk in places:
                    direct.update(places[above] for above in self.ancestors(pk))
        return sorted(direct)

    def ancestors(self, pk: str) -> tuple[str, ...]:
        """Every group above this one, once, whatever cycles there are."""
        known = self._above.get(pk)
        if known is None:
            seen: dict[str, None] = {}
            todo = list(self._parents[pk])
            while todo:
                parent = todo.pop()
                if parent not in seen and parent != pk:
                    seen[parent] = None
                    todo.extend(self._parents[parent])
            known = self._above[pk] = tuple(seen)
        return known

    def entries(self) -> Iterator[EntryValues]:
        """The base, then each container followed by what is in it."""
        naming = self.naming
        yield self._base()
        if self.provider.options.samba:
            yield self._samba_domain()
        yield self._container(naming.users, "users", len(self._users))
        for user, places in zip(self._users, self._member_of, strict=True):
            yield self._user(user, places)
        yield self._container(naming.groups, "groups", len(self._groups))
        for group in self._groups:
            yield self._group(group)
        yield self._container(naming.virtual_groups, "virtual-groups", len(self._users))
        for user in self._users:
            yield self._virtual_group(user)

    def custom_names(self) -> list[str]:
        """Descriptions that the schema does not know, each in its first spelling."""
        found: dict[str, str] = {}
        told: set[str] = set()
        """Keys that were looked at with a value."""
        for name, _ in self._base().attributes:
            if name.lower() not in _CANONICAL:
                found.setdefault(name.lower(), name)
        everybody: list[User | Group] = [*self._users, *self._groups]
        for one in everybody:
            if not one.attributes or told.issuperset(one.attributes):
                continue
            username = one.username if isinstance(one, User) else None
            values = custom_values(one.attributes, username)
            for lower, (name, _) in values.items():
                if lower not in _CANONICAL:
                    found.setdefault(lower, name)
            told.update(key for key in one.attributes if attribute_name(str(key)).lower() in values)
        return sorted(found.values())

    def _base(self) -> EntryValues:
        naming = self.naming
        classes = {
            "dc": b"domain",
            "o": b"organization",
            "ou": b"organizationalUnit",
            "c": b"country",
            "l": b"locality",
        }
        attribute, value = naming.naming[0]
        attribute = _CANONICAL.get(attribute.lower(), attribute)
        structural = classes.get(attribute, b"organizationalUnit")
        named = value if isinstance(value, bytes) else value.encode()
        attributes: list[tuple[str, Value]] = [("objectClass", (b"top", structural)), (attribute, named)]
        if structural == b"organizationalUnit" and attribute != "ou":
            attributes.append(("ou", named))
        identifier = _uuid("base", naming.normal.decode())
        attributes += _common(naming.base, identifier, structural)
        if self.provider.options.active_directory:
            attributes += self._windows(identifier, self._sid)
        return self._holder(naming.base, "base", attributes, 4 if self.provider.options.samba else 3)

    def _samba_domain(self) -> EntryValues:
        naming, options = self.naming, self.provider.options
        named = naming.naming[0][1]
        stem = naming.domain.partition(".")[0] or (named if isinstance(named, str) else "")
        name = options.samba_domain or netbios_name(stem)
        dn = f"sambaDomainName={name},".encode() + naming.base.lower()
        attributes: list[tuple[str, Value]] = [
            ("objectClass", (b"top", b"sambaDomain")),
            ("sambaDomainName", name.encode()),
            ("sambaSID", self._sid.encode()),
            ("sambaNextRid", str(RID_BASE).encode()),
            ("sambaAlgorithmicRidBase", str(RID_BASE).encode()),
        ]
        attributes += _common(dn, _uuid("samba-domain", dn.decode()), b"sambaDomain")
        return EntryValues(dn, None, "container", -1, attributes)

    def _container(self, dn: bytes, name: str, below: int) -> EntryValues:
        attributes: list[tuple[str, Value]] = [
            ("objectClass", (b"top", b"organizationalUnit", b"nsContainer")),
            ("ou", name.encode()),
            ("cn", name.encode()),
        ]
        attributes += _common(dn, _uuid("container", dn.decode()), b"organizationalUnit")
        return self._holder(dn, "container", attributes, below)

    @staticmethod
    def _holder(dn: bytes, kind: str, attributes: list[tuple[str, Value]], below: int) -> EntryValues:
        attributes = [(n, b"TRUE" if n == "hasSubordinates" and below else v) for n, v in attributes]
        attributes.append(("numSubordinates", str(below).encode()))
        return EntryValues(dn, None, kind, -1, attributes)

    def _uid(self, user: User) -> bytes:
        # An entry has to hold what its RDN says (RFC 4512 2.3.1).
        is_name = self.provider.options.uid == "username" or self.naming.rdn == "uid" or not user.uid
        return (user.username if is_name else user.uid).encode()

    def _uid_number(self, user: User) -> bytes:
        return _number(user.attributes, "uidNumber", self.provider.uid_start_number + user.pk)

    def _gid(self, user: User) -> bytes:
        return _number(user.attributes, "gidNumber", int(self._uid_number(user)))

    def _group_number(self, group: Group) -> bytes:
        return _number(group.attributes, "gidNumber", self.provider.gid_start_number + group.num_pk)

    def _sid_of(self, rid: int | None) -> str:
        """Empty for a number that no SID has."""
        return "" if rid is None else f"{self._sid}-{rid}"

    @staticmethod
    def _windows(identifier: bytes, sid: str) -> list[tuple[str, Value]]:
        octets = guid(identifier.decode())
        return [("objectGUID", octets or b""), ("objectSid", packed(sid) if sid else b"")]

    def _extra_of_user(self, user: User, identifier: bytes) -> tuple[tuple[bytes, ...], list[tuple[str, Value]]]:
        """What the switches add to a user: object classes, and attributes of which some may be empty."""
        options = self.provider.options
        classes: tuple[bytes, ...] = ()
        found: list[tuple[str, Value]] = []
        changed = user.password_change_date
        changed_at = None if changed is None else int(_utc(changed).timestamp())
        if options.shadow:
            classes += (b"shadowAccount",)
            found.append(("shadowLastChange", b"" if changed_at is None else str(changed_at // 86400).encode()))
        if not (options.samba or options.active_directory):
            return classes, found
        sid = self._sid_of(self._user_rids.get(user.pk))
        primary = group_rid(int(self._gid(user)))
        if primary not in self._carried:
            primary = None
        if options.samba and sid:
            classes += (b"sambaSamAccount",)
            found += [
                ("sambaSID", sid.encode()),
                ("sambaPrimaryGroupSID", self._sid_of(primary).encode()),
                ("sambaAcctFlags", b"[U          ]" if user.is_active else b"[DU         ]"),
                ("sambaPwdLastSet", b"" if changed_at is None else str(changed_at).encode()),
            ]
        if options.active_directory:
            name, domain = user.username, self.naming.domain
            found += self._windows(identifier, sid)
            found += [
                ("userPrincipalName", name.encode() if "@" in name or not domain else f"{name}@{domain}".encode()),
                ("userAccountControl", b"512" if user.is_active else b"514"),
                ("primaryGroupID", b"" if primary is None else str(primary).encode()),
            ]
        return classes, found

    def _extra_of_group(self, rid: int | None, identifier: bytes) -> tuple[tuple[bytes, ...], list[tuple[str, Value]]]:
        """The same for a group."""
        options = self.provider.options
        classes: tuple[bytes, ...] = ()
        found: list[tuple[str, Value]] = []
        sid = self._sid_of(rid)
        if options.samba and sid:
            classes = (b"sambaGroupMapping",)
            found += [("sambaSID", sid.encode()), ("sambaGroupType", b"2")]
        if options.active_directory:
            found += self._windows(identifier, sid)
            # A global group that may be named in access rights.
            found.append(("groupType", b"-2147483646"))
        return classes, found

    def _user(self, user: User, member_of: list[int]) -> EntryValues:
        dn = self._user_dns[user.pk]
        name = user.username.encode()
        full = user.name.strip()
        given, _, family = full.rpartition(" ")
        identifier = user.uuid.encode() or _uuid("user", user.uid or str(user.pk))
        classes, extra = self._extra_of_user(user, identifier)
        options = self.provider.options
        built: list[tuple[str, Value]] = [
            ("objectClass", USER_CLASSES + classes),
            ("cn", name),
            ("sAMAccountName", name),
            ("uid", self._uid(user)),
            ("name", full.encode()),
            ("displayName", full.encode()),
            ("sn", (family or full or user.username).encode()),
            ("givenName", given.strip().encode()),
            ("mail", user.email.encode()),
            ("uidNumber", self._uid_number(user)),
            ("gidNumber", self._gid(user)),
            ("homeDirectory", options.home_directory.encode().replace(b"%s", name)),
            ("loginShell", options.login_shell.encode()),
            ("ak-active", _truth(user.is_active)),
            ("ak-superuser", _truth(user.is_superuser)),
            ("memberOf", Links(member_of, self._dns)),
        ]
        built += extra
        built += _common(dn, identifier, b"goauthentik.io/ldap/user")
        for attribute, at in (
            ("createTimestamp", user.date_joined),
            ("modifyTimestamp", user.last_updated),
            ("pwdChangedTime", user.password_change_date),
        ):
            if at is not None:
                built.append((attribute, generalized_time(at)))
        attributes = self._merged(built, user.attributes, user.username)
        return EntryValues(dn, self._normals[dn], "user", user.pk, attributes, name)

    def _group(self, group: Group) -> EntryValues:
        dn = self._group_dns[group.pk]
        name = group.name.encode()
        users = self._members[group.pk]
        entries = users + self._children[group.pk]
        members = Links(entries, self._dns)
        effective = self.provider.options.nested_groups == "effective"
        above = self.ancestors(group.pk) if effective else self._parents[group.pk]
        holders = Links(users + self._below.get(group.pk, []), self._dns) if effective else members
        classes, extra = self._extra_of_group(self._group_rids.get(group.pk), group.pk.encode())
        built: list[tuple[str, Value]] = [
            ("objectClass", GROUP_CLASSES + classes),
            ("cn", name),
            ("sAMAccountName", name),
            ("uid", group.pk.encode()),
            ("gidNumber", self._group_number(group)),
            ("ak-superuser", _truth(group.is_superuser)),
            ("member", members),
            ("uniqueMember", members),
            ("memberUid", Links(entries, self._logins, True, len(users))),
            ("memberOf", Links(sorted(self._places[pk] for pk in above), self._dns)),
        ]
        built += extra
        built += _common(dn, group.pk.encode(), b"groupOfUniqueNames")
        attributes = self._merged(built, group.attributes, None)
        return EntryValues(dn, self._normals[dn], "group", -1, attributes, None, holders)

    def _virtual_group(self, user: User) -> EntryValues:
        dn, normal = self.naming.of_virtual_group(user)
        name = user.username.encode()
        member = self._user_dns[user.pk]
        identifier = _uuid("virtual-group", user.uuid or user.uid or str(user.pk))
        classes, extra = self._extra_of_group(self._own_rids.get(user.pk), identifier)
        built: list[tuple[str, Value]] = [
            ("objectClass", VIRTUAL_GROUP_CLASSES + classes),
            ("cn", name),
            ("sAMAccountName", name),
            ("uid", self._uid(user)),
            ("gidNumber", self._gid(user)),
            ("ak-superuser", b"FALSE"),
            ("member", member),
            ("uniqueMember", member),
            ("memberUid", name),
        ]
        built += extra
        built += _common(dn, identifier, b"groupOfUniqueNames")
        return EntryValues(dn, normal, "virtual_group", user.pk, [(n, v) for n, v in built if v])

    def _merged(
        self, built: list[tuple[str, Value]], attributes: Mapping[str, Any], username: str | None
    ) -> list[tuple[str, Value]]:
        """Custom attributes take the place of built-in ones (COMPAT), or add to them; without values they are left
        out."""
        custom = custom_values(attributes, username) if attributes else {}
        if not custom:
            return [(name, value) for name, value in built if value]
        adds = self.provider.options.custom_attributes == "add"
        merged: list[tuple[str, Value]] = []
        for name, value in built:
            taken = custom.pop(name.lower(), None)
            values = taken[1] if taken is not None else value
            if taken is not None and adds and value and name not in _SINGLE:
                values = [*([value] if isinstance(value, bytes) else value), *taken[1]]
            if values:
                merged.append((name, values))
        return merged + list(custom.values())
