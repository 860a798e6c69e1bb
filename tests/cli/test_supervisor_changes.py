"""Edits of the resource file: what they mean, and how they are noticed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from swapstats_cli.options import Broker
from swapstats_cli.supervisor import layout, resource_file
from swapstats_cli.supervisor.changes import changes
from swapstats_cli.supervisor.configuration import Configuration
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.supervisor.layout import Ports
from swapstats_cli.supervisor.resource_file import ResourceError, ResourceFile
from swapstats_cli.supervisor.versions import Versions
from swapstats_core.effects import Effect
from swapstats_core.spec import SwapStatsResource

EMBED = partial(
    layout.embed,
    uid="uid",
    ports=Ports(kafka=1, redis=2, nats=3, clickhouse=4, recorder=5, api=6),
    broker=Broker.EMBEDDED,
)


KAFKA_NAMED = {"spec.source.tls.enabled": Effect.REFUSED, "spec.source.sessionTimeout": Effect.RESTART}
REDIS_NAMED = {f"spec.stores.redis.{key}": Effect.REFUSED for key in ("url", "secretRef.name", "secretRef.key")}
CALLED_OTHERWISE = {"spec.instance": Effect.REFUSED}
GROUPED_OTHERWISE = {"spec.source.groupId": Effect.RESTART}
"""Names follow from the resource's name, and from whose a server is."""


def _resource(name: str = "demo", **spec: object) -> SwapStatsResource:
    return SwapStatsResource.model_validate({"metadata": {"name": name}, "spec": spec})


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (_resource(), {}),
        (_resource(shards={"replicas": 3}), {"spec.shards.replicas": Effect.LIVE}),
        (
            _resource(shards={"failoverAfter": "3s"}, rollout={"maxMoving": 4}),
            {"spec.shards.failoverAfter": Effect.LIVE, "spec.rollout.maxMoving": Effect.LIVE},
        ),
        (_resource(snapshots={"interval": "1s"}), {"spec.snapshots.interval": Effect.RESTART}),
        (_resource(windows=["5m", "4h", "24h"]), {"spec.windows": Effect.RESTART}),
        (_resource(api={"replicas": 1}), {"spec.api.replicas": Effect.LIVE}),
        (_resource(api={"http": {"port": 1}}), {"spec.api.http.port": Effect.NEXT_START}),
        (_resource(source={"topic": {"retention": "5d"}}), {"spec.source.topic.retention": Effect.NEXT_START}),
        (_resource(shards={"resources": {"cpu": 1}}), {"spec.shards.resources.cpu": Effect.NOTHING}),
        # What a laptop replaces is no difference.
        (_resource(source={"topic": {"replication": 3}}, stores={"clickhouse": {"storagePolicy": "tiered"}}), {}),
        (
            _resource(source={"tls": {"enabled": True}}),
            {"spec.source.brokers": Effect.REFUSED} | KAFKA_NAMED | GROUPED_OTHERWISE,
        ),
        (_resource(stores={"redis": {"url": "redis://far:1"}}), REDIS_NAMED | CALLED_OTHERWISE),
        (_resource("other"), {"metadata.name": Effect.REFUSED} | CALLED_OTHERWISE),
        (_resource(source={"topic": {"partitions": 6}}), {"spec.source.topic.partitions": Effect.REFUSED}),
        (_resource(source={"topic": {"name": "x"}}), {"spec.source.topic.name": Effect.REFUSED}),
        (_resource(stores={"redis": {"prefix": "x"}}), {"spec.stores.redis.prefix": Effect.REFUSED}),
    ],
)
def test_what_a_change_takes(after: SwapStatsResource, expected: dict[str, Effect]) -> None:
    found = changes(EMBED(_resource()), EMBED(after))
    effects = {change.field: change.effect for change in found if change.field != "spec.shards.resources"}
    assert effects == expected


class Desk:
    """A configuration, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.alarms: list[str] = []
        self.versions = Versions()
        self.data = DataDir(folder)
        self.configuration = Configuration(_resource(), EMBED, self.data, self.versions, self._say)

    def _say(self, text: str, *, bad: bool = False) -> None:
        (self.alarms if bad else self.said).append(text)


def test_an_accepted_edit_is_in_force_and_said(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    before = desk.versions.newest
    assert desk.configuration.take(_resource(shards={"replicas": 3})) == {"spec.shards.replicas"}
    assert desk.versions.newest == before
    assert desk.said == ["the resource has changed (spec.shards.replicas: 2 -> 3): in force at once"]

    assert desk.configuration.take(_resource(shards={"replicas": 3}, grace="60s")) == {"spec.grace"}
    assert desk.versions.newest > before
    assert "(spec.grace: 2m -> 1m): every shard is restarted, one after the other" in desk.said[-1]
    assert desk.configuration.generation == 3
    assert SwapStatsResource.model_validate_json(desk.data.spec.read_bytes()) == desk.configuration.resource
    assert desk.alarms == []


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (ResourceError("x.yaml is no YAML: line 3"), "is no YAML: line 3"),
        (
            _resource(source={"topic": {"partitions": 6}}),
            "spec.source.topic.partitions can't change from 12 to 6: a token",
        ),
    ],
)
def test_a_refused_edit_changes_nothing_until_the_file_is_well_again(
    tmp_path: Path, edit: SwapStatsResource | ResourceError, why: str
) -> None:
    desk = Desk(tmp_path)
    problems = []
    for content in (edit, _resource()):
        assert desk.configuration.take(content) == frozenset()
        problems.append(desk.configuration.problem or "none")
    assert why in desk.alarms[0]
    assert [why in problem for problem in problems] == [True, False]
    assert problems[1] == "none"
    assert (desk.configuration.generation, desk.data.spec.exists()) == (1, False)
    assert len(desk.said) == 1


async def _next(edits: AsyncIterator[SwapStatsResource | ResourceError]) -> SwapStatsResource | ResourceError:
    async with asyncio.timeout(10):
        return await anext(edits)


async def test_edits_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_file, "INTERVAL_S", 0.01)
    path = tmp_path / "x.yaml"
    path.write_text("metadata: {name: demo}\nspec: {shards: {replicas: 2}}")
    file = ResourceFile(path)
    assert file.load().spec.shards.replicas == 2
    edits = file.edits()

    os.utime(path, (1, 1))  # touched, not changed
    path.write_text("metadata: {name: demo}\nspec: {shards: {replicas: 3}}")
    edit = await _next(edits)
    assert isinstance(edit, SwapStatsResource)
    assert edit.spec.shards.replicas == 3

    path.write_text("metadata: {name: demo}\nspec: {shards: {replicas: 99}}")
    assert "must not exceed source.topic.partitions" in str(await _next(edits))

    path.unlink()
    assert "can't be read: No such file or directory" in str(await _next(edits))

    elsewhere = tmp_path / "y.yaml"
    elsewhere.write_text("metadata: {name: demo}\nspec: {shards: {replicas: 4}}")
    elsewhere.replace(path)  # as editors save
    edit = await _next(edits)
    assert isinstance(edit, SwapStatsResource)
    assert edit.spec.shards.replicas == 4
