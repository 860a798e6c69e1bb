"""Swap logs of a Uniswap v3 pool, as an Ethereum node's ``eth_getLogs`` returns them.

Input: the JSON array of logs, or the whole JSON-RPC reply. The pool's ``Swap`` event (Uniswap v3 core,
``IUniswapV3PoolEvents``) has in ``data`` five words of 32 bytes: ``int256 amount0, int256 amount1, uint160
sqrtPriceX96, uint128 liquidity, int24 tick``; ``topics`` are its signature's hash, sender and recipient. Logs of other
events are left out, and those of other pools than the one that is asked for: tokens and digits are a pool's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers.block_times import NO_TIMES, time_ms
from swapstats_cli.produce.importers.fault import ANY_TIME, ImportFault, Rules, checked
from swapstats_cli.produce.importers.imported import ByReason, Imported
from swapstats_cli.produce.importers.pool import Layout, Pool

SWAP_TOPIC: Final = "0xc42079f94a6350d7e6235f29174924f928cc2ac818eb64fed8004e115fbcca67"
"""keccak256 of ``Swap(address,address,int256,int256,uint160,uint128,int24)``."""
_OTHER_EVENTS: Final = {
    "0xd78ad95fa46c994b6551d0da85fc275fe613ce37657fb8d5e3d130840159d822": "swaps of Uniswap v2",
    "0x40e9cecb9f5f1f1c5b9c97dec2917b7ee92e57ba5563708daca94dd84ad7112f": "swaps of Uniswap v4",
    "0x19b47279256b2a23a1665c810c8d55a1758940ee09377d4f8d26497a3577dc83": "swaps of PancakeSwap v3",
    "0x7a53080ba414158be7ec69b987b5fb7d07dee101fe85488f0853ae16239d0bde": "Mint events",
    "0x0c396cd989a39f4459b5fa1aed6a9a8dcdbc45908acfd67e028cd568da98982c": "Burn events",
    "0x70935338e69775456a85ddef226c395fb668b63fa0115f5f20610b388e6ca9c0": "Collect events",
    "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef": "Transfer events",
}
"""What the first topic of other logs says. Their amounts are laid out otherwise, or aren't a swap's."""

_WORD: Final = 64
_DATA: Final = re.compile(rf"0x[0-9a-fA-F]{{{5 * _WORD}}}")
_HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_POOLS_NAMED: Final = 5
_AS_RETURNED: Final = "give the log objects as eth_getLogs returns them for mined blocks"


class _AnyLog(msgspec.Struct):
    topics: list[str]


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
class Wanted:
    """What a log doesn't say about its pool."""

    token: str
    """Name of the token that is counted."""
    chain_id: int = 1
    layout: Layout | None = None
    """None: it is assumed, see `pool.Pool`."""
    pool: str | None = None
    """Its address; None: that of the file's swaps, if they are all of one pool."""

    def __post_init__(self) -> None:
        if self.pool is not None and _ADDRESS.fullmatch(self.pool) is None:
            raise ImportFault(f"--pool: {self.pool[:60]!r} is no address: write 0x and 40 hexadecimal digits")


def parse(text: str, wanted: Wanted, block_times_ms: Mapping[int, int] = NO_TIMES, rules: Rules = ANY_TIME) -> Imported:
    """The swaps in the order of the file. ``block_times_ms``: Unix ms by block number, for logs without a timestamp.

    Raises ImportFault.
    """
    logs, left_out = _logs(text), ByReason()
    swaps = _swaps(logs, left_out)
    if logs and not swaps:
        raise ImportFault(
            f"none of the {len(logs)} logs is a swap of Uniswap v3 (topics[0] must be {SWAP_TOPIC}): found {left_out}"
        )
    address = _pool_address([log.address.lower() for _, log in swaps], wanted.pool)
    pool = Pool(wanted.layout)
    events: list[Event] = []
    for place, log in swaps:
        if log.address.lower() != address:
            left_out.count("swaps of other pools", place)
            continue
        event = _event(log, place, wanted, pool, block_times_ms)
        if event is None:
            left_out.count("swaps of 0 for 0", place)
        else:
            events.append(checked(event, place, rules))
    return Imported(events, left_out, pool.read_as())


def _logs(text: str) -> list[msgspec.Raw]:
    try:
        if text.lstrip()[:1] == "[":
            return msgspec.json.decode(text, type=list[msgspec.Raw])
        reply = msgspec.json.decode(text, type=_Reply)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ImportFault(f"not a JSON array of logs or a JSON-RPC reply: {error}") from None
    if reply.result is None:
        said = "" if reply.error is None else f"; the node said {ascii(reply.error)[:200]}"
        raise ImportFault(f"the JSON-RPC reply has no result: save a successful reply of eth_getLogs{said}")
    return reply.result


def _swaps(logs: Sequence[msgspec.Raw], left_out: ByReason) -> list[tuple[str, _Log]]:
    """The logs of Uniswap v3 swaps of any pool, with their places."""
    swaps = []
    for i, raw in enumerate(logs):
        place = f"log {i}"
        try:
            topics = msgspec.json.decode(raw, type=_AnyLog).topics
            event = topics[0].lower() if topics else ""
            if event == SWAP_TOPIC:
                swaps.append((place, _formed(msgspec.json.decode(raw, type=_Log), place)))
            else:
                left_out.count(
                    _OTHER_EVENTS.get(event) or f"events {ascii(event)[1:-1][:10] or 'without topics'}", place
                )
        except (msgspec.DecodeError, RecursionError) as error:
            raise ImportFault(f"{place}: {error}: {_AS_RETURNED}") from None
    return swaps


def _formed(log: _Log, place: str) -> _Log:
    """``log``, if its parts have the forms that a node writes."""
    for field, text, form, meaning in (
        ("address", log.address, _ADDRESS, "an address (0x and 40 hexadecimal digits)"),
        ("data", log.data, _DATA, f"0x and {5 * _WORD} hexadecimal digits (five words)"),
        ("transactionHash", log.transaction_hash, _HASH, "0x and 64 hexadecimal digits"),
        ("blockHash", log.block_hash, _HASH, "0x and 64 hexadecimal digits"),
        ("blockNumber", log.block_number, _QUANTITY, "a hexadecimal quantity such as 0x120f5a6"),
        ("logIndex", log.log_index, _QUANTITY, "a hexadecimal quantity such as 0x7"),
    ):
        if text is not None and form.fullmatch(text) is None:
            raise ImportFault(f"{place}: {field} is {text[:40]!r}, not {meaning}: {_AS_RETURNED}")
    if len(log.topics) != 3 or not all(map(_HASH.fullmatch, log.topics)):
        raise ImportFault(f"{place}: topics must be three words of 0x and 64 hexadecimal digits: {_AS_RETURNED}")
    return log


def _pool_address(addresses: Sequence[str], wanted: str | None) -> str:
    """Which pool's swaps are imported, in lower case."""
    pools = Counter(addresses)
    named = ", ".join(f"{address} ({count})" for address, count in pools.most_common(_POOLS_NAMED))
    found = f"{named}{' and others' if len(pools) > _POOLS_NAMED else ''}"
    if wanted is None and len(pools) > 1:
        raise ImportFault(f"swaps of {len(pools)} pools, whose tokens differ: say which with --pool; found {found}")
    if wanted is not None and pools and wanted.lower() not in pools:
        raise ImportFault(f"--pool: no swap of {wanted.lower()}; found {found}")
    return next(iter(pools), "") if wanted is None else wanted.lower()


def _event(log: _Log, place: str, wanted: Wanted, pool: Pool, block_times_ms: Mapping[int, int]) -> Event | None:
    words = (int(log.data[2 + i * _WORD : 2 + (i + 1) * _WORD], 16) for i in (0, 1))
    amount0, amount1 = (word - (1 << 256) if word >> 255 else word for word in words)
    trade = pool.trade(amount0, amount1, place)
    if trade is None:
        return None
    number = int(log.block_number, 16)
    if log.block_timestamp is not None:
        event_ms = time_ms(log.block_timestamp, f"{place}: blockTimestamp")
    elif number in block_times_ms:
        event_ms = block_times_ms[number]
    else:
        raise ImportFault(
            f"{place}: blockTimestamp is absent and block {number} isn't in the block times: "
            'add it to the file of --block-times, as {"' + str(number) + '": <Unix seconds>}'
        )
    return Event(
        wanted.chain_id,
        log.transaction_hash,
        int(log.log_index, 16),
        wanted.token,
        trade.side,
        trade.amount_token,
        trade.amount_usd,
        event_ms,
        removed=log.removed,
        block_number=number,
        block_hash=log.block_hash,
        token_symbol=wanted.token,
        pool_address=log.address,
        trader=f"0x{log.topics[2][-40:]}",
    )
