import dataclasses
from ipaddress import ip_address

import pytest

from outpost._fastradius import SharedSecret, encode_request
from outpost.radius._intake import Request
from outpost.radius.clients import ClientTable
from outpost.radius.exchange import DEFAULTS, Exchange
from outpost.radius.observer import DropReason
from outpost.radius.packet import EAP_MESSAGE, PROXY_STATE, encode_attribute
from tests.radius.testbed import SECRET, Recorder, login, provider

HOME = bytes([127, 0, 0, 1])
PATH = b"\0path"
PROXIED = encode_attribute(PROXY_STATE, b"p")


def exchange(policy: str = "auto", **limits: float) -> tuple[Exchange, Recorder]:
    observer = Recorder()
    table = ClientTable([provider(message_authenticator=policy)])
    return Exchange(table, observer, dataclasses.replace(DEFAULTS, **limits)), observer


def new(machine: Exchange, found: Request | bytes | None) -> Request:
    assert isinstance(found, Request) and machine.hold(found)
    return found


@pytest.mark.parametrize("policy", ["auto", "require", "optional"])
def test_message_authenticator_matrix(policy: str) -> None:
    eap = encode_attribute(EAP_MESSAGE, b"\2\1\0\4")
    bent = bytearray(login())
    bent[22] ^= 1
    absent = None if policy != "require" else DropReason.MISSING_MESSAGE_AUTHENTICATOR
    proxied = {
        "auto": DropReason.PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR,
        "require": DropReason.MISSING_MESSAGE_AUTHENTICATOR,
        "optional": None,
    }[policy]
    for data, drop in [
        (login(), None),
        (login(extra=PROXIED), None),
        (bytes(bent), DropReason.BAD_MESSAGE_AUTHENTICATOR),
        (login(sign=False), absent),
        (login(sign=False, extra=PROXIED), proxied),
        (login(sign=False, extra=eap), DropReason.EAP_WITHOUT_MESSAGE_AUTHENTICATOR),
        (login(extra=eap), None),
        (
            encode_request(12, 1, bytes(16), b"", SharedSecret(SECRET), sign=False),
            DropReason.STATUS_WITHOUT_MESSAGE_AUTHENTICATOR,
        ),
        (encode_request(12, 1, bytes(16), b"", SharedSecret(SECRET)), None),
    ]:
        machine, observer = exchange(policy)
        found = machine.receive_datagram(data, HOME, PATH, 0.0)
        assert isinstance(found, Request) is (drop is None)
        assert observer.drops == ({} if drop is None else {drop: 1})
        assert observer.notices == ([] if drop is None else [(drop, "app-1", "127.0.0.1", 0)])


def test_the_policy_is_never_latched_by_what_came_before() -> None:
    machine, observer = exchange("auto")
    for identifier in range(10):
        new(machine, machine.receive_datagram(login(sign=identifier % 2 == 0, identifier=identifier), HOME, PATH, 0.0))
    assert not observer.drops


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 11, 13, 40, 43, 255])
def test_other_codes_get_silence(code: int) -> None:
    machine, observer = exchange()
    data = encode_request(code, 1, bytes(16), b"", SharedSecret(SECRET)) if code else b"\0" + login()[1:]
    assert machine.receive_datagram(data, HOME, PATH, 0.0) is None
    assert sum(observer.drops.values()) == 1


def test_unknown_clients_get_silence_and_one_line_per_interval() -> None:
    machine, observer = exchange()
    for second in range(70):
        assert machine.receive_datagram(login(), bytes([10, 0, 0, 1]), PATH, float(second)) is None
    assert observer.drops == {DropReason.UNKNOWN_CLIENT: 70}
    assert observer.notices == [(DropReason.UNKNOWN_CLIENT, "", "10.0.0.1", n) for n in (0, 29, 29)]
    machine.handle_deadline(200.0)
    assert observer.notices[-1] == (DropReason.UNKNOWN_CLIENT, "", "10.0.0.1", 9)


def test_rfc5080_2_2_2_a_retransmission_gets_the_identical_reply() -> None:
    machine, observer = exchange()
    request = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    assert machine.receive_datagram(login(), HOME, PATH, 1.0) is None
    assert observer.drops == {DropReason.DUPLICATE: 1} and observer.notices == []
    assert machine.finish(request, b"reply", 2.0)
    for _ in range(3):
        assert machine.receive_datagram(login(), HOME, PATH, 3.0) == b"reply"
    assert observer.resends == 3
    assert not machine.finish(request, b"twice", 3.0)
    new(machine, machine.receive_datagram(login(), HOME, PATH, 12.0))


@pytest.mark.parametrize(
    ("wide", "narrow", "inside", "outside"),
    [
        ("192.168.128.0/24", "192.168.128.254/32", "192.168.128.254", "192.168.128.253"),
        ("2001:db8:128::/64", "2001:db8:128::fe/128", "2001:db8:128::fe", "2001:db8:128::fd"),
        ("192.168.128.0/24", "192.168.128.254/32", "::ffff:192.168.128.254", "::ffff:192.168.128.1"),
    ],
)
def test_ten_thousand_requests_and_twenty_starts_never_choose_the_wrong_provider(
    wide: str, narrow: str, inside: str, outside: str
) -> None:
    providers = [provider(1, wide, b"wide"), provider(2, narrow, b"narrow")]
    requests = [login(identifier=n, authenticator=bytes([n] * 16), secret=b"narrow") for n in range(250)]
    others = [login(identifier=n, authenticator=bytes([n] * 16), secret=b"wide") for n in range(250)]
    for start in range(20):
        observer = Recorder()
        machine = Exchange(ClientTable(providers[:: 1 if start % 2 else -1]), observer)
        for number in range(500):
            found = machine.receive_datagram(requests[number % 250], ip_address(inside).packed, PATH, float(number))
            assert isinstance(found, Request) and found.client.provider.pk == 2
            found = machine.receive_datagram(others[number % 250], ip_address(outside).packed, b"\1", float(number))
            assert isinstance(found, Request) and found.client.provider.pk == 1
        assert not observer.drops
        for swapped, address in ((requests[0], outside), (others[0], inside)):
            assert machine.receive_datagram(swapped, ip_address(address).packed, PATH, 0.0) is None
        assert observer.drops == {DropReason.BAD_MESSAGE_AUTHENTICATOR: 2}


def test_a_new_authenticator_is_a_new_request_and_the_old_one_is_never_answered() -> None:
    machine, observer = exchange()
    old = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    fresh = new(machine, machine.receive_datagram(login(authenticator=bytes(16)), HOME, PATH, 1.0))
    assert observer.drops == {DropReason.SUPERSEDED: 1}
    assert not machine.finish(old, b"old", 2.0)
    assert machine.finish(fresh, b"new", 2.0)
    assert machine.receive_datagram(login(authenticator=bytes(16)), HOME, PATH, 3.0) == b"new"
    new(machine, machine.receive_datagram(login(), HOME, PATH, 3.0))


def test_a_repeated_authenticator_never_gets_another_users_reply() -> None:
    machine, _ = exchange()
    request = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    assert machine.finish(request, b"accept", 0.0)
    new(machine, machine.receive_datagram(login("mallory", "x"), HOME, PATH, 1.0))


def test_what_nobody_signed_ends_no_signed_request_and_spends_no_reply_to_one() -> None:
    """A forged sender is all that it takes to send a request without Message-Authenticator."""
    machine, observer = exchange()
    ours = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    forged = new(machine, machine.receive_datagram(login(sign=False, authenticator=bytes(16)), HOME, PATH, 0.0))
    assert ours.is_live and forged.is_live and not observer.drops
    assert machine.finish(ours, b"accept", 1.0) and machine.finish(forged, b"reject", 1.0)
    again = machine.receive_datagram(login("mallory", sign=False, authenticator=bytes(16)), HOME, PATH, 2.0)
    assert isinstance(again, Request)
    assert machine.receive_datagram(login(), HOME, PATH, 2.0) == b"accept"


def test_port_path_code_and_identifier_are_part_of_the_key() -> None:
    machine, observer = exchange()
    new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    new(machine, machine.receive_datagram(login(), HOME, b"\0other", 0.0))
    new(machine, machine.receive_datagram(login(identifier=2), HOME, PATH, 0.0))
    new(machine, machine.receive_datagram(encode_request(12, 1, bytes(16), b"", SharedSecret(SECRET)), HOME, PATH, 0.0))
    assert machine.pending == 4 and not observer.drops


def test_a_bad_message_authenticator_does_not_touch_the_duplicates() -> None:
    machine, observer = exchange()
    request = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    bent = bytearray(login(authenticator=bytes(16)))
    bent[-1] ^= 1
    assert machine.receive_datagram(bytes(bent), HOME, PATH, 0.0) is None
    assert observer.drops == {DropReason.BAD_MESSAGE_AUTHENTICATOR: 1} and request.is_live


def test_memory_is_bounded() -> None:
    machine, observer = exchange(replies=10, pending=10)
    for number in range(20):
        request = machine.receive_datagram(login(identifier=number), HOME, PATH, 0.0)
        assert isinstance(request, Request) and machine.hold(request) is (number < 10)
    assert observer.drops == {DropReason.OVERLOADED: 10}
    machine, observer = exchange(replies=10)
    for number in range(20):
        assert machine.finish(
            new(machine, machine.receive_datagram(login(identifier=number), HOME, PATH, 0.0)), b"r", 0.0
        )
    assert machine.replies == 10
    machine, observer = exchange(reply_octets=1000)
    for number in range(20):
        request = new(machine, machine.receive_datagram(login(identifier=number), HOME, PATH, 0.0))
        assert machine.finish(request, bytes(200), 0.0)
    assert machine.replies == 1000 // (len(login()) + 200)
    machine, observer = exchange(notices=5)
    for number in range(20):
        machine.receive_datagram(login(), bytes([10, 0, 0, number]), PATH, 0.0)
    assert len(observer.notices) == 5 and observer.drops == {DropReason.UNKNOWN_CLIENT: 20}


def test_deadlines_forget_what_is_over() -> None:
    machine, observer = exchange()
    assert machine.next_deadline() is None
    slow = new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0))
    done = new(machine, machine.receive_datagram(login(identifier=2), HOME, PATH, 0.0))
    assert machine.finish(done, b"reply", 0.0) and machine.next_deadline() == DEFAULTS.reply_lifetime_s
    machine.handle_deadline(DEFAULTS.reply_lifetime_s)
    assert machine.replies == 0 and machine.next_deadline() == DEFAULTS.abandon_after_s
    machine.handle_deadline(DEFAULTS.abandon_after_s)
    assert machine.pending == 0 and observer.drops == {DropReason.ABANDONED: 1}
    assert not machine.finish(slow, b"late", 61.0)


def test_giving_up_lets_a_retransmission_try_again() -> None:
    machine, observer = exchange()
    machine.give_up(new(machine, machine.receive_datagram(login(), HOME, PATH, 0.0)), DropReason.UNAVAILABLE, 1.0)
    assert observer.drops == {DropReason.UNAVAILABLE: 1}
    new(machine, machine.receive_datagram(login(), HOME, PATH, 2.0))


def test_ambiguous_requests_get_silence() -> None:
    machine, observer = exchange()
    assert machine.receive_datagram(login(extra=encode_attribute(1, b"bob")), HOME, PATH, 0.0) is None
    assert observer.drops == {DropReason.AMBIGUOUS: 1}
