"""A token's windows on the screen. Pure: state in, text or table out."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from swapstats_cli.token.watching import State

_COLUMNS: Final = {
    "volume_usd": "volume, USD",
    "volume_token": "volume, token",
    "trades": "trades",
    "buy_trades": "buys",
    "sell_trades": "sells",
}


def table(state: State, connection: str = "") -> Table:
    """The windows as a table. ``connection``: what is wrong with the connection, if anything."""
    title = f"{state['token']}  as of {state['as_of']}{_warning(state, connection)}"
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.caption = ", ".join(f"{name} {state[name]}" for name in ("partition", "epoch", "offset", "watermark"))
    shown.add_column("window")
    for heading in _COLUMNS.values():
        # A narrow terminal breaks a number into lines: a digit that is cut off would be a lie.
        shown.add_column(heading, justify="right", overflow="fold")
    for name, window in state["windows"].items():
        shown.add_row(f"{name}{_not_whole(state, window)}", *(_grouped(str(window[column])) for column in _COLUMNS))
    return shown


def line(state: State) -> str:
    """The windows in one line, for output that isn't a terminal."""
    windows = "; ".join(
        f"{name}{_not_whole(state, window)} {window['volume_usd']} USD, {window['trades']} trades"
        for name, window in state["windows"].items()
    )
    stale = f" STALE by {state['lag_seconds']} s{_why(state)}" if state["stale"] else ""
    return f"{state['as_of']}{stale} {state['token']}: {windows}"


def _warning(state: State, connection: str) -> str:
    if connection:
        return f"  [bold red]stale: {connection}"
    return f"  [bold yellow]stale: {state['lag_seconds']} s behind{_why(state)}" if state["stale"] else ""


def _why(state: State) -> str:
    rebuilt = f", being rebuilt: {state['progress']:.0%}" if state.get("rebuilding") else ""
    return f"{rebuilt}, {state['held']}" if "held" in state else rebuilt


def _not_whole(state: State, window: State) -> str:
    return "" if window.get("complete", True) else f" (only since {state['known_since']})"


def _grouped(number: str) -> str:
    """``1234567.890`` as ``1,234,567.890``; digits stay as they are."""
    whole, dot, fraction = number.partition(".")
    return f"{int(whole):,}{dot}{fraction}"
