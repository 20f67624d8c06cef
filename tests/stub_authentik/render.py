"""JSON of the stub's objects, as the releases show them."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from tests.stub_authentik.model import Group, KeyPair, Outpost, Provider, Release, User

AVATAR = "/static/dist/assets/images/user_default.png"
HTML = "\n<!DOCTYPE html>\n\n<html>\n    <head>\n        <title>\nauthentik\n</title>\n    </head>\n</html>\n"


def group_brief(group: Group, groups: dict[str, Group], release: Release) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "pk": group.pk,
        "num_pk": group.num_pk,
        "name": group.name,
        "is_superuser": group.is_superuser,
        **_parent(group, groups, release),
        "attributes": group.attributes,
    }
    return shown


def _parent(group: Group, groups: dict[str, Group], release: Release) -> dict[str, Any]:
    if release.has_parents:  # a group tells them itself, but not where it is shown with its users
        return {}
    parent = groups[group.parents[0]] if group.parents else None
    shown = {"parent": parent.pk if parent else None}
    if parent or not release.is_legacy:
        shown["parent_name"] = parent.name if parent else None
    return shown


def member(user: User, release: Release) -> dict[str, Any]:
    return {
        "pk": user.pk,
        "username": user.username,
        "name": user.name,
        "is_active": user.is_active,
        "last_login": user.last_login,
        "email": user.email,
        "attributes": user.attributes,
        "uid": user.uid,
    }


def user(one: User, groups: dict[str, Group], release: Release, *, with_groups: bool) -> dict[str, Any]:
    mine = [groups[pk] for pk in one.groups]
    shown: dict[str, Any] = {
        "pk": one.pk,
        "username": one.username,
        "name": one.name,
        "is_active": one.is_active,
        "last_login": one.last_login,
    }
    if not release.is_legacy:
        shown["date_joined"] = one.date_joined
    shown |= {
        "is_superuser": any(group.is_superuser for group in mine),
        "groups": one.groups,
        "groups_obj": [group_brief(group, groups, release) for group in mine] if with_groups else None,
        "email": one.email,
        "avatar": AVATAR,
        "attributes": one.attributes,
        "uid": one.uid,
        "path": one.path,
    }
    if not release.is_legacy:
        shown |= {
            "type": one.type,
            "uuid": one.uuid,
            "password_change_date": one.password_change_date,
            "last_updated": one.last_updated,
        }
    return shown | dict(release.extra)


def group(
    one: Group,
    groups: dict[str, Group],
    members: list[User],
    release: Release,
    *,
    with_users: bool,
    with_children: bool,
    with_parents: bool,
) -> dict[str, Any]:
    shown = group_brief(one, groups, release)
    attributes = shown.pop("attributes")
    shown["users"] = [user.pk for user in members]
    shown["users_obj"] = [member(user, release) for user in members] if with_users else None
    shown["attributes"] = attributes
    if release.is_legacy:
        return shown
    children = [child for child in groups.values() if one.pk in child.parents]
    shown["roles"] = [role["pk"] for role in one.roles]
    shown["roles_obj"] = one.roles
    shown["children"] = [child.pk for child in children]
    shown["children_obj"] = [relative(child) for child in children] if with_children else None
    if release.has_parents:
        shown["parents"] = one.parents
        shown["parents_obj"] = [relative(groups[pk]) for pk in one.parents] if with_parents else None
    return shown | dict(release.extra)


def relative(one: Group) -> dict[str, Any]:
    return {
        "pk": one.pk,
        "name": one.name,
        "is_superuser": one.is_superuser,
        "attributes": one.attributes,
        "group_uuid": one.pk,
    }


def me(one: User, groups: dict[str, Group], release: Release) -> dict[str, Any]:
    mine = list(one.groups)
    if not release.is_legacy:  # with ancestors
        for pk in mine:
            mine += [parent for parent in groups[pk].parents if parent not in mine]
    found = sorted((groups[pk] for pk in mine), key=lambda group: group.name)
    shown: dict[str, Any] = {
        "pk": one.pk,
        "username": one.username,
        "name": one.name,
        "is_active": one.is_active,
        "is_superuser": any(group.is_superuser for group in found),
        "groups": [{"name": group.name, "pk": group.pk} for group in found],
        "email": one.email,
        "avatar": AVATAR,
        "uid": one.uid,
        "settings": {},
    }
    if not release.is_legacy:
        shown |= {"type": one.type, "system_permissions": []}
    return {"user": shown | dict(release.extra)}


def token(one: Outpost, account: User, shown: bytes, release: Release) -> dict[str, Any]:
    """The token of an outpost, as its own account is shown it."""
    name = f"ak-outpost-{one.pk}-api"
    return {
        "pk": one.token_pk,
        "managed": f"goauthentik.io/outpost/{name}",
        "identifier": name,
        "intent": "api",
        "user": account.pk,
        "user_obj": orjson.loads(shown),
        "description": f"Autogenerated by authentik for Outpost {one.name}",
        "expires": "2026-11-23T11:02:41.925642Z" if release.is_legacy else None,
        "expiring": False,
    }


def app_password(one: User, key: str, expires: str | None, shown: bytes) -> dict[str, Any]:
    """A user's token of this kind, as he is shown it himself: without its key."""
    name = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
    return {
        "pk": name,
        "managed": None,
        "identifier": f"app-password-{name}",
        "intent": "app_password",
        "user": one.pk,
        "user_obj": orjson.loads(shown),
        "description": "",
        "expires": expires,
        "expiring": expires is not None,
    }


def provider(one: Provider, release: Release) -> dict[str, Any]:
    if one.service == "ldap":
        defaults: dict[str, Any] = {
            "base_dn": "dc=ldap,dc=goauthentik,dc=io",
            "bind_flow_slug": one.flow,
            "unbind_flow_slug": one.unbind_flow,
            "application_slug": one.app,
            "search_group": None,
            "certificate": None,
            "tls_server_name": "",
            "uid_start_number": 2000,
            "gid_start_number": 4000,
            "search_mode": "cached",
            "bind_mode": "cached",
            "mfa_support": True,
        }
        gone = {"unbind_flow_slug"} if release.is_legacy else {"search_group"}
    else:
        defaults = {
            "application_slug": one.app,
            "auth_flow_slug": one.flow,
            "client_networks": "127.0.0.0/8, ::1/128",
            "shared_secret": "stub-secret",
            "mfa_support": True,
            "certificate": None,
        }
        gone = {"mfa_support", "certificate"} if release.is_legacy else set()
    shown = {"pk": one.pk, "name": one.name} | defaults | one.fields
    return {key: value for key, value in shown.items() if key not in gone} | dict(release.extra)


def outpost(one: Outpost, providers: dict[int, Provider], release: Release) -> dict[str, Any]:
    if one.raw is not None:
        return one.raw
    shown: dict[str, Any] = {
        "pk": one.pk,
        "name": one.name,
        "type": one.service,
        "providers": one.providers,
        "providers_obj": [
            {
                "pk": pk,
                "name": providers[pk].name,
                "assigned_application_slug": providers[pk].app or None,
                "meta_model_name": "authentik_core.provider",
            }
            for pk in one.providers
            if pk in providers
        ],
        "service_connection": None,
        "service_connection_obj": None,
        "token_identifier": f"ak-outpost-{one.pk}-api",
        "config": {"log_level": one.log_level, "authentik_host": "http://localhost/", "authentik_host_insecure": False},
        "managed": one.managed,
    }
    if not release.is_legacy:
        shown["refresh_interval_s"] = one.refresh_interval_s
    return shown | dict(release.extra)


def key_pair(one: KeyPair, release: Release) -> dict[str, Any]:
    here = f"/api/v3/crypto/certificatekeypairs/{one.pk}"
    return {
        "pk": one.pk,
        "name": one.name,
        "fingerprint_sha256": one.fingerprint,
        "fingerprint_sha1": one.fingerprint[:59],
        "cert_expiry": "2036-11-23T10:49:25Z",
        "cert_subject": f"OU=Self-signed,O=authentik,CN={one.name}",
        "private_key_available": True,
        "private_key_type": "rsa",
        "certificate_download_url": f"{here}/view_certificate/?download",
        "private_key_download_url": f"{here}/view_private_key/?download",
        "managed": None,
    } | dict(release.extra)


def page(results: list[bytes], number: int, size: int, count: int, release: Release, model: str = "") -> bytes:
    """A page of rendered objects, put together without decoding them again."""
    total = max(1, -(-count // size))
    start = (number - 1) * size + 1 if count else 0
    pagination = {
        "next": number + 1 if number < total else 0,
        "previous": number - 1,
        "count": count,
        "current": number,
        "total_pages": total,
        "start_index": start,
        "end_index": min(number * size, count),
    }
    tail = b""
    if not release.is_legacy:
        tail = b',"autocomplete":' + orjson.dumps({"current_model": model, "models": {model: {}}} if model else {})
    return b'{"pagination":' + orjson.dumps(pagination) + b',"results":[' + b",".join(results) + b"]" + tail + b"}"
