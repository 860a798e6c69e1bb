"""Whose the names are: on a real Redis and a real NATS, and in the decider's own town."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.msg import Msg

from swapstats_cli.servers import commands
from swapstats_core.naming import Holder
from swapstats_core.ownership.messages import Assignment, MemberReport
from swapstats_core.ownership.planner import initial
from swapstats_core.spec import Nats, Redis
from swapstats_core.wire import Keys, Subjects, encode
from swapstats_decider.adapters.nats import open_line
from swapstats_decider.adapters.redis import RedisCopy, connect
from swapstats_decider.claiming import hold
from swapstats_decider.ports import Connect, Taken, Unavailable
from swapstats_runtime.nats import NatsAccess
from tests.aggregator.servers import free_port, running

PARTITIONS = 2
INSTANCE = "shared"
KEYS = Keys("swap:", INSTANCE)
OURS = Holder("here/mainnet", "1")
ANEW = Holder("here/mainnet", "2")
THEIRS = Holder("there/mainnet", "3")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    with running(commands.redis(port, folder), port, folder / "log"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("nats"), free_port()
    with running(commands.nats(port), port, folder / "log"):
        yield f"nats://127.0.0.1:{port}"


@pytest.fixture
async def copy(redis_url: str) -> AsyncIterator[RedisCopy]:
    await _empty(redis_url)
    async with _copy(redis_url) as copy:
        yield copy


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[RedisCopy]:
    async with _copy(redis_url) as copy:
        yield copy


@asynccontextmanager
async def _copy(url: str) -> AsyncIterator[RedisCopy]:
    copy = RedisCopy(connect(Redis(url=url)), KEYS)
    yield copy
    await copy.close()


async def _empty(url: str) -> None:
    async with connect(Redis(url=url)) as client:
        await client.flushall()


async def _stored(url: str) -> dict[object, object]:
    async with connect(Redis(url=url)) as client:
        return {key: await client.dump(key) for key in await client.keys()}


async def test_the_second_user_of_keys_is_told_whose_they_are_and_changes_nothing(
    copy: RedisCopy, other: RedisCopy, redis_url: str
) -> None:
    await copy.claim(OURS, known=False)
    await copy.write(initial(PARTITIONS))
    before = await _stored(redis_url)
    with pytest.raises(Taken, match=r"in Redis belong to here/mainnet \(1\).*delete the key swap:shared:claim"):
        await other.claim(THEIRS, known=False)
    with pytest.raises(Taken, match="here/mainnet"):
        await other.write(Assignment(99, initial(PARTITIONS).partitions))
    await other.forget(PARTITIONS, THEIRS)
    assert await _stored(redis_url) == before


async def test_who_has_them_can_delete_them_and_then_they_are_anybodys(
    copy: RedisCopy, other: RedisCopy, redis_url: str
) -> None:
    await copy.claim(OURS, known=False)
    await copy.write(initial(PARTITIONS))
    await copy.forget(PARTITIONS, OURS)
    assert await _stored(redis_url) == {}
    await other.claim(THEIRS, known=False)


async def test_a_resource_that_is_created_anew_goes_on_and_no_other_of_its_name_takes_over(
    copy: RedisCopy, other: RedisCopy
) -> None:
    await copy.claim(OURS, known=False)
    await other.claim(ANEW, known=False)
    with pytest.raises(Taken, match=r"here/mainnet \(2\)"):
        await copy.write(initial(PARTITIONS))
    with pytest.raises(Taken, match=r"here/mainnet \(2\)"):
        await copy.claim(OURS, known=True)


async def test_a_claim_that_redis_has_lost_is_there_again_before_anything_is_written(
    copy: RedisCopy, other: RedisCopy, redis_url: str
) -> None:
    await copy.claim(OURS, known=False)
    await _empty(redis_url)
    await copy.write(initial(PARTITIONS))
    with pytest.raises(Taken):
        await other.claim(THEIRS, known=False)


async def test_what_is_no_claim_is_somebodys(copy: RedisCopy, redis_url: str) -> None:
    async with connect(Redis(url=redis_url)) as client:
        await client.set(KEYS.claim, "nonsense")
    with pytest.raises(Taken, match="belong to something else"):
        await copy.claim(OURS, known=True)


@asynccontextmanager
async def _shard(url: str, holder: Holder | None) -> AsyncIterator[list[str]]:
    """A shard that answers, and what it was asked."""
    asked: list[str] = []
    client = await nats.connect(url)

    async def answer(message: Msg) -> None:
        asked.append(message.subject)
        await message.respond(encode(MemberReport("shard-0", "life", 1, [], holder=holder)))

    await client.subscribe(Subjects(INSTANCE).shard("shard-0"), cb=answer)
    await client.flush()
    yield asked
    await client.close()


def _line(url: str) -> Connect:
    access = NatsAccess.of(Nats(url=url))
    return lambda hear: open_line(access, hear)


async def test_nobody_takes_names_under_which_another_works(copy: RedisCopy, nats_url: str, redis_url: str) -> None:
    async with _shard(nats_url, THEIRS):
        for known in (True, False):
            with pytest.raises(Taken, match=r"there/mainnet \(3\) answers in NATS"):
                await hold(OURS, INSTANCE, (), copy, _line(nats_url), known=known)
    assert await _stored(redis_url) == {}, "nothing was claimed"
    await hold(OURS, INSTANCE, (), copy, _line(nats_url), known=False)


async def test_shards_of_ones_own_are_no_hindrance(copy: RedisCopy, nats_url: str) -> None:
    async with _shard(nats_url, OURS) as asked:
        await hold(OURS, INSTANCE, (), copy, _line(nats_url), known=True)
    assert asked == [Subjects(INSTANCE).shard("shard-0")]


async def test_shards_of_an_earlier_release_do_not_say_whose_they_are(copy: RedisCopy, nats_url: str) -> None:
    async with _shard(nats_url, None):
        await hold(OURS, INSTANCE, (), copy, _line(nats_url), known=True)


async def test_servers_that_are_away_hinder_only_who_never_held_the_names() -> None:
    async with _copy(f"redis://127.0.0.1:{free_port()}/0") as copy:
        line = _line(f"nats://127.0.0.1:{free_port()}")
        await hold(OURS, INSTANCE, (), copy, line, known=True)
        with pytest.raises(Unavailable):
            await hold(OURS, INSTANCE, (), copy, line, known=False)
