"""Build a cluster's programs from their own modules, into the user's cache (`make kubernetes`).

    python -m e2e.cluster.build [PROGRAM...]    # all: quick when they are there; the first time 12 minutes on 2 cores

Go fetches the modules, from wherever its settings say, and holds each against ``go.sum``; nothing here records an
address (see ADR 0005). Another version: edit ``go.mod`` in the program's folder and run `go mod tidy` there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BUILD_WITHIN_S: Final = 3_600


@dataclass(frozen=True)
class Program:
    """A Go program: its name is that of its folder here, and of the file."""

    name: str
    module: str = ""
    """Whose version it has; without one it is all ours."""
    package: str = "."
    told: str = ""
    """The Go package whose variables tell the version."""

    @property
    def sources(self) -> Path:
        """The folder with its ``go.mod``."""
        return Path(__file__).resolve().parent / self.name

    @property
    def version(self) -> str:
        """As in ``1.34.4``."""
        if not self.module:
            return "0"
        found = re.search(rf"^(?:require |\t){self.module} v(\S+)", self._text("go.mod"), re.MULTILINE)
        assert found is not None, f"{self.name}/go.mod requires {self.module}"
        return found[1]

    @property
    def path(self) -> Path:
        """Where it is once it is built: each set of sources has its own."""
        files = sorted(file for file in self.sources.iterdir() if file.name in {"go.mod", "go.sum", "main.go"})
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        return cache() / f"{self.name}-{self.version}-{digest[:12]}" / self.name

    def compile(self, into: Path) -> None:
        """Let Go fetch and compile. Ends the process with a sentence when it can't."""
        go = shutil.which("go")
        if go is None:
            sys.exit("Go is needed to build a cluster's programs: there is no go on the PATH (1.26 or newer)")
        parts = self.version.split(".")
        told = (
            {"gitVersion": f"v{self.version}", "gitMajor": parts[0], "gitMinor": parts[1], "gitTreeState": "clean"}
            if self.told
            else {}
        )
        flags = " ".join(f"-X {self.told}.{name}={value}" for name, value in told.items())
        command = [go, "build", "-trimpath", "-mod=readonly", f"-ldflags=-s -w {flags}", "-o", str(into), self.package]
        environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        try:
            subprocess.run(command, check=True, cwd=self.sources, env=environment, timeout=_BUILD_WITHIN_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            sys.exit(f"{self.name} can't be built, see above ({error}). Is there a network, or a module proxy?")

    def _text(self, name: str) -> str:
        return (self.sources / name).read_text()


KUBERNETES: Final = Program("kubernetes", "k8s.io/kubernetes", told="k8s.io/component-base/version")
HELM3: Final = Program("helm3", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm")
HELM4: Final = Program("helm4", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm")
COREDNS: Final = Program("coredns", "github.com/coredns/coredns", "github.com/coredns/coredns")
PAUSE: Final = Program("pause")
PROGRAMS: Final = (KUBERNETES, HELM3, HELM4, COREDNS, PAUSE)


def cache() -> Path:
    """Where what took long is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swapstats"


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """The file ``path``, which ``make`` writes if it isn't there: once, whoever else wants it, and in whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            fresh = path.with_suffix(".new")
            make(fresh)
            fresh.rename(path)
    return path


def build(program: Program) -> Path:
    """The program, compiled unless it is there."""
    if not program.path.exists():
        print(f"{program.name}: building version {program.version}, some minutes the first time", flush=True)
    return made(program.path, program.compile)


def build_all() -> None:
    """All programs."""
    for program in PROGRAMS:
        build(program)


def main() -> None:
    """Build those that are named, or all."""
    for program in PROGRAMS:
        if program.name in sys.argv[1:] or not sys.argv[1:]:
            build(program)
            print(f"{program.name}: version {program.version} is in {program.path.parent}")


if __name__ == "__main__":
    main()
