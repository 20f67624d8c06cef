"""One authentik blueprint: its entries by model, and the tags that tie them together.

An entry is there unless its `state` is `absent`, one of its `conditions` is not true, or a later entry with
`state: absent` takes it away.  `!KeyOf` and `!Find` lead to entries of this file, earlier or later ones.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final, final

from outpost.backends.embedded.nodes import (
    AMBIGUOUS,
    MAPPING,
    PLAIN,
    SEQUENCE,
    TEXT,
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    check_keys,
    line,
    members,
    scalar,
    shown_tag,
)
from outpost.backends.embedded.values import Fields, Item, kind
from outpost.errors import ConfigError

USER: Final = "authentik_core.user"
GROUP: Final = "authentik_core.group"
APPLICATION: Final = "authentik_core.application"
TOKEN: Final = "authentik_core.token"  # noqa: S105
BINDING: Final = "authentik_policies.policybinding"
LDAP: Final = "authentik_providers_ldap.ldapprovider"
RADIUS: Final = "authentik_providers_radius.radiusprovider"
KEYPAIR: Final = "authentik_crypto.certificatekeypair"
TOTP: Final = "authentik_stages_authenticator_totp.totpdevice"
STATIC_DEVICE: Final = "authentik_stages_authenticator_static.staticdevice"
STATIC_TOKEN: Final = "authentik_stages_authenticator_static.statictoken"  # noqa: S105

_PROVIDER: Final = "pk name certificate mfa_support"
READ: Final[Mapping[str, frozenset[str]]] = {
    model: frozenset(names.split())
    for model, names in {
        USER: "pk username name email is_active type path groups attributes password uid uuid date_joined last_updated "
        "password_change_date",
        GROUP: "pk group_uuid num_pk name parent parents is_superuser users attributes",
        APPLICATION: "name slug provider backchannel_providers policy_engine_mode",
        TOKEN: "identifier intent user key expires expiring application",
        BINDING: "target user group policy negate enabled order",
        LDAP: f"{_PROVIDER} base_dn search_group tls_server_name uid_start_number gid_start_number search_mode "
        "bind_mode",
        RADIUS: f"{_PROVIDER} client_networks shared_secret",
        KEYPAIR: "pk kp_uuid name certificate_data key_data",
        TOTP: "user name key digits step confirmed",
        STATIC_DEVICE: "user name confirmed",
        STATIC_TOKEN: "device token",
    }.items()
}
"""Fields that mean something here, by model."""

_FLOWS: Final = "authentication_flow authorization_flow invalidation_flow"
IGNORED: Final[Mapping[str, frozenset[str]]] = {
    model: frozenset(names.split())
    for model, names in {
        USER: "last_login permissions",
        GROUP: "permissions",
        APPLICATION: "pk uuid pbm_uuid group open_in_new_tab meta_launch_url meta_icon meta_description meta_publisher "
        "meta_hide icon",
        TOKEN: "pk token_uuid description managed",
        BINDING: "pk policy_binding_uuid timeout failure_result",
        LDAP: _FLOWS,
        RADIUS: _FLOWS,
        KEYPAIR: "managed",
        TOTP: "pk t0 drift tolerance last_t throttling_failure_count throttling_failure_timestamp created last_updated "
        "last_used",
        STATIC_DEVICE: "pk throttling_failure_count throttling_failure_timestamp created last_updated last_used",
        STATIC_TOKEN: "pk",
    }.items()
}
"""Fields of authentik's that change nothing here."""

DECIDING: Final = frozenset(
    {"is_active", "password", "expires", "expiring", "confirmed", "application"}
    | {"policy", "policy_engine_mode", "user", "group", "target", "negate", "enabled"}
)
"""Fields that, overlooked because of a slip, would let somebody in: there a near miss is an error."""

_HIDDEN: Final = frozenset({"password", "key", "token", "shared_secret", "key_data"})
"""Fields whose values no error quotes."""

_ENTRY_KEYS: Final = frozenset({"model", "id", "identifiers", "attrs", "state", "conditions", "permissions"})
_FILE_KEYS: Final = frozenset({"version", "metadata", "context", "entries"})
_STATES: Final = frozenset({"present", "created", "must_created", "absent"})

MAX_INCLUDED: Final = 1024 * 1024
"""Octets of a file that `!File` reads: keys and certificates are a few thousand."""


@final
class Entry:
    """One entry, its tags not yet resolved."""

    __slots__ = ("conditions", "fields", "identifiers", "index", "line", "model", "name", "pk", "state")

    def __init__(self, index: int, at: int, model: str, name: str) -> None:
        self.index = index
        self.line = at
        self.model = model
        """Lower case."""
        self.name = name
        """Its `id`; may be empty."""
        self.fields: Fields
        self.identifiers: Mapping[str, Node] = {}
        self.conditions: Node | None = None
        self.state = "present"
        self.pk: Any = None
        """Primary key, once whoever reads the model has given it one."""

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"entry{name} ({self.model}, line {self.line})"


@final
class Blueprint:
    """All entries of one file."""

    def __init__(self, path: Path, root: Node, environ: Mapping[str, str]) -> None:
        """Reads the entries, but no field yet. Raises ConfigError."""
        self.path = path
        self.source = str(path)
        self.files: list[Path] = [path]
        self.warnings: list[str] = []
        self._environ = environ
        self._context: Mapping[str, Node] = {}
        self._ids: dict[str, Entry] = {}
        self._entries: list[Entry] = []
        self._absent: dict[str, list[Entry]] = {}
        self._presence: dict[int, bool] = {}
        self._found: dict[tuple[str, str], dict[object, list[Entry]]] = {}
        self._busy: set[object] = set()
        self._included: dict[Path, str] = {}
        self._told: set[tuple[str, str]] = set()
        self._tags: Mapping[str, Callable[[Node, str], Any]] = {
            "!KeyOf": self._key_of,
            "!Find": self._find,
            "!Env": self._env,
            "!File": self._file,
            "!Context": self._from_context,
            "!Format": self._format,
        }
        self._read(root)
        self._models: dict[str, list[Entry]] = {}
        for entry in self._entries:
            if self.is_present(entry):
                self._models.setdefault(entry.model, []).append(entry)

    def close(self) -> None:
        """Let go of the tree; what was read from it stays good."""
        for holder in (self._ids, self._entries, self._absent, self._models, self._found, self._told):
            holder.clear()
        self._context = {}
        self._tags = {}

    def of(self, model: str) -> list[Entry]:
        """The entries of a model that are there, in order of the file."""
        return self._models.get(model, [])

    def warn(self, problem: str, at: int | None = None) -> None:
        """Keep one sentence about something that works but deserves a look."""
        place = self.source if at is None else f"{self.source}:{at}"
        self.warnings.append(f"{place}: {problem}")

    def warn_of_unknown(self) -> None:
        """One warning for each model and each field that nobody here reads; ConfigError for slips that matter."""
        for model, entries in self._models.items():
            known = READ.get(model)
            if known is None:
                near = difflib.get_close_matches(model, READ, 1, 0.85)
                hint = f"; did you mean {near[0]}?" if near else ""
                count = f" ({len(entries)} entries)" if len(entries) > 1 else ""
                self.warn(f"model {model} is not known here and left out{count}{hint}", entries[0].line)
                continue
            expected = known | IGNORED[model]
            for entry in entries:
                if not entry.fields.nodes.keys() <= expected:
                    for name in entry.fields.nodes.keys() - expected:
                        self._unknown_field(entry, name)

    def _unknown_field(self, entry: Entry, name: str) -> None:
        if (entry.model, name) in self._told:
            return
        self._told.add((entry.model, name))
        near = difflib.get_close_matches(name, READ[entry.model], 1, 0.75)
        hint = f"; did you mean {near[0]}?" if near else ""
        if near and near[0] in DECIDING and near[0] not in entry.fields:
            raise entry.fields.error(name, f"unknown field{hint}")
        fields = entry.fields
        self.warn(
            f"{fields.key(name)}: {entry.model} has no such field here, it is left out{hint}", fields.line_of(name)
        )

    # -- reading ----------------------------------------------------------------------------------

    def error(self, problem: str, node: Node | None = None, key: str = "") -> ConfigError:
        """A ConfigError about this file."""
        return ConfigError(problem, source=self.source, line=None if node is None else line(node), key=key)

    def _members(self, node: Node, key: str, allowed: frozenset[str] | None = None) -> dict[str, Node]:
        if not isinstance(node, MappingNode) or node.tag != MAPPING:
            raise self.error("expected a mapping", node, key)
        found = members(node, self.source)
        if allowed is not None and not found.keys() <= allowed:
            name = next(name for name in found if name not in allowed)
            near = difflib.get_close_matches(name, allowed, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(sorted(allowed))}"
            raise self.error(f"unknown key; {hint}", found[name], f"{key}.{name}" if key else name)
        return found

    def _read(self, root: Node) -> None:
        top = self._members(root, "", _FILE_KEYS)
        version = top.get("version")
        if version is not None and self.evaluate(version, "version") != 1:
            raise self.error("expected version 1", version, "version")
        for name in ("metadata", "context"):
            if name in top:
                check_keys(top[name], self.source)
        if "context" in top and not self._is_null(top["context"]):
            self._context = self._members(top["context"], "context")
        entries = top.get("entries")
        if entries is None:
            raise self.error("is missing; expected a blueprint with a list of entries", root, "entries")
        if not isinstance(entries, SequenceNode) or entries.tag != SEQUENCE:
            raise self.error("expected a list", entries, "entries")
        for index, node in enumerate(entries.value):
            self._read_entry(index, node)

    def _read_entry(self, index: int, node: Node) -> None:
        key = f"entries[{index}]"
        parts = self._members(node, key, _ENTRY_KEYS)
        model = self._word(parts, "model", key).lower()
        if not model:
            raise self.error("is missing", node, f"{key}.model")
        entry = Entry(index, line(node), model, self._word(parts, "id", key))
        entry.state = self._word(parts, "state", key) or "present"
        if entry.state not in _STATES:
            raise self.error(f"expected one of {', '.join(sorted(_STATES))}", parts["state"], f"{key}.state")
        entry.conditions = parts.get("conditions")
        nodes: dict[str, Node] = {}
        for part in ("attrs", "identifiers"):
            inner = parts.get(part)
            if inner is not None and not self._is_null(inner):
                found = self._members(inner, f"{key}.{part}")
                nodes.update(found)
                if part == "identifiers":
                    entry.identifiers = found
        self._check_unread(model, parts, nodes)
        entry.fields = Fields(nodes, entry.identifiers, index, entry.line, self.source, self.evaluate)
        if entry.name:
            other = self._ids.setdefault(entry.name, entry)
            if other is not entry:
                raise self.error(
                    f"id {entry.name!r} is taken by the entry in line {other.line}", parts["id"], f"{key}.id"
                )
        if "permissions" in parts and model in READ and (model, "permissions") not in self._told:
            self._told.add((model, "permissions"))
            self.warn(f"{key}.permissions: permissions are not evaluated here", line(parts["permissions"]))
        if entry.state == "absent":
            self._absent.setdefault(model, []).append(entry)
        self._entries.append(entry)

    def _check_unread(self, model: str, parts: Mapping[str, Node], nodes: Mapping[str, Node]) -> None:
        """No key twice, not even where nobody looks."""
        read = READ.get(model, frozenset())
        if not nodes.keys() <= read:
            for name in nodes.keys() - read:
                check_keys(nodes[name], self.source)
        for name in ("conditions", "permissions"):
            if name in parts:
                check_keys(parts[name], self.source)

    @staticmethod
    def _is_null(node: Node) -> bool:
        return isinstance(node, ScalarNode) and node.tag == PLAIN and scalar(node) is None

    def _word(self, parts: Mapping[str, Node], name: str, key: str) -> str:
        """A text, empty when missing."""
        node = parts.get(name)
        if node is None:
            return ""
        value = self.evaluate(node, f"{key}.{name}")
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool) and name == "id":
            return str(value)
        if not isinstance(value, str):
            raise self.error(f"expected a text, got {kind(value)}", node, f"{key}.{name}")
        return value

    # -- presence ---------------------------------------------------------------------------------

    def is_present(self, entry: Entry) -> bool:
        """Whether the entry counts. Raises ConfigError when that depends on itself."""
        known = self._presence.get(entry.index)
        if known is None:
            if entry.state != "absent" and entry.conditions is None and not self._absent:
                known = True
            else:
                with self._once(("presence", entry.index), entry.line, f"entries[{entry.index}]"):
                    known = self._meets(entry) and entry.state != "absent" and not self._is_removed(entry)
            self._presence[entry.index] = known
        return known

    def _meets(self, entry: Entry) -> bool:
        key = f"entries[{entry.index}].conditions"
        if entry.conditions is None or self._is_null(entry.conditions):
            return True
        value = self.evaluate(entry.conditions, key)
        if not isinstance(value, list):
            raise self.error(f"expected a list, got {kind(value)}", entry.conditions, key)
        return all(value)

    def _is_removed(self, entry: Entry) -> bool:
        for other in self._absent.get(entry.model, ()):
            if (
                other.index < entry.index
                or not other.identifiers
                or not other.identifiers.keys() <= entry.fields.nodes.keys()
            ):
                continue
            if all(
                _comparable(other.fields.value(name)) == _comparable(entry.fields.value(name))
                for name in other.identifiers
            ) and self._meets(other):
                return True
        return False

    @contextmanager
    def _once(self, what: object, at: int, key: str) -> Iterator[None]:
        if what in self._busy:
            raise ConfigError("refers to itself", source=self.source, line=at, key=key)
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    # -- tags -------------------------------------------------------------------------------------

    def evaluate(self, node: Node, key: str) -> Any:
        """The value behind a node: text, number, truth, date, None, list, mapping or `Entry`. Raises ConfigError."""
        tag = node.tag
        if tag == TEXT and isinstance(node, ScalarNode):
            return node.value
        if tag == MAPPING and isinstance(node, MappingNode):
            found = {}
            for name, inner in members(node, self.source).items():
                is_text = type(inner) is ScalarNode and (
                    inner.tag == TEXT or (inner.tag == PLAIN and inner.value[:1] not in AMBIGUOUS)
                )
                found[name] = inner.value if is_text else self.evaluate(inner, f"{key}.{name}")
            return found
        if tag == SEQUENCE and isinstance(node, SequenceNode):
            return [self.evaluate(inner, f"{key}[{i}]") for i, inner in enumerate(node.value)]
        if tag[:1] == "!":
            handler = self._tags.get(tag)
            if handler is None:
                supported = ", ".join(sorted(self._tags))
                raise self.error(f"has the unknown tag {tag}; known here are {supported}", node, key)
            return handler(node, key)
        if not isinstance(node, ScalarNode):
            raise self.error(f"has the unknown tag {shown_tag(tag)}", node, key)
        try:
            return scalar(node)
        except ValueError as exc:
            raise self.error(str(exc), node, key) from None

    def _name_of(self, node: Node, key: str) -> str:
        """The one word behind a tag."""
        if not isinstance(node, ScalarNode) or not node.value:
            raise self.error(f"expected a name behind {node.tag}", node, key)
        return node.value  # type: ignore[no-any-return]

    def _key_of(self, node: Node, key: str) -> Entry:
        name = self._name_of(node, key)
        entry = self._ids.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self._ids, 1, 0.75)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.error(f"!KeyOf {name}: no entry has this id{hint}", node, key)
        if not self.is_present(entry):
            raise self.error(f"!KeyOf {name}: the {entry} is absent", node, key)
        return entry

    def _find(self, node: Node, key: str) -> Entry:
        if not isinstance(node, SequenceNode) or len(node.value) < 2:
            raise self.error("expected !Find [model, [field, value]]", node, key)
        model = self.evaluate(node.value[0], key)
        wanted: list[tuple[str, Any]] = []
        for condition in node.value[1:]:
            pair = self.evaluate(condition, key)
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise self.error("expected !Find [model, [field, value]]", condition, key)
            wanted.append((pair[0], pair[1]))
        if not isinstance(model, str):
            raise self.error("expected !Find [model, [field, value]]", node, key)
        model = model.lower()
        for entry in self._matching(model, *wanted[0], node, key):
            if all(_comparable(entry.fields.value(name)) == _comparable(value) for name, value in wanted[1:]):
                return entry
        said = ", ".join(
            f"{name} {value!r}" if isinstance(value, str | int) and name not in _HIDDEN else name
            for name, value in wanted
        )
        raise self.error(f"!Find: no {model} in this file with {said}", node, key)

    def _matching(self, model: str, name: str, value: Any, node: Node, key: str) -> list[Entry]:
        """The entries of a model with this value in a field."""
        index = self._indexed(model, name, line(node), key)
        return index.get(_comparable(value), [])

    def _indexed(self, model: str, name: str, at: int, key: str) -> dict[object, list[Entry]]:
        found = self._found.get((model, name))
        if found is None:
            with self._once(("find", model, name), at, key):
                found = {}
                for entry in self._entries:
                    if entry.model == model and name in entry.fields and self.is_present(entry):
                        found.setdefault(_comparable(entry.fields.value(name)), []).append(entry)
                self._found[model, name] = found
        return found

    def _with_default(self, node: Node, key: str) -> tuple[str, Node | None]:
        """Name and default of `!Tag name` or `!Tag [name, default]`."""
        if not isinstance(node, SequenceNode):
            return self._name_of(node, key), None
        if len(node.value) not in {1, 2}:
            raise self.error(f"expected {node.tag} name or {node.tag} [name, default]", node, key)
        name = self.evaluate(node.value[0], key)
        if not isinstance(name, str) or not name:
            raise self.error(f"expected a name behind {node.tag}", node, key)
        return name, node.value[1] if len(node.value) == 2 else None

    def _env(self, node: Node, key: str) -> Any:
        name, default = self._with_default(node, key)
        # As in authentik, a default also takes the place of an empty variable.
        if self._environ.get(name) or (default is None and name in self._environ):
            return self._environ[name]
        if default is None:
            raise self.error(f"!Env {name}: the environment variable is not set", node, key)
        return self.evaluate(default, key)

    def _file(self, node: Node, key: str) -> Any:
        name, default = self._with_default(node, key)
        path = self.path.parent / name
        if path in self._included:
            return self._included[path]
        if path not in self.files:
            self.files.append(path)
        try:
            content = read_limited(path, MAX_INCLUDED).decode().strip()
        except (OSError, ValueError) as exc:
            if default is not None and isinstance(exc, OSError):
                return self.evaluate(default, key)
            reason = exc.strerror if isinstance(exc, OSError) else _why(exc)
            raise self.error(f"!File {name}: {reason}", node, key) from None
        self._included[path] = content
        return content

    def _from_context(self, node: Node, key: str) -> Any:
        name, default = self._with_default(node, key)
        value = self._context.get(name)
        if value is None:
            if default is None:
                raise self.error(f"!Context {name}: no such key in context", node, key)
            return self.evaluate(default, key)
        with self._once(("context", name), line(node), key):
            return self.evaluate(value, f"context.{name}")

    def _format(self, node: Node, key: str) -> str:
        if not isinstance(node, SequenceNode) or not node.value:
            raise self.error("expected !Format [text with %s, values]", node, key)
        shape, *values = (self.evaluate(inner, key) for inner in node.value)
        if not isinstance(shape, str) or re.search(r"%(?![s%])", shape.replace("%%", "")):
            raise self.error("!Format: expected a text in which only %s and %% are used", node, key)
        if len(re.findall(r"%s", shape.replace("%%", ""))) != len(values):
            raise self.error("!Format: expected one value for each %s", node, key)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise self.error(f"!Format: expected texts and numbers, got {kind(value)}", node, key)
        return shape % tuple(values)

    # -- references -------------------------------------------------------------------------------

    def entry_of(self, item: Item, *models: str) -> Entry:
        """The entry that a value refers to: what !KeyOf or !Find led to, or a primary key. Raises ConfigError."""
        entry = item.value
        if not isinstance(entry, Entry):
            entry = self._by_pk(item, models)
        if models and entry.model not in models:
            problem = f"refers to the {entry}, expected {' or '.join(models)}"
            raise ConfigError(problem, source=self.source, line=item.line, key=item.key)
        return entry

    def _by_pk(self, item: Item, models: tuple[str, ...]) -> Entry:
        if isinstance(item.value, str | int) and not isinstance(item.value, bool):
            for model in models:
                for name in ("pk", "group_uuid", "kp_uuid"):
                    found = self._indexed(model, name, item.line, item.key).get(_comparable(item.value))
                    if found:
                        return found[0]
            problem = f"no {' or '.join(models) or 'entry'} in this file has the primary key {item.value!r}"
        else:
            problem = f"expected !KeyOf, !Find or a primary key, got {kind(item.value)}"
        raise ConfigError(problem, source=self.source, line=item.line, key=item.key)

    def referred(self, fields: Fields, name: str, *models: str) -> Entry | None:
        """The entry that a field refers to; None when missing."""
        item = fields.item(name)
        return None if item is None else self.entry_of(item, *models)

    def needed(self, fields: Fields, name: str, *models: str) -> Entry:
        """The entry that a field has to refer to."""
        found = self.referred(fields, name, *models)
        if found is None:
            raise fields.error(name, "is missing")
        return found

    def all_referred(self, fields: Fields, name: str, *models: str) -> list[Entry]:
        """The entries that a list refers to, each once, in order."""
        node = fields.nodes.get(name)
        if node is None:
            return []
        found: dict[Entry, None] = {}
        if node.tag == SEQUENCE and isinstance(node, SequenceNode):
            for i, one in enumerate(node.value):
                # What nearly all references of a large file are.
                entry = self._ids.get(one.value) if one.tag == "!KeyOf" and isinstance(one, ScalarNode) else None
                if entry is None or entry.model not in models or not self._presence.get(entry.index):
                    key = f"{fields.key(name)}[{i}]"
                    entry = self.entry_of(Item(self.evaluate(one, key), line(one), key), *models)
                found[entry] = None
        else:
            for item in fields.items(name):
                found[self.entry_of(item, *models)] = None
        return list(found)


def _comparable(value: Any) -> object:
    """Something that can be looked up: numbers and texts that read the same are the same."""
    if isinstance(value, Entry):
        return value
    if isinstance(value, bool) or value is None:
        return (type(value), value)
    if isinstance(value, str | int | float | date):
        return str(value)
    return repr(value)


def _why(exc: ValueError) -> str:
    return "is no UTF-8 text" if isinstance(exc, UnicodeDecodeError) else str(exc)


def read_limited(path: Path, most: int) -> bytes:
    """The octets of a regular file. Raises OSError; ValueError when there are more than `most`, or it is no file."""
    # Opening a pipe for reading would wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("is no regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            octets = file.read(most + 1)
    finally:
        os.close(handle)
    if len(octets) > most:
        raise ValueError(f"is larger than {most} octets")
    return octets
