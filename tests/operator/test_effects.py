"""What a key's change takes is said once, beside the key: the operator and `swapstats dev` both do that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from swapstats_cli.supervisor.changes import changes
from swapstats_core.effects import RESTARTS, Effect, Takes, key_of, section_of, takes, takes_of
from swapstats_core.fields import DAY_MS
from swapstats_core.spec import Sasl, SecretRef, Skip, SwapStatsResource, SwapStatsSpec
from swapstats_operator.revision import Images, Revision, revision_of

ROOT = Path(__file__).parents[2]
PROCESSES = ("aggregator", "api")
SECRET = SecretRef(name="a", key="b")
ABSENT: dict[str, object] = {"SecretRef": SECRET, "Sasl": Sasl(username="u", secret_ref=SECRET)}
"""What an absent section becomes."""


def leaves(
    model: type[BaseModel], path: tuple[str, ...] = (), section: Takes = RESTARTS
) -> Iterator[tuple[tuple[str, ...], FieldInfo, Takes]]:
    """Each key that has a value of its own, by its names in Python, and what its change takes."""
    for name, field in model.model_fields.items():
        said, part = takes(field, section), section_of(field)
        if part is not None and field.default is not None:
            yield from leaves(part, (*path, name), said)
        else:
            yield (*path, name), field, said


LEAVES = list(leaves(SwapStatsSpec))


def written(path: tuple[str, ...]) -> str:
    """The path as in a file."""
    steps: list[str] = []
    here: type[BaseModel] | None = SwapStatsSpec
    for name in path:
        assert here is not None
        field = here.model_fields[name]
        steps.append(key_of(name, field))
        here = section_of(field)
    return ".".join(steps)


def another_item(field: FieldInfo) -> object:
    """Of a list that is empty."""
    kind = str(field.annotation)
    return Skip(partition=0, offset=1) if "Skip" in kind else 7 if "int" in kind else "x"


def changed(value: object, field: FieldInfo) -> object:
    """Another value of a field; whether it is allowed is no matter here."""
    match value:
        case bool():
            return not value
        case int():
            return value + 60_000
        case str():
            return f"{value}x"
        case dict():
            return {"limits": {"cpu": 1}}
        case list():
            return [*value, value[0] if value else another_item(field)]
        case _:
            part = section_of(field)
            return ABSENT[part.__name__] if part is not None else 7 if "int" in str(field.annotation) else "x"


def with_change(model: Any, path: tuple[str, ...]) -> Any:  # noqa: ANN401 - any section
    """A copy that differs in one key."""
    name, *rest = path
    value = getattr(model, name)
    after = with_change(value, tuple(rest)) if rest else changed(value, type(model).model_fields[name])
    return model.model_copy(update={name: after})


BEFORE = SwapStatsResource.model_validate({"metadata": {"name": "demo"}})


def revision(resource: SwapStatsResource) -> Revision:
    """What all of the pods are made of: another one is a rolling restart."""
    return msgspec.structs.replace(revision_of(resource, Images("a", "b"), {}, "", "salt"), secrets={})


def test_there_are_keys_of_all_kinds() -> None:
    assert len(LEAVES) > 60
    assert {said.cluster for *_, said in LEAVES} == {Effect.LIVE, Effect.TOPIC, Effect.RESTART, Effect.REFUSED}
    laptop = {said.laptop for *_, said in LEAVES}
    assert laptop == {Effect.LIVE, Effect.NOTHING, Effect.RESTART, Effect.NEXT_START, Effect.REFUSED}


@pytest.mark.parametrize(("path", "field", "said"), LEAVES, ids=[written(path) for path, *_ in LEAVES])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_operator_and_laptop_do_what_the_key_says(path: tuple[str, ...], field: FieldInfo, said: Takes) -> None:
    after = with_change(BEFORE, ("spec", *path))
    restarts = said.cluster in (Effect.RESTART, Effect.REFUSED)
    assert (revision(after) != revision(BEFORE)) is restarts

    found = changes(BEFORE, after)
    assert found
    for change in found:
        assert change.field.startswith(f"spec.{written(path)}")
        assert change.effect is said.laptop
        assert takes_of(SwapStatsResource, change.field.split(".")) == said


@pytest.mark.parametrize("said", dict.fromkeys(said for *_, said in LEAVES), ids=str)
def test_a_laptop_does_no_more_than_a_cluster(said: Takes) -> None:
    allowed = {
        Effect.LIVE: {Effect.LIVE, Effect.NOTHING},
        Effect.TOPIC: {Effect.NEXT_START},
        Effect.RESTART: {Effect.RESTART, Effect.NEXT_START, Effect.REFUSED, Effect.NOTHING},
        Effect.REFUSED: {Effect.REFUSED},
    }
    assert said.laptop in allowed[said.cluster]
    assert bool(said.why) is (Effect.REFUSED in (said.cluster, said.laptop))


def test_no_process_reads_a_key_whose_change_restarts_none() -> None:
    modules = [path for member in PROCESSES for path in (ROOT / member).glob("src/**/*.py")]
    nodes = [node for path in modules for node in ast.walk(ast.parse(path.read_text()))]
    read = {".".join(ast.unparse(node).split(".")[-2:]) for node in nodes if isinstance(node, ast.Attribute)}
    assert "topic.partitions" in read
    for path, _, said in LEAVES:
        if said.cluster in (Effect.LIVE, Effect.TOPIC):
            assert ".".join(path[-2:]) not in read, f"{written(path)} is read by a process: let its change restart them"


@pytest.mark.parametrize("windows", [["5m"], ["5m", "1h", "24h"], ["1h", "7d"]])
def test_what_processes_get_is_valid_whatever_was_left_out(windows: list[str]) -> None:
    spec: dict[str, Any] = {
        "windows": windows,
        "grace": "5m",
        "dedupe": {"ttl": "8d"},
        "source": {"topic": {"partitions": 1, "retention": "30d"}},
        "shards": {"replicas": 1},
    }
    resource = SwapStatsResource.model_validate({"metadata": {"name": "demo"}, "spec": spec})
    parsed = revision_of(resource, Images("a", "b"), {}, "", "salt").parsed
    assert parsed.spec.windows == resource.spec.windows
    assert parsed.spec.source.topic.retention == parsed.spec.windows[-1] + parsed.spec.grace <= 8 * DAY_MS
