"""What the authentik backend tells about itself; `outpost.observe` and the composition listen."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Takes log events and measurements; never blocks, never raises, never gets a secret."""

    def log(self, level: str, event: str, **fields: object) -> None:
        """One line for the log; level: `debug`, `info`, `warning` or `error`."""
        ...

    def flow_request(self, method: str, stage: str, flow: str, seconds: float) -> None:
        """One executor round trip; method: `get` or `post`; stage: the component that came back."""
        ...

    def outpost(self, service: str, name: str, uuid: str, version: str) -> None:
        """The outpost record of a service became known or changed; uuid: this process's."""
        ...

    def level(self, service: str, level: str) -> None:
        """The outpost record of a service asks for this log level; whatever the server has, perhaps an unknown one."""
        ...

    def refreshed(self, service: str, at: float) -> None:
        """The state of a service was read completely; at: seconds since the epoch."""
        ...

    def connection(self, service: str, up: bool) -> None:
        """The event channel of a service came up or went down."""
        ...


class Silence:
    """An Observer that keeps everything to itself."""

    def log(self, level: str, event: str, **fields: object) -> None:
        """Nothing happens."""

    def flow_request(self, method: str, stage: str, flow: str, seconds: float) -> None:
        """Nothing happens."""

    def outpost(self, service: str, name: str, uuid: str, version: str) -> None:
        """Nothing happens."""

    def level(self, service: str, level: str) -> None:
        """Nothing happens."""

    def refreshed(self, service: str, at: float) -> None:
        """Nothing happens."""

    def connection(self, service: str, up: bool) -> None:
        """Nothing happens."""
