"""Helm, of both major versions, and what it makes of our charts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CHARTS = Path(__file__).parents[2] / "charts"
VERSIONS = (3, 4)


class HelmMissingError(Exception):
    """There is no Helm of that version; the text says what to do."""


class HelmRefusedError(Exception):
    """Helm's own words."""


def program(version: int) -> str:
    """The one that `make kubernetes` built, else one on the PATH. Raises HelmMissingError."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swapstats"
    if built := sorted(cache.glob(f"helm{version}-*/helm{version}")):
        return str(built[-1])
    for name in (f"helm{version}", "helm"):
        found = shutil.which(name)
        if found is not None and _run(found, "version", "--short").startswith(f"v{version}"):
            return found
    raise HelmMissingError(f"Helm {version} is missing: make kubernetes (needs Go), or put helm{version} on the PATH")


def render(version: int, chart: str, release: str, *options: str) -> str:
    """The manifests of a release in the namespace ``dev``; no blank lines, in which versions differ.

    Raises HelmMissingError and HelmRefusedError.
    """
    output = _run(program(version), "template", release, str(CHARTS / chart), "--namespace=dev", *options)
    return "".join(f"{line}\n" for line in output.splitlines() if line.strip())


def notes(chart: str, release: str) -> str:
    """What a person is told after an installation. By Helm 4: Helm 3 wants a cluster even for a dry run.

    Raises HelmMissingError and HelmRefusedError.
    """
    options = ("--namespace=dev", "--dry-run=client")
    return _run(program(4), "install", release, str(CHARTS / chart), *options).partition("NOTES:\n")[2]


def apply(version: int, chart: str, release: str, kubeconfig: Path, namespace: str, *options: str) -> None:
    """Install a release, or upgrade it. Raises HelmMissingError and HelmRefusedError."""
    to = (f"--kubeconfig={kubeconfig}", f"--namespace={namespace}")
    _run(program(version), "upgrade", "--install", release, str(CHARTS / chart), *to, *options)


def _run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise HelmRefusedError(ran.stderr)
    return ran.stdout
