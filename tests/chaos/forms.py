"""How hard the runs are."""

from __future__ import annotations

from tests.chaos.schedule import Form, Kind

LONG_FORM = Form(
    faults={
        Kind.KILL_SHARD: 16,
        Kind.STOP_SHARD: 2,
        Kind.KILL_BROKER: 5,
        Kind.KILL_REDIS: 3,
        Kind.WIPE_REDIS: 3,
        Kind.KILL_NATS: 3,
        Kind.TAKE_CLICKHOUSE: 1,
    },
    scales=(5, 2),
    kills_in_handoff=2,
    lasts_s={Kind.STOP_SHARD: 15.0, Kind.TAKE_CLICKHOUSE: 60.0},
    gap_s=15.0,
    events=300_000,
    rate=500,
)
"""Those of the issue: with the kills during handoffs there are 20 of shards."""
SHORT_FORM = Form(
    faults={
        Kind.KILL_SHARD: 3,
        Kind.STOP_SHARD: 1,
        Kind.KILL_BROKER: 1,
        Kind.KILL_REDIS: 1,
        Kind.WIPE_REDIS: 1,
        Kind.KILL_NATS: 1,
        Kind.TAKE_CLICKHOUSE: 1,
    },
    scales=(5, 2),
    kills_in_handoff=1,
    lasts_s={Kind.STOP_SHARD: 8.0, Kind.TAKE_CLICKHOUSE: 15.0},
    gap_s=8.0,
    events=50_000,
    rate=500,
)
"""Each kind at least once."""
CONTROL_FORM = Form(faults={Kind.KILL_SHARD: 3}, lasts_s={}, gap_s=6.0, events=10_000, rate=500, shards=1)
"""Enough for a weak shard to lose events. It would lose some at a handoff, too, so there is nobody to hand over to."""
