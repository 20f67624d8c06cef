"""Which provider a DN belongs to, and which user a bind name means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

from outpost.errors import ConfigError, DecodeError
from outpost.identity import LdapProvider
from outpost.ldap.dn import normalise, parse
from outpost.ldap.entries import Naming

_NAME_TYPES = {"cn": "cn", "commonname": "cn", "2.5.4.3": "cn", "uid": "uid", "userid": "uid"} | {
    "0.9.2342.19200300.100.1.1": "uid"
}


@dataclass(frozen=True, slots=True)
class BindName:
    """A bind name understood: log in `username` under `provider`."""

    provider: LdapProvider
    username: str


REMEMBERED = 4096
"""Names and base DNs whose meaning is remembered; it cannot change while the providers stay."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the tree a provider is."""

    provider: LdapProvider
    depth: int
    """RDNs of its base DN."""
    users: bytes
    """Normal DN of the container of its users."""
    rdn: str
    domain: str


@final
class Providers:
    """The LDAP providers served at one moment. `flaws` tells what an operator has to mend, a sentence each."""

    def __init__(self, providers: Iterable[LdapProvider]) -> None:
        flaws: list[str] = []
        self._by_base: dict[bytes, LdapProvider] = {}
        self._places: dict[int, _Place] = {}
        self._by_pk: dict[int, LdapProvider] = {}
        for provider in providers:
            try:
                naming = Naming(provider)
            except ConfigError as error:
                flaws.append(str(error))
                continue
            base = naming.normal
            other = self._by_base.get(base)
            if other is not None:
                flaws.append(
                    f"providers {other.name!r} and {provider.name!r} have the same base DN; only the first is served"
                )
                continue
            self._by_base[base] = provider
            self._by_pk[provider.pk] = provider
            self._places[provider.pk] = _Place(
                provider, naming.depth, normalise(naming.users), naming.rdn, naming.domain
            )
        self.flaws = tuple(flaws)
        required = [one.options.require_tls for one in self._by_pk.values()]
        self.any_requires_tls = any(required)
        self._all_require_tls = bool(required) and all(required)
        self._bases: dict[bytes, tuple[bytes, LdapProvider | None]] = {}
        self._names: dict[bytes, BindName] = {}

    def __iter__(self) -> Iterator[LdapProvider]:
        return iter(self._by_base.values())

    def current(self, provider: LdapProvider) -> LdapProvider | None:
        """The provider as it is now, or None if it is served no more."""
        return self._by_pk.get(provider.pk)

    def requires_tls(self, provider: LdapProvider | None) -> bool:
        """Whether somebody who bound under `provider`, or nobody (None), is to be told nothing without TLS."""
        return self._all_require_tls if provider is None else provider.options.require_tls

    def bases(self) -> list[bytes]:
        """The base DNs, as they are written in the configuration."""
        return [provider.base_dn.encode() for provider in self._by_base.values()]

    def sole(self) -> tuple[LdapProvider, bytes, bytes] | None:
        """The only provider, the normal form of its base and its users' RDN type, if every DN below that means a user.

        That is: the first RDN of this type, or `cn`, names him (see `bind_name`).
        """
        if len(self._places) != 1:
            return None
        (place,) = self._places.values()
        (base,) = self._by_base
        return None if place.provider.options.strict_bind_dn else (place.provider, base, place.rdn.encode())

    def of_dn(self, normal: bytes) -> LdapProvider | None:
        """The provider whose base is this normal DN or its nearest ancestor."""
        by_base = self._by_base
        at = 0
        while True:
            found = by_base.get(normal[at:])
            if found is not None:
                return found
            # The normal form has no comma but between RDNs.
            at = normal.find(b",", at) + 1
            if not at:
                return None

    def domain(self, provider: LdapProvider) -> str:
        """DNS domain of user principal names under a provider that is served, in lower case; empty for none."""
        place = self._places.get(provider.pk)
        return place.domain if place is not None else ""

    def of_base(self, dn: bytes) -> tuple[bytes, LdapProvider | None]:
        """The normal form of a DN as a client wrote it, and its provider. Raises DecodeError."""
        found = self._bases.get(dn)
        if found is None:
            normal = normalise(dn)
            found = (normal, self.of_dn(normal))
            if len(self._bases) >= REMEMBERED:
                self._bases.clear()
            self._bases[dn] = found
        return found

    def bind_name(self, name: bytes) -> BindName | None:
        """Who wants to bind; None when no provider knows such a name, or more than one does. Never raises."""
        found = self._names.get(name)
        if found is None:
            found = self._understood(name)
            if found is not None:
                if len(self._names) >= REMEMBERED:
                    self._names.clear()
                self._names[name] = found
        return found

    def _understood(self, name: bytes) -> BindName | None:
        try:
            normal = normalise(name)
            provider = self.of_dn(normal)
            if provider is not None:
                username = _username(name.decode(), normal, self._places[provider.pk])
                return BindName(provider, username) if username else None
        except (DecodeError, UnicodeDecodeError):
            pass
        return self._by_other_name(name)

    def _by_other_name(self, name: bytes) -> BindName | None:
        """`user@domain`, a mail address or a bare name, for the one provider that takes such names.

        What could be meant as a DN is none of these, whoever would take it.
        """
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        if not text or "=" in text or not text.isprintable() or text != text.strip():
            return None
        local, at, domain = text.rpartition("@")
        if at and not (local and domain):
            return None
        found: list[BindName] = []
        for place in self._places.values():
            accepted = place.provider.options.bind_names
            if at and "upn" in accepted and domain.lower() == place.domain:
                found.append(BindName(place.provider, local))
            elif "username" in accepted or (at and "mail" in accepted):
                found.append(BindName(place.provider, text))
        # A name that two providers would take means neither of them.
        return found[0] if len(found) == 1 else None


def _username(name: str, normal: bytes, place: _Place) -> str | None:
    """The name in the RDNs below the base; None where there is none, or none that is unambiguous."""
    above = parse(name)[: -place.depth]
    if place.provider.options.strict_bind_dn:
        if normal.partition(b",")[2] != place.users or len(above[0]) != 1:
            return None
        wanted = {place.rdn}
    else:
        wanted = {"cn", place.rdn}
    for rdn in above:
        values = {value for kind, value in rdn if _NAME_TYPES.get(kind.lower(), kind.lower()) in wanted}
        if values:
            (value, *more) = values
            # Nobody's name has control characters; NUL ends a string elsewhere.
            is_name = isinstance(value, str) and not more and not any(c < " " or c == "\x7f" for c in value)
            return str(value) if is_name else None
    return None
