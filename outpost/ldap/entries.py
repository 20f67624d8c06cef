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
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar

from outpost.errors import ConfigError, DecodeError
from outpost.identity import Crowd, Group, LdapProvider, User
from outpost.ldap._arena import Links, memberships
from outpost.ldap.dn import LONG_VALUE, escape, normalise, parse
from outpost.ldap.schema import ATTRIBUTE_TYPES, INVALID_IN_NAMES
from outpost.ldap.sids import RID_BASE, dns_domain, domain_sid, group_rid, guid, netbios_name, packed, user_rid

K = TypeVar("K")
Value = bytes | Sequence[bytes]
Pairs = list[tuple[str, Value]]

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

_TRUTH: Final = {True: b"TRUE", False: b"FALSE"}
_COMMON: Final = (
    "distinguishedName", "entryUUID", "entryDN", "structuralObjectClass", "hasSubordinates", "subschemaSubentry",
)  # fmt: skip
_OF_USER: Final = (
    "objectClass", "cn", "sAMAccountName", "uid", "name", "displayName", "sn", "givenName", "mail", "uidNumber",
    "gidNumber", "homeDirectory", "loginShell", "ak-active", "ak-superuser", "memberOf",
)  # fmt: skip
_TIMES_OF_USER: Final = ("createTimestamp", "modifyTimestamp", "pwdChangedTime")
_OF_GROUP: Final = (
    "objectClass", "cn", "sAMAccountName", "uid", "gidNumber", "ak-superuser", "member", "uniqueMember", "memberUid",
)  # fmt: skip
_MANY: Final = (list, tuple)
_URLS: Final = uuid.NAMESPACE_URL.bytes
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_INTEGER: Final = re.compile(r"-?[0-9]+\Z")
_SIMPLE: Final = re.compile(r"[a-z0-9][a-z0-9._@-]*\Z")
"""Names that are their own RFC 4514 escape and their own normal form."""
_SINGLE: Final = frozenset(t.name for t in ATTRIBUTE_TYPES if t.single)
_CANONICAL: Final = {t.name.lower(): t.name for t in ATTRIBUTE_TYPES} | {
    alias.lower(): t.name for t in ATTRIBUTE_TYPES for alias in t.aliases
}


@dataclass(slots=True)
class EntryValues:
    """One entry."""

    dn: bytes
    normal: bytes | None
    """The normal form of `dn` where it is known without parsing."""
    kind: str
    """`base`, `container`, `user`, `group` or `virtual_group`."""
    user_pk: int
    names: tuple[str, ...]
    """Descriptions in the order in which they are sent; mostly one object for all entries of a kind."""
    values: list[Value]
    """Of each: what is empty stands for no attribute, and values may repeat."""
    login: bytes | None = None
    """Of a user."""
    holders: Links | None = None
    """Of a group: the entries whose memberOf names it."""

    @property
    def attributes(self) -> Pairs:
        """What has values, by description."""
        return [(name, value) for name, value in zip(self.names, self.values, strict=True) if value]


NOTHING: Final[Pairs] = []


class Layout:
    """What entries of one kind, with the same switches on, have alike."""

    def __init__(self, names: tuple[str, ...], classes: tuple[bytes, ...]) -> None:
        self.names = names
        self.classes = classes
        self.places = {name.lower(): place for place, name in enumerate(names)}
        self._longer: dict[tuple[str, ...], tuple[str, ...]] = {}

    def and_then(self, further: tuple[str, ...]) -> tuple[str, ...]:
        """These names and further ones, one object however often they are asked for."""
        names = self._longer.get(further)
        if names is None:
            names = self._longer[further] = self.names + further
        return names


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
        return self._below("uid" if self.rdn == "uid" else "cn", user.username, self.users)

    def of_group(self, group: Group) -> tuple[bytes, bytes | None]:
        """The group's DN, and its normal form if that is known."""
        return self._below("cn", group.name, self.groups)

    def of_virtual_group(self, user: User) -> tuple[bytes, bytes | None]:
        """The DN of the user's own group, and its normal form if that is known: where that of the user's is."""
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


@lru_cache(maxsize=4096)
def _described(key: str) -> tuple[str, str] | None:
    """The description of a custom attribute in lower case and as it is sent; None where nobody may set it."""
    name = attribute_name(key)
    lower = name.lower()
    return None if lower in RESERVED else (lower, name)


def custom_values(attributes: Mapping[str, Any], username: str | None) -> dict[str, tuple[str, list[bytes]]]:
    """Custom attributes by lower-case description. In a user's, `%s` stands for the username."""
    found: dict[str, tuple[str, list[bytes]]] = {}
    for key, value in attributes.items():
        described = _described(str(key))
        if described is None or value is None or (key == "radius" and isinstance(value, Mapping)):
            continue
        octets = []
        for one in value if isinstance(value, _MANY) else (value,):
            text = b"" if one is None else text_value(one)
            if username is not None and b"%s" in text:
                text = text.replace(b"%s", username.encode())
            if text:
                octets.append(text)
        if octets:
            lower, name = described
            found.setdefault(lower, (name, octets))
    return found


def generalized_time(at: datetime) -> bytes:
    """RFC 4517 3.3.13, in whole seconds of UTC; a time without zone is UTC."""
    at = _utc(at)
    return b"%04d%02d%02d%02d%02d%02dZ" % (at.year, at.month, at.day, at.hour, at.minute, at.second)


def _time(at: datetime | None) -> bytes:
    return b"" if at is None else generalized_time(at)


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
    value = attributes.get(name) if attributes else None
    if isinstance(value, str) and _INTEGER.match(value.strip()):
        return value.strip().encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).encode()
    return b"%d" % otherwise


def _normalised(dn: bytes) -> bytes:
    """The normal form of a DN; empty where it has none."""
    try:
        return normalise(dn)
    except DecodeError:
        return b""


def _uuid(kind: str, name: str) -> bytes:
    named = _URLS + f"https://goauthentik.io/outpost/{kind}/{name}".encode()
    text = hashlib.sha1(named, usedforsecurity=False).hexdigest()
    # What uuid.uuid5 returns (RFC 9562 5.5), several times faster.
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:32]}".encode()


def _common(dn: bytes, identifier: bytes, structural: bytes) -> tuple[bytes, ...]:
    """The values of `_COMMON`."""
    return dn, identifier, dn, structural, b"FALSE", b"cn=subschema"


def _links(places: Iterable[int]) -> bytes:
    return array("I", places).tobytes()


def _plain(dn: bytes, kind: str, attributes: Pairs) -> EntryValues:
    return EntryValues(dn, None, kind, -1, tuple(name for name, _ in attributes), [value for _, value in attributes])


class Directory:
    """All entries of one provider, in the order in which they are listed."""

    def __init__(self, people: Crowd, provider: LdapProvider) -> None:
        """Raises ConfigError if the provider's base DN is no DN."""
        self.provider = provider
        self.naming = Naming(provider)
        self.left_out: list[str] = []
        """Names that a DN cannot tell apart from an earlier one, or cannot hold: nobody is taken for somebody else."""
        self._taken: set[bytes] = set()
        """Normal DNs."""
        self._users: list[User] = []
        self._groups: list[Group] = []
        self._normals: dict[bytes, bytes] = {}
        user_dns: dict[int, bytes] = {}
        for user in sorted(people.users, key=attrgetter("username")):
            dn, normal = self.naming.of_user(user)
            # The user's own group, whose DN is a little longer, has to have a place, too.
            if normal is None and _normalised(self.naming.of_virtual_group(user)[0]):
                normal = _normalised(dn)
            if self._admit(user.pk, user.username, dn, normal, user_dns):
                self._users.append(user)
        group_dns: dict[str, bytes] = {}
        for group in sorted(people.groups, key=attrgetter("name")):
            dn, normal = self.naming.of_group(group)
            if self._admit(group.pk, group.name, dn, normal or _normalised(dn), group_dns):
                self._groups.append(group)
        self.groups = {group.pk: group for group in self._groups}
        self._above: dict[str, tuple[str, ...]] = {}
        # Members are known by where their entries come: behind the base and the first container.
        self._first_user = 3 if provider.options.samba else 2
        self._first_group = first_group = self._first_user + len(self._users) + 1
        self._places = {group.pk: place for place, group in enumerate(self._groups, first_group)}
        before, between = [b""] * self._first_user, [b""]
        self._dns: list[bytes] = [*before, *user_dns.values(), *between, *group_dns.values()]
        self._logins: list[bytes] = [*before, *(user.username.encode() for user in self._users)]
        self._parents = {
            group.pk: [pk for pk in dict.fromkeys(group.parents) if pk in self.groups and pk != group.pk]
            for group in self._groups
        }
        children: dict[str, list[int]] = {pk: [] for pk in self.groups}
        for pk, parents in self._parents.items():
            for parent in parents:
                children[parent].append(self._places[pk])
        self._children = {pk: _links(places) for pk, places in children.items()}
        effective = provider.options.nested_groups == "effective"
        reach: dict[str, Sequence[int]] = {
            pk: (place, *(self._places[above] for above in self.ancestors(pk) if effective))
            for pk, place in self._places.items()
        }
        self._member_of, members = memberships(
            (user.groups for user in self._users), reach, self._first_user, first_group, len(self._groups)
        )
        """By user: the places of his groups."""
        self._members = dict(zip(self._places, members, strict=True))
        self._below: dict[str, bytes] = {}
        """By group: the groups whose memberOf names it, where that is more than its children."""
        if effective:
            below: dict[str, list[int]] = {}
            for group in self._groups:
                for pk in self.ancestors(group.pk):
                    below.setdefault(pk, []).append(self._places[group.pk])
            self._below = {pk: _links(places) for pk, places in below.items()}
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
        self._has_extra = options.samba or options.active_directory or options.shadow
        self._home = options.home_directory.encode().split(b"%s")
        """What is between the login names."""
        self._shell = options.login_shell.encode()
        self._layouts: dict[tuple[Any, ...], Layout] = {}
        self._of_user = self._layout(_OF_USER, USER_CLASSES, NOTHING, _TIMES_OF_USER)
        self._of_virtual_group = self._layout(_OF_GROUP, VIRTUAL_GROUP_CLASSES, NOTHING)

    def _admit(self, pk: K, name: str, dn: bytes, normal: bytes | None, dns: dict[K, bytes]) -> bool:
        if not normal or normal in self._taken or pk in dns:
            self.left_out.append(name)
            return False
        self._taken.add(normal)
        dns[pk] = dn
        self._normals[dn] = normal
        return True

    def _number_sids(self) -> None:
        """Whoever shares a number with somebody else gets no SID: nobody is to be taken for him.

        A virtual group gives way to a real one.
        """
        uids = {user.pk: int(self._numbers(user)[0]) for user in self._users}
        gids = {group.pk: int(self._group_number(group)) for group in self._groups}
        own = {user.pk: int(self._numbers(user)[1]) for user in self._users}
        taken = set(gids.values())
        self._user_rids = _unshared(uids, user_rid)
        self._group_rids = _unshared(gids, group_rid)
        self._own_rids = _unshared({pk: gid for pk, gid in own.items() if gid not in taken}, group_rid)
        self._carried = frozenset((*self._group_rids.values(), *self._own_rids.values()))

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
        for place, (user, places) in enumerate(zip(self._users, self._member_of, strict=True), self._first_user):
            yield self._user(user, place, places)
        yield self._container(naming.groups, "groups", len(self._groups))
        for place, group in enumerate(self._groups, self._first_group):
            yield self._group(group, place)
        yield self._container(naming.virtual_groups, "virtual-groups", len(self._users))
        for place, user in enumerate(self._users, self._first_user):
            yield self._virtual_group(user, place)

    def custom_names(self) -> list[str]:
        """Descriptions that the schema does not know, each in its first spelling."""
        found: dict[str, str] = {}
        told: set[str] = set()
        """Keys that were looked at with a value."""
        for name in self._base().names:
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
        attributes: Pairs = [("objectClass", (b"top", structural)), (attribute, named)]
        if structural == b"organizationalUnit" and attribute != "ou":
            attributes.append(("ou", named))
        identifier = _uuid("base", naming.normal.decode())
        attributes += zip(_COMMON, _common(naming.base, identifier, structural), strict=True)
        if self.provider.options.active_directory:
            attributes += self._windows(identifier, self._sid)
        return self._holder(naming.base, "base", attributes, 4 if self.provider.options.samba else 3)

    def _samba_domain(self) -> EntryValues:
        naming, options = self.naming, self.provider.options
        named = naming.naming[0][1]
        stem = naming.domain.partition(".")[0] or (named if isinstance(named, str) else "")
        name = options.samba_domain or netbios_name(stem)
        dn = f"sambaDomainName={name},".encode() + naming.base.lower()
        attributes: Pairs = [
            ("objectClass", (b"top", b"sambaDomain")),
            ("sambaDomainName", name.encode()),
            ("sambaSID", self._sid.encode()),
            ("sambaNextRid", str(RID_BASE).encode()),
            ("sambaAlgorithmicRidBase", str(RID_BASE).encode()),
        ]
        attributes += zip(_COMMON, _common(dn, _uuid("samba-domain", dn.decode()), b"sambaDomain"), strict=True)
        return _plain(dn, "container", attributes)

    def _container(self, dn: bytes, name: str, below: int) -> EntryValues:
        attributes: Pairs = [
            ("objectClass", (b"top", b"organizationalUnit", b"nsContainer")),
            ("ou", name.encode()),
            ("cn", name.encode()),
        ]
        attributes += zip(_COMMON, _common(dn, _uuid("container", dn.decode()), b"organizationalUnit"), strict=True)
        return self._holder(dn, "container", attributes, below)

    @staticmethod
    def _holder(dn: bytes, kind: str, attributes: Pairs, below: int) -> EntryValues:
        attributes = [(n, b"TRUE" if n == "hasSubordinates" and below else v) for n, v in attributes]
        attributes.append(("numSubordinates", str(below).encode()))
        return _plain(dn, kind, attributes)

    def _uid(self, user: User) -> bytes:
        # An entry has to hold what its RDN says (RFC 4512 2.3.1).
        is_name = self.provider.options.uid == "username" or self.naming.rdn == "uid" or not user.uid
        return (user.username if is_name else user.uid).encode()

    def _numbers(self, user: User) -> tuple[bytes, bytes]:
        """uidNumber and gidNumber."""
        attributes = user.attributes
        number = _number(attributes, "uidNumber", self.provider.uid_start_number + user.pk)
        if attributes and ("uidNumber" in attributes or "gidNumber" in attributes):
            return number, _number(attributes, "gidNumber", int(number))
        return number, number

    def _group_number(self, group: Group) -> bytes:
        return _number(group.attributes, "gidNumber", self.provider.gid_start_number + group.num_pk)

    def _sid_of(self, rid: int | None) -> str:
        """Empty for a number that no SID has."""
        return "" if rid is None else f"{self._sid}-{rid}"

    @staticmethod
    def _windows(identifier: bytes, sid: str) -> Pairs:
        octets = guid(identifier.decode())
        return [("objectGUID", octets or b""), ("objectSid", packed(sid) if sid else b"")]

    def _extra_of_user(self, user: User, identifier: bytes) -> tuple[tuple[bytes, ...], Pairs]:
        """What the switches add to a user: object classes, and attributes of which some may be empty."""
        options = self.provider.options
        classes: tuple[bytes, ...] = ()
        found: Pairs = []
        changed = user.password_change_date
        changed_at = None if changed is None else int(_utc(changed).timestamp())
        if options.shadow:
            classes += (b"shadowAccount",)
            found.append(("shadowLastChange", b"" if changed_at is None else str(changed_at // 86400).encode()))
        if not (options.samba or options.active_directory):
            return classes, found
        sid = self._sid_of(self._user_rids.get(user.pk))
        primary = group_rid(int(self._numbers(user)[1]))
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

    def _extra_of_group(self, rid: int | None, identifier: bytes) -> tuple[tuple[bytes, ...], Pairs]:
        """The same for a group."""
        options = self.provider.options
        classes: tuple[bytes, ...] = ()
        found: Pairs = []
        sid = self._sid_of(rid)
        if options.samba and sid:
            classes = (b"sambaGroupMapping",)
            found += [("sambaSID", sid.encode()), ("sambaGroupType", b"2")]
        if options.active_directory:
            found += self._windows(identifier, sid)
            # A global group that may be named in access rights.
            found.append(("groupType", b"-2147483646"))
        return classes, found

    def _layout(
        self, names: tuple[str, ...], classes: tuple[bytes, ...], extra: Pairs, more: tuple[str, ...] = ()
    ) -> Layout:
        """names: before those of `extra` and `_COMMON`, more: behind them."""
        key = (classes, *(name for name, _ in extra))
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = Layout((*names, *(name for name, _ in extra), *_COMMON, *more), classes)
        return layout

    def _user(self, user: User, place: int, member_of: bytes) -> EntryValues:
        dn, name = self._dns[place], self._logins[place]
        full = user.name.strip()
        given, _, family = full.rpartition(" ")
        shown = full.encode()
        identifier = user.uuid.encode() or _uuid("user", user.uid or str(user.pk))
        uid_number, gid_number = self._numbers(user)
        layout, extra = self._of_user, NOTHING
        if self._has_extra:
            classes, extra = self._extra_of_user(user, identifier)
            layout = self._layout(_OF_USER, USER_CLASSES + classes, extra, _TIMES_OF_USER)
        values: list[Value] = [
            layout.classes,
            name,
            name,
            self._uid(user),
            shown,
            shown,
            family.encode() or shown or name,
            given.strip().encode(),
            user.email.encode(),
            uid_number,
            gid_number,
            name.join(self._home),
            self._shell,
            _TRUTH[user.is_active],
            _TRUTH[user.is_superuser],
            Links(member_of, self._dns),
            *(value for _, value in extra),
            *_common(dn, identifier, b"goauthentik.io/ldap/user"),
            _time(user.date_joined),
            _time(user.last_updated),
            _time(user.password_change_date),
        ]
        names = self._merge(layout, values, user.attributes, user.username)
        return EntryValues(dn, self._normals[dn], "user", user.pk, names, values, name)

    def _group(self, group: Group, place: int) -> EntryValues:
        dn = self._dns[place]
        name, pk = group.name.encode(), group.pk.encode()
        users = self._members[group.pk]
        entries = users + self._children[group.pk]
        members = Links(entries, self._dns)
        effective = self.provider.options.nested_groups == "effective"
        above = self.ancestors(group.pk) if effective else self._parents[group.pk]
        holders = Links(users + self._below.get(group.pk, b""), self._dns) if effective else members
        classes, extra = self._extra_of_group(self._group_rids.get(group.pk), pk)
        layout = self._layout((*_OF_GROUP, "memberOf"), GROUP_CLASSES + classes, extra)
        values: list[Value] = [
            layout.classes,
            name,
            name,
            pk,
            self._group_number(group),
            _TRUTH[group.is_superuser],
            members,
            members,
            Links(entries, self._logins, True, len(users) // 4),
            Links(_links(sorted(self._places[pk] for pk in above)), self._dns),
            *(value for _, value in extra),
            *_common(dn, pk, b"groupOfUniqueNames"),
        ]
        names = self._merge(layout, values, group.attributes, None)
        return EntryValues(dn, self._normals[dn], "group", -1, names, values, None, holders)

    def _virtual_group(self, user: User, place: int) -> EntryValues:
        dn, normal = self.naming.of_virtual_group(user)
        member, name = self._dns[place], self._logins[place]
        identifier = _uuid("virtual-group", user.uuid or user.uid or str(user.pk))
        layout, extra = self._of_virtual_group, NOTHING
        if self._has_extra:
            classes, extra = self._extra_of_group(self._own_rids.get(user.pk), identifier)
            layout = self._layout(_OF_GROUP, VIRTUAL_GROUP_CLASSES + classes, extra)
        values: list[Value] = [
            layout.classes,
            name,
            name,
            self._uid(user),
            self._numbers(user)[1],
            b"FALSE",
            member,
            member,
            name,
            *(value for _, value in extra),
            *_common(dn, identifier, b"groupOfUniqueNames"),
        ]
        return EntryValues(dn, normal, "virtual_group", user.pk, layout.names, values)

    def _merge(
        self, layout: Layout, values: list[Value], attributes: Mapping[str, Any], username: str | None
    ) -> tuple[str, ...]:
        """Custom attributes take the place of built-in ones (COMPAT), or add to them; the names of all values then."""
        custom = custom_values(attributes, username) if attributes else None
        if not custom:
            return layout.names
        adds = self.provider.options.custom_attributes == "add"
        further: list[str] = []
        for lower, (name, octets) in custom.items():
            place = layout.places.get(lower)
            if place is None:
                further.append(name)
                values.append(octets[0] if len(octets) == 1 else octets)
                continue
            built = values[place]
            if adds and built and layout.names[place] not in _SINGLE:
                values[place] = [*([built] if isinstance(built, bytes) else built), *octets]
            else:
                values[place] = octets
        return layout.and_then(tuple(further)) if further else layout.names
