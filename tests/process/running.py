"""The real appliance as a child process on ephemeral ports, and what it said on stderr."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import outpost

ROOT = Path(outpost.__file__).parent.parent
PATIENCE_S = 20.0
"""For a busy machine; nothing here takes that long."""
BASE = "dc=ldap,dc=goauthentik,dc=io"
SERVICE_DN = f"cn=ldapservice,ou=users,{BASE}"
SECRET = "testing123"
LISTENERS = ("ldap", "ldaps", "radius", "metrics")
WORKERS = {"OUTPOST_PROCESS__WORKERS": os.environ["TEST_WORKERS"]} if "TEST_WORKERS" in os.environ else {}
"""`TEST_WORKERS=2` runs every test of the real process with as many workers."""


def user_dn(name: str) -> str:
    return f"cn={name},ou=users,{BASE}"


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of the caller's."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("AUTHENTIK_", "OUTPOST_"))}
    return {**bare, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **WORKERS, **more}


class Appliance:
    """One running process. Log lines arrive as dictionaries."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
        )
        self.raw: list[str] = []
        self.ports: dict[str, int] = {}
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line)
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    self._lines.put(found)
        self._lines.put(None)

    @property
    def said(self) -> str:
        return "".join(self.raw)

    def event(self, pattern: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next log line whose event matches; those before it are skipped."""
        deadline = time.monotonic() + patience_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise AssertionError(f"it ended with {self.process.wait()} before {pattern!r}:\n{self.said}")
            if re.search(pattern, line["event"]):
                return line
        raise AssertionError(f"no {pattern!r} in time:\n{self.said}")

    def wait_until_listening(self) -> None:
        while True:
            line = self.event(r"^listening$|^started$")
            if line["event"] == "started":
                return
            self.ports[line["service"]] = int(line["address"].rpartition(":")[2])

    def url(self, scheme: str = "ldap") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on the HTTP port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.send(number)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


def arguments(directory: Path, **listen: str) -> list[str]:
    """A command line that serves `directory` on ephemeral ports of loopback."""
    command = [sys.executable, "-m", "outpost", "run", "--directory", str(directory)]
    for name in LISTENERS:
        command += ["--set", f"listen.{name}={listen.get(name, '127.0.0.1:0')}"]
    return command


@contextlib.contextmanager
def appliance(directory: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Appliance]:
    """A listening appliance, gone at the end whatever happens."""
    running = Appliance([*arguments(directory), *options], environment(**(env or {})))
    try:
        running.wait_until_listening()
        yield running
    finally:
        running.end()
