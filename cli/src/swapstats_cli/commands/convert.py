"""`swapstats convert`: the resource that a configuration file of the implementation guide stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    file: Annotated[Path, typer.Argument(help="The file, such as config.yaml.", dir_okay=False)],
    name: Annotated[str, typer.Option(help="The resource's name.")] = "swapstats",
) -> None:
    """Print the SwapStats resource that a guide's config.yaml stands for; what has no place in it is said on stderr.

    Exit code 0: the resource is valid; 1: the file can't be converted, and stderr says what to mend.
    """
    # Only for this command: `swapstats --help` doesn't wait for the model.
    from swapstats_cli.converting.file import Unconvertible, converted

    try:
        resource, notes = converted(file, name)
    except Unconvertible as fault:
        for line in fault.lines:
            typer.echo(line, err=True)
        raise typer.Exit(1) from None
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(resource, nl=False)
