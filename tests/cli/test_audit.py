"""The audit of pins tells a hole that is open, and one that needn't be accepted any more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "requirements"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", FOLDER / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "audit", module)  # its dataclass looks there
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("release", "accepted", "said"),
    [
        ("1.8.0", "", "Take 1.10.1 or newer"),
        ("1.9.4", "", "Take 1.10.1 or newer"),
        ("1.10.1", "", None),
        ("2.0", "", None),
        ("1.8.0", "we must", "accepted: we must"),
        ("1.10.1", "we must", "is gone: take `accepted` out"),
    ],
)
def test_a_hole_is_told_while_it_is_open(audit: ModuleType, release: str, accepted: str, said: str | None) -> None:
    hole = audit.Hole("CVE-1", "jar:lz4-java", "1.10.1", accepted)
    found = list(audit.judged([hole], {"jar:lz4-java": {release}}))
    if said is None:
        assert found == []
    else:
        ((is_accepted, line),) = found
        assert is_accepted is line.endswith("we must")
        assert said in line


def test_every_hole_is_of_something_that_is_pinned(audit: ModuleType) -> None:
    """A wrong name would never find anything."""
    pinned = {name for name, _ in audit.pinned()}
    named = {hole.of for hole in audit.holes((FOLDER / "advisories.toml").read_text())}
    assert named <= pinned
    assert {"jar:lz4-java", "wheel:aiohttp", "program:redis-server"} <= pinned
