"""The secrets of a laptop's system: files ``<name>/<key>``, as its processes read them.

Passwords of the servers that `swapstats dev` starts are made once for a data directory. Those of servers that the
resource names come from the user's own folder, which is only linked to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from pydantic import BaseModel

from swapstats_core.spec import SecretRef

OWN_SECRET: Final = "swapstats-dev"
"""Name of the Secret with our servers' passwords; its keys are their names."""
_PASSWORD_BYTES: Final = 24


class SecretMissingError(Exception):
    """The resource names a Secret that isn't there."""


def own_ref(server: str) -> SecretRef:
    """Where the password of a server of ours is."""
    return SecretRef(name=OWN_SECRET, key=server)


def secret_refs(section: BaseModel) -> Iterator[SecretRef]:
    """Every Secret that a part of the resource names."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretRef):
            yield value
        elif isinstance(value, BaseModel):
            yield from secret_refs(value)


def lay_out(folder: Path, refs: Iterable[SecretRef], users: Path) -> None:
    """Make ``folder`` what the processes read: our passwords, and links to what else ``refs`` name in the folder
    ``users``. Raises SecretMissingError naming the remedy, OSError.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for link in (entry for entry in folder.iterdir() if entry.is_symlink()):
        link.unlink()
    for ref in refs:
        if ref.name == OWN_SECRET:
            _make(folder / ref.name / ref.key)
            continue
        if not os.access(users / ref.name / ref.key, os.R_OK):
            raise SecretMissingError(
                f"the resource names key {ref.key} of Secret {ref.name}: write its value into the file "
                f"{users / ref.name / ref.key}, or say with --secrets-dir where such files are"
            )
        if not (link := folder / ref.name).exists():
            link.symlink_to((users / ref.name).absolute())


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as new:
        new.write(f"{token_urlsafe(_PASSWORD_BYTES)}\n")
