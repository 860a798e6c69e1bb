"""The comparison itself, without I/O: what counts as a difference, and what can't be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from swapstats_cli.verify.compare import LateStats, PartitionCheck, Position, Served, stats_of
from swapstats_cli.verify.daily import Day, DaysCheck, DayTotals
from swapstats_cli.verify.report import DaysReport, ExitCode, PartitionReport, Report, RowsReport
from swapstats_cli.verify.rows import Row, RowsCheck
from swapstats_core.engine.oracle import Oracle, WindowTotals
from swapstats_core.swap import RecordedSwap, format_token, format_usd
from swapstats_core.wire import WindowStats, rfc3339
from tests.kit.streams import DAY_MS, HOUR_MS, MINUTE_MS, START_MS, make_swap

GRACE_MS = 120_000
WINDOWS = {"5m": 5, "1h": 60}
ZERO = stats_of(WindowTotals())
ONE = stats_of(WindowTotals(1_000_000, 10**18, 1, 1, 0))
TWO = stats_of(WindowTotals(2_000_000, 2 * 10**18, 2, 2, 0))


def position(offset: int, *, first_offset: int = 0, carried_until_ms: int | None = None) -> Position:
    return Position(0, first_offset, offset, "topic", carried_until_ms)


def served(
    offset: int,
    windows: dict[str, WindowStats] | None = None,
    *,
    as_of_ms: int = START_MS,
    newest_ms: int = START_MS,
    partition: int = 0,
) -> Served:
    return Served(
        "WETH",
        partition,
        offset,
        as_of_ms,
        rfc3339(newest_ms - GRACE_MS),
        {"5m": ONE, "1h": ONE} if windows is None else windows,
        stale=False,
        late=LateStats(0, None),
    )


def checked(
    records: Sequence[RecordedSwap | None],
    replies: Sequence[Served] = (),
    unknown: Sequence[str] = (),
    before: Position | None = None,
    after: Position | None = None,
) -> PartitionReport:
    oracle = Oracle(tuple(WINDOWS.values()), GRACE_MS, HOUR_MS)
    before = before or position(0)
    check = PartitionCheck(oracle, WINDOWS, before, after or position(len(records)), replies, unknown)
    for offset, swap in enumerate(records):
        if offset >= check.first_offset:
            check.take(offset, swap)
    return check.finish()


def fields(report: PartitionReport) -> list[tuple[str, str, str, str]]:
    return [(d.window, d.field, d.served, d.expected) for d in report.differences]


FIRST, SECOND = make_swap(), make_swap(log_index=1)


def test_a_window_that_says_that_it_is_not_whole_may_lack_something_the_others_may_not() -> None:
    lacking = served(2, {"5m": TWO, "1h": ONE})
    assert checked([FIRST, SECOND], [lacking]).different > 0
    since_ms = START_MS - 30 * MINUTE_MS
    report = checked([FIRST, SECOND], [replace(lacking, since_ms=since_ms)])
    assert (report.different, report.windows, report.not_comparable) == (0, 1, 1)
    wrong = served(2, {"5m": ONE, "1h": TWO})
    assert fields(checked([FIRST, SECOND], [replace(wrong, since_ms=since_ms)]))[0][0] == "5m"
    too_much = served(2, {"5m": TWO, "1h": WindowStats("0.000000", "3.000000000000000000", 1, 1, 0)})
    assert fields(checked([FIRST, SECOND], [replace(too_much, since_ms=since_ms)]))[0][0] == "1h"


def test_a_state_that_says_from_when_on_it_is_whole_may_lack_late_swaps_and_tokens_from_before() -> None:
    late = make_swap(event_ms=START_MS - GRACE_MS - 1, log_index=5)
    told = replace(served(2), since_ms=START_MS - 30 * MINUTE_MS)
    assert checked([FIRST, late], [served(2)]).different == 1
    assert checked([FIRST, late], [told]).different == 0
    assert checked([FIRST, late], [replace(told, late=LateStats(2, None))]).different == 1
    lacking = replace(position(1), since_ms=START_MS + 1)
    report = checked([FIRST], unknown=["WETH"], before=lacking, after=position(1))
    assert (report.different, report.not_comparable) == (0, 1)
    whole = replace(lacking, since_ms=START_MS)
    assert checked([FIRST], unknown=["WETH"], before=whole, after=position(1)).different == 1


def test_each_reply_is_compared_at_its_own_offset() -> None:
    report = checked([FIRST, None, SECOND], [served(3, {"5m": TWO, "1h": TWO}), served(1), served(2)])
    assert (report.different, report.tokens, report.windows, report.records) == (0, 3, 6, 3)


def test_each_reply_is_compared_at_its_own_time() -> None:
    later = served(1, {"5m": ZERO, "1h": ONE}, as_of_ms=START_MS + 5 * MINUTE_MS)
    assert checked([FIRST], [served(1), later]).different == 0


@pytest.mark.parametrize(
    ("reply", "differences"),
    [
        (served(1, {"5m": TWO, "1h": ONE}), [("5m", "volume_usd", "2.000000", "1.000000")]),
        (served(1, {"5m": ONE}), [("", "windows", "5m", "5m, 1h")]),
        (served(1, partition=3), [("", "partition", "3", "0")]),
        (
            served(1, newest_ms=START_MS + 1),
            [("", "watermark", "2026-01-05T11:58:00.001Z", "2026-01-05T11:58:00.000Z")],
        ),
        (
            served(1, {"5m": ZERO, "1h": ZERO}, as_of_ms=START_MS - 60_001),
            [("", "as_of", "2026-01-05T11:58:59.999Z", "at least 2026-01-05T11:59:00.000Z")],
        ),
    ],
)
def test_a_wrong_reply_is_found(reply: Served, differences: list[tuple[str, str, str, str]]) -> None:
    assert fields(checked([FIRST], [reply]))[:1] == differences


def test_the_last_digit_counts() -> None:
    wrong = WindowStats("1.000000", "1.000000000000000001", 1, 1, 0)
    report = checked([FIRST], [served(1, {"5m": ONE, "1h": wrong})])
    assert fields(report) == [("1h", "volume_token", "1.000000000000000001", "1.000000000000000000")]


def test_a_number_that_neither_state_had_is_found() -> None:
    """The state after the second swap, served with the offset of the first."""
    assert checked([FIRST, SECOND], [served(1, {"5m": TWO, "1h": TWO})]).different > 0


def test_a_made_up_zero_for_an_unknown_token_is_found() -> None:
    report = checked([FIRST], [served(0, {"5m": ZERO, "1h": ZERO})])
    assert fields(report) == [("", "known", "known", "unknown")]


def test_unknown_is_right_somewhere_between_the_two_positions() -> None:
    records = [make_swap("USDC"), FIRST]
    assert checked(records, unknown=["WETH"], before=position(1)).different == 0
    report = checked(records, unknown=["WETH"], before=position(2))
    assert fields(report) == [("", "known", "unknown", f"known, watermark {rfc3339(START_MS - GRACE_MS)}")]


def test_unknown_is_right_before_a_record_that_makes_it_known_again() -> None:
    gone = [FIRST, make_swap("USDC"), make_swap("USDC", START_MS + 3 * HOUR_MS)]
    back = make_swap(event_ms=START_MS + 3 * HOUR_MS, log_index=2)
    assert checked([*gone, back], unknown=["WETH"], before=position(2)).different == 0
    assert checked([*gone, back], unknown=["WETH"], before=position(4)).different == 1


def test_windows_that_reach_into_an_earlier_topic_are_not_compared() -> None:
    carried = position(0, carried_until_ms=START_MS - 10 * MINUTE_MS)
    wrong = served(1, {"5m": ONE, "1h": TWO})
    report = checked([FIRST], [wrong], before=carried)
    assert (report.different, report.windows, report.not_comparable) == (0, 1, 1)
    wrong = served(1, {"5m": TWO, "1h": TWO})
    assert checked([FIRST], [wrong], before=carried).different > 0


def test_records_before_the_first_offset_are_not_counted() -> None:
    report = checked([SECOND, FIRST], [served(2)], before=position(1, first_offset=1))
    assert (report.different, report.records) == (0, 1)


# -- ClickHouse -----------------------------------------------------------------------------------------------------


def row(swap: RecordedSwap, offset: int, **changes: object) -> Row:
    fields: dict[str, object] = {
        "event_id": swap.event_id,
        "token": swap.token,
        "removed": swap.removed,
        "event_ms": swap.event_ms,
        "amount_usd": format_usd(swap.usd_micros).rstrip("0"),
        "amount_token": format_token(swap.token_atto),
        "side": swap.record.side,
        "partition": 0,
        "offset": offset,
        "ingested_ms": 1_000 + offset,
    }
    return Row(**(fields | changes))  # type: ignore[arg-type] # a test's shorthand


def rows_checked(
    records: Sequence[RecordedSwap | None],
    rows: Sequence[Row],
    *,
    committed: int = 100,
    expired_before_ms: int = 0,
    every_record: bool = False,
    kept_from: int = 0,
) -> RowsReport:
    check = RowsCheck({0: committed}, expired_before_ms, every_record=every_record)
    for offset, swap in enumerate(records):
        check.take(0, offset, 1_000 + offset, swap)
    for found in rows:
        check.compare(found)
    return check.finish({0: kept_from})


def test_rows_that_are_as_they_must_be() -> None:
    most = make_swap(usd_micros=10**20 - 1, token_atto=10**38 - 1, log_index=2, is_buy=False)
    records = [FIRST, None, FIRST, make_swap(removed=True), most]
    report = rows_checked(records, [row(FIRST, 0), row(records[3] or FIRST, 3), row(most, 4)])
    assert (report.expected, report.equal, report.wrong) == (3, 3, 0)


def test_a_repeat_is_a_record_but_no_row_of_an_event() -> None:
    rows = [row(FIRST, 0), row(FIRST, 1)]
    assert [f.kind for f in rows_checked([FIRST, FIRST], rows).findings] == ["extra"]
    assert rows_checked([FIRST, FIRST], rows, every_record=True).equal == 2
    report = rows_checked([FIRST, FIRST], rows[:1], every_record=True)
    assert [(f.kind, f.offset) for f in report.findings] == [("missing", 1)]


def test_repeats_from_before_the_upgrade_have_no_rows() -> None:
    records = [FIRST, SECOND, FIRST, FIRST]
    rows = [row(FIRST, 0), row(FIRST, 3)]
    report = rows_checked(records, rows, every_record=True, kept_from=3)
    assert (report.equal, report.not_kept, report.missing) == (2, 1, 1)
    assert [(f.kind, f.offset) for f in report.findings] == [("missing", 1)], "no repeat: the release before kept it"
    assert rows_checked(records, rows, every_record=True, kept_from=2).missing == 2


DAY = START_MS // DAY_MS
REMOVAL = make_swap(removed=True)


def days_checked(
    swaps: Sequence[RecordedSwap], found: DayTotals, *, beginning: int = 0, first_day: int = DAY
) -> DaysReport:
    check = DaysCheck({0: 100}, {0: beginning}, lambda _: 0, lambda: Oracle((5, 60), GRACE_MS, HOUR_MS), first_day)
    for offset, swap in enumerate(swaps):
        check.take(0, beginning + offset, START_MS, swap)
    check.report.compared = check.compare("daily", {Day(DAY, 1, "WETH"): found}, check.expected())
    return check.report


@pytest.mark.parametrize(
    ("swaps", "right"),
    [
        ([FIRST], DayTotals(FIRST.usd_micros, FIRST.token_atto, 1, 1)),
        ([FIRST, FIRST], DayTotals(FIRST.usd_micros, FIRST.token_atto, 1, 1)),
        ([make_swap(), REMOVAL], DayTotals()),
        ([make_swap(), make_swap(block=2, usd_micros=5)], DayTotals(5, 10**18, 1, 1)),
        (
            [make_swap(usd_micros=3), make_swap(event_ms=START_MS - GRACE_MS - 1, log_index=5, usd_micros=4)],
            DayTotals(3, 10**18, 1, 1, 1, 4),
        ),
    ],
    ids=["one", "told twice", "removed", "mined again", "late"],
)
def test_a_day_is_what_counts(swaps: Sequence[RecordedSwap], right: DayTotals) -> None:
    report = days_checked(swaps, right)
    assert (report.compared, report.different) == (1, 0)
    for wrong in (replace(right, trades=right.trades + 1), replace(right, late_usd_micros=9)):
        assert days_checked(swaps, wrong).different == 1


def test_days_of_which_records_may_be_gone_are_not_compared() -> None:
    wrong = DayTotals(trades=7)
    report = days_checked([FIRST], wrong, beginning=3)
    assert (report.compared, report.not_comparable, report.different) == (0, 1, 0)
    assert days_checked([FIRST], wrong, first_day=DAY + 1).not_comparable == 1


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([], ["missing"]),
        ([row(FIRST, 0, amount_token="1.000000000000000001")], ["different"]),
        ([row(FIRST, 0, side="sell")], ["different"]),
        ([row(FIRST, 0, event_ms=START_MS + 1)], ["different"]),
        ([row(FIRST, 0), row(FIRST, 0)], ["extra"]),
        ([row(FIRST, 0), row(SECOND, 0)], ["extra"]),
    ],
)
def test_a_wrong_row_is_found(rows: list[Row], kinds: list[str]) -> None:
    report = rows_checked([FIRST], rows)
    assert [finding.kind for finding in report.findings] == kinds
    assert report.wrong == len(kinds)


def test_rows_beyond_the_commit_and_of_other_topics_are_no_findings() -> None:
    rows = [row(FIRST, 0), row(SECOND, 1), row(SECOND, 7, ingested_ms=5)]
    report = rows_checked([FIRST, SECOND], rows, committed=1)
    assert (report.wrong, report.other_topics) == (0, 1)


def test_rows_that_their_age_may_have_deleted() -> None:
    report = rows_checked([FIRST, SECOND], [row(FIRST, 0)], expired_before_ms=START_MS + DAY_MS)
    assert (report.wrong, report.expired) == (0, 1)


def test_exit_codes() -> None:
    exact = PartitionReport(0, windows=3)
    assert Report([exact]).exit_code is ExitCode.EXACT
    assert Report([exact], gaps=["nobody answers for partition 1"]).exit_code is ExitCode.UNVERIFIED
    assert Report([PartitionReport(0)]).exit_code is ExitCode.UNVERIFIED
    assert Report([PartitionReport(0, different=1)], gaps=["too"]).exit_code is ExitCode.DIFFERENT
    assert Report([exact], rows=RowsReport(missing=1)).exit_code is ExitCode.DIFFERENT
