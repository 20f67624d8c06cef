"""Regular expressions that every Python from 3.11.0 on reads alike."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "outpost"
# Before 3.11.5 a group that fails half-way in its last round leaves what it took: "(?:ab)*+" takes all of "aba".
POSSESSIVE_GROUP = re.compile(r"""\)(?:[*+?]|\{[0-9,{}]+\})\+""")
IN_A_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_group_is_possessive(path: pathlib.Path) -> None:
    for line in path.read_text().splitlines():
        if re.search(r"""\br[bf]?["']|\b[bf]r["']""", line):
            assert not POSSESSIVE_GROUP.search(IN_A_CLASS.sub("", line)), line


@pytest.mark.parametrize("pattern", ["(?:ab)*+", "(?:ab)++", "(?:a|b){2}+", "(a)?+"])
def test_one_would_be_found(pattern: str) -> None:
    assert POSSESSIVE_GROUP.search(IN_A_CLASS.sub("", pattern))
    assert not POSSESSIVE_GROUP.search(IN_A_CLASS.sub("", "[()*+,;]*[a-z]++"))
