import ctypes
import mmap
import os
import subprocess
import sys

import pytest

from outpost.processes import memory


def test_what_is_sealed_can_be_mapped_by_others_and_written_by_nobody() -> None:
    octets = os.urandom(300_000)
    descriptor = memory.sealed(octets)
    try:
        with memory.mapped(descriptor) as one, memory.mapped(descriptor) as other:
            assert one[:] == octets == other[:]
            with pytest.raises(TypeError):
                one[0:1] = b"x"
        for harm in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 400_000),
            lambda: mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
        ):
            with pytest.raises(PermissionError):
                harm()
    finally:
        os.close(descriptor)


def test_the_mapping_outlives_the_descriptor() -> None:
    descriptor = memory.sealed(b"octets")
    with memory.mapped(descriptor) as octets:
        os.close(descriptor)
        assert octets[:] == b"octets"


def test_memory_that_is_not_sealed_is_not_mapped() -> None:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, b"octets")
        with pytest.raises(ValueError, match="not sealed"):
            memory.mapped(descriptor)
        memory.seal(descriptor)
        memory.mapped(descriptor).close()
    finally:
        os.close(descriptor)
    with open(os.devnull) as other, pytest.raises(ValueError, match="no memory"):
        memory.mapped(other.fileno())


def test_nothing_is_too_little_to_be_mapped() -> None:
    descriptor = memory.sealed(b"")
    try:
        with pytest.raises(ValueError, match="empty"):
            memory.mapped(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library")
def test_what_was_freed_between_what_lives_is_given_back() -> None:
    code = """
import re
from pathlib import Path
from outpost.processes import memory

def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

blocks = [bytes(3000) for _ in range(20_000)]
del blocks[:-1]
before = resident()
memory.give_back()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20
