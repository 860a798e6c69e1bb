"""The process as it is started: against a real NATS, without Redis, until SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.api.conftest import free_port
from tests.api.owner_model import Owner
from tests.api.running import Socket, home
from tests.api.sites import INSTANCE, nats_site, tick, until, wall_ms

TOKEN = "USDC"


async def test_serve_survive_a_stop_signal_and_drain(nats_url: str, tmp_path: Path) -> None:
    port = free_port()
    resource = {
        "apiVersion": "swapstats.io/v1alpha1",
        "kind": "SwapStats",
        "metadata": {"name": "test"},
        "spec": {
            "instance": INSTANCE,
            "windows": ["5m", "1h"],
            "source": {"topic": {"partitions": 4}},
            "stores": {"nats": {"url": nats_url}, "redis": {"url": f"redis://127.0.0.1:{free_port()}/0"}},
        },
    }
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(resource))
    command = [sys.executable, "-m", "swapstats_api", "--spec", str(spec), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, env=environment)  # noqa: ASYNC220 - returns as soon as it is forked
    try:
        async with nats_site(nats_url) as site:
            owner = Owner(home(TOKEN), 1, as_of_ms=wall_ms(), trades={TOKEN: 1})
            await site.serve(owner)

            async def reachable() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.poll() is None
                    return False
                writer.close()
                return True

            await until(reachable, within_s=20)
            async with connect(f"ws://127.0.0.1:{port}/ws", compression=None) as connection:
                ws = Socket(connection)
                await ws.say({"subscribe": f"token:{TOKEN}"})
                first = await ws.hear()
                while first["type"] == "error":  # NATS may not be connected yet
                    assert first["code"] == "unavailable"
                    await ws.say({"subscribe": f"token:{TOKEN}"})
                    first = await ws.hear()
                os.kill(process.pid, signal.SIGSTOP)
                owner.apply([TOKEN], wall_ms())
                await tick(site, owner)
                await site.settled()
                os.kill(process.pid, signal.SIGCONT)
                patch = await ws.hear()
                assert (patch["type"], int(patch["seq"])) == ("patch", int(first["seq"]) + 1)
                process.terminate()
                with pytest.raises(ConnectionClosed) as closed:
                    await ws.hear()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                    1012,
                    "the server restarts: connect again",
                )
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()
        process.wait(5)


@pytest.mark.parametrize("text", ["{", "kind: Other\n", "[]"])
def test_a_wrong_resource_is_said_and_refused(tmp_path: Path, text: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "swapstats_api", "--spec", str(spec), "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("swapstats_api: ")
    assert "Traceback" not in ended.stderr
