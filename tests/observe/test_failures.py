"""What is told of an exception: its place and kind always, its message only if that cannot quote a password."""

import errno
import json
import struct

import pytest

from outpost.errors import BackendUnavailable, ConfigError
from outpost.observe.failures import describe, reason

CANARY = "canary-77d0"


def raised(make) -> BaseException:
    hunter = CANARY  # a local variable that must not be seen
    try:
        make(hunter)
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def quoting(secret: str) -> None:
    raise ValueError(f"odd: {secret}")


def chained(secret: str) -> None:
    try:
        quoting(secret)
    except ValueError as exc:
        raise BackendUnavailable("the server answered nonsense") from exc


def in_the_middle(secret: str) -> None:
    try:
        quoting(secret)
    except ValueError:
        {}[secret]


def grouped(secret: str) -> None:
    raise ExceptionGroup(secret, [ValueError(secret), ExceptionGroup(secret, [KeyError(secret)])])


def undecodable(secret: str) -> None:
    (secret.encode() + b"\xff").decode()


def from_the_system(secret: str) -> None:
    raise OSError(errno.ECONNREFUSED, "Connection refused", secret)


@pytest.mark.parametrize(
    "make",
    [
        quoting,
        chained,
        in_the_middle,
        grouped,
        undecodable,
        from_the_system,
        int,
        json.loads,
        lambda secret: {}[secret],
        lambda secret: [].remove(secret),
        lambda secret: struct.pack("B", secret),
        lambda secret: (_ for _ in ()).throw(OSError(secret)),
        lambda secret: (_ for _ in ()).throw(SystemExit(secret)),
    ],
)
def test_no_value_is_told(make) -> None:
    error = raised(make)
    assert CANARY not in describe(error)
    assert type(error).__name__ in describe(error)


def test_place_and_causes_are_told() -> None:
    text = describe(raised(chained))
    assert text.index("in quoting") < text.index("ValueError") < text.rindex("in chained")
    assert text.endswith("BackendUnavailable: the server answered nonsense\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("no such file", source="x.toml", line=3), "ConfigError: x.toml:3: no such file"),
        (TypeError("'int' object is not iterable"), "TypeError: 'int' object is not iterable"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("anything"), "ValueError: (message withheld, it may quote input)"),
        (ValueError(), "ValueError"),
    ],
)
def test_reasons(error: Exception, text: str) -> None:
    assert reason(error) == text


def test_endless_chains_and_wide_groups_are_cut() -> None:
    error: Exception = ValueError()
    for _ in range(100):
        after = ValueError()
        after.__cause__ = error
        error = after
    assert describe(error).count("ValueError") == 8
    assert len(describe(ExceptionGroup("", [ValueError()] * 1000))) < 2000


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert "(more causes)" in describe(one)
