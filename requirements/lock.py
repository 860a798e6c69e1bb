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
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUTS = {
    "bootstrap.txt": ("bootstrap.in",),
    "runtime.txt": ("runtime.in",),
    "dev.txt": ("runtime.in", "servers.in", "dev.in", "bootstrap.in"),
}
"""Inputs of each output. ``dev.txt`` is everything; the others are constrained by it, so one version rules them all."""


def digest(inputs: tuple[str, ...]) -> str:
    """The first line of an output made from ``inputs``."""
    content = b"".join((HERE / name).read_bytes() for name in inputs)
    return f"# `make lock` made this from {', '.join(inputs)}: sha256 {hashlib.sha256(content).hexdigest()}"


def lock(output: str, *, upgrade: bool) -> None:
    """Resolve one output for every supported Python and write it."""
    inputs = OUTPUTS[output]
    target = HERE / output
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
    command += ["--fork-strategy=fewest"]  # one version for all Pythons
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    command += [f"--output-file={target}", *(["--upgrade"] if upgrade else [])]
    if output != "dev.txt":
        command += ["--constraints", str(HERE / "dev.txt")]
    subprocess.run([*command, *(str(HERE / name) for name in inputs)], check=True)
    target.write_text(f"{digest(inputs)}\n{target.read_text()}")


def problems() -> list[str]:
    """What is wrong with the pins, each with its remedy; empty when all is well."""
    found = []
    for output, inputs in OUTPUTS.items():
        text = (HERE / output).read_text()
        if text.partition("\n")[0] != digest(inputs):
            found.append(f"requirements/{output} is older than {' or '.join(inputs)}: run `make lock`")
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
        for output in sorted(OUTPUTS, key=lambda name: name != "dev.txt"):
            lock(output, upgrade=options.upgrade)
    found = problems()
    print("\n".join(found) or "The pins belong to their inputs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
