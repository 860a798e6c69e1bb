"""Lines that a test keeps for the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[str]]()
Figure = Callable[[str], None]
"""Keeps a line."""


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Keeps a line for the end of the run."""
    return request.config.stash.setdefault(FIGURES, []).append
