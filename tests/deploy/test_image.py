"""The steps of the Dockerfile, taken from it and replayed here: wheels of what the context holds, installed without an
index and without a compiler, run as an ordinary user, and asked by the health check.
"""

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.running import PATIENCE_S, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
LONGEST_S = 600


def step(pattern: str) -> str:
    """The one command of the Dockerfile that matches."""
    (found,) = re.findall(pattern, DOCKERFILE, re.MULTILINE)
    return str(found)


def said(instruction: str) -> list[str]:
    """The words of CMD or ENTRYPOINT, the last of its kind."""
    words: list[str] = json.loads(re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
    return words


def context(into: Path) -> None:
    """What .dockerignore lets into the context, and the Dockerfile copies of it."""
    rules = (ROOT / ".dockerignore").read_text().split()
    for source in step(r"^COPY (pyproject\.toml.*) \./$").split():
        assert f"!{source}" in rules
        shutil.copy(ROOT / source, into / source)
    assert step(r"^COPY outpost (\w+)$") == "outpost" and "!outpost" in rules
    left_out = [rule.rpartition("/")[2] for rule in rules if "**" in rule]
    assert {"*.so", "*.c", "__pycache__"} == set(left_out)
    shutil.copytree(
        ROOT / "outpost",
        into / "outpost",
        ignore=lambda _, names: [n for n in names if any(fnmatch.fnmatch(n, rule) for rule in left_out)],
    )


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may read, as an image is."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def image(place: Path) -> Path:
    """The environment that the last stage has; its programs."""
    source, wheels = place / "src", place / "wheels"
    source.mkdir()
    context(source)
    build, final = place / "build", place / "final"
    venv.create(build, with_pip=True)
    command = step(r"(pip wheel .*?)$").replace("/wheels", str(wheels)).split()
    run([str(build / "bin/python"), "-m", *command], cwd=source)
    venv.create(final, with_pip=True)
    command = step(r"(pip install --no-cache-dir --no-index \S+ outpost)").replace("/wheels", str(wheels)).split()
    # Not even a compiler: what is needed has to be in the wheels.
    run([str(final / "bin/python"), "-m", *command], env={"PATH": "/nonexistent"}, cwd=place)
    return final / "bin"


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S * 2)
def test_the_wheel_holds_everything(image: Path) -> None:
    code = (
        "import importlib, pkgutil, outpost\n"
        "for found in pkgutil.walk_packages(outpost.__path__, 'outpost.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "from outpost.radius.dictionary import shipped; shipped(); print(outpost.__file__)\n"
    )
    assert str(image.parent) in run([str(image / "python"), "-c", code], cwd="/")


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S * 2)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_serves_as_nobody_and_is_healthy(image: Path, place: Path) -> None:
    directory = place / "directory.yaml"
    shutil.copy(ROOT / "examples/directory.yaml", directory)
    directory.chmod(0o644)
    user = int(step(r"^USER (\d+):\d+$"))
    assert user == int(step(r"useradd .*--uid (\d+)")) != 0
    kinds = {
        "LDAP": socket.SOCK_STREAM,
        "LDAPS": socket.SOCK_STREAM,
        "RADIUS": socket.SOCK_DGRAM,
        "METRICS": socket.SOCK_STREAM,
    }
    ports = {name: free_port(kind) for name, kind in kinds.items()}
    environment = {
        "PATH": f"{image}:/usr/bin:/bin",
        "OUTPOST_DIRECTORY": str(directory),
        **{f"AUTHENTIK_LISTEN__{name}": f"127.0.0.1:{port}" for name, port in ports.items()},
        **dict(re.findall(r"^ENV (\w+)=(\w+)$", DOCKERFILE, re.MULTILINE)),
    }
    check = said(r"HEALTHCHECK.*? CMD")
    options = {"env": environment, "cwd": "/", "user": user, "group": user, "extra_groups": []}

    def health() -> int:
        return subprocess.run(check, capture_output=True, timeout=60, check=False, **options).returncode

    assert health() != 0
    with subprocess.Popen([*said("ENTRYPOINT"), *said("CMD")], stderr=subprocess.PIPE, **options) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while health() != 0 and time.monotonic() < deadline:
                assert process.poll() is None
            assert health() == 0
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE) == [str(user)]
            process.send_signal(signal.Signals[step(r"^STOPSIGNAL (\w+)$")])
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert health() != 0
