"""LDAP requests read and responses written, beside ldap3 and pyasn1: `pytest bench/micro_ber.py`.

`--benchmark-timer=time.process_time --benchmark-min-time=0.001` counts CPU instead of the clock on the wall.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyasn1.codec.ber.encoder import encode as encode_plain

from outpost._fastber import Inbox, Limits, decode_message, encode_bind_result, encode_result, encode_search_entry
from outpost.ldap.filter import parse_filter
from tests import oracle_ber as oracle
from tests.ldap import peers

# After peers, which knows how to import ldap3.
from ldap3.operation.bind import bind_operation  # isort: skip
from ldap3.protocol.rfc4511 import (  # isort: skip
    AttributeDescription,
    AttributeValue,
    BindResponse,
    LDAPDN,
    LDAPString,
    PartialAttribute,
    PartialAttributeList,
    ResultCode,
    SearchResultDone,
    SearchResultEntry,
    Vals,
)

LIMITS = Limits()
BASE = b"ou=users,dc=ldap,dc=goauthentik,dc=io"
BIND = oracle.message(2, oracle.bind(b"cn=alice," + BASE, b"correct horse battery"))
SEARCH = oracle.message(3, oracle.search(BASE, parse_filter("(uid=alice)"), [b"cn", b"mail", b"memberOf"]))
# What PAM and NSS modules ask.
NESTED = oracle.message(
    4,
    oracle.search(
        BASE,
        parse_filter("(&(objectClass=posixAccount)(|(uid=alice)(mail=alice@example.org))(!(loginDisabled=TRUE)))"),
        [b"uid", b"uidNumber", b"gidNumber", b"cn", b"homeDirectory", b"loginShell", b"memberOf"],
    ),
)
ENTRY: list[tuple[bytes, list[bytes]]] = [
    (b"cn", [b"alice"]),
    (b"uid", [b"alice"]),
    (b"sn", [b"Alice"]),
    (b"mail", [b"alice@example.org"]),
    (b"uidNumber", [b"2001"]),
    (b"gidNumber", [b"2001"]),
    (b"homeDirectory", [b"/home/alice"]),
    (b"objectClass", [b"top", b"person", b"organizationalPerson", b"inetOrgPerson", b"user", b"posixAccount"]),
    (b"memberOf", [b"cn=group-%d,ou=groups,dc=ldap,dc=goauthentik,dc=io" % n for n in range(10)]),
]
NAME = b"cn=alice," + BASE

Decoder = Callable[[bytes], Any]


def core(data: bytes) -> Any:
    """The core."""
    return decode_message(data, LIMITS)


def pyasn1(data: bytes) -> Any:
    """pyasn1 with the ASN.1 of ldap3, which is how ldap3 reads requests: its fast decoder knows responses only."""
    return peers.decode_message(data)


def python(data: bytes) -> Any:
    """The oracle of the tests, written out by hand."""
    return oracle.decode_message(data, LIMITS)


@pytest.mark.parametrize("decode", [core, pyasn1, python])
def test_decode_bind(benchmark: Any, decode: Decoder) -> None:
    benchmark.group = "decode bind"
    found = benchmark(decode, BIND)
    if decode is core:
        assert (found.name, found.credentials) == (NAME, b"correct horse battery")


@pytest.mark.parametrize("decode", [core, pyasn1, python])
def test_decode_search(benchmark: Any, decode: Decoder) -> None:
    benchmark.group = "decode search"
    found = benchmark(decode, SEARCH)
    if decode is core:
        assert (found.base_object, found.attributes) == (BASE, (b"cn", b"mail", b"memberOf"))


@pytest.mark.parametrize("decode", [core, python])
def test_decode_nested_search(benchmark: Any, decode: Decoder) -> None:
    """The ASN.1 of ldap3 is not recursive, so pyasn1 cannot read this."""
    benchmark.group = "decode nested search"
    benchmark(decode, NESTED)


def test_inbox(benchmark: Any) -> None:
    """Bind and search through the receive buffer: framing, decoding and wiping."""
    benchmark.group = "inbox, bind and search"
    inbox = Inbox(LIMITS)
    data = BIND + SEARCH

    def receive() -> None:
        inbox.buffer()[: len(data)] = data
        inbox.received(len(data))
        assert inbox.next() is not None and inbox.next() is not None

    benchmark(receive)


def entry_by_core() -> bytes:
    """The core, from plain values."""
    return encode_search_entry(3, NAME, ENTRY)


def entry_value() -> Any:
    """The entry as a value of the ASN.1 of ldap3."""
    several = PartialAttributeList()
    for at, (name, values) in enumerate(ENTRY):
        vals = Vals()
        for position, value in enumerate(values):
            vals.setComponentByPosition(position, AttributeValue(value))
        one = PartialAttribute()
        one["type"] = AttributeDescription(name)
        one["vals"] = vals
        several.setComponentByPosition(at, one)
    entry = SearchResultEntry()
    entry["object"] = LDAPDN(NAME)
    entry["attributes"] = several
    return entry


def entry_by_ldap3() -> bytes:
    """ldap3, from plain values."""
    return peers.encode_message(3, "searchResEntry", entry_value())


def result_by_core() -> bytes:
    """The core."""
    return encode_result(3, 0x65, 0)


def bind_result_by_core() -> bytes:
    """The core."""
    return encode_bind_result(2, 49, b"", b"invalid credentials")


def fill(response: Any, code: int, text: bytes) -> Any:
    """An LDAPResult of ldap3."""
    response["resultCode"] = ResultCode(code)
    response["matchedDN"] = LDAPDN("")
    response["diagnosticMessage"] = LDAPString(text)
    return response


def result_by_ldap3() -> bytes:
    """ldap3, from plain values."""
    return peers.encode_message(3, "searchResDone", fill(SearchResultDone(), 0, b""))


def bind_result_by_ldap3() -> bytes:
    """ldap3, from plain values."""
    return peers.encode_message(2, "bindResponse", fill(BindResponse(), 49, b"invalid credentials"))


@pytest.mark.parametrize("encode", [entry_by_core, entry_by_ldap3])
def test_encode_entry(benchmark: Any, encode: Callable[[], bytes]) -> None:
    benchmark.group = "encode entry"
    assert benchmark(encode) == entry_by_core()


@pytest.mark.parametrize("encode", [result_by_core, result_by_ldap3])
def test_encode_result(benchmark: Any, encode: Callable[[], bytes]) -> None:
    benchmark.group = "encode searchResDone"
    assert benchmark(encode) == result_by_core()


@pytest.mark.parametrize("encode", [bind_result_by_core, bind_result_by_ldap3])
def test_encode_bind_result(benchmark: Any, encode: Callable[[], bytes]) -> None:
    benchmark.group = "encode bindResponse"
    assert benchmark(encode) == bind_result_by_core()


@pytest.mark.parametrize("data", [entry_by_core(), result_by_core(), bind_result_by_core()], ids=len)
def test_encode_by_pyasn1(benchmark: Any, data: bytes) -> None:
    """pyasn1, from a value that is there already."""
    benchmark.group = {14: "encode searchResDone", 33: "encode bindResponse"}.get(len(data), "encode entry")
    value = peers.decode_message(data)
    assert benchmark(encode_plain, value) == data


def test_decode_entry_by_ldap3(benchmark: Any) -> None:
    """ldap3's fast decoder reads responses only; what it costs its client to read one of our entries."""
    benchmark.group = "read our entry"
    assert benchmark(peers.decode_fast, entry_by_core())["protocolOp"] == 4


def test_ldap3_writes_the_same_bind() -> None:
    """Both sides of the comparison mean one message."""
    operation = bind_operation(3, "SIMPLE", NAME.decode(), "correct horse battery")
    assert peers.encode_message(2, "bindRequest", operation) == BIND
