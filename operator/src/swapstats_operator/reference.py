"""docs/reference.md, generated from the typed model: ``python -m swapstats_operator.reference [--check] FILE``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from swapstats_core.effects import Effect, takes_of
from swapstats_core.spec import SecretRef, SwapStatsSpec
from swapstats_operator.crd import RULES, Schema, structural
from swapstats_operator.generated import keep

_HEAD: Final = """\
<!-- Generated from core/src/swapstats_core/spec.py by `make reference`. Don't edit. -->
# Every key of a SwapStats resource

A resource has `apiVersion: swapstats.io/v1alpha1`, `kind: SwapStats`, `metadata` with a `name`, and a `spec` with the
keys below. `kubectl explain swapstats.spec` says the same. Keys are optional but those marked *required* in a section
that is there; [examples/](../examples) has whole files.

A *duration* is a whole number and one unit, such as `100ms`, `5s`, `5m`, `24h` or `7d`. Texts have at most 1,024
characters and lists at most 1,024 entries where nothing else is said. Passwords and certificates are never written
here, but the `name` of a Secret and a `key` in it; on a laptop that is the file `<name>/<key>` in the secrets folder.

The column *a change* says what it takes on a cluster, and in brackets on a laptop (`swapstats dev`) where that differs:

| | on a cluster | on a laptop |
| --- | --- | --- |
| live | In force at once. Nothing is restarted. | the same |
| topic | The operator tells the broker, where `source.topic.manage` is true. Nothing is restarted. | |
| restarts | All pods are replaced, one after the other; reads go on. | every process is replaced likewise |
| next start | | in force when `swapstats dev` starts the next time |
| unused | | A laptop doesn't use it. |
| refused | The API server refuses it. | the edit is refused, and what the file said before stays in force |
"""
_WORDS: Final = {
    Effect.NOTHING: "unused",
    Effect.LIVE: "live",
    Effect.TOPIC: "topic",
    Effect.RESTART: "restarts",
    Effect.NEXT_START: "next start",
    Effect.REFUSED: "refused",
}
_DURATION: Final = "^([0-9]{1,11})(ms|s|m|h|d)$"
_INT32_MAX: Final = 2**31 - 1
_TEXT_LIMIT: Final = 1024
_LIST_LIMIT: Final = 1024


def rendered() -> str:
    """The page's text."""
    return _HEAD + "".join(_section(structural(SwapStatsSpec), ()))


def _section(schema: Schema, path: tuple[str, ...]) -> Iterator[str]:
    """A section's table, what holds for it as a whole, and the sections in it."""
    name = ".".join(("spec", *path))
    yield f"\n## {name}\n\n"
    if path:
        yield f"{schema['description']}\n\n"
    parts = {key: node for key, node in schema["properties"].items() if "properties" in node and not _is_ref(node)}
    values = {key: node for key, node in schema["properties"].items() if key not in parts}
    if values:
        yield "| key | type | default | bounds | a change | what it does |\n| --- | --- | --- | --- | --- | --- |\n"
        for key, node in values.items():
            cells = (_type(node), _default(node, key, schema), _bounds(node), _change((*path, key)), _meaning(node))
            yield f"| `{key}` | {' | '.join(cells)} |\n"
    if rules := [rule for rule in RULES if rule.path == name and "oldSelf" not in rule.cel]:
        yield "\n" if values else ""
        yield "".join(f"* {rule.message}.\n" for rule in rules)
    for key, node in parts.items():
        yield from _section(node, (*path, key))


def _is_ref(node: Schema) -> bool:
    """Whether it is a `SecretRef`: a value, rather than a section."""
    return bool(node.get("properties", {}).keys() == SecretRef.model_fields.keys())


def _type(node: Schema) -> str:
    match node["type"]:
        case "array":
            items = node["items"]
            keys = ", ".join(f"`{key}`" for key in items.get("properties", ()))
            return f"list of {{{keys}}}" if keys else f"list of {_type(items)}s"
        case "object":
            return "`{name, key}` of a Secret" if _is_ref(node) else "mapping"
        case "string":
            return "duration" if node.get("pattern") == _DURATION else "text"
        case kind:
            return str(kind)


def _default(node: Schema, key: str, section: Schema) -> str:
    if key in section.get("required", ()):
        return "*required*"
    return f"`{_plain(node['default'])}`" if "default" in node else "absent"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bounds(node: Schema) -> str:
    return "; ".join(_bound(node))


def _bound(node: Schema) -> Iterator[str]:
    if "enum" in node:
        yield " or ".join(f"`{value}`" for value in node["enum"])
    low, high = node.get("minimum"), node.get("maximum", _INT32_MAX)
    if low is not None:
        yield f"at least {low:,}" if high == _INT32_MAX else f"{low:,} to {high:,}"
    yield from (rule["message"].removeprefix("must be ") for rule in node.get("x-kubernetes-validations", ()))
    if node["type"] == "string" and "pattern" in node and node["pattern"] != _DURATION:
        yield f"`{node['pattern'].replace('|', chr(92) + '|')}`"
    if node["type"] == "string" and "enum" not in node and node["maxLength"] not in (_TEXT_LIMIT, 13, 21):
        yield f"at most {node['maxLength']} characters"
    if node["type"] == "array":
        if node.get("minItems"):
            yield f"at least {node['minItems']} entry"
        if node["maxItems"] != _LIST_LIMIT:
            yield f"at most {node['maxItems']} entries"
        items = node["items"]
        if "properties" in items:
            yield from (f"`{key}`: {_bounds(part)}" for key, part in items["properties"].items())
        else:
            yield from (f"each {bound}" for bound in _bound(items))


def _change(path: tuple[str, ...]) -> str:
    takes = takes_of(SwapStatsSpec, path)
    cluster, laptop = _WORDS[takes.cluster], _WORDS[takes.laptop]
    why = f": {takes.why}" if takes.cluster is Effect.REFUSED else ""
    return f"{cluster}{why}" if cluster == laptop else f"{cluster} ({laptop})"


def _meaning(node: Schema) -> str:
    return re.sub(r"\s+", " ", node["description"]).strip()


if __name__ == "__main__":
    keep(rendered(), "the reference of the resource", "make reference")
