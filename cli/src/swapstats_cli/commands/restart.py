"""`swapstats restart`: every shard anew."""

from __future__ import annotations

from swapstats_cli.commands.asking import DataDirOption, JsonOption, TimeoutOption, carry_out


def restart(
    data_dir: DataDirOption = None,
    timeout: TimeoutOption = "10m",
    as_json: JsonOption = False,
) -> None:
    """Restart all shards, one after the other: each is drained, restarted, and put back into service."""
    from swapstats_cli.control.commands import Restart

    carry_out("restart", Restart(), data_dir, timeout, as_json=as_json)
