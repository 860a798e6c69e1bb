"""The view on a terminal, drawn by rich. Pure: a frozen view in, a renderable out."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from swapstats_cli.live.model import LiveView, health
from swapstats_cli.supervisor.journal import Saying, Tone
from swapstats_cli.supervisor.part import PartState, PartStatus
from swapstats_core.readable import count, dollars, ranges, seconds

STATE_STYLES: Final = {
    PartState.WAITING: "dim",
    PartState.STARTING: "yellow",
    PartState.READY: "green",
    PartState.DOWN: "bold red",
    PartState.STOPPING: "yellow",
    PartState.STOPPED: "dim",
}
HEADLINE_LINES: Final = 4
TONE_STYLES: Final = {Tone.INFO: "", Tone.GOOD: "green", Tone.WARNING: "yellow"}


def starting_screen(parts: tuple[PartStatus, ...], spinners: dict[str, Spinner], now_s: float) -> RenderableType:
    """One line per part: what it is doing and for how long. ``spinners`` turn, so they live outside of a drawing."""
    grid = Table.grid(padding=(0, 2))
    for part in parts:
        busy = part.state is PartState.STARTING
        mark: RenderableType = spinners[part.name] if busy else Text("✓" if part.state is PartState.READY else "·")
        took = part.took_s if part.state is PartState.READY else now_s - part.since_s
        grid.add_row(
            mark,
            Text(part.name, style="bold"),
            Text(part.state, style=STATE_STYLES[part.state]),
            Text(seconds(took), style="dim"),
            Text(part.address, style="cyan" if part.state is PartState.READY else "dim"),
        )
    ready = sum(part.state is PartState.READY for part in parts)
    return Group(Text(f"Starting: {ready} of {len(parts)} ready", style="bold"), grid)


def live_screen(view: LiveView, height: int) -> RenderableType:
    """The whole screen. Of the top tokens and of what was said it shows what fits into ``height`` lines."""
    left = height - HEADLINE_LINES - _lines(len(view.shards)) - _lines(len(view.parts) - len(view.shards))
    sayings = min(len(view.sayings), max(1, left // 3))
    tokens = left - sayings - _lines(0)
    blocks: list[RenderableType] = [_shards(view), _addresses(view), _sayings(view, sayings)]
    if tokens > 0:
        blocks.insert(1, _top(view, tokens))
    return Group(_headline(view), *(line for block in blocks for line in (block, "")))


def said(saying: Saying) -> Text:
    """A saying as a line."""
    return Text.assemble((f"{saying.at:%H:%M:%S} ", "dim"), (saying.text, TONE_STYLES[saying.tone]))


def _headline(view: LiveView) -> RenderableType:
    state = health(view)
    age_ms = None if view.reading is None else view.reading.snapshot_age_ms()
    figures = Text("   ").join(
        [
            _figure("events/s", count(view.rate)),
            _figure("lag", count(None if view.reading is None else view.reading.lag)),
            _figure("tokens", count(None if view.reading is None else view.reading.tokens)),
            _figure("snapshot age", seconds(None if age_ms is None else age_ms / 1000)),
            _figure("restarts", str(view.restarts)),
        ]
    )
    status = Text(state, style="green" if state == "current" else "yellow")
    if view.problem is not None and view.reading is not None:
        status.append(f" (numbers are {seconds(view.reading_age_s)} old)", style="red")
    status.append_text(_figure("   first live number after", seconds(view.first_number_after_s)))
    title = f"swapstats dev: {view.title}, up {seconds(view.uptime_s)}"
    return Panel(Group(figures, status), title=title, title_align="left", subtitle="Ctrl-C stops")


def _figure(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, "bold"))


def _shards(view: LiveView) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("shard", "state", "pid"):
        table.add_column(column)
    table.add_column("partitions", max_width=32, no_wrap=True)
    table.add_column("warming up", max_width=16, no_wrap=True)
    for column in ("epochs", "lag", "snapshot age", "restarts"):
        table.add_column(column, justify="right")
    for shard in view.shards:
        age_ms = shard.snapshot_age_ms
        behind = shard.status.state is PartState.READY and shard.partitions and not shard.current
        table.add_row(
            shard.status.name,
            Text("catching up", style="yellow") if behind else _state(shard.status),
            str(shard.status.pid or "–"),
            ranges(shard.partitions),
            ranges(shard.warming),
            "–" if shard.epochs is None else "–".join(map(str, sorted(set(shard.epochs)))),
            count(shard.lag),
            seconds(None if age_ms is None else age_ms / 1000),
            str(shard.status.restarts),
        )
    return table


def _top(view: LiveView, rows: int) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(f"top tokens, last {view.window}", max_width=30, no_wrap=True)
    for column in ("volume USD", "trades", "buys", "sells"):
        table.add_column(column, justify="right")
    for token in () if view.reading is None else view.reading.top[:rows]:
        table.add_row(
            Text(token.token),
            dollars(token.volume_usd),
            count(token.trades),
            count(token.buy_trades),
            count(token.sell_trades),
        )
    return table


def _lines(rows: int) -> int:
    return rows + 2  # a table's header, and the empty line after it


def _addresses(view: LiveView) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("part", "state", "pid", "address", "restarts"):
        table.add_column(column)
    shards = {shard.status.name for shard in view.shards}
    for part in view.parts:
        if part.name not in shards:
            table.add_row(
                part.name, _state(part), str(part.pid or "–"), Text(part.address, style="cyan"), str(part.restarts)
            )
    return table


def _sayings(view: LiveView, lines: int) -> RenderableType:
    return Group(*(said(saying) for saying in view.sayings[-lines:]))


def _state(part: PartStatus) -> Text:
    return Text(part.state, style=STATE_STYLES[part.state])
