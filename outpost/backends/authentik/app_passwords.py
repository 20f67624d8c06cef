"""The app passwords of a logged-in user, as his own session is told about them.

The server sends no event when one is revoked, changes nothing about the user for it and leaves the sessions that it
opened alive; the list of the user's own tokens is the one place that shows it, and never shows a key.
"""

from __future__ import annotations

from outpost.backends.authentik.address import Query
from outpost.backends.authentik.sessions import Kept
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError

INTENT = "app_password"
MAX_PAGES = 10


async def app_passwords(kept: Kept, user_pk: int, username: str) -> frozenset[str]:
    """Identifiers of those that are valid now; none, too, when the server shows this session none.

    Raises BackendError when the server cannot tell at the moment.
    """
    found: set[str] = set()
    for number in range(1, MAX_PAGES + 1):
        # The filters save superusers the tokens of everybody; a server that does not know one leaves it out.
        query: Query = (
            ("intent", INTENT),
            ("user__username", username),
            ("ordering", "identifier"),
            ("page", str(number)),
            ("page_size", "100"),
        )
        what = "app passwords"
        answer = await kept.visitor.request("GET", kept.visitor.pool.address.api("/core/tokens/", query), what)
        if answer.status in (401, 403, 404):
            return frozenset()
        if answer.status != 200:
            raise BackendError(f"{what}: HTTP {answer.status}")
        shape = Shape(answer.json(what), what)
        found.update(
            one.text("pk")
            for one in shape.children("results")
            if one.raw("intent") == INTENT and one.raw("user") == user_pk and not _is_over(one, answer.made_at)
        )
        if not shape.child("pagination").integer("next"):
            break
    return frozenset(found)


def _is_over(token: Shape, now: float | None) -> bool:
    """Newer servers list tokens whose time is over until they clean up; now: on the server's clock."""
    expires = token.moment("expires")
    return token.raw("expiring") is True and expires is not None and now is not None and expires.timestamp() <= now
