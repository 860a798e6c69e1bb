"""The Unix socket of a running `swapstats dev`.

A socket's path may have 108 bytes at most, a data directory's may have more: so both sides name the socket through an
open directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another path of the same file, short enough. Raises OSError if its folder isn't there."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
