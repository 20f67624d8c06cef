"""Where settings come from: defaults < TOML file < environment < command line.

`read` gathers what was given, by dotted key and with its place; `Layers.section` turns one section
into the frozen dataclass of its consumer, whose field names, types and defaults are the schema:

    max_age_s: float = 300.0      key `max_age`, a duration
    max_bytes: int = 65536        key `max_bytes`, a size
    token: Secret                 never shown; in the environment also as <NAME>_FILE
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from outpost.config import values
from outpost.errors import ConfigError
from outpost.identity import Secret

T = TypeVar("T")

FORMAT_VERSION: Final = 1
PREFIX: Final = "OUTPOST_"
NOT_SETTINGS: Final = frozenset({"OUTPOST_CONFIG", "OUTPOST_TRACE", "OUTPOST_ANNOTATE"})
KUBERNETES: Final = re.compile(
    r"OUTPOST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables Kubernetes makes for a Service whose name begins with `outpost`."""

AUTHENTIK_NAMES: Final[Mapping[str, str]] = {
    "AUTHENTIK_HOST": "authentik.host",
    "AUTHENTIK_TOKEN": "authentik.token",
    "AUTHENTIK_TOKEN_LDAP": "authentik.token_ldap",
    "AUTHENTIK_TOKEN_RADIUS": "authentik.token_radius",
    "AUTHENTIK_INSECURE": "authentik.insecure",
    "AUTHENTIK_LDAP__PAGE_SIZE": "authentik.page_size",
    "GIT_BUILD_HASH": "authentik.build_hash",
    "AUTHENTIK_LOG_LEVEL": "log.level",
    "AUTHENTIK_DEBUG": "log.debug",
    "AUTHENTIK_LISTEN__LDAP": "listen.ldap",
    "AUTHENTIK_LISTEN__LDAPS": "listen.ldaps",
    "AUTHENTIK_LISTEN__RADIUS": "listen.radius",
    "AUTHENTIK_LISTEN__METRICS": "listen.metrics",
    "AUTHENTIK_LISTEN__TRUSTED_PROXY_CIDRS": "listen.trusted_proxy_cidrs",
}
"""Names taken over as they are; where OUTPOST_<SECTION>__<KEY> is set too, that one counts."""


@dataclass(frozen=True, slots=True)
class Given:
    """One value somebody gave, and where."""

    value: object
    source: str
    """File, variable or option."""
    line: int | None = None
    key: str = ""
    """Dotted path in the file; empty where `source` says it all."""

    def wrong(self, problem: str) -> ConfigError:
        """The error that points here."""
        return ConfigError(problem, source=self.source, line=self.line, key=self.key)

    def place(self) -> str:
        """`file:line` or the name of the variable or option."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section: how it is called, read and shown."""

    name: str
    """Name of the dataclass field."""
    key: str
    """Name in files and variables."""
    kind: Any
    default: Any
    read: Callable[[object], Any]
    show: Callable[[Any], str]


@dataclass(slots=True)
class Layers:
    """What was given, the winner of each key only."""

    given: dict[str, Given] = field(default_factory=dict)
    tables: dict[str, dict[str, Given]] = field(default_factory=dict)
    """`[provider.<name>]` tables by name."""
    notes: list[str] = field(default_factory=list)
    """Remarks for the log at debug level."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def section(self, name: str, cls: type[T]) -> T:
        """An instance of the dataclass `cls` filled from keys `name.*`. Raises ConfigError."""
        return make(name, cls, **self.values(name, cls))

    def values(self, name: str, cls: type[Any]) -> dict[str, Any]:
        """Keyword arguments for `cls` from keys `name.*`. Raises ConfigError."""
        given = {setting.key: found for setting in schema(cls) if (found := self.given.get(f"{name}.{setting.key}"))}
        return self.fill(cls, given)

    def fill(self, cls: type[Any], given: Mapping[str, Given]) -> dict[str, Any]:
        """Keyword arguments for `cls` from the keys that were given. Raises ConfigError."""
        return {s.name: self.value(s, given[s.key]) for s in schema(cls) if s.key in given}

    def value(self, setting: Setting, given: Given) -> Any:
        """The value of one setting. Raises ConfigError."""
        raw = given.value
        try:
            if setting.kind in PATHS:
                return setting.read(raw)
            if isinstance(raw, str):
                raw = values.follow(raw, self.environ)
            if isinstance(raw, list):
                raw = [values.follow(r, self.environ) if isinstance(r, str) else r for r in raw]
            return setting.read(raw)
        except ValueError as error:
            raise given.wrong(str(error)) from None


PATHS: Final = (Path, tuple[Path, ...])
"""Kinds that name files themselves, so that nothing is looked up in their place."""


def make(name: str, cls: Callable[..., T], **values: Any) -> T:
    """`cls(**values)`, what it refuses being the operator's fault. Raises ConfigError."""
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(str(error), source=f"[{name}]") from None


def read(path: Path | None, environ: Mapping[str, str], options: Sequence[tuple[str, str]] = ()) -> Layers:
    """Everything that was given. `options` are (dotted key, text) of the command line.

    Keys are not looked at yet (`refuse_unknown`). Raises ConfigError.
    """
    layers = Layers(environ=environ)
    if path is not None:
        _read_file(path, layers)
    _read_environ(environ, layers)
    for key, value in options:
        option = "--directory" if key == "directory" else f"--set {key}"
        layers.given[key] = Given(value, option)
    return layers


def refuse_unknown(layers: Layers, known: Sequence[str]) -> None:
    """Raise ConfigError for a key that is not `known`, naming the nearest that is."""
    for key, given in layers.given.items():
        if key not in known:
            raise given.wrong(unknown(key, known, variable if given.source.startswith(PREFIX) else str))


def unknown(key: str, known: Sequence[str], spell: Callable[[str], str] = str) -> str:
    """The sentence that refuses `key`, with the nearest of `known` if one is near, spelled for its layer."""
    import difflib  # noqa: PLC0415  (only on the way to an error)

    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key{f'; did you mean {spell(near[0])}?' if near else ''}"


def variable(key: str) -> str:
    """The environment variable of a dotted key: cache.max_age is OUTPOST_CACHE__MAX_AGE."""
    return PREFIX + key.replace(".", "__").upper()


def schema(cls: type[Any]) -> Iterator[Setting]:
    """The settings that a dataclass stands for, in its order.

    Fields without a default, mappings and nested dataclasses are no settings: whoever composes gives them.
    """
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        kind = hints[entry.name]
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required or typing.get_origin(kind) is Mapping or dataclasses.is_dataclass(kind):
            continue
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        key = entry.name.removesuffix("_s") if _plain(kind) is float else entry.name
        choices = CHOICES.get(entry.name)
        reader, show = _reader(entry.name, kind)
        yield Setting(entry.name, key, kind, default, _choosing(reader, choices) if choices else reader, show)


CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "nested_groups": ("direct", "effective"),
    "rdn_attribute": ("cn", "uid"),
    "uid": ("server", "username"),
    "missing_base": ("noSuchObject", "empty"),
    "custom_attributes": ("replace", "add"),
    "message_authenticator": ("auto", "require", "optional"),
    "bind_names": ("username", "mail", "upn"),
}
"""Closed sets that the types of the consumers' fields do not say."""


def _plain(kind: Any) -> Any:
    """The type inside `X | None`."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return inner[0] if len(inner) == 1 else kind
    return kind


def _reader(name: str, kind: Any) -> tuple[Callable[[object], Any], Callable[[Any], str]]:
    plain = _plain(kind)
    read, show = _plain_reader(name, plain)
    if plain is kind or kind == values.Network:
        return read, show
    return (lambda v: None if v == "" else read(v)), (lambda v: "" if v is None else show(v))


def _plain_reader(name: str, kind: Any) -> tuple[Callable[[object], Any], Callable[[Any], str]]:
    if typing.get_origin(kind) is typing.Literal:
        return _choosing(values.text, typing.get_args(kind)), str
    if kind is bool:
        return values.boolean, lambda v: "true" if v else "false"
    if kind is values.Workers:
        return values.workers, str
    if kind is int:
        return (values.size, values.show_size) if name.endswith(("_bytes", "_octets")) else (values.integer, str)
    if kind is float:
        return (values.duration, values.show_duration) if name.endswith("_s") else (values.real, "{:g}".format)
    if kind is Secret:
        return (lambda v: Secret(values.text(v))), (lambda v: "***" if v else "")
    if kind is Path:
        return (lambda v: Path(values.text(v)).expanduser()), str
    if kind == tuple[Path, ...]:
        return (lambda v: tuple(Path(word).expanduser() for word in values.words(v))), _show_all
    if kind == tuple[values.Endpoint, ...]:
        return values.endpoints, _show_all
    if kind == tuple[values.Network, ...]:
        return values.networks, _show_all
    if kind == tuple[str, ...]:
        return values.words, _show_all
    if kind is str:
        return values.text, str
    raise TypeError(f"no reader for {name}: {kind}")


def _show_all(members: Sequence[object]) -> str:
    return ",".join(str(m) for m in members)


def _choosing(read: Callable[[object], Any], choices: Sequence[Any]) -> Callable[[object], Any]:
    def reader(value: object) -> Any:
        found = read(value)
        for one in found if isinstance(found, tuple) else (found,):
            if one not in choices:
                raise ValueError(f"expected one of {', '.join(choices)}")
        return found

    return reader


def _read_file(path: Path, layers: Layers) -> None:
    import tomllib  # noqa: PLC0415  (without a file nobody pays for it)

    name = str(path)
    try:
        content = path.read_text(encoding="utf-8")
        document = tomllib.loads(content)
    except OSError as error:
        raise ConfigError(f"cannot read the settings: {error.strerror}", source=name) from None
    except UnicodeDecodeError:
        raise ConfigError("the settings are not UTF-8 text", source=name) from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        raise ConfigError(
            f"not valid TOML: {str(error).split(' (at ')[0]}", source=name, line=int(at[1]) if at else None
        ) from None
    version = document.pop("version", None)
    if version != FORMAT_VERSION or isinstance(version, bool):
        problem = f"expected version = {FORMAT_VERSION}" + ("" if version is None else f", found {version!r}")
        raise ConfigError(problem, source=name, line=_line_of(content, "version"), key="version")
    providers = document.pop("provider", {})
    for key, value in _leaves(document):
        layers.given[key] = Given(value, name, _line_of(content, key), key)
    for key in RELATIVE:
        if key in layers.given:
            found = layers.given[key]
            layers.given[key] = dataclasses.replace(found, value=_beside(path, found.value))
    line = _line_of(content, "provider")
    if not isinstance(providers, dict):
        raise ConfigError("expected tables [provider.<name>]", source=name, line=line, key="provider")
    for provider, table in providers.items():
        if not isinstance(table, dict):
            raise ConfigError(f"expected a table [provider.{provider}]", source=name, line=line, key="provider")
        prefix = f"provider.{provider}"
        layers.tables[provider] = {
            key: Given(value, name, _line_of(content, f"{prefix}.{key}"), f"{prefix}.{key}")
            for key, value in table.items()
        }


RELATIVE: Final = ("directory", "ldap.client_ca", "radius.dictionaries")


def _beside(path: Path, value: object) -> object:
    """Paths in a file are relative to the file, so that it means the same from any working directory."""
    if isinstance(value, str) and value:
        return ",".join(str(path.parent / Path(word.strip()).expanduser()) for word in value.split(","))
    if isinstance(value, list):
        return [_beside(path, one) for one in value]
    return value


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _line_of(content: str, key: str) -> int | None:
    """The line that sets `key`, as far as it is written the usual way; tomllib keeps no positions."""
    table = ""
    for number, raw in enumerate(content.splitlines(), 1):
        line = raw.strip()
        if header := re.fullmatch(r"\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?", line):
            table = _dotted(header[1])
            if table == key:
                return number
        elif line and line[0] not in "#[":
            name = _dotted(line.partition("=")[0].strip())
            if (f"{table}.{name}" if table else name) == key:
                return number
    return None


def _dotted(text: str) -> str:
    return ".".join(
        bare or basic or literal
        for basic, literal, bare in re.findall(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)", text)
    )


def _read_environ(environ: Mapping[str, str], layers: Layers) -> None:
    for name, key in AUTHENTIK_NAMES.items():
        if name in environ:
            layers.given[key] = Given(environ[name], name)
    for name in sorted(environ):
        if name.startswith("AUTHENTIK_") and name not in AUTHENTIK_NAMES:
            # The same environment file may serve the server itself, so its settings are none of ours.
            layers.notes.append(f"{name} is not a setting of this program; ignored")
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or KUBERNETES.fullmatch(name):
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        if key in SECRET_FILES:
            layers.given[SECRET_FILES[key]] = Given(f"file://{environ[name]}", name)
        else:
            layers.given[key] = Given(environ[name], name)


SECRET_FILES: Final[Mapping[str, str]] = {
    f"{key}_file": key for key in ("authentik.token", "authentik.token_ldap", "authentik.token_radius")
}
"""Secrets that OUTPOST_<SECTION>__<KEY>_FILE names a file for."""
