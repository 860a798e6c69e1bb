"""The cluster is a real one: pods, names, volumes, logs, evictions, and faults of nodes and of the API server."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from e2e.cluster import images
from e2e.cluster.cluster import Cluster
from e2e.cluster.host import run
from e2e.cluster.others import AnyCluster
from e2e.cluster.waiting import wait_until

SERVE = """
use IO::Socket::INET;
open(my $kept, ">", "/data/kept") or die "no volume: $!"; print $kept $ENV{POD}; close $kept;
$| = 1; print "serving\\n";
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 16, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    while (<$client>) { last if /^\\r\\n$/ } # what is left unread would reset the connection
    print $client "HTTP/1.0 200 OK\\r\\n\\r\\n$ENV{POD}";
}
"""
"""An HTTP server in the Perl that Debian's smallest image has."""

ASK = "exec 3<>/dev/tcp/$0/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n1 <&3"
SPACE = "smoke"


class Kubectl:
    """kubectl in the tests' namespace."""

    def __init__(self, cluster: AnyCluster) -> None:
        self.command = (cluster.kubectl, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={SPACE}")

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        return run(*self.command, *arguments, text=text)

    def node_of(self, pod: str) -> str:
        return self("get", f"pod/{pod}", "--output=jsonpath={.spec.nodeName}")

    def wait_for_node(self, node: str, ready: str, within: str) -> None:
        self("wait", f"--for=condition=Ready={ready}", f"node/{node}", f"--timeout={within}")

    def wait_for_pods(self) -> None:
        self("rollout", "status", "statefulset/web", "--timeout=120s")


def web(*, volume: bool) -> dict[str, object]:
    """Two pods that say their name, under the strictest of the standards for pods."""
    container = {
        "name": "web",
        "image": images.BASE,
        "imagePullPolicy": "Never",
        "command": ["perl", "-e", SERVE],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod: dict[str, object] = {
        "containers": [container],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 1,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }
        ],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "serviceName": "web",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": pod if volume else pod | {"volumes": [{"name": "data", "emptyDir": {}}]},
            },
            "volumeClaimTemplates": [claim] if volume else [],
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080}]},
}


@pytest.fixture(scope="module")
def kubectl(cluster: AnyCluster) -> Iterator[Kubectl]:
    cluster.load_image(images.base())
    kubectl = Kubectl(cluster)
    kubectl("create", "namespace", SPACE)
    kubectl("label", "namespace", SPACE, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("apply", "--filename=-", text=json.dumps(SERVICE))
    yield kubectl
    kubectl("delete", "namespace", SPACE, "--timeout=120s")


@pytest.fixture
def pods(kubectl: Kubectl) -> Iterator[list[str]]:
    """The pods of a stateful set, one on each node."""
    kubectl("apply", "--filename=-", text=json.dumps(web(volume=False)))
    kubectl.wait_for_pods()
    yield ["web-0", "web-1"]
    kubectl("delete", "statefulset/web", "--timeout=120s", "--cascade=foreground")


def answer(address: str, port: int = 8080) -> str:
    with urlopen(f"http://{address}:{port}", timeout=5) as reply:
        text: str = reply.read().decode()
    return text


def address_of(kubectl: Kubectl) -> str:
    return kubectl("get", "service/web", "--output=jsonpath={.spec.clusterIP}")


def answering(address: str) -> set[str]:
    """Who answers twenty requests to a service; nobody, if one of them fails."""
    try:
        return {answer(address) for _ in range(20)}
    except OSError:  # the proxy sends it to a pod that is gone, until it hears of that
        return set()


def wait_for_answers(address: str, pods: Iterable[str]) -> None:
    """Wait until the proxy knows these pods and no other."""
    wait_until(lambda: answering(address) == set(pods), 60, f"{address} isn't answered by {pods}")


def test_nodes_are_ready(cluster: AnyCluster, kubectl: Kubectl) -> None:
    assert len(cluster.nodes) >= 2
    for node in cluster.nodes:
        kubectl.wait_for_node(node, "True", "1s")


def test_pods_reach_a_service_by_its_name(kubectl: Kubectl, pods: list[str]) -> None:
    assert len({kubectl.node_of(pod) for pod in pods}) == 2
    for asking in pods:
        for pod in pods:  # by way of its own node, and across
            assert kubectl("exec", asking, "--", "bash", "-c", ASK, f"{pod}.web.{SPACE}.svc.cluster.local") == pod
        name = f"web.{SPACE}.svc.cluster.local"
        heard: set[str] = set()
        for _ in range(50):
            heard.add(kubectl("exec", asking, "--", "bash", "-c", ASK, name))
            if heard == set(pods):
                break
        assert heard == set(pods)


def test_host_reaches_pods_and_services(own_cluster: Cluster, kubectl: Kubectl, pods: list[str]) -> None:
    for pod in pods:
        assert answer(kubectl("get", f"pod/{pod}", "--output=jsonpath={.status.podIP}")) == pod
    address = address_of(kubectl)
    wait_for_answers(address, pods)


def test_logs_and_a_forwarded_port(kubectl: Kubectl, pods: list[str]) -> None:
    assert kubectl("logs", pods[0]) == "serving\n"
    with forwarded(kubectl, pods[1]) as port:
        assert answer("127.0.0.1", port) == pods[1]


@contextmanager
def forwarded(kubectl: Kubectl, pod: str) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with subprocess.Popen(
        [*kubectl.command, "port-forward", pod, f"{port}:8080"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "Forwarding" in process.stdout.readline()
        yield port
        process.terminate()


def test_pods_that_may_too_much_are_refused(kubectl: Kubectl) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kubectl("run", "root", f"--image={images.BASE}")
    assert "violates PodSecurity" in refused.value.stderr


def test_claims_get_volumes_that_outlive_pods(own_cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl("apply", "--filename=-", text=json.dumps(web(volume=True)))
    kubectl.wait_for_pods()
    places = {pod: kubectl.node_of(pod) for pod in ("web-0", "web-1")}
    kubectl("delete", "pod/web-0")
    kubectl.wait_for_pods()
    assert kubectl.node_of("web-0") == places["web-0"]
    assert kubectl("exec", "web-0", "--", "cat", "/data/kept") == "web-0"
    kubectl("delete", "statefulset/web", "--cascade=foreground")
    kubectl("delete", "persistentvolumeclaims", "--all")
    own_cluster.renew_volumes()
    assert set(kubectl("get", "pv", "--output=jsonpath={.items[*].status.phase}").split()) == {"Available"}


def test_a_drained_node_s_pods_go_to_the_other(cluster: AnyCluster, kubectl: Kubectl, pods: list[str]) -> None:
    drained = kubectl.node_of(pods[0])
    kubectl("drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
    kubectl.wait_for_pods()
    assert {kubectl.node_of(pod) for pod in pods}.isdisjoint({drained})
    kubectl("uncordon", drained)


def test_pods_go_on_without_their_kubelet(own_cluster: Cluster, kubectl: Kubectl, pods: list[str]) -> None:
    lost = kubectl.node_of(pods[1])
    address = kubectl("get", f"pod/{pods[1]}", "--output=jsonpath={.status.podIP}")
    own_cluster.kill_kubelet(lost)
    try:
        kubectl.wait_for_node(lost, "Unknown", "60s")
        assert answer(address) == pods[1]
        wait_for_answers(address_of(kubectl), [pods[0]])
    finally:
        own_cluster.start_kubelet(lost)
    kubectl.wait_for_node(lost, "True", "60s")
    kubectl.wait_for_pods()


def test_a_dead_node_is_noticed_and_comes_back(own_cluster: Cluster, kubectl: Kubectl, pods: list[str]) -> None:
    dead = own_cluster.nodes[0]  # through which the host reaches services, as long as it lives
    own_cluster.kill_node(dead)
    try:
        kubectl.wait_for_node(dead, "Unknown", "60s")
        wait_for_answers(address_of(kubectl), [pod for pod in pods if kubectl.node_of(pod) != dead])
    finally:
        own_cluster.start_node(dead)
    kubectl.wait_for_node(dead, "True", "60s")
    kubectl.wait_for_pods()
    wait_for_answers(address_of(kubectl), pods)


def test_services_go_on_without_the_api_server(own_cluster: Cluster, kubectl: Kubectl, pods: list[str]) -> None:
    address = address_of(kubectl)
    wait_for_answers(address, pods)
    own_cluster.stop_api_server()
    try:
        with pytest.raises(subprocess.CalledProcessError):
            kubectl("get", "pods")
        assert answering(address) == set(pods)
    finally:
        own_cluster.start_api_server()
    kubectl.wait_for_pods()
