"""All settings of the appliance, as one frozen value.

Options live beside their consumers; this module only says which section fills which dataclass.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from outpost.backends.authentik.settings import AUTO, AuthentikSettings
from outpost.config.layers import (
    Given,
    Layers,
    make,
    read,
    refuse_unknown,
    schema,
    unknown,
)
from outpost.config.sections import ListenSettings, LogSettings, ProcessSettings, ServerSettings
from outpost.config.values import Workers
from outpost.credentials.cache import CacheSettings
from outpost.credentials.gate import GateSettings
from outpost.credentials.limiter import LimiterSettings
from outpost.errors import ConfigError
from outpost.identity import LdapOptions, RadiusOptions
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from outpost.ldap.tls import TlsSettings
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits as ExchangeLimits

T = TypeVar("T")

SECTIONS: Final[Mapping[str, tuple[type[Any], ...]]] = {
    "authentik": (ServerSettings, AuthentikSettings),
    "cache": (CacheSettings,),
    "ldap": (ServerLimits, SearchLimits, TlsSettings),
    "limiter": (LimiterSettings,),
    "listen": (ListenSettings,),
    "log": (LogSettings,),
    "logins": (GateSettings,),
    "process": (ProcessSettings,),
    "radius": (DictionarySettings, ExchangeLimits),
}
"""The dataclasses that each section fills."""
OPTIONS: Final[Mapping[str, type[Any]]] = {"ldap": LdapOptions, "radius": RadiusOptions}
TOP: Final = ("directory",)


@dataclass(frozen=True, slots=True)
class ProviderExtras:
    """What `[provider.<name>]` says about one provider, by field name of the options."""

    ldap: Mapping[str, Any] = field(default_factory=dict)
    radius: Mapping[str, Any] = field(default_factory=dict)

    def ldap_options(self, base: LdapOptions) -> LdapOptions:
        """`base` with what was set."""
        return dataclasses.replace(base, **self.ldap)

    def radius_options(self, base: RadiusOptions) -> RadiusOptions:
        """`base` with what was set."""
        return dataclasses.replace(base, **self.radius)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything there is to set. Exactly one of `directory` and the host of `ServerSettings` is."""

    directory: Path | None
    parts: Mapping[type[Any], Any]
    """The filled dataclasses of all sections."""
    providers: Mapping[str, ProviderExtras]
    notes: tuple[str, ...]
    """Remarks for the log at debug level."""
    places: Mapping[str, str]
    """Where each key that is not at its default was set."""

    def part(self, cls: type[T]) -> T:
        """The filled dataclass `cls`."""
        found: T = self.parts[cls]
        return found

    def extras(self, name: str) -> ProviderExtras:
        """The extras of a provider; empty ones when its name has no table."""
        return self.providers.get(name, NO_EXTRAS)

    def lines(self) -> Iterator[str]:
        """The settings as they count, as TOML, secrets masked, each with the place it comes from."""
        yield "version = 1"
        if self.directory is not None:
            yield _line("directory", str(self.directory), self.places.get("directory"))
        for name, classes in SECTIONS.items():
            if name == "authentik" and self.directory is not None:
                continue
            yield ""
            yield f"[{name}]"
            for cls in classes:
                yield from self._keys(name, cls, vars_of(self.parts[cls]))
        for name, extras in self.providers.items():
            yield ""
            yield f"[provider.{_toml(name)}]"
            # A key that both kinds of provider know is shown once.
            yield from dict.fromkeys(
                line
                for kind, values in (("ldap", extras.ldap), ("radius", extras.radius))
                for line in self._keys(f"provider.{name}", OPTIONS[kind], values)
            )

    def _keys(self, section: str, cls: type[Any], values: Mapping[str, Any]) -> Iterator[str]:
        for setting in schema(cls):
            if setting.name in values:
                place = self.places.get(f"{section}.{setting.key}")
                yield _line(setting.key, setting.show(values[setting.name]), place, setting.kind)


def vars_of(part: Any) -> dict[str, Any]:
    """The fields of a dataclass instance, not copied."""
    return {entry.name: getattr(part, entry.name) for entry in dataclasses.fields(part)}


NO_EXTRAS: Final = ProviderExtras()


def gather(config: Path | None, environ: Mapping[str, str], options: Sequence[tuple[str, str]] = ()) -> Layers:
    """What was given in the file (default: OUTPOST_CONFIG), the environment and the options. Raises ConfigError."""
    if config is None and environ.get("OUTPOST_CONFIG"):
        config = Path(environ["OUTPOST_CONFIG"])
    return read(config, environ, options)


def load(config: Path | None, environ: Mapping[str, str], options: Sequence[tuple[str, str]] = ()) -> Settings:
    """The settings, complete and consistent. Raises ConfigError at the first problem."""
    layers = gather(config, environ, options)
    known = [f"{name}.{s.key}" for name, classes in SECTIONS.items() for cls in classes for s in schema(cls)]
    refuse_unknown(layers, [*TOP, *known])
    given = layers.given
    values = {cls: (name, layers.values(name, cls)) for name, classes in SECTIONS.items() for cls in classes}
    server = values.pop(AuthentikSettings)[1]
    parts: dict[type[Any], Any] = {cls: make(name, cls, **found) for cls, (name, found) in values.items()}
    providers = {name: _extras(name, table, layers) for name, table in layers.tables.items()}
    directory = _directory(given)
    _check_source(directory, parts[ServerSettings], given)
    if directory is None:
        parts[AuthentikSettings] = _authentik(parts[ServerSettings], server, providers)
    places = {key: found.place() for key, found in given.items()}
    for table in layers.tables.values():
        places |= {found.key: found.place() for found in table.values()}
    return Settings(directory=directory, parts=parts, providers=providers, notes=tuple(layers.notes), places=places)


def _directory(given: Mapping[str, Given]) -> Path | None:
    found = given.get("directory")
    if found is None or found.value == "":
        return None
    if not isinstance(found.value, str):
        raise found.wrong("expected the path of a blueprint file")
    return Path(found.value).expanduser()


def _check_source(directory: Path | None, server: ServerSettings, given: Mapping[str, Given]) -> None:
    """Exactly one of a server and a directory, and whatever the server needs."""
    if directory is not None:
        if server.host:
            raise given["authentik.host"].wrong(
                f"both a server (here) and a directory ({given['directory'].place()}) are set; choose one"
            )
        return
    if not server.host:
        raise ConfigError(
            "neither a server nor a directory is set; set AUTHENTIK_HOST and AUTHENTIK_TOKEN for an authentik server, "
            "or OUTPOST_DIRECTORY (--directory FILE) for a directory file"
        )
    host = given["authentik.host"]
    try:
        url = urllib.parse.urlsplit(server.host)
    except ValueError as exc:  # its text may quote a password
        raise host.wrong("expected a URL like https://authentik.example.org") from exc
    if url.scheme not in {"http", "https", "unix"} or not (url.path if url.scheme == "unix" else url.hostname):
        raise host.wrong("expected a URL like https://authentik.example.org (or unix:///path/to/socket)")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise host.wrong("expected a URL without user, query or fragment")
    if not (server.token or server.token_ldap or server.token_radius):
        raise host.wrong(
            "a server needs a token; set AUTHENTIK_TOKEN (or AUTHENTIK_TOKEN_LDAP and AUTHENTIK_TOKEN_RADIUS)"
        )
    if server.token and (server.token_ldap or server.token_radius):
        other = "authentik.token_ldap" if server.token_ldap else "authentik.token_radius"
        raise given["authentik.token"].wrong(
            f"set either this or {given[other].place()}; one token per type, or one whose type decides"
        )


def _authentik(
    server: ServerSettings, values: Mapping[str, Any], providers: Mapping[str, ProviderExtras]
) -> AuthentikSettings:
    """What the backend is told. Raises ConfigError."""
    named = {AUTO: server.token, "ldap": server.token_ldap, "radius": server.token_radius}
    found = make(
        "authentik",
        AuthentikSettings,
        host=server.host,
        tokens={service: token for service, token in named.items() if token},
        ldap_options={name: extras.ldap_options(LdapOptions()) for name, extras in providers.items()},
        radius_options={name: extras.radius_options(RadiusOptions()) for name, extras in providers.items()},
        **values,
    )
    found.check()
    return found


def _extras(name: str, table: Mapping[str, Given], layers: Layers) -> ProviderExtras:
    known = {kind: {s.key for s in schema(cls)} for kind, cls in OPTIONS.items()}
    for key, given in table.items():
        if not any(key in keys for keys in known.values()):
            raise given.wrong(unknown(key, sorted(set().union(*known.values()))))
    found = ProviderExtras(layers.fill(LdapOptions, table), layers.fill(RadiusOptions, table))
    # What no single key can be asked is found out here, not when the provider is served.
    make(f"provider.{name}", LdapOptions, **found.ldap)
    make(f"provider.{name}", RadiusOptions, **found.radius)
    return found


def _line(key: str, shown: str, place: str | None, kind: Any = str) -> str:
    value = shown if kind is bool or (kind in {int, Workers} and shown.isdigit()) else _toml(shown)
    return f"{key} = {value}" + (f"  # {place}" if place else "")


def _toml(text: str) -> str:
    import json  # noqa: PLC0415  (a JSON string is a TOML basic string)

    return json.dumps(text, ensure_ascii=False)
