"""What is said of an instance's topic."""

from __future__ import annotations

import asyncio

from swapstats_core.spec import SwapStatsResource
from swapstats_decider.conditions import Finding
from swapstats_decider.reasons import Reason
from swapstats_operator.servers import Secrets
from swapstats_operator.topic_keeper import TopicKeeper

RESOURCE = SwapStatsResource.model_validate({"metadata": {"name": "test"}, "spec": {"source": {"topic": {}}}})


async def test_a_topic_that_can_be_used_is_ready_but_what_is_odd_is_said() -> None:
    remarks = [
        Finding(Reason.RECORD_TIMES_UNBOUNDED, "topic raw-swaps takes any record time"),
        Finding(Reason.REPLICATION_DIFFERS, "topic raw-swaps keeps 1 replicas"),
    ]
    looked = asyncio.Event()

    async def keep(_: SwapStatsResource, __: Secrets) -> list[Finding]:
        return list(remarks)

    keeper = TopicKeeper(keep, looked.set)
    keeper.want(RESOURCE, {})
    running = asyncio.create_task(keeper.run())
    try:
        await looked.wait()
        assert (keeper.ready, keeper.finding.reason) == (True, "RecordTimesUnbounded")
        assert keeper.finding.message.endswith(
            "has its settings. But topic raw-swaps takes any record time. But topic raw-swaps keeps 1 replicas"
        )
        looked.clear()
        remarks.clear()
        keeper.want(RESOURCE, {"other": None})
        await looked.wait()
        assert (keeper.ready, keeper.finding.reason) == (True, "TopicReady")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
