"""What one outpost serves: its providers and their certificates, as the server lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote

from outpost.backends.authentik.client import Client
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.pages import Items, Lister, Reading, each
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError
from outpost.identity import (
    CertificateKeyPair,
    LdapOptions,
    LdapProvider,
    Mode,
    Provider,
    RadiusOptions,
    RadiusProvider,
    Revoked,
    Secret,
)


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """The outcome of reading the catalog."""

    is_changed: bool
    revoked: tuple[Revoked, ...] = ()
    """Providers that are gone, or that decide differently now."""


@dataclass(frozen=True, slots=True)
class _Record:
    pk: int
    provider: Provider | None
    is_legacy: bool | None


class ServiceCatalog:
    """Providers and certificates of one outpost."""

    def __init__(
        self, service: str, client: Client, settings: AuthentikSettings, observer: Observer, now: Callable[[], float]
    ) -> None:
        self.providers: tuple[Provider, ...] = ()
        self.certificates: Mapping[str, CertificateKeyPair] = {}
        self.is_read = False
        """The server has told what is served, be it nothing."""
        self.is_legacy: bool | None = None
        """The server is older than 2024.8; None: its records do not tell."""
        self._service = service
        self._client = client
        self._settings = settings
        self._observer = observer
        self._now = now
        self._fingerprints: dict[str, str] = {}
        """By certificate, of the pair that is served."""
        self._broken: dict[str, str] = {}
        """By certificate, of a pair that cannot be served."""
        self._told: set[str] = set()
        reading = Reading(100, asyncio.Semaphore(2), 2, asyncio.Lock(), client)
        self._lister: Lister[Items[_Record]] = Lister(
            client, f"/outposts/{service}/", (), each(self._record, lambda one: one.pk), reading
        )

    def start_from(self, providers: tuple[LdapProvider, ...]) -> None:
        """Serve what was served in an earlier run until the server tells."""
        if not self.is_read:
            options = self._settings.ldap_options
            self.providers = tuple(replace(one, options=options.get(one.name, LdapOptions())) for one in providers)

    async def refresh(self) -> CatalogChange:
        """Read it; the old one stays when anything but a certificate fails. Raises BackendError."""
        pages, _ = await self._lister.read()
        records = [record for page in pages for record in page.items]
        self.is_legacy = next((one.is_legacy for one in records if one.is_legacy is not None), None)
        found = tuple(one.provider for one in records if one.provider is not None)
        certificates = await self._read_certificates(found)
        providers = tuple(
            replace(one, certificate=None) if one.certificate not in certificates else one for one in found
        )
        revoked = tuple(
            Revoked(provider_pk=old.pk, service=self._service)
            for old in self.providers
            if _deciding(old) not in [_deciding(one) for one in providers]
        )
        is_changed = not self.is_read or providers != self.providers or certificates != self.certificates
        self.providers, self.certificates, self.is_read = providers, certificates, True
        return CatalogChange(is_changed, revoked)

    # -- providers --------------------------------------------------------------------------------

    def _record(self, shape: Shape) -> _Record:
        """One provider; a record that makes no sense costs this provider only."""
        pk = shape.integer("pk")
        try:
            if self._service == "ldap":
                return _Record(pk, self._ldap(shape), "search_group" in shape)
            return _Record(pk, self._radius(shape), None if "mfa_support" in shape else True)
        except (BackendError, ValueError) as exc:
            self._tell("error", f"provider {pk} is not served: {exc}")
            return _Record(pk, None, None)

    def _ldap(self, shape: Shape) -> LdapProvider:
        name = shape.text("name")
        return LdapProvider(
            pk=shape.integer("pk"),
            name=name,
            base_dn=shape.text("base_dn"),
            application_slug=shape.text("application_slug", ""),
            bind_flow_slug=shape.text("bind_flow_slug", ""),
            unbind_flow_slug=shape.text("unbind_flow_slug", ""),
            search_group=shape.optional_text("search_group"),
            certificate=shape.optional_text("certificate"),
            tls_server_name=shape.text("tls_server_name", ""),
            uid_start_number=shape.integer("uid_start_number", 2000),
            gid_start_number=shape.integer("gid_start_number", 4000),
            # A mode nobody knows yet: rather ask the server each time.
            search_mode=Mode.CACHED if shape.text("search_mode", "direct") == "cached" else Mode.DIRECT,
            bind_mode=Mode.CACHED if shape.text("bind_mode", "direct") == "cached" else Mode.DIRECT,
            mfa_support=shape.boolean("mfa_support", True),
            options=self._settings.ldap_options.get(name, LdapOptions()),
        )

    def _radius(self, shape: Shape) -> RadiusProvider:
        name = shape.text("name")
        return RadiusProvider(
            pk=shape.integer("pk"),
            name=name,
            application_slug=shape.text("application_slug", ""),
            client_networks=self._networks(name, shape.text("client_networks", "")),
            shared_secret=Secret(shape.text("shared_secret")),
            auth_flow_slug=shape.text("auth_flow_slug", ""),
            certificate=shape.optional_text("certificate"),
            mfa_support=shape.boolean("mfa_support", True),
            options=self._settings.radius_options.get(name, RadiusOptions()),
        )

    def _networks(self, name: str, text: str) -> tuple[IPv4Network | IPv6Network, ...]:
        found = []
        for part in text.split(","):
            if part.strip():
                try:
                    found.append(ip_network(part.strip(), strict=False))
                except ValueError:
                    self._tell("error", f"provider {name!r}: {part.strip()[:60]!r} is no network and is left out")
        return tuple(found)

    # -- certificates -----------------------------------------------------------------------------

    async def _read_certificates(self, providers: tuple[Provider, ...]) -> Mapping[str, CertificateKeyPair]:
        # Those of RADIUS providers are for EAP-TLS: each view of a key that nobody uses would be an event all the same.
        wanted = sorted({one.certificate for one in providers if isinstance(one, LdapProvider) and one.certificate})
        found = {}
        for pk in wanted:
            try:
                pair = await self._certificate(pk)
            except BackendError as exc:
                self._tell("warning", f"certificate not read, the last good one stays: {exc}")
                pair = self.certificates.get(pk)
            if pair is not None:
                found[pk] = pair
        for known in (self._fingerprints, self._broken):
            for pk in known.keys() - set(wanted):
                del known[pk]
        return found

    async def _certificate(self, pk: str) -> CertificateKeyPair | None:
        """The pair to serve: the key is asked for only when the fingerprint changed, as each view is an audit event."""
        path = f"/crypto/certificatekeypairs/{quote(pk, safe='')}/"
        problem = ""
        for _ in range(2):  # the pair may change between the requests
            shape = Shape(await self._client.get(path), "certificate")
            name = shape.text("name", pk)
            # Servers between releases may leave it out: then it is read every time.
            fingerprint = shape.text("fingerprint_sha256", "")
            served = self.certificates.get(pk)
            if fingerprint and fingerprint == self._fingerprints.get(pk) and served is not None:
                return served
            if fingerprint and fingerprint == self._broken.get(pk):
                return served
            chain = Shape(await self._client.get(f"{path}view_certificate/"), "certificate").text("data")
            key = Shape(await self._client.get(f"{path}view_private_key/"), "private key").text("data", "")
            pair = CertificateKeyPair(name, chain.encode(), Secret(key))
            problem, remark = await asyncio.to_thread(examine, pair, self._now())
            if not problem:
                self._fingerprints[pk] = fingerprint
                self._broken.pop(pk, None)
                if remark:
                    self._tell("warning", f"certificate {name!r} {remark}")
                return pair
        self._broken[pk] = fingerprint
        instead = "the last good one stays" if served is not None else "a generated one is served instead"
        self._tell("error", f"certificate {name!r} cannot be used, {instead}: {problem}")
        return served

    def _tell(self, level: str, event: str) -> None:
        """Once per wording: this is read again every few minutes."""
        if event not in self._told:
            if len(self._told) >= 1000:
                self._told.clear()
            self._told.add(event)
            self._observer.log(level, event, service=self._service)


def examine(pair: CertificateKeyPair, now: float) -> tuple[str, str]:
    """What makes a pair unusable, and what else an administrator should know; empty when nothing does."""
    # Eight megabytes that an outpost without certificates does not need.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        certificate = x509.load_pem_x509_certificates(pair.certificate_chain)[0]
    except (ValueError, IndexError):
        return "its certificate is no PEM", ""
    if not pair.private_key:
        return "it has no private key", ""
    try:
        key = load_pem_private_key(pair.private_key.reveal(), None)
    except (ValueError, TypeError):
        return "its private key cannot be read", ""
    except Exception:  # an algorithm the library has no support for
        return "its private key is of a kind that cannot be used", ""
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != certificate.public_key().public_bytes(*spki):
        return "its private key belongs to another certificate", ""
    moment = datetime.fromtimestamp(now, UTC)
    if certificate.not_valid_after_utc < moment:
        return "", f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; clients will refuse it"
    if certificate.not_valid_before_utc > moment:
        return "", f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}; clients will refuse it"
    return "", ""


def _deciding(provider: Provider) -> tuple[object, ...]:
    """What decisions rest on; Secret is compared, never hashed."""
    if isinstance(provider, LdapProvider):
        plain: Provider = replace(
            provider, certificate=None, tls_server_name="", uid_start_number=0, gid_start_number=0,
            unbind_flow_slug="", search_mode=Mode.CACHED,
        )  # fmt: skip
        return ("ldap", plain)
    return ("radius", replace(provider, certificate=None))
