"""What each room's work looks like in a scrape and in the log."""

import json
import os
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from outpost._fastber import Limits, decode_message
from outpost.ldap.filter import parse_filter
from outpost.observe.authentik import AuthentikMeter
from outpost.observe.exposition import Exposition
from outpost.observe.ldap import LdapMeter
from outpost.observe.logs import LogWriter
from outpost.observe.metrics import totals
from outpost.observe.radius import RadiusMeter
from outpost.radius.observer import DropReason

CANARY = "canary-91c4"


class Desk:
    def __init__(self, read: int, write: int) -> None:
        self.exposition = Exposition()
        self.writer = LogWriter(write, is_json=True, level="debug")
        self._read, self._write = read, write

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        text = self.exposition.text().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[name, tuple(sorted(labels.items()))]

    def lines(self) -> list[dict[str, object]]:
        self.writer.stop()
        os.close(self._write)
        self._write = -1
        found = b""
        while octets := os.read(self._read, 65536):
            found += octets
        return [json.loads(line) for line in found.splitlines()]

    def close(self) -> None:
        self.writer.stop()
        os.close(self._read)
        if self._write >= 0:
            os.close(self._write)


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk(*os.pipe())
    yield found
    found.close()


def search(text: str):
    name = b"dc=example"
    body = bytes((4, len(name))) + name + bytes.fromhex("0a01020a0100020100020100010100") + parse_filter(text)
    body += b"\x30\x04\x04\x02cn"
    operation = b"\x02\x01\x07\x63" + bytes([len(body)]) + body
    return decode_message(b"\x30" + bytes([len(operation)]) + operation, Limits())


def test_ldap_names_and_labels_are_authentiks_in_seconds(desk) -> None:
    meter = LdapMeter(desk.writer, lambda: "hub")
    desk.exposition.add(meter.families)
    meter.bound("ldap", "192.0.2.1", b"cn=Alice,DC=x", 0.02, 0, "")
    meter.bound("ldap", "192.0.2.1", b"cn=alice,dc=x", 0.3, 49, "invalid_credentials")
    meter.searched("ldap", "192.0.2.1", b"cn=alice,dc=x", search("(&(cn=a*)(uid=*))"), 0.001, 0, "", 3)
    durations = "authentik_outpost_ldap_request_duration_seconds"
    labels = {"outpost_name": "hub", "type": "bind", "app": "ldap"}
    assert desk.value(f"{durations}_count", **labels) == 2
    assert desk.value(f"{durations}_sum", **labels) == pytest.approx(0.32)
    assert desk.value(f"{durations}_bucket", le="0.025", **labels) == 1
    assert desk.value(f"{durations}_bucket", le="0.5", **labels) == 2
    assert desk.value(f"{durations}_bucket", le="+Inf", **labels) == 2
    rejected = "authentik_outpost_ldap_requests_rejected_total"
    assert desk.value(rejected, reason="invalid_credentials", **labels) == 1
    assert desk.value("outpost_ldap_operations_total", type="search", result="0", app="ldap") == 1


def test_a_duration_on_a_bound_belongs_to_its_bucket(desk) -> None:
    meter = LdapMeter(desk.writer, lambda: "")
    desk.exposition.add(meter.families)
    meter.operated("compare", "a", "c", b"", 0.005, 6)
    labels = {"outpost_name": "", "type": "compare", "app": "a", "le": "0.005"}
    assert desk.value("authentik_outpost_ldap_request_duration_seconds_bucket", **labels) == 1


def test_ldap_connections_are_counted_up_and_down(desk) -> None:
    meter = LdapMeter(desk.writer, lambda: "")
    desk.exposition.add(meter.families)
    meter.connected("ldap")
    meter.connected("ldap")
    meter.disconnected("ldap", "192.0.2.1", "decode")
    assert desk.value("outpost_ldap_connections_open", listener="ldap") == 1
    assert desk.value("outpost_ldap_disconnects_total", listener="ldap", why="decode") == 1


def test_ldap_request_lines(desk) -> None:
    meter = LdapMeter(desk.writer, lambda: "")
    meter.bound("ldap", "192.0.2.1", b"cn=Alice,DC=x", 0.02, 49, "invalid_credentials")
    meter.searched("ldap", "192.0.2.1", b"cn=\xff", search("(cn=a*)"), 0.001, 0, "", 3)
    bind, found = desk.lines()
    assert (bind["event"], bind["bindDN"], bind["client"]) == ("Bind request", "cn=alice,dc=x", "192.0.2.1")
    assert (bind["took-ms"], bind["reason"], bind["result"]) == (20.0, "invalid_credentials", 49)
    assert (found["event"], found["filter"], found["scope"]) == ("Search request", "(cn=a*)", "Whole Subtree")
    assert (found["attributes"], found["baseDN"], found["bindDN"]) == (["cn"], "dc=example", "cn=\\xff")
    assert bind["requestId"] != found["requestId"]


def test_a_refused_bind_is_explained_in_words(desk) -> None:
    meter = LdapMeter(desk.writer, lambda: "hub")
    meter.explained("app", "192.0.2.1", b"cn=Alice,DC=x", "the flow 'f' asked for a WebAuthn device")
    (line,) = desk.lines()
    assert line["event"] == "Login explained"
    assert (line["bindDN"], line["client"], line["app"]) == ("cn=alice,dc=x", "192.0.2.1", "app")
    assert line["detail"] == "the flow 'f' asked for a WebAuthn device"


def test_radius_names_labels_and_lines(desk) -> None:
    meter = RadiusMeter(desk.writer, lambda: "hub")
    desk.exposition.add(meter.families)
    meter.answered(1, 2, "wifi", "192.0.2.9", "alice", "", 0.001, True)
    meter.answered(1, 3, "wifi", "192.0.2.9", "bob\nforged", "invalid_credentials", 0.5, False)
    meter.dropped(DropReason.UNKNOWN_CLIENT, "")
    meter.noticed(DropReason.UNKNOWN_CLIENT, "", "198.51.100.1", 4)
    meter.resent("wifi")
    meter.answered(12, 2, "wifi", "192.0.2.9", "", "", 0.001, True)
    meter.challenges(5, 2, 1)
    meter.explained("wifi", "192.0.2.9", "bob", "why")
    assert desk.value("authentik_outpost_radius_request_duration_seconds_count", outpost_name="hub", app="wifi") == 2
    rejected = "authentik_outpost_radius_requests_rejected_total"
    assert desk.value(rejected, outpost_name="hub", app="wifi", reason="invalid_credentials") == 1
    assert desk.value("outpost_radius_replies_total", code="Access-Accept", signed="true", app="wifi") == 1
    assert desk.value("outpost_radius_dropped_total", reason="unknown_client", app="") == 1
    assert desk.value("outpost_radius_challenges_pending") == 1
    assert desk.value("outpost_radius_status_total", app="wifi") == 1, "asking for health is no login"
    accept, reject, drop, status, detail = desk.lines()
    assert (status["level"], status["code"], status["reply"]) == ("debug", "Status-Server", "Access-Accept")
    assert (accept["event"], accept["reply"], "reason" in accept) == ("Radius Request", "Access-Accept", False)
    assert (reject["username"], reject["reason"]) == ("bob\nforged", "invalid_credentials")
    assert (drop["reason"], drop["suppressed"]) == ("unknown_client", 4)
    assert detail["detail"] == "why"


def test_authentik_names_and_labels(desk) -> None:
    meter = AuthentikMeter(desk.writer, "b1")
    desk.exposition.add(meter.families)
    meter.outpost("ldap", "hub", "u-1", "2025.10")
    meter.refreshed("ldap", 1700000000.0)
    meter.connection("ldap", True)
    meter.connection("radius", False)
    meter.flow_request("post", "ak-stage-password", "login", 0.2)
    five = {"outpost_name": "hub", "outpost_type": "ldap", "uuid": "u-1", "version": "2025.10", "build": "b1"}
    assert desk.value("authentik_outpost_info", **five) == 1
    assert desk.value("authentik_outpost_last_update", **five) == 1700000000
    assert desk.value("authentik_outpost_connection", outpost_name="hub", outpost_type="ldap", uuid="u-1") == 1
    timing = "authentik_outpost_flow_timing_post_seconds_count"
    assert desk.value(timing, stage="ak-stage-password", flow="login") == 1
    assert meter.outpost_name("ldap") == "hub"


def test_the_outposts_decide_what_is_logged_unless_the_operator_does(desk) -> None:
    meter = AuthentikMeter(desk.writer, follows_level=True)
    meter.level("ldap", "warning")
    assert not desk.writer.wants("info")
    meter.level("radius", "debug")
    meter.level("radius", "deafening")
    assert desk.writer.wants("debug"), "the one that tells more"
    meter.level("radius", "error")
    assert desk.writer.wants("warning")
    assert not desk.writer.wants("info")
    own = AuthentikMeter(desk.writer)
    own.level("ldap", "trace")
    assert not desk.writer.wants("info")


def test_counters_of_other_rooms(desk) -> None:
    desk.exposition.add(lambda: totals("outpost_credentials", "Credentials", {"cache_hits": 3}))
    assert desk.value("outpost_credentials_cache_hits_total") == 3


@pytest.mark.parametrize("of", [LdapMeter, RadiusMeter])
def test_a_bug_is_told_with_its_place_and_without_what_it_may_quote(desk, of: Callable) -> None:
    meter = of(desk.writer, lambda: "")
    identifier = meter.failed("it failed", RuntimeError(CANARY))
    assert CANARY not in identifier
    (line,) = desk.lines()
    assert line["id"] == identifier
    assert line["error"] == "RuntimeError"
    assert CANARY not in repr(line)
