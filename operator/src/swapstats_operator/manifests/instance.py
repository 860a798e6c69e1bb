"""All objects of an instance."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from swapstats_core.spec import SwapStatsSpec
from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests import deployments, monitoring, shards
from swapstats_operator.manifests.names import HTTP, RESOURCE_KEY, REVISION, REVISION_KEY, owned
from swapstats_operator.manifests.pods import (
    configuration,
    disruption_budget,
    health_service,
    network_policy,
    ports_of,
    service,
)
from swapstats_operator.revision import Revision, encode_revision, named

Make = Callable[[str, str, str, str], Manifest]
"""Begins a manifest: component, apiVersion, kind, name."""


def name_of(key: Key, revision: Revision) -> str:
    """A revision's name. It depends on the pods' templates too, so that a newer operator's pods are told apart."""
    make = (shards.shard_template, deployments.api_template, deployments.recorder_template)
    return named(revision, [template(key, "", revision) for template in make])


def config_map(key: Key, owner: Mapping[str, Any], name: str, revision: Revision) -> Manifest:
    """What a revision's processes read, and the revision itself."""
    base = owned(key, owner, "configuration", "v1", "ConfigMap", configuration(key, name))
    base["metadata"]["labels"][REVISION] = name
    read = msgspec.json.format(msgspec.json.encode(revision.resource, order="sorted")).decode()
    return base | {"immutable": True, "data": {RESOURCE_KEY: read, REVISION_KEY: encode_revision(revision).decode()}}


def _budget(make: Make, key: Key, component: str) -> Manifest:
    return make(component, "policy/v1", "PodDisruptionBudget", f"{key.name}-{component}")


def instance(
    key: Key,
    owner: Mapping[str, Any],
    spec: SwapStatsSpec,
    name: str,
    revision: Revision,
    replicas: int,
    *,
    before: Revision | None = None,
    monitors: Collection[str],
) -> Iterator[Manifest]:
    """Every object. ``spec`` says how many and how they are run, ``revision`` what; ``replicas``: shards to have now.
    ``before``: what pods may still have. ``monitors``: which of `monitoring.KINDS`.

    Order: what pods need comes first.
    """
    make = partial(owned, key, owner)
    revisions = [revision] if before is None else [revision, before]

    def policy(component: str, port: int, *sections: str) -> Manifest:
        base = make(component, "networking.k8s.io/v1", "NetworkPolicy", f"{key.name}-{component}")
        network = spec.network
        reached = ports_of(sections, revisions).union(network.egress_ports) if network.egress == "stores" else None
        return network_policy(base, key, component, [port], reached)

    yield config_map(key, owner, name, revision)
    yield make("instance", "v1", "ServiceAccount", key.name) | {"automountServiceAccountToken": False}

    yield health_service(make("shard", "v1", "Service", f"{key.name}-shards"), key, "shard")
    yield policy("shard", HTTP, "source", "redis", "nats")
    yield disruption_budget(_budget(make, key, "shard"), key, "shard")
    stateful_set = make("shard", "apps/v1", "StatefulSet", f"{key.name}-shard")
    yield shards.stateful_set(stateful_set, key, name, revision, replicas)

    number = deployments.api_port(revision)
    api = f"{key.name}-api"
    yield service(make("api", "v1", "Service", api), key, "api", [("http", number)], headless=False)
    yield policy("api", number, "redis", "nats")
    yield disruption_budget(_budget(make, key, "api"), key, "api")
    scaling = spec.api.autoscaling
    template = deployments.api_template(key, name, revision)
    wanted = None if scaling.enabled else spec.api.replicas
    yield deployments.deployment(make("api", "apps/v1", "Deployment", api), key, "api", template, wanted)
    if scaling.enabled:
        base = make("api", "autoscaling/v2", "HorizontalPodAutoscaler", api)
        yield deployments.autoscaler(base, api, scaling.min_replicas, scaling.max_replicas, scaling.cpu_percent)

    recorder = f"{key.name}-recorder"
    yield health_service(make("recorder", "v1", "Service", recorder), key, "recorder")
    yield policy("recorder", HTTP, "source", "clickhouse")
    template = deployments.recorder_template(key, name, revision)
    base = make("recorder", "apps/v1", "Deployment", recorder)
    yield deployments.deployment(base, key, "recorder", template, spec.recorder.replicas)

    for kind in monitors:
        yield monitoring.KINDS[kind](make("instance", monitoring.GROUP_VERSION, kind, key.name), key)
