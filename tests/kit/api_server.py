"""A Kubernetes API server with its etcd, for tests: what it refuses and stores is real; there is no node.

On demand with Kubernetes' own controllers, which make pods of StatefulSets and Deployments; nothing runs these pods.
"""

from __future__ import annotations

import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import pytest
import yaml

from e2e.cluster.build import KUBERNETES
from swapstats_cli.servers.tcp_ports import HOST, PortReservations
from tests.kit.children import spawn

READY_WITHIN_S = 60.0


class ApiServerMissingError(Exception):
    """It isn't built; the text says what to do."""


class ApiServer:
    """One etcd and one API server on ports of their own, with everything in ``folder``.

    Raises ApiServerMissingError where they aren't built.
    """

    def __init__(self, folder: Path) -> None:
        self._program = KUBERNETES.path
        if not self._program.exists():
            raise ApiServerMissingError("Kubernetes' servers are missing: make kubernetes (needs Go)")
        if shutil.which("openssl") is None:
            raise ApiServerMissingError("openssl, which makes a key for service accounts, isn't on the PATH")
        self._folder = folder
        self._ports = PortReservations(SystemRandom())
        self._etcd, self._peer, port = (self._ports.take() for _ in range(3))
        self.url = f"https://{HOST}:{port}"
        self.token = secrets.token_hex(16)
        self._port = port
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def authority(self) -> Path:
        """The certificate to trust: the server makes its own."""
        return self._folder / "apiserver.crt"

    def start(self) -> None:
        """Start both and wait until they serve."""
        etcd, peer = f"http://{HOST}:{self._etcd}", f"http://{HOST}:{self._peer}"
        self._spawn(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        key, tokens = self._folder / "service-accounts.key", self._folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        self._spawn(
            "kube-apiserver",
            *(f"--etcd-servers={etcd}", f"--bind-address={HOST}", f"--secure-port={self._port}"),
            *(f"--cert-dir={self._folder}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"),
        )
        self._wait()

    @property
    def kubeconfig(self) -> Path:
        """For clients that read such a file; they may do everything."""
        path = self._folder / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def start_controllers(self) -> None:
        """Start Kubernetes' controllers; they work a second or so later."""
        self._spawn(
            "kube-controller-manager",
            *(f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"),
            *(
                f"--service-account-private-key-file={self._folder / 'service-accounts.key'}",
                "--bind-address=127.0.0.1",
            ),
        )

    def client(self) -> httpx.Client:
        """A client that may do everything."""
        return httpx.Client(verify=self.tls, **self._options)

    def async_client(self) -> httpx.AsyncClient:
        """One for event loops."""
        return httpx.AsyncClient(verify=self.tls, **self._options)

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts the server's certificate."""
        return ssl.create_default_context(cafile=self.authority)

    @property
    def _options(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        return {"base_url": self.url, "headers": headers, "timeout": 30, "trust_env": False}

    def close(self) -> None:
        """End both for good."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._ports.release()

    def _spawn(self, server: str, *options: str) -> None:
        command = [str(self._program), server, *options]
        self._processes.append(spawn(command, self._folder / f"{server}.log"))

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._is_ready():
            for process in self._processes:
                assert process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.05)  # another process's readiness can't be awaited

    def _is_ready(self) -> bool:
        if not self.authority.exists():
            return False
        try:
            with self.client() as client:
                return client.get("/readyz").status_code == httpx.codes.OK
        except (httpx.TransportError, OSError):  # it doesn't listen yet, or has written half of its certificate
            return False

    def _said(self) -> str:
        return "\n".join(log.read_text()[-2_000:] for log in self._folder.glob("*.log"))


@contextmanager
def serving(folder: Path) -> Iterator[ApiServer]:
    """A running server for a fixture, which skips where there is none to be had."""
    try:
        server = ApiServer(folder)
    except ApiServerMissingError as error:
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.close()
