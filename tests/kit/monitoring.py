"""Prometheus' operator's kinds, as much of them as is used here: real names and types of its fields, and nothing else.

What isn't among them is refused by server-side apply, so a wrong name of a field can't go unnoticed.
"""

from __future__ import annotations

from typing import Any, Final

import httpx

DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_GROUP: Final = "monitoring.coreos.com"
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_DURATION: Final = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
_PROMQL: Final = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}


def _object(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _definition(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    singular = kind.lower()
    schema = _object(["spec"], spec=spec)
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "listKind": f"{kind}List", "singular": singular, "plural": f"{singular}s"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{singular}s.{_GROUP}"},
        "spec": {"group": _GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


_RULE: Final[dict[str, dict[str, Any]]] = {
    "alert": _TEXT,
    "expr": _PROMQL,
    "for": _DURATION,
    "labels": _TEXTS,
    "annotations": _TEXTS,
}
_RULES: Final = {"type": "array", "items": _object(["expr"], **_RULE)}
_GROUPS: Final = {
    "type": "array",
    "items": _object(["name"], name=_TEXT | {"minLength": 1}, rules=_RULES),
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
_SELECTOR: Final = {"type": "object", "properties": {"matchLabels": _TEXTS}, "x-kubernetes-map-type": "atomic"}
_ENDPOINTS: Final = {"type": "array", "items": _object([], port=_TEXT, path=_TEXT)}
KINDS: Final = (
    _definition("ServiceMonitor", _object(["endpoints", "selector"], endpoints=_ENDPOINTS, selector=_SELECTOR)),
    _definition("PrometheusRule", {"type": "object", "properties": {"groups": _GROUPS}}),
)


async def install(admin: httpx.AsyncClient, *kinds: dict[str, Any]) -> None:
    """Make kinds known, by default all; they are served a moment later."""
    for kind in kinds or KINDS:
        (await admin.post(DEFINITIONS, json=kind)).raise_for_status()


async def uninstall(admin: httpx.AsyncClient) -> None:
    """Forget them, and all objects of these kinds."""
    for kind in KINDS:
        await admin.delete(f"{DEFINITIONS}/{kind['metadata']['name']}")
