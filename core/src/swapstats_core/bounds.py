"""Bounds of the numbers that come from elsewhere: from a message, a store, a file.

What is behind them has a width: the scripts in Redis compare doubles, which tell integers apart below 2^53; times
become minutes of 32 bits, and dates. So a number is checked where it comes in, in every process, and never inside.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from swapstats_core.event_time import END_MS

MOST: Final = 2**53 - 1
"""The highest integer below which doubles have no gaps."""
MOST_SKIPPED: Final = 1_024
"""Records that a resource may pass over."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
"""Offsets, epochs, revisions, numbers of anything, durations."""
CountOrNone = Annotated[int, msgspec.Meta(ge=-1, le=MOST)]
"""The same; -1: there is none yet."""
UnixMs = Annotated[int, msgspec.Meta(ge=0, le=END_MS)]
"""A time in Unix milliseconds; low ones are those of a state that has read nothing yet."""
UnixMsOrNone = Annotated[int, msgspec.Meta(ge=-1, le=END_MS)]
"""The same; -1: there is none yet."""
Skipped = Annotated[list[Count], msgspec.Meta(max_length=MOST_SKIPPED)]
"""Offsets that `swapstats_core.spec.Source.skip` names."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(max_length=253)]
"""Of a process, a topic's incarnation, a window. A Kubernetes name has at most 253 characters."""
Token = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Said = Annotated[str, msgspec.Meta(max_length=4_096)]
"""Words for people."""


def epoch_of(stored: bytes) -> int:
    """The epoch that a claim has stored; 0, as before any claim, for what no claim can have stored."""
    return int(stored) if stored.isdigit() and len(stored) <= 16 and int(stored) <= MOST else 0
