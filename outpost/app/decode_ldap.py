"""What is in LDAP requests, as text: `outpost decode ldap`. The same decoder as the server's."""

from __future__ import annotations

from collections.abc import Iterator

from outpost._fastber import (
    AbandonRequest,
    BindRequest,
    CompareRequest,
    ExtendedRequest,
    Inbox,
    Limits,
    Request,
    SearchRequest,
)
from outpost.errors import DecodeError
from outpost.ldap.filter import SECRETS, filter_text

SCOPES = {0: "baseObject", 1: "singleLevel", 2: "wholeSubtree", 3: "subordinateSubtree"}
OPERATIONS = {
    0x42: "UnbindRequest",
    0x4A: "DelRequest",
    0x60: "BindRequest",
    0x61: "BindResponse",
    0x63: "SearchRequest",
    0x64: "SearchResultEntry",
    0x65: "SearchResultDone",
    0x66: "ModifyRequest",
    0x67: "ModifyResponse",
    0x68: "AddRequest",
    0x69: "AddResponse",
    0x6B: "DelResponse",
    0x6C: "ModifyDNRequest",
    0x6D: "ModifyDNResponse",
    0x6E: "CompareRequest",
    0x6F: "CompareResponse",
    0x73: "SearchResultReference",
    0x77: "ExtendedRequest",
    0x78: "ExtendedResponse",
    0x79: "IntermediateResponse",
    0x50: "AbandonRequest",
}
FILTER_CHARACTERS = 65_536
SASL = 0xA3


def describe(octets: bytes) -> str:
    """One block of lines per message (RFC 4511 4); passwords are masked. Raises DecodeError or LimitExceeded."""
    inbox = Inbox(Limits())
    inbox.feed(octets)
    blocks: list[str] = []
    while (request := inbox.next()) is not None:
        blocks.append("\n".join(_lines(request)))
    if inbox.pending():
        raise DecodeError(f"the last message is incomplete: {inbox.pending()} octets are left over")
    if not blocks:
        raise DecodeError("nothing to decode")
    return "\n\n".join(blocks)


def _lines(request: Request) -> Iterator[str]:
    yield f"{OPERATIONS.get(request.op, f'unknown operation 0x{request.op:02x}')} messageID={request.message_id}"
    if isinstance(request, BindRequest):
        yield f"  version         {request.version}"
        yield f"  name            {_text(request.name)}"
        if request.mechanism is None:
            yield f"  authentication  simple, {len(request.credentials or b'')} octets ***"
        elif request.authentication == SASL:
            credentials = "" if request.credentials is None else f", {len(request.credentials)} octets ***"
            yield f"  authentication  sasl {_text(request.mechanism) or '(no mechanism)'}{credentials}"
        else:
            yield f"  authentication  unknown choice 0x{request.authentication:02x}"
    elif isinstance(request, SearchRequest):
        yield f"  baseObject      {_text(request.base_object)}"
        yield f"  scope           {SCOPES.get(request.scope, request.scope)}"
        yield f"  derefAliases    {request.deref_aliases}"
        yield f"  sizeLimit       {request.size_limit}"
        yield f"  timeLimit       {request.time_limit}"
        yield f"  typesOnly       {'TRUE' if request.types_only else 'FALSE'}"
        yield f"  filter          {filter_text(request.filter, FILTER_CHARACTERS)}"
        yield f"  attributes      {' '.join(map(_text, request.attributes)) or '(all user attributes)'}"
    elif isinstance(request, CompareRequest):
        yield f"  entry           {_text(request.entry)}"
        yield f"  attributeDesc   {_text(request.attribute)}"
        is_secret = request.attribute.split(b";", 1)[0].lower() in SECRETS
        yield f"  assertionValue  {'***' if is_secret else _text(request.assertion_value)}"
    elif isinstance(request, AbandonRequest):
        yield f"  messageID       {request.abandoned_id}"
    elif isinstance(request, ExtendedRequest):
        yield f"  requestName     {_text(request.name)}"
        if request.value is not None:
            yield f"  requestValue    {len(request.value)} octets"
    for control in request.controls:
        value = "" if control.value is None else f" value={control.value.hex()}"
        yield f"  control         {_text(control.oid)}{' critical' if control.critical else ''}{value}"


def _text(octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return "0x" + octets.hex()
    return text if text.isprintable() else repr(text)
