import asyncio
import os
import socket

import pytest

from outpost.errors import DecodeError
from outpost.processes import channel, memory, message
from outpost.processes.channel import Channel
from outpost.processes.message import Message


class End:
    """A channel that keeps what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        self.ended: list[str] = []
        self.over = asyncio.Event()
        self.channel = Channel(sock, self.heard.put_nowait, self._closed)

    def _closed(self, why: str) -> None:
        self.ended.append(why)
        self.over.set()

    async def next(self) -> Message:
        return await asyncio.wait_for(self.heard.get(), 5)

    async def end(self) -> list[str]:
        await asyncio.wait_for(self.over.wait(), 5)
        await asyncio.sleep(0.01)
        assert not self.channel.is_open
        return self.ended


def ends() -> tuple[End, End]:
    here, there = message.pair()
    return End(here), End(there)


async def test_messages_arrive_in_order_both_ways() -> None:
    here, there = ends()
    for i in range(100):
        here.channel.post(b"%d" % i)
        there.channel.post(b"%d" % -i)
    assert [(await there.next()).body for _ in range(100)] == [b"%d" % i for i in range(100)]
    assert [(await here.next()).body for _ in range(100)] == [b"%d" % -i for i in range(100)]
    here.channel.close()
    here.channel.close()
    here.channel.post(b"into the void")
    assert await there.end() == [""]
    assert here.ended == []


async def test_what_finds_no_room_is_sent_later_with_its_descriptors() -> None:
    here, there = ends()
    before = len(os.listdir("/proc/self/fd"))
    kept = memory.sealed(b"behind")
    for i in range(300):
        here.channel.post(b"%d " % i + bytes(60_000), [kept])
    os.close(kept)
    for i in range(300):
        found = await there.next()
        assert found.body.startswith(b"%d " % i) and os.pread(found.descriptors[0], 10, 0) == b"behind"
        found.close()
    assert len(os.listdir("/proc/self/fd")) == before
    here.channel.close()
    there.channel.close()


@pytest.mark.parametrize("octets", [10, 60_000])
async def test_who_does_not_read_is_given_up(octets: int) -> None:
    sock, deaf = message.pair()
    before = len(os.listdir("/proc/self/fd"))
    with deaf:
        end = End(sock)
        for _ in range(channel.QUEUED + 1000):
            end.channel.post(bytes(octets), [deaf.fileno()])
            if not end.channel.is_open:
                break
        assert await end.end() == ["it does not read what it is sent"]
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("is_unread", [False, True])
async def test_last_words_are_heard_by_who_speaks_himself(is_unread: bool) -> None:
    sock, other = message.pair()
    end = End(sock)
    if is_unread:
        # Closing with something unread resets the connection.
        end.channel.post(b"never read")
    with other:
        for i in range(3):
            message.send(other, b"%d" % i)
    for _ in range(5):
        end.channel.post(b"into the void")
    assert await end.end() == [""]
    assert [(await end.next()).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_nonsense_closes_the_channel() -> None:
    here, there = ends()
    here.channel._sock.send(b"\7nonsense")
    assert await there.end() == ["it sent a message of an unknown kind"]
    assert await here.end() == [""]


async def test_what_the_receiver_cannot_read_closes_the_channel() -> None:
    here, there = message.pair()
    over = asyncio.Event()
    ended: list[str] = []

    def refuse(found: Message) -> None:
        raise DecodeError("a word nobody knows")

    def closed(why: str) -> None:
        ended.append(why)
        over.set()

    with here:
        Channel(there, refuse, closed)
        message.send(here, b"word")
        message.send(here, b"word")
        await asyncio.wait_for(over.wait(), 5)
    assert ended == ["it sent a word nobody knows"]


async def test_a_receiver_may_close_in_the_middle() -> None:
    here, there = message.pair()
    heard = []

    def received(found: Message) -> None:
        heard.append(found.body)
        end.close()

    with here:
        for _ in range(10):
            message.send(here, b"word")
        end = Channel(there, received, heard.append)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
    assert heard == [b"word"]
