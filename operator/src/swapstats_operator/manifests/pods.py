"""What the pods of all components have in common: security, configuration, secrets, probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.names import HTTP, RESOURCE_KEY, REVISION, labels, selector
from swapstats_operator.revision import Revision, secret_refs

USER: Final = 65532
"""Of the images."""
_CONFIGURATION: Final = "/etc/swapstats"
SPEC: Final = f"{_CONFIGURATION}/{RESOURCE_KEY}"
_SECRETS: Final = f"{_CONFIGURATION}/secrets"


def pod_template(
    key: Key,
    component: str,
    revision_name: str,
    revision: Revision,
    container: Mapping[str, Any],
    *,
    secrets: Sequence[str],
    grace_s: int,
    folders: Mapping[str, str] | None = None,
) -> Manifest:
    """A pod that runs ``container`` with the revision's configuration.

    ``secrets``: the parts of the spec whose Secrets it gets, as in ``stores.redis``. ``folders``: empty folders that it
    may write, by volume.
    """
    writable = {"tmp": "/tmp"} | dict(folders or {})  # noqa: S108 - the container's own
    mounts = [
        {"name": "configuration", "mountPath": SPEC, "subPath": RESOURCE_KEY, "readOnly": True},
        *({"name": name, "mountPath": path} for name, path in writable.items()),
    ]
    volumes: list[Manifest] = [
        {
            "name": "configuration",
            "configMap": {
                "name": configuration(key, revision_name),
                "items": [{"key": RESOURCE_KEY, "path": RESOURCE_KEY}],
            },
        },
        *({"name": name, "emptyDir": {}} for name in writable),
    ]
    if sources := _secret_sources(revision, secrets):
        volumes.append({"name": "secrets", "projected": {"sources": sources}})
        mounts.append({"name": "secrets", "mountPath": _SECRETS, "readOnly": True})
    spread = {
        "labelSelector": {"matchLabels": selector(key, component)},
        "matchLabelKeys": [REVISION],  # pods that are about to go don't count: the new ones would end on one node
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
    }
    pull_secrets = {"imagePullSecrets": [{"name": name} for name in revision.pull_secrets]}
    return {
        "metadata": {"labels": labels(key, component) | {REVISION: revision_name}},
        "spec": {
            "serviceAccountName": key.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_s,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [spread],
            **(pull_secrets if revision.pull_secrets else {}),
            "containers": [
                {
                    "name": component,
                    "imagePullPolicy": revision.pull_policy,
                    "terminationMessagePolicy": "FallbackToLogsOnError",  # why it ended, for the conditions
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": mounts,
                    **container,
                }
            ],
            "volumes": volumes,
        },
    }


def configuration(key: Key, revision_name: str) -> str:
    """Name of a revision's ConfigMap."""
    return f"{key.name}-{revision_name}"


def port(number: int, name: str = "http") -> Manifest:
    """A container's port."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def probes() -> Manifest:
    """Whether a process lives, and whether it is ready; its port is named ``http``."""
    return {
        "livenessProbe": _probe("/healthz", period_s=10, failures=6),
        "readinessProbe": _probe("/readyz", period_s=2, failures=2),
    }


def service(base: Manifest, key: Key, component: str, ports: Iterable[tuple[str, int]], *, headless: bool) -> Manifest:
    """A Service of a component: ``ports`` are name and number; each leads to the container's port of that name."""
    spec: Manifest = {
        "selector": selector(key, component),
        "ports": [{"name": name, "port": number, "targetPort": name, "protocol": "TCP"} for name, number in ports],
    }
    if headless:  # nobody is sent there: names of pods, and what is scraped
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    return base | {"spec": spec}


def health_service(base: Manifest, key: Key, component: str) -> Manifest:
    """The headless Service by which a component's metrics are found."""
    return service(base, key, component, [("http", HTTP)], headless=True)


def disruption_budget(base: Manifest, key: Key, component: str) -> Manifest:
    """At most one pod at a time may be evicted."""
    return base | {"spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(key, component)}}}


def network_policy(base: Manifest, key: Key, component: str, ports: Iterable[int]) -> Manifest:
    """Nothing comes in but to these ports. Where it goes out to is the stores' matter."""
    ingress = [{"ports": [{"port": number, "protocol": "TCP"} for number in ports]}]
    return base | {
        "spec": {
            "podSelector": {"matchLabels": selector(key, component)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        }
    }


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _secret_sources(revision: Revision, sections: Sequence[str]) -> list[Manifest]:
    """Each key as the file ``<secret>/<key>``."""
    wanted: dict[str, set[str]] = {}
    for path, ref in secret_refs(revision.parsed.spec):
        if path.startswith(tuple(sections)):
            wanted.setdefault(ref.name, set()).add(ref.key)
    return [
        {"secret": {"name": name, "items": [_item(name, key) for key in sorted(keys)]}}
        for name, keys in sorted(wanted.items())
    ]


def _item(name: str, key: str) -> Manifest:
    return {"key": key, "path": f"{name}/{key}"}
