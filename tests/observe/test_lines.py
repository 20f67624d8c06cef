"""Lines rendered in C: as orjson writes them, in order, bounded."""

import datetime
import json
import threading

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.observe._lines import Lines


def made(pending: int = 100) -> Lines:
    return Lines(pending, lambda: None)


def taken(lines: Lines) -> bytes:
    found = b""
    while (one := lines.take()) is not None:
        assert isinstance(one[0], bytes)
        found += one[0]
    return found


def rendered(at: float = 0.0, **fields: str | int | float) -> bytes:
    lines = made()
    lines.write(tuple(fields.items()), at)
    return taken(lines)


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_texts_and_numbers_are_as_orjson_has_them(text: str, number: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert rendered(a=text, b=number) == orjson.dumps({"a": text, "b": number}, option=orjson.OPT_APPEND_NEWLINE)


def test_every_ascii_character_is_escaped_as_it_has_to_be() -> None:
    text = "".join(map(chr, range(128)))
    assert rendered(a=text) == orjson.dumps({"a": text}) + b"\n"


def test_a_text_that_is_none_is_shown_as_escapes() -> None:
    assert json.loads(rendered(a="x\udc80y")) == {"a": "x\\udc80y"}


@given(st.floats(0, 1e6))
def test_seconds_become_milliseconds(seconds: float) -> None:
    line = rendered(took=seconds)
    value = json.loads(line)["took"]
    assert value == pytest.approx(round(seconds * 1000, 3), abs=0.0011)
    assert line == orjson.dumps({"took": value}) + b"\n", "the shortest form"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, b"0.0"), (0.001, b"1.0"), (0.0015, b"1.5"), (1e-6, b"0.001"), (12.3456784, b"12345.678"), (-0.002, b"-2.0")],
)
def test_milliseconds_have_three_digits_at_most(seconds: float, text: bytes) -> None:
    assert rendered(took=seconds) == b'{"took":' + text + b"}\n"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300])
def test_what_is_no_duration_is_a_number_all_the_same(seconds: float) -> None:
    assert rendered(took=seconds) == b'{"took":0.0}\n'


@given(st.floats(0, 4e9))
def test_timestamps_are_rfc_3339(at: float) -> None:
    stamp = json.loads(rendered(at, timestamp=""))["timestamp"]
    millisecond = int(at * 1000)
    when = datetime.datetime.fromtimestamp(millisecond // 1000, datetime.UTC)
    assert stamp == f"{when:%Y-%m-%dT%H:%M:%S}.{millisecond % 1000:03d}Z".zfill(24)


def test_a_remembered_clock_moves_on() -> None:
    lines = made()
    for at in (1700000000.25, 1700000000.2509, 1700000000.999, 1700000001.0, 1700000000.25):
        lines.write((("timestamp", ""),), at)
    stamps = [json.loads(line)["timestamp"] for line in taken(lines).splitlines()]
    assert [stamp[17:] for stamp in stamps] == ["20.250Z", "20.250Z", "20.999Z", "21.000Z", "20.250Z"]


def test_lines_of_both_kinds_keep_their_order() -> None:
    lines = made()
    for number in range(3):
        lines.write((("n", number),), 0)
    lines.put("other")
    lines.write((("n", 3),), 0)
    assert lines.waiting == 5
    assert lines.take() == (b'{"n":0}\n{"n":1}\n{"n":2}\n', 3)
    assert lines.take() == ("other", 1)
    assert lines.take() == (b'{"n":3}\n', 1)
    assert lines.take() is None
    assert lines.waiting == 0


def test_no_more_wait_than_may_and_what_is_lost_is_counted() -> None:
    lines = made(pending=2)
    lines.write((("n", 0),), 0)
    lines.put("other")
    lines.write((("n", 1),), 0)
    lines.put("another")
    assert (lines.waiting, lines.dropped) == (2, 2)
    lines.take()
    lines.put("another")
    lines.drop(5)
    assert (lines.waiting, lines.dropped) == (2, 7)


def test_the_writer_is_woken_once_per_sleep() -> None:
    woken: list[int] = []
    lines = Lines(100, lambda: woken.append(1))
    for _ in range(3):
        lines.write((("n", 0),), 0)
        lines.put("other")
    assert len(woken) == 1
    while lines.take() is not None:
        pass
    lines.put("other")
    assert len(woken) == 2


def test_a_field_of_another_type_is_refused_and_leaves_nothing() -> None:
    lines = made()
    for wrong in (None, 2**63, b"1"):
        with pytest.raises((TypeError, OverflowError)):
            lines.write((("a", "1"), ("b", wrong)), 0)  # type: ignore[arg-type]
    assert lines.take() is None
    lines.write((("a", "1"),), 0)
    assert lines.take() == (b'{"a":"1"}\n', 1)


def test_a_large_buffer_is_given_back_and_grows_again() -> None:
    lines = made(10_000)
    for _ in range(2):
        for number in range(3000):
            lines.write((("filler", "x" * 200), ("n", number)), 0)
        found = taken(lines).splitlines()
        assert [json.loads(line)["n"] for line in found] == list(range(3000))


def test_lines_of_several_threads_stay_whole() -> None:
    lines = made(1_000_000)
    threads = [
        threading.Thread(target=lambda: [lines.write((("a", "b" * 50), ("n", n)), 1e9) for n in range(5000)])
        for _ in range(4)
    ]
    found = b""
    for one in threads:
        one.start()
    while any(one.is_alive() for one in threads):
        found += taken(lines)
    found += taken(lines)
    assert len([json.loads(line) for line in found.splitlines()]) == 20_000
    assert lines.dropped == 0
