"""OpenLDAP's ldappasswd against the real process: people change their own passwords, and the file keeps them."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.running import BASE, ROOT, Appliance, appliance, user_dn

pytestmark = pytest.mark.skipif(shutil.which("ldappasswd") is None, reason="no ldappasswd here")

OLD, NEW = "canary-old", "canary-new"
SWITCH = "1.3.6.1.4.1.4203.1.11.1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "directory.yaml"
    found.write_text((ROOT / "examples" / "directory.yaml").read_text())
    found.chmod(0o640)
    return found


@pytest.fixture
def running(path: Path) -> Iterator[Appliance]:
    with appliance(path) as found:
        yield found
        assert found.stop() == 0
        assert "canary" not in found.said and "Traceback" not in found.said


def client(
    tool: str, running: Appliance, who: str, password: str, *more: str, scheme: str = "ldaps"
) -> tuple[int, str]:
    """Exit status (the resultCode) and everything it said."""
    command = [tool, "-x", "-H", running.url(scheme), "-D", user_dn(who), "-w", password, *more]
    env = {"LDAPTLS_REQCERT": "never", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def binds(running: Appliance, who: str, password: str) -> bool:
    code, _ = client("ldapwhoami", running, who, password)
    assert code in {0, 49}
    return code == 0


@pytest.mark.parametrize(("scheme", "options"), [("ldaps", ()), ("ldap", ("-ZZ",)), ("ldap", ())])
def test_one_s_own_password(running: Appliance, path: Path, scheme: str, options: tuple[str, ...]) -> None:
    before = path.read_text()
    code, said = client(
        "ldappasswd", running, "alice", "alice-pw", *options, "-a", "alice-pw", "-s", NEW, scheme=scheme
    )
    assert (code, said) == (0, "")
    assert binds(running, "alice", NEW) and not binds(running, "alice", "alice-pw")
    after = path.read_text()
    assert sum(a != b for a, b in zip(before.splitlines(), after.splitlines(), strict=True)) == 1
    assert NEW not in after and path.stat().st_mode & 0o777 == 0o640
    running.event("the password of 'alice' was changed by 127.0.0.1")
    code, _ = client("ldappasswd", running, "alice", NEW, "-a", NEW, "-s", "alice-pw", user_dn("alice"))
    assert code == 0 and binds(running, "alice", "alice-pw")


def test_a_password_of_the_server_s_making(running: Appliance) -> None:
    code, said = client("ldappasswd", running, "bob", "bob-pw", "-a", "bob-pw")
    found = re.fullmatch(r"New password: ([A-Za-z0-9]{20})\n", said)
    assert code == 0 and found is not None
    assert binds(running, "bob", found[1]) and not binds(running, "bob", "bob-pw")
    assert found[1] not in running.said


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("-a", "wrong", "-s", NEW), 49),
        (("-s", NEW), 53),
        (("-a", "bob-pw", "-s", NEW, user_dn("bob")), 50),
        (("-a", "bob-pw", "-s", NEW, "u:bob"), 50),
        (("-a", "alice-pw", "-s", NEW, BASE), 50),
        (("-a", "alice-pw", "-s", NEW, "nonsense,,"), 50),
        (("-a", "alice-pw", "-s", "x" * 1025), 53),
        (("-e", "!1.2.3", "-a", "alice-pw", "-s", NEW), 12),
    ],
)
def test_must_refuse(running: Appliance, path: Path, options: tuple[str, ...], code: int) -> None:
    before = path.read_bytes()
    found, said = client("ldappasswd", running, "alice", "alice-pw", *options)
    assert f"({code})" in said and found != 0, said
    assert path.read_bytes() == before
    assert binds(running, "alice", "alice-pw") and binds(running, "bob", "bob-pw")


def test_nobody_in_particular(running: Appliance, path: Path) -> None:
    before = path.read_bytes()
    command = ["ldappasswd", "-x", "-H", running.url(), "-a", "alice-pw", "-s", NEW, user_dn("alice")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "(8)" in done.stdout + done.stderr
    assert path.read_bytes() == before


def test_a_read_only_file_says_so(path: Path) -> None:
    path.chmod(0o440)
    before = path.read_bytes()
    with appliance(path) as running:
        code, said = client("ldappasswd", running, "alice", "alice-pw", "-a", "alice-pw", "-s", NEW)
        assert code != 0 and "(53)" in said and "the directory file is read-only" in said
        assert path.read_bytes() == before and path.stat().st_mode & 0o777 == 0o440
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        assert binds(running, "alice", "alice-pw")
        assert SWITCH not in root(running)
        path.chmod(0o640)
        running.send(signal.SIGHUP)
        while SWITCH not in root(running):
            pass
        assert client("ldappasswd", running, "alice", "alice-pw", "-a", "alice-pw", "-s", NEW)[0] == 0


def test_switched_off(path: Path, tmp_path: Path) -> None:
    settings = tmp_path / "outpost.toml"
    settings.write_text("version = 1\n[provider.ldap]\npassword_modify = false\n")
    with appliance(path, "--config", str(settings)) as running:
        assert SWITCH not in root(running)
        code, said = client("ldappasswd", running, "alice", "alice-pw", "-a", "alice-pw", "-s", NEW)
        assert code != 0 and "(53)" in said


def root(running: Appliance) -> str:
    command = ["ldapsearch", "-x", "-LLL", "-H", running.url(), "-b", "", "-s", "base", "supportedExtension"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
