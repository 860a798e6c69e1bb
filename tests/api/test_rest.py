"""REST over real sockets, with owners in memory and on a real NATS server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from urllib.parse import quote

import msgspec
import pytest
from fastapi import Depends, HTTPException
from fastapi.requests import HTTPConnection

from swapstats_core import wire
from swapstats_core.fields import format_duration
from swapstats_core.methodology import VERSION, methodology
from swapstats_core.spec import Skip
from tests.api.owner_model import Owner, trades_in, windows
from tests.api.running import PARTITIONS, SPEC, Api, home, running_api
from tests.api.sites import MemorySite, Site, mono_ms, tick, until, wall_ms

TOKEN = "USDC"
OVERVIEW = wire.OverviewQuery("5m", "volume_usd", 3)


@pytest.fixture
async def api(site: Site) -> AsyncGenerator[Api]:
    async with running_api(site) as running:
        yield running


async def owner_of(site: Site, token: str = TOKEN, trades: int = 3, **more: int) -> Owner:
    owner = Owner(home(token), 3, offset=81234, as_of_ms=wall_ms(), trades={token: trades} | more)
    await site.serve(owner)
    return owner


def served(api: Api) -> int | None:
    view = api.follower.view(TOKEN)
    return None if view is None else trades_in(view.state)


def expected(trades: int) -> object:
    return msgspec.json.decode(windows(trades))


async def test_a_token(api: Api) -> None:
    owner = await owner_of(api.site)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == {
        "token": TOKEN,
        "as_of": wire.rfc3339(owner.as_of_ms),
        "windows": expected(3),
        "watermark": wire.rfc3339(owner.as_of_ms - 120_000),
        "partition": owner.partition,
        "offset": "81234",
        "epoch": 3,
        "stale": False,
        "lag_seconds": 0,
        "late": {"count": 0, "newest": None},
    }


async def test_chosen_windows_and_unknown_ones(api: Api) -> None:
    await owner_of(api.site)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats?windows=1h")
    assert list(answer.body["windows"]) == ["1h"]
    answer = await api.get(f"/api/tokens/{TOKEN}/stats?windows=1h,2h")
    assert (answer.status, answer.body["code"]) == (400, "unknown_window")
    assert answer.body["detail"] == "windows: '2h' is not a window: use 5m, 1h"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_any_token_id(api: Api) -> None:
    for token in ("a/b", "a/stats", "ä.ö *>", "50%2F", "?x=1&y", "..", "a//b", "😀", "#"):
        await owner_of(api.site, token)
        answer = await api.get(f"/api/tokens/{quote(token, safe='')}/stats")
        assert (answer.status, answer.body.get("token")) == (200, token)


async def test_then_served_from_ram_and_followed(api: Api) -> None:
    owner = await owner_of(api.site)
    await api.get(f"/api/tokens/{TOKEN}/stats")
    asked = len(owner.queries)
    for trades in (4, 5, 6):
        owner.apply([TOKEN], wall_ms())
        await tick(api.site, owner)
        view = await api.reads.token(TOKEN)
        await until(lambda n=trades: served(api) == n)  # type: ignore[misc] # bound per round
        assert not view.stale
    # One more query joined the token to the first pulse; none was needed after.
    assert len(owner.queries) <= asked + 1
    await tick(api.site, owner)
    await until(
        lambda: (view := api.follower.view(TOKEN)) is not None and view.position[1:] == (owner.as_of_ms, owner.offset)
    )


async def test_concurrent_first_reads_share_one_query(api: Api) -> None:
    owner = await owner_of(api.site)
    answers = await asyncio.gather(*(api.reads.token(TOKEN) for _ in range(50)))
    assert len(owner.queries) == 1
    assert len({answer.offset for answer in answers}) == 1


async def test_unknown_token(api: Api) -> None:
    owner = await owner_of(api.site, "other")
    token = next(name for name in map(str, range(100)) if home(name) == owner.partition)
    answer = await api.get(f"/api/tokens/{token}/stats")
    assert (answer.status, answer.body["code"], answer.body["title"]) == (404, "unknown_token", "Not Found")
    assert "spelling" in answer.body["detail"]
    assert len(api.machine) == 0
    owner.current = False
    answer = await api.get(f"/api/tokens/{token}/stats")
    assert answer.status == 404
    assert "catching up" in answer.body["detail"]


async def test_an_owner_that_is_behind_is_stale_with_its_lag(api: Api) -> None:
    owner = Owner(home(TOKEN), 1, as_of_ms=wall_ms() - 180_000, current=False, trades={TOKEN: 1})
    await api.site.serve(owner)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    assert answer.body["stale"] is True
    assert 180 <= answer.body["lag_seconds"] < 200


async def test_without_an_owner_the_snapshot_or_503(api: Api) -> None:
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
    saved = Owner(home(TOKEN), 2, offset=7, as_of_ms=wall_ms() - 60_000, current=False, trades={TOKEN: 9})
    api.snapshots.states[TOKEN] = saved.state(TOKEN)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    assert answer.status == 200
    assert (answer.body["stale"], answer.body["windows"], answer.body["offset"]) == (True, expected(9), "7")
    assert 60 <= answer.body["lag_seconds"] < 80
    await owner_of(api.site)

    async def fresh() -> bool:
        return not (await api.reads.token(TOKEN)).stale

    await until(fresh)
    assert (await api.get(f"/api/tokens/{TOKEN}/stats")).body["epoch"] == 3


async def test_the_newer_of_ram_and_snapshot(api: Api) -> None:
    owner = await owner_of(api.site)
    await api.reads.token(TOKEN)
    await api.site.stop(owner)
    older = Owner(home(TOKEN), 3, offset=7, as_of_ms=wall_ms() - 60_000, trades={TOKEN: 1})
    api.snapshots.states[TOKEN] = older.state(TOKEN)
    await until(lambda: api.reads.marks(TOKEN) == (True, (), ()))
    assert (await api.reads.token(TOKEN)).offset == "81234"
    behind = Owner(home(TOKEN), 4, offset=90_000, as_of_ms=owner.as_of_ms - 1, current=False, trades={TOKEN: 4})
    api.snapshots.states[TOKEN] = behind.state(TOKEN)
    reads = api.snapshots.reads

    async def looked_again() -> bool:
        assert (await api.reads.token(TOKEN)).offset == "81234"
        return api.snapshots.reads > reads

    await until(looked_again)
    newer = Owner(home(TOKEN), 4, offset=90_000, as_of_ms=wall_ms() - 1_000, current=False, trades={TOKEN: 5})
    api.snapshots.states[TOKEN] = newer.state(TOKEN)

    async def newest() -> bool:
        document = await api.reads.token(TOKEN)
        return document.offset == "90000" and document.stale

    await until(newest)


async def test_a_broken_snapshot_store_costs_only_the_fallback(api: Api) -> None:
    api.snapshots.broken = "Redis: down"
    assert (await api.get(f"/api/tokens/{TOKEN}/stats")).status == 503
    await owner_of(api.site)

    async def served() -> bool:
        return (await api.get(f"/api/tokens/{TOKEN}/stats")).status == 200

    await until(served)


async def test_a_handoff_is_followed(api: Api) -> None:
    first = await owner_of(api.site)
    await api.reads.token(TOKEN)
    await tick(api.site, first)
    second = Owner(first.partition, 4, first.offset, wall_ms(), trades=dict(first.trades))
    await api.site.serve(second)
    await tick(api.site, second)
    second.apply([TOKEN], wall_ms())
    await until(lambda: (view := api.follower.view(TOKEN)) is not None and view.position.epoch == 4)
    await tick(api.site, first)  # a zombie
    await tick(api.site, second)
    await until(lambda: (view := api.follower.view(TOKEN)) is not None and view.position.offset == second.offset)


async def test_offsets_that_begin_anew_in_an_epoch_are_followed(api: Api) -> None:
    owner = await owner_of(api.site)
    await api.reads.token(TOKEN)
    await tick(api.site, owner)
    owner.offset = 0  # the topic was recreated: the owner keeps its state and its epoch
    owner.apply([TOKEN], owner.as_of_ms + 1)
    await tick(api.site, owner)
    await until(lambda: (view := api.follower.view(TOKEN)) is not None and view.position.offset == 1)
    assert served(api) == 4


async def test_lost_deltas_and_pulses_are_asked_for(api: Api) -> None:
    owner = await owner_of(api.site)
    await api.reads.token(TOKEN)
    for lost in (wire.TokenState, wire.Pulse):
        owner.apply([TOKEN], wall_ms())
        await tick(api.site, owner, lose=lambda message, kind=lost: isinstance(message, kind))  # type: ignore[misc]
        await tick(api.site, owner)
        offset = owner.offset
        await until(lambda n=offset: (v := api.follower.view(TOKEN)) is not None and v.position.offset == n)  # type: ignore[misc]
    await api.site.disturb()
    await until(lambda: api.site.adapter.connected)
    owner.apply([TOKEN], wall_ms())
    await until(lambda: (v := api.follower.view(TOKEN)) is not None and v.position.offset == owner.offset)


async def test_overview_merges_exactly(api: Api) -> None:
    huge = 10**25
    tokens: dict[int, dict[str, int]] = {partition: {} for partition in range(PARTITIONS)}
    for number in range(200):
        tokens[home(f"t{number}")][f"t{number}"] = huge + number // 2
    owners = [Owner(p, p + 1, p * 10, wall_ms(), trades=trades) for p, trades in tokens.items()]
    for owner in owners:
        await api.site.serve(owner)
    answer = await api.get("/api/overview?window=1h&by=volume_token&limit=7")
    assert answer.status == 200
    names = sorted((f"t{n}" for n in range(200)), key=lambda name: (-(int(name[1:]) // 2), name))
    assert [line["token"] for line in answer.body["tokens"]] == names[:7]
    assert answer.body["tokens"][0]["volume_token"] == f"{huge + 99}.{'0' * 18}"
    assert [p["offset"] for p in answer.body["partitions"]] == ["0", "10", "20", "30"]
    assert (answer.body["stale"], answer.body["missing"]) == (False, [])
    await api.site.stop(owners[2])
    answer = await api.get("/api/overview?window=5m")
    assert (answer.body["stale"], answer.body["missing"], answer.body["by"]) == (True, [2], "volume_usd")


async def test_overview_without_owners(api: Api) -> None:
    answer = await api.get("/api/overview")
    assert (answer.status, answer.body["code"]) == (503, "unavailable")


async def test_partitions(api: Api) -> None:
    owner = await owner_of(api.site)
    answer = await api.get("/api/partitions")
    status = answer.body["partitions"][0]
    assert (status["partition"], status["epoch"], status["stale"], status["lag_seconds"]) == (
        owner.partition,
        3,
        False,
        0,
    )
    assert answer.body["missing"] == [p for p in range(PARTITIONS) if p != owner.partition]


PROBLEMS = [
    ("/api/overview?window=9d", "GET", 400, "unknown_window", "window: '9d'"),
    ("/api/overview?by=price", "GET", 422, "invalid_parameter", "by: Input should be 'volume_usd'"),
    ("/api/overview?limit=0", "GET", 422, "invalid_parameter", "limit: Input should be greater than or equal to 1"),
    ("/api/overview?limit=x", "GET", 422, "invalid_parameter", "limit: "),
    ("/api/tokens/" + "x" * 129 + "/stats", "GET", 404, "unknown_token", "1 to 128"),
    ("/api/nothing", "GET", 404, "not_found", "/api/docs"),
    ("/api/overview", "POST", 405, "method_not_allowed", "GET"),
    ("/ws", "GET", 404, "not_found", "/ws"),
]


async def test_every_error_is_a_problem(api: Api) -> None:
    for path, method, status, code, says in PROBLEMS:
        answer = await api.get(path, method)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status, answer.body["status"], answer.body["code"]) == (status, status, code)
        assert says in answer.body["detail"]
        assert set(answer.body) == {"type", "title", "status", "detail", "instance", "code"}


async def test_health_readiness_metrics_and_docs(api: Api) -> None:
    assert (await api.get("/healthz")).status == 200
    answer = await api.get("/readyz")
    assert (answer.status, answer.body["detail"]) == (503, "no partition has an owner that answers")
    await owner_of(api.site)

    async def ready() -> bool:
        return (await api.get("/readyz")).status == 200

    await until(ready)
    text = (await api.get("/metrics")).body
    assert 'api_http_request_duration_seconds_count{method="GET",route="/readyz",status="503"} ' in text
    assert "ws_clients_gauge 0.0" in text
    assert "ws_dropped_msgs_total 0.0" in text
    assert "/api/overview" in (await api.get("/api/openapi.json")).body["paths"]


async def test_dependencies_guard_reads_and_nothing_else() -> None:
    async def refuse(connection: HTTPConnection) -> None:
        raise HTTPException(401, "send a token")

    async with running_api(MemorySite(), dependencies=[Depends(refuse)]) as api:
        answer = await api.get("/api/overview")
        assert (answer.status, answer.body["detail"]) == (401, "send a token")
        assert (await api.get("/healthz")).status == 200


async def test_a_bug_of_ours_is_a_problem_too() -> None:
    async def break_down(connection: HTTPConnection) -> None:
        raise ZeroDivisionError

    async with running_api(MemorySite(), dependencies=[Depends(break_down)]) as api:
        answer = await api.get("/api/overview")
        assert (answer.status, answer.body["code"]) == (500, "internal_error")


async def test_the_number_of_followed_tokens_is_bounded() -> None:
    site = MemorySite()
    async with running_api(site, capacity=3) as api:
        trades = {f"t{n}": n for n in range(20)}
        for partition in range(PARTITIONS):
            await site.serve(Owner(partition, 1, as_of_ms=wall_ms(), trades=trades))
        for token in trades:
            await api.reads.token(token)
            assert len(api.machine) <= 3
        await site.settled()
        assert len(site.adapter._tokens) <= 3


async def test_a_partition_that_waits_before_a_record_from_the_future_is_said_everywhere(api: Api) -> None:
    owner = Owner(home(TOKEN), 2, 5, wall_ms(), trades={TOKEN: 1})
    await api.site.serve(owner)
    assert (await api.get(f"/api/tokens/{TOKEN}/stats")).body["stale"] is False
    owner.held, owner.current = wire.Held(5, wall_ms() + 7_200_000, 7_200_000), False
    await tick(api.site, owner)
    why = f"partition {owner.partition} waits before offset 5"

    async def told() -> bool:
        parts = (await api.get("/api/partitions")).body["partitions"]
        return "held" in (await api.get(f"/api/tokens/{TOKEN}/stats")).body and "held" in parts[0]

    await until(told)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    assert why in answer.body["held"]
    assert "spec.source.skip" in answer.body["held"]
    status = (await api.get("/api/partitions")).body["partitions"][0]
    assert status["stale"]
    assert why in status["held"]
    overview = (await api.get("/api/overview")).body
    assert overview["stale"]
    assert why in overview["partitions"][0]["held"]
    other = next(name for name in map(str, range(100)) if home(name) == owner.partition)
    answer = await api.get(f"/api/tokens/{other}/stats")
    assert (answer.status, why in answer.body["detail"], why in answer.body["held"]) == (404, True, True)


async def test_a_lost_state_that_is_rebuilt_is_said_everywhere(api: Api) -> None:
    owner = Owner(home(TOKEN), 2, 5, wall_ms() - 3_600_000, current=False, rebuilding=0.426, trades={TOKEN: 1})
    await api.site.serve(owner)
    answer = await api.get(f"/api/tokens/{TOKEN}/stats")
    said = (True, 0.42, True)
    assert (answer.body["rebuilding"], answer.body["progress"], answer.body["stale"]) == said
    status = (await api.get("/api/partitions")).body["partitions"][0]
    assert (status["rebuilding"], status["progress"], status["stale"]) == said
    overview = (await api.get("/api/overview")).body
    for part in (overview, overview["partitions"][0]):
        assert (part["rebuilding"], part["progress"], part["stale"]) == said
    other = next(name for name in map(str, range(100)) if home(name) == owner.partition)
    answer = await api.get(f"/api/tokens/{other}/stats")
    assert (answer.status, answer.body["rebuilding"], answer.body["progress"]) == (404, True, 0.42)
    assert "being rebuilt" in answer.body["detail"]
    owner.rebuilding, owner.current = None, True

    async def done() -> bool:  # answers of all partitions are shared for a moment
        status = (await api.get("/api/partitions")).body["partitions"][0]
        return not {"rebuilding", "progress"} & status.keys()

    await until(done)


async def test_a_former_owner_that_still_answers_is_not_believed() -> None:
    site = MemorySite()
    async with running_api(site) as api:
        former = await owner_of(site)
        heir = Owner(former.partition, 4, 90_000, wall_ms(), trades={TOKEN: 5})
        both = iter([heir, former, former] * 40)
        site.adapter.owners[former.partition] = lambda query: next(both).answer(query, mono_ms())
        told: list[int] = []
        for _ in range(8):
            told += [(await api.reads.token(TOKEN)).epoch]
            told += [part.epoch for part in (await api.reads._overview(OVERVIEW)).partitions]
            told += [part["epoch"] for part in (await api.reads._status())["partitions"]]
        assert told == sorted(told)
        assert told[-1] == 4


async def test_a_gap_between_two_owners_is_waited_for() -> None:
    site = MemorySite()
    async with running_api(site) as api:
        reading = asyncio.create_task(api.reads.token(TOKEN))
        status = asyncio.create_task(api.reads.partitions())
        await asyncio.sleep(0.05)
        await owner_of(site)
        assert (await reading).epoch == 3
        assert home(TOKEN) not in (await status)["missing"]


async def test_the_rules_are_told_with_what_the_resource_sets_of_them(api: Api) -> None:
    answer = await api.get("/api/methodology")
    assert answer.status == 200
    rules = answer.body
    assert rules["version"] == VERSION
    assert rules["windows"]["names"] == list(SPEC.window_names)
    assert rules["late"]["grace"] == format_duration(SPEC.grace)
    assert rules["amounts"]["most_usd"] is None
    assert all(part["rule"].endswith(".") for part in rules.values() if isinstance(part, dict))
    strict = SPEC.model_copy(
        update={
            "source": SPEC.source.model_copy(update={"amounts": "refuse", "skip": [Skip(partition=1, offset=7)]}),
            "limits": SPEC.limits.model_copy(update={"max_trade_usd": 5_000_000}),
        }
    )
    assert methodology(strict)["amounts"]["most_usd"] == "5.000000"
    assert "set aside" in methodology(strict)["amounts"]["rule"]
    assert methodology(strict)["time"]["passed_over"] == ["1:7"]
