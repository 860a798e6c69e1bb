"""Choice of listening ports on the loopback address."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Final

HOST: Final = "127.0.0.1"
LOWEST_PORT: Final = 20_000
_EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def candidates(preferred: int, ephemeral_from: int, random: Random) -> Iterator[int]:
    """The preferred port, then others in random order; 0 prefers none.

    The others lie below the kernel's ephemeral ports: from those, some client's connection could take a port while
    the child that listens on it is being restarted.
    """
    if preferred:
        yield preferred
    others = list(range(min(LOWEST_PORT, ephemeral_from - 4096), ephemeral_from))
    random.shuffle(others)
    yield from others


def choose(tries: Iterable[int], is_free: Callable[[int], bool]) -> int:
    """The first free port. Raises OSError if none is."""
    for port in tries:
        if is_free(port):
            return port
    raise OSError("no free port on 127.0.0.1: stop something that listens, then start again")


class PortReservations:
    """Ports taken for this process's children until `release` or the process's death.

    A port counts as taken when somebody listens on it, or when another `swapstats dev` has reserved it and its child
    doesn't listen yet (the reservation is a name in Linux's abstract socket namespace, which the kernel frees).
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held: dict[int, socket.socket] = {}
        self._ephemeral_from = int(_EPHEMERAL_RANGE.read_text().split()[0])

    def take(self, preferred: int = 0) -> int:
        """Reserve the preferred port if it is free, else another. Raises OSError if none is free."""
        return choose(candidates(preferred, self._ephemeral_from, self._random), self._reserve)

    def give_back(self, port: int) -> None:
        """Nobody of ours needs the port any more."""
        self._held.pop(port).close()

    def release(self) -> None:
        """Give all reservations back."""
        for port in tuple(self._held):
            self.give_back(port)

    def _reserve(self, port: int) -> bool:
        name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            name.bind(f"\0swapstats-port-{port}")
        except OSError:
            name.close()
            return False
        if not _nobody_listens(port):
            name.close()
            return False
        self._held[port] = name
        return True


def _nobody_listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT can be listened on
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
