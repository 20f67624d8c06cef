"""The root DSE: what the server is and can (RFC 4512 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from outpost import __version__
from outpost.ldap.results import (
    ASSERTION,
    CANCEL,
    MANAGE_DSA_IT,
    MATCHED_VALUES,
    PAGED_RESULTS,
    PASSWORD_MODIFY,
    SORT_REQUEST,
    SORT_RESPONSE,
    START_TLS,
    SUBENTRIES,
    WHO_AM_I,
)
from outpost.ldap.schema import SUBSCHEMA_DN

CONTROLS: Final = (PAGED_RESULTS, SORT_REQUEST, SORT_RESPONSE, ASSERTION, MANAGE_DSA_IT, SUBENTRIES, MATCHED_VALUES)
EXTENSIONS: Final = (WHO_AM_I, CANCEL)
FEATURES: Final = (
    b"1.3.6.1.4.1.4203.1.5.1",  # all operational attributes (RFC 3673)
    b"1.3.6.1.4.1.4203.1.5.3",  # absolute true and false filters (RFC 4526)
)


def attributes(
    bases: Sequence[bytes],
    *,
    is_secure: bool,
    can_start_tls: bool,
    can_change_passwords: bool = False,
    mechanisms: Sequence[bytes] = (),
) -> list[tuple[bytes, list[bytes]]]:
    """The root DSE as one client sees it. bases: of every provider; the first is the default."""
    extensions = [*EXTENSIONS, *([START_TLS] if can_start_tls and not is_secure else [])]
    if can_change_passwords:
        extensions.append(PASSWORD_MODIFY)
    found: list[tuple[bytes, list[bytes]]] = [
        (b"objectClass", [b"top"]),
        (b"entryDN", [b""]),
        (b"supportedLDAPVersion", [b"3"]),
        (b"subschemaSubentry", [SUBSCHEMA_DN]),
        (b"namingContexts", [base.lower() for base in bases]),
        (b"defaultNamingContext", [base.lower() for base in bases[:1]]),
        (b"rootDomainNamingContext", [base.lower() for base in bases[:1]]),
        (b"supportedControl", list(CONTROLS)),
        (b"supportedExtension", extensions),
        (b"supportedFeatures", list(FEATURES)),
        (b"supportedSASLMechanisms", list(mechanisms)),
        (b"vendorName", [b"goauthentik.io"]),
        (b"vendorVersion", [f"outpost {__version__}".encode()]),
    ]
    return [(name, values) for name, values in found if values]
