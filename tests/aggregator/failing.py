"""A shard that ends hard at one of its requests: ``python -m tests.aggregator.failing REQUEST N MOMENT ...``.

What follows are the arguments of ``python -m swapstats_aggregator``. ``MOMENT`` is ``before`` or ``after`` the ``N``th
request of that kind takes effect. The process then has no chance to do anything else, as after SIGKILL.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from typing import Any, Final

from swapstats_aggregator import __main__ as process
from swapstats_aggregator.adapters.kafka import KafkaSource
from swapstats_aggregator.adapters.kafka_dead_letters import KafkaDeadLetters
from swapstats_aggregator.adapters.nats import NatsBus
from swapstats_aggregator.adapters.redis import RedisSnapshots

EXIT_CODE: Final = 9
REQUESTS: Final[dict[str, type]] = {
    "listen": NatsBus,
    "serve": NatsBus,
    "assignment": RedisSnapshots,
    "claim": RedisSnapshots,
    "incarnation": KafkaSource,
    "bounds": KafkaSource,
    "since": KafkaSource,
    "manifests": RedisSnapshots,
    "load": RedisSnapshots,
    "poll": KafkaSource,
    "send": KafkaDeadLetters,
    "publish": NatsBus,
    "store": RedisSnapshots,
    "flip": RedisSnapshots,
    "collect": RedisSnapshots,
    "commit": KafkaSource,
}
"""In the order of a life's first ones."""


def fail_at(request: str, number: int, moment: str) -> None:
    """Plant it."""
    adapter, calls = REQUESTS[request], count(1)
    original = getattr(adapter, request)

    async def failing(*arguments: Any, **named: Any) -> object:  # noqa: ANN401 - handed on
        is_it = next(calls) == number
        if is_it and moment == "before":
            os._exit(EXIT_CODE)
        result: object = await original(*arguments, **named)
        if is_it:
            os._exit(EXIT_CODE)
        return result

    setattr(adapter, request, failing)


if __name__ == "__main__":
    fail_at(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    del sys.argv[1:4]
    process.main()
