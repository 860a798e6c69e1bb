"""The implementation guide, which isn't part of this repository: tests that need its text are skipped without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

_PLACE = Path("shared/GUIDE.md")


def guide() -> str:
    """Its text, from beside the repository or one of its worktrees."""
    for folder in Path(__file__).parents:
        if (folder / _PLACE).exists():
            return (folder / _PLACE).read_text()
    pytest.skip("needs the guide, ../shared/GUIDE.md, which isn't there")


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Sections joined; what comes later counts."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(whole.get(key), dict)
            whole[key] = merged(whole[key], value) if both else value
    return whole


def config() -> dict[str, Any]:
    """The guide's config.yaml."""
    found = re.search(r"```yaml\n(ingest:\n  broker_type.+?)```", guide(), re.DOTALL)
    assert found is not None
    return dict(yaml.safe_load(found[1]))


def production_config() -> dict[str, Any]:
    """What the guide's production section makes of it: its examples of sections, then its diff."""
    section = guide().split("## How PROD config will differ")[-1]
    examples = [
        yaml.safe_load(re.sub("(?m)^  ", "", text)) for text in re.findall(r"```yaml\n(.+?)```", section, re.DOTALL)
    ]
    diff = re.search(r"```diff\n(.+?)```", section, re.DOTALL)
    assert diff is not None
    after = "\n".join(line[1:] for line in diff[1].splitlines() if not line.startswith("-"))
    changed = [yaml.safe_load(part) for part in re.split(r"\n(?=\w)", after) if part.strip()]
    assert len(examples) >= 3
    assert len(changed) >= 6
    return merged(config(), *examples, *changed)
