"""API pods and recorders: they hold nothing, so Deployments replace them by themselves."""

from __future__ import annotations

from typing import Any, Final

from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.names import HTTP, selector
from swapstats_operator.manifests.pods import SPEC, pod_template, port, probes, requests
from swapstats_operator.revision import Revision

_API_GRACE_S: Final = 45
_RECORDER_GRACE_S: Final = 45
_API_LEAST: Final = {"cpu": "50m", "memory": "128Mi"}
_RECORDER_LEAST: Final = {"cpu": "50m", "memory": "256Mi"}
_LEAVE_S: Final = 5
"""How long a pod that ends goes on to serve: proxies and clients need a moment to learn that it does."""
_API_PORT: Final = 8080


def api_port(revision: Revision) -> int:
    """Port of the API. On a laptop 0 picks a free one; here all are."""
    return revision.parsed.spec.api.http.port or _API_PORT


def api_template(key: Key, name: str, revision: Revision) -> Manifest:
    """An API pod."""
    number = api_port(revision)
    container: dict[str, Any] = {
        "image": revision.images.api,
        "args": ["--spec", SPEC, "--host", "0.0.0.0", "--port", str(number)],  # noqa: S104 - the pod's own
        "ports": [port(number)],
        "resources": requests(revision.resource["spec"]["api"].get("resources", {}), _API_LEAST),
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_S}}},
        **probes(),
    }
    secrets = ("stores.redis.", "stores.nats.", "api.")
    return pod_template(key, "api", name, revision, container, secrets=secrets, grace_s=_API_GRACE_S)


def recorder_template(key: Key, name: str, revision: Revision) -> Manifest:
    """A recorder's pod."""
    container: dict[str, Any] = {
        "image": revision.images.aggregator,
        "command": ["python", "-P", "-m", "swapstats_aggregator.recorder"],
        "args": ["--spec", SPEC, "--http-host", "0.0.0.0", "--http-port", str(HTTP)],  # noqa: S104 - the pod's own
        "ports": [port(HTTP)],
        "resources": requests(revision.resource["spec"]["recorder"].get("resources", {}), _RECORDER_LEAST),
        **probes(),
    }
    secrets = ("source.", "stores.clickhouse.")
    return pod_template(key, "recorder", name, revision, container, secrets=secrets, grace_s=_RECORDER_GRACE_S)


def deployment(base: Manifest, key: Key, component: str, template: Manifest, replicas: int | None) -> Manifest:
    """A Deployment that takes a pod away only when its successor is ready. ``replicas`` None: an autoscaler's."""
    spec: Manifest = {
        "selector": {"matchLabels": selector(key, component)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    return base | {"spec": spec if replicas is None else spec | {"replicas": replicas}}


def autoscaler(base: Manifest, target: str, least: int, most: int, cpu_percent: int) -> Manifest:
    """As many API pods as their load asks for."""
    utilization = {"type": "Utilization", "averageUtilization": cpu_percent}
    return base | {
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
        }
    }
