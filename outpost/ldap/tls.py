"""TLS for LDAP: one context that picks the certificate by the name the client asks for (RFC 6066 3)."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outpost.identity import CertificateKeyPair, Served

DEFAULT_NAME = "outpost default certificate"
DEFAULT_DAYS = 825
"""How long the generated certificate is valid; the longest that all current TLS stacks take."""


@final
class Certificates:
    """The certificates of all providers. `context` stays the same object; handshakes begun later see what changed."""

    def __init__(self) -> None:
        self._default = _context(*_self_signed())
        self._made: dict[bytes, tuple[ssl.SSLContext, frozenset[str]]] = {}
        self._by_server_name: dict[str, ssl.SSLContext] = {}
        self._by_subject: dict[str, ssl.SSLContext] = {}
        self._otherwise = self._default
        self._default.sni_callback = self._choose

    @property
    def context(self) -> ssl.SSLContext:
        """For accepting connections."""
        return self._default

    def serve(self, served: Served) -> tuple[str, ...]:
        """Use these certificates from the next handshake on; what an operator has to mend about them."""
        flaws: list[str] = []
        made: dict[bytes, tuple[ssl.SSLContext, frozenset[str]]] = {}
        by_server_name: dict[str, ssl.SSLContext] = {}
        by_subject: dict[str, ssl.SSLContext] = {}
        for provider in served.ldap:
            if provider.certificate is None:
                if provider.tls_server_name:
                    by_server_name.setdefault(_folded(provider.tls_server_name), self._default)
                continue
            pair = served.certificates.get(provider.certificate)
            if pair is None:
                flaws.append(f"provider {provider.name!r}: its certificate is not available; the default one is used")
                continue
            key = hashlib.sha256(pair.certificate_chain + b"\0" + pair.private_key.reveal()).digest()
            found = made.get(key) or self._made.get(key)
            if found is None:
                try:
                    found = (context_of(pair), subjects(pair.certificate_chain))
                except (ssl.SSLError, ValueError, OSError) as error:
                    flaws.append(f"provider {provider.name!r}: certificate {pair.name!r} cannot be used: {error}")
                    continue
            made[key] = found
            context, names = found
            if provider.tls_server_name:
                by_server_name.setdefault(_folded(provider.tls_server_name), context)
            for name in names:
                by_subject.setdefault(name, context)
        self._made = made
        self._by_server_name, self._by_subject = by_server_name, by_subject
        self._otherwise = next(iter(made.values()))[0] if len(made) == 1 else self._default
        return tuple(flaws)

    def chosen(self, server_name: str | None) -> ssl.SSLContext:
        """By the provider's server name, then by a name in a certificate, then the only one, then the default."""
        if server_name:
            name = _folded(server_name)
            found = self._by_server_name.get(name) or self._by_subject.get(name)
            if found is None and "." in name:
                # RFC 6125 6.4.3: a wildcard stands for the leftmost label only.
                found = self._by_subject.get("*." + name.partition(".")[2])
            if found is not None:
                return found
        return self._otherwise

    def _choose(self, there: ssl.SSLObject | ssl.SSLSocket, server_name: str | None, _: ssl.SSLContext) -> None:
        there.context = self.chosen(server_name)


def context_of(pair: CertificateKeyPair) -> ssl.SSLContext:
    """A server context with this certificate. Raises ssl.SSLError, ValueError or OSError; quotes no key."""
    return _context(pair.certificate_chain, pair.private_key.reveal())


def subjects(chain: bytes) -> frozenset[str]:
    """DNS names and IP addresses of the first certificate, folded. Raises ValueError."""
    certificate = x509.load_pem_x509_certificate(chain)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    found = [_folded(name) for name in names.get_values_for_type(x509.DNSName)]
    return frozenset(found + [str(address) for address in names.get_values_for_type(x509.IPAddress)])


def _context(chain: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # The ssl module reads keys from files only; this one is in memory and has no name in any file system.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, chain.rstrip() + b"\n" + key.strip() + b"\n")
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)
    return context


def _no_password() -> str:
    # Otherwise OpenSSL would ask at the terminal.
    raise ValueError("the private key is encrypted")


def _self_signed() -> tuple[bytes, bytes]:
    """A certificate for every name nobody configured one for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEFAULT_NAME)])
    now = datetime.datetime.now(datetime.UTC)
    addresses: Mapping[str, ipaddress.IPv4Address | ipaddress.IPv6Address] = {
        "4": ipaddress.IPv4Address("127.0.0.1"),
        "6": ipaddress.IPv6Address("::1"),
    }
    names = [x509.DNSName("localhost"), x509.DNSName("*"), *(x509.IPAddress(one) for one in addresses.values())]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DEFAULT_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _folded(name: str) -> str:
    return name.strip().rstrip(".").casefold()
