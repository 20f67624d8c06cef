"""Loads and searches arenas whose offsets lie, between two pages that nobody may read: `wrong_arenas.py SEED COUNT`.

To be run in a process of its own: one octet read outside the arena ends it. Prints how many arenas were refused when
loaded, how many when searched, and how many were searched to the end.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import random
import struct
import sys

from outpost._fastber import Limits, SearchRequest, decode_message
from outpost.errors import DecodeError
from outpost.ldap._snapshot import Snapshot
from outpost.ldap.arena import compile_people
from outpost.ldap.filter import parse_filter
from tests.ldap.encode import search, tlv
from tests.ldap.generate import people

PAGE = mmap.PAGESIZE
LIMITS = Limits()
FILTERS = [
    parse_filter(text)
    for text in (
        "(objectClass=*)", "(cn=alice)", "(|(cn=a*)(cn=*b)(mail=*example*))", "(uidNumber>=2001)", "(memberOf=*)",
        "(shadowMax:1.2.840.113556.1.4.803:=1)", "(cn:caseExactMatch:=z)", "(ou:dn:=users)",
        "(:caseIgnoreMatch:=red)",
        "(loginShell:caseIgnoreMatch:=red)", "(|(objectClass=user)(objectClass=group))",
        "(ou:dn:caseExactMatch:=users)",
    )
]  # fmt: skip


class Guarded:
    """Memory for one arena at a time that ends, or begins, at a page that must not be read."""

    def __init__(self, room: int) -> None:
        self.pages = -(-room // PAGE)
        self.memory = mmap.mmap(-1, (self.pages + 2) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for at in (address, address + (self.pages + 1) * PAGE):
            if protect(at, PAGE, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    def hold(self, octets: bytes, *, at_end: bool) -> memoryview:
        start = (self.pages + 1) * PAGE - len(octets) if at_end else PAGE
        self.memory[start : start + len(octets)] = octets
        return memoryview(self.memory)[start : start + len(octets)]


def signed(arena: bytes | bytearray) -> bytes:
    """The same under a checksum that is right."""
    return bytes(arena[:8]) + hashlib.blake2b(arena[24:], digest_size=16).digest() + bytes(arena[24:])


def damage(chance: random.Random, arena: bytes) -> bytes:
    """A few words or a length changed, under a checksum that is right."""
    wrong = bytearray(arena)
    if chance.random() < 0.3:
        # A value's element lies 5 octets into its node, its length behind the tag.
        nodes, end = struct.unpack_from("<II", arena, 48)
        at = chance.choice([n + 6 for n in range(nodes, end - 16, 4) if arena[n + 5] == 0x04])
        octets = chance.choice((b"\x7f", b"\xff", b"\x80", b"\x82\x10\0", b"\x83\1\0\0", b"\x84\x7f\xff\xff\xff"))
        wrong[at : at + len(octets)] = octets
        return signed(wrong)
    words = len(arena) // 4
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        # The header is small and everything hangs on it.
        at = 4 * (chance.randrange(6, 42) if chance.random() < 0.2 else chance.randrange(6, words))
        (old,) = struct.unpack_from("<I", wrong, at)
        one = chance.random()
        if one < 0.3:
            (new,) = struct.unpack_from("<I", wrong, 4 * chance.randrange(words))
        elif one < 0.6:
            new = old + chance.choice((-8, -4, -1, 1, 4, 8, 12, 64))
        elif one < 0.8:
            size = len(arena)
            new = chance.choice(
                (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFC, size, size - 4, size - 8, size - 12, size + 4)
            )
        else:
            new = old ^ (1 << chance.randrange(32))
        struct.pack_into("<I", wrong, at, new & 0xFFFFFFFF)
    return signed(wrong)


def ask(chance: random.Random, arena: memoryview, base: bytes, dns: list[bytes], pks: list[int]) -> None:
    """Everything that a snapshot can be asked. Raises DecodeError."""
    snapshot = Snapshot(arena)
    views = [snapshot.full_view(), *(v for pk in pks if (v := snapshot.own_view(pk)) is not None)]
    chains = [
        tlv(0xA9, tlv(0x81, b"1.2.840.113556.1.4.1941"), tlv(0x82, name), tlv(0x83, chance.choice(dns)))
        for name in (b"member", b"memberOf", b"manager")
    ]
    for view in views:
        for text in (*FILTERS, *chains):
            found = decode_message(
                search(1, chance.choice((base, *dns)), text, chance.choice(([], [b"*", b"+"], [b"1.1"], [b"memberOf"])),
                       scope=chance.randrange(3), types_only=chance.random() < 0.2), LIMITS
            )  # fmt: skip
            assert isinstance(found, SearchRequest)
            running = snapshot.search(found, view)
            for _ in range(100):
                if running.finished:
                    break
                running.read(1 << 16, 1000)
        for dn in dns:
            snapshot.compare(view, dn, chance.choice((b"cn", b"member", b"uidNumber", b"objectClass")), b"5")
    for dn in dns:
        snapshot.dn_of_user(snapshot.user_pk(dn))
    assert len(snapshot.base_dn) + snapshot.entry_count + snapshot.generation
    assert isinstance(snapshot.custom_attributes, frozenset)


def main(seed: int, count: int) -> None:
    chance = random.Random(seed)
    population, provider = people(chance, users=5, groups=3)
    arena = compile_people(population, provider)
    guarded = Guarded(len(arena) + PAGE)
    snapshot = Snapshot(arena)
    pks = [user.pk for user in population.users]
    dns = [dn for pk in pks if (dn := snapshot.dn_of_user(pk)) is not None]
    ask(chance, guarded.hold(arena, at_end=True), snapshot.base_dn, dns, pks)
    refused = late = harmless = 0
    for _ in range(count):
        held = guarded.hold(damage(chance, arena), at_end=chance.random() < 0.8)
        try:
            Snapshot(held)
        except DecodeError:
            refused += 1
            continue
        try:
            ask(chance, held, snapshot.base_dn, dns, pks)
            harmless += 1
        except DecodeError:
            late += 1
    print(refused, late, harmless)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
