"""What the pods of all components have in common: security, configuration, secrets, probes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.names import HTTP, RESOURCE_KEY, REVISION, labels, selector
from swapstats_operator.revision import Revision, secret_refs

USER: Final = 65532
"""Of the images."""
_CONFIGURATION: Final = "/etc/swapstats"
SPEC: Final = f"{_CONFIGURATION}/{RESOURCE_KEY}"
_SECRETS: Final = f"{_CONFIGURATION}/secrets"
_LIMITS: Final = {"tmp": "64Mi", "state": "32Gi"}
"""Of the folders that a pod may write, so that it can't fill its node's disk. In ``state`` is a copy of what Redis has
of the shard's partitions: a day of 1,000 swaps a second is 3 GB over all shards.
"""
_DNS_PORTS: Final = (53, 5353)
"""A policy sees the port of the DNS server's pod, which isn't its Service's everywhere."""
_PORTS: Final = {"redis": 6379, "rediss": 6379, "nats": 4222, "tls": 4222, "http": 80, "https": 443}
"""Of addresses that name none."""


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
        *({"name": name, "emptyDir": {"sizeLimit": _LIMITS[name]}} for name in writable),
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
                    "terminationMessagePolicy": "FallbackToLogsOnError",  # for `observed.Pod.last_words`
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


def network_policy(
    base: Manifest, key: Key, component: str, ports: Iterable[int], reached: Collection[int] | None
) -> Manifest:
    """Nothing comes in but to ``ports``, and nothing goes out but to DNS servers and to the ports ``reached``; None:
    where it goes out to isn't bounded.
    """
    spec: Manifest = {
        "podSelector": {"matchLabels": selector(key, component)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": number, "protocol": "TCP"} for number in ports]}],
    }
    if reached is not None:
        dns = [{"port": number, "protocol": protocol} for number in _DNS_PORTS for protocol in ("UDP", "TCP")]
        stores = [{"port": number, "protocol": "TCP"} for number in sorted(reached)]
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": [{"ports": dns}, {"ports": stores}]}
    return base | {"spec": spec}


def ports_of(sections: Sequence[str], revisions: Iterable[Revision]) -> set[int]:
    """TCP ports of the addresses in these parts of the spec: ``source``, ``redis``, ``nats``, ``clickhouse``."""
    found = set[int]()
    for revision in revisions:
        spec = revision.parsed.spec
        stores = spec.stores
        urls = {"redis": stores.redis.url, "nats": stores.nats.url, "clickhouse": stores.clickhouse.url}
        for section in sections:
            if section == "source":
                found |= {int(broker.rpartition(":")[2]) for broker in spec.source.brokers}
            else:
                found |= {_port(url) for url in urls[section].split(",")}
            if section == "redis" and stores.redis.sentinel_master:
                found.add(_PORTS["redis"])
    return found


def requests(given: Mapping[str, Any], least: Mapping[str, str]) -> Manifest:
    """A container's resources: as given, with ``least`` where neither a request nor a limit is, so that the scheduler
    knows that there is a process, and an autoscaler what its load is measured by.
    """
    missing = {name: amount for name, amount in least.items() if name not in given.get("limits", {})}
    return {**given, "requests": missing | given.get("requests", {})}


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or _PORTS[parts.scheme]


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
