"""The implementation guide, which isn't part of this repository: tests that need its text are skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest

_PLACE = Path("shared/GUIDE.md")


def guide() -> str:
    """Its text, from beside the repository or one of its worktrees."""
    for folder in Path(__file__).parents:
        if (folder / _PLACE).exists():
            return (folder / _PLACE).read_text()
    pytest.skip("needs the guide, ../shared/GUIDE.md, which isn't there")
