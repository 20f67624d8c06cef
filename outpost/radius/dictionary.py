"""Names, numbers, types and values of attributes, read from FreeRADIUS-format dictionary files.

    ATTRIBUTE NAME NUMBER TYPE [has_tag,encrypt=N]     NUMBER may be dotted: 241.1 (RFC 6929)
    VALUE ATTRIBUTE-NAME NAME NUMBER
    VENDOR NAME NUMBER [format=T,L[,c]]                octets of an attribute's type and length; c: one of flags
    BEGIN-VENDOR NAME [format=Extended-Vendor-Specific-N] ... END-VENDOR NAME     N: 1 to 6 (RFC 6929 2.3)
    $INCLUDE FILE

TLVs, and attributes of types nobody sends in replies, may stand in a file but have no name here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, NamedTuple, final

from outpost.errors import ConfigError

SHIPPED = ("dictionary.standard", "dictionary.vendors")
DEEPEST_INCLUDE = 8

INTEGER_SIZES: Final = {
    **{"byte": 1, "uint8": 1, "bool": 1, "short": 2, "uint16": 2, "integer": 4, "uint32": 4, "date": 4},
    **{"time_delta": 4, "signed": 4, "int32": 4, "integer64": 8, "uint64": 8, "int64": 8},
}
SIGNED: Final = frozenset({"signed", "int32", "int64"})
ADDRESSES: Final = frozenset({"ipaddr", "ipv6addr", "combo-ip", "ipv6prefix", "ipv4prefix", "ifid", "ether"})
TYPES: Final = frozenset({"string", "octets", *INTEGER_SIZES, *ADDRESSES})
NAMELESS: Final = frozenset(
    {"tlv", "struct", "vsa", "evs", "extended", "long-extended", "vendor", "group", "union", "attribute", "abinary"}
    | {"float32", "float64", "comboip", "comboipaddr", "cidr", "void", "size"}
)
"""Types that FreeRADIUS knows and nobody writes in a reply by name."""

VENDOR_SPECIFIC: Final = 26
"""Attribute type, and Extended-Type too (RFC 6929 2.3)."""
EXTENDED: Final = range(241, 245)
LONG_EXTENDED: Final = range(245, 247)


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor and the layout of its attributes (RFC 2865 5.26 recommends 1,1)."""

    name: str
    number: int
    type_size: int = 1
    length_size: int = 1
    has_continuation: bool = False
    """Behind the length is an octet whose highest bit says that the value goes on in the next attribute (WiMAX)."""

    @property
    def is_usual(self) -> bool:
        """The layout that RFC 2865 5.26 recommends."""
        return (self.type_size, self.length_size, self.has_continuation) == (1, 1, False)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One named attribute."""

    name: str
    number: int
    """Attribute type; 26 for those of vendors, 241 to 246 for extended ones."""
    sub_number: int
    """The vendor's type, or the Extended-Type (RFC 6929 2.1); 0 for plain attributes."""
    kind: str
    vendor: Vendor | None = None
    has_tag: bool = False
    encrypt: int = 0
    """0 none, 1 as User-Password, 2 with salt as Tunnel-Password (RFC 2868 3.5)."""
    values: dict[str, int] = field(default_factory=dict, hash=False, compare=False)
    """Lower-case name to number."""
    names: dict[int, str] = field(default_factory=dict, hash=False, compare=False)
    """Number to the first name it was given."""

    @property
    def is_extended(self) -> bool:
        """It travels in an attribute of RFC 6929."""
        return self.number in EXTENDED or self.number in LONG_EXTENDED

    def encode(self, text: str) -> bytes:
        """The octets of a value written as text. Raises ValueError with a reason that quotes no value."""
        kind = self.kind
        if kind == "string":
            return text.encode()
        if kind == "octets":
            if text[:2].lower() != "0x":
                return text.encode()
            try:
                return bytes.fromhex(text[2:])
            except ValueError:
                raise ValueError(f"{self.name} takes pairs of hexadecimal digits after 0x") from None
        size = INTEGER_SIZES.get(kind)
        if size is not None:
            number = self.values.get(text.strip().lower())
            if number is None:
                try:
                    number = int(text.strip(), 0)
                except ValueError:
                    known = ", ".join(self.names.values()) or "none"
                    raise ValueError(f"{self.name} takes a number or one of its names ({known})") from None
            try:
                return number.to_bytes(size, "big", signed=kind in SIGNED)
            except OverflowError:
                raise ValueError(f"{self.name} takes a number of {size} octets") from None
        return _encode_address(self, text.strip())

    def decode(self, octets: bytes) -> str:
        """The value as text, in hexadecimal where the octets are none of this type."""
        kind = self.kind
        size = INTEGER_SIZES.get(kind)
        if size is not None and len(octets) == size:
            number = int.from_bytes(octets, "big", signed=kind in SIGNED)
            return self.names.get(number, str(number))
        if kind in ADDRESSES:
            text = _decode_address(kind, octets)
            if text is not None:
                return text
        if kind == "string":
            try:
                text = octets.decode()
            except UnicodeDecodeError:
                return f"0x{octets.hex()}"
            return text if text.isprintable() else repr(text)
        return f"0x{octets.hex()}"


def _encode_address(attribute: Attribute, text: str) -> bytes:
    kind = attribute.kind
    try:
        if kind == "ipaddr" or (kind == "combo-ip" and ":" not in text):
            return IPv4Address(text).packed
        if kind in {"ipv6addr", "combo-ip"}:
            return IPv6Address(text).packed
        if kind == "ipv6prefix":
            # RFC 3162 2.3: reserved, length, and no octets behind the prefix are needed.
            prefix = IPv6Network(text)
            return bytes((0, prefix.prefixlen)) + prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
        if kind == "ipv4prefix":
            network = IPv4Network(text)
            return bytes((0, network.prefixlen)) + network.network_address.packed
        digits = text.replace(":", "").replace("-", "").replace(".", "")
        if kind == "ifid":
            digits = "".join(part.zfill(4) for part in text.split(":"))
        octets = bytes.fromhex(digits)
        if len(octets) != (8 if kind == "ifid" else 6):
            raise ValueError
    except ValueError:
        raise ValueError(f"{attribute.name} takes a value of type {kind}") from None
    return octets


def _decode_address(kind: str, octets: bytes) -> str | None:
    if kind in {"ipaddr", "combo-ip"} and len(octets) == 4:
        return str(IPv4Address(octets))
    if kind in {"ipv6addr", "combo-ip"} and len(octets) == 16:
        return str(IPv6Address(octets))
    if kind == "ipv6prefix" and 2 <= len(octets) <= 18 and octets[1] <= 128:
        return f"{IPv6Address(octets[2:].ljust(16, bytes(1)))}/{octets[1]}"
    if kind == "ipv4prefix" and len(octets) == 6 and octets[1] <= 32:
        return f"{IPv4Address(octets[2:])}/{octets[1]}"
    if kind == "ifid" and len(octets) == 8:
        return octets.hex(":", 2)
    if kind == "ether" and len(octets) == 6:
        return octets.hex(":")
    return None


@dataclass(frozen=True, slots=True)
class DictionarySettings:
    """Which attributes are known by name, beside those that are shipped."""

    dictionaries: tuple[Path, ...] = ()
    """Further dictionary files in FreeRADIUS's format; in the settings file relative to it."""


class _Scope(NamedTuple):
    """Whose attributes are being read, and in which attribute they travel."""

    vendor: Vendor
    number: int = VENDOR_SPECIFIC


@final
class Dictionary:
    """Attributes by name (in any case) and by number. Immutable once loaded."""

    def __init__(self) -> None:
        self._by_name: dict[str, Attribute] = {}
        self._by_number: dict[tuple[int, int, int], Attribute] = {}
        self._vendors: dict[str, Vendor] = {}
        self._vendor_numbers: dict[int, Vendor] = {}

    def named(self, name: str) -> Attribute | None:
        """The attribute of this name, or None."""
        return self._by_name.get(name.lower())

    def numbered(self, number: int, vendor: int = 0, sub_number: int = 0) -> Attribute | None:
        """The attribute of these numbers, or None. With several names, the first in the files."""
        return self._by_number.get((number, vendor, sub_number))

    def vendor(self, number: int) -> Vendor | None:
        """The vendor of this enterprise number, or None."""
        return self._vendor_numbers.get(number)

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """All attributes by lower-case name."""
        return self._by_name

    def read(self, text: str, source: str, folder: Path | None = None, depth: int = 0) -> None:
        """Add what a file says. A name may be defined again, the last one counts. Raises ConfigError."""
        inside: _Scope | None = None
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                inside = self._take(words, inside, folder, depth)
            except ValueError as exc:
                raise ConfigError(str(exc), source=source, line=number) from None

    def _take(self, words: Sequence[str], inside: _Scope | None, folder: Path | None, depth: int) -> _Scope | None:
        keyword, rest = words[0].upper(), words[1:]
        if keyword == "ATTRIBUTE" and len(rest) >= 3:
            self._add_attribute(rest, inside)
        elif keyword == "VALUE" and len(rest) >= 3:
            attribute = self._by_name.get(rest[0].lower())
            if attribute is not None:
                number = _number(rest[2])
                attribute.values[rest[1].lower()] = number
                attribute.names.setdefault(number, rest[1])
        elif keyword == "VENDOR" and len(rest) >= 2:
            self._add_vendor(rest)
        elif keyword == "BEGIN-VENDOR" and rest:
            found = self._vendors.get(rest[0].lower())
            if found is None:
                raise ValueError(f"no VENDOR {rest[0]} before this")
            return _scope(found, rest[1:])
        elif keyword == "END-VENDOR":
            return None
        elif keyword == "$INCLUDE" and rest:
            if folder is None or depth >= DEEPEST_INCLUDE:
                raise ValueError("$INCLUDE is too deep, or not possible here")
            self.read_file(folder / rest[0], depth + 1)
        elif keyword in {"BEGIN-TLV", "END-TLV", "ALIAS", "STRUCT", "MEMBER", "FLAGS", "$INCLUDE-"}:
            pass
        else:
            raise ValueError(f"not understood: {words[0]}")
        return inside

    def _add_vendor(self, rest: Sequence[str]) -> None:
        layout = ["1", "1"]
        for word in rest[2:]:
            if word.startswith("format="):
                layout = word.removeprefix("format=").split(",")
        if len(layout) not in {2, 3} or layout[0] not in {"1", "2", "4"} or layout[1] not in {"0", "1", "2"}:
            raise ValueError("format= takes 1, 2 or 4 and 0, 1 or 2")
        if layout[2:] not in ([], ["c"]) or (layout[2:] and layout[:2] != ["1", "1"]):
            raise ValueError("format= takes a c behind 1,1 alone")
        found = Vendor(rest[0], _number(rest[1]), int(layout[0]), int(layout[1]), has_continuation=len(layout) == 3)
        self._vendors[found.name.lower()] = found
        self._vendor_numbers.setdefault(found.number, found)

    def _add_attribute(self, rest: Sequence[str], inside: _Scope | None) -> None:
        name, kind = rest[0], rest[2].lower().partition("[")[0]
        numbers = [_number(part) for part in rest[1].split(".")]
        if kind not in TYPES and kind not in NAMELESS:
            raise ValueError(f"{name}: no type: {rest[2]}")
        if kind not in TYPES or len(numbers) > 2 or (inside is not None and len(numbers) > 1):
            return  # TLVs, containers and the like
        if len(numbers) == 2 and numbers[0] not in EXTENDED and numbers[0] not in LONG_EXTENDED:
            return
        has_tag, encrypt = False, 0
        for flag in ",".join(rest[3:]).split(","):
            has_tag = has_tag or flag == "has_tag"
            if flag.startswith("encrypt="):
                encrypt = _number(flag.removeprefix("encrypt="))
        if inside is not None:
            size = inside.vendor.type_size if inside.number == VENDOR_SPECIFIC else 1
            if numbers[0] >= 1 << 8 * size:
                raise ValueError(f"{name}: the vendor's types have {size} octets")
            attribute = Attribute(name, inside.number, numbers[0], kind, inside.vendor, has_tag, encrypt)
        elif not 0 < numbers[0] < 256:
            return  # the internal attributes of servers
        else:
            attribute = Attribute(name, numbers[0], (*numbers, 0)[1], kind, None, has_tag, encrypt)
        self._by_name[name.lower()] = attribute
        vendor = inside.vendor.number if inside else 0
        self._by_number.setdefault((attribute.number, vendor, attribute.sub_number), attribute)

    def read_file(self, path: Path, depth: int = 0) -> None:
        """Add a file. Raises ConfigError."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
        self.read(text, str(path), path.parent, depth)


def _scope(vendor: Vendor, words: Sequence[str]) -> _Scope:
    for word in words:
        key, _, value = word.partition("=")
        if key.lower() in {"format", "parent"}:
            head, _, last = value.rpartition("-")
            if head.lower() != "extended-vendor-specific" or last not in {"1", "2", "3", "4", "5", "6"}:
                raise ValueError(f"no such place for attributes of vendors: {value}")
            return _Scope(vendor, 240 + int(last))
    return _Scope(vendor)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"not a number: {text}") from None


def load(further: Sequence[Path] = ()) -> Dictionary:
    """The shipped dictionary and, on top of it, further files. Raises ConfigError."""
    dictionary = Dictionary()
    for name in SHIPPED:
        dictionary.read(files("outpost.radius").joinpath(name).read_text(encoding="utf-8"), name)
    for path in further:
        dictionary.read_file(path)
    return dictionary


@cache
def shipped() -> Dictionary:
    """The shipped dictionary alone, read once; not to be added to."""
    return load()
