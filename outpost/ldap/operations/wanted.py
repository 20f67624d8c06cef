"""How little must be fetched to answer one search freshly (search_mode direct)."""

from __future__ import annotations

from typing import Final

from outpost._fastber import SearchRequest
from outpost.errors import DecodeError
from outpost.identity import Identity, LdapProvider, Wanted
from outpost.ldap.controls import take
from outpost.ldap.dn import normalise, parse
from outpost.ldap.entries import Naming

EVERYTHING: Final = Wanted()

_USER_CLASSES: Final = frozenset(
    {b"user", b"person", b"organizationalperson", b"inetorgperson", b"posixaccount", b"goauthentik.io/ldap/user"}
)
_USERNAMES: Final = frozenset({b"cn", b"samaccountname"})


def of_search(request: SearchRequest, identity: Identity, provider: LdapProvider) -> Wanted:
    """What a search needs at least. Only what can be no other entry narrows it: a user's own DN, or a user class
    together with a name or mail address that no administrator gives to somebody else's entry."""
    if not identity.can_search:
        return Wanted(user_pk=identity.user_pk)
    return _of_dn(request.base_object, provider) or _of_filter(request.filter) or EVERYTHING


def of_entry(dn: bytes, identity: Identity, provider: LdapProvider) -> Wanted:
    """What is needed at least to see one entry."""
    if not identity.can_search:
        return Wanted(user_pk=identity.user_pk)
    return _of_dn(dn, provider) or EVERYTHING


def _of_dn(dn: bytes, provider: LdapProvider) -> Wanted | None:
    try:
        rdns = parse(dn.decode())
        normal = normalise(dn)
        parent = normal.partition(b",")[2]
        naming = Naming(provider)
        if not rdns or len(rdns[0]) != 1 or parent not in {normalise(naming.users), normalise(naming.virtual_groups)}:
            return None
    except (DecodeError, UnicodeDecodeError):
        return None
    value = rdns[0][0][1]
    return Wanted(username=value, groups=False) if isinstance(value, str) and value else None


def _of_filter(octets: bytes) -> Wanted | None:
    """The narrowest look-up of a top-level AND of equalities."""
    tag, content, _ = take(octets)
    if tag != 0xA0:
        return None
    equalities: dict[bytes, bytes] = {}
    classes: set[bytes] = set()
    while content:
        tag, item, content = take(content)
        if tag != 0xA3:
            continue
        _, name, rest = take(item)
        _, value, _ = take(rest)
        if name.lower() == b"objectclass":
            classes.add(value.lower())
        else:
            equalities[name.lower()] = value
    if not classes & _USER_CLASSES:
        return None
    for name, value in equalities.items():
        try:
            text = value.decode()
        except UnicodeDecodeError:
            continue
        if name in _USERNAMES and text.strip():
            return Wanted(username=text, groups=False)
    return None
