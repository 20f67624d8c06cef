"""Limits of the process, each tried in a child of its own."""

import subprocess
import sys
from pathlib import Path

import outpost

ROOT = Path(outpost.__file__).parent.parent


def child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_core_dumps_are_off() -> None:
    code = (
        "import resource, ctypes; from outpost.app import hardening;"
        "hardening.forbid_core_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    assert child(code) == "0 0"


def test_the_file_limit_rises_to_the_hard_one() -> None:
    code = (
        "import resource; from outpost.app import hardening;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256));"
        "print(hardening.raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert child(code) == "256 (256, 256)"
