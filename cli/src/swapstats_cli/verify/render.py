"""A report as a person reads it, and as a script does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from swapstats_cli.verify.report import (
    DayDifference,
    DaysReport,
    Difference,
    ExitCode,
    PartitionReport,
    Report,
    RowFinding,
    RowsReport,
)

SHOWN: Final = 20
"""Differences in the table; the JSON form has more."""
_VERDICTS: Final = {
    ExitCode.EXACT: ("exact", "bold green"),
    ExitCode.DIFFERENT: ("different", "bold red"),
    ExitCode.UNVERIFIED: ("not verified", "bold yellow"),
}


def as_json(report: Report) -> dict[str, Any]:
    """The report for scripts; ``verdict`` and ``exit_code`` say the result."""
    return {
        "verdict": _VERDICTS[report.exit_code][0],
        "exit_code": int(report.exit_code),
        "windows": report.windows,
        "different": report.different,
        "gaps": report.gaps,
        "notes": report.notes,
        "partitions": [asdict(partition) for partition in report.partitions],
        "clickhouse": None if report.rows is None else asdict(report.rows),
        "clickhouse_records": None if report.records is None else asdict(report.records),
        "clickhouse_days": None if report.days is None else asdict(report.days),
    }


def as_tables(report: Report) -> RenderableType:
    """The report for people."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield _partitions(report.partitions)
    if report.rows is not None and report.records is not None:
        yield _clickhouse({"raw_swaps": report.rows, "swap_records": report.records})
    if report.days is not None:
        yield _days(report.days)
    differences = [difference for partition in report.partitions for difference in partition.differences]
    if differences:
        yield _differences(differences[:SHOWN])
    found = [finding for rows in (report.rows, report.records) if rows is not None for finding in rows.findings]
    if found:
        yield _findings(found[:SHOWN])
    if report.days is not None and report.days.differences:
        yield _day_differences(report.days.differences[:SHOWN])
    for gap in report.gaps:
        yield Text(f"not compared: {gap}", style="yellow")
    for note in report.notes:
        yield Text(f"not compared: {note}")
    yield _verdict(report)


def _partitions(partitions: list[PartitionReport]) -> Table:
    table = Table(title="windows", title_justify="left", show_footer=True)
    columns = ("records", "tokens", "windows", "different", "stale", "not_comparable")
    table.add_column("partition", "all", justify="right")
    for column in columns:
        total = sum(getattr(partition, column) for partition in partitions)
        table.add_column(column.replace("_", " "), f"{total:,}", justify="right")
    for partition in partitions:
        style = "red" if partition.different else None
        table.add_row(str(partition.partition), *(f"{getattr(partition, c):,}" for c in columns), style=style)
    return table


def _clickhouse(tables: dict[str, RowsReport]) -> Table:
    table = Table("rows", title="ClickHouse", title_justify="left")
    for name, rows in tables.items():
        table.add_column(name, justify="right", style="red" if rows.wrong else None)
    for count in ("expected", "equal", "missing", "extra", "different", "expired", "not_kept", "other_topics"):
        table.add_row(count.replace("_", " "), *(f"{getattr(rows, count):,}" for rows in tables.values()))
    return table


def _days(days: DaysReport) -> Table:
    table = Table(title="days in ClickHouse", title_justify="left")
    columns = ("compared", "daily_compared", "different", "not_comparable")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_row(*(f"{getattr(days, column):,}" for column in columns), style="red" if days.different else None)
    return table


def _day_differences(differences: list[DayDifference]) -> Table:
    table = Table("from", "day", "chain", "token", "field", "found", "expected", title="days")
    for d in differences:
        table.add_row(d.source, d.day, str(d.chain_id), escape(d.token), d.field, d.found, d.expected)
    return table


def _differences(differences: list[Difference]) -> Table:
    table = Table("token", "window", "field", "served", "expected", "offset", "as of", title="differences")
    for d in differences:
        table.add_row(escape(d.token), d.window, d.field, escape(d.served), d.expected, str(d.offset), d.as_of)
    return table


def _findings(findings: list[RowFinding]) -> Table:
    table = Table("row", "event", "removed", "at", "found", "expected", title="rows")
    for f in findings:
        at = f"{f.partition}:{f.offset}"
        table.add_row(f.kind, escape(f.event), "yes" if f.removed else "no", at, f.found, f.expected)
    return table


def _verdict(report: Report) -> Text:
    word, style = _VERDICTS[report.exit_code]
    compared = f"{report.windows:,} windows compared"
    if report.rows is not None:
        compared += f", {report.rows.expected:,} rows"
    return Text.assemble((word, style), f": {compared}, {report.different:,} differences")
