"""Random people, and random questions about them that are worth asking."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from outpost.identity import Group, LdapOptions, LdapProvider, People, User
from outpost.ldap.entries import EntryValues
from outpost.ldap.schema import ATTRIBUTE_TYPES, MATCHING_RULES
from tests.ldap.encode import octets, tlv

BASES = ("dc=ldap,dc=goauthentik,dc=io", "DC=Example,DC=org", "o=Straße \\2C Söhne,c=DE", "ou=x+l=y,dc=z")
NAMES = (
    "alice", "Bob", "carol ann", "Dörte", "José", "straße", "o'neil", "a,b", "x+y", "q\"uote", "#hash", " lead", "e=f",
    "back\\slash", "UPPER.Case", "john.doe@example.org", "李雷", "z", "svc-1", "ALICE", "i\u0307stanbul", "a  b",
    "<tag>",
)  # fmt: skip
GROUP_NAMES = ("admins", "Admins", "staff", "Ärzte", "a,b", "vpn users", "dev/ops", "x" * 70, "empty")
TEXTS = (
    "red", "Red", "RED", "dark  red", "blue", "Blau", "grün", "GRÜN", "Straße", "STRASSE", " padded ", "abcabcabd",
    "aaa",
    "a*b", "(x)", "back\\slash", "\u200bzero", "ﬁne", "tab\tbed", "x" * 200, "TRUE", "true", "5", "05", "-5", "5.5",
    "%s@host",
)  # fmt: skip
KEYS = (
    "title", "description", "mobile", "telephoneNumber", "employeeNumber", "manager", "loginShell", "sshPublicKey",
    "shadowMax", "goauthentik.io/user/sources", "colour", "Colour", "shoe_size", "x.y/z", "mail", "uidNumber",
    "gidNumber", "objectClass", "sAMAccountName", "homeDirectory", "surname", "displayName", "department", "n" * 150,
    "42", "userPassword", "memberOf", "ak-active", "objectCategory", "createTimestamp",
    "goauthentikio-user-override-ips",
)  # fmt: skip
TIMES = tuple(datetime(2024, month, 3, 4, 5, 6, tzinfo=UTC) for month in range(1, 13))


def people(chance: random.Random, users: int = 14, groups: int = 7) -> tuple[People, LdapProvider]:
    """Names that need escapes, equal names, cycles of groups, values of every kind, valid or not."""
    base = chance.choice(BASES)
    group_pks = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(groups)]

    def dn_text() -> str:
        return f"cn={chance.choice(('alice', 'z', 'svc-1', 'ALICE'))},ou=users,{base.lower()}"

    def value(key: str) -> Any:
        one = chance.random()
        if key in ("manager", "objectCategory") and one < 0.8:
            return dn_text() if one < 0.7 else "no DN"
        if key in ("shadowMax", "uidNumber", "gidNumber") and one < 0.8:
            return chance.choice((0, 7, 12, 65535, -3, "007", "12", "99999999999999999999"))
        if key in ("mobile", "telephoneNumber") and one < 0.8:
            return chance.choice(("+49 30 1234-5", "+493012345", "030/1", "+1 (555) 0100"))
        if key == "objectClass":
            return chance.choice((["top", "person"], ["user", "2.5.6.6"], "shadowAccount"))
        if key == "createTimestamp":
            return chance.choice(TIMES)
        if one < 0.1:
            return [chance.choice(TEXTS) for _ in range(chance.choice((0, 2, 3, 90)))] + [f"n{n}" for n in range(70)]
        if one < 0.3:
            return [chance.choice(TEXTS) for _ in range(chance.randrange(4))]
        return chance.choice((*TEXTS, 5, 5.0, 2.5, True, False, None, {"a": [1, "b"]}, ""))

    def attributes() -> dict[str, Any]:
        return {key: value(key) for key in chance.sample(KEYS, chance.choice((0, 0, 3, 8)))}

    nested = chance.random() < 0.8
    made = [
        Group(
            pk,
            chance.randrange(100_000),
            chance.choice(GROUP_NAMES) if chance.random() < 0.7 else f"group {n}",
            chance.random() < 0.2,
            tuple(chance.sample([*group_pks, "gone"], chance.choice((0, 1, 1, 2)))) if nested else (),
            attributes(),
        )
        for n, pk in enumerate(group_pks)
    ]
    listed = []
    for n in range(users):
        username = chance.choice(NAMES) if chance.random() < 0.7 else f"user{n}"
        listed.append(
            User(
                pk=n * 3 + 1,
                username=username,
                name=chance.choice(("", "Alice Q. Adams", "Dr.  Who", "Cher", "Ωmega Λ")),
                email=chance.choice(("", f"{n}@example.org", "Mixed@Example.ORG")),
                uid=f"{chance.getrandbits(256):064x}" if chance.random() < 0.8 else "",
                uuid=str(uuid.UUID(int=chance.getrandbits(128))) if chance.random() < 0.7 else "",
                is_active=chance.random() < 0.9,
                is_superuser=chance.random() < 0.1,
                groups=tuple(chance.choices([*group_pks, "gone"], k=chance.choice((0, 1, 2, 4)))),
                attributes=attributes(),
                date_joined=chance.choice((None, *TIMES)),
                last_updated=chance.choice((None, *TIMES)),
                password_change_date=chance.choice((None, *TIMES)),
            )
        )
    options = LdapOptions(
        nested_groups=chance.choice(("direct", "effective")),
        rdn_attribute=chance.choice(("cn", "cn", "uid")),
        uid=chance.choice(("server", "username")),
        samba=chance.random() < 0.5,
        shadow=chance.random() < 0.5,
        active_directory=chance.random() < 0.5,
        login_shell=chance.choice(("", "/bin/bash")),
    )
    provider = LdapProvider(1, "ldap", base, "ldap", options=options)
    return People(tuple(listed), tuple(made), generation=chance.getrandbits(40), taken_at=0.0), provider


@dataclass
class Questions:
    """Makes searches over one set of entries, out of the values that are there."""

    chance: random.Random
    entries: list[EntryValues]

    def __post_init__(self) -> None:
        self.held: dict[str, list[bytes]] = {}
        for entry in self.entries:
            for name, value in entry.attributes:
                self.held.setdefault(name, []).extend([value] if isinstance(value, bytes) else value)
        self.present = list(self.held)
        self.spellings = [n for t in ATTRIBUTE_TYPES for n in (t.name, *t.aliases, t.oid)]
        self.canonical = {n.lower(): t.name for t in ATTRIBUTE_TYPES for n in (t.name, *t.aliases, t.oid)}

    def any_case(self, text: str) -> str:
        return "".join(self.chance.choice((c.lower(), c.upper())) if c.isascii() else c for c in text)

    def name(self) -> str:
        """An attribute description, mostly of one that some entry has."""
        one = self.chance.random()
        if one < 0.75:
            found = self.chance.choice(self.present)
            kind = next((t for t in ATTRIBUTE_TYPES if t.name == found), None)
            if kind is not None and one < 0.2:
                found = self.chance.choice((kind.oid, *kind.aliases))
        elif one < 0.9:
            found = self.chance.choice(self.spellings)
        elif one < 0.95:
            found = self.chance.choice(
                ("cn;lang-de", "member;range=0-1", "cn;", "nosuch", "9.9.9", "userPassword", "x" * 200)
            )
        else:
            found = self.chance.choice(("objectClass", "cn", "memberOf", "member", "memberUid", "manager"))
        return self.any_case(found) if self.chance.random() < 0.4 else found

    def value(self, name: str) -> bytes:
        """An assertion value, mostly one that is held, or nearly."""
        chance = self.chance
        one = chance.random()
        pool = self.held.get(self.canonical.get(name.lower(), name))
        if pool and one < 0.8:
            found = chance.choice(pool)
        elif one < 0.9:
            found = chance.choice(chance.choice(list(self.held.values())))
        else:
            found = chance.choice(
                (*TEXTS, "", " ", "2.5.6.6", "20240303040506Z", "202403030405+0100", "20240303040506.5Z", "-0", "+5")
            ).encode()
        twist = chance.random()
        if twist < 0.25:
            found = chance.choice((found.upper(), found.lower(), found.swapcase()))
        elif twist < 0.35:
            found = chance.choice((found.replace(b" ", b"   "), b" " + found + b"  ", found.replace(b",", b" , ")))
        elif twist < 0.40:
            found = chance.choice((found + b"x", found[:-1], found + b"\xff"))
        return found

    def pieces(self, name: str) -> list[tuple[int, bytes]]:
        """Pieces of a substring filter, cut out of one value so that they often match."""
        text = self.value(name)
        cuts = sorted(self.chance.randrange(len(text) + 1) for _ in range(2 * self.chance.choice((1, 1, 2, 3))))
        found = [text[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        tags = [0x81] * len(found)
        if self.chance.random() < 0.5:
            tags[0], found[0] = 0x80, text[: cuts[1]]
        if self.chance.random() < 0.4 and (len(tags) > 1 or tags[0] != 0x80):
            tags[-1], found[-1] = 0x82, text[cuts[-2] :]
        return [(tag, piece or b"a") for tag, piece in zip(tags, found, strict=True)]

    def item(self) -> bytes:
        name = self.name()
        one = self.chance.random()
        if one < 0.35:
            return tlv(0xA3, octets(name), octets(self.value(name)))
        if one < 0.50:
            return tlv(0xA4, octets(name), tlv(0x30, *(octets(p, tag) for tag, p in self.pieces(name))))
        if one < 0.58:
            return tlv(0xA5, octets(name), octets(self.value(name)))
        if one < 0.66:
            return tlv(0xA6, octets(name), octets(self.value(name)))
        if one < 0.74:
            return octets(name, 0x87)
        if one < 0.79:
            return tlv(0xA8, octets(name), octets(self.value(name)))
        return self.extensible(name)

    def extensible(self, name: str) -> bytes:
        chance = self.chance
        rules = [r for rule, (oid, *_) in MATCHING_RULES.items() for r in (rule, oid)] + ["nosuchrule", "9.9.9"]
        rule = chance.choice(rules) if chance.random() < 0.7 else None
        if chance.random() < 0.25:
            rule = chance.choice(("caseExactMatch", "caseIgnoreMatch", "2.5.13.5", "CASEIGNOREMATCH"))
        if chance.random() < 0.15:
            rule = chance.choice(("1.2.840.113556.1.4.1941", "1.2.840.113556.1.4.803", "1.2.840.113556.1.4.804"))
            integers = ("uidNumber", "gidNumber", "shadowMax")
            name = chance.choice(("member", "memberOf", "uniqueMember", "manager") if rule.endswith("1") else integers)
        typed = rule is None or chance.random() < 0.7
        value = self.value(name)
        if rule is not None and rule[-3:] in ("803", "804"):
            value = chance.choice((b"0", b"1", b"4", b"6", b"2000", b"-1", b"x"))
        in_dn = chance.random() < 0.35
        if in_dn and chance.random() < 0.7:
            name = chance.choice(("cn", "ou", "dc", "o", "uid", "2.5.4.11", "l", "CommonName"))
            value = self.value(name)
        if not typed and chance.random() < 0.3:
            value = chance.choice((b"users", b"Groups", b"alice", b"io"))
        return tlv(
            0xA9,
            octets(rule, 0x81) if rule is not None else b"",
            octets(name, 0x82) if typed else b"",
            octets(value, 0x83),
            tlv(0x84, b"\xff") if in_dn else b"",
        )

    def filter(self, depth: int = 0) -> bytes:
        one = self.chance.random()
        if depth > 3 or one < 0.45:
            return self.item()
        if one < 0.65:
            return tlv(0xA0, *(self.filter(depth + 1) for _ in range(self.chance.choice((0, 1, 2, 2, 3)))))
        if one < 0.87:
            return tlv(0xA1, *(self.filter(depth + 1) for _ in range(self.chance.choice((0, 1, 2, 2, 3, 5)))))
        return tlv(0xA2, self.filter(depth + 1))

    def base(self, visible: list[bytes]) -> bytes:
        """Mostly the DN of an entry, and mostly of one that the reader may see."""
        chance = self.chance
        one = chance.random()
        dn = self.entries[0].dn
        if one > 0.9:
            dn = chance.choice(self.entries).dn
        elif one > 0.65:
            dn = chance.choice(visible)
        elif one > 0.45:
            dn = chance.choice([e.dn for e in self.entries if e.kind == "container"])
        twist = chance.random()
        if twist < 0.1:
            dn = dn.upper().replace(b"\\2C", b"\\2c")
        elif twist < 0.2:
            dn = dn.replace(b",ou=", b" , OU = ").replace(b"cn=", b"commonName=")
        elif twist < 0.27:
            dn = chance.choice((b"cn=gone," + dn, b"ou=x,cn=y," + dn, dn.partition(b",")[2], b"dc=elsewhere", b""))
        elif twist < 0.29:
            dn = chance.choice((b"nonsense", dn + b",", b"cn=\xff", b"," + dn))
        return dn

    def wanted(self) -> list[bytes]:
        chance = self.chance
        if chance.random() < 0.4:
            return chance.choice(
                ([], [b"*"], [b"*", b"+"], [b"+"], [b"1.1"], [b""], [b"1.1", b"cn"], [b"cn, mail ,+"], [b"nosuch"])
            )
        return [self.name().encode() for _ in range(chance.randrange(1, 6))]
