"""The loader of directory files: what a good one means, and for every bad one the sentence and the line."""

import gc
import math
import os
import pathlib
import re
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from outpost.backends.embedded import nodes, people, phc
from outpost.backends.embedded.loader import load
from outpost.backends.embedded.model import Account, Directory, Extras
from outpost.errors import ConfigError
from outpost.identity import Group, LdapOptions, Mode, RadiusOptions, Secret, User

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "directory.yaml"
Load = Callable[..., Directory]

MODELS = {
    "user": "authentik_core.user",
    "group": "authentik_core.group",
    "application": "authentik_core.application",
    "token": "authentik_core.token",
    "binding": "authentik_policies.policybinding",
    "ldap": "authentik_providers_ldap.ldapprovider",
    "radius": "authentik_providers_radius.radiusprovider",
    "keypair": "authentik_crypto.certificatekeypair",
    "totp": "authentik_stages_authenticator_totp.totpdevice",
    "device": "authentik_stages_authenticator_static.staticdevice",
    "code": "authentik_stages_authenticator_static.statictoken",
    "flow": "authentik_flows.flow",
}


def entry(kind: str, name: str = "", /, *, head: str = "", **attrs: object) -> str:
    """One entry on one line, its attributes as YAML text."""
    inner = ", ".join(f"{key}: {value}" for key, value in attrs.items())
    named = f"id: {name}, " if name else ""
    return f"  - {{model: {MODELS.get(kind, kind)}, {named}{head}attrs: {{{inner}}}}}\n"


def blueprint(*entries: str, context: str = "{}") -> str:
    """The first entry is in line 4."""
    return f"version: 1\ncontext: {context}\nentries:\n" + "".join(entries)


@pytest.fixture
def read(tmp_path: pathlib.Path) -> Load:
    def reads(text: str | bytes, extras: Extras | None = None, **environ: str) -> Directory:
        path = tmp_path / "directory.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path, extras or Extras(), environ=environ)

    return reads


@pytest.fixture
def refused(read: Load) -> Callable[..., ConfigError]:
    """The error of a text, which names the file and is at `line`."""

    def refuses(
        text: str | bytes, problem: str, line: int | None, key: str | None = None, **environ: str
    ) -> ConfigError:
        with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
            read(text, **environ)
        assert pathlib.Path(caught.value.source).name == "directory.yaml"
        assert caught.value.line == line
        if key is not None:
            assert caught.value.key == key
        return caught.value

    return refuses


def user(directory: Directory, name: str) -> User:
    return next(one for one in directory.people.users if one.username == name)


def account(directory: Directory, name: str) -> Account:
    return directory.accounts[directory.by_login[name]]


def group(directory: Directory, name: str) -> Group:
    return next(one for one in directory.people.groups if one.name == name)


TOKEN = {"identifier": "t", "user": "!KeyOf alice", "intent": "app_password"}
ALICE = entry("user", "alice", username="alice")
STAFF = entry("group", "staff", name="staff")
LDAP = entry("ldap", "ldap", name="ldap", base_dn="'dc=example,dc=com'")
LDAP_APP = entry("application", "app", slug="ldap", name="LDAP", provider="!KeyOf ldap")
RADIUS = entry("radius", "radius", name="radius", client_networks="10.0.0.0/8", shared_secret="testing123")
RADIUS_APP = entry("application", "radius-app", slug="radius", name="RADIUS", provider="!KeyOf radius")


# -- the example ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> Directory:
    return load(EXAMPLE, environ={})


def test_the_example_has_nothing_to_complain_about(example: Directory) -> None:
    assert example.warnings == ()
    assert example.files == (EXAMPLE,)
    assert len(example.people.users) == 9
    assert example.accounts.keys() == {one.pk for one in example.people.users}


@pytest.mark.parametrize(
    "name", ["ldapservice", "alice", "bob", "carol", "dave", "erin", "frank", "mallory", "guest"]
)  # fmt: skip
def test_the_example_tells_its_passwords(example: Directory, name: str) -> None:
    password = account(example, name).password
    assert password is not None
    assert password.is_hashed
    said = {"ldapservice": "service-pw"}.get(name, f"{name}-pw")
    assert said in EXAMPLE.read_text()
    assert phc.verify(password.value.reveal_text(), Secret(said))
    assert not phc.verify(password.value.reveal_text(), Secret(said.upper()))


@pytest.mark.parametrize(
    ("name", "ldap", "radius"),
    [
        ("ldapservice", True, False),
        ("alice", True, True),
        ("bob", True, False),
        ("carol", True, True),
        ("erin", True, False),
        ("guest", False, False),
    ],
)
def test_the_example_says_who_may_use_what(example: Directory, name: str, ldap: bool, radius: bool) -> None:
    assert example.applications["ldap"].admits(account(example, name)) is ldap
    assert example.applications["radius"].admits(account(example, name)) is radius


def test_the_example_serves_one_provider_of_each_kind(example: Directory) -> None:
    (ldap,), (radius,) = example.served.ldap, example.served.radius
    assert (ldap.name, ldap.base_dn, ldap.application_slug) == ("ldap", "dc=ldap,dc=goauthentik,dc=io", "ldap")
    assert ldap.search_group == group(example, "directory readers").pk
    assert ldap.options == LdapOptions(uid="username")
    assert radius.shared_secret == Secret("testing123")
    assert radius.client_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def test_the_example_takes_its_secret_from_the_environment() -> None:
    directory = load(EXAMPLE, environ={"EXAMPLE_RADIUS_SECRET": "other"})
    assert directory.served.radius[0].shared_secret == Secret("other")


def test_the_example_shows_every_feature(example: Directory) -> None:
    alice, carol, dave = (account(example, name) for name in ("alice", "carol", "dave"))
    assert alice.is_superuser
    assert not carol.is_superuser
    assert ("Tunnel-Private-Group-Id", "42") in alice.reply.named
    assert ("Tunnel-Private-Group-Id", "43") in carol.reply.named
    assert carol.has_device
    assert [one.key.reveal() for one in carol.totp] == [b"12345678901234567890"]
    assert carol.static_codes == (Secret("k7m2p9x4q8"), Secret("t3v6w8y2z5"))
    assert [one.key for one in dave.app_passwords] == [Secret("dave-printer-app-password")]
    assert not account(example, "mallory").is_active
    assert user(example, "alice").attributes["uidNumber"] == "10001"
    assert len(user(example, "alice").attributes["sshPublicKey"]) == 2


# -- people ---------------------------------------------------------------------------------------


def test_a_user_with_every_field(read: Load) -> None:
    directory = read(
        blueprint(
            STAFF,
            entry(
                "user",
                head="identifiers: {username: alice}, ",
                pk=77,
                name="Alice Archer",
                email="Alice@Example.com",
                is_active="false",
                type="external",
                path="users/berlin",
                groups="[!KeyOf staff]",
                attributes="{a: [1, two, null], b: {c: true}, d: 1.5, e: 0x10}",
                uid="abc",
                uuid="'{5F0A7E0C-3C2D-4DD5-A4DB-5C0F6E0F6E6B}'",
                date_joined="'2024-02-03T04:05:06+02:00'",
                last_updated="2024-02-03 04:05:06",
                password_change_date="2024-02-03",
            ),
        )
    )
    assert directory.people.users == (
        User(
            pk=77,
            username="alice",
            name="Alice Archer",
            email="Alice@Example.com",
            uid="abc",
            uuid="5f0a7e0c-3c2d-4dd5-a4db-5c0f6e0f6e6b",
            is_active=False,
            type="external",
            path="users/berlin",
            groups=(group(directory, "staff").pk,),
            attributes={"a": [1, "two", None], "b": {"c": True}, "d": 1.5, "e": 16},
            date_joined=datetime(2024, 2, 3, 2, 5, 6, tzinfo=UTC),
            last_updated=datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC),
            password_change_date=datetime(2024, 2, 3, tzinfo=UTC),
        ),
    )
    assert not directory.accounts[77].is_active
    assert directory.by_login == {"alice": 77, "alice@example.com": 77}
    assert directory.people.generation == 1


def test_a_user_with_a_name_only(read: Load) -> None:
    directory = read(blueprint(ALICE))
    alice = user(directory, "alice")
    assert alice.is_active
    assert (alice.type, alice.path, alice.groups, alice.email) == ("internal", "users", (), "")
    assert re.fullmatch("[0-9a-f]{64}", alice.uid)
    assert alice.date_joined is None
    assert account(directory, "alice").password is None
    assert not account(directory, "alice").has_device
    assert directory.warnings == ()


def test_identifiers_and_attrs_are_one_and_null_is_missing(read: Load) -> None:
    text = blueprint(
        "  - model: authentik_core.user\n    identifiers: {username: alice, email: null}\n    attrs:\n"
        "  - model: authentik_core.user\n    identifiers: {username: bob}\n    attrs: {username: ignored, name: B}\n"
    )
    directory = read(text)
    assert [one.username for one in directory.people.users] == ["alice", "bob"]
    assert user(directory, "bob").name == "B"


def test_numbers_stay_when_others_come_and_go(read: Load) -> None:
    names = [f"person{i}" for i in range(300)]
    one = read(blueprint(*(entry("user", username=name) for name in names), STAFF))
    two = read(blueprint(STAFF, entry("user", username="new"), *(entry("user", username=n) for n in names[::-2])))
    for name in names[::-2]:
        assert user(one, name) == user(two, name)
    assert group(one, "staff") == group(two, "staff")
    assert all(0 < one.pk < 1_000_000 for one in two.people.users)
    assert 1_000_000 <= group(two, "staff").num_pk < 2_000_000


def test_numbers_do_not_depend_on_letter_case(read: Load) -> None:
    lower, upper = (user(read(blueprint(entry("user", username=name))), name) for name in ("alice", "ALICE"))
    assert (lower.pk, lower.uid, lower.uuid) == (upper.pk, upper.uid, upper.uuid)


def test_numbers_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "SPAN", 50)
    names = [f"user{i}" for i in range(45)]
    found, moved = people.numbered(names, [7, 8], 1, b"outpost user")
    assert len(set(found.values())) == 45
    assert not set(found.values()) & {7, 8}
    assert all(1 <= number <= 50 for number in found.values())
    assert people.numbered(reversed(names), [8, 7], 1, b"outpost user") == (found, moved)
    for name in names:
        alone = people.numbered([name], [], 1, b"outpost user")[0][name]
        assert (found[name] != alone) is (name in moved)


def test_who_would_change_number_is_told(read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "SPAN", 2)
    pair = next(
        (one, two)
        for one in "abcdefgh"
        for two in "ijklmnop"
        if len(people.numbered([one, two], [], 1, b"outpost user")[1]) == 1
    )
    directory = read(blueprint(*(entry("user", username=name) for name in pair)))
    number = user(directory, pair[1]).pk
    (warning,) = directory.warnings
    assert warning.endswith(
        f"directory.yaml:5: {pair[1]!r} would change number if another name left this file; set pk: {number} to keep it"
    )
    kept = read(blueprint(entry("user", username=pair[0]), entry("user", username=pair[1], pk=number)))
    assert kept.warnings == ()
    assert kept.people.users == directory.people.users


def test_an_explicit_number_is_not_given_to_another(read: Load) -> None:
    pk = user(read(blueprint(ALICE)), "alice").pk
    directory = read(blueprint(entry("user", username="bob", pk=pk), ALICE))
    assert user(directory, "bob").pk == pk
    assert user(directory, "alice").pk != pk


def test_made_uuids_are_version_5() -> None:
    import uuid

    for name in ("alice", "Grüße", ""):
        assert people.made_uuid("user", name) == str(uuid.uuid5(people.NAMESPACE, f"user/{name.casefold()}"))


def test_groups_come_from_both_sides_and_are_inherited(read: Load) -> None:
    directory = read(
        blueprint(
            entry("group", "root", name="root", is_superuser="true"),
            entry("group", "mid", name="mid", parent="!KeyOf root"),
            entry("group", "other", name="other"),
            entry("group", "leaf", name="leaf", parents="[!KeyOf mid, !KeyOf other]", users="[!KeyOf bob, !KeyOf bob]"),
            entry("user", "bob", username="bob", groups="[!KeyOf other, !KeyOf leaf]"),
            ALICE,
        )
    )
    pks = {one.name: one.pk for one in directory.people.groups}
    assert group(directory, "leaf").parents == (pks["mid"], pks["other"])
    assert user(directory, "bob").groups == (pks["other"], pks["leaf"])
    assert account(directory, "bob").memberships == set(pks.values())
    assert account(directory, "bob").is_superuser
    assert user(directory, "bob").is_superuser
    assert not group(directory, "leaf").is_superuser
    assert account(directory, "alice").memberships == frozenset()
    assert not account(directory, "alice").is_superuser


def test_groups_may_contain_each_other(read: Load) -> None:
    directory = read(
        blueprint(
            entry("group", "a", name="a", parents="[!KeyOf b, !KeyOf a]"),
            entry("group", "b", name="b", parents="[!KeyOf c]"),
            entry("group", "c", name="c", parents="[!KeyOf a]", is_superuser="true"),
            entry("user", username="alice", groups="[!KeyOf b]"),
        )
    )
    assert account(directory, "alice").memberships == {one.pk for one in directory.people.groups}
    assert account(directory, "alice").is_superuser
    assert group(directory, "a").parents == (group(directory, "b").pk,)


def test_primary_keys_refer_too(read: Load) -> None:
    pk = "6b1f3a46-6c7a-4a71-9d1b-3f2f4b7d7a11"
    directory = read(
        blueprint(
            entry("group", name="staff", pk=pk, num_pk=12, users="[5, '6']"),
            entry("user", username="alice", pk=5),
            entry("user", username="bob", pk=6, groups=f"[{pk}]"),
        )
    )
    assert group(directory, "staff").pk == pk
    assert group(directory, "staff").num_pk == 12
    assert user(directory, "alice").groups == user(directory, "bob").groups == (pk,)


def test_logins_by_name_and_mail(read: Load) -> None:
    directory = read(
        blueprint(
            entry("user", username="Alice", email="alice@example.com", pk=1),
            entry("user", username="bob", email="SHARED@example.com", pk=2),
            entry("user", username="carol", email="shared@example.com", pk=3),
            entry("user", username="'alice@example.com'", email="dave@example.com", pk=4),
        )
    )
    assert directory.by_login == {
        "alice": 1,
        "bob": 2,
        "carol": 3,
        "alice@example.com": 4,
        "dave@example.com": 4,
    }
    (warning,) = directory.warnings
    assert "1 mail address belongs to more than one user (bob, carol)" in warning


def test_reply_attributes_in_order_and_the_last_wins(read: Load) -> None:
    directory = read(
        blueprint(
            entry("group", "b", name="b", attributes="{radius: {Class: b, Tunnel-Type: VLAN}}", parent="!KeyOf a"),
            entry("group", "a", name="a", attributes="{radius: {Class: a, Filter-Id: [one, 2], Session-Timeout: 60}}"),
            entry("user", username="alice", groups="[!KeyOf b]", attributes="{radius: {session-timeout: 5}}"),
            entry("user", username="bob", groups="[!KeyOf b]"),
            entry("user", username="carol", groups="[!KeyOf b]", attributes="{radius: {Filter-Id: []}}"),
            entry("user", username="dave"),
        )
    )
    base = [("Class", "b"), ("Filter-Id", "one"), ("Filter-Id", "2")]
    assert list(account(directory, "bob").reply.named) == [*base, ("Session-Timeout", "60"), ("Tunnel-Type", "VLAN")]
    assert list(account(directory, "alice").reply.named) == [
        *base,
        ("session-timeout", "5"),
        ("Tunnel-Type", "VLAN"),
    ]
    assert "Filter-Id" not in dict(account(directory, "carol").reply.named)
    assert account(directory, "dave").reply.named == ()


# -- proofs ---------------------------------------------------------------------------------------


def test_plain_passwords_are_taken_and_counted_once(read: Load) -> None:
    hashed = phc.dummy()
    directory = read(
        blueprint(
            entry("user", username="alice", password=f"'{hashed}'"),
            entry("user", username="bob", password="bob-pw"),
            entry("user", username="carol", password="12345678"),
            entry("user", username="dave", password="''"),
        )
    )
    passwords = {one.username: one.password for one in directory.accounts.values()}
    assert passwords["alice"] is not None
    assert passwords["alice"].is_hashed
    assert passwords["alice"].value == Secret(hashed)
    assert passwords["bob"] is not None
    assert not passwords["bob"].is_hashed
    assert passwords["bob"].value == Secret("bob-pw")
    assert passwords["carol"] is not None
    assert passwords["carol"].value == Secret("12345678")
    assert passwords["dave"] is None
    (warning,) = directory.warnings
    assert "directory.yaml:5: 2 passwords are plain text" in warning
    assert "bob-pw" not in repr(directory)
    assert hashed not in repr(directory)


@pytest.mark.parametrize(
    "password",
    [
        "$argon2i$v=19$m=16,t=2,p=1$c29tZXNhbHQ$AAAA",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$6$salt$hash",
        "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3",
        "pbkdf2_sha256$600000$salt$hash=",
        "argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdHNhbHQ$aGFzaA",
        "$y$j9T$salt$hash",
    ],
)
def test_a_hash_of_another_kind_is_no_plain_password(refused: Callable[..., ConfigError], password: str) -> None:
    text = blueprint(ALICE, entry("user", username="bob", password=f"'{password}'"))
    error = refused(text, "is a hash of a kind that cannot be checked here", 5, "entries[1].attrs.password")
    assert password not in str(error)


@pytest.mark.parametrize("password", ["$ecret", "{braces}", "pa$$word", "$5", "$argon2", "a$b"])
def test_a_password_may_look_odd(read: Load, password: str) -> None:
    directory = read(blueprint(entry("user", username="bob", password=f"'{password}'")))
    found = account(directory, "bob").password
    assert found is not None
    assert found.value == Secret(password)


def test_app_passwords(read: Load) -> None:
    def token(name: str, **attrs: object) -> str:
        return entry("token", identifier=name, user="!KeyOf alice", key=f"key-{name}", **attrs)

    directory = read(
        blueprint(
            token("api", intent="api"),
            token("none"),
            token("one", intent="app_password"),
            token("two", intent="app_password", expires="2030-01-01T00:00:00Z"),
            token("three", intent="app_password", expires="2030-01-01T00:00:00Z", expiring="false"),
            ALICE,
        )
    )
    found = account(directory, "alice").app_passwords
    assert [(one.identifier, one.expires_at) for one in found] == [
        ("one", None),
        ("two", datetime(2030, 1, 1, tzinfo=UTC).timestamp()),
        ("three", None),
    ]
    assert found[0].key == Secret("key-one")
    assert {one.application for one in found} == {None}


APP_UUID = "0b5a0c5c-1122-4333-8444-5566778899aa"
APPS = LDAP + LDAP_APP + entry("application", "other", slug="mail", name="Mail", pbm_uuid=APP_UUID)


@pytest.mark.parametrize(
    ("reference", "slug"),
    [
        ("ldap", "ldap"),
        ("mail", "mail"),
        ("!KeyOf app", "ldap"),
        ("!KeyOf other", "mail"),
        ("!Find [authentik_core.application, [slug, mail]]", "mail"),
        (f"!Env [NAME, {'mail'}]", "mail"),
    ],
)
def test_an_app_password_may_be_for_one_application(read: Load, reference: str, slug: str) -> None:
    directory = read(blueprint(ALICE, entry("token", **TOKEN, key="k", application=reference), APPS))
    (found,) = account(directory, "alice").app_passwords
    assert found.application == slug


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("''", "is empty"),
        ("null", "is empty"),
        ("", "is empty"),
        ("!Env [NAME, '']", "is empty"),
        ("mial", "no application in this file has the slug 'mial'; did you mean mail?"),
        ("LDAP", "no application in this file has the slug 'LDAP'"),
        ("'ldap '", "no application in this file has the slug 'ldap '"),
        ("'ldap, mail'", "no application in this file has the slug"),
        ("[ldap]", "expected !KeyOf, !Find or a primary key"),
        ("true", "expected !KeyOf, !Find or a primary key"),
        ("!KeyOf alice", "expected authentik_core.application"),
        ("!KeyOf gone", "no entry has this id"),
        ("99999999-1122-4333-8444-5566778899aa", "in this file has the primary key"),
    ],
)
def test_an_application_that_is_none_binds_nothing_and_is_an_error(
    refused: Callable[..., ConfigError], reference: str, problem: str
) -> None:
    text = blueprint(ALICE, entry("token", **TOKEN, key="k", application=reference), APPS)
    refused(text, problem, 5, "entries[1].attrs.application")


def test_an_application_that_is_gone_lets_its_app_passwords_go_nowhere(refused: Callable[..., ConfigError]) -> None:
    gone = entry("application", "app", slug="mail", name="Mail", head="state: absent, ")
    for reference in ("mail", "!KeyOf app"):
        text = blueprint(ALICE, entry("token", **TOKEN, key="k", application=reference), gone)
        refused(text, "mail" if reference == "mail" else "is absent", 5)


def test_devices(read: Load) -> None:
    directory = read(
        blueprint(
            entry("totp", user="!KeyOf alice", name="phone", key="'00ff'", digits="'8'", step=60, drift=3, t0=0),
            entry("totp", user="!KeyOf bob", key="'00ff'", confirmed="false"),
            entry("device", "paper", user="!KeyOf alice", name="paper"),
            entry("code", device="!KeyOf paper", token="abcd1234"),
            entry("code", device="!KeyOf paper", token="12345678"),
            entry("device", "unsure", user="!KeyOf bob", name="unsure", confirmed="false"),
            entry("code", device="!KeyOf unsure", token="abcd1234"),
            ALICE,
            entry("user", "bob", username="bob"),
        )
    )
    alice, bob = account(directory, "alice"), account(directory, "bob")
    (phone,) = alice.totp
    assert (phone.name, phone.key.reveal(), phone.digits, phone.step_s) == ("phone", b"\x00\xff", 8, 60)
    assert alice.static_codes == (Secret("abcd1234"), Secret("12345678"))
    assert not bob.has_device
    assert directory.warnings == ()


def test_a_static_device_without_codes_is_told(read: Load) -> None:
    directory = read(blueprint(ALICE, entry("device", user="!KeyOf alice")))
    (warning,) = directory.warnings
    assert "directory.yaml:5: a static device without tokens" in warning


# -- what is served -------------------------------------------------------------------------------


def test_a_provider_with_every_field(read: Load) -> None:
    directory = read(
        blueprint(
            STAFF,
            entry(
                "ldap",
                "ldap",
                pk=3,
                name="ldap",
                base_dn=r"'ou=a\2cb, dc=example+o=x,dc=com'",
                search_group="!Find [authentik_core.group, [name, staff]]",
                tls_server_name="ldap.example.com",
                uid_start_number=10000,
                gid_start_number=20000,
                search_mode="direct",
                bind_mode="direct",
                mfa_support="false",
                authorization_flow="!Find [authentik_flows.flow, [slug, none]]",
            ),
            LDAP_APP,
            entry("radius", "radius", name="radius", shared_secret="s", client_networks="'10.1.2.3/8,2001:db8::/32'"),
            RADIUS_APP,
        ),
        Extras(ldap={"ldap": LdapOptions(samba=True)}, radius={"radius": RadiusOptions(strip_realm=True)}),
    )
    (ldap,), (radius,) = directory.served.ldap, directory.served.radius
    assert (ldap.pk, ldap.base_dn, ldap.tls_server_name) == (3, r"ou=a\2cb, dc=example+o=x,dc=com", "ldap.example.com")
    assert (ldap.uid_start_number, ldap.gid_start_number, ldap.mfa_support) == (10000, 20000, False)
    assert (ldap.search_mode, ldap.bind_mode) == (Mode.DIRECT, Mode.DIRECT)
    assert ldap.search_group == group(directory, "staff").pk
    assert ldap.options == LdapOptions(samba=True)
    assert radius.client_networks == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert radius.options == RadiusOptions(strip_realm=True)
    assert radius.mfa_support
    assert radius.pk != ldap.pk
    assert directory.warnings == ()


def test_provider_numbers_follow_from_names(read: Load) -> None:
    one = read(blueprint(LDAP, LDAP_APP))
    two = read(blueprint(RADIUS, RADIUS_APP, LDAP, LDAP_APP))
    assert one.served.ldap == two.served.ldap
    assert one.served.ldap[0].search_mode is Mode.CACHED
    assert one.served.ldap[0].bind_mode is Mode.CACHED


def test_a_provider_is_served_once_an_application_names_it(read: Load) -> None:
    directory = read(blueprint(LDAP, RADIUS))
    assert directory.served.ldap == ()
    assert directory.served.radius == ()
    assert [re.sub(".*directory", "", one) for one in directory.warnings] == [
        ".yaml:4: provider 'ldap' is not served: no application names it",
        ".yaml:5: provider 'radius' is not served: no application names it",
    ]


def test_the_application_behind_wins(read: Load) -> None:
    behind = entry("application", slug="behind", backchannel_providers="[!KeyOf ldap]")
    for entries in ((LDAP, LDAP_APP, behind), (LDAP, behind, LDAP_APP)):
        directory = read(blueprint(*entries))
        assert [one.application_slug for one in directory.served.ldap] == ["behind"]
        assert directory.applications.keys() == {"ldap", "behind"}


def test_settings_for_nobody_are_told(read: Load) -> None:
    options = {"ldap": LdapOptions(), "ldpa": LdapOptions()}
    directory = read(blueprint(LDAP, LDAP_APP), Extras(ldap=options, radius={"ldap": RadiusOptions()}))
    (warning,) = directory.warnings
    assert "[provider.ldpa]" in warning


def test_bindings(read: Load) -> None:
    def binding(**attrs: object) -> str:
        return entry("binding", target="!KeyOf app", **attrs)

    directory = read(
        blueprint(
            ALICE,
            STAFF,
            entry("user", "bob", username="bob", groups="[!KeyOf staff]"),
            LDAP,
            entry("application", "app", slug="ldap", provider="!KeyOf ldap", policy_engine_mode="all"),
            entry("application", slug="open"),
            binding(group="!KeyOf staff", order=10),
            binding(user="!KeyOf alice", order=-1, negate="true"),
            binding(policy="!KeyOf nobody", enabled="false"),
            entry("flow", "flow", slug="x"),
            entry("binding", target="!KeyOf flow", policy="!KeyOf nobody"),
        )
    )
    application = directory.applications["ldap"]
    assert [(one.order, one.is_negated) for one in application.bindings] == [(-1, True), (10, False)]
    assert application.needs_all
    assert application.admits(account(directory, "bob"))
    assert not application.admits(account(directory, "alice"))
    assert not directory.applications["open"].needs_all
    assert directory.applications["open"].name == "open"
    assert directory.applications["open"].admits(account(directory, "alice"))


def test_any_binding_is_enough_by_default(read: Load) -> None:
    directory = read(
        blueprint(
            ALICE,
            STAFF,
            entry("user", "bob", username="bob"),
            LDAP,
            LDAP_APP,
            entry("binding", target="!KeyOf app", group="!KeyOf staff", order=0),
            entry("binding", target="!Find [authentik_core.application, [slug, ldap]]", user="!KeyOf bob", order=1),
        )
    )
    assert directory.applications["ldap"].admits(account(directory, "bob"))
    assert not directory.applications["ldap"].admits(account(directory, "alice"))


def test_the_application_of_an_unknown_provider_is_kept(read: Load) -> None:
    directory = read(
        blueprint(
            entry("authentik_providers_oauth2.oauth2provider", "web", name="web"),
            entry("application", slug="web", provider="!KeyOf web"),
        )
    )
    assert directory.applications.keys() == {"web"}
    assert directory.served.ldap == ()


# -- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pems() -> dict[str, str]:
    """Two keys, a certificate of the first, and the first key locked."""
    first, second = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ldap.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(first.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(first, hashes.SHA256())
    )
    pem = (Encoding.PEM, PrivateFormat.PKCS8)
    return {
        "certificate": certificate.public_bytes(Encoding.PEM).decode(),
        "key": first.private_bytes(*pem, NoEncryption()).decode(),
        "other": second.private_bytes(*pem, NoEncryption()).decode(),
        "locked": first.private_bytes(*pem, BestAvailableEncryption(b"x")).decode(),
    }


TLS_LDAP = entry("ldap", "ldap", name="ldap", certificate="!KeyOf pair")


def test_a_certificate_from_files(read: Load, tmp_path: pathlib.Path, pems: dict[str, str]) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/cert.pem").write_text(pems["certificate"])
    (tmp_path / "tls/key.pem").write_text(pems["key"])
    pair = entry("keypair", "pair", name="ldap", certificate_data="!File tls/cert.pem", key_data="!File tls/key.pem")
    directory = read(blueprint(TLS_LDAP, LDAP_APP, pair))
    (ldap,) = directory.served.ldap
    assert ldap.certificate is not None
    served = directory.served.certificates[ldap.certificate]
    assert (served.name, served.certificate_chain.decode()) == ("ldap", pems["certificate"].strip())
    assert served.private_key == Secret(pems["key"].strip())
    assert [one.name for one in directory.files] == ["directory.yaml", "cert.pem", "key.pem"]
    assert all(one.parent in {tmp_path, tmp_path / "tls"} for one in directory.files)


def test_a_certificate_that_nobody_uses_may_lack_a_key(read: Load) -> None:
    directory = read(blueprint(entry("keypair", "pair", name="x", certificate_data="nonsense"), TLS_LDAP))
    assert directory.served.certificates == {}


@pytest.mark.parametrize(
    ("certificate", "key", "problem", "field"),
    [
        ("certificate", "other", "belongs to another certificate", "key_data"),
        ("certificate", "locked", "is encrypted", "key_data"),
        ("certificate", "certificate", "is no PEM private key", "key_data"),
        ("certificate", "", "is empty", "key_data"),
        ("key", "key", "is no PEM certificate", "certificate_data"),
        ("", "key", "is empty", "certificate_data"),
    ],
)
def test_a_certificate_that_cannot_be_served(
    refused: Callable[..., ConfigError], pems: dict[str, str], certificate: str, key: str, problem: str, field: str
) -> None:
    pair = entry("keypair", "pair", name="x", certificate_data="!Env CERTIFICATE", key_data="!Env KEY")
    text = blueprint(TLS_LDAP, LDAP_APP, pair)
    environ = {"CERTIFICATE": pems.get(certificate, ""), "KEY": pems.get(key, "")}
    error = refused(text, problem, 6, f"entries[2].attrs.{field}", **environ)
    assert "BEGIN" not in str(error)


# -- tags -----------------------------------------------------------------------------------------


def test_every_tag(read: Load, tmp_path: pathlib.Path) -> None:
    (tmp_path / "name.txt").write_text("  From a file\n")
    directory = read(
        blueprint(
            STAFF,
            entry(
                "user",
                username="!Env WHO",
                name="!File name.txt",
                email="!Format ['%s@%s, 100%%', !Env WHO, !Context domain]",
                path="!Env [MISSING, !Context [missing, fallback]]",
                type="!Env [EMPTY, external]",
                groups="!Context groups",
                attributes="{a: !Context domain, b: [!Env WHO, !File [gone.txt, default]]}",
                is_active="!Env ACTIVE",
            ),
            context="{domain: !Env DOMAIN, groups: [!KeyOf staff]}",
        ),
        WHO="alice",
        DOMAIN="example.com",
        EMPTY="",
        ACTIVE="False",
    )
    alice = user(directory, "alice")
    assert (alice.name, alice.email) == ("From a file", "alice@example.com, 100%")
    assert (alice.path, alice.type, alice.is_active) == ("fallback", "external", False)
    assert alice.groups == (group(directory, "staff").pk,)
    assert alice.attributes == {"a": "example.com", "b": ["alice", "default"]}
    assert [one.name for one in directory.files] == ["directory.yaml", "gone.txt", "name.txt"]


def test_find_looks_at_all_conditions(read: Load) -> None:
    directory = read(
        blueprint(
            entry("user", username="a", name="One", path="x", pk=1),
            entry("user", username="b", name="One", path="y", pk=2),
            entry("group", name="g", users="[!Find [authentik_core.User, [name, One], [path, y]]]"),
        )
    )
    assert user(directory, "b").groups
    assert not user(directory, "a").groups


def test_aliases_and_merge_keys(read: Load) -> None:
    directory = read(
        textwrap.dedent("""\
            version: 1
            context:
              person: &person {path: people, attributes: {a: b}}
            entries:
              - model: authentik_core.user
                attrs: {<<: *person, username: alice}
              - model: authentik_core.user
                attrs: {username: bob, path: own, <<: [*person]}
            """)
    )
    assert (user(directory, "alice").path, user(directory, "alice").attributes) == ("people", {"a": "b"})
    assert user(directory, "bob").path == "own"


# -- presence -------------------------------------------------------------------------------------


def test_absent_entries_are_not_there(read: Load) -> None:
    directory = read(
        blueprint(
            ALICE,
            entry("user", username="bob", head="state: absent, "),
            entry("user", username="carol", head="state: present, "),
            entry("user", username="dave", head="state: must_created, "),
            entry("user", username="erin", head="conditions: [true, !Context wanted], "),
            entry("user", username="frank", head="conditions: [!Context unwanted], "),
            entry("user", head="state: absent, identifiers: {username: alice}, "),
            context="{wanted: yes, unwanted: ''}",
        )
    )
    assert [one.username for one in directory.people.users] == ["carol", "dave", "erin"]
    assert directory.warnings == ()


def test_an_entry_that_comes_back_is_there(read: Load) -> None:
    absent = entry("user", head="state: absent, identifiers: {username: alice}, ")
    directory = read(blueprint(entry("user", username="alice", name="old"), absent, ALICE))
    assert [one.name for one in directory.people.users] == [""]


def test_an_absent_entry_with_conditions_that_fail_removes_nobody(read: Load) -> None:
    absent = entry("user", head="state: absent, conditions: [false], identifiers: {username: alice}, ")
    assert len(read(blueprint(ALICE, absent)).people.users) == 1


# -- warnings -------------------------------------------------------------------------------------


def test_unknown_models_and_fields_are_told_once_each(read: Load) -> None:
    directory = read(
        blueprint(
            entry("flow", slug="a"),
            entry("flow", slug="b"),
            entry("authentik_core.grop", name="x"),
            entry("user", username="alice", emial="a", color="red"),
            entry("user", username="bob", emial="b", color="blue"),
            entry("group", name="g", head="permissions: [{permission: x}], "),
        )
    )
    told = sorted(re.sub(r".*directory\.yaml:", "", one) for one in directory.warnings)
    assert told == [
        "4: model authentik_flows.flow is not known here and left out (2 entries)",
        "6: model authentik_core.grop is not known here and left out; did you mean authentik_core.group?",
        "7: entries[3].attrs.color: authentik_core.user has no such field here, it is left out",
        "7: entries[3].attrs.emial: authentik_core.user has no such field here, it is left out; did you mean email?",
        "9: entries[5].permissions: permissions are not evaluated here",
    ]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (entry("user", username="bob", is_actve="false"), "is_active"),
        (entry("user", username="bob", passwrd="x"), "password"),
        (entry("binding", target="!KeyOf app", group="!KeyOf staff", negated="true"), "negate"),
        (entry("token", identifier="a", user="!KeyOf alice", expire="2020-01-01"), "expires"),
        (entry("token", identifier="a", user="!KeyOf alice", applications="[mail]"), "application"),
        (entry("token", identifier="a", user="!KeyOf alice", aplication="mail"), "application"),
    ],
)
def test_a_slip_that_would_let_somebody_in_is_an_error(
    refused: Callable[..., ConfigError], text: str, near: str
) -> None:
    refused(blueprint(ALICE, STAFF, LDAP, LDAP_APP, text), f"unknown field; did you mean {near}?", 8)


# -- files ----------------------------------------------------------------------------------------


def test_a_file_that_is_gone(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load(tmp_path / "directory.yaml")
    assert caught.value.source == str(tmp_path / "directory.yaml")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file(tmp_path: pathlib.Path, make: Callable[[pathlib.Path], None]) -> None:
    make(tmp_path / "directory.yaml")
    with pytest.raises(ConfigError, match="is no regular file"):
        load(tmp_path / "directory.yaml")


def test_a_file_that_is_too_large(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "directory.yaml"
    with path.open("wb") as file:
        file.truncate(nodes.MAX_OCTETS + 1)
    with pytest.raises(ConfigError, match="is larger than 67108864 octets"):
        load(path)


def test_a_file_that_may_not_be_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "directory.yaml"
    path.write_text("version: 1")
    path.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            load(path)
    finally:
        os.seteuid(before)


# -- mistakes -------------------------------------------------------------------------------------

BOMB = "version: 1\ncontext:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize("composer", [nodes.Composer, nodes.PureComposer], ids=["default", "pure"])
@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        (b"", "the file is empty", None),
        (b"# nothing\n", "the file is empty", None),
        (b"---\n", "the file is empty", None),
        (b"a: 1\nb: [1, 2\nc: 3\n", "expected ',' or ']'", 3),
        (b"a: 1\n\tb: 2\n", "while scanning", 2),
        (b"a: 'x\n\n", "unexpected end of stream", None),
        (b"a: 1\n---\nb: 2\n", "expected a single document", None),
        (b"a: 1\nb: *nobody\n", "undefined alias", 2),
        (b"a: 1\nb: \x01\n", "no YAML", 2),
        (b"a: 1\nb: \xff\n", "no YAML", 2),
        (b"a:\n  b: &x\n    c: *x\n", "an alias contains itself", None),
        (b"a: 1\nb: &x [1, [*x]]\n", "an alias contains itself", 2),
        (b"a: 1\nb: " + b"[" * 64 + b"]" * 64, "nest deeper than 64", 2),
        (BOMB.encode(), "aliases stand for more than 1000000 values", None),
    ],
)
def test_what_is_no_yaml_to_us(text: bytes, problem: str, line: int | None, composer: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        nodes.compose(text, "directory.yaml", composer)
    assert caught.value.source == "directory.yaml"
    if line is not None:
        assert caught.value.line == line


def test_a_hundred_thousand_brackets_end_no_process(refused: Callable[..., ConfigError]) -> None:
    refused(b"[" * 100_000, "nest deeper than 64", 1)
    refused(b"\n".join(b" " * i + b"a:" for i in range(2000)), "nest deeper than 64", 64)


def test_both_composers_see_the_same() -> None:
    def plain(node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return (node.tag, node.value, node.start_mark.line)
        if isinstance(node, yaml.MappingNode):
            return (node.tag, [(plain(key), plain(value)) for key, value in node.value])
        return (node.tag, [plain(inner) for inner in node.value], node.start_mark.line)

    octets = EXAMPLE.read_bytes() + b"  - &x {a: !!int '5', b: ! x, c: !Env [A, \"b\"], <<: {d: 1}, e: ~}\n  - *x\n"
    assert plain(nodes.compose(octets, "")) == plain(nodes.compose(octets, "", nodes.PureComposer))


@pytest.mark.parametrize(
    ("text", "problem", "line", "key"),
    [
        ("- 1\n", "expected a mapping", 1, ""),
        ("hello\n", "expected a mapping", 1, ""),
        ("version: 1\n", "is missing; expected a blueprint", 1, "entries"),
        ("version: 2\nentries: []\n", "expected version 1", 1, "version"),
        ("version: 1\nentries: {}\n", "expected a list", 2, "entries"),
        ("version: 1\nentries:\n", "expected a list", 2, "entries"),
        ("version: 1\nentires: []\n", "unknown key; did you mean entries?", 2, "entires"),
        ("version: 1\nentries:\n  - 1\n", "expected a mapping", 3, "entries[0]"),
        ("version: 1\nentries:\n  - id: x\n", "is missing", 3, "entries[0].model"),
        ("version: 1\nentries:\n  - {model: a, stat: absent}\n", "did you mean state?", 3, "entries[0].stat"),
        ("version: 1\nentries:\n  - {model: a, state: gone}\n", "expected one of absent", 3, "entries[0].state"),
        ("version: 1\nentries:\n  - {model: a, conditions: yes}\n", "expected a list", 3, "entries[0].conditions"),
        ("version: 1\nentries:\n  - {model: a, attrs: []}\n", "expected a mapping", 3, "entries[0].attrs"),
        ("version: 1\nentries:\n  - {model: a, model: b}\n", "key 'model' appears twice", 3, ""),
        ("version: 1\nversion: 1\n", "key 'version' appears twice", 2, ""),
        ("version: 1\nmetadata:\n  name: a\n  name: b\nentries: []\n", "key 'name' appears twice", 4, ""),
        ("version: 1\ncontext: {a: {b: 1, b: 2}}\nentries: []\n", "key 'b' appears twice", 2, ""),
        (blueprint(entry("flow", designation="{a: 1, a: 2}")), "key 'a' appears twice", 4, ""),
        (blueprint(entry("user", username="a", attributes="{x: 1, 'x': 2}")), "key 'x' appears twice", 4, ""),
        (blueprint(entry("ldap", name="a", property_mappings="[{x: 1, x: 2}]")), "key 'x' appears twice", 4, ""),
        (blueprint(entry("user", username="a", attributes="{[1]: 2}")), "a key has to be a plain text", 4, ""),
        (blueprint(entry("user", username="a", attributes="{<<: 1}")), "<<: expected a mapping", 4, ""),
        (blueprint(ALICE, entry("user", "alice", username="b")), "id 'alice' is taken by the entry in line 4", 5, None),
    ],
)
def test_what_is_no_blueprint(
    refused: Callable[..., ConfigError], text: str, problem: str, line: int, key: str | None
) -> None:
    refused(text, problem, line, key)


def attr(kind: str, problem: str, field: str, /, *before: str, **attrs: object) -> object:
    """A case: the entry with `attrs` after `before`, and the error at its line and field."""
    text = blueprint(*before, entry(kind, **attrs))
    return pytest.param(text, problem, 4 + len(before), f"entries[{len(before)}].attrs.{field}", id=f"{kind}-{problem}")


DEVICE = entry("device", "paper", user="!KeyOf alice")


@pytest.mark.parametrize(
    ("text", "problem", "line", "key"),
    [
        # tags
        attr("user", "has the unknown tag !If; known here are !Context", "name", username="a", name="!If [true, a, b]"),
        attr("user", "has the unknown tag !Condition", "name", username="a", name="!Condition [AND, true]"),
        attr("user", "has the unknown tag !Enumerate", "groups", username="a", groups="!Enumerate [a, SEQ, b]"),
        attr("user", "has the unknown tag !!binary", "attributes.x", username="a", attributes="{x: !!binary aGk=}"),
        attr("user", "has the unknown tag !!set", "attributes.x", username="a", attributes="{x: !!set {a}}"),
        attr("user", "unknown tag !!python/object:os.system", "name", username="a", name="!!python/object:os.system x"),
        attr("user", "!KeyOf staf: no entry has this id; did you mean 'staff'?", "groups[0]", STAFF,
             username="a", groups="[!KeyOf staf]"),
        attr("user", "!KeyOf gone: the entry 'gone' (authentik_core.group, line 4) is absent", "groups[0]",
             entry("group", "gone", name="gone", head="state: absent, "), username="a", groups="[!KeyOf gone]"),
        attr("user", "expected a name behind !KeyOf", "groups[0]", username="a", groups="[!KeyOf [a]]"),
        attr("user", "!Find: no authentik_core.group in this file with name 'nobody', path", "groups[0]", STAFF,
             username="a", groups="[!Find [authentik_core.group, [name, nobody], [path, x]]]"),
        attr("user", "expected !Find [model, [field, value]]", "groups[0]", username="a", groups="[!Find x]"),
        attr("user", "expected !Find [model, [field, value]]", "groups[0]", username="a", groups="[!Find [x, y]]"),
        attr("user", "!Env NAME: the environment variable is not set", "name", username="a", name="!Env NAME"),
        attr("user", "expected !Env name or !Env [name, default]", "name", username="a", name="!Env [a, b, c]"),
        attr("user", "!File gone.txt: No such file", "name", username="a", name="!File gone.txt"),
        attr("user", "!File .: is no regular file", "name", username="a", name="!File ."),
        attr("user", "!File a\0b", "name", username="a", name='!File ["a\\0b"]'),
        attr("user", "!Context nothing: no such key", "name", username="a", name="!Context nothing"),
        attr("user", "only %s and %% are used", "name", username="a", name="!Format ['%999999999d', 1]"),
        attr("user", "expected one value for each %s", "name", username="a", name="!Format ['%s%s%%s', 1]"),
        attr("user", "expected texts and numbers, got a reference", "name", STAFF,
             username="a", name="!Format ['%s', !KeyOf staff]"),
        # users
        attr("user", "is missing", "username", name="a"),
        attr("user", "is empty", "username", username="''"),
        attr("user", "'ALICE' is already taken in line 4", "username", ALICE, username="ALICE"),
        attr("user", "has white space around it", "username", username="' a'"),
        attr("user", "a character that does not print", "username", username='"a\\0"'),
        attr("user", "expected a text, got true or false; put it in quotes", "username", username="no"),
        attr("user", "expected a text, got a number with a fraction", "username", username="1.5"),
        attr("user", "expected a text, got a number that reads differently", "username", username="0123"),
        attr("user", "expected a text, got a date", "username", username="2024-01-01"),
        attr("user", "is no timestamp that exists", "username", username="2024-13-45"),
        attr("user", "expected a text, got a list", "username", username="[a]"),
        attr("user", "expected a text, got a mapping", "name", username="a", name="{a: b}"),
        attr("user", "expected a text, got a reference to another entry", "name", STAFF,
             username="a", name="!KeyOf staff"),
        attr("user", "expected true or false, got a text", "is_active", username="a", is_active="maybe"),
        attr("user", "expected true or false, got a number", "is_active", username="a", is_active="1"),
        attr("user", "expected one of external, internal", "type", username="a", type="robot"),
        attr("user", "expected a mapping, got a list", "attributes", username="a", attributes="[]"),
        attr("user", "expected a list, got a text", "groups", username="a", groups="staff"),
        attr("user", "no authentik_core.group in this file has the primary key 'staff'", "groups[0]",
             STAFF, username="a", groups="[staff]"),
        attr("user", "expected !KeyOf, !Find or a primary key, got nothing", "groups[0]",
             username="a", groups="[null]"),
        attr("user", "refers to the entry 'alice' (authentik_core.user, line 4), expected authentik_core.group",
             "groups[0]", ALICE, username="a", groups="[!KeyOf alice]"),
        attr("user", "expected a whole number from 1 to 2147483647", "pk", username="a", pk=0),
        attr("user", "expected a whole number, got a text", "pk", username="a", pk="x"),
        attr("user", "5 is already taken in line 4", "pk", entry("user", username="b", pk=5), username="a", pk=5),
        attr("user", "expected a UUID", "uuid", username="a", uuid="x"),
        attr("user", "expected a date and time", "date_joined", username="a", date_joined="yesterday"),
        attr("user", "is no argon2id string", "password", username="a", password="'$argon2id$v=19$x'"),
        attr("user", "asks for 4194305 KiB", "password", username="a",
             password=f"'$argon2id$v=19$m=4194305,t=1,p=1$c29tZXNhbHQ${'A' * 43}'"),
        attr("user", "expected a text, got a list", "password", username="a", password="[hunter2]"),
        attr("user", "expected a mapping of attribute names", "attributes.radius", username="a",
             attributes="{radius: 5}"),
        attr("user", "expected a text, a number or a list of them, got true or false", "attributes.radius.Class",
             username="a", attributes="{radius: {Class: [a, true]}}"),
        # groups
        attr("group", "'Staff' is already taken in line 4", "name", STAFF, name="Staff"),
        attr("group", "is missing", "name", is_superuser="true"),
        attr("group", "expected a UUID", "pk", name="a", pk="x"),
        attr("group", "is already taken in line 4", "pk",
             entry("group", name="b", pk="6b1f3a46-6c7a-4a71-9d1b-3f2f4b7d7a11"),
             name="a", pk="6B1F3A46-6C7A-4A71-9D1B-3F2F4B7D7A11"),
        attr("group", "7 is already taken in line 4", "num_pk", entry("group", name="b", num_pk=7), name="a", num_pk=7),
        attr("group", "expected authentik_core.group", "parent", ALICE, name="a", parent="!KeyOf alice"),
        attr("group", "expected authentik_core.user", "users[0]", STAFF, name="a", users="[!KeyOf staff]"),
        attr("group", "got a text", "attributes.radius", name="a", attributes="{radius: x}"),
        # proofs
        attr("token", "is missing", "key", ALICE, **TOKEN),
        attr("token", "is empty", "key", ALICE, **TOKEN, key="''"),
        attr("token", "is missing", "user", identifier="t", intent="app_password", key="k"),
        attr("token", "expected one of api, app_password", "intent", identifier="t", intent="app"),
        attr("token", "an expiring token needs it", "expires", ALICE, **TOKEN, key="k", expiring="true"),
        attr("totp", "is missing", "key", ALICE, user="!KeyOf alice"),
        attr("totp", "expected hexadecimal digits", "key", ALICE, user="!KeyOf alice", key="GEZDGNBV"),
        attr("totp", "is empty", "key", ALICE, user="!KeyOf alice", key="' '"),
        attr("totp", "expected a whole number from 6 to 8", "digits", ALICE, user="!KeyOf alice", key="'00'", digits=9),
        attr("totp", "expected a whole number from 1 to 3600", "step", ALICE, user="!KeyOf alice", key="'00'", step=0),
        attr("device", "is missing", "user", name="x"),
        attr("code", "is missing", "device", token="abcd"),
        attr("code", "expected 4 to 64 letters and digits", "token", ALICE, DEVICE,
             device="!KeyOf paper", token="a-b-c-d"),
        # providers
        attr("ldap", "is missing", "name", base_dn="'dc=x'"),
        attr("ldap", "provider 'ldap' is already defined in line 4", "name", LDAP, name="ldap"),
        attr("radius", "provider 'ldap' is already defined in line 4", "name", LDAP, name="ldap", shared_secret="s"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="''"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="example.com"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="'dc=example,,dc=com'"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="'dc=example,dc='"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="'dc=example;dc=com'"),
        attr("ldap", "expected a distinguished name", "base_dn", name="a", base_dn="'dc=a,'"),
        attr("ldap", "expected one of cached, direct", "search_mode", name="a", search_mode="fast"),
        attr("ldap", "expected one of cached, direct", "bind_mode", name="a", bind_mode="fast"),
        attr("ldap", "expected a whole number from 0", "uid_start_number", name="a", uid_start_number=-1),
        attr("ldap", "expected authentik_core.group", "search_group", ALICE, name="a", search_group="!KeyOf alice"),
        attr("ldap", "expected authentik_crypto.certificatekeypair", "certificate", STAFF, name="a",
             certificate="!KeyOf staff"),
        attr("ldap", "3 is already taken in line 4", "pk", entry("ldap", name="b", pk=3), name="a", pk=3),
        attr("radius", "is missing", "shared_secret", name="a"),
        attr("radius", "is empty", "shared_secret", name="a", shared_secret="''"),
        attr("radius", "'10.0.0.0/33' is no network", "client_networks", name="a", shared_secret="s",
             client_networks="'::/0, 10.0.0.0/33'"),
        attr("radius", "'' is no network", "client_networks", name="a", shared_secret="s",
             client_networks="'10.0.0.1,'"),
        attr("radius", "expected a text, got a list", "client_networks", name="a", shared_secret="s",
             client_networks="[10.0.0.0/8]"),
        # applications and bindings
        attr("application", "is missing", "slug", name="a"),
        attr("application", "expected letters, digits", "slug", slug="a b"),
        attr("application", "'ldap' is already taken in line 5", "slug", LDAP, LDAP_APP, slug="ldap"),
        attr("application", "already belongs to the application in line 5", "provider", LDAP, LDAP_APP,
             slug="b", provider="!KeyOf ldap"),
        attr("application", "expected a provider", "provider", STAFF, slug="b", provider="!KeyOf staff"),
        attr("application", "expected one of all, any", "policy_engine_mode", slug="b", policy_engine_mode="some"),
        attr("binding", "is missing", "target", ALICE, user="!KeyOf alice"),
        attr("binding", "expression policies cannot be evaluated here", "policy", LDAP, LDAP_APP,
             entry("authentik_policies_expression.expressionpolicy", "policy", name="x"),
             target="!KeyOf app", policy="!KeyOf policy"),
        attr("binding", "expected exactly one of user and group", "group", LDAP, LDAP_APP, target="!KeyOf app"),
        attr("binding", "expected exactly one of user and group", "user", LDAP, LDAP_APP, ALICE, STAFF,
             target="!KeyOf app", user="!KeyOf alice", group="!KeyOf staff"),
        attr("binding", "expected authentik_core.group", "group", LDAP, LDAP_APP, ALICE,
             target="!KeyOf app", group="!KeyOf alice"),
        attr("binding", "expected true or false", "negate", LDAP, LDAP_APP, ALICE,
             target="!KeyOf app", user="!KeyOf alice", negate="maybe"),
    ],
)  # fmt: skip
def test_what_a_field_may_not_say(
    refused: Callable[..., ConfigError], text: str, problem: str, line: int, key: str
) -> None:
    error = refused(text, problem, line, key)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (
            blueprint(
                entry("user", "a", username="a", head="conditions: [!KeyOf b], "),
                entry("user", "b", username="b", head="conditions: [!KeyOf a], "),
            ),
            4,
            "entries[0]",
        ),
        (blueprint(entry("user", "a", username="a", head="conditions: [!KeyOf a], ")), 4, "entries[0]"),
        (
            blueprint(entry("user", username="!Context a"), context="{a: !Context b, b: [!Context a]}"),
            2,
            "context.b[0]",
        ),
        (
            blueprint(entry("user", username="!Find [authentik_core.user, [username, a]]", groups="[]")),
            4,
            "entries[0].attrs.username",
        ),
    ],
    ids=["two entries", "itself", "context", "find"],
)
def test_circles_are_refused(refused: Callable[..., ConfigError], text: str, line: int, key: str) -> None:
    refused(text, "refers to itself", line, key)


@pytest.mark.parametrize(
    ("first", "second"), [("10.0.0.0/8", "'192.0.2.0/24, 10.1.1.1/8'"), ("10.0.0.0/8", "'::ffff:10.0.0.0/104'")]
)
def test_two_providers_cannot_have_one_network(
    refused: Callable[..., ConfigError], read: Load, first: str, second: str
) -> None:
    def provider(name: str, networks: str) -> str:
        provider = entry("radius", name, name=name, shared_secret="s", client_networks=networks)
        return provider + entry("application", slug=name, provider=f"!KeyOf {name}")

    problem = "already belongs to the provider 'one' in line 4"
    refused(blueprint(provider("one", first), provider("two", second)), problem, 6, "entries[2].attrs.client_networks")
    assert len(read(blueprint(provider("one", first), provider("two", "10.0.0.0/9"))).served.radius) == 2


def test_an_included_file_that_is_too_large_or_no_text(
    refused: Callable[..., ConfigError], tmp_path: pathlib.Path
) -> None:
    text = blueprint(entry("user", username="a", name="!File [big.txt, default]"))
    (tmp_path / "big.txt").write_bytes(b"x" * (1024 * 1024 + 1))
    refused(text, "!File big.txt: is larger than 1048576 octets", 4, "entries[0].attrs.name")
    (tmp_path / "big.txt").write_bytes(b"\xff\xfe")
    refused(text, "!File big.txt: is no UTF-8 text", 4, "entries[0].attrs.name")


def test_find_does_not_quote_secrets(refused: Callable[..., ConfigError]) -> None:
    text = blueprint(entry("user", username="a", groups="[!Find [authentik_core.token, [key, hunter2]]]"))
    assert "hunter2" not in str(refused(text, "no authentik_core.token in this file with key", 4))


# -- cost -----------------------------------------------------------------------------------------


def test_the_collector_is_left_as_it_was(read: Load, refused: Callable[..., ConfigError]) -> None:
    read(blueprint(ALICE))
    assert gc.isenabled()
    refused(blueprint(entry("user")), "is missing", 4)
    assert gc.isenabled()
    gc.disable()
    try:
        read(blueprint(ALICE))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_tree_is_let_go(read: Load) -> None:
    import weakref

    from outpost.backends.embedded import loader

    seen: list[weakref.ref[object]] = []
    compose = loader.compose

    def watched(octets: bytes, source: str) -> yaml.Node:
        root = compose(octets, source)
        seen.append(weakref.ref(root))
        return root

    gc.disable()
    try:
        loader.compose = watched  # type: ignore[assignment]
        directory = read(blueprint(ALICE, STAFF, LDAP, LDAP_APP))
        assert seen[0]() is None
        assert directory.accounts
    finally:
        loader.compose = compose
        gc.enable()


def test_base_dn_takes_linear_time(refused: Callable[..., ConfigError]) -> None:
    for dn in ("dc=" + "a" * 1000 + "\\", "dc=a," * 200, "a" * 1000, " " * 1000, "dc=a+" * 200):
        refused(blueprint(entry("ldap", name="a", base_dn=f"'{dn}'")), "expected a distinguished name", 4)


def test_a_thousand_users_and_a_long_chain_of_groups(read: Load) -> None:
    chain = [entry("group", "g0", name="g0", is_superuser="true")]
    chain += [entry("group", f"g{i}", name=f"g{i}", parent=f"!KeyOf g{i - 1}") for i in range(1, 1500)]
    users = [entry("user", username=f"u{i}", groups="[!KeyOf g1499]") for i in range(1000)]
    directory = read(blueprint(*chain, *users))
    assert all(len(one.memberships) == 1500 and one.is_superuser for one in directory.accounts.values())
    assert math.isfinite(directory.people.taken_at)
