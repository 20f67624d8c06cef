"""The stub as the laboratory was in which the recordings were made: the same people, providers, flows and secrets."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import orjson

from tests.stub_authentik.model import (
    NEW,
    OLD,
    Application,
    Flow,
    Group,
    KeyPair,
    Outpost,
    Provider,
    Release,
    Stage,
    User,
)
from tests.stub_authentik.server import Stub

CONTRACT = pathlib.Path(__file__).parent.parent / "contract"
RELEASES = {release.version: release for release in (OLD, NEW)}
PASSWORDS = {
    "alice": "pw-alice-1",
    "bob": "pw-bob-1",
    "carol": "pässwörd ✓ ;x",
    "dave": "pw-dave-1",
    "erin": "pw-erin-1",
    "frank": "pw;frank;123456",
    "grace": "pw-grace-1",
    "smith, john": "pw-smith-1",
}
DEVICES = {"erin": ("static", "totp"), "grace": ("static",)}


def versions() -> list[str]:
    return sorted(RELEASES)


def names(version: str) -> list[str]:
    """Recordings that have steps to replay."""
    return sorted(path.stem for path in (CONTRACT / version).glob("*.json") if not path.stem.startswith("80-"))


def recording(version: str, name: str) -> dict[str, Any]:
    content = orjson.loads((CONTRACT / version / f"{name}.json").read_bytes())
    assert isinstance(content, dict)
    return content


def bodies(version: str, name: str) -> list[Any]:
    return [step["response"]["body"] for step in recording(version, name)["steps"]]


def token(step: dict[str, Any]) -> str:
    return str(step["request"]["headers"]["Authorization"].removeprefix("Bearer "))


def _groups(version: str) -> Iterator[Group]:
    for raw in bodies(version, "24-groups-list")[0]["results"]:
        parents = [raw["parent"]] if raw["parent"] else []
        yield Group(
            raw["name"], raw["pk"], raw["num_pk"], raw["is_superuser"], parents, raw["attributes"],
            raw.get("roles_obj", []),
        )  # fmt: skip


def _users(version: str) -> Iterator[User]:
    fields = ("pk", "name", "email", "uid", "uuid", "is_active", "type", "path", "groups", "attributes", "last_login",
              "date_joined", "last_updated", "password_change_date")  # fmt: skip
    for page in bodies(version, "20-users-list-pages"):
        for raw in page["results"]:
            user = User(raw["username"], **{key: raw[key] for key in fields if key in raw})
            user.password = PASSWORDS.get(user.username, "")
            user.devices = DEVICES.get(user.username, ())
            yield user


def _flows() -> dict[str, Flow]:
    ident, password, mfa, login = Stage("identification"), Stage("password"), Stage("mfa"), Stage("login")
    embedded = Stage("identification", has_password=True, user_fields=("email", "upn", "username"))
    short = Stage("login", duration_s=60)
    found = [
        Flow("lab-embedded", (embedded, short)),
        Flow("lab-embedded-mfa", (embedded, mfa, login)),
        Flow("lab-empty"),
        Flow("lab-no-login", (ident, password)),
        Flow("lab-nomatch", (Stage("identification", user_fields=("username",)), password, login)),
        Flow("lab-remember", (ident, password, Stage("login", asks_remember=True))),
        Flow("lab-deny-stage", (ident, password, Stage("deny"))),
        Flow("lab-login-then-dummy", (ident, password, login, Stage("deny"))),
        Flow("lab-consent", (ident, password, Stage("consent"), login)),
        Flow("lab-dummy", (ident, password, Stage("dummy"), login)),
        Flow("lab-flow-denied", denied="Denied by lab policy"),
        Flow("lab-require-auth", (ident,), authentication="require_authenticated"),
        Flow("lab-require-outpost", (embedded, login), authentication="require_outpost"),
        Flow("lab-mfa-configure", (ident, password, Stage("mfa", not_configured="configure"), login)),
        Flow("lab-mfa-deny", (ident, password, Stage("mfa", not_configured="deny"), login)),
        Flow("lab-mfa-threshold", (ident, password, mfa, login)),
        Flow("lab-mfa-webauthn", (ident, password, Stage("mfa", classes=("webauthn",), not_configured="deny"), login)),
    ]
    return {flow.slug: flow for flow in found}


def laboratory(version: str) -> Stub:
    """A stub in the state of the laboratory, with the recorded tokens."""
    release: Release = RELEASES[version]
    stub = Stub(release)
    stub.groups = {group.pk: group for group in _groups(version)}
    stub.users = {user.pk: user for user in _users(version)}
    stub.flows |= _flows()
    for service, number in (("ldap", "03"), ("radius", "04")):
        step = recording(version, f"01-outposts-instances-{service}")["steps"][0]
        raw = step["response"]["body"]["results"][0]
        outpost = Outpost(raw["name"], service, token(step), list(raw["providers"]), raw["pk"], raw=raw)
        stub.outposts[outpost.token] = outpost
        outpost.account = stub.user_named(f"ak-outpost-{outpost.pk.replace('-', '')}")
        for step in recording(version, "08-misc-errors-and-permissions")["steps"]:
            for shown in step["response"]["body"]["results"] if "/core/tokens/" in step["request"]["path"] else ():
                if outpost.pk in shown["identifier"]:
                    outpost.token_pk = shown["pk"]
        for shown in bodies(version, f"{number}-outposts-{service}")[0]["results"]:
            flow = shown["bind_flow_slug" if service == "ldap" else "auth_flow_slug"]
            app = shown["application_slug"]
            stub.providers[shown["pk"]] = Provider(shown["pk"], shown["name"], service, app, flow, fields=shown)
            stub.apps[app] = Application(app)
    _restrict(stub)
    _secrets(stub, version)
    return stub


def _restrict(stub: Stub) -> None:
    """What policies and permissions say, as far as the recordings show it."""
    vpn, searchers = stub.group_named("vpn-users"), stub.group_named("ldap-searchers")
    assert vpn and searchers
    stub.apps["ldap-restricted"].groups = stub.apps["radius-main"].groups = frozenset({vpn.pk})
    stub.providers[3].is_searchable = False
    stub.providers[6].attributes = bytes.fromhex("015a0014") + bytes(16)
    for user in stub.users.values():
        user.can_search = searchers.pk in user.groups


def _secrets(stub: Stub, version: str) -> None:
    steps = recording(version, "06-crypto-keypair")["steps"]
    shown, certificate, key = (step["response"]["body"] for step in steps[:3])
    stub.key_pairs[shown["pk"]] = KeyPair(
        shown["name"], certificate["data"], key["data"], shown["fingerprint_sha256"], shown["pk"]
    )
    other = next(step for step in steps if step.get("note", "").startswith("a keypair not assigned"))
    pk = other["request"]["path"].rstrip("/").rpartition("/")[2]
    stub.key_pairs[pk] = KeyPair("lab-other", "", steps[-1]["response"]["body"].get("data", ""), "", pk)
    for name in ("30-bind-ok-app-password", "30-bind-ok-service-account"):
        answers = recording(version, name)["answers"]
        stub.user_named(answers["ident"]).app_passwords.add(answers["password"])
