"""Security identifiers and DNS domains, derived so that they are the same tomorrow and on every replica.

A SID is the domain's, then a number (RID): 2n + 1000 for the user with uidNumber n, 2n + 1001 for the group with
gidNumber n, as Samba's algorithmic mapping has it.  So no user's is ever a group's, and none is a well-known one.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from typing import Final

from outpost.ldap.dn import RDN

RID_BASE: Final = 1000
"""Where the numbers that a domain gives away begin; those below are well-known."""
DC: Final = frozenset({"dc", "domaincomponent", "0.9.2342.19200300.100.1.25"})
_MAX_RID: Final = 2**32 - 1
_UNSAFE_IN_NETBIOS: Final = re.compile(r"[^A-Z0-9-]")


def domain_sid(normal_base: bytes) -> str:
    """The SID of the domain whose base has this normal DN."""
    digest = hashlib.sha256(b"outpost domain " + normal_base).digest()
    numbers = (int.from_bytes(digest[at : at + 4], "little") for at in (0, 4, 8))
    return "S-1-5-21-" + "-".join(map(str, numbers))


def user_rid(uid_number: int) -> int | None:
    """The RID of a user; None for a uidNumber that has none."""
    return _rid(2 * uid_number + RID_BASE)


def group_rid(gid_number: int) -> int | None:
    """The RID of a group; None for a gidNumber that has none."""
    return _rid(2 * gid_number + RID_BASE + 1)


def _rid(rid: int) -> int | None:
    return rid if RID_BASE <= rid <= _MAX_RID else None


def packed(sid: str) -> bytes:
    """The binary form of objectSid ([MS-DTYP] 2.4.2.2): revision, count, authority, then each number little-endian."""
    revision, authority, *numbers = (int(part) for part in sid.split("-")[1:])
    octets = bytes((revision, len(numbers))) + authority.to_bytes(6, "big")
    return octets + b"".join(number.to_bytes(4, "little") for number in numbers)


def guid(text: str) -> bytes | None:
    """The 16 octets of objectGUID ([MS-DTYP] 2.3.4): the first three fields little-endian. None for what is no UUID."""
    try:
        return uuid.UUID(text).bytes_le
    except ValueError:
        return None


def dns_domain(base: Iterable[RDN]) -> str:
    """The DNS domain that the `dc` components of a base DN spell (RFC 2247), in lower case; empty without any."""
    labels = [value for rdn in base for name, value in rdn if name.lower() in DC and isinstance(value, str)]
    return ".".join(labels).lower()


def netbios_name(name: str) -> str:
    """`name` as the name of a Windows domain: at most 15 capital letters, digits and hyphens."""
    return _UNSAFE_IN_NETBIOS.sub("-", name.upper())[:15].strip("-") or "DOMAIN"
