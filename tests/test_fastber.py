"""The compiled LDAP codec against RFC 4511, an oracle, ldap3, pyasn1, and octets that must be refused."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from outpost import _fastber as core
from outpost._fastber import Inbox, Limits, decode_message
from outpost.errors import DecodeError, LimitExceeded
from tests import oracle_ber as oracle

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


def elements(data: bytes, at: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Start, start of the content, and end of every element of a message, the nested ones too."""
    end = len(data) if end is None else end
    while at < end:
        start, size = oracle.header(data, at + 1)
        yield at, start, start + size
        if data[at] & 0x20:
            # What is opaque to LDAP need not be BER inside.
            with contextlib.suppress(DecodeError, IndexError):
                yield from elements(data, start, start + size)
        at = start + size


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
        changed = data[: at + 1] + b"\x80" + data[start:end] + b"\0\0" + data[end:]
        refused(resized(data, at, changed))


def resized(data: bytes, at: int, changed: bytes) -> bytes:
    """`changed` with the lengths of the elements around the one at `at` put right."""
    grown = len(changed) - len(data)
    if not grown:
        return changed
    outer = [one for one in elements(data) if one[0] < at < one[2]]
    for begin, start, end in reversed(outer):
        content = changed[start : end + grown]
        again = oracle.tlv(changed[begin], content)
        changed = changed[:begin] + again + changed[end + grown :]
        grown = len(again) - (end - begin)
    return changed


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("extra", [1, 2, 3])
def test_lengths_in_more_octets_than_they_need_are_read(name: str, extra: int) -> None:
    """X.690 8.1.3.5 leaves that to the sender, and RFC 4511 5.1 takes nothing of it back."""
    data = MESSAGES[name]
    expected = agree(data)
    assert isinstance(expected, dict)
    for at, start, end in elements(data):
        found = agree(resized(data, at, data[:at] + oracle.tlv(data[at], data[start:end], extra) + data[end:]))
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
