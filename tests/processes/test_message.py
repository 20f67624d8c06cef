import os
import socket
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost.errors import DecodeError
from outpost.processes import memory, message

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    here, there = message.pair()
    here.settimeout(5)
    there.settimeout(5)
    with here, there:
        yield here, there


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 1, message.INLINE, message.INLINE + 1, 3_000_000])
def test_octets_and_descriptors_arrive_together(ends: Pair, size: int) -> None:
    before = descriptors()
    body = os.urandom(size)
    kept = memory.sealed(b"what is behind it")
    message.send(ends[0], body, [kept, kept])
    message.send(ends[0], b"next")
    os.close(kept)
    found = message.receive(ends[1])
    assert found is not None and found.body == body and len(found.descriptors) == 2
    assert all(os.pread(fd, 100, 0) == b"what is behind it" for fd in found.descriptors)
    assert not any(os.get_inheritable(fd) for fd in found.descriptors)
    assert message.receive(ends[1]) == message.Message(b"next")
    found.close()
    assert descriptors() == before


def test_the_end_is_none(ends: Pair) -> None:
    message.send(ends[0], b"last")
    ends[0].close()
    assert message.receive(ends[1]) == message.Message(b"last")
    assert message.receive(ends[1]) is None


def test_what_does_not_fit_is_not_sent(ends: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message, "LARGEST", 100_000)
    with pytest.raises(ValueError, match="too much"):
        message.send(ends[0], bytes(100_001))
    with pytest.raises(ValueError, match="too much"):
        message.send(ends[0], b"", [0] * (message.MOST_DESCRIPTORS + 1))
    message.send(ends[0], b"still alive")
    assert message.receive(ends[1]) == message.Message(b"still alive")


@pytest.mark.parametrize(
    "octets",
    [b"\2", b"\1", b"\xff" * 10, b"\1with more", b"\0" * (message.INLINE + 2), b"\0" * (message.INLINE + 9)],
    ids=["kind 2", "memory without any", "noise", "memory and more", "one too long", "much too long"],
)
def test_what_send_cannot_have_sent_is_refused_and_costs_no_descriptor(ends: Pair, octets: bytes) -> None:
    before = descriptors()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 1]))] if octets[:1] != b"\1" else []
    ends[0].sendmsg([octets], rights)
    with pytest.raises(DecodeError):
        message.receive(ends[1])
    assert descriptors() == before


def test_memory_that_can_still_change_is_refused(ends: Pair) -> None:
    for flags in (0, os.MFD_ALLOW_SEALING):
        kept = os.memfd_create("test", flags)
        os.write(kept, b"body")
        ends[0].sendmsg([b"\1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [kept]))])
        os.close(kept)
        with pytest.raises(DecodeError):
            message.receive(ends[1])
    read, write = os.pipe()
    ends[0].sendmsg([b"\1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [read]))])
    os.close(read)
    os.close(write)
    with pytest.raises(DecodeError):
        message.receive(ends[1])


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 3))
def test_noise_is_a_message_or_refused(octets: bytes, rights: int) -> None:
    here, there = message.pair()
    with here, there:
        before = descriptors()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0] * rights))] if rights else []
        here.sendmsg([octets], ancillary)
        try:
            found = message.receive(there)
        except DecodeError:
            assert octets[:1] != b"\0"
        else:
            assert found is not None and octets == b"\0" + found.body and len(found.descriptors) == rights
            found.close()
        assert descriptors() == before


def test_an_adopted_descriptor_must_be_such_a_socket(ends: Pair) -> None:
    other, stream = socket.socketpair()
    with other, stream, pytest.raises(ValueError, match="no socket for messages"):
        message.adopt(stream.fileno())
    sock = message.adopt(os.dup(ends[1].fileno()))
    with sock:
        message.send(ends[0], b"hello")
        assert message.receive(sock) == message.Message(b"hello")
    with pytest.raises(OSError):
        message.adopt(10**6)
