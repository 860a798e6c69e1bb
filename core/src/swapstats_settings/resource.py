"""The resource in a file."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from swapstats_core.naming import named
from swapstats_core.spec import SwapStatsResource


def load_resource(path: Path) -> SwapStatsResource:
    """The resource in a YAML or JSON file, with every name said.

    Raises OSError, pydantic.ValidationError, yaml.YAMLError, ValueError.
    """
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return named(SwapStatsResource.model_validate(content))
