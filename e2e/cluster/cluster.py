"""A whole Kubernetes cluster on this host, of two nodes: started, stopped, and made to fail.

Needs root, a few packages (`host.check` names what is missing) and Go, but no Docker and no registry. Pods reach each
other, services and the host, and nothing beyond it. The host reaches pods and services.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from e2e.cluster import host, images, network
from e2e.cluster.build import HELM3, HELM4, KUBERNETES, build, cache
from e2e.cluster.host import run
from e2e.cluster.node import Node
from e2e.cluster.processes import Processes
from e2e.cluster.waiting import wait_until

FOLDER: Final = cache() / "cluster"
_NODES: Final = 2
_RECORD: Final = "network"
_READY_WITHIN_S: Final = 120.0
_GRACE_S: Final = 20
"""A node that is silent for so long isn't ready,"""
_EVICTED_AFTER_S: Final = 30
"""... and after so long again its pods are made anew elsewhere."""
_SERVERS: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class Cluster:
    """The cluster whose files are all in ``folder`` (not below ``/run``, ``/var/log`` or ``/var/lib/kubelet``, of which
    nodes have their own). Another object with the same folder is the same cluster, also in another process.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder.resolve()
        self._processes = Processes(self._folder)
        self.kubeconfig = self._folder / "kubeconfig"
        self.bin = self._folder / "bin"
        self.kubectl, self.helm, self.helm4 = (self.bin / name for name in ("kubectl", "helm", "helm4"))

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether the folder has a cluster, running or not."""
        return (folder / _RECORD).exists()

    @property
    def nodes(self) -> list[str]:
        """Their names."""
        return [node.name for node in self._nodes]

    def start(self) -> None:
        """Bring it up, unless it is. Returns once both nodes are ready and names are resolved.

        Raises HostError, or TimeoutError saying whose log to read.
        """
        host.check()
        if self._is_up():
            return
        self.stop()
        shutil.rmtree(self._folder / "logs", ignore_errors=True)
        infrastructure = images.infrastructure()
        self._make_commands()
        net = network.free()
        self._record.write_text(str(net.number))
        net.make(_NODES)
        self._issue()
        self._start_etcd()
        self._start_api_server()
        for node in self._nodes:
            node.boot()
        for image in infrastructure:
            self.load_image(image)
        self._wait_for_api_server()
        self._write_kubeconfig(self.kubeconfig, "admin")
        self._start_controllers()
        for node in self._nodes:
            node.join()
        net.route_services(1)
        self._furnish()
        names = [f"node/{name}" for name in self.nodes]
        self._wait("wait", "--for=create", *names)
        self._wait("wait", "--for=condition=Ready", *names)
        self._wait("rollout", "status", "--namespace=kube-system", "deployment/coredns")

    def stop(self) -> None:
        """Take everything away but the logs: also what a start that failed, or was killed, left behind."""
        if self._record.exists():
            for node in self._nodes:
                node.kill()
            self._processes.kill(*self._processes.names())
            for node in self._nodes:
                node.remove()
            self._network.remove(_NODES)
        for path in self._folder.glob("*"):
            if path.is_dir() and path.name != "logs":
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def load_image(self, archive: Path) -> None:
        """Give both nodes an image, from an archive of buildah, podman or Docker."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda node: node.load(archive), self._nodes))

    def kill_kubelet(self, name: str) -> None:
        """Kill a node's kubelet: the cluster loses sight of the node, whose containers go on."""
        self._node(name).kill_kubelet()

    def start_kubelet(self, name: str) -> None:
        self._node(name).start_kubelet()

    def kill_node(self, name: str) -> None:
        """Cut a node's power: kubelet and containers are dead, its addresses are silent, its disk is kept."""
        self._node(name).kill()
        alive = [index for index, node in enumerate(self._nodes, 1) if node.powered]
        if alive:
            self._network.route_services(alive[0])

    def start_node(self, name: str) -> None:
        """Give it power again; it comes back by itself."""
        self._node(name).boot()
        self._node(name).join()

    def kill_processes(self, variable: str) -> None:
        """SIGKILL the containers' processes in whose environment ``NAME=value`` is."""
        wanted, roots = variable.encode(), {node.root for node in self._nodes}
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended
                if wanted in environment.read_bytes().split(b"\0") and _descends(environment.parent, roots):
                    os.kill(int(environment.parent.name), signal.SIGKILL)

    def stop_api_server(self) -> None:
        self._processes.kill("kube-apiserver")

    def start_api_server(self) -> None:
        """Start it again, and wait until it serves."""
        self._start_api_server()
        self._wait_for_api_server()

    def renew_volumes(self) -> None:
        """Empty the volumes whose claims were deleted, and offer them again: nothing else does that for local ones."""
        volumes = json.loads(self._kubectl("get", "persistentvolumes", "--output=json"))["items"]
        for volume in volumes:
            if volume["status"]["phase"] == "Released":
                self._kubectl("delete", f"persistentvolume/{volume['metadata']['name']}")
                folder = Path(volume["spec"]["local"]["path"])
                shutil.rmtree(folder)
                folder.mkdir()
        self._offer_volumes()

    @property
    def _record(self) -> Path:
        return self._folder / _RECORD

    @property
    def _network(self) -> network.Network:
        return network.Network(int(self._record.read_text()))

    @property
    def _nodes(self) -> list[Node]:
        return [Node(index, _NODES, self._folder, self._network, self._processes) for index in range(1, _NODES + 1)]

    def _node(self, name: str) -> Node:
        return next(node for node in self._nodes if node.name == name)

    def _is_up(self) -> bool:
        return (
            self._record.exists()
            and all(node.alive for node in self._nodes)
            and all(self._processes.pid(server) is not None for server in _SERVERS)
            and self._api_server_is_ready()
        )

    def _make_commands(self) -> None:
        """Clients that know this cluster, and forget what they know with it: another may have its address."""
        self.bin.mkdir(parents=True, exist_ok=True)
        variables = f'KUBECACHEDIR="{self._folder}/cache" KUBECONFIG="${{KUBECONFIG:-{self.kubeconfig}}}"'
        programs = (
            (self.kubectl, f"{build(KUBERNETES)} kubectl"),
            (self.helm, build(HELM3)),
            (self.helm4, build(HELM4)),
        )
        for command, program in programs:
            command.write_text(f'#!/bin/sh\n{variables} exec {program} "$@"\n')
            command.chmod(0o755)

    def _issue(self) -> None:
        """Make the key that signs service accounts, and a secret for everybody who may ask the API server."""
        run("openssl", "genrsa", "-out", self._folder / "service-accounts.key", "2048")
        users = {"admin": "system:masters"}
        users |= {f"system:{name}": "" for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy")}
        users |= {f"system:node:{name}": "system:nodes" for name in self.nodes}
        lines = [f'{secrets.token_hex(16)},{user},{user},"{group}"' for user, group in users.items()]
        self._tokens.touch(mode=0o600)
        self._tokens.write_text("\n".join(lines) + "\n")

    @property
    def _tokens(self) -> Path:
        return self._folder / "tokens.csv"

    def _write_kubeconfig(self, path: Path, user: str) -> None:
        token = next(line.split(",")[0] for line in self._tokens.read_text().splitlines() if f",{user}," in line)
        authority = base64.b64encode(self._authority.read_bytes()).decode()
        server = {"server": self._url, "certificate-authority-data": authority}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "swapstats", "cluster": server}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "swapstats", "context": {"cluster": "swapstats", "user": user}}],
            "current-context": "swapstats",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))

    @property
    def _authority(self) -> Path:
        """The API server's certificate, which it makes itself."""
        return self._folder / "certificates" / "apiserver.crt"

    def _start_etcd(self) -> None:
        client, peer = (f"http://{self._network.loopback}:{port}" for port in (2379, 2380))
        self._serve(
            "etcd",
            *(f"--data-dir={self._folder / 'etcd'}", "--unsafe-no-fsync", f"--initial-cluster=default={peer}"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        )

    def _start_api_server(self) -> None:
        key = self._folder / "service-accounts.key"
        self._serve(
            "kube-apiserver",
            *(f"--etcd-servers=http://{self._network.loopback}:2379", f"--cert-dir={self._authority.parent}"),
            *(f"--bind-address={self._network.host}", "--secure-port=6443", "--allow-privileged"),
            *(f"--token-auth-file={self._tokens}", "--authorization-mode=Node,RBAC"),
            "--enable-admission-plugins=NodeRestriction",
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={self._network.services}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--default-not-ready-toleration-seconds={_EVICTED_AFTER_S}",
            f"--default-unreachable-toleration-seconds={_EVICTED_AFTER_S}",
        )

    def _wait_for_api_server(self) -> None:
        log = self._processes.log("kube-apiserver")
        wait_until(self._api_server_is_ready, _READY_WITHIN_S, f"the API server doesn't serve: see {log}")

    def _api_server_is_ready(self) -> bool:
        anybody = ssl.create_default_context()
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE  # its certificate may be half written
        try:
            with urlopen(f"{self._url}/readyz", context=anybody, timeout=5) as reply:
                return bool(reply.status == HTTPStatus.OK)
        except OSError:  # it doesn't listen yet, or says that it isn't ready
            return False

    @property
    def _url(self) -> str:
        return f"https://{self._network.host}:6443"

    def _start_controllers(self) -> None:
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._write_kubeconfig(self._folder / f"{name}.kubeconfig", f"system:{name}")
        for name in self.nodes:
            self._write_kubeconfig(self._folder / name / "kubelet.kubeconfig", f"system:node:{name}")
            self._write_kubeconfig(self._folder / name / "kube-proxy.kubeconfig", "system:kube-proxy")
        common = ("--leader-elect=false", f"--bind-address={self._network.loopback}")
        self._serve(
            "kube-controller-manager",
            *(*common, f"--kubeconfig={self._folder / 'kube-controller-manager.kubeconfig'}"),
            f"--service-account-private-key-file={self._folder / 'service-accounts.key'}",
            *(f"--root-ca-file={self._authority}", "--use-service-account-credentials"),
            *(f"--node-monitor-grace-period={_GRACE_S}s", "--node-monitor-period=2s"),
        )
        self._serve("kube-scheduler", *common, f"--kubeconfig={self._folder / 'kube-scheduler.kubeconfig'}")

    def _serve(self, server: str, *options: str) -> None:
        self._processes.start(server, KUBERNETES.path, server, *options)

    def _furnish(self) -> None:
        names = (Path(__file__).resolve().parent / "coredns.yaml").read_text()
        names = names.replace("IMAGE", images.COREDNS_IMAGE).replace("ADDRESS", self._network.dns)
        self._kubectl("apply", "--filename=-", text=names)
        storage = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        self._kubectl("apply", "--filename=-", text=json.dumps(storage))
        self._offer_volumes()

    def _offer_volumes(self) -> None:
        volumes = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{node.name}-{folder.name}"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "10Gi"},
                    "local": {"path": str(folder)},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [_is_on(node.name)]}]}},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "standard",
                },
            }
            for node in self._nodes
            for folder in node.volumes
        ]
        self._kubectl("apply", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": volumes}))

    def _wait(self, *command: str) -> None:
        self._kubectl(*command, f"--timeout={_READY_WITHIN_S:.0f}s")

    def _kubectl(self, *command: str, text: str | None = None) -> str:
        return run(self.kubectl, f"--kubeconfig={self.kubeconfig}", *command, text=text)


def _descends(process: Path, roots: set[int]) -> bool:
    """Whether a process is below one of these."""
    while (pid := int(process.name)) > 1:
        if pid in roots:
            return True
        # Behind the name, which may hold anything: state and parent.
        process = Path("/proc") / (process / "stat").read_text().rpartition(")")[2].split()[1]
    return False


def _is_on(node: str) -> object:
    return {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
