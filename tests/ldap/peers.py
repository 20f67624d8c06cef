"""LDAP messages by ldap3, and by pyasn1 under the ASN.1 that ldap3 took from RFC 4511."""

import warnings
from typing import Any

with warnings.catch_warnings():
    # ldap3 still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.protocol.controls import build_control
    from ldap3.protocol.rfc4511 import Controls, LDAPMessage, MessageID, ProtocolOp
    from ldap3.utils.asn1 import decode_message_fast, encode
    from pyasn1.codec.ber.decoder import decode


def encode_message(
    message_id: int, name: str, operation: Any, controls: tuple[tuple[bytes, bool, bytes | None], ...] = ()
) -> bytes:
    """The LDAPMessage around what one of ldap3's `..._operation` functions makes."""
    message = LDAPMessage()
    message["messageID"] = MessageID(message_id)
    message["protocolOp"] = ProtocolOp().setComponentByName(name, operation)
    if controls:
        several = Controls()
        for at, (oid, is_critical, value) in enumerate(controls):
            several.setComponentByPosition(at, build_control(oid.decode(), is_critical, value, False))
        message["controls"] = several
    octets: bytes = encode(message)
    return octets


def decode_message(data: bytes) -> Any:
    """The one LDAPMessage that `data` is, as a pyasn1 value."""
    message, rest = decode(data, asn1Spec=LDAPMessage())
    assert rest == b""
    return message


def decode_fast(data: bytes) -> dict[str, Any]:
    """ldap3's own decoder, which knows responses only."""
    found: dict[str, Any] = decode_message_fast(data)
    return found
