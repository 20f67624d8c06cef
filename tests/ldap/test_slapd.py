"""Our answers beside those of OpenLDAP's slapd with the same entries: searches and compares made at random, on real
sockets.

Result code, matchedDN, entries, attributes, values, pages and order have to be the same.  What is kept out of the
questions or the entries, and why:

- The root DSE and the subschema: each server describes itself.
- Diagnostic messages, the spelling of DNs, the order of attributes, of values and of entries that nobody asked to
  sort: they are the server's choice.  Which entries come before a sizeLimit is reached, likewise; their number is not.
- Operational attributes that slapd does not know (numSubordinates) or knows with other rules (entryUUID, by octets
  there and as text here) are held there under other names with our rules; see `slapd.py`.  So are those of our
  attributes that lack an ordering rule there (cn, uid, description).
- `userPassword` and attributes of the root DSE and of subschemas in filters: known to one of the two only.
- Attribute options (`cn;lang-de`): slapd knows language tags, here every option is unknown.
- `~=` is `=` here; slapd compares how words sound.  It is asked for `=`.
- `dnInChainMatch`: slapd does not have it.  `objectIdentifierMatch` by name: always Undefined there.
- Ordering and substring rules in extensible filters: understood there; here they are named by attribute types only.
  Rules for bits need an attribute here; there not.
- IA5 Strings are Directory Strings there, because names outside of ASCII appear in them: so no IA5 rules by name.
- Object classes that no schema has: asserting one is Undefined there and FALSE here: `(!(objectClass=computer))`
  finds what has no such class.  A superclass is matched by its subclasses there; every entry here names them all.
- Values that RFC 4517 does not allow but that clients write: integers with leading zeros, telephone numbers with
  other signs than digits.  Undefined there; here they are what they mean.  `true` and `false` in small letters are
  what RFC 4517 3.3.3 allows, but slapd does not.
- DNs with empty values, or of attribute types that no schema has, as assertion values: no DNs there, because such a
  value is no Directory String or has no syntax; here RFC 4514 decides.
- Integers above 64 bits with rules for bits: there Undefined, here without any bits.
- Pieces of substring filters that are nothing but spaces: at an edge they match everything here, as RFC 4518 2.6.1
  says.
- Letters whose full case folding is not their small letter (ß), control and zero-width characters: RFC 4518 2.2
  folds and drops them, slapd does not.  `oracle_search.py` has these.
- `:dn:` with a rule that tells case apart looks at the superior entry's spelling there, so suffixes are in small
  letters.
- Sorting by what cannot be sorted: without criticality the entries come unsorted here (RFC 2891 2.2), and an error
  there.  Backwards by attributes with several values: by the least here (as RFC 2891 2.2 says), by the largest there.
- slapd may answer the next page of a sorted listing with `busy` while it still tidies up: it is asked again.
- Compare of a value that is none of the attribute's, or of an attribute that no schema has: slapd says so first; here
  it matters first that there is such an entry, that an assertion about it is true, and that it has the attribute.
- A list in one attribute selector (`cn, mail`): taken apart here; slapd gets the parts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from outpost.errors import DecodeError
from outpost.identity import LdapOptions, LdapProvider, People, User
from outpost.ldap.dn import normalise
from outpost.ldap.entries import Directory, EntryValues, attribute_name, text_value
from outpost.ldap.matching import WITH_ORDERING, Kind, normalise_value
from outpost.ldap.schema import ATTRIBUTE_TYPES, MATCHING_RULES, OBJECT_CLASSES
from tests.ldap import decode, encode, generate, slapd
from tests.ldap.testbed import PASSWORDS, bed

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        slapd.find() is None or slapd.modules() is None, reason="slapd is not installed: apt-get install slapd"
    ),
]

T = TypeVar("T")

BASES = ("dc=ldap,dc=goauthentik,dc=io", "o=müller \\2C söhne,c=DE")
KINDS = {n.lower(): t.kind for t in ATTRIBUTE_TYPES for n in (t.name, *t.aliases, t.oid)}
CLASSES = {n for c in OBJECT_CLASSES for n in (c.name.lower().encode(), c.oid.encode())}

RULES_OF_OURS = {
    known
    for name, (oid, *_) in MATCHING_RULES.items()
    if name in ("dnInChainMatch", "objectIdentifierMatch")
    or "IA5" in name
    or "Ordering" in name
    or "Substrings" in name
    for known in (name.lower(), oid)
}
ALL_RULES = {
    known: kind for name, (oid, _, kind) in MATCHING_RULES.items() if kind is not None for known in (name.lower(), oid)
}
BITS = {"integerbitandmatch", "integerbitormatch", "1.2.840.113556.1.4.803", "1.2.840.113556.1.4.804"}
"""Rules that are not compared in extensible filters; see above."""

ORDERINGS = {
    Kind.CASE_IGNORE: ("caseIgnoreOrderingMatch", "2.5.13.3"),
    Kind.CASE_EXACT: ("caseExactOrderingMatch", "2.5.13.6"),
    Kind.INTEGER: ("integerOrderingMatch", "2.5.13.15"),
    Kind.GENERALIZED_TIME: ("generalizedTimeOrderingMatch", "2.5.13.28"),
}

TOP = (b"top", b"2.5.6.0")
STRUCTURAL = ("structuralobjectclass", "2.5.21.9")
BUSY = 51
NO_SUCH_ATTRIBUTE, UNDEFINED_TYPE, INVALID_SYNTAX, NO_SUCH_OBJECT, ASSERTION_FAILED = 16, 17, 21, 32, 122
ASSERTION = "1.3.6.1.1.12"
PAGED, SORT, SORTED = "1.2.840.113556.1.4.319", "1.2.840.113556.1.4.473", b"1.2.840.113556.1.4.474"


# -- people that slapd takes as well --------------------------------------------------------------


def is_told_alike(text: str) -> bool:
    """No letter, sign or space that the two fold in different ways."""
    return text.casefold() == text.lower() and all(c == " " or (c.isprintable() and not c.isspace()) for c in text)


def fits(kind: Kind, value: bytes) -> bool:
    text = value.decode()
    if not text.strip(" ") or not is_told_alike(text):
        return False
    if kind is Kind.OID:
        return value.lower() in CLASSES
    if kind is Kind.TELEPHONE_NUMBER:
        return all(c in "0123456789+()-/ " for c in text)
    if kind in (Kind.INTEGER, Kind.BOOLEAN):
        return normalise_value(kind, value) == value and len(value) <= 18
    return normalise_value(kind, value) is not None


def cleaned(attributes: dict[str, Any]) -> dict[str, Any]:
    """Of the values of each attribute those of its syntax, each once."""
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        name = attribute_name(key)
        kind = KINDS.get(name.lower(), Kind.CASE_IGNORE)
        kept: dict[bytes, Any] = {}
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is None:
                continue
            octets = text_value(one)
            if fits(kind, octets):
                kept.setdefault(normalise_value(kind, octets) or b"", one)
        if kept:
            if name == "objectClass":
                kept = {b"top": "top"} | kept
            single = any(t.single and t.name == name for t in ATTRIBUTE_TYPES)
            found[key] = list(kept.values())[:1] if single else list(kept.values())
    return found


def organisation(seed: int) -> People:
    people, _ = generate.people(random.Random(seed), 40, 14)
    groups = tuple(dataclasses.replace(g, attributes=cleaned(dict(g.attributes))) for g in people.groups)
    users = [
        dataclasses.replace(u, attributes=cleaned(dict(u.attributes)))
        for u in people.users
        if is_told_alike(u.username) and is_told_alike(u.name)
    ]
    service = User(3, "ldapservice", name="Service")
    return People((*users, service), groups, 1, 0.0)


# -- questions ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Question:
    base: bytes
    scope: int
    filter: bytes
    wanted: tuple[bytes, ...]
    size_limit: int = 0
    types_only: bool = False
    page: int = 0
    sort: tuple[tuple[str, str | None, bool], ...] = ()
    assertion: bytes = b""


@dataclasses.dataclass(frozen=True)
class Comparison:
    entry: bytes
    name: str
    value: bytes
    assertion: bytes = b""


class Questions(generate.Questions):
    """Those of `generate`, without what the two servers are known to answer differently."""

    def __init__(self, chance: random.Random, entries: list[EntryValues], dictionary: slapd.Dictionary) -> None:
        super().__init__(chance, entries)
        self.dictionary = dictionary
        self.several = {n for e in entries for n, v in e.attributes if not isinstance(v, bytes) and len(v) > 1}

    def name(self) -> str:
        while True:
            found = super().name()
            known = found.lower() in self.dictionary.of
            if ";" not in found and (known or found.lower() not in (*KINDS, "userpassword")):
                return found

    def value(self, name: str) -> bytes:
        kind = KINDS.get(name.lower(), Kind.CASE_IGNORE)
        while True:
            found = super().value(name)
            if comparable(kind, found) and not (found.lower() in TOP and name.lower() in STRUCTURAL):
                return found

    def pieces(self, name: str) -> list[tuple[int, bytes]]:
        kind = KINDS.get(name.lower(), Kind.CASE_IGNORE)
        while True:
            found = super().pieces(name)
            if all(comparable(kind, piece) and piece.strip(b" ") for _, piece in found):
                return found

    def extensible(self, name: str) -> bytes:
        while True:
            found = super().extensible(name)
            ((_, content),) = decode.elements(found)
            parts = dict(decode.elements(content))
            rule = parts.get(0x81, b"").decode().lower()
            kind = KINDS.get(parts[0x82].decode().lower()) if 0x82 in parts else None
            if rule in RULES_OF_OURS or (kind is Kind.OID and not rule) or (kind is None and rule in BITS):
                continue
            if kind is None and rule in ALL_RULES and not comparable(ALL_RULES[rule], parts[0x83]):
                continue
            if 0x84 in parts and kind is not None and kind not in (Kind.CASE_IGNORE, Kind.CASE_EXACT):
                continue
            return found

    def question(self, visible: list[bytes]) -> Question:
        chance = self.chance
        one = chance.random()
        return Question(
            self.base(visible),
            chance.choice((0, 1, 2, 2, 2, 2)),
            self.filter(),
            tuple(self.wanted()),
            chance.choice((1, 2, 5, 20)) if one < 0.15 else 0,
            chance.random() < 0.1,
            chance.choice((1, 3, 10, 100)) if 0.15 < one < 0.3 else 0,
            self.keys() if 0.25 < one < 0.4 else (),
            self.filter() if 0.4 < one < 0.5 else b"",
        )

    def keys(self) -> tuple[tuple[str, str | None, bool], ...]:
        chance = self.chance
        found = []
        while len(found) < chance.choice((1, 1, 2)):
            name = chance.choice(("cn", "uidNumber", "mail", "createTimestamp", "title", "colour", self.name()))
            known = self.dictionary.of.get(name.lower())
            if known is not None and known.kind in WITH_ORDERING:
                rule = chance.choice((None, None, None, *ORDERINGS[known.kind]))
                found.append((name, rule, known.name not in self.several and chance.random() < 0.5))
        return tuple(found)

    def base(self, visible: list[bytes]) -> bytes:
        while True:
            found = super().base(visible)
            if found:
                return found

    def comparison(self, visible: list[bytes]) -> Comparison:
        """Mostly about an attribute that the entry has, and often about one of its values."""
        chance = self.chance
        dn = self.base(visible)
        entry = chance.choice(self.entries)
        if chance.random() < 0.6:
            dn = entry.dn
        name = self.name()
        value = self.value(name)
        if chance.random() < 0.6:
            name, given = chance.choice(entry.attributes)
            kind = KINDS.get(name.lower(), Kind.CASE_IGNORE)
            held = given if isinstance(given, bytes) else chance.choice(given)
            twisted = chance.choice((held, held, held.upper(), held.swapcase(), b" " + held, held + b"x"))
            value = twisted if comparable(kind, twisted) and twisted.lower() not in TOP else held
        return Comparison(dn, name, value, self.filter() if chance.random() < 0.1 else b"")


def comparable(kind: Kind, value: bytes) -> bool:
    if kind is Kind.OID:
        return value.lower() in CLASSES
    if kind is Kind.TELEPHONE_NUMBER:
        return any(c in b"0123456789+" for c in value) and all(c in b"0123456789+()-/ " for c in value)
    if kind is Kind.DN and (re.search(rb"=\s*([,+]|\Z)", value) or value.strip().lower() == b"e=f"):
        return False
    if kind is Kind.INTEGER and normalise_value(kind, value) is not None:
        return normalise_value(kind, value) == value
    try:
        return is_told_alike(value.decode())
    except UnicodeDecodeError:
        return True


# -- asking ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    code: int
    matched: bytes
    entries: list[bytes]
    sort_code: int | None = None


def sort_control(keys: tuple[tuple[str, str | None, bool], ...]) -> bytes:
    parts = [
        encode.tlv(
            0x30,
            encode.octets(name),
            encode.octets(rule, 0x80) if rule else b"",
            encode.tlv(0x81, b"\xff") if reverse else b"",
        )
        for name, rule, reverse in keys
    ]
    return encode.control(SORT, False, encode.tlv(0x30, *parts))


def page_control(size: int, cookie: bytes) -> bytes:
    return encode.control(PAGED, True, encode.tlv(0x30, encode.integer(size), encode.octets(cookie)))


class Asker:
    """One connection; answers are told apart by their messageID."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_be_busy: bool) -> None:
        self.reader, self.writer = reader, writer
        self.may_be_busy = may_be_busy
        self._held = b""
        self._id = 0

    @classmethod
    async def connect(cls, port: int, *, may_be_busy: bool = False) -> Asker:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20), may_be_busy=may_be_busy)

    async def bind(self, name: str, password: str) -> None:
        self._id += 1
        self.writer.write(encode.bind(self._id, name, password))
        [[message]] = (await self._collect([self._id], 0x61)).values()
        assert decode.result(message.content)[0] == 0

    async def _collect(self, ids: list[int], last: int) -> dict[int, list[decode.Message]]:
        found: dict[int, list[decode.Message]] = {n: [] for n in ids}
        waiting = set(ids)
        async with asyncio.timeout(30):
            while waiting:
                whole, self._held = decode.cut(self._held)
                for message in decode.messages(whole):
                    found[message.message_id].append(message)
                    if message.tag == last:
                        waiting.discard(message.message_id)
                if waiting:
                    more = await self.reader.read(1 << 20)
                    assert more, "the connection was closed"
                    self._held += more
        assert not self._held
        return found

    async def ask(self, questions: list[Question]) -> list[Answer]:
        """Answers to questions without pages, all of them sent at once."""
        ids = []
        for question in questions:
            self._id += 1
            ids.append(self._id)
            self.writer.write(self._request(question))
        found = await self._collect(ids, 0x65)
        return [answer(found[n])[0] for n in ids]

    async def compare(self, comparisons: list[Comparison]) -> list[tuple[int, bytes]]:
        """resultCode and matchedDN of each, all of them asked at once."""
        ids = []
        for one in comparisons:
            self._id += 1
            ids.append(self._id)
            controls = [encode.control(ASSERTION, True, one.assertion)] if one.assertion else []
            self.writer.write(encode.compare(self._id, one.entry, one.name, one.value, controls))
        found = await self._collect(ids, 0x6F)
        return [decode.result(found[n][0].content)[:2] for n in ids]

    async def turn_pages(self, question: Question) -> Answer:
        """One answer out of all pages."""
        whole: Answer | None = None
        cookie, busy = b"", 0
        while True:
            self._id += 1
            self.writer.write(self._request(question, page_control(question.page, cookie)))
            one, following = answer((await self._collect([self._id], 0x65))[self._id])
            if one.code == BUSY and busy < 1000 and self.may_be_busy:
                busy += 1
                await asyncio.sleep(0.001)
                continue
            assert len(one.entries) <= question.page, "a page too large"
            if whole is None:
                whole = one
            else:
                whole.entries += one.entries
                whole.code = one.code
            cookie = following
            if not cookie:
                return whole

    def _request(self, question: Question, *controls: bytes) -> bytes:
        return encode.search(
            self._id,
            question.base,
            question.filter,
            question.wanted,
            scope=question.scope,
            size_limit=question.size_limit,
            types_only=question.types_only,
            controls=(
                *controls,
                *([sort_control(question.sort)] if question.sort else []),
                *([encode.control(ASSERTION, True, question.assertion)] if question.assertion else []),
            ),
        )


def answer(messages: list[decode.Message]) -> tuple[Answer, bytes]:
    *listed, done = messages
    assert all(m.tag == 0x64 for m in listed) and done.tag == 0x65
    code, matched, _ = decode.result(done.content)
    cookie, sort_code = b"", None
    for _, control in decode.elements(done.controls):
        (_, oid), *rest = decode.elements(control)
        value = rest[-1][1]
        ((_, inner),) = decode.elements(value)
        parts = list(decode.elements(inner))
        if oid == PAGED.encode():
            cookie = parts[1][1]
        elif oid == SORTED:
            sort_code = int.from_bytes(parts[0][1], "big")
    return Answer(code, matched, [m.content for m in listed], sort_code), cookie


# -- comparing ------------------------------------------------------------------------------------


@lru_cache(100_000)
def dn_form(octets: bytes) -> bytes:
    try:
        return normalise(octets)
    except DecodeError:
        return b"?" + octets


Canonical = tuple[bytes, frozenset[tuple[str, frozenset[bytes]]]]


class Judge:
    """Puts the entries of both servers into one form."""

    def __init__(self, dictionary: slapd.Dictionary) -> None:
        self.dictionary = dictionary
        self.ours = lru_cache(50_000)(self._ours)
        self.theirs = lru_cache(50_000)(self._theirs)

    def _form(self, name: str, values: list[bytes]) -> tuple[str, frozenset[bytes]]:
        kind = self.dictionary.of[name.lower()].kind
        if kind is Kind.DN:
            values = [dn_form(v) for v in values]
        elif kind is Kind.OID:
            values = [v.lower() for v in values]
        assert len(set(values)) == len(values), f"a value twice in {name}"
        return name, frozenset(values)

    def _ours(self, content: bytes) -> Canonical:
        entry = decode.entry(content)
        found = [self._form(name.decode(), values) for name, values in entry.attributes]
        assert len({n for n, _ in found}) == len(found), "an attribute twice"
        return dn_form(entry.dn), frozenset((n, v) for n, v in found)

    def _theirs(self, content: bytes, asked: frozenset[str]) -> Canonical:
        entry = decode.entry(content)
        found = []
        for name, values in entry.attributes:
            back = self.dictionary.back(name, values, asked)
            if back is not None:
                found.append(self._form(*back))
        return dn_form(entry.dn), frozenset(found)


class Keys:
    """What an entry is sorted by."""

    def __init__(self, entries: list[EntryValues], dictionary: slapd.Dictionary) -> None:
        self.held = {normalise(e.dn): {n.lower(): v for n, v in e.attributes} for e in entries}
        self.of = dictionary.of

    def __call__(self, dn: bytes, question: Question) -> tuple[bytes | None, ...]:
        found = []
        for name, _, _ in question.sort:
            there = self.of.get(name.lower())
            given = self.held[dn].get(there.name.lower(), ()) if there else ()
            values = [given] if isinstance(given, bytes) else given
            forms = [normalise_value(there.kind, v) or b"" for v in values] if there else []
            if there and there.kind is Kind.INTEGER:
                forms = [b"%c%030d" % (b"-+"[int(f) >= 0], int(f) + (0 if int(f) >= 0 else 10**29)) for f in forms]
            found.append(min(forms) if forms else None)
        return tuple(found)


def for_slapd(question: Question, dictionary: slapd.Dictionary) -> Question:
    wanted = [one.strip(" ") for name in question.wanted for one in name.decode().split(",") if name]
    return dataclasses.replace(
        question,
        filter=dictionary.filter(question.filter),
        assertion=dictionary.filter(question.assertion) if question.assertion else b"",
        wanted=tuple(one.encode() for name in wanted for one in dictionary.in_list(name)),
        sort=tuple((dictionary.in_filter(name), rule, reverse) for name, rule, reverse in question.sort),
    )


def comparison_for_slapd(one: Comparison, dictionary: slapd.Dictionary) -> Comparison:
    assertion = dictionary.filter(one.assertion) if one.assertion else b""
    return Comparison(one.entry, dictionary.in_filter(one.name), dictionary.value(one.name, one.value), assertion)


def batches(questions: list[T], size: int) -> Iterator[list[T]]:
    for at in range(0, len(questions), size):
        yield questions[at : at + size]


async def compare(place: Path, seed: int, count: int, comparing: int) -> tuple[Counter[str], list[str]]:
    people = organisation(seed)
    chance = random.Random(seed)
    differences: list[str] = []
    met: Counter[str] = Counter()
    options = (LdapOptions(nested_groups="direct"), LdapOptions(nested_groups="effective", uid="username"))
    providers = [LdapProvider(n, f"provider{n}", base, f"app{n}", options=options[n]) for n, base in enumerate(BASES)]
    worlds = [Directory(people, p) for p in providers]
    directories = [list(one.entries()) for one in worlds]
    dictionary = slapd.Dictionary(
        sorted({name.lower(): name for one in worlds for name in one.custom_names()}.values())
    )
    judge = Judge(dictionary)
    bases = [slapd.Base(p.base_dn, d) for p, d in zip(providers, directories, strict=True)]
    with slapd.running(place, dictionary, bases) as port:
        async with bed(providers=providers, directory=people) as served:
            for provider, entries in zip(providers, directories, strict=True):
                ours, theirs = await Asker.connect(served.port), await Asker.connect(port, may_be_busy=True)
                await ours.bind(f"cn=ldapservice,ou=users,{provider.base_dn}", PASSWORDS["ldapservice"])
                made = Questions(chance, entries, dictionary)
                visible = [e.dn for e in entries]
                keys = Keys(entries, dictionary)
                questions = [made.question(visible) for _ in range(count // len(providers))]
                plain = [q for q in questions if not q.page]
                pairs: list[tuple[Question, Answer, Answer]] = []
                for batch in batches(plain, 50):
                    mine = await ours.ask(batch)
                    other = await theirs.ask([for_slapd(q, dictionary) for q in batch])
                    pairs += zip(batch, mine, other, strict=True)
                for question in questions:
                    if question.page:
                        other = await theirs.turn_pages(for_slapd(question, dictionary))
                        pairs.append((question, await ours.turn_pages(question), other))
                for question, mine, other in pairs:
                    why = differ(judge, keys, question, mine, other)
                    met["searches"] += 1
                    met[f"code {other.code}"] += 1
                    met["entries"] += len(mine.entries)
                    met["hits"] += bool(mine.entries)
                    met["paged"] += bool(question.page)
                    met["sorted"] += bool(mine.sort_code == 0 and len(mine.entries) > 1)
                    if why:
                        differences.append(f"{why}\n    {question}")
                comparisons = [made.comparison(visible) for _ in range(comparing // len(providers))]
                for some in batches(comparisons, 50):
                    there = await theirs.compare([comparison_for_slapd(one, dictionary) for one in some])
                    for asked, mine_is, is_there in zip(some, await ours.compare(some), there, strict=True):
                        met["compares"] += 1
                        met[f"compare {is_there[0]}"] += 1
                        why = compares_differ(mine_is, is_there)
                        if why:
                            differences.append(f"{why}\n    {asked}")
                for one in (ours, theirs):
                    one.writer.close()
    return met, differences


def compares_differ(mine: tuple[int, bytes], other: tuple[int, bytes]) -> str:
    """In words, or nothing."""
    if other[0] in (UNDEFINED_TYPE, INVALID_SYNTAX) and mine[0] in (
        NO_SUCH_ATTRIBUTE,
        NO_SUCH_OBJECT,
        ASSERTION_FAILED,
    ):
        return ""
    if mine[0] != other[0]:
        return f"code {mine[0]}, slapd {other[0]}"
    return "" if dn_form(mine[1]) == dn_form(other[1]) else f"matchedDN {mine[1]!r}, slapd {other[1]!r}"


def differ(judge: Judge, keys: Keys, question: Question, mine: Answer, other: Answer) -> str:
    """In words, or nothing."""
    if mine.code != other.code:
        return f"code {mine.code}, slapd {other.code}"
    if dn_form(mine.matched) != dn_form(other.matched):
        return f"matchedDN {mine.matched!r}, slapd {other.matched!r}"
    asked = frozenset(one.strip(" ") for n in question.wanted for one in n.decode().lower().split(","))
    have = [judge.ours(e) for e in mine.entries]
    there = [judge.theirs(e, asked) for e in other.entries]
    if question.size_limit and mine.code == 4:
        return "" if len(have) == len(there) == question.size_limit else f"{len(have)} entries, slapd {len(there)}"
    if set(have) != set(there) or len(have) != len(there):
        more = {e[0] for e in have} - {e[0] for e in there}
        fewer = {e[0] for e in there} - {e[0] for e in have}
        if more or fewer:
            return f"entries {len(have)}, slapd {len(there)}; too many {sorted(more)[:2]}, missing {sorted(fewer)[:2]}"
        one, two = next((a, b) for a in have for b in there if a[0] == b[0] and a != b)
        return f"{one[0]!r}: too much {sorted(one[1] - two[1])[:3]}, missing {sorted(two[1] - one[1])[:3]}"
    if question.sort:
        if mine.sort_code != other.sort_code:
            return f"sort code {mine.sort_code}, slapd {other.sort_code}"
        if mine.sort_code == 0:
            first, second = [keys(e[0], question) for e in have], [keys(e[0], question) for e in there]
            if first != second:
                at = next(n for n, (one, two) in enumerate(zip(first, second, strict=True)) if one != two)
                return f"order from {at}: {first[at : at + 5]}, slapd {second[at : at + 5]}"
    return ""


def test_ten_thousand_searches_and_compares_are_answered_as_slapd_answers_them(tmp_path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        met, differences = runner.run(compare(tmp_path, 1, 12_000, 4_000))
    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences[:30])
    # Not only misses, and everything that is compared was there to be compared.
    assert met["searches"] == 12_000
    assert met["hits"] > 3_000 and met["entries"] > 30_000
    assert min(met[kind] for kind in ("paged", "sorted", "code 4", "code 32", "code 34", "code 122")) > 100
    assert met["compares"] == 4_000
    assert min(met[f"compare {code}"] for code in (5, 6, 16, 21, 32, 122)) > 40


def test_a_difference_is_seen() -> None:
    directory = Directory(organisation(1), LdapProvider(1, "p", BASES[0], "app"))
    entries = list(directory.entries())
    dictionary = slapd.Dictionary(directory.custom_names())
    judge, keys = Judge(dictionary), Keys(entries, dictionary)
    question = Question(BASES[0].encode(), 2, encode.octets("cn", 0x87), (b"*",), sort=(("cn", None, False),))

    def sent(name: str, *values: bytes) -> bytes:
        listed = encode.tlv(0x30, encode.octets("cn"), encode.tlv(0x31, *map(encode.octets, values)))
        return encode.octets(f"cn={name},ou=users,{BASES[0]}") + encode.tlv(0x30, listed)

    one, two = sent("alice", b"alice", b"Alice A."), sent("ldapservice", b"ldapservice")
    right = Answer(0, b"", [one, two], 0)
    assert differ(judge, keys, question, right, right) == ""
    wrong = {
        "code": Answer(4, b"", [one, two], 0),
        "matchedDN": Answer(0, b"dc=io", [one, two], 0),
        "entries": Answer(0, b"", [one], 0),
        "too much": Answer(0, b"", [sent("alice", b"alice"), two], 0),
        "missing": Answer(0, b"", [sent("alice", b"Alice", b"Alice A."), two], 0),
        "sort code": Answer(0, b"", [one, two], 53),
        "order": Answer(0, b"", [two, one], 0),
    }
    for what, other in wrong.items():
        assert what in differ(judge, keys, question, right, other), what
        assert what in differ(judge, keys, question, other, right), what
    assert compares_differ((6, b""), (5, b"")) and compares_differ((32, b"dc=io"), (32, b""))
    assert compares_differ((5, b""), (21, b"")) and compares_differ((16, b""), (5, b""))
    assert not compares_differ((16, b""), (21, b"")) and not compares_differ((6, b""), (6, b""))
    paged = dataclasses.replace(question, size_limit=2, sort=())
    assert differ(judge, keys, paged, Answer(4, b"", [one, two]), Answer(4, b"", [one, two])) == ""
    assert differ(judge, keys, paged, Answer(4, b"", [one]), Answer(4, b"", [one, two]))
