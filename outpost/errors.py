"""The error taxonomy: each class says whose fault it is and what to answer.

    OutpostError
      ConfigError           the operator's fault         stderr, exit 2
      ProtocolError         the peer's fault
        DecodeError         bytes that are no encoding   LDAP: Notice of Disconnection; RADIUS: silence
        LimitExceeded       too big, deep or many        LDAP: adminLimitExceeded or disconnect; RADIUS: silence
        SequenceError       right bytes, wrong moment    LDAP: protocolError or busy
      OperationError        understood and refused       LDAPResult
      BackendError          a dependency's fault
        BackendUnavailable                               LDAP: unavailable (52); RADIUS: silence
        BackendTimeout                                   the same

Refused credentials are no error: they are `outpost.identity.Rejected` values.
"""

from __future__ import annotations


class OutpostError(Exception):
    """Root of everything this package raises on purpose."""

    metric = "internal"


class ConfigError(OutpostError):
    """Settings or a directory file the operator has to mend.

    source: file or environment variable; line: 1-based, if known; key: dotted path inside the source.
    """

    metric = "config"

    def __init__(self, problem: str, *, source: str = "", line: int | None = None, key: str = "") -> None:
        self.problem = problem
        self.source = source
        self.line = line
        self.key = key
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join(part for part in (place, key, problem) if part))


class ProtocolError(OutpostError):
    """The peer broke its protocol."""

    metric = "protocol"


class DecodeError(ProtocolError):
    """Bytes that are no encoding of what was expected."""

    metric = "decode"


class LimitExceeded(ProtocolError):
    """A well-formed message over one of our named limits."""

    metric = "limit"


class SequenceError(ProtocolError):
    """A well-formed message at the wrong moment."""

    metric = "sequence"


class OperationError(OutpostError):
    """A request understood and refused with an LDAP resultCode (RFC 4511 4.1.9)."""

    metric = "operation"

    def __init__(self, result_code: int, diagnostic: str = "", matched_dn: str = "") -> None:
        self.result_code = result_code
        self.diagnostic = diagnostic
        self.matched_dn = matched_dn
        super().__init__(diagnostic or f"resultCode {result_code}")


class BackendError(OutpostError):
    """The identity backend failed; never a statement about the credentials."""

    metric = "backend"


class BackendUnavailable(BackendError):
    """The backend could not be reached or answered nonsense."""

    metric = "backend_unavailable"


class BackendTimeout(BackendError):
    """The backend did not answer within its deadline."""

    metric = "backend_timeout"
