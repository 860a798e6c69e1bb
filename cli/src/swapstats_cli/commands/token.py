"""`swapstats token`: what traded, now."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer


def token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token, as in WETH.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow every change until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's reply; with --watch, one per line.")] = False,
    url: Annotated[str | None, typer.Option(help="Address of the API, as in http://127.0.0.1:8080.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of a running `swapstats dev`. Default: .swapstats.")
    ] = None,
) -> None:
    """Print a token's windows, once or on every change."""
    # Imported here, so that `swapstats --help` doesn't wait for client libraries.
    from swapstats_cli.target import TargetFault, http_url
    from swapstats_cli.token.client import fetch
    from swapstats_cli.token.watching import Refusal

    try:
        address = http_url(url, data_dir)
        if watch:
            _watch(address, token_id, as_json=as_json)
        else:
            _print(asyncio.run(fetch(address, token_id)), as_json=as_json)
    except (TargetFault, Refusal) as error:
        typer.echo(f"swapstats token: {error}", err=True)
        raise typer.Exit(1) from None


def _print(state: dict[str, object], *, as_json: bool) -> None:
    from rich.console import Console

    from swapstats_cli.token.view import table

    if as_json:
        typer.echo(json.dumps(state))
    else:
        Console().print(table(state))


def _watch(address: str, token_id: str, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from swapstats_cli.token.client import follow
    from swapstats_cli.token.view import line, table

    def lost(reason: str) -> None:
        typer.echo(f"stale: {reason}; connecting again", err=True)

    console = Console()
    try:
        if as_json or not console.is_terminal:
            asyncio.run(follow(address, token_id, lambda s: typer.echo(json.dumps(s) if as_json else line(s)), lost))
            return
        last: dict[str, object] = {}
        with Live(console=console, auto_refresh=True) as live:

            def show(state: dict[str, object]) -> None:
                last.update(state)
                live.update(table(state))

            def lost_on_screen(reason: str) -> None:
                live.update(table(last, reason) if last else f"stale: {reason}; connecting again")

            asyncio.run(follow(address, token_id, show, lost_on_screen))
    except KeyboardInterrupt:
        return
