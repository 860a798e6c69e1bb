"""The messages about ownership arrive as they were sent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstats_core import bounds
from swapstats_core.event_time import END_MS
from swapstats_core.ownership import messages

NAMES = st.text(max_size=12)
COUNTS = st.integers(0, bounds.MOST)
TIMES = st.integers(0, END_MS)
ENTRIES = st.builds(
    messages.PartitionAssignment,
    NAMES,
    COUNTS,
    st.sampled_from(["owned", "orphaned"]),
)
WARMING = st.builds(messages.PartitionAssignment, st.just("A"), COUNTS, st.just("warming"), st.just("B"))


ASSIGNMENTS = st.builds(messages.Assignment, COUNTS, st.lists(ENTRIES | WARMING, max_size=4))


@given(ASSIGNMENTS)
def test_assignments(assignment: messages.Assignment) -> None:
    assert messages.decode_assignment(messages.encode_assignment(assignment)) == assignment
    assert messages.decode_assignment(messages.encode(assignment)) == assignment, "an earlier release has stored it"


def test_an_earlier_release_reads_a_sealed_assignment() -> None:
    assignment = messages.Assignment(3, [messages.PartitionAssignment("A", 2)])
    sealed = messages.encode_assignment(assignment)
    assert msgspec.json.decode(sealed, type=messages.Assignment) == assignment


def test_no_bit_of_a_stored_assignment_can_be_flipped() -> None:
    warming = messages.PartitionAssignment("shard-0", 17, "warming", "shard-1")
    sealed = messages.encode_assignment(messages.Assignment(41, [warming, messages.PartitionAssignment("", 0)]))
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            messages.decode_assignment(bytes(damaged))
    for end in range(len(sealed)):
        with pytest.raises(msgspec.DecodeError):
            messages.decode_assignment(sealed[:end])


@pytest.mark.parametrize(
    "entry",
    [
        messages.PartitionAssignment("A", 10**25),
        messages.PartitionAssignment("A", -1),
        messages.PartitionAssignment("A", 1, "warming"),
        messages.PartitionAssignment("A", 1, "warming", "A"),
        messages.PartitionAssignment("A", 1, "owned", "B"),
    ],
)
def test_an_entry_that_makes_no_sense_is_none_although_it_is_sealed(entry: messages.PartitionAssignment) -> None:
    with pytest.raises(msgspec.ValidationError):
        messages.decode_assignment(messages.encode_assignment(messages.Assignment(1, [entry])))


REPORTS = st.builds(
    messages.PartitionReport,
    COUNTS,
    COUNTS,
    st.sampled_from(["restoring", "shadow", "claiming", "owner", "refused"]),
    COUNTS,
    st.none() | COUNTS,
    rebuilding=st.none() | st.floats(0, 1),
)
HANDOFFS = st.builds(
    messages.Handoff, COUNTS, COUNTS, NAMES, NAMES, COUNTS, TIMES, st.none() | COUNTS, COUNTS, st.none() | NAMES
)


@given(
    st.builds(
        messages.MemberReport,
        NAMES,
        NAMES,
        COUNTS,
        st.lists(REPORTS, max_size=3),
        st.lists(NAMES, max_size=2),
        st.lists(HANDOFFS, max_size=2),
    )
)
def test_reports(report: messages.MemberReport) -> None:
    assert messages.decode_report(messages.encode(report)) == report


@given(
    st.builds(messages.Released, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, TIMES, COUNTS, TIMES)
    | st.builds(messages.Digested, COUNTS, COUNTS, NAMES, COUNTS, NAMES, COUNTS, NAMES, NAMES)
    | st.builds(messages.Prove, COUNTS, COUNTS)
)
def test_words(word: messages.Released | messages.Digested | messages.Prove) -> None:
    assert messages.decode_word(messages.encode(word)) == word
