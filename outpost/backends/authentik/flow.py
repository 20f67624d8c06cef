"""The flow executor: drives one login through the server's flow as a browser would, in words of JSON.

It knows HTTP, cookies and stages; it does not know who is allowed what.  Whether somebody really logged in is for
`authority.py` to prove: the end of a flow alone proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import orjson
from yarl import URL

from outpost.backends.authentik import stages
from outpost.backends.authentik.address import Address
from outpost.backends.authentik.client import MAX_FLOW_BODY, USER_AGENT, Answer, NotFound, Pool, TokenRefused, refusal
from outpost.backends.authentik.cookies import CSRF, SESSION, Jar
from outpost.backends.authentik.observer import Observer
from outpost.backends.authentik.session import read_claims
from outpost.backends.authentik.shape import Shape
from outpost.backends.authentik.stages import Answers, CodeWanted, Post, Unanswerable
from outpost.errors import BackendError, BackendUnavailable
from outpost.identity import RejectReason, Secret

MAX_POSTS = 10
MAX_HOPS = 10
REDIRECTS = (301, 302, 303)


@dataclass(frozen=True, slots=True)
class Finished:
    """The flow ended with its redirect: perhaps a login."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The flow ended with a refusal."""

    reason: RejectReason
    detail: str


@dataclass(frozen=True, slots=True)
class NeedsCode:
    """The flow waits for a one-time code that was not given."""

    challenge: Shape
    devices: str


Outcome = Finished | Refused | NeedsCode


def remote_ip(address: str) -> str | None:
    """The address as the server accepts it, or None when it is no bare IP address (2023.6 answers 500 to those)."""
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(found).partition("%")[0]
    return str(found)


def visiting(token: Secret, version: str) -> Mapping[str, str]:
    """The headers of all visitors of one outpost."""
    return {
        "User-Agent": USER_AGENT + version,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "X-authentik-outpost-token": token.reveal_text(),
    }


@dataclass(slots=True, repr=False)
class Visitor:
    """Requests on behalf of one user: own cookies, the outpost's token only in its header, never Authorization."""

    pool: Pool
    headers: Mapping[str, str]
    """The same for all visitors: many are remembered."""
    ip: str | None = None
    """Where the user comes from."""
    jar: Jar = field(default_factory=Jar)
    arrived_at: float | None = None
    """When the first answer was made, on the server's clock: seconds since the epoch, whole ones, rounded down."""

    @classmethod
    def arriving(cls, pool: Pool, headers: Mapping[str, str], address: str) -> Visitor:
        """A visitor without cookies who comes from `address`; headers: from `visiting`."""
        return cls(pool, headers, remote_ip(address))

    async def request(self, method: str, url: URL, what: str, content: Mapping[str, object] | None = None) -> Answer:
        """One request with the newest cookies, those of the answer taken. Raises BackendUnavailable."""
        headers = dict(self.headers)
        if self.ip is not None:
            headers["X-authentik-remote-ip"] = self.ip
        cookies = self.jar.header()
        if cookies:
            headers["Cookie"] = cookies
        body = None
        if content is not None:
            headers["Content-Type"] = "application/json"
            body = orjson.dumps(content)
            csrf = self.jar.get(CSRF)
            if csrf:  # a POST on a session that is logged in already; over TLS a Referer of the same host is asked for
                headers["X-authentik-CSRF"] = csrf
                headers["Referer"] = str(url)
        answer = await self.pool.request(method, url, headers, what, body=body, limit=MAX_FLOW_BODY)
        if self.arrived_at is None:
            self.arrived_at = answer.made_at
        if answer.set_cookies:
            self.jar.receive(answer.set_cookies, time.time())
        return answer


class FlowRun:
    """One run through one flow; goes on after `NeedsCode`."""

    def __init__(self, visitor: Visitor, slug: str, url: URL, service: str, observer: Observer) -> None:
        self.visitor = visitor
        self.slug = slug
        self._service = service
        self.has_credential = False
        """A stage that proves something about the user was answered."""
        self.used_code = False
        self.is_interactive = False
        """The peer can be asked for a code."""
        self.on_push: Callable[[bool], None] | None = None
        """Called with True before the server waits for a push, with False afterwards."""
        self._url = url
        self._targets = _targets(url, visitor.pool.address.path)
        self._observer = observer
        self._posts = 0
        self._answered: set[bytes] = set()

    @classmethod
    def prepare(cls, visitor: Visitor, address: Address, slug: str, service: str, observer: Observer) -> FlowRun:
        """A run through the flow `slug` for a login over `service`."""
        url = address.executor(slug, ((f"goauthentik.io/outpost/{service}", "true"),))
        return cls(visitor, slug, url, service, observer)

    async def start(self, answers: Answers, *, interactive: bool) -> Outcome:
        """Enter the flow and answer its stages. Raises BackendError; the caller sets a deadline."""
        self.is_interactive = interactive
        return await self._solve(await self.exchange("GET", None), answers)

    async def resume(self, challenge: Shape, answers: Answers) -> Outcome:
        """Go on where `NeedsCode` stopped; nobody is asked a second time."""
        self.is_interactive = False
        return await self._solve(challenge, answers)

    async def leave(self) -> bool:
        """Run an invalidation flow; whether the session's cookie is not that of a login any more."""
        await self.exchange("GET", None)
        cookie = self.visitor.jar.get(SESSION)
        return not cookie or read_claims(cookie).is_authenticated is False

    async def _solve(self, challenge: Shape, answers: Answers) -> Outcome:
        while True:
            ended = self._ending(challenge)
            if ended is not None:
                return ended
            reply = stages.answer(challenge, answers)
            if isinstance(reply, CodeWanted):
                by_push = stages.push(challenge)
                if self.is_interactive or by_push is None:
                    return NeedsCode(challenge, reply.devices)
                reply = by_push
            if isinstance(reply, Unanswerable):
                who = f"{self._service.upper()} clients"
                return Refused(
                    RejectReason.FLOW_ERROR,
                    f"the flow {self.slug!r} asked for {reply.wanted}, which {who} cannot answer",
                )
            fingerprint = orjson.dumps(reply.body, option=orjson.OPT_SORT_KEYS)
            if fingerprint in self._answered:
                return self._repeated(str(reply.body["component"]))
            if self._posts >= MAX_POSTS:
                return Refused(RejectReason.FLOW_ERROR, f"the flow {self.slug!r} has more than {MAX_POSTS} stages")
            self._answered.add(fingerprint)
            challenge = await self._post(reply)

    def _repeated(self, component: str) -> Refused:
        # A stage whose invalid_response_action is "restart" sends a wrong answer back to the start of the flow; going
        # on would be up to ten failed logins for one.
        reason = RejectReason.FLOW_ERROR
        if self.used_code:
            reason = RejectReason.CODE_INVALID
        elif self.has_credential:
            reason = RejectReason.INVALID_CREDENTIALS
        return Refused(reason, f"the flow {self.slug!r} asked again for what was answered already: {component}")

    async def _post(self, reply: Post) -> Shape:
        self._posts += 1
        self.has_credential |= reply.is_credential
        self.used_code |= reply.is_code
        if not reply.is_push or self.on_push is None:
            return await self.exchange("POST", reply.body)
        self.on_push(True)
        challenge = await self.exchange("POST", reply.body)
        self.on_push(False)
        return challenge

    def _ending(self, challenge: Shape) -> Outcome | None:
        component = challenge.text("component")
        errors = challenge.mapping("response_errors")
        if errors:
            return self._refused_answer(component, errors)
        if component == stages.REDIRECT:
            return self._redirected(challenge.text("to", ""))
        if component == stages.DENIED:
            message = challenge.text("error_message", "") or "no reason given"
            return Refused(RejectReason.FLOW_ERROR, f"the flow {self.slug!r} denied access: {_quote(message)}")
        if component == stages.SERVER_ERROR:
            request_id = challenge.text("request_id", "")
            raise BackendError(f"flow {self.slug!r}: the server failed (its request_id {_quote(request_id)})")
        return None

    def _redirected(self, target: str) -> Outcome:
        # A redirect challenge back to the executor is what a wrongly encoded query gets, before any password check.
        if "/flows/executor/" in target:
            return Refused(
                RejectReason.FLOW_ERROR, f"the flow {self.slug!r} redirected to itself instead of logging in"
            )
        return Finished()

    def _refused_answer(self, component: str, errors: Mapping[str, object]) -> Refused:
        name, found = next(iter(errors.items()))
        first = found[0] if isinstance(found, list) and found else found
        message = first.get("string") if isinstance(first, dict) else first
        detail = f"flow {self.slug!r}, {name}: {_quote(message if isinstance(message, str) else 'refused')}"
        if component == stages.AUTHENTICATOR:
            return Refused(RejectReason.CODE_INVALID, detail)
        expected = {"uid_field", "password", "non_field_errors"}
        if component in (stages.IDENTIFICATION, stages.PASSWORD) and set(errors) <= expected:
            return Refused(RejectReason.INVALID_CREDENTIALS, detail)
        return Refused(RejectReason.FLOW_ERROR, detail)

    async def exchange(self, method: str, content: Mapping[str, object] | None) -> Shape:
        """The challenge after one request and the redirects that follow it. Raises BackendError.

        A finished stage answers 302 to the same URL.
        """
        what = f"flow {self.slug!r}"
        started = time.monotonic()
        answer = await self.visitor.request(method, self._url, what, content)
        for _ in range(MAX_HOPS):
            if not self._is_same(answer):
                break
            answer = await self.visitor.request("GET", self._url, what)
        if answer.status != 200:
            raise self._failure(answer, what)
        challenge = Shape(answer.json(what), what)
        component = challenge.text("component")
        stage = component if component in stages.KNOWN else "other"
        self._observer.flow_request(method.lower(), stage, self.slug, time.monotonic() - started)
        return challenge

    def _failure(self, answer: Answer, what: str) -> BackendError:
        if self._is_same(answer):
            return BackendUnavailable(f"{what}: more than {MAX_HOPS} redirects in a row")
        error = refusal(answer, what)
        if isinstance(error, NotFound):
            return BackendError(f"{what}: the server has no such flow")
        if isinstance(error, TokenRefused):  # no token of ours decides here
            return BackendError(f"{what}: HTTP {answer.status} from the server or a gateway in front of it")
        return error

    def _is_same(self, answer: Answer) -> bool:
        """Whether the answer sends us to this flow again; it is our own URL that is asked then, whatever host it says.

        From http to https nothing is won by asking again: the address in the settings is wrong.
        """
        if answer.status not in REDIRECTS:
            return False
        if self._url.scheme == "http" and answer.location.lower().startswith("https:"):
            return False
        return _target(answer.location) in self._targets


def _target(location: str) -> str:
    """Path and query, to be compared octet by octet."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return f"{parts.path}?{parts.query}"


def _targets(url: URL, sub_path: str) -> frozenset[str]:
    """What the server may call `url`: a gateway may hide the sub-path from it."""
    target = _target(str(url))
    return frozenset((target, target.removeprefix(sub_path)))


def _quote(text: str) -> str:
    """Text from the server made fit for one log line."""
    return repr(text[:200])
