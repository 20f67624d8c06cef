"""Log lines: form, level, and that nobody ever waits for them."""

import json
import os
import threading
import time

import pytest

from outpost.observe import logs
from outpost.observe.logs import LogWriter


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def finish(pipe: tuple[int, int], log: LogWriter) -> bytes:
    log.stop()
    log.stop()
    os.close(pipe[1])
    found = b""
    while octets := os.read(pipe[0], 65536):
        found += octets
    return found


def test_json_lines_have_the_known_keys(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True)
    log.put("info", "outpost.ldap", "Bind request", {"client": "192.0.2.1", "took-ms": 1.5})
    line = json.loads(finish(pipe, log))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "outpost.ldap",
        "event": "Bind request",
        "client": "192.0.2.1",
        "took-ms": 1.5,
    }


def test_fields_cannot_replace_the_known_keys_or_end_the_line(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True)
    log.put("info", "x", "one", {"event": "forged", "name": 'a\n{"event":"forged"}'})
    (line,) = finish(pipe, log).splitlines()
    assert json.loads(line)["event"] == "one"


def test_text_lines_stay_one_line(pipe) -> None:
    log = LogWriter(pipe[1], is_json=False)
    log.put("warning", "outpost.ldap", "odd", {"dn": "cn=a b\nforged", "n": 3})
    (line,) = finish(pipe, log).decode().splitlines()
    assert line.endswith('odd dn="cn=a b\\nforged" n=3')


def test_levels_below_the_threshold_are_not_rendered(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True, level="warning")
    assert not log.wants("info")
    log.put("info", "x", "no", lambda: pytest.fail("rendered"))
    log.put("error", "x", "yes", dict)
    assert [json.loads(line)["event"] for line in finish(pipe, log).splitlines()] == ["yes"]


def test_costly_fields_are_worked_out_by_the_writer(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True)
    log.put("info", "x", "search", lambda: {"thread": threading.current_thread().name})
    assert json.loads(finish(pipe, log))["thread"] == "log"


def test_what_nobody_writes_in_time_is_dropped_and_counted(pipe) -> None:
    log = LogWriter(pipe[1], is_json=False, pending=2)
    for n in range(3):
        log.put("info", "outpost.x", "one", {"n": n})
    assert log.dropped == 1
    lines = finish(pipe, log).decode().splitlines()
    assert [line.partition(" ")[2] for line in lines] == [f"info    x            one n={n}" for n in range(2)]


@pytest.mark.parametrize("name", ["ann", 'a"\n{', "\ud800x"])
def test_any_text_of_a_peer_is_told(pipe, name: str) -> None:
    log = LogWriter(pipe[1], is_json=True)
    log.put("info", "x", "one", {"username": name})
    assert json.loads(finish(pipe, log))["username"] == name.replace("\ud800", "\\ud800")


def test_text_that_is_none_in_utf_8_is_told_to_people_too(pipe) -> None:
    log = LogWriter(pipe[1], is_json=False)
    log.put("info", "x", "one", {"username": "\ud800x"})
    assert b"ud800x" in finish(pipe, log)


def test_a_line_that_cannot_be_rendered_is_told_and_the_next_is_written(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True)
    log.put("info", "x", "broken", lambda: {"n": 1 // 0})
    log.put("info", "x", "fine", {})
    assert [json.loads(line)["event"] for line in finish(pipe, log).splitlines()] == ["a log line failed", "fine"]


def test_a_reader_that_does_not_read_delays_nobody(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True, pending=100)
    begun = time.monotonic()
    for _ in range(5000):
        log.put("info", "x", "line", {"filler": "x" * 1000})
    assert time.monotonic() - begun < 5
    assert log.dropped > 4000
    drained = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(pipe[0], 65536), b"")])
    drained.start()
    log.stop()
    os.close(pipe[1])
    drained.join(5)


def test_a_reader_that_is_gone_is_survived() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = LogWriter(writer, is_json=True)
    log.put("info", "x", "line", {})
    log.stop()
    os.close(writer)
    assert log.dropped == 1


def test_what_libraries_log_arrives(pipe) -> None:
    import logging

    before = logging.getLogger().handlers[:]
    log = LogWriter(pipe[1], is_json=True)
    try:
        logs.configure(log)
        logging.getLogger("asyncio").error("one")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("library").exception("two")
    finally:
        logging.captureWarnings(False)
        logging.getLogger().handlers[:] = before
    lines = [json.loads(line) for line in finish(pipe, log).splitlines()]
    assert [(line["logger"], line["level"], line["event"]) for line in lines] == [
        ("asyncio", "error", "one"),
        ("library", "error", "two"),
    ]
    assert "ValueError" in lines[1]["traceback"]


def test_a_bug_has_an_identifier_and_its_traceback(pipe) -> None:
    log = LogWriter(pipe[1], is_json=True)
    identifier = log.bug("outpost.ldap", "a search failed", KeyError("x"))
    line = json.loads(finish(pipe, log))
    assert line["id"] == identifier
    assert "KeyError" in line["traceback"]


def test_every_line_of_a_batch_that_is_lost_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = LogWriter(writer, is_json=True)
    for _ in range(7):
        log.put("info", "x", "line", {})
    log.stop()
    os.close(writer)
    assert log.dropped == 7


def test_a_descriptor_that_does_not_block_loses_nothing(pipe) -> None:
    os.set_blocking(pipe[1], False)
    log = LogWriter(pipe[1], is_json=True)
    for number in range(2000):
        log.put("info", "x", "line", {"number": number, "filler": "x" * 200})
    found = bytearray()

    def drain() -> None:
        while octets := os.read(pipe[0], 65536):
            found.extend(octets)

    drained = threading.Thread(target=drain)
    drained.start()
    log.stop()
    os.close(pipe[1])
    drained.join(5)
    assert [json.loads(line)["number"] for line in found.splitlines()] == list(range(2000))
    assert log.dropped == 0


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1700000000.25, "2023-11-14T22:13:20.250Z"),
        (1700000000.9996, "2023-11-14T22:13:20.999Z"),
        (1709164800.0, "2024-02-29T00:00:00.000Z"),
    ],
)
def test_timestamps_are_rfc_3339_in_utc(at: float, text: str) -> None:
    line = json.loads(logs.render_json((at, "info", "x", "y", {"timestamp": "forged"})))
    assert line["timestamp"] == text


@pytest.mark.parametrize(
    ("context", "event", "kind"),
    [
        (
            {"message": "Exception in callback f(b'pw')", "exception": ValueError("pw")},
            "Exception in callback f",
            "ValueError",
        ),
        ({"message": "Exception in callback <bound method X of 'pw'>"}, "Exception in callback", None),
        (
            {"message": "Task was destroyed but it is pending!", "task": "pw"},
            "Task was destroyed but it is pending!",
            None,
        ),
        ({}, "the event loop met an error", None),
    ],
)
def test_what_the_loop_complains_about_shows_no_arguments(pipe, context, event, kind) -> None:
    log = LogWriter(pipe[1], is_json=True)
    logs.loop_failed(log, context)
    line = json.loads(finish(pipe, log))
    assert (line["event"], line["level"], line.get("error")) == (event, "error", kind)
    assert "pw" not in repr(line)
