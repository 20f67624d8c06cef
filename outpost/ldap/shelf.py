"""Where operations find compiled directories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from outpost.identity import LdapProvider, Wanted
from outpost.ldap._shelf import Shelf


class Library(Protocol):
    """Where the directories come from."""

    @property
    def shelves(self) -> Mapping[int, Shelf]:
        """The last complete directory of each provider, by primary key; the same mapping as long as the library is."""
        ...

    def shelf(self, provider: LdapProvider) -> Shelf | None:
        """The last complete directory of a provider, or None before the first; never blocks."""
        ...

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Shelf:
        """A fresh directory of at least `wanted`. Raises BackendError."""
        ...
