"""Images without Docker and without a registry: built by buildah, in a storage of their own, and written as archives.

    python -m e2e.cluster.images TARGET TAG    # builds swapstats/TARGET:TAG, prints the archive's path

Debian's image, on which ours are based, is made here by debootstrap from where apt's settings say. What the builds need
to know of this machine's indexes and authorities is mounted, so none of it stays in an image.
"""

from __future__ import annotations

import ast
import fcntl
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from e2e.cluster.build import COREDNS, PAUSE, build, cache, made
from e2e.cluster.host import attempt

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SUITE: Final = "bookworm"
BASE: Final = f"docker.io/library/debian:{SUITE}-slim"
PAUSE_IMAGE: Final = "localhost/swapstats/pause:1"
COREDNS_IMAGE: Final = f"localhost/swapstats/coredns:{COREDNS.version}"

_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_AUTHORITIES_INSIDE: Final = (
    "/run/host/ca-certificates.crt"  # not its own place: installing ca-certificates writes there
)
_PIP_SETTINGS: Final = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "timeout", "proxy")
_APT_SETTINGS: Final = ("Acquire::http", "Acquire::Check", "Acquire::Retries")
_DOCS: Final = "usr/share/doc usr/share/locale usr/share/man var/cache/apt var/lib/apt/lists"


def build_image(target: str, tag: str, context: Path = REPOSITORY) -> Path:
    """Build one of the Dockerfile's targets as ``swapstats/TARGET:TAG``, as the charts name it; returns its archive.

    Raises CalledProcessError after saying why.
    """
    name = f"docker.io/swapstats/{target}:{tag}"
    archive = cache() / "images" / f"{target}-{tag}.tar"
    base_archive = base()
    with _storage() as storage:
        _have_base(storage, base_archive)
        pinned = f"{BASE.partition(':')[0]}@{_digest(storage, BASE)}"
        with tempfile.TemporaryDirectory() as folder:
            volumes = [f"--volume={source}:{inside}:ro" for source, inside in _of_this_machine(Path(folder))]
            kafka = next(
                cache().glob("kafka-*/"), None
            )  # the jars that `make kafka` brought save the build Maven's work
            contexts = [f"--build-context=kafka={kafka}"] if kafka else []
            _buildah(
                *(
                    *storage,
                    "bud",
                    "--layers",
                    "--isolation=chroot",
                    "--network=host",
                    "--pull=never",
                    f"--build-arg=BASE={pinned}",
                    *volumes,
                    *contexts,
                ),
                *(f"--target={target}", f"--tag={name}", f"--file={context / 'Dockerfile'}", str(context)),
            )
        _push(storage, name, archive)
    return archive


def infrastructure() -> list[Path]:
    """The archives of what a cluster runs itself: pause, and CoreDNS."""
    archives = []
    for program, name in ((PAUSE, PAUSE_IMAGE), (COREDNS, COREDNS_IMAGE)):
        file = build(program)

        def make(archive: Path, file: Path = file, name: str = name) -> None:
            with _storage() as storage, tempfile.TemporaryDirectory() as folder:
                recipe = Path(folder) / "Dockerfile"
                recipe.write_text(f'FROM scratch\nCOPY {file.name} /\nUSER 65532:65532\nENTRYPOINT ["/{file.name}"]\n')
                _buildah(*storage, "bud", f"--tag={name}", f"--file={recipe}", str(file.parent))
                _push(storage, name, archive)

        archives.append(made(file.parent / "image.tar", make))
    return archives


def base() -> Path:
    """The archive of Debian's image, made unless it is there."""
    return made(cache() / f"debian-{SUITE}" / "image.tar", _debian)


def _debian(archive: Path) -> None:
    print(f"images: making {BASE} by debootstrap, two minutes the first time", flush=True)
    mirror = next((line.split()[1] for line in _apt_sources() if f" {SUITE} " in line), None)
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder, _storage() as storage:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", SUITE, str(root), *([mirror] if mirror else [])]
        with (archive.parent / "log").open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            sys.exit(
                f"debootstrap failed: see {archive.parent / 'log'}. Is there a network, or a mirror in apt's settings?"
            )
        for name in _DOCS.split():
            subprocess.run(["find", str(root / name), "-mindepth", "1", "-delete"], check=True)
        recipe = Path(folder) / "Dockerfile"
        recipe.write_text('FROM scratch\nADD root /\nCMD ["bash"]\n')
        _buildah(*storage, "bud", f"--tag={BASE}", f"--file={recipe}", folder)
        _push(storage, BASE, archive)


def _have_base(storage: tuple[str, ...], archive: Path) -> None:
    known = subprocess.run(["buildah", *storage, "inspect", "--type=image", BASE], capture_output=True, check=False)
    if known.returncode:
        image = subprocess.run(
            ["buildah", *storage, "pull", "--quiet", f"oci-archive:{archive}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        _buildah(*storage, "tag", image, BASE)


def _digest(storage: tuple[str, ...], image: str) -> str:
    command = ["buildah", *storage, "inspect", "--type=image", "--format={{.FromImageDigest}}", image]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _of_this_machine(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files, and where a build sees them: what lets pip and apt reach their servers from here."""
    if _AUTHORITIES.exists():
        yield _AUTHORITIES, _AUTHORITIES_INSIDE
    pip, apt, sources = folder / "pip.conf", folder / "apt.conf", folder / "sources.list"
    lines = ["[global]", *([f"cert = {_AUTHORITIES_INSIDE}"] if _AUTHORITIES.exists() else [])]
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    for line in settings.stdout.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2].removeprefix("default-")
        if option in _PIP_SETTINGS:
            text = str(ast.literal_eval(value))
            lines.append(f"{option} = {text}")
            if text.startswith("/") and Path(text).is_dir():
                yield Path(text), text
    pip.write_text("\n".join(lines) + "\n")
    yield pip, "/etc/pip.conf"
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout.splitlines()
    told = [line for line in dump if line.startswith(_APT_SETTINGS)]
    told += [f'Acquire::https::CaInfo "{_AUTHORITIES_INSIDE}";'] if _AUTHORITIES.exists() else []
    apt.write_text("\n".join(told) + "\n")
    yield apt, "/etc/apt/apt.conf.d/90host"
    if known := _apt_sources():
        sources.write_text("\n".join(known) + "\n")
        yield sources, "/etc/apt/sources.list"


def _apt_sources() -> list[str]:
    """Where this machine's apt finds the base's packages; none, if it is another Debian."""
    form = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.removeprefix("Debian|") for line in found if re.match(rf"Debian\|.* {SUITE}(-\w+)? main$", line)]


@contextmanager
def _storage() -> Iterator[tuple[str, ...]]:
    """Options that name our own storage: the name of Debian's image mustn't be taken in anybody else's.

    One build at a time has it, and may clear away what a build that was killed left mounted.
    """
    root = cache() / "buildah"
    root.mkdir(parents=True, exist_ok=True)
    options = (f"--root={root / 'storage'}", f"--runroot={root / 'run'}")
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield options
        finally:
            attempt("buildah", *options, "rm", "--all")
            attempt("umount", root / "storage" / "overlay")  # which buildah mounts for itself


def _push(storage: tuple[str, ...], name: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)  # buildah would add to it
    _buildah(*storage, "push", "--quiet", name, f"oci-archive:{archive}:{name}")


def _buildah(*arguments: str) -> None:
    subprocess.run(["buildah", *arguments], check=True, stdout=sys.stderr)


def main() -> None:
    """Build the image of a target."""
    if len(sys.argv) not in {3, 4}:
        sys.exit("usage: python -m e2e.cluster.images TARGET TAG [CONTEXT]")
    target, tag, *context = sys.argv[1:]
    print(build_image(target, tag, *map(Path, context)))


if __name__ == "__main__":
    main()
