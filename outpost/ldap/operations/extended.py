"""Extended operations (RFC 4511 4.12): StartTLS, Who am I?, Cancel."""

from __future__ import annotations

from outpost._fastber import ExtendedRequest, encode_extended_result
from outpost.ldap import results
from outpost.ldap._session import Session
from outpost.ldap.controls import take
from outpost.ldap.operations.outcome import Cancel, Outcome, StartTls


def begin(session: Session, request: ExtendedRequest, *, can_start_tls: bool) -> Outcome:
    """The answer, or what the connection is to do."""
    if request.name == results.START_TLS:
        return _start_tls(session, request, can_start_tls)
    if request.name == results.WHO_AM_I:
        # RFC 4532: no value; anonymous is the empty authzId.
        if request.value is not None:
            return _result(request, results.PROTOCOL_ERROR, b"Who am I? takes no value")
        form = b"dn:" if b"=" in session.bind_dn else b"u:"
        authorization = form + session.bind_dn if session.identity is not None else b""
        return encode_extended_result(request.message_id, results.SUCCESS, value=authorization)
    if request.name == results.CANCEL:
        return _cancel(request)
    return _result(request, results.PROTOCOL_ERROR, b"this extended operation is not supported")


def _start_tls(session: Session, request: ExtendedRequest, can_start_tls: bool) -> Outcome:
    if request.value is not None:
        return _result(request, results.PROTOCOL_ERROR, b"StartTLS takes no value")
    if session.is_secure:
        return _result(request, results.OPERATIONS_ERROR, b"TLS is established already")
    if not can_start_tls:
        return _result(request, results.UNAVAILABLE, b"TLS is not available here")
    return StartTls(encode_extended_result(request.message_id, results.SUCCESS, name=results.START_TLS))


def _cancel(request: ExtendedRequest) -> Outcome:
    """RFC 3909 2: cancelID in a SEQUENCE."""
    try:
        tag, content, rest = take(request.value or b"")
        kind, octets, more = take(content)
        if tag != 0x30 or kind != 0x02 or rest or more or not 1 <= len(octets) <= 4:
            raise ValueError("malformed")
    except ValueError:
        return _result(request, results.PROTOCOL_ERROR, b"Cancel: expected the messageID to cancel")
    return Cancel(request, int.from_bytes(octets, "big", signed=True))


def _result(request: ExtendedRequest, code: int, diagnostic: bytes) -> bytes:
    return encode_extended_result(request.message_id, code, diagnostic=diagnostic)
