"""Compiled directories: swapped in whole, kept when a build fails, dropped with their provider."""

import asyncio
import dataclasses

import pytest

from outpost.errors import BackendError
from outpost.identity import Mode, Wanted
from outpost.ldap import directories
from outpost.ldap.directories import Directories, shelved
from tests.ldap.testbed import Roster, people, provider


class Desk:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.roster = Roster(people())
        self.there = Directories(self.roster, shelved, lambda level, event: self.said.append((level, event)))

    async def serve(self, *providers: object) -> None:
        self.there.serve(providers)  # type: ignore[arg-type]
        while self.there._builds:
            await asyncio.sleep(0.001)


async def test_a_directory_is_built_once_for_the_same_people_and_provider() -> None:
    desk, one = Desk(), provider()
    assert desk.there.shelf(one) is None
    desk.there.serve([one])
    assert "not complete yet" in desk.there.readiness()
    await desk.serve(one)
    first = desk.there.shelf(one)
    assert first is not None
    assert desk.there.readiness() == ""
    await desk.serve(one)
    assert desk.there.shelf(one) is first
    desk.roster.people = people(5, generation=2)
    await desk.serve(one)
    second = desk.there.shelf(one)
    assert second is not first
    await desk.serve(dataclasses.replace(one, uid_start_number=9000))
    assert desk.there.shelf(one) is not second


@pytest.mark.parametrize("failure", [BackendError("no memory"), ValueError("canary of somebody's attributes")])
async def test_a_failed_build_keeps_the_last_directory_and_is_told_without_quotes(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    desk, one = Desk(), provider()
    await desk.serve(one)
    kept = desk.there.shelf(one)

    def fail(*_: object) -> bytes:
        raise failure

    desk.roster.people = people(5, generation=2)
    with monkeypatch.context() as patch:
        patch.setattr(directories, "compile_people", fail)
        await desk.serve(one)
        await desk.serve(one)
    assert desk.there.shelf(one) is kept
    [(level, said)] = desk.said  # once for the same people
    assert level == "error"
    assert "the last one is kept" in said
    assert "canary" not in said
    desk.roster.people = people(6, generation=3)
    await desk.serve(one)
    assert desk.there.shelf(one) is not kept, "and the next good one is used"


async def test_who_is_left_out_is_told_once() -> None:
    desk, one = Desk(), provider()
    namesakes = people(12)
    users = [dataclasses.replace(user, username=f"NAME{user.pk}") for user in namesakes.users]
    twins = [dataclasses.replace(user, pk=user.pk + 500, username=user.username.lower()) for user in users]
    desk.roster.people = dataclasses.replace(namesakes, users=(*users, *twins), generation=2)
    await desk.serve(one)
    said = [text for level, text in desk.said if level == "warning"]
    assert len(said) == 1
    assert f"directory of provider {one.name!r}: {len(twins)} left out" in said[0]
    assert said[0].count("'name") == 10 and said[0].endswith(", ...")
    desk.roster.people = dataclasses.replace(desk.roster.people, generation=3)
    await desk.serve(one)
    assert [text for level, text in desk.said if level == "warning"] == said
    desk.roster.people = dataclasses.replace(namesakes, users=(*users, twins[0]), generation=4)
    await desk.serve(one)
    assert "1 left out" in desk.said[-1][1]
    desk.roster.people = people(generation=5)
    await desk.serve(one)
    desk.roster.people = dataclasses.replace(namesakes, users=(*users, twins[0]), generation=6)
    await desk.serve(one)
    assert len([text for level, text in desk.said if level == "warning"]) == 3


async def test_a_provider_that_is_gone_takes_its_directory_along() -> None:
    desk, one, other = Desk(), provider(), provider(2, "dc=other")
    await desk.serve(one, other)
    assert desk.there.shelf(other) is not None
    await desk.serve(one)
    assert desk.there.shelf(other) is None
    assert desk.there.shelf(one) is not None


async def test_direct_search_mode_builds_nothing_ahead_and_is_ready() -> None:
    desk, one = Desk(), provider(search_mode=Mode.DIRECT)
    await desk.serve(one)
    assert desk.there.shelf(one) is None
    assert desk.there.readiness() == ""
    assert (await desk.there.fetch(one, Wanted())).snapshot.entry_count > 3
    desk.roster.is_down = True
    with pytest.raises(BackendError):
        await desk.there.fetch(one, Wanted())


async def test_people_who_change_during_a_build_are_built_next() -> None:
    desk, one = Desk(), provider()
    desk.there.serve([one])
    desk.roster.people = people(9, generation=2)
    await desk.serve(one)
    found = desk.there.shelf(one)
    assert found is not None
    assert found.snapshot.generation == 2
    await desk.there.stop()
    await desk.there.stop()
