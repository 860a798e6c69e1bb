"""A process as the supervisor sees it: answers HTTP on its port, ends at SIGTERM, and says both in its log."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn
from urllib.parse import urlsplit

ANSWERS = {
    "/readyz": {},
    "/api/partitions": {
        "partitions": [
            {
                "partition": partition,
                "shard": f"shard-{partition % 2}",
                "epoch": 1,
                "offset": 100,
                "end_offset": 103,
                "tokens": 7,
                "current": True,
                "snapshot_at_ms": None,
            }
            for partition in range(6)
        ],
        "missing": [],
    },
    "/api/overview": {
        "tokens": [{"token": "WETH", "volume_usd": "12.345678", "trades": 3, "buy_trades": 2, "sell_trades": 1}]
    },
}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = json.dumps(ANSWERS[urlsplit(self.path).path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the inherited name
        """Requests aren't worth a line."""


def stop(number: int, frame: object) -> NoReturn:
    sys.stdout.write(f"ended by {signal.Signals(number).name}\n")
    sys.exit(0)


def argument(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


def http_server() -> ThreadingHTTPServer:
    port = int(argument("--http-port" if "--http-port" in sys.argv else "--port"))
    sys.stdout.write(f"serving {sys.argv[1:]}\n")
    return ThreadingHTTPServer(("127.0.0.1", port), Answers)


def serve() -> None:
    signal.signal(signal.SIGTERM, stop)
    with http_server() as server:
        server.serve_forever()
