"""Which system a client command talks to: a resource file, a running `swapstats dev`, or plain broker addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import yaml
from pydantic import ValidationError

from swapstats_cli.supervisor.datadir import DataDir
from swapstats_core.spec import Source, SwapStatsResource, SwapStatsSpec
from swapstats_core.swap import Inlet
from swapstats_runtime.resource import load_resource

DEFAULT_DATA_DIR: Final = Path(".swapstats")


class TargetFault(Exception):
    """The target can't be found or read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A topic to produce to."""

    source: Source
    inlet: Inlet
    grace_ms: int
    partitions: int | None
    """What the caller or the resource says; None: whatever the broker says."""
    secrets: Path | None
    """Folder of the Secrets that ``source`` names; None: the surroundings say."""


class _Endpoints(msgspec.Struct):
    http: str
    spec: str


def resource_in(path: Path) -> SwapStatsResource:
    """The resource in a file. Raises TargetFault."""
    try:
        return load_resource(path)
    except OSError as error:
        raise TargetFault(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise TargetFault(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise TargetFault(f"{path} is neither YAML nor JSON: {error}") from None


def kafka_target(
    file: Path | None, data_dir: Path | None, brokers: str | None, topic: str | None, partitions: int | None
) -> Target:
    """The topic that the options name. ``brokers`` (separated by commas) and ``topic`` outrank the resource's.

    Raises TargetFault.
    """
    if file is not None and data_dir is not None:
        raise TargetFault("-f and --data-dir name two systems: give one of them")
    known = file is not None or data_dir is not None or (brokers is None and DEFAULT_DATA_DIR.is_dir())
    if not known and brokers is None:
        raise TargetFault(
            "no system named: give --brokers HOST:PORT, -f FILE or --data-dir DIR, or start `swapstats dev`"
        )
    spec = _spec(file, data_dir or DEFAULT_DATA_DIR) if known else SwapStatsSpec()
    source = spec.source
    topic_spec = source.topic.model_copy(update={"name": topic or source.topic.name})
    source = source.model_copy(
        update={"brokers": brokers.split(",") if brokers else source.brokers, "topic": topic_spec}
    )
    own_topic = known and topic in (None, spec.source.topic.name)
    count = partitions or (source.topic.partitions if own_topic else None)
    secrets = DataDir(data_dir or DEFAULT_DATA_DIR).secrets if known and file is None else None
    return Target(source, Inlet.of(spec), spec.grace, count, secrets)


def http_url(url: str | None, data_dir: Path | None) -> str:
    """Base address of the API that the options name, without a slash at its end. Raises TargetFault."""
    return (url or _endpoints(data_dir or DEFAULT_DATA_DIR).http).rstrip("/")


def _spec(file: Path | None, data_dir: Path) -> SwapStatsSpec:
    path = file or Path(_endpoints(data_dir).spec)
    return resource_in(path).spec


def _endpoints(data_dir: Path) -> _Endpoints:
    path = DataDir(data_dir).endpoints
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Endpoints)
    except FileNotFoundError:
        raise TargetFault(f"{path} is not there: nothing runs on this data directory; start `swapstats dev`") from None
    except (OSError, msgspec.DecodeError) as error:
        raise TargetFault(f"{path} can't be read: {error}") from None
