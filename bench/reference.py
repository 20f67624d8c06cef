"""The yardstick of `make bench-check`: a fixed piece of work that has nothing of ours in it.

Whatever slows the machine down slows this down as well. Changing it changes every stored ratio: renew them then.
"""

from __future__ import annotations

import hashlib

ATTRIBUTES = (b"cn", b"mail", b"uidNumber", b"memberOf", b"objectClass")


def _element(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


MESSAGE = b"".join(
    _element(0x30, _element(0x04, name) + _element(0x31, _element(0x04, name * 3))) for name in ATTRIBUTES
)
BLOCK = bytes(range(256)) * 16


def work() -> tuple[int, bytes]:
    """Half a millisecond or so of what Python spends its time with: calls, slices, dictionaries, and a little C."""
    found: dict[bytes, int] = {}
    for _ in range(12):
        _walk(MESSAGE, found)
    digest = b""
    for at in range(8):
        digest = hashlib.md5(BLOCK[at:] + digest, usedforsecurity=False).digest()
    return sum(found.values()), digest


def _walk(data: bytes, found: dict[bytes, int]) -> None:
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        content = data[at + 2 : at + 2 + length]
        if tag & 0x20:
            _walk(content, found)
        else:
            found[content] = found.get(content, 0) + length
        at += 2 + length
