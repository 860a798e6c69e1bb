"""A node of the cluster: a container runtime, a kubelet and a proxy in namespaces of their own.

The node's network, mounts and process ids are its own, held by one process. When that is killed the kernel ends
everything in the node and takes its mounts and its network away: that is how a node dies, and how it is cleaned up.
Places that these programs have built in (``/run``, ``/var/lib/kubelet``, …) are the node's own as well.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from e2e.cluster import cgroups
from e2e.cluster.build import KUBERNETES, PAUSE
from e2e.cluster.host import PLUGINS, attempt, run
from e2e.cluster.images import PAUSE_IMAGE
from e2e.cluster.network import Network
from e2e.cluster.processes import Processes, await_end, child_of, kill
from e2e.cluster.waiting import wait_until

VOLUMES: Final = 8
_MOUNT_POINTS: Final = (Path("/var/lib/kubelet"), Path("/var/lib/cni"))
"""They stay: to remove one takes the mounts on it away from the nodes of every cluster on this host."""
_RUNTIME_WITHIN_S: Final = 30.0

_CONTAINERD: Final = """\
version = 2
root = "{folder}/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no pod starts otherwise
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
"""


class Node:
    """The node of this index (from 1) among so many; its files are in a folder of its name."""

    def __init__(self, index: int, count: int, folder: Path, network: Network, processes: Processes) -> None:
        self.name = f"node-{index}"
        self._index, self._count = index, count
        self._folder = folder / self.name
        self._network = network
        self._processes = processes
        self._group = f"{network.bridge}-{self.name}"

    @property
    def alive(self) -> bool:
        """Whether all its processes run."""
        return all(self._processes.pid(name) is not None for name in self._names)

    @property
    def powered(self) -> bool:
        """Whether there is such a node, with whatever runs in it."""
        return self._processes.pid(self.name) is not None

    @property
    def volumes(self) -> list[Path]:
        """The folders of its persistent volumes."""
        return [self._folder / "volumes" / str(number) for number in range(1, VOLUMES + 1)]

    def boot(self) -> None:
        """Make its namespaces, wire it to the network and start its container runtime."""
        own = [self._folder / name for name in ("cni", "containerd", "kubelet", "log")]
        for folder in (*own, *self.volumes, *_MOUNT_POINTS):
            folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        cgroups.make(self._group)
        new = ("--net", "--mount", "--pid", "--mount-proc", "--propagation=private")
        self._processes.start(self.name, "unshare", *new, "--fork", "--kill-child", PAUSE.path)
        wait_until(self._is_made, _RUNTIME_WITHIN_S, f"{self.name} has no namespaces: see {self._log(self.name)}")
        self._run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self._run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni")
        self._run("mount", "--bind", self._folder / "kubelet", "/var/lib/kubelet")
        self._run("mount", "--bind", self._folder / "log", "/var/log")
        self._network.connect(self._index, self._count, self._init())
        self._start("containerd", "containerd", f"--config={self._folder / 'containerd.toml'}")
        wait_until(
            lambda: attempt(*self._inside(), "ctr", "version"),
            _RUNTIME_WITHIN_S,
            f"{self.name} has no container runtime: see {self._log(f'{self.name}.containerd')}",
        )

    def join(self) -> None:
        """Start what makes it a node of the cluster."""
        self.start_kubelet()
        self._start("kube-proxy", KUBERNETES.path, "kube-proxy", f"--config={self._folder / 'kube-proxy.json'}")

    def start_kubelet(self) -> None:
        self._start(
            "kubelet",
            *(KUBERNETES.path, "kubelet", f"--config={self._folder / 'kubelet.json'}"),
            f"--kubeconfig={self._folder / 'kubelet.kubeconfig'}",
            *(f"--hostname-override={self.name}", f"--node-ip={self._network.node(self._index)}"),
        )

    def kill_kubelet(self) -> None:
        """Kill its kubelet; the containers go on."""
        name = f"{self.name}.kubelet"
        outer = self._processes.pid(name)
        if outer is not None and (inner := child_of(outer)) is not None:
            await_end(kill(inner))
        self._processes.kill(name)

    def kill(self) -> None:
        """Cut its power: all its processes, mounts and networks are gone; what it has on disk stays."""
        init = child_of(outer) if (outer := self._processes.pid(self.name)) is not None else None
        if init is not None:
            await_end(kill(init))  # the last in its namespace to go
        self._processes.kill(self.name, *self._names)

    def remove(self) -> None:
        """Take away what it left on the host, once it is killed."""
        cgroups.remove(self._group)

    def load(self, archive: Path) -> None:
        """Give its runtime an image."""
        with archive.open("rb") as image:
            command = (*self._inside(), "ctr", "--namespace=k8s.io", "images", "import", "-")
            subprocess.run(command, stdin=image, check=True, capture_output=True)

    @property
    def _names(self) -> list[str]:
        return [self.name, *(f"{self.name}.{part}" for part in ("containerd", "kubelet", "kube-proxy"))]

    def _configure(self) -> None:
        # Pods are routed, not bridged: a service's answer passes the proxy's rules between two pods of a node, too.
        addresses = {"type": "host-local", "dataDir": "/run/addresses", "routes": [{"dst": "0.0.0.0/0"}]}
        ranges = {"ranges": [[{"subnet": self._network.pods_of(self._index)}]]}
        plugins = [
            {"type": "ptp", "ipam": addresses | ranges},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        self._write("cni/pods.conflist", {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})
        kubelet = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            # Whoever reaches it may command it: only this host and the pods do.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group}",
            "clusterDNS": [self._network.dns],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "nodeStatusUpdateFrequency": "2s",
            "oomScoreAdj": 0,
            "resolvConf": "",
        }
        self._write("kubelet.json", kubelet)
        proxy = {
            "kind": "KubeProxyConfiguration",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "clientConnection": {"kubeconfig": str(self._folder / "kube-proxy.kubeconfig")},
            "clusterCIDR": self._network.pods,  # the host isn't in it: its connections get the proxy's address
            "conntrack": {"maxPerCore": 0},
            "hostnameOverride": self.name,
            "mode": "iptables",
            "oomScoreAdj": 0,
        }
        self._write("kube-proxy.json", proxy)
        text = _CONTAINERD.format(folder=self._folder, pause=PAUSE_IMAGE, plugins=PLUGINS)
        (self._folder / "containerd.toml").write_text(text)

    def _write(self, name: str, document: object) -> None:
        (self._folder / name).write_text(json.dumps(document, indent=2))

    @property
    def root(self) -> int:
        """The process from which all in the node descend. Raises ProcessLookupError."""
        return self._init()

    def _init(self) -> int:
        """The process that holds the node's namespaces."""
        outer = self._processes.pid(self.name)
        init = None if outer is None else child_of(outer)
        if init is None:
            raise ProcessLookupError(f"{self.name} isn't there: see {self._log(self.name)}")
        return init

    def _is_made(self) -> bool:
        try:
            return Path(f"/proc/{self._init()}/comm").read_text().strip() == PAUSE.name
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self._init()}", "--net", "--mount", "--pid", "--")

    def _run(self, *command: str | Path) -> None:
        run(*self._inside(), *command)

    def _start(self, part: str, *command: str | Path) -> None:
        self._processes.start(f"{self.name}.{part}", *self._inside(), *command)

    def _log(self, name: str) -> Path:
        return self._processes.log(name)
