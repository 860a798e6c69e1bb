"""Manifests: as they were stored, or not used."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swapstats_core.engine.manifest import (
    ChunkRef,
    Manifest,
    UnreadableSnapshot,
    check,
    decode_manifest,
    encode_manifest,
    readable,
)

AT_MS = 1_790_000_000_000
HOUR = AT_MS // 3_600_000
GOOD = Manifest(
    partition=3,
    epoch=7,
    seq=12,
    offset=4_711,
    incarnation="topic",
    first_offset=11,
    carried_until_ms=None,
    newest_ms=AT_MS,
    now_ms=AT_MS + 5,
    taken_at_ms=AT_MS + 9,
    longest_minutes=1_440,
    chunks=[ChunkRef(HOUR - 1, "7-a-1c", "7-a-1i"), ChunkRef(HOUR, "7-a-2c", "")],
    ledgers=["7-a-3l"],
    key="5" * 32,
)


def changed(**fields: Any) -> Manifest:  # noqa: ANN401 - any field of any type
    return msgspec.structs.replace(GOOD, **fields)


def test_a_manifest_is_read_as_it_was_stored() -> None:
    found = decode_manifest(encode_manifest(GOOD))
    assert found == GOOD
    check(found, 3)


def test_no_bit_of_a_manifest_can_be_flipped() -> None:
    stored = encode_manifest(GOOD)
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UnreadableSnapshot):
            decode_manifest(bytes(damaged))


def test_no_byte_can_be_missing_or_too_many() -> None:
    stored = encode_manifest(GOOD)
    for wrong in (*(stored[:end] for end in range(len(stored))), stored + b" ", b" " + stored, stored * 2):
        with pytest.raises(UnreadableSnapshot):
            decode_manifest(wrong)


def test_one_of_an_earlier_release_says_what_happens_now() -> None:
    with pytest.raises(
        UnreadableSnapshot, match="written by an earlier release: the partition is rebuilt from the topic"
    ):
        decode_manifest(msgspec.json.encode(GOOD))


@pytest.mark.parametrize("field", ["epoch", "seq", "offset", "first_offset", "newest_ms", "now_ms", "taken_at_ms"])
@pytest.mark.parametrize("number", [-2, 2**53, 10**30])
def test_a_number_out_of_bounds_makes_no_sense_although_it_is_sealed(field: str, number: int) -> None:
    with pytest.raises(UnreadableSnapshot, match="makes no sense"):
        decode_manifest(encode_manifest(changed(**{field: number})))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (changed(partition=4), "it is partition 4's"),
        (changed(offset=10), "its offset 10 lies before its first, 11"),
        (changed(rebuild_until=10), "to be rebuilt up to 10, from 11"),
        (changed(newest_ms=AT_MS // 1000, now_ms=AT_MS // 1000, chunks=[]), "before 2015"),
        (changed(carried_until_ms=AT_MS + 1), "it carries events"),
        (changed(now_ms=AT_MS - 60_001), "is behind its newest event"),
        (changed(now_ms=AT_MS + 3 * 86_400_000), "far ahead of when it was taken"),
        (changed(chunks=[ChunkRef(HOUR + 1, "c", "i")]), f"a chunk of hour {HOUR + 1}"),
        (changed(newest_ms=-1), f"a chunk of hour {HOUR}"),
        (changed(skipped=[10]), r"passed over offsets that it hasn't read: \[10\]"),
        (changed(skipped=[11, 4_711]), r"passed over offsets that it hasn't read: \[4711\]"),
        (changed(skipped=[12, 11]), "don't ascend"),
        (changed(skipped=[12, 12]), "don't ascend"),
    ],
)
def test_one_that_contradicts_itself_is_not_used(wrong: Manifest, text: str) -> None:
    with pytest.raises(UnreadableSnapshot, match=text):
        check(wrong, 3)


@pytest.mark.parametrize("skipped", [[-1], [2**53], list(range(11, 11 + 1_025))])
def test_the_offsets_that_were_passed_over_have_bounds(skipped: list[int]) -> None:
    with pytest.raises(UnreadableSnapshot, match="makes no sense"):
        decode_manifest(encode_manifest(changed(skipped=skipped, offset=2**53 - 1)))


@pytest.mark.parametrize("longest_minutes", [0, 7 * 1_440 + 1])
def test_windows_have_their_longest(longest_minutes: int) -> None:
    with pytest.raises(UnreadableSnapshot, match="makes no sense"):
        decode_manifest(encode_manifest(changed(longest_minutes=longest_minutes)))


def used(*manifests: Manifest | bytes) -> list[Manifest]:
    """Those that can be used of these, newest first."""
    stored = [each if isinstance(each, bytes) else encode_manifest(each) for each in manifests]
    return [each for each in readable(3, stored) if isinstance(each, Manifest)]


def test_the_one_before_a_damaged_one_is_used() -> None:
    newer, newest = changed(seq=13, offset=5_000), changed(seq=14, offset=6_000)
    assert used(newest, newer, GOOD) == [newest, newer, GOOD]
    assert used(encode_manifest(newest)[:-1], newer, GOOD) == [newer, GOOD]
    assert used(newest, b"", GOOD) == [newest, GOOD]


@pytest.mark.parametrize(
    "back",
    [
        changed(seq=13, offset=4_710),
        changed(seq=13, newest_ms=AT_MS - 1),
        changed(seq=12),
        changed(seq=99, epoch=6),
    ],
)
def test_one_that_goes_back_is_not_used(back: Manifest) -> None:
    assert used(back, GOOD) == [GOOD]


@pytest.mark.parametrize(
    "elsewhere",
    [
        changed(seq=13, offset=12, incarnation="another", carried_until_ms=AT_MS),
        changed(seq=13, offset=12, carried_until_ms=AT_MS),
        changed(seq=13, offset=600, first_offset=500, rebuild_until=5_000, newest_ms=AT_MS - 9),
        changed(seq=13, newest_ms=AT_MS - 9, skipped=[17], key="6" * 32),
    ],
)
def test_an_offset_goes_back_where_reading_has_begun_elsewhere(elsewhere: Manifest) -> None:
    assert used(elsewhere, GOOD) == [elsewhere, GOOD]


@pytest.mark.parametrize(("before", "longer", "since_ms"), [(0, 1_440, 0), (0, 1_441, -1), (AT_MS, 1_441, AT_MS)])
def test_a_longer_window_than_the_snapshot_remembers_begins_with_the_first_whole_minute(
    before: int, longer: int, since_ms: int
) -> None:
    first_whole_ms = (AT_MS // 60_000 - 1_440 + 1) * 60_000
    assert changed(since_ms=before).since_by(longer) == (first_whole_ms if since_ms < 0 else since_ms)
