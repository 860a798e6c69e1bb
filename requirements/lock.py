"""Pin and hash the requirements, or check that the pins belong to their inputs.

    python requirements/lock.py            # resolve again, keeping pins that still fit (`make lock`)
    python requirements/lock.py --upgrade  # resolve again, to the newest
    python requirements/lock.py --check    # no network; part of `make check`

Each output starts with the digest of its inputs. No output records an address: where packages come from is
the installing machine's business (see ADR 0005).
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
EVERYTHING = "dev.txt"
"""Constrains the other outputs: one version rules them all."""
INPUTS = {
    "bootstrap.txt": ("bootstrap.in",),
    EVERYTHING: ("runtime.in", "servers.in", "dev.in", "bootstrap.in"),
}
"""Files that an output is made from."""
IMAGES = {
    "images/operator.txt": "operator",
    "images/aggregator.txt": "aggregator",
    "images/api.txt": "api",
    "images/devstack.txt": "cli",
}
"""The member in each image: its output holds what the member needs, and nothing else."""


def declared(member: str) -> set[str]:
    """What a member declares, its extras too, and what those of ours declare that it needs."""
    project = tomllib.loads((HERE.parent / member / "pyproject.toml").read_text())["project"]
    listed = set(chain(project["dependencies"], *project.get("optional-dependencies", {}).values()))
    ours = {requirement for requirement in listed if requirement.startswith("swapstats-")}
    members = (re.split("[-=]", requirement)[1] for requirement in ours)
    return (listed - ours).union(*map(declared, members))


def inputs(output: str) -> tuple[str, bytes]:
    """Where an output comes from, in words, and its requirements as one text."""
    if output in IMAGES:
        member = IMAGES[output]
        return f"what {member} declares", "".join(f"{name}\n" for name in sorted(declared(member))).encode()
    names = INPUTS[output]
    return ", ".join(names), b"".join((HERE / name).read_bytes() for name in names)


def head(output: str) -> str:
    """The first line of an output that belongs to its inputs."""
    origin, content = inputs(output)
    return f"# `make lock` made this from {origin}: sha256 {hashlib.sha256(content).hexdigest()}"


def pins(output: str) -> set[str]:
    """Each package of an output with its version."""
    return set(re.findall(r"^\S+==[^\s;]+", (HERE / output).read_text(), re.MULTILINE))


def lock(output: str, *, upgrade: bool) -> None:
    """Resolve one output for every supported Python and write it."""
    target = HERE / output
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
    command += ["--fork-strategy=fewest"]  # one version for all Pythons
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    command += [f"--output-file={target}", *(["--upgrade"] if upgrade else [])]
    if output != EVERYTHING:
        command += ["--constraints", str(HERE / EVERYTHING)]
    _, content = inputs(output)
    subprocess.run([*command, "-"], check=True, input=content)
    target.write_text(f"{head(output)}\n{target.read_text()}")


def problems() -> list[str]:
    """What is wrong with the pins, each with its remedy; empty when all is well."""
    found = []
    everything = pins(EVERYTHING)
    for output in (*INPUTS, *IMAGES):
        text = (HERE / output).read_text()
        if text.partition("\n")[0] != head(output):
            found.append(f"requirements/{output} is older than {inputs(output)[0]}: run `make lock`")
        if other := pins(output) - everything:
            found.append(f"requirements/{output} disagrees with {EVERYTHING} on {', '.join(other)}: run `make lock`")
        if "://" in text or " @ " in text:
            found.append(f"requirements/{output} records an address: take it out and run `make lock`")
    return found


def main() -> int:
    """Run the command line; 1 when a check fails."""
    parser = argparse.ArgumentParser(description="Pin and hash the requirements.")
    parser.add_argument("--check", action="store_true", help="only check, without network")
    parser.add_argument("--upgrade", action="store_true", help="move every pin to the newest version that fits")
    options = parser.parse_args()
    if not options.check:
        for output in (EVERYTHING, *(INPUTS.keys() - {EVERYTHING}), *IMAGES):
            lock(output, upgrade=options.upgrade)
    found = problems()
    print("\n".join(found) or "The pins belong to their inputs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
