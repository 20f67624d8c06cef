"""TLS for LDAP: one context that picks the certificate by the name the client asks for (RFC 6066 3)."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from outpost.errors import ConfigError
from outpost.identity import CertificateKeyPair, Secret, Served
from outpost.ldap.certificates import ClientCertificate, Part, read
from outpost.ldap.tickets import Tickets

DEFAULT_NAME = "outpost default certificate"
DEFAULT_DAYS = 825
"""How long the generated certificate is valid; the longest that all current TLS stacks take."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificates of clients."""

    client_ca: Path | None = None
    """PEM file: clients may show a certificate of these authorities, and log in with it (SASL EXTERNAL)."""
    client_certificate_user: Part = "cn"
    """What in it names the user: common name, mail address, or user principal name (in the provider's domain)."""


@final
@dataclass(frozen=True, slots=True)
class Trust:
    """Authorities whose client certificates are taken; certificates and revocation lists, PEM."""

    bundle: bytes
    has_lists: bool
    """The lists decide, and a certificate of an authority without one is refused."""

    def ask(self, context: ssl.SSLContext) -> None:
        """Make a server context ask for certificates. Raises ssl.SSLError."""
        context.verify_mode = ssl.CERT_OPTIONAL
        # Each authority in the file is trusted for itself, whoever issued it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.has_lists:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        with _in_memory(self.bundle) as path:
            context.load_verify_locations(path)


def read_trust(path: Path) -> Trust:
    """The authorities in a file. Raises ConfigError."""
    try:
        bundle = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(path), key="ldap.client_ca") from None
    trust = Trust(bundle, b"-----BEGIN X509 CRL-----" in bundle)
    try:
        from cryptography import x509  # noqa: PLC0415

        if not x509.load_pem_x509_certificates(bundle):
            raise ValueError("no certificate")
        trust.ask(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except (ssl.SSLError, ValueError):
        problem = "expected certificates of authorities, PEM"
        raise ConfigError(problem, source=str(path), key="ldap.client_ca") from None
    return trust


@final
class Certificates:
    """The certificates of all providers, and of clients; handshakes begun later see what changed.

    can_vouch: somebody logs in the holders of certificates; default: for names without one, generated for the first
    handshake if not given.
    Raises ConfigError for settings that cannot be used.
    """

    def __init__(
        self, settings: TlsSettings, *, can_vouch: bool = False, default: CertificateKeyPair | None = None
    ) -> None:
        self._settings = settings
        self._can_vouch = can_vouch
        self._trust = None if settings.client_ca is None else read_trust(settings.client_ca)
        self._pair = default
        self._default: ssl.SSLContext | None = None
        self._made: dict[bytes, tuple[ssl.SSLContext, frozenset[str]]] = {}
        self._by_server_name: dict[str, ssl.SSLContext | None] = {}
        self._by_subject: dict[str, ssl.SSLContext] = {}
        self._otherwise: ssl.SSLContext | None = None
        """None here and by server name: the default one."""
        self._tickets = Tickets()

    def context(self, address: str) -> ssl.SSLContext:
        """For the handshake of a client, begun before this is called again."""
        # Where nothing else is chosen by name, nothing has to be changed during the handshake.
        context = self._otherwise or self._made_default()
        context.num_tickets = self._tickets.due(address)
        return context

    def serve(self, served: Served) -> tuple[str, ...]:
        """Use these certificates from the next handshake on; what an operator has to mend about them."""
        flaws = self._trust_flaws()
        made: dict[bytes, tuple[ssl.SSLContext, frozenset[str]]] = {}
        by_server_name: dict[str, ssl.SSLContext | None] = {}
        by_subject: dict[str, ssl.SSLContext] = {}
        for provider in served.ldap:
            if provider.certificate is None:
                if provider.tls_server_name:
                    by_server_name.setdefault(_folded(provider.tls_server_name), None)
                continue
            pair = served.certificates.get(provider.certificate)
            if pair is None:
                flaws.append(f"provider {provider.name!r}: its certificate is not available; the default one is used")
                continue
            key = hashlib.sha256(pair.certificate_chain + b"\0" + pair.private_key.reveal()).digest()
            found = made.get(key) or self._made.get(key)
            if found is None:
                try:
                    found = (self._choosing(context_of(pair, self._trust)), subjects(pair.certificate_chain))
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
        self._otherwise = next(iter(made.values()))[0] if len(made) == 1 else None
        return tuple(flaws)

    def finished(self, there: ssl.SSLObject, address: str) -> ClientCertificate | None:
        """A handshake is done: the certificate that the client has shown; None if it was not verified."""
        self._tickets.finished(address, is_resumed=bool(there.session_reused))
        return None if self._settings.client_ca is None else self.shown(there)

    def shown(self, there: ssl.SSLObject) -> ClientCertificate | None:
        """The certificate of a client, if it was verified."""
        # Without a request for them, the ssl module hands out certificates that nobody verified.
        if there.context.verify_mode is ssl.CERT_NONE:
            return None
        der = there.getpeercert(binary_form=True)
        return None if not der else read(der, self._settings.client_certificate_user)

    def _made_default(self) -> ssl.SSLContext:
        """What makes it is loaded for the first handshake that needs it: not everybody has any."""
        if self._default is None:
            pair = self._pair = self._pair or self_signed()
            self._default = self._choosing(context_of(pair, self._trust))
        return self._default

    def _choosing(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.sni_callback = self._choose
        return context

    def _trust_flaws(self) -> list[str]:
        """Read the authorities of clients again; what an operator has to mend about them."""
        if self._settings.client_ca is None:
            return []
        flaws: list[str] = []
        try:
            trust = read_trust(self._settings.client_ca)
        except ConfigError as error:
            flaws.append(f"the authorities of clients stay as they were read before: {error}")
        else:
            if trust != self._trust:
                # Of a context nothing can be taken back, and its tickets would bring old sessions back.
                self._trust = trust
                self._made = {}
                self._default = None
        if not self._can_vouch:
            flaws.append("ldap.client_ca is set, but only users of a directory file log in with certificates")
        return flaws

    def chosen(self, server_name: str | None) -> ssl.SSLContext:
        """By the provider's server name, then by a name in a certificate, then the only one, then the default."""
        if server_name:
            name = _folded(server_name)
            if name in self._by_server_name:
                return self._by_server_name[name] or self._made_default()
            found = self._by_subject.get(name)
            if found is None and "." in name:
                # RFC 6125 6.4.3: a wildcard stands for the leftmost label only.
                found = self._by_subject.get("*." + name.partition(".")[2])
            if found is not None:
                return found
        return self._otherwise or self._made_default()

    def _choose(self, there: ssl.SSLObject | ssl.SSLSocket, server_name: str | None, _: ssl.SSLContext) -> None:
        chosen = self.chosen(server_name)
        if chosen is not there.context:
            there.context = chosen


def context_of(pair: CertificateKeyPair, trust: Trust | None) -> ssl.SSLContext:
    """A server context with this certificate. Raises ssl.SSLError, ValueError or OSError; quotes no key."""
    return _context(pair.certificate_chain, pair.private_key.reveal(), trust)


def subjects(chain: bytes) -> frozenset[str]:
    """DNS names and IP addresses of the first certificate, folded. Raises ValueError."""
    from cryptography import x509  # noqa: PLC0415

    certificate = x509.load_pem_x509_certificate(chain)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    found = [_folded(name) for name in names.get_values_for_type(x509.DNSName)]
    return frozenset(found + [str(address) for address in names.get_values_for_type(x509.IPAddress)])


def _context(chain: bytes, key: bytes, trust: Trust | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    with _in_memory(chain.rstrip() + b"\n" + key.strip() + b"\n") as path:
        context.load_cert_chain(path, password=_no_password)
    if trust is not None:
        trust.ask(context)
    return context


@contextmanager
def _in_memory(octets: bytes) -> Iterator[str]:
    """A path of these octets: the ssl module reads files only, and this one has no name in any file system."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, octets)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> str:
    # Otherwise OpenSSL would ask at the terminal.
    raise ValueError("the private key is encrypted")


def self_signed() -> CertificateKeyPair:
    """A certificate for every name nobody configured one for."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

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
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return CertificateKeyPair(DEFAULT_NAME, certificate.public_bytes(serialization.Encoding.PEM), Secret(octets))


def _folded(name: str) -> str:
    return name.strip().rstrip(".").casefold()
