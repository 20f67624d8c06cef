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


@final
class Providers:
    """The LDAP providers served at one moment. `flaws` tells what an operator has to mend, a sentence each."""

    def __init__(self, providers: Iterable[LdapProvider]) -> None:
        flaws: list[str] = []
        self._by_base: dict[bytes, LdapProvider] = {}
        self._by_pk: dict[int, LdapProvider] = {}
        for provider in providers:
            try:
                base = Naming(provider).normal
            except ConfigError as error:
                flaws.append(str(error))
                continue
            other = self._by_base.get(base)
            if other is not None:
                flaws.append(
                    f"providers {other.name!r} and {provider.name!r} have the same base DN; only the first is served"
                )
                continue
            self._by_base[base] = provider
            self._by_pk[provider.pk] = provider
        self.flaws = tuple(flaws)
        self._bases: dict[bytes, tuple[bytes, LdapProvider | None]] = {}
        self._names: dict[bytes, BindName] = {}

    def __iter__(self) -> Iterator[LdapProvider]:
        return iter(self._by_base.values())

    def current(self, provider: LdapProvider) -> LdapProvider | None:
        """The provider as it is now, or None if it is served no more."""
        return self._by_pk.get(provider.pk)

    def bases(self) -> list[bytes]:
        """The base DNs, as they are written in the configuration."""
        return [provider.base_dn.encode() for provider in self._by_base.values()]

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
        """Who wants to bind; None when no provider knows such a name. Never raises."""
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
                username = _username(name, normal, provider)
                return BindName(provider, username) if username else None
        except DecodeError:
            pass
        return self._by_other_name(name)

    def _by_other_name(self, name: bytes) -> BindName | None:
        """`user@domain`, a mail address or a bare name, for the one provider that takes such names."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        if not text or "=" in text or not text.isprintable():
            return None
        local, at, domain = text.rpartition("@")
        forms = {"mail", "upn"} if at and local and domain else {"username"}
        found: list[BindName] = []
        for provider in self._by_base.values():
            accepted = forms.intersection(provider.options.bind_names)
            if "mail" in accepted or "username" in accepted:
                found.append(BindName(provider, text))
            elif "upn" in accepted:
                found.append(BindName(provider, local))
        # A name that two providers would take means neither of them.
        return found[0] if len(found) == 1 else None


def _username(name: bytes, normal: bytes, provider: LdapProvider) -> str | None:
    naming = Naming(provider)
    wanted = {"cn"} if naming.rdn == "cn" else {"cn", naming.rdn}
    if provider.options.strict_bind_dn:
        wanted = {naming.rdn}
        if normal.partition(b",")[2] != normalise(naming.users):
            return None
    for rdn in parse(name.decode()):
        for kind, value in rdn:
            if _NAME_TYPES.get(kind.lower(), kind.lower()) in wanted and isinstance(value, str):
                return value
        if provider.options.strict_bind_dn:
            return None
    return None
