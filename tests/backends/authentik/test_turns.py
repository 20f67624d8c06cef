"""How many logins at a time: first come first served, fewer when they run out of time, more while they are quick."""

from __future__ import annotations

import asyncio

import pytest

from outpost.backends.authentik.turns import LEAST, Turns


async def soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    turns = Turns(1, 10.0)
    await turns.take()
    order: list[int] = []

    async def login(number: int) -> None:
        await turns.take()
        order.append(number)
        turns.give_back()

    tasks = [asyncio.create_task(login(i)) for i in range(5)]
    await soon()
    assert order == []
    turns.give_back()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert turns.active == 0


@pytest.mark.parametrize("handed_over", [False, True])
async def test_who_gives_up_waiting_takes_no_turn_along(handed_over: bool) -> None:
    turns = Turns(1, 10.0)
    await turns.take()
    waiting = [asyncio.create_task(turns.take()) for _ in range(2)]
    await soon()
    if handed_over:
        turns.give_back()  # to the first, who is cancelled before he can know
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    if not handed_over:
        turns.give_back()
    await asyncio.wait_for(waiting[1], 1.0)
    turns.give_back()
    assert turns.active == 0
    await asyncio.wait_for(turns.take(), 1.0)


async def test_a_server_that_decides_nothing_is_asked_little_and_more_with_every_quick_login() -> None:
    turns = Turns(64, 10.0)
    for _ in range(64):
        await turns.take()
    for _ in range(64):
        turns.ran_out_of_time(10.0)
        turns.give_back()
    assert turns.limit == LEAST
    under_way: list[asyncio.Future[None]] = []

    async def login() -> None:
        await turns.take()
        end = asyncio.get_running_loop().create_future()
        under_way.append(end)
        await end
        turns.decided(0.1, 20.0)
        turns.give_back()

    tasks = [asyncio.create_task(login()) for _ in range(400)]
    at_a_time = []
    while not all(task.done() for task in tasks):
        await soon()
        at_a_time.append(len(under_way))
        batch, under_way = under_way, []
        for end in batch:
            end.set_result(None)
    assert at_a_time[:6] == [4, 8, 16, 32, 64, 64]
    assert turns.active == 0


async def test_a_few_late_logins_halve_it_once_a_while() -> None:
    turns = Turns(64, 10.0)
    for _ in range(40):
        await turns.take()
    turns.decided(9.0, 5.0)
    for _ in range(10):
        turns.ran_out_of_time(6.0)
    assert turns.limit == 20
    turns.ran_out_of_time(6.5)
    assert turns.limit == 20
    turns.ran_out_of_time(7.0)
    assert turns.limit == 10


async def test_slow_logins_and_a_limit_nobody_feels_change_nothing() -> None:
    turns = Turns(64, 10.0)
    turns.ran_out_of_time(100.0)
    assert turns.limit == LEAST
    await turns.take()
    turns.decided(0.1, 101.0)
    assert turns.limit == LEAST, "one at a time is no reason to allow more"
    for _ in range(LEAST - 1):
        await turns.take()
    turns.decided(5.0, 102.0)
    assert turns.limit == LEAST, "slow as it is, more would be slower"
    turns.decided(0.1, 103.0)
    assert turns.limit == LEAST + 1


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_there_is_always_one(most: int) -> None:
    turns = Turns(most, 10.0)
    for now in range(0, 1000, 10):
        turns.ran_out_of_time(float(now))
    assert turns.limit == most
    await asyncio.wait_for(turns.take(), 1.0)


async def test_what_is_expected_follows_what_was_seen() -> None:
    turns = Turns(4, 10.0)
    turns.decided(1.0, 0.0)
    assert turns.expected_s == 1.0
    for _ in range(50):
        turns.decided(3.0, 0.0)
    assert turns.expected_s == pytest.approx(3.0, abs=0.01)
