"""The shards: a StatefulSet whose pods only the operator replaces."""

from __future__ import annotations

from typing import Any, Final

from swapstats_core.wire import DRAIN_S, FINAL_SNAPSHOTS_S
from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.names import HTTP, selector
from swapstats_operator.manifests.pods import SPEC, pod_template, port, probes, requests
from swapstats_operator.revision import Revision

COMPONENT: Final = "shard"
GRACE_S: Final = round(1.8 * (DRAIN_S + FINAL_SNAPSHOTS_S))
"""Time to hand partitions over, and for final snapshots; twice as much, nearly."""
_LEAST: Final = {"cpu": "100m", "memory": "256Mi"}
_STATE: Final = "/var/lib/swapstats"


def shard_template(key: Key, name: str, revision: Revision) -> Manifest:
    """A shard's pod. Its number is the one that the StatefulSet gives it."""
    index = {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}
    arguments = ["--spec", SPEC, "--shard", "shard-$(POD_INDEX)", "--state-dir", _STATE]
    container: dict[str, Any] = {
        "image": revision.images.aggregator,
        "args": [*arguments, "--http-host", "0.0.0.0", "--http-port", str(HTTP)],  # noqa: S104 - the pod's own
        "env": [{"name": "POD_INDEX", "valueFrom": index}],
        "ports": [port(HTTP)],
        "resources": requests(revision.resource["spec"]["shards"].get("resources", {}), _LEAST),
        # Partitions leave before the process is told to stop, whoever ends the pod.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drained", "port": "http"}}},
        **probes(),
    }
    secrets = ("source.", "stores.redis.", "stores.nats.")
    folders = {"state": _STATE}
    return pod_template(key, COMPONENT, name, revision, container, secrets=secrets, grace_s=GRACE_S, folders=folders)


def stateful_set(base: Manifest, key: Key, name: str, revision: Revision, replicas: int) -> Manifest:
    """OnDelete: a pod is replaced when the operator deletes it, after it was drained."""
    return base | {
        "spec": {
            "replicas": replicas,
            "serviceName": f"{key.name}-shards",
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": selector(key, COMPONENT)},
            "template": shard_template(key, name, revision),
        }
    }
