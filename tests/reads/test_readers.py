"""What counts as a step back."""

from __future__ import annotations

import pytest

from tests.reads.readers import Head

SEEN = Head(epoch=2, offset="100", as_of="2026-01-05T12:00:31.200Z", stale=False)


@pytest.mark.parametrize(
    ("epoch", "offset", "as_of", "back"),
    [
        (2, "100", SEEN.as_of, False),
        (3, "100", SEEN.as_of, False),
        (2, "101", "2026-01-05T12:00:31.201Z", False),
        (2, "99", SEEN.as_of, True),
        (1, "1000", SEEN.as_of, True),
        (2, "1000", "2026-01-05T12:00:31.199Z", True),
        (3, "99", SEEN.as_of, False),
    ],
)
def test_neither_position_nor_clock_may_go_back(epoch: int, offset: str, as_of: str, back: bool) -> None:  # noqa: FBT001
    assert Head(epoch, offset, as_of, stale=False).is_before(SEEN) is back
