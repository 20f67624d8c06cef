"""Compiled directories as operations see them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol, final

from outpost.identity import Identity, LdapProvider, Wanted
from outpost.ldap._snapshot import Snapshot, View

VIEWS = 4096
"""Views of single users that are remembered per directory."""


@final
class Shelf:
    """One compiled directory and the views of it that were asked for."""

    __slots__ = ("_full", "_own", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._full = snapshot.full_view()
        self._own: OrderedDict[int, View | None] = OrderedDict()

    def view(self, identity: Identity) -> View | None:
        """What this identity may see; None if it may see only himself and is not in this directory."""
        if identity.can_search:
            return self._full
        own = self._own
        pk = identity.user_pk
        if pk in own:
            own.move_to_end(pk)
            return own[pk]
        view = own[pk] = self.snapshot.own_view(pk)
        if len(own) > VIEWS:
            own.popitem(last=False)
        return view


class Library(Protocol):
    """Where the directories come from."""

    def shelf(self, provider: LdapProvider) -> Shelf | None:
        """The last complete directory of a provider, or None before the first; never blocks."""
        ...

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Shelf:
        """A fresh directory of at least `wanted`. Raises BackendError."""
        ...
