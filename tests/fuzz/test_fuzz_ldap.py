"""Hostile octets against the LDAP codec: judged as the oracle judges them, and memory is bounded."""

import os
import pathlib
import random
from collections import Counter

import pytest

from outpost import _fastber as core
from outpost._fastber import Inbox, Limits, SearchRequest, decode_message
from outpost.app.decode_ldap import describe
from outpost.errors import DecodeError, LimitExceeded
from outpost.ldap.filter import filter_text, parse_filter
from tests import noise_ber as noise
from tests import oracle_ber as oracle

WIDE = Limits()
TIGHT = Limits(message=200, controls=1, filter_depth=3, filter_terms=4, substrings=2, attributes=2)
ERRORS = (DecodeError, LimitExceeded)


def judge(data: bytes, limits: Limits) -> object:
    """What the core makes of one message, after checking that the oracle makes the same of it."""
    try:
        expected: object = oracle.decode_message(data, limits)
    except ERRORS as error:
        expected = type(error)
    try:
        request = decode_message(data, limits)
    except ERRORS as error:
        assert type(error) is expected, data.hex()
        return expected
    assert oracle.components(request) == expected, data.hex()
    if isinstance(request, SearchRequest):
        # Lone octets may make the text longer than a filter may be.
        text = filter_text(request.filter, 100)
        assert text.isprintable() and len(text) <= 101
    if request.op in oracle.RESPONSES:
        answer = oracle.message(request.message_id, oracle.result(oracle.RESPONSES[request.op], 80, b"", b"x"))
        assert request.result(80, b"", b"x") == answer
    return request


def flow(chance: random.Random, stream: bytes, limits: Limits) -> None:
    """An inbox gives what is in a stream, however it is sliced, and stops where the oracle does."""
    expected: list[object] = []
    at = 0
    try:
        while size := oracle.frame_size(stream[at:], limits.message):
            if size > len(stream) - at:
                break
            expected.append(oracle.decode_message(stream[at : at + size], limits))
            at += size
    except ERRORS as error:
        expected.append(type(error))
    inbox, found, fed = Inbox(limits), [], 0
    try:
        while fed < len(stream):
            some = stream[fed : fed + chance.choice((1, 5, 60, 300, 5000))]
            if chance.random() < 0.5:
                inbox.feed(some)
            else:
                view = inbox.buffer()
                view[: len(some)] = some = some[: len(view)]
                inbox.received(len(some))
            fed += len(some)
            while (request := inbox.next()) is not None:
                found.append(oracle.components(request))
        assert inbox.pending() == len(stream) - at
    except ERRORS as error:
        found.append(type(error))
        with pytest.raises(DecodeError):
            inbox.next()
    assert found == expected, stream.hex()


def run(count: int, seed: int) -> Counter[str]:
    chance = random.Random(seed)
    met: Counter[str] = Counter()
    batch: list[bytes] = []
    for number in range(count):
        data = noise.mutation(chance)
        limits = TIGHT if number % 4 == 0 else WIDE
        found = judge(data, limits)
        met[found.__name__ if isinstance(found, type) else type(found).__name__] += 1
        batch.append(data)
        if number % 16 == 15:
            chance.shuffle(batch)
            # Those that are whole come first, or most streams would end with their first message.
            batch.sort(key=lambda one: judge(one, WIDE) is DecodeError)
            flow(chance, b"".join(batch), limits)
            batch.clear()
        if number % 16 == 0:
            filter = noise.filter(chance)
            assert core.check_filter(filter, WIDE) is None
            judge_filter(noise.accident(chance, filter), limits)
        if number % 64 == 0:
            for text in (data, b"".join(batch)):
                try:
                    assert describe(text)
                except ERRORS:
                    met["described no further"] += 1
    return met


def judge_filter(filter: bytes, limits: Limits) -> None:
    results = []
    for check in (core.check_filter, oracle.check_filter):
        try:
            results.append(check(filter, limits))
        except ERRORS as error:
            results.append(type(error))
    assert results[0] == results[1], filter.hex()
    if results == [None, None]:
        text = filter_text(filter, 65_536)
        try:
            again = parse_filter(text)
        except DecodeError:
            # Attribute descriptions may hold octets that RFC 4515 has no way to write.
            return
        core.check_filter(again, WIDE)


EVERYTHING = {"BindRequest", "UnbindRequest", "SearchRequest", "CompareRequest", "AbandonRequest", "ExtendedRequest"}
EVERYTHING |= {"OtherRequest", "DecodeError", "LimitExceeded"}


def test_hostile_octets() -> None:
    met = run(20_000, 1)
    assert met.keys() >= EVERYTHING
    # Neither is everything refused, nor next to nothing.
    assert 4_000 < met["DecodeError"] < 16_000


def resident() -> int:
    """Octets of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_hostile_octet_strings() -> None:
    run(100_000, 2)
    before = resident()
    for seed in range(3, 13):
        assert run(100_000, seed).keys() >= EVERYTHING
    grown = resident() - before
    print(f"grown by {grown} octets")
    assert grown < 4 << 20
