"""Clusters that somebody else makes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final, Protocol

from e2e.cluster.host import HostError, attempt, run

_KIND: Final = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
"""


class AnyCluster(Protocol):
    """What tests can do with every cluster."""

    kubeconfig: Path
    kubectl: Path

    @property
    def nodes(self) -> list[str]:
        """Their names."""
        ...

    def load_image(self, archive: Path) -> None:
        """Let pods use an image."""
        ...


class Given:
    """A cluster that is there. It has its images from wherever it has them."""

    def __init__(self, kubeconfig: Path) -> None:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise HostError("a given cluster needs kubectl on the PATH")
        self.kubeconfig = kubeconfig
        self.kubectl = Path(kubectl)

    @property
    def nodes(self) -> list[str]:
        names = run(self.kubectl, f"--kubeconfig={self.kubeconfig}", "get", "nodes", "--output=name")
        return [name.removeprefix("node/") for name in names.splitlines()]

    def load_image(self, archive: Path) -> None:
        """Does nothing: whoever gives a cluster gives it the images."""


class Kind(Given):
    """A cluster in Docker. Not tried where this was written: there is no Docker."""

    def __init__(self, name: str = "swapstats") -> None:
        super().__init__(Path(tempfile.mkdtemp()) / "kubeconfig")
        self._name = f"--name={name}"

    @staticmethod
    def works() -> bool:
        """Whether there is kind, and a Docker that answers."""
        return shutil.which("kind") is not None and shutil.which("docker") is not None and attempt("docker", "info")

    def start(self) -> None:
        run("kind", "create", "cluster", self._name, f"--kubeconfig={self.kubeconfig}", "--config=-", text=_KIND)

    def stop(self) -> None:
        run("kind", "delete", "cluster", self._name)
        shutil.rmtree(self.kubeconfig.parent)

    def load_image(self, archive: Path) -> None:
        run("kind", "load", "image-archive", self._name, archive)
