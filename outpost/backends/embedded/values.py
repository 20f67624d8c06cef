"""Typed access to the fields of one entry: a wrong one is a ConfigError that names file, line and field.

No error quotes a value that could be a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from outpost.backends.embedded.nodes import AMBIGUOUS, PLAIN, TEXT, Node, ScalarNode, SequenceNode, line, scalar
from outpost.errors import ConfigError

MAX_NUMBER: Final = 2**31 - 1
"""uidNumber and gidNumber are signed 32-bit numbers to most clients."""


def kind(value: object) -> str:
    """What a value is, in the words of a YAML author."""
    if value is None:
        return "nothing"
    for types, word in (
        (bool, "true or false"),
        (str, "a text"),
        (int, "a number"),
        (float, "a number with a fraction"),
        (date, "a date"),
        (list, "a list"),
        (dict, "a mapping"),
    ):
        if isinstance(value, types):
            return word
    return "a reference to another entry"


class Item(NamedTuple):
    """A value with its place."""

    value: Any
    line: int
    key: str
    """Dotted path."""


class Fields:
    """What `identifiers` and `attrs` of one entry say together."""

    __slots__ = ("_evaluate", "_identifiers", "index", "line", "nodes", "source")

    def __init__(
        self,
        nodes: Mapping[str, Node],
        identifiers: Mapping[str, Node],
        index: int,
        at: int,
        source: str,
        evaluate: Callable[[Node, str], Any],
    ) -> None:
        self.nodes = nodes
        self.index = index
        self.line = at
        self.source = source
        self._identifiers = identifiers
        self._evaluate = evaluate

    # -- errors -----------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        """Dotted path of a field."""
        return f"entries[{self.index}].{'identifiers' if name in self._identifiers else 'attrs'}.{name}"

    def line_of(self, name: str) -> int:
        """Line of a field, or of the entry that lacks it."""
        node = self.nodes.get(name)
        return self.line if node is None else line(node)

    def error(self, name: str, problem: str) -> ConfigError:
        """What is wrong with a field."""
        return ConfigError(problem, source=self.source, line=self.line_of(name), key=self.key(name))

    def _wrong(self, name: str, expected: str, value: object) -> ConfigError:
        return self.error(name, f"expected {expected}, got {kind(value)}")

    # -- values -----------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return name in self.nodes

    def value(self, name: str) -> Any:
        """The value as it is, tags resolved; None when missing."""
        node = self.nodes.get(name)
        return None if node is None else self._evaluate(node, self.key(name))

    def text(self, name: str, default: str = "") -> str:
        """A text; a number counts if it reads the same when written as text; null is missing."""
        node = self.nodes.get(name)
        if node is None:
            return default
        tag = node.tag
        if type(node) is ScalarNode and (tag == TEXT or (tag == PLAIN and node.value[:1] not in AMBIGUOUS)):
            return node.value  # type: ignore[no-any-return]
        try:
            value = (
                scalar(node)
                if isinstance(node, ScalarNode) and node.tag == PLAIN
                else self._evaluate(node, self.key(name))
            )
        except ValueError as exc:
            raise self.error(name, str(exc)) from None
        if isinstance(value, str):
            return value
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool):
            if node.tag != PLAIN or str(value) == node.value:
                return str(value)
            raise self.error(name, "expected a text, got a number that reads differently; put it in quotes")
        quotes = "; put it in quotes" if node.tag == PLAIN else ""
        raise self.error(name, f"expected a text, got {kind(value)}{quotes}")

    def required(self, name: str) -> str:
        """A text that is not empty."""
        found = self.text(name)
        if not found:
            raise self.error(name, "is missing" if name not in self.nodes else "is empty")
        return found

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            # What !Env and !File bring is text.
            word = value.lower() if isinstance(value, str) else ""
            if word not in {"true", "false"}:
                raise self._wrong(name, "true or false", value)
            return word == "true"
        return value

    def integer(self, name: str, default: int, least: int = 0, most: int = MAX_NUMBER) -> int:
        """A whole number from `least` to `most`; digits in quotes count."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number", value)
        if not least <= value <= most:
            raise self.error(name, f"expected a whole number from {least} to {most}")
        return value

    def choice(self, name: str, default: str, allowed: Iterable[str]) -> str:
        """One of a few words."""
        found = self.text(name, default)
        if found not in allowed:
            raise self.error(name, f"expected one of {', '.join(sorted(allowed))}")
        return found

    def moment(self, name: str) -> datetime | None:
        """A point in time (ISO 8601); without a zone it is UTC."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise self.error(name, "expected a date and time like 2025-01-31T12:00:00Z") from None
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            raise self._wrong(name, "a date and time", value)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def mapping(self, name: str) -> dict[str, Any]:
        """A mapping as JSON would hold it."""
        node = self.nodes.get(name)
        if node is None:
            return {}
        value = self._evaluate(node, self.key(name))
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(name, "a mapping", value)
        return value

    def items(self, name: str) -> Iterator[Item]:
        """The members of a list, each with its own line."""
        node = self.nodes.get(name)
        if node is None:
            return
        key = self.key(name)
        if isinstance(node, SequenceNode) and not node.tag.startswith("!"):
            for i, one in enumerate(node.value):
                at = f"{key}[{i}]"
                yield Item(self._evaluate(one, at), line(one), at)
            return
        value = self._evaluate(node, key)
        if value is None:
            return
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        for i, one in enumerate(value):
            yield Item(one, line(node), f"{key}[{i}]")

    def item(self, name: str) -> Item | None:
        """One value with its place; None when missing or null."""
        node = self.nodes.get(name)
        if node is None:
            return None
        key = self.key(name)
        value = self._evaluate(node, key)
        return None if value is None else Item(value, line(node), key)
