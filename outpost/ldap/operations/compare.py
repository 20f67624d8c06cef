"""Compare (RFC 4511 4.10)."""

from __future__ import annotations

from functools import partial
from typing import Final

from outpost._fastber import CompareRequest, Limits
from outpost.errors import BackendError, DecodeError, OperationError
from outpost.identity import Identity, LdapProvider, Mode
from outpost.ldap import results
from outpost.ldap._session import Session
from outpost.ldap._shelf import Shelf
from outpost.ldap.controls import understand
from outpost.ldap.dn import normalise
from outpost.ldap.operations import wanted
from outpost.ldap.operations.outcome import Later
from outpost.ldap.providers import Providers
from outpost.ldap.shelf import Library

DIAGNOSTICS: Final = {
    results.NO_SUCH_ATTRIBUTE: b"the entry has no such attribute",
    results.UNDEFINED_ATTRIBUTE_TYPE: b"no such attribute type is known",
    results.INVALID_ATTRIBUTE_SYNTAX: b"the assertion value does not fit the attribute's syntax",
    results.NO_SUCH_OBJECT: b"no such entry",
}


def begin(
    session: Session, request: CompareRequest, providers: Providers, library: Library, limits: Limits
) -> bytes | Later:
    """The answer, or the work that leads to it."""
    try:
        controls = understand(request, limits)
        base = normalise(request.entry)
        identity = session.identity
        provider = None if session.provider is None else providers.current(session.provider)
        owner = providers.of_dn(base)
        if identity is None or provider is None:
            if owner is not None and owner.options.require_tls and not session.is_secure:
                raise OperationError(results.CONFIDENTIALITY_REQUIRED, "this needs TLS: use ldaps or StartTLS first")
            raise OperationError(results.INSUFFICIENT_ACCESS_RIGHTS, "bind first")
        if owner is None or owner.pk != provider.pk:
            raise OperationError(results.NO_SUCH_OBJECT, "no such entry")
        is_cached = provider.search_mode is Mode.CACHED
        shelf = library.shelf(provider) if is_cached else None
        if shelf is None and is_cached and identity.can_search:
            raise OperationError(results.BUSY, "the directory is being read for the first time")
        if shelf is None or shelf.view(identity) is None:
            return Later(partial(_fresh, request, provider, identity, library, controls.assertion))
        return _answer(request, shelf, identity, controls.assertion)
    except OperationError as error:
        return request.result(error.result_code, diagnostic=error.diagnostic.encode())
    except DecodeError as error:
        return request.result(results.INVALID_DN_SYNTAX, diagnostic=str(error).encode())


async def _fresh(
    request: CompareRequest, provider: LdapProvider, identity: Identity, library: Library, assertion: bytes | None
) -> bytes:
    try:
        shelf = await library.fetch(provider, wanted.of_entry(request.entry, identity, provider))
        return _answer(request, shelf, identity, assertion)
    except BackendError:
        return request.result(results.UNAVAILABLE, diagnostic=b"the directory cannot be read at the moment")
    except OperationError as error:
        return request.result(error.result_code, diagnostic=error.diagnostic.encode())


def _answer(request: CompareRequest, shelf: Shelf, identity: Identity, assertion: bytes | None) -> bytes:
    view = shelf.view(identity)
    if view is None:
        return request.result(results.INSUFFICIENT_ACCESS_RIGHTS, diagnostic=b"you are not in this directory")
    if assertion is not None and shelf.snapshot.matches(view, request.entry, assertion) is False:
        return request.result(results.ASSERTION_FAILED, diagnostic=b"the assertion is not true of the entry")
    code = shelf.snapshot.compare(view, request.entry, request.attribute, request.assertion_value)
    matched = shelf.snapshot.matched_dn(view, request.entry) if code == results.NO_SUCH_OBJECT else b""
    return request.result(code, matched, DIAGNOSTICS.get(code, b""))
