"""The resource in a file."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from swapstats_core.naming import kept, with_names
from swapstats_core.spec import SwapStatsResource


def load_resource(path: Path) -> SwapStatsResource:
    """The resource in a YAML or JSON file, with every name said. As Kubernetes shows it, its status says names, too.

    Raises OSError, pydantic.ValidationError, yaml.YAMLError, ValueError.
    """
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    resource = SwapStatsResource.model_validate(content)
    return with_names(resource, kept(resource.metadata.name, resource.status))
