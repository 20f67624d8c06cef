"""Password Modify (RFC 3062): whoever is bound changes his own password, and nobody else's."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, final

from outpost._fastber import ExtendedRequest, encode_extended_result
from outpost.errors import DecodeError
from outpost.identity import (
    Changed,
    Identity,
    LdapProvider,
    PasswordDecision,
    Rejected,
    RejectReason,
    Secret,
    Source,
    Unavailable,
    UnavailableReason,
    Unwilling,
)
from outpost.ldap import results
from outpost.ldap._session import Session
from outpost.ldap.controls import take
from outpost.ldap.dn import normalise
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations.outcome import Later, Outcome
from outpost.ldap.providers import Providers

GENERATED: Final = 20
"""Characters of a password that we make: 115 bits."""
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"
"""Nothing that looks like something else."""

ELSEWHERE = b"passwords are not kept here; change yours where your account is managed"
_REFUSALS: Final = {RejectReason.ACCESS_DENIED: results.INSUFFICIENT_ACCESS_RIGHTS}


class Changer(Protocol):
    """The part of the credentials gate that a change of password needs."""

    def can_change_passwords(self) -> bool:
        """Whether asking makes sense at this moment."""
        ...

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """The decision."""
        ...


@dataclass(frozen=True, slots=True)
class _Wish:
    """PasswdModifyRequestValue; None for what is absent."""

    identity: bytes | None = None
    old: Secret | None = None
    new: Secret | None = None


@final
class PasswordModifier:
    """Changes passwords for every connection of a server.

    passwords: None where nobody can; release: makes a session anonymous.
    """

    def __init__(self, passwords: Changer | None, observer: LdapObserver, release: Callable[[Session], None]) -> None:
        self._release = release
        self._passwords = passwords
        self._observer = observer

    def is_offered(self, providers: Iterable[LdapProvider]) -> bool:
        """Whether the root DSE is to name the operation."""
        can = self._passwords is not None and self._passwords.can_change_passwords()
        return can and any(one.options.password_modify for one in providers)

    def begin(self, session: Session, request: ExtendedRequest, providers: Providers) -> Outcome:
        """The answer, or the work that leads to it."""
        try:
            wish = _read(request.value)
        except ValueError:
            return _result(request, results.PROTOCOL_ERROR, b"Password Modify: malformed request value")
        if self._passwords is None:
            return _result(request, results.UNWILLING_TO_PERFORM, ELSEWHERE)
        if not session.is_secure and not _is_loopback(session.address):
            return _result(request, results.CONFIDENTIALITY_REQUIRED, b"this needs TLS: use ldaps or StartTLS first")
        identity = session.identity
        provider = providers.current(session.provider) if session.provider is not None else None
        if identity is None or provider is None:
            return _result(request, results.STRONGER_AUTH_REQUIRED, b"bind before you change your password")
        if not provider.options.password_modify:
            return _result(request, results.UNWILLING_TO_PERFORM, b"passwords are not changed here")
        if wish.identity is not None and not _is_self(wish.identity, session, identity, provider, providers):
            return _result(request, results.INSUFFICIENT_ACCESS_RIGHTS, b"only your own password can be changed")
        if not wish.old:
            return _result(request, results.UNWILLING_TO_PERFORM, b"the old password is required")
        if wish.new is not None and not wish.new:
            return _result(request, results.UNWILLING_TO_PERFORM, b"the new password is empty")
        return Later(partial(self._change, self._passwords, session, request, provider, identity, wish.old, wish.new))

    async def _change(
        self,
        passwords: Changer,
        session: Session,
        request: ExtendedRequest,
        provider: LdapProvider,
        identity: Identity,
        old: Secret,
        new: Secret | None,
    ) -> bytes:
        if session.is_changing_password:
            return _result(request, results.BUSY, b"your password is being changed")
        name = session.bind_dn
        wanted = new if new is not None else _generated()
        source = Source("ldap", session.address)
        session.is_changing_password = True
        try:
            decision = await passwords.change_password(provider, identity, old, wanted, source)
            if isinstance(decision, Changed):
                # Whatever he proved, he proved it with a password that is none any more.
                self._release(session)
        finally:
            session.is_changing_password = False
        code, diagnostic, value = results.OTHER, b"", None
        if isinstance(decision, Changed):
            code = results.SUCCESS
            value = None if new is not None else _encoded(wanted)
        elif isinstance(decision, Unwilling):
            code, diagnostic = results.UNWILLING_TO_PERFORM, decision.detail.encode()
        elif isinstance(decision, Rejected):
            code = _REFUSALS.get(decision.reason, results.INVALID_CREDENTIALS)
        elif isinstance(decision, Unavailable):
            is_busy = decision.reason is UnavailableReason.BUSY
            code = results.BUSY if is_busy else results.UNAVAILABLE
            diagnostic = b"busy, try again" if is_busy else b"passwords cannot be changed at the moment"
        else:
            raise TypeError(f"no decision: {type(decision).__name__}")
        if not isinstance(decision, Changed) and decision.detail:
            detail = f"password not changed: {decision.detail}"
            self._observer.explained(provider.application_slug, session.address, name, detail)
        return encode_extended_result(request.message_id, code, diagnostic=diagnostic, value=value)


def _read(octets: bytes | None) -> _Wish:
    """RFC 3062 2. Raises ValueError."""
    if octets is None:
        return _Wish()
    tag, content, rest = take(octets)
    if tag != 0x30 or rest:
        raise ValueError("malformed")
    found: dict[int, bytes] = {}
    last = 0
    while content:
        tag, value, content = take(content)
        if tag not in {0x80, 0x81, 0x82} or tag <= last:
            raise ValueError("malformed")
        found[tag] = value
        last = tag
    old, new = found.get(0x81), found.get(0x82)
    return _Wish(found.get(0x80), None if old is None else Secret(old), None if new is None else Secret(new))


def _is_self(wanted: bytes, session: Session, identity: Identity, provider: LdapProvider, providers: Providers) -> bool:
    """Whether userIdentity, a DN or an authzId (RFC 4513 5.2.1.8) or a name that binds, is who is bound."""
    name = wanted.removeprefix(b"u:") if wanted.startswith(b"u:") else wanted.removeprefix(b"dn:")
    if not name:
        return False
    if b"=" in name:
        try:
            if normalise(name) == normalise(session.bind_dn):
                return True
        except DecodeError:
            return False
        found = providers.bind_name(name)
        return (
            found is not None
            and found.provider.pk == provider.pk
            and found.username.casefold() == identity.username.casefold()
        )
    try:
        return name.decode().casefold() == identity.username.casefold() or name == session.bind_dn
    except UnicodeDecodeError:
        return False


def _is_loopback(address: str) -> bool:
    try:
        there = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = there.ipv4_mapped if isinstance(there, ipaddress.IPv6Address) else None
    return (mapped or there).is_loopback


def _generated() -> Secret:
    return Secret("".join(secrets.choice(_ALPHABET) for _ in range(GENERATED)))


def _encoded(password: Secret) -> bytes:
    """PasswdModifyResponseValue (RFC 3062 2) with genPasswd."""
    octets = password.reveal()
    return bytes((0x30, len(octets) + 2, 0x80, len(octets))) + octets


def _result(request: ExtendedRequest, code: int, diagnostic: bytes) -> bytes:
    return encode_extended_result(request.message_id, code, diagnostic=diagnostic)
