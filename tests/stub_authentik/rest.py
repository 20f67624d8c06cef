"""The stub's REST answers below `/api/v3`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.stub_authentik import render
from tests.stub_authentik.flows import EXPIRED
from tests.stub_authentik.model import Application, Group, KeyPair, Outpost, Provider, User

if TYPE_CHECKING:
    from tests.stub_authentik.server import Stub

Caller = Outpost | User | None
PAGE = {"page": "", "page_size": ""}
PASSWORD_STAGE = "6f7ad5ce-23c3-4d3e-b7a3-0b4c6f7fd0aa"
"""The password stage, as far as users configure it."""
COMPLETE = {**PAGE, "ordering": "pk", "include_groups": "false", "include_roles": "false"}
"""How the users are listed for a complete copy."""

UNSEEN = ("/flows/instances/", "/events/events/", "/providers/all/")
"""Lists of which an outpost's account sees nothing."""
FORBIDDEN = {"detail": "You do not have permission to perform this action."}


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, content: object) -> None:
        self.status = status
        self.content = content


def send(content: object, status: int = 200) -> web.Response:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return web.Response(status=status, body=body, content_type="application/json")


def html(status: int) -> web.Response:
    return web.Response(status=status, text=render.HTML, content_type="text/html")


class Rest:
    """One server's API."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def routes(self, prefix: str) -> list[web.RouteDef]:
        api = f"{prefix}/api/v3"
        return [
            web.get(f"{api}/root/config/", self._guard(self.config, anonymous=True)),
            web.get(f"{api}/admin/version/", self._guard(self.version)),
            web.get(f"{api}/outposts/instances/", self._guard(self.instances)),
            web.get(f"{api}/outposts/{{service:ldap|radius|proxy}}/", self._guard(self.providers)),
            web.get(f"{api}/outposts/{{service:ldap|radius}}/{{pk:[0-9]+}}/", self._guard(self.one_provider)),
            web.get(
                f"{api}/outposts/{{service:ldap|radius}}/{{pk:[0-9]+}}/check_access/",
                self._guard(self.check_access, anonymous=True),
            ),
            web.get(f"{api}/core/applications/{{slug}}/check_access/", self._guard(self.app_access, anonymous=True)),
            web.get(f"{api}/core/tenants/current/", self._guard(self.tenant, anonymous=True)),
            web.get(f"{api}/core/brands/current/", self._guard(self.brand, anonymous=True)),
            web.get(f"{api}/core/tokens/", self._guard(self.tokens)),
            web.get(f"{api}/core/users/", self._guard(self.users)),
            web.get(f"{api}/core/users/me/", self._guard(self.me)),
            web.get(f"{api}/stages/all/user_settings/", self._guard(self.user_settings)),
            web.get(f"{api}/core/users/{{pk:[0-9]+}}/", self._guard(self.one_user)),
            web.get(f"{api}/core/groups/", self._guard(self.groups)),
            web.get(f"{api}/core/groups/{{pk}}/", self._guard(self.one_group)),
            web.get(f"{api}/crypto/certificatekeypairs/", self._guard(self.list_key_pairs)),
            web.get(f"{api}/crypto/certificatekeypairs/{{pk}}/", self._guard(self.key_pair)),
            web.get(f"{api}/crypto/certificatekeypairs/{{pk}}/view_certificate/", self._guard(self.certificate)),
            web.get(f"{api}/crypto/certificatekeypairs/{{pk}}/view_private_key/", self._guard(self.private_key)),
            *(web.get(f"{api}{path}", self._guard(self.nothing)) for path in UNSEEN),
            web.post(f"{api}/outposts/{{service:ldap|radius}}/", self._guard(self.forbidden)),
            web.patch(f"{api}/core/users/{{pk:[0-9]+}}/", self._guard(self.forbidden)),
            web.delete(f"{api}/core/users/{{pk:[0-9]+}}/", self._guard(self.forbidden)),
        ]

    # -- who asks ---------------------------------------------------------------------------------

    def _guard(self, handler: Any, *, anonymous: bool = False) -> Any:
        async def serve(request: web.Request) -> web.StreamResponse:
            gone = False
            response: web.StreamResponse
            try:
                caller = self._caller(request)
                gone = "authentik_session" in request.cookies and self._stub.executor.find(request) is None
                if caller is None and not anonymous:
                    raise Refusal(403, {"detail": "Authentication credentials were not provided."})
                response = handler(request, caller)
            except Refusal as exc:
                response = html(exc.status) if exc.content is None else send(exc.content, exc.status)
            if gone and not anonymous:
                response.headers.add("Set-Cookie", EXPIRED)
            return response

        return serve

    def _caller(self, request: web.Request) -> Caller:
        header = request.headers.get("Authorization", "")
        kind, _, token = header.partition(" ")
        if header and kind.lower() != "bearer":
            raise Refusal(403, {"detail": "Unsupported authentication type"})
        if token.strip():
            outpost = self._stub.outpost_of(token.strip())
            if outpost is None:
                raise Refusal(403, {"detail": "Token invalid/expired"})
            return outpost
        session = self._stub.executor.find(request)
        return session.user if session else None

    def user_settings(self, request: web.Request, caller: Caller) -> web.Response:
        """What users may configure; not recorded, after the server's `StageViewSet.user_settings`."""
        stub = self._stub
        totp = {
            "title": "TOTP Authenticator Setup Stage",
            "component": "ak-user-settings-authenticator-totp",
            "object_uid": "0f9a56e2-0d2b-4c35-9be7-31cbdb2d4f63",
            "configure_url": f"{stub.prefix}/flows/-/configure/0f9a56e2-0d2b-4c35-9be7-31cbdb2d4f63/",
        }
        url = stub.configure_url or f"{stub.prefix}/flows/-/configure/{PASSWORD_STAGE}/"
        password = {
            "title": "Password Stage",
            "component": "ak-user-settings-password",
            "object_uid": PASSWORD_STAGE,
            "configure_url": url,
        }
        return send([totp, password] if stub.change_flow else [totp])

    def _not_found(self, model: str) -> Refusal:
        detail = "Not found." if self._stub.release.is_legacy else f"No {model} matches the given query."
        return Refusal(404, {"detail": detail})

    # -- outposts ---------------------------------------------------------------------------------

    def config(self, request: web.Request, caller: Caller) -> web.Response:
        shown = {
            "error_reporting": {
                "enabled": False,
                "sentry_dsn": "",
                "environment": "customer",
                "send_pii": False,
                "traces_sample_rate": 0.1,
            },
            "capabilities": ["can_impersonate"],
            "cache_timeout": 300,
            "cache_timeout_flows": 300,
            "cache_timeout_policies": 300,
        }
        if self._stub.release.is_legacy:
            shown["cache_timeout_reputation"] = 300
        return send(shown | dict(self._stub.release.extra))

    def version(self, request: web.Request, caller: Caller) -> web.Response:
        version = self._stub.release.version
        shown: dict[str, Any] = {
            "version_current": version,
            "version_latest": version,
            "build_hash": "",
            "outdated": False,
        }
        if not self._stub.release.is_legacy:
            shown |= {"version_latest_valid": True, "outpost_outdated": False}
        return send(shown)

    def instances(self, request: web.Request, caller: Caller) -> web.Response:
        mine = [caller] if isinstance(caller, Outpost) else []
        if self._stub.shows_all_outposts:
            mine = sorted(self._stub.outposts.values(), key=lambda one: one.name)
        found = [render.outpost(one, self._stub.providers, self._stub.release) for one in mine]
        return self._paged(request, found)

    def _served(self, caller: Caller, service: str) -> list[Provider]:
        if not isinstance(caller, Outpost) or caller.service != service:
            return []
        found = [self._stub.providers[pk] for pk in caller.providers if pk in self._stub.providers]
        return sorted((one for one in found if one.app and one.service == service), key=lambda one: one.name)

    def providers(self, request: web.Request, caller: Caller) -> web.Response:
        served = self._served(caller, request.match_info["service"])
        return self._paged(request, [render.provider(one, self._stub.release) for one in served])

    def one_provider(self, request: web.Request, caller: Caller) -> web.Response:
        if not self._stub.release.is_legacy:
            raise Refusal(404, None)
        for one in self._served(caller, request.match_info["service"]):
            if one.pk == int(request.match_info["pk"]):
                return send(render.provider(one, self._stub.release))
        raise self._not_found("Provider")

    # -- access -----------------------------------------------------------------------------------

    def _passes(self, app: Application, caller: Caller) -> bool:
        if app.groups is None:
            return True
        user = caller if isinstance(caller, User) else None
        return user is not None and (user.pk in app.users or not app.groups.isdisjoint(user.groups))

    def app_access(self, request: web.Request, caller: Caller) -> web.Response:
        if caller is None and self._stub.release.is_legacy:
            raise Refusal(403, {"detail": "Authentication credentials were not provided."})
        app = self._stub.apps.get(request.match_info["slug"])
        if app is None:
            raise self._not_found("Application")
        return send({"passing": self._passes(app, caller), "messages": [], "log_messages": []})

    def check_access(self, request: web.Request, caller: Caller) -> web.Response:
        if self._stub.release.is_legacy:
            raise Refusal(404, None)
        service = request.match_info["service"]
        provider = self._stub.providers.get(int(request.match_info["pk"]))
        if provider is None or provider.service != service:
            raise self._not_found("LDAPProvider" if service == "ldap" else "RadiusProvider")
        if "app_slug" not in request.query:
            raise Refusal(500, None)
        app = self._stub.apps.get(request.query["app_slug"])
        if app is None:
            raise self._not_found("Application")
        passing = self._passes(app, caller)
        access = {"passing": passing, "messages": [], "log_messages": []}
        user = caller if isinstance(caller, User) else None
        if service == "ldap":
            return send(
                {"has_search_permission": bool(user and user.can_search and provider.is_searchable), "access": access}
            )
        attributes = None
        if passing and user is not None and provider.attributes is not None:
            attributes = base64.b64encode(provider.attributes).decode()
        return send({"attributes": attributes, "access": access})

    # -- brand ------------------------------------------------------------------------------------

    def _branding(self, *, is_here: bool) -> web.Response:
        if not is_here:
            raise Refusal(404, None)
        return send(
            {
                "matched_domain": "authentik-default",
                "branding_title": "authentik",
                "flow_authentication": "default-authentication-flow",
                "flow_invalidation": "default-invalidation-flow",
                "default_locale": "",
            }
        )

    def tenant(self, request: web.Request, caller: Caller) -> web.Response:
        return self._branding(is_here=self._stub.release.is_legacy)

    def brand(self, request: web.Request, caller: Caller) -> web.Response:
        return self._branding(is_here=not self._stub.release.is_legacy)

    # -- people -----------------------------------------------------------------------------------

    def _may_read(self, caller: Caller) -> bool:
        """Whether the caller sees people; newer servers do not even let a user's session ask."""
        if isinstance(caller, User) and not self._stub.release.is_legacy:
            raise Refusal(403, FORBIDDEN)
        return isinstance(caller, Outpost) and caller.service == "ldap"

    def me(self, request: web.Request, caller: Caller) -> web.Response:
        if isinstance(caller, Outpost):
            return send(render.me(_account(caller), {}, self._stub.release))
        assert isinstance(caller, User)
        response = send(render.me(caller, self._stub.groups, self._stub.release))
        session = self._stub.executor.find(request)
        if session is not None:
            response.headers.add("Set-Cookie", self._stub.executor.cookie(session))
        return response

    def tokens(self, request: web.Request, caller: Caller) -> web.Response:
        """The caller's own."""
        stub, found = self._stub, []
        if isinstance(caller, Outpost):
            account = _account(caller)
            found = [render.token(caller, account, stub.user_json(account, with_groups=True), stub.release)]
        elif caller is not None:
            shown = stub.user_json(caller, with_groups=True)
            ends = caller.app_password_ends
            found = [render.app_password(caller, key, ends.get(key), shown) for key in sorted(caller.app_passwords)]
        if request.query.get("intent"):
            found = [one for one in found if one["intent"] == request.query["intent"]]
        return self._paged(request, found)

    def users(self, request: web.Request, caller: Caller) -> web.Response:
        with_groups = request.query.get("include_groups", "true") == "true" or self._stub.release.is_legacy
        crowd = self._stub.crowd
        if crowd is not None and self._may_read(caller) and dict(request.query) | PAGE == COMPLETE:
            found = crowd
        else:
            found = self._filter_users(request) if self._may_read(caller) else []
            self._order(request, found, "username")
        return self._paged(request, found, lambda one: self._stub.user_json(one, with_groups=with_groups), "user")

    def _filter_users(self, request: web.Request) -> list[User]:
        stub, query = self._stub, request.query
        found: Iterable[User] = stub.users.values()
        for key in ("username", "email", "name", "path"):
            if query.get(key):
                found = [user for user in found if getattr(user, key) == query[key]]
        if query.get("groups_by_name"):
            found = _in_any(found, [stub.group_named(name) for name in query.getall("groups_by_name")], request)
        if query.get("groups_by_pk"):
            found = _in_any(found, [stub.groups.get(pk) for pk in query.getall("groups_by_pk")], request)
        if "is_active" in query:
            found = [user for user in found if user.is_active is (query["is_active"] == "true")]
        if "is_superuser" in query:
            wanted = query["is_superuser"] == "true"
            found = [user for user in found if any(stub.groups[pk].is_superuser for pk in user.groups) is wanted]
        if query.get("attributes"):
            wanted_items = orjson.loads(query["attributes"]).items()
            found = [user for user in found if all(user.attributes.get(k) == v for k, v in wanted_items)]
        if query.get("search"):
            needle = query["search"].casefold()
            found = [
                user
                for user in found
                if any(needle in text.casefold() for text in (user.username, user.name, user.email))
            ]
        return list(found)

    def one_user(self, request: web.Request, caller: Caller) -> web.Response:
        user = self._stub.users.get(int(request.match_info["pk"]))
        if user is None or not self._may_read(caller):
            raise self._not_found("User")
        return send(self._stub.user_json(user, with_groups=True))

    def groups(self, request: web.Request, caller: Caller) -> web.Response:
        found = self._filter_groups(request) if self._may_read(caller) else []
        self._order(request, found, "name")
        return self._paged(request, found, lambda one: self._group_json(request, one), "group")

    def _group_json(self, request: web.Request, one: Group) -> bytes:
        legacy, query = self._stub.release.is_legacy, request.query
        return orjson.dumps(
            render.group(
                one,
                self._stub.groups,
                self._stub.members(one.pk),
                self._stub.release,
                with_users=query.get("include_users", "true") == "true" or legacy,
                with_children=query.get("include_children", "false") == "true",
                with_parents=query.get("include_parents", "false") == "true",
            )
        )

    def _filter_groups(self, request: web.Request) -> list[Group]:
        stub, query = self._stub, request.query
        found: Iterable[Group] = stub.groups.values()
        if query.get("name"):
            found = [group for group in found if group.name == query["name"]]
        for key in ("members_by_username", "members_by_pk"):
            if not query.get(key):
                continue
            mine: set[str] = set()
            for value in query.getall(key):
                user = stub.find_user(value, ("username",), exact=True) if key.endswith("name") else None
                if key == "members_by_pk" and value.isdecimal():
                    user = stub.users.get(int(value))
                if user is None:
                    text = f"Select a valid choice. {value} is not one of the available choices."
                    raise Refusal(400, {key: [text]})
                mine.update(user.groups)
            found = [group for group in found if group.pk in mine]
        if "is_superuser" in query:
            found = [group for group in found if group.is_superuser is (query["is_superuser"] == "true")]
        if query.get("attributes"):
            wanted_items = orjson.loads(query["attributes"]).items()
            found = [group for group in found if all(group.attributes.get(k) == v for k, v in wanted_items)]
        if query.get("search"):
            found = [group for group in found if query["search"].casefold() in group.name.casefold()]
        return list(found)

    def one_group(self, request: web.Request, caller: Caller) -> web.Response:
        group = self._stub.groups.get(request.match_info["pk"])
        if group is None or not self._may_read(caller):
            raise self._not_found("Group")
        return send(self._group_json(request, group))

    # -- what outposts have no part in ------------------------------------------------------------

    def nothing(self, request: web.Request, caller: Caller) -> web.Response:
        return self._paged(request, [])

    def forbidden(self, request: web.Request, caller: Caller) -> web.Response:
        raise Refusal(403, FORBIDDEN)

    # -- certificates -----------------------------------------------------------------------------

    def _pairs(self, caller: Caller) -> list[KeyPair]:
        """Those of the caller's providers; newer servers do not even let a user's session ask."""
        if isinstance(caller, User) and not self._stub.release.is_legacy:
            raise Refusal(403, FORBIDDEN)
        mine = caller.providers if isinstance(caller, Outpost) else []
        used = [self._stub.providers[pk].fields.get("certificate") for pk in mine if pk in self._stub.providers]
        return [pair for pair in self._stub.key_pairs.values() if pair.pk in used]

    def _pair(self, request: web.Request, caller: Caller) -> KeyPair:
        for pair in self._pairs(caller):
            if pair.pk == request.match_info["pk"]:
                return pair
        raise self._not_found("CertificateKeyPair")

    def list_key_pairs(self, request: web.Request, caller: Caller) -> web.Response:
        return self._paged(request, [render.key_pair(one, self._stub.release) for one in self._pairs(caller)])

    def key_pair(self, request: web.Request, caller: Caller) -> web.Response:
        return send(render.key_pair(self._pair(request, caller), self._stub.release))

    def certificate(self, request: web.Request, caller: Caller) -> web.Response:
        return send({"data": self._pair(request, caller).certificate})

    def private_key(self, request: web.Request, caller: Caller) -> web.Response:
        self._stub.key_views += 1
        pair = self._stub.key_pairs.get(request.match_info["pk"])
        if pair is None or not self._stub.release.is_legacy:  # before, whoever knows the number of a pair may ask
            pair = self._pair(request, caller)
        return send({"data": pair.key})

    # -- pages ------------------------------------------------------------------------------------

    def _order(self, request: web.Request, found: list[Any], default: str) -> None:
        wanted = request.query.get("ordering", default)
        key = wanted.removeprefix("-")
        if self._stub.release.is_legacy and key in ("last_updated", "password_change_date"):
            key, wanted = default, default
        if found and hasattr(found[0], key):
            found.sort(key=lambda one: getattr(one, key), reverse=wanted.startswith("-"))

    def _paged(self, request: web.Request, found: list[Any], show: Any = orjson.dumps, model: str = "") -> web.Response:
        size_text = request.query.get("page_size", "")
        size = int(size_text) if size_text.isdecimal() and int(size_text) > 0 else 100
        size = min(size, self._stub.max_page_size)
        total = max(1, -(-len(found) // size))
        wanted = request.query.get("page", "1")
        number = total if wanted == "last" else int(wanted) if wanted.isdecimal() else 0
        if not 1 <= number <= total:
            raise Refusal(404, {"detail": "Invalid page."})
        shown = [show(one) for one in found[(number - 1) * size : number * size]]
        name = f"authentik_core.{model}" if model else ""
        return send(render.page(shown, number, size, len(found), self._stub.release, name))


def _account(outpost: Outpost) -> User:
    return outpost.account or User(f"ak-outpost-{outpost.pk}", type="internal_service_account")


def _in_any(found: Iterable[User], groups: list[Group | None], request: web.Request) -> list[User]:
    if None in groups:
        key = "groups_by_name" if request.query.get("groups_by_name") else "groups_by_pk"
        names = request.query.getall(key)
        bad = names[groups.index(None)]
        raise Refusal(400, {key: [f"Select a valid choice. {bad} is not one of the available choices."]})
    pks = {group.pk for group in groups if group is not None}
    return [user for user in found if not pks.isdisjoint(user.groups)]
