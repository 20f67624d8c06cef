"""The load generators and floors: single C files, compiled into bench/bin when they are newer than what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BIN = HERE.parent / "bin"


def build() -> None:
    """Compile with cc; needs OpenSSL's headers. Raises CalledProcessError."""
    BIN.mkdir(exist_ok=True)
    sources = sorted(HERE.glob("*.c"))
    newest = max(source.stat().st_mtime for source in sources)
    for source in sources:
        program = BIN / source.stem
        # nullrad includes radload, so that one that is newer counts for all.
        if program.exists() and program.stat().st_mtime > newest:
            continue
        libraries = ["-lssl", "-lcrypto", "-lpthread"] if source.stem == "ldapload" else ["-lpthread"]
        subprocess.run(["cc", "-O2", "-o", str(program), str(source), *libraries], check=True)
