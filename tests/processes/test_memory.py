import mmap
import os

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
