"""The backend of the rig: a small HTTP server that can also be put in the wrong place.

Environment: HOST and PORT to listen on, NAME to answer with, MODE `serve` (default) or `idle`.
GET / answers who was asked and by whom, GET /bytes/N answers N bytes, POST reads the body and answers its length.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/bytes/"):
            count = min(int(self.path.removeprefix("/bytes/")), 16 << 20)
            self._answer(200, b"x" * count, "application/octet-stream")
            return
        name = os.environ.get("NAME", "app")
        self._answer(
            200, json.dumps({"name": name, "from": self.client_address[0], "path": self.path}).encode() + b"\n"
        )

    def do_POST(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        read = 0
        while left > read and (chunk := self.rfile.read(min(65536, left - read))):
            read += len(chunk)
        self._answer(200, json.dumps({"received": read}).encode() + b"\n")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.environ.get("MODE") == "idle":
        while True:
            time.sleep(3600)
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))
    ThreadingHTTPServer(address, Handler).serve_forever()


main()
