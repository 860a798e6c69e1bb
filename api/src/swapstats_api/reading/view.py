"""What a reader sees of a token: the document of the REST reply, and patches between two of them (RFC 6902).

Documents of all kinds have ``"rebuilding": true`` and ``progress`` (share read, 0 to 1, in hundredths) while an owner
replaces a lost state by reading, and neither of them else; and ``held``, a sentence, while it waits before a record
from the future.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from swapstats_api.reading.follow.model import View
from swapstats_core import readable, wire

_decode_windows = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
MINOR: Final = ("as_of", "watermark", "offset", "lag_seconds")
"""Fields that change with the stream's position: they travel with a patch but never cause one."""
_MAJOR: Final = (
    "late",
    "partition",
    "epoch",
    "stale",
    "rebuilding",
    "progress",
    "held",
    "known_since",
    "other_spellings",
)


class Late(msgspec.Struct, frozen=True):
    """Swaps of the longest window that came too late to count, and the newest one's time."""

    count: int
    newest: str | None


_NOT_WHOLE: Final = b',"complete":false}'


class Document(msgspec.Struct, frozen=True):
    """A token's reply. ``lag_seconds`` is 0 unless stale; ``offset`` is a decimal string.

    ``known_since``: no event from then on is missing; absent where none at all is. A window that begins before it has
    ``"complete": false``. ``other_spellings`` of the address that the token is are tokens of their own; absent if there
    are none.
    """

    token: str
    as_of: str
    windows: dict[str, msgspec.Raw]
    watermark: str
    partition: int
    offset: str
    epoch: int
    stale: bool
    lag_seconds: float | int
    late: Late
    rebuilding: bool | msgspec.UnsetType = msgspec.UNSET
    progress: float | msgspec.UnsetType = msgspec.UNSET
    known_since: str | msgspec.UnsetType = msgspec.UNSET
    other_spellings: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    held: str | msgspec.UnsetType = msgspec.UNSET


@lru_cache(maxsize=4096)
def _windows(encoded: bytes) -> dict[str, msgspec.Raw]:
    return _decode_windows(encoded)


class Marks(NamedTuple):
    """What may become of a document without a message: whether it is stale, which of its windows aren't whole, which
    other spellings there are.
    """

    stale: bool
    incomplete: tuple[str, ...]
    other_spellings: tuple[str, ...]


def marks(view: View, other_spellings: tuple[str, ...] = ()) -> Marks:
    """Those that its document will have."""
    return Marks(view.stale, _incomplete(view), other_spellings)


def marks_in(document: Document) -> Marks:
    """Those that a document has."""
    incomplete = (name for name, stats in document.windows.items() if bytes(stats).endswith(_NOT_WHOLE))
    return Marks(document.stale, tuple(incomplete), document.other_spellings or ())


def _incomplete(view: View) -> tuple[str, ...]:
    since_ms, as_of_ms = view.state.since_ms, view.position.as_of_ms
    names = _windows(bytes(view.state.windows)) if since_ms else ()
    return tuple(name for name in names if not wire.is_whole(name, as_of_ms, since_ms))


def known_since(since_ms: int) -> dict[str, Any]:
    """The field of a document that says so."""
    return {"known_since": wire.rfc3339(since_ms)} if since_ms else {}


def seconds(lag_ms: int) -> float | int:
    """A lag as replies say it."""
    return lag_ms / 1000 if lag_ms else 0


def troubles(partition: int, rebuilt_percent: int | None, held: wire.Held | None) -> dict[str, Any]:
    """The fields of a document that say why it isn't current, or not whole."""
    told: dict[str, Any] = {}
    if rebuilt_percent is not None:
        told |= {"rebuilding": True, "progress": rebuilt_percent / 100}
    return told if held is None else told | {"held": readable.held(partition, held)}


def document(view: View, other_spellings: tuple[str, ...] = ()) -> Document:
    """The document of all windows."""
    state = view.state
    windows = _windows(bytes(state.windows))
    incomplete = _incomplete(view)
    if incomplete:
        windows = windows | {name: msgspec.Raw(bytes(windows[name])[:-1] + _NOT_WHOLE) for name in incomplete}
    return Document(
        state.token,
        wire.rfc3339(view.position.as_of_ms),
        windows,
        wire.rfc3339(state.watermark_ms),
        state.partition,
        str(view.position.offset),
        view.position.epoch,
        view.stale,
        seconds(view.lag_ms),
        _late(state.late),
        **troubles(state.partition, view.rebuilt_percent, view.held),
        **known_since(state.since_ms),
        other_spellings=other_spellings or msgspec.UNSET,
    )


def _late(late: wire.Late) -> Late:
    return Late(late.count, None if late.newest_ms is None else wire.rfc3339(late.newest_ms))


def select(whole: Document, names: list[str]) -> Document:
    """The document with these windows only, in the given order. Raises KeyError for one that isn't there."""
    return msgspec.structs.replace(whole, windows={name: whole.windows[name] for name in names})


class Op(msgspec.Struct, frozen=True):
    """One operation of a JSON Patch; ``remove`` has no value."""

    op: str
    path: str
    value: Any = msgspec.UNSET


def differs(old: Document, new: Document) -> bool:
    """Whether the change is worth a patch."""
    return old.windows != new.windows or any(getattr(old, field) != getattr(new, field) for field in _MAJOR)


def patch(old: Document, new: Document, also: frozenset[str]) -> list[Op]:
    """Operations from ``old`` to ``new``; fields in ``also`` are sent even when they are equal."""
    ops = []
    if old.windows.keys() == new.windows.keys():
        for name, stats in new.windows.items():
            if stats != old.windows[name]:
                ops.append(Op("replace", f"/windows/{name}", stats))
    else:
        ops.append(Op("replace", "/windows", new.windows))
    for field in (*_MAJOR, *MINOR):
        value = getattr(new, field)
        if field in also or value != getattr(old, field):
            ops.append(Op(_op(getattr(old, field), value), f"/{field}", value))
    return ops


def _op(old: object, new: object) -> str:
    if new is msgspec.UNSET:
        return "remove"
    return "add" if old is msgspec.UNSET else "replace"


def moved(old: Document, new: Document) -> frozenset[str]:
    """Which of the minor fields differ."""
    return frozenset(field for field in MINOR if getattr(old, field) != getattr(new, field))
