"""A directory away from where it was read.

Reading a file leaves what is kept strewn among many times as much that is not, and memory is given back to the system
in large pieces only: in the end most of it would be empty and ours for ever.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable

from outpost.backends.embedded.model import Directory
from outpost.identity import Secret


def settled(load: Callable[[], Directory]) -> Directory:
    """What `load` returns, in memory by itself. Blocks; raises what `load` raises."""
    # The directory as it was read is gone before it is made anew; the octets never leave this function.
    octets = _packed(load())
    found: Directory = pickle.loads(octets)  # noqa: S301 - written by ourselves two lines before
    return found


def _made_of(value: Secret) -> tuple[type[Secret], tuple[bytes]]:
    return Secret, (value.reveal(),)


class _Packer(pickle.Pickler):
    # Secrets refuse to be pickled, because pickles are kept; this one is not.
    dispatch_table = {**copyreg.dispatch_table, Secret: _made_of}  # noqa: RUF012 - as the library wants it


def _packed(directory: Directory) -> bytes:
    octets = io.BytesIO()
    _Packer(octets, pickle.HIGHEST_PROTOCOL).dump(directory)
    return octets.getvalue()
