import asyncio

import pytest

from outpost._fastradius import SharedSecret, encode_request
from outpost.radius.observer import DropReason
from outpost.radius.packet import Code, encode_attribute
from outpost.radius.server import STARTS
from tests import oracle_radius as oracle
from tests.radius.testbed import SECRET, login, provider, serving

CHAP = encode_request(
    1, 1, bytes(range(16)), encode_attribute(1, b"alice") + encode_attribute(3, bytes(17)), SharedSecret(SECRET)
)


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize(("password", "code"), [("wonderland", 2), ("looking-glass", 3), ("", 3)])
async def test_pap(password: str, code: int, sign: bool) -> None:
    async with serving() as bed:
        with bed.client() as client:
            reply = await client.ask(login(password=password, sign=sign))
        assert reply[0] == code
        (told,) = bed.observer.answers
        reason = "" if code == 2 else "invalid_credentials" if password else "empty_password"
        assert told[:6] == (1, code, "app-1", "127.0.0.1", "alice", reason) and told[7] is sign
        assert len(bed.gate.asked) == (1 if password else 0)


async def test_a_known_login_is_answered_without_asking() -> None:
    async with serving() as bed:
        bed.gate.cached.add("alice")
        with bed.client() as client:
            assert (await client.ask(login()))[0] == Code.ACCESS_ACCEPT
            assert (await client.ask(login(password="wrong", identifier=2)))[0] == Code.ACCESS_REJECT
        assert len(bed.gate.asked) == 1


async def test_one_datagram_five_times_is_one_login_and_five_identical_replies() -> None:
    async with serving() as bed:
        with bed.client() as client:
            replies = {await client.ask(login()) for _ in range(5)}
        assert len(replies) == 1 and len(bed.gate.asked) == 1 and bed.observer.resends == 4


async def test_retransmissions_of_a_login_under_way_are_kept_still() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            for _ in range(5):
                client.send(login())
            await bed.observer.until(lambda: bed.observer.drops[DropReason.DUPLICATE] == 4)
            bed.gate.hold.set()
            reply, _ = await client.receive()
            assert reply[0] == Code.ACCESS_ACCEPT and len(bed.gate.asked) == 1
            assert await client.ask(login()) == reply
            assert client.is_silent()


async def test_an_identifier_used_anew_is_a_new_login_and_the_old_one_stays_unanswered() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            client.send(login())
            while not bed.gate.asked:
                await asyncio.sleep(0)
            client.send(login(authenticator=bytes(16), password="wrong"))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.SUPERSEDED] == 1)
            bed.gate.hold.set()
            reply, _ = await client.receive()
            assert reply[0] == Code.ACCESS_REJECT and oracle.response_holds(reply, bytes(16), SECRET)
            assert len(bed.gate.asked) == 2 and len(bed.observer.answers) == 1 and client.is_silent()


async def test_nobody_is_asked_about_a_login_superseded_before_its_turn() -> None:
    async with serving() as bed:
        with bed.client() as client:
            for identifier in range(2 * STARTS):
                client.send(login(identifier=identifier))
            client.send(login(identifier=2 * STARTS - 1, authenticator=bytes(16)))
            await bed.observer.until(lambda: len(bed.observer.answers) == 2 * STARTS)
        assert bed.observer.drops == {DropReason.SUPERSEDED: 1} and len(bed.gate.asked) == 2 * STARTS


async def test_a_flood_of_logins_is_started_in_turns_and_what_is_known_answered_between() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        bed.gate.cached.add("alice")
        with bed.client() as client, bed.client() as other:
            for identifier in range(100):
                client.send(login("bob", identifier=identifier))
            while not bed.gate.asked:
                await asyncio.sleep(0)
            assert (await other.ask(login()))[0] == Code.ACCESS_ACCEPT and len(bed.gate.asked) < 100
            while len(bed.gate.asked) < 100:
                await asyncio.sleep(0)


async def test_stop_ends_logins_that_had_no_turn_yet() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            for identifier in range(100):
                client.send(login(identifier=identifier))
            while not bed.gate.asked:
                await asyncio.sleep(0)
            await bed.server.stop(0.0)
        assert bed.observer.drops[DropReason.STOPPING] == 100 and bed.server.pending == 0


async def test_proxy_states_are_echoed_in_order_behind_the_message_authenticator() -> None:
    states = b"".join(encode_attribute(33, value) for value in (b"one", b"", b"three"))
    async with serving() as bed:
        with bed.client() as client:
            for password in ("wonderland", "wrong"):
                found = oracle.attributes(await client.ask(login(password=password, extra=states)))
                assert found is not None and found[0][0] == 80
                assert found[1:] == [(33, b"one"), (33, b""), (33, b"three")]


@pytest.mark.parametrize("policy", ["auto", "require", "optional"])
async def test_a_flipped_byte_anywhere_is_silence_and_a_counter(policy: str) -> None:
    request = login()
    async with serving(provider(message_authenticator=policy)) as bed:
        with bed.client() as client:
            for at in range(len(request)):
                for mask in (1, 0x80, 0xFF):
                    client.send(request[:at] + bytes([request[at] ^ mask]) + request[at + 1 :])
                await bed.observer.until(lambda at=at: sum(bed.observer.drops.values()) == 3 * (at + 1))
            assert client.is_silent() and bed.observer.answers == [] and bed.gate.asked == []
            assert (await client.ask(request))[0] == Code.ACCESS_ACCEPT


def unsigned(extra: bytes = b"", identifier: int = 1) -> bytes:
    return login(sign=False, extra=extra, identifier=identifier)


EAP = encode_attribute(79, b"\2\7\0\4")
PROXIED = encode_attribute(33, b"via")
STATUS = encode_request(12, 9, bytes(range(16)), PROXIED, SharedSecret(SECRET))
NO_STATUS = encode_request(12, 9, bytes(range(16)), b"", SharedSecret(SECRET), sign=False)
LAST_BODY = oracle.attribute(1, b"alice") + oracle.attribute(2, bytes(16))
LAST = oracle.request(1, 3, bytes(16), LAST_BODY, SECRET, last=True)


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
@pytest.mark.parametrize("policy", ["auto", "require", "optional"])
async def test_message_authenticator_matrix_over_the_wire(policy: str, host: str, source: str) -> None:
    """Every reply begins with a valid Message-Authenticator (`ask` looks); silence has a counter and a line."""
    wrong, missing, none = DropReason.BAD_MESSAGE_AUTHENTICATOR, DropReason.MISSING_MESSAGE_AUTHENTICATOR, None
    absent = missing if policy == "require" else none
    carrier = {"auto": DropReason.PROXY_STATE_WITHOUT_MESSAGE_AUTHENTICATOR, "require": missing, "optional": none}
    cases: list[tuple[bytes, DropReason | None, int, bytes]] = [
        (login(), none, Code.ACCESS_ACCEPT, b""),
        (login(extra=PROXIED), none, Code.ACCESS_ACCEPT, PROXIED),
        (LAST, none, Code.ACCESS_REJECT, b""),
        (login(password="wrong", extra=PROXIED), none, Code.ACCESS_REJECT, PROXIED),
        (login("carol", extra=PROXIED), none, Code.ACCESS_CHALLENGE, PROXIED),
        (login(extra=EAP + PROXIED), none, Code.ACCESS_REJECT, PROXIED),
        (CHAP, none, Code.ACCESS_REJECT, b""),
        (STATUS, none, Code.ACCESS_ACCEPT, PROXIED),
        (login()[:30] + bytes([login()[30] ^ 1]) + login()[31:], wrong, 0, b""),
        (login(secret=b"another"), wrong, 0, b""),
        (unsigned(), absent, Code.ACCESS_ACCEPT, b""),
        (login("carol", sign=False), absent, Code.ACCESS_CHALLENGE, b""),
        (login(password="wrong", sign=False), absent, Code.ACCESS_REJECT, b""),
        (unsigned(PROXIED), carrier[policy], Code.ACCESS_ACCEPT, PROXIED),
        (unsigned(EAP), DropReason.EAP_WITHOUT_MESSAGE_AUTHENTICATOR, 0, b""),
        (NO_STATUS, DropReason.STATUS_WITHOUT_MESSAGE_AUTHENTICATOR, 0, b""),
    ]
    async with serving(provider(message_authenticator=policy), host="::") as bed:
        bed.gate.users["carol"], bed.gate.codes["carol"] = b"wonderland", b"123456"
        told: dict[DropReason, int] = {}
        for data, drop, code, echoed in cases:
            with bed.client(host, source) as client:
                if drop is None:
                    reply = await client.ask(data)
                    assert reply[0] == code and reply.endswith(echoed)
                    continue
                told[drop] = told.get(drop, 0) + 1
                client.send(data)
                await bed.observer.until(lambda drop=drop: bed.observer.drops[drop] == told[drop])
                assert client.is_silent()
        assert bed.observer.drops == told
        assert bed.observer.notices == [(drop, "app-1", source, 0) for drop in told]


async def test_no_request_is_lost_of_a_device_that_signs_one_and_not_the_next() -> None:
    async with serving() as bed:
        with bed.client() as client:
            for number in range(200):
                request = login(sign=number % 3 == 0, identifier=number, authenticator=number.to_bytes(16))
                assert (await client.ask(request))[0] == Code.ACCESS_ACCEPT
        assert not bed.observer.drops and len(bed.gate.asked) == 200


async def test_an_unreachable_backend_is_silence_and_a_retransmission_is_tried_again() -> None:
    async with serving() as bed:
        bed.gate.down = True
        with bed.client() as client:
            client.send(login())
            await bed.observer.until(lambda: bed.observer.drops[DropReason.UNAVAILABLE] == 1)
            assert client.is_silent() and bed.observer.answers == []
            bed.gate.down = False
            assert (await client.ask(login()))[0] == Code.ACCESS_ACCEPT


async def test_a_bug_in_the_gate_is_silence() -> None:
    async with serving() as bed:
        with bed.client() as client:
            client.send(login("bug"))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.INTERNAL] == 1)
            assert client.is_silent() and len(bed.observer.failures) == 1
            assert (await client.ask(login()))[0] == Code.ACCESS_ACCEPT
        bed.observer.failures.clear()


@pytest.mark.parametrize(
    "request_",
    [
        CHAP,
        login(extra=encode_attribute(26, (311).to_bytes(4, "big") + b"\x19\x34" + bytes(50))),
        login(extra=encode_attribute(79, b"\2\7\0\4")),
    ],
)
async def test_methods_that_need_a_clear_password_are_refused_at_once_without_a_guess(request_: bytes) -> None:
    async with serving(provider(reject_delay_s=5.0)) as bed:
        with bed.client() as client:
            begun = asyncio.get_running_loop().time()
            reply = await client.ask(request_)
            assert asyncio.get_running_loop().time() < begun + 4
            assert reply[0] == Code.ACCESS_REJECT
            assert (79, b"\4\7\0\4") in (oracle.attributes(reply) or []) or b"\2\7\0\4" not in request_
        assert bed.gate.asked == [] and bed.observer.answers[0][5] == "unsupported_method"


@pytest.mark.parametrize("name", [b"", b"al\0ice", b"\xff\xfe"])
async def test_names_that_are_none_are_refused_without_asking(name: bytes) -> None:
    data = oracle.attribute(1, name) + oracle.attribute(2, oracle.hide(b"wonderland", SECRET, bytes(16)))
    async with serving() as bed:
        with bed.client() as client:
            assert (await client.ask(oracle.request(1, 1, bytes(16), data, SECRET)))[0] == Code.ACCESS_REJECT
        assert bed.gate.asked == []


async def test_a_password_that_is_no_text_is_refused_without_asking() -> None:
    """What another shared secret on an unsigned request looks like."""
    async with serving() as bed:
        with bed.client() as client:
            body = oracle.attribute(1, b"alice") + oracle.attribute(2, oracle.hide(b"\xff\xfe", SECRET, bytes(16)))
            assert (await client.ask(oracle.request(1, 1, bytes(16), body, SECRET, sign=False)))[0] == 3
        assert bed.gate.asked == []


async def test_a_reject_is_held_back_and_an_accept_is_not() -> None:
    async with serving(provider(reject_delay_s=0.2)) as bed:
        loop = asyncio.get_running_loop()
        with bed.client() as client:
            begun = loop.time()
            assert (await client.ask(login(password="wrong")))[0] == Code.ACCESS_REJECT
            assert loop.time() - begun >= 0.19
            assert (await client.ask(login(identifier=2)))[0] == Code.ACCESS_ACCEPT
        assert bed.observer.answers[0][6] < 0.15


@pytest.mark.parametrize(
    ("host", "asked"), [("0.0.0.0", "127.0.0.7"), ("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.9"), ("::", "::1")]
)
async def test_the_reply_comes_from_the_address_that_was_asked(host: str, asked: str) -> None:
    async with serving(host=host) as bed:
        source = "::1" if ":" in asked else "127.0.0.1"
        with bed.client(asked, source) as client:
            # `ask` compares the reply's source with the address asked.
            assert (await client.ask(login()))[0] == Code.ACCESS_ACCEPT
        bed.gate.cached.add("alice")
        with bed.client(asked, source) as client:
            assert (await client.ask(login(identifier=2)))[0] == Code.ACCESS_ACCEPT
        assert [told[3] for told in bed.observer.answers] == [source, source]


async def test_two_providers_with_one_secret_are_each_served_by_their_own_policy() -> None:
    strict = provider(1, "127.0.0.1/32", message_authenticator="require")
    lenient = provider(2, "127.0.0.0/8", message_authenticator="optional")
    async with serving(strict, lenient) as bed:
        with bed.client(source="127.0.0.2") as client:
            assert (await client.ask(login(sign=False)))[0] == Code.ACCESS_ACCEPT
        with bed.client(source="127.0.0.1") as client:
            client.send(login(sign=False))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.MISSING_MESSAGE_AUTHENTICATOR] == 1)
            assert (await client.ask(login()))[0] == Code.ACCESS_ACCEPT
        assert [pk for pk, _, _ in bed.gate.asked] == [2, 1]


async def test_a_login_of_a_provider_that_is_gone_is_not_answered() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            client.send(login())
            await asyncio.sleep(0)
            while not bed.gate.asked:
                await asyncio.sleep(0.001)
            bed.server.serve([provider(secret=b"rotated")])
            bed.gate.hold.set()
            await bed.observer.until(lambda: bed.observer.drops[DropReason.PROVIDER_GONE] == 1)
            assert client.is_silent()
            bed.server.serve([])
            client.send(login())
            await bed.observer.until(lambda: bed.observer.drops[DropReason.UNKNOWN_CLIENT] == 1)


async def test_two_hundred_slow_logins_delay_nobody_else() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        bed.gate.cached.add("alice")
        with bed.client() as slow, bed.client() as client:
            for identifier in range(200):
                slow.send(login("bob", identifier=identifier))
            for identifier in range(50):
                assert (await client.ask(login(identifier=identifier)))[0] == Code.ACCESS_ACCEPT
            assert bed.server.pending == 200
            bed.gate.hold.set()
            answered = {(await slow.receive())[0][1] for _ in range(200)}
            assert answered == set(range(200)) and slow.is_silent()


async def test_stop_ends_what_is_under_way_without_an_answer() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            client.send(login())
            while not bed.gate.asked:
                await asyncio.sleep(0.001)
            await bed.server.stop()
            await bed.server.stop()
            assert bed.observer.answers == [] and bed.observer.drops == {DropReason.STOPPING: 1}


async def test_stop_lets_a_login_finish_within_its_time() -> None:
    async with serving() as bed:
        bed.gate.hold.clear()
        with bed.client() as client:
            client.send(login())
            while not bed.gate.asked:
                await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.05, bed.gate.hold.set)
            await bed.server.stop(drain_s=10)
            assert (await client.receive())[0][0] == Code.ACCESS_ACCEPT


async def test_status_server_tells_the_truth_about_health() -> None:
    status = encode_request(12, 3, bytes(range(16)), encode_attribute(33, b"via"), SharedSecret(SECRET))
    ready = True
    async with serving(is_ready=lambda: ready) as bed:
        with bed.client() as client:
            reply = await client.ask(status)
            assert reply[0] == Code.ACCESS_ACCEPT and (oracle.attributes(reply) or [])[1:] == [(33, b"via")]
            ready = False
            client.send(encode_request(12, 4, bytes(16), b"", SharedSecret(SECRET)))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.NOT_READY] == 1)
            assert client.is_silent()
        assert bed.gate.asked == []


@pytest.mark.parametrize(
    ("wide", "narrow", "host", "source"),
    [("127.0.0.0/24", "127.0.0.254/32", "127.0.0.1", "127.0.0.254"), ("::/0", "::1/128", "::1", "::1")],
)
async def test_overlapping_networks_never_mix_their_secrets(wide: str, narrow: str, host: str, source: str) -> None:
    providers = [provider(1, wide, b"wide"), provider(2, narrow, b"narrow", message_authenticator="require")]
    async with serving(*providers, host="::") as bed:
        bed.gate.cached.add("alice")
        with bed.client(host, source) as client:
            for number in range(2000):
                if number % 100 == 0:
                    bed.server.serve(providers if number % 200 else providers[::-1])
                authenticator = number.to_bytes(16, "big")
                request = login(identifier=number & 255, authenticator=authenticator, secret=b"narrow")
                assert (await client.ask(request, b"narrow"))[0] == Code.ACCESS_ACCEPT
            client.send(login(secret=b"wide"))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.BAD_MESSAGE_AUTHENTICATOR] == 1)
        assert {answer[2] for answer in bed.observer.answers} == {"app-2"} and len(bed.observer.answers) == 2000
