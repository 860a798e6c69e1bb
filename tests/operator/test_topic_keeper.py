"""What is said of an instance's topic."""

from __future__ import annotations

import asyncio

from swapstats_core.spec import SwapStatsResource
from swapstats_operator.servers import Secrets
from swapstats_operator.topic_keeper import TopicKeeper

RESOURCE = SwapStatsResource.model_validate({"metadata": {"name": "test"}, "spec": {"source": {"topic": {}}}})


async def test_a_topic_that_takes_any_record_time_is_ready_but_that_is_said() -> None:
    loose: str | None = "topic raw-swaps takes any record time. Set message.timestamp.type=LogAppendTime"
    looked = asyncio.Event()

    async def keep(_: SwapStatsResource, __: Secrets) -> str | None:
        return loose

    keeper = TopicKeeper(keep, looked.set)
    keeper.want(RESOURCE, {})
    running = asyncio.create_task(keeper.run())
    try:
        await looked.wait()
        assert (keeper.ready, keeper.finding.reason) == (True, "RecordTimesUnbounded")
        assert keeper.finding.message.endswith("Set message.timestamp.type=LogAppendTime")
        looked.clear()
        loose = None
        keeper.want(RESOURCE, {"other": None})
        await looked.wait()
        assert (keeper.ready, keeper.finding.reason) == (True, "TopicReady")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
