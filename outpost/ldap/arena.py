"""From people to the compiled directory of one provider."""

from __future__ import annotations

from typing import Final

from outpost.identity import Crowd, LdapProvider
from outpost.ldap._arena import BASE, CONTAINER, GROUP, USER, VIRTUAL_GROUP, Builder
from outpost.ldap.entries import Directory
from outpost.ldap.schema import ATTRIBUTE_TYPES, custom_attribute, normal_form

_KINDS: Final = {"base": BASE, "container": CONTAINER, "user": USER, "group": GROUP, "virtual_group": VIRTUAL_GROUP}

COMMON: Final = frozenset(
    {
        "objectClass", "structuralObjectClass", "hasSubordinates", "subschemaSubentry", "ak-active", "ak-superuser",
        "userAccountControl", "sambaAcctFlags", "sambaGroupType", "groupType",
    }
)  # fmt: skip
"""Attributes whose values most entries of a kind have alike."""


def compile_people(people: Crowd, provider: LdapProvider, left_out: list[str] | None = None) -> bytes:
    """The arena of everybody under the provider's base DN, for `Snapshot`. Takes time: call it off the event loop.

    Raises ConfigError for a base DN that is none; of two people whose names are the same in a DN the first is kept.
    left_out: gets the names of those who are not in it.
    """
    directory = Directory(people, provider)
    if left_out is not None:
        left_out += directory.left_out
    types = [*ATTRIBUTE_TYPES, *(custom_attribute(name) for name in directory.custom_names())]
    builder = Builder(
        [
            (
                t.name.encode(),
                int(t.kind),
                t.flags,
                [n.lower().encode() for n in (t.name, *t.aliases, t.oid)],
            )
            for t in types
        ],
        len(ATTRIBUTE_TYPES),
        normal_form,
        frozenset(i for i, t in enumerate(types) if t.name in COMMON),
    )
    container = -1
    for entry in directory.entries():
        at = builder.add(
            entry.dn,
            0 if entry.kind == "container" else container,
            _KINDS[entry.kind],
            entry.user_pk,
            entry.names,
            entry.values,
            entry.normal,
            entry.login,
            entry.holders,
        )
        if entry.kind == "container" or container < 0:
            container = at
    return builder.finish(people.generation)
