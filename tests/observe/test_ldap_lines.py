"""Lines about LDAP requests: what is rendered in C is, octet for octet, what the slow way makes of the same."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost._fastber import Limits, decode_message
from outpost.ldap.filter import SECRETS, filter_text, parse_filter
from outpost.observe._ldap_lines import LdapLines
from outpost.observe._lines import Lines
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter, render_json

NAMES = st.sampled_from(["cn", "uid", "mail", "objectClass", "x;lang-de", "2.5.4.3", "a_b", "userPassword", "2.5.4.35"])
VALUES = st.text(st.sampled_from("abcXYZ019@._ ,=:/+-"), max_size=12) | st.text(max_size=6)


class Both:
    """The same told twice: to a meter as it is, and to one whose lines are all made apart."""

    def __init__(self) -> None:
        self.fast, self.slow = Lines(1000, lambda: None), Lines(1000, lambda: None)

    def lines(self, tell) -> tuple[bytes, bytes]:
        fast, slow = _meter(self.fast, is_json=True), _meter(self.slow, is_json=False)
        tell(fast)
        tell(slow)
        return _taken(self.fast), _taken(self.slow)


class _Log:
    def __init__(self, lines: Lines, is_json: bool) -> None:
        self.lines, self.is_json = lines, is_json

    def wants(self, level: str) -> bool:
        return True


def _meter(lines: Lines, is_json: bool) -> LdapMeter:
    return LdapMeter(_Log(lines, is_json), lambda: "")  # type: ignore[arg-type]


def _taken(lines: Lines) -> bytes:
    out = b""
    while (found := lines.take()) is not None:
        line = found[0]
        out += line if isinstance(line, bytes) else render_json(line)  # type: ignore[arg-type]
    return re.sub(rb'"timestamp":"[^"]*"', b'"timestamp":""', out)


def search(filter: bytes, base: bytes, attributes: list[bytes], scope: int = 2):
    def element(tag: int, content: bytes) -> bytes:
        return bytes((tag, 0x84)) + len(content).to_bytes(4, "big") + content

    body = element(4, base) + bytes((0x0A, 1, scope)) + bytes.fromhex("0a0100020100020100010100") + filter
    body += element(0x30, b"".join(element(4, one) for one in attributes))
    return decode_message(element(0x30, b"\x02\x01\x07" + element(0x63, body)), Limits())


def same(tell) -> dict[str, object]:
    fast, slow = Both().lines(tell)
    assert fast == slow
    return json.loads(fast)


DNS = st.binary(max_size=40) | st.text(max_size=30).map(lambda t: t.encode("utf-8", "replace"))
TOOK = st.integers(0, 10**9).map(lambda n: n / 1e6)


@given(DNS, TOOK, st.integers(0, 123), st.sampled_from(["", "invalid_credentials"]), st.text(max_size=9))
def test_binds(dn: bytes, took: float, code: int, reason: str, client: str) -> None:
    client = client.encode("utf-8", "replace").decode()
    line = same(lambda meter: meter.bound("app", client, dn, took, code, reason))
    assert line["event"] == "Bind request"


@given(DNS, TOOK, st.sampled_from(["compare", "extended", "modifyDN"]))
def test_other_operations(dn: bytes, took: float, kind: str) -> None:
    assert same(lambda meter: meter.operated(kind, "app", "::1", dn, took, 6))["operation"] == kind


def filters() -> st.SearchStrategy[str]:
    def escaped(value: str) -> str:
        return "".join(
            f"\\{o:02x}" if chr(o) in "()*\\\0" or o > 126 else chr(o) for o in value.encode("utf-8", "replace")
        )

    values = VALUES.map(escaped)
    items = st.one_of(
        st.builds("({}{}{})".format, NAMES, st.sampled_from(["=", ">=", "<=", "~="]), values),
        st.builds("({}=*)".format, NAMES),
        st.builds("({}={}*{}*{})".format, NAMES, values, values, values),
        st.builds("({}={}*)".format, NAMES, values),
        st.builds("({}=*{})".format, NAMES, values),
        st.builds("({}:dn:={})".format, NAMES, values),
    )
    return st.recursive(
        items,
        lambda inner: st.one_of(
            st.builds("(!{})".format, inner),
            st.builds(lambda sign, of: f"({sign}{''.join(of)})", st.sampled_from("&|"), st.lists(inner, max_size=4)),
        ),
        max_leaves=8,
    )


@given(filters(), DNS, DNS, st.lists(DNS, max_size=3), st.integers(0, 2), TOOK)
def test_searches(text: str, dn: bytes, base: bytes, attributes: list[bytes], scope: int, took: float) -> None:
    request = search(parse_filter(text), base, attributes, scope)
    line = same(lambda meter: meter.searched("app", "192.0.2.1", dn, request, took, 0, "", 3))
    assert line["filter"] == filter_text(request.filter)


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("form", ["({}=abc)", "({}=abc*)", "({};x=abc)", "(&(cn=a)({}>=abc))"])
def test_passwords_in_filters_are_not_told(name: bytes, form: str) -> None:
    for spelling in (name.decode(), name.decode().upper()):
        request = search(parse_filter(form.format(spelling)), b"dc=x", [])
        line = same(lambda meter, request=request: meter.searched("app", "c", b"", request, 0.1, 0, "", 0))
        assert "abc" not in str(line["filter"])


def test_what_is_long_is_cut_alike() -> None:
    long = b"cn=" + b"a" * 2000
    for filter in (b"(cn=%s)" % (b"x" * 900), b"(cn=%s)" % (b"x" * 2000), b"(&%s)" % (b"(cn=abc)" * 120)):
        request = search(parse_filter(filter.decode()), long, [long, b"mail"])
        same(lambda meter, request=request: meter.searched("app", "c", long, request, 0.1, 0, "", 0))
    same(lambda meter: meter.bound("app", "c", long, 0.1, 0, ""))


def test_plain_requests_are_rendered_at_once_and_odd_ones_are_not() -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("made apart")

    lines = Lines(10, lambda: None)
    fast = LdapLines(lines, unexpected, unexpected)
    request = search(parse_filter("(&(objectClass=user)(|(mail=a*)(!(cn=*b*c))(uidNumber>=7)))"), b"dc=x", [b"*", b"+"])
    fast.search(0.0, "192.0.2.1", b"cn=A", request, 0.1, 0, "", 1)
    fast.bind(0.0, "192.0.2.1", b"cn=A", 0.1, 0, "")
    fast.operation(0.0, "compare", "192.0.2.1", b"cn=A", 0.1, 6)
    assert lines.waiting == 3
    with pytest.raises(AssertionError, match="apart"):
        fast.bind(0.0, "192.0.2.1", "cn=Ä".encode(), 0.1, 0, "")
    assert fast.number() == 5


def test_a_full_queue_takes_no_line_and_counts_it(tmp_path) -> None:
    lines = Lines(1, lambda: None)
    fast = LdapLines(lines, lambda *_: None, lambda *_: None)
    request = search(parse_filter("(cn=a)"), b"dc=x", [])
    for _ in range(2):
        fast.bind(0.0, "c", b"", 0.1, 0, "")
        fast.search(0.0, "c", b"", request, 0.1, 0, "", 1)
        fast.operation(0.0, "compare", "c", b"", 0.1, 6)
    assert (lines.waiting, lines.dropped) == (1, 5)


def test_a_writer_of_text_gets_readable_lines(tmp_path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as there:
        log = LogWriter(there.fileno(), is_json=False)
        LdapMeter(log, lambda: "").bound("app", "192.0.2.1", b"cn=A", 0.1, 0, "")
        log.stop()
    assert 'Bind request bindDN="cn=a" client=192.0.2.1 requestId=1 result=0 took-ms=100.0' in path.read_text()
