"""The manifests of an instance as YAML, for reading: what is applied, and that what follows from the spec is in it.

After a wanted change: SWAPSTATS_GOLDEN=write .venv/bin/pytest tests/operator/test_manifests.py
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from swapstats_aggregator.metrics import ShardMetrics
from swapstats_core.naming import with_names
from swapstats_core.spec import SwapStatsResource
from swapstats_operator.cluster import Key, Manifest
from swapstats_operator.manifests.instance import instance, name_of
from swapstats_operator.manifests.monitoring import KINDS
from swapstats_operator.manifests.names import RESOURCE_KEY, REVISION_KEY
from swapstats_operator.manifests.pods import requests
from swapstats_operator.revision import Images, decode_revision, revision_of, secret_refs
from tests.kit.authority import certificates

GOLDEN = Path(__file__).parent / "manifests"
KEY = Key("trading", "mainnet")
UID = "1"
OWNER = {"apiVersion": "swapstats.io/v1alpha1", "kind": "SwapStats", "name": "mainnet", "uid": UID}
IMAGES = Images("swapstats/aggregator:1", "swapstats/api:1")
SECRETS: Mapping[str, Mapping[str, bytes] | None] = {
    "redis": {"password": b"x"},
    "kafka": {"password": b"y"},
    "clickhouse": None,
}
EVERYTHING: dict[str, Any] = {
    "source": {"sasl": {"username": "u", "secretRef": {"name": "kafka", "key": "password"}}},
    "images": {"aggregator": "mine:2", "pullPolicy": "Always", "pullSecrets": ["registry"]},
    "shards": {"replicas": 5, "resources": {"requests": {"cpu": "2"}}},
    "recorder": {"replicas": 2},
    "api": {
        "autoscaling": {"enabled": True},
        "http": {"port": 80},
    },
    "stores": {
        "redis": {"secretRef": {"name": "redis", "key": "password"}},
        "clickhouse": {"secretRef": {"name": "clickhouse", "key": "password"}},
    },
}
CERTIFICATE = certificates("authority", "client")
ENCRYPTED: dict[str, Any] = {
    "source": {"tls": CERTIFICATE},
    "stores": {
        "redis": {"url": "rediss://redis", "tls": CERTIFICATE},
        "nats": {"url": "tls://nats", "tls": {"enabled": True, "caRef": CERTIFICATE["caRef"]}},
        "clickhouse": {"url": "https://clickhouse", "tls": CERTIFICATE},
    },
}
SPECS: dict[str, dict[str, Any]] = {"default": {}, "everything": EVERYTHING}


def resource(spec: dict[str, Any]) -> SwapStatsResource:
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    return with_names(SwapStatsResource.model_validate({"metadata": metadata, "spec": spec}))


def manifests(spec: dict[str, Any], *, monitors: Collection[str] = tuple(KINDS)) -> list[Manifest]:
    wanted = resource(spec)
    revision = revision_of(wanted, IMAGES, SECRETS, "", UID)
    replicas = wanted.spec.shards.replicas
    return list(instance(KEY, OWNER, wanted.spec, name_of(KEY, revision), revision, replicas, monitors=monitors))


def name(
    spec: dict[str, Any],
    *,
    restart: str = "",
    images: Images = IMAGES,
    secrets: Mapping[str, Mapping[str, bytes] | None] = SECRETS,
    salt: str = UID,
) -> str:
    return name_of(KEY, revision_of(resource(spec), images, secrets, restart, salt))


@pytest.mark.parametrize("which", SPECS)
def test_manifests_are_as_they_were(which: str) -> None:
    rendered = yaml.safe_dump_all(manifests(SPECS[which]), sort_keys=False, width=120)
    golden = GOLDEN / f"{which}.yaml"
    if os.environ.get("SWAPSTATS_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert rendered == golden.read_text()


def test_everything_belongs_to_the_resource_and_says_so() -> None:
    for manifest in manifests(EVERYTHING):
        metadata = manifest["metadata"]
        assert metadata["ownerReferences"] == [OWNER]
        assert metadata["labels"]["app.kubernetes.io/instance"] == KEY.name
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "swapstats-operator"


def test_the_processes_read_what_the_model_reads_and_the_revision_can_be_rendered_again() -> None:
    (kept,) = [manifest for manifest in manifests(EVERYTHING) if manifest["kind"] == "ConfigMap"]
    assert kept["immutable"]
    revision = decode_revision(kept["data"][REVISION_KEY])
    assert revision == revision_of(resource(EVERYTHING), IMAGES, SECRETS, "", UID)
    read = SwapStatsResource.model_validate(yaml.safe_load(kept["data"][RESOURCE_KEY]))
    assert read == revision.parsed
    assert read.spec.source.sasl == resource(EVERYTHING).spec.source.sasl
    assert read.spec.stores == resource(EVERYTHING).spec.stores


def test_a_revision_of_a_release_with_more_keys_can_still_be_read() -> None:
    revision = revision_of(resource(EVERYTHING), IMAGES, SECRETS, "", UID)
    spec = revision.resource["spec"]
    api = spec["api"] | {"auth": {"jwt": {"enabled": False}}, "http": spec["api"]["http"] | {"trustedProxies": []}}
    former = revision.resource | {"spec": spec | {"environment": "prod", "api": api}}
    assert msgspec.structs.replace(revision, resource=former).parsed == revision.parsed


@pytest.mark.parametrize(
    "live",
    [
        {"shards": {"replicas": 7, "failoverAfter": "3s"}},
        {"api": {"replicas": 9}},
        {"recorder": {"replicas": 3}},
        {"rollout": {"maxMoving": 5}},
        {"network": {"egress": "any"}},
        {"deletionPolicy": "Delete"},
        {"source": {"topic": {"retention": "30d", "replication": 3, "segment": "2h", "manage": False}}},
        {"images": {"aggregator": IMAGES.aggregator}},
    ],
)
def test_what_no_process_reads_makes_no_other_revision(live: dict[str, Any]) -> None:
    assert name(live) == name({})


def test_what_makes_another_revision() -> None:
    redis = {"stores": {"redis": {"secretRef": {"name": "redis", "key": "password"}}}}
    names = [
        name({}),
        name({"grace": "1m"}),
        name({"images": {"api": "other:1"}}),
        name({"shards": {"resources": {"limits": {"memory": "1Gi"}}}}),
        name({}, restart="once more"),
        name({}, images=Images("swapstats/aggregator:2", "swapstats/api:2")),
        name(redis),
        name(redis, secrets={"redis": {"password": b"changed"}}),
        name(redis, secrets={"redis": None}),
    ]
    assert len(set(names)) == len(names)


def test_each_process_gets_only_the_secrets_that_it_needs() -> None:
    found = {
        manifest["metadata"]["name"]: {
            source["secret"]["name"]
            for volume in manifest["spec"]["template"]["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
        }
        for manifest in manifests(EVERYTHING)
        if manifest["kind"] in {"StatefulSet", "Deployment"}
    }
    assert found == {
        "mainnet-shard": {"kafka", "redis"},
        "mainnet-api": {"redis"},
        "mainnet-recorder": {"kafka", "clickhouse"},
    }
    referred = {ref.name for _, ref in secret_refs(resource(EVERYTHING).spec)}
    assert set().union(*found.values()) == referred, "no reference is forgotten"


def test_certificates_are_files_of_every_pod_and_a_renewed_one_makes_another_revision() -> None:
    pods = [each["spec"]["template"]["spec"] for each in manifests(ENCRYPTED) if "template" in each.get("spec", {})]
    expected = [
        {"secret": {"name": "authority", "items": [{"key": "ca.crt", "path": "authority/ca.crt"}]}},
        {
            "secret": {
                "name": "client",
                "items": [{"key": key, "path": f"client/{key}"} for key in ("tls.crt", "tls.key")],
            }
        },
    ]
    assert len(pods) == 3
    for pod in pods:
        (volume,) = [each for each in pod["volumes"] if each["name"] == "secrets"]
        assert volume["projected"]["sources"] == expected
    before, after = ({"client": {"tls.crt": each, "tls.key": b"k"}} for each in (b"old", b"new"))
    assert name(ENCRYPTED, secrets=before) != name(ENCRYPTED, secrets=after)


def test_alarms_are_about_metrics_that_exist() -> None:
    (rule,) = [manifest for manifest in manifests({}) if manifest["kind"] == "PrometheusRule"]
    metrics = list(ShardMetrics().registry.collect())
    known = {sample.name for metric in metrics for sample in metric.samples} | {m.name for m in metrics} | {"up"}
    for alert in rule["spec"]["groups"][0]["rules"]:
        (metric,) = re.findall(r"(\w+)\{", alert["expr"])
        assert metric in known, alert
    assert not [each for each in manifests({}, monitors=()) if "monitoring" in each["apiVersion"]]


@pytest.mark.parametrize("spec", SPECS.values())
def test_every_component_is_scraped_and_alarms_name_a_service(spec: dict[str, Any]) -> None:
    rendered = manifests(spec)
    (monitor,) = [manifest for manifest in rendered if manifest["kind"] == "ServiceMonitor"]
    (rule,) = [manifest for manifest in rendered if manifest["kind"] == "PrometheusRule"]
    services = {manifest["metadata"]["name"]: manifest for manifest in rendered if manifest["kind"] == "Service"}
    (endpoint,) = monitor["spec"]["endpoints"]
    for service in services.values():
        assert service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert {service["spec"]["selector"]["app.kubernetes.io/component"] for service in services.values()} == {
        *("shard", "api", "recorder")
    }
    for alert in rule["spec"]["groups"][0]["rules"]:
        (labels,) = re.findall(r"{(.*)}", alert["expr"])
        assert labels == 'namespace="trading",service="mainnet-shards"'
        assert "mainnet-shards" in services


def test_a_digest_of_a_secret_says_nothing_to_whoever_reads_configmaps() -> None:
    spec = {"stores": {"redis": {"secretRef": {"name": "redis", "key": "password"}}}}

    def digests(password: bytes, salt: str) -> str:
        secrets = {"redis": {"password": password}}
        return revision_of(resource(spec), IMAGES, secrets, "", salt).secrets["redis"]

    known = hashlib.sha256(b"8:password:6:secret").hexdigest()
    assert not known.startswith(digests(b"secret", UID)), "a table of digests is of no use"
    assert digests(b"secret", UID) == digests(b"secret", UID)
    assert digests(b"secret", UID) != digests(b"secret", "another resource"), "equal passwords aren't seen as such"
    assert digests(b"secret", UID) != digests(b"changed", UID)


def _policies(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in manifests(spec) if each["kind"] == "NetworkPolicy"}


def _may_reach(policy: dict[str, Any], protocol: str) -> set[int]:
    return {each["port"] for rule in policy["egress"] for each in rule["ports"] if each["protocol"] == protocol}


def test_pods_reach_dns_and_the_ports_of_their_own_servers_only() -> None:
    spec = {
        "source": {"brokers": ["a:9092", "b:9093"]},
        "stores": {
            "redis": {"url": "redis://sentinel:26379", "sentinelMaster": "main"},
            "nats": {"url": "nats://n,nats://n:4333"},
            "clickhouse": {"url": "https://clickhouse"},
        },
        "network": {"egressPorts": [19092]},
    }
    found = {name: _may_reach(policy, "TCP") - {53, 5353} for name, policy in _policies(spec).items()}
    redis, nats, brokers = {26379, 6379}, {4222, 4333}, {9092, 9093}
    assert found == {
        "mainnet-shard": {*brokers, *redis, *nats, 19092},
        "mainnet-api": {*redis, *nats, 19092},
        "mainnet-recorder": {*brokers, 443, 19092},
    }
    assert {frozenset(_may_reach(policy, "UDP")) for policy in _policies(spec).values()} == {frozenset({53, 5353})}


def test_while_servers_are_changed_those_before_are_reached_too() -> None:
    old, new = ({"stores": {"nats": {"url": f"nats://n:{port}"}}} for port in (1111, 2222))
    before, revision = (revision_of(resource(spec), IMAGES, {}, "", UID) for spec in (old, new))
    rendered = instance(KEY, OWNER, resource(new).spec, "name", revision, 2, before=before, monitors=())
    (policy,) = [
        each["spec"] for each in rendered if each["metadata"]["name"] == "mainnet-api" and "Policy" in each["kind"]
    ]
    assert {1111, 2222} <= _may_reach(policy, "TCP")


def test_where_pods_go_out_to_can_be_left_to_other_policies() -> None:
    for policy in _policies({"network": {"egress": "any"}}).values():
        assert policy["policyTypes"] == ["Ingress"]
        assert "egress" not in policy


def test_every_pod_asks_for_what_it_needs_and_no_folder_is_without_a_limit() -> None:
    for each in manifests({}):
        if "template" in each.get("spec", {}):
            pod = each["spec"]["template"]["spec"]
            assert pod["containers"][0]["resources"]["requests"].keys() == {"cpu", "memory"}
            assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {"requests": {"cpu": "1", "memory": "2"}}),
        ({"requests": {"cpu": "9"}}, {"requests": {"cpu": "9", "memory": "2"}}),
        # Without a request, Kubernetes asks for the limit; a larger request than a limit would be refused.
        ({"limits": {"cpu": "500m"}}, {"limits": {"cpu": "500m"}, "requests": {"memory": "2"}}),
    ],
)
def test_what_the_resource_says_of_resources_counts(given: dict[str, Any], asked: dict[str, Any]) -> None:
    assert requests(given, {"cpu": "1", "memory": "2"}) == asked
