"""Programs and libraries of others against the whole process on the example directory."""

import contextlib
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Iterator

import pytest

from tests.process.running import BASE, ROOT, SERVICE_DN, Appliance, appliance, user_dn

with warnings.catch_warnings():
    # ldap3 still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ldap3"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:DeprecationWarning"),
]
needs_tools = pytest.mark.skipif(shutil.which("ldapsearch") is None, reason="ldap-utils is not installed")
NO_CHECK = {"LDAPTLS_REQCERT": "never", "LDAPRC": "/dev/null"}


@pytest.fixture(scope="module")
def running() -> Iterator[Appliance]:
    with appliance(ROOT / "examples" / "directory.yaml") as found:
        while found.get("/-/ready")[0] != 200:
            pass
        yield found


def tool(
    running: Appliance, name: str, *arguments: str, who: str = "ldapservice", password: str = "service-pw"
) -> tuple[int, str]:
    scheme = "ldaps" if "ldaps" in arguments else "ldap"
    command = [name, "-x", "-H", running.url(scheme), "-D", user_dn(who), "-w", password]
    done = subprocess.run(
        [*command, *(one for one in arguments if one != "ldaps")],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", **NO_CHECK},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# -- OpenLDAP's tools -----------------------------------------------------------------------------


@needs_tools
@pytest.mark.parametrize("protection", [(), ("-ZZ",), ("ldaps",)], ids=["plain", "StartTLS", "ldaps"])
def test_ldapsearch(running: Appliance, protection: tuple[str, ...]) -> None:
    status, said = tool(
        running, "ldapsearch", *protection, "-LLL", "-b", BASE, "(&(objectClass=user)(cn=alice))", "mail"
    )
    assert status == 0, said
    assert said.split() == ["dn:", user_dn("alice"), "mail:", "alice@example.com"]


@needs_tools
@pytest.mark.parametrize(
    ("who", "password", "status"),
    [
        ("alice", "alice-pw", 0),
        ("alice", "wrong", 49),
        ("nobody", "alice-pw", 49),
        ("mallory", "mallory-pw", 49),
        ("guest", "guest-pw", 50),
        ("guest", "wrong", 49),
        ("carol", "carol-pw", 49),
        ("carol", "carol-pw;000000", 49),
    ],
)
def test_who_may_bind(running: Appliance, who: str, password: str, status: int) -> None:
    found, said = tool(running, "ldapwhoami", who=who, password=password)
    assert found == status, said
    assert (f"dn:{user_dn(who)}" in said) is (status == 0)


@needs_tools
@pytest.mark.parametrize(
    "extension", ["pr=1/noprompt", "pr=3/noprompt", "pr=1000/noprompt", "sss=uidNumber", "sss=-cn"]
)
def test_ldapsearch_pages_and_sorts(running: Appliance, extension: str) -> None:
    arguments = ("-LLL", "-b", f"ou=users,{BASE}", "-s", "one", "(objectClass=person)", "cn", "uidNumber")
    status, plain = tool(running, "ldapsearch", *arguments)
    assert status == 0, plain
    status, said = tool(running, "ldapsearch", "-E", f"!{extension}", *arguments)
    assert status == 0, said

    def names(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("cn: ")]

    assert sorted(names(said)) == sorted(names(plain))
    assert len(names(plain)) >= 8
    if "sss=-cn" in extension:
        assert names(said) == sorted(names(plain), reverse=True)


@needs_tools
def test_ldapcompare(running: Appliance) -> None:
    assert tool(running, "ldapcompare", user_dn("alice"), "mail:ALICE@example.com")[0] == 6
    assert tool(running, "ldapcompare", user_dn("alice"), "mail:bob@example.com")[0] == 5
    assert tool(running, "ldapcompare", user_dn("ghost"), "mail:bob@example.com")[0] == 32


@needs_tools
def test_changes_are_refused(running: Appliance) -> None:
    status, said = tool(running, "ldapdelete", user_dn("alice"))
    assert status == 53, said
    assert tool(running, "ldapsearch", "-b", user_dn("alice"), "-s", "base", "dn")[0] == 0


# -- ldap3, which checks everything against the schema --------------------------------------------


def ldap3_server(running: Appliance, scheme: str = "ldap") -> ldap3.Server:
    return ldap3.Server(
        "127.0.0.1",
        running.ports[scheme],
        use_ssl=scheme == "ldaps",
        get_info=ldap3.ALL,
        tls=ldap3.Tls(validate=ssl.CERT_NONE),
    )


@contextlib.contextmanager
def connected(server: ldap3.Server, who: str = SERVICE_DN, password: str = "service-pw") -> Iterator[ldap3.Connection]:
    there = ldap3.Connection(server, who, password, check_names=True, raise_exceptions=True)
    try:
        assert there.bind()
        yield there
    finally:
        there.unbind()


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_ldap3_reads_the_schema_and_every_entry_by_it(running: Appliance, scheme: str) -> None:
    server = ldap3_server(running, scheme)
    with connected(server) as there:
        assert server.info.naming_contexts == [BASE]
        there.search(BASE, "(objectClass=*)", attributes=[ldap3.ALL_ATTRIBUTES, ldap3.ALL_OPERATIONAL_ATTRIBUTES])
        assert len(there.entries) > 20
        known = {name.lower() for name in server.schema.attribute_types}
        classes = {name.lower() for name in server.schema.object_classes}
        for entry in there.entries:
            assert {name.lower() for name in entry.entry_attributes} <= known
            assert {name.lower() for name in entry.objectClass.values} <= classes
        there.search(BASE, "(&(uidNumber>=1)(cn=alice)(ak-active=TRUE))", attributes=["uidNumber", "ak-active"])
        [alice] = there.entries
        assert isinstance(alice.uidNumber.value, int)
        assert alice["ak-active"].value is True
        # ldap3 asks for classes that the schema names only, though this name is none by RFC 4512.
        there.search(BASE, "(&(objectClass=goauthentik.io/ldap/user)(cn=alice))", attributes=["objectClass"])
        assert [entry.entry_dn for entry in there.entries] == [user_dn("alice")]
        with pytest.raises(ldap3.core.exceptions.LDAPAttributeError):
            there.search(BASE, "(noSuchThing=x)", attributes=["cn"])


def test_ldap3_pages_starts_tls_compares_and_asks_who_it_is(running: Appliance) -> None:
    server = ldap3_server(running)
    with connected(server) as there:
        assert there.start_tls()
        assert there.extend.standard.who_am_i() == f"dn:{SERVICE_DN}"
        pages = there.extend.standard.paged_search(
            f"ou=users,{BASE}", "(objectClass=person)", attributes=["cn"], paged_size=2, generator=True
        )
        found = [entry["dn"] for entry in pages]
        assert len(found) == len(set(found)) >= 8
        assert there.compare(user_dn("alice"), "mail", "alice@example.com")
        assert not there.compare(user_dn("alice"), "mail", "bob@example.com")


@pytest.mark.parametrize(("who", "password"), [("alice", "wrong"), ("nobody", "x"), ("mallory", "mallory-pw")])
def test_ldap3_is_told_invalid_credentials(running: Appliance, who: str, password: str) -> None:
    there = ldap3.Connection(ldap3_server(running), user_dn(who), password, raise_exceptions=True)
    try:
        with pytest.raises(ldap3.core.exceptions.LDAPInvalidCredentialsResult):
            there.bind()
        assert not there.bound
    finally:
        there.unbind()


def test_a_user_sees_himself(running: Appliance) -> None:
    with connected(ldap3_server(running), user_dn("bob"), "bob-pw") as there:
        there.search(BASE, "(objectClass=person)", attributes=["cn"])
        assert [entry.entry_dn for entry in there.entries] == [user_dn("bob")]


# -- python-ldap ----------------------------------------------------------------------------------


def test_python_ldap(running: Appliance) -> None:
    ldap = pytest.importorskip("ldap", reason="python-ldap could not be built here")
    from ldap.controls import SimplePagedResultsControl

    there = ldap.initialize(running.url())
    there.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_NEVER)
    there.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
    there.start_tls_s()
    with pytest.raises(ldap.INVALID_CREDENTIALS):
        there.simple_bind_s(user_dn("alice"), "wrong")
    with pytest.raises(ldap.INSUFFICIENT_ACCESS):
        there.simple_bind_s(user_dn("guest"), "guest-pw")
    with pytest.raises(ldap.UNWILLING_TO_PERFORM):
        there.simple_bind_s(user_dn("alice"), "")
    there.simple_bind_s(SERVICE_DN, "service-pw")
    assert there.whoami_s() == f"dn:{SERVICE_DN}"
    assert there.compare_s(user_dn("alice"), "cn", b"ALICE") is True
    control = SimplePagedResultsControl(True, size=3, cookie="")
    found: list[str] = []
    while True:
        asked = there.search_ext(f"ou=users,{BASE}", ldap.SCOPE_ONELEVEL, "(cn=*)", ["cn"], serverctrls=[control])
        _, entries, _, controls = there.result3(asked)
        assert len(entries) <= 3
        found += [dn for dn, _ in entries]
        [answer] = [one for one in controls if one.controlType == control.controlType]
        control.cookie = answer.cookie
        if not answer.cookie:
            break
    assert len(found) == len(set(found)) >= 8
    there.unbind_s()


def test_python_ldap_reads_the_schema(running: Appliance) -> None:
    ldap = pytest.importorskip("ldap", reason="python-ldap could not be built here")
    from ldap.schema import AttributeType, ObjectClass, SubSchema

    there = ldap.initialize(running.url())
    there.simple_bind_s(SERVICE_DN, "service-pw")
    dn = there.search_subschemasubentry_s()
    schema = SubSchema(there.read_subschemasubentry_s(dn))
    assert schema.get_obj(AttributeType, "mail").equality == "caseIgnoreIA5Match"
    [(_, alice)] = there.search_s(user_dn("alice"), ldap.SCOPE_BASE, "(objectClass=*)", ["*", "+"])
    assert {name for name in alice if schema.get_obj(AttributeType, name) is None} == set()
    unnamed = {name.decode() for name in alice["objectClass"] if schema.get_obj(ObjectClass, name.decode()) is None}
    assert unnamed == {"goauthentik.io/ldap/user"}
    must, may = schema.attribute_types([name.decode() for name in alice["objectClass"] if b"/" not in name])
    assert must and len(may) > 30
    there.unbind_s()


def test_nothing_was_logged_that_a_client_keeps_secret(running: Appliance) -> None:
    assert "alice-pw" not in running.said
    assert "service-pw" not in running.said
    assert '"level":"error"' not in running.said, running.said
