"""Typed values as octets and back: what is read is of the type that was expected, or refused.

A dataclass is the list of its fields, one of several dataclasses begins with its name; octets are text of code points
below 256.  There is no way to name anything else, so that nothing but data comes out.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, final

import orjson

from outpost.errors import DecodeError
from outpost.identity import Secret

T = TypeVar("T")
NETWORKS: Final = {ipaddress.IPv4Network, ipaddress.IPv6Network}


class _Way(NamedTuple):
    """How values of one type become JSON and back; `load` raises DecodeError for anything else."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


@final
class Wire(Generic[T]):
    """Encodes values of one type. kind: a dataclass, or a union of dataclasses with different names."""

    def __init__(self, kind: Any) -> None:
        """Raises TypeError for a type that has no encoding."""
        self._way = _way(kind)

    def encode(self, value: T) -> bytes:
        """The octets of a value of the type."""
        return orjson.dumps(self._way.dump(value))

    def decode(self, octets: bytes) -> T:
        """The value. Raises DecodeError, which quotes nothing of it."""
        try:
            found = orjson.loads(octets)
        except ValueError:
            raise DecodeError("octets that are no message") from None
        value: T = self._way.load(found)
        return value


def _refuse() -> DecodeError:
    return DecodeError("a value of another type than expected")


@lru_cache(maxsize=256)
def _way(kind: Any) -> _Way:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, typing.NewType):
        return _way(kind.__supertype__)
    if origin in {types.UnionType, typing.Union}:
        return _union(inner)
    if origin is tuple and len(inner) == 2 and inner[1] is ...:
        return _many(_way(inner[0]))
    if origin is tuple:
        return _fields(tuple, tuple(_way(one) for one in inner), tuple)
    if origin is Mapping and inner[0] is str:
        return _mapping(_way(inner[1]))
    if origin is Literal:
        return _Way(lambda value: value, _choosing(dict.fromkeys(inner).keys()))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        names = [entry.name for entry in dataclasses.fields(kind)]

        def taken(value: Any) -> tuple[Any, ...]:
            return tuple(getattr(value, name) for name in names)

        return _fields(kind, tuple(_way(hints[name]) for name in names), taken)
    raise TypeError(f"no encoding for {kind}")


def _exactly(*kinds: type) -> Callable[[Any], Any]:
    def load(found: Any) -> Any:
        if type(found) not in kinds:
            raise _refuse()
        return found

    return load


def _choosing(choices: Any) -> Callable[[Any], Any]:
    def load(found: Any) -> Any:
        if not isinstance(found, str) or found not in choices:
            raise _refuse()
        return found

    return load


def _number(found: Any) -> float:
    if found in ("inf", "-inf") or type(found) in {int, float}:
        return float(found)
    raise _refuse()


def _octets(found: Any) -> bytes:
    try:
        return str(_exactly(str)(found)).encode("latin-1")
    except UnicodeEncodeError:
        raise _refuse() from None


def _network(found: Any) -> Any:
    try:
        return ipaddress.ip_network(_exactly(str)(found))
    except ValueError:
        raise _refuse() from None


PLAIN: Final[Mapping[Any, _Way]] = {
    bool: _Way(lambda value: value, _exactly(bool)),
    int: _Way(lambda value: value, _exactly(int)),
    float: _Way(lambda value: value if math.isfinite(value) else str(value), _number),
    str: _Way(lambda value: value, _exactly(str)),
    bytes: _Way(lambda value: value.decode("latin-1"), _octets),
    Secret: _Way(lambda value: value.reveal().decode("latin-1"), lambda found: Secret(_octets(found))),
    Path: _Way(str, lambda found: Path(_exactly(str)(found))),
    type(None): _Way(lambda value: None, _exactly(type(None))),
}


def _many(way: _Way) -> _Way:
    def load(found: Any) -> Any:
        if type(found) is not list:
            raise _refuse()
        return tuple(way.load(one) for one in found)

    return _Way(lambda value: [way.dump(one) for one in value], load)


def _fields(make: Callable[..., Any], ways: tuple[_Way, ...], taken: Callable[[Any], tuple[Any, ...]]) -> _Way:
    def load(found: Any) -> Any:
        if type(found) is not list or len(found) != len(ways):
            raise _refuse()
        values = [way.load(one) for way, one in zip(ways, found, strict=True)]
        try:
            return make(values) if make is tuple else make(*values)
        except (ValueError, TypeError):
            raise _refuse() from None

    def dump(value: Any) -> list[Any]:
        return [way.dump(one) for way, one in zip(ways, taken(value), strict=True)]

    return _Way(dump, load)


def _mapping(way: _Way) -> _Way:
    def load(found: Any) -> Any:
        if type(found) is not dict:
            raise _refuse()
        return {name: way.load(one) for name, one in found.items()}

    return _Way(lambda value: {name: way.dump(one) for name, one in value.items()}, load)


def _enum(kind: type[enum.Enum]) -> _Way:
    def load(found: Any) -> Any:
        try:
            return kind(_exactly(str, int)(found))
        except ValueError:
            raise _refuse() from None

    return _Way(lambda value: value.value, load)


def _union(kinds: tuple[Any, ...]) -> _Way:
    others = [kind for kind in kinds if kind is not type(None)]
    if set(others) == NETWORKS:
        return _Way(str, _network)
    if len(others) == 1:
        way = _way(others[0])
        return _Way(
            lambda value: None if value is None else way.dump(value),
            lambda found: None if found is None else way.load(found),
        )
    if len(others) != len(kinds) or not all(dataclasses.is_dataclass(kind) for kind in others):
        raise TypeError(f"no encoding for one of {kinds}")
    ways = {kind: _way(kind) for kind in others}
    by_name = {kind.__name__: way for kind, way in ways.items()}
    if len(by_name) != len(ways):
        raise TypeError("two classes of one name")

    def load(found: Any) -> Any:
        if type(found) is not list or not found or not isinstance(found[0], str) or found[0] not in by_name:
            raise _refuse()
        return by_name[found[0]].load(found[1:])

    return _Way(lambda value: [type(value).__name__, *ways[type(value)].dump(value)], load)
