"""Neutral values and ports: what identity is, whatever protocol asks and wherever it lives.

Knows neither LDAP nor RADIUS nor authentik's API.  Backends implement `Authority`, `Roster` and
`Catalog`; the protocol rooms use them.  Everything here is immutable.
"""

from __future__ import annotations

import enum
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Protocol, final


@final
class Secret:
    """Octets that never show: no repr, no str, constant-time equality only."""

    __slots__ = ("_octets",)

    def __init__(self, value: bytes | str) -> None:
        self._octets = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The octets themselves; the caller must not log, store or format them."""
        return self._octets

    def reveal_text(self) -> str:
        """The octets as UTF-8 text. Raises UnicodeDecodeError without quoting them elsewhere."""
        return self._octets.decode()

    def __bool__(self) -> bool:
        return bool(self._octets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._octets, other._octets)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


# -- people ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """A group as the backend knows it."""

    pk: str
    """UUID text."""
    num_pk: int
    """The backend's number for the group; gidNumber = gid_start_number + num_pk."""
    name: str
    is_superuser: bool = False
    parents: tuple[str, ...] = ()
    """pks of the groups that this group is a member of."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class User:
    """A user as the backend knows it."""

    pk: int
    username: str
    name: str = ""
    email: str = ""
    uid: str = ""
    """The backend's opaque identifier (64 hexadecimal digits on authentik)."""
    uuid: str = ""
    """UUID text; empty when the backend has none."""
    is_active: bool = True
    is_superuser: bool = False
    type: str = "internal"
    path: str = "users"
    groups: tuple[str, ...] = ()
    """pks of the groups the user is a direct member of."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    date_joined: datetime | None = None
    last_updated: datetime | None = None
    password_change_date: datetime | None = None


@dataclass(frozen=True, slots=True)
class People:
    """One complete, consistent copy of users and groups. Never partial: a failed fetch makes none."""

    users: tuple[User, ...]
    groups: tuple[Group, ...]
    generation: int
    """Grows whenever the content changed."""
    taken_at: float
    """Seconds since the epoch."""

    @property
    def user_count(self) -> int:
        """How many users there are."""
        return len(self.users)


class Crowd(Protocol):
    """What `People` are for whoever reads them; large ones need not be objects until somebody does."""

    @property
    def users(self) -> tuple[User, ...]:
        """All of them; may take long."""
        ...

    @property
    def user_count(self) -> int:
        """How many users there are."""
        ...

    @property
    def groups(self) -> tuple[Group, ...]:
        """All of them."""
        ...

    @property
    def generation(self) -> int:
        """Grows whenever the content changed."""
        ...

    @property
    def taken_at(self) -> float:
        """Seconds since the epoch."""
        ...


# -- what is served -------------------------------------------------------------------------------


class Mode(enum.Enum):
    """Where an answer may come from (bind_mode, search_mode)."""

    DIRECT = "direct"
    CACHED = "cached"


_DOMAIN: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.I)
_DOMAIN_SID: Final = re.compile(r"S-1-5-21(?:-(?:0|[1-9][0-9]{0,9})){3}")
_NETBIOS: Final = re.compile(r"[A-Za-z0-9_-]{1,15}")


@dataclass(frozen=True, slots=True)
class LdapOptions:
    """Per-provider extras that authentik has no field for (`[provider.<name>]` in the settings)."""

    nested_groups: str = "direct"
    """`direct` or `effective` memberOf and member."""
    require_tls: bool = False
    """Answer confidentialityRequired (13) before TLS."""
    rdn_attribute: str = "cn"
    """Attribute that names user entries, `cn` or `uid`; both hold the login name then."""
    uid: str = "server"
    """`server`: the backend's identifier; `username`: the login name."""
    samba: bool = False
    """Serve sambaSamAccount, sambaGroupMapping and a sambaDomain, with SIDs but never with a password hash."""
    shadow: bool = False
    """Serve shadowAccount; shadowLastChange where the backend knows when the password changed."""
    active_directory: bool = False
    """Serve objectGUID, objectSid, userPrincipalName, userAccountControl, primaryGroupID and groupType."""
    domain: str = ""
    """DNS domain of user principal names; empty: what the `dc` components of the base DN spell."""
    domain_sid: str = ""
    """`S-1-5-21-...` of the domain; empty: derived from the base DN."""
    samba_domain: str = ""
    """sambaDomainName; empty: derived from the domain, or from the base DN where there is none."""
    home_directory: str = "/home/%s"
    """homeDirectory of users who have none of their own, `%s` being the login name; empty: none."""
    login_shell: str = ""
    """loginShell of users who have none of their own; empty: none."""
    custom_attributes: str = "replace"
    """A custom attribute that is called like a built-in one takes its place (`replace`, as in authentik), or adds its
    values to it (`add`) unless that can have one only."""
    missing_base: str = "noSuchObject"
    """`noSuchObject` (RFC 4511) or `empty` (the answer older outposts gave)."""
    strict_bind_dn: bool = False
    """Of all DNs only the entry's own binds; otherwise `cn=name,<anything>,BASE` does too."""
    password_modify: bool = True
    """Users may change their own passwords (RFC 3062), where the directory file can be written, or the server lets
    them."""
    bind_names: tuple[str, ...] = ()
    """What binds besides DNs: `username`, `mail`, `upn` (the login name before `@domain`). A name that two providers
    would take means neither."""

    def __post_init__(self) -> None:
        if self.domain and not _DOMAIN.fullmatch(self.domain):
            raise ValueError("domain: expected a DNS domain like example.com")
        numbers = self.domain_sid.split("-")[4:] if _DOMAIN_SID.fullmatch(self.domain_sid) else [""]
        if self.domain_sid and not all(number and int(number) < 2**32 for number in numbers):
            raise ValueError("domain_sid: expected S-1-5-21- and three numbers below 4294967296")
        if self.samba_domain and not _NETBIOS.fullmatch(self.samba_domain):
            raise ValueError("samba_domain: expected at most 15 letters, digits, hyphens and underscores")


LONGEST_REJECT_DELAY_S: Final = 5


@dataclass(frozen=True, slots=True)
class RadiusOptions:
    """Per-provider extras that authentik has no field for (`[provider.<name>]` in the settings)."""

    message_authenticator: str = "auto"
    """`auto` (checked when present, Proxy-State without it refused), `require` or `optional`. What a device sent
    before changes nothing: some sign one request and not the next."""
    reject_delay_s: float = 1.0
    """A refusal is held back until this long after its request, at most 5 s: longer waits devices take for silence."""
    challenge: bool = True
    """Answer a missing code with Access-Challenge."""
    code_suffix: bool = False
    """Accept a trailing code without separator."""
    strip_realm: bool = False
    """`alice@example.org` and `EXAMPLE\\alice` are the user `alice`; otherwise names are taken as they come."""
    mac_addresses: tuple[str, ...] = ()
    """Hardware addresses admitted by MAC authentication bypass."""
    mac_attributes: tuple[str, ...] = ()
    """Reply attributes for these, each `Name=value`: `["Tunnel-Type=VLAN", "Tunnel-Private-Group-Id=42"]`."""
    return_user_name: bool = False
    """Tell the device the login name of who was accepted, whatever name was typed: it then accounts for that one."""
    probe_user: str = ""
    """A user name answered with Access-Reject at once, for health probes."""
    status_server_requires_health: bool = True
    """Leave Status-Server (RFC 5997) unanswered while logins cannot work, so that devices turn to another server."""

    def __post_init__(self) -> None:
        if not 0 <= self.reject_delay_s <= LONGEST_REJECT_DELAY_S:
            raise ValueError(f"reject_delay: expected 0 to {LONGEST_REJECT_DELAY_S} seconds")


@dataclass(frozen=True, slots=True)
class LdapProvider:
    """One LDAP provider, as the backend describes it."""

    pk: int
    name: str
    base_dn: str
    application_slug: str
    bind_flow_slug: str = ""
    unbind_flow_slug: str = ""
    search_group: str | None = None
    """pk of the group whose members may search (servers before 2024.8, embedded directory)."""
    certificate: str | None = None
    """Key of the certificate in `Served.certificates`."""
    tls_server_name: str = ""
    uid_start_number: int = 2000
    gid_start_number: int = 4000
    search_mode: Mode = Mode.CACHED
    bind_mode: Mode = Mode.CACHED
    mfa_support: bool = True
    options: LdapOptions = LdapOptions()


@dataclass(frozen=True, slots=True)
class RadiusProvider:
    """One RADIUS provider, as the backend describes it."""

    pk: int
    name: str
    application_slug: str
    client_networks: tuple[IPv4Network | IPv6Network, ...]
    shared_secret: Secret
    auth_flow_slug: str = ""
    certificate: str | None = None
    mfa_support: bool = True
    options: RadiusOptions = RadiusOptions()


Provider = LdapProvider | RadiusProvider


@dataclass(frozen=True, slots=True)
class CertificateKeyPair:
    """A certificate chain and its private key, both PEM."""

    name: str
    certificate_chain: bytes
    private_key: Secret


@dataclass(frozen=True, slots=True)
class Served:
    """What the appliance serves at one moment."""

    ldap: tuple[LdapProvider, ...] = ()
    radius: tuple[RadiusProvider, ...] = ()
    certificates: Mapping[str, CertificateKeyPair] = field(default_factory=dict)


# -- decisions ------------------------------------------------------------------------------------


class RejectReason(enum.StrEnum):
    """Why a login was refused: log field and metric label, a closed set."""

    INVALID_CREDENTIALS = "invalid_credentials"
    """Unknown user, wrong password, inactive user: deliberately not told apart."""
    ACCESS_DENIED = "access_denied"
    """The credentials are right, the application's policies say no."""
    FLOW_ERROR = "flow_error"
    """The flow ended without a login, or asked for what this protocol cannot answer."""
    CODE_REQUIRED = "code_required"
    CODE_INVALID = "code_invalid"
    EMPTY_PASSWORD = "empty_password"  # noqa: S105
    THROTTLED = "throttled"
    """Too many failures from this source or for this user."""
    NO_PROVIDER = "no_provider"
    EMPTY_BIND_DN = "empty_bind_dn"
    INVALID_BIND_DN = "invalid_bind_dn"
    ACCESS_CHECK_FAIL = "access_check_fail"
    USER_INFO_FAIL = "user_info_fail"
    USER_INFO_NOT_CACHED = "user_info_not_cached"
    FILTER_PARSE_FAIL = "filter_parse_fail"
    ATTRIBUTE_DECODE_FAILED = "attribute_decode_failed"
    ATTRIBUTE_PARSE_FAILED = "attribute_parse_failed"
    UNSUPPORTED_METHOD = "unsupported_method"
    """An authentication method that needs a clear-text password on our side (CHAP, MS-CHAP)."""
    CLIENT_CERTIFICATE = "client_certificate"


class UnavailableReason(enum.StrEnum):
    """Why no decision could be made: log field and metric label, a closed set."""

    BACKEND_DOWN = "backend_down"
    BACKEND_TIMEOUT = "backend_timeout"
    BACKEND_ERROR = "backend_error"
    BUSY = "busy"
    """Shedding load; try again."""
    NOT_READY = "not_ready"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in and what he may do here."""

    user_pk: int
    username: str
    can_search: bool
    """May see the whole directory of this provider; otherwise only himself."""
    session: str | None = None
    """Handle of the backend's session, as named in `Revoked.session`."""


@dataclass(frozen=True, slots=True)
class ReplyAttributes:
    """Attributes a network device is to receive, in order."""

    named: tuple[tuple[str, str], ...] = ()
    """Dictionary name and text value."""
    packet: bytes = b""
    """A complete packet rendered by the backend, whose attributes are to be copied."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The login is proven and the application's access check passed."""

    identity: Identity
    expires_at: float | None = None
    """Seconds since the epoch at which the backend's session ends; None when it has no end."""
    attributes: ReplyAttributes = ReplyAttributes()
    used_code: bool = False
    """A one-time code took part: never to be remembered as a password."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The backend said no."""

    reason: RejectReason
    detail: str = ""
    """One sentence for the administrator's log; never sent to the peer, never a secret."""
    attributes: ReplyAttributes = ReplyAttributes()


@dataclass(frozen=True, slots=True)
class Challenge:
    """The backend wants one more answer."""

    prompt: str
    continuation: object
    """Opaque to everybody but the backend that made it; resumed at most once."""
    expires_at: float | None = None
    attributes: ReplyAttributes = ReplyAttributes()


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No decision was possible; never to be told as a refusal of the credentials."""

    reason: UnavailableReason
    detail: str = ""


Decision = Accepted | Rejected | Challenge | Unavailable


@dataclass(frozen=True, slots=True)
class Source:
    """Where a login came from."""

    service: str
    """`ldap` or `radius`."""
    address: str
    """Bare IP address of the client (for RADIUS: of the network device)."""
    calling_station: str = ""
    interactive: bool = False
    """The peer can answer a Challenge."""
    waited_s: float = 0.0
    """What is gone already of the time that the decision may take: it counts from when the client asked."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The password is the new one; what was believed of the old one has been revoked."""


@dataclass(frozen=True, slots=True)
class Unwilling:
    """Nothing was changed, and asking again changes nothing about that."""

    detail: str
    """One sentence that the user may read; never a secret."""


PasswordDecision = Changed | Unwilling | Rejected | Unavailable


# -- revocation -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was believed about these is to be forgotten at once; with all fields None: everything."""

    user_pk: int | None = None
    session: str | None = None
    provider_pk: int | None = None
    service: str | None = None
    """With provider_pk: `ldap` or `radius`, whose primary keys overlap."""


Publish = Callable[[Revoked], None]


# -- ports ----------------------------------------------------------------------------------------


class Authority(Protocol):
    """Decides logins. Raises nothing but bugs across this port; a bug is never `Accepted`."""

    async def authenticate(self, provider: Provider, username: str, secret: Secret, source: Source) -> Decision:
        """The decision about one login; `secret` is as the client sent it, code included."""
        ...

    async def resume(self, provider: Provider, continuation: object, secret: Secret, source: Source) -> Decision:
        """The decision after the answer to a `Challenge` of this authority."""
        ...


class CertificateAuthority(Protocol):
    """Logs in people whose certificate TLS has verified; only some backends can.

    Raises nothing but bugs across this port; a bug is never `Accepted`.
    """

    async def vouch(self, provider: LdapProvider, username: str, source: Source) -> Decision:
        """The decision about one login of somebody who has proved to be `username`, a login name or mail address.

        Everything but the proof is decided as in `Authority.authenticate`; there is no `Challenge`.
        """
        ...


class Passwords(Protocol):
    """Changes passwords; only some backends can. Raises nothing but bugs across this port; a bug is never `Changed`."""

    def can_change_passwords(self) -> bool:
        """Whether asking makes sense at this moment; never blocks."""
        ...

    async def change_password(
        self, provider: LdapProvider, identity: Identity, old: Secret, new: Secret, source: Source
    ) -> PasswordDecision:
        """Make `new` the password of `identity`, who logged in before and knows `old`."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a fresh look-up needs. A backend may return more, never less; all None means everything."""

    users: bool = True
    groups: bool = True
    user_pk: int | None = None
    """This user, and the groups he is a member of."""
    username: str | None = None
    email: str | None = None
    group_name: str | None = None
    """This group, and its members."""


class Roster(Protocol):
    """The people."""

    def current(self, provider: LdapProvider) -> Crowd | None:
        """The last complete copy, or None before the first; never blocks."""
        ...

    async def fetch(self, provider: LdapProvider, wanted: Wanted) -> Crowd:
        """A fresh copy of at least `wanted`. Raises BackendError."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` on the event loop after each change of `current`."""
        ...


class Catalog(Protocol):
    """What is served."""

    def served(self) -> Served:
        """The providers and certificates of this moment; never blocks."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` on the event loop after each change of `served`."""
        ...


class Backend(Authority, Roster, Catalog, Protocol):
    """All of identity behind one object, with a life of its own."""

    async def start(self) -> None:
        """Begin work; returns without waiting for a remote server. Raises ConfigError."""
        ...

    async def refresh(self) -> None:
        """Read everything again now (SIGHUP); keeps the old state and logs the reason if that fails."""
        ...

    async def stop(self) -> None:
        """End sessions and tasks; idempotent."""
        ...

    def readiness(self) -> Mapping[str, str]:
        """Per service (`ldap`, `radius`) an empty string when ready, else the reason why not."""
        ...
