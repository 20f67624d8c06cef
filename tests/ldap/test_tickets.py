"""Who gets tickets, counted and over real sockets."""

import asyncio
import socket
import ssl

from outpost.ldap.tickets import ADDRESSES, EVERY, FIRST, Tickets
from tests.ldap import decode, encode, pki
from tests.ldap.testbed import bed

ADDRESS = "192.0.2.1"


def given(tickets: Tickets, count: int, address: str = ADDRESS) -> list[int]:
    """Tickets of so many handshakes in full."""
    found = []
    for _ in range(count):
        found.append(tickets.due(address))
        tickets.finished(address, is_resumed=False)
    return found


def test_whoever_never_resumes_gets_few() -> None:
    found = given(Tickets(), FIRST + 10 * EVERY)
    assert found[:FIRST] == [1] * FIRST
    assert sum(found[FIRST:]) == 20
    assert found[EVERY : 2 * EVERY] == [1, 1] + [0] * (EVERY - 2), "two in a row: the second may be resumed"


def test_whoever_resumes_gets_one_each_time() -> None:
    tickets = Tickets()
    assert given(tickets, EVERY + 1)[-1] == 1
    tickets.finished(ADDRESS, is_resumed=True)
    assert given(tickets, FIRST) == [1] * FIRST
    for _ in range(100):
        tickets.finished(ADDRESS, is_resumed=True)
        assert tickets.due(ADDRESS) == 1


def test_addresses_count_for_themselves_and_are_bounded() -> None:
    tickets = Tickets()
    given(tickets, FIRST)
    assert (tickets.due(ADDRESS), tickets.due("192.0.2.2")) == (0, 1)
    for n in range(ADDRESSES - 1):
        given(tickets, 1, str(n))
    assert tickets.due(ADDRESS) == 0, "just as many as are remembered"
    given(tickets, 1, "one more")
    assert tickets.due(ADDRESS) == 1
    assert len(tickets._in_full) == 1


def connected(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
    """The session that a client has in the end, and whether it was resumed."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as there,
    ):
        there.sendall(encode.search(1, "", scope=0))
        assert decode.messages(there.recv(65_536))
        return there.session, bool(there.session_reused)


async def test_clients_that_resume_go_on_doing_so_and_others_are_served_without() -> None:
    context = pki.client_context(minimum_version=ssl.TLSVersion.TLSv1_3)
    async with bed() as there:
        session: ssl.SSLSession | None = None
        for count in range(FIRST + 5):
            session, is_resumed = await asyncio.to_thread(connected, there.tls_port, context, session)
            assert is_resumed is (count > 0)
            assert session is not None and session.has_ticket
        found = [await asyncio.to_thread(connected, there.tls_port, context, None) for _ in range(FIRST + 5)]
        with_ticket = [one is not None and one.has_ticket for one, _ in found]
        assert with_ticket == [True] * FIRST + [False] * 5
        session, is_resumed = await asyncio.to_thread(connected, there.tls_port, context, found[0][0])
        assert is_resumed
        assert session is not None and session.has_ticket
