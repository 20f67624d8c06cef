"""Controls over real sockets: paging, sorting, assertion, and that whatever the root DSE says is true."""

import re

import pytest

from outpost.ldap.operations.outcome import PAGED_LISTINGS
from outpost.ldap.operations.search import SearchLimits
from tests.ldap import decode, encode
from tests.ldap.testbed import ALICE, BASE, Bed, Client, bed, people, trusting

PAGED = "1.2.840.113556.1.4.319"
SORT = "1.2.840.113556.1.4.473"
SORT_RESULT = b"1.2.840.113556.1.4.474"
ASSERTION = "1.3.6.1.1.12"
MANAGE = "2.16.840.1.113730.3.4.2"
SUBENTRIES = "1.3.6.1.4.1.4203.1.10.1"
USERS = f"ou=users,{BASE}"


def paged(size: int, cookie: bytes = b"", critical: bool = True) -> bytes:
    return encode.control(PAGED, critical, encode.tlv(0x30, encode.integer(size), encode.octets(cookie)))


def key(attribute: str, *, rule: str = "", is_reversed: bool = False) -> bytes:
    more = encode.octets(rule, 0x80) if rule else b""
    return encode.tlv(0x30, encode.octets(attribute), more, encode.boolean(True, 0x81) if is_reversed else b"")


def sort(*keys: bytes, critical: bool = True) -> bytes:
    return encode.control(SORT, critical, encode.tlv(0x30, *keys))


def response(done: decode.Message, oid: str | bytes) -> bytes | None:
    """The value of one response control."""
    wanted = oid.encode() if isinstance(oid, str) else oid
    for _, content in decode.elements(done.controls):
        parts = list(decode.elements(content))
        if parts[0][1] == wanted:
            return parts[-1][1]
    return None


def cookie_of(done: decode.Message) -> bytes:
    value = response(done, PAGED)
    assert value is not None
    [(_, content)] = decode.elements(value)
    (_, _size), (_, cookie) = decode.elements(content)
    return cookie


async def listed(client: Client, size: int, *controls: bytes, between: object = None, **more: object) -> list[bytes]:
    """Every DN of a listing in pages."""
    cookie, found = b"", list[bytes]()
    while True:
        code, entries, done = await client.search(
            USERS, "(objectClass=person)", ["cn"], controls=[paged(size, cookie), *controls], **more
        )
        assert code == 0
        assert len(entries) <= size
        found += [entry.dn for entry in entries]
        cookie = cookie_of(done)
        if not cookie:
            return found
        assert len(entries) == size
        if callable(between):
            await between()


@pytest.mark.parametrize("size", [1, 2, 7, 49, 50, 51, 5000])
async def test_pages_list_everything_exactly_once(size: int) -> None:
    async with bed(directory=people(50)) as there:
        client = await there.client("ldapservice")
        found = await listed(client, size)
        assert len(found) == len(set(found)) == 50


@pytest.mark.parametrize("size", [1000])
async def test_12345_entries_across_refreshes(size: int) -> None:
    async with bed(directory=people(12_345)) as there:
        client = await there.client("ldapservice")
        generation = [2]

        async def refresh() -> None:
            if generation[0] < 4:
                await there.change(people(20, generation=generation[0]))
                generation[0] += 1

        found = await listed(client, size, between=refresh)
        assert len(found) == len(set(found)) == 12_345
        assert len(await listed(client, size)) == 20


async def test_cookies_are_good_once_and_for_their_own_search() -> None:
    now = [0.0]
    limits = SearchLimits(page_lifetime_s=10)
    async with bed(directory=people(50), search_limits=limits, clock=lambda: now[0]) as there:
        client, other = await there.client("ldapservice"), await there.client("ldapservice")

        async def page(asking: Client, cookie: bytes, base: str = USERS, size: int = 5) -> tuple[int, int, bytes]:
            code, entries, done = await asking.search(base, "(cn=*)", scope=1, controls=[paged(size, cookie)])
            return code, len(entries), cookie_of(done) if code == 0 else b""

        _, count, first = await page(client, b"")
        assert count == 5
        assert (await page(other, first))[0] == 53, "another connection's"
        assert (await page(client, b"made up"))[0] == 53
        code, count, second = await page(client, first)
        assert (code, count) == (0, 5)
        assert (await page(client, first))[0] == 53, "used before"
        assert (await page(client, second, f"ou=groups,{BASE}"))[0] == 53, "another search's"
        _, _, third = await page(client, b"")
        now[0] = 11.0
        assert (await page(client, third))[0] == 53, "too old"
        _, _, fourth = await page(client, b"")
        assert await page(client, fourth, size=0) == (0, 0, b""), "given up"
        assert (await page(client, fourth))[0] == 53
        _, _, fifth = await page(client, b"")
        assert await client.bind(ALICE, "alice-pw") == 0
        assert (await page(client, fifth))[0] == 53, "of the identity before"


async def test_half_read_listings_are_bounded() -> None:
    async with bed(directory=people(50)) as there:
        client = await there.client("ldapservice")
        cookies = []
        for _ in range(PAGED_LISTINGS + 1):
            _, _, done = await client.search(USERS, controls=[paged(1)])
            cookies.append(cookie_of(done))
        codes = [(await client.search(USERS, controls=[paged(1, cookie)]))[0] for cookie in cookies]
        assert codes == [53] + [0] * PAGED_LISTINGS


async def test_a_size_limit_counts_over_all_pages() -> None:
    async with bed(directory=people(50)) as there:
        client = await there.client("ldapservice")
        _, entries, done = await client.search(USERS, size_limit=7, controls=[paged(5)])
        assert len(entries) == 5
        code, entries, done = await client.search(USERS, size_limit=7, controls=[paged(5, cookie_of(done))])
        assert (code, len(entries), cookie_of(done)) == (4, 2, b"")


async def names(there: Bed, *controls: bytes, **more: object) -> list[str]:
    client = await there.client("ldapservice")
    code, entries, _ = await client.search(USERS, "(objectClass=person)", ["1.1"], controls=controls, **more)
    assert code in {0, 4}
    return [re.sub(rb"cn=([^,]*),.*", rb"\1", entry.dn).decode() for entry in entries]


async def test_sorting() -> None:
    async with bed(directory=people(15)) as there:
        everybody = await names(there)
        assert await names(there, sort(key("cn"))) == sorted(everybody)
        assert await names(there, sort(key("CN", is_reversed=True))) == sorted(everybody, reverse=True)
        numbered = ["alice", "bob", "ldapservice", *(f"user{n}" for n in range(3, 15))]
        assert await names(there, sort(key("uidNumber"))) == numbered, "numbers sort as numbers"
        assert await names(there, sort(key("uidNumber", rule="caseIgnoreOrderingMatch")))
        first = await names(there, sort(key("memberOf"), key("cn"), critical=False))
        assert sorted(first) == sorted(everybody), "a DN has no order, and the control was not critical"
        by_mail = await names(there, sort(key("objectClass"), critical=False))
        assert sorted(by_mail) == sorted(everybody)
        assert await names(there, sort(key("cn", is_reversed=True)), size_limit=3) == sorted(everybody)[:-4:-1]


async def test_entries_without_the_key_come_last_or_first_when_reversed() -> None:
    async with bed() as there:
        full = there.roster.people
        assert full is not None
        import dataclasses

        users = [dataclasses.replace(user, attributes={"street": user.username[::-1]}) for user in full.users[:2]]
        await there.change(dataclasses.replace(full, users=(full.users[2], *users), generation=2))
        assert await names(there, sort(key("street"))) == ["bob", "alice", "ldapservice"]
        assert await names(there, sort(key("street", is_reversed=True))) == ["ldapservice", "alice", "bob"]


@pytest.mark.parametrize(
    ("bad", "result"), [(key("noSuchThing"), 16), (key("cn", rule="1.2.3"), 18), (key("memberOf"), 18)]
)
async def test_what_cannot_be_sorted(bad: bytes, result: int) -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert (await client.search(USERS, controls=[sort(bad)]))[0] == 12
        code, entries, done = await client.search(USERS, controls=[sort(bad, critical=False)])
        assert (code, len(entries)) == (0, 4)
        value = response(done, SORT_RESULT)
        assert value is not None
        [(_, content)] = decode.elements(value)
        assert next(iter(decode.elements(content))) == (0x0A, bytes([result]))


@pytest.mark.parametrize("size", [1, 4, 15, 100])
async def test_sorted_pages(size: int) -> None:
    async with bed(directory=people(15)) as there:
        client = await there.client("ldapservice")
        found = await listed(client, size, sort(key("cn", is_reversed=True)))
        assert found == sorted(found, reverse=True)
        assert len(found) == 15


async def test_assertion() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        for text, code in (("(cn=alice)", 0), ("(cn=bob)", 122), ("(nonsense=x)", 122), ("(!(nonsense=x))", 122)):
            control = encode.control(ASSERTION, True, encode.parse_filter(text))
            assert (await client.search(ALICE, scope=0, controls=[control]))[0] == code
            client.send(encode.compare(client.next_id, ALICE, "cn", "alice", [control]))
            assert decode.result((await client.message()).content)[0] == (code or 6)


async def test_manage_dsa_it_and_subentries() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert len((await client.search(USERS, controls=[encode.control(MANAGE, True)]))[1]) == 4
        for visible, count in ((True, 0), (False, 4)):
            control = encode.control(SUBENTRIES, True, encode.boolean(visible))
            code, entries, _ = await client.search(USERS, controls=[control])
            assert (code, len(entries)) == (0, count)


@pytest.mark.parametrize(
    "control",
    [
        encode.control(PAGED, False, None),
        encode.control(PAGED, True, b""),
        encode.control(PAGED, True, b"\x30\x03\x02\x01\x05"),
        encode.control(PAGED, True, encode.tlv(0x30, encode.integer(-1), encode.octets(b""))),
        encode.control(PAGED, True, encode.tlv(0x30, encode.integer(1 << 40), encode.octets(b""))),
        encode.control(PAGED, True, encode.tlv(0x30, encode.integer(1), encode.octets(b"")) + b"\0"),
        encode.control(SORT, True, encode.tlv(0x30)),
        encode.control(SORT, True, b"\x30\x84\xff\xff\xff\xff"),
        encode.control(SORT, True, encode.tlv(0x30, *[key("cn")] * 17)),
        encode.control(ASSERTION, True, b"\x87"),
        encode.control(ASSERTION, True, None),
        encode.control(MANAGE, True, b"x"),
        encode.control(SUBENTRIES, True, b"\x01\x01\x07"),
    ],
)
async def test_malformed_values_are_protocol_errors_and_end_nothing(control: bytes) -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        code, _, done = await client.search(USERS, controls=[control])
        assert code == 2
        assert decode.result(done.content)[2]
        assert (await client.search(ALICE, scope=0))[0] == 0


async def test_a_control_twice() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        assert (await client.search(USERS, controls=[paged(1), paged(2)]))[0] == 2


# -- the root DSE ---------------------------------------------------------------------------------

EXERCISED = {
    "supportedControl": {PAGED, SORT, SORT_RESULT.decode(), ASSERTION, MANAGE, SUBENTRIES},
    "supportedExtension": {"1.3.6.1.4.1.4203.1.11.3", "1.3.6.1.1.8", "1.3.6.1.4.1.1466.20037"},
    "supportedFeatures": {"1.3.6.1.4.1.4203.1.5.1", "1.3.6.1.4.1.4203.1.5.3"},
    "supportedSASLMechanisms": {"PLAIN"},
}
"""What this directory's tests drive by sockets; whatever is advertised beyond it needs a test first."""


async def advertised(client: Client) -> dict[str, set[str]]:
    _, [root], _ = await client.search("", scope=0, attributes=list(EXERCISED))
    return {name.decode(): {value.decode() for value in values} for name, values in root.attributes}


async def test_what_the_root_dse_says_is_what_is_tested() -> None:
    async with bed() as there:
        plain, secure = await advertised(await there.client()), await advertised(await there.client(tls=trusting()))
        assert {name: plain.get(name, set()) | secure.get(name, set()) for name in EXERCISED} == EXERCISED
        assert "supportedSASLMechanisms" not in plain, "passwords travel under TLS only"
        assert "1.3.6.1.4.1.1466.20037" not in secure["supportedExtension"]


async def test_features_work() -> None:
    async with bed() as there:
        client = await there.client("ldapservice")
        _, [entry], _ = await client.search(ALICE, scope=0, attributes=["+"])
        assert b"entryUUID" in dict(entry.attributes), "all operational attributes (RFC 3673)"
        assert len((await client.search(USERS, encode.tlv(0xA0), scope=1))[1]) == 3, "absolute true (RFC 4526)"
        assert (await client.search(USERS, encode.tlv(0xA1), scope=1))[1] == [], "absolute false"


async def test_start_tls_is_offered_and_works() -> None:
    async with bed() as there:
        client = await there.client()
        client.send(encode.extended(client.next_id, "1.3.6.1.4.1.1466.20037"))
        assert decode.result((await client.message()).content)[0] == 0
        await client.writer.start_tls(trusting())
        assert await client.bind(ALICE, "alice-pw") == 0
        assert "1.3.6.1.4.1.1466.20037" not in (await advertised(client))["supportedExtension"]
