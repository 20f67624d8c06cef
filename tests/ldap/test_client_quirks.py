"""What programs in the field ask of a directory, each as the search, Compare or Bind that it sends.

One appliance serves the same people twice: as they come, and with everything on that file servers want.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ldap import decode, encode
from tests.ldap.encode import BASE_OBJECT, SINGLE_LEVEL, WHOLE_SUBTREE
from tests.process.running import Appliance, appliance

PLAIN, NAS = "dc=ldap,dc=goauthentik,dc=io", "dc=nas,dc=example,dc=com"
PAGED, IN_CHAIN = "1.2.840.113556.1.4.319", "1.2.840.113556.1.4.1941"
PEOPLE = 30

FILE = f"""
version: 1
metadata: {{name: quirks}}
entries:
  - model: authentik_core.group
    id: everybody
    identifiers: {{name: everybody}}
  - model: authentik_core.group
    id: readers
    identifiers: {{name: readers}}
  - model: authentik_core.group
    id: staff
    identifiers: {{name: Staff}}
    attrs: {{parent: !KeyOf everybody}}
  - model: authentik_core.group
    id: labstaff
    identifiers: {{name: labstaff}}
    attrs: {{parent: !KeyOf staff, attributes: {{gidNumber: "5000"}}}}
  - model: authentik_core.group
    id: empty
    identifiers: {{name: empty}}
  - model: authentik_core.user
    identifiers: {{username: ldapservice}}
    attrs: {{name: Service, groups: [!KeyOf readers], password: service-pw}}
  - model: authentik_core.user
    identifiers: {{username: alice}}
    attrs:
      name: Alice Q. Archer
      email: alice@example.com
      groups: [!KeyOf labstaff]
      password: alice-pw
      password_change_date: 2025-01-02T03:04:05Z
      date_joined: 2024-01-02T03:04:05Z
      last_updated: 2025-03-04T05:06:07Z
      attributes:
        uidNumber: "10001"
        loginShell: /bin/zsh
        userPassword: not-for-anybody
        mailAlias: [a.archer@example.com, alice@example.org, alice@example.org]
        sshPublicKey: [ssh-ed25519 AAAA one, ssh-ed25519 BBBB two]
  - model: authentik_core.user
    identifiers: {{username: Bob Baker}}
    attrs: {{name: Bob, email: bob@example.com, password: bob-pw}}
  - model: authentik_core.user
    identifiers: {{username: dan}}
    attrs: {{name: Dan Doe, is_active: false, groups: [!KeyOf labstaff], password: dan-pw}}
{{more}}
  - model: authentik_providers_ldap.ldapprovider
    id: plain
    identifiers: {{name: plain}}
    attrs: {{base_dn: "{PLAIN}", search_group: !KeyOf readers}}
  - model: authentik_providers_ldap.ldapprovider
    id: nas
    identifiers: {{name: nas}}
    attrs: {{base_dn: "{NAS}", search_group: !KeyOf readers}}
  - model: authentik_core.application
    identifiers: {{slug: plain}}
    attrs: {{name: plain, provider: !KeyOf plain}}
  - model: authentik_core.application
    identifiers: {{slug: nas}}
    attrs: {{name: nas, provider: !KeyOf nas}}
"""
OTHERS = """  - model: authentik_core.user
    identifiers: {{username: user{0:02}}}
    attrs: {{name: User {0:02}, email: user{0:02}@example.net, groups: [!KeyOf everybody]}}
"""
SETTINGS = """
version = 1
[provider.nas]
samba = true
shadow = true
active_directory = true
uid = "username"
nested_groups = "effective"
bind_names = ["username", "mail", "upn"]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    place = tmp_path_factory.mktemp("quirks")
    (place / "directory.yaml").write_text(FILE.replace("{more}", "".join(OTHERS.format(n) for n in range(PEOPLE))))
    (place / "outpost.toml").write_text(SETTINGS)
    with appliance(place / "directory.yaml", "--config", str(place / "outpost.toml")) as found:
        while found.get("/-/ready")[0] != 200:
            pass
        yield found


class Client:
    """Sends one request and reads what answers it."""

    def __init__(self, port: int) -> None:
        self.there = socket.create_connection(("127.0.0.1", port), 20)
        self.there.settimeout(20)
        self._held = b""
        self._id = 0
        self.controls = b""
        """Of the last answer."""

    def send(self, octets: bytes) -> None:
        self.there.sendall(octets)

    @property
    def next_id(self) -> int:
        self._id += 1
        return self._id

    def answers(self, message_id: int) -> list[decode.Message]:
        """All messages up to the one that ends this operation."""
        found: list[decode.Message] = []
        while True:
            whole, self._held = decode.cut(self._held)
            for message in decode.messages(whole):
                assert message.message_id == message_id
                found.append(message)
            if found and found[-1].tag != 0x64:
                self.controls = found[-1].controls
                return found
            more = self.there.recv(1 << 16)
            assert more, "closed"
            self._held += more

    def bind(self, name: str, password: str) -> int:
        one = self.next_id
        self.send(encode.bind(one, name, password))
        return decode.result(self.answers(one)[-1].content)[0]

    def search(
        self, base: str, filter: str = "(objectClass=*)", *attributes: str, scope: int = WHOLE_SUBTREE, **more: Any
    ) -> tuple[int, dict[str, dict[str, list[str]]]]:
        one = self.next_id
        self.send(encode.search(one, base, filter, attributes, scope=scope, **more))
        *listed, done = self.answers(one)
        entries = [decode.entry(message.content) for message in listed]
        assert len({entry.dn for entry in entries}) == len(entries), "each entry once"
        return decode.result(done.content)[0], {
            entry.dn.decode(): {n.decode(): [v.decode("latin-1") for v in values] for n, values in entry.attributes}
            for entry in entries
        }

    def compare(self, entry: str, attribute: str, value: str) -> int:
        one = self.next_id
        self.send(encode.compare(one, entry, attribute, value))
        return decode.result(self.answers(one)[-1].content)[0]

    def extended(self, name: str, value: bytes | None = None) -> tuple[int, bytes]:
        one = self.next_id
        self.send(encode.extended(one, name, value))
        content = self.answers(one)[-1].content
        return decode.result(content)[0], dict(decode.elements(content)).get(0x8B, b"")


@pytest.fixture
def anonymous(running: Appliance) -> Iterator[Client]:
    client = Client(running.ports["ldap"])
    yield client
    client.there.close()


@pytest.fixture
def plain(anonymous: Client) -> Client:
    assert anonymous.bind(f"cn=ldapservice,ou=users,{PLAIN}", "service-pw") == 0
    return anonymous


@pytest.fixture
def nas(anonymous: Client) -> Client:
    assert anonymous.bind(f"cn=ldapservice,ou=users,{NAS}", "service-pw") == 0
    return anonymous


def user(name: str, base: str = PLAIN) -> str:
    return f"cn={name},ou=users,{base}"


def group(name: str, base: str = PLAIN) -> str:
    return f"cn={name},ou=groups,{base}"


def page(size: int, cookie: bytes = b"", *, critical: bool = False) -> list[bytes]:
    value = encode.tlv(0x30, encode.integer(size), encode.octets(cookie))
    return [encode.control(PAGED, critical, value)]


def cookie(client: Client) -> bytes:
    [(_, control)] = decode.elements(client.controls)
    (_, oid), (_, value) = decode.elements(control)
    assert oid == PAGED.encode()
    [(_, inner)] = decode.elements(value)
    (_, _), (_, found) = decode.elements(inner)
    return found


def everything(client: Client, size: int, base: str, filter: str, *attributes: str) -> list[str]:
    """DNs of a paged listing."""
    found: list[str] = []
    following = b""
    while True:
        code, entries = client.search(base, filter, *attributes, controls=page(size, following))
        assert code == 0 and len(entries) <= size
        found += entries
        following = cookie(client)
        if not following:
            return found


# -- SSSD -----------------------------------------------------------------------------------------


def test_sssd_finds_a_user_by_name(plain: Client) -> None:
    code, found = plain.search(PLAIN, "(&(cn=alice)(objectClass=user)(&(uidNumber=*)(!(uidNumber=0))))", "*", "+")
    assert code == 0 and list(found) == [user("alice")]


def test_sssd_finds_a_user_by_number_when_its_cache_expires(plain: Client) -> None:
    code, found = plain.search(PLAIN, "(&(uidNumber=10001)(objectClass=user)(cn=*)(&(uidNumber=*)(!(uidNumber=0))))")
    assert code == 0 and list(found) == [user("alice")]


def test_sssd_finds_the_groups_of_a_user(plain: Client) -> None:
    filter = f"(&(member={user('alice')})(objectClass=group)(cn=*))"
    assert plain.search(f"ou=groups,{PLAIN}", filter, "objectClass", "cn", "gidNumber", "modifyTimestamp") == (
        0,
        {
            group("labstaff"): {
                "objectClass": [
                    *("top", "group", "groupOfUniqueNames", "groupOfNames", "goauthentik.io/ldap/group", "posixGroup")
                ],
                "cn": ["labstaff"],
                "gidNumber": ["5000"],
            }
        },
    )


def test_sssd_finds_a_group_by_number(plain: Client) -> None:
    filter = "(&(gidNumber=5000)(objectClass=group)(cn=*)(&(gidNumber=*)(!(gidNumber=0))))"
    code, found = plain.search(PLAIN, filter, "member")
    assert code == 0 and list(found) == [group("labstaff")]
    assert set(found[group("labstaff")]["member"]) == {user("alice"), user("dan")}


def test_sssd_enumerates_in_pages(plain: Client) -> None:
    filter = "(&(objectClass=user)(cn=*)(uidNumber=*)(gidNumber=*))"
    for size in (1, 7, 1000):
        found = everything(plain, size, PLAIN, filter, "cn")
        assert len(found) == len(set(found)) == PEOPLE + 4


def test_sssd_asks_for_options_and_attributes_that_nobody_has(plain: Client) -> None:
    wanted = (
        "cn",
        "userCertificate;binary",
        "nsAccountLock",
        "modifyTimestamp",
        "krbLastPwdChange",
        "shadowLastChange",
    )
    code, found = plain.search(user("alice"), "(objectClass=*)", *wanted, scope=BASE_OBJECT)
    assert (code, found[user("alice")]) == (0, {"cn": ["alice"], "modifyTimestamp": ["20250304050607Z"]})


def test_sssd_reads_all_ssh_keys(plain: Client) -> None:
    _, found = plain.search(user("alice"), "(objectClass=*)", "sshPublicKey", scope=BASE_OBJECT)
    assert found[user("alice")]["sshPublicKey"] == ["ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"]


def test_sssd_keeps_inactive_users_out_with_an_access_filter(plain: Client) -> None:
    filter = f"(&(objectClass=user)(ak-active=TRUE)(memberOf={group('labstaff')}))"
    assert list(plain.search(user("dan"), filter, scope=BASE_OBJECT)[1]) == []
    assert list(plain.search(user("alice"), filter, scope=BASE_OBJECT)[1]) == [user("alice")]


# -- nslcd and pam_ldap ---------------------------------------------------------------------------


def test_nslcd_reads_a_posix_account(nas: Client) -> None:
    wanted = ("uid", "cn", "uidNumber", "gidNumber", "homeDirectory", "loginShell", "gecos", "userPassword")
    code, found = nas.search(NAS, "(&(objectClass=posixAccount)(uid=alice))", *wanted)
    assert code == 0
    held = found[user("alice", NAS)]
    assert held["uidNumber"] == ["10001"] and held["uid"] == ["alice"] and "userPassword" not in held
    assert held["homeDirectory"] == ["/home/alice"] and held["loginShell"] == ["/bin/zsh"] and held["gidNumber"]


def test_every_posix_account_has_its_numbers(nas: Client) -> None:
    _, found = nas.search(NAS, "(objectClass=posixAccount)", "uidNumber", "gidNumber", "homeDirectory")
    assert len(found) == PEOPLE + 4
    assert all(set(held) == {"uidNumber", "gidNumber", "homeDirectory"} for held in found.values())


def test_pam_ldap_finds_a_shadow_account(nas: Client) -> None:
    _, found = nas.search(NAS, "(&(objectClass=shadowAccount)(uid=alice))", "shadowLastChange", "shadowMax")
    assert found == {user("alice", NAS): {"shadowLastChange": ["20090"]}}


def test_nslcd_finds_groups_by_name_of_the_member(nas: Client) -> None:
    filter = f"(&(objectClass=posixGroup)(|(memberUid=alice)(member={user('alice', NAS)})))"
    _, found = nas.search(f"ou=groups,{NAS}", filter, "gidNumber")
    assert list(found) == [group(name, NAS) for name in ("Staff", "everybody", "labstaff")]


def test_nslcd_gives_a_search_up_after_the_first_hit(plain: Client) -> None:
    abandoned = plain.next_id
    plain.send(encode.search(abandoned, PLAIN, "(objectClass=posixAccount)", ["cn"], size_limit=1))
    assert [message.tag for message in plain.answers(abandoned)] == [0x64, 0x65]
    plain.send(encode.abandon(plain.next_id, abandoned))
    assert plain.search(user("alice"), scope=BASE_OBJECT)[0] == 0


def test_nslcd_reads_a_user_as_that_user(anonymous: Client) -> None:
    assert anonymous.bind(user("alice", NAS), "alice-pw") == 0
    assert list(anonymous.search(user("alice", NAS), "(objectClass=*)", "dn", scope=BASE_OBJECT)[1]) == [
        user("alice", NAS)
    ]


# -- Synology DSM ---------------------------------------------------------------------------------


def test_synology_finds_the_base_without_a_name(anonymous: Client) -> None:
    assert anonymous.bind("", "") == 0
    code, found = anonymous.search("", "(objectClass=*)", "namingContexts", scope=BASE_OBJECT)
    assert (code, sorted(found[""]["namingContexts"])) == (0, sorted([PLAIN, NAS]))


def test_synology_finds_the_base_without_a_bind(anonymous: Client) -> None:
    code, found = anonymous.search("", "(objectClass=*)", scope=BASE_OBJECT)
    assert code == 0 and found[""]["subschemaSubentry"] == ["cn=subschema"] and found[""]["supportedLDAPVersion"]


def test_synology_resolves_the_subschema(nas: Client) -> None:
    wanted = ("objectClasses", "attributeTypes")
    code, found = nas.search("cn=subschema", "(objectClass=subschema)", *wanted, scope=BASE_OBJECT)
    assert code == 0 and any("NAME 'posixAccount'" in one for one in found["cn=subschema"]["objectClasses"])


def test_synology_gets_names_back_in_the_case_of_the_schema(nas: Client) -> None:
    _, found = nas.search(NAS, "(&(objectclass=posixAccount)(uid=alice))", "uidNumber", "gidNumber", "homeDirectory")
    assert set(found[user("alice", NAS)]) == {"uidNumber", "gidNumber", "homeDirectory"}


def test_synology_binds_as_the_user_and_searches(anonymous: Client) -> None:
    assert anonymous.bind(user("alice", NAS), "alice-pw") == 0
    _, found = anonymous.search(NAS, "(&(objectClass=posixAccount)(uid=alice))", "uid", "memberOf")
    assert found[user("alice", NAS)]["uid"] == ["alice"]


def test_synology_sees_samba_accounts(nas: Client) -> None:
    wanted = ("sambaSID", "sambaNTPassword", "sambaAcctFlags", "sambaPrimaryGroupSID")
    code, found = nas.search(NAS, "(&(objectClass=sambaSamAccount)(uid=alice))", *wanted)
    held = found[user("alice", NAS)]
    assert code == 0 and held["sambaSID"][0].startswith("S-1-5-21-") and "sambaNTPassword" not in held


# -- QNAP -----------------------------------------------------------------------------------------


def test_qnap_lists_accounts_and_groups(nas: Client) -> None:
    _, found = nas.search(NAS, "(objectClass=posixAccount)", "uid", "uidNumber", "gidNumber")
    assert found[user("alice", NAS)]["uid"] == ["alice"] and all(held["uid"] for held in found.values())
    _, groups = nas.search(f"ou=groups,{NAS}", "(objectClass=posixGroup)", "cn", "gidNumber", "memberUid")
    assert groups[group("labstaff", NAS)]["memberUid"] == ["alice", "dan"]


def test_qnap_reads_the_controls_of_the_root_dse(anonymous: Client) -> None:
    _, found = anonymous.search("", "(objectClass=*)", "supportedControl", scope=BASE_OBJECT)
    assert PAGED in found[""]["supportedControl"]


def test_qnap_finds_the_samba_domain(nas: Client) -> None:
    wanted = ("sambaSID", "sambaNextRid", "sambaAlgorithmicRidBase", "sambaDomainName")
    _, any_domain = nas.search(NAS, "(objectclass=sambaDomain)", "sambaDomainName")
    [(_, held)] = any_domain.items()
    filter = f"(&(sambaDomainName={held['sambaDomainName'][0]})(objectclass=sambaDomain))"
    code, found = nas.search(NAS, filter, *wanted)
    [(_, domain)] = found.items()
    assert code == 0 and set(domain) == set(wanted)


def test_samba_may_look_for_its_domain_but_not_add_one(nas: Client) -> None:
    assert nas.search(NAS, "(&(sambaDomainName=OTHER)(objectclass=sambaDomain))") == (0, {})
    one = nas.next_id
    nas.send(encode.message(one, encode.tlv(0x68, encode.octets(f"sambaDomainName=OTHER,{NAS}"), encode.tlv(0x30))))
    [message] = nas.answers(one)
    assert message.tag == 0x69 and decode.result(message.content)[0] == 53


def test_qnap_with_a_long_password_is_answered(anonymous: Client) -> None:
    assert anonymous.bind(user("alice", NAS), "x" * 200) == 49
    assert anonymous.bind(user("alice", NAS), "alice-pw") == 0


# -- TrueNAS, vCenter -----------------------------------------------------------------------------


def test_truenas_sees_login_names_as_uid(nas: Client) -> None:
    _, found = nas.search(NAS, "(uid=*)", "uid")
    assert found[user("alice", NAS)] == {"uid": ["alice"]}


def test_truenas_may_ask_for_what_is_withheld(nas: Client) -> None:
    wanted = ("homeDirectory", "userPassword", "uid", "gecos", "sambaNTPassword")
    assert nas.search(NAS, "(&(objectClass=posixAccount)(uid=alice))", *wanted) == (
        0,
        {user("alice", NAS): {"homeDirectory": ["/home/alice"], "uid": ["alice"]}},
    )


def test_vcenter_finds_full_dns_in_unique_member(plain: Client) -> None:
    _, found = plain.search(PLAIN, f"(&(objectClass=groupOfUniqueNames)(uniqueMember={user('alice')}))", "uniqueMember")
    assert user("alice") in found[group("labstaff")]["uniqueMember"]


def test_vcenter_finds_users(plain: Client) -> None:
    wanted = ("uid", "entryUUID", "givenName", "sn", "mail", "description")
    _, found = plain.search(f"ou=users,{PLAIN}", "(&(objectClass=inetOrgPerson)(cn=alice))", *wanted)
    assert {"uid", "entryUUID", "givenName", "sn", "mail"} == set(found[user("alice")])


# -- Nextcloud, ownCloud, wg-portal, GLPI, GitLab -------------------------------------------------


def test_nextcloud_tests_the_base_by_dn(plain: Client) -> None:
    assert list(plain.search(PLAIN, "(objectClass=*)", "dn", scope=BASE_OBJECT)[1]) == [PLAIN]


def test_nextcloud_is_told_when_it_forgot_to_bind(anonymous: Client) -> None:
    assert anonymous.search(PLAIN, "(objectClass=*)", "dn", scope=BASE_OBJECT) == (50, {})


def test_nextcloud_finds_display_name_and_a_uuid(plain: Client) -> None:
    _, found = plain.search(PLAIN, "(&(objectClass=person)(cn=alice))", "displayName", "entryUUID", "objectGUID")
    assert (
        found[user("alice")]["displayName"] == ["Alice Q. Archer"] and len(found[user("alice")]["entryUUID"][0]) == 36
    )


def test_nextcloud_finds_the_paging_control_in_answers(plain: Client) -> None:
    code, found = plain.search(PLAIN, "(objectClass=person)", "cn", controls=page(5))
    assert code == 0 and len(found) == 5 and cookie(plain)
    code, found = plain.search(PLAIN, "(objectClass=person)", "cn", controls=page(500, cookie(plain)))
    assert code == 0 and len(found) == PEOPLE - 1 and not cookie(plain)


def test_nextcloud_finds_out_about_member_of(plain: Client) -> None:
    code, found = plain.search(PLAIN, "(memberOf=*)", "memberOf", size_limit=1)
    assert code == 4 and len(found) == 1


def test_nextcloud_searches_while_somebody_types(plain: Client) -> None:
    filter = "(&(objectClass=person)(|(displayName=*arch*)(mail=*arch*)(cn=arch*)))"
    assert list(plain.search(f"ou=users,{PLAIN}", filter)[1]) == [user("alice")]


def test_a_missing_base_is_not_an_empty_directory(plain: Client) -> None:
    assert plain.search(f"ou=people,{PLAIN}", "(objectClass=person)") == (32, {})
    assert plain.search("dc=elsewhere", "(objectClass=person)") == (32, {})


def test_no_right_is_not_an_empty_directory(anonymous: Client) -> None:
    assert anonymous.search(f"ou=users,{PLAIN}", "(objectClass=person)") == (50, {})


def test_another_directory_is_not_an_empty_directory(plain: Client) -> None:
    assert plain.search(f"ou=users,{NAS}", "(objectClass=person)") == (50, {})


def test_gitlab_reads_a_user_by_his_dn(plain: Client) -> None:
    wanted = ("dn", "uid", "cn", "mail", "email", "userPrincipalName", "userAccountControl")
    code, found = plain.search(user("alice"), "(objectClass=*)", *wanted, scope=BASE_OBJECT)
    assert code == 0 and found[user("alice")]["mail"] == ["alice@example.com"]


# -- ldap3, ldapjs, explorers ---------------------------------------------------------------------


def test_ldap3_finds_every_attribute_in_the_schema(nas: Client) -> None:
    _, schema = nas.search("cn=subschema", "(objectClass=*)", "attributeTypes", scope=BASE_OBJECT)
    described = " ".join(schema["cn=subschema"]["attributeTypes"])
    _, found = nas.search(NAS, "(objectClass=*)", "*", "+")
    for name in {name for held in found.values() for name in held}:
        assert f"'{name}'" in described, name


def test_ldap3_may_ask_for_distinguished_name(plain: Client) -> None:
    _, found = plain.search(PLAIN, "(objectClass=group)", "distinguishedName")
    assert all(held["distinguishedName"] == [dn] for dn, held in found.items())


def test_ldapjs_finds_the_paging_control_in_one_page_too(plain: Client) -> None:
    for base, scope in ((PLAIN, WHOLE_SUBTREE), (PLAIN, BASE_OBJECT), ("", BASE_OBJECT), ("cn=subschema", BASE_OBJECT)):
        code, found = plain.search(base, scope=scope, controls=page(1000))
        assert code == 0 and found and cookie(plain) == b""


def test_explorers_find_the_way_from_the_root(plain: Client) -> None:
    _, root = plain.search("", "(objectClass=*)", "+", scope=BASE_OBJECT)
    assert PLAIN in root[""]["namingContexts"] and root[""]["subschemaSubentry"] == ["cn=subschema"]
    _, below = plain.search(PLAIN, scope=SINGLE_LEVEL)
    assert list(below) == [f"ou={name},{PLAIN}" for name in ("users", "groups", "virtual-groups")]
    for dn in below:
        _, leaves = plain.search(dn, "(objectClass=*)", "hasSubordinates", scope=SINGLE_LEVEL)
        assert leaves and all(held == {"hasSubordinates": ["FALSE"]} for held in leaves.values())


def test_explorers_get_operational_attributes_for_a_plus(plain: Client) -> None:
    _, found = plain.search(user("alice"), "(objectClass=*)", "+", scope=BASE_OBJECT)
    held = found[user("alice")]
    assert {"entryUUID", "entryDN", "subschemaSubentry", "structuralObjectClass", "createTimestamp"} <= set(held)
    assert "cn" not in held


def test_explorers_see_which_nodes_have_children(plain: Client) -> None:
    _, found = plain.search(PLAIN, "(hasSubordinates=TRUE)", "1.1")
    assert set(found) == {PLAIN, *(f"ou={name},{PLAIN}" for name in ("users", "groups", "virtual-groups"))}


def test_jxplorer_asks_with_alias_dereferencing_and_types_only(plain: Client) -> None:
    code, found = plain.search(user("alice"), scope=BASE_OBJECT, deref_aliases=3, types_only=True)
    assert code == 0 and found[user("alice")]["cn"] == []


# -- Authelia, Jellyfin ---------------------------------------------------------------------------


def test_authelia_reads_what_the_server_can(anonymous: Client) -> None:
    wanted = ("vendorName", "vendorVersion", "supportedExtension", "supportedControl", "supportedFeatures")
    code, found = anonymous.search("", "(objectClass=*)", *wanted, scope=BASE_OBJECT)
    assert code == 0 and set(found[""]) == set(wanted)
    assert "1.3.6.1.4.1.4203.1.11.1" in found[""]["supportedExtension"], "the directory file can be written"


def test_jellyfin_filters_users_by_group(plain: Client) -> None:
    filter = f"(&(|(cn=alice)(mail=alice))(&(objectClass=user)(memberOf={group('labstaff')})))"
    _, found = plain.search(PLAIN, filter, "uid", "cn", "mail", "displayName", "memberOf")
    assert found[user("alice")]["memberOf"] == [group("labstaff")]


def test_jellyfin_finds_no_administrator_among_others(plain: Client) -> None:
    filter = f"(&(cn=alice)(memberOf={group('readers')}))"
    assert plain.search(PLAIN, filter, "cn") == (0, {})


# -- firewalls, Gitea -----------------------------------------------------------------------------


def test_pfsense_reads_groups_one_level_down(plain: Client) -> None:
    filter = "(&(objectClass=groupOfNames)(cn=*))"
    code, found = plain.search(f"ou=groups,{PLAIN}", filter, "dn", "member", scope=SINGLE_LEVEL)
    assert code == 0 and user("alice") in found[group("labstaff")]["member"] and len(found) == 5


def test_opnsense_has_an_extended_query(plain: Client) -> None:
    filter = f"(&(cn=alice)(&(objectClass=user)(|(memberOf={group('labstaff')})(memberOf={group('readers')}))))"
    assert list(plain.search(f"ou=users,{PLAIN}", filter, "cn", "memberOf", scope=SINGLE_LEVEL)[1]) == [user("alice")]


def test_gitea_asks_for_membership_in_chain(plain: Client) -> None:
    filter = f"(&(objectClass=user)(memberOf:{IN_CHAIN}:={group('everybody')})(cn=alice))"
    assert list(plain.search(PLAIN, filter)[1]) == [user("alice")]


def test_gitea_reads_attributes_of_the_user_by_base_scope(anonymous: Client) -> None:
    assert anonymous.bind(user("alice"), "alice-pw") == 0
    code, found = anonymous.search(user("alice"), "(objectClass=*)", "cn", "givenName", "sn", "mail", scope=BASE_OBJECT)
    assert (code, found[user("alice")]) == (
        0,
        {"cn": ["alice"], "givenName": ["Alice Q."], "sn": ["Archer"], "mail": ["alice@example.com"]},
    )


# -- mail -----------------------------------------------------------------------------------------


def test_dovecot_finds_one_entry_below_users(plain: Client) -> None:
    assert list(plain.search(f"ou=users,{PLAIN}", "(&(objectClass=user)(cn=alice))")[1]) == [user("alice")]
    assert list(plain.search(PLAIN, "(&(objectClass=user)(cn=alice))")[1]) == [user("alice")]


def test_dovecot_binds_in_turns_as_user_and_service(plain: Client) -> None:
    for _ in range(3):
        assert plain.bind(user("alice"), "alice-pw") == 0
        assert len(plain.search(PLAIN, "(objectClass=person)")[1]) == 1
        assert plain.bind(user("ldapservice"), "service-pw") == 0
        assert len(plain.search(PLAIN, "(objectClass=person)")[1]) == PEOPLE + 4


def test_values_come_once_however_often_they_are_written(plain: Client) -> None:
    _, found = plain.search(PLAIN, "(cn=alice)", "mailAlias")
    assert found[user("alice")]["mailAlias"] == ["a.archer@example.com", "alice@example.org"]


def test_postfix_asks_whether_a_domain_has_mail(plain: Client) -> None:
    assert list(plain.search(PLAIN, "(mail=*@example.com)", "mail")[1]) == [user("Bob Baker"), user("alice")]
    assert plain.search(PLAIN, "(mail=*@nowhere.example)", "mail") == (0, {})


def test_docker_mailserver_finds_aliases(plain: Client) -> None:
    filter = "(&(objectClass=user)(|(mail=ALICE@EXAMPLE.ORG)(mailAlias=ALICE@EXAMPLE.ORG)))"
    assert list(plain.search(PLAIN, filter, "mail")[1]) == [user("alice")]


def test_nobody_gets_a_password_hash(plain: Client) -> None:
    for filter in ("(userPassword=*)", "(userPassword=not-for-anybody)"):
        assert plain.search(PLAIN, filter) == (0, {})
    assert plain.compare(user("alice"), "userPassword", "not-for-anybody") in (16, 17)


# -- and others -----------------------------------------------------------------------------------


def test_wekan_asks_for_groups_by_member(plain: Client) -> None:
    assert plain.search(PLAIN, f"(&(objectclass=group)(member={user('Bob Baker')}))", "cn") == (
        0,
        {f"cn=Bob Baker,ou=virtual-groups,{PLAIN}": {"cn": ["Bob Baker"]}},
    )
    assert plain.search(f"ou=groups,{PLAIN}", f"(&(objectclass=group)(member={user('nobody')}))") == (0, {})


def test_ejabberd_asks_for_everybody_with_an_account_name(plain: Client) -> None:
    code, found = plain.search(f"ou=users,{PLAIN}", "(sAMAccountName=*)", "sAMAccountName")
    assert code == 0 and len(found) == PEOPLE + 4


def test_keycloak_syncs_in_pages_and_splits_names(plain: Client) -> None:
    filter = "(&(objectclass=inetOrgPerson)(objectclass=organizationalPerson))"
    found = everything(plain, 10, f"ou=users,{PLAIN}", filter, "entryUUID", "givenName", "sn", "mail", "cn")
    assert len(found) == PEOPLE + 4
    _, one = plain.search(user("alice"), "(objectClass=*)", "givenName", "sn", scope=BASE_OBJECT)
    assert one[user("alice")] == {"givenName": ["Alice Q."], "sn": ["Archer"]}


def test_keycloak_finds_a_user_by_his_uuid_again(plain: Client) -> None:
    _, one = plain.search(user("alice"), "(objectClass=*)", "entryUUID", scope=BASE_OBJECT)
    [identifier] = one[user("alice")]["entryUUID"]
    assert list(plain.search(PLAIN, f"(entryUUID={identifier.upper()})")[1]) == [user("alice")]


def test_unifi_and_opencloud_read_groups_of_unique_names(plain: Client) -> None:
    _, found = plain.search(f"ou=groups,{PLAIN}", "(objectClass=groupOfUniqueNames)", "entryUUID", "uniqueMember")
    assert len(found) == 5 and all(held["entryUUID"] for held in found.values())


@pytest.mark.parametrize("client", ["iDRAC", "MegaRAC", "Portainer", "Harbor", "SonarQube", "Proxmox", "Guacamole"])
def test_membership_is_found_whatever_the_case(plain: Client, client: str) -> None:
    dn = {
        "iDRAC": group("labstaff").upper(),
        "MegaRAC": group("LabStaff"),
        "Portainer": group("labstaff").replace(",", ", "),
        "Harbor": group("labstaff").replace("cn=", "CN="),
        "SonarQube": group("labstaff").replace("ou=", "OU="),
        "Proxmox": group("labstaff"),
        "Guacamole": group("labstaff").replace("dc=", "DC="),
    }[client]
    for name in ("memberOf", "MEMBEROF", "memberof"):
        found = plain.search(f"ou=users,{PLAIN}", f"(&(objectClass=person)({name}={dn}))")[1]
        assert list(found) == [user("alice"), user("dan")]


def test_portainer_asks_for_groups_of_names(plain: Client) -> None:
    filter = f"(&(OBJECTCLASS=GROUPOFNAMES)(MEMBER={user('ALICE').upper()}))"
    assert list(plain.search(f"ou=groups,{PLAIN}", filter)[1]) == [group("labstaff")]


def test_jndi_sends_manage_dsa_it_with_everything(plain: Client) -> None:
    control = [encode.control("2.16.840.1.113730.3.4.2", False)]
    assert plain.search(user("alice"), scope=BASE_OBJECT, controls=control)[0] == 0
    one = plain.next_id
    plain.send(encode.extended(one, "1.3.6.1.4.1.4203.1.11.3", None, control))
    assert decode.result(plain.answers(one)[0].content)[0] == 0


def test_an_abandoned_search_leaves_the_connection(plain: Client) -> None:
    plain.send(encode.abandon(plain.next_id, 4711))
    assert plain.search(user("alice"), scope=BASE_OBJECT)[0] == 0


def test_rabbitmq_binds_again_and_sees_only_its_own(anonymous: Client) -> None:
    for name, password, dn in (("alice", "alice-pw", user("alice")), ("Bob Baker", "bob-pw", user("Bob Baker"))):
        assert anonymous.bind(user(name), password) == 0
        assert list(anonymous.search(PLAIN, "(objectClass=person)")[1]) == [dn]
        assert anonymous.extended("1.3.6.1.4.1.4203.1.11.3") == (0, b"dn:" + dn.encode())
    assert anonymous.bind(user("alice"), "wrong") == 49
    assert anonymous.search(PLAIN, "(objectClass=person)") == (50, {})


def test_apache_compares_membership(plain: Client) -> None:
    assert plain.compare(group("labstaff"), "member", user("alice").upper()) == 6
    assert plain.compare(group("labstaff"), "member", user("Bob Baker")) == 5
    assert plain.compare(group("empty"), "member", user("alice")) == 16


def test_proxmox_syncs_users_and_groups(plain: Client) -> None:
    wanted = ("cn", "mail", "givenName", "sn", "memberOf")
    assert len(everything(plain, 500, PLAIN, "(objectClass=user)", *wanted)) == PEOPLE + 4
    filter = "(&(objectClass=group)(!(objectClass=goauthentik.io/ldap/virtual-group)))"
    assert len(everything(plain, 500, PLAIN, filter, "cn", "member")) == 5


def test_grafana_and_jenkins_find_groups_of_a_user_by_his_dn_or_name(nas: Client) -> None:
    filter = f"(&(objectClass=group)(|(member={user('alice', NAS)})(memberUid=alice)))"
    found = nas.search(f"ou=groups,{NAS}", filter, "cn")[1]
    assert [held["cn"] for held in found.values()] == [["Staff"], ["everybody"], ["labstaff"]]


def test_active_directory_clients_bind_by_principal_name(anonymous: Client) -> None:
    for name in ("alice@nas.example.com", "alice", "alice@example.com"):
        assert anonymous.bind(name, "alice-pw") == 0
    assert anonymous.bind("alice@nas.example.com", "wrong") == 49
    _, root = anonymous.search("", "(objectClass=*)", "rootDomainNamingContext", scope=BASE_OBJECT)
    assert root[""]["rootDomainNamingContext"]


def test_active_directory_clients_leave_disabled_accounts_out_by_bits(nas: Client) -> None:
    filter = "(&(objectClass=user)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))"
    found = nas.search(NAS, filter, "1.1")[1]
    assert user("alice", NAS) in found and user("dan", NAS) not in found


def test_a_list_in_one_attribute_selector(plain: Client) -> None:
    _, found = plain.search(user("alice"), "(objectClass=*)", "cn, mail", scope=BASE_OBJECT)
    assert set(found[user("alice")]) == {"cn", "mail"}


def test_percent_signs_and_parentheses_are_data(plain: Client) -> None:
    for value in ("%s", "%20", "\\28\\29", "\\2a", "\\5c", "\\00", "OU=users"):
        assert plain.search(PLAIN, f"(cn={value})") == (0, {})
        assert plain.search(PLAIN, f"(memberOf={value})") == (0, {})


def test_nothing_of_it_was_an_error(running: Appliance) -> None:
    assert not [one for one in running.raw if json.loads(one)["level"] == "error"]
