"""Listening sockets: every address of a listener, or one clear sentence why not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence

from outpost.config.layers import AUTHENTIK_NAMES
from outpost.config.values import Endpoint
from outpost.errors import OutpostError

BACKLOG = 1024
NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class ListenError(OutpostError):
    """An address could not be listened on."""

    metric = "listen"


def open_all(
    service: str, endpoints: Sequence[Endpoint], kind: socket.SocketKind, *, is_shared: bool = False
) -> list[socket.socket]:
    """Bound (and for SOCK_STREAM listening), non-blocking sockets for `endpoints`.

    `[::]` and an empty host take IPv4 along, and mean IPv4 alone on a host without IPv6.
    is_shared: `share` may open more of them. Raises ListenError, with everything closed again.
    """
    opened: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            shared = any(other.port == endpoint.port and other.host == "0.0.0.0" for other in endpoints)  # noqa: S104
            opened += _open(service, endpoint, kind, dual_stack=not shared, is_shared=is_shared)
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def share(service: str, opened: Sequence[socket.socket]) -> list[socket.socket]:
    """Further sockets at the same addresses, between which and `opened` the system distributes what comes.

    opened: of `open_all` with `is_shared`. Raises ListenError, with everything closed again.
    """
    further: list[socket.socket] = []
    try:
        for sock in opened:
            dual_stack = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            address = sock.getsockname()[:2]
            kind = socket.SocketKind(sock.type)
            try:
                further.append(_bind(sock.family, kind, address, dual_stack=dual_stack, is_shared=True))
            except OSError as error:
                raise _failure(service, Endpoint(*address), error) from None
    except BaseException:
        for sock in further:
            sock.close()
        raise
    return further


def _open(
    service: str, endpoint: Endpoint, kind: socket.SocketKind, *, dual_stack: bool, is_shared: bool
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    problem: OSError | None = None
    try:
        candidates = list(_candidates(endpoint, kind))
    except OSError as error:
        raise _failure(service, endpoint, error) from None
    for family, address, alternative in candidates:
        if alternative and opened:
            continue
        try:
            if is_shared and address[1]:
                # Sharing is for our own processes: that somebody else is there already has to be found out.
                _bind(family, kind, address, dual_stack=dual_stack, is_listening=False).close()
            opened.append(_bind(family, kind, address, dual_stack=dual_stack, is_shared=is_shared))
        except OSError as error:
            problem = error
            if error.errno not in NO_SUCH_FAMILY:
                break
    else:
        if opened:
            return opened
    for sock in opened:
        sock.close()
    raise _failure(service, endpoint, problem or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)))


def _candidates(endpoint: Endpoint, kind: socket.SocketKind) -> Iterator[tuple[int, tuple[str, int], bool]]:
    """(family, address, whether only needed if none before it worked)."""
    if endpoint.host in {"", "::"}:
        yield socket.AF_INET6, ("::", endpoint.port), False
        yield socket.AF_INET, ("0.0.0.0", endpoint.port), True  # noqa: S104
        return
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=kind, flags=socket.AI_PASSIVE)
    for family, _kind, _protocol, _name, address in found:
        yield family, (str(address[0]), endpoint.port), False


def _bind(
    family: int,
    kind: socket.SocketKind,
    address: tuple[str, int],
    *,
    dual_stack: bool,
    is_shared: bool = False,
    is_listening: bool = True,
) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not (dual_stack and address[0] == "::"))
        if kind == socket.SOCK_STREAM:
            # A restart must not wait for the connections of the last run to leave TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if kind == socket.SOCK_STREAM and is_listening:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _failure(service: str, endpoint: Endpoint, error: OSError) -> ListenError:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)
    name = next(n for n, key in AUTHENTIK_NAMES.items() if key == f"listen.{service}")
    return ListenError(f"cannot listen on {endpoint} for {service}: {reason} (choose another address with {name})")
