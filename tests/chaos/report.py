"""The figures of a run, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from tests.chaos.schedule import Kind, by_kind
from tests.chaos.trial import Outcome

_GONE = (Kind.KILL_SHARD, Kind.KILL_IN_HANDOFF, Kind.STOP_SHARD)


def report(name: str, seed: int, outcome: Outcome) -> Iterator[str]:
    """Lines for the end of the run."""
    hits = outcome.hits
    counts = ", ".join(f"{count} x {kind}" for kind, count in by_kind([hit.fault for hit in hits]).items())
    yield f"{name} (SWAPSTATS_SEED={seed}): {counts}; during a handoff: {sum(hit.in_handoff for hit in hits)}"
    sent, after, rows = outcome.sent, outcome.after, outcome.after["clickhouse"]
    yield (
        f"{name}: {sent['sent']} records in {sent['seconds']:.0f} s ({sent['duplicates']} repeats, "
        f"{sent['late']} late, {sent['removed']} removed, {sent['remined']} mined again, {outcome.dead} no swaps); "
        f"verify: {after['windows']} windows, {after['different']} differences, {rows and rows['equal']} rows of "
        f"{rows and rows['expected']} equal"
    )
    yield (
        f"{name}: lag zero {outcome.lag_zero_s:.1f} s after the last fault, the recorder's {outcome.recorded_s:.1f} s; "
        f"{outcome.watch.manifests} manifests seen in {outcome.watch.looks} looks; "
        f"{outcome.subscriber.patches} patches over {outcome.subscriber.connections} connections "
        f"({outcome.subscriber.whole} states whole)"
    )
    recoveries = {
        kind: [
            outcome.owners.well_again_s(hit.at_ms, hit.epochs) for hit in hits if hit.fault.kind is kind and hit.epochs
        ]
        for kind in _GONE
    }
    for kind, seconds in recoveries.items():
        if known := [each for each in seconds if each is not None]:
            never = f", {len(seconds) - len(known)} not seen" if len(known) < len(seconds) else ""
            yield f"{name}: {kind}: current again after {_spread(known)} s{never}"
    handoffs = outcome.owners.handoffs.newest
    for by in ("released", "observed"):
        gaps = [handoff.gap_ms for handoff in handoffs if handoff.gap_by == by and handoff.gap_ms is not None]
        if gaps:
            equal = sum(handoff.digests_equal is True for handoff in handoffs if handoff.gap_by == by)
            yield f"{name}: {len(gaps)} handoffs, gap {by}: {_spread(gaps)} ms; digests equal in {equal}"
    for what, faults in outcome.wrong.items():
        yield f"{name}: WRONG, {what}: {len(faults)}, such as {faults[0]}"


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} (median; {min(values):.1f} to {max(values):.1f}, of {len(values)})"
