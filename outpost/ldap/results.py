"""Numbers and names of LDAP: result codes (RFC 4511 appendix A), tags of operations, object identifiers."""

from __future__ import annotations

from typing import Final

SUCCESS: Final = 0
OPERATIONS_ERROR: Final = 1
PROTOCOL_ERROR: Final = 2
TIME_LIMIT_EXCEEDED: Final = 3
SIZE_LIMIT_EXCEEDED: Final = 4
AUTH_METHOD_NOT_SUPPORTED: Final = 7
STRONGER_AUTH_REQUIRED: Final = 8
ADMIN_LIMIT_EXCEEDED: Final = 11
UNAVAILABLE_CRITICAL_EXTENSION: Final = 12
CONFIDENTIALITY_REQUIRED: Final = 13
NO_SUCH_ATTRIBUTE: Final = 16
UNDEFINED_ATTRIBUTE_TYPE: Final = 17
INAPPROPRIATE_MATCHING: Final = 18
INVALID_ATTRIBUTE_SYNTAX: Final = 21
NO_SUCH_OBJECT: Final = 32
INVALID_DN_SYNTAX: Final = 34
INVALID_CREDENTIALS: Final = 49
INSUFFICIENT_ACCESS_RIGHTS: Final = 50
BUSY: Final = 51
UNAVAILABLE: Final = 52
UNWILLING_TO_PERFORM: Final = 53
OTHER: Final = 80
CANCELED: Final = 118
NO_SUCH_OPERATION: Final = 119
ASSERTION_FAILED: Final = 122

# Tag octets of requests.
SEARCH: Final = 0x63
MODIFY: Final = 0x66
ADD: Final = 0x68
DELETE: Final = 0x4A
MODIFY_DN: Final = 0x6C
COMPARE: Final = 0x6E
EXTENDED: Final = 0x77
SEARCH_DONE: Final = 0x65

NOTICE_OF_DISCONNECTION: Final = b"1.3.6.1.4.1.1466.20036"
START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
PASSWORD_MODIFY: Final = b"1.3.6.1.4.1.4203.1.11.1"
WHO_AM_I: Final = b"1.3.6.1.4.1.4203.1.11.3"
CANCEL: Final = b"1.3.6.1.1.8"

PAGED_RESULTS: Final = b"1.2.840.113556.1.4.319"
SORT_REQUEST: Final = b"1.2.840.113556.1.4.473"
SORT_RESPONSE: Final = b"1.2.840.113556.1.4.474"
ASSERTION: Final = b"1.3.6.1.1.12"
MATCHED_VALUES: Final = b"1.2.826.0.1.3344810.2.3"
MANAGE_DSA_IT: Final = b"2.16.840.1.113730.3.4.2"
SUBENTRIES: Final = b"1.3.6.1.4.1.4203.1.10.1"

CODE_NAMES: Final = {
    MODIFY: "modify",
    ADD: "add",
    DELETE: "delete",
    MODIFY_DN: "modifyDN",
}
"""Operations that change the directory, which this server never does."""
