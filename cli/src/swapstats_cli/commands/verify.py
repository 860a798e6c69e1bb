"""`swapstats verify`: is what is served exactly what the topic says?"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated

import typer


def verify(
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="Resource that names the system.", dir_okay=False)
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Of a running `swapstats dev`. Default: .swapstats.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of an API. Default: the system's.")] = None,
    brokers: Annotated[str | None, typer.Option(help="host:port, separated by commas. Default: the system's.")] = None,
    clickhouse: Annotated[str | None, typer.Option(help="Address of ClickHouse. Default: the system's.")] = None,
    no_clickhouse: Annotated[bool, typer.Option("--no-clickhouse", help="Leave ClickHouse out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare every served window, and ClickHouse's rows, with what the topic's records say.

    Works while the stream flows. Exit code 0: no difference; 1: a difference; 2: not (or not completely) verified.
    """
    # Client libraries: only for this command.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from swapstats_cli.target import TargetFault
    from swapstats_cli.verify import render
    from swapstats_cli.verify.report import CannotVerify, ExitCode
    from swapstats_cli.verify.run import Verification
    from swapstats_cli.verify.target import VerifyOptions, verify_target

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters of it comes as an error
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        target = verify_target(VerifyOptions(file, data_dir, url, brokers, clickhouse))
        with Progress(*columns, console=errors, transient=True) as progress:
            verification = Verification(target, progress, with_clickhouse=not no_clickhouse)
            report = asyncio.run(verification.run())
    except (TargetFault, CannotVerify) as fault:
        if as_json:
            typer.echo(json.dumps({"verdict": "not verified", "exit_code": 2, "gaps": [str(fault)]}))
        else:
            errors.print(f"[bold yellow]not verified[/]: {fault}", markup=True, highlight=False, soft_wrap=True)
        raise typer.Exit(ExitCode.UNVERIFIED) from None
    if as_json:
        typer.echo(json.dumps(render.as_json(report)))
    else:
        Console().print(render.as_tables(report))
    raise typer.Exit(report.exit_code)
