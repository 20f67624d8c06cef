"""SASL EXTERNAL (RFC 4422 appendix A, RFC 4513 5.2.3): from a client's certificate to the user it claims to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

from outpost.identity import Decision, Identity, LdapProvider, Source
from outpost.ldap.certificates import ClientCertificate
from outpost.ldap.providers import Providers


class Voucher(Protocol):
    """The part of the credentials gate that EXTERNAL needs."""

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about somebody who proved otherwise who he is."""
        ...


class NoClaimError(ValueError):
    """The certificate logs in nobody like that; the text is for an administrator."""


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """Whom to ask for, and who may come of it."""

    provider: LdapProvider
    username: str
    is_username: bool
    """`username` is the user's own; otherwise a mail address."""
    acting_as: str | None
    """The user name that the client asked for, None when it left that to the certificate."""

    def fits(self, identity: Identity) -> bool:
        """Whether this identity is the one that was claimed, and no other that goes by such a name."""
        found = identity.username.casefold()
        if self.is_username and found != self.username.casefold():
            return False
        return self.acting_as is None or found == self.acting_as.casefold()


def claim(certificate: ClientCertificate, authorization: bytes, providers: Providers) -> Claim:
    """What a client with this certificate claims. authorization: authzId (RFC 4513 5.2.1.8), empty for none.

    Raises NoClaimError.
    """
    if certificate.flaw or not certificate.name:
        raise NoClaimError(certificate.flaw)
    provider: LdapProvider | None = None
    acting_as: str | None = None
    if authorization.startswith(b"dn:"):
        found = providers.bind_name(authorization.removeprefix(b"dn:"))
        if found is None:
            raise NoClaimError("the client asked to act as somebody no provider knows")
        provider, acting_as = found.provider, found.username
    elif authorization.startswith(b"u:"):
        try:
            acting_as = authorization.removeprefix(b"u:").decode()
        except UnicodeDecodeError:
            raise NoClaimError("the client asked to act as somebody whose name is no text") from None
    elif authorization:
        raise NoClaimError("the client asked to act as somebody it named neither dn: nor u:")
    served = list(providers) if provider is None else [provider]
    name = certificate.name
    if certificate.part == "upn":
        name, _, domain = certificate.name.rpartition("@")
        served = [one for one in served if providers.domain(one) == domain.lower()]
        if not served:
            raise NoClaimError("the domain of the user principal name is no provider's")
    if len(served) != 1:
        raise NoClaimError("several providers are served; the client has to name one by asking to act as dn:...")
    return Claim(served[0], name, certificate.part != "mail", acting_as)
