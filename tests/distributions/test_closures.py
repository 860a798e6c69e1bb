"""What comes with a distribution of ours when somebody installs it: its declared requirements, and theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
CLUSTERS = {"kopf", "kubernetes"}
CLIENTS = {
    "aiohttp",
    "aiokafka",
    "clickhouse-connect",
    "httpx",
    "nats-py",
    "redis",
    "requests",
    "websockets",
} | CLUSTERS
"""What gets at a server."""


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def closure(*wanted: str) -> set[str]:
    """The names of all that is installed with these, on this Python."""
    todo = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) not in seen:
            seen.add((name, extras))
            todo += [each for each in map(Requirement, requires(name) or ()) if applies(each, extras)]
    return {name for name, _ in seen}


def pinned(image: str) -> set[str]:
    """The names of what an image gets beside our own."""
    text = (REQUIREMENTS / "images" / f"{image}.txt").read_text()
    return {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def test_core_brings_no_client_library() -> None:
    found = closure("swapstats-core")
    assert found >= {"swapstats-core", "numpy"}
    assert not found & CLIENTS
    assert {name for name in found if name.startswith("swapstats")} == {"swapstats-core"}


def test_the_operator_needs_what_a_cluster_takes() -> None:
    assert closure("swapstats-operator") >= CLUSTERS  # so that the next test can fail
    assert pinned("operator") >= CLUSTERS


@pytest.mark.parametrize(
    "wanted", ["swapstats[servers]", "swapstats-runtime", "swapstats-decider", "swapstats-aggregator", "swapstats-api"]
)
def test_nothing_else_does(wanted: str) -> None:
    assert not closure(wanted) & (CLUSTERS | {"swapstats-operator"})


@pytest.mark.parametrize("image", ["devstack", "aggregator", "api"])
def test_the_other_images_hold_nothing_of_it(image: str) -> None:
    assert not pinned(image) & CLUSTERS
