"""Files that are generated from the model: written, or compared with what the model says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def keep(text: str, what: str, command: str) -> None:
    """The command line of a generator: write ``text``, which is ``what``, to files, or check that they hold it.
    ``command`` generates them again.
    """
    parser = argparse.ArgumentParser(description=f"Generate {what}.")
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    for file in arguments.files:
        if not arguments.check:
            file.write_text(text)
        elif file.read_text() != text:
            sys.exit(f"{file} isn't what the model says: run `{command}`, and commit it")
