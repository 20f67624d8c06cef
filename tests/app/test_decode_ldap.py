"""`outpost decode ldap`: every operation as text, and no password in any of it."""

import pytest

from outpost import cli
from outpost.app.decode_ldap import describe
from outpost.errors import DecodeError, LimitExceeded
from outpost.ldap.filter import parse_filter
from tests import oracle_ber as oracle

CANARY = b"canary-1"
FILTER = parse_filter("(&(cn=al*)(userPassword=canary-1))")


def lines(operation: bytes, *controls: tuple[bytes, bool, bytes | None]) -> list[str]:
    return describe(oracle.message(7, operation, controls)).split("\n")


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            oracle.bind(b"cn=alice", CANARY),
            ["BindRequest", "version         3", "name            cn=alice", "authentication  simple, 8 octets ***"],
        ),
        (
            oracle.bind(b"", b"", 2),
            ["BindRequest", "version         2", "name            ", "authentication  simple, 0 octets ***"],
        ),
        (
            oracle.sasl_bind(b"", b"PLAIN", CANARY),
            ["BindRequest", "version         3", "name            ", "authentication  sasl PLAIN, 8 octets ***"],
        ),
        (
            oracle.sasl_bind(b"", b"EXTERNAL", None),
            ["BindRequest", "version         3", "name            ", "authentication  sasl EXTERNAL"],
        ),
        (
            oracle.sasl_bind(b"", b"", b""),
            [
                "BindRequest",
                "version         3",
                "name            ",
                "authentication  sasl (no mechanism), 0 octets ***",
            ],
        ),
        (
            oracle.tlv(0x60, oracle.number(2) + oracle.octets(b"cn=x") + oracle.tlv(0x81, CANARY)),
            ["BindRequest", "version         2", "name            cn=x", "authentication  unknown choice 0x81"],
        ),
        (oracle.unbind(), ["UnbindRequest"]),
        (
            oracle.search(b"dc=example", FILTER, [b"cn", b"+"], 1, 3, 10, 20, True),
            [
                "SearchRequest",
                "baseObject      dc=example",
                "scope           singleLevel",
                "derefAliases    3",
                "sizeLimit       10",
                "timeLimit       20",
                "typesOnly       TRUE",
                "filter          (&(cn=al*)(userPassword=...))",
                "attributes      cn +",
            ],
        ),
        (
            oracle.search(b"", oracle.present(b"objectClass"), scope=0),
            [
                "SearchRequest",
                "baseObject      ",
                "scope           baseObject",
                "derefAliases    0",
                "sizeLimit       0",
                "timeLimit       0",
                "typesOnly       FALSE",
                "filter          (objectClass=*)",
                "attributes      (all user attributes)",
            ],
        ),
        (
            oracle.compare(b"cn=a", b"memberOf", b"cn=g\xff"),
            ["CompareRequest", "entry           cn=a", "attributeDesc   memberOf", "assertionValue  0x636e3d67ff"],
        ),
        (
            oracle.compare(b"cn=a", b"UserPassword;x", CANARY),
            ["CompareRequest", "entry           cn=a", "attributeDesc   UserPassword;x", "assertionValue  ***"],
        ),
        (oracle.abandon(300), ["AbandonRequest", "messageID       300"]),
        (
            oracle.extended(b"1.3.6.1.4.1.1466.20037"),
            ["ExtendedRequest", "requestName     1.3.6.1.4.1.1466.20037"],
        ),
        (
            oracle.extended(b"1.3.6.1.4.1.4203.1.11.1", CANARY),
            ["ExtendedRequest", "requestName     1.3.6.1.4.1.4203.1.11.1", "requestValue    8 octets"],
        ),
        (oracle.tlv(0x66, CANARY), ["ModifyRequest"]),
        (oracle.tlv(0x68, CANARY), ["AddRequest"]),
        (oracle.tlv(0x4A, b"cn=x"), ["DelRequest"]),
        (oracle.tlv(0x6C, b""), ["ModifyDNRequest"]),
        (oracle.result(0x61, 0), ["BindResponse"]),
        (oracle.entry(b"cn=x", []), ["SearchResultEntry"]),
        (oracle.result(0x65, 0), ["SearchResultDone"]),
        (oracle.tlv(0x5E, b""), ["unknown operation 0x5e"]),
    ],
    ids=lambda one: f"{one[0]:02x}" if isinstance(one, bytes) else "",
)
def test_every_operation_is_shown(operation: bytes, expected: list[str]) -> None:
    first, *rest = expected
    shown = [f"{first} messageID=7", *(f"  {line}" for line in rest)]
    assert lines(operation) == shown
    controls = ((b"1.2.3", True, b"\1\2"), (b"1.2.4", False, None))
    shown += ["  control         1.2.3 critical value=0102", "  control         1.2.4"]
    assert lines(operation, *controls) == shown


def test_every_message_is_a_block_of_its_own() -> None:
    data = oracle.message(1, oracle.bind(b"", b"")) + oracle.message(2, oracle.unbind())
    assert [block.split("\n")[0] for block in describe(data).split("\n\n")] == [
        "BindRequest messageID=1",
        "UnbindRequest messageID=2",
    ]


@pytest.mark.parametrize("name", [b"cn=\x1b[2J", b"a\nb", "a\u202eb".encode(), b"\xff"])
def test_what_is_shown_does_nothing_to_a_terminal(name: bytes) -> None:
    for operation in (oracle.bind(name, b""), oracle.compare(name, name, name), oracle.extended(name, name)):
        assert all(line.isprintable() for line in lines(operation, (name, True, name)))
    search = lines(oracle.search(name, oracle.assertion(0xA3, name, name), [name]))
    assert len(search) == 9 and all(line.isprintable() for line in search)


@pytest.mark.parametrize("tail", [b"\x30", b"\x30\x05\2", b"\0", b"\x30\x80"])
def test_a_message_that_is_none_hides_those_before_it(tail: bytes) -> None:
    """As the server would: what comes after cannot be trusted to be where it seems."""
    with pytest.raises(DecodeError):
        describe(oracle.message(1, oracle.unbind()) + tail)


def test_truncated_at_every_octet() -> None:
    data = oracle.message(7, oracle.search(b"dc=x", FILTER, [b"cn"]), [(b"1.2", True, b"")])
    assert describe(data)
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            describe(data[:size])


def test_the_limits_are_those_of_the_server() -> None:
    with pytest.raises(LimitExceeded):
        describe(oracle.message(1, oracle.unbind(), [(b"1.2", False, None)] * 33))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("3", 2),
        ("300", 2),
        ("30 05 02 01 01 42 0", 2),
        ("0x3005", 2),
        ("3005020101420g", 2),
        ("é", 2),
        ("30050201014200ff", 1),
        ("30060201014200", 1),
        ("3005020100 4200", 1),
        ("30050201014200", 0),
        ("30:05:02:01:01:42:00", 0),
        ("30 05 02 01 01 42 00\n", 0),
        ("3005\n0201\n014200", 0),
    ],
)
def test_broken_hex_is_2_and_a_broken_message_1(capsys: pytest.CaptureFixture[str], text: str, status: int) -> None:
    assert cli.main(("decode", "ldap", text)) == status
    out, err = capsys.readouterr()
    assert out == ("UnbindRequest messageID=1\n" if status == 0 else "")
    assert err.count("\n") == (1 if status else 0) and "Traceback" not in err
    assert not status or err.startswith("outpost: ")
