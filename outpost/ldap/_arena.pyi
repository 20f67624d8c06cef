"""Writes the compiled directory: entries in, one position-independent arena out."""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, final, overload

__all__: Final = ("BASE", "CONTAINER", "GROUP", "USER", "VIRTUAL_GROUP", "Builder", "Links", "memberships")

BASE: Final[int]
CONTAINER: Final[int]
USER: Final[int]
GROUP: Final[int]
VIRTUAL_GROUP: Final[int]

@final
class Links(Sequence[bytes]):
    """Values that name users and groups: indices of entries for the builder, names for everybody else."""

    entries: bytes
    names: Sequence[bytes]
    logins: bool
    def __init__(self, entries: bytes, names: Sequence[bytes], logins: bool = False, count: int | None = None) -> None:
        """entries: ascending uint32s, users and groups only; names: by index of the entry; logins: they are login
        names, those of the users among `entries`, who come first and are `count`. Raises ValueError for a larger one.
        """
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, i: int, /) -> bytes: ...
    @overload
    def __getitem__(self, i: slice, /) -> Sequence[bytes]: ...

def memberships(
    groups_of: Iterable[Iterable[str]],
    reach: dict[str, Sequence[int]],
    first_user: int,
    first_group: int,
    group_count: int,
) -> tuple[list[bytes], list[bytes]]:
    """By user the entries of his groups, by group those of its users, as `Links` takes them.

    groups_of: of each user, what names his groups, known or not; reach: the entries that a name stands for.
    Users and groups each come one behind the other from the first one on. Raises ValueError for an entry that is none
    of the groups.
    """

@final
class Builder:
    """Collects entries in preorder; `finish` makes the arena, once."""

    def __init__(
        self,
        attributes: Iterable[tuple[bytes, int, int, Sequence[bytes]]],
        custom_from: int,
        normalise: Callable[[int, bytes], bytes | None],
        common: Container[int] = (),
    ) -> None:
        """attributes: (description, kind, flags, all names in lower case and OIDs); custom_from: index of the first
        custom one; normalise: outpost.ldap.schema.normal_form; common: attributes whose values many entries share."""
    def add(
        self,
        dn: bytes,
        parent: int,
        kind: int,
        user_pk: int,
        names: tuple[int | str, ...],
        values: list[bytes | Sequence[bytes]],
        normal: bytes | None = None,
        login: bytes | None = None,
        holders: Links | None = None,
    ) -> int:
        """Append an entry below entry `parent` (-1 for the base) and return its index.

        names: attributes by index or name; values: of each, one value or all values, which stay as they are; what is
        empty is left out. It is faster where entries share the tuple, and the objects of values. user_pk: -1 for none.
        normal: of `dn`, where it is known; login: of a user; holders: of a group, whose memberOf names it.
        Users come one behind the other, and so do their virtual groups, in the same order.
        Raises ValueError when a DN is taken, or is no DN, or the entry is out of order.
        """
    def finish(self, generation: int) -> bytes:
        """The arena. Raises ValueError beyond 4 GiB."""
