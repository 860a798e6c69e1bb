"""From what a user asked to the records to send and their pace. Pure: file contents and the clock are arguments."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from swapstats_cli.options import Format, GenerateOptions, ImportOptions, NoiseOptions
from swapstats_cli.produce.event import Event, encode
from swapstats_cli.produce.generate import GeneratorConfig, generate
from swapstats_cli.produce.importers import jsonl
from swapstats_cli.produce.importers.fault import ImportFault, Rules, checked
from swapstats_cli.produce.importers.formats import check_options, imported_from, unpacked
from swapstats_cli.produce.importers.imported import ByReason
from swapstats_cli.produce.importers.shift import shifted_to_now
from swapstats_cli.produce.noise import NOISE_OF_A_BAD_DAY, Noise, Transmission, add_noise, as_recorded, blocks_of
from swapstats_cli.produce.sending import Outgoing, Pace

_NOMINAL_RATE: Final = 1_000.0
"""Records per second of stream time when they are sent as fast as possible."""
_NOISY_STREAM: Final = Noise(duplicates=0.05, late=0.05, reorgs=0.02)
"""What ``--noise`` does to a generated stream."""
_BEYOND_GRACE: Final = 0.1
"""Share of a generated stream's late events that are later than grace; an import has none: its windows stay exact."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Records to send, when, and how many (None: without end)."""

    what: str
    records: Iterator[Outgoing]
    pace: Pace
    total: int | None
    left_out: ByReason | None = None
    """What a file holds besides."""


def generated(
    options: GenerateOptions, noise: NoiseOptions, grace_ms: int, seed: int, count: int, clock: Callable[[], int]
) -> Stream:
    """A generated stream; ``clock`` tells Unix ms. Raises ValueError naming the option that is out of range."""
    if options.span_ms is not None and options.rate:
        raise ValueError("--span is for --rate 0: with a rate, the events are of now")
    config = GeneratorConfig(
        rate=options.rate or _NOMINAL_RATE,
        tokens=options.tokens,
        noise=dataclasses.replace(_noise(noise, _NOISY_STREAM), beyond=_BEYOND_GRACE, grace_ms=grace_ms),
        chain_id=options.chain_id,
    )
    now_ms = clock()
    if options.rate:
        what = f"generating {options.rate:g} events/s of {options.tokens} tokens"
        pace, transmissions = Pace(now_ms, now_ms, 1.0), generate(config, seed, clock)
    else:
        span_ms = int(count * 1000 / _NOMINAL_RATE) if options.span_ms is None else options.span_ms
        if options.span_ms and count:
            config = dataclasses.replace(config, rate=count * 1000 / span_ms)
        what = f"generating events of {options.tokens} tokens as fast as possible"
        pace, transmissions = Pace(), generate(config, seed, clock, start_ms=now_ms - span_ms)
    return Stream(what, _limited(map(_outgoing, transmissions), count), pace, count or None)


def imported(
    options: ImportOptions,
    data: bytes,
    block_times: bytes | None,
    noise: NoiseOptions,
    grace_ms: int,
    seed: int,
    count: int,
    rules: Rules,
) -> Stream:
    """The stream of a file's content. Raises ImportFault, and ValueError naming the option that is out of range."""
    if options.speed is not None and not 0 < options.speed < math.inf:
        raise ValueError(f"--speed {options.speed:g}: write a number above 0, as in 60 for an hour in a minute")
    noisy = _noise(noise, NOISE_OF_A_BAD_DAY)
    plain = noisy == Noise() and not options.shift_to_now
    if options.raw and (options.file_format is not Format.JSONL or not plain or options.speed is not None):
        raise ImportFault(
            "--raw sends the lines of a jsonl file as they are: leave out noise, --speed and --shift-to-now"
        )
    check_options(options)
    left_out, read_as = ByReason(), None
    if options.raw:
        raw = jsonl.raw_lines(data)[: count or None]
        records = [Outgoing(0, line.token, line.value) for line in raw]
        refused = jsonl.refused(raw, rules)
        if refused.counts:
            read_as = f"{sum(refused.counts.values())} of {len(records)} lines will be dead letters: {refused}"
    elif options.file_format is Format.JSONL and plain and options.speed is None:
        lines = jsonl.parse(unpacked(data), rules)
        records = [Outgoing(0, line.event.token, line.value) for line in lines]
    else:
        of_any_time = dataclasses.replace(rules, latest_ms=sys.maxsize)
        found = imported_from(data, options, block_times, of_any_time if options.shift_to_now else rules)
        left_out, read_as = found.left_out, found.read_as
        events = found.events
        if options.shift_to_now and events:
            events = shifted_to_now(events, rules.latest_ms)
            checked(min(events, key=attrgetter("event_time")), "the oldest event, moved by --shift-to-now", rules)
        in_time = options.speed is not None
        records = [_outgoing(sent) for sent in _transmissions(events, noisy, grace_ms, seed, in_time=in_time)]
    records = records[: count or None]
    if not records:
        raise ImportFault(f"{options.path} holds no events: nothing to send (left out: {left_out})")
    pace = Pace() if options.speed is None else Pace(records[0].at_ms, rules.latest_ms, options.speed)
    what = f"importing {options.path.name}" + (f": {read_as}" if read_as else "")
    return Stream(what, iter(records), pace, len(records), left_out)


def _transmissions(
    events: list[Event], noise: Noise, grace_ms: int, seed: int, *, in_time: bool
) -> Iterable[Transmission]:
    """Events with their noise. A file without noise keeps its order, unless its events are wanted in their time's."""
    if noise == Noise() and not in_time:
        return map(as_recorded, events)
    if noise.reorgs and any(event.revision is not None for event in events):
        raise ImportFault(
            "the file's records have a revision, which invented reorganisations would contradict: "
            "leave out --noise and --reorgs"
        )
    return add_noise(blocks_of(events), dataclasses.replace(noise, grace_ms=grace_ms), seed)


def _noise(options: NoiseOptions, preset: Noise) -> Noise:
    noise = preset if options.preset else Noise()
    return dataclasses.replace(
        noise,
        duplicates=noise.duplicates if options.duplicates is None else options.duplicates,
        late=noise.late if options.late is None else options.late,
        reorgs=noise.reorgs if options.reorgs is None else options.reorgs,
    )


def _outgoing(transmission: Transmission) -> Outgoing:
    event = transmission.event
    return Outgoing(transmission.at_ms, event.token, encode(event), transmission.kind, transmission.late)


def _limited(records: Iterator[Outgoing], count: int) -> Iterator[Outgoing]:
    return itertools.islice(records, count) if count else records
