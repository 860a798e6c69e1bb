"""Moving recorded events to the present."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from swapstats_cli.produce.event import Event
from swapstats_core.fields import MINUTE_MS


def shifted_to_now(events: Sequence[Event], now_ms: int) -> list[Event]:
    """``events``, all moved by the same whole number of minutes, the newest to less than a minute before ``now_ms``.

    Whole minutes keep every event in its bucket's company, so each window has the sums it had at the recorded minute.
    """
    if not events:
        return []
    newest_ms = max(event.event_time for event in events)
    shift_ms = (now_ms - newest_ms) // MINUTE_MS * MINUTE_MS
    return [msgspec.structs.replace(event, event_time=event.event_time + shift_ms) for event in events]
