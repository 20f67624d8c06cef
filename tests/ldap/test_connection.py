"""The session machine, by scripts without I/O: what may be begun when (RFC 4511 4.2.1, 4.14)."""

import pytest

from outpost._fastber import Limits, Request
from outpost.errors import DecodeError, LimitExceeded, SequenceError
from outpost.ldap.connection import Connection, notice_of
from outpost.ldap.results import START_TLS
from tests.ldap import decode, encode

TLS = START_TLS.decode()


def session(*octets: bytes, outstanding: int = 4) -> Connection:
    connection = Connection(Limits(), outstanding)
    connection.inbox.feed(b"".join(octets))
    return connection


def taken(connection: Connection) -> Request:
    request = connection.next()
    assert request is not None
    return request


@pytest.mark.parametrize("exclusive", [encode.bind(1, "cn=x", "y"), encode.extended(1, TLS)], ids=["bind", "StartTLS"])
def test_nothing_is_begun_behind_a_bind_or_start_tls(exclusive: bytes) -> None:
    connection = session(exclusive, encode.search(2, ""), encode.unbind(3))
    connection.begin(taken(connection))
    assert connection.next() is None
    assert connection.is_blocked
    assert connection.finish(1)
    assert taken(connection).message_id == 2


@pytest.mark.parametrize("exclusive", [encode.bind(3, "cn=x", "y"), encode.extended(3, TLS)], ids=["bind", "StartTLS"])
def test_a_bind_or_start_tls_waits_for_all_that_is_in_work(exclusive: bytes) -> None:
    connection = session(encode.search(1, ""), encode.search(2, ""), exclusive, encode.search(4, ""))
    connection.begin(taken(connection))
    connection.begin(taken(connection))
    assert connection.next() is None
    connection.finish(2)
    assert connection.next() is None
    assert not connection.is_idle
    connection.finish(1)
    request = taken(connection)
    assert request.message_id == 3
    connection.begin(request)
    assert connection.next() is None


def test_searches_overlap_up_to_the_limit() -> None:
    connection = session(*(encode.search(n, "") for n in range(1, 4)), outstanding=2)
    connection.begin(taken(connection))
    connection.begin(taken(connection))
    assert connection.running == {1, 2}
    assert connection.next() is None
    connection.finish(1)
    assert taken(connection).message_id == 3


def test_abandon_passes_while_others_are_in_work() -> None:
    connection = session(encode.search(1, ""), encode.abandon(2, 1))
    connection.begin(taken(connection))
    assert taken(connection).message_id == 2
    assert connection.finish(1)
    assert not connection.finish(1)
    assert connection.is_idle


def test_a_message_id_in_work_is_not_taken_twice_but_may_come_again_later() -> None:
    connection = session(encode.search(1, ""), encode.search(1, ""))
    connection.begin(taken(connection))
    with pytest.raises(SequenceError):
        connection.next()
    connection = session(encode.search(1, ""), encode.search(1, ""))
    connection.begin(taken(connection))
    connection.finish(1)
    assert taken(connection).message_id == 1


@pytest.mark.parametrize("tag", [0x61, 0x64, 0x65, 0x78, 0x7F])
def test_responses_and_unknown_operations_are_no_requests(tag: int) -> None:
    with pytest.raises(DecodeError):
        session(encode.message(1, encode.tlv(tag, b""))).next()


@pytest.mark.parametrize(("error", "code"), [(DecodeError("x"), 2), (SequenceError("x"), 2), (LimitExceeded("x"), 11)])
def test_the_notice_says_what_was_wrong(error: DecodeError, code: int) -> None:
    [message] = decode.messages(notice_of(error))
    assert (message.message_id, message.tag) == (0, 0x78)
    assert decode.result(message.content)[0] == code
