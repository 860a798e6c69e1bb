"""Child processes of tests that die with them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from swapstats_cli.servers import launch


def spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command whose output goes to the end of a file. On the main thread: the child dies with the thread that
    starts it (see `launch`).
    """
    assert threading.current_thread() is threading.main_thread()
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-ISE", launch.__file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
