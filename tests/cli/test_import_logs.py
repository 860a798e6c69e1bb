"""eth_getLogs' replies: what is read, whose pool it is, what is left out and counted, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers import eth_getlogs
from swapstats_cli.produce.importers.block_times import parse_block_times
from swapstats_cli.produce.importers.eth_getlogs import SWAP_TOPIC, Wanted
from swapstats_cli.produce.importers.fault import ImportFault, Rules
from swapstats_cli.produce.importers.imported import Imported
from swapstats_cli.produce.importers.pool import Layout
from swapstats_core.swap import Inlet

USDC_WETH = "0x88e6a0c2ddd26feeb64f039a2c41296fcb3f5640"
WETH_USDC_ARBITRUM = "0xc31e54c7a869b9fcbecc14363cf510d1c41fa443"
WETH = Wanted("WETH")
BLOCK_TIMES = {18_937_382: 1_704_412_823_000}
PADDED = "0x" + "0" * 24


def data_of(amount0: int, amount1: int) -> str:
    return "0x" + "".join(f"{value % 2**256:064x}" for value in (amount0, amount1, 2**100, 5, -199_045))


def log(**changes: object) -> dict[str, Any]:
    return {
        "address": USDC_WETH,
        "topics": [SWAP_TOPIC, PADDED + "11" * 20, PADDED + "22" * 20],
        "data": data_of(-22_686_110, 10**16),
        "blockNumber": hex(18_937_382),
        "blockHash": "0x" + "ab" * 32,
        "transactionHash": "0x" + "cd" * 32,
        "logIndex": "0xa9",
        "removed": False,
    } | changes


def read(*logs: dict[str, Any], wanted: Wanted = WETH) -> Imported:
    return eth_getlogs.parse(json.dumps(logs), wanted, BLOCK_TIMES)


def test_a_log_becomes_an_event() -> None:
    (event,) = read(log()).events
    assert event == Event(
        1,
        "0x" + "cd" * 32,
        169,
        "WETH",
        "sell",
        "0.010000000000000000",
        "22.686110",
        1_704_412_823_000,
        block_number=18_937_382,
        block_hash="0x" + "ab" * 32,
        token_symbol="WETH",
        pool_address=USDC_WETH,
        trader="0x" + "22" * 20,
    )


def test_the_other_side_of_a_pool_and_other_digits() -> None:
    (event,) = read(log(removed=True), wanted=Wanted("GUSD", 5, Layout(0, 2, 18))).events
    assert (event.side, event.amount_token, event.amount_usd) == ("buy", "226861.100000000000000000", "0.010000")
    assert (event.chain_id, event.removed) == (5, True)


@pytest.mark.parametrize(
    ("amounts", "side"), [((1, 0), "buy"), ((0, -(10**18)), "buy"), ((-1, 0), "sell"), ((0, 1), "sell")]
)
def test_a_purchase_of_nothing_is_a_purchase(amounts: tuple[int, int], side: str) -> None:
    assert read(log(data=data_of(*amounts)), wanted=Wanted("WETH", layout=Layout(1, 6, 18))).events[0].side == side


def test_a_pool_that_is_not_like_usdc_and_weth_must_be_told() -> None:
    swap = log(data=data_of(-(10**18), 2_000 * 10**6))
    with pytest.raises(ImportFault, match=r"log 0: a swap of 1,000,000,000,000 USD isn't believable \(assumed: "):
        read(swap)
    (event,) = read(swap, wanted=Wanted("WETH", layout=Layout(0, 18, 6))).events
    assert (event.side, event.amount_token, event.amount_usd) == ("buy", "1.000000000000000000", "2000.000000")


def test_of_several_pools_one_must_be_named() -> None:
    other = log(address=WETH_USDC_ARBITRUM, data=data_of(10**18, -2_000 * 10**6))
    with pytest.raises(
        ImportFault, match=rf"swaps of 2 pools, .*--pool; found {USDC_WETH} \(2\), {WETH_USDC_ARBITRUM}"
    ):
        read(other, log(), log())
    with pytest.raises(ImportFault, match=r"swaps of 9 pools, .* and others"):
        read(*(log(address=f"0x{i:040x}") for i in range(9)))
    named = read(log(), other, log(), wanted=Wanted("WETH", pool=USDC_WETH.upper().replace("X", "x")))
    assert [event.pool_address for event in named] == [USDC_WETH] * 2
    assert str(named.left_out) == "swaps of other pools: 1 (first: log 1)"
    with pytest.raises(ImportFault, match=rf"--pool: no swap of 0x0+; found {USDC_WETH} \(1\)"):
        read(log(), wanted=Wanted("WETH", pool="0x" + "0" * 40))
    with pytest.raises(ImportFault, match=r"--pool: 'WETH/USDC' is no address: write 0x"):
        Wanted("WETH", pool="WETH/USDC")


def test_an_address_is_the_same_in_any_case() -> None:
    assert len(read(log(), log(address="0x" + USDC_WETH[2:].upper())).events) == 2


V2 = "0xd78ad95fa46c994b6551d0da85fc275fe613ce37657fb8d5e3d130840159d822"
PANCAKE = "0x19b47279256b2a23a1665c810c8d55a1758940ee09377d4f8d26497a3577dc83"


def test_what_is_left_out_is_counted_by_reason() -> None:
    of_no_interest = {"data": "0x", "address": "0x" + "e" * 40}
    found = read(
        log(),
        log(topics=[V2, PADDED, PADDED]),
        log(topics=[PANCAKE, PADDED, PADDED]),
        log(topics=["0x" + "1" * 64]) | of_no_interest,
        log(topics=["0x" + "1" * 64], blockNumber=None) | of_no_interest,
        log(topics=[]) | of_no_interest,
        log(data=data_of(0, 0)),
    )
    assert len(found.events) == 1
    assert found.left_out.counts == {
        "swaps of Uniswap v2": 1,
        "swaps of PancakeSwap v3": 1,
        "events 0x11111111": 2,
        "events without topics": 1,
        "swaps of 0 for 0": 1,
    }
    assert found.left_out.first["events 0x11111111"] == "log 3"


def test_block_times_come_from_the_log_or_the_file() -> None:
    for stamp in (1_704_412_900, hex(1_704_412_900), "1704412900", "2024-01-05T00:01:40Z"):
        assert read(log(blockTimestamp=stamp)).events[0].event_time == 1_704_412_900_000
    times = parse_block_times(b'{"18937382": 1704412823, "0x10": "2024-01-05T00:00:00Z"}')
    assert times == {18_937_382: 1_704_412_823_000, 16: 1_704_412_800_000}


def test_a_whole_json_rpc_reply_is_taken_too() -> None:
    reply = json.dumps({"jsonrpc": "2.0", "id": 1, "result": [log()]})
    assert eth_getlogs.parse(reply, WETH, BLOCK_TIMES).events == read(log()).events
    assert read().events == []


def test_a_swap_of_the_future_is_refused() -> None:
    logs = json.dumps([log()])
    with pytest.raises(ImportFault, match=r"log 0: event_time is .* ahead"):
        eth_getlogs.parse(logs, WETH, BLOCK_TIMES, Rules(Inlet(), 1_704_412_000_000))


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: read(log(blockNumber=hex(5))), "log 0: blockTimestamp is absent and block 5 .*--block-times"),
        (lambda: read(log(), log(data="0x12")), "log 1: data is '0x12', not 0x and 320"),
        (lambda: read(log(data=data_of(5, 7))), "log 0: amount0 and amount1 have the same sign"),
        (lambda: read(log(address="0x12")), "log 0: address is '0x12', not an address"),
        (lambda: read(log(transactionHash="0xcd")), "log 0: transactionHash is '0xcd'"),
        (lambda: read(log(blockHash="\ud800")), "not a JSON array of logs"),
        (lambda: read(log(topics=[SWAP_TOPIC])), "log 0: topics must be three words"),
        (lambda: read(log(topics=[SWAP_TOPIC, PADDED, PADDED])), "log 0: topics must be three words"),
        (lambda: read(log(topics=None)), "log 0: .*topics"),
        (lambda: read(log(blockNumber=None)), "log 0: .*blockNumber.*mined blocks"),
        (lambda: read(log(logIndex="7")), "log 0: logIndex is '7', not a hexadecimal"),
        (lambda: read(log(logIndex="0x\N{ARABIC-INDIC DIGIT ONE}")), "log 0: logIndex is '0x.'"),
        (lambda: read(log(blockTimestamp="soon")), "log 0: blockTimestamp: 'soon' is no time"),
        (lambda: read(log(blockTimestamp="1_704_412_900")), "log 0: blockTimestamp: '1_704_412_900' is no time"),
        (lambda: read(log(blockTimestamp="0" * 20 + "1704412900")), "log 0: blockTimestamp: '0000.* is no time"),
        (lambda: read(log(blockTimestamp=10**40)), "log 0: blockTimestamp: 1000.* is no time"),
        (lambda: read(log(topics=["0x00"])), "none of the 1 logs is a swap of Uniswap v3 .*: found events 0x00: 1"),
        (lambda: read(log(data=data_of(1, -(2**255)))), "log 0: amount_token"),
        (lambda: Layout(1, 6, 99), "--decimals1: 99 is out of range"),
        (lambda: eth_getlogs.parse('{"error":{"message":"limit"}}', WETH), "no result: .*limit"),
        (lambda: eth_getlogs.parse("7", WETH), "not a JSON array of logs"),
        (lambda: eth_getlogs.parse("", WETH), "not a JSON array of logs"),
        (lambda: eth_getlogs.parse(DEEP, WETH), "not a JSON array of logs"),
        (lambda: eth_getlogs.parse('{"error":' + DEEP, WETH), "not a JSON array of logs"),
        (lambda: eth_getlogs.parse("[7]", WETH), "log 0: .*mined blocks"),
        (lambda: parse_block_times(b'{"x": 1}'), "'x': write block numbers as 18937382"),
        (lambda: parse_block_times(b'{"1_0": 1704412823}'), "'1_0': write block numbers"),
        (lambda: parse_block_times('{"\N{ARABIC-INDIC DIGIT ONE}": 1704412823}'.encode()), "write block numbers"),
        (lambda: parse_block_times(b'{"7": -1}'), "block times, block 7: -1 is no time"),
        (lambda: parse_block_times(b'{"7": 1704412823000}'), "block times, block 7: 1704412823000 is no time"),
        (lambda: parse_block_times(b"[]"), "write one object"),
        (lambda: parse_block_times(DEEP.encode()), "write one object"),
        (lambda: parse_block_times(b'{"\xff": 1}'), "write one object"),
    ],
)
def test_broken_logs_are_refused_with_their_place(broken: Callable[[], object], message: str) -> None:
    with pytest.raises(ImportFault, match=message):
        broken()
