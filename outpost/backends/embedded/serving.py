"""What is served, and to whom: providers, their applications and bindings, certificates."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from outpost.backends.embedded.blueprint import (
    APPLICATION,
    BINDING,
    GROUP,
    KEYPAIR,
    LDAP,
    RADIUS,
    USER,
    Blueprint,
    Entry,
)
from outpost.backends.embedded.model import Application, Binding, Extras
from outpost.backends.embedded.people import SPAN, made_uuid
from outpost.backends.embedded.values import MAX_NUMBER, Fields
from outpost.identity import (
    CertificateKeyPair,
    LdapOptions,
    LdapProvider,
    Mode,
    RadiusOptions,
    RadiusProvider,
    Secret,
    Served,
)

Network = IPv4Network | IPv6Network

# The string form of RFC 4514, with the spaces around "," that people write.
_TYPE: Final = r"(?:[A-Za-z][A-Za-z0-9-]*+|[0-9]++(?:\.[0-9]++)+)"
_ESCAPED: Final = r"\\(?:[ \"#+,;<=>\\]|[0-9A-Fa-f]{2})"
_VALUE: Final = rf"(?:#(?:[0-9A-Fa-f]{{2}})+|(?:[^\\,+\"<>;\0#]|{_ESCAPED})(?:[^\\,+\"<>;\0]|{_ESCAPED})*)"
_RDN: Final = rf" *+{_TYPE} *+= *+{_VALUE}(?:\+ *+{_TYPE} *+= *+{_VALUE})*"
_DN: Final = re.compile(rf"{_RDN}(?:,{_RDN})*")
_MAX_DN: Final = 1024

_DEFAULT_BASE: Final = "DC=ldap,DC=goauthentik,DC=io"
_DEFAULT_LDAP: Final = LdapOptions(uid="username")
"""Without settings of its own; nothing here could be the opaque identifier that a server would give."""
_MODES: Final = {mode.value: mode for mode in Mode}
_SLUG: Final = re.compile(r"[-a-zA-Z0-9_]+", re.ASCII)


def read_served(blueprint: Blueprint, extras: Extras) -> tuple[Served, Mapping[str, Application]]:
    """Providers that an application names, the certificates they use, and all applications by slug.

    People have been read before. Raises ConfigError.
    """
    return _Reader(blueprint, extras).read()


class _Reader:
    def __init__(self, blueprint: Blueprint, extras: Extras) -> None:
        self.blueprint = blueprint
        self.extras = extras
        self.slugs: dict[Entry, str] = {}
        """By provider."""
        self.certificates: dict[str, CertificateKeyPair] = {}

    def read(self) -> tuple[Served, Mapping[str, Application]]:
        providers = [*self.blueprint.of(LDAP), *self.blueprint.of(RADIUS)]
        names = self._names(providers)
        self._number(names)
        applications = self._applications()
        ldap: list[LdapProvider] = []
        radius: list[RadiusProvider] = []
        taken: dict[Network, Entry] = {}
        for name, entry in names.items():
            slug = self.slugs.get(entry, "")
            if entry.model == LDAP:
                ldap_provider = self._ldap(entry, name, slug)
                if slug:
                    ldap.append(ldap_provider)
            else:
                radius_provider = self._radius(entry, name, slug)
                if slug:
                    self._claim(entry, radius_provider, taken)
                    radius.append(radius_provider)
            if not slug:
                self.blueprint.warn(f"provider {name!r} is not served: no application names it", entry.line)
        for name in sorted({*self.extras.ldap, *self.extras.radius} - names.keys()):
            self.blueprint.warn(f"the settings have a [provider.{name}], but there is no provider of this name")
        return Served(tuple(ldap), tuple(radius), self.certificates), applications

    def _names(self, providers: list[Entry]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for entry in providers:
            name = entry.fields.required("name")
            other = found.setdefault(name, entry)
            if other is not entry:
                at = other.fields.line_of("name")
                raise entry.fields.error("name", f"provider {name!r} is already defined in line {at}")
        return found

    @staticmethod
    def _number(names: Mapping[str, Entry]) -> None:
        """Explicit primary keys first, then one from each name."""
        used: dict[int, Entry] = {}
        for entry in names.values():
            number = entry.fields.integer("pk", 0, 1)
            if number:
                if number in used:
                    raise entry.fields.error("pk", f"{number} is already taken in line {used[number].line}")
                used[number] = entry
                entry.pk = number
        for name, entry in sorted(names.items()):
            if entry.pk is None:
                digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"outpost provider").digest()
                number = int.from_bytes(digest, "little") % SPAN + 1
                while number in used:
                    number = number % SPAN + 1
                used[number] = entry
                entry.pk = number

    # -- applications -----------------------------------------------------------------------------

    def _applications(self) -> dict[str, Application]:
        entries: dict[str, Entry] = {}
        main: dict[Entry, Entry] = {}
        behind: dict[Entry, Entry] = {}
        for entry in self.blueprint.of(APPLICATION):
            fields = entry.fields
            slug = fields.required("slug")
            if not _SLUG.fullmatch(slug):
                raise fields.error("slug", "expected letters, digits, hyphens and underscores only")
            other = entries.setdefault(slug, entry)
            if other is not entry:
                raise fields.error("slug", f"{slug!r} is already taken in line {other.fields.line_of('slug')}")
            provider = self.blueprint.referred(fields, "provider")
            if provider is not None:
                self._name(fields, "provider", main, provider, entry)
            for provider in self.blueprint.all_referred(fields, "backchannel_providers"):
                self._name(fields, "backchannel_providers", behind, provider, entry)
        for provider, entry in {**main, **behind}.items():
            self.slugs[provider] = entry.fields.text("slug")
        bindings = self._bindings()
        return {
            slug: Application(
                slug=slug,
                name=entry.fields.text("name", slug),
                bindings=tuple(bindings.get(entry, ())),
                needs_all=entry.fields.choice("policy_engine_mode", "any", ("all", "any")) == "all",
            )
            for slug, entry in entries.items()
        }

    @staticmethod
    def _name(fields: Fields, name: str, named: dict[Entry, Entry], provider: Entry, application: Entry) -> None:
        if "provider" not in provider.model:
            raise fields.error(name, f"refers to the {provider}, expected a provider")
        other = named.setdefault(provider, application)
        if other is not application:
            raise fields.error(name, f"the {provider} already belongs to the application in line {other.line}")

    def _bindings(self) -> dict[Entry, list[Binding]]:
        found: dict[Entry, list[Binding]] = {}
        for entry in self.blueprint.of(BINDING):
            fields = entry.fields
            target = self.blueprint.needed(fields, "target")
            if target.model != APPLICATION or not fields.boolean("enabled", True):
                continue
            if fields.item("policy") is not None:
                raise fields.error("policy", "expression policies cannot be evaluated here; bind a user or a group")
            user = self.blueprint.referred(fields, "user", USER)
            group = self.blueprint.referred(fields, "group", GROUP)
            if (user is None) == (group is None):
                raise fields.error("user" if user else "group", "expected exactly one of user and group")
            binding = Binding(
                order=fields.integer("order", 0, -MAX_NUMBER),
                user_pk=None if user is None else user.pk,
                group_pk=None if group is None else group.pk,
                is_negated=fields.boolean("negate", False),
            )
            found.setdefault(target, []).append(binding)
        for bindings in found.values():
            bindings.sort(key=lambda binding: binding.order)
        return found

    # -- providers --------------------------------------------------------------------------------

    def _ldap(self, entry: Entry, name: str, slug: str) -> LdapProvider:
        fields = entry.fields
        base_dn = fields.text("base_dn", _DEFAULT_BASE)
        if len(base_dn) > _MAX_DN or not _DN.fullmatch(base_dn):
            raise fields.error("base_dn", "expected a distinguished name like dc=example,dc=com (RFC 4514)")
        group = self.blueprint.referred(fields, "search_group", GROUP)
        return LdapProvider(
            pk=entry.pk,
            name=name,
            base_dn=base_dn,
            application_slug=slug,
            search_group=None if group is None else group.pk,
            certificate=self._certificate(fields, is_used=bool(slug)),
            tls_server_name=fields.text("tls_server_name"),
            uid_start_number=fields.integer("uid_start_number", 2000),
            gid_start_number=fields.integer("gid_start_number", 4000),
            # Both modes see the same file at the same moment; only one of them works for every request.
            search_mode=_MODES[fields.choice("search_mode", "cached", _MODES)],
            bind_mode=_MODES[fields.choice("bind_mode", "cached", _MODES)],
            mfa_support=fields.boolean("mfa_support", True),
            options=self.extras.ldap.get(name, _DEFAULT_LDAP),
        )

    def _radius(self, entry: Entry, name: str, slug: str) -> RadiusProvider:
        fields = entry.fields
        return RadiusProvider(
            pk=entry.pk,
            name=name,
            application_slug=slug,
            client_networks=self._networks(fields),
            shared_secret=Secret(fields.required("shared_secret")),
            certificate=self._certificate(fields, is_used=bool(slug)),
            mfa_support=fields.boolean("mfa_support", True),
            options=self.extras.radius.get(name, RadiusOptions()),
        )

    @staticmethod
    def _networks(fields: Fields) -> tuple[Network, ...]:
        found: list[Network] = []
        for word in fields.text("client_networks", "0.0.0.0/0, ::/0").split(","):
            try:
                found.append(ip_network(word.strip(), strict=False))
            except ValueError:
                problem = f"{word.strip()[:60]!r} is no network; expected CIDR blocks like 10.0.0.0/8, 2001:db8::/32"
                raise fields.error("client_networks", problem) from None
        return tuple(dict.fromkeys(found))

    @staticmethod
    def _claim(entry: Entry, provider: RadiusProvider, taken: dict[Network, Entry]) -> None:
        for network in provider.client_networks:
            owner = taken.setdefault(_unmapped(network), entry)
            if owner is not entry:
                problem = f"network {network} already belongs to the provider {owner.fields.text('name')!r}"
                raise entry.fields.error("client_networks", f"{problem} in line {owner.line}")

    # -- certificates -----------------------------------------------------------------------------

    def _certificate(self, fields: Fields, is_used: bool) -> str | None:
        """Key of the certificate of a provider, read and found good."""
        entry = self.blueprint.referred(fields, "certificate", KEYPAIR)
        if entry is None:
            return None
        own = entry.fields
        name = own.required("name")
        key = own.text("pk") or own.text("kp_uuid") or made_uuid("certificate", name)
        if is_used and key not in self.certificates:
            self.certificates[key] = _pair(own, name)
        return key


def _pair(fields: Fields, name: str) -> CertificateKeyPair:
    chain = fields.required("certificate_data").encode()
    secret = Secret(fields.required("key_data"))
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
        public = certificate.public_key()
    except Exception:  # the library raises more than it documents for what is no certificate
        raise fields.error("certificate_data", "is no PEM certificate") from None
    try:
        key = load_pem_private_key(secret.reveal(), None)
    except TypeError:
        raise fields.error("key_data", "is encrypted; expected a private key without passphrase") from None
    except Exception:
        raise fields.error("key_data", "is no PEM private key that can be used") from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != public.public_bytes(*spki):
        raise fields.error("key_data", "belongs to another certificate")
    return CertificateKeyPair(name, chain, secret)


def _unmapped(network: Network) -> Network:
    """A network of IPv4-mapped addresses as the IPv4 network it means."""
    mapped = bytes(10) + b"\xff\xff"
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.packed.startswith(mapped):
        return ip_network((network.network_address.packed[12:], network.prefixlen - 96))
    return network
