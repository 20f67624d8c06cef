"""What parent and worker say to each other.

Whoever reads takes nothing for granted: `TO_WORKER` and `TO_PARENT` decode what they know and refuse everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outpost.config.values import Network
from outpost.credentials.gate import GateSettings
from outpost.identity import (
    Accepted,
    CertificateKeyPair,
    Changed,
    Identity,
    Rejected,
    ReplyAttributes,
    Revoked,
    Secret,
    Served,
    Source,
    Unavailable,
    Unwilling,
    Wanted,
)
from outpost.ldap.operations.search import SearchLimits
from outpost.ldap.server import ServerLimits
from outpost.ldap.tls import TlsSettings
from outpost.processes.wire import Wire
from outpost.radius.dictionary import DictionarySettings
from outpost.radius.exchange import Limits as ExchangeLimits


@dataclass(frozen=True, slots=True)
class Proof:
    """Until when the parent's cache believes a login; on the machine's monotonic clock."""

    verified_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """A `Challenge`; the state stands for what the parent keeps of it."""

    prompt: str
    state: bytes
    attributes: ReplyAttributes


# -- to the worker --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """The first message. Descriptors: a lock for the log, then the sockets of `listeners` in order."""

    version: str
    """Of this package: parent and worker must be of the same."""
    listeners: tuple[str, ...]
    """The service of each socket."""
    is_json: bool
    level: int
    """Number of the least important level that is logged."""
    can_vouch: bool
    can_change_passwords: bool
    has_sessions: bool
    hash_key: Secret
    """Of the credentials cache, the same for all so that a key means the same login everywhere."""
    core_dumps: bool
    drain_s: float
    gate: GateSettings
    tls: TlsSettings
    limits: ServerLimits
    search: SearchLimits
    dictionaries: DictionarySettings
    exchange: ExchangeLimits
    trusted_proxies: tuple[Network, ...]
    default_certificate: CertificateKeyPair
    class_key: Secret
    """Of RADIUS, hides session handles."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve these providers and certificates from now on."""

    served: Served


@dataclass(frozen=True, slots=True)
class State:
    """How things are; said at each change, and every second so that silence is noticed."""

    threshold: int
    """Number of the least important level that is logged."""
    trusted_since: float
    """Since when revocations arrive, on the machine's monotonic clock; infinite while they do not."""
    can_change_passwords: bool
    readiness: Mapping[str, str]
    outposts: Mapping[str, str]
    """Names for the metrics by service."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """A provider's compiled directory, in the memory whose descriptor comes along."""

    provider_pk: int
    edition: int
    """Grows with each directory of the provider."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Something is to be forgotten."""

    revoked: Revoked


@dataclass(frozen=True, slots=True)
class Refused:
    """This login was refused: whoever remembers it forgets it."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Doubt:
    """This secret is new for its user: his other ones are not to be believed without asking."""

    user_pk: int
    mark: bytes


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer to a login."""

    id: int
    decision: Accepted | Rejected | Prompt | Unavailable
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class PasswordDecided:
    """The answer to a change of password."""

    id: int
    decision: Changed | Unwilling | Rejected | Unavailable


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a look-up: the directory's descriptor comes along, unless something went wrong."""

    id: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """The question for `Numbers`."""

    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing new, finish what is in flight, end."""

    drain_s: float
    linger_s: float = 0.0
    """Before that: for connections to be ended by their clients."""


# -- to the parent --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serving:
    """The sockets are served."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What an operator has to mend before anything can be served."""

    problem: str


@dataclass(frozen=True, slots=True)
class Alive:
    """The echo of a `State`."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Searches see this edition of the directory."""

    provider_pk: int
    edition: int


@dataclass(frozen=True, slots=True)
class Flawed:
    """What an operator has to mend about what is served, all of it."""

    flaws: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A login."""

    id: int
    service: str
    provider_pk: int
    username: str
    secret: Secret
    source: Source


@dataclass(frozen=True, slots=True)
class Resume:
    """The answer to a `Prompt`."""

    id: int
    provider_pk: int
    username: str
    state: bytes
    secret: Secret
    source: Source


@dataclass(frozen=True, slots=True)
class Vouch:
    """A login of somebody whose certificate was verified."""

    id: int
    provider_pk: int
    username: str
    source: Source


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """A change of password."""

    id: int
    provider_pk: int
    identity: Identity
    old: Secret
    new: Secret
    source: Source


@dataclass(frozen=True, slots=True)
class LookUp:
    """A fresh directory of at least what is wanted."""

    id: int
    provider_pk: int
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this answer any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Hold:
    """One more connection rests on a session."""

    session: str


@dataclass(frozen=True, slots=True)
class Release:
    """One less."""

    session: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a family."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers that belong together (`prometheus_client.Metric`)."""

    name: str
    help: str
    type: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a scrape sees of this worker. id: of the question; 0: the last words."""

    id: int
    families: tuple[Family, ...]
    counters: Mapping[str, int]
    """Totals that are added to the parent's own."""
    gauges: Mapping[str, int]


ToWorker = (
    Configure | Serve | State | Adopt | Revoke | Refused | Doubt | Decided | PasswordDecided | Found | Count | Drain
)
ToParent = (
    Serving
    | Failed
    | Alive
    | Adopted
    | Flawed
    | Authenticate
    | Resume
    | Vouch
    | ChangePassword
    | LookUp
    | Cancel
    | Hold
    | Release
    | Numbers
)
TO_WORKER: Final[Wire[ToWorker]] = Wire(ToWorker)
TO_PARENT: Final[Wire[ToParent]] = Wire(ToParent)
