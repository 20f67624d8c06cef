"""Lines about LDAP requests, rendered from the octets of the request."""

from collections.abc import Callable
from typing import Final, final

from outpost._fastber import SearchRequest
from outpost.observe._lines import Lines

__all__: Final = ("LdapLines",)

@final
class LdapLines:
    """Tells of requests; numbers them.

    took: seconds.  apart: called with the number of the request and the arguments of `search`, or of `operation`, for
    the few whose line needs more than ASCII or has a filter that is not plain.
    """

    def __new__(
        cls,
        lines: Lines,
        search_apart: Callable[[int, float, str, bytes, SearchRequest, float, int, str, int], object],
        other_apart: Callable[[int, float, str, str, bytes, float, int, str], object],
    ) -> LdapLines: ...
    @property
    def lines(self) -> Lines: ...
    def number(self) -> int:
        """The number of a request that is told of elsewhere."""
    def bind(self, at: float, client: str, bind_dn: bytes, took: float, code: int, reason: str) -> None:
        """A Bind was answered at `at`, seconds since the epoch."""
    def search(
        self,
        at: float,
        client: str,
        bind_dn: bytes,
        request: SearchRequest,
        took: float,
        code: int,
        reason: str,
        entries: int,
    ) -> None:
        """A search was answered."""
    def operation(self, at: float, kind: str, client: str, bind_dn: bytes, took: float, code: int) -> None:
        """Another operation was answered."""
