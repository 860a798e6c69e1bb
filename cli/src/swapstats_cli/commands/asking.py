"""What the commands that speak with a running `swapstats dev` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swapstats_cli.control.commands import Command

DataDirOption = Annotated[Path | None, typer.Option(help="Of a running `swapstats dev`. Default: .swapstats.")]
TimeoutOption = Annotated[str, typer.Option(help="How long to wait, as in 90s; what was asked for goes on after it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print how it ended as JSON.")]


def carry_out(name: str, command: Command, data_dir: Path | None, timeout: str, *, as_json: bool) -> None:
    """Give a command and show its progress until it is done. Exit code 1: it isn't."""
    from swapstats_cli.control.showing import show

    raise typer.Exit(show(name, command, data_dir, timeout, as_json=as_json))
