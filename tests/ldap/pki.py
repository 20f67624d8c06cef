"""Certificate authorities and certificates by hand; those with names of their own are made once per session."""

import datetime
import functools
import ipaddress
import os
import ssl
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outpost.identity import CertificateKeyPair, Secret

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, passphrase: bytes | None = None) -> bytes:
        hiding = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hiding)

    def served(self, name: str = "pair", key: bytes | None = None) -> CertificateKeyPair:
        return CertificateKeyPair(name, self.pem, Secret(key if key is not None else self.key_pem()))

    def write(self, folder: str) -> tuple[str, str]:
        """Paths of the certificate and of its key."""
        paths = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        for path, octets in zip(paths, (self.pem, self.key_pem()), strict=True):
            with open(path, "wb") as file:
                file.write(octets)
        return paths


class Issuer:
    """A certificate authority."""

    def __init__(self, name: str, above: "Issuer | None" = None, **changes: bool) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, above.pair.certificate.subject if above else subject, key).add_extension(
            x509.BasicConstraints(ca=changes.get("ca", True), path_length=None), critical=True
        )
        self.pair = Pair(builder.sign(above.pair.key if above else key, hashes.SHA256()), key)

    @property
    def pem(self) -> bytes:
        return self.pair.pem

    def issue(
        self,
        *names: str,
        cn: str | Iterable[str] = (),
        mail: Iterable[str] = (),
        upn: Iterable[str] = (),
        usage: x509.ObjectIdentifier | None = None,
        days: tuple[float, float] = (-1, 30),
        subject: Iterable[x509.NameAttribute] | None = None,
        other: Iterable[x509.GeneralName] = (),
    ) -> Pair:
        """A certificate. names: DNS names and IP addresses; cn, mail, upn: what names a user; days: validity."""
        commons = [cn] if isinstance(cn, str) else [*cn]
        with warnings.catch_warnings():
            # About names that others may issue all the same.
            warnings.simplefilter("ignore")
            attributes = [x509.NameAttribute(NameOID.COMMON_NAME, one, _validate=False) for one in commons]
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            x509.Name(attributes if subject is None else subject), self.pair.certificate.subject, key, days
        )
        sans: list[x509.GeneralName] = [_general(name) for name in names]
        sans += [x509.RFC822Name(one) for one in mail]
        sans += [x509.OtherName(UPN, b"\x0c" + bytes([len(one.encode())]) + one.encode()) for one in upn]
        sans += other
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return Pair(builder.sign(self.pair.key, hashes.SHA256()), key)

    def revoke(self, *pairs: Pair, days: tuple[float, float] = (-1, 30)) -> bytes:
        """A certificate revocation list with these, PEM."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.pair.certificate.subject)
            .last_update(now + days[0] * DAY)
            .next_update(now + days[1] * DAY)
        )
        for pair in pairs:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(pair.certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
        return builder.sign(self.pair.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[float, float] = (-1, 30)
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
    )


@functools.cache
def authority(name: str = "Test CA") -> Issuer:
    """The authority of this name, the same for the whole session."""
    return Issuer(name)


@functools.cache
def server(*names: str) -> Pair:
    """A server's certificate for these names, the same for the whole session."""
    return authority().issue(*names, cn=names[0] if names else "server", usage=SERVER)


def client_context(pair: Pair | None = None, chain: bytes = b"", **versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A client's context that takes every server certificate, and shows `pair` if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, version in versions.items():
        setattr(context, name, version)
    if pair is not None:
        with tempfile.TemporaryDirectory() as folder:
            cert, key = pair.write(folder)
            if chain:
                with open(cert, "ab") as file:
                    file.write(chain)
            context.load_cert_chain(cert, key)
    return context
