"""The version of a release stands in the file VERSION; what members, charts, images and docs say follows from it.

python requirements/version.py          # write it wherever it stands (`make version`)
python requirements/version.py --check  # part of `make check`

Both Python's packages and Helm's charts must take it, so it is three numbers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = {
    "*/pyproject.toml": r'(?m)^version = "(.+)"$',
    "charts/*/Chart.yaml": r"(?m)^(?:version|appVersion): (.+)$",
    "Dockerfile": r"org\.opencontainers\.image\.version=(\S+)",
    "CONTRIBUTING.md": r"--tag swapstats/aggregator:(\S+)",
    "docs/runbook/upgrade.md": r"--set image\.tag=(\S+)",
}
"""Files, and how it stands in them."""


def places() -> Iterator[tuple[Path, str, str]]:
    """Each file, its text, and its text with the version of now."""
    version = (ROOT / "VERSION").read_text().strip()
    for glob, pattern in PLACES.items():
        for path in sorted(ROOT.glob(glob)):
            text = path.read_text()
            yield path, text, re.sub(pattern, lambda found: found[0].replace(found[1], version), text)


def main() -> None:
    """Write, or check."""
    other = [(path, wanted) for path, text, wanted in places() if text != wanted]
    if "--check" not in sys.argv:
        for path, wanted in other:
            path.write_text(wanted)
    elif other:
        sys.exit(f"Not of the version in VERSION: {', '.join(path.name for path, _ in other)}. Run: make version")


if __name__ == "__main__":
    main()
