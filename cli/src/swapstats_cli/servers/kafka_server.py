"""``python -m swapstats_cli.servers.kafka_server``: Apache Kafka in one process, broker and controller.

It writes the configuration, formats the folder if that was never done, and becomes the server: the process id stays.
Everything in the folder is named relative to it, since Kafka's settings give commas and backslashes a meaning.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Final

from swapstats_cli.servers import launch

LOOPBACK: Final = "127.0.0.1"
NODE_ID: Final = 1
USER: Final = "swapstats"
"""Who a password belongs to."""
CONFIGURATION: Final = Path("server.properties")
FORMATTED: Final = Path("data", "meta.properties")
"""Written last, so that a format which was killed is repeated."""
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": NODE_ID,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # A misspelt name must be an error, not a topic with a partition count of the broker's choosing.
    "auto.create.topics.enable": "false",
    # One node: there is nobody else to hold a copy.
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "log.dirs": "data",
    # Internal topics of 50 partitions each would be most of the start.
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.num.partitions": 1,
    # The recorder is the only member of its group, so there is nobody to wait for.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1_000,
    # The controller takes a killed broker's successor only when the session of the killed one is over.
    "broker.session.timeout.ms": 2_000,
    "broker.heartbeat.interval.ms": 250,
    # A laptop's share of threads and memory.
    "num.network.threads": 2,
    "num.io.threads": 2,
    "num.recovery.threads.per.data.dir": 2,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
}
_JVM: Final = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # ready a fifth sooner, and no second compiler beside our own work
    "-XX:-UsePerfData",  # no file in the system's temporary folder, which a kill would leave behind
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def settings(listener: str, advertised: str, controller_port: int, password: str | None) -> str:
    """The content of ``server.properties``. Clients find the server at ``advertised``, however they reached it; with a
    ``password``, they must be `USER`.
    """
    controller = f"{LOOPBACK}:{controller_port}"  # nobody but this process has business there
    every = _SETTINGS | {
        "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{advertised}",
        "controller.quorum.voters": f"{NODE_ID}@{controller}",
    }
    if password is not None:
        every |= _with_password(password)
    return "".join(f"{name}={value}\n" for name, value in every.items())


def _with_password(password: str) -> dict[str, object]:
    """It asks everybody, itself too. A password may have no character that a quoted text would escape."""
    login = f'username="{USER}" password="{password}" user_{USER}="{password}"'
    module = f"org.apache.kafka.common.security.plain.PlainLoginModule required {login};"
    return {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": module,
        "listener.name.controller.plain.sasl.jaas.config": module,
    }


def java_command(java: str, jars: Path, main_class: str, *arguments: str) -> list[str]:
    """A main class among the jars."""
    return [java, *_JVM, "-cp", f"{jars}/*", main_class, *arguments]


def format_storage(java: str, jars: Path) -> None:
    """Give this folder a cluster id and what belongs to it. Raises CalledProcessError."""
    options = [f"--cluster-id={uuid.uuid4()}", f"--config={CONFIGURATION}", "--ignore-formatted"]
    command = java_command(java, jars, "kafka.tools.StorageTool", "format", *options)
    subprocess.run([sys.executable, "-ISE", launch.__file__, str(os.getpid()), *command], check=True)  # noqa: S603 - ours


def main() -> None:
    """Become the server; exit code 1 with one line when the folder can't be prepared."""
    parser = argparse.ArgumentParser(prog="swapstats_cli.servers.kafka_server", description="Run Apache Kafka.")
    parser.add_argument("--java", required=True, help="the Java program")
    parser.add_argument("--jars", type=Path, required=True, help="folder of Kafka's jars")
    parser.add_argument("--data-dir", type=Path, required=True, help="where Kafka keeps its data")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--advertised", required=True, help="where clients are told to find it, HOST:PORT")
    parser.add_argument("--controller-port", type=int, required=True, help="port of the controller")
    parser.add_argument("--password-file", type=Path, help=f"file with the password of the user {USER}; else none")
    parser.add_argument("--override", action="append", default=[], help="a setting of Kafka's that wins, NAME=VALUE")
    to = parser.parse_args()
    try:
        password = None if to.password_file is None else to.password_file.read_text(encoding="utf-8").rstrip("\n")
        to.data_dir.mkdir(parents=True, exist_ok=True)
        os.chdir(to.data_dir)
        CONFIGURATION.touch(mode=0o600)
        CONFIGURATION.chmod(0o600)
        content = settings(f"{to.host}:{to.port}", to.advertised, to.controller_port, password)
        CONFIGURATION.write_text(content, encoding="utf-8")
        if not FORMATTED.exists():
            format_storage(to.java, to.jars)
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"kafka server: {to.data_dir} can't be prepared: {error}")
    overrides = [part for each in to.override for part in ("--override", each)]
    os.execv(to.java, java_command(to.java, to.jars, "kafka.Kafka", str(CONFIGURATION), *overrides))  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
