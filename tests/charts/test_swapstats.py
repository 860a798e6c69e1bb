"""The operator's chart: its renders, what a real API server says of them, and that the definition goes with it.

After a wanted change: SWAPSTATS_GOLDEN=write .venv/bin/pytest tests/charts
"""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from swapstats_operator.crd import custom_resource_definition
from tests.kit import helm

CHART = "swapstats"
GOLDEN = Path(__file__).parent / CHART
FOR_KUBERNETES = "--kube-version=1.34.0"
"""Helm 3, built without its release's flags, takes the cluster for a very old one."""
RENDERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "cluster-wide": ("--set=clusterWide=true,replicas=1,rbac.secretNames={redis,nats}",),
    "everything": (
        "--set=watchNamespaces={apart},image.registry=registry.example,image.tag=v9,image.pullSecrets={registry}",
        "--set=networkPolicy.egressPorts={443,6443,9092},podAnnotations.team=data,nodeSelector.disk=ssd,serviceAccount.annotations.role=it",
    ),
}
REFUSED = {
    "image.tags=v1": "tags",
    "replicas=0": "replicas",
    "image.pullPolicy=Sometimes": "pullPolicy",
    "networkPolicy.egressPorts={0}": "egressPorts",
    "watchNamespaces=apart": "watchNamespaces",
}
PATHS = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Pod": "/api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}


def render(version: int, *options: str) -> str:
    return helm.render(version, CHART, "swapstats", FOR_KUBERNETES, *options)


@pytest.mark.parametrize("name", RENDERS)
def test_a_render_is_as_it_was(name: str, version: int) -> None:
    """Without the definition, which is a file of its own already."""
    rendered, golden = render(version, "--set=crd.install=false", *RENDERS[name]), GOLDEN / f"{name}.yaml"
    if os.environ.get("SWAPSTATS_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert rendered == golden.read_text()


def test_the_definition_goes_with_it_and_stays_when_it_goes(version: int) -> None:
    kinds = {document["kind"]: document for document in yaml.safe_load_all(render(version))}
    definition = kinds["CustomResourceDefinition"]
    assert definition["spec"] == custom_resource_definition()["spec"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_chart_asks_for_images_of_its_own_version() -> None:
    chart = yaml.safe_load((helm.CHARTS / CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == metadata.version("swapstats-operator")


@pytest.mark.parametrize(("value", "said"), REFUSED.items())
def test_a_wrong_value_is_refused(value: str, said: str, version: int) -> None:
    with pytest.raises(helm.HelmRefusedError, match=said):
        render(version, f"--set={value}")


def test_rights_have_no_wildcard(version: int) -> None:
    for options in RENDERS.values():
        for document in yaml.safe_load_all(render(version, *options)):
            for rule in document.get("rules", ()) if document["kind"] in {"Role", "ClusterRole"} else ():
                assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"], rule


@pytest.mark.timeout(180)
@pytest.mark.parametrize("version", [4], indirect=True)
@pytest.mark.parametrize("name", RENDERS)
def test_a_real_api_server_takes_it_where_pods_are_restricted(name: str, version: int, api: httpx.Client) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    for namespace in ("dev", "apart"):
        space = {"metadata": {"name": f"{namespace}-{name}", "labels": labels}}
        assert api.post("/api/v1/namespaces", json=space).status_code == httpx.codes.CREATED
    # What others need first, as Helm does.
    documents = sorted(
        yaml.safe_load_all(render(version, *RENDERS[name])), key=lambda each: each["kind"] != "ServiceAccount"
    )
    for document in documents:
        if (namespace := document["metadata"].get("namespace")) is not None:
            document["metadata"]["namespace"] = f"{namespace}-{name}"
        _create(api, document)


def _create(api: httpx.Client, document: dict[str, Any]) -> None:
    path = PATHS[document["kind"]].format(document["metadata"].get("namespace"))
    reply = api.post(path, json=document, params={"fieldValidation": "Strict"})
    there = document["kind"] == "CustomResourceDefinition" and reply.status_code == httpx.codes.CONFLICT
    assert reply.status_code == httpx.codes.CREATED or there, reply.text
    assert "warning" not in reply.headers, reply.headers["warning"]  # as of pods that would be refused
