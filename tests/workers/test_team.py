"""The parent with workers that do not behave."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import outpost
from outpost import __version__
from outpost.credentials.gate import Gate, GateSettings
from outpost.errors import ConfigError
from outpost.identity import CertificateKeyPair, Secret
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from outpost.ldap.tls import TlsSettings
from outpost.observe.logs import LEVELS
from outpost.processes import channel
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits
from outpost.workers import team as teams
from outpost.workers import words
from outpost.workers.team import Team, WorkerFailed
from outpost.workers.words import Configure, State

ROOT = str(Path(outpost.__file__).parent.parent)
NO_SOCKETS = {"ldap": (), "ldaps": (), "radius": ()}


class Log:
    """A writer that keeps what it is given."""

    is_json, threshold = True, LEVELS["info"]

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def put(self, level: str, logger: str, event: str, fields: dict[str, object]) -> None:
        self.lines.append((level, event, fields))

    def share(self, lock: int) -> None:
        """There is nobody else."""

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


def configure(listeners: tuple[str, ...]) -> Configure:
    return Configure(
        version=__version__,
        listeners=listeners,
        is_json=True,
        level=LEVELS["info"],
        can_vouch=False,
        can_change_passwords=False,
        has_sessions=False,
        hash_key=Secret(bytes(32)),
        core_dumps=True,
        drain_s=1.0,
        gate=GateSettings(),
        tls=TlsSettings(),
        limits=ServerLimits(),
        search=SearchLimits(),
        dictionaries=DictionarySettings(),
        exchange=Limits(),
        trusted_proxies=(),
        default_certificate=CertificateKeyPair("default", b"", Secret(b"")),
        class_key=Secret(b""),
    )


@contextlib.asynccontextmanager
async def team(manner: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Team, Log]]:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("EVIL", manner)
    monkeypatch.setattr(teams, "TICK_S", 0.05)
    monkeypatch.setattr(teams, "SILENT_TICKS", 1000)
    log = Log()
    gate = Gate(None)  # type: ignore[arg-type]
    it = Team(
        gate,
        None,  # type: ignore[arg-type]
        log,  # type: ignore[arg-type]
        None,
        configure=configure,
        state=lambda: State(20, 0.0, False, {}, {}),
        most=10,
        drain_s=1.0,
        flawed=lambda: None,
        module="tests.workers.evil",
    )
    try:
        yield it, log
    finally:
        await it.stop(0.1)
        await it.stop(0.1)
        await gate.stop()


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_honest_workers_are_drained_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with team("honest", monkeypatch) as (it, log):
        assert it.readiness("radius") == "the workers are not started yet"
        await it.start([NO_SOCKETS, NO_SOCKETS])
        assert it.readiness("radius") == it.readiness("ldap") == ""
        await asyncio.sleep(0.1)
    assert log.lines == []


@pytest.mark.parametrize(
    ("manner", "error", "text"),
    [
        ("exit", WorkerFailed, "worker 1 ended before it served: exit status 7"),
        ("refuses", ConfigError, "settings: they are wrong"),
        ("silent", WorkerFailed, "worker 1 did not begin to serve in 0.5 s"),
    ],
)
async def test_a_start_that_cannot_succeed_fails_and_is_not_repeated(
    manner: str, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if manner == "silent":
        monkeypatch.setattr(teams, "START_S", 0.5)
    async with team(manner, monkeypatch) as (it, log):
        with pytest.raises(error) as failed:
            await it.start([NO_SOCKETS, NO_SOCKETS])
        assert str(failed.value) == text
    assert log.events() == []


@pytest.mark.parametrize(
    ("manner", "why", "times"),
    [
        ("noise", "it sent a message of an unknown kind", 3),
        ("strange", "it sent a value of another type than expected", 1),
        ("descriptors", "it sent a value of another type than expected", 1),
    ],
)
async def test_who_talks_nonsense_is_ended_and_replaced_after_longer_and_longer_pauses(
    manner: str, why: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teams, "FIRST_PAUSE_S", 0.05)
    before = set(os.listdir("/proc/self/fd"))
    async with team(manner, monkeypatch) as (it, log):
        await it.start([NO_SOCKETS])
        await until(lambda: len(log.lines) >= times)
        assert set(log.events()) == {"a worker has ended and is replaced"}
        for level, _, fields in log.lines:
            assert level == "error" and fields["why"] == why and fields["status"] == "killed by SIGKILL"
        assert [fields.get("pause-s") for _, _, fields in log.lines[:times]] == [None, 0.05, 0.1][:times]
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2


async def test_who_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "QUEUED", 50)
    async with team("deaf", monkeypatch) as (it, log):
        await it.start([NO_SOCKETS])
        monkeypatch.setenv("EVIL", "honest")
        for _ in range(5000):
            it._tell(words.Refused(bytes(1000)))
        await until(lambda: it.readiness("radius") == "" and len(log.lines) == 1)
        assert log.lines[0][2]["why"] == "it does not read what it is sent"


async def test_who_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with team("deaf", monkeypatch) as (it, log):
        await it.start([NO_SOCKETS])
        monkeypatch.setattr(teams, "SILENT_TICKS", 20)
        monkeypatch.setenv("EVIL", "honest")
        await until(lambda: len(log.lines) == 2 and it.readiness("radius") == "")
        assert log.events() == ["a worker does not answer", "a worker has ended and is replaced"]


async def test_a_replacement_that_fails_leaves_the_old_workers_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async with team("honest", monkeypatch) as (it, log):
        await it.start([NO_SOCKETS, NO_SOCKETS])
        before = [slot.member for slot in it._slots]
        monkeypatch.setenv("EVIL", "exit")
        await it.roll()
        assert [slot.member for slot in it._slots] == before and it.readiness("ldap") == ""
        assert log.events() == [
            "workers are not replaced, the old ones go on: worker 1 ended before it served: exit status 7"
        ]
        monkeypatch.setenv("EVIL", "honest")
        await it.roll()
        assert not {slot.member for slot in it._slots} & set(before)
        assert log.events()[1:] == ["the workers have been replaced"]


async def test_one_that_is_killed_while_it_is_replaced_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with team("honest", monkeypatch) as (it, _):
        await it.start([NO_SOCKETS])
        member = it._slots[0].member
        assert member is not None
        rolling = asyncio.create_task(it.roll())
        await asyncio.sleep(0.01)
        os.kill(member.pid, signal.SIGKILL)
        await rolling
        await until(lambda: len(it._members) == 1 and it.readiness("radius") == "")
        await asyncio.sleep(0.3)
        assert it._members == {it._slots[0].member}


async def test_who_will_not_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "STOP_S", 0.1)
    async with team("deaf", monkeypatch) as (it, log):
        await it.start([NO_SOCKETS])
        await it.stop(0.1)
        assert log.events() == ["a worker had to be killed"]
