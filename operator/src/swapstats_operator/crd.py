"""The custom resource definition, generated from the typed model: ``python -m swapstats_operator.crd [--check] FILE``.

Kubernetes wants a *structural* schema: no references, every node typed, no unions. What such a schema can't say about
a field by itself, rules in CEL do; the API server evaluates them, so a wrong resource is refused before anything
reads it. `swapstats_core.spec` has the same rules in Python, for processes that read a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from pydantic import BaseModel

from swapstats_core.effects import RESTARTS, Effect, key_of, section_of, takes
from swapstats_core.fields import format_duration
from swapstats_core.spec import DEFAULT_REORG_HORIZON_MS, RESERVED_NAMES, SwapStatsSpec
from swapstats_operator.generated import keep
from swapstats_operator.resource_status import Status

GROUP: Final = "swapstats.io"
VERSION: Final = "v1alpha1"

Schema = dict[str, Any]

_KEPT: Final = ("type", "description", "default", "enum", "pattern", "format", "minimum", "maximum")
_INT32_MAX: Final = 2**31 - 1
_TEXT_LIMIT: Final = 1024
"""Longest text where the model gives no limit: the API server bounds the cost of rules by it."""
_LIST_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Rule:
    """``cel`` must hold for the object at ``path`` (``a.b``; empty: the resource); else ``message`` is shown, at
    ``field`` of the object.
    """

    path: str
    cel: str
    message: str
    field: str = ""

    @property
    def schema(self) -> Schema:
        """As the API server wants it."""
        at = {"fieldPath": self.field} if self.field else {}
        return {"rule": self.cel, "message": self.message} | at


def _ms(text: str) -> str:
    """CEL: the milliseconds of a duration. CEL's own ``duration()`` knows no days."""
    units = (("ms", "1"), ("s", "1000"), ("m", "60000"), ("h", "3600000"))
    factor = "".join(f"{text}.endsWith('{unit}') ? {factor} : " for unit, factor in units)
    return f"int({text}.find('^[0-9]+')) * ({factor}86400000)"


def _tls(path: str) -> tuple[Rule, ...]:
    """What holds for a section ``tls`` wherever it is."""
    refs = "has(self.caRef) || has(self.certRef) || has(self.keyRef)"
    short = f"{path.removeprefix('spec.')}.tls"
    return (
        Rule(
            f"{path}.tls",
            f"self.enabled || !({refs})",
            f"{short}: caRef, certRef and keyRef have a meaning only with TLS. Set enabled: true, or remove them",
        ),
        Rule(
            f"{path}.tls",
            "has(self.certRef) == has(self.keyRef)",
            f"{short}: certRef and keyRef go together. Name both, or neither",
        ),
    )


def _scheme(path: str, scheme: str) -> Rule:
    """A store's address says the same of TLS as its section ``tls``."""
    return Rule(
        path,
        f"!self.tls.enabled || self.url.startsWith('{scheme}')",
        f"{path.removeprefix('spec.')}.tls.enabled needs a url that begins with {scheme}. Write that, or set "
        "enabled: false",
        ".url",
    )


def _immutable(model: type[BaseModel], path: str) -> Iterator[Rule]:
    """The keys that can't change, as the model says beside them."""
    for name, field in model.model_fields.items():
        key, part = key_of(name, field), section_of(field)
        said = takes(field, RESTARTS)
        if said.cluster is Effect.REFUSED:
            short = f"{path}.{key}".removeprefix("spec.")
            message = f"{short} can't change: {said.why}. Create another SwapStats"
            same = f"self.{key} == oldSelf.{key}"
            if field.default is None:
                same = f"has(oldSelf.{key}) ? has(self.{key}) && {same} : !has(self.{key})"
            yield Rule(path, same, message, f".{key}")
        if part is not None:
            yield from _immutable(part, f"{path}.{key}")


RULES: Final = (
    Rule(
        "",
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$')",
        "metadata.name must be lower-case letters, digits and '-', at most 40 of them: the names of pods and Services "
        "begin with it",
    ),
    *_immutable(SwapStatsSpec, "spec"),
    Rule(
        "",
        f"!(self.metadata.name in {list(RESERVED_NAMES)})",
        f"metadata.name must not be {' or '.join(RESERVED_NAMES)}: an instance has a ServiceAccount of its resource's "
        "name, and these are other ones'. Choose another name",
    ),
    Rule(
        "spec.stores.clickhouse",
        f"!has(self.storagePolicy) || {_ms('self.coldAfter')} <= {_ms('self.deleteAfter')}",
        "stores.clickhouse.coldAfter must not exceed deleteAfter, or no row ever moves to the cold volume",
        ".coldAfter",
    ),
    Rule(
        "spec.source",
        "self.skip.all(s, s.partition < self.topic.partitions)",
        "source.skip names a partition that the topic doesn't have. They are numbered from 0: correct it, or remove it",
        ".skip",
    ),
    Rule(
        "spec",
        "self.shards.replicas <= self.source.topic.partitions",
        "shards.replicas must not exceed source.topic.partitions: a shard without a partition has nothing to do",
        ".shards.replicas",
    ),
    Rule(
        "spec",
        f"self.windows.all(w, {_ms('w')} % 60000 == 0 && {_ms('w')} > 0 && {_ms('w')} <= 604800000)",
        "windows: every window is a whole number of minutes, from 1m to 7d",
        ".windows",
    ),
    Rule(
        "spec",
        f"self.windows.map(w, {_ms('w')}).isSorted() && "
        f"self.windows.all(v, self.windows.exists_one(w, {_ms('v')} == {_ms('w')}))",
        "windows: list them in ascending order, each once",
        ".windows",
    ),
    Rule(
        "spec",
        f"self.windows.all(w, {_ms('w')} <= {_ms('self.dedupe.ttl')})",
        "dedupe.ttl must be at least the longest window, or an id expires while its event counts",
        ".dedupe.ttl",
    ),
    Rule(
        "spec",
        f"{_ms('self.source.reorgHorizon')} <= {DEFAULT_REORG_HORIZON_MS} || "
        f"{_ms('self.source.reorgHorizon')} <= {_ms('self.dedupe.ttl')}",
        "source.reorgHorizon must not exceed dedupe.ttl, or events are forgotten before it ends",
        ".source.reorgHorizon",
    ),
    Rule(
        "spec",
        f"self.windows.exists(w, {_ms('self.grace')} <= {_ms('w')})",
        "grace must not exceed the longest window",
        ".grace",
    ),
    Rule(
        "spec",
        f"self.windows.all(w, {_ms('w')} + {_ms('self.grace')} <= {_ms('self.source.topic.retention')})",
        "source.topic.retention must be at least the longest window plus grace, so that state can be rebuilt",
        ".source.topic.retention",
    ),
    Rule(
        "spec.api.autoscaling",
        "self.minReplicas <= self.maxReplicas",
        "api.autoscaling.minReplicas must not exceed maxReplicas",
        ".minReplicas",
    ),
    *_tls("spec.source"),
    *_tls("spec.stores.redis"),
    *_tls("spec.stores.clickhouse"),
    *_tls("spec.stores.nats"),
    _scheme("spec.stores.redis", "rediss://"),
    _scheme("spec.stores.clickhouse", "https://"),
    _scheme("spec.stores.nats", "tls://"),
)
"""What the schema of a single field can't say."""

COLUMNS: Final = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("Shards", "string", ".status.shards"),
    ("Partitions", "string", ".status.partitions"),
    ("Lag", "string", ".status.lag"),
    ("Snapshot age", "string", ".status.snapshotAge"),
    ("Age", "date", ".metadata.creationTimestamp"),
)
"""What ``kubectl get sws`` shows: heading, type, path."""


def custom_resource_definition() -> Schema:
    """The whole object."""
    resource: Schema = {
        "type": "object",
        "description": "Exact, real-time swap statistics as a sharded cluster.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": "SwapStats"},
            "metadata": {"type": "object"},
            "spec": structural(SwapStatsSpec),
            "status": structural(Status),
        },
    }
    for rule in RULES:
        node = resource
        for step in filter(None, rule.path.split(".")):
            node = node["properties"][step]
        node.setdefault("x-kubernetes-validations", []).append(rule.schema)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": resource},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.shards.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in COLUMNS],
    }
    names = {
        "kind": "SwapStats",
        "listKind": "SwapStatsList",
        "plural": "swapstats",
        "singular": "swapstats",
        "shortNames": ["sws"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"swapstats.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def structural(model: type[BaseModel]) -> Schema:
    """A model's structural schema, with its defaults."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    node = _resolved(node, definitions)
    kept: Schema = {key: node[key] for key in _KEPT if key in node}
    kept |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "description" in kept:
        kept["description"] = kept["description"].replace("``", "`")
    match kept["type"]:
        case "object":
            properties = {name: _structural(child, definitions) for name, child in node.get("properties", {}).items()}
            if properties:
                kept["properties"] = properties
            if required := node.get("required"):
                kept["required"] = required
            elif "default" in kept:
                # Whole: the API server holds a default against the rules before it adds those of the fields.
                kept["default"] = {name: child["default"] for name, child in properties.items() if "default" in child}
        case "array":
            kept |= {key: node[key] for key in ("minItems", "maxItems") if key in node}
            kept.setdefault("maxItems", _LIST_LIMIT)
            kept["items"] = _structural(node["items"], definitions)
            if kept["items"]["type"] == "string" and "default" in kept:
                kept["default"] = [_written(item) for item in kept["default"]]
        case "string":
            _bound(kept)
            if "x-remedy" in node:  # a sentence instead of a pattern
                matches = f"self.matches(r'{kept.pop('pattern')}')"
                kept["x-kubernetes-validations"] = [{"rule": matches, "message": f"must be {node['x-remedy']}"}]
            kept |= {key: node[key] for key in ("minLength", "maxLength") if key in node}
            if "enum" not in kept:
                kept.setdefault("maxLength", _TEXT_LIMIT)
        case "integer":
            kept["format"] = "int32" if kept.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
        case _:  # a boolean needs no more
            pass
    return kept


def _bound(duration: Schema) -> None:
    """A duration's least milliseconds as a rule, and its default as it is written. Other texts have no minimum."""
    if least := duration.pop("minimum", 0):
        rule = {"rule": f"{_ms('self')} >= {least}", "message": f"must be at least {format_duration(least)}"}
        duration["x-kubernetes-validations"] = [rule]
    if "default" in duration:
        duration["default"] = _written(duration["default"])


def _written(text: str | int) -> str:
    """A default as people write it: the model has durations in milliseconds."""
    return format_duration(text) if isinstance(text, int) else text


def _resolved(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Without references, and without the union of an optional field, which is simply not required."""
    if "anyOf" in node:
        (kind,) = [each for each in node["anyOf"] if each != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _resolved(kind | rest, definitions)
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return target | {key: value for key, value in node.items() if key != "$ref"}
    if "const" in node:
        return {"enum": [node["const"]]} | node
    return node


def rendered() -> str:
    """The file's text."""
    head = "# Generated from core/src/swapstats_core/spec.py by `make crds`. Don't edit.\n"
    return head + yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    keep(rendered(), "the resource definition", "make crds")
