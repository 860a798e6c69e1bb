"""Each key of the resource has an effect on a laptop, or `swapstats dev` says that it has none."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from swapstats_cli.options import Broker
from swapstats_cli.supervisor.changes import without_effect
from swapstats_cli.supervisor.layout import Ports, embed
from swapstats_core.spec import SecretRef, SwapStatsResource, SwapStatsSpec

ROOT: Final = Path(__file__).parents[2]
PORTS: Final = Ports(kafka=1, redis=2, nats=3, clickhouse=4, recorder=5, api=6)
SECRET: Final = {"name": "s", "key": "k"}
TLS: Final = {"enabled": True, "caRef": SECRET, "certRef": SECRET, "keyRef": SECRET}
# Values of keys whose type doesn't tell one that differs from the default and is valid.
VALUES: Final[Mapping[str, object]] = {
    "spec.instance": "other",
    "spec.stores.clickhouse.database": "other",
    "spec.source.brokers": ["far:9092"],
    "spec.source.topic.partitions": 24,
    "spec.source.topic.cleanupPolicy": "delete",
    "spec.source.reorgHorizon": "20m",
    "spec.source.sasl": {"username": "u", "secretRef": SECRET},
    "spec.source.skip": [{"partition": 1, "offset": 2}],
    "spec.windows": ["5m", "1h"],
    "spec.limits.maxTradeUsd": "5",
    "spec.dedupe.ttl": "36h",
    "spec.grace": "60s",
    "spec.stores.redis.url": "redis://far:6379/0",
    "spec.stores.nats.url": "nats://far:4222",
    "spec.stores.clickhouse.url": "http://far:8123",
    "spec.stores.clickhouse.coldAfter": "80d",
    "spec.source.topic.retention": "8d",
    "spec.api.http.corsOrigins": ["https://app.example.com"],
    "spec.network.egressPorts": [7],
}
SURROUNDINGS: Final[Mapping[str, dict[str, object]]] = {
    "spec.stores.redis.tls": {"url": "rediss://far:1/0"},
    "spec.stores.nats.tls": {"url": "tls://far:1"},
    "spec.stores.clickhouse.tls": {"url": "https://far:1"},
}
"""What must be said beside a key."""


def keys(model: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, object]]:
    """Each key that has no keys below it, and its type. TLS and a Secret are given whole."""
    for name, field in model.model_fields.items():
        here, part = f"{path}.{field.alias or name}", field.annotation
        is_section = isinstance(part, type) and issubclass(part, BaseModel)
        if is_section and name != "tls" and part is not SecretRef:
            assert isinstance(part, type)
            yield from keys(part, here)
        else:
            yield here, part


def other(path: str, kind: object, default: Any) -> object:  # noqa: ANN401 - any value
    """A valid value that isn't the default."""
    if path in VALUES:
        return VALUES[path]
    if path.endswith(".tls"):
        return TLS
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != default)
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    if SecretRef in kinds:
        return SECRET
    if bool in kinds:
        return not default
    if int in kinds:
        return default + (1_000 if default >= 1_000 else 1)  # of a duration too: milliseconds
    if str in kinds:
        return "other"
    return {"limits": {"cpu": "1"}} if isinstance(default, dict) else ["other"]


def resource(path: str, kind: object) -> SwapStatsResource:
    """A file that says this key, and another value than the default's."""
    default: object = SwapStatsSpec()
    spec: dict[str, Any] = {}
    inner = spec
    *sections, last = path.removeprefix("spec.").split(".")
    for section in sections:
        inner[section] = inner = {}
        default = getattr(default, _python_name(default, section))
    inner |= {last: other(path, kind, getattr(default, _python_name(default, last)))} | SURROUNDINGS.get(path, {})
    return SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": spec})


def _python_name(section: object, key: str) -> str:
    assert isinstance(section, BaseModel)
    return next(name for name, field in type(section).model_fields.items() if (field.alias or name) == key)


def value(spec: BaseModel, path: str) -> object:
    found: object = spec
    for key in path.removeprefix("spec.").split("."):
        found = getattr(found, _python_name(found, key))
    return found


BY_PROPERTY: Final = {"dead_letter_topic": "dead_letters", "skip": "skipped"}
"""Keys that are read through a property of the model."""
KEYS: Final = dict(keys(SwapStatsSpec))


def read_on_a_laptop() -> set[str]:
    """All attributes that are read by what runs there: everything but the operator."""
    modules = [path for path in ROOT.glob("*/src/**/*.py") if path.name != "spec.py"]
    modules = [path for path in modules if not path.is_relative_to(ROOT / "operator")]
    assert len(modules) > 100
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


READ: Final = read_on_a_laptop()


@pytest.mark.parametrize("broker", Broker)
@pytest.mark.parametrize("path", KEYS)
def test_a_key_reaches_the_processes_or_is_told(path: str, broker: Broker) -> None:
    file = resource(path, KEYS[path])
    told = path in without_effect(file, broker)
    wanted, got = value(file.spec, path), value(embed(file, "uid", PORTS, broker).spec, path)
    name = _snake(path.rpartition(".")[2])
    is_read = BY_PROPERTY.get(name, name) in READ
    assert told or (wanted == got and is_read), f"{path}: a laptop drops it in silence; use it, or say that it can't"


def _snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)


def test_what_the_example_says_is_all_heeded() -> None:
    assert without_effect(SwapStatsResource.model_validate({"metadata": {"name": "demo"}}), Broker.EMBEDDED) == []


def test_what_a_laptop_lacks_is_told() -> None:
    said = {
        "shards": {"resources": {"limits": {"cpu": "1"}}},
        "recorder": {"replicas": 3},
        "images": {"api": "x"},
        "source": {"topic": {"replication": 3}},
    }
    file = SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": said})
    assert without_effect(file, Broker.EMBEDDED) == [
        "spec.source.topic.replication",
        "spec.images.api",
        "spec.shards.resources",
        "spec.recorder.replicas",
    ]
