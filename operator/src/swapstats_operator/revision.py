"""What the processes of an instance are made of: a revision. Pure.

A revision is kept in a ConfigMap of its own, which never changes, so that a rollout can go back to the last one that
worked: nothing of it is remembered anywhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from swapstats_core import naming
from swapstats_core.spec import SecretRef, SwapStatsResource

RESTART: Final = "swapstats.io/restart"
"""Annotation: another value makes another revision, hence a rolling restart."""
_LIVE: Final = (
    ("shards", "replicas"),
    ("shards", "failoverAfter"),
    ("rollout",),
    ("api", "replicas"),
    ("api", "autoscaling"),
    ("recorder", "replicas"),
    ("images",),
    ("deletionPolicy",),
    ("telemetry", "monitors"),
)
"""Fields of the spec that no process reads: their change rolls nothing."""


class Images(msgspec.Struct, frozen=True):
    """Where the processes' images are."""

    aggregator: str
    api: str


class Revision(msgspec.Struct, frozen=True):
    """All of it. ``resource``: what the processes read. ``secrets``: a digest of each Secret's content, by name."""

    resource: dict[str, Any]
    images: Images
    pull_policy: str
    pull_secrets: list[str]
    secrets: dict[str, str]
    restart: str = ""

    @property
    def parsed(self) -> SwapStatsResource:
        """The resource, typed. A revision of an earlier release may have keys that are gone."""
        resource = SwapStatsResource.model_validate(_known(SwapStatsResource, self.resource))
        return naming.named(resource, naming.names_in(self.resource))


encode_revision = msgspec.json.Encoder(order="sorted").encode
decode_revision = msgspec.json.Decoder(Revision).decode


def revision_of(
    resource: SwapStatsResource, images: Images, secrets: Mapping[str, Mapping[str, bytes] | None], restart: str
) -> Revision:
    """The revision that a resource asks for. ``images``: those of its release; ``secrets``: content by name."""
    spec = resource.spec
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    for path in _LIVE:
        holder = content
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]
    content["shards"]["replicas"] = 0  # by default there are two, which may be more than partitions
    return Revision(
        resource={
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": resource.metadata.model_dump(include={"name", "namespace", "uid"}),
            "spec": content,
        },
        images=Images(spec.images.aggregator or images.aggregator, spec.images.api or images.api),
        pull_policy=spec.images.pull_policy,
        pull_secrets=list(spec.images.pull_secrets),
        secrets={name: _digest(secrets.get(name)) for name in sorted({ref.name for _, ref in secret_refs(spec)})},
        restart=restart,
    )


def named(revision: Revision, rendered: object) -> str:
    """A name that stands for a revision and for the pods that are made of it. ``rendered``: their templates."""
    content = encode_revision(revision) + msgspec.json.encode(rendered, order="sorted")
    return hashlib.sha256(content).hexdigest()[:10]


def secret_refs(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, SecretRef]]:
    """Every reference to a Secret in a section, with its place: ``stores.redis.secretRef`` in the spec."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        path = f"{prefix}{field.alias or name}"
        if isinstance(value, SecretRef):
            yield path, value
        elif isinstance(value, BaseModel):
            yield from secret_refs(value, f"{path}.")


def _known(model: type[BaseModel], said: Mapping[str, Any]) -> dict[str, Any]:
    """What a model knows of an object's keys."""
    known = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in said:
            part: object = field.annotation
            known[key] = (
                _known(part, said[key]) if isinstance(part, type) and issubclass(part, BaseModel) else said[key]
            )
    return known


def _digest(content: Mapping[str, bytes] | None) -> str:
    if content is None:
        return ""
    digest = hashlib.sha256()
    for key, value in sorted(content.items()):
        digest.update(f"{len(key)}:{key}:{len(value)}:".encode() + value)
    return digest.hexdigest()[:16]
