"""Swap logs of a Uniswap v3 pool, as an Ethereum node's ``eth_getLogs`` returns them.

Input: the JSON array of logs, or the whole JSON-RPC reply. Logs of other events are skipped. The pool's ``Swap`` event
(Uniswap v3 core, ``IUniswapV3PoolEvents``) has in ``data`` five words of 32 bytes: ``int256 amount0, int256 amount1,
uint160 sqrtPriceX96, uint128 liquidity, int24 tick``; ``topics`` are its signature's hash, sender and recipient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from swapstats_cli.event import Event
from swapstats_cli.importers.fault import ImportFault, checked
from swapstats_core.swap import TOKEN_DIGITS, USD_DIGITS, Reject, event_time_ms, format_token, format_usd

SWAP_TOPIC = "0xc42079f94a6350d7e6235f29174924f928cc2ac818eb64fed8004e115fbcca67"
"""keccak256 of ``Swap(address,address,int256,int256,uint160,uint128,int24)``."""

_WORD = 64
_DATA = re.compile(rf"0x[0-9a-fA-F]{{{5 * _WORD}}}")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,16}")
_MAX_DECIMALS = 36


class _Log(msgspec.Struct, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    transaction_hash: str
    log_index: str
    block_hash: str | None = None
    block_timestamp: str | int | None = None
    removed: bool = False


class _Reply(msgspec.Struct):
    result: list[msgspec.Raw] | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Pool:
    """What a log doesn't say about its pool."""

    token: str
    """Name of the token that is counted."""
    token_side: Literal[0, 1]
    """Whether it is token 0 or token 1 of the pool; the other one is a US dollar stable coin, taken at par."""
    decimals0: int
    decimals1: int
    chain_id: int = 1

    def __post_init__(self) -> None:
        for name in ("decimals0", "decimals1"):
            if not 0 <= getattr(self, name) <= _MAX_DECIMALS:
                raise ImportFault(f"{name}: {getattr(self, name)} is out of range; write 0 to {_MAX_DECIMALS}")


def parse(data: bytes, pool: Pool, block_times_ms: Mapping[int, int]) -> list[Event]:
    """The swaps in the order of the file. ``block_times_ms``: Unix ms by block number, for logs without a timestamp.

    Digits of the stable coin beyond 10^-6 are cut off; digits of the token beyond 10^-18 are a fault.
    Raises ImportFault.
    """
    logs = _logs(data)
    events = []
    for i, raw in enumerate(logs):
        place = f"log {i}"
        try:
            log = msgspec.json.decode(raw, type=_Log)
        except msgspec.ValidationError as error:
            raise ImportFault(
                f"{place}: {error}: give the log objects as eth_getLogs returns them for mined blocks"
            ) from None
        if log.topics and log.topics[0].lower() == SWAP_TOPIC:
            events.append(_event(log, place, pool, block_times_ms))
    if logs and not events:
        raise ImportFault(f"none of the {len(logs)} logs is a Uniswap v3 Swap: topics[0] must be {SWAP_TOPIC}")
    return events


def parse_block_times(data: bytes) -> dict[int, int]:
    """Unix ms by block number, from a JSON object such as ``{"18937382": 1704412823}`` (keys decimal or 0x…).

    Values are Unix *seconds* or RFC 3339 texts. Raises ImportFault.
    """
    try:
        times = msgspec.json.decode(data, type=dict[str, int | str])
    except msgspec.DecodeError as error:
        raise ImportFault(f'block times: {error}: write one object such as {{"18937382": 1704412823}}') from None
    try:
        return {int(block, 0): _time_ms(time, f"block times, block {block}") for block, time in times.items()}
    except ValueError as error:
        raise ImportFault(f"block times: {error}: write block numbers as 18937382 or 0x120f5a6") from None


def _logs(data: bytes) -> list[msgspec.Raw]:
    try:
        if data.lstrip()[:1] == b"[":
            return msgspec.json.decode(data, type=list[msgspec.Raw])
        reply = msgspec.json.decode(data, type=_Reply)
    except msgspec.DecodeError as error:
        raise ImportFault(f"not a JSON array of logs or a JSON-RPC reply: {error}") from None
    if reply.result is None:
        said = "" if reply.error is None else f"; the node said {str(reply.error)[:200]}"
        raise ImportFault(f"the JSON-RPC reply has no result: save a successful reply of eth_getLogs{said}")
    return reply.result


def _event(log: _Log, place: str, pool: Pool, block_times_ms: Mapping[int, int]) -> Event:
    if _DATA.fullmatch(log.data) is None:
        raise ImportFault(
            f"{place}: data must be 0x and {5 * _WORD} hexadecimal digits (five words), as in the node's reply"
        )
    words = [int(log.data[2 + i * _WORD : 2 + (i + 1) * _WORD], 16) for i in (0, 1)]
    amounts = [word - (1 << 256) if word >> 255 else word for word in words]
    token, usd = amounts[pool.token_side], amounts[1 - pool.token_side]
    decimals = (pool.decimals0, pool.decimals1)
    token_atto, rest = divmod(abs(token) * 10**TOKEN_DIGITS, 10 ** decimals[pool.token_side])
    if rest:
        raise ImportFault(f"{place}: data: the token's amount has more than {TOKEN_DIGITS} digits after the point")
    usd_micros = abs(usd) * 10**USD_DIGITS // 10 ** decimals[1 - pool.token_side]
    number = _quantity(log.block_number, place, "blockNumber")
    if log.block_timestamp is not None:
        time_ms = _time_ms(log.block_timestamp, f"{place}: blockTimestamp")
    elif number in block_times_ms:
        time_ms = block_times_ms[number]
    else:
        raise ImportFault(
            f"{place}: blockTimestamp is absent and block {number} isn't in the block times: "
            'add it to the file of --block-times, as {"' + str(number) + '": <Unix seconds>}'
        )
    event = Event(
        pool.chain_id,
        log.transaction_hash,
        _quantity(log.log_index, place, "logIndex"),
        pool.token,
        "buy" if token < 0 else "sell",
        format_token(token_atto),
        format_usd(usd_micros),
        time_ms,
        removed=log.removed,
        block_number=number,
        block_hash=log.block_hash,
        token_symbol=pool.token,
        pool_address=log.address,
        trader=f"0x{log.topics[2][-40:]}" if len(log.topics) > 2 else None,
    )
    return checked(event, place)


def _quantity(text: str, place: str, field: str) -> int:
    if _QUANTITY.fullmatch(text) is None:
        raise ImportFault(f"{place}: {field} is {text[:40]!r}: write a hexadecimal quantity such as 0x120f5a6")
    return int(text, 16)


def _time_ms(value: int | str, what: str) -> int:
    """Unix ms of Unix seconds (number, decimal or 0x text) or of an RFC 3339 text."""
    if isinstance(value, int):
        return _bounded(value * 1000, what)
    if _QUANTITY.fullmatch(value) or (value.isascii() and value.isdigit()):
        return _bounded(int(value[:20], 0 if value.startswith("0x") else 10) * 1000, what)
    return _bounded(value, what)


def _bounded(time: int | str, what: str) -> int:
    try:
        return event_time_ms(time)
    except Reject:
        raise ImportFault(f"{what}: {time!r} is no time: write Unix seconds or RFC 3339 in UTC") from None
