"""What a search has to find, in plain Python over the entries themselves (RFC 4511 4.5, RFC 4512, RFC 4517).

Slow and obvious: no index, no plan, no arena.  It shares the normal forms of `matching` and the types of `schema` with
the compiled directory and nothing else.  Truth is True, False, or None for Undefined (RFC 4511 4.5.1.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from outpost.errors import DecodeError
from outpost.ldap.dn import normalise, normalise_rdn, parse
from outpost.ldap.entries import EntryValues
from outpost.ldap.matching import WITH_ORDERING, Kind, normalise_substring, normalise_value
from outpost.ldap.schema import (
    ATTRIBUTE_TYPES,
    MATCHING_RULES,
    MEMBERSHIP,
    OBJECT_CLASSES,
    PRIVATE,
    AttributeType,
    custom_attribute,
)
from tests.ldap.decode import elements

CLASSES = {c.oid.encode(): c.name.lower().encode() for c in OBJECT_CLASSES}
RULES = {
    key: (name, kind)
    for name, (oid, _, kind) in MATCHING_RULES.items()
    if kind is not None
    for key in (name.lower(), oid)
}
BITS = {"integerBitAndMatch": lambda n, m: n & m == m, "integerBitOrMatch": lambda n, m: n & m != 0}
CHAIN = "dnInChainMatch"


@lru_cache(100_000)
def normal(kind: Kind, value: bytes) -> bytes | None:
    found = normalise_value(kind, value)
    return CLASSES.get(found, found) if kind is Kind.OID and found is not None else found


@dataclass
class Attribute:
    type: AttributeType
    values: list[bytes]


@dataclass
class Entry:
    dn: bytes
    normal: bytes
    kind: str
    user_pk: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    """By the lower-case name of the type, in the order they are sent."""

    @property
    def parent(self) -> bytes:
        return self.normal.partition(b",")[2]

    def values(self, name: str) -> list[bytes]:
        return self.attributes[name].values if name in self.attributes else []


Test = Callable[[Entry], bool | None]


@dataclass(frozen=True)
class Found:
    result_code: int
    matched_dn: bytes
    entries: list[tuple[bytes, list[tuple[str, list[bytes]]]]]


class Oracle:
    """One provider's entries, in the order given."""

    def __init__(self, entries: Iterable[EntryValues]) -> None:
        listed = list(entries)
        self.types = {t.name.lower(): t for t in ATTRIBUTE_TYPES}
        self.names = {n.lower(): t.name.lower() for t in ATTRIBUTE_TYPES for n in (t.name, *t.aliases, t.oid)}
        for values in listed:
            for name, _ in values.attributes:
                if name.lower() not in self.names:
                    self.types[name.lower()] = added = custom_attribute(name)
                    self.names |= {name.lower(): name.lower(), added.oid: name.lower()}
        self.entries: list[Entry] = []
        taken: set[bytes] = set()
        for values in listed:
            key = normalise(values.dn)
            if key not in taken:
                taken.add(key)
                self.entries.append(self._entry(values, key))

    def _entry(self, given: EntryValues, key: bytes) -> Entry:
        entry = Entry(given.dn, key, given.kind, given.user_pk)
        for name, value in given.attributes:
            kind = self.types[name.lower()]
            kept: dict[bytes, bytes] = {}
            # RFC 4512 2.2: no two values of one attribute are equivalent.
            for octets in [value] if isinstance(value, bytes) else value:
                form = normal(kind.kind, octets)
                kept.setdefault(b"?" + octets if form is None else b"=" + form, octets)
            if kept:
                entry.attributes[name.lower()] = Attribute(kind, list(kept.values()))
        return entry

    # -- views ------------------------------------------------------------------------------------

    def own(self, user_pk: int) -> Oracle | None:
        """Himself, his own group, his groups reduced to him, and the containers, which name nobody."""
        me = next((e for e in self.entries if e.kind == "user" and e.user_pk == user_pk), None)
        if me is None:
            return None
        groups = {normal(Kind.DN, dn) for dn in me.values("memberof")}
        mine = next(e for e in self.entries if e.kind == "virtual_group" and e.user_pk == user_pk)
        names = {"memberuid": set(mine.values("memberuid"))}
        view = object.__new__(Oracle)
        view.types, view.names, view.entries = self.types, self.names, []
        for entry in self.entries:
            if entry is me:
                view.entries.append(entry)
            elif (
                entry is mine
                or entry.kind in ("base", "container")
                or (entry.kind == "group" and entry.normal in groups)
            ):
                reduced = Entry(entry.dn, entry.normal, entry.kind, entry.user_pk)
                for name, attribute in entry.attributes.items():
                    values = attribute.values
                    if attribute.type.flags & PRIVATE:
                        continue
                    if attribute.type.flags & MEMBERSHIP:
                        allowed = names.get(name)
                        values = [v for v in values if (v in allowed if allowed else normal(Kind.DN, v) == me.normal)]
                    if values:
                        reduced.attributes[name] = Attribute(attribute.type, values)
                view.entries.append(reduced)
        return view

    # -- search -----------------------------------------------------------------------------------

    def search(
        self,
        base: bytes,
        scope: int,
        filter: bytes,
        wanted: Iterable[bytes],
        *,
        types_only: bool = False,
        limit: int = 0,
    ) -> Found:
        """Raises DecodeError for a base that is no DN."""
        root = normalise(base)
        held = {e.normal: e for e in self.entries}
        if root not in held:
            above = root
            while above and above not in held:
                above = above.partition(b",")[2]
            return Found(32, held[above].dn if above in held else b"", [])
        ((tag, content),) = elements(filter)
        test = self.compile(tag, content)
        selected = self.select(list(wanted))
        found = []
        for entry in self.entries:
            if self.in_scope(entry, root, scope) and test(entry) is True:
                if limit and len(found) == limit:
                    return Found(4, b"", found)
                chosen = [
                    (a.type.name, [] if types_only else a.values) for n, a in entry.attributes.items() if n in selected
                ]
                found.append((entry.dn, chosen))
        return Found(0, b"", found)

    @staticmethod
    def in_scope(entry: Entry, root: bytes, scope: int) -> bool:
        if scope == 0:
            return entry.normal == root
        if scope == 1:
            return entry.parent == root and entry.normal != root
        return entry.normal == root or entry.normal.endswith(b"," + root)

    def select(self, wanted: list[bytes]) -> set[str]:
        """RFC 4511 4.5.1.8, RFC 3673; a list in one name is taken apart (COMPAT)."""
        names = [part.strip(b" ") for name in wanted for part in name.split(b",")]
        user = not wanted or wanted == [b""] or b"*" in names
        operational = b"+" in names
        selected = {self.names.get(name.decode("latin-1").lower(), "") for name in names}
        for name, kind in self.types.items():
            if operational if kind.operational else user:
                selected.add(name)
        return selected

    def compare(self, dn: bytes, attribute: bytes, value: bytes) -> int:
        """resultCode of a Compare (RFC 4511 4.10). Raises DecodeError if `dn` is none."""
        key = normalise(dn)
        entry = next((e for e in self.entries if e.normal == key), None)
        if entry is None:
            return 32
        name = self.names.get(attribute.decode("latin-1").lower())
        if name is None:
            return 17
        if not entry.values(name):
            return 16
        kind = self.types[name].kind
        asserted = normal(kind, value)
        if asserted is None:
            return 21
        return 6 if any(normal(kind, v) == asserted for v in entry.values(name)) else 5

    # -- filter -----------------------------------------------------------------------------------

    def compile(self, tag: int, content: bytes) -> Test:
        """RFC 4511 4.5.1.7."""
        if tag in (0xA0, 0xA1, 0xA2):
            parts = [self.compile(t, c) for t, c in elements(content)]
            return {0xA0: conjunction, 0xA1: disjunction, 0xA2: negation}[tag](parts)
        if tag == 0x87:
            name = self.names.get(content.decode("latin-1").lower())
            return undefined if name is None else (lambda e: bool(e.values(name)))
        if tag == 0xA9:
            return self.extensible(content)
        (_, description), (_, asserted) = elements(content)
        name = self.names.get(description.decode("latin-1").lower())
        if name is None:
            return undefined
        kind = self.types[name].kind
        if tag == 0xA4:
            return substrings(name, kind, list(elements(asserted)))
        value = normal(kind, asserted)
        if value is None or (tag in (0xA5, 0xA6) and kind not in WITH_ORDERING):
            return undefined
        if tag == 0xA5:
            return some(name, kind, lambda v: key(kind, v) >= key(kind, value))
        if tag == 0xA6:
            return some(name, kind, lambda v: key(kind, v) <= key(kind, value))
        return some(name, kind, lambda v: v == value)

    def extensible(self, content: bytes) -> Test:
        """4.5.1.7.7."""
        parts = dict(elements(content))
        value = parts[0x83]
        in_dn = parts.get(0x84, b"\0") != b"\0"
        rule, rule_kind = "", None
        if 0x81 in parts:
            if parts[0x81].decode("latin-1").lower() not in RULES:
                return undefined
            rule, rule_kind = RULES[parts[0x81].decode("latin-1").lower()]
        name = None
        if 0x82 in parts:
            name = self.names.get(parts[0x82].decode("latin-1").lower())
            if name is None:
                return undefined
            kind = self.types[name].kind
            if rule_kind is None:
                rule_kind = kind
            elif kind not in supporting(rule_kind):
                return undefined
        if rule_kind is None or (name is None and rule in (*BITS, CHAIN)):
            return undefined
        if rule in BITS:
            mask = normal(Kind.INTEGER, value)
            if mask is None or len(mask) > 18:
                return undefined
            return some(name, Kind.INTEGER, lambda v: len(v) <= 18 and BITS[rule](int(v), int(mask)))
        asserted = normal(rule_kind, value)
        if rule == CHAIN:
            return undefined if asserted is None else (lambda e: self.reaches(e, name, asserted))
        test = undefined if asserted is None else self.equals(name, rule_kind, asserted)
        if in_dn and rule_kind in (Kind.CASE_IGNORE, Kind.CASE_EXACT):
            return disjunction([test, self.in_dn(name, rule_kind, value)])
        return test

    def equals(self, name: str | None, kind: Kind, asserted: bytes) -> Test:
        if name is not None:
            return lambda e: any(normal(kind, v) == asserted for v in e.values(name))
        return lambda e: any(
            normal(kind, v) == asserted
            for a in e.attributes.values()
            if a.type.kind in supporting(kind)
            for v in a.values
        )

    def in_dn(self, name: str | None, kind: Kind, value: bytes) -> Test:
        """Names are compared as in DNs, except where the rule says that case counts."""
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return lambda e: False

        def test(entry: Entry) -> bool:
            for rdn in parse(entry.dn.decode()):
                for description, held in rdn:
                    of = self.names.get(description.lower())
                    if name is not None and of != name:
                        continue
                    try:
                        if kind is Kind.CASE_EXACT:
                            octets = held.encode() if isinstance(held, str) else held
                            if normal(kind, octets) == normal(kind, value):
                                return True
                        elif normalise_rdn(((description, held),)) == normalise_rdn(((description, text),)):
                            return True
                    except DecodeError:
                        continue
            return False

        return test

    def reaches(self, entry: Entry, name: str | None, target: bytes) -> bool:
        """Whether `target` is among the attribute's values, or theirs, and so on."""
        assert name is not None
        held = {e.normal: e for e in self.entries}
        seen: set[bytes] = set()
        todo = [entry]
        while todo:
            for value in todo.pop().values(name):
                form = normal(Kind.DN, value)
                if form == target:
                    return True
                if form is not None and form not in seen:
                    seen.add(form)
                    if form in held:
                        todo.append(held[form])
        return False


def supporting(rule: Kind) -> frozenset[Kind]:
    """The kinds of attributes that an equality rule can be used with (RFC 4517 4.2)."""
    strings = frozenset({Kind.CASE_IGNORE, Kind.CASE_EXACT, Kind.TELEPHONE_NUMBER})
    return strings if rule in (Kind.CASE_IGNORE, Kind.CASE_EXACT) else frozenset({rule})


def undefined(entry: Entry) -> None:
    return None


def conjunction(parts: list[Test]) -> Test:
    def test(entry: Entry) -> bool | None:
        found = [part(entry) for part in parts]
        return False if False in found else None if None in found else True

    return test


def disjunction(parts: list[Test]) -> Test:
    def test(entry: Entry) -> bool | None:
        found = [part(entry) for part in parts]
        return True if True in found else None if None in found else False

    return test


def negation(parts: list[Test]) -> Test:
    def test(entry: Entry) -> bool | None:
        found = parts[0](entry)
        return None if found is None else not found

    return test


def some(name: str | None, kind: Kind, holds: Callable[[bytes], bool]) -> Test:
    """TRUE for an entry of whose values one `holds`; a value that is none of its syntax equals nothing."""
    assert name is not None

    def forms(entry: Entry) -> Iterator[bytes]:
        for value in entry.values(name):
            form = normal(kind, value)
            if form is not None:
                yield form

    return lambda entry: any(holds(form) for form in forms(entry))


def key(kind: Kind, form: bytes) -> int | bytes:
    """What puts normal forms in order; times are all in UTC."""
    return int(form) if kind is Kind.INTEGER else form.rstrip(b"Z") if kind is Kind.GENERALIZED_TIME else form


def substrings(name: str, kind: Kind, pieces: list[tuple[int, bytes]]) -> Test:
    initial, final = b"", b""
    between: list[bytes] = []
    for tag, value in pieces:
        form = normalise_substring(kind, value, initial=tag == 0x80, final=tag == 0x82)
        if form is None:
            return undefined
        if tag == 0x80:
            initial = form
        elif tag == 0x82:
            final = form
        else:
            between.append(form)

    def holds(value: bytes) -> bool:
        if not value.startswith(initial):
            return False
        rest = value[len(initial) :]
        for piece in between:
            _, found, rest = rest.partition(piece) if piece else (b"", b"-", rest)
            if not found:
                return False
        return rest.endswith(final)

    return some(name, kind, holds)
