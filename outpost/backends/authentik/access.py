"""May this user use this application?  Both generations of the question, told apart by capability."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import quote

from outpost.backends.authentik.client import Answer, NotFound, TokenRefused, refusal
from outpost.backends.authentik.flow import Visitor
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import LdapProvider, Provider, RejectReason, ReplyAttributes


@dataclass(frozen=True, slots=True)
class Access:
    """The server's answer about one user and one application."""

    is_passing: bool
    has_search_permission: bool | None = None
    """None when the server does not know the question (before 2024.8)."""
    attributes: bytes | None = None
    """Base64 of the RADIUS packet that the property mappings made; None when there is none."""
    messages: tuple[str, ...] = ()
    """What the policies say to the user."""
    mapping_failed: bool = False
    """The server answered `attributes: null` to a login that passes: a property mapping raised."""


@dataclass(frozen=True, slots=True)
class Denied:
    """No access, or the question failed in a way that is no server's outage."""

    reason: RejectReason
    detail: str


class AccessCheck:
    """Asks the newer endpoint first and remembers when a server does not have it."""

    def __init__(self) -> None:
        self._is_legacy: bool | None = None

    def learn(self, *, is_legacy: bool | None) -> None:
        """What the server's records tell about its generation; None: nothing, so ask again next time."""
        self._is_legacy = is_legacy

    async def ask(self, visitor: Visitor, provider: Provider) -> Access | Denied:
        """Whether the user behind the visitor's session may use the provider's application. Raises BackendError."""
        if not provider.application_slug:
            return Denied(RejectReason.ACCESS_CHECK_FAIL, f"provider {provider.name!r} has no application")
        if self._is_legacy:
            return await self._legacy(visitor, provider)
        service = "ldap" if isinstance(provider, LdapProvider) else "radius"
        path = f"/outposts/{service}/{provider.pk}/check_access/"
        answer = await self._request(visitor, path, (("app_slug", provider.application_slug),))
        if answer.status == 404 and not answer.is_json:
            return await self._legacy(visitor, provider)
        what = "access check"
        if answer.status != 200:
            return _failed(answer, what)
        self._is_legacy = False
        shape = Shape(answer.json(what), what)
        access = shape.child("access")
        passing = access.raw("passing") is True
        encoded = shape.optional_text("attributes")
        return Access(
            is_passing=passing,
            has_search_permission=shape.raw("has_search_permission") is True,
            attributes=None if encoded is None else encoded.encode(),
            messages=_messages(access),
            mapping_failed=passing and "attributes" in shape and encoded is None,
        )

    async def _legacy(self, visitor: Visitor, provider: Provider) -> Access | Denied:
        path = f"/core/applications/{quote(provider.application_slug, safe='')}/check_access/"
        answer = await self._request(visitor, path, ())
        if answer.status != 200:
            return _failed(answer, "access check")
        self._is_legacy = True
        shape = Shape(answer.json("access check"), "access check")
        return Access(is_passing=shape.raw("passing") is True, messages=_messages(shape))

    async def _request(self, visitor: Visitor, path: str, query: tuple[tuple[str, str], ...]) -> Answer:
        return await visitor.request("GET", visitor.pool.address.api(path, query), "access check")


def _failed(answer: Answer, what: str) -> Denied:
    error: BackendError = refusal(answer, what)
    if isinstance(error, NotFound):
        return Denied(RejectReason.ACCESS_CHECK_FAIL, f"{what}: the server does not know the application or provider")
    if isinstance(error, TokenRefused):
        return Denied(RejectReason.ACCESS_CHECK_FAIL, f"{what}: the server answers HTTP {answer.status} to the session")
    raise error


def _messages(shape: Shape) -> tuple[str, ...]:
    # Only words for a log: whatever their shape is in a later release, they decide nothing.
    found = shape.raw("messages")
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def reply_attributes(encoded: bytes | None) -> ReplyAttributes:
    """The RADIUS packet in an access check's answer. Raises ValueError when it is no Base64."""
    if not encoded:
        return ReplyAttributes()
    try:
        return ReplyAttributes(packet=base64.b64decode(encoded, validate=True))
    except binascii.Error as exc:
        raise ValueError("no Base64") from exc
