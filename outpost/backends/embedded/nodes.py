"""YAML as a tree whose every value knows its line, read fast and without executing anything.

Values are told apart only when somebody asks for them: `scalar` applies the rules of YAML 1.1 that authentik's
own loader applies.  Knows nothing of blueprints.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, Final

import yaml
import yaml.composer
import yaml.parser
import yaml.reader
import yaml.scanner

from outpost.errors import ConfigError

Node = yaml.Node
ScalarNode = yaml.ScalarNode
SequenceNode = yaml.SequenceNode
MappingNode = yaml.MappingNode

MAX_OCTETS: Final = 64 * 1024 * 1024
"""A file of 100,000 people takes half of this."""
MAX_DEPTH: Final = 64
"""Values inside values; the parser recurses once for each."""
TOO_DEEP: Final = f"values nest deeper than {MAX_DEPTH} levels"
MAX_ALIASED: Final = 1_000_000
"""Values that aliases may stand for, over all of them; a handful of lines can ask for billions."""

PLAIN: Final = "?"
"""Tag of a scalar without quotes and tag, whose type `scalar` finds out."""
TEXT: Final = "tag:yaml.org,2002:str"
SEQUENCE: Final = "tag:yaml.org,2002:seq"
MAPPING: Final = "tag:yaml.org,2002:map"
_KEY_TAGS: Final = frozenset({PLAIN, TEXT})
_STANDARD_PREFIX: Final = "tag:yaml.org,2002:"
_STANDARD: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null", "timestamp"))

Scalar = str | int | float | bool | date | None
"""`date` includes `datetime`."""


class _LazyTags:
    """Leaves the types of plain scalars open, and counts how deep values nest."""

    def __init__(self) -> None:
        self._depth = 0

    def descend_resolver(self, parent: Node | None, index: object) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = parent.start_mark if parent is not None else None
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def resolve(self, kind: type[Node], value: object, implicit: Any) -> str:
        if kind is ScalarNode:
            return PLAIN if implicit[0] else TEXT
        return SEQUENCE if kind is SequenceNode else MAPPING

    def check_resolver_prefix(self, depth: int, path: object, kind: object, node: object, index: object) -> bool:
        return False


class _PureComposer(
    yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, _LazyTags
):  # fmt: skip
    def __init__(self, octets: bytes) -> None:
        yaml.reader.Reader.__init__(self, octets)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        _LazyTags.__init__(self)


PureComposer: Final[Any] = _PureComposer
Composer: Any = _PureComposer
try:
    from yaml._yaml import CParser
except ImportError:  # PyYAML was built without libyaml: the same tree, some ten times slower
    pass
else:

    class _FastComposer(CParser, _LazyTags):
        def __init__(self, octets: bytes) -> None:
            CParser.__init__(self, octets)
            _LazyTags.__init__(self)

    Composer = _FastComposer


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection meanwhile: a tree of a million live nodes is walked again and again for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def compose(octets: bytes, source: str, composer: Any = None) -> Node:
    """The root of the one document in `octets`.

    Raises ConfigError with the line: no YAML, more than one document, nothing in it, nested too deeply, an alias that
    contains itself or too many values behind aliases.
    """
    try:
        root: Node | None = (composer or Composer)(octets).get_single_node()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        problem = " ".join(part for part in (exc.context, exc.problem) if part) or "no YAML"
        if "maximum nesting depth" in problem:
            # From 0.2.6 on, libyaml's scanner has a bound of its own, and reads ahead of the tree.
            problem = TOO_DEEP
        raise ConfigError(problem, source=source, line=None if mark is None else mark.line + 1) from None
    except yaml.reader.ReaderError as exc:
        at = octets.count(b"\n", 0, exc.position) + 1
        raise ConfigError(f"no YAML: {exc.reason}", source=source, line=at) from None
    if root is None or (root.tag == PLAIN and not root.value):
        raise ConfigError("the file is empty; expected a blueprint", source=source)
    if b"&" in octets:
        _check_aliases(root, source)
    return root


def line(node: Node) -> int:
    """1-based."""
    return int(node.start_mark.line) + 1


def _inner(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, SequenceNode) else []


def check_keys(root: Node, source: str) -> None:
    """Raises ConfigError for a key that appears twice anywhere below; for what `members` is never asked about."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if type(node) is not ScalarNode and id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, MappingNode):
                members(node, source)
            pending += _inner(node)


def _check_aliases(root: Node, source: str) -> None:
    """Counts what the tree holds once written out, each node once."""
    weights: dict[int, int] = {}
    opened: set[int] = set()
    pending = [root]
    while pending:
        node = pending[-1]
        if id(node) in weights:
            pending.pop()
            continue
        inner = _inner(node)
        if id(node) in opened:
            opened.discard(id(node))
            weights[id(node)] = 1 + sum(weights[id(one)] for one in inner)
            pending.pop()
            continue
        opened.add(id(node))
        for one in inner:
            if id(one) in opened:
                raise ConfigError("an alias contains itself", source=source, line=line(one))
            if id(one) not in weights:
                pending.append(one)
    if weights[id(root)] - len(weights) > MAX_ALIASED:
        raise ConfigError(f"aliases stand for more than {MAX_ALIASED} values", source=source)


_RESOLVERS: Final[Any] = yaml.SafeLoader.yaml_implicit_resolvers
AMBIGUOUS: Final = frozenset(_RESOLVERS)
"""First characters of plain scalars that may be something else than text; empty for the empty one."""


class _Values(yaml.constructor.SafeConstructor):
    def of(self, tag: str, node: ScalarNode) -> Any:
        return self.yaml_constructors[tag](self, ScalarNode(tag, node.value, node.start_mark, node.end_mark))


_VALUES: Final = _Values()


def scalar(node: ScalarNode) -> Scalar:
    """The value of a scalar without a tag of the blueprint's own. Raises ValueError."""
    tag = node.tag
    if tag == TEXT:
        return node.value  # type: ignore[no-any-return]
    text = node.value
    if tag == PLAIN:
        shapes = _RESOLVERS.get(text[:1])
        if shapes is None:
            return text  # type: ignore[no-any-return]
        for candidate, shape in shapes:
            if shape.match(text):
                tag = candidate
                break
        else:
            return text  # type: ignore[no-any-return]
    if tag not in _STANDARD:
        return text if node.tag == PLAIN else _unknown(tag)  # type: ignore[no-any-return]
    try:
        return _VALUES.of(tag, node)  # type: ignore[no-any-return]
    except (ValueError, KeyError, AttributeError, OverflowError, yaml.YAMLError):
        raise ValueError(f"is no {tag.rpartition(':')[2]} that exists; put a text in quotes") from None


def _unknown(tag: str) -> Any:
    raise ValueError(f"has the unknown tag {shown_tag(tag)}")


def shown_tag(tag: str) -> str:
    """As people write it."""
    return "!!" + tag.removeprefix(_STANDARD_PREFIX) if tag.startswith(_STANDARD_PREFIX) else tag


def members(node: MappingNode, source: str) -> dict[str, Node]:
    """Keys and values of a mapping, what `<<` brings in included. Raises ConfigError, for a key twice as well."""
    found: dict[str, Node] = {}
    merged: list[Node] = []
    for key, value in node.value:
        name = key.value
        if type(key) is not ScalarNode or key.tag not in _KEY_TAGS:
            raise ConfigError("a key has to be a plain text", source=source, line=line(key))
        if name in found:
            raise ConfigError(f"key {name!r} appears twice", source=source, line=line(key))
        if name == "<<" and key.tag == PLAIN:
            merged += value.value if isinstance(value, SequenceNode) else [value]
        else:
            found[name] = value
    for other in merged:
        if not isinstance(other, MappingNode):
            raise ConfigError("<<: expected a mapping", source=source, line=line(other))
        for name, value in members(other, source).items():
            found.setdefault(name, value)
    return found
