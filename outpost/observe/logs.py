"""Log lines, one JSON object or one readable line each, on a descriptor that may block without anybody waiting for it.

Whoever logs hands a line over and goes on; a thread renders and writes.  When more lines wait than may, further ones
are dropped and counted.  Fields may be a function, called by the thread, for lines whose text is costly.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, cast, final

import orjson

from outpost.observe._lines import Lines
from outpost.observe.failures import describe, reason

LEVELS: Final[Mapping[str, int]] = {"trace": 5, "debug": 10, "info": 20, "warning": 30, "error": 40}
PENDING = 20_000
"""Lines that may wait; some seconds of a busy server, some MiB."""
BATCH = 16_384
"""Octets rendered between two writes: the interpreter is ours no longer than some 0.3 ms at a time."""
GATHER_S = 0.02
"""Pause of the writer between two writes, so that lines travel together."""
RENDERING = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
FLUSH_S = 2.0
"""How long an ending process waits for somebody to read its last lines."""

Fields = Mapping[str, object]
Line = tuple[float, str, str, str, Fields | Callable[[], dict[str, object]]]
"""Seconds since the epoch, level, logger, event, fields."""


@final
class LogWriter:
    """Takes lines from any thread, writes them from its own."""

    def __init__(self, descriptor: int, *, is_json: bool, level: str = "info", pending: int = PENDING) -> None:
        self._wake = threading.Event()
        self.lines = Lines(pending, self._wake.set, LEVELS[level])
        """What waits to be written; lines rendered in C come in here."""
        self.is_json = is_json
        """Lines are JSON objects, so that whoever renders them himself is welcome to."""
        self._descriptor = descriptor
        self._render = render_json if is_json else render_text
        self._lock: int | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def threshold(self) -> int:
        """Number of the least important level that is written; may be changed at any time."""
        return self.lines.threshold

    @threshold.setter
    def threshold(self, level: int) -> None:
        self.lines.threshold = level

    @property
    def dropped(self) -> int:
        """Lines that nobody will see."""
        return self.lines.dropped

    def share(self, lock: int) -> None:
        """Take turns with other processes that write to the same place. lock: of a file that all of them have open."""
        self._lock = lock

    def wants(self, level: str) -> bool:
        """Lines of this level are written."""
        return LEVELS[level] >= self.lines.threshold

    def put(self, level: str, logger: str, event: str, fields: Fields | Callable[[], dict[str, object]]) -> None:
        """Write this line soon; never blocks, never raises."""
        if LEVELS[level] >= self.lines.threshold:
            self.lines.put((time.time(), level, logger, event, fields))

    def bug(self, logger: str, what: str, error: BaseException) -> str:
        """Log a bug with its traceback; the identifier of the line, short enough to be told to a peer."""
        identifier = os.urandom(4).hex()
        found = {"id": identifier, "error": type(error).__name__, "traceback": describe(error)}
        self.put("error", logger, what, found)
        return identifier

    def stop(self) -> None:
        """Write what waits, for two seconds at most; idempotent."""
        self._is_stopped = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(FLUSH_S)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._is_stopped:
                time.sleep(GATHER_S)
            self._wake.clear()
            is_stopped = self._is_stopped
            self._write()
            if is_stopped:
                return

    def _write(self) -> None:
        found: tuple[object, int] | None = (b"", 0)
        while found is not None:
            batch, count = bytearray(), 0
            while len(batch) < BATCH and (found := self.lines.take()) is not None:
                line, lines = found
                batch += line if isinstance(line, bytes) else self._rendered(cast(Line, line))
                count += lines
            try:
                self._put_out(memoryview(batch))
            except OSError:
                self.lines.drop(count)

    def _put_out(self, view: memoryview) -> None:
        """All of it, however long that takes, in one piece whoever else writes. Raises OSError."""
        if self._lock is None or not view:
            self._put_all(view)
            return
        # Of the process, so that it ends with it.
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            self._put_all(view)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _put_all(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Whoever shares the terminal or pipe with us may have made it non-blocking.
                select.select([], [self._descriptor], [])

    def _rendered(self, line: Line) -> bytes:
        try:
            return self._render(line)
        except Exception as exc:  # a line that cannot be rendered must not end the thread
            at, _level, logger, event, _fields = line
            return self._render((at, "error", logger, "a log line failed", {"error": reason(exc), "of": event}))


def render_json(line: Line) -> bytes:
    """One JSON object with sorted keys."""
    at, level, logger, event, fields = line
    # What a function returns is nobody else's.
    found: dict[str, object] = fields() if callable(fields) else dict(fields)
    # Last, so that no field takes their place.
    found["timestamp"] = _stamp(at)
    found["level"] = level
    found["logger"] = logger
    found["event"] = event
    try:
        return orjson.dumps(found, default=str, option=RENDERING)
    except TypeError:  # a text that is none in UTF-8: what a peer sent is told nevertheless
        return orjson.dumps({key: _encodable(value) for key, value in found.items()}, default=str, option=RENDERING)


def _encodable(value: object) -> object:
    return _in_utf_8(value) if isinstance(value, str) else value


def _in_utf_8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def render_text(line: Line) -> bytes:
    """One line for people; a traceback follows on lines of its own."""
    at, level, logger, event, fields = line
    found = dict(fields() if callable(fields) else fields)
    lines = str(found.pop("traceback", ""))
    pairs = "".join(f" {key}={_word(value)}" for key, value in found.items())
    clock = datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")
    return (
        f"{clock} {level:<7} {logger.removeprefix('outpost.'):<12} {_plain(event)}{pairs}\n{_in_utf_8(lines)}".encode()
    )


def _stamp(at: float) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    return _to_the_millisecond(int(at * 1000))


@lru_cache(maxsize=16)
def _to_the_millisecond(millisecond: int) -> str:
    return f"{_to_the_second(millisecond // 1000)}.{millisecond % 1000:03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _plain(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _word(value: object) -> str:
    text = str(value)
    return (
        text if text and text.isprintable() and not set(text) & set(' "=') else orjson.dumps(_in_utf_8(text)).decode()
    )


class _Handler(logging.Handler):
    """Takes what libraries log through the standard library."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        level = {10: "debug", 20: "info", 30: "warning"}.get(record.levelno, "error")
        fields: dict[str, object] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = describe(record.exc_info[1])
        self._writer.put(level, record.name, record.getMessage(), fields)


def loop_failed(writer: LogWriter, context: Mapping[str, object]) -> None:
    """Log what an event loop tells its exception handler (`loop.set_exception_handler`)."""
    # "Exception in callback f('...')" shows arguments, which may be what a client sent; the traceback shows the place.
    what = re.split("[(<]", str(context.get("message") or "the event loop met an error"), maxsplit=1)[0].strip()
    error = context.get("exception")
    if isinstance(error, BaseException):
        writer.bug("outpost", what, error)
    else:
        writer.put("error", "outpost", what, {})


def configure(writer: LogWriter) -> None:
    """Send what libraries log to `writer`, their warnings included."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(writer)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
