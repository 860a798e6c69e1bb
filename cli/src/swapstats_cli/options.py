"""What a user may ask of the commands, free of any library, so that the command line's help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal


class Broker(StrEnum):
    """Brokers that `swapstats dev` can start."""

    EMBEDDED = "embedded"
    """From a wheel, in memory."""
    KAFKA = "kafka"
    """Apache Kafka, which keeps its records."""


class Format(StrEnum):
    """Formats that can be imported."""

    UNISWAP_V3_POOL_CSV = "uniswap-v3-pool-csv"
    JSONL = "jsonl"
    ETH_GETLOGS = "eth-getlogs"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseOptions:
    """Shares from 0 to 1; None: the default, which ``preset`` raises from nothing to a bad day."""

    preset: bool = False
    duplicates: float | None = None
    late: float | None = None
    reorgs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """A generated stream."""

    rate: float = 1_000.0
    """Records per second; 0: as fast as possible."""
    tokens: int = 500
    span_ms: int | None = None
    """With rate 0: how far back the events reach."""
    chain_id: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """A recorded stream."""

    path: Path
    file_format: Format
    shift_to_now: bool = False
    speed: float | None = None
    raw: bool = False
    # What not every format has a use for: None is not said.
    token: str | None = None
    chain_id: int | None = None
    token_side: Literal[0, 1] | None = None
    decimals0: int | None = None
    decimals1: int | None = None
    pool: str | None = None
    block_times: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """Where to send it."""

    file: Path | None = None
    data_dir: Path | None = None
    brokers: str | None = None
    topic: str | None = None
    partitions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceOptions:
    """One run of `swapstats produce`. ``count`` 0 and ``duration_ms`` None: without end."""

    what: GenerateOptions | ImportOptions
    target: TargetOptions
    noise: NoiseOptions = NoiseOptions()
    seed: int = 1
    count: int = 0
    duration_ms: int | None = None
    grace_ms: int | None = None
    """None: the resource's."""
