"""Passwords as argon2id PHC strings (RFC 9106): made, read and checked.

The string carries its own cost, so whoever writes one decides what a login costs: the bounds here keep one
entry of a directory file from taking the machine.
"""

from __future__ import annotations

import base64
import functools
import re
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from outpost.identity import Secret

MEMORY_KIB: Final = 19456
ITERATIONS: Final = 2
LANES: Final = 1
"""The cost of strings made here: the first choice of the OWASP password storage recommendations."""

MAX_MEMORY_KIB: Final = 4 * 1024 * 1024
MAX_ITERATIONS: Final = 1000
MAX_LANES: Final = 64
SALT_OCTETS: Final = range(8, 65)
"""RFC 9106 3.1 asks for at least 8."""
TAG_OCTETS: Final = range(16, 65)
"""Shorter tags would make a lucky guess thinkable."""

# Unpadded base64 (RFC 4648 4), the unused low bits of the last character zero: else one hash had several spellings.
_BASE64: Final = r"((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048])?)"
_SHAPE: Final = re.compile(
    rf"\$argon2id\$v=([0-9]{{1,9}}\$m=[0-9]{{1,9}},t=[0-9]{{1,9}},p=[0-9]{{1,9}})\${_BASE64}\${_BASE64}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one verification takes, and the octets that go in and come out."""

    memory_kib: int
    iterations: int
    lanes: int
    salt_octets: int
    tag_octets: int


def parse(phc: str) -> Cost:
    """The cost of an argon2id PHC string.

    Raises ValueError, with one sentence that quotes no part of it, for anything that could not be verified.
    """
    match = _SHAPE.fullmatch(phc)
    if match is None:
        raise ValueError("is no argon2id string: expected $argon2id$v=19$m=...,t=...,p=...$salt$hash")
    asked, salt, tag = match.groups()
    return _cost(asked, len(salt) * 3 // 4, len(tag) * 3 // 4)


@functools.lru_cache(maxsize=64)
def _cost(asked: str, salt_octets: int, tag_octets: int) -> Cost:
    """What `parse` returns; a directory has thousands of strings and one cost."""
    version, memory_kib, iterations, lanes = (int(number) for number in re.findall(r"[0-9]+", asked))
    if version != 19:
        raise ValueError("is an argon2id string of another version than 19")
    if not 1 <= lanes <= MAX_LANES:
        raise ValueError(f"asks for {lanes} lanes (p), expected 1 to {MAX_LANES}")
    if not 1 <= iterations <= MAX_ITERATIONS:
        raise ValueError(f"asks for {iterations} passes (t), expected 1 to {MAX_ITERATIONS}")
    if not 8 * lanes <= memory_kib <= MAX_MEMORY_KIB:
        raise ValueError(f"asks for {memory_kib} KiB (m), expected {8 * lanes} to {MAX_MEMORY_KIB}")
    if salt_octets not in SALT_OCTETS:
        raise ValueError(f"has a salt of {salt_octets} octets, expected {SALT_OCTETS[0]} to {SALT_OCTETS[-1]}")
    if tag_octets not in TAG_OCTETS:
        raise ValueError(f"has a hash of {tag_octets} octets, expected {TAG_OCTETS[0]} to {TAG_OCTETS[-1]}")
    return Cost(memory_kib, iterations, lanes, salt_octets, tag_octets)


def verify(phc: str, secret: Secret) -> bool:
    """Whether `secret` is the password of `phc`, at the cost `phc` asks for. Raises ValueError like `parse`."""
    parse(phc)
    try:
        Argon2id.verify_phc_encoded(secret.reveal(), phc)
    except InvalidKey:
        return False
    return True


def hash_password(secret: Secret, like: str | None = None) -> str:
    """A PHC string for `secret` with a fresh salt, at the cost of `like` where that is the higher one.

    Raises ValueError for an empty secret, and like `parse`.
    """
    if not secret:
        raise ValueError("an empty password is no password")
    memory_kib, iterations, lanes = MEMORY_KIB, ITERATIONS, LANES
    if like is not None:
        cost = parse(like)
        if cost.memory_kib >= memory_kib and cost.iterations >= iterations:
            memory_kib, iterations, lanes = cost.memory_kib, cost.iterations, cost.lanes
    kdf = Argon2id(salt=secrets.token_bytes(16), length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive_phc_encoded(secret.reveal())


def dummy(like: str | None = None) -> str:
    """A PHC string that no password matches, which takes as long to refuse as `like` or as one made here."""
    cost = Cost(MEMORY_KIB, ITERATIONS, LANES, 16, 32) if like is None else parse(like)
    salt, tag = (_encode(secrets.token_bytes(octets)) for octets in (cost.salt_octets, cost.tag_octets))
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.iterations},p={cost.lanes}${salt}${tag}"


def _encode(octets: bytes) -> str:
    return base64.b64encode(octets).rstrip(b"=").decode("ascii")
