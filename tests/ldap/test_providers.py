"""Which provider a name belongs to, and whom it means: known-good forms, and everything that must be nobody."""

from typing import Any

import pytest

from outpost.identity import LdapOptions, LdapProvider
from outpost.ldap.dn import normalise
from outpost.ldap.providers import Providers
from tests.ldap import decode, encode
from tests.ldap.testbed import bed, provider

BASE = "dc=example,dc=com"
ALICE = f"cn=alice,ou=users,{BASE}"


def one(pk: int = 1, base: str = BASE, **options: Any) -> LdapProvider:
    return LdapProvider(pk, f"p{pk}", base, f"app{pk}", options=LdapOptions(**options))


def who(name: str | bytes, *providers: LdapProvider, **options: Any) -> tuple[int, str] | None:
    """pk of the provider, and the login name."""
    found = Providers(providers or (one(**options),)).bind_name(name.encode() if isinstance(name, str) else name)
    return None if found is None else (found.provider.pk, found.username)


# -- DNs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "username"),
    [
        (ALICE, "alice"),
        ("CN=Alice, OU=Users, DC=Example, DC=COM", "Alice"),
        (f"cn=alice,{BASE}", "alice"),
        (f"ou=x,cn=alice,ou=y,{BASE}", "alice"),
        (f"2.5.4.3=alice,{BASE}", "alice"),
        (f"commonName=alice,{BASE}", "alice"),
        (f"cn=alice\\,ou\\=admins,ou=users,{BASE}", "alice,ou=admins"),
        (f"cn=alice\\2cou\\3dadmins,ou=users,{BASE}", "alice,ou=admins"),
        (f"cn=alice+l=here,ou=users,{BASE}", "alice"),
        (f"cn=al\\c3\\afce,ou=users,{BASE}", "alïce"),
        (f"cn=alice,cn=bob,{BASE}", "alice"),
    ],
)
def test_dns(name: str, username: str) -> None:
    assert who(name) == (1, username)


@pytest.mark.parametrize(
    "name",
    [
        "",
        BASE,
        f"ou=users,{BASE}",
        f"uid=alice,ou=users,{BASE}",
        "cn=alice,dc=elsewhere,dc=org",
        "cn=alice,dc=com",
        f"cn=alice,x{BASE}",
        f"cn=alice\\,{BASE}",
        f"cn=alice,{BASE},dc=org",
        f"cn=,ou=users,{BASE}",
        f"cn=al\\00ice,ou=users,{BASE}",
        f"cn=al\0ice,ou=users,{BASE}",
        f"cn=al\nice,ou=users,{BASE}",
        f"cn=al\\0aice,ou=users,{BASE}",
        f"cn=al\\7fice,ou=users,{BASE}",
        f"cn=alice+cn=bob,ou=users,{BASE}",
        f"cn=#0405616c696365,ou=users,{BASE}",
        f"cn=alice\\,ou=users,{BASE},",
        f",cn=alice,{BASE}",
        f"cn=alice;ou=users;{BASE}",
        'cn="alice',
        b"cn=\xff\xfe,ou=users," + BASE.encode(),
        b"cn=\\ff\\fe,ou=users," + BASE.encode(),
        b"\xff",
        "\0",
        f"cn=alice,ou=users,{BASE}\0",
    ],
)
def test_must_refuse_dns(name: str | bytes) -> None:
    assert who(name) is None
    assert who(name, bind_names=("username", "mail", "upn")) is None
    assert who(name, strict_bind_dn=True) is None


def test_the_base_itself_names_nobody() -> None:
    """A base DN of the form cn=... is no login name of anybody below it."""
    assert who("cn=directory", base="cn=directory") is None
    assert who("ou=users,cn=directory", base="cn=directory") is None
    assert who("cn=alice,ou=users,cn=directory", base="cn=directory") == (1, "alice")


@pytest.mark.parametrize(
    ("name", "rdn", "username"),
    [
        (ALICE, "cn", "alice"),
        ("CN = alice , OU=USERS, dc=EXAMPLE, dc=com", "cn", "alice"),
        (f"2.5.4.3=alice,ou=users,{BASE}", "cn", "alice"),
        (f"cn=a\\2cb,ou=users,{BASE}", "cn", "a,b"),
        (f"uid=alice,ou=users,{BASE}", "uid", "alice"),
        (f"userid=alice,ou=users,{BASE}", "uid", "alice"),
    ],
)
def test_strict(name: str, rdn: str, username: str) -> None:
    assert who(name, strict_bind_dn=True, rdn_attribute=rdn) == (1, username)


@pytest.mark.parametrize(
    ("name", "rdn"),
    [
        (f"cn=alice,{BASE}", "cn"),
        (f"cn=alice,ou=groups,{BASE}", "cn"),
        (f"cn=alice,ou=virtual-groups,{BASE}", "cn"),
        (f"cn=alice,ou=x,ou=users,{BASE}", "cn"),
        (f"ou=x,cn=alice,ou=users,{BASE}", "cn"),
        (f"cn=alice+l=x,ou=users,{BASE}", "cn"),
        (f"l=x+cn=alice,ou=users,{BASE}", "cn"),
        (f"cn=alice+uid=bob,ou=users,{BASE}", "cn"),
        (f"uid=alice,ou=users,{BASE}", "cn"),
        (f"cn=alice,ou=users,{BASE}", "uid"),
        (f"cn=alice,ou=users\\,{BASE}", "cn"),
        (f"cn=alice\\,ou=users,{BASE}", "cn"),
    ],
)
def test_strict_must_refuse(name: str, rdn: str) -> None:
    assert who(name, strict_bind_dn=True, rdn_attribute=rdn) is None


def test_uid_as_rdn_takes_both_unless_strict() -> None:
    assert who(f"uid=alice,ou=users,{BASE}", rdn_attribute="uid") == (1, "alice")
    assert who(ALICE, rdn_attribute="uid") == (1, "alice")
    assert who(f"uid=alice+cn=bob,ou=users,{BASE}", rdn_attribute="uid") is None


# -- bases ---------------------------------------------------------------------------------------------


def test_the_longest_base_wins() -> None:
    bases = ["dc=com", BASE, f"ou=b,{BASE}", f"ou=a,ou=b,{BASE}", "o=x"]
    for order in (bases, bases[::-1]):
        served = Providers(one(pk, base) for pk, base in enumerate(order, 1))
        assert served.flaws == ()
        for pk, base in enumerate(order, 1):
            for name in (base, f"cn=u,{base.upper()}", f"cn=u,ou=users , {base}"):
                found = served.of_dn(normalise(name.encode()))
                assert found is not None and found.pk == pk, name
        at = served.bind_name(b"cn=u,ou=a,dc=example,dc=com")
        assert at is not None and at.provider.base_dn == BASE, "an RDN elsewhere is no base"
        inner = served.bind_name(b"cn=u,ou=c,ou=b,dc=example,dc=com")
        assert inner is not None and inner.provider.base_dn == f"ou=b,{BASE}"
        assert served.of_dn(b"") is None and served.of_dn(b"dc=org") is None


def test_a_comma_in_a_value_begins_no_base() -> None:
    served = Providers([one(1, "o=y"), one(2, "o=x\\,o=y")])
    for name, pk in ((b"cn=u,o=x\\,o=y", 2), (b"cn=u,o=x,o=y", 1)):
        found = served.bind_name(name)
        assert found is not None and found.provider.pk == pk
    assert served.bind_name(b"cn=u,o=z\\,o=y") is None


def test_strict_looks_at_the_innermost_provider_only() -> None:
    outer, inner = one(1, BASE), one(2, f"ou=users,{BASE}", strict_bind_dn=True)
    assert who(ALICE, outer, inner) is None, "the inner provider's users are one level deeper"
    assert who(f"cn=alice,ou=users,ou=users,{BASE}", outer, inner) == (2, "alice")


def test_the_same_base_twice_is_a_flaw() -> None:
    served = Providers([one(1, BASE), one(2, BASE.upper()), one(3, "nonsense")])
    assert [p.pk for p in served] == [1] and len(served.flaws) == 2
    assert "p2" in served.flaws[0] and "p3" in served.flaws[1]
    assert served.current(one(2)) is None and served.current(one(1)) is not None


# -- other names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "forms", "username"),
    [
        ("alice", "username", "alice"),
        ("alice@example.com", "upn", "alice"),
        ("alice@EXAMPLE.com", "upn", "alice"),
        ("alice@example.com", "mail", "alice@example.com"),
        ("alice@elsewhere.org", "mail", "alice@elsewhere.org"),
        ("alice@elsewhere.org", "username", "alice@elsewhere.org"),
        ("alice@example.com", "mail upn", "alice"),
        ("alice@elsewhere.org", "mail upn", "alice@elsewhere.org"),
        ("a@b@example.com", "upn", "a@b"),
        ("alice example", "username", "alice example"),
        ("älice", "username", "älice"),
        ("smith, alice", "username", "smith, alice"),
        ("ACME\\alice", "username", "ACME\\alice"),
    ],
)
def test_other_names(name: str, forms: str, username: str) -> None:
    assert who(name, bind_names=tuple(forms.split())) == (1, username)
    assert who(name) is None, "only on a switch"
    assert who(ALICE, bind_names=tuple(forms.split())) == (1, "alice"), "a DN still is one"


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("alice", "mail upn"),
        ("alice@elsewhere.org", "upn"),
        ("alice@sub.example.com", "upn"),
        ("alice@com", "upn"),
        ("alice@example.com.", "upn"),
        ("@example.com", "upn mail username"),
        ("alice@", "upn mail username"),
        ("@", "upn mail username"),
        ("", "upn mail username"),
        (" ", "upn mail username"),
        (" alice", "username"),
        ("alice ", "username"),
        ("alice@example.com ", "upn mail"),
        ("al\0ice", "username"),
        ("alice\0@example.com", "upn mail"),
        ("alice@example.com\0", "upn mail"),
        ("al\nice", "username"),
        ("al\u200bice", "username"),
        ("cn=alice", "username"),
        ("alice,ou=users", "username"),
        ("alice,ou=users@example.com", "upn mail"),
        ("cn=alice,dc=elsewhere", "username"),
        ("cn=alice@example.com", "upn mail username"),
        ("cn\\=alice", "username"),
    ],
)
def test_must_refuse_other_names(name: str, forms: str) -> None:
    assert who(name, bind_names=tuple(forms.split())) is None


def test_no_domain_means_no_principal_names() -> None:
    assert who("alice@", base="o=acme", bind_names=("upn",)) is None
    assert who("alice@acme", base="o=acme", bind_names=("upn",)) is None
    assert who("alice@acme.example", base="o=acme", bind_names=("upn",), domain="Acme.example") == (1, "alice")
    assert who("alice@example.com", bind_names=("upn",), domain="corp.example") is None


def test_a_name_two_providers_would_take_means_neither() -> None:
    a = one(1, "dc=a,dc=example", bind_names=("username", "upn"))
    b = one(2, "dc=b,dc=example", bind_names=("upn",))
    c = one(3, "dc=c,dc=example", bind_names=("username",))
    d = one(4, "dc=d,dc=example")
    assert who("alice", a, b, d) == (1, "alice")
    assert who("alice", a, b, c) is None
    assert who("alice@b.example", b, d) == (2, "alice")
    assert who("alice@b.example", a, b) is None, "a takes every login name, and this may be one"
    assert who("alice@a.example", a, b) == (1, "alice")
    twins = [one(pk, f"ou={pk},{BASE}", bind_names=("upn", "mail")) for pk in (1, 2)]
    assert who("alice@example.com", *twins) is None and who("alice@example.org", *twins) is None


# -- over the wire -------------------------------------------------------------------------------------


async def test_binding_by_other_names() -> None:
    names = ("username", "upn")
    async with bed(providers=[provider(bind_names=names, domain="example.com")]) as there:
        client = await there.client()
        for name, code in (
            ("alice", 0), ("alice@example.com", 0), ("alice@example.org", 49), ("bob@example.com", 49), ("al\0ice", 50),
            ("", 50), (" alice", 50), ("alice,ou=users", 50),
        ):  # fmt: skip
            assert await client.bind(name, "alice-pw") == code, name
        assert await client.bind("alice", "") == 53
        assert {name for name, _ in there.authority.asked} == {"alice", "bob", "alice@example.org"}


async def test_who_am_i_says_which_form_it_was() -> None:
    """RFC 4513 5.2.1.8: what is no DN is no dn-authzId."""
    async with bed(providers=[provider(bind_names=("username",))]) as there:
        client = await there.client()
        for name in ("alice", "cn=alice,ou=users,dc=ldap,dc=goauthentik,dc=io"):
            assert await client.bind(name, "alice-pw") == 0
            client.send(encode.extended(client.next_id, "1.3.6.1.4.1.4203.1.11.3"))
            answer = (await client.message()).content
            form = "dn" if "=" in name else "u"
            assert answer.endswith(f"{form}:{name}".encode()) and decode.result(answer)[0] == 0
