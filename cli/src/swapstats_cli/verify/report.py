"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

MAX_SHOWN: Final = 50
"""Differences kept in full, per partition and for ClickHouse; all are counted."""


class CannotVerify(Exception):
    """The verification can't be done; the text says why and what to do."""


class ExitCode(IntEnum):
    """The command's exit code."""

    EXACT = 0
    DIFFERENT = 1
    UNVERIFIED = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what the topic says. ``window`` is empty where the field belongs to the token itself."""

    partition: int
    token: str
    window: str
    field: str
    served: str
    expected: str
    offset: int
    as_of: str


@dataclass(slots=True)
class PartitionReport:
    """Findings in one partition."""

    partition: int
    records: int = 0
    tokens: int = 0
    """Replies compared, those that say "unknown" included."""
    windows: int = 0
    """Windows compared."""
    not_comparable: int = 0
    """Windows that reach back to before the topic's records, or that say of themselves that they aren't whole."""
    stale: int = 0
    """Replies that said of themselves that they were stale."""
    different: int = 0
    differences: list[Difference] = field(default_factory=list)

    def differs(self, difference: Difference) -> None:
        """Count a difference, and keep it while there is room."""
        self.different += 1
        if len(self.differences) < MAX_SHOWN:
            self.differences.append(difference)


@dataclass(frozen=True, slots=True)
class RowFinding:
    """A row of ClickHouse that is missing, extra or different."""

    kind: str
    event: str
    removed: bool
    partition: int
    offset: int
    found: str
    expected: str


@dataclass(slots=True)
class RowsReport:
    """Findings in a table of ClickHouse, up to the recorder's committed offsets."""

    expected: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    expired: int = 0
    """Rows that their age may have deleted."""
    not_kept: int = 0
    """Repeats from before the upgrade to this release, of which the one before kept no row."""
    other_topics: int = 0
    """Rows of an earlier topic of the same name; not compared."""
    findings: list[RowFinding] = field(default_factory=list)

    def finds(self, finding: RowFinding) -> None:
        """Keep a finding while there is room."""
        if len(self.findings) < MAX_SHOWN:
            self.findings.append(finding)

    @property
    def wrong(self) -> int:
        """How many rows are not as they must be."""
        return self.missing + self.extra + self.different


@dataclass(frozen=True, slots=True)
class DayDifference:
    """A number of a UTC day that is not what the topic says. ``source``: ``records`` (counted now) or ``daily``."""

    source: str
    day: str
    chain_id: int
    token: str
    field: str
    found: str
    expected: str


@dataclass(slots=True)
class DaysReport:
    """Findings in what ClickHouse counts by UTC day, chain and token."""

    compared: int = 0
    """Rows of the last two days, counted from ``swap_records`` up to the recorder's committed offsets."""
    daily_compared: int = 0
    """Rows of ``daily``, if the recorder was at rest."""
    not_comparable: int = 0
    """Rows of partitions, or days, of which the topic no longer has everything."""
    different: int = 0
    differences: list[DayDifference] = field(default_factory=list)

    def differs(self, difference: DayDifference) -> None:
        """Count a difference, and keep it while there is room."""
        self.different += 1
        if len(self.differences) < MAX_SHOWN:
            self.differences.append(difference)


@dataclass(slots=True)
class Report:
    """All findings. ``rows``: of ``raw_swaps``; ``records``: of ``swap_records``; ``days``: of ``daily``. ``gaps`` say
    in a sentence each what could not be compared though it should be, ``notes`` what couldn't as the system is now.
    """

    partitions: list[PartitionReport] = field(default_factory=list)
    rows: RowsReport | None = None
    records: RowsReport | None = None
    days: DaysReport | None = None
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def different(self) -> int:
        """Differences in all."""
        of_tables = sum(rows.wrong for rows in (self.rows, self.records) if rows)
        of_days = self.days.different if self.days else 0
        return sum(report.different for report in self.partitions) + of_tables + of_days

    @property
    def windows(self) -> int:
        """Windows compared in all."""
        return sum(report.windows for report in self.partitions)

    @property
    def exit_code(self) -> ExitCode:
        """0 exact, 1 different, 2 not (or not completely) compared."""
        if self.different:
            return ExitCode.DIFFERENT
        return ExitCode.UNVERIFIED if self.gaps or not self.windows else ExitCode.EXACT
