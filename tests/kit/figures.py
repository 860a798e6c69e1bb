"""Lines that a test keeps for the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_NAME = "figure"
Figure = Callable[[str], None]
"""Keeps a line."""


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Keeps a line for the end of the run. It travels with the test's report, from whichever process runs it."""

    def keep(line: str) -> None:
        request.node.user_properties.append((_NAME, line))

    return keep


def _kept(reporter: pytest.TerminalReporter) -> list[str]:
    """The lines of all tests, in the order of their ends."""
    reports = [
        report
        for of_outcome in reporter.stats.values()
        for report in of_outcome
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    reports.sort(key=lambda report: report.stop)
    return [str(value) for report in reports for name, value in report.user_properties if name == _NAME]


def print_figures(reporter: pytest.TerminalReporter) -> None:
    """Print them at the end of the run."""
    if figures := _kept(reporter):
        reporter.section("figures")
        for line in figures:
            reporter.write_line(line)
