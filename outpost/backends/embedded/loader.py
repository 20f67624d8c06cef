"""A directory file to a `Directory`: read completely and found consistent, or refused with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from outpost.backends.embedded.blueprint import Blueprint, read_limited
from outpost.backends.embedded.model import NO_EXTRAS, Directory, Extras
from outpost.backends.embedded.nodes import MAX_OCTETS, collector_paused, compose
from outpost.backends.embedded.people import read_people
from outpost.backends.embedded.serving import read_served
from outpost.errors import ConfigError
from outpost.identity import People


def load(path: Path, extras: Extras = NO_EXTRAS, *, environ: Mapping[str, str] = os.environ) -> Directory:
    """The directory in the blueprint at `path`, of generation 1.

    extras: options that the settings give to providers, whole, by provider name.  Blocks while it reads files and
    takes CPU time in proportion to them (seconds for 100,000 people), so serving loops call it in a thread.
    Raises ConfigError for whatever is wrong with the file or a file that it reads.
    """
    try:
        octets = read_limited(path, MAX_OCTETS)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise ConfigError(reason or str(exc), source=str(path)) from None
    with collector_paused():
        blueprint = Blueprint(path, compose(octets, str(path)), environ)
        try:
            blueprint.warn_of_unknown()
            folk = read_people(blueprint)
            served, applications = read_served(blueprint, extras)
        finally:
            blueprint.close()
    return Directory(
        people=People(folk.users, folk.groups, generation=1, taken_at=time.time()),
        accounts=folk.accounts,
        by_login=folk.by_login,
        served=served,
        applications=applications,
        files=tuple(blueprint.files),
        warnings=tuple(blueprint.warnings),
    )
