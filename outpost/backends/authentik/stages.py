"""Answers to the stages of a flow, and words for those that cannot be answered here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outpost.backends.authentik.shape import Shape

REDIRECT = "xak-flow-redirect"
DENIED = "ak-stage-access-denied"
SERVER_ERROR = "ak-stage-flow-error"
IDENTIFICATION = "ak-stage-identification"
PASSWORD = "ak-stage-password"  # noqa: S105 - a stage's name
AUTHENTICATOR = "ak-stage-authenticator-validate"
USER_LOGIN = "ak-stage-user-login"
PROMPT = "ak-stage-prompt"

UNANSWERABLE = {
    "ak-stage-consent": "the user's consent",
    "ak-stage-captcha": "a captcha",
    PROMPT: "a form to be filled in",
    "ak-stage-email": "a link sent by e-mail",
    "ak-stage-dummy": "a click on a dummy page",
    "ak-stage-autosubmit": "a form that a browser submits",
    "ak-stage-authenticator-totp": "the enrolment of a TOTP device",
    "ak-stage-authenticator-static": "the enrolment of static codes",
    "ak-stage-authenticator-sms": "the enrolment of a telephone for SMS codes",
    "ak-stage-authenticator-email": "the enrolment of an e-mail address for codes",
    "ak-stage-authenticator-duo": "the enrolment of a Duo device",
    "ak-stage-authenticator-webauthn": "the enrolment of a WebAuthn device",
    "ak-stage-authenticator-endpoint-gdtc": "a managed browser",
    "ak-stage-endpoint-agent": "the authentik agent on the user's machine",
    "ak-stage-session-end": "the end of the session",
    "ak-provider-oauth2-device-code": "a device code",
    "xak-flow-shell": "a page of HTML",
    "xak-flow-frame": "a page of HTML in a frame",
}
"""What a stage wants, for the administrator's log: "the flow asked for …"."""

KNOWN = frozenset(UNANSWERABLE) | {
    REDIRECT,
    DENIED,
    SERVER_ERROR,
    IDENTIFICATION,
    PASSWORD,
    AUTHENTICATOR,
    USER_LOGIN,
}
"""Components by name; a closed set, so that they can label metrics."""

DEVICES = {
    "webauthn": "a WebAuthn device",
    "sms": "a code sent by SMS",
    "email": "a code sent by e-mail",
    "totp": "a TOTP code",
    "static": "a static code",
    "duo": "a Duo push",
}


@dataclass(frozen=True, slots=True, repr=False)
class Answers:
    """What the client gave for this login."""

    username: str
    password: str
    code: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Post:
    """A stage's answer, ready to be sent."""

    body: Mapping[str, Any]
    is_credential: bool = False
    """Proves something about the user."""
    is_push: bool = False
    """The server blocks until the user has answered on his telephone."""
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class CodeWanted:
    """A one-time code is needed and none was given."""

    devices: str
    """Words for the devices that would do."""


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """Nobody on the other end of this protocol can answer this."""

    wanted: str


def answer(challenge: Shape, answers: Answers) -> Post | CodeWanted | Unanswerable:
    """The answer to a challenge, by its component alone (`type` went away in 2024.8)."""
    component = challenge.text("component")
    match component:
        case "ak-stage-identification":
            body = {"component": component, "uid_field": answers.username, "password": answers.password}
            return Post(body, is_credential=challenge.raw("password_fields") is True)
        case "ak-stage-password":
            return Post({"component": component, "password": answers.password}, is_credential=True)
        case "ak-stage-user-login":
            return Post({"component": component, "remember_me": True})
        case "ak-stage-authenticator-validate":
            return _authenticator(challenge, answers.code)
    if component.startswith("ak-source-"):
        return Unanswerable(f"a login at another identity provider ({component})")
    return Unanswerable(f"{UNANSWERABLE.get(component, 'something unknown to this version')} ({component})")


def _authenticator(challenge: Shape, code: str | None) -> Post | CodeWanted | Unanswerable:
    """A code given beats a push; the server tries a code on all of the user's devices whichever is selected.

    Only what is answered may be selected: selecting `sms` or `email` makes the server send a message.
    """
    offered = list(challenge.children("device_challenges"))
    classes = [device.text("device_class", "") for device in offered]
    selected = [(device, kind) for device, kind in zip(offered, classes, strict=True) if kind in ("static", "totp")]
    if code and selected:
        device = challenge.items("device_challenges")[offered.index(selected[0][0])]
        body = {"component": AUTHENTICATOR, "selected_challenge": device, "code": code}
        return Post(body, is_credential=True, is_code=True)
    for i, kind in enumerate(classes):
        if kind == "duo" and not selected:
            return _push(challenge, i)
    if selected:
        return CodeWanted(_words([kind for _, kind in selected]))
    if classes:
        return Unanswerable(_words(classes))
    if challenge.items("configuration_stages"):
        return Unanswerable("the enrolment of a second factor")
    return Unanswerable("a second factor, but the user has none that is allowed")


def push(challenge: Shape) -> Post | None:
    """The answer that starts a Duo push, when the challenge offers one."""
    for i, device in enumerate(challenge.children("device_challenges")):
        if device.text("device_class", "") == "duo":
            return _push(challenge, i)
    return None


def _push(challenge: Shape, index: int) -> Post:
    device = challenge.items("device_challenges")[index]
    uid = Shape(device, f"{challenge.where}.device_challenges[{index}]").text("device_uid")
    number: int | str = int(uid) if uid.isascii() and uid.isdecimal() else uid
    body = {"component": AUTHENTICATOR, "selected_challenge": device, "duo": number}
    return Post(body, is_credential=True, is_push=True)


def _words(classes: list[str]) -> str:
    kinds = list(dict.fromkeys(classes))
    return " or ".join(DEVICES.get(kind, f"a device of class {kind[:40]!r}") for kind in kinds)
