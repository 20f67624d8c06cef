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
JOINTS = {0xA0: "&", 0xA1: "|"}
COMPARISONS = {0xA3: "=", 0xA5: ">=", 0xA6: "<=", 0xA8: "~="}


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
        else:
            yield f"  authentication  {'sasl ' + _text(request.mechanism) if request.mechanism else 'unknown choice'}"
    elif isinstance(request, SearchRequest):
        yield f"  baseObject      {_text(request.base_object)}"
        yield f"  scope           {SCOPES.get(request.scope, request.scope)}"
        yield f"  derefAliases    {request.deref_aliases}"
        yield f"  sizeLimit       {request.size_limit}"
        yield f"  timeLimit       {request.time_limit}"
        yield f"  typesOnly       {'TRUE' if request.types_only else 'FALSE'}"
        yield f"  filter          {filter_text(request.filter)}"
        yield f"  attributes      {' '.join(map(_text, request.attributes)) or '(all user attributes)'}"
    elif isinstance(request, CompareRequest):
        yield f"  entry           {_text(request.entry)}"
        yield f"  attributeDesc   {_text(request.attribute)}"
        yield f"  assertionValue  {_text(request.assertion_value)}"
    elif isinstance(request, AbandonRequest):
        yield f"  messageID       {request.abandoned_id}"
    elif isinstance(request, ExtendedRequest):
        yield f"  requestName     {_text(request.name)}"
        if request.value is not None:
            yield f"  requestValue    {len(request.value)} octets"
    for control in request.controls:
        value = "" if control.value is None else f" value={control.value.hex()}"
        yield f"  control         {_text(control.oid)}{' critical' if control.critical else ''}{value}"


def filter_text(encoded: bytes) -> str:
    """The text form (RFC 4515) of a Filter that the decoder has accepted."""
    text, rest = _filter(encoded)
    if rest:
        raise DecodeError("octets after the filter")
    return text


def _filter(data: bytes) -> tuple[str, bytes]:
    tag, value, rest = _element(data)
    if tag in JOINTS:
        parts = []
        while value:
            part, value = _filter(value)
            parts.append(part)
        return f"({JOINTS[tag]}{''.join(parts)})", rest
    if tag == 0xA2:
        return f"(!{_filter(value)[0]})", rest
    if tag == 0x87:
        return f"({_text(value)}=*)", rest
    if tag in COMPARISONS:
        _, attribute, value = _element(value)
        _, assertion, _ = _element(value)
        return f"({_text(attribute)}{COMPARISONS[tag]}{_escaped(assertion)})", rest
    if tag == 0xA4:
        return _substrings(value), rest
    if tag == 0xA9:
        return _extensible(value), rest
    raise DecodeError(f"unknown filter choice 0x{tag:02x}")


def _substrings(value: bytes) -> str:
    _, attribute, value = _element(value)
    _, pieces, _ = _element(value)
    text = ""
    last = 0x80
    while pieces:
        last, piece, pieces = _element(pieces)
        text += _escaped(piece) if last == 0x80 else "*" + _escaped(piece)
    return f"({_text(attribute)}={text}{'' if last == 0x82 else '*'})"


def _extensible(value: bytes) -> str:
    found: dict[int, bytes] = {}
    while value:
        tag, part, value = _element(value)
        found[tag] = part
    text = _text(found.get(0x82, b""))
    if found.get(0x84, b"\0") != b"\0":
        text += ":dn"
    if 0x81 in found:
        text += ":" + _text(found[0x81])
    return f"({text}:={_escaped(found.get(0x83, b''))})"


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, value and what follows of the first element; the decoder has judged the lengths, this only finds them."""
    if len(data) < 2:
        raise DecodeError("an element is cut off")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if size > len(data) - start:
        raise DecodeError("an element is cut off")
    return data[0], data[start : start + size], data[start + size :]


def _text(octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return "0x" + octets.hex()
    return text if text.isprintable() else repr(text)


def _escaped(octets: bytes) -> str:
    """An assertion value as RFC 4515 3 writes it."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return "".join(f"\\{octet:02x}" for octet in octets)
    return "".join(
        char if char.isprintable() and char not in "*()\\" else "".join(f"\\{o:02x}" for o in char.encode())
        for char in text
    )
