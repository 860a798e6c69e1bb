"""A command's progress, on a terminal or as lines, and how it ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from swapstats_cli.control.client import carry_out
from swapstats_cli.control.commands import Command, Refusal
from swapstats_cli.target import TargetFault
from swapstats_core.fields import parse_duration_ms
from swapstats_decider.snapshots import Progress

DONE: Final = 0
FAILED: Final = 1


def show(name: str, command: Command, data_dir: Path | None, timeout: str, *, as_json: bool) -> int:
    """Carry a command out and show it. Returns the exit code."""
    try:
        timeout_ms = parse_duration_ms(timeout)
        end = asyncio.run(_follow(command, data_dir, timeout_ms))
    except (TargetFault, Refusal, ValueError) as fault:
        end = Progress("failed", str(fault), 0, 0)
    except KeyboardInterrupt:
        end = Progress("failed", "not waited for any longer; it goes on: see `swapstats status`", 0, 0)
    if as_json:
        print(json.dumps({"command": name, "done": end.state == "done", "detail": end.text}))
    elif end.state == "done":
        print(end.text)
    else:
        print(f"swapstats {name}: {end.text}", file=sys.stderr)
    return DONE if end.state == "done" else FAILED


async def _follow(command: Command, data_dir: Path | None, timeout_ms: int) -> Progress:
    """The last progress. Raises as `carry_out`."""
    last = Progress("running", "asked for", 0, 0)
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            with _shown() as update:
                async for last in carry_out(data_dir, command):
                    update(last)
    except TimeoutError:
        return Progress(
            "failed",
            f"not done within {timeout_ms / 1000:g} s ({last.text}); it goes on: see `swapstats status`",
            last.done,
            last.total,
        )
    if last.state == "running":
        raise TargetFault(f"`swapstats dev` ended before it was done ({last.text})")
    return last


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        said: set[str] = set()

        def say(progress: Progress) -> None:
            if progress.state == "running" and progress.text not in said:
                said.add(progress.text)
                console.print(progress.text, highlight=False, markup=False, soft_wrap=True)

        yield say
        return
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(progress: Progress) -> None:
            bar.update(task, description=progress.text, completed=progress.done, total=progress.total or None)

        yield draw
