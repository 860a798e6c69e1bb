"""The broker of a laptop's system: the embedded one, in memory, or Apache Kafka, which keeps its records."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

from aiokafka.errors import KafkaError

from swapstats_cli.options import Broker
from swapstats_cli.servers import commands, probes
from swapstats_cli.servers.topics import create_topics
from swapstats_cli.supervisor.datadir import DataDir
from swapstats_cli.supervisor.journal import Journal, Tone
from swapstats_cli.supervisor.keeper import StartFailedError
from swapstats_cli.supervisor.layout import Ports
from swapstats_cli.supervisor.part import Part
from swapstats_cli.supervisor.passwords import own_ref
from swapstats_core.spec import Source
from swapstats_decider.adapters.topics import TopicMismatchError, keep_topics
from swapstats_runtime.kafka import kafka_security
from swapstats_runtime.secret_files import secret_file

KAFKA_STOP_S: Final = 20.0
"""It closes its segments; otherwise the next start would have to look through them."""


def broker_part(
    kind: Broker, source: Source, ports: Ports, data: DataDir, say: Journal, hold_producer: Callable[[bool], None]
) -> Part:
    """The part named ``kafka``; ``source`` is the embedded one (`layout.embed`). See `_embedded` for ``hold_producer``.

    It is ready when it has its topics: creating them is the probe, and harmless when repeated.
    """
    if kind is Broker.KAFKA:
        password = secret_file(own_ref("kafka"), data.secrets)
        folder = data.store("kafka")
        command = partial(commands.kafka, ports.kafka, ports.kafka_controller, folder, password_file=password)
        return Part(
            "kafka",
            ports.brokers,
            command,
            partial(_topics_kept, source, data.secrets, say),
            stop_within_s=KAFKA_STOP_S,
        )
    return _embedded(source, ports, say, hold_producer)


def _embedded(source: Source, ports: Ports, say: Journal, hold_producer: Callable[[bool], None]) -> Part:
    """The broker that forgets.

    ``hold_producer(True)`` is called before its restart, ``hold_producer(False)`` when it has its topics: it gives
    offsets twice in a topic that is written to while it is being created.
    """

    async def restarts() -> None:
        hold_producer(True)

    def command() -> list[str]:
        cluster_id = str(uuid4())
        say.say(f"kafka starts with no records, as cluster {cluster_id}")
        say.say("this broker takes any record time: a swap from the future holds its partition up, and isn't refused")
        return commands.broker(ports.kafka, cluster_id)

    async def restarted() -> None:
        hold_producer(False)
        say.say(
            "kafka keeps records in memory only: those before its restart are gone, its topics are new", Tone.WARNING
        )

    probe = partial(_topics_exist, source, say)
    return Part("kafka", ports.brokers, command, probe, before_restart=restarts, after_restart=restarted)


async def _topics_exist(source: Source, say: Journal) -> bool:
    if not await probes.listens(source.brokers[0]):
        return False
    try:
        replaced = await create_topics(source)
    except (KafkaError, OSError):
        return False
    for name in replaced:
        say.say(f"a client had kafka create {name} with other partitions: it is made again as the resource says")
    return True


async def _topics_kept(source: Source, secrets: Path, say: Journal) -> bool:
    if not await probes.listens(source.brokers[0]):
        return False
    try:
        remarks = await keep_topics(source, kafka_security(source, secrets))
    except TopicMismatchError as error:
        raise StartFailedError(str(error)) from error
    except (KafkaError, OSError):
        return False
    for remark in remarks:
        say.say(remark.message, Tone.WARNING)
    return True
