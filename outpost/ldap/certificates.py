"""Whom a client's certificate names (RFC 5280 4.1.2.6, 4.2.1.6). That the certificate is genuine is TLS's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from outpost.ldap.controls import take

if TYPE_CHECKING:
    from cryptography import x509

Part = Literal["cn", "mail", "upn"]
"""The part that names the user: the subject's common name, the mail address or the user principal name among the
subject's alternative names."""

UPN: Final = "1.3.6.1.4.1.311.20.2.3"
_UTF8_STRING: Final = 0x0C
_CALLED: Final[dict[str, str]] = {"cn": "common name", "mail": "mail address", "upn": "user principal name"}


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate that a client proved to be its own, verified."""

    part: Part
    name: str
    """What the part says; empty when the certificate names nobody."""
    flaw: str
    """Why it names nobody, for an administrator; else empty."""
    expires_at: float
    """Seconds since the epoch."""


def read(der: bytes, part: Part) -> ClientCertificate:
    """What a verified certificate says. Never raises: one that cannot be read names nobody and has expired."""
    try:
        # Eight megabytes that a server without client certificates does not need.
        from cryptography import x509  # noqa: PLC0415

        certificate = x509.load_der_x509_certificate(der)
        expires_at = certificate.not_valid_after_utc.timestamp()
        names = _names(certificate, part)
    except Exception:  # the library raises more than it documents for what is malformed
        return ClientCertificate(part, "", "the certificate cannot be read", 0.0)
    called = _CALLED[part]
    flaw = ""
    if not names:
        flaw = f"the certificate has no {called}"
    elif len(names) > 1:
        flaw = f"the certificate has more than one {called}"
    elif not names[0]:
        flaw = f"the {called} in the certificate is empty"
    elif not names[0].isprintable() or names[0] != names[0].strip():
        flaw = f"the {called} in the certificate has control characters or spaces around it"
    elif part != "cn" and not all(names[0].rpartition("@")):
        flaw = f"the {called} in the certificate is none"
    return ClientCertificate(part, "" if flaw else names[0], flaw, expires_at)


def _names(certificate: x509.Certificate, part: Part) -> list[str]:
    """Every name of this kind. Raises ValueError and others for what is malformed."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    if part == "cn":
        return [_text(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if part == "mail":
        return list(names.get_values_for_type(x509.RFC822Name))
    return [_utf8(one.value) for one in names.get_values_for_type(x509.OtherName) if one.type_id.dotted_string == UPN]


def _text(value: str | bytes) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _utf8(der: bytes) -> str:
    tag, content, rest = take(der)
    if tag != _UTF8_STRING or rest:
        raise ValueError("no UTF8String")
    return content.decode()
