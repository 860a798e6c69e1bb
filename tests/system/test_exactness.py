"""After all faults: nobody was served a number that never was, and nothing was lost or counted twice."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import pytest

from swapstats_cli.verify.compare import Served
from tests.kit.audit import wrong
from tests.kit.figures import Figure
from tests.kit.flow import Flow
from tests.kit.recovery import recorded
from tests.kit.running import LONG, System
from tests.system.witness import Witness

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900 if LONG else 180)]


def _altered(reply: Served) -> Served:
    """The reply with its smallest digit changed, to see that it would be found."""
    day = reply.windows["24h"]
    digit = "1" if day.volume_token.endswith("0") else "0"
    altered = msgspec.structs.replace(day, volume_token=day.volume_token[:-1] + digit)
    return replace(reply, windows={**reply.windows, "24h": altered})


async def test_every_reply_was_exact(system: System, flow: Flow, witness: Witness, figure: Figure) -> None:
    await witness.stop()
    await flow.stop()
    began = time.monotonic()
    planted = _altered(witness.seen[len(witness.seen) // 2].reply)
    assert [reply for reply, _ in await wrong(system, [*(seen.reply for seen in witness.seen), planted])] == [planted]
    assert witness.dishonest() == []
    assert witness.went_back() == []
    stale = sum(seen.reply.stale for seen in witness.seen)
    other = {f"{phase}: {what}": count for (phase, what), count in sorted(witness.other.items())}
    figure(
        f"witness: {len(witness.seen)} replies, {witness.subscriber.patches} of them patches, all exact at their "
        f"offset and as_of, {stale} of them stale; "
        f"other answers {other or 'none'} ({time.monotonic() - began:.1f} s to check)"
    )


async def test_nothing_is_lost_or_counted_twice(system: System, flow: Flow, figure: Figure) -> None:
    sent = await flow.stop()
    ends = {int(p): offset + 1 for p, offset in sent["last_offsets"].items()}
    await system.read_up_to(ends)
    await recorded(system, ends)
    began = time.monotonic()
    report = await system.verify()
    figure(
        f"flow: {sent['sent']} records in {sent['seconds']:.0f} s; verify: {report['windows']} windows of "
        f"{sum(p['tokens'] for p in report['partitions'])} tokens and {report['clickhouse']['expected']} rows, "
        f"{report['different']} differences "
        f"({time.monotonic() - began:.1f} s)"
    )
