"""What there is of an instance: its objects, as the API server told them, in the words that the operator uses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from swapstats_operator.manifests.names import COMPONENT, REVISION, REVISION_KEY, controller_of
from swapstats_operator.revision import Revision, decode_revision

Object = Mapping[str, Any]

_HOPELESS: Final = frozenset(
    {"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"}
)
"""Why a container waits, where waiting alone won't help."""
_METADATA: Final = frozenset(
    {"name", "uid", "labels", "resourceVersion", "generation", "deletionTimestamp", "ownerReferences"}
)
_CONTENT: Final = {
    "ConfigMap": ("data",),
    "Pod": ("status",),
    "StatefulSet": ("spec", "status"),
    "Deployment": ("spec", "status"),
}
"""What else is looked at, by kind."""
_CRASHES: Final = 3
"""A container that waits after so many ends has no future as it is."""


@dataclass(frozen=True, slots=True)
class Pod:
    """``broken``: why it won't get ready; empty: it may. ``last_words``: what its container said when it ended last."""

    name: str
    uid: str
    component: str
    index: int | None
    revision: str
    ip: str
    ready: bool
    terminating: bool
    restarts: int
    broken: str
    last_words: str

    @property
    def shard(self) -> str:
        """The shard's name in the assignment."""
        return f"shard-{self.index}"


@dataclass(frozen=True, slots=True)
class Workload:
    """A StatefulSet or Deployment. ``settled``: all its pods are of this revision, ready, and as many as wanted."""

    revision: str
    replicas: int
    available: int
    settled: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it. ``live``: every object, by kind and name."""

    shards: Mapping[str, Pod]
    pods: tuple[Pod, ...]
    stateful_set: Workload | None
    api: Workload | None
    recorder: Workload | None
    revisions: Mapping[str, Revision]
    live: Mapping[tuple[str, str], Object] = field(default_factory=dict)


def kept(body: Object) -> Object:
    """What is remembered of a watched object: there may be thousands."""
    metadata = {name: value for name, value in body["metadata"].items() if name in _METADATA}
    content = {name: body[name] for name in _CONTENT.get(body["kind"], ()) if name in body}
    return {"kind": body["kind"], "metadata": metadata, **content}


def observe(objects: Iterable[Object], owner: Object | None) -> Seen:
    """Read the objects of a resource (``owner``: its metadata). Labels alone make no object its own: anybody may write
    those.
    """
    live = {(item["kind"], item["metadata"]["name"]): item for item in objects if owner and _belongs(item, owner)}
    pods = tuple(_pod(item) for (kind, _), item in live.items() if kind == "Pod")
    workloads = {
        (kind, item["metadata"]["labels"].get(COMPONENT)): _workload(item)
        for (kind, _), item in live.items()
        if kind in {"StatefulSet", "Deployment"}
    }
    return Seen(
        shards={pod.shard: pod for pod in pods if pod.component == "shard" and pod.index is not None},
        pods=pods,
        stateful_set=workloads.get(("StatefulSet", "shard")),
        api=workloads.get(("Deployment", "api")),
        recorder=workloads.get(("Deployment", "recorder")),
        revisions=dict(filter(None, (_revision(item) for (kind, _), item in live.items() if kind == "ConfigMap"))),
        live=live,
    )


def _belongs(item: Object, owner: Object) -> bool:
    """Pods are their workloads', which may be gone already while their pods stop."""
    controller = controller_of(item)
    if controller is None:
        return False
    if item["kind"] != "Pod":
        return bool(controller["uid"] == owner["uid"])
    made_by = controller["kind"], controller["name"]
    return made_by == ("StatefulSet", f"{owner['name']}-shard") or (
        made_by[0] == "ReplicaSet" and made_by[1].startswith((f"{owner['name']}-api-", f"{owner['name']}-recorder-"))
    )


def _pod(item: Object) -> Pod:
    labels, status = item["metadata"].get("labels", {}), item.get("status", {})
    index = labels.get("apps.kubernetes.io/pod-index")
    containers = status.get("containerStatuses", [])
    return Pod(
        name=item["metadata"]["name"],
        uid=item["metadata"]["uid"],
        component=labels.get(COMPONENT, ""),
        index=None if index is None else int(index),
        revision=labels.get(REVISION, ""),
        ip=status.get("podIP", ""),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])),
        terminating="deletionTimestamp" in item["metadata"],
        restarts=sum(container.get("restartCount", 0) for container in containers),
        broken=next(filter(None, map(_broken, containers)), ""),
        last_words=next(filter(None, map(_last_words, containers)), ""),
    )


def _broken(container: Object) -> str:
    waiting = container.get("state", {}).get("waiting")
    if waiting is None:
        return ""
    reason, crashes = waiting.get("reason", ""), container.get("restartCount", 0)
    if reason in _HOPELESS:
        return f"{reason}: {waiting.get('message', '')}".rstrip(": ")
    if reason == "CrashLoopBackOff" and crashes >= _CRASHES:
        ended = container.get("lastState", {}).get("terminated", {})
        return f"it ended {crashes} times, the last time with exit code {ended.get('exitCode')}"
    return ""


def _last_words(container: Object) -> str:
    """The end of its log, which Kubernetes keeps when it ended by a fault: as our processes log, or as it is."""
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    lines = str(ended.get("message", "")).strip().splitlines()
    if not lines:
        return ""
    try:
        said = msgspec.json.decode(lines[-1], type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return lines[-1]
    return ": ".join(str(said[key]) for key in ("event", "error") if key in said)


def _workload(item: Object) -> Workload:
    spec, status = item.get("spec", {}), item.get("status", {})
    wanted = spec.get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    followed = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
    return Workload(
        revision=spec.get("template", {}).get("metadata", {}).get("labels", {}).get(REVISION, ""),
        replicas=wanted,
        available=status.get("availableReplicas", 0),
        settled=followed and all(count == wanted for count in counts),
    )


def _revision(item: Object) -> tuple[str, Revision] | None:
    """A kept revision and its name; one that can't be read is as good as none."""
    name = item["metadata"].get("labels", {}).get(REVISION)
    try:
        return None if name is None else (name, decode_revision(item.get("data", {}).get(REVISION_KEY, "")))
    except msgspec.DecodeError:
        return None
