"""Certificates: fetched when they changed, refused when they do not fit, the last good one kept."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from outpost.backends.authentik.catalog import examine
from outpost.identity import CertificateKeyPair, Secret
from tests.backends.authentik.appliance import BOTH, Ears, ldap, radius, ready, running, small
from tests.backends.authentik.keys import key_pair, renew
from tests.stub_authentik.model import KeyPair
from tests.stub_authentik.server import Stub


def with_certificate(stub: Stub, *, days: int = 30) -> KeyPair:
    pair = stub.add_key_pair("pair", *key_pair(days=days))
    stub.providers[1].fields["certificate"] = pair.pk
    return pair


async def test_the_key_is_asked_for_only_when_the_fingerprint_changed() -> None:
    stub = small()
    pair = with_certificate(stub)
    async with stub, running(stub) as backend:
        await ready(backend)
        served = backend.served()
        assert served.certificates[pair.pk].certificate_chain == pair.certificate.encode()
        assert served.certificates[pair.pk].private_key == Secret(pair.key)
        assert ldap(backend).certificate == pair.pk
        for _ in range(3):
            await backend.refresh()
        assert stub.key_views == 1
        renew(pair)
        await backend.refresh()
        assert stub.key_views == 2
        assert backend.served().certificates[pair.pk].certificate_chain == pair.certificate.encode()


async def test_no_key_is_read_that_nobody_uses() -> None:
    """Since 2025.10 RADIUS providers have a certificate for EAP-TLS; each look at a key is an event on the server."""
    stub = small()
    pair = stub.add_key_pair("eap", *key_pair())
    stub.providers[2].fields["certificate"] = pair.pk
    ears = Ears()
    async with stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        assert radius(backend).name == "radius-main"
        assert stub.key_views == 0
        assert not [event for level, event in ears.lines if level in ("warning", "error")]


async def test_a_broken_new_pair_keeps_the_last_good_one_and_is_told_once() -> None:
    ears = Ears()
    stub = small()
    pair = with_certificate(stub)
    good = pair.certificate.encode()
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        pair.certificate, _, pair.fingerprint = key_pair()
        for _ in range(3):
            await backend.refresh()
        assert backend.served().certificates[pair.pk].certificate_chain == good
        assert ears.said("belongs to another certificate") == 1
        views = stub.key_views
        await backend.refresh()
        assert stub.key_views == views, "not asked for again until it changes"
        renew(pair)
        await backend.refresh()
        assert backend.served().certificates[pair.pk].certificate_chain == pair.certificate.encode()


async def test_a_pair_that_never_was_good_is_left_out() -> None:
    ears = Ears()
    stub = small()
    pair = with_certificate(stub)
    pair.key = ""
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        assert ldap(backend).certificate is None
        assert backend.served().certificates == {}
        assert ears.said("no private key") == 1


async def test_an_expired_certificate_is_served_and_told_once() -> None:
    ears = Ears()
    stub = small()
    pair = with_certificate(stub, days=-1)
    async with stub, running(stub, ears) as backend:
        await ready(backend)
        await backend.refresh()
        assert pair.pk in backend.served().certificates
        assert ears.said("expired on") == 1


@pytest.mark.parametrize("what", ["certificatekeypairs/[^/]+/$", "view_certificate", "view_private_key"])
async def test_a_certificate_that_cannot_be_read_stays_the_last_good_one(what: str) -> None:
    stub = small()
    pair = with_certificate(stub)
    good = pair.certificate.encode()
    async with stub, running(stub) as backend:
        await ready(backend)
        renew(pair)
        stub.fail(what)
        await backend.refresh()
        assert backend.served().certificates[pair.pk].certificate_chain == good
        stub.heal()
        await backend.refresh()
        assert backend.served().certificates[pair.pk].certificate_chain == pair.certificate.encode()


async def test_networks_are_read_one_by_one() -> None:
    ears = Ears()
    stub = small()
    stub.providers[2].fields["client_networks"] = "10.1.2.3/8, nonsense,, ::1/128 ,192.168.0.5"
    async with stub, running(stub, ears, tokens=BOTH) as backend:
        await ready(backend)
        expected = [ip_network(text) for text in ("10.0.0.0/8", "::1/128", "192.168.0.5/32")]
        assert list(radius(backend).client_networks) == expected
        assert ears.said("'nonsense' is no network") == 1


def test_pairs_are_examined() -> None:
    certificate, key, _ = key_pair()
    _, other, _ = key_pair()

    def words(chain: str, private: str) -> str:
        return " ".join(examine(CertificateKeyPair("x", chain.encode(), Secret(private)), 2_000_000_000 - 2e8))

    assert "no PEM" in words("x", key)
    assert "cannot be read" in words(certificate, "x")
    assert "another certificate" in words(certificate, other)
    assert "no private key" in words(certificate, "")
    assert "not valid before" in " ".join(examine(CertificateKeyPair("x", certificate.encode(), Secret(key)), 1e9))
