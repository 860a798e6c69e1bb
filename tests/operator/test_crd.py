"""The generated definition: a schema that Kubernetes takes, with the model's defaults and rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from swapstats_core.spec import Source, SwapStatsSpec
from swapstats_operator.crd import RULES, Rule, Schema, custom_resource_definition, rendered
from tests.cli.supervised import REPOSITORY

FILE = REPOSITORY / "crds" / "swapstats.io_swapstats.yaml"
SCHEMA: Schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: Schema = SCHEMA["properties"]["spec"]
UNSTRUCTURAL = {
    "$ref",
    "$defs",
    "anyOf",
    "oneOf",
    "allOf",
    "const",
    "title",
    "additionalProperties",
    "exclusiveMinimum",
}


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """All nodes with their paths."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES = dict(nodes(SCHEMA))


def defaulted(schema: Schema, value: Any) -> Any:  # noqa: ANN401 - any JSON
    """What the API server makes of a value: absent fields that have a default get it, then theirs."""
    if schema["type"] == "object":
        known = schema.get("properties", {})
        added = {name: child["default"] for name, child in known.items() if "default" in child and name not in value}
        return {
            name: defaulted(known[name], member) if name in known else member
            for name, member in (value | added).items()
        }
    if schema["type"] == "array":
        return [defaulted(schema["items"], item) for item in value]
    return value


def test_the_file_is_what_the_model_says() -> None:
    assert FILE.read_text() == rendered(), "run `make crds`"
    assert yaml.safe_load(FILE.read_text()) == custom_resource_definition()


def test_the_schema_is_structural() -> None:
    for path, node in NODES.items():
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not UNSTRUCTURAL & node.keys(), path
        assert isinstance(node.get("default", node.get("enum", [""])[0]), str) or node["type"] != "string", path


def test_the_least_durations_are_known() -> None:
    assert "must be at least 100ms" in str(NODES[".spec.snapshots.interval"]["x-kubernetes-validations"])


def test_every_field_is_explained() -> None:
    own = {path for path in NODES if path and path != ".metadata" and not path.endswith("[]")}
    assert [path for path in own if not NODES[path].get("description")] == []


def test_the_api_server_adds_the_models_defaults() -> None:
    assert SwapStatsSpec.model_validate(defaulted(SPEC, {})) == SwapStatsSpec()
    given = {
        "api": {"ws": {"coalesce": "1s"}},
        "windows": ["1m", "7d"],
        "dedupe": {"ttl": "7d"},
    }
    given |= {"source": {"topic": {"retention": "8d"}}}
    assert SwapStatsSpec.model_validate(defaulted(SPEC, given)) == SwapStatsSpec.model_validate(given)


def test_every_default_of_the_model_is_in_the_schema() -> None:
    assert defaulted(SPEC, {}) == SwapStatsSpec().model_dump(by_alias=True, mode="json", exclude_none=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.path}: {rule.message[:40]}")
def test_rules_belong_to_fields_that_exist(rule: Rule) -> None:
    path = f".{rule.path}" if rule.path else ""
    assert rule.schema in NODES[path]["x-kubernetes-validations"]
    assert f"{path}{rule.field}" in NODES


def test_what_rules_read_is_bounded() -> None:
    """The API server refuses a definition whose rules might cost too much."""
    for path, node in NODES.items():
        if path.startswith(".spec") and node["type"] == "string" and "enum" not in node:
            assert node["maxLength"] <= 1024, path
        if path.startswith(".spec") and node["type"] == "array":
            assert node["maxItems"] <= 1024, path


def test_it_scales_and_has_a_short_name() -> None:
    definition = custom_resource_definition()["spec"]
    assert definition["names"]["shortNames"] == ["sws"]
    scale = definition["versions"][0]["subresources"]["scale"]
    assert all(path in NODES for path in (scale["specReplicasPath"], scale["statusReplicasPath"]))
    assert NODES[scale["labelSelectorPath"]]["type"] == "string"


def test_the_example_needs_nothing_else() -> None:
    example = yaml.safe_load((REPOSITORY / "examples" / "demo.yaml").read_text())
    assert SwapStatsSpec.model_validate(defaulted(SPEC, example["spec"])) == SwapStatsSpec.model_validate(
        example["spec"]
    )


def test_the_runbooks_patch_passes_a_record_over() -> None:
    """A JSON patch, which adds to what is there: the definition's default is an empty list."""
    text = (REPOSITORY / "docs" / "runbook" / "future.md").read_text()
    told = re.search(r"--patch='(\[.*\])'", text)
    assert told is not None
    (operation,) = json.loads(told[1])
    assert (operation["op"], operation["path"]) == ("add", "/spec/source/skip/-")
    assert SPEC["properties"]["source"]["properties"]["skip"]["default"] == []
    source = Source.model_validate({"skip": [operation["value"]]})
    assert source.skipped(3) == {4711}
