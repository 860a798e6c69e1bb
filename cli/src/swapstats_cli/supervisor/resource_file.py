"""The resource file of `swapstats dev`: read to start, then watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from swapstats_cli.options import Broker
from swapstats_cli.supervisor import layout
from swapstats_core.spec import SwapStatsResource

INTERVAL_S: Final = 0.5

_Signature = tuple[int, int, int]


class ResourceError(Exception):
    """The file is no SwapStats resource that can run here."""


class ResourceFile:
    """A YAML (or JSON) file."""

    def __init__(self, path: Path, broker: Broker = Broker.EMBEDDED) -> None:
        self._path = path
        self._broker = broker
        self._content: bytes | None = None
        self._signature: _Signature | None = None

    def load(self) -> SwapStatsResource:
        """The resource. Raises ResourceError naming field and remedy, OSError."""
        self._signature = self._sign()
        self._content = self._path.read_bytes()
        return self._parse(self._content)

    async def edits(self) -> AsyncIterator[SwapStatsResource | ResourceError]:
        """After `load`, for ever: each new content as a resource, or as what is wrong with it.

        A content is read when the file has stood still between two looks: somebody may be writing.
        """
        last = self._signature
        while True:
            await asyncio.sleep(INTERVAL_S)
            before, last = last, self._sign()
            if last != before or last == self._signature:
                continue
            self._signature = last
            try:
                content = self._path.read_bytes()
                if content != self._content:
                    self._content = content
                    yield self._parse(content)
            except OSError as error:
                self._content = None
                yield ResourceError(f"{self._path} can't be read: {error.strerror}")
            except ResourceError as error:
                yield error

    def _parse(self, content: bytes) -> SwapStatsResource:
        file = self._path
        try:
            resource = SwapStatsResource.model_validate(yaml.safe_load(content.decode()))
            layout.check(resource, self._broker)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ResourceError(f"{file} is no YAML: {error}") from error
        except ValidationError as error:
            faults = [f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
            raise ResourceError("\n".join([f"{file} is no valid SwapStats resource:", *faults])) from error
        except ValueError as error:
            raise ResourceError(f"{file}: {error}") from error
        return resource

    def _sign(self) -> _Signature | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
