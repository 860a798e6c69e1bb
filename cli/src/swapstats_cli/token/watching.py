"""Following one token over the API's WebSocket: messages in, states out. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

import jsonpatch
import msgspec

from swapstats_core.addresses import folded

State = dict[str, Any]
"""The API's reply for a token, as JSON."""


_PASSING: Final = ("unavailable", "overloaded")
"""Codes of errors that another try may not meet."""


class Refusal(Exception):
    """The server says no; the text is its reason."""


class Interrupted(Exception):
    """Nothing more can be learned over this connection: connect and subscribe again."""


class Heard(Enum):
    """What a message meant."""

    CHANGED = auto()
    NOTHING = auto()


class _Message(msgspec.Struct):
    type: str
    token: str | None = None
    code: str = ""
    seq: str = ""
    state: State | None = None
    patch: list[dict[str, Any]] | None = None
    detail: str = ""


_decode = msgspec.json.Decoder(_Message).decode


class Followed:
    """One token's state after all messages so far; ``state`` is None until the first one."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._seq = 0
        self.state: State | None = None

    def hear(self, message: str | bytes) -> Heard:
        """Take a message in. Raises Refusal (the server's error) and Interrupted (a patch is missing or wrong)."""
        try:
            heard = _decode(message)
            return self._take(heard)
        except (msgspec.DecodeError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, ValueError) as error:
            raise Interrupted(f"the server sent what can't be followed: {error}") from None

    def _take(self, message: _Message) -> Heard:
        if message.type == "error" and message.code in _PASSING:
            raise Interrupted(message.detail)
        if message.type == "error":
            raise Refusal(message.detail or "the server refuses without a reason")
        if message.type == "state" and message.token is not None and _is_one_address(message.token, self.token):
            self.token = message.token  # as its producers spell it
        if message.token != self.token:
            return Heard.NOTHING
        if message.type == "state" and message.state is not None:
            self.state, self._seq = message.state, int(message.seq)
            return Heard.CHANGED
        if message.type == "patch" and message.patch is not None:
            if self.state is None or int(message.seq) != self._seq + 1:
                raise Interrupted(f"patch {message.seq} after {self._seq}")
            self.state = jsonpatch.apply_patch(self.state, message.patch)
            self._seq += 1
            return Heard.CHANGED
        return Heard.NOTHING


def _is_one_address(one: str, other: str) -> bool:
    address = folded(one)
    return address is not None and address == folded(other)
