"""Requests to replies: what a PAP login, a health probe or a refused method is answered (RFC 2865 4).

Pure decisions over the gate; sockets, timers and tasks are the server's.  Whatever cannot be decided is silence, so
that the device asks another server: a Reject would be a lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from typing import NamedTuple, Protocol, final

from outpost._fastradius import Packet
from outpost.errors import LimitExceeded
from outpost.identity import (
    Accepted,
    Challenge,
    Decision,
    Identity,
    RadiusProvider,
    Rejected,
    RejectReason,
    ReplyAttributes,
    Secret,
    Source,
)
from outpost.radius._intake import Request
from outpost.radius.attributes import Flawed, Renderer, carries
from outpost.radius.bypass import hardware_address, without_realm
from outpost.radius.clients import Client, Flaw
from outpost.radius.conversations import Conversations, Prompts
from outpost.radius.crypto import chap_holds
from outpost.radius.dictionary import Dictionary
from outpost.radius.observer import DropReason, RadiusObserver
from outpost.radius.packet import (
    CALL_CHECK,
    CHARGEABLE_USER_IDENTITY,
    CLASS,
    EAP_MESSAGE,
    LONGEST_VALUE,
    REPLY_MESSAGE,
    STATE,
    USER_NAME,
    Code,
    encode_attribute,
    encode_text,
)

STATUS_PER_S = 500
"""Status-Server requests answered per second and address: many devices may be behind one, and ask every few seconds."""

MOST_STATUS_ADDRESSES = 4096
CLASS_PREFIX = b"outpost:"
MOST_LASTING = 16384
"""Logins whose attributes are kept encoded. Forgetting them all costs encoding each once more."""


class Gate(Protocol):
    """Decides logins; `outpost.credentials.gate` fills it."""

    def known(self, provider: RadiusProvider, username: str, secret: bytes, source: Source) -> Accepted | None:
        """The decision if it may be given without asking anybody; None says nothing about the credentials."""
        ...

    async def authenticate(self, provider: RadiusProvider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login."""
        ...

    async def resume(self, provider: RadiusProvider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a `Challenge`."""
        ...


class Answer(NamedTuple):
    """A reply to send."""

    octets: bytes
    code: int
    username: str = ""
    reason: str = ""
    """A `RejectReason`, empty unless refused."""
    delay_s: float = 0.0
    """Counted from the arrival of the request."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login that somebody has to be asked about."""

    request: Request
    username: str
    secret: Secret
    source: Source
    continuation: object = None
    """What the answer to a prompt belongs to; None for a login from the start."""


Outcome = Answer | DropReason
"""A DropReason is silence."""


@final
class RadiusService:
    """Answers requests; one for all providers.

    gate: who decides logins; is_ready: whether logins can work now, for Status-Server; clock: monotonic seconds;
    epoch: seconds since the epoch; random: octets from a safe source; conversations: who keeps the prompts, by default
    the service itself; class_key: what hides session handles in Class, where other processes have the same.
    """

    def __init__(
        self,
        gate: Gate,
        observer: RadiusObserver,
        dictionary: Dictionary,
        *,
        is_ready: Callable[[], bool],
        clock: Callable[[], float],
        epoch: Callable[[], float],
        random: Callable[[int], bytes],
        conversations: Prompts | None = None,
        class_key: bytes | None = None,
    ) -> None:
        self._gate = gate
        self._observer = observer
        self._is_ready = is_ready
        self._clock = clock
        self._epoch = epoch
        self._renderer = Renderer(dictionary, random)
        self._conversations: Prompts = Conversations(random) if conversations is None else conversations
        self._class_key = random(32) if class_key is None else class_key
        self.lasting: dict[int, tuple[Accepted, Client, bytes]] = {}
        """By id: logins, and what every Access-Accept to a plain one carries; for `outpost.radius._express`, too."""
        self._status_asked: dict[str, int] = {}
        self._status_since = 0.0

    def answer(self, request: Request) -> Outcome | Login:
        """The reply if it is known at once, else what `decide` has to be asked. Never raises."""
        try:
            found = request.packet.plain_login()
            if found is not None:
                return self._login(request, found[0], found[1], None)
            if request.packet.code == Code.STATUS_SERVER:
                return self._status(request)
            return self._uncommon(request)
        except Exception as exc:  # one odd packet must not take the loop with it
            self._observer.failed("a request failed", exc)
            return DropReason.INTERNAL

    def unknown(self, request: Request, username: str, password: bytes) -> Outcome | Login:
        """As `answer`, for a plain login that the gate was found not to know. Never raises."""
        try:
            return self._ask(request, username, password, None)
        except Exception as exc:
            self._observer.failed("a request failed", exc)
            return DropReason.INTERNAL

    def accepted(self, request: Request, username: str, accepted: Accepted) -> Outcome:
        """As `answer`, for a plain login that the gate was found to know. Never raises."""
        try:
            return self._accept(request, username, accepted)
        except Exception as exc:
            self._observer.failed("a request failed", exc)
            return DropReason.INTERNAL

    async def decide(self, login: Login) -> Outcome:
        """The reply to a login, after the gate was asked. Raises nothing but CancelledError."""
        gate, provider = self._gate, login.request.client.provider
        try:
            if login.continuation is None:
                decision = await gate.authenticate(provider, login.username, login.secret, login.source)
            else:
                decision = await gate.resume(provider, login.continuation, login.secret, login.source)
            return self._tell(login.request, login.username, decision)
        except Exception as exc:
            self._observer.failed("a login failed", exc)
            return DropReason.INTERNAL

    def flaws(self, clients: Iterable[Client]) -> Iterator[Flaw]:
        """What about the options of these clients could not be sent."""
        for client in clients:
            for complaint in self._renderer.complaints(client.bypass.attributes.named):
                yield Flaw(client.provider.name, f"mac_attributes: {complaint}")

    def handle_deadline(self, now: float) -> None:
        """Forget prompts nobody answers any more."""
        before = self._conversations.expired
        self._conversations.expire(now)
        if self._conversations.expired != before:
            self._tell_conversations()

    # -- requests ---------------------------------------------------------------------------------

    def _status(self, request: Request) -> Outcome:
        now, address = request.received_at, request.source.address
        if now >= self._status_since + 1.0 or len(self._status_asked) >= MOST_STATUS_ADDRESSES:
            self._status_asked.clear()
            self._status_since = now
        count = self._status_asked[address] = self._status_asked.get(address, 0) + 1
        if count > STATUS_PER_S:
            return DropReason.RATE_LIMITED
        if request.client.provider.options.status_server_requires_health and not self._is_ready():
            return DropReason.NOT_READY
        # RFC 5997 3: on the authentication port an Access-Accept.
        return self._reply(request, Code.ACCESS_ACCEPT, b"")

    def _uncommon(self, request: Request) -> Outcome | Login:
        """An Access-Request that is no plain PAP login: other methods, devices, answers to prompts, nonsense."""
        packet = request.packet
        try:
            username = (packet.user_name or b"").decode()
        except UnicodeDecodeError:
            username = ""
        if packet.service_type == CALL_CHECK and not packet.has_eap:
            return self._bypass(request, username)
        if packet.has_eap or packet.has_ms_chap or packet.chap_password is not None:
            if not packet.has_eap and not packet.has_ms_chap and _concerns_chap(packet, username):
                return self._bypass(request, username)
            return self._unsupported(request, username)
        password = packet.user_password
        if not username or "\0" in username or (password is None and packet.has_user_password):
            return self._reject(request, username, RejectReason.INVALID_CREDENTIALS)
        return self._login(request, username, password or b"", packet.state)

    def _login(self, request: Request, username: str, password: bytes, state: bytes | None) -> Outcome | Login:
        client: Client = request.client
        provider = client.provider
        options = provider.options
        if username == options.probe_user:
            return self._reject(request, username, RejectReason.INVALID_CREDENTIALS, delay_s=0.0)
        if 12 <= len(username) <= 17 and client.bypass.concerns(username, password):
            return self._bypass(request, username)
        if options.strip_realm:
            username = without_realm(username)
        continuation = None
        if state is not None:
            waiting = self._conversations.take(
                state, provider.pk, request.source.address, username, now=request.received_at
            )
            self._tell_conversations()
            if waiting is None:
                self._explain(request, username, "the State is unknown, too old, used before, or another user's")
                return self._reject(request, username, RejectReason.FLOW_ERROR)
            continuation = waiting.continuation
        if not password:
            return self._reject(request, username, RejectReason.EMPTY_PASSWORD)
        if continuation is None:
            accepted = self._gate.known(provider, username, password, request.source)
            if accepted is not None:
                return self._accept(request, username, accepted)
        return self._ask(request, username, password, continuation)

    def _ask(self, request: Request, username: str, password: bytes, continuation: object) -> Outcome | Login:
        """What `decide` has to be asked."""
        try:
            password.decode()
        except UnicodeDecodeError:
            # Nobody is asked: most likely the shared secrets differ.
            self._explain(request, username, "the password is no UTF-8 text; do the shared secrets agree?")
            return self._reject(request, username, RejectReason.INVALID_CREDENTIALS)
        source = request.source
        calling = request.packet.calling_station_id
        if calling:
            source = replace(source, calling_station=calling.decode(errors="replace"))
        return Login(request, username, Secret(password), source, continuation)

    def _bypass(self, request: Request, username: str) -> Outcome:
        """MAC authentication bypass: the list decides, nobody is asked, no person's login is counted."""
        bypass = request.client.bypass
        if bypass.admits(request.packet, username):
            try:
                attributes = self._render(request, Code.ACCESS_ACCEPT, bypass.attributes)
            except Flawed as exc:
                self._explain(request, username, str(exc))
                return self._reject(request, username, exc.reason)
            return self._reply(request, Code.ACCESS_ACCEPT, attributes, username)
        return self._reject(request, username, RejectReason.INVALID_CREDENTIALS)

    def _unsupported(self, request: Request, username: str) -> Outcome:
        """CHAP and MS-CHAP need a clear-text password on our side; EAP is not spoken. Refused at once."""
        attributes = b""
        eap = request.packet.eap_message
        if eap is not None:
            # RFC 3579 2.6.3: an Access-Reject carries EAP-Failure; RFC 3748 4.2: with the identifier of the response.
            attributes = encode_attribute(EAP_MESSAGE, bytes((4, eap[1] if len(eap) > 1 else 0, 0, 4)))
        return self._reply(request, Code.ACCESS_REJECT, attributes, username, RejectReason.UNSUPPORTED_METHOD)

    # -- replies ----------------------------------------------------------------------------------

    def _tell(self, request: Request, username: str, decision: Decision) -> Outcome:
        """The one place where a decision becomes a packet."""
        if isinstance(decision, Accepted):
            return self._accept(request, username, decision)
        if isinstance(decision, Challenge):
            return self._challenge(request, username, decision)
        self._explain(request, username, decision.detail)
        if isinstance(decision, Rejected):
            return self._reject(request, username, decision.reason, decision.attributes)
        return DropReason.UNAVAILABLE

    def _accept(self, request: Request, username: str, accepted: Accepted) -> Outcome:
        asks_for_identity = request.packet.has_chargeable_user_identity
        lasting = self.lasting.get(id(accepted))
        if lasting is not None and lasting[0] is accepted and lasting[1] is request.client and not asks_for_identity:
            return self._reply(request, Code.ACCESS_ACCEPT, lasting[2], username)
        try:
            attributes = self._render(request, Code.ACCESS_ACCEPT, accepted.attributes)
        except Flawed as exc:
            self._explain(request, username, str(exc))
            return self._reject(request, username, exc.reason)
        is_lasting = not asks_for_identity and self._renderer.is_lasting(accepted.attributes, Code.ACCESS_ACCEPT)
        session = accepted.identity.session
        # A Class of the mapping's is what the device acts on (group policies): ours would only confuse it.
        if session is not None and not carries(attributes, CLASS):
            handle = blake2b(session.encode(), digest_size=16, key=self._class_key).hexdigest()
            attributes += encode_attribute(CLASS, CLASS_PREFIX + handle.encode())
        if asks_for_identity or request.client.provider.options.return_user_name:
            attributes += self._names(request, accepted.identity, attributes)
        outcome = self._reply(request, Code.ACCESS_ACCEPT, attributes, username)
        if is_lasting and isinstance(outcome, Answer):
            if len(self.lasting) >= MOST_LASTING:
                self.lasting.clear()
            self.lasting[id(accepted)] = accepted, request.client, attributes
        return outcome

    def _names(self, request: Request, identity: Identity, attributes: bytes) -> bytes:
        """Who was accepted, for the device's records, unless the attributes say so already."""
        found = b""
        name = identity.username.encode()
        wants_name = request.client.provider.options.return_user_name
        if wants_name and len(name) <= LONGEST_VALUE and not carries(attributes, USER_NAME):
            found += encode_attribute(USER_NAME, name)
        if request.packet.has_chargeable_user_identity and not carries(attributes, CHARGEABLE_USER_IDENTITY):
            # RFC 4372 2.1: opaque, and the same in every session of the user; here as long as the secret is the same.
            key = sha256(request.client.secret.octets).digest()
            handle = blake2b(name, digest_size=16, key=key, person=b"chargeable").hexdigest()
            found += encode_attribute(CHARGEABLE_USER_IDENTITY, handle.encode())
        return found

    def _challenge(self, request: Request, username: str, challenge: Challenge) -> Outcome:
        provider = request.client.provider
        if not provider.options.challenge:
            return self._reject(request, username, RejectReason.CODE_REQUIRED)
        try:
            further = self._render(request, Code.ACCESS_CHALLENGE, challenge.attributes)
        except Flawed as exc:
            self._explain(request, username, str(exc))
            return self._reject(request, username, exc.reason)
        lifetime_s = None if challenge.expires_at is None else challenge.expires_at - self._epoch()
        state = self._conversations.open(
            provider.pk,
            request.source.address,
            username,
            challenge.continuation,
            now=self._clock(),
            lifetime_s=lifetime_s,
        )
        self._tell_conversations()
        attributes = encode_attribute(STATE, state) + encode_text(REPLY_MESSAGE, challenge.prompt) + further
        return self._reply(request, Code.ACCESS_CHALLENGE, attributes, username)

    def _reject(
        self,
        request: Request,
        username: str,
        reason: RejectReason,
        attributes: ReplyAttributes | None = None,
        *,
        delay_s: float | None = None,
    ) -> Outcome:
        encoded = b""
        if attributes is not None:
            try:
                encoded = self._render(request, Code.ACCESS_REJECT, attributes)
            except Flawed as exc:
                self._explain(request, username, str(exc))
        if delay_s is None:
            delay_s = request.client.provider.options.reject_delay_s
        return self._reply(request, Code.ACCESS_REJECT, encoded, username, reason, delay_s)

    def _reply(
        self,
        request: Request,
        code: Code,
        attributes: bytes,
        username: str = "",
        reason: str = "",
        delay_s: float = 0.0,
    ) -> Outcome:
        try:
            octets = request.packet.reply(code, attributes)
        except LimitExceeded:
            return DropReason.REPLY_TOO_LARGE
        return Answer(octets, code, username, reason, delay_s)

    def _render(self, request: Request, code: Code, attributes: ReplyAttributes) -> bytes:
        packet, ours = request.packet, request.client.secret.octets
        return self._renderer.render(attributes, code, packet.secret.octets, packet.authenticator, rendered_with=ours)

    def _explain(self, request: Request, username: str, detail: str) -> None:
        if detail:
            self._observer.explained(request.client.app, request.source.address, username, detail)

    def _tell_conversations(self) -> None:
        found = self._conversations
        self._observer.challenges(found.opened, found.expired, len(found))


def _concerns_chap(packet: Packet, username: str) -> bool:
    """Whether a device asks for itself by CHAP: the one password that is known here is its address."""
    response, name = packet.chap_password, packet.user_name
    if response is None or name is None or not hardware_address(username):
        return False
    return chap_holds(response, packet.chap_challenge, name)
