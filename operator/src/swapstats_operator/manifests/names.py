"""Names, labels and places that several manifests have in common, and by which objects are found again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from swapstats_operator.cluster import Key, Manifest

MANAGER: Final = "swapstats-operator"
"""Field manager of server-side apply, and the label of everything that the operator keeps."""
NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
REVISION: Final = "swapstats.io/revision"
REVISION_KEY: Final = "revision.json"
RESOURCE_KEY: Final = "resource.json"
HTTP: Final = 8081
"""Port of a shard's or a recorder's health and metrics."""


def selector(key: Key, component: str) -> dict[str, str]:
    """Labels by which a component's pods are found; they never change."""
    return {NAME: "swapstats", INSTANCE: key.name, COMPONENT: component}


def labels(key: Key, component: str) -> dict[str, str]:
    """Labels of an object."""
    return {**selector(key, component), MANAGED_BY: MANAGER}


def owned(key: Key, owner: Mapping[str, Any], component: str, api_version: str, kind: str, name: str) -> Manifest:
    """The beginning of a manifest. ``owner``: the ownerReference, so that the object goes with the resource."""
    metadata = {"name": name, "namespace": key.namespace, "labels": labels(key, component), "ownerReferences": [owner]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def controller_of(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The reference to the one owner of an object that keeps it; None: nobody does."""
    return next((each for each in item["metadata"].get("ownerReferences", ()) if each.get("controller")), None)


def owner_reference(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as the owner of what it is made of."""
    metadata = resource["metadata"]
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
