"""OpenLDAP's ldappasswd against the real process at a server made for tests: the server changes the passwords."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from pathlib import Path

import pytest

from tests.process.running import Appliance, user_dn
from tests.process.test_authentik_ldap import (
    INSUFFICIENT,
    INVALID,
    OK,
    RELEASES,
    bind,
    client,
    eventually,
    outpost,
    people,
)
from tests.process.test_ldappasswd import SWITCH, root
from tests.process.test_ldappasswd import client as tool
from tests.stub_authentik.model import Release

with warnings.catch_warnings():
    # It still asks pyasn1 for names of old.
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.core.exceptions import LDAPSessionTerminatedByServerError

pytestmark = [
    pytest.mark.skipif(shutil.which("ldappasswd") is None, reason="no ldappasswd here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

OLD, NEW = "pw-alice", "canary-newer"


async def change(running: Appliance, old: str, new: str, *more: str) -> tuple[int, str]:
    """Exit status of ldappasswd and what it said."""
    return await asyncio.to_thread(tool, "ldappasswd", running, "alice", OLD, "-a", old, "-s", new, *more)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
@pytest.mark.parametrize("release", RELEASES)
async def test_one_s_own_password_at_the_server(release: Release, options: tuple[str, ...]) -> None:
    async with people(release) as stub, outpost(stub, *options) as running:

        async def advertised() -> bool:
            return SWITCH in await asyncio.to_thread(root, running)

        await eventually(advertised, 10)
        async with client(running) as other:
            assert await other.bind("alice", OLD) == OK
            assert isinstance(await other.search("(cn=alice)"), list)
            code, said = await change(running, "wrong", NEW)
            assert code and "(49)" in said
            code, said = await change(running, OLD, "short")
            assert code and "(53)" in said and "Password needs to be 8 characters or longer." in said
            assert isinstance(await other.search("(cn=alice)"), list), "nothing was changed"
            assert await change(running, OLD, NEW, user_dn("alice")) == (OK, "")
            assert stub.user_named("alice").password == NEW

            async def is_ended() -> bool:
                try:
                    return await other.search("(cn=alice)") == INSUFFICIENT
                except LDAPSessionTerminatedByServerError:
                    return True

            await eventually(is_ended, 10)
        assert await bind(running, "alice", OLD) == INVALID
        assert await bind(running, "alice", NEW) == OK
        assert NEW not in running.said and OLD not in running.said


async def test_a_server_that_offers_no_way() -> None:
    async with people() as stub, outpost(stub) as running:
        stub.change_flow = ""
        code, said = await change(running, OLD, NEW)
        assert code and "(53)" in said and "offers its users no way to change their passwords" in said
        assert SWITCH not in await asyncio.to_thread(root, running)
        assert await bind(running, "alice", OLD) == OK
        stub.change_flow = "default-password-change"
        stub.fail("/flows/executor/default-password-change/", skip=1)
        code, said = await change(running, OLD, NEW)
        assert code and "(52)" in said and NEW not in running.said


async def test_switched_off_for_a_provider(tmp_path: Path) -> None:
    settings = tmp_path / "outpost.toml"
    settings.write_text("version = 1\n[provider.ldap-main]\npassword_modify = false\n")
    async with people() as stub, outpost(stub, "--config", str(settings)) as running:
        assert SWITCH not in await asyncio.to_thread(root, running)
        code, said = await change(running, OLD, NEW)
        assert code and "(53)" in said and "passwords are not changed here" in said
        assert not any("user_settings" in one for one in stub.requests)
