"""Requests by chance, and what is left of them after accidents, for tests of the LDAP codec."""

import contextlib
import random
from collections.abc import Iterator

from outpost.errors import DecodeError
from tests import oracle_ber as oracle

NAMES = (b"cn", b"uid", b"objectClass", b"memberOf", b"userPassword", b"1.2.840.113556.1.4.221", b"cn;lang-de", b"")
NUMBERS = (0, 1, 2, 3, 100, 127, 128, 255, 256, 32767, 32768, 2**23, 2**31 - 1)
TAGS = (0, 1, 2, 4, 5, 0x0A, 0x1F, 0x24, 0x30, 0x31, 0x42, 0x50, 0x60, 0x63, 0x77, 0x7F, *range(0x80, 0x8A))
TAGS += (*range(0xA0, 0xAA), 0xC0, 0xFF)


def elements(data: bytes, at: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Start, start of the content, and end of every element, the nested ones too."""
    end = len(data) if end is None else end
    while at < end:
        start, size = oracle.header(data, at + 1)
        if not start or start + size > end:
            raise DecodeError("no element")
        yield at, start, start + size
        if data[at] & 0x20:
            # What is opaque to LDAP need not be BER inside.
            with contextlib.suppress(DecodeError):
                yield from elements(data, start, start + size)
        at = start + size


def replaced(data: bytes, one: tuple[int, int, int], instead: bytes) -> bytes:
    """`data` with other octets in place of one of its elements, and the lengths around it put right."""
    at, _, stop = one
    outer = [found for found in elements(data) if found[0] < at and stop <= found[2]]
    changed = data[:at] + instead + data[stop:]
    grown = len(changed) - len(data)
    for begin, start, end in reversed(outer):
        again = oracle.tlv(data[begin], changed[start : end + grown])
        changed = changed[:begin] + again + changed[end + grown :]
        grown = len(changed) - len(data)
    return changed


def octets(chance: random.Random, most: int = 24) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 3, chance.randrange(most))))


def filter(chance: random.Random, depth: int = 0) -> bytes:
    kind = chance.randrange(8 if depth > 4 else 11)
    name = chance.choice(NAMES)
    if kind < 3:
        return oracle.present(name)
    if kind < 5:
        return oracle.assertion(chance.choice((0xA3, 0xA5, 0xA6, 0xA8)), name, octets(chance))
    if kind < 7:
        inner = [octets(chance) for _ in range(chance.choice((0, 1, 2)))]
        ends = [octets(chance) if chance.random() < 0.6 else None for _ in "if"]
        return oracle.substrings(name, ends[0], inner or [b"x"], ends[1])
    if kind < 8:
        rule = b"2.5.13.5" if chance.random() < 0.5 else None
        return oracle.extensible(rule, None if rule else name, octets(chance), chance.choice((None, True, False)))
    if kind < 9:
        return oracle.tlv(oracle.NOT, filter(chance, depth + 1))
    some = [filter(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 3, 5)))]
    return oracle.tlv(chance.choice((oracle.AND, oracle.OR)), b"".join(some))


def operation(chance: random.Random) -> bytes:
    kind = chance.randrange(12)
    name = b"cn=alice,ou=users,dc=example" if chance.random() < 0.5 else octets(chance)
    if kind < 2:
        return oracle.bind(name, octets(chance), chance.choice((2, 3, 3, 127)))
    if kind < 3:
        return oracle.sasl_bind(
            name, chance.choice((b"PLAIN", b"EXTERNAL", b"")), chance.choice((None, octets(chance)))
        )
    if kind < 8:
        attributes = [chance.choice(NAMES) for _ in range(chance.choice((0, 1, 2, 7)))]
        limits = chance.choice(NUMBERS), chance.choice(NUMBERS), chance.random() < 0.5
        return oracle.search(name, filter(chance), attributes, chance.randrange(3), chance.randrange(4), *limits)
    if kind < 9:
        return oracle.compare(name, chance.choice(NAMES), octets(chance))
    if kind < 10:
        return oracle.extended(b"1.3.6.1.4.1.1466.20037", chance.choice((None, octets(chance))))
    if kind < 11:
        return chance.choice((oracle.unbind(), oracle.abandon(chance.choice(NUMBERS))))
    return oracle.tlv(chance.choice((0x66, 0x68, 0x4A, 0x6C, 0x5E, 0x61)), octets(chance))


def request(chance: random.Random) -> bytes:
    """A well-formed message; its limits are all below the default ones."""
    controls = [
        (
            chance.choice((b"1.2.840.113556.1.4.319", b"1.2")),
            chance.random() < 0.5,
            chance.choice((None, octets(chance))),
        )
        for _ in range(chance.choice((0, 0, 0, 1, 2, 4)))
    ]
    return oracle.message(chance.choice(NUMBERS[1:]), operation(chance), controls)


def accident(chance: random.Random, data: bytes) -> bytes:
    """`data` with one thing changed."""
    kind = chance.randrange(10)
    if kind == 0:
        return data[: chance.randrange(len(data) + 1)]
    if kind == 1:
        return data + chance.randbytes(chance.randrange(1, 4))
    if kind < 5:
        changed = bytearray(data or b"\0")
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed))
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << chance.randrange(8)))
        return bytes(changed)
    data = data or b"\x30\0"
    with contextlib.suppress(DecodeError):
        whole = list(elements(data))
        at, start, end = one = chance.choice(whole)
        body = data[start:end]
        if kind == 5:
            return replaced(data, one, chance.choice((b"", data[at:end] * 2)))
        if kind == 6:
            stranger = oracle.tlv(chance.choice(TAGS), octets(chance))
            return replaced(data, one, chance.choice((data[at:end] + stranger, stranger + data[at:end], stranger)))
        if kind == 7:
            return replaced(data, one, oracle.tlv(chance.choice(TAGS), body))
        if kind == 8:
            other = chance.choice(whole)
            return replaced(data, one, data[other[0] : other[2]])
        indefinite = data[at : at + 1] + b"\x80" + body + b"\0\0"
        longer = oracle.tlv(data[at], body, chance.randrange(1, 4))
        shorter = oracle.tlv(data[at], body[chance.randrange(len(body) + 1) :])
        return replaced(data, one, chance.choice((indefinite, longer, longer, shorter, oracle.tlv(data[at], b""))))
    return data[::-1]


def mutation(chance: random.Random) -> bytes:
    """Octets that were a request, mostly."""
    if chance.random() < 0.03:
        return chance.choice((b"", b"\x30")) + chance.randbytes(chance.randrange(40))
    data = request(chance)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        data = accident(chance, data)
    return data
