"""Logs of libraries."""

from __future__ import annotations

import asyncio
import logging

import structlog

from swapstats_runtime.logs import Bounded, Sparse


def said(template: str, at_s: float, logger: str = "aiokafka") -> logging.LogRecord:
    record = logging.LogRecord(logger, logging.ERROR, "", 0, template, None, None)
    record.created = at_s
    return record


def test_a_library_says_the_same_once_in_ten_seconds() -> None:
    sparse = Sparse()
    passes = [bool(sparse.filter(said("no node %s", at_s))) for at_s in (100.0, 100.1, 109.9, 110.0, 110.1)]
    assert passes == [True, False, False, True, False]
    assert sparse.filter(said("another thing", 110.1))
    assert sparse.filter(said("no node %s", 110.1, "redis"))


def test_what_was_said_is_not_remembered_without_bound() -> None:
    sparse = Sparse()
    for number in range(5_000):
        assert sparse.filter(said(f"{number} is filled in already", 100.0))
    assert len(sparse._said_s) <= 1_000


def warn(bounded: Bounded, event: str, **fields: object) -> dict[str, object] | None:
    try:
        return dict(bounded(None, "warning", {"event": event, **fields}))
    except structlog.DropEvent:
        return None


def test_of_a_flood_of_garbage_a_few_lines_are_written_and_the_rest_is_counted() -> None:
    now_ms = 0
    bounded = Bounded(lambda: now_ms)
    lines = [warn(bounded, "message_refused", partition=3, why=f"garbage {number}") for number in range(1_000)]
    assert len([line for line in lines if line is not None]) == 5
    assert warn(bounded, "message_refused", partition=4, why="garbage") is not None, "other lines aren't concerned"
    assert bounded(None, "info", {"event": "message_refused", "partition": 3}) is not None
    now_ms = 60_000
    assert warn(bounded, "message_refused", partition=3, why="x") == {
        "event": "message_refused",
        "partition": 3,
        "why": "x",
        "left_out": 995,
    }


async def test_what_was_left_out_is_told_though_no_more_of_it_comes() -> None:
    now_ms = 0
    bounded = Bounded(lambda: now_ms)
    with structlog.testing.capture_logs() as logs:
        for number in range(8):
            now_ms = 0 if number == 0 else 59_995
            warn(bounded, "message_refused", partition=3)
        async with asyncio.timeout(10):
            while not logs:  # noqa: ASYNC110 - the loop's timer
                await asyncio.sleep(0.001)
    assert logs == [
        {
            "event": "lines_left_out",
            "line": "message_refused",
            "left_out": 3,
            "partition": 3,
            "log_level": "info",
        }
    ]


def test_lines_are_not_remembered_without_bound() -> None:
    bounded = Bounded(lambda: 0)
    for number in range(5_000):
        assert warn(bounded, f"another {number}") is not None
    assert len(bounded._lines) <= 1_000
