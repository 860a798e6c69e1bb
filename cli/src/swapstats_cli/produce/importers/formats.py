"""One way into all formats."""

from __future__ import annotations

from typing import Final, assert_never

from swapstats_cli.options import Format, ImportOptions
from swapstats_cli.produce.event import Event
from swapstats_cli.produce.importers import eth_getlogs, jsonl, uniswap_v3_pool_csv
from swapstats_cli.produce.importers.block_times import NO_TIMES, parse_block_times
from swapstats_cli.produce.importers.fault import ImportFault, Rules, checked
from swapstats_cli.produce.importers.imported import Imported
from swapstats_cli.produce.importers.pool import Layout
from swapstats_core.swap import Inlet

_ONLY_FOR_POOLS: Final = (Format.UNISWAP_V3_POOL_CSV, Format.ETH_GETLOGS)
_APPLIES_TO: Final[dict[str, tuple[tuple[Format, ...], str]]] = {
    "token": (_ONLY_FOR_POOLS, "each line names its token"),
    "chain_id": (_ONLY_FOR_POOLS, "each line names its chain"),
    "token_side": (_ONLY_FOR_POOLS, "each line's amounts are decimal numbers of what it names"),
    "decimals0": (_ONLY_FOR_POOLS, "each line's amounts are decimal numbers"),
    "decimals1": (_ONLY_FOR_POOLS, "each line's amounts are decimal numbers"),
    "pool": ((Format.ETH_GETLOGS,), "only logs name their pool"),
    "block_times": ((Format.ETH_GETLOGS,), "each event of the file has its time"),
}
"""Options that not every format has a use for, and why."""
_ANY_TIME_MS: Final = 1_767_614_431_200
_BOM: Final = b"\xef\xbb\xbf"
_PACKED: Final = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


def imported_from(data: bytes, options: ImportOptions, block_times: bytes | None, rules: Rules) -> Imported:
    """The events in a file's content, in its order. Raises ImportFault."""
    match options.file_format:
        case Format.JSONL:
            return Imported([line.event for line in jsonl.parse(unpacked(data), rules)])
        case Format.UNISWAP_V3_POOL_CSV:
            return uniswap_v3_pool_csv.parse(
                _text(unpacked(data)),
                token=_token(options),
                chain_id=_chain_id(options),
                layout=_layout(options),
                rules=rules,
            )
        case Format.ETH_GETLOGS:
            wanted = eth_getlogs.Wanted(_token(options), _chain_id(options), _layout(options), options.pool)
            times = NO_TIMES if block_times is None else parse_block_times(unpacked(block_times))
            return eth_getlogs.parse(_text(unpacked(data)), wanted, times, rules)
    assert_never(options.file_format)


def check_options(options: ImportOptions) -> None:
    """Raises ImportFault for an option that would do nothing with this format."""
    for name, (formats, why) in _APPLIES_TO.items():
        if getattr(options, name) is not None and options.file_format not in formats:
            raise ImportFault(
                f"--{name.replace('_', '-')} is not for {options.file_format}: {why}; "
                "leave it out, or say another --format"
            )


def unpacked(data: bytes) -> bytes:
    """The content without a byte-order mark. Raises ImportFault if it is compressed."""
    for magic, name in _PACKED.items():
        if data.startswith(magic):
            raise ImportFault(f"the file is compressed ({name}): unpack it first")
    return data.removeprefix(_BOM)


def _token(options: ImportOptions) -> str:
    if options.token is None:
        raise ImportFault(f"{options.file_format} doesn't name its token: say which with --token, as in --token WETH")
    checked(Event(1, "0x0", 0, options.token, "buy", "1", "1", _ANY_TIME_MS), "--token", Rules(Inlet(), _ANY_TIME_MS))
    return options.token


def _chain_id(options: ImportOptions) -> int:
    return 1 if options.chain_id is None else options.chain_id


def _layout(options: ImportOptions) -> Layout | None:
    side, decimals0, decimals1 = options.token_side, options.decimals0, options.decimals1
    if side is None and decimals0 is None and decimals1 is None:
        return None
    if side is None or decimals0 is None or decimals1 is None:
        raise ImportFault(
            "--token-side, --decimals0 and --decimals1 go together: say all three, "
            "as in --token-side 0 --decimals0 18 --decimals1 6"
        )
    return Layout(side, decimals0, decimals1)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ImportFault(f"line {line}: not UTF-8 at byte {error.start} of the file: convert it to UTF-8") from None
