"""The chart of a stack for development: its renders, and what a real API server says of them.

After a wanted change: SWAPSTATS_GOLDEN=write .venv/bin/pytest tests/charts
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from swapstats_cli.supervisor.passwords import secret_refs
from swapstats_core.spec import SwapStatsSpec
from tests.kit import helm
from tests.kit.api_server import ApiServer

CHART = "swapstats-devstack"
GOLDEN = Path(__file__).parent / CHART
RENDERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "persistent": (
        "--set=networkPolicy.enabled=false,persistence.enabled=true,persistence.size=5Gi,persistence.storageClass=fast",
        "--set=fullnameOverride=stack",
    ),
    "tansu": (
        "--set=auth.existingSecret=mine,networkPolicy.namespaces={a,b}",
        "--set=broker.kind=tansu,nodeSelector.disk=ssd,imagePullSecrets[0].name=registry",
        "--set=image.repository=registry.example/devstack,image.tag=v1,image.pullPolicy=Never,nats.resources=null",
    ),
}
PASSWORD = re.compile(r"^(  (?:clickhouse|nats|redis): )\w{43}=$", re.MULTILINE)
REFUSED = {
    "brokr.kind=kafka": "brokr",
    "broker.kind=pulsar": "kafka",
    "persistence.size=lots": "persistence",
    "fullnameOverride=Stack": "fullnameOverride",
}
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Service": "/api/v1/namespaces/{}/services",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "Pod": "/api/v1/namespaces/{}/pods",
}


@pytest.mark.parametrize("name", RENDERS)
def test_a_render_is_as_it_was(name: str, version: int) -> None:
    rendered, golden = helm.render(version, CHART, "devstack", *RENDERS[name]), GOLDEN / f"{name}.yaml"
    rendered = PASSWORD.sub(r"\1cmFuZG9t", rendered)
    if os.environ.get("SWAPSTATS_GOLDEN") == "write":
        golden.write_text(rendered)
    assert rendered == golden.read_text()


def test_the_chart_asks_for_the_image_of_its_own_version() -> None:
    chart = yaml.safe_load((helm.CHARTS / CHART / "Chart.yaml").read_text())
    assert (
        f"org.opencontainers.image.version={chart['appVersion']}\n" in (helm.CHARTS.parent / "Dockerfile").read_text()
    )
    assert chart["appVersion"] == metadata.version("swapstats")


def test_passwords_are_random_and_only_where_they_are_wanted(version: int) -> None:
    first, second = ([*PASSWORD.finditer(helm.render(version, CHART, "devstack"))] for _ in range(2))
    assert len({match[0] for match in (*first, *second)}) == 6
    without = helm.render(version, CHART, "devstack", "--set=auth.enabled=false,networkPolicy.enabled=false")
    assert not any(word in without for word in ("Secret", "password", "NetworkPolicy"))


@pytest.mark.parametrize(("value", "said"), REFUSED.items())
def test_a_wrong_value_is_refused(value: str, said: str, version: int) -> None:
    with pytest.raises(helm.HelmRefusedError, match=said):
        helm.render(version, CHART, "devstack", f"--set={value}")


def test_the_longest_name_of_a_release_leaves_room_for_what_is_added(version: int) -> None:
    rendered = yaml.safe_load_all(helm.render(version, CHART, 53 * "a"))
    assert max(len(document["metadata"]["name"]) for document in rendered if document["kind"] == "StatefulSet") == 52


@pytest.mark.parametrize("version", [4], indirect=True)
def test_the_notes_have_the_part_of_a_resource_that_names_the_servers(version: int) -> None:
    _, _, fragment = helm.notes(CHART, "devstack").partition("spec:\n")
    found = SwapStatsSpec.model_validate(yaml.safe_load(fragment))
    assert found.source.brokers == ["devstack-kafka.dev.svc:9092"]
    assert {ref.name for ref in secret_refs(found)} == {"devstack-passwords"}
    assert [ref.key for ref in secret_refs(found)] == ["redis", "clickhouse", "nats"]
    assert found.stores.nats.username == "swapstats"
    assert found.stores.redis.url == "redis://devstack-redis.dev.svc:6379/0"
    assert found.stores.nats.url == "nats://devstack-nats.dev.svc:4222"
    assert found.stores.clickhouse.url == "http://devstack-clickhouse.dev.svc:8123"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", RENDERS)
def test_a_real_api_server_takes_it_where_pods_are_restricted(name: str, api: httpx.Client) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = f"devstack-{name}"
    _create(api, "/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    for document in yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()):
        document["metadata"]["namespace"] = namespace
        _create(api, PATHS[document["kind"]].format(namespace), document)


@pytest.mark.timeout(180)
def test_passwords_stay_over_an_upgrade(version: int, api_server: ApiServer, api: httpx.Client) -> None:
    namespace = f"kept-{version}"
    _create(api, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/api/v1/namespaces/{namespace}/secrets/devstack-passwords"
    helm.apply(version, CHART, "devstack", api_server.kubeconfig, namespace)
    made = api.get(path).raise_for_status().json()["data"]
    assert len(set(made.values())) == 3
    helm.apply(version, CHART, "devstack", api_server.kubeconfig, namespace, "--set=broker.kind=tansu")
    assert api.get(path).raise_for_status().json()["data"] == made


def _create(api: httpx.Client, path: str, document: dict[str, Any]) -> None:
    reply = api.post(path, json=document, params={"fieldValidation": "Strict"})
    assert reply.status_code == httpx.codes.CREATED, reply.text
    assert "warning" not in reply.headers, reply.headers["warning"]  # as of a set whose pods would be refused
