"""OpenLDAP's slapd with the same entries as ours: its schema, its LDIF, its process, and the way its words differ.

slapd has some attribute types built in, with other rules than ours or filled in by itself.  What it cannot hold under
our name it holds under another one, and requests and answers are rewritten:

- `SHADOWED`: slapd answers with its own attribute, and filters look at a copy named `x-...` with our rules;
- `RENAMED`: all of it is held as `x-...`; those of them that are operational here count as such in answers.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outpost.ldap.entries import EntryValues
from outpost.ldap.matching import Kind
from outpost.ldap.schema import ATTRIBUTE_TYPES, OBJECT_CLASSES, AttributeType, custom_attribute
from tests.ldap.decode import elements
from tests.ldap.encode import octets, tlv

NATIVE = ("objectClass", "structuralObjectClass", "uidNumber", "gidNumber", "createTimestamp", "modifyTimestamp")
"""The same in both."""
SHADOWED = ("cn", "uid", "description", "entryDN", "hasSubordinates", "subschemaSubentry")
GENERATED = ("entryDN", "hasSubordinates", "subschemaSubentry")
"""slapd makes these up itself; it does not take them from the LDIF."""
RENAMED_USER = ("name", "distinguishedName")
RENAMED_OPERATIONAL = ("entryUUID", "numSubordinates", "pwdChangedTime")
RENAMED = (*RENAMED_USER, *RENAMED_OPERATIONAL)

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_BUILT_IN_CLASSES = {"top", "subschema"}
_CLASSES = {c.name: re.sub(r"[^A-Za-z0-9-]", "-", c.name) for c in OBJECT_CLASSES}
_CLASSES_THERE = {name.lower().encode(): there.encode() for name, there in _CLASSES.items()}
_CLASSES_BACK = {there.lower().encode(): name.encode() for name, there in _CLASSES.items()}


class Dictionary:
    """Our attribute names in slapd's words and back."""

    def __init__(self, custom: Iterable[str]) -> None:
        held = [t for t in ATTRIBUTE_TYPES if t.usage != "dSAOperation" and t.oid not in _DESCRIBING]
        self.types: list[AttributeType] = [*held, *map(custom_attribute, custom)]
        self.of = {n.lower(): t for t in self.types for n in (t.name, *t.aliases, t.oid)}
        self.there = {t.name: _there(t.name) for t in self.types}
        self._back = {there.lower(): name for name, there in self.there.items()}

    def in_filter(self, name: str, *, in_dn: bool = False) -> str:
        """The description to ask slapd for; in_dn: an extensible filter that looks at DNs, too."""
        there = self.of.get(name.lower())
        if there is None or (there.name in SHADOWED and in_dn and there.name not in GENERATED):
            return name
        if there.name in SHADOWED:
            return f"x-{there.name}"
        return self._spelled(name, there)

    def _spelled(self, name: str, there: AttributeType) -> str:
        """As the client spells it, if slapd knows that."""
        known = name.lower() != there.name.lower() or self.there[there.name] == there.name
        by_number = name == there.oid and name not in _TAKEN
        return name if known and (_PLAIN.match(name) or by_number) else self.there[there.name]

    def in_list(self, name: str) -> list[str]:
        """The attribute selectors for one of ours."""
        if name == "+":
            return ["+", *(f"x-{n}" for n in RENAMED_OPERATIONAL)]
        there = self.of.get(name.lower())
        if there is None:
            return [name]
        return [self._spelled(name, there)]

    def value(self, name: str, value: bytes) -> bytes:
        """A value of this attribute."""
        there = self.of.get(name.lower())
        kind = there.kind if there is not None else None
        if kind is Kind.BOOLEAN:
            # RFC 4517 3.3.3 takes either case, as all of its ABNF; slapd only this one.
            return value.upper()
        return _CLASSES_THERE.get(value.lower(), value) if kind is Kind.OID else value

    def filter(self, encoded: bytes) -> bytes:
        """A Filter (RFC 4511 4.5.1) for slapd."""
        ((tag, content),) = elements(encoded)
        if tag in (0xA0, 0xA1, 0xA2):
            return tlv(tag, *(self.filter(tlv(t, c)) for t, c in elements(content)))
        if tag == 0x87:
            return octets(self.in_filter(content.decode("latin-1")), tag)
        if tag == 0xA9:
            return self._extensible(content)
        (_, name), (_, asserted) = elements(content)
        if tag == 0xA8:
            tag = 0xA3
        description = name.decode("latin-1")
        inner = tlv(0x30, asserted) if tag == 0xA4 else octets(self.value(description, asserted))
        return tlv(tag, octets(self.in_filter(description)), inner)

    def _extensible(self, content: bytes) -> bytes:
        parts = dict(elements(content))
        name = parts.get(0x82, b"").decode("latin-1")
        value = parts[0x83]
        in_dn = parts.get(0x84, b"\0") != b"\0"
        if name:
            value = self.value(name, value)
        elif parts.get(0x81, b"").lower() in (b"booleanmatch", b"2.5.13.13"):
            value = value.upper()
        return tlv(
            0xA9,
            octets(parts[0x81], 0x81) if 0x81 in parts else b"",
            octets(self.in_filter(name, in_dn=in_dn), 0x82) if name else b"",
            octets(value, 0x83),
            tlv(0x84, b"\xff") if in_dn else b"",
        )

    def back(self, name: bytes, values: list[bytes], asked: frozenset[str]) -> tuple[str, list[bytes]] | None:
        """An attribute of slapd's answer as ours; None for one that nobody asked for. asked: selectors, in lower
        case."""
        text = name.decode()
        if text.startswith("x-") and text[2:] in SHADOWED:
            return None
        text = self._back[text.lower()]
        if text in RENAMED_OPERATIONAL and "+" not in asked and not self._asks(text, asked):
            return None
        kind = self.of[text.lower()]
        if kind.kind is Kind.OID:
            values = [_CLASSES_BACK.get(v.lower(), v) for v in values]
        return kind.name, values

    def _asks(self, name: str, asked: frozenset[str]) -> bool:
        found = self.of[name.lower()]
        return any(n.lower() in asked for n in (found.name, *found.aliases, found.oid))

    # -- schema and entries -----------------------------------------------------------------------

    def schema(self) -> str:
        """attributetype and objectclass directives.

        Every object class but one is auxiliary: our users are of two structural classes (as authentik's are), which
        slapd does not load.  IA5 Strings are Directory Strings: names that are not ASCII appear in them.
        """
        lines = []
        for one in self.types:
            if one.name not in (*NATIVE, *SHADOWED):
                oid = "" if one.oid in _TAKEN else one.oid
                lines.append(_described(one, self.there[one.name], oid))
            elif one.name in SHADOWED:
                lines.append(_described(one, f"x-{one.name}", "", aliases=False))
        for cls in OBJECT_CLASSES:
            if cls.name not in _BUILT_IN_CLASSES:
                lines.append(f"objectclass ( {cls.oid} NAME '{_CLASSES[cls.name]}' SUP top AUXILIARY )")
        lines.append("objectclass ( 2.25.1 NAME 'x-any' SUP top STRUCTURAL )")
        return "\n".join(lines) + "\n"

    def ldif(self, entries: Iterable[EntryValues]) -> bytes:
        lines: list[bytes] = []
        for entry in entries:
            lines.append(_line("dn", entry.dn))
            for name, given in entry.attributes:
                values = [given] if isinstance(given, bytes) else list(given)
                values = [self.value(name, v) for v in values]
                if name in SHADOWED:
                    lines += [_line(f"x-{name}", v) for v in values]
                if name not in GENERATED:
                    lines += [_line(self.there[self.of[name.lower()].name], v) for v in values]
            lines.append(b"")
        return b"\n".join(lines) + b"\n"


def _there(name: str) -> str:
    return name if name not in RENAMED and _PLAIN.match(name) else f"x-{re.sub('[^A-Za-z0-9-]', '-', name)}"


_TAKEN = {t.oid for t in ATTRIBUTE_TYPES if t.name in (*RENAMED_OPERATIONAL, "distinguishedName")}
_DESCRIBING = {"1.3.6.1.4.1.1466.101.120.16", "2.5.21.4", "2.5.21.2", "2.5.21.5", "2.5.21.6"}


def _described(one: AttributeType, name: str, oid: str, *, aliases: bool = True) -> str:
    text = AttributeType(name, one.oid, one.kind, one.aliases, single=one.single).describe()
    names = [name, *(a for a in one.aliases if aliases and _PLAIN.match(a))]
    quoted = " ".join(f"'{n}'" for n in names)
    rules = re.sub(r"^\( \S+ NAME (\( .*? \)|'[^']*') ", "", text)
    number = oid or f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"
    return f"attributetype ( {number} NAME ( {quoted} ) {rules}"


def _line(name: str, value: bytes) -> bytes:
    return name.encode() + b":: " + base64.b64encode(value)


# -- the process ----------------------------------------------------------------------------------


def find() -> str | None:
    """The program, which Debian keeps out of the PATH of ordinary users."""
    return shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/lib/openldap:/usr/libexec:/usr/bin")


def modules() -> Path | None:
    for place in ("/usr/lib/ldap", "/usr/lib/openldap", "/usr/lib64/openldap", "/usr/libexec/openldap"):
        if any(Path(place).glob("sssvlv*.so*")):
            return Path(place)
    return None


@dataclass(frozen=True)
class Base:
    suffix: str
    entries: list[EntryValues]


@contextlib.contextmanager
def running(place: Path, dictionary: Dictionary, bases: Iterable[Base]) -> Iterator[int]:
    """slapd with these entries on a port of loopback, which is yielded; it is gone at the end."""
    program, path = find(), modules()
    assert program is not None and path is not None
    listed = list(bases)
    (place / "outpost.schema").write_text(dictionary.schema())
    config = [f"modulepath {path}", "moduleload back_mdb", "moduleload sssvlv", f"include {place}/outpost.schema"]
    config += ["sizelimit unlimited", "timelimit 60", "access to * by * read", "threads 4"]
    for n, base in enumerate(listed):
        (place / f"db{n}").mkdir()
        config += ["database mdb", f'suffix "{base.suffix.replace(chr(92), chr(92) * 2)}"', f"directory {place}/db{n}"]
        config += ["lastmod off", "maxsize 67108864", "dbnosync", "limits * size=unlimited size.prtotal=unlimited"]
        # sssvlv has room for so many on every connection that slapd could have.
        config += ["overlay sssvlv", "sssvlv-max 128", "sssvlv-maxperconn 64", "sssvlv-maxkeys 10"]
    (place / "slapd.conf").write_text("\n".join(config) + "\n")
    for n, base in enumerate(listed):
        (place / f"{n}.ldif").write_bytes(dictionary.ldif(base.entries))
        _run(program, "-Tadd", "-q", "-s", "-f", f"{place}/slapd.conf", "-b", base.suffix, "-l", f"{place}/{n}.ldif")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = place / "slapd.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [program, "-d", "0", "-f", f"{place}/slapd.conf", "-h", f"ldap://127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stderr + done.stdout).decode("utf-8", "replace")[-3000:]
