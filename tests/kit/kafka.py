"""Apache Kafka for tests: started on demand, killed and restarted with its data, gone when the run ends."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom

from swapstats_cli.servers import commands, probes
from swapstats_cli.servers.tcp_ports import HOST, PortReservations
from tests.kit.children import spawn

READY_WITHIN_S = 60.0


class ApacheKafka:
    """One broker on two ports of its own, with its data in ``folder``. Raises ServerMissingError where it can't run.

    ``tls``: the folder of a Secret; it listens on a third port too, to those with a certificate of its authority.
    ``users``: with passwords; it listens on a third port to them, and lets none of them do anything.
    """

    def __init__(self, folder: Path, tls: Path | None = None, users: Mapping[str, str] | None = None) -> None:
        self._ports = PortReservations(SystemRandom())
        port, controller_port = self._ports.take(), self._ports.take()
        self.brokers = f"{HOST}:{port}"
        self._log = folder / "log"
        self._command = commands.kafka(port, controller_port, folder)
        if tls is not None:
            self.brokers_with_tls = f"{HOST}:{self._ports.take()}"
            self._command += [f"--override={setting}" for setting in self._listening_with(tls, controller_port)]
        if users is not None:
            self.brokers_with_login = f"{HOST}:{self._ports.take()}"
            self._command += [f"--override={setting}" for setting in self._listening_to(users, controller_port)]
        self._process: subprocess.Popen[bytes] | None = None

    def _listening_to(self, users: Mapping[str, str], controller_port: int) -> Iterator[str]:
        both = f"PLAINTEXT://{self.brokers},SASL_PLAINTEXT://{self.brokers_with_login}"
        yield f"listeners={both},CONTROLLER://{HOST}:{controller_port}"
        yield f"advertised.listeners={both}"
        yield "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
        yield "sasl.enabled.mechanisms=PLAIN"
        known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        yield f"listener.name.sasl_plaintext.plain.sasl.jaas.config={module} required {known};"
        yield "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        yield "super.users=User:ANONYMOUS"

    def _listening_with(self, tls: Path, controller_port: int) -> Iterator[str]:
        both = f"PLAINTEXT://{self.brokers},SSL://{self.brokers_with_tls}"
        yield f"listeners={both},CONTROLLER://{HOST}:{controller_port}"
        yield f"advertised.listeners={both}"
        yield "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT"
        store = tls / "keystore.pem"
        store.write_bytes((tls / "tls.key").read_bytes() + (tls / "tls.crt").read_bytes())
        for name, file in (("keystore", store), ("truststore", tls / "ca.crt")):
            yield f"ssl.{name}.type=PEM"
            yield f"ssl.{name}.location={file}"
        yield "ssl.client.auth=required"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves. Blocks, also an event loop that may be running here."""
        self.spawn()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self.ready()).result()

    def spawn(self) -> None:
        """Start it, and don't wait. On the main thread: it dies with the thread that starts it (see `launch`)."""
        self._process = spawn(self._command, self._log)

    async def ready(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not await probes.kafka_ok(self.brokers):
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            await asyncio.sleep(0.05)  # another process's readiness can't be awaited

    def kill(self) -> None:
        """SIGKILL: no segment is closed, no client is told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Kill it, and start it on what it has kept."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        self._ports.release()
