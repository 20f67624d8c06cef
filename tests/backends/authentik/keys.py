"""Key pairs for tests, as the server would hold them."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.stub_authentik.model import KeyPair


def key_pair(name: str = "ldap.example.com", *, days: int = 30) -> tuple[str, str, str]:
    """Certificate and key in PEM, and the SHA-256 fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":")
    return certificate.public_bytes(Encoding.PEM).decode(), private, fingerprint


def renew(pair: KeyPair, *, days: int = 30) -> None:
    """Put another certificate and key into a pair."""
    pair.certificate, pair.key, pair.fingerprint = key_pair(days=days)
