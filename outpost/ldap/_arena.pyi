"""Writes the compiled directory: entries in, one position-independent arena out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

__all__: Final = ("BASE", "CONTAINER", "GROUP", "USER", "VIRTUAL_GROUP", "Builder")

BASE: Final[int]
CONTAINER: Final[int]
USER: Final[int]
GROUP: Final[int]
VIRTUAL_GROUP: Final[int]

@final
class Builder:
    """Collects entries in preorder; `finish` makes the arena, once."""

    def __init__(
        self,
        attributes: Iterable[tuple[bytes, int, int, Sequence[bytes]]],
        custom_from: int,
        normalise: Callable[[int, bytes], bytes | None],
    ) -> None:
        """attributes: (description, kind, flags, all names in lower case and OIDs); custom_from: index of the first
        custom one; normalise: outpost.ldap.schema.normal_form."""
    def teach(self, dn: bytes, normal: bytes) -> None:
        """`normal` is the normal form of `dn`, which is not computed again."""
    def add(
        self, dn: bytes, parent: int, kind: int, user_pk: int, items: Iterable[tuple[int, bytes | Sequence[bytes]]]
    ) -> int:
        """Append an entry below entry `parent` (-1 for the base) and return its index.

        items: (attribute index, one value or all values); an empty sequence is left out. user_pk: -1 for none.
        Raises ValueError when a DN is taken, or is no DN, or the entry is out of order.
        """
    def finish(self, generation: int) -> bytes:
        """The arena. Raises ValueError beyond 4 GiB."""
