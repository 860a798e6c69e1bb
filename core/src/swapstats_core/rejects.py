"""Why a record can't be counted, and what to do about it: the closed list (``docs/events.md`` has it for people)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Reason(StrEnum):
    """Why a record can't be counted; the label of ``shard_dead_letters_total`` and the header of the dead letter."""

    EMPTY = "empty"
    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    BAD_AMOUNT = "bad_amount"
    TRADE_TOO_LARGE = "trade_too_large"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    BAD_ID = "bad_id"
    BAD_TOKEN = "bad_token"
    WRONG_PARTITION = "wrong_partition"
    CONFLICTING_EVENT = "conflicting_event"
    CONFLICTING_REMOVAL = "conflicting_removal"
    READDED = "readded"
    SKIPPED = "skipped"


REMEDIES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.EMPTY: "Send one JSON object as the value of each record; a record without a value says nothing.",
        Reason.MALFORMED_JSON: "Send exactly one JSON object in UTF-8 per record, with nothing before or after it.",
        Reason.MISSING_FIELD: "Send every required field: chain_id, tx_hash, log_index, token, side, amount_token, "
        "amount_usd and event_time.",
        Reason.UNKNOWN_FIELD: "Rename the field as the detail says: its name differs from a known one only in case or "
        "separators, and under the wrong name it would be ignored.",
        Reason.WRONG_TYPE: "Send the field that the detail names in one of the forms that docs/events.md lists.",
        Reason.BAD_AMOUNT: "Send the amount as a decimal number that is not negative, fits its column and has at most "
        "128 characters; where source.amounts is refuse, round it to 6 (USD) or 18 (token) digits first.",
        Reason.TRADE_TOO_LARGE: "Check the price that the producer used; if such trades are real, raise "
        "limits.maxTradeUsd in the resource, and send the record again.",
        Reason.BAD_TIME: "Send event_time as RFC 3339 with a zone or as Unix milliseconds, from 2015 to 2099.",
        Reason.FUTURE_TIME: "Set the producer's clock: event_time may be at most 60 seconds ahead of the record's "
        "timestamp.",
        Reason.BAD_ID: "Send the transaction's hash and the block's hash as the chain writes them, and leave event_id "
        "out or make it <chain_id>:<tx_hash>:<log_index> of the same record.",
        Reason.BAD_TOKEN: "Name the token by 1 to 128 characters without blanks or control characters.",
        Reason.WRONG_PARTITION: "Key each record by its token, and use Kafka's default partitioner (murmur2).",
        Reason.CONFLICTING_EVENT: "Find out which of the two records is right. The first still counts: this one is "
        "about the same event and either names the same block with another time, amount or side, or came later than "
        "source.reorgHorizon. To correct what counts, send a higher revision within that time.",
        Reason.CONFLICTING_REMOVAL: "Send the removal with the time, amounts and side of its add, or earlier: within "
        "source.reorgHorizon it needs only to name the event.",
        Reason.READDED: "Send revision, higher for what is said later about the event: without it an add that comes "
        "after its own removal may be a late repeat or a block that came back, so it isn't counted.",
        Reason.SKIPPED: "Nothing more is to be done: source.skip in the resource names this record, and so it counts "
        "nowhere. To have its swap counted after all, send it once more with its right event_time.",
    }
)
"""What to do about each reason: one sentence or two for whoever runs the producer, in every dead letter's header."""


class Reject(Exception):
    """A record that can't be a swap; ``detail`` names the field and the remedy."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
