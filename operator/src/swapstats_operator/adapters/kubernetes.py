"""`cluster.Cluster` over the Kubernetes API."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from swapstats_decider.ports import Unavailable
from swapstats_operator.cluster import Foreign, Key, Manifest, Refused
from swapstats_operator.crd import GROUP, VERSION
from swapstats_operator.manifests.monitoring import GROUP_VERSION as MONITORING
from swapstats_operator.manifests.monitoring import KINDS as MONITORS
from swapstats_operator.manifests.names import MANAGER, controller_of

_APPLY: Final = "application/apply-patch+yaml"
_PLURALS: Final = {"NetworkPolicy": "networkpolicies"}
"""Where it isn't the kind with an s."""
_TIMEOUT_S: Final = 10.0
_TRY_AGAIN: Final = frozenset({0, 409, 429, 500, 502, 503, 504})
_STATUS: Final = "status"
_NEW: Final = "1"
"""A resourceVersion that no object has. An apply that names it creates the object, or is refused (409): as one step."""


class KubernetesCluster:
    """See the module. ``api``: a client that is logged in."""

    def __init__(self, api: client.ApiClient) -> None:
        self._client = DynamicClient(api)  # type: ignore[no-untyped-call]  # kubernetes has no types there

    async def apply(self, manifest: Manifest, uid: str | None) -> str:
        metadata = manifest["metadata"]
        path = _path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])
        if uid is not None:
            return await self._correct(path, manifest, uid)
        try:
            created = await self._ask(
                "patch", path, _with(manifest, resourceVersion=_NEW), _APPLY, force_conflicts=True
            )
        except _AbsentError as error:  # the namespace or the kind is gone
            raise Refused(str(error)) from error
        except Unavailable as error:
            if not _is(error, 409):
                raise
            return await self._correct(path, manifest, await self._own(path, manifest))
        version: str = created["metadata"]["resourceVersion"]
        return version

    async def _own(self, path: str, manifest: Manifest) -> str:
        """Uid of the object that is there. Raises Foreign if it isn't the manifest's controller's."""
        try:
            found = await self._ask("get", path)
        except _AbsentError as error:
            raise Unavailable(f"the API server: {error}") from error  # created at the next try
        wanted, controller = controller_of(manifest), controller_of(found)
        assert wanted is not None, "all manifests have a controller"
        if controller is None or controller["uid"] != wanted["uid"]:
            raise Foreign(_foreign(manifest, controller, wanted))
        uid: str = found["metadata"]["uid"]
        return uid

    async def _correct(self, path: str, manifest: Manifest, uid: str) -> str:
        """Apply to this very object."""
        manifest = _with(manifest, uid=uid)
        try:
            applied = await self._ask("patch", path, manifest, _APPLY, force_conflicts=True)
        except Refused as error:
            if not _is(error, 422):
                raise
            # Somebody's edit may not go together with what is ours: a port of another number and the same name, say.
            # Apply keeps both; a merge puts our lists in the place of theirs.
            try:
                applied = await self._ask("patch", path, manifest, "application/merge-patch+json")
            except _AbsentError:
                raise error from None
        except _AbsentError as error:
            raise Refused(str(error)) from error
        version: str = applied["metadata"]["resourceVersion"]
        return version

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._ask("delete", _path(_API_VERSIONS[kind], kind, namespace, name), body)
        except _AbsentError:
            pass
        except Unavailable as error:
            if not _is(error, 409):
                raise  # else it is another object by now

    async def resource(self, key: Key) -> Mapping[str, Any] | None:
        try:
            return await self._ask("get", _resource_path(key))
        except _AbsentError:
            return None

    async def patch_status(self, key: Key, status: Mapping[str, Any]) -> None:
        path = f"{_resource_path(key)}/{_STATUS}"
        await self._ask("patch", path, {"status": status}, "application/merge-patch+json")

    async def swap_status(self, key: Key, operations: Sequence[Mapping[str, Any]]) -> bool:
        path = f"{_resource_path(key)}/{_STATUS}"
        try:
            await self._ask("patch", path, list(operations), "application/json-patch+json")
        except _AbsentError:
            return False
        except Refused as error:
            if not _is(error, 422):
                raise
            return False
        return True

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> None:
        body = {"metadata": {"annotations": annotations}}
        await self._ask("patch", _resource_path(key), body, "application/merge-patch+json")

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        try:
            found = await self._ask("get", _path("v1", "Secret", namespace, name))
        except _AbsentError:
            return None
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    async def pods(self, namespace: str, selector: str) -> int:
        found = await self._ask("get", f"/api/v1/namespaces/{namespace}/pods", label_selector=selector)
        return len(found["items"])

    async def kinds(self, group_version: str) -> frozenset[str]:
        try:
            found = await self._ask("get", f"/apis/{group_version}")
        except _AbsentError:
            return frozenset()
        return frozenset(resource["kind"] for resource in found["resources"])

    async def _ask(
        self, method: str, path: str, body: object = None, content_type: str | None = None, **parameters: object
    ) -> dict[str, Any]:
        if method == "patch":
            parameters["field_manager"] = MANAGER
        async with _asking():
            response = await self._client.request(
                method,
                path,
                body=body,
                content_type=content_type,
                query_params=[],  # its default is a list that it adds to
                header_params={},
                serialize=False,
                _request_timeout=_TIMEOUT_S,
                **parameters,
            )
            answer: dict[str, Any] = json.loads(await response.read())
        return answer


class _AbsentError(Exception):
    """404."""


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the API server: {error!r}") from error
    except ApiException as error:
        text = _said(error)
        if error.status == 404:
            raise _AbsentError(text) from error
        if error.status in _TRY_AGAIN:
            raise Unavailable(f"the API server: {text}") from error
        raise Refused(text) from error


def _with(manifest: Manifest, **metadata: str) -> Manifest:
    return manifest | {"metadata": manifest["metadata"] | metadata}


def _foreign(manifest: Manifest, controller: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    """What a person must know of an object that is in the way."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    if controller is not None and (controller["kind"], controller["name"]) == (wanted["kind"], wanted["name"]):
        return (
            f"The {kind} {name} belongs to an earlier {wanted['kind']} resource of the same name. Kubernetes is about "
            f"to remove it, and then it is made anew; if it stays, delete it: kubectl delete {kind.lower()} {name}"
        )
    whose = "to nobody" if controller is None else f"to the {controller['kind']} {controller['name']}"
    return (
        f"The {kind} {name} is there already and belongs {whose}, so it is left as it is. Remove it if nobody needs it "
        f"(kubectl delete {kind.lower()} {name}), or give the {wanted['kind']} resource another name"
    )


def _is(error: Exception, status: int) -> bool:
    return isinstance(error.__cause__, ApiException) and error.__cause__.status == status


def _said(error: ApiException) -> str:
    try:
        message = json.loads(error.body or "{}").get("message")
    except (ValueError, AttributeError):
        message = None
    return str(message or f"{error.status} {error.reason}")


_API_VERSIONS: Final = {
    "Pod": "v1",
    "ConfigMap": "v1",
    "StatefulSet": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    **dict.fromkeys(MONITORS, MONITORING),
}
"""Of the kinds that are ever deleted."""


def _path(api_version: str, kind: str, namespace: str, name: str) -> str:
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    return f"{root}/namespaces/{namespace}/{plural}/{name}"


def _resource_path(key: Key) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/swapstats/{key.name}"
