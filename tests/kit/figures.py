"""Lines that a test keeps for the end of the run, and what it measured beside what is promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

_FIGURE = "figure"
_PROMISE = "promise"
Figure = Callable[[str], None]
"""Keeps a line."""


class Promise(Protocol):
    """Keeps a measurement beside what is promised, and fails when it is above ``bound``: what a machine under other
    load may take.
    """

    def __call__(self, what: str, measured: float, promised: float, unit: str, *, bound: float) -> None: ...


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Keeps a line for the end of the run. It travels with the test's report, from whichever process runs it."""

    def keep(line: str) -> None:
        request.node.user_properties.append((_FIGURE, line))

    return keep


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Promise:
    """See `Promise`. The table at the end of the run has what failed, too."""

    def keep(what: str, measured: float, promised: float, unit: str, *, bound: float) -> None:
        assert promised <= bound
        request.node.user_properties.append((_PROMISE, [what, measured, promised, unit]))
        assert measured <= bound, f"{what}: {measured:.1f} {unit}, at most {bound:g}; {promised:g} are promised"

    return keep


def _kept(reporter: pytest.TerminalReporter, kind: str) -> list[object]:
    """What all tests have kept, in the order of their ends."""
    reports = [
        report
        for of_outcome in reporter.stats.values()
        for report in of_outcome
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    reports.sort(key=lambda report: report.stop)
    return [value for report in reports for name, value in report.user_properties if name == kind]


def print_figures(reporter: pytest.TerminalReporter) -> None:
    """Print them at the end of the run."""
    if figures := _kept(reporter, _FIGURE):
        reporter.section("figures")
        for line in figures:
            reporter.write_line(str(line))
    if promises := _kept(reporter, _PROMISE):
        reporter.section("measured, and promised")
        for line in table(promises):
            reporter.write_line(line)


def table(promises: list[object]) -> list[str]:
    """One line each, with the measurement as a multiple of the promise."""
    rows = []
    for each in promises:
        assert isinstance(each, list | tuple)
        what, measured, promised, unit = each
        over = "  over the promise, within the bound of a busy machine" if measured > promised else ""
        rows.append((what, f"{measured:.1f} {unit}", f"{promised:g} {unit}", f"{measured / promised:.2f}{over}"))
    head = ("what", "measured", "promised", "ratio")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in (head, *rows)
    ]
