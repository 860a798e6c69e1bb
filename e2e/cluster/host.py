"""What a cluster needs of its host, and how its commands are run.

python3 -m e2e.cluster.host    # the Debian packages that are missing, if any
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

PLUGINS: Final = Path("/usr/lib/cni")
_PACKAGES: Final = {
    "buildah": "buildah",
    "containerd": "containerd",
    str(PLUGINS / "ptp"): "containernetworking-plugins",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "runc": "runc",
    "unshare": "util-linux",
}
"""A program, and the package that has it."""


class HostError(Exception):
    """This host can't carry a cluster; the text says what to do."""


def missing_packages() -> list[str]:
    """Debian's packages that have to be installed first."""
    return [package for program, package in _PACKAGES.items() if shutil.which(program) is None]


def check() -> None:
    """Raises HostError where something is missing."""
    if os.geteuid() != 0:
        raise HostError("a cluster needs root: it makes networks and mounts")
    if packages := missing_packages():
        raise HostError(f"a cluster needs packages: apt-get install --no-install-recommends {' '.join(packages)}")
    if shutil.which("go") is None:
        raise HostError("a cluster needs Go to build Kubernetes: there is no go on the PATH (1.26 or newer)")


def run(*command: str | Path, text: str | None = None) -> str:
    """Run a command that must succeed; returns what it prints. Raises CalledProcessError with what it said."""
    try:
        done = subprocess.run(command, input=text, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise
    return done.stdout


def attempt(*command: str | Path) -> bool:
    """Run a command that may fail; says whether it succeeded."""
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    print(*missing_packages())
