"""A swap as it arrives: decoding and validating one record of the raw topic (``docs/events.md``).

An `Inlet` turns a record's value into a `Swap` or raises `Reject` with a reason for the dead-letter topic. Amounts
become integers here and stay integers: USD in 10^-6 (micros), tokens in 10^-18 (atto). This is the hot path of
every shard: about two and a half microseconds a record.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from swapstats_core import spelling
from swapstats_core.amounts import (
    TOKEN,
    TOKEN_DIGITS,
    TOKEN_LIMIT,
    USD,
    USD_DIGITS,
    USD_LIMIT,
    Scale,
    format_token,
    format_usd,
    refuse_rounding,
)
from swapstats_core.event_time import event_time_ms
from swapstats_core.noted import Noted
from swapstats_core.record import NESTING_LIMIT, UNUSUAL, Record, check_nesting, decode_usual, read_slowly, tidy
from swapstats_core.rejects import REMEDIES, Reason, Reject
from swapstats_core.spec import SwapStatsSpec
from swapstats_core.spelling import HASH_CHARACTERS, canonical_block_hash, canonical_tx_hash

__all__ = [
    "FUTURE_MS",
    "REMEDIES",
    "TOKEN_DIGITS",
    "TOKEN_LIMIT",
    "USD_DIGITS",
    "USD_LIMIT",
    "Inlet",
    "Noted",
    "Reason",
    "Record",
    "RecordedSwap",
    "Reject",
    "Swap",
    "decode",
    "decode_recorded",
    "event_time_ms",
    "format_token",
    "format_usd",
]

FUTURE_MS: Final = 60_000
"""How far an event may be ahead of its record's timestamp."""

_VERSION: Final = 3
"""Of what is decided here: raise it when a record is decided otherwise than before."""
_HEX_DIGITS: Final = b"0123456789abcdef"
_TOKEN: Final = re.compile(r"[^\s\x00-\x20\x7f-\xa0\ud800-\udfff]{1,128}")


class Swap(msgspec.Struct, gc=False, frozen=True):
    """One valid record about an event: that it happened, or (``removed``) that it was undone.

    ``event`` is what counts once: event id and token, separated by a blank. The token is part of it so that results
    never depend on which tokens share a partition. ``block_hash`` (normalised) and ``block_number`` name the inclusion,
    as far as the producer tells; ``revision`` says which of two records about an event was said later.
    """

    token: str
    event_ms: int
    usd_micros: int
    token_atto: int
    is_buy: bool
    removed: bool
    event: str
    chain_id: int
    block_hash: str | None
    block_number: int | None
    revision: int | None

    @property
    def event_id(self) -> str:
        """``<chain_id>:<tx_hash>:<log_index>``, the hash normalised."""
        return self.event.partition(" ")[0]


class RecordedSwap(Swap, gc=False, frozen=True):
    """A swap together with all its record says, for who stores it."""

    record: Record


class Inlet:
    """Decides which records are swaps, by the resource's rules; everyone who reads the topic must use the same.

    ``noted`` is an account of what was read, not a part of the decision.
    """

    __slots__ = ("_most_usd_micros", "_read_token", "_read_usd", "_rounds", "noted")

    def __init__(self, *, rounds: bool = True, most_usd_micros: int | None = None) -> None:
        self._rounds = rounds
        on_rounded = self._note_rounded if rounds else refuse_rounding
        self._read_usd, self._read_token = USD.reader(on_rounded), TOKEN.reader(on_rounded)
        self._most_usd_micros = USD_LIMIT if most_usd_micros is None else most_usd_micros
        self.noted = Noted()

    @classmethod
    def of(cls, spec: SwapStatsSpec) -> Inlet:
        """The inlet of a resource."""
        return cls(rounds=spec.source.amounts == "round", most_usd_micros=spec.limits.max_trade_usd)

    @property
    def rules(self) -> str:
        """What two readers of a topic must have in common to decide alike."""
        return f"{_VERSION}/{'round' if self._rounds else 'refuse'}/{self._most_usd_micros}"

    def take_noted(self) -> Noted:
        """What was noted since the last time."""
        noted, self.noted = self.noted, Noted()
        return noted

    def decode(self, value: bytes | None, record_ms: int) -> Swap:
        """The swap in a record's value; ``record_ms`` is the record's timestamp.

        Raises Reject. Checks everything that can be seen from the record alone (see `Reason`). Keeping the rest of the
        record (`decode_recorded`) would cost a shard an eighth of its time.
        """
        if value and len(value) > NESTING_LIMIT:
            check_nesting(value)
        try:
            record = decode_usual(value)  # type: ignore[arg-type] # None is among what the handler sorts out
        except UNUSUAL:
            return self._interpret(read_slowly(value, self.noted), record_ms)
        return self._interpret(record, record_ms)

    def decode_recorded(self, value: bytes | None, record_ms: int) -> RecordedSwap:
        """`decode`, with the record."""
        if value and len(value) > NESTING_LIMIT:
            check_nesting(value)
        try:
            record: Record = decode_usual(value)  # type: ignore[arg-type] # likewise
        except UNUSUAL:
            record = read_slowly(value, self.noted)
        swap = self._interpret(record, record_ms)
        record.tx_hash, record.block_hash = swap.event.split(":", 2)[1], swap.block_hash
        record.event_id = swap.event_id if record.event_id else None
        record.amount_usd, record.amount_token = str(record.amount_usd), str(record.amount_token)
        tidy(record, self.noted)
        return RecordedSwap(*msgspec.structs.astuple(swap), record)  # type: ignore[call-arg] # all of Swap's, in order

    def _interpret(self, record: Record, record_ms: int) -> Swap:
        usd_micros = self._read_usd(record.amount_usd)
        token_atto = self._read_token(record.amount_token)
        removed = record.removed
        if usd_micros > self._most_usd_micros and not removed:  # a removal must find what was counted before the limit
            raise self._too_large(usd_micros)
        event_ms = event_time_ms(record.event_time)
        if event_ms > record_ms + FUTURE_MS:
            raise Reject(
                Reason.FUTURE_TIME,
                f"event_time is {event_ms - record_ms} ms ahead of the record's timestamp (limit 60 s)",
            )
        token = record.token
        _check_token(token)
        tx_hash = record.tx_hash
        if tx_hash.encode().translate(None, _HEX_DIGITS) != b"x" or len(tx_hash) > HASH_CHARACTERS:
            tx_hash = canonical_tx_hash(tx_hash)  # not in lower-case hex, as nearly all are
        chain_id = record.chain_id
        swap = Swap(
            token,
            event_ms,
            usd_micros,
            token_atto,
            record.side == "buy",
            removed,
            f"{chain_id}:{tx_hash}:{record.log_index} {token}",
            chain_id,
            canonical_block_hash(record.block_hash),
            record.block_number,
            record.revision,
        )
        if record.event_id is not None:
            _check_event_id(record.event_id, swap.event_id)
        return swap

    def _note_rounded(self, _: Scale) -> None:
        self.noted.rounded_amounts += 1

    def _too_large(self, usd_micros: int) -> Reject:
        return Reject(
            Reason.TRADE_TOO_LARGE,
            f"amount_usd: {format_usd(usd_micros)} is above limits.maxTradeUsd, {format_usd(self._most_usd_micros)}",
        )


@lru_cache(maxsize=1 << 16)  # of good ones only: what raises isn't kept
def _check_token(token: str) -> None:
    if _TOKEN.fullmatch(token) is None:
        raise Reject(Reason.BAD_TOKEN, "token: 1 to 128 characters, no blanks or control characters")


def _check_event_id(stated: str, event_id: str) -> None:
    if stated and not spelling.is_event_id(stated, event_id):
        raise Reject(Reason.BAD_ID, f"event_id {stated[:160]!r} disagrees with {event_id!r}: omit it or fix it")


_PLAIN: Final = Inlet()
decode = _PLAIN.decode
"""`Inlet.decode` by the rules of a resource that says nothing about them."""
decode_recorded = _PLAIN.decode_recorded
"""Likewise."""
