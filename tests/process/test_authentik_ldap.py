"""LDAP clients at the real process, which asks a server made for tests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography import x509

from tests.backends.authentik.appliance import small
from tests.backends.authentik.keys import renew
from tests.backends.authentik.test_catalog import with_certificate
from tests.ldap import encode, testbed
from tests.process.running import BASE, Appliance, user_dn
from tests.process.test_authentik import COMMAND, server, until_ready
from tests.stub_authentik.model import NEW, OLD, Application, Flow, Release, Stage
from tests.stub_authentik.server import Stub

with warnings.catch_warnings():
    # It still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPExceptionError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

OK, COMPARE_TRUE, NO_SUCH_OBJECT, INVALID, INSUFFICIENT, BUSY, UNAVAILABLE, UNWILLING = 0, 6, 32, 49, 50, 51, 52, 53
RELEASES = [pytest.param(release, id=release.version) for release in (OLD, NEW)]
LONG_AGO = "2020-01-01T00:00:00Z"


class Client:
    """One LDAP connection, all of it in threads."""

    def __init__(self, running: Appliance, scheme: str = "ldap") -> None:
        tls = ldap3.Tls(validate=ssl.CERT_NONE)
        host = ldap3.Server(running.url(scheme), tls=tls, get_info=ldap3.NONE, connect_timeout=5)
        self._plain = ldap3.Connection(host, client_strategy=ldap3.SYNC, receive_timeout=20, raise_exceptions=False)

    async def start_tls(self) -> None:
        await asyncio.to_thread(self._plain.open)
        assert await asyncio.to_thread(self._plain.start_tls)

    async def bind(self, user: str, password: str) -> int:
        """The result code."""
        connection = self._plain
        connection.user, connection.password, connection.authentication = user_dn(user), password, ldap3.SIMPLE
        await asyncio.to_thread(connection.bind)
        return int(connection.result["result"])

    async def search(self, condition: str, base: str = BASE, scope: str = ldap3.SUBTREE) -> list[str] | int:
        """The DNs, or the result code that is no success."""
        await asyncio.to_thread(self._plain.search, base, condition, scope, attributes=["cn", "memberOf"])
        code = int(self._plain.result["result"])
        return code or [one["dn"] for one in self._plain.response]

    async def compare(self, user: str, attribute: str, value: str) -> int:
        """The result code."""
        await asyncio.to_thread(self._plain.compare, user_dn(user), attribute, value)
        return int(self._plain.result["result"])

    async def serial(self) -> int:
        """Serial number of the server's certificate."""
        socket = self._plain.socket
        certificate = await asyncio.to_thread(socket.getpeercert, True)
        return x509.load_der_x509_certificate(certificate).serial_number

    async def close(self) -> None:
        socket = self._plain.socket
        with contextlib.suppress(LDAPExceptionError, OSError):
            await asyncio.to_thread(self._plain.unbind)
        if socket is not None:
            socket.close()


@contextlib.asynccontextmanager
async def client(running: Appliance, scheme: str = "ldap") -> AsyncIterator[Client]:
    found = Client(running, scheme)
    try:
        yield found
    finally:
        await found.close()


async def bind(running: Appliance, user: str, password: str) -> int:
    async with client(running) as one:
        return await one.bind(user, password)


async def bind_without_password(running: Appliance, user: str) -> int:
    """What no client library sends: a name and an empty password."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ports["ldap"])
    writer.write(encode.bind(1, user_dn(user), ""))
    answer = await reader.read(1000)
    writer.close()
    await writer.wait_closed()
    assert answer[5] == 0x61 and answer[7:9] == b"\x0a\x01", answer  # BindResponse, resultCode
    return answer[9]


@contextlib.asynccontextmanager
async def outpost(stub: Stub, *options: str) -> AsyncIterator[Appliance]:
    running = Appliance([*COMMAND, *options], server(stub.url))
    try:
        await asyncio.to_thread(running.wait_until_listening)
        await until_ready(running)
        yield running
        assert await asyncio.to_thread(running.stop) == 0
        assert "Traceback" not in running.said
    finally:
        running.end()


def people(release: Release = NEW, **fields: Any) -> Stub:
    """A server whose LDAP application is not for everybody, where nobody changed of late."""
    stub = small(Stub(release), **fields)
    engineering = stub.group_named("engineering")
    assert engineering
    members = frozenset({engineering.pk})
    stub.apps["ldap-main"] = Application("ldap-main", members)
    if release.is_legacy:
        stub.providers[1].fields["search_group"] = engineering.pk
    for user in stub.users.values():
        user.password_change_date = user.last_updated = LONG_AGO
    return stub


async def withdraw(stub: Stub, running: Appliance, what: str) -> None:
    """Take from alice what she logs in with, or may log in by."""
    alice, engineering = stub.user_named("alice"), stub.group_named("engineering")
    assert engineering
    match what:
        case "password":
            stub.set_password(alice, "pw-new")
            assert await bind(running, "alice", "pw-new") == OK
        case "disabled":
            stub.deactivate(alice)
        case "group":
            stub.leave(alice, engineering)
        case "app password":
            alice.app_passwords.clear()
        case _:
            raise AssertionError(what)


async def eventually(condition: Callable[[], Any], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


# -- binds and searches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("mode", ["cached", "direct"])
async def test_binds_and_searches_are_the_servers(release: Release, mode: str) -> None:
    stub = people(release, search_mode=mode, bind_mode=mode)
    ann = stub.add_user("ann", "pw-ann", stub.group_named("engineering"), can_search=False)  # type: ignore[arg-type]
    if release.is_legacy:
        searchers = stub.add_group("searchers")
        stub.user_named("alice").groups.append(searchers.pk)
        stub.providers[1].fields["search_group"] = searchers.pk
    async with stub, outpost(stub) as running:
        for scheme in ("ldap", "ldaps", "starttls"):
            async with client(running, "ldaps" if scheme == "ldaps" else "ldap") as one:
                if scheme == "starttls":
                    await one.start_tls()
                assert await one.bind("alice", "pw-alice") == OK
                found = await one.search("(objectClass=user)")
                assert isinstance(found, list)
                assert {user_dn(user.username) for user in stub.users.values()} == set(found)
        async with client(running) as one:
            assert await one.bind("ann", "pw-ann") == OK
            found = await one.search("(objectClass=*)")
            assert isinstance(found, list)
            assert user_dn("ann") in found
            assert user_dn("alice") not in found
            assert await one.bind("ann", "wrong") == INVALID
            assert await one.search("(objectClass=*)") == INSUFFICIENT, "nobody is bound any more"
        assert await bind(running, "bob", "pw-bob") == INSUFFICIENT, "the application is not for him"
        assert await bind(running, "nobody", "pw") == INVALID
        assert await bind_without_password(running, "ann") == UNWILLING
        assert ann.is_active
        for secret in ("pw-alice", "pw-ann", "pw-bob", "wrong"):
            assert secret not in running.said


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two workers"])
async def test_a_stop_waits_for_the_login_that_is_under_way(options: tuple[str, ...]) -> None:
    async with people() as stub, outpost(stub, *options) as running:
        # ldap3 takes an answer for lost when the notice of disconnection comes right behind it.
        one = testbed.Client(*await asyncio.open_connection("127.0.0.1", running.ports["ldap"]))
        stub.fail("/flows/executor/", "slow", delay_s=1.0)
        pending = asyncio.create_task(one.bind(user_dn("alice"), "pw-alice"))

        async def has_arrived() -> bool:
            return stub.in_flight > 0

        await eventually(has_arrived, 5.0)
        running.send(signal.SIGTERM)
        assert await pending == OK
        assert (await one.message()).tag == 0x78, "a notice of disconnection"
        assert await one.is_closed()
        assert await asyncio.to_thread(running.process.wait, 10) == 0
        one.writer.close()


async def test_a_direct_search_asks_the_server_for_no_more_than_it_needs() -> None:
    stub = people(search_mode="direct")
    stub.add_user("ann", "pw-ann", stub.group_named("engineering"), can_search=False)  # type: ignore[arg-type]
    async with stub, outpost(stub, "--set", "authentik.watch_interval=0") as running:

        async def asked(one: Client, *what: str) -> list[str]:
            stub.requests.clear()
            found = await one.search(*what)
            assert isinstance(found, list) and found
            return [request.split("/core/", 1)[1] for request in stub.requests if "/core/" in request]

        async with client(running) as one:
            assert await one.bind("alice", "pw-alice") == OK
            (request,) = await asked(one, "(objectClass=*)", user_dn("bob"), ldap3.BASE)
            assert request.startswith("users/?") and "username=bob" in request
            (request,) = await asked(one, "(&(objectClass=user)(cn=bob))")
            assert request.startswith("users/?") and "username=bob" in request
            assert len(await asked(one, "(cn=*)")) == 2, "users and groups"
            stub.requests.clear()
            assert await one.compare("bob", "cn", "bob") == COMPARE_TRUE
            (request,) = [one for one in stub.requests if "/core/" in one]
            assert "username=bob" in request
        async with client(running) as one:
            assert await one.bind("ann", "pw-ann") == OK
            (request,) = await asked(one, "(objectClass=*)")
            assert request == f"users/{stub.user_named('ann').pk}/"


async def test_who_sees_only_himself_needs_no_directory() -> None:
    """Before the first complete read the one who may search waits, but nobody waits to read himself."""
    stub = people()
    stub.add_user("ann", "pw-ann", stub.group_named("engineering"), can_search=False)  # type: ignore[arg-type]
    stub.fail(r"/core/users/\?page", "hang")
    async with stub:
        running = Appliance(COMMAND, server(stub.url))
        try:
            await asyncio.to_thread(running.wait_until_listening)

            async def is_served() -> bool:
                return "providers read" in running.said

            await eventually(is_served, 20.0)
            async with client(running) as one:
                assert await one.bind("alice", "pw-alice") == OK
                assert await one.search("(cn=alice)") == BUSY
            async with client(running) as one:
                assert await one.bind("ann", "pw-ann") == OK
                found = await one.search("(objectClass=user)")
                assert found == [user_dn("ann")]
                assert await one.compare("ann", "cn", "ann") == COMPARE_TRUE
                assert await one.compare("alice", "cn", "alice") == NO_SUCH_OBJECT
            stub.heal()
            await until_ready(running)
            async with client(running) as one:
                assert await one.bind("alice", "pw-alice") == OK
                assert await one.search("(&(objectClass=user)(cn=alice))") == [user_dn("alice")]
            assert await asyncio.to_thread(running.stop) == 0
            assert "Traceback" not in running.said
        finally:
            running.end()


async def test_a_provider_that_is_removed_is_served_no_more() -> None:
    async with people() as stub, outpost(stub) as running, client(running) as held:
        assert await held.bind("alice", "pw-alice") == OK
        await stub.until(lambda: len(stub.hellos) >= 2)
        stub.providers[1].app = ""
        await stub.tell(2)
        await asyncio.to_thread(running.event, "no provider with an application")

        async def is_over() -> bool:
            try:
                return isinstance(await held.search("(cn=*)"), int)
            except LDAPExceptionError:
                return True

        await eventually(is_over, 2.0)
        assert await bind(running, "alice", "pw-alice") == UNAVAILABLE, "there is no directory at all"


async def test_the_reason_of_a_refusal_is_told_in_words_and_counted() -> None:
    stub = people(flow="webauthn")
    mfa = Stage("mfa", classes=("webauthn",), not_configured="deny")
    stub.flows["webauthn"] = Flow("webauthn", (Stage("identification"), Stage("password"), mfa, Stage("login")))
    stub.user_named("alice").devices = ("webauthn",)
    async with stub, outpost(stub) as running:
        assert await bind(running, "alice", "pw-alice") == INVALID
        line = await asyncio.to_thread(running.event, "Login explained")
        assert line["detail"] == "the flow 'webauthn' asked for a WebAuthn device, which LDAP clients cannot answer"
        assert line["bindDN"] == user_dn("alice")
        _, text = await asyncio.to_thread(running.get, "/metrics")
        rejected = [
            one for one in text.splitlines() if one.startswith("authentik_outpost_ldap_requests_rejected_total{")
        ]
        assert any('reason="flow_error"' in one and 'type="bind"' in one for one in rejected)
        for service in ("ldap", "radius"):
            name = f'outpost_name="stub-{service}",outpost_type="{service}"'
            for metric in ("info", "last_update", "connection"):
                assert any(
                    one.startswith(f"authentik_outpost_{metric}{{") and name in one for one in text.splitlines()
                ), metric


# -- what was believed must die ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("what", ["password", "disabled", "group", "app password"])
async def test_an_old_password_is_refused_within_two_seconds_and_its_connections_end(
    release: Release, what: str
) -> None:
    async with people(release) as stub, outpost(stub) as running:
        stub.user_named("alice").app_passwords.add("for-mail")
        secret = "for-mail" if what == "app password" else "pw-alice"
        async with client(running) as held:
            assert await held.bind("alice", secret) == OK
            assert await bind(running, "alice", secret) == OK, "from the cache"
            assert stub.logins == 1
            if what == "app password":  # what is revoked before it was seen for the first time dies with its age
                await stub.until(lambda: stub.counts["/api/v3/core/tokens/"] > 0)
            await withdraw(stub, running, what)
            expected = INSUFFICIENT if what == "group" else INVALID

            async def is_refused() -> bool:
                try:
                    return await bind(running, "alice", secret) == expected
                except LDAPExceptionError:  # bound, and ended in the same moment
                    return False

            await eventually(is_refused, 2.0)

            async def is_over() -> bool:
                try:
                    return await held.search("(cn=*)") != OK and held._plain.closed
                except LDAPExceptionError:
                    return True

            await eventually(is_over, 2.0)


@pytest.mark.parametrize("what", ["password", "disabled", "group", "app password"])
async def test_with_the_channel_cut_an_old_password_is_refused_within_its_bound(what: str) -> None:
    """With nothing else to see it by."""
    bound = ("--set", "cache.max_age_disconnected=2s", "--set", "authentik.watch_interval=0")
    async with people() as stub, outpost(stub, *bound) as running:
        stub.user_named("alice").app_passwords.add("for-mail")
        secret = "for-mail" if what == "app password" else "pw-alice"
        await stub.until(lambda: len(stub.hellos) >= 2)
        stub.refuses_channel = True
        await stub.cut_channels()
        await asyncio.to_thread(running.event, "revocations do not arrive")
        assert await bind(running, "alice", secret) == OK
        await withdraw(stub, running, what)

        async def is_refused() -> bool:
            return await bind(running, "alice", secret) == (INSUFFICIENT if what == "group" else INVALID)

        await eventually(is_refused, 4.0)


async def test_a_session_that_the_server_ends_takes_the_connection_along() -> None:
    async with people() as stub, outpost(stub) as running, client(running) as held:
        assert await held.bind("alice", "pw-alice") == OK
        await stub.until(lambda: len(stub.hellos) >= 2)
        await stub.end_sessions(stub.user_named("alice"))

        async def is_over() -> bool:
            try:
                return isinstance(await held.search("(cn=*)"), int)
            except LDAPExceptionError:
                return True

        await eventually(is_over, 2.0)
        assert await bind(running, "alice", "pw-alice") == OK, "she may bind again"
        assert stub.logins == 2


async def test_a_refusal_of_a_moment_does_not_stick() -> None:
    async with people() as stub, outpost(stub) as running:
        stub.fail("/flows/executor/", times=1)
        assert await bind(running, "alice", "pw-alice") == UNAVAILABLE
        async with client(running) as one:
            for password, code in (("pw-alice", OK), ("wrong", INVALID), ("pw-alice", OK)):
                assert await one.bind("alice", password) == code
            assert isinstance(await one.search("(cn=alice)"), list)


async def test_a_lock_out_that_is_over_is_over() -> None:
    async with people() as stub, outpost(stub) as running, client(running) as one:
        alice = stub.user_named("alice")
        alice.is_active = False
        assert await one.bind("alice", "pw-alice") == INVALID
        alice.is_active = True
        assert await one.bind("alice", "pw-alice") == OK, "the very next bind"
        assert await one.bind("alice", "wrong") == INVALID
        assert await one.search("(cn=alice)") == INSUFFICIENT, "anonymous"
        assert await one.bind("alice", "pw-alice") == OK
        assert await one.search("(&(objectClass=user)(cn=alice))") == [user_dn("alice")]


async def test_an_unbind_ends_the_session_on_the_server_where_logins_are_not_remembered() -> None:
    async with people(bind_mode="direct") as stub, outpost(stub) as running:
        async with client(running) as one:
            assert await one.bind("alice", "pw-alice") == OK
            assert len(stub.sessions_of(stub.user_named("alice"))) == 1
            assert stub.logouts == 0
        await stub.until(lambda: stub.logouts == 1)
        assert stub.sessions_of(stub.user_named("alice")) == []


# -- outage -----------------------------------------------------------------------------------------------------------


async def test_a_failing_page_never_shrinks_the_directory() -> None:
    stub = people()
    async with stub, outpost(stub, "--set", "authentik.page_size=2") as running, client(running) as one:
        assert await one.bind("alice", "pw-alice") == OK
        before = await one.search("(objectClass=user)")
        assert isinstance(before, list) and len(before) == len(stub.users)
        stub.fail(r"/core/users/\?page=[2-9]")
        stub.add_user("late", "pw")
        running.send(signal.SIGHUP)
        await asyncio.to_thread(running.event, "users and groups cannot be read, the last copy stays")
        assert await one.search("(objectClass=user)") == before
        status, text = await asyncio.to_thread(running.get, "/-/ready")
        assert status == 503 and "users and groups cannot be read" in text
        stub.heal()

        async def is_whole() -> bool:
            found = await one.search("(objectClass=user)")
            return isinstance(found, list) and len(found) == len(before) + 1

        await eventually(is_whole, 5.0)


async def test_an_outage_is_survived_and_over_within_five_seconds() -> None:
    async with people() as stub, outpost(stub) as running, client(running) as one:
        assert await one.bind("alice", "pw-alice") == OK
        before = await one.search("(objectClass=user)")
        await stub.stop()
        await asyncio.to_thread(running.event, "no event channel")
        assert await one.search("(objectClass=user)") == before
        assert await bind(running, "alice", "pw-alice") == OK, "remembered"
        assert await bind(running, "bob", "pw-bob") == UNAVAILABLE

        async def is_unready() -> bool:
            return (await asyncio.to_thread(running.get, "/-/ready"))[0] == 503

        await eventually(is_unready, 5.0)
        assert (await asyncio.to_thread(running.get, "/outpost.goauthentik.io/ping"))[0] == 204
        engineering = stub.group_named("engineering")
        assert engineering
        stub.add_user("late", "pw-late", engineering, can_search=True)
        stub.add_provider(stub.outposts["stub-ldap-token"], "second", "ldap-main", base_dn="dc=second")
        stub.apps["ldap-main"] = Application("ldap-main", frozenset({engineering.pk}))
        await stub.start()

        async def is_back() -> bool:
            if await bind(running, "late", "pw-late") != OK:
                return False
            async with client(running) as another:
                await another.bind("late", "pw-late")
                found = await another.search("(objectClass=user)")
            ready = (await asyncio.to_thread(running.get, "/-/ready"))[0] == 200
            return isinstance(found, list) and len(found) == len(before) + 1 and ready  # type: ignore[arg-type]

        await eventually(is_back, 5.0)
        line = await asyncio.to_thread(running.event, "^providers read$")
        assert "second" in line["names"]


async def test_a_hung_server_costs_a_bind_its_deadline_and_the_others_nothing() -> None:
    async with people() as stub, outpost(stub, "--set", "authentik.login_timeout=1s") as running:
        assert await bind(running, "alice", "pw-alice") == OK
        stub.fail("/flows/executor/", "hang")
        cold = [asyncio.create_task(bind(running, f"user{i % 5}", f"pw-{i}")) for i in range(10)]
        await stub.until(lambda: stub.in_flight >= 4)
        async with client(running) as one:
            for _ in range(20):
                assert await one.bind("alice", "pw-alice") == OK
                assert isinstance(await one.search("(cn=alice)"), list)
        assert not any(task.done() and task.result() == OK for task in cold)
        assert set(await asyncio.gather(*cold)) == {UNAVAILABLE}
        stub.heal()
        assert await bind(running, "bob", "pw-bob") == INSUFFICIENT


# -- certificates -----------------------------------------------------------------------------------------------------


async def test_a_rotated_certificate_is_served_within_two_seconds_and_no_handshake_fails() -> None:
    """With connection upon connection for ten minutes: `test_authentik_long.py`."""
    stub = people()
    pair = with_certificate(stub)
    failures: list[Exception] = []
    handshakes = 0

    def serial() -> int:
        return x509.load_pem_x509_certificate(pair.certificate.encode()).serial_number

    async with stub, outpost(stub) as running:

        async def shown(scheme: str) -> int:
            nonlocal handshakes
            async with client(running, "ldaps" if scheme == "ldaps" else "ldap") as one:
                if scheme == "ldaps":
                    await asyncio.to_thread(one._plain.open)
                else:
                    await one.start_tls()
                handshakes += 1
                return await one.serial()

        is_over = asyncio.Event()

        async def keep_connecting(scheme: str) -> None:
            while not is_over.is_set():
                try:
                    await shown(scheme)
                except Exception as exc:
                    failures.append(exc)
                await asyncio.sleep(0.02)

        busy = [asyncio.create_task(keep_connecting(scheme)) for scheme in ("ldaps", "starttls")]
        for _ in range(3):
            renew(pair)
            for _ in range(2):  # the server says it twice
                await stub.tell(2)

            async def is_new() -> bool:
                return {await shown("ldaps"), await shown("starttls")} == {serial()}

            await eventually(is_new, 2.0)
            await asyncio.sleep(0.2)
        good = serial()
        pair.key = "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----\n"
        pair.fingerprint = "00"
        await stub.tell(2)
        await asyncio.to_thread(running.event, "cannot be used, the last good one stays")
        assert await shown("ldaps") == good
        is_over.set()
        await asyncio.gather(*busy)
    assert failures == []
    assert handshakes > 12
