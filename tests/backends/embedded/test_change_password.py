"""Changing passwords of a real directory file through the backend and the gate: who may, who hears of it, races."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outpost.backends.embedded import backend as module
from outpost.backends.embedded import phc, rewrite
from outpost.backends.embedded.backend import EmbeddedBackend
from outpost.backends.embedded.pool import VerifyPool
from outpost.credentials.gate import Gate
from outpost.errors import ConfigError
from outpost.identity import (
    Accepted,
    Changed,
    Identity,
    LdapProvider,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Source,
    Unavailable,
    Unwilling,
)
from tests.backends.embedded.people import CLIENT, hashed

EXAMPLE = Path(__file__).parents[3] / "examples" / "directory.yaml"


class Bench:
    """A backend behind a gate over a copy of the example."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Revoked] = []
        self.log: list[tuple[str, str]] = []
        self.backend = EmbeddedBackend(
            path,
            publish=self._publish,
            log=lambda level, event: self.log.append((level, event)),
            pool=VerifyPool(2),
        )
        self.gate = Gate(self.backend, passwords=self.backend)
        self.gate.set_connected(True)

    def _publish(self, revoked: Revoked) -> None:
        self.heard.append(revoked)
        self.gate.publish(revoked)

    @property
    def ldap(self) -> LdapProvider:
        return self.backend.served().ldap[0]

    async def bind(self, username: str, secret: str) -> Any:
        return await self.gate.authenticate(self.ldap, username, Secret(secret), CLIENT)

    async def identity(self, username: str, secret: str) -> Identity:
        found = await self.bind(username, secret)
        assert isinstance(found, Accepted), found
        return found.identity

    async def change(self, identity: Identity, old: str | bytes, new: str | bytes) -> Any:
        return await self.gate.change_password(self.ldap, identity, Secret(old), Secret(new), CLIENT)


@asynccontextmanager
async def bench(folder: Path, text: str | None = None) -> AsyncIterator[Bench]:
    path = folder / "directory.yaml"
    if text is None:
        shutil.copy(EXAMPLE, path)
    else:
        path.write_text(text)
    path.chmod(0o640)
    it = Bench(path)
    await it.backend.start()
    try:
        yield it
    finally:
        await it.gate.stop()
        await it.backend.stop()


def is_refused(decision: Any, reason: RejectReason = RejectReason.INVALID_CREDENTIALS) -> bool:
    return isinstance(decision, Rejected) and decision.reason is reason


# -- known good ----------------------------------------------------------------------------------------


async def test_the_new_one_counts_at_once_and_the_old_one_never_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        assert it.backend.can_change_passwords() and it.gate.can_change_passwords()
        alice = await it.identity("alice", "alice-pw")
        before = it.path.read_text()
        assert await it.change(alice, "alice-pw", "Nëw pw 🐘") == Changed()
        assert it.heard == [Revoked(user_pk=alice.user_pk)]
        assert is_refused(await it.bind("alice", "alice-pw")), "though the cache knew it"
        assert (await it.identity("alice", "Nëw pw 🐘")) == alice
        after = it.path.read_text()
        differs = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
        assert len(differs) == 1 and "$argon2id$v=19$m=19456,t=2,p=1$" in differs[0][1]
        assert "Nëw" not in after and not any("Nëw" in event or "alice-pw" in event for _, event in it.log)
        assert ("info", "the password of 'alice' was changed by 192.0.2.7") in it.log
        assert await it.change(alice, "Nëw pw 🐘", "alice-pw") == Changed(), "and back again"
        assert (await it.identity("alice", "alice-pw")) == alice


async def test_it_outlives_the_process(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        assert await it.change(await it.identity("bob", "bob-pw"), "bob-pw", "new") == Changed()
        text = it.path.read_text()
    async with bench(tmp_path, text) as again:
        await again.identity("bob", "new")
        assert is_refused(await again.bind("bob", "bob-pw"))


async def test_costs_never_sink(tmp_path: Path) -> None:
    dear = phc.Argon2id(salt=b"salt-of-tests", length=32, iterations=3, lanes=2, memory_cost=20480)
    for old, cost in (
        (hashed("pw").value.reveal_text(), "m=19456,t=2,p=1"),
        (dear.derive_phc_encoded(b"pw"), "m=20480,t=3,p=2"),
        ("pw", "m=19456,t=2,p=1"),
    ):
        async with bench(tmp_path, one_user(f"'{old}'")) as it:
            assert await it.change(await it.identity("ann", "pw"), "pw", "new") == Changed()
            assert f"$argon2id$v=19${cost}$" in it.path.read_text()


def one_user(password: str, more: str = "") -> str:
    return f"""
entries:
  - model: authentik_core.user
    id: ann
    attrs: {{username: ann, password: {password}{more}}}
  - {{model: authentik_providers_ldap.ldapprovider, id: ldap, attrs: {{name: ldap, base_dn: "dc=example,dc=org"}}}}
  - {{model: authentik_core.application, attrs: {{slug: ldap, name: LDAP, provider: !KeyOf ldap}}}}
"""


async def test_everybody_may_at_the_same_time(tmp_path: Path) -> None:
    """Changes of different users queue; none is lost, none is mixed up."""
    async with bench(tmp_path) as it:
        names = ("alice", "bob", "frank", "dave")
        people = [await it.identity(name, f"{name}-pw") for name in names]
        found = await asyncio.gather(
            *(it.change(who, f"{name}-pw", f"new-{name}") for who, name in zip(people, names, strict=True))
        )
        assert found == [Changed()] * len(names)
        for name in names:
            await it.identity(name, f"new-{name}")
            assert is_refused(await it.bind(name, f"{name}-pw"))


async def test_of_two_changes_of_one_user_one_counts(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        found = await asyncio.gather(*(it.change(alice, "alice-pw", f"new-{n}") for n in range(6)))
        (winner,) = [n for n, decision in enumerate(found) if decision == Changed()]
        for decision in found:
            assert decision == Changed() or is_refused(decision) or isinstance(decision, Unwilling)
        await it.identity("alice", f"new-{winner}")
        for n in range(6):
            if n != winner:
                assert is_refused(await it.bind("alice", f"new-{n}"))


# -- must refuse ---------------------------------------------------------------------------------------


async def unchanged(it: Bench, identity: Identity, old: str | bytes = "alice-pw", new: str | bytes = "new") -> Any:
    before, heard = it.path.read_bytes(), list(it.heard)
    decision = await it.change(identity, old, new)
    assert decision != Changed()
    assert it.path.read_bytes() == before and it.heard == heard
    assert [p for p in it.path.parent.iterdir() if p != it.path] == []
    return decision


@pytest.mark.parametrize(
    "old", ["", "wrong", "alice-pw ", "ALICE-PW", "alice-pw\0", "bob-pw", "alice-pw;123456", b"\xff", "x" * 5000]
)
async def test_whoever_does_not_know_the_old_one(tmp_path: Path, old: str | bytes) -> None:
    async with bench(tmp_path) as it:
        assert is_refused(await unchanged(it, await it.identity("alice", "alice-pw"), old))


async def test_an_app_password_or_a_code_is_no_old_password(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        dave = await it.identity("dave", "dave-printer-app-password")
        assert is_refused(await unchanged(it, dave, "dave-printer-app-password"))
        assert await it.change(dave, "dave-pw", "new") == Changed()
        assert await it.identity("dave", "dave-printer-app-password") == dave, "that one is another secret"


@pytest.mark.parametrize("new", ["", b"x" * 1025])
async def test_what_is_no_password(tmp_path: Path, new: str | bytes) -> None:
    async with bench(tmp_path) as it:
        assert isinstance(await unchanged(it, await it.identity("alice", "alice-pw"), new=new), Unwilling)


async def test_the_identity_of_somebody_else(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        alice, bob = await it.identity("alice", "alice-pw"), await it.identity("bob", "bob-pw")
        for identity in (
            replace(alice, user_pk=bob.user_pk), replace(alice, username="bob"), replace(alice, user_pk=-1),
        ):  # fmt: skip
            assert is_refused(await unchanged(it, identity))
        assert is_refused(await unchanged(it, bob, "alice-pw"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("username: alice", "username: alice2"),
        ("username: alice", "is_active: false\n      username: alice"),
    ],
)
async def test_somebody_who_is_no_more(tmp_path: Path, before: str, after: str) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        it.path.write_text(it.path.read_text().replace(before, after, 1))
        await it.backend.refresh()
        it.heard.clear()
        assert is_refused(await unchanged(it, alice))


async def test_somebody_whom_the_application_lets_in_no_more(tmp_path: Path) -> None:
    bound = "  - {model: authentik_core.user, id: eve, attrs: {username: eve}}\n  - {model: " + (
        "authentik_policies.policybinding, attrs: {target: !KeyOf app, user: !KeyOf eve}}\n"
    )
    text = one_user("pw").replace("authentik_core.application, ", "authentik_core.application, id: app, ")
    async with bench(tmp_path, text) as it:
        ann = await it.identity("ann", "pw")
        it.path.write_text(text + bound)
        await it.backend.refresh()
        it.heard.clear()
        assert is_refused(await unchanged(it, ann, "pw"), RejectReason.ACCESS_DENIED)


async def test_a_provider_that_is_gone(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        alice, there = await it.identity("alice", "alice-pw"), it.ldap
        decision = await it.gate.change_password(
            replace(there, pk=there.pk + 1), alice, Secret("alice-pw"), Secret("new"), CLIENT
        )
        assert is_refused(decision)


async def test_a_read_only_file(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        it.path.chmod(0o440)
        await it.backend.refresh()
        assert not it.backend.can_change_passwords() and not it.gate.can_change_passwords()
        decision = await unchanged(it, alice)
        assert decision == Unwilling("the directory file is read-only")
        assert await it.identity("alice", "alice-pw") == alice
        it.path.chmod(0o640)
        await it.backend.refresh()
        assert it.backend.can_change_passwords()
        assert await it.change(alice, "alice-pw", "new") == Changed()


@pytest.mark.parametrize("written", ["!Env OUTPOST_TEST_PASSWORD", "&a pw", "!!str pw"])
async def test_a_password_that_is_not_plainly_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("OUTPOST_TEST_PASSWORD", "pw")
    async with bench(tmp_path, one_user(written)) as it:
        decision = await unchanged(it, await it.identity("ann", "pw"), "pw")
        assert isinstance(decision, Unwilling) and "comes from" in decision.detail
        assert any(level == "warning" and "'ann' was not changed" in event for level, event in it.log)
        await it.identity("ann", "pw")


@pytest.mark.parametrize("edit", ["touched", "edited", "broken", "gone"])
async def test_a_file_that_changed_since_it_was_read(tmp_path: Path, edit: str) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        text = it.path.read_text()
        if edit == "gone":
            it.path.unlink()
            assert await it.change(alice, "alice-pw", "new") == Unwilling(
                "the directory file changed meanwhile; try again"
            )
            assert not it.path.exists()
            return
        if edit == "touched":
            os.utime(it.path, (1, 1))
        else:
            it.path.write_text(text + "# edited\n" if edit == "edited" else text + "]")
        assert await unchanged(it, alice) == Unwilling("the directory file changed meanwhile; try again")
        await it.backend.refresh()
        if edit == "broken":
            assert isinstance(await unchanged(it, alice), Unwilling)
        else:
            assert await it.change(alice, "alice-pw", "new") == Changed()


# -- races and failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [one_user("pw2"), one_user("pw", ", is_active: false"), one_user("pw", ", pk: 99")])
async def test_the_account_changes_while_the_old_one_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    async with bench(tmp_path, one_user("pw")) as it:
        ann = await it.identity("ann", "pw")
        entered, go = asyncio.Event(), asyncio.Event()
        real = it.backend._pool.run

        async def slow(work: Any) -> Any:
            found = await real(work)
            entered.set()
            await go.wait()
            return found

        monkeypatch.setattr(it.backend._pool, "run", slow)
        waiting = asyncio.create_task(it.change(ann, "pw", "mine"))
        await entered.wait()
        it.path.write_text(later)
        await it.backend.refresh()
        go.set()
        assert await waiting == Unwilling("your account changed meanwhile; try again")
        assert it.path.read_text() == later


async def test_a_file_that_cannot_be_read_again_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")

        def fails() -> None:
            raise ConfigError("broken", source="x")

        monkeypatch.setattr(it.backend, "_load", fails)
        assert isinstance(await it.change(alice, "alice-pw", "new"), Unwilling)
        assert it.heard == []
        await it.identity("alice", "alice-pw")
        monkeypatch.undo()
        await it.backend.refresh()


async def test_whoever_stops_waiting_has_changed_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a change would be the worst: a new password in the file that nobody here believes."""
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        loop, writing = asyncio.get_running_loop(), asyncio.Event()
        real = rewrite.change_password

        def writes(*args: Any) -> None:
            loop.call_soon_threadsafe(writing.set)
            real(*args)

        monkeypatch.setattr(module.rewrite, "change_password", writes)
        waiting = loop.create_task(it.change(alice, "alice-pw", "new"))
        await writing.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while it.gate._changes:
            await asyncio.sleep(0)
        assert it.heard == [Revoked(user_pk=alice.user_pk)]
        await it.identity("alice", "new")
        assert is_refused(await it.bind("alice", "alice-pw"))


async def test_stopping_waits_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        loop, writing = asyncio.get_running_loop(), asyncio.Event()
        real = rewrite.change_password

        def writes(*args: Any) -> None:
            loop.call_soon_threadsafe(writing.set)
            real(*args)

        monkeypatch.setattr(module.rewrite, "change_password", writes)
        waiting = loop.create_task(it.change(alice, "alice-pw", "new"))
        await writing.wait()
        await it.gate.stop()
        await it.backend.stop()
        assert isinstance(await waiting, Unavailable)
        assert "$argon2id$v=19$m=19456" in it.path.read_text()
        assert [p for p in it.path.parent.iterdir() if p != it.path] == []
        assert not isinstance(
            await it.backend.change_password(it.ldap, alice, Secret("new"), Secret("x"), CLIENT), Changed
        )


async def test_guesses_count_against_logins_and_the_other_way_round(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        alice = await it.identity("alice", "alice-pw")
        elsewhere = Source("ldap", "198.51.100.9")
        last: Any = None
        for n in range(100):
            last = await it.gate.change_password(it.ldap, alice, Secret(f"guess-{n}"), Secret("new"), elsewhere)
            if is_refused(last, RejectReason.THROTTLED):
                break
        assert is_refused(last, RejectReason.THROTTLED)
        bind = await it.gate.authenticate(it.ldap, "alice", Secret("another guess"), elsewhere)
        assert is_refused(bind, RejectReason.THROTTLED)
        right = await it.gate.change_password(it.ldap, alice, Secret("alice-pw"), Secret("new"), elsewhere)
        assert is_refused(right, RejectReason.THROTTLED), "not even the right one"
