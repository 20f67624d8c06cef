"""Listening: every address, or one sentence why not."""

import socket

import pytest

from outpost.app.sockets import ListenError, open_all
from outpost.config.values import Endpoint


def taken(kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


@pytest.mark.parametrize(
    ("service", "kind", "name"),
    [
        ("ldap", socket.SOCK_STREAM, "AUTHENTIK_LISTEN__LDAP"),
        ("ldaps", socket.SOCK_STREAM, "AUTHENTIK_LISTEN__LDAPS"),
        ("radius", socket.SOCK_DGRAM, "AUTHENTIK_LISTEN__RADIUS"),
        ("metrics", socket.SOCK_STREAM, "AUTHENTIK_LISTEN__METRICS"),
    ],
)
def test_a_port_in_use_names_port_and_setting(service, kind, name) -> None:
    with taken(kind) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            open_all(service, [Endpoint("127.0.0.1", port)], kind)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port} for {service}: Address already in use (choose another address with {name})"
    )


def test_all_or_nothing() -> None:
    with taken(socket.SOCK_STREAM) as sock:
        other = taken(socket.SOCK_STREAM)
        free = other.getsockname()[1]
        other.close()
        with pytest.raises(ListenError):
            open_all(
                "ldap",
                [Endpoint("127.0.0.1", free), Endpoint("127.0.0.1", sock.getsockname()[1])],
                socket.SOCK_STREAM,
            )
        with socket.create_server(("127.0.0.1", free)):
            pass  # the first was closed again


def test_several_addresses_are_listened_on_without_blocking() -> None:
    opened = open_all("ldap", [Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 0)], socket.SOCK_STREAM)
    try:
        assert [sock.getblocking() for sock in opened] == [False, False]
        for sock in opened:
            socket.create_connection(sock.getsockname()).close()
    finally:
        for sock in opened:
            sock.close()


def test_an_unresolvable_name_is_one_sentence() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on nowhere\.invalid:1 for ldap: "):
        open_all("ldap", [Endpoint("nowhere.invalid", 1)], socket.SOCK_STREAM)


def test_no_address_is_no_socket() -> None:
    assert open_all("ldaps", [], socket.SOCK_STREAM) == []
