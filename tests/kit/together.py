"""Which tests run in one process where there are several: those of a file, and all of the system, which they share.

xdist's own mark for it, ``xdist_group``, has no effect under pytest 9.2.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

_SYSTEM = "tests/system"


def is_of_system(nodeid: str) -> bool:
    """Whether a test needs the whole system, the same as the others of its folder."""
    return nodeid.startswith(f"{_SYSTEM}/")


class TogetherScheduling(LoadFileScheduling):  # type: ignore[misc]  # untyped
    """Hands out files whole, and the folder of the system as one."""

    def _split_scope(self, nodeid: str) -> str:
        return _SYSTEM if is_of_system(nodeid) else str(super()._split_scope(nodeid))
