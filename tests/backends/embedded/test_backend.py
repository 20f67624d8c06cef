"""The life of a directory file: read, watched, read again, and kept when that fails."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outpost.backends.embedded import backend as module
from outpost.backends.embedded.backend import EmbeddedBackend
from outpost.backends.embedded.model import Directory
from outpost.backends.embedded.pool import VerifyPool
from outpost.credentials.gate import Gate
from outpost.errors import BackendUnavailable, ConfigError
from outpost.identity import (
    Accepted,
    Challenge,
    Rejected,
    Revoked,
    Secret,
    Served,
    Unavailable,
    UnavailableReason,
    Wanted,
)
from tests.backends.embedded.people import CLIENT, DEVICE, LDAP, RADIUS, TOTP, account, directory, hashed, plain

ANN = account(7, "ann", hashed("pw-ann"))
BOB = account(8, "bob", hashed("pw-bob"))
BASE = directory([ANN, BOB])
CONTENTS = {
    "base": BASE,
    "the same in other words": directory([ANN, BOB]),
    "new password": directory([replace(ANN, password=hashed("new")), BOB]),
    "without bob": directory([ANN]),
    "no ldap": directory([ANN, BOB], served=Served((), (RADIUS,))),
    "other network": directory([ANN, BOB], served=Served((LDAP,), (replace(RADIUS, shared_secret=Secret("new")),))),
    "nothing": directory([], served=Served()),
    "warned": replace(BASE, warnings=("line 3: plain text", "line 3: plain text")),
    "warned twice": replace(BASE, warnings=("line 3: plain text", "line 9: unknown model")),
}


class Shelf:
    """A backend over a file whose text names the directory it stands for, and everything that was heard of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.more: tuple[Path, ...] = ()
        self.heard: list[Any] = []
        self.log: list[tuple[str, str]] = []
        self.reads = 0
        self.during = lambda: None
        self._idle, self._go = asyncio.Event(), asyncio.Event()
        self.backend = EmbeddedBackend(
            path,
            publish=self.heard.append,
            log=lambda level, event: self.log.append((level, event)),
            load=self._load,
            sleep=self._sleep,
            pool=VerifyPool(2),
        )
        self.backend.subscribe(lambda: self.heard.append("changed"))

    def _load(self) -> Directory:
        self.reads += 1
        self.during()
        try:
            text = self.path.read_text()
        except OSError as error:
            raise ConfigError(str(error.strerror), source=str(self.path)) from None
        if text not in CONTENTS:
            raise ConfigError("no blueprint", source=str(self.path), line=1)
        return replace(CONTENTS[text], files=(self.path, *self.more))

    async def _sleep(self, seconds: float) -> None:
        assert seconds == module.POLL_S
        self._idle.set()
        await self._go.wait()
        self._go.clear()

    async def poll(self, times: int = 1) -> None:
        """Let the watcher look once, and wait until it has done all that follows."""
        for _ in range(times):
            await self._idle.wait()
            self._idle.clear()
            self._go.set()
            await self._idle.wait()

    def errors(self) -> list[str]:
        return [event for level, event in self.log if level == "error"]

    async def bind(self, username: str, secret: str) -> Any:
        return await self.backend.authenticate(LDAP, username, Secret(secret), CLIENT)


@asynccontextmanager
async def shelf(path: Path, text: str = "base", **more: Any) -> AsyncIterator[Shelf]:
    path.write_text(text)
    it = Shelf(path)
    for name, value in more.items():
        setattr(it, name, value)
    try:
        await it.backend.start()
        it.heard.clear()
        yield it
    finally:
        await it.backend.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.yaml"


# -- start and stop -------------------------------------------------------------------------------


async def test_what_the_file_says_is_there_after_the_start(path) -> None:
    path.write_text("base")
    it = Shelf(path)
    assert it.backend.current(LDAP) is None and it.backend.served() == Served()
    assert it.backend.readiness() == {"ldap": "not started", "radius": "not started"}
    with pytest.raises(BackendUnavailable):
        await it.backend.fetch(LDAP, Wanted())
    assert await it.bind("ann", "pw-ann") == Unavailable(UnavailableReason.NOT_READY, "the directory is not there")
    await it.backend.refresh()
    assert it.reads == 0
    await it.backend.start()
    await it.backend.start()
    assert it.reads == 1
    assert it.backend.current(LDAP) == BASE.people == await it.backend.fetch(LDAP, Wanted(username="ann"))
    assert it.backend.served() == BASE.served
    assert it.backend.readiness() == {"ldap": "", "radius": ""}
    assert isinstance(await it.bind("ann", "pw-ann"), Accepted)
    assert isinstance(await it.bind("ann", "wrong"), Rejected)
    assert [level for level, _ in it.log] == ["info"]
    await it.backend.stop()
    await it.backend.stop()
    assert await it.bind("ann", "pw-ann") == Unavailable(UnavailableReason.NOT_READY, "the directory is not there")
    path.write_text("without bob")
    await it.backend.refresh()
    assert it.reads == 1


@pytest.mark.parametrize("text", ["nonsense", None])
async def test_a_file_that_cannot_be_served_is_no_start(path, text) -> None:
    if text is not None:
        path.write_text(text)
    it = Shelf(path)
    with pytest.raises(ConfigError, match=r"directory\.yaml"):
        await it.backend.start()
    assert it.backend.readiness()["ldap"] == "not started"
    assert isinstance(await it.bind("ann", "pw-ann"), Unavailable)
    await it.backend.stop()


async def test_only_services_with_a_provider_have_to_be_ready(path) -> None:
    async with shelf(path, "no ldap") as it:
        assert it.backend.readiness() == {"radius": ""}
        path.write_text("nothing")
        await it.backend.refresh()
        assert set(it.backend.readiness()) == {"ldap", "radius"}
        assert all(it.backend.readiness().values())


# -- reading again --------------------------------------------------------------------------------


async def test_a_new_version_is_taken_over_with_old_logins_forgotten_first(path) -> None:
    async with shelf(path) as it:
        path.write_text("new password")
        await it.backend.refresh()
        assert it.heard == [Revoked(user_pk=7), "changed"]
        assert isinstance(await it.bind("ann", "pw-ann"), Rejected)
        assert isinstance(await it.bind("ann", "new"), Accepted)
        it.heard.clear()
        path.write_text("no ldap")
        await it.backend.refresh()
        assert it.heard == [Revoked(user_pk=7), Revoked(provider_pk=1, service="ldap"), "changed"]
        assert it.backend.served().ldap == ()


async def test_who_hears_of_a_revocation_already_sees_the_new_version(path) -> None:
    seen = []
    async with shelf(path) as it:
        backend = it.backend
        backend._publish = lambda revoked: seen.append((revoked.user_pk, len(backend.current(LDAP).users)))  # type: ignore[union-attr]
        path.write_text("without bob")
        await backend.refresh()
    assert seen == [(8, 1)]


async def test_the_generation_grows_with_the_people_alone(path) -> None:
    async with shelf(path) as it:
        first = it.backend.current(LDAP)
        for text in ("the same in other words", "other network", "new password"):
            path.write_text(text)
            await it.backend.refresh()
            assert it.backend.current(LDAP) is first
        path.write_text("without bob")
        await it.backend.refresh()
        second = it.backend.current(LDAP)
        path.write_text("base")
        await it.backend.refresh()
        third = it.backend.current(LDAP)
        assert first is not None and second is not None and third is not None
        assert first.generation < second.generation < third.generation


async def test_the_same_content_is_no_change(path) -> None:
    async with shelf(path) as it:
        path.write_text("the same in other words")
        await it.backend.refresh()
        assert (it.reads, it.heard) == (2, [])


@pytest.mark.parametrize("text", ["nonsense", None])
async def test_a_broken_version_leaves_everything_as_it_was(path, text) -> None:
    async with shelf(path) as it:
        path.unlink()
        if text is not None:
            path.write_text(text)
        await it.backend.refresh()
        assert it.heard == []
        assert isinstance(await it.bind("ann", "pw-ann"), Accepted)
        assert it.backend.current(LDAP) == BASE.people and it.backend.readiness() == {"ldap": "", "radius": ""}
        (error,) = it.errors()
        assert str(path) in error and "stays as it was" in error
        path.write_text("without bob")
        await it.backend.refresh()
        assert it.heard == [Revoked(user_pk=8), "changed"]


async def test_very_many_revocations_are_told_as_one(path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_REVOKED", 2)
    async with shelf(path) as it:
        path.write_text("no ldap")
        await it.backend.refresh()
        assert it.heard == [Revoked(provider_pk=1, service="ldap"), "changed"]
        it.heard.clear()
        path.write_text("nothing")
        await it.backend.refresh()
        assert it.heard == [Revoked(), "changed"]


async def test_warnings_are_told_when_they_appear(path) -> None:
    async with shelf(path, "warned") as it:
        assert [event for level, event in it.log if level == "warning"] == ["line 3: plain text"]
        for text in ("warned twice", "warned", "warned twice"):
            path.write_text(text)
            await it.backend.refresh()
        told = [event for level, event in it.log if level == "warning"]
        assert told == ["line 3: plain text", "line 9: unknown model", "line 9: unknown model"]
        assert it.heard == []


async def test_a_deaf_listener_keeps_nobody_else_from_hearing(path) -> None:
    async with shelf(path) as it:
        heard = []

        def broken() -> None:
            raise ValueError("canary")

        it.backend.subscribe(broken)
        it.backend.subscribe(lambda: heard.append("changed"))
        path.write_text("without bob")
        await it.backend.refresh()
        assert heard == ["changed"]
        assert "a listener failed" in it.errors()[0] and "canary" not in it.errors()[0]


async def test_the_loop_goes_on_while_the_file_is_read(path) -> None:
    async with shelf(path) as it:
        enough = threading.Event()
        it.during = lambda: None if enough.wait(30) else pytest.fail("the loop stood still")  # type: ignore[assignment]
        path.write_text("without bob")
        reading = asyncio.create_task(it.backend.refresh())
        assert isinstance(await it.bind("bob", "pw-bob"), Accepted)
        assert not reading.done()
        enough.set()
        await reading
        assert isinstance(await it.bind("bob", "pw-bob"), Rejected)


async def test_refreshes_take_turns(path) -> None:
    async with shelf(path) as it:
        inside = 0
        most = []

        def enter() -> None:
            nonlocal inside
            inside += 1
            most.append(inside)
            os.sched_yield()
            inside -= 1

        it.during = enter
        await asyncio.gather(*(it.backend.refresh() for _ in range(5)))
        assert most == [1] * 5


# -- watching -------------------------------------------------------------------------------------


async def test_a_changed_file_is_read_when_it_stands_still(path) -> None:
    async with shelf(path) as it:
        await it.poll(3)
        assert it.reads == 1
        path.write_text("without")  # half of it
        await it.poll()
        path.write_text("without bob")
        await it.poll()
        assert it.reads == 1
        await it.poll()
        assert (it.reads, it.heard) == (2, [Revoked(user_pk=8), "changed"])
        await it.poll(3)
        assert (it.reads, it.errors()) == (2, [])


async def test_a_file_put_in_its_place_is_noticed_though_size_and_time_agree(path, tmp_path) -> None:
    async with shelf(path, "no ldap") as it:
        status = path.stat()
        other = tmp_path / "other.yaml"
        other.write_text("nothing")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
        await it.poll(2)
        assert it.reads == 2


async def test_files_that_the_file_reads_are_watched_too(path, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one")
    async with shelf(path, more=(secret,)) as it:
        secret.write_text("two!")
        await it.poll(2)
        assert it.reads == 2
        it.more = ()
        path.write_text("warned")
        await it.poll(2)
        secret.write_text("three")
        await it.poll(3)
        assert it.reads == 3


async def test_a_broken_version_is_told_once_and_the_next_one_read(path) -> None:
    async with shelf(path) as it:
        path.write_text("nonsense")
        await it.poll(6)
        assert (it.reads, it.heard, len(it.errors())) == (2, [], 1)
        assert isinstance(await it.bind("bob", "pw-bob"), Accepted)
        path.write_text("without bob")
        await it.poll(2)
        assert it.heard == [Revoked(user_pk=8), "changed"]


async def test_a_version_that_breaks_the_reader_does_not_end_the_watch(path) -> None:
    async with shelf(path) as it:

        def broken() -> None:
            raise ValueError("canary")

        it.during = broken
        path.write_text("nonsense")
        await it.poll(5)
        assert (it.reads, len(it.errors())) == (2, 1)
        assert "canary" not in it.errors()[0]
        it.during = lambda: None
        path.write_text("without bob")
        await it.poll(2)
        assert it.heard == [Revoked(user_pk=8), "changed"]


async def test_a_vanished_file_is_told_once_and_read_when_it_is_back(path) -> None:
    async with shelf(path) as it:
        path.unlink()
        await it.poll(5)
        assert (it.reads, it.heard) == (1, [])
        assert it.errors() == [f"the directory stays as it was read before: {path} is gone"]
        assert isinstance(await it.bind("bob", "pw-bob"), Accepted)
        path.write_text("without bob")
        await it.poll(2)
        assert it.heard == [Revoked(user_pk=8), "changed"]
        path.unlink()
        await it.poll(2)
        assert len(it.errors()) == 2


async def test_a_change_during_the_read_is_not_lost(path) -> None:
    async with shelf(path) as it:
        # The reader sees the old text, the file has the new one before its state is looked at again.
        real = it._load

        def load() -> Directory:
            found = real()
            if it.reads == 2:
                path.write_text("without bob")
            return found

        it.backend._load = load
        path.write_text("new password")
        await it.poll(2)
        assert it.heard == [Revoked(user_pk=7), "changed"]
        await it.poll(2)
        assert it.heard[2:] == [Revoked(user_pk=7), Revoked(user_pk=8), "changed"]


# -- behind the gate ------------------------------------------------------------------------------


async def test_a_remembered_login_dies_with_the_version_it_was_right_in(path) -> None:
    async with shelf(path) as it:
        gate = Gate(it.backend)
        gate.set_connected(True)
        it.backend._publish = gate.publish
        assert isinstance(await gate.authenticate(LDAP, "ann", Secret("pw-ann"), CLIENT), Accepted)
        assert gate.known(LDAP, "ann", b"pw-ann", CLIENT) is not None
        path.write_text("without bob")
        await it.backend.refresh()
        assert gate.known(LDAP, "ann", b"pw-ann", CLIENT) is not None
        path.write_text("new password")
        await it.backend.refresh()
        assert gate.known(LDAP, "ann", b"pw-ann", CLIENT) is None
        assert isinstance(await gate.authenticate(LDAP, "ann", Secret("pw-ann"), CLIENT), Rejected)
        await gate.stop()


async def test_used_codes_stay_used_across_versions(path, monkeypatch) -> None:
    ann = account(7, "ann", plain("pw"), static_codes=(Secret("abcd2345"), Secret("wxyz6789")), totp=(TOTP,))
    monkeypatch.setitem(CONTENTS, "codes", directory([ann]))
    async with shelf(path, "codes") as it:
        assert isinstance(await it.bind("ann", "pw;abcd2345"), Accepted)
        for text in ("nothing", "codes"):
            path.write_text(text)
            await it.backend.refresh()
        assert isinstance(await it.bind("ann", "pw;abcd2345"), Rejected)
        challenge = await it.backend.authenticate(RADIUS, "ann", Secret("pw"), DEVICE)
        assert isinstance(challenge, Challenge)
        outcome = await it.backend.resume(RADIUS, challenge.continuation, Secret("wxyz6789"), DEVICE)
        assert isinstance(outcome, Accepted)
