"""Which configuration each process was started with, and whether that is still the newest."""

from __future__ import annotations

from collections.abc import Callable

from swapstats_cli.supervisor.part import Part


class Versions:
    """Counts the configurations that processes must be started anew for, and the restarts that people ask for."""

    def __init__(self) -> None:
        self.reason = ""
        """Why something is outdated."""
        self._configuration = 1
        self._restarts = 0
        self._started: dict[str, tuple[int, int]] = {}

    @property
    def newest(self) -> tuple[int, int]:
        """What a shard that is started now is started with."""
        return self._configuration, self._restarts

    def configured(self, reason: str) -> None:
        """From now on processes get another configuration."""
        self._configuration += 1
        self.reason = reason

    def restart_asked(self) -> None:
        """Every shard shall be started anew."""
        self._restarts += 1
        self.reason = "a restart was asked for"

    def noting(self, part: Part) -> Callable[[], list[str]]:
        """The part's command, which notes with which version it is used."""

        def command() -> list[str]:
            self._started[part.name] = self.newest
            return part.command()

        return command

    def is_outdated(self, shard: str) -> bool:
        """Whether a shard was started before the newest configuration, or before the last restart was asked for."""
        return self._started.get(shard, self.newest) != self.newest

    def has_old_configuration(self, name: str) -> bool:
        """Whether a process was started before the newest configuration."""
        return self._started.get(name, self.newest)[0] != self._configuration
