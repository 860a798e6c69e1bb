"""Make ``.venv``: a virtual environment with the pinned, hashed requirements and the members, editable.

Run by `make install` with the system's Python; needs nothing but its standard library. Quick when nothing changed.
uv installs, ten times as fast as pip. It doesn't read pip's configuration, where a company keeps its index and
authorities, so that is handed over; where uv fails nevertheless, pip does the same work.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = str(ENVIRONMENT / "bin" / "python")
STAMP = ENVIRONMENT / ".installed"
MEMBERS = ("core", "runtime", "decider", "aggregator", "api", "operator", "cli")

UV_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""pip's options and what uv calls them in its environment."""


def fingerprint() -> str:
    """What the environment depends on, as one digest."""
    inputs = [ROOT / "requirements" / name for name in ("bootstrap.txt", "dev.txt", "install.py")]
    inputs += [ROOT / member / "pyproject.toml" for member in MEMBERS]
    state = [str(ROOT), sys.version, *(path.read_text() for path in inputs)]
    return hashlib.sha256("\0".join(state).encode()).hexdigest()


def make_environment() -> None:
    """An empty virtual environment with pip, over whatever is there."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"{sys.executable} can't make virtual environments: its ensurepip is missing.\n"
            f"On Debian and Ubuntu: apt-get install python{version}-venv, then run make again.\n"
            "Or choose another Python 3.11 to 3.13: make install PYTHON=/path/to/python3"
        )
    say(f"making .venv with Python {sys.version.split()[0]} ({sys.executable})")
    venv.EnvBuilder(with_pip=True, clear=True, symlinks=True).create(ENVIRONMENT)


def pip_settings() -> dict[str, str]:
    """What pip is told by its files and PIP_* variables, as variables for uv."""
    listing = subprocess.run(
        [PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    options: dict[str, str] = {}
    for line in sorted(listing, key=_precedence):
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in {"global", "install", ":env:"} and option in UV_SETTINGS:
            options[UV_SETTINGS[option]] = str(ast.literal_eval(value))
    for separated_by_commas in {"UV_FIND_LINKS"} & options.keys():
        options[separated_by_commas] = ",".join(options[separated_by_commas].split())
    return options


def _precedence(line: str) -> int:
    """Later wins: files' [global], their [install], the environment."""
    return next((rank for rank, start in enumerate(("global.", "install.", ":env:.")) if line.startswith(start)), 3)


def pip_install(*arguments: str) -> None:
    """Run ``pip install`` in the environment. Raises CalledProcessError."""
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--quiet"]
    subprocess.run([PYTHON, "-m", "pip", "install", *quiet, *arguments], check=True)


def uv_install(*arguments: str) -> None:
    """Run ``uv pip install`` in the environment. Raises CalledProcessError."""
    environment = {"UV_SYSTEM_CERTS": "1", "UV_HTTP_TIMEOUT": "180", **pip_settings(), **os.environ}
    command = [PYTHON, "-m", "uv", "pip", "install", f"--python={PYTHON}", *arguments]
    subprocess.run(command, check=True, env=environment)


def install(*arguments: str) -> None:
    """Install by uv, else by pip. Ends the process with a sentence when neither can."""
    try:
        uv_install(*arguments)
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"uv could not ({error.__class__.__name__}): going on with pip, which takes longer")
        try:
            pip_install(*arguments)
        except subprocess.CalledProcessError:
            sys.exit("The requirements can't be installed; pip's message above says why. `make install` tries again.")


def say(text: str) -> None:
    """Progress, for people."""
    print(f"install: {text}", flush=True)


def main() -> None:
    """Bring ``.venv`` up to date."""
    wanted = fingerprint()
    if Path(PYTHON).exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    began = time.monotonic()
    STAMP.unlink(missing_ok=True)
    make_environment()
    say("fetching uv")
    try:
        pip_install("--require-hashes", "--requirement=requirements/bootstrap.txt")
    except subprocess.CalledProcessError:
        sys.exit("uv can't be installed; pip's message above says why. Is there a network, or an index in pip.conf?")
    say("fetching the requirements: about 350 MB the first time, most of it ClickHouse's engine")
    install("--require-hashes", "--requirement=requirements/dev.txt")
    say("linking the members")
    editable = [f"--editable=./{member}" for member in MEMBERS]
    install("--no-deps", "--no-build-isolation", *editable)
    STAMP.write_text(wanted)
    say(f"ready in {time.monotonic() - began:.0f} s: .venv/bin/swapstats --help")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the system's Python runs this, whatever it is
        sys.exit("SwapStats needs Python 3.11 or newer")
    os.chdir(ROOT)
    main()
