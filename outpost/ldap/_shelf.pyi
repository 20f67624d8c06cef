"""One compiled directory and the views of it that were asked for."""

from typing import Final, final

from outpost.identity import Identity
from outpost.ldap._snapshot import Snapshot, View

__all__: Final = ("VIEWS", "Shelf")

VIEWS: int
"""Views of single users that are remembered per directory."""

@final
class Shelf:
    def __init__(self, snapshot: Snapshot) -> None: ...
    @property
    def snapshot(self) -> Snapshot: ...
    def view(self, identity: Identity) -> View | None:
        """What this identity may see; None if it may see only himself and is not in this directory."""
