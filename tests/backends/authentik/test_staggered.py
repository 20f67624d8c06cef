"""A question asked several times over: the first answer counts, and nobody is asked more often than said."""

from __future__ import annotations

import asyncio

import pytest

from outpost.backends.authentik.staggered import MOST, staggered


class Asked:
    """Questions whose outcomes a test decides."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[str]] = []
        self.given_up = 0

    async def __call__(self) -> str:
        question = asyncio.get_running_loop().create_future()
        self.questions.append(question)
        try:
            return await question
        except asyncio.CancelledError:
            self.given_up += 1
            raise

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.questions) < count:
                await asyncio.sleep(0.001)


async def test_one_question_is_enough_when_it_is_answered() -> None:
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 60.0))
    await asked.until(1)
    asked.questions[0].set_result("here")
    assert await task == "here"
    assert len(asked.questions) == 1


async def test_a_failure_is_told_at_once() -> None:
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 60.0))
    await asked.until(1)
    asked.questions[0].set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await task


async def test_a_later_question_overtakes_one_without_an_answer() -> None:
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 0.01))
    await asked.until(2)
    asked.questions[1].set_result("at the new place")
    assert await task == "at the new place"
    assert asked.given_up == len(asked.questions) - 1


async def test_a_failure_beside_a_silent_one_is_the_outcome() -> None:
    """Whoever asks waits and asks anew; a chain of questions that fail one after the other would tell nobody."""
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 0.01))
    await asked.until(2)
    asked.questions[1].set_exception(ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await task
    assert asked.given_up == len(asked.questions) - 1


async def test_of_two_outcomes_at_a_time_the_answer_counts() -> None:
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 0.01))
    await asked.until(2)
    asked.questions[0].set_exception(ValueError("reset"))
    asked.questions[1].set_result("here")
    assert await task == "here"


async def test_there_are_never_more_than_a_few() -> None:
    asked = Asked()
    task = asyncio.create_task(staggered(asked, 0.001))
    await asked.until(MOST)
    await asyncio.sleep(0.05)
    assert len(asked.questions) == MOST
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asked.given_up == MOST
