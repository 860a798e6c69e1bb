"""What the processes of an instance are made of: a revision. Pure.

A revision is kept in a ConfigMap of its own, which never changes, so that a rollout can go back to the last one that
worked: nothing of it is remembered anywhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from swapstats_core import naming
from swapstats_core.effects import RESTARTS, Effect, Takes, key_of, section_of, takes
from swapstats_core.fields import format_duration
from swapstats_core.spec import SecretRef, SwapStatsResource, SwapStatsSpec

RESTART: Final = "swapstats.io/restart"
"""Annotation: another value makes another revision, hence a rolling restart."""


_COST: Final = 2**12
"""Of a digest, in scrypt's measure: some 10 ms."""


class Images(msgspec.Struct, frozen=True):
    """Where the processes' images are."""

    aggregator: str
    api: str


class Revision(msgspec.Struct, frozen=True):
    """All of it. ``resource``: what the processes read. ``secrets``: a salted digest of each Secret, by name."""

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
        return naming.with_names(resource, naming.names_in(self.resource))


encode_revision = msgspec.json.Encoder(order="sorted").encode
decode_revision = msgspec.json.Decoder(Revision).decode


def revision_of(
    resource: SwapStatsResource,
    images: Images,
    secrets: Mapping[str, Mapping[str, bytes] | None],
    restart: str,
    salt: str,
) -> Revision:
    """The revision that a resource asks for. ``images``: those of its release; ``secrets``: content by name; ``salt``:
    another one for each resource.
    """
    spec = resource.spec
    content = _read(SwapStatsSpec, spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    del content["images"]  # they stand beside it
    # Values that nothing contradicts: the defaults of what was left out might be too many or too short.
    content["shards"]["replicas"] = 0
    content["source"]["topic"]["retention"] = format_duration(spec.windows[-1] + spec.grace)
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
        secrets={name: _digest(secrets.get(name), salt) for name in sorted({ref.name for _, ref in secret_refs(spec)})},
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


def _read(model: type[BaseModel], content: Mapping[str, Any], section: Takes = RESTARTS) -> dict[str, Any]:
    """What processes read of a section; the change of anything else rolls nothing. ``section``: what it says itself."""
    read = {}
    for name, field in model.model_fields.items():
        key, said, part = key_of(name, field), takes(field, section), section_of(field)
        if key in content and said.cluster in (Effect.RESTART, Effect.REFUSED):
            read[key] = content[key] if part is None else _read(part, content[key], said)
    return read


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


def _digest(content: Mapping[str, bytes] | None, salt: str) -> str:
    """Whoever may read ConfigMaps mustn't learn a Secret by it, neither from a table nor by trying passwords."""
    return "" if content is None else _stretched(tuple(sorted(content.items())), salt)


@lru_cache(maxsize=1024)
def _stretched(content: tuple[tuple[str, bytes], ...], salt: str) -> str:
    whole = b"".join(f"{len(key)}:{key}:{len(value)}:".encode() + value for key, value in content)
    return hashlib.scrypt(whole, salt=salt.encode(), n=_COST, r=8, p=1, dklen=8).hex()
