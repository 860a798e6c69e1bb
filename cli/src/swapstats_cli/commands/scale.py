"""`swapstats scale`: more shards, or fewer."""

from __future__ import annotations

from typing import Annotated

import typer

from swapstats_cli.commands.asking import DataDirOption, JsonOption, TimeoutOption, carry_out


def scale(
    replicas: Annotated[int, typer.Argument(min=1, help="How many shards there shall be.")],
    data_dir: DataDirOption = None,
    timeout: TimeoutOption = "5m",
    as_json: JsonOption = False,
) -> None:
    """Run more shards, or fewer, and wait until the partitions are where they belong.

    A new shard warms up before it takes partitions over; one too many is emptied before it is stopped, the
    highest-numbered first. It counts until the resource file says another number, or `swapstats dev` ends.
    """
    from swapstats_cli.control.commands import Scale

    carry_out("scale", Scale(replicas), data_dir, timeout, as_json=as_json)
