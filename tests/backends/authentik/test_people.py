"""Users and groups out of JSON: what a release may leave out, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from outpost.backends.authentik import people
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import Wanted
from tests.backends.authentik.appliance import ldap, ready, running, small
from tests.backends.authentik.script import reply
from tests.stub_authentik import lab
from tests.stub_authentik.rest import Rest


def recorded(version: str, name: str) -> list[dict[str, Any]]:
    bodies = [step["response"]["body"] for step in lab.recording(version, name)["steps"]]
    return [one for body in bodies if isinstance(body, dict) for one in body.get("results", ())]


@pytest.mark.parametrize("version", lab.versions())
def test_a_groups_number_is_made_of_its_uuid_where_the_server_does_not_tell_it(version: str) -> None:
    groups = recorded(version, "24-groups-list")
    assert len(groups) > 30
    for one in groups:
        bare = {key: value for key, value in one.items() if key != "num_pk"}
        assert people.group(Shape(bare, "group"), {}).num_pk == one["num_pk"]


def test_a_group_without_any_number_is_an_error() -> None:
    with pytest.raises(BackendError):
        people.group(Shape({"pk": "no-uuid", "name": "x"}, "group"), {})


async def test_whoever_is_looked_up_without_a_list_of_groups_has_not_left_them() -> None:
    async with small(search_mode="direct") as stub, running(stub) as backend:
        await ready(backend)
        provider, wanted = ldap(backend), Wanted(username="alice")
        assert (await backend.fetch(provider, wanted)).users[0].groups
        stub.withholds_groups = "always"
        stub.changed()
        with pytest.raises(BackendError, match="groups: expected a list"):
            await backend.fetch(provider, wanted)


@pytest.mark.parametrize("field", ["name", "email", "attributes", "path", "type", "last_login", "uuid", "groups_obj"])
def test_what_is_null_or_not_there_is_empty(field: str) -> None:
    one = recorded(lab.versions()[-1], "20-users-list-pages")[0]
    for odd in ({key: value for key, value in one.items() if key != field}, one | {field: None}):
        assert people.user(Shape(odd, "user"), {}).username == one["username"]


async def test_an_answer_without_results_is_no_empty_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    async with small() as stub, running(stub) as backend:
        await ready(backend)
        before = backend.current(ldap(backend))
        assert before is not None and before.user_count
        page = {"pagination": {"next": 0, "total_pages": 1, "count": 0}}
        monkeypatch.setattr(Rest, "_paged", lambda *_: reply(page))
        await backend.refresh()
        assert "results: expected a list" in backend.readiness()["ldap"]
        after = backend.current(ldap(backend))
        assert after is not None and after.user_count == before.user_count
