"""Every control, extended operation, feature and SASL mechanism that the root DSE names, octet by octet."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from outpost.identity import Group, Mode, People, User
from outpost.ldap import rootdse
from outpost.ldap.operations.outcome import PAGED_LISTINGS
from outpost.ldap.operations.search import SearchLimits
from tests.ldap import decode, encode
from tests.ldap.test_password_modify import OID as PASSWORD_MODIFY
from tests.ldap.test_password_modify import Keeper, wish
from tests.ldap.testbed import ALICE, BASE, GROUP, PASSWORDS, Bed, Client, bed, people, provider, trusting

PAGED = "1.2.840.113556.1.4.319"
SORT = "1.2.840.113556.1.4.473"
SORT_RESULT = "1.2.840.113556.1.4.474"
ASSERTION = "1.3.6.1.1.12"
MANAGE_DSA_IT = "2.16.840.1.113730.3.4.2"
SUBENTRIES = "1.3.6.1.4.1.4203.1.10.1"
MATCHED_VALUES = "1.2.826.0.1.3344810.2.3"
USERS, GROUPS = f"ou=users,{BASE}", f"ou=groups,{BASE}"
SERVICE = "ldapservice"


def paged(size: int, cookie: bytes = b"", *, critical: bool = True) -> bytes:
    return encode.control(PAGED, critical, encode.tlv(0x30, encode.integer(size), encode.octets(cookie)))


def sort(*keys: str | tuple[str, str], critical: bool = False) -> bytes:
    """Keys as ldapsearch writes them, `-` for the reverse; with a rule as a pair."""
    listed = []
    for key in keys:
        name, rule = (key, "") if isinstance(key, str) else key
        listed.append(
            encode.tlv(
                0x30,
                encode.octets(name.removeprefix("-")),
                encode.octets(rule, 0x80) if rule else b"",
                encode.boolean(True, 0x81) if name.startswith("-") else b"",
            )
        )
    return encode.control(SORT, critical, encode.tlv(0x30, *listed))


def asserting(filter: str, *, critical: bool = True) -> bytes:
    return encode.control(ASSERTION, critical, encode.parse_filter(filter))


def choosing(*items: str | bytes) -> bytes:
    octets = [one if isinstance(one, bytes) else encode.parse_filter(one) for one in items]
    return encode.control(MATCHED_VALUES, True, encode.tlv(0x30, *octets))


def controls_of(message: decode.Message) -> dict[str, bytes]:
    found = {}
    for tag, control in decode.elements(message.controls):
        parts = [*decode.elements(control)]
        assert (tag, parts[0][0], parts[-1][0]) == (0x30, 0x04, 0x04)
        found[parts[0][1].decode()] = parts[-1][1]
    return found


def cookie_of(message: decode.Message) -> bytes:
    [(tag, content)] = decode.elements(controls_of(message)[PAGED])
    (size_tag, size), (cookie_tag, cookie) = decode.elements(content)
    assert (tag, size_tag, size, cookie_tag) == (0x30, 0x02, b"\0", 0x04), "no estimate, and a cookie"
    return cookie


def sorted_as(message: decode.Message) -> tuple[int, bytes]:
    [(tag, content)] = decode.elements(controls_of(message)[SORT_RESULT])
    (code_tag, code), *rest = decode.elements(content)
    assert (tag, code_tag) == (0x30, 0x0A)
    assert [t for t, _ in rest] in ([], [0x80])
    return code[0], rest[0][1] if rest else b""


async def pages(
    client: Client,
    size: int,
    *more: bytes,
    base: str = BASE,
    between: Callable[[], Awaitable[None]] | None = None,
    **search: Any,
) -> list[list[str]]:
    """DNs, page by page."""
    found: list[list[str]] = []
    cookie = b""
    while True:
        code, entries, done = await client.search(base, controls=[paged(size, cookie), *more], **search)
        assert code == 0
        found.append([one.dn.decode() for one in entries])
        cookie = cookie_of(done)
        if not cookie:
            return found
        assert len(found) < 20_000
        if between is not None:
            await between()


async def first_page(client: Client, size: int = 2, *more: bytes, **search: Any) -> bytes:
    code, entries, done = await client.search(BASE, controls=[paged(size), *more], **search)
    assert (code, len(entries)) == (0, size)
    return cookie_of(done)


async def next_page(client: Client, cookie: bytes, size: int = 2, *more: bytes, **search: Any) -> int:
    return (await client.search(BASE, controls=[paged(size, cookie), *more], **search))[0]


def names(entries: Iterable[decode.Entry]) -> list[str]:
    """First RDN values."""
    return [one.dn.decode().partition(",")[0].partition("=")[2] for one in entries]


# -- simple paged results (RFC 2696) --------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 205, 206, 5000, 2**31 - 1])
async def test_every_entry_comes_once_whatever_the_page_size(size: int) -> None:
    async with bed(directory=people(100)) as there:
        client = await there.client(SERVICE)
        whole = names((await client.search(BASE))[1])
        assert len(whole) == 5 + 2 * 100
        found = await pages(client, size)
        assert [dn.partition(",")[0].partition("=")[2] for page in found for dn in page] == whole
        assert all(len(page) == size for page in found[:-1])
        assert there.server._channels.copy().pop().session.pages == {}, "nothing is kept of a finished listing"


async def test_a_large_directory_comes_completely_and_once() -> None:
    async with bed(directory=people(12_345)) as there:
        client = await there.client(SERVICE)
        for size, more in ((100, []), (1000, [sort("-cn")])):
            found = await pages(client, size, *more, filter="(objectClass=user)", attributes=["1.1"])
            dns = [dn for page in found for dn in page]
            assert (len(dns), len(set(dns)), len(found)) == (12_345, 12_345, -(-12_345 // size))
        assert dns == sorted(dns, reverse=True)
        generation = iter((2, 3))

        async def refresh() -> None:
            if number := next(generation, None):
                await there.change(people(20, generation=number))

        found = await pages(client, 1000, between=refresh, filter="(objectClass=user)", attributes=["1.1"])
        assert len({dn for page in found for dn in page}) == 12_345
        assert [len(page) for page in await pages(client, 15, filter="(objectClass=user)")] == [15, 5]


async def test_a_listing_keeps_to_the_directory_it_began_with() -> None:
    async with bed(directory=people(30)) as there:
        client, late = await there.client(SERVICE), await there.client(SERVICE)
        cookie = await first_page(client, 10, filter="(objectClass=user)")
        full = there.roster.people
        assert full is not None
        fewer = tuple(dataclasses.replace(user, name="Renamed") for user in full.users[:5])
        await there.change(People(fewer, full.groups, 2, 0.0))
        code, rest, done = await client.search(
            BASE, "(objectClass=user)", controls=[paged(1000, cookie)], attributes=["name"]
        )
        assert code == 53, "the attributes are not those of the first page"
        assert cookie
        cookie = await first_page(client, 2, filter="(objectClass=user)")
        await there.change(full)
        code, rest, done = await client.search(BASE, "(objectClass=user)", controls=[paged(1000, cookie)])
        assert (code, cookie_of(done), len(rest)) == (0, b"", 3)
        assert {one["name"][0] for one in rest} == {b"Renamed"}
        assert len((await late.search(BASE, "(objectClass=user)"))[1]) == 30


async def test_pages_of_direct_mode_are_of_one_reading() -> None:
    async with bed(providers=[provider(search_mode=Mode.DIRECT)], directory=people(9)) as there:
        client = await there.client(SERVICE)
        fetched = len(there.roster.fetched)
        found = await pages(client, 4, filter="(objectClass=user)")
        assert [len(page) for page in found] == [4, 4, 1]
        assert len(there.roster.fetched) == fetched + 1


async def test_a_cookie_works_once_for_its_own_search_and_connection() -> None:
    async with bed(directory=people(20)) as there:
        client, other = await there.client(SERVICE), await there.client(SERVICE)
        cookie = await first_page(client)
        assert await next_page(client, b"12345678") == 53
        assert await next_page(client, cookie + b"x") == 53
        assert await next_page(other, cookie) == 53, "another connection's"
        assert await next_page(client, cookie) == 0
        assert await next_page(client, cookie) == 53, "used"


@pytest.mark.parametrize(
    "changed",
    [
        {"base": USERS},
        {"filter": "(cn=*)"},
        {"scope": 1},
        {"attributes": ["cn"]},
        {"types_only": True},
        {"size_limit": 5},
        {"more": [choosing("(cn=*)")]},
        {"more": [sort("cn")]},
    ],
    ids=str,
)
async def test_a_cookie_is_of_one_search(changed: dict[str, Any]) -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client)
        search = dict(changed)
        more = search.pop("more", [])
        code, entries, _ = await client.search(search.pop("base", BASE), controls=[paged(2, cookie), *more], **search)
        assert (code, entries) == (53, [])


async def test_the_next_page_may_be_of_another_size_and_time_limit() -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client, 3)
        code, entries, done = await client.search(BASE, controls=[paged(7, cookie)], time_limit=30)
        assert (code, len(entries)) == (0, 7)
        assert cookie_of(done) != cookie


async def test_a_page_of_nothing_begins_nothing_and_ends_a_listing() -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        code, entries, done = await client.search(BASE, controls=[paged(0)])
        assert (code, entries, cookie_of(done)) == (0, [], b"")
        cookie = await first_page(client)
        code, entries, done = await client.search(BASE, controls=[paged(0, cookie)])
        assert (code, entries, cookie_of(done)) == (0, [], b"")
        assert await next_page(client, cookie) == 53
        assert (await client.search(f"cn=x,{BASE}", controls=[paged(0)]))[0] == 32


async def test_the_size_limit_is_of_all_pages_together() -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client(SERVICE)
        cookie, got, code = b"", 0, 0
        while code == 0:
            code, entries, done = await client.search(BASE, size_limit=7, controls=[paged(3, cookie)])
            got, cookie = got + len(entries), cookie_of(done)
        assert (code, got, cookie) == (4, 7, b"")


async def test_the_servers_own_size_limit_counts_across_pages() -> None:
    async with bed(directory=people(20), search_limits=SearchLimits(size_limit=5)) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client, 4)
        code, entries, done = await client.search(BASE, controls=[paged(4, cookie)])
        assert (code, len(entries), cookie_of(done)) == (4, 1, b"")


async def test_few_listings_may_be_half_read() -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client(SERVICE)
        cookies = [await first_page(client) for _ in range(PAGED_LISTINGS + 1)]
        assert await next_page(client, cookies[0]) == 53, "the oldest went"
        for cookie in cookies[1:]:
            assert await next_page(client, cookie) == 0


@pytest.mark.parametrize("password", [PASSWORDS[SERVICE], "wrong"])
async def test_a_bind_ends_all_listings(password: str) -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client)
        await client.bind(f"cn={SERVICE},{USERS}", password)
        assert await client.bind(f"cn={SERVICE},{USERS}", PASSWORDS[SERVICE]) == 0
        assert await next_page(client, cookie) == 53


async def test_old_cookies_are_refused_and_what_they_held_is_dropped() -> None:
    now = [0.0]
    async with bed(directory=people(20), clock=lambda: now[0]) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client)
        now[0] = 299.0
        young = await first_page(client)
        now[0] = 301.0
        [channel] = there.server._channels
        there.server._swept()
        assert [*channel.session.pages] == [young]
        assert await next_page(client, cookie) == 53
        assert await next_page(client, young) == 0
        late = await first_page(client)
        now[0] = 602.0
        assert await next_page(client, late) == 53, "also before anybody swept"


async def test_an_abandoned_page_ends_its_listing() -> None:
    async with bed(directory=people(3000)) as there:
        client = await there.client(SERVICE)
        cookie = await first_page(client, 2)
        given_up = client.next_id
        everything = encode.search(given_up, BASE, controls=[paged(6000, cookie)])
        client.send(everything, encode.abandon(client.next_id, given_up))
        assert (await client.search("", scope=0))[0] == 0, "entries that were under way, and no SearchResultDone"
        assert [code for code, _, _ in there.seen.searches].count(-1) == 1
        assert await next_page(client, cookie) == 53


async def test_missing_bases_and_single_entries_answer_the_control_too() -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        assert (await client.search(f"cn=nobody,{USERS}", controls=[paged(5)]))[0] == 32
        for base in ("", "cn=subschema"):
            code, entries, done = await client.search(base, scope=0, controls=[paged(5), sort("cn")])
            assert (code, len(entries), cookie_of(done)) == (0, 1, b"")
            assert sorted_as(done) == (0, b"")
            assert (await client.search(base, scope=0, controls=[paged(5, b"12345678")]))[0] == 53


async def test_pages_reach_no_further_than_the_view() -> None:
    async with bed(directory=people(20)) as there:
        client = await there.client("alice")
        found = await pages(client, 1, filter="(objectClass=person)")
        assert [dn for page in found for dn in page] == [ALICE]


# -- server-side sorting (RFC 2891) ---------------------------------------------------------------


def crowd() -> People:
    """Somebody without a mail address, two with the same name, numbers that sort otherwise than their digits."""
    rows = [
        # cn, name, mail, attributes
        (SERVICE, "", "", {}),
        ("b", "Émile Same", "z@example.com", {"uidNumber": "900", "level": ["10", "12"]}),
        ("C", "émile same", "", {"uidNumber": "10000"}),
        ("a", "Zoe", "y@example.com", {"uidNumber": "20", "level": "9"}),
        ("d", "anna", "A@example.com", {"uidNumber": "3000", "level": "-3"}),
    ]
    users = tuple(
        User(pk, cn, name=name, email=mail, attributes=more, groups=(GROUP,) if cn == "a" else ())
        for pk, (cn, name, mail, more) in enumerate(rows, 1)
    )
    return People(users, (Group(GROUP, 7, "labstaff"),), 1, 0.0)


@pytest.fixture
async def sorting() -> Any:
    async with bed(directory=crowd()) as there:
        there.authority.script.clear()
        yield await there.client(SERVICE)


WITHOUT_SERVICE = f"(&(objectClass=user)(!(cn={SERVICE})))"


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        (["cn"], "a b C d"),
        (["-cn"], "d C b a"),
        (["CN"], "a b C d"),
        (["2.5.4.3"], "a b C d"),
        ([("cn", "caseExactOrderingMatch")], "C a b d"),
        ([("cn", "2.5.13.6")], "C a b d"),
        ([("-cn", "2.5.13.6")], "d b a C"),
        (["uidNumber"], "a b d C"),
        (["-uidNumber"], "C d b a"),
        ([("uidNumber", "caseIgnoreOrderingMatch")], "C a d b"),
        (["mail"], "d a b C"),
        (["-mail"], "C b a d"),
        (["name", "cn"], "d a b C"),
        (["name", "-cn"], "d a C b"),
        (["-name", "cn"], "b C a d"),
        (["level"], "d b a C"),
        ([("level", "integerOrderingMatch")], "d a b C"),
        ([("-level", "2.5.13.15")], "C b a d"),
        (["sn", "uidNumber"], "d b C a"),
        (["displayName", ("uidNumber", "integerOrderingMatch")], "d a b C"),
    ],
    ids=str,
)
async def test_orders(sorting: Client, keys: list[Any], order: str) -> None:
    code, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, controls=[sort(*keys)])
    assert (code, sorted_as(done)) == (0, (0, b""))
    assert names(entries) == order.split()
    listed = await pages(sorting, 3, sort(*keys), filter=WITHOUT_SERVICE)
    assert [len(page) for page in listed] == [3, 1]
    assert [dn for page in listed for dn in page] == [one.dn.decode() for one in entries]


@pytest.mark.parametrize("more", [{"attributes": ["1.1"]}, {"types_only": True}, {"attributes": ["sn"]}], ids=str)
async def test_what_is_sorted_by_need_not_be_returned(sorting: Client, more: dict[str, Any]) -> None:
    code, entries, _ = await sorting.search(BASE, WITHOUT_SERVICE, controls=[sort("-uidNumber")], **more)
    assert (code, names(entries)) == (0, ["C", "d", "b", "a"])
    assert not any(values for one in entries for name, values in one.attributes if name != b"sn")


@pytest.mark.parametrize(
    ("key", "code", "attribute"),
    [
        ("nonsense", 16, b"nonsense"),
        ("cn;lang-en", 16, b"cn;lang-en"),
        (("cn", "nonsenseMatch"), 18, b"cn"),
        (("cn", "caseIgnoreMatch"), 18, b"cn"),
        ("memberOf", 18, b"memberOf"),
        ("objectClass", 18, b"objectClass"),
        ("ak-active", 18, b"ak-active"),
    ],
    ids=str,
)
async def test_what_cannot_be_sorted_by(sorting: Client, key: Any, code: int, attribute: bytes) -> None:
    result, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, controls=[sort("cn", key)])
    assert (result, len(entries), sorted_as(done)) == (0, 4, (code, attribute)), "unsorted, and told so"
    result, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, controls=[sort("cn", key, critical=True)])
    assert (result, entries, sorted_as(done)) == (12, [], (code, attribute))
    cookie = b""
    for count in (3, 1):
        controls = [paged(3, cookie), sort("cn", key)]
        result, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, controls=controls)
        cookie = cookie_of(done)
        assert (result, len(entries), sorted_as(done)) == (0, count, (code, attribute))
    assert cookie == b""


async def test_sorting_comes_before_the_size_limit(sorting: Client) -> None:
    for limit, order in ((2, ["C", "d"]), (4, ["C", "d", "b", "a"])):
        code, entries, done = await sorting.search(
            BASE, WITHOUT_SERVICE, size_limit=limit, controls=[sort("-uidNumber")]
        )
        assert (code, names(entries)) == (4 if limit < 4 else 0, order)
        assert sorted_as(done) == (0, b"")


async def test_the_size_limit_holds_for_all_pages_of_a_sorted_listing(sorting: Client) -> None:
    cookie, seen, codes = b"", [], []
    while not codes or cookie:
        controls = [sort("cn"), paged(2, cookie)]
        code, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, size_limit=3, controls=controls)
        cookie = cookie_of(done)
        seen += names(entries)
        codes.append(code)
        assert sorted_as(done) == (0, b"")
    assert (seen, codes) == (["a", "b", "C"], [0, 4])


async def test_later_pages_may_leave_the_sort_keys_out_but_not_change_them(sorting: Client) -> None:
    for again, expected in (([], 0), ([sort("cn")], 0), ([sort("-cn")], 53), ([sort("cn", "mail")], 53)):
        cookie = await first_page(sorting, 2, sort("cn"), filter=WITHOUT_SERVICE)
        controls = [paged(2, cookie), *again]
        code, entries, done = await sorting.search(BASE, WITHOUT_SERVICE, controls=controls)
        assert (code, names(entries)) == (expected, [] if expected else ["C", "d"])
        if not expected:
            assert sorted_as(done) == (0, b"")


async def test_more_than_may_be_sorted() -> None:
    async with bed(directory=people(8), search_limits=SearchLimits(sort_entries=7)) as there:
        client = await there.client(SERVICE)
        code, entries, done = await client.search(BASE, "(objectClass=user)", controls=[sort("-cn")])
        assert (code, len(entries), sorted_as(done)) == (0, 8, (11, b""))
        code, entries, done = await client.search(BASE, "(objectClass=user)", controls=[sort("-cn", critical=True)])
        assert (code, entries, sorted_as(done)) == (12, [], (11, b""))
        assert [len(page) for page in await pages(client, 3, sort("-cn"), filter="(objectClass=user)")] == [3, 3, 2]
        code, entries, done = await client.search(BASE, "(&(objectClass=user)(!(cn=bob)))", controls=[sort("-cn")])
        assert (code, len(entries), sorted_as(done)) == (0, 7, (0, b""))


async def test_sorting_a_missing_base(sorting: Client) -> None:
    code, _, done = await sorting.search(f"cn=nobody,{USERS}", controls=[sort("cn", critical=True)])
    assert (code, decode.result(done.content)[1]) == (32, USERS.encode())


async def test_large_listings_are_sorted_in_turns() -> None:
    async with bed(directory=people(3_000)) as there:
        client, other = await there.client(SERVICE), await there.client("alice")
        client.send(encode.search(99, USERS, "(objectClass=user)", ["1.1"], controls=[sort("-uidNumber")]))
        assert (await other.search(ALICE, scope=0))[0] == 0
        numbers = []
        while (found := await client.message()).tag == 0x64:
            numbers.append(decode.entry(found.content).dn)
        assert (decode.result(found.content)[0], len(set(numbers))) == (0, 3_000)
        assert numbers[-1] == ALICE.encode()


# -- assertion (RFC 4528) -------------------------------------------------------------------------


async def test_an_assertion_is_of_the_base_object() -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        for critical in (True, False):
            for filter, code in (
                ("(cn=alice)", 0),
                ("(&(cn=alice)(memberOf=*))", 0),
                ("(cn=bob)", 122),
                ("(nonsense=x)", 122),
                ("(!(nonsense=x))", 122),
            ):
                controls = [asserting(filter, critical=critical)]
                got, entries, _ = await client.search(ALICE, scope=0, controls=controls)
                assert (got, len(entries)) == (code, int(code == 0)), filter
                client.send(encode.compare(client.next_id, ALICE, "cn", "alice", controls))
                assert decode.result((await client.message()).content)[0] == (code or 6), filter
        assert (await client.search(USERS, "(cn=bob)", controls=[asserting("(ou=users)")]))[0] == 0
        assert (await client.search(f"cn=nobody,{USERS}", controls=[asserting("(cn=*)")]))[0] == 32


async def test_assertions_about_the_root_dse_and_the_subschema() -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        for base, true, false in (
            ("", "(supportedLDAPVersion=3)", "(supportedLDAPVersion=2)"),
            ("cn=subschema", "(objectClass=subschema)", "(cn=other)"),
        ):
            code, entries, _ = await client.search(base, scope=0, controls=[asserting(true)])
            assert (code, len(entries)) == (0, 1)
            code, entries, _ = await client.search(base, scope=0, controls=[asserting(false)])
            assert (code, entries) == (122, [])


async def test_an_assertion_tells_nothing_that_the_view_hides() -> None:
    async with bed() as there:
        client = await there.client("alice")
        bob = f"cn=bob,{USERS}"
        for filter in ("(cn=bob)", "(cn=alice)"):
            assert (await client.search(bob, scope=0, controls=[asserting(filter)]))[0] == 32
            client.send(encode.compare(client.next_id, bob, "cn", "bob", [asserting(filter)]))
            assert decode.result((await client.message()).content)[0] == 32


# -- the small ones -------------------------------------------------------------------------------


async def test_manage_dsa_it_changes_nothing() -> None:
    manage = [encode.control(MANAGE_DSA_IT, True)]
    async with bed() as there:
        client = await there.client(SERVICE)
        assert (await client.search(BASE, controls=manage))[1] == (await client.search(BASE))[1]
        client.send(encode.compare(client.next_id, ALICE, "cn", "alice", manage))
        assert decode.result((await client.message()).content)[0] == 6


@pytest.mark.parametrize("base", [BASE, ALICE, "", "cn=subschema"])
async def test_subentries_are_never_seen_and_entries_only_without_asking_for_subentries(base: str) -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        plain = (await client.search(base, scope=0))[1]
        shown = await client.search(base, scope=0, controls=[encode.control(SUBENTRIES, True, b"\x01\x01\xff")])
        assert shown[:2] == (0, [])
        hidden = await client.search(base, scope=0, controls=[encode.control(SUBENTRIES, True, b"\x01\x01\0")])
        assert hidden[:2] == (0, plain)
        assert len(plain) == 1


async def test_asking_for_subentries_of_nothing() -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        visible = encode.control(SUBENTRIES, True, b"\x01\x01\xff")
        code, _, done = await client.search(f"cn=nobody,{USERS}", controls=[visible])
        assert (code, decode.result(done.content)[1]) == (32, USERS.encode())


# -- matched values (RFC 3876) --------------------------------------------------------------------


def keys() -> People:
    groups = tuple(
        Group(f"{n}1111111-1111-4111-8111-111111111111", n, name) for n, name in enumerate(("one", "two"), 1)
    )
    more = {
        "sshPublicKey": ["ssh-rsa AAAA alice@desk", "ssh-ed25519 BBBB alice@laptop", "ssh-ed25519 bbbb other"],
        "uidNumber": "10",
        "telephoneNumber": ["+1 23", "+1 45"],
    }
    users = (
        User(1, "alice", name="Alice", email="a@x", attributes=more, groups=tuple(g.pk for g in groups)),
        User(2, SERVICE),
    )
    return People(users, groups, 1, 0.0)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["(memberOf=cn=TWO,ou=groups,DC=ldap,dc=goauthentik,dc=io)"], {"memberOf": [f"cn=two,{GROUPS}"]}),
        (["(sshPublicKey=ssh-ed25519 BBBB alice@laptop)"], {"sshPublicKey": ["ssh-ed25519 BBBB alice@laptop"]}),
        (["(mail=*@*)", "(telephoneNumber=+1*5)"], {"mail": ["a@x"], "telephoneNumber": ["+1 45"]}),
        (
            ["(sshpublickey=ssh-rsa AAAA alice@desk)", "(uidNumber>=10)"],
            {"sshPublicKey": ["ssh-rsa AAAA alice@desk"], "uidNumber": ["10"]},
        ),
        (["(uidNumber<=9)"], {}),
        (["(uidNumber>=9)"], {"uidNumber": ["10"]}),
        (["(mail=*)"], {"mail": ["a@x"]}),
        (["(rfc822Mailbox=A@X)"], {"mail": ["a@x"]}),
        (["(0.9.2342.19200300.100.1.3~=a@x)"], {"mail": ["a@x"]}),
        (["(cn:caseExactMatch:=alice)"], {"cn": ["alice"]}),
        (["(cn:caseExactMatch:=Alice)"], {}),
        (["(cn:=ALICE)"], {"cn": ["alice"]}),
        (["(:distinguishedNameMatch:=cn=one, ou=groups, " + BASE + ")"], {"memberOf": [f"cn=one,{GROUPS}"]}),
        (["(memberOf:1.2.840.113556.1.4.1941:=cn=one," + GROUPS + ")"], {}),
        (["(uidNumber=ten)"], {}),
        (["(nonsense=*)"], {}),
        (["(telephoneNumber=+123)"], {"telephoneNumber": ["+1 23"]}),
    ],
    ids=str,
)
async def test_values_are_chosen_by_filters(items: list[str], expected: dict[str, list[str]]) -> None:
    wanted = ["cn", "mail", "memberOf", "sshPublicKey", "uidNumber", "telephoneNumber"]
    async with bed(directory=keys()) as there:
        client = await there.client(SERVICE)
        code, [entry], _ = await client.search(ALICE, scope=0, attributes=wanted, controls=[choosing(*items)])
        got = {name.decode(): [value.decode() for value in values] for name, values in entry.attributes}
        assert (code, got) == (0, expected)


async def test_values_are_chosen_after_entries_and_with_every_other_control() -> None:
    async with bed(directory=people(3000)) as there:
        client = await there.client(SERVICE)
        code, entries, done = await client.search(
            USERS, "(objectClass=user)", controls=[choosing("(cn=user1*)"), sort("-cn"), paged(2900)]
        )
        assert (code, len(entries)) == (0, 2900)
        assert {tuple(one.names) for one in entries} == {("cn",), ()}
        cookie = cookie_of(done)
        assert cookie
        code, entries, done = await client.search(
            USERS, "(objectClass=user)", controls=[choosing("(cn=user1*)"), sort("-cn"), paged(2900, cookie)]
        )
        assert (code, len(entries), cookie_of(done)) == (0, 100, b"")
        _, entries, _ = await client.search(
            USERS, "(objectClass=user)", types_only=True, controls=[choosing("(cn=user1*)")]
        )
        assert all(len(one.names) > 3 for one in entries), "where no values are wanted there are none to choose"
        _, [root], _ = await client.search("", scope=0, controls=[choosing("(supportedControl=" + PAGED + ")")])
        assert root.attributes == [(b"supportedControl", [PAGED.encode()])]


# -- refusals -------------------------------------------------------------------------------------

SEQUENCE = encode.tlv(0x30)


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (PAGED, None),
        (PAGED, b""),
        (PAGED, SEQUENCE),
        (PAGED, b"\x30\x05\x02\x01\x05\x04"),
        (PAGED, encode.tlv(0x30, encode.integer(5))),
        (PAGED, encode.tlv(0x30, encode.integer(-1), encode.octets(b""))),
        (PAGED, encode.tlv(0x30, encode.integer(2**40), encode.octets(b""))),
        (PAGED, encode.tlv(0x30, encode.octets(b"5"), encode.octets(b""))),
        (PAGED, encode.tlv(0x30, encode.integer(5), encode.octets(b"")) + b"\0"),
        (PAGED, encode.tlv(0x30, encode.integer(5), encode.octets(b""), encode.octets(b""))),
        (SORT, None),
        (SORT, SEQUENCE),
        (SORT, encode.tlv(0x30, SEQUENCE)),
        (SORT, encode.tlv(0x30, encode.tlv(0x30, encode.octets("")))),
        (SORT, encode.tlv(0x30, encode.octets("cn"))),
        (SORT, encode.tlv(0x30, encode.tlv(0x30, encode.octets("cn"), encode.octets("x", 0x83)))),
        (SORT, encode.tlv(0x30, encode.tlv(0x30, encode.octets("cn"), encode.octets("xx", 0x81)))),
        (SORT, encode.tlv(0x30, *[encode.tlv(0x30, encode.octets("cn"))] * 17)),
        (ASSERTION, None),
        (ASSERTION, b""),
        (ASSERTION, b"\xa3\x02\x04\x00"),
        (ASSERTION, b"cn=alice"),
        (ASSERTION, b"\xa2\x03" * 200 + encode.parse_filter("(cn=x)")),
        (MANAGE_DSA_IT, b""),
        (MANAGE_DSA_IT, b"x"),
        (SUBENTRIES, None),
        (SUBENTRIES, b""),
        (SUBENTRIES, b"\x01\x01"),
        (SUBENTRIES, b"\x02\x01\x01"),
        (SUBENTRIES, b"\x01\x01\x07"),
        (SORT, b"\x30\x84\xff\xff\xff\xff"),
        (MATCHED_VALUES, None),
        (MATCHED_VALUES, b""),
        (MATCHED_VALUES, SEQUENCE),
        (MATCHED_VALUES, encode.parse_filter("(cn=x)")),
        (MATCHED_VALUES, encode.tlv(0x30, encode.parse_filter("(!(cn=x))"))),
        (MATCHED_VALUES, encode.tlv(0x30, encode.parse_filter("(&(cn=x))"))),
        (MATCHED_VALUES, encode.tlv(0x30, encode.parse_filter("(cn:dn:=x)"))),
        (MATCHED_VALUES, encode.tlv(0x30, *[encode.parse_filter("(cn=x)")] * 65)),
        (MATCHED_VALUES, encode.tlv(0x30, b"\xa3\x01\x04")),
    ],
    ids=str,
)
async def test_malformed_values_are_protocol_errors_and_close_nothing(oid: str, value: bytes | None) -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        for critical in (True, False):
            for base in (BASE, ""):
                code, entries, done = await client.search(base, controls=[encode.control(oid, critical, value)])
                assert (code, entries) == (2, [])
                assert oid.encode() in decode.result(done.content)[2]
        assert (await client.search(BASE))[0] == 0


@pytest.mark.parametrize(
    "control",
    [
        paged(5),
        sort("cn"),
        asserting("(cn=*)"),
        choosing("(cn=*)"),
        encode.control(MANAGE_DSA_IT),
        encode.control(SUBENTRIES, False, b"\x01\x01\0"),
    ],
)
async def test_a_control_given_twice_is_a_protocol_error(control: bytes) -> None:
    async with bed() as there:
        client = await there.client(SERVICE)
        assert (await client.search(BASE, controls=[control]))[0] in {0, 122}
        assert (await client.search(BASE, controls=[control, control]))[:2] == (2, [])
        unknown = encode.control("1.2.3", False)
        assert (await client.search(BASE, controls=[unknown, control, unknown]))[0] in {0, 122}


async def test_controls_where_they_mean_nothing() -> None:
    """RFC 4511 4.1.11: not appropriate for the operation is as good as unknown."""
    async with bed() as there:
        client = await there.client(SERVICE)
        for oid in (PAGED, SORT, SUBENTRIES, MATCHED_VALUES, SORT_RESULT):
            for critical, code in ((True, 12), (False, 6)):
                control = encode.control(oid, critical, b"anything")
                client.send(encode.compare(client.next_id, ALICE, "cn", "alice", [control]))
                assert decode.result((await client.message()).content)[0] == code
        for oid in (PAGED, ASSERTION, MANAGE_DSA_IT):
            for critical, code in ((True, 12), (False, 0)):
                control = encode.control(oid, critical)
                client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3", None, [control]))
                assert decode.result((await client.message()).content)[0] == code
                assert await client.bind(ALICE, "alice-pw", controls=[control]) == code
        assert (await there.client(SERVICE)).next_id


# -- everything the root DSE names ----------------------------------------------------------------


async def _paging(there: Bed, client: Client) -> bool:
    code, entries, done = await client.search(BASE, controls=[paged(1)])
    return (code, len(entries), bool(cookie_of(done))) == (0, 1, True)


async def _sorting(there: Bed, client: Client) -> bool:
    code, entries, done = await client.search(USERS, "(objectClass=user)", controls=[sort("-cn", critical=True)])
    return (code, names(entries), sorted_as(done)[0]) == (0, ["ldapservice", "bob", "alice"], 0)


async def _assertion(there: Bed, client: Client) -> bool:
    return (await client.search(ALICE, controls=[asserting("(cn=bob)")]))[0] == 122


async def _manage(there: Bed, client: Client) -> bool:
    return (await client.search(ALICE, controls=[encode.control(MANAGE_DSA_IT, True)]))[0] == 0


async def _subentries(there: Bed, client: Client) -> bool:
    control = encode.control(SUBENTRIES, True, b"\x01\x01\xff")
    return (await client.search(BASE, controls=[control]))[:2] == (0, [])


async def _values(there: Bed, client: Client) -> bool:
    _, [entry], _ = await client.search(ALICE, scope=0, controls=[choosing("(objectClass=person)")])
    return entry.attributes == [(b"objectClass", [b"person"])]


async def _who(there: Bed, client: Client) -> bool:
    client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3"))
    values = dict(decode.elements((await client.message()).content))
    return values[0x8B] == f"dn:cn={SERVICE},{USERS}".encode()


async def _cancel(there: Bed, client: Client) -> bool:
    there.authority.hold = asyncio.Event()
    client.send(encode.extended(client.next_id, "1.3.6.1.1.8", encode.tlv(0x30, encode.integer(9999))))
    return decode.result((await client.message()).content)[0] == 119


async def _start_tls(there: Bed, client: Client) -> bool:
    client.send(encode.extended(client.next_id, "1.3.6.1.4.1.1466.20037"))
    if decode.result((await client.message()).content)[0] != 0:
        return False
    await client.writer.start_tls(trusting())
    return (await client.search(ALICE))[0] == 0


async def _operational(there: Bed, client: Client) -> bool:
    _, [entry], _ = await client.search(ALICE, scope=0, attributes=["+"])
    return "entryUUID" in entry.names and "cn" not in entry.names


async def _absolute(there: Bed, client: Client) -> bool:
    found = [len((await client.search(ALICE, filter, scope=0))[1]) for filter in ("(&)", "(|)")]
    return found == [1, 0]


async def _plain(there: Bed, client: Client) -> bool:
    client.send(encode.sasl_bind(client.next_id, "PLAIN", b"\0alice\0alice-pw"))
    return decode.result((await client.message()).content)[0] == 0


async def _change_password(there: Bed, client: Client) -> bool:
    client.send(encode.extended(client.next_id, PASSWORD_MODIFY, wish(old="service-pw", new="another")))
    return decode.result((await client.message()).content)[0] == 0


PROOFS: dict[str, Callable[[Bed, Client], Any]] = {
    PAGED: _paging,
    SORT: _sorting,
    SORT_RESULT: _sorting,
    ASSERTION: _assertion,
    MANAGE_DSA_IT: _manage,
    SUBENTRIES: _subentries,
    MATCHED_VALUES: _values,
    "1.3.6.1.4.1.4203.1.11.3": _who,
    "1.3.6.1.1.8": _cancel,
    "1.3.6.1.4.1.1466.20037": _start_tls,
    "1.3.6.1.4.1.4203.1.5.1": _operational,
    "1.3.6.1.4.1.4203.1.5.3": _absolute,
    "PLAIN": _plain,
    PASSWORD_MODIFY: _change_password,
}


@pytest.mark.parametrize("tls", [False, True])
async def test_whatever_the_root_dse_names_works(tls: bool) -> None:
    async with bed(passwords=Keeper()) as there:
        client = await there.client(tls=trusting() if tls else None)
        _, [root], _ = await client.search("", scope=0)
        held = {name.decode(): [value.decode() for value in values] for name, values in root.attributes}
        lists = ("supportedControl", "supportedExtension", "supportedFeatures", "supportedSASLMechanisms")
        named = [one for name in lists for one in held.get(name, ())]
        assert len(named) == len(set(named))
        assert ("PLAIN" in named, "1.3.6.1.4.1.1466.20037" in named) == (tls, not tls)
        for one in named:
            fresh = await there.client(SERVICE, tls=trusting() if tls else None)
            assert await PROOFS[one](there, fresh), one
            there.authority.hold = None
            if one != PASSWORD_MODIFY:  # which ends all sessions of the old password
                assert (await fresh.search("", scope=0))[0] == 0, one


def test_every_proof_is_of_something_named() -> None:
    every = rootdse.attributes(
        [BASE.encode()], is_secure=False, can_start_tls=True, can_change_passwords=True, mechanisms=[b"PLAIN"]
    )
    named = {value.decode() for name, values in every if name.startswith(b"supported") for value in values}
    assert named - {"3"} == set(PROOFS), "EXTERNAL has tests of its own"
