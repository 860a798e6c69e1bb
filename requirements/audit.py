"""Hold what the pins name against the holes that are known (`make audit`).

    python requirements/audit.py

A hole in a pinned release is an error, unless advisories.toml says why it is accepted. So is one that is accepted and
isn't there any more.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swapstats_cli.servers import commands

HERE: Final = Path(__file__).resolve().parent
_WHEEL: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_JAR: Final = re.compile(r"^[0-9a-f]{64}  (\S+?)-([0-9]\S*)\.jar$", re.MULTILINE)
_REDIS: Final = re.compile(r"\bv=(\S+)")


@dataclass(frozen=True, slots=True)
class Hole:
    """``mended``: the first release without it. ``accepted``: why it is shipped all the same; empty: it isn't."""

    ids: str
    of: str
    mended: str
    accepted: str = ""


def holes(text: str) -> list[Hole]:
    """Those of advisories.toml."""
    return [
        Hole(each["id"], each["in"], each["mended"], each.get("accepted", "")) for each in tomllib.loads(text)["hole"]
    ]


def pinned() -> Iterator[tuple[str, str]]:
    """Everything with its release, as in ("jar:lz4-java", "1.10.1")."""
    for path in (HERE / "bootstrap.txt", HERE / "dev.txt", *sorted((HERE / "images").glob("*.txt"))):
        yield from ((f"wheel:{name.lower()}", release) for name, release in _WHEEL.findall(path.read_text()))
    yield from ((f"jar:{name}", release) for name, release in _JAR.findall((HERE / "kafka/pins.sha256").read_text()))
    yield "program:redis-server", _redis()


def _redis() -> str:
    """The release of the program that the wheel brings."""
    program = commands.redis(0, HERE)[0]
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    found = _REDIS.search(said)
    assert found is not None, said
    return found[1]


def judged(known: Iterable[Hole], releases: Mapping[str, set[str]]) -> Iterator[tuple[bool, str]]:
    """For each hole that must be told of, whether it is accepted, and what to say."""
    for hole in known:
        open_in = sorted(release for release in releases.get(hole.of, ()) if _number(release) < _number(hole.mended))
        if open_in and hole.accepted:
            yield True, f"{hole.of} {', '.join(open_in)}: {hole.ids}, accepted: {hole.accepted}"
        elif open_in:
            yield False, f"{hole.of} {', '.join(open_in)}: {hole.ids}. Take {hole.mended} or newer"
        elif hole.accepted:
            yield False, f"{hole.of}: {hole.ids} is gone: take `accepted` out of advisories.toml"


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))


def main() -> None:
    """Print what was found; exit code 1 if something must be done."""
    releases: dict[str, set[str]] = {}
    for name, release in pinned():
        releases.setdefault(name, set()).add(release)
    known = holes((HERE / "advisories.toml").read_text())
    found = list(judged(known, releases))
    for is_accepted, line in found:
        print(f"{'accepted' if is_accepted else 'open'}: {line}")
    print(f"audit: {len(known)} known holes, {len(releases)} pinned things, {sum(not ok for ok, _ in found)} to mend")
    if not all(is_accepted for is_accepted, _ in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
