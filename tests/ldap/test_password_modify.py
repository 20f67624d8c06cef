"""Password Modify (RFC 3062) over real sockets: who may change what, and everything that must be refused."""

import asyncio
import random
from typing import Any

import pytest

from outpost.identity import (
    Changed,
    Identity,
    LdapProvider,
    PasswordDecision,
    Rejected,
    RejectReason,
    Revoked,
    Secret,
    Served,
    Source,
    Unavailable,
    UnavailableReason,
    Unwilling,
)
from outpost.ldap._session import Session
from outpost.ldap.observer import Silent
from outpost.ldap.operations.password_modify import GENERATED, PasswordModifier, _is_loopback, _read
from tests.ldap import decode, encode
from tests.ldap.testbed import ALICE, BASE, PASSWORDS, Bed, Client, bed, provider, trusting

OID = "1.3.6.1.4.1.4203.1.11.1"


class Keeper:
    """Remembers what it was asked to change, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, bytes]] = []
        self.answer: PasswordDecision | BaseException = Changed()
        self.can = True
        self.hold: asyncio.Event | None = None
        self.during = lambda: None

    def can_change_passwords(self) -> bool:
        return self.can

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        self.asked.append((identity.username, old.reveal(), new.reveal()))
        if self.hold is not None:
            await self.hold.wait()
        self.during()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def wish(identity: str | bytes | None = None, old: str | bytes | None = None, new: str | bytes | None = None) -> bytes:
    parts = ((0x80, identity), (0x81, old), (0x82, new))
    return encode.tlv(0x30, *(encode.octets(value, tag) for tag, value in parts if value is not None))


def ask(client: Client, value: bytes | None) -> int:
    number = client.next_id
    client.send(encode.extended(number, OID, value))
    return number


async def modify(client: Client, value: bytes | None) -> tuple[int, bytes, bytes | None]:
    """resultCode, diagnosticMessage, response value."""
    ask(client, value)
    return parts(await client.message())


def parts(message: decode.Message) -> tuple[int, bytes, bytes | None]:
    code, _, diagnostic = decode.result(message.content)
    value = next((content for tag, content in decode.elements(message.content) if tag == 0x8B), None)
    assert not any(tag == 0x8A for tag, _ in decode.elements(message.content)), "no responseName (RFC 3062 2)"
    return code, diagnostic, value


async def offered(client: Client) -> bool:
    _, [root], _ = await client.search("", scope=0, attributes=["supportedExtension"])
    return OID.encode() in root["supportedExtension"]


# -- known good ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity",
    [
        None, ALICE, ALICE.upper(), "CN = alice, ou=users , " + BASE, f"cn=alice,{BASE}", "dn:" + ALICE, "u:alice",
        "u:ALICE", "alice",
    ],
)  # fmt: skip
async def test_whoever_is_bound_changes_his_own(identity: str | None) -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice", tls=trusting())
        assert await modify(client, wish(identity, "alice-pw", "new-pw")) == (0, b"", None)
        assert keeper.asked == [("alice", b"alice-pw", b"new-pw")]
        assert there.seen.operations[-1] == ("extended", 0)
        assert (await client.search(BASE))[0] == 50, "what proved him is no proof any more"
        assert await client.bind(ALICE, "alice-pw") == 0, "and the connection goes on"


async def test_passwords_are_octets() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        assert (await modify(client, wish(None, b"a\0\xff", b"\xfe" * 500)))[0] == 0
        assert keeper.asked == [("alice", b"a\0\xff", b"\xfe" * 500)]


async def test_without_a_new_one_it_is_made_and_told() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        told = set()
        for _ in range(3):
            client = await there.client("alice", tls=trusting())
            code, _, value = await modify(client, wish(None, "alice-pw"))
            assert code == 0 and value is not None
            [(outer, content)] = decode.elements(value)
            [(tag, made)] = decode.elements(content)
            assert (outer, tag) == (0x30, 0x80) and len(made) == GENERATED and made.isalnum()
            assert keeper.asked[-1][2] == made
            told.add(made)
        assert len(told) == 3


async def test_a_made_password_is_told_only_when_it_counts() -> None:
    keeper = Keeper()
    keeper.answer = Rejected(RejectReason.INVALID_CREDENTIALS)
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        assert await modify(client, wish(None, "wrong")) == (49, b"", None)


# -- must refuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, 53),
        (wish(), 53),
        (wish(new="new-pw"), 53),
        (wish(ALICE, None, "new-pw"), 53),
        (wish(None, "", "new-pw"), 53),
        (wish(None, "alice-pw", ""), 53),
        (wish("", "alice-pw", "new-pw"), 50),
        (wish("u:", "alice-pw", "new-pw"), 50),
        (wish("dn:", "alice-pw", "new-pw"), 50),
        (wish(f"cn=bob,ou=users,{BASE}", "bob-pw", "new-pw"), 50),
        (wish("bob", "bob-pw", "new-pw"), 50),
        (wish("u:bob", "bob-pw", "new-pw"), 50),
        (wish(BASE, "alice-pw", "new-pw"), 50),
        (wish("cn=alice,dc=elsewhere", "alice-pw", "new-pw"), 50),
        (wish("cn=alice\\", "alice-pw", "new-pw"), 50),
        (wish(f"cn=alice\\00,ou=users,{BASE}", "alice-pw", "new-pw"), 50),
        (wish(f"cn=bob+cn=alice,ou=users,{BASE}", "alice-pw", "new-pw"), 50),
        (wish("alice ", "alice-pw", "new-pw"), 50),
        (wish(b"\xff", "alice-pw", "new-pw"), 50),
        (wish(b"u:u:alice", "alice-pw", "new-pw"), 50),
        (b"", 2),
        (b"\x30", 2),
        (wish(None, "alice-pw", "new-pw") + b"\0", 2),
        (wish(None, "alice-pw", "new-pw")[:-1], 2),
        (encode.tlv(0x31, encode.octets("alice-pw", 0x81)), 2),
        (encode.tlv(0x30, encode.octets("new-pw", 0x82), encode.octets("alice-pw", 0x81)), 2),
        (encode.tlv(0x30, encode.octets("a", 0x81), encode.octets("a", 0x81)), 2),
        (encode.tlv(0x30, encode.octets("a", 0x83)), 2),
        (encode.tlv(0x30, encode.octets("a", 0x04)), 2),
        (encode.tlv(0x30, b"\x81\x80a\0\0"), 2),
    ],
)
async def test_must_refuse(value: bytes | None, code: int) -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice", tls=trusting())
        found = await modify(client, value)
        assert found[0] == code and found[1] and found[2] is None
        assert keeper.asked == []
        assert (await client.search(BASE))[0] == 0, "he is bound as before"


async def test_nobody_in_particular_changes_nothing() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        client = await there.client(tls=trusting())
        for value in (None, wish(ALICE, "alice-pw", "new-pw"), wish(None, "alice-pw", "new-pw")):
            assert (await modify(client, value))[0] == 8
        assert await client.bind(ALICE, "wrong") == 49
        assert (await modify(client, wish(ALICE, "alice-pw", "new-pw")))[0] == 8
        assert keeper.asked == []


async def test_a_critical_control_that_is_not_understood() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        for oid in ("1.2.3", "1.2.840.113556.1.4.319"):
            controls = [encode.control(oid, True)]
            client.send(encode.extended(client.next_id, OID, wish(None, "alice-pw", "new"), controls))
            assert parts(await client.message())[0] == 12
        assert keeper.asked == []


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False),
        ("::", False), ("0.0.0.0", False), ("fe80::1%lo", False), ("::ffff:192.0.2.1", False),
        ("", False), ("?", False),
    ],
)  # fmt: skip
def test_what_is_loopback(address: str, is_loopback: bool) -> None:
    assert _is_loopback(address) is is_loopback


async def test_passwords_cross_no_network_in_clear() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper, trusted="127.0.0.0/8") as there:
        for address, code in (("192.0.2.7", 13), ("127.0.0.1", 0)):
            client = await there.client()
            client.send(f"PROXY TCP4 {address} 192.0.2.1 4000 389\r\n".encode())
            assert await client.bind(ALICE, "alice-pw") == 0
            found = await modify(client, wish(None, "alice-pw", "new-pw"))
            assert found[0] == code, address
            assert len(keeper.asked) == (code == 0)


async def test_where_passwords_are_kept_elsewhere() -> None:
    async with bed() as there:
        client = await there.client("alice", tls=trusting())
        assert not await offered(client)
        code, diagnostic, _ = await modify(client, wish(None, "alice-pw", "new-pw"))
        assert code == 53 and b"where your account is managed" in diagnostic
        assert (await modify(client, b"\x30"))[0] == 2


async def test_where_they_cannot_be_changed_at_the_moment_the_backend_says_why() -> None:
    keeper = Keeper()
    keeper.can, keeper.answer = False, Unwilling("read-only")
    async with bed(passwords=keeper) as there:
        client = await there.client("alice", tls=trusting())
        assert not await offered(client)
        assert await modify(client, wish(None, "alice-pw", "new-pw")) == (53, b"read-only", None)


async def test_switched_off_for_a_provider() -> None:
    keeper = Keeper()
    off = provider(1, password_modify=False)
    async with bed(passwords=keeper, providers=[off]) as there:
        client = await there.client("alice", tls=trusting())
        assert not await offered(client)
        assert (await modify(client, wish(None, "alice-pw", "new-pw")))[0] == 53
        await there.serve(Served(ldap=(off, provider(2, "dc=other"))))
        assert await offered(client)
        assert (await modify(client, wish(None, "alice-pw", "new-pw")))[0] == 53
        assert await client.bind("cn=alice,dc=other", "alice-pw") == 0
        assert (await modify(client, wish(ALICE, "alice-pw", "new-pw")))[0] == 50, "his namesake of another provider"
        assert (await modify(client, wish(None, "alice-pw", "new-pw")))[0] == 0
    assert len(keeper.asked) == 1


async def test_it_is_offered_where_it_works() -> None:
    async with bed(passwords=Keeper()) as there:
        assert await offered(await there.client())
    assert not PasswordModifier(None, Silent(), Session.forget).is_offered([provider()])


# -- what the backend says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "diagnostic"),
    [
        (Unwilling("the directory file is read-only"), 53, b"the directory file is read-only"),
        (Rejected(RejectReason.INVALID_CREDENTIALS, "wrong old password"), 49, b""),
        (Rejected(RejectReason.ACCESS_DENIED, "no"), 50, b""),
        (Rejected(RejectReason.THROTTLED), 49, b""),
        (Unavailable(UnavailableReason.BUSY), 51, b"busy, try again"),
        (Unavailable(UnavailableReason.BACKEND_DOWN), 52, b"passwords cannot be changed at the moment"),
        (RuntimeError("a bug"), 52, b"passwords cannot be changed at the moment"),
        (None, 52, b"passwords cannot be changed at the moment"),
        (True, 52, b"passwords cannot be changed at the moment"),
    ],
)
async def test_only_one_answer_is_success(answer: Any, code: int, diagnostic: bytes) -> None:
    keeper = Keeper()
    keeper.answer = answer
    async with bed(passwords=keeper) as there:
        client = await there.client("alice", tls=trusting())
        assert await modify(client, wish(None, "alice-pw", "new-pw")) == (code, diagnostic, None)
        assert (await client.search(BASE))[0] == 0, "he is bound as before"


async def test_wrong_guesses_are_throttled_as_those_of_logins_are() -> None:
    keeper = Keeper()
    keeper.answer = Rejected(RejectReason.INVALID_CREDENTIALS)
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        for n in range(200):
            assert (await modify(client, wish(None, f"guess-{n}", "new-pw")))[0] == 49
            if len(keeper.asked) <= n:
                break
        assert 1 < len(keeper.asked) < 200
        keeper.answer = Changed()
        assert (await modify(client, wish(None, "alice-pw", "new-pw")))[0] == 49, "not even the right one"


async def test_giving_up_does_not_hide_a_guess() -> None:
    keeper = Keeper()
    keeper.answer = Rejected(RejectReason.INVALID_CREDENTIALS)
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        for n in range(200):
            seen = len(keeper.asked)
            keeper.hold = asyncio.Event()
            number = ask(client, wish(None, f"guess-{n}", "new-pw"))
            client.send(encode.abandon(client.next_id, number))
            assert (await client.search("", scope=0))[0] == 0
            keeper.hold.set()
            while there.gate._changes:
                await asyncio.sleep(0)
            if len(keeper.asked) == seen and n:
                break
        assert len(keeper.asked) < 200


# -- revocation ----------------------------------------------------------------------------------------


async def revoking(there: Bed, keeper: Keeper) -> None:
    pk = [*PASSWORDS].index("alice") + 1
    keeper.during = lambda: there.gate.publish(Revoked(user_pk=pk))


async def test_everybody_else_who_used_the_old_one_is_put_out() -> None:
    keeper = Keeper()
    async with bed(passwords=keeper) as there:
        await revoking(there, keeper)
        mine, other = await there.client("alice", tls=trusting()), await there.client("alice")
        bob = await there.client("bob")
        asked = len(there.authority.asked)
        assert (await modify(mine, wish(None, "alice-pw", "new-pw")))[0] == 0
        assert b"bind again" in decode.result((await other.message()).content)[2]
        assert await other.is_closed()
        assert (await mine.search(BASE))[0] == 50
        assert (await bob.search(BASE))[0] == 0
        before = dict(PASSWORDS)
        try:
            PASSWORDS["alice"] = "new-pw"
            assert await mine.bind(ALICE, "alice-pw") == 49, "nothing remembers the old one"
            assert await mine.bind(ALICE, "new-pw") == 0
        finally:
            PASSWORDS.update(before)
        assert len(there.authority.asked) == asked + 2


async def test_a_revocation_during_a_change_that_fails_still_counts() -> None:
    keeper = Keeper()
    keeper.answer = Unwilling("no")
    async with bed(passwords=keeper) as there:
        await revoking(there, keeper)
        client = await there.client("alice")
        assert (await modify(client, wish(None, "alice-pw", "new-pw")))[0] == 53
        assert (await client.search(BASE))[0] == 50, "whatever it was for, he is not believed any more"


async def test_a_change_at_a_time() -> None:
    keeper = Keeper()
    keeper.hold = asyncio.Event()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        first = ask(client, wish(None, "alice-pw", "one"))
        while not keeper.asked:
            await asyncio.sleep(0)
        second = ask(client, wish(None, "alice-pw", "two"))
        busy = await client.message()
        assert (busy.message_id, parts(busy)[0]) == (second, 51)
        keeper.hold.set()
        done = await client.message()
        assert (done.message_id, parts(done)[0]) == (first, 0)
        assert [new for _, _, new in keeper.asked] == [b"one"]


@pytest.mark.parametrize("how", ["abandon", "close"])
async def test_after_giving_up_the_session_is_as_any_other(how: str) -> None:
    keeper = Keeper()
    keeper.hold = asyncio.Event()
    async with bed(passwords=keeper) as there:
        await revoking(there, keeper)
        client = await there.client("alice")
        number = ask(client, wish(None, "alice-pw", "new-pw"))
        if how == "close":
            await client.close()
        else:
            client.send(encode.abandon(client.next_id, number))
        while not keeper.asked and how == "close":
            await asyncio.sleep(0)
            if not there.server.open:
                break
        if how == "abandon":
            assert (await client.search(BASE))[0] == 0
            there.gate.publish(Revoked(user_pk=[*PASSWORDS].index("alice") + 1))
            assert b"bind again" in decode.result((await client.message()).content)[2]
            assert await client.is_closed()
        keeper.hold.set()


async def test_stopping_ends_a_change_without_a_success() -> None:
    keeper = Keeper()
    keeper.hold = asyncio.Event()
    async with bed(passwords=keeper) as there:
        client = await there.client("alice")
        ask(client, wish(None, "alice-pw", "new-pw"))
        while not keeper.asked:
            await asyncio.sleep(0)
        await there.gate.stop()
        assert parts(await client.message())[0] == 52


def test_noise_is_malformed_or_a_wish_and_nothing_else() -> None:
    chance = random.Random(1)
    seeds = [wish("u:a", "b", "c"), wish(), wish(ALICE, b"x" * 200, None)]
    understood = 0
    for _ in range(20_000):
        octets = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(octets) + 1)
            octets[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        try:
            found = _read(bytes(octets))
        except ValueError:
            continue
        understood += 1
        assert found.old is None or found.old.reveal() in octets
        assert found.new is None or found.new.reveal() in octets
    assert 5_000 < understood < 20_000


def test_values() -> None:
    found = _read(wish("u:a", "b", "c"))
    assert found.identity == b"u:a" and found.old == Secret("b") and found.new == Secret("c")
    assert _read(None) == _read(wish())
    assert "b" not in repr(found).replace("dentity", "").replace("b'u:a'", "")
