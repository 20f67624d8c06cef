"""The directory file as the settings want it, and what neither its loader nor the settings can see by themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from outpost.backends.embedded.loader import load
from outpost.backends.embedded.model import Directory, Extras
from outpost.backends.embedded.packed import summary_of
from outpost.config.settings import Settings
from outpost.identity import LdapOptions, RadiusOptions
from outpost.ldap.tls import TlsSettings, read_trust
from outpost.radius import dictionary
from outpost.radius.attributes import Renderer
from outpost.radius.clients import ClientTable, Flaw
from outpost.radius.dictionary import Dictionary, DictionarySettings

LDAP_OPTIONS = LdapOptions(uid="username")
"""What a provider of a directory file starts from: there is no opaque identifier of a server to show."""


def extras(settings: Settings) -> Extras:
    """What `[provider.<name>]` says about the providers of a directory file."""
    tables = settings.providers.items()
    return Extras(
        ldap={name: table.ldap_options(LDAP_OPTIONS) for name, table in tables},
        radius={name: table.radius_options(RadiusOptions()) for name, table in tables},
    )


def reviewer(settings: Settings) -> Callable[[Directory], Directory]:
    """Puts wrong reply attributes among the warnings of a directory; for a thread. Raises ConfigError."""
    words = settings.part(DictionarySettings).dictionaries
    return lambda found: replace(found, warnings=(*found.warnings, *wrong_replies(found, words)))


def wrong_replies(directory: Directory, words: Sequence[Path] | Dictionary = ()) -> list[str]:
    """What cannot be sent of the reply attributes, one sentence for each name and value, naming one user of them.

    words: further files of names, or the dictionary itself.  Nothing where no RADIUS is served.  Raises ConfigError.
    """
    if not directory.served.radius:
        return []
    owners = summary_of(directory.accounts).replies
    if not owners:
        return []
    renderer = Renderer(words if isinstance(words, Dictionary) else dictionary.load(words), os.urandom)
    return [
        f"RADIUS logins of {username!r} will be refused: reply attribute {name}: {problem}"
        for name, value, username in owners
        for problem in renderer.complaints(((name, value),))
    ]


def wrong_clients(directory: Directory, known: Dictionary) -> list[str]:
    """What about the RADIUS providers, their networks and their devices is served in part or not at all."""
    table, renderer = ClientTable(directory.served.radius), Renderer(known, os.urandom)
    return [str(flaw) for flaw in table.flaws] + [
        str(Flaw(client.provider.name, f"mac_attributes: {complaint}"))
        for client in table.clients.values()
        for complaint in renderer.complaints(client.bypass.attributes.named)
    ]


def findings(settings: Settings) -> tuple[list[str], list[str]]:
    """Warnings, and faults, about everything that the settings name. Raises ConfigError for what cannot be read."""
    client_ca = settings.part(TlsSettings).client_ca
    if client_ca is not None:
        read_trust(client_ca)
    known = dictionary.load(settings.part(DictionarySettings).dictionaries)
    if settings.directory is None:
        return [], []
    directory = load(settings.directory, extras(settings))
    return list(dict.fromkeys(directory.warnings)), wrong_replies(directory, known) + wrong_clients(directory, known)
