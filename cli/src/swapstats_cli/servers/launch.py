"""Runs a command that dies with its parent: ``python launch.py PARENT_PID COMMAND...``.

A small program of its own, because the request to the kernel must be made by the child itself, between fork and
exec, where a threaded parent must not run Python code. It imports nothing but the standard library, to start quickly.

The kernel sends the signal when the *thread* that forked dies, so the supervisor starts children only from its main
thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask for SIGKILL at the parent's death; raises OSError if the kernel refuses. Exits if it is dead already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit("the parent died while this child was being started")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # no shell is the point
