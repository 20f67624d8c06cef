"""Puts a new password into a directory file and leaves every other octet as it is.

The place of the old one is known from the YAML tree; whatever is not plainly written there (a tag, an anchor, a block)
is left to the people who wrote it.  The result is read again before it takes the file's place: it has to be the same
tree but for the one value.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outpost.backends.embedded.blueprint import USER, Blueprint, Entry, read_limited
from outpost.backends.embedded.nodes import (
    MAX_OCTETS,
    PLAIN,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    collector_paused,
    compose,
)
from outpost.errors import ConfigError
from outpost.identity import Secret

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class _Edit:
    """Characters `start` to `end`, from which `node` was read, give way to `written`, which means `value`."""

    node: ScalarNode
    start: int
    end: int
    value: str
    written: str


class CannotChange(Exception):
    """Why the file stays as it is: one sentence for the user, without a secret and without the file's path."""


def change_password(
    path: Path, username: str, old: Secret, new: str, now: datetime, environ: Mapping[str, str] = os.environ
) -> None:
    """Put `new` in the place of `old` in the file, for one user. Blocks. Raises CannotChange: nothing was changed.

    new: a PHC string; now: for the user's password_change_date, if he has one.
    """
    real = Path(os.path.realpath(path))
    try:
        status = _writable(real)
        octets = read_limited(real, MAX_OCTETS)
        with collector_paused():
            changed = edited(octets, path, username, old, new, now, environ)
        _replace(real, status, octets, changed)
    except ConfigError:
        raise CannotChange("the directory file has mistakes that its administrator has to mend first") from None
    except ValueError:
        raise CannotChange("the directory file cannot be read") from None
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise CannotChange("the directory file is mounted by itself, so it cannot be replaced") from None
        raise CannotChange(f"the directory file cannot be written: {exc.strerror or 'no reason given'}") from None


def is_writable(path: Path) -> bool:
    """Whether the file may be replaced, as far as one can see. Blocks."""
    real = Path(os.path.realpath(path))
    try:
        _writable(real)
    except (OSError, CannotChange):
        return False
    return os.access(real.parent, os.W_OK | os.X_OK)


def edited(
    octets: bytes, path: Path, username: str, old: Secret, new: str, now: datetime, environ: Mapping[str, str]
) -> bytes:
    """The content of the file with the new password. Raises CannotChange and ConfigError."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise CannotChange("the directory file is not UTF-8 text") from None
    root = compose(octets, str(path))
    blueprint = Blueprint(path, root, environ)
    try:
        entry = _user(blueprint, username)
        if "password" not in entry.fields or Secret(entry.fields.text("password")) != old:
            raise CannotChange("the directory file changed meanwhile; try again")
        edits = [_edit(text, root, entry, "password", new)]
        if entry.fields.nodes.get("password_change_date") is not None:
            moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            # Where it cannot be written it stays: it is shown, and nothing depends on it.
            with contextlib.suppress(CannotChange):
                edits.append(_edit(text, root, entry, "password_change_date", moment))
    finally:
        blueprint.close()
    changed = text
    for edit in sorted(edits, key=lambda one: one.start, reverse=True):
        changed = changed[: edit.start] + edit.written + changed[edit.end :]
    result = changed.encode()
    if not _same_but(root, compose(result, str(path)), {id(one.node): one.value for one in edits}):
        raise CannotChange("the password is written in a way that cannot be replaced")
    return result


def _user(blueprint: Blueprint, username: str) -> Entry:
    found = [entry for entry in blueprint.of(USER) if entry.fields.text("username").casefold() == username.casefold()]
    if len(found) != 1:
        raise CannotChange("the directory file changed meanwhile; try again")
    return found[0]


def _edit(text: str, root: Node, entry: Entry, name: str, value: str) -> _Edit:
    """Puts `value` in the place of a field. Raises CannotChange unless that is written in `text`, and for him alone."""
    node = entry.fields.nodes[name]
    if not isinstance(node, ScalarNode):
        raise CannotChange(f"the {name} comes from a tag")
    shift = 1 if text.startswith(_BYTE_ORDER_MARK) else 0
    for one in _way(root, entry, node):
        begin = one.start_mark.index
        # An alias leads to the node behind its anchor, so both are told by that.
        if "&" in (text[begin : begin + 1], text[begin + shift : begin + shift + 1]):
            raise CannotChange(f"the {name} comes from an anchor or an alias")
    start, end = node.start_mark.index, node.end_mark.index
    raw = text[start:end]
    if shift and not _is_written(raw, node):
        start, end = start + shift, end + shift
        raw = text[start:end]
    if raw.startswith("!"):
        raise CannotChange(f"the {name} comes from a tag")
    if node.style in {"|", ">"}:
        raise CannotChange(f"the {name} is a block of text")
    if not _is_written(raw, node):
        raise CannotChange(f"the {name} is written in a way that cannot be replaced")
    if node.style or name == "password":
        # What goes in here, a PHC string or a date, holds nothing that would have to be escaped.
        quote = node.style or '"'
        return _Edit(node, start, end, value, f"{quote}{value}{quote}")
    return _Edit(node, start, end, value, value)


def _is_written(raw: str, node: ScalarNode) -> bool:
    """Whether `raw` can be what the node was read from."""
    if node.style in {"'", '"'}:
        return len(raw) >= 2 and raw[0] == raw[-1] == node.style
    return node.tag == PLAIN and bool(raw) and raw == node.value


def _way(root: Node, entry: Entry, wanted: Node) -> Iterator[Node]:
    """The nodes from the root to the value of a field. Raises CannotChange when it is not written in its entry."""
    entries = _value(root, "entries")
    one = entries.value[entry.index] if isinstance(entries, SequenceNode) else None
    for part in ("attrs", "identifiers"):
        inner = _value(one, part)
        if isinstance(inner, MappingNode) and any(value is wanted for _, value in inner.value):
            yield from (node for node in (root, entries, one, inner, wanted) if node is not None)
            return
    raise CannotChange("the value comes from a merged mapping")


def _value(node: Node | None, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    found: Node | None = next((value for name, value in node.value if name.value == key), None)
    return found


def _same_but(old: Node, new: Node, changed: Mapping[int, str]) -> bool:
    """Whether two trees differ in nothing but the values of the nodes with these ids."""
    pending: list[tuple[Node, Node]] = [(old, new)]
    seen: set[tuple[int, int]] = set()
    met = 0
    while pending:
        a, b = pending.pop()
        if a.tag != b.tag or type(a) is not type(b) or len(a.value) != len(b.value):
            return False
        # Behind an alias is what was compared before.
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        pairs: Iterable[tuple[Any, Any]] = zip(a.value, b.value, strict=True)
        if isinstance(a, MappingNode):
            pairs = ((x, y) for one, other in pairs for x, y in zip(one, other, strict=True))
        for x, y in pairs:
            if type(x) is not ScalarNode:
                pending.append((x, y))
            elif id(x) in changed:
                met += 1
                if type(y) is not ScalarNode or y.value != changed[id(x)]:
                    return False
            elif x.tag != y.tag or x.value != y.value or type(y) is not ScalarNode:
                return False
    return met == len(changed)


# -- the file -------------------------------------------------------------------------------------


def _writable(real: Path) -> os.stat_result:
    """What the file is. Raises CannotChange where an administrator would not want it written; OSError."""
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CannotChange("the directory file is no regular file")
    if not status.st_mode & 0o222 or not os.access(real, os.W_OK):
        # The superuser may write it all the same, but somebody marked it.
        raise CannotChange("the directory file is read-only")
    if status.st_nlink != 1:
        raise CannotChange("the directory file has several names, and only one of them could be replaced")
    return status


def _replace(real: Path, status: os.stat_result, old: bytes, new: bytes) -> None:
    """Put a file of the same owner, mode and attributes in its place, all at once. Raises CannotChange and OSError."""
    beside = real.with_name(f".{real.name}.{secrets.token_hex(8)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            file.flush()
            mine = os.fstat(handle)
            if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(handle, status.st_uid, status.st_gid)
            os.fchmod(handle, stat.S_IMODE(status.st_mode))
            _copy_attributes(real, handle)
            os.fsync(handle)
        if read_limited(real, MAX_OCTETS) != old:
            raise CannotChange("the directory file changed meanwhile; try again")
        beside.replace(real)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    with contextlib.suppress(OSError):
        _sync_directory(real.parent)


def _copy_attributes(real: Path, handle: int) -> None:
    """Access control lists and the like; labels that the system gives by itself may differ."""
    try:
        names = os.listxattr(real)
    except OSError as exc:
        if exc.errno in {errno.ENOTSUP, errno.ENOSYS}:
            return
        raise
    for name in names:
        try:
            os.setxattr(handle, name, os.getxattr(real, name))
        except OSError:
            if not name.startswith(("security.", "trusted.")):
                raise


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
