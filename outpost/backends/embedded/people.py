"""Users and groups: entries to identity and accounts.

Primary keys follow from names, never from positions, so that an insertion into the file moves nobody's
uidNumber or gidNumber.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from outpost.backends.embedded.blueprint import GROUP, USER, Blueprint, Entry
from outpost.backends.embedded.model import Account
from outpost.backends.embedded.proofs import NO_PROOFS, read_password, read_proofs
from outpost.backends.embedded.values import MAX_NUMBER, kind
from outpost.errors import ConfigError
from outpost.identity import Group, ReplyAttributes, User

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://goauthentik.io/outpost/directory")
"""Of every UUID made from a name."""

_PREFIX: Final = NAMESPACE.bytes

FIRST_USER: Final = 1
FIRST_GROUP: Final = 1_000_000
SPAN: Final = 999_999
"""Users are numbered below one million and groups above, so that gidNumbers of groups and those of the users' own
groups never meet while the start numbers are less than a million apart."""

USER_TYPES: Final = frozenset({"internal", "external", "service_account", "internal_service_account"})


@dataclass(frozen=True, slots=True)
class Folk:
    """Everybody in the file."""

    users: tuple[User, ...]
    groups: tuple[Group, ...]
    accounts: Mapping[int, Account]
    by_login: Mapping[str, int]


def made_uuid(sort: str, name: str) -> str:
    """UUID text for a name; letter case does not matter."""
    digest = hashlib.sha1(_PREFIX + f"{sort}/{name.casefold()}".encode("utf-8", "surrogatepass"), usedforsecurity=False)
    text = digest.hexdigest()
    # What uuid.uuid5 returns (RFC 9562 5.5), several times faster.
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def numbered(names: Iterable[str], taken: Iterable[int], first: int, sort: bytes) -> tuple[dict[str, int], list[str]]:
    """A number from `first` to `first + SPAN - 1` for each case-folded name, none of `taken`.

    It depends on the name alone, but for the rare ones whose number another name has; those are settled in order
    of name, and the ones that had to give way are listed.
    """
    used = set(taken)
    found: dict[str, int] = {}
    moved: list[str] = []
    for name in sorted(names):
        octets = name.encode("utf-8", "surrogatepass")
        attempt = 0
        while True:
            salt = attempt.to_bytes(8, "little")
            digest = hashlib.blake2b(octets, digest_size=8, person=sort, salt=salt).digest()
            number = first + int.from_bytes(digest, "little") % SPAN
            if number not in used:
                break
            attempt += 1
        used.add(number)
        found[name] = number
        if attempt:
            moved.append(name)
    return found, moved


def read_people(blueprint: Blueprint) -> Folk:
    """All users and groups. Raises ConfigError: a name or primary key twice, a wrong type, a dangling reference."""
    return _Reader(blueprint).read()


class _Reader:
    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.groups: dict[str, Group] = {}
        """By pk."""
        self.added: dict[Entry, list[str]] = {}
        """pks of the groups that name a user, by that user."""
        self.above: dict[str, frozenset[str]] = {}
        self.replies: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {}
        """By group pk: reply attributes by case-folded name."""
        self.joined: dict[tuple[str, ...], tuple[frozenset[str], bool, Mapping[str, Any]]] = {}
        """What follows from a set of direct groups, which many users share."""

    def read(self) -> Folk:
        self._read_groups()
        users: list[User] = []
        accounts: dict[int, Account] = {}
        proofs = read_proofs(self.blueprint)
        entries = self._named(USER, "username")
        taken = self._explicit(entries, 1, MAX_NUMBER)
        numbers = self._numbers(entries, taken, FIRST_USER, b"outpost user", "pk")
        plain: list[Entry] = []
        for folded, entry in entries.items():
            entry.pk = numbers[folded]
        for entry in entries.values():
            user, reply, memberships = self._user(entry)
            mine = proofs.get(entry, NO_PROOFS)
            password = read_password(entry)
            if password is not None and not password.is_hashed:
                plain.append(entry)
            users.append(user)
            accounts[user.pk] = Account(
                pk=user.pk,
                username=user.username,
                is_active=user.is_active,
                password=password,
                app_passwords=tuple(mine.app_passwords),
                totp=tuple(mine.totp),
                static_codes=tuple(mine.static_codes),
                memberships=memberships,
                is_superuser=user.is_superuser,
                reply=reply,
            )
        if plain:
            count = "1 password is" if len(plain) == 1 else f"{len(plain)} passwords are"
            self.blueprint.warn(
                f"{count} plain text; replace with the output of `outpost hash-password`",
                plain[0].fields.line_of("password"),
            )
        return Folk(tuple(users), tuple(self.groups.values()), accounts, self._logins(users))

    def _named(self, model: str, name: str) -> dict[str, Entry]:
        """The entries of a model by case-folded name, each name once."""
        found: dict[str, Entry] = {}
        for entry in self.blueprint.of(model):
            fields = entry.fields
            text = fields.required(name)
            if not text.isprintable() or text != text.strip():
                raise fields.error(name, "has white space around it or a character that does not print")
            other = found.setdefault(text.casefold(), entry)
            if other is not entry:
                raise fields.error(name, f"{text!r} is already taken in line {other.fields.line_of(name)}")
        return found

    def _explicit(self, entries: Mapping[str, Entry], least: int, most: int, name: str = "pk") -> dict[str, int]:
        found: dict[str, int] = {}
        owners: dict[int, Entry] = {}
        for folded, entry in entries.items():
            if name in entry.fields and entry.fields.value(name) is not None:
                number = entry.fields.integer(name, 0, least, most)
                other = owners.setdefault(number, entry)
                if other is not entry:
                    at = other.fields.line_of(name)
                    raise entry.fields.error(name, f"{number} is already taken in line {at}")
                found[folded] = number
        return found

    def _numbers(
        self, entries: Mapping[str, Entry], taken: Mapping[str, int], first: int, sort: bytes, name: str
    ) -> dict[str, int]:
        found, moved = numbered((one for one in entries if one not in taken), taken.values(), first, sort)
        if moved:
            # Would be uidNumbers that change hands: the files of one for the other.
            entry = entries[moved[0]]
            more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
            self.blueprint.warn(
                f"{moved[0]!r}{more} would change number if another name left this file; "
                f"set {name}: {found[moved[0]]} to keep it",
                entry.line,
            )
        found.update(taken)
        return found

    # -- groups -----------------------------------------------------------------------------------

    def _read_groups(self) -> None:
        entries = self._named(GROUP, "name")
        taken = self._explicit(entries, 0, MAX_NUMBER, "num_pk")
        numbers = self._numbers(entries, taken, FIRST_GROUP, b"outpost group", "num_pk")
        owners: dict[str, Entry] = {}
        for entry in entries.values():
            entry.pk = self._group_pk(entry)
            if owners.setdefault(entry.pk, entry) is not entry:
                name = "pk" if "pk" in entry.fields else "group_uuid"
                raise entry.fields.error(name, f"is already taken in line {owners[entry.pk].line}")
        for folded, entry in entries.items():
            fields = entry.fields
            attributes = fields.mapping("attributes")
            parents = self.blueprint.all_referred(fields, "parents", GROUP)
            parent = self.blueprint.referred(fields, "parent", GROUP)
            if parent is not None:
                parents.append(parent)
            self.groups[entry.pk] = Group(
                pk=entry.pk,
                num_pk=numbers[folded],
                name=fields.text("name"),
                is_superuser=fields.boolean("is_superuser", False),
                parents=tuple(dict.fromkeys(one.pk for one in parents if one is not entry)),
                attributes=attributes,
            )
            self.replies[entry.pk] = self._reply(entry, attributes)
            for user in self.blueprint.all_referred(fields, "users", USER):
                self.added.setdefault(user, []).append(entry.pk)

    @staticmethod
    def _group_pk(entry: Entry) -> str:
        fields = entry.fields
        for name in ("pk", "group_uuid"):
            text = fields.text(name)
            if text:
                try:
                    return str(uuid.UUID(text))
                except ValueError:
                    raise fields.error(name, "expected a UUID") from None
        return made_uuid("group", fields.text("name"))

    def _ancestors(self, pk: str) -> frozenset[str]:
        """The group and everything above it, however often it meets itself there."""
        known = self.above.get(pk)
        if known is None:
            found = {pk}
            pending = [pk]
            while pending:
                for parent in self.groups[pending.pop()].parents:
                    if parent not in found:
                        found.add(parent)
                        pending.append(parent)
            known = self.above[pk] = frozenset(found)
        return known

    def _join(self, direct: tuple[str, ...]) -> tuple[frozenset[str], bool, Mapping[str, Any]]:
        known = self.joined.get(direct)
        if known is None:
            memberships = frozenset().union(*(self._ancestors(pk) for pk in direct))
            groups = sorted((self.groups[pk] for pk in memberships), key=lambda group: group.name)
            reply: dict[str, tuple[str, tuple[str, ...]]] = {}
            for group in groups:
                reply.update(self.replies[group.pk])
            known = memberships, any(group.is_superuser for group in groups), reply
            self.joined[direct] = known
        return known

    # -- users ------------------------------------------------------------------------------------

    def _user(self, entry: Entry) -> tuple[User, ReplyAttributes, frozenset[str]]:
        fields = entry.fields
        nodes = fields.nodes
        username = fields.text("username")
        attributes = fields.mapping("attributes")
        own = [one.pk for one in self.blueprint.all_referred(fields, "groups", GROUP)]
        direct = tuple(dict.fromkeys(own + self.added.get(entry, [])))
        memberships, is_superuser, inherited = self._join(direct)
        mine = self._reply(entry, attributes) if "radius" in attributes else {}
        if mine or inherited:
            named = {**inherited, **mine}
            reply = ReplyAttributes(tuple((name, value) for name, values in named.values() for value in values))
        else:
            reply = NO_REPLY
        user = User(
            pk=entry.pk,
            username=username,
            name=fields.text("name"),
            email=fields.text("email"),
            uid=fields.text("uid") or hashlib.sha256(f"outpost/user/{username.casefold()}".encode()).hexdigest(),
            uuid=self._user_uuid(entry, username),
            is_active=fields.boolean("is_active", True),
            is_superuser=is_superuser,
            type=fields.choice("type", "internal", USER_TYPES) if "type" in nodes else "internal",
            path=fields.text("path", "users"),
            groups=direct,
            attributes=attributes,
            date_joined=fields.moment("date_joined") if "date_joined" in nodes else None,
            last_updated=fields.moment("last_updated") if "last_updated" in nodes else None,
            password_change_date=fields.moment("password_change_date") if "password_change_date" in nodes else None,
        )
        return user, reply, memberships

    @staticmethod
    def _user_uuid(entry: Entry, username: str) -> str:
        text = entry.fields.text("uuid") if "uuid" in entry.fields else ""
        if not text:
            return made_uuid("user", username)
        try:
            return str(uuid.UUID(text))
        except ValueError:
            raise entry.fields.error("uuid", "expected a UUID") from None

    def _reply(self, entry: Entry, attributes: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
        """RADIUS reply attributes of one user or group, by case-folded name."""
        radius = attributes.get("radius")
        if radius is None:
            return {}
        if not isinstance(radius, Mapping):
            raise self._wrong(entry, "", "a mapping of attribute names to values", radius)
        found = {}
        for name, value in radius.items():
            values = value if isinstance(value, list) else [value]
            for one in values:
                if isinstance(one, bool) or not isinstance(one, str | int):
                    raise self._wrong(entry, f".{name}", "a text, a number or a list of them", one)
            found[name.casefold()] = (name, tuple(str(one) for one in values))
        return found

    @staticmethod
    def _wrong(entry: Entry, below: str, expected: str, value: object) -> ConfigError:
        fields = entry.fields
        return ConfigError(
            f"expected {expected}, got {kind(value)}",
            source=fields.source,
            line=fields.line_of("attributes"),
            key=f"{fields.key('attributes')}.radius{below}",
        )

    def _logins(self, users: list[User]) -> dict[str, int]:
        mails: dict[str, list[User]] = {}
        for user in users:
            if user.email:
                mails.setdefault(user.email.casefold(), []).append(user)
        found = {mail: owners[0].pk for mail, owners in mails.items() if len(owners) == 1}
        shared = [owners for owners in mails.values() if len(owners) > 1]
        if shared:
            names = ", ".join(user.username for user in shared[0][:3])
            self.blueprint.warn(
                f"{len(shared)} mail addresses belong to more than one user (first: {names}) and log nobody in"
                if len(shared) > 1
                else f"1 mail address belongs to more than one user ({names}) and logs nobody in"
            )
        found.update((user.username.casefold(), user.pk) for user in users)
        return found


NO_REPLY: Final = ReplyAttributes()
