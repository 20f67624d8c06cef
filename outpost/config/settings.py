"""All settings of the appliance, as one frozen value.

Options live beside their consumers; this module only says which section fills which dataclass.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from outpost.config.layers import (
    Given,
    Layers,
    read,
    refuse_unknown,
    schema,
    unknown,
)
from outpost.config.sections import AuthentikSettings, ListenSettings, LogSettings, ProcessSettings
from outpost.errors import ConfigError
from outpost.identity import LdapOptions, RadiusOptions

SECTIONS: Final[Mapping[str, type[Any]]] = {
    "authentik": AuthentikSettings,
    "listen": ListenSettings,
    "log": LogSettings,
    "process": ProcessSettings,
}
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
    """Everything there is to set. Exactly one of `directory` and `authentik.host` is."""

    directory: Path | None
    authentik: AuthentikSettings
    listen: ListenSettings
    log: LogSettings
    process: ProcessSettings
    providers: Mapping[str, ProviderExtras]
    notes: tuple[str, ...]
    """Remarks for the log at debug level."""
    places: Mapping[str, str]
    """Where each key that is not at its default was set."""

    def extras(self, name: str) -> ProviderExtras:
        """The extras of a provider; empty ones when its name has no table."""
        return self.providers.get(name, NO_EXTRAS)

    def lines(self) -> Iterator[str]:
        """The settings as they count, as TOML, secrets masked, each with the place it comes from."""
        yield "version = 1"
        if self.directory is not None:
            yield _line("directory", str(self.directory), self.places.get("directory"))
        for name, cls in SECTIONS.items():
            if name == "authentik" and self.directory is not None:
                continue
            yield ""
            yield f"[{name}]"
            values = getattr(self, name)
            for setting in schema(cls):
                shown = setting.show(getattr(values, setting.name))
                yield _line(setting.key, shown, self.places.get(f"{name}.{setting.key}"), setting.kind)
        for name, extras in self.providers.items():
            yield ""
            yield f"[provider.{_toml(name)}]"
            done = set()
            for kind, values in (("ldap", extras.ldap), ("radius", extras.radius)):
                for setting in schema(OPTIONS[kind]):
                    if setting.name in values and setting.key not in done:
                        done.add(setting.key)
                        shown = setting.show(values[setting.name])
                        yield _line(setting.key, shown, self.places.get(f"provider.{name}.{setting.key}"), setting.kind)


NO_EXTRAS: Final = ProviderExtras()


def gather(config: Path | None, environ: Mapping[str, str], options: Sequence[tuple[str, str]] = ()) -> Layers:
    """What was given in the file (default: OUTPOST_CONFIG), the environment and the options. Raises ConfigError."""
    if config is None and environ.get("OUTPOST_CONFIG"):
        config = Path(environ["OUTPOST_CONFIG"])
    return read(config, environ, options)


def load(config: Path | None, environ: Mapping[str, str], options: Sequence[tuple[str, str]] = ()) -> Settings:
    """The settings, complete and consistent. Raises ConfigError at the first problem."""
    layers = gather(config, environ, options)
    refuse_unknown(layers, SECTIONS, TOP)
    given = layers.given
    sections: dict[str, Any] = {name: layers.section(name, cls) for name, cls in SECTIONS.items()}
    providers = {name: _extras(table, layers) for name, table in layers.tables.items()}
    directory = _directory(given)
    _check_source(directory, sections["authentik"], given)
    places = {key: found.place() for key, found in given.items()}
    for table in layers.tables.values():
        places |= {found.key: found.place() for found in table.values()}
    return Settings(directory=directory, providers=providers, notes=tuple(layers.notes), places=places, **sections)


def _directory(given: Mapping[str, Given]) -> Path | None:
    found = given.get("directory")
    if found is None or found.value == "":
        return None
    if not isinstance(found.value, str):
        raise found.wrong("expected the path of a blueprint file")
    return Path(found.value).expanduser()


def _check_source(directory: Path | None, authentik: AuthentikSettings, given: Mapping[str, Given]) -> None:
    """Exactly one of a server and a directory, and whatever the server needs."""
    if directory is not None:
        if authentik.host:
            raise given["authentik.host"].wrong(
                f"both a server (here) and a directory ({given['directory'].place()}) are set; choose one"
            )
        return
    if not authentik.host:
        raise ConfigError(
            "neither a server nor a directory is set; set AUTHENTIK_HOST and AUTHENTIK_TOKEN for an authentik server, "
            "or OUTPOST_DIRECTORY (--directory FILE) for a directory file"
        )
    host = given["authentik.host"]
    url = urllib.parse.urlsplit(authentik.host)
    if url.scheme not in {"http", "https", "unix"} or not (url.path if url.scheme == "unix" else url.hostname):
        raise host.wrong("expected a URL like https://authentik.example.org (or unix:///path/to/socket)")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise host.wrong("expected a URL without user, query or fragment")
    if not (authentik.token or authentik.token_ldap or authentik.token_radius):
        raise host.wrong(
            "a server needs a token; set AUTHENTIK_TOKEN (or AUTHENTIK_TOKEN_LDAP and AUTHENTIK_TOKEN_RADIUS)"
        )
    if authentik.token and (authentik.token_ldap or authentik.token_radius):
        other = "authentik.token_ldap" if authentik.token_ldap else "authentik.token_radius"
        raise given["authentik.token"].wrong(
            f"set either this or {given[other].place()}; one token per type, or one whose type decides"
        )


def _extras(table: Mapping[str, Given], layers: Layers) -> ProviderExtras:
    known = {kind: {s.key for s in schema(cls)} for kind, cls in OPTIONS.items()}
    for key, given in table.items():
        if not any(key in keys for keys in known.values()):
            raise given.wrong(unknown(key, sorted(set().union(*known.values()))))
    return ProviderExtras(layers.fill(LdapOptions, table), layers.fill(RadiusOptions, table))


def _line(key: str, shown: str, place: str | None, kind: Any = str) -> str:
    value = shown if kind in {bool, int} and shown.isalnum() else _toml(shown)
    return f"{key} = {value}" + (f"  # {place}" if place else "")


def _toml(text: str) -> str:
    import json  # noqa: PLC0415  (a JSON string is a TOML basic string)

    return json.dumps(text, ensure_ascii=False)
