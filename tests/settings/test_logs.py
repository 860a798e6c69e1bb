"""Logs of libraries."""

from __future__ import annotations

import logging

from swapstats_settings.logs import Sparse


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
