"""`swapstats snapshot`: one of every partition, now."""

from __future__ import annotations

from swapstats_cli.commands.asking import DataDirOption, JsonOption, TimeoutOption, carry_out


def snapshot(
    data_dir: DataDirOption = None,
    timeout: TimeoutOption = "1m",
    as_json: JsonOption = False,
) -> None:
    """Take a snapshot of every partition, and wait until each has one that is newer than this call."""
    from swapstats_cli.control.commands import Snapshot

    carry_out("snapshot", Snapshot(), data_dir, timeout, as_json=as_json)
