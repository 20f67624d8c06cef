"""The server over real sockets, octet by octet."""

import asyncio
import struct

import pytest

from outpost.identity import (
    Challenge,
    Mode,
    People,
    Rejected,
    RejectReason,
    Revoked,
    Served,
    Unavailable,
    UnavailableReason,
)
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from tests.ldap import decode, encode
from tests.ldap.testbed import ALICE, BASE, SERVICE, bed, people, provider, trusting

NOTICE = b"1.3.6.1.4.1.1466.20036"


# -- bind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        (ALICE, "alice-pw", 0),
        ("CN=Alice,OU=Users,DC=LDAP,dc=goauthentik,DC=io", "alice-pw", 0),
        (f"cn=alice,{BASE}", "alice-pw", 0),
        (f"ou=x,cn=alice,{BASE}", "alice-pw", 0),
        (f"cn = alice , ou=users, {BASE}", "alice-pw", 0),
        (ALICE, "wrong", 49),
        (ALICE, "alice-pw ", 49),
        (f"cn=nobody,ou=users,{BASE}", "x", 49),
        (ALICE, "", 53),
        ("", "", 0),
        ("", "x", 50),
        ("cn=alice,dc=elsewhere", "alice-pw", 50),
        ("alice", "alice-pw", 50),
        (BASE, "x", 50),
        ("cn=alice\\", "alice-pw", 50),
        (f"cn=alice\\2c{BASE}", "alice-pw", 50),
    ],
)
async def test_simple_bind(name: str, password: str, code: int) -> None:
    async with bed() as there:
        client = await there.client()
        assert await client.bind(name, password) == code
        assert there.seen.binds[-1][1] == code
        assert (await client.search("", scope=0))[0] == 0, "a refusal closes nothing"


@pytest.mark.parametrize(
    ("decision", "code"),
    [
        (Rejected(RejectReason.ACCESS_DENIED), 50),
        (Rejected(RejectReason.FLOW_ERROR), 49),
        (Rejected(RejectReason.CODE_REQUIRED), 49),
        (Rejected(RejectReason.THROTTLED), 49),
        (Challenge("code", object()), 49),
        (Unavailable(UnavailableReason.BUSY), 51),
        (Unavailable(UnavailableReason.BACKEND_DOWN), 52),
        (Unavailable(UnavailableReason.INTERNAL), 80),
        (RuntimeError("a bug"), 80),
    ],
)
async def test_every_decision_has_its_code_and_only_one_is_success(decision: object, code: int) -> None:
    async with bed() as there:
        there.authority.script["alice"] = decision  # type: ignore[assignment]
        client = await there.client()
        assert await client.bind(ALICE, "alice-pw") == code
        assert (await client.search(BASE))[0] == 50


async def test_a_failed_bind_leaves_nobody_bound() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert (await client.search(BASE))[0] == 0
        assert await client.bind(SERVICE, "wrong") == 49
        assert (await client.search(BASE))[0] == 50
        assert there.sessions.held == []


async def test_other_versions_and_mechanisms() -> None:
    async with bed() as there:
        client = await there.client()
        assert await client.bind(ALICE, "alice-pw", version=2) == 2
        for mechanism, code in (("PLAIN", 13), ("EXTERNAL", 7), ("GSSAPI", 7), ("", 7)):
            client.send(encode.sasl_bind(client.next_id, mechanism, b"\0alice\0alice-pw"))
            assert decode.result((await client.message()).content)[0] == code
        assert there.authority.asked == []


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        (b"\0alice\0alice-pw", 0),
        (b"\0" + ALICE.encode() + b"\0alice-pw", 0),
        (b"alice\0alice\0alice-pw", 0),
        (b"u:alice\0alice\0alice-pw", 0),
        (b"bob\0alice\0alice-pw", 49),
        (b"\0alice\0wrong", 49),
        (b"\0alice\0", 53),
        (b"\0\0x", 49),
        (b"alice", 49),
        (b"\0alice\0alice-pw\0", 49),
        (b"", 49),
    ],
)
async def test_sasl_plain_over_tls(credentials: bytes, code: int) -> None:
    async with bed() as there:
        client = await there.client(tls=trusting())
        client.send(encode.sasl_bind(client.next_id, "PLAIN", credentials))
        assert decode.result((await client.message()).content)[0] == code
        assert (await client.search(BASE))[0] == (0 if code == 0 else 50)


async def test_what_follows_a_bind_waits_for_it() -> None:
    async with bed() as there:
        there.authority.hold = asyncio.Event()
        client = await there.client()
        client.send(encode.bind(1, SERVICE, "service-pw"), encode.search(2, ALICE, scope=0), encode.unbind(3))
        while not there.authority.asked:
            await asyncio.sleep(0.001)
        other = await there.client()
        assert (await other.search("", scope=0))[0] == 0, "others do not wait"
        there.authority.hold.set()
        assert [(await client.message()).message_id for _ in range(3)] == [1, 2, 2]
        assert await client.is_closed()
        assert there.seen.searches[-1] == (0, "", 1)


async def test_a_client_that_leaves_during_its_bind_disturbs_nobody() -> None:
    async with bed() as there:
        there.authority.hold = asyncio.Event()
        client = await there.client()
        client.send(encode.bind(1, ALICE, "alice-pw"))
        while not there.authority.asked:
            await asyncio.sleep(0.001)
        client.writer.transport.abort()
        other = await there.client()
        assert (await other.search("", scope=0))[0] == 0
        there.authority.hold.set()
        while there.server.open > 1:
            await asyncio.sleep(0.001)
        assert there.sessions.held == []


# -- search ---------------------------------------------------------------------------------------


async def test_scopes_filters_and_attributes() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert len((await client.search(BASE))[1]) == 1 + 3 + 3 + 1 + 3
        assert len((await client.search(f"ou=users,{BASE}", scope=1))[1]) == 3
        _, [entry], _ = await client.search(ALICE, scope=0, attributes=["MAIL", "memberOf"])
        assert dict(entry.attributes) == {
            b"mail": [b"alice@example.com"],
            b"memberOf": [f"cn=labstaff,ou=groups,{BASE}".encode()],
        }
        code, [entry], _ = await client.search(BASE, "(&(objectClass=user)(cn=ALICE))", attributes=["1.1"])
        assert (code, entry.dn, entry.attributes) == (0, ALICE.encode(), [])
        code, _, done = await client.search(f"cn=nobody,ou=users,{BASE}", scope=0)
        assert decode.result(done.content)[:2] == (32, f"ou=users,{BASE}".encode())
        assert (await client.search("cn=x,dc=elsewhere"))[0] == 32
        assert (await client.search("nonsense"))[0] == 34
        assert (await client.search(BASE, size_limit=2))[0] == 4


async def test_a_user_sees_himself_only() -> None:
    async with bed() as there:
        client = await there.client("alice")
        _, found, _ = await client.search(BASE, "(objectClass=person)")
        assert [one.dn for one in found] == [ALICE.encode()]
        assert (await client.search(f"cn=bob,ou=users,{BASE}", scope=0))[0] == 32


async def test_anonymous_reads_the_root_dse_and_nothing_else() -> None:
    async with bed() as there:
        client = await there.client()
        code, [root], _ = await client.search("", scope=0, attributes=["namingContexts", "+"])
        assert code == 0
        assert (b"namingContexts", [BASE.encode()]) in root.attributes
        for base in (BASE, ALICE, "cn=subschema", f"ou=users,{BASE}"):
            assert (await client.search(base, scope=0))[0:2] == (50, [])
        client.send(encode.compare(9, ALICE, "cn", "alice"))
        assert decode.result((await client.message()).content)[0] == 50


async def test_the_subschema() -> None:
    async with bed() as there:
        client = await there.client("alice")
        for filter in ("(objectClass=*)", "(objectClass=subschema)", "(&(objectClass=subschema)(cn=sub*))"):
            _, [entry], _ = await client.search("cn=Subschema", filter, scope=0)
            assert {b"attributeTypes", b"objectClasses", b"matchingRules"} <= {name for name, _ in entry.attributes}
        for filter in ("(objectClass=person)", "(!(objectClass=*))", "(unknown=x)", "(!(unknown=x))"):
            assert (await client.search("cn=subschema", filter, scope=0))[1] == []


async def test_before_the_first_directory_searches_are_busy_and_binds_work() -> None:
    async with bed(is_empty=True) as there:
        client = await there.client("ldapservice")
        assert (await client.search(BASE))[0] == 51
        await there.change(people())
        assert (await client.search(BASE))[0] == 0


async def test_who_came_after_the_directory_was_read_is_looked_up() -> None:
    async with bed() as there:
        full = there.roster.people
        assert full is not None
        client = await there.client("alice")
        await there.change(People(full.users[1:], (), 2, 0.0))
        there.roster.people = full
        assert [one.dn for one in (await client.search(BASE, "(cn=alice)"))[1]][:1] == [ALICE.encode()]
        assert there.roster.fetched[-1].user_pk == 1
        there.roster.is_down = True
        assert (await client.search(BASE, "(cn=alice)"))[0] == 52


async def test_direct_mode_asks_each_time_for_as_little_as_it_can() -> None:
    async with bed(providers=[provider(search_mode=Mode.DIRECT)]) as there:
        client = await there.client("ldapservice")
        assert len((await client.search(ALICE, scope=0))[1]) == 1
        assert there.roster.fetched[-1].username == "alice"
        await client.search(BASE, "(&(objectClass=user)(cn=alice))")
        assert there.roster.fetched[-1].username == "alice"
        await client.search(BASE, "(cn=alice)")
        assert there.roster.fetched[-1].username is None, "a group may have that name"
        there.roster.is_down = True
        assert (await client.search(ALICE, scope=0))[0] == 52
        client.send(encode.compare(99, ALICE, "cn", "alice"))
        assert decode.result((await client.message()).content)[0] == 52


async def test_large_results_stream_and_a_slow_reader_holds_only_himself_up() -> None:
    async with bed(directory=people(3000)) as there:
        slow, quick = await there.client("ldapservice"), await there.client("ldapservice")
        for _ in range(20):
            slow.send(encode.search(slow.next_id, BASE, attributes=["*", "+"]))
        while not any(channel.stalled_at is not None for channel in there.server._channels):
            await asyncio.sleep(0.005)
        assert (await quick.search(ALICE, scope=0))[0] == 0
        done = entries = 0
        while done < 20:
            found = await slow.message()
            done += found.tag == 0x65
            entries += found.tag == 0x64
        assert entries == 20 * (5 + 3000 * 2)


async def test_abandon_and_cancel_stop_work() -> None:
    async with bed(directory=people(3000)) as there:
        client = await there.client("ldapservice")
        for _ in range(4):
            client.send(encode.search(client.next_id, BASE, attributes=["*", "+"]))
        last = client.next_id
        client.send(encode.search(last, BASE, attributes=["*", "+"]), encode.abandon(client.next_id, last))
        cancelled = client.next_id
        client.send(encode.search(cancelled, BASE, attributes=["*", "+"]))
        cancel = encode.extended(client.next_id, "1.3.6.1.1.8", encode.tlv(0x30, encode.integer(cancelled)))
        client.send(cancel)
        codes = {}
        while client._next not in codes:
            found = await client.message()
            if found.tag != 0x64:
                codes[found.message_id] = decode.result(found.content)[0]
        assert codes[cancelled] == 118
        assert codes[client._next] == 0
        client.send(encode.extended(client.next_id, "1.3.6.1.1.8", encode.tlv(0x30, encode.integer(4711))))
        while (found := await client.message()).message_id != client._next:
            assert found.message_id != last or found.tag == 0x64
        assert decode.result(found.content)[0] == 119
        assert -1 in [code for code, _, _ in there.seen.searches]


async def test_time_limits() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.4
        return now[0]

    async with bed(directory=people(2000), clock=clock) as there:
        client = await there.client("ldapservice")
        assert (await client.search(BASE, attributes=["*", "+"], time_limit=1))[0] == 3
        assert (await client.search(ALICE, scope=0, time_limit=5))[0] == 0


async def test_the_servers_own_limits() -> None:
    limits = SearchLimits(size_limit=4, sort_entries=5)
    async with bed(search_limits=limits) as there:
        client = await there.client("ldapservice")
        code, entries, _ = await client.search(BASE)
        assert (code, len(entries)) == (4, 4)
        sort = encode.control("1.2.840.113556.1.4.473", True, encode.tlv(0x30, encode.tlv(0x30, encode.octets("cn"))))
        assert (await client.search(BASE, controls=[sort]))[0] == 12


# -- other operations -----------------------------------------------------------------------------


async def test_an_entry_without_a_sort_key_is_not_sorted_by_another() -> None:
    async with bed() as served:
        client = await served.client("ldapservice")
        keys = [encode.tlv(0x30, encode.octets(name)) for name in ("sn", "cn")]
        control = encode.control("1.2.840.113556.1.4.473", True, encode.tlv(0x30, *keys))
        code, entries, _ = await client.search(
            BASE, "(|(cn=alice)(objectClass=group))", ["sn", "cn"], scope=2, controls=[control]
        )
        # Those without sn come last (RFC 2891 2.2), in the order of their cn.
        assert (code, [e["cn"] for e in entries if "sn" in e.names]) == (0, [[b"alice"]])
        assert "sn" in entries[0].names
        without = [e["cn"][0] for e in entries[1:]]
        assert len(without) > 2 and without == sorted(without)
        # The same order where the client wants no values.
        _, bare, _ = await client.search(
            BASE, "(|(cn=alice)(objectClass=group))", types_only=True, scope=2, controls=[control]
        )
        assert [e.dn for e in bare] == [e.dn for e in entries]


@pytest.mark.parametrize(
    ("entry", "attribute", "value", "code"),
    [
        (ALICE, "cn", "ALICE", 6),
        (ALICE, "mail", "bob@example.com", 5),
        (ALICE, "memberOf", f"CN=labstaff, ou=groups,{BASE}", 6),
        (ALICE, "street", "x", 16),
        (ALICE, "nonsense", "x", 17),
        (ALICE, "uidNumber", "abc", 21),
        (f"cn=nobody,ou=users,{BASE}", "cn", "x", 32),
        ("nonsense", "cn", "x", 34),
    ],
)
async def test_compare(entry: str, attribute: str, value: str, code: int) -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        client.send(encode.compare(7, entry, attribute, value))
        found = await client.message()
        assert (found.tag, decode.result(found.content)[0]) == (0x6F, code)


async def test_compare_sees_no_more_than_search() -> None:
    async with bed() as there:
        client = await there.client("alice")
        users = f"ou=users,{BASE}"
        for entry, code, matched in (
            (ALICE, 6, ""),
            (f"cn=bob,{users}", 32, users),
            (f"cn=x,cn=bob,{users}", 32, users),
            (f"cn=x,{ALICE}", 32, ALICE),
            ("dc=elsewhere", 32, ""),
        ):
            client.send(encode.compare(client.next_id, entry, "objectClass", "person"))
            assert decode.result((await client.message()).content)[:2] == (code, matched.encode())


async def test_writes_are_refused_with_a_sentence() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        for tag, answer in ((0x66, 0x67), (0x68, 0x69), (0x4A, 0x6B), (0x6C, 0x6D)):
            client.send(encode.message(client.next_id, encode.tlv(tag, ALICE.encode())))
            found = await client.message()
            assert (found.tag, decode.result(found.content)[0]) == (answer, 53)
            assert decode.result(found.content)[2]


async def test_who_am_i() -> None:
    async with bed() as there:
        client = await there.client()
        for name in ("", ALICE):
            if name:
                assert await client.bind(name, "alice-pw") == 0
            client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3"))
            values = dict(decode.elements((await client.message()).content))
            assert values[0x8B] == (b"dn:" + name.encode() if name else b"")
        client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3", b"x"))
        assert decode.result((await client.message()).content)[0] == 2
        client.send(encode.extended(client.next_id, "1.2.3.4"))
        assert decode.result((await client.message()).content)[0] == 2


async def test_a_bind_that_is_refused_for_its_controls_ends_the_session_before_it() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert await client.bind(SERVICE, "service-pw", controls=[encode.control("9.9.9", True)]) == 12
        # RFC 4513 4: anonymous until a Bind succeeds.
        assert (await client.search(BASE))[:2] == (50, [])
        client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3"))
        assert b"dn:" not in (await client.message()).content


async def test_critical_controls_that_are_unknown_are_refused_everywhere() -> None:
    unknown = [encode.control("1.2.3.4", True)]
    harmless = [encode.control("1.2.3.4", False)]
    async with bed() as there:
        client = await there.client()
        client.send(encode.bind(client.next_id, ALICE, "alice-pw", controls=unknown))
        assert decode.result((await client.message()).content)[0] == 12
        client.send(encode.bind(client.next_id, ALICE, "alice-pw", controls=harmless))
        assert decode.result((await client.message()).content)[0] == 0
        assert (await client.search(ALICE, controls=unknown))[0] == 12
        assert (await client.search(ALICE, controls=harmless))[0] == 0
        client.send(encode.compare(client.next_id, ALICE, "cn", "alice", unknown))
        assert decode.result((await client.message()).content)[0] == 12
        client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3", None, unknown))
        assert decode.result((await client.message()).content)[0] == 12


# -- the connection -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 2),
        (b"\x30\x80\x02\x01\x01\x42\x00\x00\x00", 2),
        (b"\x30\x05\x02\x01\x00\x42\x00", 2),
        (b"\x30\x84\x7f\xff\xff\xff", 11),
        (encode.message(1, encode.tlv(0x65, b"")), 2),
        (b"\xff" * 100, 2),
    ],
)
async def test_what_is_no_ldap_ends_with_a_notice_and_hurts_nobody_else(octets: bytes, code: int) -> None:
    async with bed() as there:
        other = await there.client("alice")
        client = await there.client()
        client.send(octets)
        found = await client.message()
        assert (found.message_id, found.tag) == (0, 0x78)
        assert decode.result(found.content)[0] == code
        assert dict(decode.elements(found.content))[0x8A] == NOTICE
        assert await client.is_closed()
        assert (await other.search(ALICE, scope=0))[0] == 0


async def test_more_may_be_said_after_a_bind() -> None:
    limits = ServerLimits(message_anonymous=200, message=4096)
    filter = "(|" + "(cn=somebody)" * 50 + ")"
    async with bed(limits=limits) as there:
        client = await there.client("alice")
        assert (await client.search(BASE, filter))[0] == 0
        assert await client.bind("", "") == 0
        client.send(encode.search(client.next_id, "", filter))
        assert decode.result((await client.message()).content)[0] == 11
        assert await client.is_closed()


async def test_one_octet_at_a_time() -> None:
    async with bed() as there:
        client = await there.client()
        for octet in encode.bind(1, ALICE, "alice-pw"):
            client.send(bytes([octet]))
            await asyncio.sleep(0)
        assert decode.result((await client.message()).content)[0] == 0


async def test_half_closing_still_gets_the_answer() -> None:
    async with bed() as there:
        there.authority.hold = asyncio.Event()
        client = await there.client()
        client.send(encode.bind(1, ALICE, "alice-pw"))
        client.writer.write_eof()
        while not there.authority.asked:
            await asyncio.sleep(0.001)
        there.authority.hold.set()
        assert decode.result((await client.message()).content)[0] == 0
        assert await client.is_closed()


async def test_a_bug_costs_one_answer() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        shelf = there.directories.shelves[1]
        there.directories.shelves[1] = "broken"  # type: ignore[assignment]
        code, _, done = await client.search(BASE)
        assert code == 80
        assert b"e1" in decode.result(done.content)[2]
        assert len(there.seen.failures) == 1
        there.directories.shelves[1] = shelf
        assert (await client.search(BASE))[0] == 0


async def test_a_connection_counts_once_during_its_handshake() -> None:
    async with bed(limits=ServerLimits(connections=3)) as there:
        silent = [await asyncio.open_connection("127.0.0.1", there.tls_port) for _ in range(2)]
        while there.server.open < 2:
            await asyncio.sleep(0.001)
        third = await there.client()
        assert (await third.search("", scope=0))[0] == 0
        fourth = await there.client()
        assert await fourth.is_closed()
        assert there.seen.refused == ["too_many"]
        for _, writer in silent:
            writer.close()
        while there.server.open > 1:
            await asyncio.sleep(0.001)
        again = await there.client(tls=trusting())
        assert (await again.search("", scope=0))[0] == 0


async def test_connections_are_limited() -> None:
    async with bed(limits=ServerLimits(connections=3, connections_of_address=2)) as there:
        clients = [await there.client() for _ in range(2)]
        assert [(await one.search("", scope=0))[0] for one in clients] == [0, 0]
        third = await there.client()
        assert await third.is_closed()
        assert there.seen.refused == ["too_many_of_address"]
        await clients[0].close()
        while there.server.open > 1:
            await asyncio.sleep(0.001)
        again = await there.client()
        assert (await again.search("", scope=0))[0] == 0


async def test_idle_and_stalled_connections_end() -> None:
    now = [0.0]
    async with bed(clock=lambda: now[0], directory=people(3000)) as there:
        anonymous, bound, stalled = await there.client(), await there.client("alice"), await there.client("ldapservice")
        for _ in range(20):
            stalled.send(encode.search(stalled.next_id, BASE, attributes=["*", "+"]))
        while not any(channel.stalled_at is not None for channel in there.server._channels):
            await asyncio.sleep(0.005)
        now[0] = 61.0
        there.server._swept()
        while there.server.open > 1:
            await asyncio.sleep(0.001)
        assert sorted(there.seen.ends) == ["idle", "stalled"]
        assert decode.result((await anonymous.message()).content)[0] == 52
        assert (await bound.search(ALICE, scope=0))[0] == 0
        now[0] = 1000.0
        there.server._swept()
        assert decode.result((await bound.message()).content)[0] == 52


@pytest.mark.parametrize(
    ("revoked", "ends"),
    [
        (Revoked(), True),
        (Revoked(user_pk=1), True),
        (Revoked(session="session-1"), True),
        (Revoked(provider_pk=1, service="ldap"), True),
        (Revoked(user_pk=2), False),
        (Revoked(session="session-2"), False),
        (Revoked(provider_pk=1, service="radius"), False),
        (Revoked(provider_pk=2, service="ldap"), False),
    ],
)
async def test_revocation_ends_the_connections_that_rest_on_it(revoked: Revoked, ends: bool) -> None:
    async with bed() as there:
        client, other = await there.client("alice"), await there.client()
        there.gate.publish(revoked)
        if ends:
            assert decode.result((await client.message()).content)[0] == 8
            assert await client.is_closed()
        else:
            assert (await client.search(ALICE, scope=0))[0] == 0
        assert (await other.search("", scope=0))[0] == 0


async def test_a_provider_that_is_gone_takes_its_connections_along() -> None:
    second = provider(2, "dc=second", slug="two")
    async with bed(providers=[provider(), second]) as there:
        client, other = await there.client("alice"), await there.client()
        assert await other.bind("cn=bob,dc=second", "bob-pw") == 0
        assert (await other.search(BASE))[0] == 50, "each provider is a world of its own"
        await there.serve(Served(ldap=(second,)))
        assert decode.result((await client.message()).content)[0] == 52
        assert (await other.search("dc=second"))[0] == 0
        assert await other.bind(ALICE, "alice-pw") == 50


async def test_stopping_says_goodbye() -> None:
    async with bed() as there:
        client, busy = await there.client("alice"), await there.client()
        there.authority.hold = asyncio.Event()
        busy.send(encode.bind(1, f"cn=bob,{BASE}", "bob-pw"))
        while len(there.authority.asked) < 2:
            await asyncio.sleep(0.001)
        stopping = asyncio.ensure_future(there.server.stop(5.0))
        assert decode.result((await client.message()).content)[0] == 52
        assert await client.is_closed()
        there.authority.hold.set()
        assert decode.result((await busy.message()).content)[0] == 0, "what is in work is answered"
        assert dict(decode.elements((await busy.message()).content))[0x8A] == NOTICE
        await stopping


async def test_stopping_does_not_wait_for_what_has_not_begun() -> None:
    """A Bind waits for the search before it (RFC 4511 4.2.1): at a stop it is as good as not sent."""
    async with bed(providers=[provider(search_mode=Mode.DIRECT)]) as there:
        client = await there.client("ldapservice")
        there.roster.hold = asyncio.Event()
        client.send(encode.search(7, BASE, scope=0), encode.bind(8, ALICE, "alice-pw"))
        while not there.roster.fetched:
            await asyncio.sleep(0.001)
        [channel] = there.server._channels
        stopping = asyncio.ensure_future(there.server.stop(60.0))
        while not channel._is_draining:
            await asyncio.sleep(0)
        there.roster.hold.set()
        async with asyncio.timeout(10):
            entry, done, notice = [await client.message() for _ in range(3)]
            await stopping
        assert (entry.message_id, done.message_id) == (7, 7) and decode.result(done.content)[0] == 0
        assert dict(decode.elements(notice.content))[0x8A] == NOTICE
        assert await client.is_closed()
        assert [name for name, _ in there.authority.asked] == ["ldapservice"]


async def test_a_client_that_goes_on_asking_during_a_stop_is_still_answered() -> None:
    limits = ServerLimits(message=100_000)
    async with bed(providers=[provider(search_mode=Mode.DIRECT)], limits=limits) as there:
        client = await there.client("ldapservice")
        there.roster.hold = asyncio.Event()
        client.send(encode.search(7, BASE, scope=0))
        while not there.roster.fetched:
            await asyncio.sleep(0.001)
        [channel] = there.server._channels
        stopping = asyncio.ensure_future(there.server.stop(60.0))
        while not channel._is_draining:
            await asyncio.sleep(0)
        for _ in range(20):
            client.send(encode.search(9, BASE, "(cn=x)", ["y" * 30_000]))
            await asyncio.sleep(0.002)
        there.roster.hold.set()
        async with asyncio.timeout(10):
            entry, done = [await client.message() for _ in range(2)]
            await stopping
        assert (entry.message_id, done.message_id) == (7, 7) and decode.result(done.content)[0] == 0


async def test_a_message_id_in_use_ends_the_session() -> None:
    async with bed(directory=people(3000)) as there:
        client = await there.client("ldapservice")
        client.send(encode.search(77, BASE), encode.search(77, BASE))
        with pytest.raises(asyncio.IncompleteReadError):
            while True:
                last = await client.message()
        assert last.message_id == 0
        assert there.seen.ends == ["sequence"]


# -- PROXY protocol -------------------------------------------------------------------------------


def v2(command: int, family: int, body: bytes) -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


FOUR = bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack("!HH", 5000, 389)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 389\r\n", "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 5000 389\r\n", "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN whatever follows\r\n", "127.0.0.1"),
        (v2(1, 0x11, FOUR), "203.0.113.9"),
        (v2(1, 0x11, FOUR + b"\x04\x00\x01x"), "203.0.113.9"),
        (v2(1, 0x21, bytes(15) + b"\x07" + bytes(15) + b"\x01" + bytes(4)), "::7"),
        (v2(0, 0x00, b""), "127.0.0.1"),
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 5000\r\n", None),
        (b"PROXY TCP4 2001:db8::9 ::1 5000 389\r\n", None),
        (b"PROXY TCP4 203.0.113.999 127.0.0.1 5000 389\r\n", None),
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 99999\r\n", None),
        (b"PROXY " + b"x" * 200, None),
        (v2(1, 0x11, FOUR[:8]), None),
        (v2(5, 0x11, FOUR), None),
        (encode.bind(1, ALICE, "alice-pw"), None),
    ],
)
async def test_proxy_headers(header: bytes, address: str | None) -> None:
    async with bed(trusted="127.0.0.0/8") as there:
        client = await there.client()
        client.send(header, encode.bind(1, ALICE, "alice-pw"))
        if address is None:
            assert await client.is_closed()
            assert there.seen.refused == ["proxy"]
            assert there.authority.asked == []
        else:
            assert decode.result((await client.message()).content)[0] == 0
            assert there.authority.asked == [("alice", address)]


async def test_headers_from_strangers_are_no_ldap() -> None:
    async with bed(trusted="192.0.2.0/24") as there:
        client = await there.client()
        client.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 389\r\n", encode.bind(1, ALICE, "alice-pw"))
        assert decode.result((await client.message()).content)[0] == 2
        assert await client.is_closed()
        assert there.authority.asked == []


async def test_a_header_that_never_comes() -> None:
    async with bed(trusted="127.0.0.0/8", limits=ServerLimits(handshake_s=0.05)) as there:
        client = await there.client()
        client.send(b"PRO")
        assert await client.is_closed()
        assert there.seen.refused == ["proxy"]
