"""Build Kubernetes' servers from their own modules, into the user's cache (`make kubernetes`).

    python -m e2e.cluster.build    # quick when they are there already; the first time 7 minutes on 2 cores

Go fetches the modules, from wherever its settings say, and holds each against ``go.sum``; nothing here records an
address (see ADR 0005). Another version: edit ``kubernetes/go.mod`` and run `go mod tidy` there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent / "kubernetes"
_SOURCES: Final = ("go.mod", "go.sum", "main.go")
_BUILD_WITHIN_S: Final = 3_600


def version() -> str:
    """Kubernetes' version, as in ``1.34.4``."""
    found = re.search(r"^(?:require |\t)k8s\.io/kubernetes v(\S+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod requires Kubernetes"
    return found[1]


def program() -> Path:
    """Where the program is once it is built: each set of sources has its own."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in _SOURCES)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "swapstats" / f"kubernetes-{version()}-{digest[:12]}" / "kubernetes"


def build(into: Path) -> None:
    """Let Go fetch and compile. Ends the process with a sentence when it can't."""
    go = shutil.which("go")
    if go is None:
        sys.exit("Go is needed to build Kubernetes' servers: there is no go on the PATH (1.24 or newer)")
    parts = version().split(".")
    told = {"gitVersion": f"v{version()}", "gitMajor": parts[0], "gitMinor": parts[1], "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in told.items())
    command = [go, "build", "-trimpath", "-mod=readonly", f"-ldflags=-s -w {flags}", "-o", str(into), "."]
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    try:
        subprocess.run(command, check=True, cwd=HERE, env=environment, timeout=_BUILD_WITHIN_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"Kubernetes' servers can't be built, see above ({error}). Is there a network, or a module proxy?")


def main() -> None:
    """Build unless it is done."""
    wanted = program()
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with (wanted.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            print(f"kubernetes: building version {version()}, some minutes the first time", flush=True)
            fresh = wanted.with_suffix(".new")
            build(fresh)
            fresh.rename(wanted)
    print(f"kubernetes: version {version()} is in {wanted.parent}")


if __name__ == "__main__":
    main()
