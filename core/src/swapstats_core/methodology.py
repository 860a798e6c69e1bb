"""By which rules things are counted, for whoever reads a number: what ``/api/methodology`` says.

`VERSION` changes when the same records would give other numbers. ``docs/engine.md`` and ``docs/events.md`` have the
rules in full.
"""

from __future__ import annotations

from typing import Any, Final

from swapstats_core.amounts import TOKEN_DIGITS, USD_DIGITS, format_usd
from swapstats_core.fields import format_duration
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.swap import FUTURE_MS

VERSION: Final = 2


def methodology(spec: SwapStatsSpec) -> dict[str, Any]:
    """The rules in words, each with what the resource sets of it. JSON."""
    return {
        "version": VERSION,
        "windows": {
            "rule": (
                "A window of N minutes is the N whole minutes that end with the one of as_of. It changes when the "
                "minute does, without any trade."
            ),
            "names": list(spec.window_names),
        },
        "amounts": {
            "rule": _AMOUNTS[spec.source.amounts],
            "usd_digits": USD_DIGITS,
            "token_digits": TOKEN_DIGITS,
            "most_usd": None if spec.limits.max_trade_usd is None else format_usd(spec.limits.max_trade_usd),
        },
        "events": {
            "rule": (
                "An event is a log of a transaction on a chain, for a token. It counts at most once at a time: of the"
                " blocks that it was told to be in and that were not undone, in the highest; with revisions, as the "
                "highest revision says. An event stays open for reorg_horizon after it was last mentioned: until "
                "then, undoing it needs only to name it; later, time and amounts must be repeated. What is ambiguous "
                "isn't counted, but set aside."
            ),
            "reorg_horizon": format_duration(spec.reorg_horizon),
            "remembered_for": format_duration(spec.dedupe.ttl),
        },
        "late": {
            "rule": (
                "A swap that is more than grace older than the newest one of its token on its chain, or than the "
                "longest window, is late: it isn't counted, and late says how many there were in the longest window."
            ),
            "grace": format_duration(spec.grace),
        },
        "time": {
            "rule": (
                "A swap counts in the minute of its event_time, which may be at most future ahead of the time at "
                "which the broker took its record. The records in passed_over (partition:offset) are left out, because "
                "their times are wrong."
            ),
            "future": format_duration(FUTURE_MS),
            "passed_over": [f"{each.partition}:{each.offset}" for each in spec.source.skip],
        },
        "tokens": {
            "rule": (
                "A token is known while it was traded within twice the longest window; a known quiet one has zeros, "
                "another is not found. An address is found under any spelling; two spellings in one topic are two "
                "tokens, and both say so."
            ),
        },
        "stale": {
            "rule": (
                "Numbers are exact for the records below offset, at as_of. They are stale when not everything that "
                "the broker has was read, or when they are more than 2 s old."
            ),
        },
    }


_AMOUNTS: Final = {
    "round": (
        "Amounts with more digits than are kept are rounded half to even from their decimal text; sums are "
        "exact integers."
    ),
    "refuse": "Amounts with more digits than are kept aren't counted, but set aside; sums are exact integers.",
}
