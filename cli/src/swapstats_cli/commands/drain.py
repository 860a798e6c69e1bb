"""`swapstats drain`: a shard without partitions."""

from __future__ import annotations

from typing import Annotated

import typer

from swapstats_cli.commands.asking import DataDirOption, JsonOption, TimeoutOption, carry_out


def drain(
    shard: Annotated[str, typer.Argument(help="The shard, as in shard-1.")],
    undo: Annotated[bool, typer.Option("--undo", help="Put it back into service.")] = False,
    data_dir: DataDirOption = None,
    timeout: TimeoutOption = "5m",
    as_json: JsonOption = False,
) -> None:
    """Move all partitions of a shard to the others, and give it none until --undo; wait until that is done.

    It stays out of service until --undo, or until `swapstats dev` ends.
    """
    from swapstats_cli.control.commands import Drain

    carry_out("drain", Drain(shard, undo), data_dir, timeout, as_json=as_json)
