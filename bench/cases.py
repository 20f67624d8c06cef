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
    ldaps: bool = False
    users_only: bool = False
    """Limit the user numbers so that the warm-up has met every login before the clock starts."""


WARM_USERS = 200

CASES = (
    Case("warm simple bind, 16 connections", "slapd", ("-o", "bind", "-c", "16", *BIND), 0.5, users_only=True),
    Case(
        "equality search, all attributes, 16 connections",
        "slapd",
        ("-o", "sub", "-c", "16", "-E", "1", "--base", BASE_DN, "--filter", "(mail=user%u@example.org)", *SERVICE),
        0.4,
    ),
    Case(
        "the same, 16 in flight per connection",
        "slapd",
        (
            *("-o", "sub", "-c", "16", "-d", "16", "-E", "1"),
            *("--base", BASE_DN, "--filter", "(mail=user%u@example.org)", *SERVICE),
        ),
        1 / 6,
    ),
    Case(
        "compare, 16 connections",
        "slapd",
        ("-o", "compare", "-c", "16", "--ava", "mail=user%u@example.org", *BIND[:2], *SERVICE),
        0.5,
    ),
    Case(
        "all users, all attributes",
        "slapd",
        ("-o", "sub", "-c", "1", "--base", f"ou=users,{BASE_DN}", "--filter", "(uidNumber=*)", *SERVICE),
        0.1,
    ),
    Case(
        "all users, 1.1",
        "slapd",
        (
            *("-o", "sub", "-c", "1", "--attrs", "1.1"),
            *("--base", f"ou=users,{BASE_DN}", "--filter", "(uidNumber=*)", *SERVICE),
        ),
        1 / 12,
    ),
    Case(
        "(&(objectClass=user)(|(mail=a*)(cn=*b*))) over all",
        "slapd",
        (
            *("-o", "sub", "-c", "1", "--base", BASE_DN),
            *("--filter", "(&(objectClass=user)(|(mail=a*)(cn=*b*)))", *SERVICE),
        ),
        0.2,
    ),
    Case(
        "new connection, bind, unbind",
        "slapd",
        ("-o", "bind", "-c", "16", "-1", "1", *BIND),
        0.9,
        users_only=True,
    ),
    Case(
        "LDAPS: new connection, bind (TLS 1.3, P-256)",
        "slapd",
        ("-o", "bind", "-c", "16", "-1", "1", "--ldaps", *BIND),
        1.0,
        ldaps=True,
        users_only=True,
    ),
    Case(
        "PAP Accept, 4 sockets, 32 in flight, signed both ways",
        "freeradius",
        ("-c", "4", "-d", "32", "-S", SECRET),
        1 / 3,
        users_only=True,
    ),
)
