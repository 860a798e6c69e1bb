"""What is shown, from frozen data."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console

from swapstats_cli.live.display import Detachable, TerminalDisplay, display_for
from swapstats_cli.live.model import LiveView, health, shard_lines
from swapstats_cli.live.plain import PlainDisplay, summary
from swapstats_cli.live.readings import PartitionReading, RateMeter, Reading, TopToken
from swapstats_cli.live.screen import live_screen
from swapstats_cli.supervisor.journal import Saying, Tone
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.ownership.messages import Assignment, PartitionAssignment
from swapstats_core.readable import count, dollars, ranges, seconds

SHARDS = ("shard-0", "shard-1")
MOVING = Assignment(
    1, [PartitionAssignment("shard-0", 1)] * 9 + [PartitionAssignment("shard-0", 1, "warming", "shard-1")]
)


def _status(name: str, state: PartState = PartState.READY, restarts: int = 0) -> PartStatus:
    return PartStatus(name, f"http://127.0.0.1:{len(name)}", state, 17, restarts, 0.0, 1.0)


def _partition(number: int, offset: int = 100, *, end: int = 103, current: bool = True) -> PartitionReading:
    return PartitionReading(number, f"shard-{number % 2}", 4 + number, offset, end, 7, current, 1_000_000 + number)


def _reading(at_s: float = 10.0, offset: int = 100, *, current: bool = True) -> Reading:
    partitions = tuple(_partition(number, offset, current=current) for number in range(4))
    top = (TopToken("WETH", "1234567.345678", 3000, 2000, 1000), TopToken("[red]ODD[/]", "1.000000", 1, 1, 0))
    return Reading(at_s, 1_004_000, partitions, (), top)


def _view(**changes: object) -> LiveView:
    parts = tuple(map(_status, ("kafka", "redis", "nats", "clickhouse", "shard-0", "shard-1", "recorder", "api-0")))
    reading = _reading()
    saying = Saying(datetime(2026, 1, 5, 12, tzinfo=UTC), Tone.WARNING, "shard-0 (pid 3) died: killed by SIGKILL")
    view = LiveView(
        "demo",
        "5m",
        10.5,
        75.0,
        4.2,
        4.9,
        998.7,
        reading,
        None,
        shard_lines(parts, SHARDS, reading, MOVING),
        parts,
        (saying,),
    )
    return replace(view, **changes)  # type: ignore[arg-type]  # each test changes its own fields


def _drawn(view: LiveView, *, height: int = 45, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(live_screen(view, height))
    return capture.get()


def test_the_screen_shows_every_figure() -> None:
    text = _drawn(_view())
    for shown in (
        *("demo", "events/s 999", "lag 12", "tokens 28", "snapshot age 4.0 s", "first live number after 4.9 s"),
        *(
            "0,2",
            "1,3",
            "warming up",
            "   9 ",
            "4–6",
            "5–7",
            "WETH",
            "1,234,567.35",
            "[red]ODD[/]",
            "current",
            "http://127.0.0.1:5",
        ),
        "12:00:00 shard-0 (pid 3) died: killed by SIGKILL",
    ):
        assert shown in text, shown


@pytest.mark.parametrize("height", [5, 24, 30, 45, 100])
def test_the_screen_keeps_the_headline_whatever_its_height(height: int) -> None:
    text = _drawn(_view(), height=height)
    assert "events/s 999" in text
    if height >= 30:
        assert len(text.splitlines()) <= height


def test_the_view_says_what_is_wrong() -> None:
    down = (*_view().parts[:-1], _status("api-0", PartState.DOWN))
    assert health(_view()) == "current"
    assert health(_view(parts=down)) == "api-0 not ready"
    assert health(_view(reading=_reading(current=False))) == "catching up"
    held = replace(
        _reading(), partitions=(msgspec.structs.replace(_partition(1, current=False), held="why"), _partition(2))
    )
    assert health(_view(reading=held)) == "partitions 1 held"
    assert health(_view(reading=None)) == "no numbers yet"
    missing = replace(_reading(), missing=(1, 3))
    assert health(_view(reading=missing)) == "partitions 1, 3 have no owner that answers"
    broken = _drawn(_view(problem="the API doesn't answer (ConnectError)", now_s=22.0))
    assert "the API doesn't answer (ConnectError) (numbers are 12.0 s old)" in broken


def test_without_numbers_nothing_is_made_up() -> None:
    parts = _view().parts
    text = _drawn(
        _view(reading=None, rate=None, shards=shard_lines(parts, SHARDS, None, None), first_number_after_s=None)
    )
    assert "events/s –" in text
    assert "lag –" in text
    assert "no numbers yet" in text


def test_a_summary_is_one_line() -> None:
    assert summary(_view()) == (
        "up 75.0 s | current | rate 999/s | lag 12 | tokens 28 | snapshot age 4.0 s"
        " | top WETH 1,234,567.35 USD in 5m | restarts 0"
    )


def test_the_rate_follows_offsets_and_begins_again_with_a_new_broker() -> None:
    meter = RateMeter(readings=3)
    assert meter.add(_reading(0.0, 0)) is None
    assert meter.add(_reading(1.0, 250)) == 1000
    assert meter.add(_reading(2.0, 250)) == 500
    assert meter.add(_reading(3.0, 10)) == 0, "an offset that went back counts as no progress"
    assert meter.add(_reading(4.0, 260)) == 500


def test_a_snapshot_age_needs_every_partition() -> None:
    reading = _reading()
    assert reading.snapshot_age_ms() == 4_000
    assert reading.snapshot_age_ms("shard-1") == 3_999
    without = replace(
        reading, partitions=(*reading.partitions[:3], PartitionReading(3, "shard-1", 1, 0, 0, 0, True, None))
    )
    assert without.snapshot_age_ms() is None
    assert without.snapshot_age_ms("shard-0") == 4_000


def test_plain_lines_hold_the_addresses_once_and_a_summary_when_due() -> None:
    out = io.StringIO()
    display = PlainDisplay(out)
    for now_s in (10.5, 11.5, 20.5):
        display.live(_view(now_s=now_s))
    lines = out.getvalue().splitlines()
    assert sum("kafka" in line for line in lines) == 1
    assert sum("rate 999/s" in line for line in lines) == 2
    assert "\x1b" not in out.getvalue()


def test_a_terminal_gets_its_screen_back() -> None:
    out = io.StringIO()
    display = TerminalDisplay(Console(file=out, force_terminal=True, width=100, height=30))
    display.starting((_status("kafka", PartState.STARTING),), 2.0)
    display.live(_view())
    display.saying(Saying(datetime(2026, 1, 5, 12, tzinfo=UTC), Tone.WARNING, "redis died"))
    display.end()
    assert out.getvalue().index("redis died") > out.getvalue().index("\x1b[?1049l")
    assert out.getvalue().index("\x1b[?1049h") < out.getvalue().index("\x1b[?1049l")
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l"), "and its cursor"


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_lost_terminal_silences_the_display() -> None:
    display = display_for(_Gone())
    assert isinstance(display, Detachable)
    display.live(_view())
    display.saying(_view().sayings[0])
    display.end()


def test_words() -> None:
    assert [seconds(s) for s in (None, 4.23, 187, 7209)] == ["–", "4.2 s", "3:07", "2:00:09"]
    assert [count(n) for n in (None, 12345.4)] == ["–", "12,345"]
    assert dollars("0.005000") == "0.00"
    assert ranges((0, 1, 2, 3, 7, 9, 10)) == "0-3,7,9,10"
    assert ranges(()) == "–"
