"""One population for every server under load: users with `pass<n>`, five groups each, and a service account.

`blueprint()` is for us, `ldif()` for slapd, `radius_users()` for FreeRADIUS.  All say the same, and `certificate()` is
what all of them show.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import random
import textwrap
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.x509.oid import NameOID

BASE_DN = "dc=ldap,dc=goauthentik,dc=io"
SECRET = "testing123"
GROUPS_PER_USER = 5


def memberships(users: int, groups: int) -> list[list[int]]:
    """Group numbers of each user, the same for every server."""
    numbers = random.Random(1)
    each = min(GROUPS_PER_USER, groups)
    return [numbers.sample(range(groups), each) for _ in range(users)]


def cheap_phc(password: str) -> str:
    """An argon2id PHC string at the lowest cost, so that writing 10,000 of them takes seconds.

    What is measured is the warm path; the cost of a cold hash is a constant of the algorithm.
    """
    salt = hashlib.sha256(password.encode()).digest()[:16]
    return Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8).derive_phc_encoded(password.encode())


def certificate() -> tuple[str, str]:
    """A certificate for localhost with a P-256 key, and that key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    hidden = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), hidden.decode()


def blueprint(users: int, groups: int, pair: tuple[str, str]) -> Iterator[str]:
    """The population as an authentik blueprint, in pieces of text. `pair` is what `certificate` made."""
    yield "version: 1\nmetadata:\n  name: load\nentries:\n"
    for g in range(groups):
        yield (
            f"  - model: authentik_core.group\n    id: g{g}\n    identifiers:\n      name: group{g}\n"
            f"    attrs:\n      is_superuser: false\n"
        )
    yield (
        "  - model: authentik_core.group\n    id: searchers\n    identifiers:\n      name: searchers\n"
        "  - model: authentik_core.user\n    identifiers:\n      username: ldapservice\n    attrs:\n"
        f"      name: Service\n      type: service_account\n      password: {cheap_phc('service-pw')}\n"
        "      groups:\n        - !KeyOf searchers\n"
    )
    for u, of in enumerate(memberships(users, groups)):
        yield (
            f"  - model: authentik_core.user\n    identifiers:\n      username: user{u}\n    attrs:\n"
            f"      name: User Number {u}\n      email: user{u}@example.org\n      password: {cheap_phc(f'pass{u}')}\n"
            f"      groups: [{', '.join(f'!KeyOf g{g}' for g in of)}]\n"
        )
    chain, key = (textwrap.indent(text, 8 * " ") for text in pair)
    yield (
        "  - model: authentik_crypto.certificatekeypair\n    id: pair\n    identifiers:\n      name: pair\n    attrs:\n"
        f"      certificate_data: |\n{chain}      key_data: |\n{key}"
        "  - model: authentik_providers_ldap.ldapprovider\n    id: ldap\n    identifiers:\n      name: ldap\n"
        f"    attrs:\n      base_dn: {BASE_DN}\n      search_group: !KeyOf searchers\n      certificate: !KeyOf pair\n"
        "  - model: authentik_core.application\n    identifiers:\n      slug: ldap\n    attrs:\n"
        "      name: ldap\n      provider: !KeyOf ldap\n"
        "  - model: authentik_providers_radius.radiusprovider\n    id: radius\n    identifiers:\n      name: radius\n"
        f"    attrs:\n      client_networks: 127.0.0.0/8\n      shared_secret: {SECRET}\n"
        "  - model: authentik_core.application\n    identifiers:\n      slug: radius\n    attrs:\n"
        "      name: radius\n      provider: !KeyOf radius\n"
    )


def ssha(password: str) -> str:
    """A salted SHA-1 password in slapd's notation."""
    salt = hashlib.sha256(password.encode()).digest()[:8]
    # The peer's own default scheme; nothing of ours stores it.
    digest = hashlib.sha1(password.encode() + salt, usedforsecurity=False).digest()
    return "{SSHA}" + base64.b64encode(digest + salt).decode()


def _ldif_user(cn: str, given: str, surname: str, number: int) -> str:
    return (
        f"dn: cn={cn},ou=users,{BASE_DN}\nobjectClass: top\nobjectClass: person\n"
        "objectClass: organizationalPerson\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\n"
        f"objectClass: user\ncn: {cn}\nuid: {cn}\nsn:{surname or ' ' + given}\ngivenName: {given}\n"
        f"displayName: {given}{surname}\nsAMAccountName: {cn}\n"
        f"uidNumber: {number}\ngidNumber: {number}\nhomeDirectory: /home/{cn}\n"
    )


def ldif(users: int, groups: int) -> Iterator[str]:
    """The population for slapadd, one entry at a time."""
    yield f"dn: {BASE_DN}\nobjectClass: dcObject\nobjectClass: organization\ndc: ldap\no: bench\n\n"
    for ou in ("users", "groups"):
        yield f"dn: ou={ou},{BASE_DN}\nobjectClass: organizationalUnit\nou: {ou}\n\n"
    yield (
        _ldif_user("ldapservice", "Service", "", 2000 + users)
        + f"mail: ldapservice@example.org\nuserPassword: {ssha('service-pw')}\n\n"
    )
    members: dict[int, list[int]] = {g: [] for g in range(groups)}
    for u, of in enumerate(memberships(users, groups)):
        yield _ldif_user(f"user{u}", "User Number", f" {u}", 2000 + u) + f"mail: user{u}@example.org\n"
        for g in of:
            members[g].append(u)
            yield f"memberOf: cn=group{g},ou=groups,{BASE_DN}\n"
        yield f"userPassword: {ssha(f'pass{u}')}\n\n"
    for g in range(groups):
        yield f"dn: cn=group{g},ou=groups,{BASE_DN}\nobjectClass: top\nobjectClass: groupOfNames\ncn: group{g}\n"
        yield from (f"member: cn=user{u},ou=users,{BASE_DN}\n" for u in members[g])
        yield "\n"


def radius_users(users: int) -> Iterator[str]:
    """The population for FreeRADIUS's files module."""
    for u in range(users):
        yield f'user{u} Cleartext-Password := "pass{u}"\n'
