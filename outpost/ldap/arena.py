"""From people to the compiled directory of one provider."""

from __future__ import annotations

from typing import Final

from outpost.identity import LdapProvider, People
from outpost.ldap._arena import BASE, CONTAINER, GROUP, USER, VIRTUAL_GROUP, Builder
from outpost.ldap.entries import Directory, custom_names
from outpost.ldap.matching import normalise_value
from outpost.ldap.schema import ATTRIBUTE_TYPES, custom_attribute, normal_form

_KINDS: Final = {"base": BASE, "container": CONTAINER, "user": USER, "group": GROUP, "virtual_group": VIRTUAL_GROUP}


def compile_people(people: People, provider: LdapProvider) -> bytes:
    """The arena of everybody under the provider's base DN, for `Snapshot`. Takes time: call it off the event loop.

    Raises ConfigError for a base DN that is none; of two people whose names are the same in a DN the first is kept.
    """
    directory = Directory(people, provider)
    pending = list(directory.entries())
    custom = custom_names(pending)
    types = [*ATTRIBUTE_TYPES, *(custom_attribute(name) for name in custom)]
    index = {t.name.lower(): i for i, t in enumerate(types)}
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
    )
    for entry in pending:
        if entry.normal is not None:
            builder.teach(entry.dn, entry.normal)
    container = -1
    seen: set[bytes] = set()
    for entry in pending:
        normal = entry.normal or normalise_value(4, entry.dn)
        if normal is None or normal in seen:
            continue
        seen.add(normal)
        if entry.normal is None:
            builder.teach(entry.dn, normal)
        at = builder.add(
            entry.dn,
            0 if entry.kind == "container" else container,
            _KINDS[entry.kind],
            entry.user_pk,
            [(index[name.lower()], value) for name, value in entry.attributes],
        )
        if entry.kind == "container":
            container = at
    return builder.finish(people.generation)
