"""The real process with a directory file: serve it, read it again, keep it."""

import subprocess
from pathlib import Path

import pytest
from pyrad.packet import AccessAccept, AccessReject

from tests.process.radius_client import answer_code
from tests.process.running import Appliance, appliance, arguments, environment

FILE = """
version: 1
entries:
  - model: authentik_providers_radius.radiusprovider
    id: network
    identifiers: {{name: network}}
    attrs: {{shared_secret: testing123}}
  - model: authentik_core.application
    identifiers: {{slug: network}}
    attrs: {{name: Network, provider: !KeyOf network}}
  - model: authentik_core.user
    identifiers: {{username: ann}}
    attrs: {{password: {password}, attributes: {attributes}}}
"""


def write(path: Path, password: str, attributes: str = "{}") -> None:
    new = path.with_suffix(".new")
    new.write_text(FILE.format(password=password, attributes=attributes))
    new.replace(path)


def login(running: Appliance, password: str) -> int:
    return answer_code(running.ports["radius"], "ann", password, "testing123")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "directory.yaml"
    write(path, "canary-one")
    return path


def test_a_changed_file_is_read_again_by_itself_and_a_broken_one_is_not(path) -> None:
    with appliance(path) as running:
        assert "plain text" in running.said
        assert running.get("/-/ready")[0] == 200
        assert login(running, "canary-one") == AccessAccept
        assert login(running, "canary-two") == AccessReject
        write(path, "canary-two")
        running.event("^directory read")
        assert login(running, "canary-one") == AccessReject
        assert login(running, "canary-two") == AccessAccept
        write(path, "canary-three", attributes="[")
        assert f"{path}:" in running.event("stays as it was read before")["event"]
        assert login(running, "canary-two") == AccessAccept
        write(path, "canary-four", attributes="{radius: {Acme-Rank: 1}}")
        assert "Acme-Rank" in running.event("will be refused")["event"]
        assert login(running, "canary-four") != AccessAccept
        assert running.stop() == 0
        assert "canary" not in running.said and "testing123" not in running.said and "Traceback" not in running.said


def test_a_file_that_cannot_be_served_is_2(path) -> None:
    write(path, "canary", attributes="[")
    command = arguments(path)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"outpost: {path}:")
    assert "Traceback" not in done.stderr and "canary" not in done.stderr
