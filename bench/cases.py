"""What is measured: one row of the table each, as arguments of the load generators."""

from __future__ import annotations

from dataclasses import dataclass

from bench.population import BASE_DN, SECRET

SERVICE = ("-D", f"cn=ldapservice,ou=users,{BASE_DN}", "-w", "service-pw")
BIND = ("--dn", f"cn=user%u,ou=users,{BASE_DN}", "--pw", "pass%u")


@dataclass(frozen=True)
class Case:
    """One measurement. `target` is the ratio of our CPU time per operation to the peer's that we want."""

    name: str
    peer: str
    arguments: tuple[str, ...]
    target: float
    floor: str = ""
    """The C server that answers without knowing anything, where there is one for this work."""
    ldaps: bool = False
    is_login: bool = False
    """Every user has logged in once before the clock starts."""


MAIL = ("--base", BASE_DN, "--filter", "(mail=user%u@example.org)", *SERVICE)
EVERYBODY = ("-o", "sub", "-c", "1", "--base", f"ou=users,{BASE_DN}", "--filter", "(uidNumber=*)", *SERVICE)
SCAN = "(&(objectClass=user)(|(mail=a*)(cn=*b*)))"

CASES = (
    Case(
        "warm simple bind, 16 connections", "slapd", ("-o", "bind", "-c", "16", *BIND), 0.5, "nullldap", is_login=True
    ),
    Case(
        "equality search, all attributes, 16 connections",
        "slapd",
        ("-o", "sub", "-c", "16", "-E", "1", *MAIL),
        0.4,
        "nullldap",
    ),
    Case(
        "the same, 16 in flight per connection",
        "slapd",
        ("-o", "sub", "-c", "16", "-d", "16", "-E", "1", *MAIL),
        1 / 6,
        "nullldap",
    ),
    Case(
        "compare, 16 connections",
        "slapd",
        ("-o", "compare", "-c", "16", "--ava", "mail=user%u@example.org", *BIND[:2], *SERVICE),
        0.5,
        "nullldap",
    ),
    Case("all users, all attributes", "slapd", EVERYBODY, 0.1),
    Case("all users, `1.1`", "slapd", ("--attrs", "1.1", *EVERYBODY), 1 / 12),
    Case(f"`{SCAN}`", "slapd", ("-o", "sub", "-c", "1", "-E", "0", "--base", BASE_DN, "--filter", SCAN, *SERVICE), 0.2),
    Case(
        "new connection, bind, unbind",
        "slapd",
        ("-o", "bind", "-c", "16", "-1", "1", *BIND),
        0.9,
        "nullldap",
        is_login=True,
    ),
    Case(
        "LDAPS: new connection, bind (TLS 1.3, P-256)",
        "slapd",
        ("-o", "bind", "-c", "16", "-1", "1", "--ldaps", *BIND),
        1.0,
        ldaps=True,
        is_login=True,
    ),
    Case(
        "PAP Accept, 4 sockets, 32 in flight, signed both ways",
        "freeradius",
        ("-c", "4", "-d", "32", "-S", SECRET, "--need-ma"),
        1 / 3,
        "nullrad",
        is_login=True,
    ),
)
