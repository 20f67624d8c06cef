"""Search filters as text: RFC 4515 to the BER of RFC 4511 4.5.1.7, and back for logs.

The octets on the wire are judged by `outpost._fastber`, and matched where they lie; nothing here is on the hot path.
"""

from __future__ import annotations

import re
from typing import NoReturn

from outpost._fastber import Limits, check_filter
from outpost.errors import DecodeError

__all__ = ("MAX_CHARACTERS", "MAX_DEPTH", "MAX_TERMS", "filter_text", "parse_filter")

MAX_CHARACTERS = 65_536
MAX_DEPTH = 64
"""As deep as a decoded filter may be, by default; a lone item has depth 1."""
MAX_TERMS = 4_096

AND, OR, NOT = 0xA0, 0xA1, 0xA2
EQUALITY, SUBSTRINGS, GREATER_OR_EQUAL, LESS_OR_EQUAL = 0xA3, 0xA4, 0xA5, 0xA6
PRESENT, APPROX, EXTENSIBLE = 0x87, 0xA8, 0xA9
LISTS = {"&": AND, "|": OR, "!": NOT}
RELATIONS = {"=": EQUALITY, ">=": GREATER_OR_EQUAL, "<=": LESS_OR_EQUAL, "~=": APPROX}
SIGNS = {tag: sign for sign, tag in RELATIONS.items()} | {tag: sign for sign, tag in LISTS.items()}

# attributedescription of RFC 4512 2.5, and underscores, which directories hold whatever the grammar says.
OID = r"(?:[A-Za-z][A-Za-z0-9_-]*+|(?:0|[1-9][0-9]*+)(?:\.(?:0|[1-9][0-9]*+))+)"
ATTRIBUTE = re.compile(rf"{OID}(?:;[A-Za-z0-9_-]++)*")
RELATION = re.compile(r"[><~]?=")
EXTENSION = re.compile(rf"(:[Dd][Nn](?=:))?(?::({OID}))?:=")
VALUE = re.compile(r"(?:[^\0()*\\]++|\\[0-9A-Fa-f]{2})*")
ESCAPED = re.compile(rb"\\(..)", re.DOTALL)

SECRETS = frozenset({b"userpassword", b"2.5.4.35", b"unicodepwd", b"authpassword", b"sambantpassword"})
"""Attributes whose assertion values are passwords, lower case; they never reach a log."""
WIDEST = Limits(2**31 - 1, filter_depth=512, filter_terms=2**31 - 1, substrings=2**31 - 1)


# -- text to BER -------------------------------------------------------------------------------------


def parse_filter(text: str) -> bytes:
    """The Filter that `text` stands for, encoded; `(&)` and `(|)` are RFC 4526's True and False.

    Raises DecodeError, saying at which character (from 0), for what RFC 4515 does not allow and for more than
    MAX_CHARACTERS, MAX_DEPTH or MAX_TERMS.
    """
    if len(text) > MAX_CHARACTERS:
        _refuse(f"more than {MAX_CHARACTERS} characters", MAX_CHARACTERS)
    open_lists: list[tuple[int, list[bytes]]] = []
    at = terms = 0
    while True:
        if text[at : at + 1] != "(":
            _refuse("'(' expected", at)
        if len(open_lists) == MAX_DEPTH:
            _refuse(f"deeper than {MAX_DEPTH}", at)
        terms += 1
        if terms > MAX_TERMS:
            _refuse(f"more than {MAX_TERMS} terms", at)
        if tag := LISTS.get(text[at + 1 : at + 2]):
            open_lists.append((tag, []))
            at += 2
        else:
            done, at = _item(text, at + 1)
            at = _close(text, at)
            if not open_lists:
                return _finish(text, at, done)
            open_lists[-1][1].append(done)
        while not _more(text, at, *open_lists[-1]):
            at = _close(text, at)
            tag, filters = open_lists.pop()
            done = _element(tag, b"".join(filters))
            if not open_lists:
                return _finish(text, at, done)
            open_lists[-1][1].append(done)


def _refuse(problem: str, at: int) -> NoReturn:
    raise DecodeError(f"filter: {problem} at character {at}")


def _more(text: str, at: int, tag: int, filters: list[bytes]) -> bool:
    """Whether another filter has to follow in the innermost list."""
    if tag == NOT:
        return not filters
    return text[at : at + 1] == "("


def _close(text: str, at: int) -> int:
    if text[at : at + 1] != ")":
        _refuse("')' expected", at)
    return at + 1


def _finish(text: str, at: int, done: bytes) -> bytes:
    if at < len(text):
        _refuse("text after the filter", at)
    return done


def _item(text: str, at: int) -> tuple[bytes, int]:
    """The item at `at`, encoded, and where its ")" has to be."""
    attribute = ATTRIBUTE.match(text, at)
    if attribute:
        at = attribute.end()
        if relation := RELATION.match(text, at):
            return _assertion(text, relation.end(), attribute[0].encode(), RELATIONS[relation[0]])
    extension = EXTENSION.match(text, at)
    if extension is None:
        _refuse("comparison expected" if attribute else "attribute description expected", at)
    if not attribute and not extension[2]:
        _refuse("matching rule or attribute description expected", at)
    value, at = _value(text, extension.end())
    parts = [_element(0x81, extension[2].encode())] if extension[2] else []
    if attribute:
        parts.append(_element(0x82, attribute[0].encode()))
    parts.append(_element(0x83, value))
    if extension[1]:
        parts.append(b"\x84\x01\xff")
    return _element(EXTENSIBLE, b"".join(parts)), at


def _assertion(text: str, at: int, attribute: bytes, tag: int) -> tuple[bytes, int]:
    value, at = _value(text, at)
    if tag != EQUALITY or text[at : at + 1] != "*":
        return _element(tag, _element(0x04, attribute) + _element(0x04, value)), at
    values = [value]
    while text[at : at + 1] == "*":
        value, at = _value(text, at + 1)
        values.append(value)
    if values == [b"", b""]:
        return _element(PRESENT, attribute), at
    initial, *inner, final = values
    pieces = [_element(0x80, initial)] if initial else []
    pieces += [_element(0x81, piece) for piece in inner]
    if final:
        pieces.append(_element(0x82, final))
    return _element(SUBSTRINGS, _element(0x04, attribute) + _element(0x30, b"".join(pieces))), at


def _value(text: str, at: int) -> tuple[bytes, int]:
    """assertionvalue: its octets, and where it ends."""
    found = VALUE.match(text, at)
    end = found.end() if found else at
    if text[end : end + 1] == "\\":
        _refuse("'\\' without two hex digits", end)
    try:
        octets = text[at:end].encode()
    except UnicodeEncodeError as error:
        _refuse("lone surrogate", at + error.start)
    return ESCAPED.sub(lambda pair: bytes.fromhex(pair[1].decode()), octets), end


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


# -- BER to text -------------------------------------------------------------------------------------


PLAIN = re.compile(r"[A-Za-z0-9@._ ,=:/+-]*")
"""Values that nothing has to be done about, as most are."""
ODD = re.compile(r"[^A-Za-z0-9_.;-]")


def filter_text(filter: bytes, limit: int = 1_024) -> str:
    """RFC 4515 text of an encoded Filter, on one line and printable; values of password attributes are `...`.

    A text longer than `limit` characters is cut there and ends in an ellipsis. Raises DecodeError or LimitExceeded
    unless `filter` is one well-formed Filter.
    """
    check_filter(filter, WIDEST)
    out: list[str] = []
    size = 0
    # What is left of each open list; the outermost is the filter itself, and has no parentheses of its own.
    spans = [(0, len(filter))]
    while spans and size <= limit:
        at, end = spans.pop()
        if at == end:
            text = ")" if spans else ""
        else:
            tag, start, stop = _header(filter, at)
            spans.append((stop, end))
            if tag in (AND, OR, NOT):
                spans.append((start, stop))
                text = f"({SIGNS[tag]}"
            else:
                text = _item_text(filter, tag, start, stop, limit + 1)
        out.append(text)
        size += len(text)
    whole = "".join(out)
    return whole if len(whole) <= limit else whole[:limit] + "…"


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the element at `at`; the octets have been checked."""
    size = data[at + 1]
    start = at + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[at + 2 : start], "big")
    return data[at], start, start + size


def _elements(data: bytes, at: int, end: int) -> list[tuple[int, bytes]]:
    found = []
    while at < end:
        tag, start, at = _header(data, at)
        found.append((tag, data[start:at]))
    return found


def _item_text(data: bytes, tag: int, start: int, end: int, limit: int) -> str:
    if tag == PRESENT:
        return f"({_attribute_text(data[start:end], limit)}=*)"
    parts = _elements(data, start, end)
    if tag == EXTENSIBLE:
        by_tag = dict(reversed(parts))
        kind = by_tag.get(0x82, b"")
        dn = ":dn" if any(by_tag.get(0x84, b"")) else ""
        rule = f":{_attribute_text(by_tag[0x81], limit)}" if 0x81 in by_tag else ""
        return f"({_attribute_text(kind, limit)}{dn}{rule}:={_value_text(by_tag[0x83], limit, kind)})"
    kind = parts[0][1]
    if tag == SUBSTRINGS:
        return f"({_attribute_text(kind, limit)}={_substrings_text(parts[1][1], limit, kind)})"
    return f"({_attribute_text(kind, limit)}{SIGNS[tag]}{_value_text(parts[1][1], limit, kind)})"


def _substrings_text(data: bytes, limit: int, kind: bytes) -> str:
    pieces = _elements(data, 0, len(data))
    texts = [_value_text(value, limit, kind) for _, value in pieces[:limit]]
    before = "" if pieces[0][0] == 0x80 else "*"
    after = "" if pieces[-1][0] == 0x82 else "*"
    text = before + "*".join(texts) + after
    # A single initial or final piece has an asterisk on its other side only.
    if len(pieces) == 1 and pieces[0][0] == 0x82:
        text = "*" + texts[0]
    # An empty one looks like a presence test otherwise.
    return "**" if text == "*" else text


def _attribute_text(octets: bytes, limit: int) -> str:
    """An attribute description; octets that have no place in one are shown as escapes."""
    return ODD.sub(_escapes, octets[:limit].decode("utf-8", "surrogateescape"))


def _value_text(octets: bytes, limit: int, kind: bytes) -> str:
    if kind.split(b";", 1)[0].lower() in SECRETS:
        return "..."
    text = octets[:limit].decode("utf-8", "surrogateescape")
    if PLAIN.fullmatch(text):
        return text
    return "".join([c if c.isprintable() and c not in "()*\\" else _escape(c) for c in text])


def _escapes(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(character: str) -> str:
    """The octets of one character, or the octet that was none, as RFC 4515 escapes."""
    return "".join(f"\\{octet:02x}" for octet in character.encode("utf-8", "surrogateescape"))
