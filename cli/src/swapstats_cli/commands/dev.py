"""`swapstats dev`: the whole system on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swapstats_cli.options import Broker


def dev(
    file: Annotated[
        Path, typer.Option("-f", "--file", exists=True, dir_okay=False, help="A SwapStats resource, YAML.")
    ],
    data_dir: Annotated[Path, typer.Option(help="Folder for state, logs and endpoints.json.")] = Path(".swapstats"),
    demo: Annotated[bool, typer.Option("--demo", help="Feed it a live demo stream.")] = False,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="SWAPSTATS_SECRETS_DIR",
            help="Folder of the Secrets that the file names, a file NAME/KEY for each. Default: `secrets` beside it.",
        ),
    ] = None,
    rate: Annotated[int, typer.Option(min=1, help="Events per second of the demo stream.")] = 1000,
    broker: Annotated[
        Broker, typer.Option(help="The embedded one keeps records in memory; kafka (`make kafka`) keeps them on disk.")
    ] = Broker.EMBEDDED,
) -> None:
    """Run the whole system on this machine, on embedded real servers or on those that the file names.

    It starts the shards, the recorder, the API and, of broker, Redis, NATS and ClickHouse, those whose address the file
    doesn't give; and it keeps them running. Addresses and passwords are in endpoints.json.
    Ctrl-C stops it in order, with a final snapshot; a second one hurries. The next start goes on from there.
    """
    from swapstats_cli.supervisor.run import Options, run

    raise typer.Exit(run(Options(file, data_dir, rate if demo else 0, broker, secrets_dir)))
