"""The `swapstats` command. A command's module imports its client libraries only when it runs, so that help is quick."""

from __future__ import annotations

import typer

from swapstats_cli.commands.dev import dev

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(dev)


@app.callback()
def swapstats() -> None:
    """Exact rolling-window statistics of swaps."""


if __name__ == "__main__":
    app(prog_name="swapstats")
