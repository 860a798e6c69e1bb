"""Control groups for nodes, in version 1 (each controller has its tree) and version 2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def make(name: str) -> None:
    """A group below the root of each tree, where a kubelet can put its own."""
    for tree in _trees():
        (tree / name).mkdir(exist_ok=True)
        for resource in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts with none of them, and refuses processes
            if (tree / resource).exists():
                (tree / name / resource).write_text((tree / resource).read_text())


def remove(name: str) -> None:
    """Remove the group and those below it, whose processes are gone."""
    for tree in _trees():
        for folder, _, _ in os.walk(tree / name, topdown=False):
            Path(folder).rmdir()


def _trees() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind in {"cgroup", "cgroup2"}:
            yield Path(folder)
