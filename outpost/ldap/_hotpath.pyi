"""The common requests of a connection, answered in C out of the receive buffer; everything else goes its usual way.

A simple Bind with a remembered login, a search and a Compare in a compiled directory, without controls, are answered
here as the operations would answer them. Whatever is not so plain is left where it lies, untouched and uncounted.
"""

import asyncio
from collections.abc import Callable
from typing import Final, final

from typing_extensions import disjoint_base

from outpost._fastber import Inbox, Limits
from outpost.ldap._session import Session
from outpost.ldap._tls import TlsEnd
from outpost.ldap.observer import LdapObserver
from outpost.ldap.operations.bind import Gate, Sessions
from outpost.ldap.providers import Providers
from outpost.ldap.shelf import Library

__all__: Final = ("HotPath", "Wire")

@final
class HotPath:
    """What the connections of one server share.

    release: makes a session anonymous; bound_limits: of whoever has bound; size_limit: the server's own, 0 for none.
    A gate or an observer that has nothing for C is asked and told in Python.
    """

    def __new__(
        cls,
        gate: Gate,
        library: Library,
        observer: LdapObserver,
        sessions: Sessions | None,
        release: Callable[[Session], None],
        bound_limits: Limits,
        size_limit: int,
        clock: Callable[[], float],
    ) -> HotPath: ...
    def serve(self, providers: Providers) -> None:
        """These are served from now on."""
    @property
    def answered(self) -> int:
        """Requests answered here."""

@disjoint_base
class Wire:
    """The receiving half of a channel, to be completed with `_turn`, `_make_room`, `_balance` and what they need.

    running: messageIDs of the operations in work; where there are any, nothing is answered here.
    """

    session: Session
    active_at: float
    """When octets last came in, or went out of a queue that was full."""
    stalled_at: float | None
    """Since when the client does not take what it asked for."""
    _inbox: Inbox
    _transport: asyncio.Transport | TlsEnd | None
    _is_closing: bool
    _is_draining: bool
    _is_reading: bool

    def __init__(self, hotpath: HotPath, session: Session, inbox: Inbox, running: set[int]) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for octets."""
    def buffer_updated(self, nbytes: int) -> None:
        """Octets came."""
