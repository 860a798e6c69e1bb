"""Which system is verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.target import DEFAULT_DATA_DIR, http_url, resource_in
from swapstats_core.spec import SwapStatsSpec


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What the command was asked; None: as the resource says."""

    file: Path | None = None
    data_dir: Path | None = None
    url: str | None = None
    brokers: str | None = None
    clickhouse: str | None = None


@dataclass(frozen=True, slots=True)
class VerifyTarget:
    """A system: its resource's spec, with the addresses to use, and its API."""

    spec: SwapStatsSpec
    url: str
    secrets: Path | None
    """Folder of the Secrets that ``spec`` names; None: the surroundings say."""


def verify_target(options: VerifyOptions) -> VerifyTarget:
    """The system that the options name. Raises TargetFault."""
    spec, url = _system(options)
    source, clickhouse = spec.source, spec.stores.clickhouse
    if options.brokers:
        source = source.model_copy(update={"brokers": options.brokers.split(",")})
    if options.clickhouse:
        clickhouse = clickhouse.model_copy(update={"url": options.clickhouse})
    stores = spec.stores.model_copy(update={"clickhouse": clickhouse})
    secrets = None if options.file is not None else DataDir(options.data_dir or DEFAULT_DATA_DIR).secrets
    return VerifyTarget(spec.model_copy(update={"source": source, "stores": stores}), url, secrets)


def _system(options: VerifyOptions) -> tuple[SwapStatsSpec, str]:
    if options.file is not None:
        spec = resource_in(options.file).spec
        return spec, (options.url or f"http://localhost:{spec.api.http.port}").rstrip("/")
    data_dir = options.data_dir or DEFAULT_DATA_DIR
    url = http_url(options.url, data_dir)
    if options.url is not None and options.data_dir is None and not data_dir.is_dir():
        return SwapStatsSpec(), url
    return resource_in(DataDir(data_dir).spec).spec, url
