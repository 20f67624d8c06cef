"""LDAP and RADIUS in this process: the two servers, what they count, and how they are told what is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, final

from outpost.config.values import Network
from outpost.identity import CertificateKeyPair, Served
from outpost.ldap._shelf import Shelf
from outpost.ldap.directories import Directories
from outpost.ldap.operations.bind import Sessions
from outpost.ldap.operations.external import Voucher
from outpost.ldap.operations.password_modify import Changer
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import LdapServer, RevocableGate, ServedLibrary, ServerLimits
from outpost.ldap.tls import TlsSettings
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter
from outpost.observe.radius import RadiusMeter
from outpost.radius import dictionary
from outpost.radius.conversations import Prompts
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits as ExchangeLimits
from outpost.radius.server import RadiusServer
from outpost.radius.service import Gate as RadiusGate

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LDAP_LISTENERS = ("ldap", "ldaps")


class Options(NamedTuple):
    """The settings of both servers."""

    tls: TlsSettings
    limits: ServerLimits
    search: SearchLimits
    dictionaries: DictionarySettings
    exchange: ExchangeLimits
    trusted_proxies: tuple[Network, ...]


class Door(RevocableGate, RadiusGate, Protocol):
    """Who decides logins, for both."""


class People(NamedTuple):
    """What only some backends have."""

    sessions: Sessions | None = None
    passwords: Changer | None = None
    voucher: Voucher | None = None


class Shared(NamedTuple):
    """What several processes have in common, so that clients cannot tell them apart."""

    prompts: Prompts
    """Who keeps those of RADIUS."""
    default_certificate: CertificateKeyPair
    class_key: bytes


@final
class Servers:
    """Both servers of this process, on one event loop.

    outpost_name: by service, what the metrics' label says; is_ready: whether RADIUS logins can work now; shared:
    with other processes. Raises ConfigError.
    """

    def __init__(
        self,
        options: Options,
        gate: Door,
        library: ServedLibrary,
        log: LogWriter,
        *,
        outpost_name: Callable[[str], str],
        is_ready: Callable[[], bool],
        people: People,
        shared: Shared | None = None,
    ) -> None:
        self._ldap_meter = LdapMeter(log, lambda: outpost_name("ldap"))
        self._ldap = LdapServer(
            gate,
            library,
            self._ldap_meter,
            sessions=people.sessions,
            passwords=people.passwords,
            voucher=people.voucher,
            tls=options.tls,
            default_certificate=None if shared is None else shared.default_certificate,
            limits=options.limits,
            search_limits=options.search,
            trusted_proxies=options.trusted_proxies,
        )
        self._radius_meter = RadiusMeter(log, lambda: outpost_name("radius"))
        self._radius = RadiusServer(
            gate,
            self._radius_meter,
            is_ready=is_ready,
            dictionary=dictionary.load(options.dictionaries.dictionaries),
            limits=options.exchange,
            conversations=None if shared is None else shared.prompts,
            class_key=None if shared is None else shared.class_key,
        )

    def serve(self, served: Served) -> set[str]:
        """Serve these providers and certificates from now on; what an operator has to mend about them."""
        return {str(flaw) for flaw in (*self._ldap.serve(served), *self._radius.serve(served.radius))}

    async def start(self, sockets: Mapping[str, Sequence[socket.socket]]) -> None:
        """Serve these sockets, by service; they are closed by `stop`."""
        await self._ldap.start({name: sockets[name] for name in LDAP_LISTENERS})
        await self._radius.start(sockets["radius"])

    def close(self) -> None:
        """Take nothing new; who is connected stays so. Idempotent."""
        self._ldap.close()
        self._radius.close()

    @property
    def is_idle(self) -> bool:
        """Nobody is connected, and no request in work."""
        return not self._ldap.open and not self._radius.pending

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds; idempotent."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ldap.stop(drain_s))
            group.create_task(self._radius.stop(drain_s))

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        yield from self._ldap_meter.families()
        yield from self._radius_meter.families()


@final
class InProcess:
    """Both servers beside everything else; implements `outpost.app.appliance.Serving`."""

    def __init__(self, servers: Servers, directories: Directories[Shelf]) -> None:
        self._servers = servers
        self._directories = directories

    def serve(self, served: Served) -> set[str]:
        """Serve these from now on; what an operator has to mend about them."""
        return self._servers.serve(served)

    async def start(self, opened: Sequence[Mapping[str, Sequence[socket.socket]]]) -> None:
        """Serve the sockets, by service; they are closed by `stop`."""
        await self._servers.start(opened[0])

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, give what is in flight `drain_s` seconds; idempotent."""
        await self._servers.stop(drain_s)

    def readiness(self, service: str) -> str:
        """Empty, or what is still to be done here."""
        return self._directories.readiness() if service == "ldap" else ""

    async def count(self) -> None:
        """Everything is counted already."""

    def families(self) -> Iterator[Metric]:
        """What a scrape sees."""
        return self._servers.families()

    def counters(self) -> Mapping[str, int]:
        """Nothing beside the gate's."""
        return {}

    def gauges(self) -> Mapping[str, int]:
        """Nothing beside the gate's."""
        return {}
