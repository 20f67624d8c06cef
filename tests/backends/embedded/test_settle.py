"""A directory that is made anew is the same directory, and what it was read into is given back."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from outpost.backends.embedded.loader import load
from outpost.backends.embedded.settle import settled
from outpost.errors import ConfigError

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "directory.yaml"

MEASURE = """
import re, sys
from pathlib import Path
from outpost.app.hardening import return_memory
from outpost.backends.embedded.loader import load
from outpost.backends.embedded.settle import settled
return_memory()
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = resident()
def read():
    return load(Path(sys.argv[2]))
kept = read() if sys.argv[1] == "read" else settled(read)
print(resident() - before)
"""


def test_it_is_the_same_directory() -> None:
    read = load(EXAMPLE)
    found = settled(lambda: read)
    assert found == read and found is not read
    assert found.accounts.keys() == read.accounts.keys()
    pk = read.by_login["alice"]
    password = found.accounts[pk].password
    assert password is not None and password == read.accounts[pk].password and "***" in repr(password)
    assert [one.shared_secret for one in found.served.radius] == [one.shared_secret for one in read.served.radius]


def test_attributes_of_every_kind_stay_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "directory.yaml"
    file.write_text(
        "version: 1\nentries:\n  - model: authentik_core.user\n    identifiers: {username: ann}\n    attrs:\n"
        "      date_joined: 2024-02-29T12:00:00+02:00\n      attributes:\n        a: [1, 2.5, true, null, x]\n"
        "        b: {deep: {deeper: 2024-01-02}}\n        c: 2024-01-02T03:04:05Z\n        d: 123456789012345678901\n"
    )
    read = load(file)
    found = settled(lambda: load(file))
    assert replace(found, people=replace(found.people, taken_at=read.people.taken_at)) == read


def test_what_cannot_be_read_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        settled(lambda: load(tmp_path / "nowhere"))


def test_most_of_the_memory_is_given_back(tmp_path: Path) -> None:
    file = tmp_path / "directory.yaml"
    users = "".join(
        f"  - model: authentik_core.user\n    identifiers: {{username: user{n}}}\n"
        f"    attrs: {{name: User {n}, email: user{n}@example.org, attributes: {{employeeNumber: '{n}'}}}}\n"
        for n in range(3_500)
    )
    file.write_text(f"version: 1\nentries:\n{users}")
    grown = {}
    for how in ("read", "settled"):
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, how, str(file)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        grown[how] = int(run.stdout)
    assert grown["settled"] < grown["read"] * 0.8, grown
