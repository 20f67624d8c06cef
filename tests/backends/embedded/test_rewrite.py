"""A new password in a directory file: that one value and not an octet more, or nothing at all."""

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outpost.backends.embedded import rewrite
from outpost.backends.embedded.loader import load
from outpost.backends.embedded.rewrite import CannotChange, change_password, edited, is_writable
from outpost.errors import ConfigError
from outpost.identity import Secret

EXAMPLE = Path(__file__).parents[3] / "examples" / "directory.yaml"
NEW = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdC1vZi10ZXN0cw$c29tZXRoaW5nLXRoYXQtaXMtbm8taGFzaA"
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdC1vZi10ZXN0cw$c29tZXRoaW5nLXRoYXQtaXMtbm8taGFzaA"

HEAD = "# Ünser Verzeichnis 🐘\r\nversion: 1\nentries:\n"
BOB = "  - {model: authentik_core.user, attrs: {username: bob, password: other}}  # the other one\n"


def edit(text: str | bytes, old: str = "old-pw", username: str = "alice", **environ: str) -> str:
    octets = text.encode() if isinstance(text, str) else text
    return edited(octets, Path("directory.yaml"), username, Secret(old), NEW, NOON, environ).decode()


def content(path: Path) -> str:
    return path.read_bytes().decode()


def put(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def alice(password: str, tail: str = "", kind: str = "attrs") -> str:
    """One user in block style, whose password is written as given."""
    return f"  - model: authentik_core.user\n    {kind}:\n      username: alice\n      password: {password}{tail}\n"


def alone(password: str, tail: str = "") -> str:
    return HEAD + alice(password, tail)


# -- known good ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "old", "becomes"),
    [
        ("old-pw", "old-pw", f'"{NEW}"'),
        ("old-pw   # plain", "old-pw", f'"{NEW}"   # plain'),
        ("'old-pw'", "old-pw", f"'{NEW}'"),
        ('"old-pw"', "old-pw", f'"{NEW}"'),
        ('"old\\x2dpw" # escaped', "old-pw", f'"{NEW}" # escaped'),
        ("'it''s'", "it's", f"'{NEW}'"),
        ('"pässwörd 🐘"\t# tab', "pässwörd 🐘", f'"{NEW}"\t# tab'),
        ("12345", "12345", f'"{NEW}"'),
        (HASH, HASH, f'"{NEW}"'),
        (f'"{HASH}"', HASH, f'"{NEW}"'),
        ("two words", "two words", f'"{NEW}"'),
        ('"a\n        b"', "a b", f'"{NEW}"'),
        ("'#'", "#", f"'{NEW}'"),
        ("old-pw\r", "old-pw", f'"{NEW}"\r'),
        ("\n        old-pw", "old-pw", f'\n        "{NEW}"'),
    ],
)
@pytest.mark.parametrize("order", ["first", "last", "alone"])
@pytest.mark.parametrize("kind", ["attrs", "identifiers"])
def test_one_value_and_not_an_octet_more(written: str, old: str, becomes: str, order: str, kind: str) -> None:
    before = HEAD + (BOB if order == "last" else "")
    after = BOB if order == "first" else ""
    text = before + alice(written, kind=kind) + after
    assert edit(text, old) == before + alice(becomes, kind=kind) + after


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{version: 1, entries: [{model: authentik_core.user, attrs: {password: old-pw, username: alice}}]}",
            f'{{version: 1, entries: [{{model: authentik_core.user, attrs: {{password: "{NEW}", username: alice}}}}]}}',
        ),
        (
            '{"entries": [{"model": "authentik_core.user",\n "attrs": {"username": "alice", "password":"old-pw"}}]}\n',
            '{"entries": [{"model": "authentik_core.user",\n "attrs": {"username": "alice", "password":'
            f'"{NEW}"}}}}]}}\n',
        ),
        ("\ufeff" + HEAD + alice("old-pw"), "\ufeff" + HEAD + alice(f'"{NEW}"')),
        ("\ufeff" + HEAD + alice("'old-pw'"), "\ufeff" + HEAD + alice(f"'{NEW}'")),
        (alone("old-pw").replace("\n", "\r\n"), alone(f'"{NEW}"').replace("\n", "\r\n")),
        ("%YAML 1.1\n---\n" + alone("old-pw") + "...\n", "%YAML 1.1\n---\n" + alone(f'"{NEW}"') + "...\n"),
        (HEAD + alice("old-pw").rstrip("\n"), HEAD + alice(f'"{NEW}"').rstrip("\n")),
        (HEAD + alice("old-pw", "\n      name: old-pw"), HEAD + alice(f'"{NEW}"', "\n      name: old-pw")),
        (
            HEAD + alice("old-pw").replace("username: alice", "username: !Format ['ali%s', ce]"),
            HEAD + alice(f'"{NEW}"').replace("username: alice", "username: !Format ['ali%s', ce]"),
        ),
        (alone("old-pw", "\n      x: &a 1\n      y: *a"), alone(f'"{NEW}"', "\n      x: &a 1\n      y: *a")),
    ],
)  # fmt: skip
def test_other_ways_to_write_a_file(text: str, expected: str) -> None:
    assert edit(text) == expected


def test_a_user_is_known_by_his_name_in_any_case() -> None:
    assert edit(HEAD + BOB + alice("old-pw"), username="ALICE") == HEAD + BOB + alice(f'"{NEW}"')
    assert edit(HEAD + BOB + alice("old-pw"), "other", "bob") == HEAD + BOB.replace("other}", f'"{NEW}"}}') + alice(
        "old-pw"
    )


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("2020-01-01T00:00:00Z", "2027-01-15T12:00:00Z"),
        ("'2020-01-01'  # since", "'2027-01-15T12:00:00Z'  # since"),
        ("2020-01-01 10:00:00 +01:00", "2027-01-15T12:00:00Z"),
        ("", ""),
        ("!Env WHEN", "!Env WHEN"),
        ("&when 2020-01-01", "&when 2020-01-01"),
    ],
)
def test_the_date_of_the_change_goes_with_it(written: str, becomes: str) -> None:
    for place in ("\n      password_change_date: {}", "\n      name: A"):
        text = HEAD + alice("old-pw", place.format(written)) + BOB
        assert edit(text, WHEN="2020-01-01") == HEAD + alice(f'"{NEW}"', place.format(becomes)) + BOB
    early = HEAD + alice("old-pw").replace("username", f"password_change_date: {written}\n      username")
    late = HEAD + alice(f'"{NEW}"').replace("username", f"password_change_date: {becomes}\n      username")
    assert edit(early, WHEN="2020-01-01") == late


def test_the_example_for_every_user(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    before = load(EXAMPLE, environ={})
    path = tmp_path / "directory.yaml"
    for pk, account in before.accounts.items():
        assert account.password is not None
        put(path, edit(text, account.password.value.reveal_text(), account.username))
        changed = [a for a, b in zip(text.splitlines(), content(path).splitlines(), strict=True) if a != b]
        assert len(changed) == 1
        after = load(path, environ={})
        assert after.accounts[pk].password is not None and after.accounts[pk].password.value == Secret(NEW)
        assert {k: v for k, v in after.accounts.items() if k != pk} == {
            k: v for k, v in before.accounts.items() if k != pk
        }
        assert (after.people.users, after.people.groups, after.served) == (
            before.people.users,
            before.people.groups,
            before.served,
        )


# -- must refuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (HEAD + alice("!Env PW"), "comes from a tag"),
        (HEAD + alice("!Env [PW, x]"), "comes from a tag"),
        (HEAD + alice("!Format ['old%s', -pw]"), "comes from a tag"),
        ("context: {pw: old-pw}\n" + HEAD + alice("!Context pw"), "comes from a tag"),
        (HEAD + alice("!!str old-pw"), "comes from a tag"),
        (HEAD + alice("! old-pw"), "comes from a tag"),
        (HEAD + alice("&pw old-pw"), "anchor or an alias"),
        (HEAD + alice("&pw\n        old-pw"), "anchor or an alias"),
        (HEAD + alice("!!str &pw old-pw"), "comes from a tag"),
        (HEAD + BOB.replace("other", "&pw old-pw") + alice("*pw"), "anchor or an alias"),
        (HEAD + alice("old-pw").replace("attrs:", "attrs: &a"), "anchor or an alias"),
        (HEAD + alice("old-pw").replace("- model", "- &e\n    model"), "anchor or an alias"),
        (HEAD.replace("entries:", "entries: &all") + alice("old-pw"), "anchor or an alias"),
        (HEAD + alice("|-\n        old-pw"), "a block of text"),
        (HEAD + alice(">-\n        old-pw"), "a block of text"),
        (
            "version: 1\ncontext: &common {password: old-pw}\nentries:\n  - model: authentik_core.user\n    attrs:\n"
            "      <<: *common\n      username: alice\n",
            "merged mapping",
        ),
        (HEAD + alice("other-pw"), "changed meanwhile"),
        (HEAD + alice("''"), "changed meanwhile"),
        (HEAD + alice("null"), "changed meanwhile"),
        (HEAD + "  - {model: authentik_core.user, attrs: {username: alice}}\n", "changed meanwhile"),
        (HEAD + BOB, "changed meanwhile"),
        (HEAD + alice("old-pw").replace("attrs:", "state: absent\n    attrs:"), "changed meanwhile"),
        (HEAD + alice("old-pw") + alice("old-pw"), "changed meanwhile"),
        ((HEAD + alice("old-pw")).encode("utf-16"), "UTF-8"),
        (HEAD.encode() + alice("old-pw").encode() + b"# \xff\n", "UTF-8"),
    ],
)  # fmt: skip
def test_must_refuse(text: str | bytes, why: str) -> None:
    with pytest.raises(CannotChange, match=why) as caught:
        edit(text, PW="old-pw")
    assert "old-pw" not in str(caught.value) and NEW not in str(caught.value)


def test_what_spans_lines_without_quotes_is_refused() -> None:
    with pytest.raises(CannotChange, match="cannot be replaced"):
        edit(HEAD + alice("two\n        words"), "two words")


@pytest.mark.parametrize(
    "text", ["", "]", HEAD, HEAD + "  - x\n", HEAD + alice("old-pw") + "  - {model: }\n", "--- a\n--- b\n"]
)
def test_a_broken_file_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "directory.yaml"
    put(path, text)
    with pytest.raises(CannotChange):
        change_password(path, "alice", Secret("old-pw"), NEW, NOON, {})
    assert content(path) == text and [p.name for p in tmp_path.iterdir()] == ["directory.yaml"]


def test_nothing_is_believed_that_does_not_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that is off by one is found out, whatever made it so."""
    real = rewrite._edit

    def off(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        return rewrite._Edit(found.node, found.start - 2, found.end - 2, found.value, found.written)

    monkeypatch.setattr(rewrite, "_edit", off)
    for text in (HEAD + alice("old-pw"), HEAD + BOB + alice("'old-pw'"), HEAD + alice("old-pw") + BOB):
        with pytest.raises((CannotChange, ConfigError)):
            edit(text)


# -- files ---------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "directory.yaml"
    put(found, HEAD + alice("old-pw") + BOB)
    return found


def change(path: Path) -> None:
    change_password(path, "alice", Secret("old-pw"), NEW, NOON, {})


def unchanged(path: Path, why: str) -> None:
    before = path.read_bytes()
    with pytest.raises(CannotChange, match=why) as caught:
        change(path)
    assert path.read_bytes() == before
    assert [p for p in path.parent.iterdir() if p.name.startswith(".")] == [], "nothing is left behind"
    assert str(path.parent) not in str(caught.value) and "old-pw" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o660])
def test_mode_and_owner_stay(path: Path, mode: int) -> None:
    path.chmod(mode)
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    before = path.stat()
    change(path)
    after = path.stat()
    assert stat.S_IMODE(after.st_mode) == mode and (after.st_uid, after.st_gid) == owner
    assert after.st_ino != before.st_ino, "whoever has the old one open reads all of the old one"
    assert content(path) == HEAD + alice(f'"{NEW}"') + BOB
    assert [p.name for p in path.parent.iterdir()] == ["directory.yaml"]


def test_attributes_stay(path: Path) -> None:
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    change(path)
    assert os.getxattr(path, "user.note") == b"kept"


def test_a_link_stays_a_link(path: Path) -> None:
    (path.parent / "sub").mkdir()
    link = path.parent / "sub" / "link.yaml"
    link.symlink_to("../directory.yaml")
    change(link)
    assert link.is_symlink() and NEW in content(path)
    assert [p.name for p in link.parent.iterdir()] == ["link.yaml"]


def test_read_only_is_read_only(path: Path) -> None:
    """For the superuser, too: somebody marked it."""
    assert is_writable(path)
    path.chmod(0o444)
    assert not is_writable(path)
    unchanged(path, "read-only")
    path.chmod(0o644)
    change(path)


def test_other_names_of_the_file(path: Path) -> None:
    (path.parent / "other").hardlink_to(path)
    assert not is_writable(path)
    unchanged(path, "several names")


def test_no_file(path: Path) -> None:
    path.unlink()
    assert not is_writable(path)
    with pytest.raises(CannotChange, match="No such file"):
        change(path)
    path.mkdir()
    assert not is_writable(path)
    with pytest.raises(CannotChange, match="no regular file"):
        change(path)


def failing(name: str, error: Exception) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(Path if name == "replace" else rewrite.os, name, fails)

    return patch


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (failing("fsync", OSError(5, "Input/output error")), "Input/output error"),
        (failing("replace", OSError(16, "Device or resource busy")), "mounted by itself"),
        (failing("replace", OSError(30, "Read-only file system")), "Read-only file system"),
        (failing("fchmod", OSError(1, "Operation not permitted")), "not permitted"),
        (failing("listxattr", OSError(13, "Permission denied")), "Permission denied"),
        (failing("open", OSError(28, "No space left on device")), "No space left"),
    ],
)
def test_what_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, patch: Callable[[pytest.MonkeyPatch], None], why: str
) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patch(patched)
        with pytest.raises(CannotChange, match=why):
            change(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["directory.yaml"]


def test_an_editor_that_saves_meanwhile_wins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def saves(handle: int) -> None:
        put(path, HEAD + alice("edited") + BOB)
        real(handle)

    monkeypatch.setattr(rewrite.os, "fsync", saves)
    with pytest.raises(CannotChange, match="changed meanwhile"):
        change(path)
    assert content(path) == HEAD + alice("edited") + BOB
    assert [p.name for p in path.parent.iterdir()] == ["directory.yaml"]


def test_until_it_is_whole_nobody_else_may_read_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.chmod(0o644)
    seen: list[int] = []
    real = os.fstat

    def looks(handle: int) -> os.stat_result:
        found = real(handle)
        seen.append(stat.S_IMODE(found.st_mode))
        return found

    monkeypatch.setattr(rewrite.os, "fstat", looks)
    change(path)
    assert 0o600 in seen and stat.S_IMODE(path.stat().st_mode) == 0o644
