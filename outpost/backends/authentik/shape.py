"""Reading decoded JSON with suspicion: a wrong shape is a BackendError that names its path, never a crash.

Unknown fields are ignored and missing optional ones get their default, so that later server versions work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from outpost.errors import BackendError

_REQUIRED: Any = object()
_T = TypeVar("_T")


class Shape:
    """A JSON object together with the path it was found at."""

    __slots__ = ("_fields", "where")

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BackendError(f"{where}: expected an object, got {_kind(value)}")
        self._fields: Mapping[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def raw(self, key: str) -> object:
        """The value as it is, None when missing."""
        return self._fields.get(key)

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """A string; null counts as missing."""
        value = self._fields.get(key)
        if isinstance(value, str):
            return value
        return self._otherwise(key, value, default, "a string")

    def optional_text(self, key: str) -> str | None:
        """A string, or None when it is null or missing."""
        value = self._fields.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, value, "a string or null")

    def integer(self, key: str, default: int = _REQUIRED) -> int:
        """A number without fraction; null counts as missing."""
        value = self._fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return self._otherwise(key, value, default, "an integer")

    def boolean(self, key: str, default: bool = _REQUIRED) -> bool:
        """True or false; null counts as missing."""
        value = self._fields.get(key)
        if isinstance(value, bool):
            return value
        return self._otherwise(key, value, default, "a boolean")

    def child(self, key: str) -> Shape:
        """The object under `key`."""
        return Shape(self._fields.get(key), f"{self.where}.{key}")

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The object under `key` as it is; null and missing count as empty."""
        value = self._fields.get(key)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        raise self._wrong(key, value, "an object")

    def items(self, key: str) -> list[object]:
        """The list under `key`; null and missing count as empty."""
        value = self._fields.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        raise self._wrong(key, value, "a list")

    def listing(self, key: str) -> Shape:
        """This, whose list under `key` has to be there: nothing told is not the same as nothing there."""
        if not isinstance(self._fields.get(key), list):
            raise self._wrong(key, self._fields.get(key), "a list")
        return self

    def children(self, key: str) -> Iterator[Shape]:
        """The objects in the list under `key`."""
        for i, item in enumerate(self.items(key)):
            yield Shape(item, f"{self.where}.{key}[{i}]")

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings in the list under `key`."""
        found = self.items(key)
        for i, item in enumerate(found):
            if not isinstance(item, str):
                raise self._wrong(f"{key}[{i}]", item, "a string")
        return tuple(str(item) for item in found)

    def moment(self, key: str) -> datetime | None:
        """The RFC 3339 time under `key`; None when it is null or missing."""
        value = self._fields.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            except ValueError:
                pass
        raise self._wrong(key, value, "a time")

    def _otherwise(self, key: str, value: object, default: _T, expected: str) -> _T:
        if value is None and default is not _REQUIRED:
            return default
        raise self._wrong(key, value, expected)

    def _wrong(self, key: str, value: object, expected: str) -> BackendError:
        got = "nothing" if key not in self._fields and "[" not in key else _kind(value)
        return BackendError(f"{self.where}.{key}: expected {expected}, got {got}")


def _kind(value: object) -> str:
    # The value itself may be a secret or a person's data: only its kind is told.
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "something else")
