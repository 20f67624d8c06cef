"""Challenges, attributes, bypass, probes: what a reply says, over the wire."""

import asyncio
import contextlib
import dataclasses
import hashlib
from pathlib import Path

import pytest

from outpost._fastradius import SharedSecret, encode_request
from outpost.identity import ReplyAttributes
from outpost.radius.conversations import DEFAULTS as CONVERSATIONS
from outpost.radius.dictionary import load
from outpost.radius.observer import DropReason
from outpost.radius.packet import Code, encode_attribute
from outpost.radius.service import STATUS_PER_S
from tests import oracle_radius as oracle
from tests.radius.testbed import SECRET, Bed, login, provider, serving

CALL_CHECK = encode_attribute(6, b"\0\0\0\x0a")


def told(reply: bytes) -> list[tuple[int, bytes]]:
    found = oracle.attributes(reply)
    assert found is not None
    return found[1:]


async def prompted(bed: Bed, client: object, **keywords: object) -> bytes:
    """The State of a prompt."""
    bed.gate.codes["alice"] = b"123456"
    reply = await client.ask(login(**keywords))  # type: ignore[attr-defined]
    assert reply[0] == Code.ACCESS_CHALLENGE
    (number, state), message = told(reply)
    assert number == 24 and message == (18, b"Code, please")
    return encode_attribute(24, state)


async def test_a_code_is_asked_for_and_resumes_the_login() -> None:
    async with serving() as bed:
        with bed.client() as client:
            state = await prompted(bed, client)
            assert bed.observer.conversations == (1, 0, 1)
            reply = await client.ask(login(password="123456", extra=state, identifier=2, authenticator=bytes(16)))
            assert reply[0] == Code.ACCESS_ACCEPT
            assert bed.gate.resumed == [("alice", b"123456")] and bed.observer.conversations == (1, 0, 0)
            again = await client.ask(login(password="123456", extra=state, identifier=2, authenticator=bytes(16)))
            assert again == reply and len(bed.gate.resumed) == 1


@pytest.mark.slow
async def test_sixty_five_thousand_challenges_over_the_wire_are_bounded_expired_and_counted() -> None:
    moment = [1000.0]
    async with serving(clock=lambda: moment[0]) as bed:
        bed.gate.codes["alice"] = b"123456"
        with contextlib.ExitStack() as stack:
            for _ in range(256):
                client = stack.enter_context(bed.client())
                for start in range(0, 256, 64):
                    for identifier in range(start, start + 64):
                        client.send(login(identifier=identifier))
                    for _ in range(64):
                        assert (await client.receive())[0][0] == Code.ACCESS_CHALLENGE
        assert bed.observer.conversations == (65536, 65536 - CONVERSATIONS.pending, CONVERSATIONS.pending)
        moment[0] += CONVERSATIONS.lifetime_s
        while bed.observer.conversations[2]:
            await asyncio.sleep(0.1)
        assert bed.observer.conversations == (65536, 65536, 0) and bed.server.pending == 0


async def test_a_conversation_may_have_several_rounds_each_with_a_state_of_its_own() -> None:
    async with serving() as bed:
        bed.gate.codes["alice"], bed.gate.rounds = b"123456", 3
        with bed.client() as client:
            state, states = await prompted(bed, client), []
            for number in range(2, 5):
                states.append(state)
                reply = await client.ask(login(password="123456", extra=state, identifier=number))
                assert reply[0] == (Code.ACCESS_CHALLENGE if number < 4 else Code.ACCESS_ACCEPT)
                state = encode_attribute(24, dict(told(reply)).get(24, b""))
            assert len(set(states)) == 3 and len(bed.gate.asked) == 1 and len(bed.gate.resumed) == 3
            for number, spent in enumerate(states, 5):
                assert (await client.ask(login(password="123456", extra=spent, identifier=number)))[0] == 3
        assert bed.observer.conversations == (3, 0, 0)


async def test_a_wrong_code_is_refused_and_spends_the_prompt() -> None:
    async with serving() as bed:
        with bed.client() as client:
            state = await prompted(bed, client)
            for identifier, password in ((2, "000000"), (3, "123456")):
                assert (await client.ask(login(password=password, extra=state, identifier=identifier)))[0] == 3
            assert bed.gate.resumed == [("alice", b"000000")]
            assert [answer[5] for answer in bed.observer.answers] == ["", "code_invalid", "flow_error"]


async def test_a_prompt_is_for_one_user_and_one_device() -> None:
    async with serving() as bed:
        bed.gate.users["bob"] = b"123456"
        with bed.client() as client, bed.client(source="127.0.0.2") as other:
            state = await prompted(bed, client)
            assert (await client.ask(login("bob", "123456", extra=state, identifier=2)))[0] == Code.ACCESS_REJECT
            state = await prompted(bed, client, identifier=3)
            assert (await other.ask(login(password="123456", extra=state, identifier=4)))[0] == Code.ACCESS_REJECT
            invented = encode_attribute(24, bytes(16))
            assert (await client.ask(login(password="wonderland", extra=invented, identifier=5)))[0] == 3
        assert bed.gate.resumed == [] and len(bed.gate.asked) == 2


async def test_a_prompt_carries_what_it_may_behind_its_own_message() -> None:
    async with serving() as bed:
        bed.gate.codes["alice"] = b"123456"
        bed.gate.attributes = ReplyAttributes(
            (("Filter-Id", "web"), ("Reply-Message", "hi"), ("Session-Timeout", "60"), ("Cisco-AVPair", "a=b"))
        )
        with bed.client() as client:
            reply = await client.ask(login())
            assert reply[0] == Code.ACCESS_CHALLENGE
            assert told(reply)[1:] == [
                (18, b"Code, please"),
                (18, b"hi"),
                (27, b"\0\0\0\x3c"),
                (26, b"\0\0\0\x09\x01\x05a=b"),
            ]
            bed.gate.attributes = ReplyAttributes((("Nope", "x"),))
            assert (await client.ask(login(identifier=2)))[0] == Code.ACCESS_REJECT
        assert bed.observer.answers[1][5] == "attribute_parse_failed"


async def test_without_challenges_a_missing_code_is_a_refusal() -> None:
    async with serving(provider(challenge=False)) as bed:
        bed.gate.codes["alice"] = b"123456"
        with bed.client() as client:
            assert (await client.ask(login()))[0] == Code.ACCESS_REJECT
        assert bed.observer.answers[0][5] == "code_required" and not bed.gate.asked[0][2].interactive


async def test_an_accept_carries_its_attributes_and_a_reject_only_what_it_may() -> None:
    async with serving() as bed:
        bed.gate.attributes = ReplyAttributes((("Filter-Id", "web"), ("Reply-Message", "hi")))
        with bed.client() as client:
            assert told(await client.ask(login())) == [(11, b"web"), (18, b"hi")]
            bed.gate.cached.add("alice")
            assert told(await client.ask(login(identifier=2))) == [(11, b"web"), (18, b"hi")]
            assert told(await client.ask(login(password="x", identifier=3))) == [(18, b"hi")]


async def test_attributes_that_cannot_be_sent_refuse_the_login() -> None:
    async with serving() as bed:
        with bed.client() as client:
            for identifier, attributes in enumerate(
                (ReplyAttributes((("Nope", "x"),)), ReplyAttributes(packet=b"nonsense"))
            ):
                bed.gate.attributes = attributes
                assert (await client.ask(login(identifier=identifier)))[0] == Code.ACCESS_REJECT
        reasons = [answer[5] for answer in bed.observer.answers]
        assert reasons == ["attribute_parse_failed", "attribute_decode_failed"]
        assert "Nope" in bed.observer.details[0]


async def test_attributes_of_the_operators_dictionary_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "dictionary.acme"
    path.write_text("VENDOR Acme 99999\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Rank 7 integer\nVALUE Acme-Rank Captain 2\n")
    async with serving(dictionary=load([path])) as bed:
        bed.gate.attributes = ReplyAttributes((("Acme-Rank", "Captain"),))
        with bed.client() as client:
            assert told(await client.ask(login())) == [(26, (99999).to_bytes(4, "big") + b"\x07\x06\0\0\0\2")]


async def test_a_reply_too_large_is_silence() -> None:
    async with serving() as bed:
        bed.gate.attributes = ReplyAttributes(tuple(("Filter-Id", "x" * 250) for _ in range(20)))
        with bed.client() as client:
            client.send(login())
            await bed.observer.until(lambda: bed.observer.drops[DropReason.REPLY_TOO_LARGE] == 1)
            assert client.is_silent()


async def test_class_is_a_handle_of_the_session_unless_the_mapping_has_its_own() -> None:
    async with serving() as bed:
        bed.gate.session = "core-session-key"
        with bed.client() as client:
            first, second = [told(await client.ask(login(identifier=n))) for n in (1, 2)]
            assert first == second and first[0][0] == 25 and first[0][1].startswith(b"outpost:")
            assert b"core-session" not in first[0][1]
            bed.gate.session = "another"
            assert told(await client.ask(login(identifier=3))) != first
            bed.gate.attributes = ReplyAttributes((("Class", "OU=staff;"),))
            assert told(await client.ask(login(identifier=4))) == [(25, b"OU=staff;")]


@pytest.mark.parametrize(
    ("name", "switch", "asked"),
    [
        ("alice@example.org", True, "alice"),
        ("EXAMPLE\\alice", True, "alice"),
        ("alice@example.org", False, "alice@example.org"),
    ],
)
async def test_realms_are_stripped_on_a_switch(name: str, switch: bool, asked: str) -> None:
    async with serving(provider(strip_realm=switch)) as bed:
        with bed.client() as client:
            assert (await client.ask(login(name)))[0] == (2 if switch else 3)
        assert bed.gate.asked[0][1] == asked


@pytest.mark.parametrize(
    ("name", "password", "extra", "code"),
    [
        ("00-00-5E-00-53-01", "00005e005301", b"", 2),
        ("00005e005301", "00005e005301", b"", 2),
        ("00005e005301", "whatever", CALL_CHECK, 2),
        ("00005e005302", "00005e005302", b"", 3),
        ("00005e005302", "whatever", CALL_CHECK, 3),
        ("alice", "wonderland", CALL_CHECK, 3),
        ("00005e005301", "00005e005301", encode_attribute(31, b"00-00-5E-00-53-02"), 3),
        ("00005e005301", "00005e005301", encode_attribute(31, b"00-00-5E-00-53-01"), 2),
    ],
)
async def test_mac_bypass_follows_the_list_and_asks_nobody(name: str, password: str, extra: bytes, code: int) -> None:
    async with serving(provider(mac_addresses=("00:00:5e:00:53:01",))) as bed:
        with bed.client() as client:
            assert (await client.ask(login(name, password, extra=extra)))[0] == code
        assert bed.gate.asked == []


VLAN = ("Tunnel-Type=VLAN", "Tunnel-Medium-Type = IEEE-802", "Tunnel-Private-Group-Id=42", "Filter-Id=a=b")


@pytest.mark.parametrize("extra", [b"", CALL_CHECK])
async def test_an_admitted_device_gets_the_attributes_set_for_it_and_others_do_not(extra: bytes) -> None:
    async with serving(provider(mac_addresses=("00:00:5e:00:53:01",), mac_attributes=VLAN)) as bed:
        with bed.client() as client:
            assert told(await client.ask(login("00005e005301", "00005e005301", extra=extra))) == [
                (64, b"\0\0\0\x0d"),
                (65, b"\0\0\0\x06"),
                (81, b"42"),
                (11, b"a=b"),
            ]
            refused = await client.ask(login("00005e005302", "00005e005302", extra=extra, identifier=2))
            assert refused[0] == Code.ACCESS_REJECT and told(refused) == []
            bed.gate.cached.add("alice")
            assert told(await client.ask(login(identifier=3))) == []


async def test_a_device_whose_attributes_cannot_be_sent_is_refused_and_the_operator_told() -> None:
    flawed = provider(mac_addresses=("00:00:5e:00:53:01",), mac_attributes=("Nope=1", "Tunnel-Type=Tube"))
    async with serving() as bed:
        flaws = [str(flaw) for flaw in bed.server.serve([flawed])]
        assert len(flaws) == 2 and "mac_attributes: the dictionary has no attribute Nope" in flaws[0]
        with bed.client() as client:
            assert (await client.ask(login("00005e005301", "00005e005301")))[0] == Code.ACCESS_REJECT
        assert bed.observer.answers[0][5] == "attribute_parse_failed"


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        ("00-00-5E-00-53-01", "00-00-5E-00-53-01", 2),
        ("00005e005301", "00005e005301", 2),
        ("00005e005302", "00005e005302", 3),
        ("00005e005301", "00005e005302", 3),
        ("alice", "alice", 3),
    ],
)
async def test_mac_bypass_by_chap_needs_the_address_as_its_password(name: str, password: str, code: int) -> None:
    challenge = bytes(range(40, 56))
    response = b"\7" + hashlib.md5(b"\7" + password.encode() + challenge).digest()
    body = encode_attribute(1, name.encode()) + encode_attribute(3, response) + encode_attribute(60, challenge)
    async with serving(provider(mac_addresses=("00:00:5e:00:53:01",))) as bed:
        with bed.client() as client:
            assert (await client.ask(encode_request(1, 1, bytes(16), body, SharedSecret(SECRET))))[0] == code
        assert bed.gate.asked == []


@pytest.mark.parametrize("is_cached", [True, False])
async def test_the_device_is_told_who_was_accepted_on_a_switch(is_cached: bool) -> None:
    for switch, told_name in ((True, [(1, b"alice")]), (False, [])):
        async with serving(provider(strip_realm=True, return_user_name=switch)) as bed:
            if is_cached:
                bed.gate.cached.add("alice")
            with bed.client() as client:
                assert told(await client.ask(login("EXAMPLE\\alice"))) == told_name
                assert told(await client.ask(login(identifier=2, password="wrong"))) == []
                bed.gate.attributes = ReplyAttributes((("User-Name", "bob"),))
                assert told(await client.ask(login(identifier=3))) == [(1, b"bob")]


@pytest.mark.parametrize("is_cached", [True, False])
async def test_rfc4372_a_chargeable_user_identity_is_given_to_devices_that_ask(is_cached: bool) -> None:
    asked = encode_attribute(89, b"\0")
    async with serving() as bed:
        bed.gate.users["bob"] = b"wonderland"
        if is_cached:
            bed.gate.cached |= {"alice", "bob"}
        with bed.client() as client:
            first, again, bobs = [
                told(await client.ask(login(name, extra=asked, identifier=n)))
                for n, name in enumerate(("alice", "alice", "bob"))
            ]
            assert first == again and first[0][0] == 89 and len(first[0][1]) == 32 and b"alice" not in first[0][1]
            assert len(bobs) == 1 and bobs != first
            assert told(await client.ask(login(identifier=3))) == []
            assert told(await client.ask(login(identifier=4, extra=asked, password="wrong"))) == []
            bed.gate.attributes = ReplyAttributes((("Chargeable-User-Identity", "own"),))
            assert told(await client.ask(login(identifier=5, extra=asked))) == [(89, b"own")]


async def test_a_listed_address_with_another_password_is_an_ordinary_login() -> None:
    async with serving(provider(mac_addresses=("00:00:5e:00:53:01",))) as bed:
        with bed.client() as client:
            assert (await client.ask(login("00005e005301", "wonderland")))[0] == Code.ACCESS_REJECT
        assert len(bed.gate.asked) == 1


async def test_without_a_list_no_address_is_admitted() -> None:
    async with serving() as bed:
        with bed.client() as client:
            assert (await client.ask(login("00005e005301", "00005e005301", extra=CALL_CHECK)))[0] == 3
        assert bed.gate.asked == []


async def test_a_provider_with_a_bad_list_is_not_served() -> None:
    async with serving() as bed:
        (flaw,) = bed.server.serve([provider(mac_addresses=("nonsense",))])
        assert "mac_addresses" in str(flaw)
        for wrong in ("Tunnel-Type", "=13", "Tunnel-Type="):
            (flaw,) = bed.server.serve([provider(mac_attributes=(wrong,))])
            assert "not served: mac_attributes: expected Name=value" in str(flaw)


async def test_the_probe_user_is_refused_at_once_without_asking() -> None:
    async with serving(provider(probe_user="probe", reject_delay_s=5.0)) as bed:
        with bed.client() as client:
            begun = asyncio.get_running_loop().time()
            assert (await client.ask(login("probe", "whatever")))[0] == Code.ACCESS_REJECT
            assert asyncio.get_running_loop().time() < begun + 4
        assert bed.gate.asked == []


async def test_status_server_is_limited_per_address() -> None:
    async with serving(clock=lambda: 5.0) as bed:
        with bed.client() as client, bed.client(source="127.0.0.2") as other:
            for number in range(STATUS_PER_S + 5):
                client.send(encode_request(12, number & 255, number.to_bytes(16), b"", SharedSecret(SECRET)))
            await bed.observer.until(lambda: bed.observer.drops[DropReason.RATE_LIMITED] == 5)
            reply = await other.ask(encode_request(12, 1, bytes(16), b"", SharedSecret(SECRET)))
            assert reply[0] == Code.ACCESS_ACCEPT


async def test_status_server_may_be_answered_whatever_the_health() -> None:
    async with serving(provider(status_server_requires_health=False), is_ready=lambda: False) as bed:
        with bed.client() as client:
            assert (await client.ask(encode_request(12, 1, bytes(16), b"", SharedSecret(SECRET))))[0] == 2


async def test_the_calling_station_reaches_the_backend() -> None:
    async with serving() as bed:
        with bed.client() as client:
            await client.ask(login(extra=encode_attribute(31, b"00-00-5E-00-53-01")))
        source = bed.gate.asked[0][2]
        assert source == dataclasses.replace(source, calling_station="00-00-5E-00-53-01", interactive=True)
