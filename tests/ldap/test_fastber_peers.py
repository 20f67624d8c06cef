"""The codec beside ldap3 and pyasn1: each reads what the other wrote."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost import _fastber as core
from outpost._fastber import Limits
from outpost.ldap.filter import parse_filter
from tests import oracle_ber as oracle
from tests.ldap import peers

# After peers, which knows how to import ldap3.
from ldap3.operation.abandon import abandon_operation  # isort: skip
from ldap3.operation.bind import bind_operation  # isort: skip
from ldap3.operation.compare import compare_operation  # isort: skip
from ldap3.operation.delete import delete_operation  # isort: skip
from ldap3.operation.extended import extended_operation  # isort: skip
from ldap3.operation.search import search_operation  # isort: skip
from ldap3.operation.unbind import unbind_operation  # isort: skip

LIMITS = Limits()
CONTROLS = ((b"1.2.840.113556.1.4.319", True, b"0\5\2\1d\4\0"), (b"1.2.3", False, None), (b"1.2.4", False, b""))


def decoded(name: str, operation: Any, message_id: int = 7) -> dict[str, Any]:
    """What the core reads in a message of ldap3's, with controls and without."""
    plain = oracle.components(core.decode_message(peers.encode_message(message_id, name, operation), LIMITS))
    data = peers.encode_message(message_id, name, operation, CONTROLS)
    controlled = oracle.components(core.decode_message(data, LIMITS))
    assert controlled == {**plain, "controls": CONTROLS}
    assert plain["message_id"] == message_id
    return {key: value for key, value in plain.items() if key not in {"message_id", "controls", "op"}}


@pytest.mark.parametrize("message_id", [1, 127, 128, 255, 256, 32767, 32768, 2**23, 2**31 - 1])
def test_message_ids_of_ldap3_are_read(message_id: int) -> None:
    assert decoded("unbindRequest", unbind_operation(), message_id) == {"kind": "UnbindRequest"}
    expected = {"kind": "AbandonRequest", "abandoned_id": message_id}
    assert decoded("abandonRequest", abandon_operation(message_id), message_id) == expected


def test_binds_of_ldap3_are_read() -> None:
    expected = {"kind": "BindRequest", "version": 3, "name": b"cn=a", "authentication": 0x80, "mechanism": None}
    simple = bind_operation(3, "SIMPLE", "cn=a", "pä sswörd")
    assert decoded("bindRequest", simple) == {**expected, "credentials": "pä sswörd".encode()}
    anonymous = bind_operation(2, "ANONYMOUS")
    assert decoded("bindRequest", anonymous) == {**expected, "version": 2, "name": b"", "credentials": b""}
    expected |= {"name": b"", "authentication": 0xA3}
    for mechanism, credentials in (("PLAIN", b"\0a\0b"), ("EXTERNAL", None), ("GSSAPI", b"")):
        sasl = bind_operation(3, "SASL", "", None, mechanism, credentials)
        assert decoded("bindRequest", sasl) == {**expected, "mechanism": mechanism.encode(), "credentials": credentials}
    sicily = bind_operation(3, "SICILY_PACKAGE_DISCOVERY")
    assert decoded("bindRequest", sicily) == {**expected, "authentication": 0x89, "mechanism": b"", "credentials": None}


TEXTS = [
    "(cn=alice)",
    "(cn=*)",
    "(cn=a*b*c)",
    "(cn=*b*)",
    "(cn=a*)",
    "(cn=*c)",
    "(uidNumber>=1000)",
    "(uidNumber<=1000)",
    "(sn~=smith)",
    "(cn:dn:2.5.13.5:=x)",
    "(cn:caseExactMatch:=x)",
    "(!(cn=x))",
    "(&(objectClass=person)(|(cn=a)(uid=b)(mail=c@x))(!(memberOf=cn=g,dc=x)))",
    "(cn=\\2a\\28\\29\\5cä)",
]


@pytest.mark.parametrize("text", TEXTS)
def test_filters_of_ldap3_are_read(text: str) -> None:
    operation = search_operation("dc=x", text, "SUBTREE", "ALWAYS", ["cn", "mail"], 10, 20, True, False, False)
    found = decoded("searchRequest", operation)
    assert core.check_filter(found["filter"], LIMITS) is None
    # ldap3 writes dnAttributes even where it is FALSE, its DEFAULT.
    plain = parse_filter(text)
    assert found["filter"] == plain or (found["filter"].endswith(b"\x84\1\0") and plain[2:] in found["filter"])
    assert {**found, "filter": b""} == {
        "kind": "SearchRequest",
        "base_object": b"dc=x",
        "scope": 2,
        "deref_aliases": 3,
        "size_limit": 10,
        "time_limit": 20,
        "types_only": True,
        "filter": b"",
        "attributes": (b"cn", b"mail"),
    }


def test_searches_of_ldap3_are_read() -> None:
    derefs = ("NEVER", "SEARCH", "FINDING_BASE", "ALWAYS")
    for scope, deref in itertools.product(("BASE", "LEVEL", "SUBTREE"), derefs):
        operation = search_operation("", "(a=b)", scope, deref, [], 0, 0, False, False, False)
        found = decoded("searchRequest", operation)
        assert (found["scope"], found["deref_aliases"]) == (
            ("BASE", "LEVEL", "SUBTREE").index(scope),
            derefs.index(deref),
        )
        assert (found["attributes"], found["types_only"]) == ((), False)


def test_the_other_requests_of_ldap3_are_read() -> None:
    expected = {"kind": "CompareRequest", "entry": b"cn=a", "attribute": b"sn", "assertion_value": b"x"}
    assert decoded("compareRequest", compare_operation("cn=a", "sn", "x", False)) == expected
    expected = {"kind": "ExtendedRequest", "name": b"1.3.6.1.4.1.4203.1.11.3", "value": None}
    assert decoded("extendedReq", extended_operation("1.3.6.1.4.1.4203.1.11.3")) == expected
    found = decoded("extendedReq", extended_operation("1.2.3", b"value", no_encode=True))
    assert found == {"kind": "ExtendedRequest", "name": b"1.2.3", "value": b"value"}
    assert decoded("delRequest", delete_operation("cn=a")) == {"kind": "OtherRequest"}


OCTETS = st.binary(max_size=140)
MAYBE = st.none() | OCTETS
IDS = st.integers(0, 2**31 - 1)
CODES = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 32, 34, 48, 49, 50, 51, 52, 53, 80))
TEXT = st.text(max_size=140).map(str.encode)
CONTROL_LISTS = st.lists(st.tuples(TEXT, st.booleans(), MAYBE), max_size=3).map(tuple)
RESULTS = {0x61: "bindResponse", 0x65: "searchResDone", 0x67: "modifyResponse", 0x69: "addResponse"}
RESULTS |= {0x6B: "delResponse", 0x6D: "modDNResponse", 0x6F: "compareResponse", 0x78: "extendedResp"}


def value(component: Any) -> bytes | None:
    return bytes(component) if component.isValue else None


def check_message(data: bytes, message_id: int, name: str, controls: Any = ()) -> Any:
    message = peers.decode_message(data)
    assert message["messageID"] == message_id
    assert message["protocolOp"].getName() == name
    found = message["controls"] if message["controls"].isValue else ()
    assert controls == tuple(
        (bytes(one["controlType"]), bool(one["criticality"]), value(one["controlValue"])) for one in found
    )
    return message["protocolOp"].getComponent()


@given(IDS, st.sampled_from(sorted(RESULTS)), CODES, TEXT, TEXT, CONTROL_LISTS)
def test_pyasn1_reads_results(message_id: int, op: int, code: int, dn: bytes, text: bytes, controls: Any) -> None:
    data = core.encode_result(message_id, op, code, dn, text, controls)
    found = check_message(data, message_id, RESULTS[op], controls)
    assert (int(found["resultCode"]), bytes(found["matchedDN"]), bytes(found["diagnosticMessage"])) == (code, dn, text)


@given(IDS, CODES, TEXT, MAYBE, MAYBE)
def test_pyasn1_reads_the_optional_tails(
    message_id: int, code: int, text: bytes, first: bytes | None, second: bytes | None
) -> None:
    bind = check_message(
        core.encode_bind_result(message_id, code, b"", text, first, CONTROLS), message_id, "bindResponse", CONTROLS
    )
    assert (int(bind["resultCode"]), bytes(bind["diagnosticMessage"])) == (code, text)
    assert value(bind["serverSaslCreds"]) == first
    name = None if first is None else first.hex().encode()
    data = core.encode_extended_result(message_id, code, b"", text, name, second, CONTROLS)
    extended = check_message(data, message_id, "extendedResp", CONTROLS)
    assert (int(extended["resultCode"]), value(extended["responseName"])) == (code, name)
    assert value(extended["responseValue"]) == second
    data = core.encode_intermediate(message_id, name, second)
    intermediate = check_message(data, message_id, "intermediateResponse")
    assert (value(intermediate["responseName"]), value(intermediate["responseValue"])) == (name, second)


ATTRIBUTES = st.lists(st.tuples(TEXT, st.lists(OCTETS, max_size=4, unique=True)), max_size=5)


@given(IDS, TEXT, ATTRIBUTES)
def test_pyasn1_and_ldap3_read_entries(
    message_id: int, name: bytes, attributes: list[tuple[bytes, list[bytes]]]
) -> None:
    data = core.encode_search_entry(message_id, name, attributes)
    found = check_message(data, message_id, "searchResEntry")
    assert bytes(found["object"]) == name
    assert [(bytes(one["type"]), list(map(bytes, one["vals"]))) for one in found["attributes"]] == attributes
    fast = peers.decode_fast(data)
    assert (fast["messageID"], fast["protocolOp"], fast["controls"]) == (message_id, 4, None)
    assert fast["payload"][0][3] == name
    assert [(one[3][0][3], [each[3] for each in one[3][1][3]]) for one in fast["payload"][1][3]] == attributes


@given(IDS, CODES, TEXT, TEXT, MAYBE)
def test_ldap3_reads_results(message_id: int, code: int, dn: bytes, text: bytes, credentials: bytes | None) -> None:
    found = peers.decode_fast(core.encode_bind_result(message_id, code, dn, text, credentials, CONTROLS))
    assert [one[3] for one in found["payload"]] == [code, dn, text] + ([] if credentials is None else [credentials])
    assert [[part[3] for part in one[3]] for one in found["controls"]] == [
        [part for part in one if part is not None and part is not False] for one in CONTROLS
    ]


def test_pyasn1_reads_what_the_oracle_writes() -> None:
    """The oracle would be none if only we understood it."""
    # This ASN.1 is not recursive: and, or and not are read in the other direction only.
    for text, name in (("(cn=*)", "present"), ("(a=b)", "equalityMatch"), ("(cn:dn:2.4:=x)", "extensibleMatch")):
        found = check_message(oracle.message(5, oracle.search(b"", parse_filter(text))), 5, "searchRequest")
        assert found["filter"].getName() == name
    filter = parse_filter("(cn=a*b*c)")
    search = check_message(
        oracle.message(5, oracle.search(b"dc=x", filter, [b"cn"], 1, 2, 3, 4, True), CONTROLS),
        5,
        "searchRequest",
        CONTROLS,
    )
    assert [str(search[name]) for name in ("baseObject", "sizeLimit", "timeLimit", "typesOnly")] == [
        "dc=x",
        "3",
        "4",
        "True",
    ]
    assert (int(search["scope"]), int(search["derefAliases"])) == (1, 2)
    assert search["filter"].getName() == "substringFilter"
    bind = check_message(oracle.message(5, oracle.bind(b"cn=a", b"pw")), 5, "bindRequest")
    assert (bytes(bind["name"]), bytes(bind["authentication"]["simple"])) == (b"cn=a", b"pw")
    sasl = check_message(oracle.message(5, oracle.sasl_bind(b"", b"PLAIN", b"x")), 5, "bindRequest")
    assert bytes(sasl["authentication"]["sasl"]["credentials"]) == b"x"
    compare = check_message(oracle.message(5, oracle.compare(b"a", b"b", b"c")), 5, "compareRequest")
    assert bytes(compare["ava"]["assertionValue"]) == b"c"
    extended = check_message(oracle.message(5, oracle.extended(b"1.2", b"c")), 5, "extendedReq")
    assert bytes(extended["requestValue"]) == b"c"
    assert check_message(oracle.message(5, oracle.abandon(300)), 5, "abandonRequest") == 300
    check_message(oracle.message(5, oracle.unbind()), 5, "unbindRequest")
    check_message(oracle.message(5, oracle.entry(b"", [(b"a", [b"b"])])), 5, "searchResEntry")
