"""`swapstats status`: how the system is."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from swapstats_cli.commands.asking import DataDirOption

LOOK_INTERVAL_S: Final = 0.5


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look twice a second, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON; with --watch, one line each time.")
    ] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Show conditions, shards, partitions on the move, and the last handoffs."""
    # Imported here, so that `swapstats --help` doesn't wait for client libraries.
    from rich.console import Console
    from rich.live import Live

    from swapstats_cli.control.client import status_of
    from swapstats_cli.control.status_view import screen
    from swapstats_cli.target import TargetFault
    from swapstats_decider.status import Status, encode_status

    console = Console()

    def show(found: Status) -> None:
        if as_json:
            typer.echo(encode_status(found))
        else:
            console.print(screen(found))

    async def follow() -> None:
        if as_json or not console.is_terminal:
            while True:
                show(await status_of(data_dir))
                await asyncio.sleep(LOOK_INTERVAL_S)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(screen(await status_of(data_dir)), refresh=True)
                await asyncio.sleep(LOOK_INTERVAL_S)

    try:
        if watch:
            asyncio.run(follow())
        else:
            show(asyncio.run(status_of(data_dir)))
    except TargetFault as fault:
        typer.echo(f"swapstats status: {fault}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        return
