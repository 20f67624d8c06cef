"""The import graph is a ladder: a module imports only from its own rung or below."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "outpost"
LADDER: list[set[str]] = [
    {"errors"},
    {"identity", "passcode"},
    {
        "_fastber",
        "_fastradius",
        "observe._lines",
        "ldap.dn",
        "ldap.filter",
        "ldap.schema",
        "ldap.matching",
        "radius.dictionary",
    }
    | {"ldap.sids", "observe._lines", "observe._rows", "credentials._believed"},
    {"ldap._arena", "ldap._snapshot", "ldap.arena", "ldap.entries", "ldap.results", "ldap.observer"}
    | {"ldap.controls", "ldap.plain", "ldap.proxy", "ldap.shelf", "ldap._shelf", "ldap._session", "ldap.certificates"}
    | {"radius.packet", "radius.crypto", "radius._intake"}
    | {"observe._ldap_lines", "observe._radius_lines"}
    | {"radius.observer", "radius.clients", "radius.attributes", "radius.bypass"},
    {
        "ldap.connection",
        "radius.exchange",
        "radius.conversations",
        "radius.eap",
        "credentials.cache",
        "credentials.limiter",
    },
    {"ldap.service", "ldap.operations", "ldap.providers", "ldap.rootdse", "radius.service"} | {"radius.describe"},
    {
        "credentials.gate",
        "ldap.server",
        "ldap.channel",
        "ldap._hotpath",
        "ldap._tls",
        "ldap.directories",
        "ldap.compiler",
        "ldap.compiler_process",
        "ldap.stored",
        "ldap.tls",
        "ldap.tickets",
        "radius.server",
        "radius._datagrams",
        "radius._express",
        "backends",
        "observe",
        "processes",
    },
    {"config"},
    {"workers"},
    {"app"},
    {"cli"},
    {"__main__"},
]
PURE_BELOW = 6
"""Rungs 0 to 5 do no I/O, read no clock and log nothing."""
IO = {"asyncio", "socket", "ssl", "select", "selectors", "threading", "time", "logging", "os"}
SIBLINGS = {"ldap", "radius", "backends"}
"""Rooms that never see each other."""


def rung(name: str) -> int:
    for i, names in enumerate(LADDER):
        if any(name == n or name.startswith(n + ".") for n in names):
            return i
    raise AssertionError(f"{name}: not on the ladder")


def imports(path: pathlib.Path) -> set[str]:
    text = path.read_text()
    if path.suffix != ".py":
        return set(re.findall(r"^\s*(?:from|cimport|import)\s+([\w.]+)", text, re.M))
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            ours = node.module.split(".")[0] == "outpost"
            found |= {f"{node.module}.{a.name}" for a in node.names} if ours else {node.module}
    return found


def modules() -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in {".py", ".pyx", ".pxd"} and path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def complaint(me: str, target: str) -> str | None:
    top, other = me.split(".")[0], target.removeprefix("outpost.")
    if target == other:
        if rung(me) < PURE_BELOW and target.split(".")[0] in IO:
            return f"{me} is pure but imports {target}"
        return None
    if other == "__version__":
        return None
    if top in SIBLINGS and other.split(".")[0] in SIBLINGS - {top}:
        return f"{me} imports its sibling {other}"
    if rung(other) > rung(me):
        return f"{me} imports up: {other}"
    return None


@pytest.mark.parametrize(("me", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_point_down(me: str, path: pathlib.Path) -> None:
    assert [c for target in imports(path) if (c := complaint(me, target))] == []


@pytest.mark.parametrize("init", sorted(ROOT.rglob("__init__.py")), ids=lambda p: str(p.parent.name))
def test_packages_export_nothing(init: pathlib.Path) -> None:
    allowed = {"__version__"} if init.parent == ROOT else set()
    for node in ast.parse(init.read_text()).body:
        assert isinstance(node, ast.Expr | ast.Assign), f"{init}: code in a package file"
        if isinstance(node, ast.Assign):
            assert {t.id for t in node.targets if isinstance(t, ast.Name)} <= allowed


@pytest.mark.parametrize(
    ("me", "target", "refused"),
    [
        ("ldap.service", "outpost.ldap.connection", False),
        ("ldap.connection", "outpost.ldap.service", True),
        ("ldap.server", "outpost.radius.packet", True),
        ("backends.embedded.model", "outpost.ldap.dn", True),
        ("credentials.gate", "outpost.credentials.cache", False),
        ("ldap.connection", "asyncio", True),
        ("radius.packet", "time", True),
        ("ldap.server", "asyncio", False),
        ("identity", "outpost.errors", False),
        ("errors", "outpost.identity", True),
    ],
)
def test_the_ladder_itself(me: str, target: str, refused: bool) -> None:
    assert (complaint(me, target) is not None) is refused


def test_unlisted_modules_are_refused() -> None:
    with pytest.raises(AssertionError):
        rung("utils")
