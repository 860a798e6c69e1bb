"""Bring Apache Kafka's jars into the user's cache, each checked against the pins (`make kafka`).

    python requirements/kafka/fetch.py             # quick when they are there already
    python requirements/kafka/fetch.py --from DIR  # from a folder, without Maven
    python requirements/kafka/fetch.py --pin       # after an edit of pom.xml: write pins.sha256 anew
    python requirements/kafka/fetch.py --check     # only whether the pins belong to pom.xml; part of `make check`

Maven fetches, from wherever its settings say; nothing here records an address (see ADR 0005).
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from swapstats_cli.servers.commands import KAFKA_VERSION, kafka_folder

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
PINS = HERE / "pins.sha256"
FETCH_WITHIN_S = 900


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by file name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def pins() -> dict[str, str]:
    """What `PINS` says of the jars, by file name. Ends the process if it belongs to another pom.xml."""
    lines = PINS.read_text().splitlines()
    pinned = {name: digest for digest, name in (line.split("  ") for line in lines)}
    if pinned.pop(POM.name) != digests([POM])[POM.name]:
        sys.exit(f"{PINS} is older than pom.xml: run python requirements/kafka/fetch.py --pin")
    if f"kafka_2.13-{KAFKA_VERSION}.jar" not in pinned:
        sys.exit(f"pom.xml has another Kafka than servers.KAFKA_VERSION, which is {KAFKA_VERSION}: make them agree")
    return pinned


def fetch(into: Path) -> None:
    """Let Maven copy the jars. Ends the process with a sentence when it can't."""
    maven = shutil.which("mvn")
    if maven is None:
        sys.exit("Maven is needed to fetch Apache Kafka: there is no mvn on the PATH (Debian: apt install maven)")
    command = [maven, "--batch-mode", "--quiet", f"--file={POM}"]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={into}"]
    try:
        subprocess.run(command, check=True, timeout=FETCH_WITHIN_S, stdin=subprocess.DEVNULL, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = ((error.stdout or b"") + (error.stderr or b"")).decode(errors="replace")
        sys.exit(f"{said}\nApache Kafka can't be fetched, see above. Is there a network, or a mirror in settings.xml?")


def put(folder: Path, source: Path | None, *, pin: bool) -> None:
    """Fetch into a new folder, or copy ``source``, check, and only then let it take the place of ``folder``."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".kafka-") as scratch:
        fresh = Path(scratch) / "jars"
        if source is None:
            fetch(fresh)
        else:
            shutil.copytree(source, fresh)
        found = digests(fresh.iterdir())
        if pin:
            PINS.write_text("".join(f"{digest}  {name}\n" for name, digest in (digests([POM]) | found).items()))
        wanted = pins()
        if wrong := sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name)):
            sys.exit(f"These jars aren't those that {PINS} pins: {', '.join(wrong)}")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Fetch Apache Kafka.")
    parser.add_argument("--pin", action="store_true", help="write the pins anew, from what Maven gives now")
    parser.add_argument("--check", action="store_true", help="only check the pins, without network")
    parser.add_argument("--from", type=Path, dest="source", metavar="DIR", help="folder to take the jars from")
    options = parser.parse_args()
    if options.source is not None and not options.source.is_dir():
        parser.error(f"{options.source} is no folder: leave --from out, and Maven fetches the jars")
    if options.check:
        print(f"Apache Kafka's pins belong to pom.xml: {len(pins())} jars.")
        return
    folder = kafka_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the folder belongs to all checkouts
        if options.pin or digests(folder.glob("*")) != pins():
            if options.source is None:
                print(f"kafka: fetching Apache Kafka {KAFKA_VERSION} by Maven, about 45 MB the first time", flush=True)
            put(folder, options.source, pin=options.pin)
    print(f"kafka: Apache Kafka {KAFKA_VERSION} is in {folder}")


if __name__ == "__main__":
    main()
