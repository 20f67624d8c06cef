"""Which provider serves a network device: the longest prefix that holds its address, over all providers.

Only the address decides, never the shared secret: two providers may have the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import final

from outpost._fastradius import SharedSecret
from outpost.identity import RadiusProvider, Source
from outpost.radius._intake import Peer
from outpost.radius.bypass import Bypass

MAPPED = bytes(10) + b"\xff\xff"
"""First 96 bits of an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2)."""

MOST_PEERS = 16384
"""Addresses remembered with their provider. Forgetting them all costs one look-up each."""

POLICIES = ("auto", "require", "optional")

Network = IPv4Network | IPv6Network


@final
class Client:
    """A provider as the packets see it: its secret made ready, its policy told."""

    __slots__ = ("app", "bypass", "is_proxy_state_free", "is_signature_required", "provider", "secret")

    def __init__(self, provider: RadiusProvider) -> None:
        """Raises ValueError for an empty secret, a policy that is none, a hardware address that is none."""
        policy = provider.options.message_authenticator
        if policy not in POLICIES:
            raise ValueError(f"message_authenticator is one of {', '.join(POLICIES)}, not {policy!r}")
        self.provider = provider
        self.app = provider.application_slug
        self.secret = SharedSecret(provider.shared_secret.reveal())
        self.bypass = Bypass(provider.options)
        self.is_signature_required = policy == "require"
        self.is_proxy_state_free = policy == "optional"

    def __repr__(self) -> str:
        return f"Client({self.provider.name!r})"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something about the providers that an operator has to mend; `str()` is one sentence."""

    provider: str
    """Name of the provider that is served in part or not at all."""
    problem: str

    def __str__(self) -> str:
        return f"RADIUS provider {self.provider!r}: {self.problem}"


def unmapped(address: bytes) -> bytes:
    """4 or 16 octets; an IPv4-mapped address as the IPv4 address it means."""
    return address[12:] if len(address) == 16 and address.startswith(MAPPED) else address


def unmapped_network(network: Network) -> Network:
    """A network of IPv4-mapped addresses as the IPv4 network it means."""
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.packed.startswith(MAPPED):
        return ip_network((network.network_address.packed[12:], network.prefixlen - 96))
    return network


@final
class ClientTable:
    """Address to provider by longest prefix (IPv4 and IPv6). Immutable: a change of providers makes a new one.

    When two providers name the very same network, neither more specific, the one with the lower primary key has
    it; `flaws` says so, for `ConfigError` or the log, as the caller sees fit.
    """

    def __init__(self, providers: Iterable[RadiusProvider]) -> None:
        self.flaws: list[Flaw] = []
        self.clients: dict[int, Client] = {}
        """By primary key of the provider."""
        taken: dict[Network, Client] = {}
        for provider in sorted(providers, key=lambda provider: provider.pk):
            try:
                client = Client(provider)
            except ValueError as exc:
                self.flaws.append(Flaw(provider.name, f"not served: {exc}"))
                continue
            self.clients[provider.pk] = client
            if not provider.client_networks:
                self.flaws.append(Flaw(provider.name, "no client network, so no device is served"))
            for network in dict.fromkeys(map(unmapped_network, provider.client_networks)):
                owner = taken.setdefault(network, client)
                if owner is not client:
                    self.flaws.append(
                        Flaw(provider.name, f"network {network} already belongs to provider {owner.provider.name!r}")
                    )
        self._prefixes = {4: self._by_length(taken, IPv4Network), 16: self._by_length(taken, IPv6Network)}
        self.peers: dict[bytes, Peer] = {}
        """By address, those that were found of late."""

    @staticmethod
    def _by_length(taken: dict[Network, Client], version: type[Network]) -> list[tuple[int, dict[int, Client]]]:
        """(bits behind the prefix, prefix to client), longest prefix first."""
        lengths: dict[int, dict[int, Client]] = {}
        for network, client in taken.items():
            if isinstance(network, version):
                shift = network.max_prefixlen - network.prefixlen
                lengths.setdefault(shift, {})[int(network.network_address) >> shift] = client
        return sorted(lengths.items(), key=lambda item: item[0])

    def find(self, address: bytes) -> Peer | None:
        """Who serves the device at `address` (4 or 16 octets); None for nobody."""
        peer = self.peers.get(address)
        if peer is not None:
            return peer
        bare = unmapped(address)
        number = int.from_bytes(bare)
        for shift, clients in self._prefixes[len(bare)]:
            client = clients.get(number >> shift)
            if client is not None:
                break
        else:
            return None
        interactive = client.provider.options.challenge
        peer = Peer(
            client,
            Source("radius", str(ip_address(bare)), interactive=interactive),
            client.secret,
            is_signature_required=client.is_signature_required,
            is_proxy_state_free=client.is_proxy_state_free,
        )
        if len(self.peers) >= MOST_PEERS:
            self.peers.clear()
        self.peers[address] = peer
        return peer

    def serves(self, client: Client) -> bool:
        """Whether this table would still answer in that client's name, with the same secret and application."""
        mine = self.clients.get(client.provider.pk)
        if mine is None:
            return False
        now, then = mine.provider, client.provider
        return now.shared_secret == then.shared_secret and now.application_slug == then.application_slug
