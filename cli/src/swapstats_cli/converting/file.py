"""A configuration file as the text of a resource."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from swapstats_cli.converting.guide import Conversion, convert
from swapstats_core.spec import SwapStatsResource


class Unconvertible(Exception):
    """``lines``: what must be mended, one each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def converted(file: Path, name: str) -> tuple[str, list[str]]:
    """The resource as YAML, and what there is to say about it, a line each. Raises Unconvertible."""
    try:
        done = convert(_content(file))
    except RecursionError:
        raise Unconvertible([f"{file}: its sections are nested too deep"]) from None
    if done.faults:
        raise Unconvertible(done.faults + done.notes)
    resource = {
        "apiVersion": "swapstats.io/v1alpha1",
        "kind": "SwapStats",
        "metadata": {"name": name},
        "spec": done.spec,
    }
    try:
        SwapStatsResource.model_validate(resource)
    except ValidationError as error:
        faults = [_fault(each["loc"], each["msg"], done) for each in error.errors()]
        raise Unconvertible(faults + done.notes) from None
    head = f"# Made of {file.name} by `swapstats convert`.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, allow_unicode=True), done.notes


def _fault(place: tuple[int | str, ...], message: str, done: Conversion) -> str:
    """What the model refuses, with the key of the file that it comes from. The value isn't shown: it may be secret."""
    path = ".".join(map(str, place))
    origin = next((key for known, key in done.origins.items() if f"{path}.".startswith(f"{known}.")), None)
    return f"{path if origin is None else origin}: {message.removeprefix('Value error, ')}"


class _Loader(yaml.SafeLoader):
    """As YAML says, a key comes once: of two sections of one name the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - of the base
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} comes twice: join both into one", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _content(file: Path) -> dict[object, object]:
    try:
        content = yaml.load(file.read_bytes(), _Loader)  # noqa: S506 - a safe one
    except OSError as error:
        raise Unconvertible([f"{file} can't be read: {error.strerror}"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unconvertible([f"{file} is no YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(content, dict) or not content:
        raise Unconvertible([f"{file}: must be a mapping with sections such as ingest, app and stores"])
    return content
