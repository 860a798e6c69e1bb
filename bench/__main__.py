"""``python -m bench``: every measurement, one after the other; a table, and ``bench/results.json``."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from operator import ge, le
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.parts import run_part

RESULTS: Final = Path(__file__).with_name("results.json")
PARTS: Final = ("shard", "recorder", "latency", "state", "idle")


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, by its key in the results, and its target if it has one."""

    key: str
    part: str
    what: str
    meets: Callable[[float, float], bool] = ge
    target: float | None = None

    def verdict(self, value: float) -> str:
        """Whether the target is met, for the table."""
        if self.target is None:
            return ""
        return "[green]met[/]" if self.meets(value, self.target) else "[bold red]missed[/]"

    @property
    def aim(self) -> str:
        """The target, for the table."""
        return "" if self.target is None else f"{'≥' if self.meets is ge else '≤'} {self.target:,}"


FIGURES: Final = (
    Figure("poll_decode_per_s", "shard", "loop that only polls and decodes, events/s"),
    # 100,000 are asked where the bare loop does 280,000, which is the ratio below.
    Figure("shard_per_s", "shard", "whole shard, events/s"),
    Figure("ratio", "shard", "their ratio", ge, 0.35),
    Figure("cpu_ratio", "shard", "their ratio by processor time"),
    Figure("snapshot_pause_ms", "shard", "longest stop for a snapshot, under that load, ms", le, 20),
    Figure("recorder_rows_per_s", "recorder", "recorder, rows/s decoded, encoded and sent", ge, 50_000),
    Figure("encode_send_rows_per_s", "recorder", "... only encoded and sent", ge, 50_000),
    Figure("latency_p50_ms", "latency", "produce to patch at 1,000 events/s, median, ms"),
    Figure("latency_p99_ms", "latency", "... 99th percentile, ms", le, 150),
    Figure("ids_id_bytes_per_event", "state", "10 million event ids: arrays, bytes each", le, 32),
    Figure(
        "ids_rss_growth_bytes_per_event", "state", "... growth of the process but for open events, bytes each", le, 32
    ),
    Figure("ids_ledger_bytes_per_mention", "state", "... of open events (30 minutes of stream time), bytes more each"),
    Figure("ids_full_snapshot_stop_ms", "state", "... whole state stored: longest stop of the loop, ms", le, 20),
    Figure("ids_snapshot_stop_ms", "state", "... next snapshot: longest stop of the loop, ms", le, 20),
    Figure("ids_full_snapshot_mb", "state", "... whole state stored, MB"),
    Figure("ids_full_snapshot_s", "state", "... whole state stored, s"),
    Figure("ids_restore_s", "state", "... restored, s"),
    Figure("tokens_rss_mb", "state", "100,000 tokens, 3 active minutes each: the process, MB", le, 250),
    Figure("tokens_full_snapshot_stop_ms", "state", "... whole state stored: longest stop of the loop, ms", le, 20),
    Figure("tokens_full_snapshot_mb", "state", "... whole state stored, MB"),
    Figure("tokens_full_snapshot_s", "state", "... whole state stored, s"),
    Figure("tokens_restore_s", "state", "... restored, s"),
    Figure("idle_shard_percent", "idle", "without traffic: a shard's share of a processor, %", le, 1),
    Figure("idle_api_percent", "idle", "... the API's, %", le, 1),
    Figure("idle_recorder_percent", "idle", "... the recorder's, %", le, 1),
    Figure("idle_supervisor_percent", "idle", "... the supervisor's, %", le, 1),
    Figure("idle_broker_percent", "idle", "... the embedded broker's, %", le, 1),
)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines() if "model name" in line]
    return {
        "processor": models[0].partition(": ")[2] if models else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def table(results: dict[str, Any]) -> Table:
    """Figures with targets, and the command that prints each."""
    shown = Table("figure", "measured", "target", "", "printed by", title="SwapStats benchmarks")
    for figure in FIGURES:
        if (value := results.get(figure.key)) is not None:
            shown.add_row(
                figure.what, f"{value:,}", figure.aim, figure.verdict(value), f"python -m bench.{figure.part}"
            )
    return shown


def main() -> None:
    """Run the parts; the results are written only when all of them are there."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.parse_args()
    console = Console()
    results: dict[str, Any] = {
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    for part in PARTS:
        with console.status(f"python -m bench.{part}"):
            results |= asyncio.run(run_part(f"bench.{part}"))
        console.print(f"python -m bench.{part}: done")
    results["load_after"] = round(os.getloadavg()[0], 2)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(table(results))
    console.print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
