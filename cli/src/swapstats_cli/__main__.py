"""The `swapstats` command. Each command lives in `swapstats_cli.commands` and is imported only when it runs."""

from __future__ import annotations

from importlib import import_module

import click
import typer
from typer.core import TyperGroup

COMMANDS = {
    "dev": "Run the whole system on this machine, on embedded real servers.",
    "produce": "Send generated or imported swaps to the broker.",
    "token": "Show what one token traded.",
    "verify": "Recompute every window and compare it with what is served.",
}
"""Name and summary of every command; ``commands/<name>.py`` holds the function of the same name."""


class LazyCommands(TyperGroup):
    """Loads only the command that is run: client libraries cost half a second that `--help` shouldn't pay."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What a listing needs of a command: its name and summary."""
        summary = COMMANDS.get(cmd_name)
        return None if summary is None else click.Command(cmd_name, help=summary)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return (name, listed, rest) if listed is None else (name, load(str(listed.name)), rest)


def load(name: str) -> click.Command:
    """Import a command and build its parser."""
    module = import_module(f"swapstats_cli.commands.{name}")
    single = typer.Typer(add_completion=False)
    single.command(name)(getattr(module, name))
    return typer.main.get_command(single)


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def swapstats() -> None:
    """Exact rolling-window statistics of swaps."""


if __name__ == "__main__":
    app(prog_name="swapstats")
