"""`swapstats produce`: a generated or a recorded stream of swaps into the raw topic."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from swapstats_cli.options import (
    Format,
    GenerateOptions,
    ImportOptions,
    NoiseOptions,
    ProduceOptions,
    TargetOptions,
)

_STREAM, _IMPORT, _TARGET = "Generated stream", "Imported stream", "Topic"


def produce(
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, help="Events/s, noise included; 0: as fast as possible. Default 1000.", rich_help_panel=_STREAM
        ),
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Different tokens. Default 500.", rich_help_panel=_STREAM)] = None,
    span: Annotated[
        str | None,
        typer.Option(
            help="With --rate 0: the time up to now that the events cover, as in 2h.", rich_help_panel=_STREAM
        ),
    ] = None,
    duplicates: Annotated[float | None, typer.Option(help="Share of records sent again, as in 0.05.")] = None,
    late: Annotated[float | None, typer.Option(help="Share of events delayed, mostly within grace.")] = None,
    reorgs: Annotated[float | None, typer.Option(help="Share of blocks undone and partly re-mined.")] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="5 % duplicates, 2 % reorgs; 5 % late, an import is wholly shuffled.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed and times give the same stream.")] = 1,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many records; 0: don't.")] = 0,
    duration: Annotated[str | None, typer.Option(help="Stop after this time, as in 30s.")] = None,
    grace: Annotated[str | None, typer.Option(help="What lateness refers to. Default: the resource's.")] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="Import this file.", dir_okay=False, rich_help_panel=_IMPORT)
    ] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Its format. Default: jsonl.", rich_help_panel=_IMPORT)
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="A pool's: the token that its swaps count for.", rich_help_panel=_IMPORT)
    ] = None,
    shift_to_now: Annotated[
        bool,
        typer.Option(
            "--shift-to-now",
            help="Move all times by whole minutes, the newest to less than a minute ago.",
            rich_help_panel=_IMPORT,
        ),
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(help="Replay at this many times real time. Default: at once.", rich_help_panel=_IMPORT),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="jsonl: send every line as it is, bad ones too.", rich_help_panel=_IMPORT)
    ] = False,
    chain_id: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Chain of the events, except of jsonl. Default 1.")
    ] = None,
    token_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1,
            help="A pool's: which of its two tokens --token is. Default: as USDC and WETH, if the price is believable.",
            rich_help_panel=_IMPORT,
        ),
    ] = None,
    decimals0: Annotated[
        int | None, typer.Option(help="A pool's: digits of token 0. All three or none.", rich_help_panel=_IMPORT)
    ] = None,
    decimals1: Annotated[int | None, typer.Option(help="A pool's: digits of token 1.", rich_help_panel=_IMPORT)] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="eth-getlogs: address, if the file has several pools.", rich_help_panel=_IMPORT),
    ] = None,
    block_times: Annotated[
        Path | None,
        typer.Option(
            help="eth-getlogs: JSON object from block number to Unix seconds.", dir_okay=False, rich_help_panel=_IMPORT
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="Resource that names it.", dir_okay=False, rich_help_panel=_TARGET),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Of a running `swapstats dev`. Default: .swapstats if present.", rich_help_panel=_TARGET),
    ] = None,
    brokers: Annotated[
        str | None, typer.Option(help="host:port, separated by commas.", rich_help_panel=_TARGET)
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Name. Default: the resource's, or raw-swaps.", rich_help_panel=_TARGET)
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="How many it must have.", rich_help_panel=_TARGET)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Send swaps to the raw topic: generated ones, or those of a file (--from).

    Ctrl-C ends the stream in order, with a summary.
    """
    try:
        what: GenerateOptions | ImportOptions
        if from_file is None:
            _refuse(
                "is for an imported file: name it with --from, or leave it out",
                format=file_format,
                token=token,
                shift_to_now=shift_to_now or None,
                speed=speed,
                raw=raw or None,
                token_side=token_side,
                decimals0=decimals0,
                decimals1=decimals1,
                pool=pool,
                block_times=block_times,
            )
            what = GenerateOptions(
                rate=1_000.0 if rate is None else rate,
                tokens=500 if tokens is None else tokens,
                span_ms=_ms(span),
                chain_id=1 if chain_id is None else chain_id,
            )
        else:
            _refuse("is for generated swaps: with --from, say how fast with --speed", rate=rate, span=span)
            _refuse("is for generated swaps: a file has its own", tokens=tokens)
            what = ImportOptions(
                path=from_file,
                file_format=file_format or Format.JSONL,
                shift_to_now=shift_to_now,
                speed=speed,
                raw=raw,
                token=token,
                chain_id=chain_id,
                token_side=cast("Literal[0, 1] | None", token_side),
                decimals0=decimals0,
                decimals1=decimals1,
                pool=pool,
                block_times=block_times,
            )
        options = ProduceOptions(
            what=what,
            target=TargetOptions(
                file=file,
                data_dir=data_dir,
                brokers=brokers,
                topic=topic,
                partitions=partitions,
            ),
            noise=NoiseOptions(preset=noise, duplicates=duplicates, late=late, reorgs=reorgs),
            seed=seed,
            count=count,
            duration_ms=_ms(duration),
            grace_ms=_ms(grace),
        )
    except ValueError as error:
        raise _failed(str(error)) from None
    _run(options, as_json=as_json)


def _refuse(why: str, **options: object) -> None:
    """Raise for the first option that was given; None: it wasn't."""
    for name, value in options.items():
        if value is not None:
            raise _failed(f"--{name.replace('_', '-')} {why}")


def _ms(duration: str | None) -> int | None:
    from swapstats_core.fields import parse_duration_ms

    return None if duration is None else parse_duration_ms(duration)


def _run(options: ProduceOptions, *, as_json: bool) -> None:
    # Imported here, so that `swapstats --help` doesn't wait for client libraries.
    from aiokafka.errors import KafkaError

    from swapstats_cli.kafka import BrokerFault
    from swapstats_cli.produce.importers.fault import ImportFault
    from swapstats_cli.produce.producing import prepare, run
    from swapstats_cli.target import TargetFault

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it retries is no news, what it raises is said below
    try:
        target, stream = prepare(options)
        summary = asyncio.run(run(options, target, stream))
    except (TargetFault, ImportFault, BrokerFault, ValueError) as error:
        raise _failed(str(error)) from None
    except OSError as error:
        raise _failed(f"{error.filename or 'a file'}: {error.strerror}") from None
    except KafkaError as error:
        raise _failed(f"the broker took no more records ({error!r}): start again when it is well") from None
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        counts = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        left_out = "" if stream.left_out is None else f"; left out: {stream.left_out}"
        typer.echo(", ".join(f"{name} {value}" for name, value in counts.items()) + left_out)


def _failed(message: str) -> typer.Exit:
    typer.echo(f"swapstats produce: {message}", err=True)
    return typer.Exit(1)
