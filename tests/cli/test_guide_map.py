"""docs/guide-map.md has all that the guide names, and says nothing of keys that aren't there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from swapstats_cli.converting.guide import KEYS
from swapstats_core.effects import key_of, section_of
from swapstats_core.spec import SwapStatsSpec
from tests.kit.guide import config, guide, merged, production_config

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide-map.md").read_text()
SECTIONS = r"(?:source|stores|api|snapshots|dedupe|limits|shards|recorder|rollout|telemetry|images)"


def named(pattern: str) -> set[str]:
    """What the guide has of a form."""
    found = set(re.findall(pattern, guide()))
    assert found
    return found


def missing(names: set[str]) -> set[str]:
    """Those that the page lacks."""
    return {name for name in names if name not in PAGE}


def dotted(section: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_section() -> None:
    headings = {re.sub(r"[^ -~⇄]", "", heading).strip() for heading in named(r"(?m)^## (.+)$")} - {"Table of Contents"}
    table = PAGE.split("\n## Sections\n")[1].split("\n## ")[0]
    assert len(headings) > 20
    assert headings <= set(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))


def test_every_key() -> None:
    keys = set(dotted(merged(config(), production_config())))
    assert len(keys) >= 50
    assert missing(keys) == set()


def test_every_endpoint_metric_script_and_field() -> None:
    assert missing(named(r"`(?:GET|POST|PUT|DELETE) (/[^`? ]*)") - {"/api/tokens/USDC/stats"}) == set()
    assert missing(named(r"`(/ws|:[0-9]{4})`")) == set()
    metrics = guide().split("## Observability")[-1].split("**pprof:**")[0]
    names = set(re.findall(r"`(\w+_\w+)`", metrics))
    assert len(names) == 10
    assert missing(names) == set()
    assert missing(named(r"[\w/.]+\.(?:sh|postman_\w+\.json)|docker-compose[\w.]+|[\w/]+config_dev\.yaml")) == set()
    fields = named(r"(?m)^  ([A-Z]\w+) +(?:string|uint64|uint|float64|int64|Side|bool|time\.Time)\b") - {"TakenAt"}
    assert missing(fields - {"GraceSec", "Version", "Minute"}) == set()
    columns = set(re.findall(r"(?m)^    (\w+) +\w", guide().split("raw_swaps\n(")[1].split(")\n    ENGINE")[0]))
    assert len(columns) == 16
    assert missing(columns) == set()


def test_every_key_that_is_converted_or_has_no_place() -> None:
    assert missing({key for key in KEYS if f"`{key}." not in PAGE}) == set()


def model_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{key_of(name, field)}"
        yield key
        if (part := section_of(field)) is not None:
            yield from model_keys(part, f"{key}.")


def test_keys_of_ours_are_there_and_those_that_are_refused_are_not() -> None:
    known = set(model_keys(SwapStatsSpec))
    rows = PAGE.split("\n## Keys of `config.yaml`\n")[1].split("\n## ")[0]
    places = [
        re.findall(rf"`({SECTIONS}\.[\w.]+|grace)`", row.split(" | ")[1])
        for row in re.findall(r"^\| `.+$", rows, re.MULTILINE)
    ]
    assert {key for row in places for key in row} <= known
    refused = re.findall(r"A resource with `([\w.]+)` is refused", PAGE)
    assert len(refused) == 4
    assert not set(refused) & known


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (DOCS / link).exists()
