"""docs/events.md says what is read: each of its rows is tried, and its list of reasons is the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner

from swapstats_core.routing import partition_of
from swapstats_core.swap import REMEDIES, Reason, Record, Reject, Swap, decode

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
NOW_MS = 1_767_614_400_000
USUAL = {
    "chain_id": "1",
    "tx_hash": '"0xab"',
    "log_index": "3",
    "token": '"WETH"',
    "side": '"sell"',
    "amount_token": '"1.5"',
    "amount_usd": '"3.25"',
    "event_time": str(NOW_MS),
}
"""The fields of a record as JSON, each as its text: a number isn't to pass through a float here either."""


def rows(heading: str) -> list[tuple[str, str]]:
    """The rows of the first table of two columns below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return [(left.strip("`"), right.strip("`")) for left, right in found if left[0] == "`"]


def read(field: str) -> Swap:
    """A usual record with one field written as the page has it."""
    name, _, value = field.partition(": ")
    fields = {json.dumps(known): text for known, text in USUAL.items()} | {name: value}
    return decode(("{" + ",".join(f"{key}:{text}" for key, text in fields.items()) + "}").encode(), NOW_MS)


@pytest.mark.parametrize(("written", "meant"), rows("Spellings that are read"))
def test_a_spelling_that_is_read(written: str, meant: str) -> None:
    assert read(written) == read(meant)


@pytest.mark.parametrize(("written", "reason"), rows("Spellings that are refused"))
def test_a_spelling_that_is_refused(written: str, reason: str) -> None:
    with pytest.raises(Reject) as caught:
        read(written)
    assert caught.value.reason == reason


def test_there_are_rows() -> None:
    assert len(rows("Spellings that are read")) > 30
    assert len(rows("Spellings that are refused")) > 20


def test_partitions_of_tokens_are_those_of_the_page() -> None:
    found = rows("Which partition")
    assert len(found) == 6
    for token, partition in found:
        assert partition_of(token, 12) == int(partition)
        assert DefaultPartitioner.__call__(token.encode(), list(range(12)), list(range(12))) == int(partition)


def test_every_field_has_its_row() -> None:
    first = PAGE.split("## ")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", first, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(Record.__struct_fields__)


def test_every_reason_has_its_sentence_here_and_in_the_code() -> None:
    told = {reason: words.split(" | ") for reason, words in rows("Dead letters")}
    assert {reason: remedy for reason, (_, remedy) in told.items()} == {each.value: REMEDIES[each] for each in Reason}
    assert all(meaning.endswith(".") for meaning, _ in told.values())


def test_remedies_are_sentences() -> None:
    for remedy in REMEDIES.values():
        assert remedy.endswith(".")
        assert remedy[0].isupper()
