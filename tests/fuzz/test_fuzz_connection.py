"""The LDAP server among two hundred hostile connections: nobody is let in or told anything without a password, and
whoever behaves is answered right all the while."""

import asyncio
import gc
import random

import pytest
import uvloop

from outpost.ldap.entries import Directory
from tests.fuzz.hostile_ldap import (
    BIND_RESPONSE,
    DONE,
    ENTRY,
    EXTENDED_RESPONSE,
    SERVICE,
    Ledger,
    Storm,
    resident,
    user_dn,
)
from tests.ldap import decode, encode
from tests.ldap.generate import Questions
from tests.ldap.testbed import bed, people, provider


async def storm(requests: int, seed: int) -> Storm:
    questions = Questions(random.Random(seed), list(Directory(people(20), provider()).entries()))
    async with bed() as served:
        found = Storm(served, questions, requests, seed=seed)
        await found.run()
        return found


def run(requests: int, seed: int) -> Storm:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(storm(requests, seed))


def check(found: Storm) -> None:
    met = found.met
    assert found.sent >= found.requests
    # Neither does the watcher wait for the storm to pass, nor does everything end in refusals.
    assert found.rounds > 10 and found.refreshes > 10
    assert met["let in"] > found.requests / 100 and met["entries"] > found.requests / 100
    assert met["answers"] > found.requests / 3 and met["handshake"] > 10
    kinds = ("pipeline", "controls", "extended", "storm", "noise", "truncate", "trickle", "injected", "do_not_read")
    assert min(met[kind] for kind in kinds) > 5, met


def test_two_hundred_hostile_connections() -> None:
    check(run(20_000, 1))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_hostile_requests() -> None:
    check(run(100_000, 2))
    gc.collect()
    before = resident()
    for seed in range(3, 13):
        check(run(100_000, seed))
    gc.collect()
    grown = resident() - before
    print(f"grown by {grown / 2**20:.1f} MiB from {before / 2**20:.1f}")
    assert grown < 8 << 20


# -- the judge ------------------------------------------------------------------------------------


def result(tag: int, number: int, code: int, *more: bytes) -> decode.Message:
    content = (encode.integer(code, 0x0A), encode.octets(b""), encode.octets(b""), *more)
    [found] = decode.messages(encode.message(number, encode.tlv(tag, *content)))
    return found


def entry(dn: str) -> decode.Message:
    [found] = decode.messages(encode.message(9, encode.tlv(ENTRY, encode.octets(dn), encode.tlv(0x30))))
    return found


def ledger(who: str | None = None) -> Ledger:
    return Ledger(who, right={1: "alice"}, anonymous={2}, open={1, 2, 3, 9})


NAME = encode.octets(b"dn:" + user_dn("alice").encode(), 0x8B)
OTHER = encode.octets(b"dn:" + user_dn("bob").encode(), 0x8B)
NOTICE = encode.octets(b"1.3.6.1.4.1.1466.20036", 0x8A)


def test_what_is_right_passes() -> None:
    told = ledger()
    told.told(result(BIND_RESPONSE, 1, 0))
    assert told.who == "alice"
    told.told(entry(user_dn("alice")))
    told.told(result(EXTENDED_RESPONSE, 9, 0, NAME))
    told.told(result(BIND_RESPONSE, 2, 0))
    assert told.who is None
    told.told(result(BIND_RESPONSE, 3, 49))
    told.told(result(EXTENDED_RESPONSE, 0, 2, NOTICE))
    assert told.is_over and not told.open
    root = ledger()
    root.told(entry(""))
    service = ledger(SERVICE)
    service.told(entry(user_dn("bob")))


@pytest.mark.parametrize(
    ("who", "message"),
    [
        (None, result(BIND_RESPONSE, 3, 0)),
        (None, entry(user_dn("alice"))),
        (None, entry("cn=subschema")),
        ("alice", entry(user_dn("bob"))),
        (None, result(EXTENDED_RESPONSE, 9, 0, NAME)),
        ("alice", result(EXTENDED_RESPONSE, 9, 0, OTHER)),
        (None, result(0x6F, 9, 6)),
        (None, result(0x6F, 9, 5)),
        ("alice", result(DONE, 9, 80)),
        ("alice", result(DONE, 4, 0)),
        ("alice", result(DONE, 0, 0)),
        ("alice", result(0x63, 9, 0)),
    ],
)
def test_what_is_wrong_is_seen(who, message) -> None:
    with pytest.raises(AssertionError):
        ledger(who).told(message)


def test_nothing_comes_behind_a_notice() -> None:
    told = ledger("alice")
    told.told(result(EXTENDED_RESPONSE, 0, 2, NOTICE))
    with pytest.raises(AssertionError):
        told.told(result(DONE, 9, 0))


def test_an_answer_twice_is_seen() -> None:
    told = ledger("alice")
    told.told(result(DONE, 9, 0))
    with pytest.raises(AssertionError):
        told.told(result(DONE, 9, 0))
