"""The real process with the example directory, asked by programs of others."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest

from outpost._fastradius import SharedSecret, encode_request
from outpost.radius.packet import encode_attribute
from tests import oracle_radius as oracle
from tests.process.running import ROOT, SECRET, Appliance, appliance
from tests.radius import peers
from tests.radius.testbed import login

EXAMPLE = ROOT / "examples" / "directory.yaml"
CAROLS_KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""Base32 of the key in the example."""
PROXIED = encode_attribute(33, b"via")

needs_radclient = pytest.mark.skipif(not peers.RADCLIENT, reason="radclient (freeradius-utils) is not installed")
needs_freeradius = pytest.mark.skipif(
    not peers.FREERADIUS or not peers.RADCLIENT, reason="freeradius and freeradius-utils are not installed"
)
needs_pam = pytest.mark.skipif(not peers.PAM_RADIUS, reason="pam_radius_auth (libpam-radius-auth) is not installed")
needs_tshark = pytest.mark.skipif(not peers.TSHARK, reason="tshark is not installed")


def carols_code() -> str:
    return pyotp.TOTP(CAROLS_KEY).now()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Appliance]:
    config = tmp_path / "outpost.toml"
    config.write_text(
        """version = 1
[provider.radius]
reject_delay = "0s"
mac_addresses = ["00:00:5e:00:53:01"]
mac_attributes = ["Tunnel-Type=VLAN", "Tunnel-Medium-Type=IEEE-802", "Tunnel-Private-Group-Id=99"]
"""
    )
    with appliance(EXAMPLE, "--config", str(config)) as it:
        yield it
        assert it.stop() == 0
        for secret in ("alice-pw", "carol-pw", SECRET):
            assert secret not in it.said


@contextlib.contextmanager
def device(port: int, host: str = "127.0.0.1", source: str = "") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        if source:
            sock.bind((source, 0))
        sock.connect((host, port))
        yield sock


def ask(sock: socket.socket, data: bytes, secret: bytes = SECRET.encode()) -> bytes:
    """The reply, whose authenticators hold."""
    sock.send(data)
    reply = sock.recv(5000)
    assert oracle.response_holds(reply, data[4:20], secret) and reply[1] == data[1]
    return reply


@needs_radclient
@pytest.mark.interop
async def test_radclient_with_password_and_code(running) -> None:
    for secret, word in (
        ("carol-pw;" + carols_code(), "Access-Accept"),
        ("carol-pw;000000", "Access-Reject"),
        ("carol-pw", "Access-Challenge"),
    ):
        asked = f'User-Name="carol",User-Password="{secret}",Message-Authenticator=0x00'
        said = await peers.radclient(running.ports["radius"], asked, SECRET)
        assert f"Received {word}" in said, said
        assert ('Tunnel-Private-Group-Id:0 = "43"' in said) is (word == "Access-Accept")


@needs_pam
@pytest.mark.interop
@pytest.mark.parametrize("is_right", [True, False])
async def test_pam_radius_is_asked_for_a_code(running, tmp_path, is_right) -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "carol-pw" if len(prompts) == 1 else carols_code() if is_right else "000000"

    result = await asyncio.to_thread(
        peers.pam_login, tmp_path, running.ports["radius"], SECRET.encode(), "carol", answer
    )
    assert (result == 0) is is_right
    assert len(prompts) == 2 and "code" in prompts[1]


@needs_freeradius
@pytest.mark.interop
async def test_freeradius_in_front(running, tmp_path) -> None:
    async with peers.freeradius(tmp_path, running.ports["radius"], SECRET.encode()) as port:
        for user, password, word in (
            ("alice", "alice-pw", "Access-Accept"),
            ("alice", "wrong", "Access-Reject"),
            ("carol", "carol-pw", "Access-Challenge"),
            ("mallory", "mallory-pw", "Access-Reject"),
        ):
            said = await peers.radclient(port, f'User-Name="{user}",User-Password="{password}"', peers.FRONT_SECRET)
            assert f"Received {word}" in said, said
            assert ('Tunnel-Private-Group-Id:0 = "42"' in said) is (word == "Access-Accept")


@needs_tshark
@pytest.mark.interop
async def test_tshark_reads_the_replies(running, tmp_path) -> None:
    requests = [
        login("alice", "alice-pw", extra=PROXIED),
        login("alice", "wrong", identifier=2),
        login("carol", "carol-pw", identifier=3),
        login("00005e005301", "00005e005301", identifier=4),
        encode_request(12, 5, bytes(range(16)), PROXIED, SharedSecret(SECRET.encode())),
    ]
    packets = []
    with device(running.ports["radius"]) as sock:
        for request in requests:
            packets += [request, ask(sock, request)]
    layers = await asyncio.to_thread(peers.tshark, tmp_path, packets, SECRET.encode())
    replies = [layer["radius"] for layer in layers[1::2]]
    assert [reply["radius.code"] for reply in replies] == ["2", "3", "11", "2", "2"]
    assert "Malformed" not in str(layers)
    for reply in replies[:4]:
        assert reply["radius.authenticator_tree"]["radius.authenticator.valid"] == "1"
    for reply, vlan in ((replies[0], "42"), (replies[3], "99")):
        pairs = reply["Attribute Value Pairs"]["radius.avp_tree"]
        found = {name: value for avp in pairs for name, value in avp.items()}
        assert found["radius.Tunnel_Type"] == "13"
        assert found["radius.Tunnel_Private_Group_Id"] == vlan


OVERLAPPING = """
version: 1
entries:
  - model: authentik_providers_radius.radiusprovider
    id: wide
    identifiers: {name: wide}
    attrs: {shared_secret: wide, client_networks: "127.0.0.0/24,::/0"}
  - model: authentik_core.application
    identifiers: {slug: wide}
    attrs: {name: Wide, provider: !KeyOf wide}
  - model: authentik_providers_radius.radiusprovider
    id: narrow
    identifiers: {name: narrow}
    attrs: {shared_secret: narrow, client_networks: "127.0.0.254/32,::1/128"}
  - model: authentik_core.application
    identifiers: {slug: narrow}
    attrs: {name: Narrow, provider: !KeyOf narrow}
  - model: authentik_core.user
    identifiers: {username: alice}
    attrs: {password: wonderland}
"""


@pytest.mark.slow
def test_ten_thousand_requests_and_twenty_starts_never_mix_overlapping_networks(tmp_path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text(OVERLAPPING)
    for start in range(20):
        with appliance(path, "--set", "listen.radius=[::]:0") as it:
            port = it.ports["radius"]
            with (
                device(port, "127.0.0.1", "127.0.0.254") as narrow4,
                device(port, "::1", "::1") as narrow6,
                device(port, "127.0.0.1", "127.0.0.253") as wide4,
            ):
                for number in range(250):
                    authenticator = (start * 1000 + number).to_bytes(16, "big")
                    for sock, secret in ((narrow4, b"narrow"), (narrow6, b"narrow"), (wide4, b"wide")):
                        request = login(identifier=number, authenticator=authenticator, secret=secret)
                        assert ask(sock, request, secret)[0] == 2
            assert it.get("/metrics")[1].count('reason="bad_message_authenticator"') == 0
            assert it.stop() == 0
