"""The stub's flow executor: plans in sessions, stages as the recordings show them, 302 to the same URL in between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import secrets
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from tests.stub_authentik import render
from tests.stub_authentik.model import Flow, Plan, Session, Stage, User

if TYPE_CHECKING:
    from tests.stub_authentik.server import Stub

PASSWORDLESS = ("pending_user", "pending_user_avatar")


def error(text: str, code: str = "invalid") -> list[dict[str, str]]:
    return [{"string": text, "code": code}]


BLANK = error("This field may not be blank.", "blank")
REQUIRED = error("This field is required.", "required")


class Executor:
    """Sessions and `/flows/executor/`."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self.sessions: dict[str, Session] = {}

    # -- sessions ---------------------------------------------------------------------------------

    def open(self) -> Session:
        session = Session(secrets.token_hex(16))
        self.sessions[session.key] = session
        return session

    def find(self, request: web.Request) -> Session | None:
        """The live session that the request's cookie names."""
        cookie = request.cookies.get("authentik_session", "")
        parts = cookie.split(".")
        if len(parts) != 3:
            return None
        try:
            key = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))["sid"]
        except (ValueError, KeyError):
            return None
        session = self.sessions.get(key)
        if session is None:
            return None
        user = session.user
        if user is not None and (
            not user.is_active
            or session.secret_revision != user.secret_revision
            or (session.expires_at is not None and session.expires_at <= time.time())
        ):
            del self.sessions[key]
            return None
        return session

    def cookie(self, session: Session) -> str:
        claims = {
            "sid": session.key,
            "iss": "authentik",
            "sub": session.user.uid if session.user else "anonymous",
            "authenticated": session.user is not None,
            "acr": "goauthentik.io/core/default",
        }
        parts = [_b64({"alg": "HS256", "typ": "JWT"}), _b64(claims)]
        parts.append(hashlib.sha256(".".join(parts).encode()).hexdigest()[:43])
        end = ""
        if session.expires_at is not None:
            age = max(int(session.expires_at - time.time()), 1)
            end = f"; expires={formatdate(session.expires_at, usegmt=True)}; Max-Age={age}"
        return f"authentik_session={'.'.join(parts)}{end}; HttpOnly; Path=/; SameSite=Lax"

    def handle(self, session: Session) -> str:
        """How the event channel names the session."""
        return hashlib.sha256(session.key.encode()).hexdigest()

    # -- the executor -----------------------------------------------------------------------------

    async def serve(self, request: web.Request) -> web.StreamResponse:
        flow = self._stub.flows.get(request.match_info["slug"])
        if flow is None:
            return web.Response(status=404, text=render.HTML, content_type="text/html")
        had_cookie = "authentik_session" in request.cookies
        session = self.find(request) or self.open()
        if request.method == "HEAD" and not self._stub.release.is_legacy:
            return web.Response(status=405, headers={"Set-Cookie": self.cookie(session)})
        return await self._Run(self, flow, session, request, had_cookie).answer()

    class _Run:
        """One request at a flow."""

        def __init__(
            self, executor: Executor, flow: Flow, session: Session, request: web.Request, had_cookie: bool
        ) -> None:
            self.executor = executor
            self.stub = executor._stub
            self.flow = flow
            self.session = session
            self.request = request
            self.had_cookie = had_cookie
            self.logged_in = self.logged_out = False

        async def answer(self) -> web.StreamResponse:
            if self.flow.denied or not self._applies():
                return self._denied(self.flow.denied or "Flow does not apply to current user.")
            content: Any = None
            if self.request.method not in ("GET", "HEAD"):
                body = await self.request.read()
                try:
                    content = orjson.loads(body)
                except orjson.JSONDecodeError:
                    return self._flow_error()
                if self.request.method != "POST" or not self._csrf_ok():
                    return self._flow_error()
            plan = self.session.plan
            if plan is None or plan.flow != self.flow.slug:
                plan = self.session.plan = Plan(self.flow.slug)
            if plan.position >= len(self.flow.stages):
                return self._finish()
            stage = self.flow.stages[plan.position]
            step = getattr(self, f"_{stage.kind}")
            answer: web.StreamResponse = await step(stage, plan, content if isinstance(content, dict) else None)
            return answer

        def _applies(self) -> bool:
            if self.flow.authentication == "require_authenticated":
                return self.session.user is not None
            if self.flow.authentication == "require_outpost":
                token = self.request.headers.get("X-authentik-outpost-token", "")
                return self.stub.outpost_of(token) is not None and "X-authentik-remote-ip" in self.request.headers
            return True

        def _csrf_ok(self) -> bool:
            if self.session.user is None:
                return True
            return bool(self.session.csrf) and self.request.headers.get("X-authentik-CSRF") == self.session.csrf

        # -- stages

        async def _identification(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            if content is None:
                return self._challenge(stage, plan)
            uid = content.get("uid_field")
            if not isinstance(uid, str):
                return self._challenge(stage, plan, uid_field=REQUIRED)
            uid = uid.strip()
            if not uid:
                return self._challenge(stage, plan, uid_field=BLANK)
            user = self.stub.find_user(uid, stage.user_fields)
            if stage.has_password:
                if user is None or not self._proves(user, content.get("password")):
                    return self._challenge(stage, plan, non_field_errors=error("Failed to authenticate."))
            elif user is None and self.stub.release.is_legacy:
                return self._challenge(stage, plan, non_field_errors=error("Failed to authenticate."))
            plan.pending, plan.pending_name = user, user.username if user else uid
            return self._done(plan)

        async def _password(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            if content is None:
                return self._challenge(stage, plan)
            given = content.get("password")
            if not isinstance(given, str):
                return self._challenge(stage, plan, password=REQUIRED)
            if not given:
                return self._challenge(stage, plan, password=BLANK)
            if plan.pending is not None and self._proves(plan.pending, given):
                return self._done(plan)
            plan.failures += 1
            if plan.failures >= (6 if self.stub.release.is_legacy else 5):
                return self._denied("Unknown error" if self.stub.release.is_legacy else "Invalid password")
            return self._challenge(stage, plan, password=error("Invalid password"))

        async def _mfa(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            user = plan.pending
            devices = [kind for kind in (user.devices if user else ()) if kind in stage.classes]
            if not devices:
                if stage.not_configured == "skip":
                    return self._done(plan)
                if stage.not_configured == "deny":
                    legacy = self.stub.release.is_legacy
                    return self._denied("Unknown error" if legacy else "No (allowed) MFA authenticator configured.")
                if not plan.is_enrolling:
                    plan.is_enrolling = True
                    return self._onwards()
                return self._send(
                    {"component": "ak-stage-authenticator-totp", **self._pending(plan), "config_url": "otpauth://x"}
                )
            if content is None:
                return self._challenge(stage, plan)
            assert user is not None
            if "duo" in content and "duo" in devices:
                await asyncio.sleep(self.stub.push_delay_s)
                if user.approves_push:
                    return self._done(plan)
                return self._challenge(stage, plan, duo=error("Duo denied access"))
            code = content.get("code")
            if isinstance(code, str) and code in user.codes:
                user.codes.discard(code)
                return self._done(plan)
            if code is None:
                return self._challenge(stage, plan, non_field_errors=error("Empty response"))
            if not code:
                return self._challenge(stage, plan, code=BLANK)
            errors: dict[str, object] = {}
            selected = content.get("selected_challenge")
            offered = {(one["device_class"], one["device_uid"]) for one in self._devices(stage, plan)}
            if selected and (selected["device_class"], selected["device_uid"]) not in offered:
                errors["selected_challenge"] = error("invalid challenge selected")
                if not self.stub.release.is_legacy:
                    errors["selected_challenge"] = [{"string": "last_used"}]
            text = "Invalid Token"
            if not self.stub.release.is_legacy:
                text += ". Please ensure the time on your device is accurate and try again."
            return self._challenge(stage, plan, **errors, code=error(text))

        async def _login(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            if plan.pending is None or not plan.pending.is_active:
                return self._denied("No pending user to login.")
            if stage.asks_remember and content is None:
                return self._send({"component": "ak-stage-user-login", **self._pending(plan)})
            remote = self.request.headers.get("X-authentik-remote-ip")
            if remote and self.stub.release.is_legacy and not _is_ip(remote):
                failed = {"Set-Cookie": "authentik_csrf=none; expires=never; Path=/; SameSite=Lax"}
                return web.Response(status=500, text=render.HTML, content_type="text/html", headers=failed)
            self.executor.sessions.pop(self.session.key, None)
            self.session.key = secrets.token_hex(16)
            self.executor.sessions[self.session.key] = self.session
            self.session.user = plan.pending
            self.session.secret_revision = plan.pending.secret_revision
            self.session.csrf = secrets.token_hex(16)
            if stage.duration_s or stage.asks_remember:
                self.session.expires_at = time.time() + (stage.duration_s or 2_592_000)
            self.logged_in = True
            self.stub.logins += 1
            return self._done(plan)

        async def _prompt(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            if content is None:
                return self._form(stage)
            asked = [(key, required) for key, kind, required in stage.fields if kind not in ("static", "hidden")]
            missing = {key: REQUIRED for key, required in asked if required and key not in content}
            if missing:
                return self._form(stage, **missing)
            given = {content[key] for key, kind, _ in stage.fields if kind == "password"}
            if len(given) > 1:
                return self._form(stage, non_field_errors=error("Passwords don't match."))
            if any(len(one) < stage.shortest for one in given):
                return self._form(stage, non_field_errors=error(self.stub.policy_message))
            plan.data |= content
            return self._done(plan)

        async def _write(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            user = plan.pending or self.session.user
            if user is None or not plan.data:
                return self._denied("No Pending data.")
            if "password" in plan.data and self.stub.writes_passwords:
                self.stub.set_password(user, plan.data["password"])
                # The session that changed it lives on under another key.
                self.executor.sessions.pop(self.session.key, None)
                self.session.key = secrets.token_hex(16)
                self.executor.sessions[self.session.key] = self.session
                self.session.secret_revision = user.secret_revision
            return self._done(plan)

        def _form(self, stage: Stage, **errors: object) -> web.StreamResponse:
            fields = [
                {
                    "field_key": key,
                    "label": key.title(),
                    "type": kind,
                    "required": required,
                    "placeholder": key.title(),
                    "initial_value": "",
                    "order": i,
                    "sub_text": "",
                    "choices": None,
                }
                for i, (key, kind, required) in enumerate(stage.fields)
            ]
            shown: dict[str, Any] = {"component": "ak-stage-prompt", "fields": fields}
            if errors:
                shown["response_errors"] = errors
            return self._send(shown)

        async def _deny(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            return self._denied("Unknown error")

        async def _consent(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            lists: dict[str, list[object]] = {"permissions": [], "additional_permissions": []}
            return self._send({"component": "ak-stage-consent", **self._pending(plan), **lists, "token": "stub"})

        async def _dummy(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            name = {} if self.stub.release.is_legacy else {"name": self.flow.slug}
            return self._send({"component": "ak-stage-dummy", **name})

        async def _logout(self, stage: Stage, plan: Plan, content: dict[str, Any] | None) -> web.StreamResponse:
            if self.session.user is not None:
                self.stub.logouts += 1
            self.executor.sessions.pop(self.session.key, None)
            self.logged_out = True
            return self._done(plan)

        # -- answers

        def _proves(self, user: User, password: object) -> bool:
            if not isinstance(password, str) or not password or not user.is_active:
                return False
            self.stub.password_checks += 1
            return password == user.password or password in user.app_passwords

        def _done(self, plan: Plan) -> web.StreamResponse:
            plan.position += 1
            if plan.position >= len(self.flow.stages):
                return self._finish()
            return self._onwards()

        def _onwards(self) -> web.StreamResponse:
            target = self.request.path
            if "query" in self.request.query:
                target += "?" + urlencode({"query": self.request.query["query"]})
            if target == self.request.raw_path:
                response = web.Response(status=302, headers={"Location": target}, content_type="text/html")
                return self._with_cookies(response)
            return self._send({"component": "xak-flow-redirect", "to": target}, kind="redirect")

        def _finish(self) -> web.StreamResponse:
            self.session.plan = None
            return self._send({"component": "xak-flow-redirect", "to": "/"}, kind="redirect")

        def _denied(self, message: str) -> web.StreamResponse:
            plan = self.session.plan
            shown = self._pending(plan) if plan else {"pending_user": "", "pending_user_avatar": render.AVATAR}
            self.session.plan = None
            return self._send({"component": "ak-stage-access-denied", **shown, "error_message": message})

        def _flow_error(self) -> web.StreamResponse:
            return self._send({"component": "ak-stage-flow-error", "request_id": secrets.token_hex(16)}, info=False)

        def _pending(self, plan: Plan) -> dict[str, str]:
            return {"pending_user": plan.pending_name, "pending_user_avatar": render.AVATAR}

        def _challenge(self, stage: Stage, plan: Plan, **errors: object) -> web.StreamResponse:
            shown: dict[str, Any] = {"component": COMPONENTS[stage.kind]}
            if errors:
                shown["response_errors"] = errors
            modern = not self.stub.release.is_legacy
            if stage.kind == "identification":
                shown |= {
                    "user_fields": list(stage.user_fields),
                    "password_fields": stage.has_password,
                    "primary_action": "Log in",
                    "sources": [],
                    "show_source_labels": False,
                }
                if modern:
                    shown |= {
                        "allow_show_password": False,
                        "flow_designation": "authentication",
                        "captcha_stage": None,
                        "enable_remember_me": False,
                    }
            else:
                shown |= self._pending(plan)
            if stage.kind == "password" and modern:
                shown["allow_show_password"] = False
            if stage.kind == "mfa":
                shown |= {"device_challenges": self._devices(stage, plan), "configuration_stages": []}
            return self._send(shown)

        def _devices(self, stage: Stage, plan: Plan) -> list[dict[str, Any]]:
            assert plan.pending is not None
            found = []
            for kind in plan.pending.devices:
                if kind in stage.classes:
                    device: dict[str, Any] = {"device_class": kind, "device_uid": "1", "challenge": {}}
                    if not self.stub.release.is_legacy:
                        device["last_used"] = None
                    found.append(device)
            return found

        def _send(self, shown: dict[str, Any], kind: str = "native", *, info: bool = True) -> web.StreamResponse:
            if self.stub.release.is_legacy:
                shown = {"type": kind} | shown
            if info and kind == "native":
                shown = shown | {
                    "flow_info": {
                        "title": self.flow.title or self.flow.slug,
                        "background": "/static/dist/assets/images/flow_background.jpg",
                        "cancel_url": "/flows/-/cancel/",
                        "layout": "stacked",
                    }
                }
            shown = shown | dict(self.stub.release.extra)
            return self._with_cookies(web.Response(body=orjson.dumps(shown), content_type="application/json"))

        def _with_cookies(self, response: web.Response) -> web.Response:
            if self.logged_out:
                if self.had_cookie:
                    response.headers.add("Set-Cookie", EXPIRED)
                return response
            if self.logged_in:
                year = formatdate(time.time() + 31449600, usegmt=True)
                if not self.stub.release.is_legacy:
                    device = f"authentik_device=stub; expires={year}; Max-Age=2592000; Path=/; SameSite=Lax"
                    response.headers.add("Set-Cookie", device)
                csrf = f"authentik_csrf={self.session.csrf}; expires={year}; Max-Age=31449600; Path=/; SameSite=Lax"
                response.headers.add("Set-Cookie", csrf)
            response.headers.add("Set-Cookie", self.executor.cookie(self.session))
            return response


EXPIRED = 'authentik_session=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax'
COMPONENTS = {
    "identification": "ak-stage-identification",
    "password": "ak-stage-password",
    "mfa": "ak-stage-authenticator-validate",
}


def _b64(content: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
