"""Who is at the other end of a connection: address, protection, identity. Nothing here is a secret."""

from typing import Final, final

from outpost.identity import Identity, LdapProvider
from outpost.ldap.certificates import ClientCertificate
from outpost.ldap.operations.outcome import Page

__all__: Final = ("Session",)

@final
class Session:
    """Anonymous to begin with."""

    is_secure: bool
    certificate: ClientCertificate | None
    """The client's, once TLS has verified it."""
    bind_dn: bytes
    """As the client wrote it; empty while anonymous."""
    provider: LdapProvider | None
    identity: Identity | None
    is_changing_password: bool
    """Its own revocation is under way: the session gets anonymous, and hears how the change went."""

    def __init__(self, address: str, *, is_secure: bool) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def pages(self) -> dict[bytes, Page]:
        """By cookie, the one that was asked for last at the end."""
    @property
    def app(self) -> str:
        """Slug of the application, for metrics; empty while anonymous."""
    def forget(self) -> None:
        """The session is anonymous from now on (RFC 4511 4.2.1: also while a Bind is being processed)."""
    def drop_pages(self, now: float) -> None:
        """Let go of the listings, and of their snapshots, that nobody went on with in time."""
    def become(self, bind_dn: bytes, provider: LdapProvider, identity: Identity) -> None:
        """A Bind succeeded."""
