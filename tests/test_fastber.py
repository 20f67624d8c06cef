"""The compiled LDAP codec against RFC 4511, an oracle, ldap3, pyasn1, and octets that must be refused."""

import functools
import itertools
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost import _fastber as core
from outpost._fastber import Inbox, Limits, decode_message
from outpost.errors import DecodeError, LimitExceeded
from tests import oracle_ber as oracle
from tests.noise_ber import accident, elements, replaced

LIMITS = Limits()
TIGHT = Limits(message=400, controls=2, filter_depth=3, filter_terms=5, substrings=2, attributes=2)
CANARY = b"canary-1"

CN = oracle.present(b"cn")
EVERY_FILTER = {
    "and": oracle.tlv(0xA0, CN + CN),
    "true": oracle.tlv(0xA0, b""),
    "or": oracle.tlv(0xA1, CN + CN + CN),
    "false": oracle.tlv(0xA1, b""),
    "not": oracle.tlv(0xA2, CN),
    "equality": oracle.assertion(0xA3, b"uid", b"alice"),
    "substrings": oracle.substrings(b"cn", b"a", [b"b", b"c"], b"d"),
    "any": oracle.substrings(b"cn", None, [b"b"], None),
    "greaterOrEqual": oracle.assertion(0xA5, b"uidNumber", b"1000"),
    "lessOrEqual": oracle.assertion(0xA6, b"uidNumber", b"1000"),
    "present": CN,
    "approx": oracle.assertion(0xA8, b"sn", b"smith"),
    "rule": oracle.extensible(b"2.5.13.5", None, b"x"),
    "type": oracle.extensible(None, b"cn", b"x", False),
    "extensible": oracle.extensible(b"caseExactMatch", b"cn", b"x", True),
}
EVERY_OPERATION = {
    "bind": oracle.bind(b"cn=alice,dc=example", CANARY),
    "anonymous": oracle.bind(b"", b""),
    "sasl": oracle.sasl_bind(b"", b"PLAIN", b"\0alice\0" + CANARY),
    "external": oracle.sasl_bind(b"", b"EXTERNAL", None),
    "kerberos": oracle.tlv(0x60, oracle.number(2) + oracle.octets(b"cn=x") + oracle.tlv(0x81, CANARY)),
    "unbind": oracle.unbind(),
    "search": oracle.search(b"dc=example", EVERY_FILTER["equality"], [b"cn", b"mail", b"+"], 1, 3, 10, 20, True),
    "compare": oracle.compare(b"cn=alice", b"userPassword", CANARY),
    "abandon": oracle.abandon(2**31 - 1),
    "extended": oracle.extended(b"1.3.6.1.4.1.1466.20037"),
    "modifyPassword": oracle.extended(b"1.3.6.1.4.1.4203.1.11.1", CANARY),
    "modify": oracle.tlv(0x66, oracle.octets(b"cn=x")),
    "add": oracle.tlv(0x68, oracle.octets(b"cn=x")),
    "delete": oracle.tlv(0x4A, b"cn=x"),
    "modifyDN": oracle.tlv(0x6C, oracle.octets(b"cn=x")),
    "unknown": oracle.tlv(0x5E, b"anything"),
    "response": oracle.result(0x61, 0),
} | {f"filter {name}": oracle.search(b"", filter) for name, filter in EVERY_FILTER.items()}
CONTROLS = ((b"1.2.840.113556.1.4.319", True, b"0\5\2\1d\4\0"), (b"2.16.840.1.113730.3.4.2", False, None))
MESSAGES = {name: oracle.message(7, operation) for name, operation in EVERY_OPERATION.items()} | {
    f"{name} with controls": oracle.message(0x7FFF, operation, CONTROLS) for name, operation in EVERY_OPERATION.items()
}


def outcome(decode: Callable[[], object]) -> object:
    """What came out, or the class of what was raised."""
    try:
        return decode()
    except (DecodeError, LimitExceeded) as error:
        return type(error)


def agree(data: bytes, limits: Limits = LIMITS) -> object:
    """What the core makes of `data`, after checking that the oracle makes the same of it."""
    found = outcome(lambda: oracle.components(decode_message(data, limits)))
    assert found == outcome(lambda: oracle.decode_message(data, limits))
    return found


def refused(data: bytes, limits: Limits = LIMITS) -> None:
    assert agree(data, limits) is DecodeError


def over(data: bytes, limits: Limits) -> str:
    """Which limit `data` is over."""
    assert agree(data, limits) is LimitExceeded
    with pytest.raises(LimitExceeded) as caught:
        decode_message(data, limits)
    return str(caught.value).removeprefix("over the limit ").split()[0]


def searching(filter: bytes, *attributes: bytes) -> bytes:
    return oracle.message(1, oracle.search(b"", filter, attributes))


def same_filter(data: bytes, limits: Limits = LIMITS) -> object:
    found = outcome(lambda: core.check_filter(data, limits))
    assert found == outcome(lambda: oracle.check_filter(data, limits))
    return found


# -- the RFC -----------------------------------------------------------------------------------------


def test_rfc4511_4_2_a_simple_bind_by_hand() -> None:
    request = decode_message(bytes.fromhex("3015 020105 6010 020103 0404 636e3d61 8005 7061737320"), LIMITS)
    assert isinstance(request, core.BindRequest)
    assert (request.message_id, request.op, request.version) == (5, 0x60, 3)
    assert (request.name, request.authentication) == (b"cn=a", 0x80)
    assert (request.mechanism, request.credentials, request.controls) == (None, b"pass ", ())


def test_rfc4511_4_2_a_sasl_bind_by_hand() -> None:
    request = decode_message(bytes.fromhex("3017 020101 6012 020103 0400 a30b 0405 504c41494e 0402 0061"), LIMITS)
    assert isinstance(request, core.BindRequest)
    assert (request.authentication, request.mechanism, request.credentials) == (0xA3, b"PLAIN", b"\0a")


def test_rfc4511_4_3_an_unbind_by_hand() -> None:
    request = decode_message(bytes.fromhex("3005 020103 4200"), LIMITS)
    assert isinstance(request, core.UnbindRequest)
    assert (request.message_id, request.op) == (3, 0x42)


def test_rfc4511_4_5_1_a_search_by_hand() -> None:
    # (&(objectClass=*)(cn=abc*)) below dc=x, subtree, 100 entries, 30 seconds, cn and mail
    data = bytes.fromhex(
        "3043 02020100 633d 0404 64633d78 0a0102 0a0103 020164 02011e 010100"
        "a01a 870b 6f626a656374436c617373 a40b 0402 636e 3005 8003 616263"
        "300a 0402 636e 0404 6d61696c"
    )
    request = decode_message(data, LIMITS)
    assert isinstance(request, core.SearchRequest)
    assert (request.message_id, request.base_object, request.scope, request.deref_aliases) == (256, b"dc=x", 2, 3)
    assert (request.size_limit, request.time_limit, request.types_only) == (100, 30, False)
    assert request.filter == data[29:57]
    assert request.attributes == (b"cn", b"mail")


def test_rfc4511_4_10_to_4_12_by_hand() -> None:
    compare = decode_message(bytes.fromhex("3013 020102 6e0e 0402 633d 3008 0402 636e 0402 6162"), LIMITS)
    assert isinstance(compare, core.CompareRequest)
    assert (compare.entry, compare.attribute, compare.assertion_value) == (b"c=", b"cn", b"ab")
    abandon = decode_message(bytes.fromhex("3006 020106 5001 05"), LIMITS)
    assert isinstance(abandon, core.AbandonRequest)
    assert (abandon.message_id, abandon.abandoned_id) == (6, 5)
    start_tls = decode_message(
        bytes.fromhex("301d 020101 7718 8016 312e332e362e312e342e312e313436362e3230303337"), LIMITS
    )
    assert isinstance(start_tls, core.ExtendedRequest)
    assert (start_tls.name, start_tls.value) == (b"1.3.6.1.4.1.1466.20037", None)


def test_rfc4511_4_1_11_controls_by_hand() -> None:
    data = oracle.tlv(
        0x30,
        bytes.fromhex("0201014200")
        + oracle.tlv(0xA0, bytes.fromhex("3008 0403312e32 0101ff 300a 0403312e33 010100 0400 3005 0403312e34")),
    )
    found = decode_message(data, LIMITS).controls
    assert [(one.oid, one.critical, one.value) for one in found] == [
        (b"1.2", True, None),
        (b"1.3", False, b""),
        (b"1.4", False, None),
    ]


@pytest.mark.parametrize("name", MESSAGES)
def test_every_operation_is_decoded(name: str) -> None:
    found = agree(MESSAGES[name])
    assert isinstance(found, dict)
    assert found["controls"] == (CONTROLS if name.endswith("with controls") else ())
    assert isinstance(decode_message(MESSAGES[name], LIMITS), getattr(core, found["kind"]))


def test_operations_have_their_classes() -> None:
    kinds = {name: type(decode_message(MESSAGES[name], LIMITS)).__name__ for name in EVERY_OPERATION}
    assert {kinds.pop(name) for name in list(kinds) if name.startswith("filter")} == {"SearchRequest"}
    assert kinds == {
        **dict.fromkeys(("bind", "anonymous", "sasl", "external", "kerberos"), "BindRequest"),
        "unbind": "UnbindRequest",
        "search": "SearchRequest",
        "compare": "CompareRequest",
        "abandon": "AbandonRequest",
        **dict.fromkeys(("extended", "modifyPassword"), "ExtendedRequest"),
        **dict.fromkeys(("modify", "add", "delete", "modifyDN", "unknown", "response"), "OtherRequest"),
    }


@pytest.mark.parametrize("tag", [0x80, 0xA3, *range(0x81, 0x9F), *range(0xA0, 0xBF)])
def test_every_context_tag_is_an_authentication_choice(tag: int) -> None:
    content = oracle.octets(b"PLAIN", CANARY) if tag == 0xA3 else CANARY
    request = decode_message(
        oracle.message(1, oracle.tlv(0x60, oracle.number(3) + oracle.octets(b"") + oracle.tlv(tag, content))), LIMITS
    )
    assert isinstance(request, core.BindRequest)
    assert request.authentication == tag
    expected = {0x80: (None, CANARY), 0xA3: (b"PLAIN", CANARY)}.get(tag, (b"", None))
    assert (request.mechanism, request.credentials) == expected


@pytest.mark.parametrize("tag", [0x02, 0x04, 0x30, 0x24, 0x60, 0x41, 0xC0, 0xE3])
def test_an_authentication_choice_of_another_class_is_refused(tag: int) -> None:
    refused(oracle.message(1, oracle.tlv(0x60, oracle.number(3) + oracle.octets(b"") + oracle.tlv(tag, b""))))


@pytest.mark.parametrize(
    "value", [0, 1, 127, 128, 255, 256, 32767, 32768, 2**23, 2**24, 2**31 - 1, 2**31, 2**32, 2**40]
)
def test_integers_go_up_to_maxint(value: int) -> None:
    for data in (
        oracle.message(value, oracle.unbind()),
        oracle.message(1, oracle.abandon(value)),
        oracle.message(1, oracle.search(b"", CN, size_limit=value)),
        oracle.message(1, oracle.search(b"", CN, time_limit=value)),
    ):
        found = agree(data)
        # The messageID of a request is never 0 (4.1.1.1).
        is_fine = value < 2**31 and (value > 0 or data != oracle.message(0, oracle.unbind()))
        assert isinstance(found, dict) is is_fine
    assert decode_message(oracle.message(max(1, value % 2**31), oracle.unbind()), LIMITS).message_id == max(
        1, value % 2**31
    )


@pytest.mark.parametrize("octets", ["0200", "020200 01", "0202ffff", "0201ff", "02028000", "0205 0080000000", "0a0101"])
def test_integers_that_are_none(octets: str) -> None:
    refused(oracle.tlv(0x30, bytes.fromhex(octets) + oracle.unbind()))
    refused(oracle.message(1, oracle.tlv(0x60, bytes.fromhex(octets) + oracle.octets(b"") + oracle.tlv(0x80, b""))))


@pytest.mark.parametrize(
    ("version", "is_fine"), [(0, False), (1, True), (2, True), (3, True), (127, True), (128, False)]
)
def test_versions_are_1_to_127(version: int, is_fine: bool) -> None:
    assert isinstance(agree(oracle.message(1, oracle.bind(b"", b"", version))), dict) is is_fine


@pytest.mark.parametrize(("scope", "deref", "is_fine"), [(0, 0, True), (2, 3, True), (3, 0, False), (0, 4, False)])
def test_enumerations_have_their_ends(scope: int, deref: int, is_fine: bool) -> None:
    found = agree(oracle.message(1, oracle.search(b"", CN, scope=scope, deref=deref)))
    assert isinstance(found, dict) is is_fine


@pytest.mark.parametrize(
    ("content", "truth"), [(b"\0", False), (b"\1", True), (b"\xff", True), (b"", None), (b"\0\0", None)]
)
def test_booleans_are_one_octet_and_true_unless_zero(content: bytes, truth: bool | None) -> None:
    encoded = oracle.tlv(0x01, content)
    types_only = oracle.search(b"", CN).replace(b"\1\1\0\x87", encoded + b"\x87")
    types_only = oracle.tlv(0x63, types_only[2:])
    critical = oracle.tlv(0xA0, oracle.tlv(0x30, oracle.octets(b"1.2") + encoded))
    dn = oracle.tlv(0xA9, oracle.tlv(0x81, b"x") + oracle.tlv(0x83, b"x") + oracle.tlv(0x84, content))
    messages = (oracle.message(1, types_only), oracle.tlv(0x30, oracle.number(1) + oracle.unbind() + critical))
    found = [agree(one) for one in messages]
    if truth is None:
        assert found == [DecodeError, DecodeError]
        assert same_filter(dn) is DecodeError
    else:
        search, unbind = [decode_message(one, LIMITS) for one in messages]
        assert isinstance(search, core.SearchRequest)
        assert search.types_only is truth and unbind.controls[0].critical is truth
        assert same_filter(dn) is None


# -- what must be refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_truncated_at_every_octet(name: str) -> None:
    data = MESSAGES[name]
    for size in range(len(data)):
        refused(data[:size])
        inbox = Inbox(LIMITS)
        inbox.feed(data[:size])
        assert inbox.next() is None and inbox.pending() == size


MAY_BE_CUT = {"abandon", "modifyPassword", "modify", "add", "delete", "modifyDN", "unknown", "response"}
"""A shorter number, no optional value, and what is not looked into."""


@pytest.mark.parametrize("name", EVERY_OPERATION)
def test_truncated_inside_at_every_octet(name: str) -> None:
    """The message announces what is there, and its operation is cut."""
    operation = EVERY_OPERATION[name]
    start, _ = oracle.header(operation, 1)
    for size in range(len(operation) - start):
        found = agree(oracle.message(7, oracle.tlv(operation[0], operation[start : start + size])))
        if name not in MAY_BE_CUT:
            assert found is DecodeError
        agree(oracle.tlv(0x30, oracle.number(7) + operation[: start + size]))


@pytest.mark.parametrize("name", MESSAGES)
def test_octets_after_the_message_are_refused(name: str) -> None:
    for tail in (b"\0", b"\0\0", b"\x30", MESSAGES[name]):
        refused(MESSAGES[name] + tail)


@pytest.mark.parametrize("name", MESSAGES)
def test_indefinite_lengths_are_refused(name: str) -> None:
    """RFC 4511 5.1, whichever element of the message has one."""
    data = MESSAGES[name]
    kind = decode_message(data, LIMITS)
    for at, start, end in elements(data):
        if isinstance(kind, core.OtherRequest) and at:
            continue
        refused(replaced(data, (at, start, end), data[at : at + 1] + b"\x80" + data[start:end] + b"\0\0"))


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("extra", [1, 2, 3])
def test_lengths_in_more_octets_than_they_need_are_read(name: str, extra: int) -> None:
    """X.690 8.1.3.5 leaves that to the sender, and RFC 4511 5.1 takes nothing of it back."""
    data = MESSAGES[name]
    expected = agree(data)
    assert isinstance(expected, dict)
    for at, start, end in elements(data):
        found = agree(replaced(data, (at, start, end), oracle.tlv(data[at], data[start:end], extra)))
        assert isinstance(found, dict)
        found["filter"] = expected.get("filter")
        expected.setdefault("filter", None)
        assert found == expected


@pytest.mark.parametrize("octets", ["30 85 0000000005 0201034200", "30 88 0000000000000005 0201034200", "30 ff"])
def test_more_than_four_length_octets_are_refused(octets: str) -> None:
    refused(bytes.fromhex(octets))
    with pytest.raises(DecodeError):
        core.frame_size(bytes.fromhex(octets), 1000)


@pytest.mark.parametrize("tag", [0x00, 0x1F, 0x3F, 0x5F, 0x7F, 0x9F, 0xBF, 0xFF])
def test_tags_that_ldap_has_no_use_for_are_refused_anywhere(tag: int) -> None:
    stranger = oracle.tlv(tag, b"")
    refused(oracle.tlv(0x30, oracle.number(1) + stranger))
    refused(oracle.tlv(0x30, oracle.number(1) + oracle.unbind() + stranger))
    refused(oracle.message(1, oracle.search(b"", stranger)))
    refused(oracle.message(1, oracle.tlv(0x77, oracle.tlv(0x80, b"1.2") + stranger)))


@pytest.mark.parametrize("tag", [0x02, 0x04, 0x30, 0x80, 0xA0, 0xA3, 0xC0])
def test_an_operation_of_another_class_is_refused(tag: int) -> None:
    refused(oracle.tlv(0x30, oracle.number(1) + oracle.tlv(tag, b"")))


def test_octet_strings_are_primitive() -> None:
    """RFC 4511 5.1."""
    pieces = oracle.tlv(0x24, oracle.octets(b"dc=", b"x"))
    whole = oracle.search(b"dc=x", CN)
    refused(oracle.message(1, oracle.tlv(0x63, pieces + whole[8:])))
    agree(oracle.message(1, oracle.tlv(0x63, whole[2:])))
    refused(oracle.message(1, oracle.search(b"", oracle.tlv(0xA7, b"cn"))))
    refused(oracle.message(1, oracle.tlv(0x77, oracle.tlv(0xA0, b"1.2"))))


def test_an_unbind_is_null() -> None:
    refused(oracle.message(1, oracle.tlv(0x42, b"\0")))


SEQUENCES = {
    "message": (lambda tail: oracle.tlv(0x30, oracle.number(1) + oracle.unbind() + tail), {0x02, 0xA0}),
    "after controls": (
        lambda tail: oracle.tlv(0x30, oracle.number(1) + oracle.unbind() + oracle.tlv(0xA0, b"") + tail),
        {0x02, 0xA0},
    ),
    "control": (
        lambda tail: oracle.tlv(
            0x30,
            oracle.number(1)
            + oracle.unbind()
            + oracle.tlv(
                0xA0, oracle.tlv(0x30, oracle.octets(b"1.2") + oracle.boolean(True) + oracle.octets(b"") + tail)
            ),
        ),
        {0x01, 0x04},
    ),
    "bind": (
        lambda tail: oracle.message(
            1, oracle.tlv(0x60, oracle.number(3) + oracle.octets(b"") + oracle.tlv(0x80, b"") + tail)
        ),
        {0x02, 0x04, 0x80, 0xA3},
    ),
    "sasl": (
        lambda tail: oracle.message(
            1,
            oracle.tlv(0x60, oracle.number(3) + oracle.octets(b"") + oracle.tlv(0xA3, oracle.octets(b"", b"") + tail)),
        ),
        {0x04},
    ),
    "search": (
        lambda tail: oracle.message(1, oracle.tlv(0x63, oracle.search(b"", CN)[2:] + tail)),
        {0x01, 0x02, 0x04, 0x0A, 0x30, *oracle.FILTERS},
    ),
    "compare": (
        lambda tail: oracle.message(1, oracle.tlv(0x6E, oracle.compare(b"", b"", b"")[2:] + tail)),
        {0x04, 0x30},
    ),
    "assertion": (
        lambda tail: oracle.message(
            1, oracle.tlv(0x6E, oracle.octets(b"") + oracle.tlv(0x30, oracle.octets(b"", b"") + tail))
        ),
        {0x04},
    ),
    "extended": (
        lambda tail: oracle.message(1, oracle.tlv(0x77, oracle.tlv(0x80, b"") + oracle.tlv(0x81, b"") + tail)),
        {0x80, 0x81},
    ),
    "equality": (lambda tail: searching(oracle.tlv(0xA3, oracle.octets(b"", b"") + tail)), {0x04}),
    "substrings": (
        lambda tail: searching(oracle.tlv(0xA4, oracle.octets(b"") + oracle.tlv(0x30, oracle.tlv(0x81, b"x")) + tail)),
        {0x04, 0x30},
    ),
    "extensible": (
        lambda tail: searching(oracle.tlv(0xA9, oracle.tlv(0x81, b"") + oracle.tlv(0x83, b"") + tail)),
        {0x81, 0x82, 0x83},
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_unknown_trailing_components_are_ignored_and_known_ones_refused(name: str) -> None:
    """RFC 4511 4, for every SEQUENCE and every tag."""
    build, known = SEQUENCES[name]
    plain = agree(build(b""))
    assert isinstance(plain, dict)
    for tag in range(256):
        found = agree(build(oracle.tlv(tag, b"\xff")))
        if tag in known and (name, tag) != ("message", 0xA0):
            assert found is DecodeError, hex(tag)
        elif tag == 0 or tag & 0x1F == 0x1F or tag >> 6 == 1:
            assert found is DecodeError, hex(tag)
        elif (name, tag) not in {("message", 0xA0), ("extensible", 0x84)}:
            assert isinstance(found, dict), hex(tag)
            assert {**found, "filter": None} == {**plain, "filter": None}
    refused(build(b"\x85"))
    refused(build(b"\x85\x01"))


# -- differential ------------------------------------------------------------------------------------

LIMIT_SETS = st.sampled_from((LIMITS, TIGHT, Limits(message=16), Limits(65_536, 0, 1, 1, 1, 0)))
IDS = st.integers(1, 2**31 - 1)
OCTETS = st.binary(max_size=40)
MAYBE = st.none() | OCTETS
CONTROL_LISTS = st.lists(st.tuples(OCTETS, st.booleans(), MAYBE), max_size=4)
ITEMS = (
    st.builds(oracle.present, OCTETS)
    | st.builds(oracle.assertion, st.sampled_from((0xA3, 0xA5, 0xA6, 0xA8)), OCTETS, OCTETS)
    | st.builds(oracle.substrings, OCTETS, OCTETS, st.lists(OCTETS, max_size=3), MAYBE)
    | st.builds(oracle.extensible, OCTETS, MAYBE, OCTETS, st.none() | st.booleans())
)
FILTERS = st.recursive(
    ITEMS,
    lambda inner: (
        inner.map(lambda one: oracle.tlv(oracle.NOT, one))
        | st.builds(oracle.tlv, st.sampled_from((oracle.AND, oracle.OR)), st.lists(inner, max_size=4).map(b"".join))
    ),
    max_leaves=10,
)
SEARCHES = st.builds(
    oracle.search,
    OCTETS,
    FILTERS,
    st.lists(OCTETS, max_size=4),
    st.integers(0, 2),
    st.integers(0, 3),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
OPERATIONS = (
    st.builds(oracle.bind, OCTETS, OCTETS, st.integers(1, 127))
    | st.builds(oracle.sasl_bind, OCTETS, OCTETS, MAYBE, st.integers(1, 127))
    | st.builds(oracle.unbind)
    | SEARCHES
    | st.builds(oracle.compare, OCTETS, OCTETS, OCTETS)
    | st.builds(oracle.abandon, st.integers(0, 2**31 - 1))
    | st.builds(oracle.extended, OCTETS, MAYBE)
    | st.builds(oracle.tlv, st.sampled_from((0x66, 0x68, 0x4A, 0x6C, 0x5E)), OCTETS)
)


@given(IDS, OPERATIONS, CONTROL_LISTS)
def test_good_messages_are_decoded_as_the_oracle_does(
    message_id: int, operation: bytes, controls: list[tuple[bytes, bool, bytes | None]]
) -> None:
    found = agree(oracle.message(message_id, operation, controls))
    assert isinstance(found, dict)
    assert (found["message_id"], found["controls"]) == (message_id, tuple(controls))


@given(IDS, OPERATIONS, CONTROL_LISTS, LIMIT_SETS, st.randoms(use_true_random=False), st.integers(0, 4))
def test_damaged_messages_are_judged_as_the_oracle_does(
    message_id: int,
    operation: bytes,
    controls: list[tuple[bytes, bool, bytes | None]],
    limits: Limits,
    chance: random.Random,
    accidents: int,
) -> None:
    data = oracle.message(message_id, operation, controls)
    for _ in range(accidents):
        data = accident(chance, data)
    agree(data, limits)


@given(st.binary(max_size=200), LIMIT_SETS)
def test_any_octets_are_judged_as_the_oracle_does(data: bytes, limits: Limits) -> None:
    agree(data, limits)
    agree(oracle.tlv(0x30, data), limits)
    agree(oracle.message(1, data), limits)
    same_filter(data, limits)


@given(FILTERS, LIMIT_SETS, st.randoms(use_true_random=False), st.integers(0, 2))
def test_filters_are_judged_as_the_oracle_does(
    filter: bytes, limits: Limits, chance: random.Random, accidents: int
) -> None:
    assert same_filter(filter) is None
    for _ in range(accidents):
        filter = accident(chance, filter)
    same_filter(filter, limits)


@given(st.binary(max_size=8), st.integers(-10, 2**40))
def test_frames_are_measured_as_the_oracle_does(data: bytes, limit: int) -> None:
    for octets in (data, b"\x30" + data):
        found = outcome(functools.partial(core.frame_size, octets, limit))
        assert found == outcome(functools.partial(oracle.frame_size, octets, limit))


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 127, 128, 255, 256, 65_535, 65_536, 262_144])
def test_the_size_of_a_message_is_limited(size: int) -> None:
    data = next(
        data
        for spare in range(10, 30)
        if len(data := oracle.message(1, oracle.extended(b"1.2", bytes(size - spare)))) <= size
    )
    # Longer length fields may leave no message of exactly this size.
    assert len(data) > size - 3
    size = len(data)
    at, below = Limits(message=size), Limits(message=size - 1)
    assert isinstance(agree(data, at), dict)
    assert core.frame_size(data[:6], size) == size
    assert over(data, below) == "message"
    with pytest.raises(LimitExceeded, match="message"):
        core.frame_size(data[:6], size - 1)


def test_a_message_is_refused_by_its_header_alone() -> None:
    inbox = Inbox(Limits(message=1000))
    inbox.feed(bytes.fromhex("308203e5"))
    with pytest.raises(LimitExceeded):
        inbox.next()


def test_controls_are_limited() -> None:
    def data(count: int) -> bytes:
        return oracle.message(1, oracle.unbind(), [(b"1.2", False, None)] * count)

    for count in (0, 1, 32):
        assert isinstance(agree(data(count), Limits(controls=count)), dict)
        assert over(data(count + 1), Limits(controls=count)) == "controls"
    assert over(data(33), LIMITS) == "controls"


@pytest.mark.parametrize("tag", [oracle.AND, oracle.OR, oracle.NOT])
def test_the_depth_of_a_filter_is_limited(tag: int) -> None:
    def deep(depth: int) -> bytes:
        filter = CN
        for _ in range(depth - 1):
            filter = oracle.tlv(tag, filter)
        return filter

    for depth in (1, 2, 64, 256, 512):
        limits = Limits(filter_depth=depth)
        assert isinstance(agree(searching(deep(depth)), limits), dict) and same_filter(deep(depth), limits) is None
        assert over(searching(deep(depth + 1)), limits) == "filter_depth"
        assert same_filter(deep(depth + 1), limits) is LimitExceeded
    assert over(searching(deep(65)), LIMITS) == "filter_depth"
    # Neither the whole message limit nor the C stack is at stake.
    with pytest.raises(LimitExceeded):
        decode_message(searching(deep(20_000)), Limits(filter_depth=512))


def test_the_terms_of_a_filter_are_limited() -> None:
    for terms in (1, 2, 4_096):
        limits = Limits(filter_terms=terms)
        for nest in (lambda inner: inner, lambda inner: oracle.tlv(oracle.NOT, inner)):
            flat = nest(oracle.tlv(oracle.OR, CN * (terms - (1 if nest(b"") == b"" else 2)) if terms > 1 else b""))
            if nest(b"") == b"" or terms > 1:
                assert isinstance(agree(searching(flat), limits), dict)
            more = nest(oracle.tlv(oracle.OR, CN * terms))
            assert over(searching(more), limits) == "filter_terms"


def test_substrings_are_limited() -> None:
    for count in (1, 2, 256):
        limits = Limits(substrings=count)
        fits = oracle.substrings(b"cn", None, [b"x"] * count, None)
        assert isinstance(agree(searching(fits), limits), dict)
        for more in (
            oracle.substrings(b"cn", None, [b"x"] * (count + 1), None),
            oracle.substrings(b"cn", b"x", [b"x"] * (count - 1), b"x"),
        ):
            assert over(searching(more), limits) == "substrings"


def test_attributes_are_limited() -> None:
    for count in (0, 1, 1_024):
        limits = Limits(attributes=count)
        assert isinstance(agree(searching(CN, *[b"cn"] * count), limits), dict)
        assert over(searching(CN, *[b"cn"] * (count + 1)), limits) == "attributes"


@pytest.mark.parametrize(
    "limits",
    [
        {"message": 15},
        {"message": 2**31},
        {"message": -1},
        {"controls": -1},
        {"filter_depth": 0},
        {"filter_depth": 513},
        {"filter_terms": 0},
        {"substrings": 0},
        {"attributes": -1},
    ],
)
def test_limits_that_nothing_could_pass_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits)) if "filter_depth" in limits else "limit"):
        Limits(**limits)


def test_limits_at_their_ends() -> None:
    names = ("message", "controls", "filter_depth", "filter_terms", "substrings", "attributes")
    for values in ((16, 0, 1, 1, 1, 0), (2**31 - 1, 2**31, 512, 2**31, 2**31, 2**31)):
        limits = Limits(*values)
        assert tuple(getattr(limits, name) for name in names) == values
        assert repr(limits) == "Limits(" + ", ".join(map("{}={}".format, names, values)) + ")"
        with pytest.raises(AttributeError):
            limits.message = 1  # type: ignore[misc]
    assert [getattr(LIMITS, name) for name in names] == [262_144, 32, 64, 4_096, 256, 1_024]


# -- filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_FILTER)
def test_every_filter_is_taken_whole(name: str) -> None:
    filter = EVERY_FILTER[name]
    assert same_filter(filter) is None
    request = decode_message(searching(filter, b"cn"), LIMITS)
    assert isinstance(request, core.SearchRequest)
    assert (request.filter, request.attributes) == (filter, (b"cn",))
    for size in range(len(filter)):
        assert same_filter(filter[:size]) is DecodeError
    for tail in (b"\0", filter):
        assert same_filter(filter + tail) is DecodeError
    for at, start, end in elements(filter):
        assert same_filter(replaced(filter, (at, start, end), filter[at : at + 1] + b"\x80\0\0")) is DecodeError


@pytest.mark.parametrize(
    "filter",
    [
        oracle.tlv(0xA2, b""),
        oracle.tlv(0xA2, CN + CN),
        oracle.tlv(0xA3, b""),
        oracle.tlv(0xA3, oracle.octets(b"cn")),
        oracle.tlv(0xA3, oracle.octets(b"cn", b"x", b"y")),
        oracle.tlv(0xA3, oracle.octets(b"cn") + oracle.number(1)),
        oracle.tlv(0xA4, oracle.octets(b"cn")),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, b"")),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x31, oracle.tlv(0x81, b"x"))),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.octets(b"x"))),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.tlv(0x83, b"x"))),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.tlv(0x80, b"x") * 2)),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.tlv(0x82, b"x") * 2)),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.tlv(0x81, b"x") + oracle.tlv(0x80, b"x"))),
        oracle.tlv(0xA4, oracle.octets(b"cn") + oracle.tlv(0x30, oracle.tlv(0x82, b"x") + oracle.tlv(0x81, b"x"))),
        oracle.tlv(0xA7, b"cn"),
        oracle.tlv(0x83, b"cn"),
        oracle.tlv(0xAA, b""),
        oracle.tlv(0x04, b"cn"),
        oracle.tlv(0xA9, oracle.tlv(0x83, b"x")),
        oracle.tlv(0xA9, oracle.tlv(0x81, b"x")),
        oracle.tlv(0xA9, oracle.tlv(0x82, b"x") + oracle.tlv(0x81, b"x") + oracle.tlv(0x83, b"x")),
        oracle.tlv(0xA9, oracle.tlv(0x81, b"x") + oracle.tlv(0x83, b"x") * 2),
    ],
    ids=bytes.hex,
)
def test_filters_that_are_none(filter: bytes) -> None:
    assert same_filter(filter) is DecodeError
    assert same_filter(oracle.tlv(0xA0, CN + filter)) is DecodeError
    refused(searching(filter))


# -- the inbox ---------------------------------------------------------------------------------------


def write(inbox: Inbox, data: bytes) -> None:
    """As a transport does."""
    while data:
        view = inbox.buffer()
        assert len(view) >= 1024
        some = data[: len(view)]
        view[: len(some)] = some
        inbox.received(len(some))
        data = data[len(some) :]


def drain(inbox: Inbox) -> list[object]:
    found = []
    while (request := inbox.next()) is not None:
        found.append(oracle.components(request))
    return found


STREAM = b"".join(MESSAGES.values())
EXPECTED = [oracle.decode_message(data, LIMITS) for data in MESSAGES.values()]


@pytest.mark.parametrize("put", [Inbox.feed, write])
def test_an_inbox_fed_octet_by_octet(put: Callable[[Inbox, bytes], None]) -> None:
    inbox, found, ends = Inbox(LIMITS), [], set()
    for at in range(len(STREAM)):
        put(inbox, STREAM[at : at + 1])
        if some := drain(inbox):
            found += some
            ends.add(at + 1)
            assert inbox.pending() == 0
    assert found == EXPECTED
    # Not one octet too late.
    assert ends == set(itertools.accumulate(map(len, MESSAGES.values())))


@given(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), min_size=1, max_size=30), st.booleans())
def test_an_inbox_fed_in_slices(slices: list[tuple[int, bool]], is_lazy: bool) -> None:
    inbox, found, at = Inbox(LIMITS), [], 0
    for size, is_written in itertools.cycle(slices):
        (write if is_written else Inbox.feed)(inbox, STREAM[at : at + size])
        at += size
        if not is_lazy:
            found += drain(inbox)
        if at >= len(STREAM):
            break
    assert found + drain(inbox) == EXPECTED
    assert inbox.pending() == 0 and inbox.next() is None


@pytest.mark.parametrize("size", [65_000, 65_536, 70_000, 200_000, 262_000])
@pytest.mark.parametrize("step", [1_000, 4_096, 65_536, 300_000])
def test_messages_over_64_kib_pass(size: int, step: int) -> None:
    before, large = MESSAGES["bind"], oracle.message(9, oracle.extended(b"1.2", bytes(range(256)) * (size // 256)))
    stream = before + large + large + MESSAGES["search"]
    inbox, found = Inbox(LIMITS), []
    for at in range(0, len(stream), step):
        write(inbox, stream[at : at + step])
        found += drain(inbox)
    assert found == [oracle.decode_message(one, LIMITS) for one in (before, large, large, MESSAGES["search"])]


def test_an_inbox_grows_with_what_arrives_and_not_with_what_is_announced() -> None:
    inbox = Inbox(Limits(message=2**31 - 1))
    write(inbox, bytes.fromhex("30847ffffff0") + b"\2\1\1\x77")
    assert inbox.next() is None
    assert len(inbox.buffer()) <= 4096
    for _ in range(50):
        write(inbox, bytes(1000))
        assert inbox.next() is None
    assert len(inbox.buffer()) + inbox.pending() <= 2 * inbox.pending() + 4096


def test_an_inbox_shrinks_when_it_is_idle() -> None:
    inbox = Inbox(LIMITS)
    small = len(inbox.buffer())
    write(inbox, oracle.message(1, oracle.extended(b"1.2", bytes(200_000))))
    assert inbox.next() is not None
    assert len(inbox.buffer()) == small
    rooms = [small]
    for _ in range(8):
        # Whatever is read to the last octet was perhaps not all there was.
        data = oracle.message(1, oracle.extended(b"1.2", bytes(rooms[-1] - 60)))
        data += oracle.message(1, oracle.extended(bytes(rooms[-1] - len(data) - 9)))
        assert len(data) == rooms[-1]
        write(inbox, data)
        assert len(drain(inbox)) == 2
        rooms.append(len(inbox.buffer()))
    assert rooms == [4_096, 8_192, 16_384, 32_768, *[65_536] * 5]
    for _ in range(2):
        write(inbox, MESSAGES["unbind"])
        drain(inbox)
    assert len(inbox.buffer()) == small


def test_an_inbox_is_not_moved_at_every_read() -> None:
    inbox = Inbox(LIMITS)
    write(inbox, oracle.message(1, oracle.extended(b"1.2", bytes(200_000)))[:-1000])
    blocks = set()
    for _ in range(60):
        write(inbox, bytes(1000))
        blocks.add(inbox.pending() + len(inbox.buffer()))
    assert len(blocks) <= 2


def test_limits_are_swapped_between_messages() -> None:
    small, large = Limits(message=100), Limits(message=1_000)
    inbox = Inbox(small)
    assert inbox.limits is small
    search = oracle.message(2, oracle.search(b"", CN, [b"x" * 100]))
    inbox.feed(MESSAGES["bind"] + search)
    assert isinstance(inbox.next(), core.BindRequest)
    inbox.limits = large
    assert inbox.limits is large
    assert isinstance(inbox.next(), core.SearchRequest)
    inbox.feed(search)
    inbox.limits = small
    with pytest.raises(LimitExceeded):
        inbox.next()
    inbox.limits = large
    with pytest.raises(DecodeError):
        inbox.next()
    with pytest.raises(TypeError):
        inbox.limits = None  # type: ignore[assignment]


def test_limits_other_than_of_size_count_in_the_inbox_too() -> None:
    inbox = Inbox(TIGHT)
    inbox.feed(searching(oracle.substrings(b"cn", None, [b"x"] * 3, None)))
    with pytest.raises(LimitExceeded):
        inbox.next()


@pytest.mark.parametrize(
    "data", [b"\0", b"GET / HTTP/1.1\r\n", b"\x16\3\1", b"\x30\x80", b"\x30\3\2\1\0", MESSAGES["bind"][:-1] + b"\x01"]
)
def test_nothing_comes_after_octets_that_are_none(data: bytes) -> None:
    inbox = Inbox(LIMITS)
    inbox.feed(MESSAGES["unbind"])
    inbox.feed(data if data[0] != 0x30 or len(data) < 10 else oracle.tlv(0x30, data))
    assert isinstance(inbox.next(), core.UnbindRequest)
    with pytest.raises(DecodeError):
        inbox.next()
    assert inbox.pending() > 0
    inbox.discard()
    inbox.feed(MESSAGES["unbind"])
    for _ in range(2):
        with pytest.raises(DecodeError):
            inbox.next()


def test_pending_and_discard_count() -> None:
    inbox = Inbox(LIMITS)
    assert (inbox.pending(), inbox.discard(), inbox.next()) == (0, 0, None)
    inbox.feed(STREAM[:10_000])
    size = len(MESSAGES["bind"])
    assert inbox.next() is not None and inbox.pending() == len(STREAM[:10_000]) - size
    assert inbox.discard() == len(STREAM[:10_000]) - size
    assert (inbox.pending(), inbox.next()) == (0, None)
    inbox.feed(MESSAGES["search"])
    assert isinstance(inbox.next(), core.SearchRequest)


def test_too_much_unread_is_refused() -> None:
    inbox = Inbox(Limits(message=1_000))
    with pytest.raises(LimitExceeded, match="message"):
        write(inbox, MESSAGES["unbind"] * 20_000)
    assert 1_000 + 65_536 < inbox.pending() < 2 * 65_536 + 8_192
    with pytest.raises(DecodeError):
        inbox.next()


def test_more_received_than_there_was_room_for_is_refused() -> None:
    inbox = Inbox(LIMITS)
    for count in (-1, len(inbox.buffer()) + 1, 2**31):
        with pytest.raises(ValueError, match="received"):
            inbox.received(count)
    assert inbox.pending() == 0
    inbox.buffer(65_536)
    inbox.received(0)
    assert (inbox.pending(), inbox.next()) == (0, None)


def test_a_view_that_is_kept_is_harmless_and_deaf() -> None:
    inbox = Inbox(LIMITS)
    old = inbox.buffer()
    inbox.feed(MESSAGES["search"] * 200)
    old[:] = b"\xff" * len(old)
    assert len(drain(inbox)) == 200
    del inbox
    assert bytes(old) == b"\xff" * len(old)


def clean(inbox: Inbox) -> memoryview:
    """A buffer that nobody left anything in before."""
    view = inbox.buffer()
    view[:] = bytes(len(view))
    return view


@pytest.mark.parametrize("name", ["bind", "sasl", "kerberos", "modifyPassword"])
def test_a_decoded_secret_is_wiped(name: str) -> None:
    inbox = Inbox(LIMITS)
    view = clean(inbox)
    data = MESSAGES["search"] + MESSAGES[name]
    view[: len(data)] = data
    inbox.received(len(data))
    assert isinstance(inbox.next(), core.SearchRequest)
    assert CANARY in bytes(view)
    assert inbox.next() is not None
    assert bytes(view)[: len(data)] == MESSAGES["search"] + bytes(len(MESSAGES[name]))


@pytest.mark.parametrize("name", ["bind", "sasl", "modifyPassword"])
@pytest.mark.parametrize("shift", range(0, 900, 90))
def test_a_secret_that_was_moved_is_wiped(name: str, shift: int) -> None:
    """The block is too full for the rest of the message, so what has come of it is moved to the front."""
    data = MESSAGES[f"{name} with controls"]
    inbox = Inbox(LIMITS)
    view = clean(inbox)
    assert len(view) == 4096
    inbox.feed(oracle.message(1, oracle.search(b"", CN, [b"x" * (3_050 - len(data) + shift)])) + data[:-5])
    assert isinstance(inbox.next(), core.SearchRequest)
    assert CANARY in bytes(view)
    write(inbox, data[-5:])
    assert CANARY in bytes(view)[: len(data)]
    assert inbox.next() is not None
    assert CANARY not in bytes(view)


def test_what_is_discarded_is_wiped() -> None:
    inbox = Inbox(LIMITS)
    view = clean(inbox)
    view[: len(MESSAGES["bind"])] = MESSAGES["bind"]
    inbox.received(len(MESSAGES["bind"]))
    assert inbox.discard() == len(MESSAGES["bind"])
    assert CANARY not in bytes(view)


# -- reprs -------------------------------------------------------------------------------------------


SECRETIVE = [
    oracle.bind(b"cn=alice", CANARY),
    oracle.sasl_bind(b"cn=alice", b"PLAIN", CANARY),
    EVERY_OPERATION["kerberos"],
    oracle.compare(b"cn=alice", b"userPassword", CANARY),
    oracle.extended(b"1.3.6.1.4.1.4203.1.11.1", CANARY),
    oracle.search(b"dc=example", oracle.assertion(0xA3, b"userPassword", CANARY)),
    oracle.tlv(0x66, oracle.octets(CANARY)),
    oracle.tlv(0x68, oracle.octets(CANARY)),
]


@pytest.mark.parametrize("operation", SECRETIVE, ids=lambda one: f"{one[0]:02x}")
def test_reprs_and_errors_show_no_secret(operation: bytes) -> None:
    data = oracle.message(5, operation, [(b"1.2.3", True, CANARY)])
    request = decode_message(data, LIMITS)
    for text in (repr(request), str(request), f"{request}", repr(request.controls), repr([request])):
        assert "canary" not in text
    assert repr(request).startswith(type(request).__name__ + "(message_id=5") and "1.2.3" in repr(request)
    assert repr(request.controls[0]) == f"Control(oid=b'1.2.3', critical=True, value_size={len(CANARY)})"
    for size in range(len(data)):
        with pytest.raises(DecodeError) as caught:
            decode_message(data[:size], LIMITS)
        assert "canary" not in str(caught.value)
    inbox = Inbox(LIMITS)
    inbox.feed(data)
    assert "canary" not in repr(inbox)


def test_reprs_show_the_rest() -> None:
    search = repr(decode_message(MESSAGES["search"], LIMITS))
    for word in ("dc=example", "scope=1", "size_limit=10", "types_only=True", "b'mail'", "filter_size=14"):
        assert word in search
    assert repr(decode_message(MESSAGES["abandon"], LIMITS)) == "AbandonRequest(message_id=7, abandoned_id=2147483647)"
    assert "value_size=None" in repr(decode_message(MESSAGES["extended"], LIMITS))
    assert "op=0x66" in repr(decode_message(MESSAGES["modify"], LIMITS))


# -- encoding ----------------------------------------------------------------------------------------

CODES = st.integers(0, 2**31 - 1)
ANY_IDS = st.integers(0, 2**31 - 1)
LONG = OCTETS | st.sampled_from((127, 128, 255, 256, 65_535, 65_536, 70_000)).map(bytes)
BARE = (0x61, 0x65, 0x67, 0x69, 0x6B, 0x6D, 0x6F, 0x78)


@given(ANY_IDS, st.sampled_from(BARE), CODES, LONG, LONG, CONTROL_LISTS)
def test_results_are_encoded_as_the_oracle_does(
    message_id: int, op: int, code: int, matched: bytes, text: bytes, controls: list[tuple[bytes, bool, bytes | None]]
) -> None:
    expected = oracle.message(message_id, oracle.result(op, code, matched, text), controls)
    assert core.encode_result(message_id, op, code, matched, text, tuple(controls)) == expected
    if op == 0x61:
        assert core.encode_bind_result(message_id, code, matched, text, controls=tuple(controls)) == expected
    if op == 0x78:
        assert core.encode_extended_result(message_id, code, matched, text, controls=tuple(controls)) == expected


@given(ANY_IDS, CODES, LONG, LONG, MAYBE, CONTROL_LISTS)
def test_bind_results_are_encoded_as_the_oracle_does(
    message_id: int,
    code: int,
    matched: bytes,
    text: bytes,
    credentials: bytes | None,
    controls: list[tuple[bytes, bool, bytes | None]],
) -> None:
    operation = oracle.result(0x61, code, matched, text, oracle.optional(0x87, credentials))
    found = core.encode_bind_result(message_id, code, matched, text, credentials, tuple(controls))
    assert found == oracle.message(message_id, operation, controls)


@given(ANY_IDS, CODES, OCTETS, OCTETS, MAYBE, MAYBE | LONG, CONTROL_LISTS)
def test_extended_results_are_encoded_as_the_oracle_does(
    message_id: int,
    code: int,
    matched: bytes,
    text: bytes,
    name: bytes | None,
    value: bytes | None,
    controls: list[tuple[bytes, bool, bytes | None]],
) -> None:
    tail = oracle.optional(0x8A, name) + oracle.optional(0x8B, value)
    found = core.encode_extended_result(message_id, code, matched, text, name, value, tuple(controls))
    assert found == oracle.message(message_id, oracle.result(0x78, code, matched, text, tail), controls)
    operation = oracle.tlv(0x79, oracle.optional(0x80, name) + oracle.optional(0x81, value))
    assert core.encode_intermediate(message_id, name, value) == oracle.message(message_id, operation)


ATTRIBUTES = st.lists(st.tuples(OCTETS, st.lists(LONG, max_size=4)), max_size=4)


@given(ANY_IDS, LONG, ATTRIBUTES)
def test_entries_are_encoded_as_the_oracle_does(
    message_id: int, name: bytes, attributes: list[tuple[bytes, list[bytes]]]
) -> None:
    found = core.encode_search_entry(message_id, name, attributes)
    assert found == oracle.message(message_id, oracle.entry(name, attributes))


@pytest.mark.parametrize("value", [0, 127, 128, 255, 256, 32767, 32768, 2**23 - 1, 2**23, 2**24, 2**31 - 1])
def test_numbers_are_encoded_in_as_few_octets_as_they_need(value: int) -> None:
    assert core.encode_result(value, 0x65, value) == oracle.message(value, oracle.result(0x65, value))


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 254, 255, 256, 65_535, 65_536, 2**24 - 1, 2**24])
def test_lengths_are_encoded_in_as_few_octets_as_they_need(size: int) -> None:
    value = bytes(size)
    assert core.encode_result(1, 0x65, 0, b"", value) == oracle.message(1, oracle.result(0x65, 0, b"", value))
    entry = oracle.message(1, oracle.entry(b"", [(b"a", [value, value])]))
    assert core.encode_search_entry(1, b"", [(b"a", [value, value])]) == entry


def test_rfc4511_4_4_1_notice_of_disconnection() -> None:
    oid = b"1.3.6.1.4.1.1466.20036"
    assert core.encode_extended_result(0, 2, name=oid) == bytes.fromhex("3024 020100 781f 0a0102 0400 0400 8a16") + oid


@pytest.mark.parametrize(("name", "op"), [("bind", 0x61), ("search", 0x65), ("modify", 0x67), ("add", 0x69)])
def test_a_request_knows_its_response(name: str, op: int) -> None:
    request = decode_message(MESSAGES[name], LIMITS)
    assert request.result(49, b"dc=x", b"no", CONTROLS) == core.encode_result(7, op, 49, b"dc=x", b"no", CONTROLS)
    assert request.result(0) == oracle.message(7, oracle.result(op, 0))


def test_every_request_has_its_own_response_or_none() -> None:
    for name, operation in EVERY_OPERATION.items():
        request = decode_message(MESSAGES[name], LIMITS)
        if operation[0] in oracle.RESPONSES:
            assert request.result(3) == oracle.message(7, oracle.result(oracle.RESPONSES[operation[0]], 3))
        else:
            assert name in {"unbind", "abandon", "unknown", "response"}
            with pytest.raises(ValueError, match="no response"):
                request.result(0)


@pytest.mark.parametrize("op", [*(set(range(256)) - set(BARE)), -1, -0x9F, 0x161, 2**31 - 1])
def test_results_under_a_tag_that_is_no_response_are_refused(op: int) -> None:
    with pytest.raises(ValueError, match="response"):
        core.encode_result(1, op, 0)


@pytest.mark.parametrize("value", [-1, 2**31, 2**32 - 1, 2**32, 2**64])
def test_numbers_over_maxint_are_refused(value: int) -> None:
    for encode in (
        lambda: core.encode_result(value, 0x65, 0),
        lambda: core.encode_result(1, 0x65, value),
        lambda: core.encode_bind_result(value, 0),
        lambda: core.encode_bind_result(1, value),
        lambda: core.encode_extended_result(value, 0),
        lambda: core.encode_intermediate(value),
        lambda: core.encode_search_entry(value, b"", []),
        lambda: decode_message(MESSAGES["bind"], LIMITS).result(value),
    ):
        with pytest.raises((ValueError, OverflowError)):
            encode()


@pytest.mark.parametrize(
    "controls", [(b"1.2",), ((b"1.2", True),), (("1.2", True, None),), ((b"1.2", True, "x"),), [], None]
)
def test_controls_of_another_shape_are_refused(controls: Any) -> None:
    with pytest.raises(TypeError):
        core.encode_result(1, 0x65, 0, controls=controls)


@pytest.mark.parametrize(
    "attributes", [[("cn", [])], [(b"cn", ["x"])], [(b"cn", (b"x",))], [(b"cn", None)], [(None, [])], ()]
)
def test_entries_of_another_shape_are_refused(attributes: Any) -> None:
    with pytest.raises(TypeError):
        core.encode_search_entry(1, b"", attributes)


def test_requests_cannot_be_changed() -> None:
    request = decode_message(MESSAGES["bind with controls"], LIMITS)
    for name in ("message_id", "op", "controls", "name", "credentials"):
        with pytest.raises(AttributeError):
            setattr(request, name, None)
    with pytest.raises(AttributeError):
        request.controls[0].critical = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        pickle.dumps(request)
