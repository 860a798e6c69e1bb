"""The `swapstats` command. A command's module imports its client libraries only when it runs, so that help is quick."""

from __future__ import annotations

import typer

from swapstats_cli.commands.convert import convert
from swapstats_cli.commands.dev import dev
from swapstats_cli.commands.drain import drain
from swapstats_cli.commands.produce import produce
from swapstats_cli.commands.restart import restart
from swapstats_cli.commands.scale import scale
from swapstats_cli.commands.snapshot import snapshot
from swapstats_cli.commands.status import status
from swapstats_cli.commands.token import token
from swapstats_cli.commands.verify import verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (dev, status, scale, drain, restart, snapshot, produce, token, verify, convert):
    app.command()(command)


@app.callback()
def swapstats() -> None:
    """Exact rolling-window statistics of swaps."""


if __name__ == "__main__":
    app(prog_name="swapstats")
