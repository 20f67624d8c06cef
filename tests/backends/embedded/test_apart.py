"""Directories that a process of its own has read: the same as the ones read here."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from outpost.backends.embedded import apart, apart_process
from outpost.backends.embedded import backend as backend_module
from outpost.backends.embedded.apart import load_apart
from outpost.backends.embedded.authority import Book
from outpost.backends.embedded.backend import EmbeddedBackend
from outpost.backends.embedded.changes import revocations
from outpost.backends.embedded.loader import load
from outpost.backends.embedded.model import NO_EXTRAS, Extras
from outpost.backends.embedded.packed import PackedAccounts, PackedLogins, digest_of, pack, summary_of
from outpost.errors import BackendError, ConfigError, DecodeError
from outpost.identity import Accepted, LdapOptions, RadiusOptions, Revoked, Secret
from outpost.processes import child, memory
from tests.backends.embedded.people import CLIENT, account, directory, hashed

ANN = account(7, "ann", hashed("pw-ann"))
BOB = account(8, "bob", hashed("pw-bob"))
SERVED = """\
  - model: authentik_providers_ldap.ldapprovider
    id: ldap
    attrs: {name: directory, base_dn: "dc=example,dc=org"}
  - model: authentik_core.application
    attrs: {name: App, slug: app, provider: !KeyOf ldap}
  - model: authentik_providers_radius.radiusprovider
    id: radius
    attrs: {name: network, shared_secret: testing123, client_networks: 192.0.2.0/24}
  - model: authentik_core.application
    attrs: {name: Net, slug: net, provider: !KeyOf radius}
  - model: authentik_policies.policybinding
    attrs: {target: !Find [authentik_core.application, [slug, net]], group: !KeyOf staff, order: 0}
"""
PEOPLE = """\
version: 1
entries:
  - model: authentik_core.group
    id: staff
    attrs: {name: staff, attributes: {radius: {Class: staff}}}
  - model: authentik_core.user
    id: ann
    attrs:
      {username: Ann, email: ann@example.org, password: !Env ANNS, groups: [!KeyOf staff], date_joined: 2025-01-31,
      attributes: {radius: {Filter-Id: [a, b]}, born: yesterday, list: [1, 2.5, null, true, {x: "\\u00e9"}]}}
  - model: authentik_core.user
    attrs: {username: bob, password: "pässword", is_active: false}
  - model: authentik_core.token
    attrs: {identifier: t, key: app-key, intent: app_password, user: !KeyOf ann, expires: 2099-01-01, expiring: true}
  - model: authentik_stages_authenticator_totp.totpdevice
    attrs: {user: !KeyOf ann, name: phone, key: 3132333435363738393031323334353637383930}
"""


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ANNS", "secret of ann")
    monkeypatch.setenv("OUTPOST_SOMETHING", "kept from other children")
    found = tmp_path / "directory.yaml"
    found.write_text(PEOPLE + SERVED)
    return found


async def test_everything_comes_back_as_it_is_read_here(path) -> None:
    extras = Extras(
        {"directory": LdapOptions(uid="username", samba=True)}, {"network": RadiusOptions(code_suffix=True)}
    )
    here, there = load(path, extras), (await load_apart(path, extras)).directory
    assert here.accounts and dict(there.accounts.items()) == here.accounts
    assert dict(there.by_login.items()) == here.by_login
    assert (there.people.users, there.people.groups) == (here.people.users, here.people.groups)
    assert (there.served, there.applications, there.files) == (here.served, here.applications, here.files)
    assert there.warnings == here.warnings and any("plain text" in one for one in there.warnings)
    assert summary_of(there.accounts) == summary_of(here.accounts)
    assert there.people.user_count == len(there.accounts) == 2
    assert "ann" in there.by_login and "Ann" not in there.by_login and there.accounts.get(0) is None


async def test_settings_in_the_environment_reach_env_tags(path) -> None:
    path.write_text(PEOPLE.replace("!Env ANNS", "!Env OUTPOST_SOMETHING"))
    found = (await load_apart(path, NO_EXTRAS)).directory
    account = found.accounts[found.by_login["ann"]]
    assert account.password is not None and account.password.value == Secret("kept from other children")


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nentries: [",
        PEOPLE + "  - model: authentik_core.user\n    attrs: {username: BOB}\n",
        PEOPLE.replace("is_active: false", "is_activ: false"),
        PEOPLE.replace("!KeyOf staff", "!KeyOf stuff"),
    ],
)
async def test_what_is_wrong_is_told_with_the_same_place(path, text) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as here:
        load(path)
    with pytest.raises(ConfigError) as there:
        await load_apart(path, NO_EXTRAS)
    expected, found = here.value, there.value
    assert (found.problem, found.source, found.line, found.key) == (
        expected.problem,
        expected.source,
        expected.line,
        expected.key,
    )
    assert str(found) == str(expected) and found.line is not None


@pytest.mark.parametrize(
    ("old", "new", "revoked"),
    [
        ("name: phone", "name: phone", []),
        ("is_active: false", "is_active: true", ["bob"]),
        ("!Env ANNS", "other", ["ann"]),
        ("email: ann@example.org", "email: ann@example.com", ["ann"]),
        ("attributes: {radius: {Class: staff}}", "attributes: {radius: {Class: others}}", ["ann"]),
        ("name: phone, key: 31", "name: phone, key: 32", ["ann"]),
        ("username: bob", "username: rob", ["bob"]),
    ],
)
async def test_who_is_to_be_forgotten_is_found_over_there(path, old, new, revoked) -> None:
    before, plain = (await load_apart(path, NO_EXTRAS)).directory, load(path)
    path.write_text(path.read_text().replace(old, new))
    after = await load_apart(path, NO_EXTRAS, before)
    assert after.revoked == tuple(before.by_login[name] for name in revoked)
    found = revocations(before, after.directory, after.revoked)
    assert found == revocations(plain, load(path)) == revocations(before, after.directory)
    assert found == revocations(before, load(path)) == revocations(plain, after.directory)
    assert (before.accounts == after.directory.accounts) is not bool(revoked)
    assert (before.by_login == after.directory.by_login) is not bool(revoked)


@pytest.mark.parametrize("value", [".nan", "2000-02-29", "2000-02-29T12:00:00Z", str(1 << 70)])
async def test_nothing_is_told_with_loss(path, value) -> None:
    path.write_text(path.read_text().replace("born: yesterday", f"born: {value}"))
    with pytest.raises(BackendError, match=r"what JSON cannot|TypeError"):
        await load_apart(path, NO_EXTRAS)


async def test_a_process_that_fails_says_no_secret_and_is_an_error(path, monkeypatch) -> None:
    monkeypatch.setattr(apart, "MODULE", "outpost.no_such_module")
    with pytest.raises(BackendError, match="ended before"):
        await load_apart(path, NO_EXTRAS)


# -- the backend ----------------------------------------------------------------------------------


class Served:
    """A backend over a file that counts as large, and what it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[tuple[str, str]] = []
        self.heard: list[Revoked] = []
        self.backend = EmbeddedBackend(
            path, publish=self.heard.append, log=lambda level, event: self.log.append((level, event)), poll_s=1000
        )

    async def login(self, name: str, secret: str) -> bool:
        (provider,) = self.backend.served().ldap
        return isinstance(await self.backend.authenticate(provider, name, Secret(secret), CLIENT), Accepted)

    def change(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))


@pytest.fixture
async def served(path, monkeypatch):
    monkeypatch.setattr(backend_module, "APART_OCTETS", 0)
    it = Served(path)
    await it.backend.start()
    yield it
    await it.backend.stop()


async def test_a_large_file_is_served_and_followed(served) -> None:
    first = served.backend.current(served.backend.served().ldap[0])
    # With a device, the application password is what logs in alone.
    assert await served.login("ANN@example.org", "app-key")
    assert not await served.login("ann", "secret of ann")
    assert not await served.login("bob", "pässword") and not await served.login("nobody", "x")
    served.change("is_active: false", "is_active: true")
    await served.backend.refresh()
    assert await served.login("bob", "pässword")
    assert [one.user_pk for one in served.heard] == [served.backend._book.directory.by_login["bob"]]
    people = served.backend.current(served.backend.served().ldap[0])
    assert people.generation == first.generation + 1 and not isinstance(people.users[0], bytes)
    assert not [event for level, event in served.log if "without a process" in event]


async def test_the_same_content_changes_nothing(served) -> None:
    book, said = served.backend._book, len(served.log)
    served.change("version: 1", "version: 1  # again")
    await served.backend.refresh()
    assert served.backend._book is book and not served.heard and len(served.log) == said


async def test_a_broken_version_leaves_what_was_read_and_tells_the_line(served) -> None:
    served.change("username: bob", "username: ann")
    await served.backend.refresh()
    assert await served.login("ann", "app-key") and not served.heard
    level, event = served.log[-1]
    line = 1 + PEOPLE[: PEOPLE.index("username: bob")].count("\n")
    assert level == "error" and f"{served.path}:{line}: " in event and "already taken in line" in event


async def test_without_a_process_the_file_is_read_here(served, monkeypatch) -> None:
    monkeypatch.setattr(apart, "MODULE", "outpost.no_such_module")
    served.change('password: "pässword", is_active: false', "password: new")
    await served.backend.refresh()
    assert await served.login("bob", "new") and await served.login("ann", "app-key")
    assert [one.user_pk for one in served.heard] == [served.backend._book.directory.by_login["bob"]]
    assert not isinstance(served.backend._book.directory.accounts, PackedAccounts)
    assert [level for level, event in served.log if "without a process" in event] == ["warning"]


async def test_what_cannot_be_told_is_read_here_and_said_once(served) -> None:
    served.change("born: yesterday", "born: 2000-02-29")
    await served.backend.refresh()
    served.change("born: 2000-02-29", "born: 2000-03-01")
    await served.backend.refresh()
    assert await served.login("ann", "app-key")
    assert len([event for _, event in served.log if "without a process" in event]) == 1


async def test_the_process_ends_with_a_read_that_is_given_up(path, monkeypatch) -> None:
    started = []
    real = child.start

    async def start(module: str) -> object:
        found = await real(module)
        started.append(found.process)
        return found

    monkeypatch.setattr(child, "start", start)
    reading = asyncio.create_task(load_apart(path, NO_EXTRAS))
    while not started:
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert started[0].returncode is not None


# -- the octets -----------------------------------------------------------------------------------


def packed(accounts: list, by_login: dict[str, int] | None = None) -> PackedAccounts:
    found = directory(accounts)
    octets = pack(found.accounts, found.by_login if by_login is None else by_login)
    return PackedAccounts(memory.sealed(octets), digest_of(octets), summary_of(found.accounts))


def test_nobody_at_all_can_be_packed() -> None:
    found = packed([])
    logins = PackedLogins(found)
    assert not len(found) and not list(logins) and found.get(1) is None and logins.get("ann") is None


def test_names_with_one_hash_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr("outpost.backends.embedded.packed._number", lambda octets: 7)
    logins = PackedLogins(packed([ANN, BOB]))
    assert logins["ann"] == ANN.pk and logins["bob"] == BOB.pk and logins.get("eve") is None


def test_equal_accounts_are_equal_octets() -> None:
    groups = [f"g{n}" for n in range(50)]
    one, other = (packed([replace(ANN, memberships=frozenset(names))]) for names in (groups, groups[::-1]))
    assert one == other and one.row(ANN.pk) == other.row(ANN.pk)
    assert one != packed([replace(ANN, is_superuser=not ANN.is_superuser, memberships=frozenset(groups))])


def test_the_decoys_cost_what_the_accounts_do() -> None:
    found = directory([replace(ANN, password=hashed("a")), replace(BOB, password=None)])
    book = Book(replace(found, accounts=packed(list(found.accounts.values()))), b"k" * 32)
    text, own = book.decoy("nobody"), found.accounts[ANN.pk].password
    assert text is not None and own is not None
    assert text.split("$")[:4] == own.value.reveal_text().split("$")[:4] and text != own.value.reveal_text()


@pytest.mark.parametrize("octets", [b"\0", bytes(15), b"\1" + bytes(40), b"\xff" * 64])
def test_other_memory_is_refused(octets) -> None:
    with pytest.raises(DecodeError):
        PackedAccounts(memory.sealed(octets), b"", summary_of({}))


def test_memory_that_can_be_written_is_refused() -> None:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(descriptor, pack({}, {}))
    with pytest.raises(DecodeError):
        PackedAccounts(descriptor, b"", summary_of({}))


def test_cut_short_octets_are_refused() -> None:
    octets = pack(directory([ANN]).accounts, {"ann": ANN.pk})
    for size in range(1, len(octets)):
        with pytest.raises(DecodeError):
            PackedAccounts(memory.sealed(octets[:size]), b"", summary_of({}))


def test_the_process_answers_nothing_but_what_it_was_asked() -> None:
    with pytest.raises(DecodeError):
        apart_process.ORDER.decode(b'["/etc/passwd"]')
