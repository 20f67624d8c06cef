"""The compiled directory: one immutable, position-independent arena, searched in C."""

from typing import Final, final

from outpost._fastber import SearchRequest

__all__: Final = ("Search", "Snapshot", "View")

@final
class View:
    """What one identity may see of one snapshot."""

@final
class Snapshot:
    """A checked arena. Raises DecodeError if the checksum, the version or any offset is wrong."""

    def __init__(self, arena: bytes | bytearray | memoryview) -> None: ...
    @property
    def arena(self) -> memoryview: ...
    @property
    def generation(self) -> int: ...
    @property
    def base_dn(self) -> bytes: ...
    @property
    def entry_count(self) -> int: ...
    @property
    def custom_attributes(self) -> frozenset[str]:
        """Attributes that no schema knows, for the subschema."""
    def full_view(self) -> View:
        """Everything."""
    def own_view(self, user_pk: int) -> View | None:
        """The user himself, his virtual group and his groups reduced to him; None if he is not in the snapshot."""
    def search(
        self,
        request: SearchRequest,
        view: View,
        size_limit: int = 0,
        attributes: tuple[bytes, ...] | None = None,
        whole: bool = False,
    ) -> Search:
        """Plan a search under `view`. size_limit: the server's own, 0 for none; the smaller one counts.

        attributes: instead of those in the request, and with values whatever it says;
        whole: the request's sizeLimit does not count."""
    def matches(self, view: View, dn: bytes, filter: bytes) -> bool | None:
        """Whether the filter is TRUE for the entry; None if the view holds no such entry.

        Raises DecodeError if `dn` is no DN."""
    def matched_dn(self, view: View, dn: bytes) -> bytes:
        """matchedDN of a noSuchObject (RFC 4511 4.1.9): the lowest entry of the view above `dn`, as it is sent.

        Raises DecodeError if `dn` is no DN."""
    def compare(self, view: View, dn: bytes, attribute: bytes, assertion_value: bytes) -> int:
        """resultCode of a Compare: 6, 5, 16 noSuchAttribute, 17 undefinedAttributeType,
        21 invalidAttributeSyntax, 32 noSuchObject."""
    def user_pk(self, dn: bytes) -> int:
        """Primary key of the user entry with this DN, compared normalised, or -1."""
    def dn_of_user(self, user_pk: int) -> bytes | None:
        """The user entry's DN as it is sent."""

@final
class Search:
    """One running search; holds its snapshot alive."""

    def read(self, size: int, examined: int = 0, entries: int = 0) -> bytes:
        """Further SearchResultEntry messages, about `size` octets at most, after testing at most `examined`
        candidates and returning at most `entries` (0: no bound). May be empty while `finished` is still False."""
    def continue_as(self, message_id: int) -> None:
        """Entries read from now on answer the request with this messageID."""
    @property
    def finished(self) -> bool: ...
    @property
    def sent(self) -> int:
        """Entries returned so far."""
    @property
    def result_code(self) -> int:
        """0, 4 sizeLimitExceeded, 32 noSuchObject; final once `finished`."""
    @property
    def matched_dn(self) -> bytes: ...
