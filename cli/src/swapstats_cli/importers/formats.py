"""One way into all formats."""

from __future__ import annotations

from typing import assert_never

from swapstats_cli.event import Event
from swapstats_cli.importers import eth_getlogs, jsonl, uniswap_v3_pool_csv
from swapstats_cli.importers.fault import ImportFault
from swapstats_cli.options import Format, ImportOptions


def events_of(data: bytes, options: ImportOptions, block_times: bytes | None, latest_ms: int) -> list[Event]:
    """The events in a file's content, in its order. Raises ImportFault.

    ``latest_ms``: the time (Unix ms) after which, plus a minute, an event counts as one from the future.
    """
    match options.file_format:
        case Format.JSONL:
            return [line.event for line in jsonl.parse(data, latest_ms=latest_ms)]
        case Format.UNISWAP_V3_POOL_CSV:
            return uniswap_v3_pool_csv.parse(_text(data), token=_token(options), chain_id=options.chain_id)
        case Format.ETH_GETLOGS:
            pool = eth_getlogs.Pool(
                _token(options), options.token_side, options.decimals0, options.decimals1, options.chain_id
            )
            times = {} if block_times is None else eth_getlogs.parse_block_times(block_times)
            return eth_getlogs.parse(data, pool, times)
    assert_never(options.file_format)


def _token(options: ImportOptions) -> str:
    if options.token is None:
        raise ImportFault(f"{options.file_format} doesn't name its token: say which with --token, as in --token WETH")
    return options.token


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ImportFault(f"not UTF-8 at byte {error.start}: convert the file to UTF-8") from None
