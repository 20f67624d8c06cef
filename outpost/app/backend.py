"""A backend as the composition takes it: what decides, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import Metric

from outpost.config.settings import Settings
from outpost.identity import Backend, Publish
from outpost.observe.logs import LogWriter


@dataclass(frozen=True, slots=True)
class Source:
    """A backend and what is told about it."""

    backend: Backend
    outpost_name: Callable[[str], str]
    """By service: what the metrics' label `outpost_name` says."""
    is_connected: bool
    """Revocations would arrive already now; otherwise `set_connected` will tell."""
    families: Callable[[], Iterable[Metric]]


Build = Callable[[Settings, LogWriter, Publish, Callable[[bool], None]], Source]
