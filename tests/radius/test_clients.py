import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from outpost.identity import RadiusProvider
from outpost.radius.clients import MAPPED, ClientTable
from tests.radius.testbed import provider


def served_by(table: ClientTable, address: str) -> str | None:
    peer = table.find(ip_address(address).packed)
    return peer.client.provider.name if peer else None


def test_longest_prefix_wins_whatever_the_order() -> None:
    wide = provider(1, "192.168.128.0/24,fd00::/16")
    narrow = provider(2, "192.168.128.254/32,fd00::fe/128")
    for order in ((wide, narrow), (narrow, wide)):
        table = ClientTable(order)
        assert table.flaws == []
        assert served_by(table, "192.168.128.254") == served_by(table, "fd00::fe") == "radius-2"
        assert served_by(table, "192.168.128.253") == served_by(table, "fd00::fd") == "radius-1"
        assert served_by(table, "192.168.129.1") is None and served_by(table, "fd01::1") is None


def test_mapped_addresses_are_the_addresses_they_mean() -> None:
    table = ClientTable([provider(1, "10.0.0.0/8"), provider(2, "::ffff:10.1.0.0/112"), provider(3, "::/0")])
    assert table.find(MAPPED + bytes([10, 1, 2, 3])).client.provider.pk == 2  # type: ignore[union-attr]
    assert table.find(bytes([10, 1, 2, 3])).client.provider.pk == 2  # type: ignore[union-attr]
    assert table.find(MAPPED + bytes([10, 2, 2, 3])).source.address == "10.2.2.3"  # type: ignore[union-attr]
    assert table.find(bytes([11, 0, 0, 1])) is None
    assert table.find(MAPPED + bytes([11, 0, 0, 1])) is None


def test_the_same_network_twice_is_told_and_the_lower_key_has_it() -> None:
    first, second = provider(3, "10.0.0.0/8,10.1.0.0/16"), provider(7, "10.0.0.0/8,::ffff:10.1.0.0/112,fd00::/8")
    table = ClientTable([second, first])
    assert [str(flaw) for flaw in table.flaws] == [
        "RADIUS provider 'radius-7': network 10.0.0.0/8 already belongs to provider 'radius-3'",
        "RADIUS provider 'radius-7': network 10.1.0.0/16 already belongs to provider 'radius-3'",
    ]
    assert served_by(table, "10.1.2.3") == "radius-3" and served_by(table, "fd00::1") == "radius-7"


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (provider(1, secret=b""), "the shared secret is empty"),
        (provider(1, message_authenticator="sometimes"), "message_authenticator is one of"),
        (provider(1, ""), "no client network"),
    ],
)
def test_a_broken_provider_is_told_and_serves_nobody(broken: RadiusProvider, problem: str) -> None:
    table = ClientTable([broken, provider(2, "fd00::/8")])
    assert len(table.flaws) == 1 and problem in str(table.flaws[0]) and "testing" not in str(table.flaws[0])
    assert served_by(table, "127.0.0.1") is None and served_by(table, "fd00::1") == "radius-2"


def test_the_secret_is_not_what_chooses() -> None:
    table = ClientTable([provider(1, "10.0.0.0/8"), provider(2, "10.1.0.0/16")])
    assert served_by(table, "10.1.0.1") == "radius-2" and served_by(table, "10.2.0.1") == "radius-1"


def test_a_hundred_thousand_addresses_get_what_a_plain_search_finds() -> None:
    chance = random.Random(1)
    networks: dict[str, int] = {}
    for pk in range(60):
        bits, width = (32, 4) if pk % 2 else (128, 16)
        length = chance.choice([0, 8, 12, 16, 23, 24, 31, 32]) * bits // 32
        packed = bytes([10 + chance.randrange(2), *chance.choices([0, 1, 128, 255], k=width - 1)])
        networks.setdefault(str(ip_network((packed, length), strict=False)), pk)
    table = ClientTable([provider(pk, network) for network, pk in networks.items()])
    assert table.flaws == []
    plain = {4: [], 6: []}  # type: ignore[var-annotated]
    for network, pk in networks.items():
        parsed = ip_network(network)
        plain[parsed.version].append((parsed.prefixlen, int(parsed.network_address), parsed.max_prefixlen, pk))
    for rows in plain.values():
        rows.sort(reverse=True)
    for _ in range(100_000):
        width = chance.choice([4, 16])
        packed = bytes([10 + chance.randrange(3), *chance.choices([0, 1, 128, 255], k=width - 1)])
        number = int.from_bytes(packed, "big")
        best = next((pk for n, a, m, pk in plain[4 if width == 4 else 6] if number >> (m - n) == a >> (m - n)), None)
        peer = table.find(packed)
        assert (peer.client.provider.pk if peer else None) == best, (IPv4Address, IPv6Address)[width == 16](packed)


def test_a_changed_provider_is_no_longer_served() -> None:
    client = ClientTable([provider(1)]).clients[1]
    assert ClientTable([provider(1, "10.0.0.0/8")]).serves(client)
    assert not ClientTable([provider(1, secret=b"other")]).serves(client)
    assert not ClientTable([provider(2)]).serves(client)
