"""Distinguished names: the string form (RFC 4514), and one normal form to compare them by.

Strict where RFC 4514 is, with one tolerance every client relies on: spaces around `,`, `+` and `=` are dropped,
as RFC 2253 section 4 asked.  The quoted values and semicolons of LDAPv2 are refused.
"""

from __future__ import annotations

import re
import unicodedata

from outpost.errors import DecodeError

__all__ = ("MAX_OCTETS", "MAX_RDNS", "RDN", "escape", "normalise", "normalise_rdn", "parse", "prepare")

RDN = tuple[tuple[str, str | bytes], ...]
"""Attribute type as written, and its value unescaped; bytes is what a `#hex` value stood for."""

MAX_OCTETS = 8192
"""Octets of a whole DN; Active Directory and 389 Directory Server stop far earlier."""
MAX_RDNS = 64
MAX_MARKS = 64
"""Twice what the stream-safe format of UAX 15 allows."""
LONG_VALUE = 256

ALIASES = {
    "commonname": "cn",
    "2.5.4.3": "cn",
    "surname": "sn",
    "2.5.4.4": "sn",
    "countryname": "c",
    "2.5.4.6": "c",
    "localityname": "l",
    "2.5.4.7": "l",
    "stateorprovincename": "st",
    "2.5.4.8": "st",
    "streetaddress": "street",
    "2.5.4.9": "street",
    "organizationname": "o",
    "2.5.4.10": "o",
    "organizationalunitname": "ou",
    "2.5.4.11": "ou",
    "userid": "uid",
    "0.9.2342.19200300.100.1.1": "uid",
    "domaincomponent": "dc",
    "0.9.2342.19200300.100.1.25": "dc",
}
"""The other names and the OIDs of the types of RFC 4514 section 3 and surname, lower case."""

# descr and numericoid of RFC 4512 1.4; no leading zeros in an arc.
TYPE = re.compile(r"[A-Za-z][A-Za-z0-9-]*+|(?:0|[1-9][0-9]*+)(?:\.(?:0|[1-9][0-9]*+))+")
SPACES = re.compile(r" *+")
# stringchar of RFC 4514 section 3; "=" and an inner "#" need no escape.
PLAIN = re.compile(r'[^\\,+"<>;\0]++')
HEX_PAIRS = re.compile(r"(?:\\[0-9A-Fa-f]{2})+")
HEX_STRING = re.compile(r"#((?:[0-9A-Fa-f]{2})+)")
ESCAPABLE = frozenset(' "#+,;<=>\\')

# What nine of ten requests carry is in normal form once it is in lower case.
SIMPLE = re.compile(rb"(?:(?:cn|ou|dc|uid|o)=[a-z0-9._@-]++(?: [a-z0-9._@-]++)*(?:,(?!\Z)|\Z))+")

TO_ESCAPE = re.compile(r'[\0-\x1f\x7f"+,;<>\\]|\A[ #]| \Z')
# In normal forms every special is a hex pair, so that a comma always ends an RDN.
TO_HEX = re.compile(r'[\0"+,;<>\\]|\A#')


def parse(dn: str) -> tuple[RDN, ...]:
    """The RDNs of a DN's string form, leftmost first; () for the empty DN.

    Raises DecodeError, saying at which character (from 0): not RFC 4514, over MAX_OCTETS or MAX_RDNS, or one
    attribute type twice in an RDN, which X.501 9.3 rules out.
    """
    try:
        octets = len(dn) if dn.isascii() else len(dn.encode())
    except UnicodeEncodeError as error:
        raise DecodeError(f"DN: lone surrogate at character {error.start}") from None
    if octets > MAX_OCTETS:
        raise DecodeError(f"DN: {octets} octets are more than {MAX_OCTETS}")
    if not dn:
        return ()
    rdns: list[RDN] = []
    avas: list[tuple[str, str | bytes]] = []
    types: set[str] = set()
    at = 0
    while True:
        start = _skip_spaces(dn, at)
        kind, value, at = _ava(dn, start)
        folded = _fold_type(kind)
        if folded in types:
            raise DecodeError(f"DN: attribute type twice in one RDN at character {start}")
        types.add(folded)
        avas.append((kind, value))
        if at < len(dn) and dn[at] == "+":
            at += 1
            continue
        if len(rdns) == MAX_RDNS:
            raise DecodeError(f"DN: more than {MAX_RDNS} RDNs at character {start}")
        rdns.append(tuple(avas))
        if at == len(dn):
            return tuple(rdns)
        avas = []
        types.clear()
        at += 1


def _skip_spaces(dn: str, at: int) -> int:
    found = SPACES.match(dn, at)
    return found.end() if found else at


def _ava(dn: str, at: int) -> tuple[str, str | bytes, int]:
    """attributeTypeAndValue at `at`: type, value, and where its separator or the end is."""
    kind = TYPE.match(dn, at)
    if kind is None:
        raise DecodeError(f"DN: no attribute type at character {at}")
    at = _skip_spaces(dn, kind.end())
    if at == len(dn) or dn[at] != "=":
        raise DecodeError(f"DN: '=' expected at character {at}")
    at = _skip_spaces(dn, at + 1)
    value: str | bytes
    if at < len(dn) and dn[at] == "#":
        digits = HEX_STRING.match(dn, at)
        if digits is None:
            raise DecodeError(f"DN: '#' without pairs of hex digits at character {at}")
        value = bytes.fromhex(digits[1])
        at = _skip_spaces(dn, digits.end())
    else:
        value, at = _string(dn, at)
    if at < len(dn) and dn[at] not in ",+":
        raise DecodeError(f"DN: character to be escaped at character {at}")
    return kind[0], value, at


def _string(dn: str, at: int) -> tuple[str, int]:
    """The string at `at`, unescaped and without the spaces around it, and where it ends."""
    parts: list[str] = []
    while at < len(dn):
        if plain := PLAIN.match(dn, at):
            at = plain.end()
            # Only spaces before a separator are dropped: an escaped one, or anything else, may follow this chunk.
            ends = at == len(dn) or dn[at] != "\\"
            parts.append(plain[0].rstrip(" ") if ends else plain[0])
        elif dn[at] != "\\":
            break
        elif pairs := HEX_PAIRS.match(dn, at):
            try:
                parts.append(bytes.fromhex(pairs[0].replace("\\", "")).decode())
            except UnicodeDecodeError as error:
                raise DecodeError(f"DN: escaped octets are not UTF-8 at character {at + 3 * error.start}") from None
            at = pairs.end()
        elif dn[at + 1 : at + 2] in ESCAPABLE:
            parts.append(dn[at + 1])
            at += 2
        else:
            raise DecodeError(f"DN: unknown escape at character {at}")
    return "".join(parts), at


def _fold_type(kind: str) -> str:
    lower = kind.lower()
    return ALIASES.get(lower, lower)


def prepare(value: str) -> str:
    """What caseIgnoreMatch compares: NFKC, case folded, inner spaces squeezed to one and outer ones dropped.

    Less than RFC 4518: control and invisible characters are kept rather than mapped to nothing, because names
    that differ in them must not become one identity.

    Raises DecodeError for MAX_MARKS combining marks in a row in a long value: sorting them takes quadratic time.
    """
    if value.isascii():
        return " ".join(value.lower().split())
    if len(value) > LONG_VALUE:
        _refuse_long_marks(value)
    # Folding may leave what NFKC changes again (U+0345 is one); it is stable after the second round.
    for _ in range(2):
        value = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    return " ".join(value.split())


def _refuse_long_marks(value: str) -> None:
    run = 0
    for character in value:
        run = run + 1 if unicodedata.combining(character) else 0
        if run == MAX_MARKS:
            raise DecodeError(f"DN: {MAX_MARKS} combining marks in a row")


def normalise_rdn(rdn: RDN) -> bytes:
    """One RDN for comparison: types in lower case under their short names, values prepared, AVAs sorted.

    Specials are hex pairs (`\\2c` for a comma), so the result has no comma. A value that is bytes compares by its
    octets. Raises DecodeError as `prepare` does.
    """
    return b"+".join(sorted(_normal_ava(kind, value) for kind, value in rdn))


def _normal_ava(kind: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return f"{_fold_type(kind)}=#{value.hex()}".encode()
    normal = TO_HEX.sub(lambda found: f"\\{ord(found[0]):02x}", prepare(value))
    return f"{_fold_type(kind)}={normal}".encode()


def normalise(dn: bytes) -> bytes:
    """The normal form of a whole DN: its normal RDNs joined by commas, b"" for the empty DN.

    Two DNs are equal if these are, and `x` is below `y` if normalise(x).endswith(b"," + normalise(y)) or `y` is
    empty. Raises DecodeError like `parse`, and for octets that are not UTF-8.
    """
    lower = dn.lower()
    if len(dn) <= MAX_OCTETS and SIMPLE.fullmatch(lower) and lower.count(b",") < MAX_RDNS:
        return lower
    if len(dn) > MAX_OCTETS:
        raise DecodeError(f"DN: {len(dn)} octets are more than {MAX_OCTETS}")
    try:
        text = dn.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"DN: not UTF-8 at octet {error.start}") from None
    return b",".join(normalise_rdn(rdn) for rdn in parse(text))


def escape(value: str) -> str:
    """`value` as it stands in a DN (RFC 4514 2.4); control characters become hex pairs."""
    return TO_ESCAPE.sub(_escape_one, value)


def _escape_one(found: re.Match[str]) -> str:
    character = found[0]
    return f"\\{ord(character):02x}" if character < " " or character == "\x7f" else "\\" + character
