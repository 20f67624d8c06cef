"""RADIUS packets in C: parse, judge, unhide, sign (RFC 2865, 2869, 3579)."""

from typing import Final, final

__all__: Final = (
    "BAD_ATTRIBUTE",
    "BAD_LENGTH",
    "BAD_MESSAGE_AUTHENTICATOR",
    "BAD_REQUEST_AUTHENTICATOR",
    "MALFORMED_MESSAGE_AUTHENTICATOR",
    "TOO_MANY_ATTRIBUTES",
    "TOO_SHORT",
    "Packet",
    "SharedSecret",
    "decode",
    "encode_request",
    "hide_user_password",
    "md5",
    "unhide_user_password",
)

TOO_SHORT: int
"""Less than 20 octets."""
BAD_LENGTH: int
"""Length below 20, above 4096 or beyond the datagram."""
BAD_ATTRIBUTE: int
"""An attribute shorter than 2 octets or reaching past the end."""
TOO_MANY_ATTRIBUTES: int
"""More than 200 attributes."""
MALFORMED_MESSAGE_AUTHENTICATOR: int
"""More than one Message-Authenticator, or one whose length is not 18."""
BAD_MESSAGE_AUTHENTICATOR: int
"""A Message-Authenticator that does not hold."""
BAD_REQUEST_AUTHENTICATOR: int
"""A computed Request Authenticator (RFC 2866 3) that does not hold."""

@final
class SharedSecret:
    """A shared secret with its HMAC states worked out once (RFC 2104 4)."""

    def __new__(cls, secret: bytes) -> SharedSecret: ...
    @property
    def octets(self) -> bytes:
        """The secret itself; never to be logged or formatted."""
    def hmac_md5(self, data: bytes) -> bytes:
        """HMAC-MD5 of `data` under the secret (RFC 2104)."""

@final
class Packet:
    """One well-formed packet whose authenticators hold, as far as it carries any.

    Made by `decode` only.  The repr shows no attribute.
    """

    @property
    def octets(self) -> bytes:
        """The packet without padding."""
    @property
    def code(self) -> int: ...
    @property
    def identifier(self) -> int: ...
    @property
    def service_type(self) -> int:
        """Service-Type, or -1 when it is absent or no value below 256."""
    @property
    def is_ambiguous(self) -> bool:
        """User-Name, User-Password or State occurs more than once (RFC 2865 5.44 allows one)."""
    @property
    def has_eap(self) -> bool:
        """It carries EAP-Message."""
    @property
    def has_ms_chap(self) -> bool:
        """It carries an MS-CHAP attribute (RFC 2548 2)."""
    @property
    def has_chargeable_user_identity(self) -> bool:
        """It asks for Chargeable-User-Identity (RFC 4372 2.1)."""
    @property
    def secret(self) -> SharedSecret:
        """What it was judged by, and a reply is signed with."""
    @property
    def authenticator(self) -> bytes:
        """The 16 octets of the Request Authenticator."""
    @property
    def user_name(self) -> bytes | None:
        """User-Name, or None."""
    @property
    def user_password(self) -> bytes | None:
        """The plaintext of User-Password, or None when it is absent or no encoding (RFC 2865 5.2)."""
    @property
    def has_user_password(self) -> bool:
        """A User-Password is there, well-formed or not."""
    @property
    def chap_password(self) -> bytes | None:
        """CHAP-Password, or None."""
    @property
    def chap_challenge(self) -> bytes:
        """CHAP-Challenge; without one the Request Authenticator is it (RFC 2865 5.40)."""
    @property
    def state(self) -> bytes | None:
        """State, or None."""
    @property
    def calling_station_id(self) -> bytes | None:
        """Calling-Station-Id, or None."""
    @property
    def is_signed(self) -> bool:
        """It carries a Message-Authenticator, and that is right."""
    @property
    def eap_message(self) -> bytes | None:
        """All EAP-Message values joined (RFC 3579 3.1), or None without any."""
    def plain_login(self) -> tuple[str, bytes] | None:
        """(User-Name, password) of an Access-Request that carries these and nothing that calls for other treatment.

        None for everything else: other codes and methods, State, Service-Type Call-Check, Chargeable-User-Identity, a
        name that is no text.
        """
    def attributes(self) -> list[tuple[int, bytes]]:
        """All attributes in order as (type, value)."""
    def reply(self, code: int, attributes: bytes) -> bytes:
        """A signed reply to this request: Message-Authenticator, `attributes`, then its Proxy-States.

        attributes: encoded and well-formed; neither Message-Authenticator nor Proxy-State among them.
        Raises LimitExceeded beyond 4096 octets.
        """

def decode(data: bytes, secret: SharedSecret) -> Packet | int:
    """The request in a datagram, or the number of what is wrong with it (RFC 2865 3).

    Octets after the announced Length are padding.  A Message-Authenticator is verified when present, also when one
    changed octet hides it; the Request Authenticator of Accounting, Disconnect and CoA requests always.  Never
    raises for any octets.
    """

def encode_request(
    code: int, identifier: int, authenticator: bytes, attributes: bytes, secret: SharedSecret, *, sign: bool = True
) -> bytes:
    """A request as a client sends it, Message-Authenticator first if `sign`.

    authenticator: 16 octets; for Accounting, Disconnect and CoA requests it is computed and the argument
    ignored.  attributes: encoded.  Raises LimitExceeded beyond 4096 octets.
    """

def hide_user_password(password: bytes, secret: SharedSecret, request_authenticator: bytes) -> bytes:
    """User-Password as it travels (RFC 2865 5.2). Raises LimitExceeded beyond 128 octets."""

def unhide_user_password(hidden: bytes, secret: SharedSecret, request_authenticator: bytes) -> bytes | None:
    """The plaintext of User-Password, or None for a length that is none (RFC 2865 5.2)."""

def md5(data: bytes) -> bytes:
    """The MD5 digest (RFC 1321); for tests."""
