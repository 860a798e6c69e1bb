"""A cluster's network: a bridge of the host, to which a wire leads from each node's own network.

Addresses are of one block that the host has no route to, 10.N.0.0/16. All that a node's proxy and plugins change is in
the node's network, and is gone with it; the host gets the bridge, and routes over it to pods and services.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Final

from e2e.cluster.host import HostError, attempt, run

_BLOCKS: Final = range(96, 128)


@dataclass(frozen=True)
class Network:
    """The network number N. A node is known by its index, from 1."""

    number: int

    @property
    def bridge(self) -> str:
        return f"swapstats{self.number}"

    @property
    def host(self) -> str:
        """The host's address, as nodes and pods see it."""
        return f"10.{self.number}.0.1"

    @property
    def loopback(self) -> str:
        """An address that only the host has, and nobody's ports are taken at."""
        return f"127.{self.number}.0.1"

    @property
    def pods(self) -> str:
        """The block of all pods."""
        return f"10.{self.number}.64.0/18"

    @property
    def services(self) -> str:
        return f"10.{self.number}.128.0/20"

    @property
    def dns(self) -> str:
        """The address of the service that resolves names."""
        return f"10.{self.number}.128.10"

    def node(self, index: int) -> str:
        return f"10.{self.number}.0.{10 + index}"

    def pods_of(self, index: int) -> str:
        return f"10.{self.number}.{64 + index}.0/24"

    def make(self, nodes: int) -> None:
        """The bridge, and routes to what will be behind it. Raises CalledProcessError if there is such a bridge."""
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", f"{self.host}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for index in range(1, nodes + 1):
            run("ip", "route", "add", self.pods_of(index), "via", self.node(index))

    def connect(self, index: int, nodes: int, pid: int) -> None:
        """Wire the network of the process to the bridge, as a node's."""
        wire = self._wire(index)
        attempt("ip", "link", "delete", wire)  # of the node's former life: the kernel takes its time
        run("ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        run("ip", "link", "set", wire, "master", self.bridge, "up")
        inside = ("nsenter", f"--target={pid}", "--net")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "address", "add", f"{self.node(index)}/24", "dev", "eth0")
        run(*inside, "ip", "link", "set", "eth0", "up")
        run(*inside, "ip", "route", "add", "default", "via", self.host)
        for other in range(1, nodes + 1):
            if other != index:
                run(*inside, "ip", "route", "add", self.pods_of(other), "via", self.node(other))
        run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def route_services(self, index: int) -> None:
        """Let the host reach services through this node's proxy."""
        run("ip", "route", "replace", self.services, "via", self.node(index))

    def remove(self, nodes: int) -> None:
        """Take it all away, or what there is of it."""
        for link in (*(self._wire(index) for index in range(1, nodes + 1)), self.bridge):
            attempt("ip", "link", "delete", link)

    def _wire(self, index: int) -> str:
        return f"{self.bridge}-{index}"


def free() -> Network:
    """A network whose block the host has no route to. Raises HostError."""
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    for number in _BLOCKS:
        block = ipaddress.ip_network(f"10.{number}.0.0/16")
        if not any(block.overlaps(other) for other in taken):
            return Network(number)
    raise HostError(f"no block of 10.{_BLOCKS[0]}.0.0 to 10.{_BLOCKS[-1]}.255.255 is free: see `ip route`")
