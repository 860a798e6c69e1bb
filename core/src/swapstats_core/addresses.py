"""One address, many spellings: whether a token looks like an address of 20 bytes, and which.

A token keeps its producer's spelling, since its partition follows from that. So one address may be two tokens.
"""

from __future__ import annotations

import re
from typing import Final

_ADDRESS: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]{40})")


def folded(token: str) -> str | None:
    """What all spellings of an address have in common: its 40 hexadecimal digits in lower case. None: it isn't one."""
    if len(token) not in (40, 42) or (match := _ADDRESS.fullmatch(token)) is None:
        return None
    return match[1].lower()
